//! Named plans for any model, and the automatic choice among them from a measured cost.

use super::window_spec::{WindowSpec, from_samples};
use super::{HostSamples, ModelSamples, PlanRequest};
use crate::separator::ModelSpec;

/// The properties of a model that a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelTiming {
    /// Sample rate in Hz.
    pub rate: u32,
    /// Samples of the training chunks. Longer windows do not improve the result.
    pub chunk: ModelSamples,
    /// Samples between two frames of its transform.
    pub frame_hop: ModelSamples,
    /// Samples of an STFT frame. Within half a frame of a window's end the STFT reads reflected samples instead of real ones.
    pub frame: ModelSamples,
}

impl ModelTiming {
    /// From a model's description; the weights need not be loaded.
    pub fn of(info: &ModelSpec) -> Self {
        let stft = info.architecture.stft;
        Self {
            rate: info.sample_rate,
            chunk: ModelSamples(info.chunk as u64),
            frame_hop: ModelSamples(stft.hop_length as u64),
            frame: ModelSamples(stft.n_fft as u64),
        }
    }
}

/// Presets that trade latency against load and quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Short hops: lowest latency, sixteen passes over every sample. For a GPU or a small model.
    Low,
    /// Ten passes, with a quarter of the window as lookahead.
    Balanced,
    /// Two passes over long windows: highest latency, lowest load, most context.
    High,
}

/// A measured cost on this device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredCost {
    /// Samples of the timed window.
    pub window: ModelSamples,
    /// Its run time in seconds.
    pub seconds: f64,
}

impl MeasuredCost {
    /// Predicted run time of a window of `request`, in seconds. Cost is assumed to be proportional to the window's length, so measure a long
    /// window.
    pub fn of_window(self, request: &PlanRequest) -> f64 {
        self.seconds * request.window.0 as f64 / self.window.0.max(1) as f64
    }

    /// Predicted load of `request`, as a share of real time.
    pub fn load(self, request: &PlanRequest) -> f64 {
        self.of_window(request) / request.hop.seconds(request.model_rate.max(1))
    }

    /// The cost in a host of `host` channels, if the model separates `model` channels jointly: it then runs once for each group of channels.
    #[must_use]
    pub fn for_channels(self, host: usize, model: usize) -> Self {
        Self { seconds: self.seconds * host.div_ceil(model.max(1)).max(1) as f64, ..self }
    }
}

/// The result of [`Tier::auto`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoChoice {
    /// The tier.
    pub tier: Tier,
    /// Its predicted load, as a share of real time.
    pub load: f64,
    /// Whether the device keeps up with a margin. If false, even [`Tier::High`] is too slow.
    pub sustainable: bool,
}

/// Highest load that leaves a margin on a busy machine.
pub const SUSTAINABLE_LOAD: f64 = 0.7;

impl Tier {
    /// All tiers, lowest latency first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Balanced, Self::High];

    /// Longest window in seconds, and the shares of the window that hop and lookahead take.
    ///
    /// Chosen by the SDR to the true stems that `nullsum-cli tiers --stems` measures for the embedded model, windows of 1.5 s: less than
    /// 0.09 s of lookahead costs up to half a decibel, 0.37 s bring a decibel where drums and bass are dense, and are worth more there
    /// than the same latency spent on the hop, which matters for load. Longer windows keep the shares.
    fn parts(self) -> (f64, f64, f64) {
        match self {
            Self::Low => (3.0, 1.0 / 16.0, 1.0 / 16.0),
            Self::Balanced => (4.0, 1.0 / 10.0, 1.0 / 4.0),
            Self::High => (6.0, 1.0 / 2.0, 1.0 / 8.0),
        }
    }

    /// The plan request for a model.
    pub fn request(self, model: &ModelTiming, host_rate: u32, max_block: HostSamples) -> PlanRequest {
        from_samples(model, host_rate, max_block, self.samples(model))
    }

    /// Window, hop and lookahead in samples of the model.
    fn samples(self, model: &ModelTiming) -> [f64; 3] {
        let (seconds, hop, lookahead) = self.parts();
        let window = (seconds * f64::from(model.rate)).min(model.chunk.0.max(1) as f64);
        [window, window * hop, window * lookahead]
    }

