//! Plans by name, for any model, and the choice among them by measurement.

use super::shape::{Shape, of_samples};
use super::{HostSamples, ModelSamples, PlanRequest};
use crate::separator::ModelInfo;

/// What a plan needs to know of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelTiming {
    /// Sample rate in Hz.
    pub rate: u32,
    /// Samples of the chunks it was trained on: longer windows bring nothing.
    pub chunk: ModelSamples,
    /// Samples between two frames of its transform.
    pub frame_hop: ModelSamples,
    /// Samples of its transform: what lies nearer than half of it to the end of a window is guessed from a mirror image.
    pub frame: ModelSamples,
}

impl ModelTiming {
    /// Of a model, loaded or not.
    pub fn of(info: &ModelInfo) -> Self {
        let stft = info.architecture.stft;
        Self {
            rate: info.sample_rate,
            chunk: ModelSamples(info.chunk as u64),
            frame_hop: ModelSamples(stft.hop_length as u64),
            frame: ModelSamples(stft.n_fft as u64),
        }
    }
}

/// How latency is traded for load and quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Short hops: least latency, sixteen passes over every sample. For a GPU or a small model.
    Low,
    /// Ten passes, with a quarter of the window ahead.
    Balanced,
    /// Two passes over long windows: most latency, least load, most context.
    High,
}

/// A measurement on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Samples of the window that was timed.
    pub window: ModelSamples,
    /// Time it took, in seconds.
    pub seconds: f64,
}

impl Measured {
    /// Share of real time that `request` takes on the device. Time is taken to grow with the window's length, so measure a long one.
    pub fn load(self, request: &PlanRequest) -> f64 {
        let seconds = self.seconds * request.window.0 as f64 / self.window.0.max(1) as f64;
        seconds / request.hop.seconds(request.model_rate.max(1))
    }
}

/// What [`Tier::auto`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The tier.
    pub tier: Tier,
    /// Share of real time it is expected to take.
    pub load: f64,
    /// Whether it keeps up with a margin. When not, even [`Tier::High`] is too much for the device.
    pub sustainable: bool,
}

/// Load that leaves room for a busy machine.
pub const SUSTAINABLE_LOAD: f64 = 0.7;

impl Tier {
    /// All, lowest latency first.
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

    /// The plan to ask for.
    pub fn request(self, model: &ModelTiming, host_rate: u32, max_block: HostSamples) -> PlanRequest {
        of_samples(model, host_rate, max_block, self.samples(model))
    }

    /// Window, hop and lookahead in samples of the model.
    fn samples(self, model: &ModelTiming) -> [f64; 3] {
        let (seconds, hop, lookahead) = self.parts();
        let window = (seconds * f64::from(model.rate)).min(model.chunk.0.max(1) as f64);
        [window, window * hop, window * lookahead]
    }

    /// Its measures for a model, to set out from by hand.
    pub fn shape(self, model: &ModelTiming) -> Shape {
        let [window, hop, lookahead] =
            self.samples(model).map(|samples| samples / f64::from(model.rate.max(1)));
        Shape { window, hop, lookahead }
    }

    /// Share of real time that the tier takes on a device where `measured` was measured.
    pub fn load(self, model: &ModelTiming, measured: Measured) -> f64 {
        measured.load(&self.request(model, model.rate, HostSamples(1)))
    }

    /// The tier of least latency that keeps up with a margin.
    pub fn auto(model: &ModelTiming, measured: Measured) -> Choice {
        let loads = Self::ALL.map(|tier| (tier, tier.load(model, measured)));
        match loads.into_iter().find(|(_, load)| *load <= SUSTAINABLE_LOAD) {
            Some((tier, load)) => Choice { tier, load, sustainable: true },
            None => Choice { tier: Self::High, load: Self::High.load(model, measured), sustainable: false },
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

    /// A model of the default transform whose chunks have that many samples.
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
    fn the_readme_has_the_latencies_of_the_embedded_model() {
        let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(ModelSamples);
        let model = ModelTiming { rate: 44_100, chunk, frame_hop, frame };
        let readme = include_str!("../../../README.md");
        for tier in Tier::ALL {
            let plan = Plan::new(tier.request(&model, 48_000, HostSamples(512))).unwrap();
            let name = tier.to_string();
            let row =
                readme.lines().find(|line| line.to_lowercase().starts_with(&format!("| {name} |"))).unwrap();
            assert!(
                row.contains(&format!("| {:.0} ms |", plan.latency_ms())),
                "{row}: {}",
                plan.latency_ms()
            );
        }
    }

    #[test]
    fn its_measures_by_hand_are_the_same_plan() {
        for chunk in [44_100, 65_536, 131_584, 485_100] {
            for tier in Tier::ALL {
                let (model, block) = (timing(chunk), HostSamples(512));
                let by_hand = tier.shape(&model).request(&model, 48_000, block);
                assert_eq!(by_hand, tier.request(&model, 48_000, block), "{tier} {chunk}");
            }
        }
    }

    #[test]
    fn auto_takes_the_lowest_tier_that_the_device_sustains() {
        let model = timing(485_100);
        let choose = |rtf: f64| {
            let window = ModelSamples(4 * 44_100);
            Tier::auto(&model, Measured { window, seconds: 4.0 * rtf })
        };
        assert_eq!(choose(0.01).tier, Tier::Low);
        assert_eq!(choose(0.05).tier, Tier::Balanced);
        assert_eq!(choose(0.3).tier, Tier::High);
        let hopeless = choose(2.0);
        assert!(!hopeless.sustainable && hopeless.tier == Tier::High && hopeless.load > 3.9);
    }
}
