//! Named plans for any model, and the automatic choice among them from a measured cost.

use super::window_spec::{WindowSpec, from_frames, from_samples};
use super::{HostSamples, KeptContext, ModelSamples, PlanRequest};
use crate::separator::{FrameTiming, ModelSpec, kept_context_unsupported};

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
    /// Its frames, if it can keep context between hops. None: windows are repeated.
    pub context: Option<FrameTiming>,
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
            context: kept_context_unsupported(&info.architecture)
                .is_none()
                .then(|| FrameTiming::of_lengths(stft.n_fft, stft.hop_length, stft.win_length)),
        }
    }
}

/// Presets that trade latency against load and quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The shortest hops and a short lookahead: lowest latency. Models without kept context use *Low* instead.
    Live,
    /// Short hops: low latency.
    Low,
    /// Ten passes, with a quarter of the window as lookahead.
    Balanced,
    /// Two passes over long windows: highest latency, lowest load, most context.
    High,
}

/// A measured cost on this device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MeasuredCost {
    /// Samples of the timed window.
    pub window: ModelSamples,
    /// Its run time in seconds.
    pub seconds: f64,
    /// Seconds that a hop with kept context costs beyond its frames' share of the window: weights are read for few frames, and
    /// attention sees the whole context.
    pub per_hop: f64,
}

impl MeasuredCost {
    /// Predicted run time of a hop of `request`, in seconds: of its window, or, with kept context, of its frames and those of the lookahead.
    /// Cost is assumed to be proportional to the length, so measure a long window.
    pub fn of_hop(self, request: &PlanRequest) -> f64 {
        let of_samples = |samples: u64| self.seconds * samples as f64 / self.window.0.max(1) as f64;
        match request.context {
            Some(context) => of_samples(context.samples_of_a_hop()) + self.per_hop,
            None => of_samples(request.window.0),
        }
    }

    /// Frames with which to fill a context before its hops are timed: a slow model need not fill all of it.
    pub fn frames_to_fill(self, context: KeptContext) -> usize {
        let of_frame = self.seconds * context.timing.hop_length() as f64 / self.window.0.max(1) as f64;
        let fill = MAX_FILL_SECONDS / of_frame.max(1e-9);
        context.plan.context_frames.min((fill as usize).max(MIN_FILL_FRAMES))
    }

    /// The cost that follows from hops of `request` that take `seconds`: `measured` in proportion.
    #[must_use]
    pub fn observed(request: &PlanRequest, seconds: f64, measured: Option<Self>) -> Self {
        let window =
            request.context.map_or(request.window, |context| ModelSamples(context.samples_of_a_hop()));
        let plain = Self { window, seconds, per_hop: 0.0 };
        let Some(measured) = measured.filter(|measured| measured.of_hop(request) > 0.0) else { return plain };
        let ratio = seconds / measured.of_hop(request);
        Self { seconds: measured.seconds * ratio, per_hop: measured.per_hop * ratio, ..measured }
    }

    /// The same cost with what hops of `request` cost beyond their share of the window, if one takes `seconds`.
    #[must_use]
    pub fn with_hop(self, request: &PlanRequest, seconds: f64) -> Self {
        let share = Self { per_hop: 0.0, ..self }.of_hop(request);
        Self { per_hop: (seconds - share).max(0.0), ..self }
    }

    /// Predicted load of `request`, as a share of real time.
    pub fn load(self, request: &PlanRequest) -> f64 {
        self.of_hop(request) / request.hop.seconds(request.model_rate.max(1))
    }

    /// The cost in a host of `host` channels, if the model separates `model` channels jointly: it then runs once for each group of channels.
    #[must_use]
    pub fn for_channels(self, host: usize, model: usize) -> Self {
        let runs = host.div_ceil(model.max(1)).max(1) as f64;
        Self { seconds: self.seconds * runs, per_hop: self.per_hop * runs, ..self }
    }
}

/// Longest time in which a context is filled for a measurement, and the fewest frames.
const MAX_FILL_SECONDS: f64 = 1.0;
const MIN_FILL_FRAMES: usize = 8;

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

/// Longest context and hop together, in seconds.
const MAX_CONTEXT_SECONDS: f64 = 4.0;

