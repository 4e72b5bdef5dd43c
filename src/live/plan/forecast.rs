//! What live separation with a model would cost, told before the model is there: from the sizes of its network and the speed of this machine.

use super::{HostSamples, ModelTiming, PlanRequest, SUSTAINABLE_LOAD, Tier};
use crate::model::architecture::Architecture;
use crate::model::context::hop_flops;

/// Predicted loads of the tiers.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveForecast {
    /// Every tier that the model has, lowest latency first, and its load as a share of real time.
    pub loads: Vec<(Tier, f64)>,
    /// Whether hops keep their context. If not, each repeats a whole window.
    pub keeps_context: bool,
}

impl LiveForecast {
    /// For a network of `arch` at `timing`, on a machine that computes `speed` floating-point operations a second in such networks; see
    /// [`measure_speed`](super::super::measure_speed).
    pub fn new(arch: &Architecture, timing: &ModelTiming, speed: f64) -> Self {
        let load = |tier: Tier| {
            let request = tier.request(timing, timing.rate, HostSamples(1));
            flops_a_hop(arch, &request) / speed.max(1.0) / request.hop.seconds(timing.rate.max(1))
        };
        Self {
            loads: Tier::all_for(timing).map(|tier| (tier, load(tier))).collect(),
            keeps_context: timing.context.is_some(),
        }
    }

    /// The tier of lowest latency that this machine sustains; none if the model is too slow for live use.
    pub fn lowest_latency(&self) -> Option<Tier> {
        self.loads.iter().find(|(_, load)| *load <= SUSTAINABLE_LOAD).map(|(tier, _)| *tier)
    }
}

impl std::fmt::Display for LiveForecast {
    /// `live`, `low`, `high only`, or `too slow`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lowest_latency() {
            None => f.write_str("too slow"),
            Some(Tier::High) => f.write_str("high only"),
            Some(tier) => tier.fmt(f),
        }
    }
}

/// Floating-point operations of a hop.
fn flops_a_hop(arch: &Architecture, request: &PlanRequest) -> f64 {
    match request.context {
        Some(context) => {
            let plan = context.plan;
            let wanted = plan.hop_frames + plan.lookahead_frames;
            hop_flops(arch, wanted + plan.margin_frames, wanted, plan.context_frames)
        }
        None => arch.flops(request.window.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::ModelSamples;
    use crate::separator::FrameTiming;

    #[test]
    fn the_default_architecture_needs_a_fast_machine_and_kept_context_makes_it_cheaper() {
        let arch = Architecture::reference_default();
        let stft = arch.stft;
        let kept = ModelTiming {
            rate: 44_100,
            chunk: ModelSamples(352_800),
            frame_hop: ModelSamples(441),
            frame: ModelSamples(2_048),
            context: Some(FrameTiming::new(stft)),
        };
        let repeated = ModelTiming { context: None, ..kept };
        let text = |timing: &ModelTiming, speed: f64| LiveForecast::new(&arch, timing, speed).to_string();
        // One pass takes about 0.5 TFLOP a second of audio.
        assert_eq!(text(&kept, 1e10), "too slow");
        assert_eq!(text(&repeated, 1e12), "too slow");
        assert_eq!(text(&kept, 1e12), "high only");
        assert_eq!(text(&repeated, 1e14), "low");
        assert_eq!(text(&kept, 1e14), "live");
        let high = |timing| LiveForecast::new(&arch, timing, 1e12).loads.last().map(|(_, load)| *load);
        assert!(high(&kept).unwrap() < 0.7 * high(&repeated).unwrap());
    }
}
