//! Window, hop and lookahead in seconds: the measures of a tier, or those that a user sets in *Custom*.

use serde::{Deserialize, Serialize};

use super::{Deadline, HostSamples, KeptContext, MeasuredCost, ModelSamples, ModelTiming, PlanRequest};
use crate::separator::{ContextPlan, FrameTiming};

/// Window, hop and lookahead in seconds, so that they mean the same for every model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowSpec {
    /// W: the model's input window. At most the model's chunk length is used.
    pub window: f64,
    /// H: new audio per window.
    pub hop: f64,
    /// A: right context of the samples that become final.
    pub lookahead: f64,
}

impl Default for WindowSpec {
    fn default() -> Self {
        Self { window: 4.0, hop: 1.0, lookahead: 0.4 }
    }
}

impl WindowSpec {
    /// Shortest and longest of each, in seconds.
    pub const WINDOW: (f64, f64) = (0.2, 20.0);
    /// As [`WINDOW`](Self::WINDOW).
    pub const HOP: (f64, f64) = (0.01, 10.0);
    /// As [`WINDOW`](Self::WINDOW).
    pub const LOOKAHEAD: (f64, f64) = (0.0, 5.0);

    /// Clamps all values to their ranges, so that a window always holds its hop and its lookahead. A saved state may hold anything.
    #[must_use]
    pub fn clamped(self) -> Self {
        let within = |x: f64, (least, most): (f64, f64), instead: f64| {
            if x.is_finite() { x.clamp(least, most) } else { instead }
        };
        let instead = Self::default();
        let window = within(self.window, Self::WINDOW, instead.window);
        let hop = within(self.hop, Self::HOP, instead.hop).min(0.5 * window);
        let lookahead = within(self.lookahead, Self::LOOKAHEAD, instead.lookahead).min(window - hop);
        Self { window, hop, lookahead }
    }

    /// The plan request for a model, as [`Tier::request`](super::Tier::request).
    pub fn request(self, model: &ModelTiming, host_rate: u32, max_block: HostSamples) -> PlanRequest {
        let Self { window, hop, lookahead } = self.clamped();
        let samples = |seconds: f64| seconds * f64::from(model.rate);
        let chunk = model.chunk.0.max(1) as f64;
        if let Some(timing) = model.context {
            let seconds = [window - hop - lookahead, hop, lookahead];
            return from_frames(model, host_rate, max_block, timing, seconds);
        }
        let longest = samples(window).min(chunk);
        // A model of shorter chunks has less room for both.
        let hop = samples(hop).min(0.5 * longest);
        let lookahead = samples(lookahead).min(longest - hop);
        from_samples(model, host_rate, max_block, [longest, hop, lookahead])
    }

    /// As [`Tier::load`](super::Tier::load).
    pub fn load(self, model: &ModelTiming, measured: MeasuredCost) -> f64 {
        measured.load(&self.request(model, model.rate, HostSamples(1)))
    }
}

/// A request from window, hop and lookahead in model samples. All are rounded to whole STFT frames, so that the frames of successive windows coincide.
pub(super) fn from_samples(
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
    // A very short chunk can be shorter than its own transform needs.
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
        context: None,
    }
}

/// Seconds over which hops with kept context take over from others.
const CONTEXT_FADE: f64 = 0.006;

/// A request for kept context, from context, hop and lookahead in seconds. All become whole STFT frames. The context is at most as long as
/// the chunks that the model was trained on.
pub(super) fn from_frames(
    model: &ModelTiming,
    host_rate: u32,
    max_block: HostSamples,
    timing: FrameTiming,
    [context, hop, lookahead]: [f64; 3],
) -> PlanRequest {
    let frame_seconds = timing.hop_length() as f64 / f64::from(model.rate.max(1));
    let frames = |seconds: f64| (seconds / frame_seconds).round().max(1.0) as usize;
    let (hop_frames, lookahead_frames) = (frames(hop), frames(lookahead));
    let context_frames = frames(context.min(model.chunk.seconds(model.rate.max(1))));
    let plan = ContextPlan { hop_frames, lookahead_frames, context_frames, ..ContextPlan::default() };
    PlanRequest {
        host_rate,
        model_rate: model.rate,
        // Described by the context.
        window: ModelSamples(0),
        hop: ModelSamples(0),
        lookahead: ModelSamples(0),
        fade: ModelSamples((CONTEXT_FADE * f64::from(model.rate)) as u64),
        deadline: Deadline::WholeHop,
        max_block,
        context: Some(KeptContext { plan, timing }),
    }
    .described()
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::super::tier::tests::timing;
    use super::*;

    #[test]
    fn any_saved_window_spec_gives_a_valid_plan() {
        let values = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-9, 0.01, 0.3, 1.0, 7.0, 1e9];
        for chunk in [1, 30_000, 352_800, 2_000_000] {
            for rate in [44_100, 48_000, 192_000] {
                for window in values {
                    for hop in values {
                        for lookahead in values {
                            let window_spec = WindowSpec { window, hop, lookahead };
                            let request = window_spec.request(&timing(chunk), rate, HostSamples(512));
                            assert!(Plan::new(request).is_ok(), "{window_spec:?}, chunk {chunk}, {rate} Hz");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn custom_window_has_the_expected_latency_and_load() {
        let window_spec = WindowSpec { window: 2.0, hop: 0.25, lookahead: 0.1 };
        let plan = Plan::new(window_spec.request(&timing(352_800), 44_100, HostSamples(441))).unwrap();
        // Twice the hop, the lookahead, a block, and the polling interval.
        assert!((plan.latency_ms() - (500.0 + 100.0 + 10.0 + 2.0)).abs() < 11.0, "{}", plan.latency_ms());
        let measured = MeasuredCost { window: ModelSamples(88_200), seconds: 0.1, per_hop: 0.0 };
        assert!((window_spec.load(&timing(352_800), measured) - 0.4).abs() < 0.01);
    }
}