/// Highest load that leaves a margin on a busy machine.
pub const SUSTAINABLE_LOAD: f64 = 0.7;

impl Tier {
    /// All tiers, lowest latency first.
    pub const ALL: [Self; 4] = [Self::Live, Self::Low, Self::Balanced, Self::High];

    /// Longest window in seconds, and the shares of the window that hop and lookahead take.
    ///
    /// Chosen by the SDR to the true stems that `nullsum-cli tiers --stems` measures for the embedded model, windows of 1.5 s: less than
    /// 0.09 s of lookahead costs up to half a decibel, 0.37 s bring a decibel where drums and bass are dense, and are worth more there
    /// than the same latency spent on the hop, which matters for load. Longer windows keep the shares.
    fn parts(self) -> (f64, f64, f64) {
        match self {
            // `for_model` never leaves *Live* here.
            Self::Live | Self::Low => (3.0, 1.0 / 16.0, 1.0 / 16.0),
            Self::Balanced => (4.0, 1.0 / 10.0, 1.0 / 4.0),
            Self::High => (6.0, 1.0 / 2.0, 1.0 / 8.0),
        }
    }

    /// The plan request for a model.
    pub fn request(self, model: &ModelTiming, host_rate: u32, max_block: HostSamples) -> PlanRequest {
        match model.context {
            Some(timing) => from_frames(model, host_rate, max_block, timing, self.kept_seconds(model)),
            None => from_samples(model, host_rate, max_block, self.samples(model)),
        }
    }

    /// Context, hop and lookahead in seconds, for models that keep context. Context and hop together are as long as the chunks that the model
    /// was trained on, but at most 4 s.
    ///
    /// Chosen with the embedded model by the difference to offline separation, on songs that are not in the table of `docs/benchmarks.md`
    /// (`docs/design/kept-context.md` has the figures). One frame of lookahead more than *Live* has gains 0.1 dB and costs a
    /// frame of latency and half as much load again. A context longer than the trained chunk gains nothing.
    fn kept_seconds(self, model: &ModelTiming) -> [f64; 3] {
        let (hop, lookahead) = match self {
            Self::Live => (0.023, 0.023),
            Self::Low => (0.093, 0.093),
            Self::Balanced => (0.279, 0.186),
            Self::High => (0.743, 0.186),
        };
        let trained = model.chunk.seconds(model.rate.max(1)).min(MAX_CONTEXT_SECONDS);
        let hop = f64::min(hop, 0.5 * trained);
        [(trained - hop).max(0.0), hop, lookahead]
    }

    /// This tier for a model: *Low* instead of *Live* where windows are repeated.
    #[must_use]
    pub fn for_model(self, model: &ModelTiming) -> Self {
        if self == Self::Live && model.context.is_none() { Self::Low } else { self }
    }

    /// The tiers of a model, lowest latency first.
    pub fn all_for(model: &ModelTiming) -> impl Iterator<Item = Self> + use<> {
        let model = *model;
        Self::ALL.into_iter().filter(move |tier| tier.for_model(&model) == *tier)
    }

    /// Window, hop and lookahead in samples of the model.
    fn samples(self, model: &ModelTiming) -> [f64; 3] {
        let (seconds, hop, lookahead) = self.parts();
        let window = (seconds * f64::from(model.rate)).min(model.chunk.0.max(1) as f64);
        [window, window * hop, window * lookahead]
    }

    /// Its window, hop and lookahead for a model: the starting point for *Custom*.
    pub fn window_spec(self, model: &ModelTiming) -> WindowSpec {
        if model.context.is_some() {
            let [context, hop, lookahead] = self.kept_seconds(model);
            return WindowSpec { window: context + hop + lookahead, hop, lookahead };
        }
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
        let mut loads = Self::all_for(model).map(|tier| (tier, tier.load(model, measured)));
        match loads.find(|(_, load)| *load <= available) {
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
            Self::Live => "live",
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
            context: None,
        }
    }

    /// The same model, if it keeps context.
    pub fn kept(chunk: u64) -> ModelTiming {
        ModelTiming { context: Some(FrameTiming::of_lengths(2048, 441, 2048)), ..timing(chunk) }
    }

    /// The embedded model.
    fn embedded() -> ModelTiming {
        let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(ModelSamples);
        let context = Some(FrameTiming::of_lengths(2048, 1024, 2048));
        ModelTiming { rate: 44_100, chunk, frame_hop, frame, context }
    }

