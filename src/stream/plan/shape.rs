//! Windows by their measures: those of the tiers, and those that somebody has set by hand.

use serde::{Deserialize, Serialize};

use super::{Deadline, HostSamples, Measured, ModelSamples, ModelTiming, PlanRequest};

/// Window, hop and lookahead in seconds, so that they mean the same for every model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// W: what the model sees at once. No more than the model's chunk is used.
    pub window: f64,
    /// H: new audio per window.
    pub hop: f64,
    /// A: right context of what is kept.
    pub lookahead: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { window: 4.0, hop: 1.0, lookahead: 0.4 }
    }
}

impl Shape {
    /// Shortest and longest of each, in seconds.
    pub const WINDOW: (f64, f64) = (0.2, 20.0);
    /// As [`WINDOW`](Self::WINDOW).
    pub const HOP: (f64, f64) = (0.01, 10.0);
    /// As [`WINDOW`](Self::WINDOW).
    pub const LOOKAHEAD: (f64, f64) = (0.0, 5.0);

    /// Within bounds, whatever a session says: a window holds its hop and its lookahead.
    #[must_use]
    pub fn sane(self) -> Self {
        let within = |x: f64, (least, most): (f64, f64), instead: f64| {
            if x.is_finite() { x.clamp(least, most) } else { instead }
        };
        let instead = Self::default();
        let window = within(self.window, Self::WINDOW, instead.window);
        let hop = within(self.hop, Self::HOP, instead.hop).min(0.5 * window);
        let lookahead = within(self.lookahead, Self::LOOKAHEAD, instead.lookahead).min(window - hop);
        Self { window, hop, lookahead }
    }

    /// The plan to ask for, as [`Tier::request`](super::Tier::request).
    pub fn request(self, model: &ModelTiming, host_rate: u32, max_block: HostSamples) -> PlanRequest {
        let Self { window, hop, lookahead } = self.sane();
        let samples = |seconds: f64| seconds * f64::from(model.rate);
        let longest = samples(window).min(model.chunk.0.max(1) as f64);
        // A model of shorter chunks has less room for both.
        let hop = samples(hop).min(0.5 * longest);
        let lookahead = samples(lookahead).min(longest - hop);
        of_samples(model, host_rate, max_block, [longest, hop, lookahead])
    }

    /// As [`Tier::load`](super::Tier::load).
    pub fn load(self, model: &ModelTiming, measured: Measured) -> f64 {
        measured.load(&self.request(model, model.rate, HostSamples(1)))
    }
}

/// A request of these model samples: window, hop, lookahead. All become whole frames, so that windows put their frames at the same places.
pub(super) fn of_samples(
    model: &ModelTiming,
    host_rate: u32,
    max_block: HostSamples,
    [window, hop, lookahead]: [f64; 3],
) -> PlanRequest {
    let frame_hop = model.frame_hop.0.max(1);
    let frames =
        |samples: f64| ModelSamples((samples / frame_hop as f64).round().max(1.0) as u64 * frame_hop);
    let least = ModelSamples((model.frame.0 / 2).next_multiple_of(frame_hop));
    let hop = frames(hop);
    let lookahead = frames(lookahead).max(least);
    // A very short chunk does not hold what its own transform asks for.
    let window = frames(window).max(hop * 2 + lookahead);
    PlanRequest {
        host_rate,
        model_rate: model.rate,
        window,
        hop,
        lookahead,
        fade: ModelSamples(lookahead.0 / 2),
        deadline: Deadline::WholeHop,
        max_block,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::super::tier::tests::timing;
    use super::*;

    #[test]
    fn whatever_a_session_says_of_a_window_is_a_plan() {
        let values = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-9, 0.01, 0.3, 1.0, 7.0, 1e9];
        for chunk in [1, 30_000, 352_800, 2_000_000] {
            for rate in [44_100, 48_000, 192_000] {
                for window in values {
                    for hop in values {
                        for lookahead in values {
                            let shape = Shape { window, hop, lookahead };
                            let request = shape.request(&timing(chunk), rate, HostSamples(512));
                            assert!(Plan::new(request).is_ok(), "{shape:?}, chunk {chunk}, {rate} Hz");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_by_hand_has_the_latency_and_the_load_of_its_measures() {
        let shape = Shape { window: 2.0, hop: 0.25, lookahead: 0.1 };
        let plan = Plan::new(shape.request(&timing(352_800), 44_100, HostSamples(441))).unwrap();
        // Twice the hop, the lookahead, a block, and the time to notice.
        assert!((plan.latency_ms() - (500.0 + 100.0 + 10.0 + 2.0)).abs() < 11.0, "{}", plan.latency_ms());
        let measured = Measured { window: ModelSamples(88_200), seconds: 0.1 };
        assert!((shape.load(&timing(352_800), measured) - 0.4).abs() < 0.01);
    }
}