    /// Its window, hop and lookahead for a model: the starting point for *Custom*.
    pub fn window_spec(self, model: &ModelTiming) -> WindowSpec {
        let [window, hop, lookahead] =
            self.samples(model).map(|samples| samples / f64::from(model.rate.max(1)));
        WindowSpec { window, hop, lookahead }
    }

    /// Predicted load of the tier, as a share of real time, from a cost measured on the same device.
    pub fn load(self, model: &ModelTiming, measured: MeasuredCost) -> f64 {
        measured.load(&self.request(model, model.rate, HostSamples(1)))
    }

    /// The tier of lowest latency that keeps up with a margin.
    pub fn auto(model: &ModelTiming, measured: MeasuredCost) -> AutoChoice {
        Self::auto_within(model, measured, SUSTAINABLE_LOAD)
    }

    /// The tier of lowest latency whose load is at most `available`: what other streams of the process leave.
    pub fn auto_within(model: &ModelTiming, measured: MeasuredCost, available: f64) -> AutoChoice {
        let loads = Self::ALL.map(|tier| (tier, tier.load(model, measured)));
        match loads.into_iter().find(|(_, load)| *load <= available) {
            Some((tier, load)) => AutoChoice { tier, load, sustainable: true },
            None => {
                AutoChoice { tier: Self::High, load: Self::High.load(model, measured), sustainable: false }
            }
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Balanced => "balanced",
            Self::High => "high",
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Plan;
    use super::*;

    /// A model with the default transform and chunks of `chunk` samples.
    pub fn timing(chunk: u64) -> ModelTiming {
        ModelTiming {
            rate: 44_100,
            chunk: ModelSamples(chunk),
            frame_hop: ModelSamples(441),
            frame: ModelSamples(2048),
        }
    }

    #[test]
    fn every_tier_is_a_plan_for_every_model_and_rate() {
        for chunk in [1, 2_000, 44_100, 131_584, 352_800, 485_100, 2_000_000] {
            for rate in [44_100, 48_000, 88_200, 96_000, 176_400, 192_000] {
                let latencies = Tier::ALL.map(|tier| {
                    let request = tier.request(&timing(chunk), rate, HostSamples(1024));
                    let plan = Plan::new(request).unwrap();
                    // Whole frames survive the rounding to both rates.
                    assert_eq!((plan.hop(), plan.lookahead()), (request.hop, request.lookahead));
                    assert!(plan.lookahead().0 >= 1024);
                    plan.latency()
                });
                assert!(latencies.is_sorted(), "{chunk} {rate}: {latencies:?}");
            }
        }
    }

    #[test]
    fn tiers_of_the_embedded_model_have_the_documented_latencies() {
        let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(ModelSamples);
        let model = ModelTiming { rate: 44_100, chunk, frame_hop, frame };
        // docs/benchmarks.md has these figures.
        for (tier, latency_ms) in [(Tier::Low, 297.0), (Tier::Balanced, 669.0), (Tier::High, 1690.0)] {
            let plan = Plan::new(tier.request(&model, 48_000, HostSamples(512))).unwrap();
            assert_eq!(plan.latency_ms().round(), latency_ms, "{tier}");
        }
    }

    #[test]
    fn custom_spec_of_a_tier_gives_the_same_plan() {
        for chunk in [44_100, 65_536, 131_584, 485_100] {
            for tier in Tier::ALL {
                let (model, block) = (timing(chunk), HostSamples(512));
                let by_hand = tier.window_spec(&model).request(&model, 48_000, block);
                assert_eq!(by_hand, tier.request(&model, 48_000, block), "{tier} {chunk}");
            }
        }
    }

    #[test]
    fn auto_chooses_the_lowest_sustainable_tier() {
        let model = timing(485_100);
        let choose = |rtf: f64| {
            let window = ModelSamples(4 * 44_100);
            Tier::auto(&model, MeasuredCost { window, seconds: 4.0 * rtf })
        };
        assert_eq!(choose(0.01).tier, Tier::Low);
        assert_eq!(choose(0.05).tier, Tier::Balanced);
        assert_eq!(choose(0.3).tier, Tier::High);
        let hopeless = choose(2.0);
        assert!(!hopeless.sustainable && hopeless.tier == Tier::High && hopeless.load > 3.9);
    }
}
