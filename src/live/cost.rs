//! The measured cost of a stream's hops.

/// Hops that are remembered.
const REMEMBERED: usize = 64;
/// Share of a new measurement in the average.
const NEW_SHARE: f64 = 0.2;

/// Cost of the last hops in seconds. Silent hops cost nothing and are not recorded.
#[derive(Debug, Default)]
pub(super) struct CostTracker {
    last: Vec<f64>,
    next: usize,
    average: Option<f64>,
}

impl CostTracker {
    pub(super) fn record(&mut self, seconds: f64) {
        match self.last.get_mut(self.next) {
            Some(cell) => *cell = seconds,
            None => self.last.push(seconds),
        }
        self.next = (self.next + 1) % REMEMBERED;
        // The first hop meets cold caches and untouched memory: the second replaces it.
        self.average = Some(match self.average {
            Some(average) if self.last.len() > 2 => average + NEW_SHARE * (seconds - average),
            Some(average) => average.min(seconds),
            None => seconds,
        });
    }

    /// Begins again with the last recorded cost.
    pub(super) fn forget_all_but_latest(&mut self) {
        let latest = self.latest();
        self.clear();
        latest.into_iter().for_each(|seconds| self.record(seconds));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The last recorded cost.
    pub(super) fn latest(&self) -> Option<f64> {
        let before = self.next.checked_sub(1).unwrap_or(self.last.len().saturating_sub(1));
        self.last.get(before).copied()
    }

    /// Number of recorded hops, up to `REMEMBERED`.
    pub(super) fn count(&self) -> usize {
        self.last.len()
    }

    /// Smoothed cost; none before the first hop.
    pub(super) fn average(&self) -> Option<f64> {
        self.average
    }

    /// The cost that `share` of the last hops did not exceed.
    pub(super) fn percentile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.last.clone();
        sorted.sort_by(f64::total_cmp);
        let index = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(index.clamp(1, sorted.len().max(1)) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_hops_only() {
        let mut costs = CostTracker::default();
        assert_eq!((costs.percentile(0.9), costs.average()), (None, None));
        (0..100).for_each(|_| costs.record(9.0));
        (1..=REMEMBERED).for_each(|i| costs.record(i as f64));
        assert_eq!(costs.percentile(1.0), Some(64.0));
        assert_eq!(costs.percentile(0.5), Some(32.0));
        assert_eq!(costs.percentile(0.0), Some(1.0));
        costs.clear();
        assert_eq!(costs.count(), 0);
    }

    #[test]
    fn the_first_cold_hop_does_not_count_for_long() {
        let mut costs = CostTracker::default();
        costs.record(1.0);
        costs.record(0.1);
        assert_eq!(costs.average(), Some(0.1));
    }
}
