//! The time that a hop may take from its last input sample to its stems.

use super::{MeasuredCost, PlanRequest};

/// Margin over a measured cost: caches are cold, and the host uses the processor too.
pub(super) const MARGIN: f64 = 2.0;
/// Share of a hop for other streams that are served first.
const QUEUEING_SHARE: f64 = 0.25;
/// Longest allowance for other streams, in seconds.
const MAX_QUEUEING: f64 = 0.06;
/// Ratio of neighbouring deadlines. Coarse, so that two measurements of one device give the same latency.
const STEP: f64 = std::f64::consts::SQRT_2;
/// The shortest deadline in seconds; all others are this one times a power of `STEP`.
const SHORTEST: f64 = 0.002;

/// Time allowed for computing one hop.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Deadline {
    /// One hop: any device that keeps up at all is on time.
    #[default]
    WholeHop,
    /// A number of seconds, for a device that is much faster than real time.
    Seconds(f64),
}

impl Deadline {
    /// The deadline for hops of `hop` seconds that rarely cost more than `cost` seconds: the cost with a margin and an allowance for other
    /// streams, rounded up to a coarse step. Never more than a hop.
    pub fn measured(cost: f64, hop: f64) -> Self {
        let wanted = MARGIN * cost + (QUEUEING_SHARE * hop).min(MAX_QUEUEING);
        let mut seconds = SHORTEST;
        while seconds < wanted && seconds < hop {
            seconds *= STEP;
        }
        if seconds < hop && seconds >= wanted { Self::Seconds(seconds) } else { Self::WholeHop }
    }
}

impl PlanRequest {
    /// The same request with a deadline from a cost that was measured on this device, instead of a whole hop.
    #[must_use]
    pub fn with_measured_deadline(self, cost: MeasuredCost) -> Self {
        let hop = self.hop.seconds(self.model_rate.max(1));
        Self { deadline: Deadline::measured(cost.of_hop(&self), hop), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_the_cost_in_coarse_steps_up_to_a_hop() {
        assert_eq!(Deadline::measured(0.5, 0.743), Deadline::WholeHop);
        assert_eq!(Deadline::measured(f64::INFINITY, 0.743), Deadline::WholeHop);
        assert_eq!(Deadline::measured(f64::NAN, 0.743), Deadline::WholeHop);
        let Deadline::Seconds(high) = Deadline::measured(0.035, 0.743) else { panic!("a whole hop") };
        assert!((0.13..0.2).contains(&high), "{high}");
        let mut before = 0.0;
        let mut steps = 0;
        for i in 1..1_000 {
            let cost = 1e-4 * f64::from(i);
            let Deadline::Seconds(seconds) = Deadline::measured(cost, 1.0) else { panic!("a whole hop") };
            assert!(seconds > MARGIN * cost && seconds < STEP * (MARGIN * cost + MAX_QUEUEING) + SHORTEST);
            assert!(seconds >= before);
            steps += u32::from(seconds > before);
            before = seconds;
        }
        assert!(steps <= 6, "{steps}");
    }
}
