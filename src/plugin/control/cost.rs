//! The one estimate of a model's cost, from measurements and from what its windows are observed to take.

use std::time::{Duration, Instant};

use super::decide::MeasureState;
use crate::live::plan::MeasuredCost;

/// Factor by which observed and measured cost may differ.
const TOLERANCE: f64 = 1.4;
/// Factor by which the slowest of the observed windows may exceed the measured cost. Deadlines have this margin.
const PERCENTILE_TOLERANCE: f64 = 2.0;
/// Time until a measurement is tried again that found no room beside the streams that play.
const POSTPONE: Duration = Duration::from_secs(10);
/// Windows after which an observation counts.
const MIN_WINDOWS: u64 = 12;
/// Shortest time between two measurements made because of a doubt. It doubles with each that does not end the doubt.
const MIN_RETRY: Duration = Duration::from_secs(60);
const MAX_RETRY: Duration = Duration::from_secs(3_600);

/// What is known of the cost of the loaded model. Banner, tiers, footer and the Auto tier all use [`current`](Self::current).
#[derive(Clone, Debug, Default)]
pub(super) struct CostEstimate {
    measured: Option<MeasuredCost>,
    /// The measurement was made while something else ran.
    measured_while_busy: bool,
    /// The latest observation that contradicts the measurement.
    observed: Option<MeasuredCost>,
    impossible: bool,
    retry: Option<(Instant, Duration)>,
    postponed_until: Option<Instant>,
}

impl CostEstimate {
    /// For a model whose cost was stored earlier, or is not known.
    pub fn new(stored: Option<MeasuredCost>) -> Self {
        Self { measured: stored, ..Self::default() }
    }

    /// The measurement.
    pub fn measured(&self) -> Option<MeasuredCost> {
        self.measured
    }

    /// The best estimate.
    pub fn current(&self) -> Option<MeasuredCost> {
        self.observed.or(self.measured)
    }

    /// Takes a new measurement. `None`: the model cannot be measured.
    pub fn set_measured(&mut self, measured: Option<MeasuredCost>, while_busy: bool, now: Instant) {
        if self.measured_while_busy || self.observed.is_some() {
            let wait = self.retry.map_or(MIN_RETRY, |(_, wait)| (2 * wait).min(MAX_RETRY));
            self.retry = Some((now, wait));
        }
        self.impossible = measured.is_none();
        self.postponed_until = None;
        self.measured = measured.or(self.measured);
        self.measured_while_busy = while_busy;
        self.observed = None;
    }

    /// The streams that play left no room for a measurement. It is tried again later.
    pub fn postpone(&mut self, now: Instant) {
        self.postponed_until = Some(now + POSTPONE);
    }

    /// Takes the observed run time of the stream's windows: the average over `windows` of them, and a high percentile.
    pub fn observe(&mut self, average: MeasuredCost, percentile: MeasuredCost, windows: u64) {
        let valid = |cost: MeasuredCost| cost.seconds.is_finite() && cost.seconds > 0.0;
        if windows < MIN_WINDOWS || !valid(average) || !valid(percentile) {
            return;
        }
        let is_slow_at_times =
            |measured| ratio(percentile, measured) > PERCENTILE_TOLERANCE && !differs(measured, average);
        let observed = if self.measured.is_some_and(is_slow_at_times) { percentile } else { average };
        if self.measured.is_some_and(|measured| !differs(measured, observed)) {
            self.observed = None;
        } else if self.observed.is_none_or(|before| differs(before, observed)) {
            // Small changes are ignored, so that the plan does not follow every fluctuation.
            self.observed = Some(observed);
        }
    }

    /// When a measurement that is due may be made, if that is later.
    pub fn next_retry(&self, now: Instant) -> Option<Instant> {
        let retry = self.retry.map(|(at, wait)| at + wait).filter(|_| self.is_doubtful());
        self.postponed_until.max(retry).filter(|at| *at > now)
    }

    fn is_doubtful(&self) -> bool {
        self.measured_while_busy || self.observed.is_some()
    }

    pub fn state(&self, now: Instant) -> MeasureState {
        let doubtful = self.is_doubtful();
        let may_retry = self.retry.is_none_or(|(at, wait)| now.duration_since(at) >= wait);
        let postponed = self.postponed_until.is_some_and(|until| now < until);
        match self.measured {
            None if self.impossible || postponed => MeasureState::Impossible,
            Some(_) if postponed => MeasureState::Known,
            None => MeasureState::Unknown,
            Some(_) if doubtful && may_retry => MeasureState::Doubtful,
            Some(_) => MeasureState::Known,
        }
    }
}

/// Ratio of two costs of a sample.
fn ratio(a: MeasuredCost, b: MeasuredCost) -> f64 {
    let per_sample = |cost: MeasuredCost| cost.seconds / cost.window.0.max(1) as f64;
    per_sample(a) / per_sample(b).max(f64::MIN_POSITIVE)
}