    #[test]
    fn every_tier_is_a_plan_for_every_model_and_rate() {
        for chunk in [1, 2_000, 44_100, 131_584, 352_800, 485_100, 2_000_000] {
            for rate in [44_100, 48_000, 88_200, 96_000, 176_400, 192_000] {
                for model in [timing(chunk), kept(chunk)] {
                    let latencies = Tier::ALL.map(|tier| {
                        let request = tier.request(&model, rate, HostSamples(1024));
                        let plan = Plan::new(request).unwrap();
                        // Whole frames survive the rounding to both rates.
                        assert_eq!((plan.hop(), plan.lookahead()), (request.hop, request.lookahead));
                        assert!(model.context.is_some() || plan.lookahead().0 >= 1024);
                        assert_eq!(plan.hop().0 % 441 + plan.lookahead().0 % 441, 0);
                        plan.latency()
                    });
                    assert!(latencies.is_sorted(), "{chunk} {rate}: {latencies:?}");
                }
            }
        }
    }

    #[test]
    fn hops_are_the_same_frames_at_every_rate() {
        for tier in Tier::ALL {
            for rate in [44_100, 48_000, 96_000, 192_000] {
                let plan = Plan::new(tier.request(&embedded(), rate, HostSamples(512))).unwrap();
                let at_model_rate = Plan::new(tier.request(&embedded(), 44_100, HostSamples(512))).unwrap();
                assert_eq!((plan.hop(), plan.context()), (at_model_rate.hop(), at_model_rate.context()));
                // The latency in seconds differs by the filters and the rounding only.
                let difference = plan.latency_ms() - at_model_rate.latency_ms();
                let block = 512e3 / 44_100.0 - 512e3 / f64::from(rate);
                assert!((0.0..6.0).contains(&(difference + block)), "{tier} {rate}: {difference} ms");
            }
        }
    }

    #[test]
    fn tiers_of_the_embedded_model_have_the_documented_latencies() {
        // The cost behind the figures of docs/benchmarks.md.
        let window = ModelSamples(65_536);
        let cost = MeasuredCost { window, seconds: 0.0385, per_hop: 0.0019 };
        for (tier, latency_ms) in
            [(Tier::Live, 104.0), (Tier::Low, 273.0), (Tier::Balanced, 597.0), (Tier::High, 1099.0)]
        {
            let request = tier.request(&embedded(), 48_000, HostSamples(512)).with_measured_deadline(cost);
            assert_eq!(Plan::new(request).unwrap().latency_ms().round(), latency_ms, "{tier}");
        }
        let repeated = ModelTiming { context: None, ..embedded() };
        for (tier, latency_ms) in [(Tier::Low, 297.0), (Tier::Balanced, 669.0), (Tier::High, 1690.0)] {
            let plan = Plan::new(tier.request(&repeated, 48_000, HostSamples(512))).unwrap();
            assert_eq!(plan.latency_ms().round(), latency_ms, "{tier}");
        }
    }

    #[test]
    fn custom_spec_of_a_tier_gives_the_same_plan() {
        for model in [44_100, 65_536, 131_584, 485_100].into_iter().flat_map(|c| [timing(c), kept(c)]) {
            for tier in Tier::ALL {
                let block = HostSamples(512);
                let by_hand = tier.window_spec(&model).request(&model, 48_000, block);
                assert_eq!(by_hand, tier.request(&model, 48_000, block), "{tier} {model:?}");
            }
        }
    }

    #[test]
    fn auto_chooses_the_lowest_sustainable_tier() {
        let model = timing(485_100);
        let choose = |rtf: f64| {
            let window = ModelSamples(4 * 44_100);
            Tier::auto(&model, MeasuredCost { window, seconds: 4.0 * rtf, per_hop: 0.0 })
        };
        assert_eq!(choose(0.01).tier, Tier::Low);
        assert_eq!(choose(0.05).tier, Tier::Balanced);
        assert_eq!(choose(0.3).tier, Tier::High);
        let hopeless = choose(2.0);
        assert!(!hopeless.sustainable && hopeless.tier == Tier::High && hopeless.load > 3.9);
    }
}
