//! Which streams of a process may run: those that can meet their deadlines, up to a common load.

/// Share of the worker's time that all streams may use together.
pub const LOAD_BUDGET: f64 = 0.9;
/// Share of the limits that a suspended stream must stay within before it runs again, so that it does not alternate.
const RESUME_SHARE: f64 = 0.8;
/// A first measurement, on cold caches, may be too high by this factor.
pub(super) const COLD_FACTOR: f64 = 3.0;

/// The demand of one stream on the worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Demand {
    /// Seconds of work for a hop; none before the first measurement.
    pub(super) cost: Option<f64>,
    /// Whether `cost` is a single measurement.
    pub(super) is_first: bool,
    /// Seconds of a hop.
    pub(super) hop: f64,
    /// Seconds from a complete hop to its first sample.
    pub(super) deadline: f64,
    /// Whether the stream is suspended now.
    pub(super) suspended: bool,
    /// Whether the stream is not subject to admission: it renders offline, does not move, or has no model.
    pub(super) exempt: bool,
}

impl Demand {
    /// Share of the worker's time.
    pub(super) fn load(&self) -> f64 {
        if self.exempt { 0.0 } else { self.cost.unwrap_or(0.0) / self.hop }
    }

    /// Whether the stream is on time when it has the worker to itself. A hop that is late by less than half a hop is concealed.
    fn meets_deadline(&self) -> bool {
        let cost = self.cost.unwrap_or(0.0) / if self.is_first { COLD_FACTOR } else { 1.0 };
        let share = if self.suspended { RESUME_SHARE } else { 1.0 };
        cost <= share * (self.deadline + 0.5 * self.hop) && cost <= share * self.hop
    }
}

/// As [`admit`], with a budget for each device; `devices[i]` is that of stream i.
pub(super) fn admit_by_device<D: PartialEq>(demands: &[Demand], devices: &[D]) -> Vec<bool> {
    let mut admitted = vec![false; demands.len()];
    for (index, device) in devices.iter().enumerate() {
        if devices.iter().take(index).any(|before| before == device) {
            continue;
        }
        let same: Vec<_> = (index..demands.len()).filter(|i| devices.get(*i) == Some(device)).collect();
        let theirs: Vec<_> = same.iter().map(|i| demands[*i]).collect();
        same.into_iter().zip(admit(&theirs)).for_each(|(i, may_run)| admitted[i] = may_run);
    }
    admitted
}

/// Which of the streams may run, oldest first: an older stream is not suspended for a younger one.
fn admit(demands: &[Demand]) -> Vec<bool> {
    let mut total = 0.0;
    demands
        .iter()
        .map(|demand| {
            let budget = if demand.suspended { RESUME_SHARE * LOAD_BUDGET } else { LOAD_BUDGET };
            let load = if demand.is_first { demand.load() / COLD_FACTOR } else { demand.load() };
            let admitted = demand.exempt || demand.meets_deadline() && total + load <= budget;
            if admitted {
                total += load;
            }
            admitted
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(cost: f64) -> Demand {
        let cost = Some(cost);
        Demand { cost, is_first: false, hop: 0.1, deadline: 0.1, suspended: false, exempt: false }
    }

    #[test]
    fn streams_are_admitted_up_to_the_budget_oldest_first() {
        // Three instances at 37 %: the third is one too many.
        assert_eq!(admit(&[demand(0.037); 3]), [true, true, false]);
        assert_eq!(admit(&[demand(0.05), demand(0.06), demand(0.03)]), [true, false, true]);
        assert_eq!(admit(&[Demand { exempt: true, ..demand(9.0) }, demand(0.08)]), [true, true]);
        assert_eq!(admit(&[Demand { cost: None, ..demand(0.0) }]), [true]);
    }

    #[test]
    fn every_device_has_a_budget_of_its_own() {
        let streams = [demand(0.06); 4];
        assert_eq!(admit_by_device(&streams, &["cpu"; 4]), [true, false, false, false]);
        assert_eq!(admit_by_device(&streams, &["cpu", "gpu", "cpu", "gpu"]), [true, true, false, false]);
        assert_eq!(admit_by_device(&streams[..3], &["cpu", "gpu", "other"]), [true; 3]);
        assert!(admit_by_device::<u8>(&[], &[]).is_empty());
    }

    #[test]
    fn a_stream_that_cannot_meet_its_deadline_never_runs_whatever_is_free() {
        for cost in [0.11, 1.0, f64::INFINITY] {
            assert_eq!(admit(&[demand(cost), demand(0.05)]), [false, true]);
        }
        // On time on average, but each hop is late by more than can be concealed.
        assert_eq!(admit(&[Demand { deadline: 0.01, ..demand(0.07) }]), [false]);
        assert_eq!(admit(&[Demand { deadline: 0.01, ..demand(0.05) }]), [true]);
    }

    #[test]
    fn a_suspended_stream_needs_a_margin_to_resume_and_a_first_measurement_gets_one() {
        let suspended = |cost| Demand { suspended: true, ..demand(cost) };
        assert_eq!(admit(&[demand(0.085)]), [true]);
        assert_eq!(admit(&[suspended(0.085)]), [false]);
        assert_eq!(admit(&[suspended(0.07)]), [true]);
        assert_eq!(admit(&[Demand { is_first: true, ..demand(0.2) }]), [true]);
        assert_eq!(admit(&[Demand { is_first: true, ..demand(0.4) }]), [false]);
    }
}