fn differs(a: MeasuredCost, b: MeasuredCost) -> bool {
    !(1.0 / TOLERANCE..=TOLERANCE).contains(&ratio(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::ModelSamples;

    fn cost(seconds: f64) -> MeasuredCost {
        MeasuredCost { window: ModelSamples(100_000), seconds, per_hop: 0.0 }
    }

    #[test]
    fn an_observation_that_contradicts_the_measurement_replaces_it_until_the_next_one() {
        let now = Instant::now();
        let mut estimate = CostEstimate::new(Some(cost(1.85)));
        estimate.observe(cost(0.61), cost(0.61), MIN_WINDOWS - 1);
        assert_eq!(estimate.current(), Some(cost(1.85)), "too few windows");
        estimate.observe(cost(0.61), cost(0.61), MIN_WINDOWS);
        assert_eq!((estimate.current(), estimate.state(now)), (Some(cost(0.61)), MeasureState::Doubtful));
        estimate.observe(cost(0.63), cost(0.63), 100);
        assert_eq!(estimate.current(), Some(cost(0.61)), "a fluctuation");
        estimate.set_measured(Some(cost(0.6)), false, now);
        assert_eq!((estimate.current(), estimate.state(now)), (Some(cost(0.6)), MeasureState::Known));
    }

    #[test]
    fn an_observation_that_agrees_changes_nothing() {
        let mut estimate = CostEstimate::new(Some(cost(1.0)));
        let half = MeasuredCost { window: ModelSamples(50_000), seconds: 0.55, per_hop: 0.0 };
        estimate.observe(half, half, 1_000);
        assert_eq!(
            (estimate.current(), estimate.state(Instant::now())),
            (Some(cost(1.0)), MeasureState::Known)
        );
        estimate.observe(cost(3.0), cost(3.0), 1_000);
        estimate.observe(half, half, 2_000);
        assert_eq!(estimate.current(), Some(cost(1.0)), "the disagreement has ended");
    }

    #[test]
    fn a_measurement_made_while_busy_is_repeated_but_not_for_ever() {
        let start = Instant::now();
        let mut estimate = CostEstimate::new(None);
        assert_eq!(estimate.state(start), MeasureState::Unknown);
        estimate.set_measured(Some(cost(2.0)), true, start);
        assert_eq!(estimate.state(start), MeasureState::Doubtful);
        let mut now = start;
        for round in 0..4 {
            estimate.set_measured(Some(cost(2.0)), true, now);
            assert_eq!(estimate.state(now), MeasureState::Known, "{round}");
            now += MIN_RETRY * 2u32.pow(round);
            assert_eq!(estimate.state(now), MeasureState::Doubtful, "{round}");
        }
        estimate.set_measured(Some(cost(1.0)), false, now);
        assert_eq!(estimate.state(now + MAX_RETRY), MeasureState::Known);
    }

    #[test]
    fn windows_that_are_slow_at_times_contradict_beyond_the_margin_of_deadlines() {
        let mut estimate = CostEstimate::new(Some(cost(1.0)));
        estimate.observe(cost(1.2), cost(1.9), 1_000);
        assert_eq!(estimate.current(), Some(cost(1.0)), "within the margin");
        estimate.observe(cost(1.2), cost(2.2), 1_000);
        assert_eq!(estimate.current(), Some(cost(2.2)));
        estimate.observe(cost(1.2), cost(1.9), 1_000);
        assert_eq!(estimate.current(), Some(cost(1.0)));
    }

    #[test]
    fn a_measurement_that_finds_no_room_is_tried_again_later() {
        let now = Instant::now();
        let mut estimate = CostEstimate::new(None);
        estimate.postpone(now);
        assert_eq!(estimate.state(now), MeasureState::Impossible);
        estimate.observe(cost(0.5), cost(0.6), 1_000);
        assert_eq!(estimate.current(), Some(cost(0.5)), "the windows show the cost meanwhile");
        assert_eq!(estimate.state(now + POSTPONE), MeasureState::Unknown);
        assert_eq!(estimate.next_retry(now), Some(now + POSTPONE));
        assert_eq!(estimate.next_retry(now + POSTPONE), None, "it may be made now");
        estimate.set_measured(Some(cost(0.5)), false, now);
        assert_eq!(estimate.state(now), MeasureState::Known);
    }

    #[test]
    fn a_model_that_cannot_be_measured_is_not_tried_again() {
        let now = Instant::now();
        let mut estimate = CostEstimate::new(None);
        estimate.set_measured(None, false, now);
        assert_eq!((estimate.current(), estimate.state(now)), (None, MeasureState::Impossible));
    }

    #[test]
    fn nonsense_is_not_an_observation() {
        let mut estimate = CostEstimate::new(Some(cost(1.0)));
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            estimate.observe(cost(seconds), cost(3.0), 1_000);
            estimate.observe(cost(3.0), cost(seconds), 1_000);
            assert_eq!(estimate.current(), Some(cost(1.0)));
        }
    }
}
