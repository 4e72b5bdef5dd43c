//! The arithmetic of live separation: the only place where latency is computed.
//!
//! For every hop of H new samples the model runs over the last W samples. In its estimate the region \[now − A − H, now − A) is final. The
//! last A samples (the lookahead) are provisional, and the next window fades in over them. The longest wait of a sample is therefore
//!
//! > L = A + H + D + N + Z
//!
//! samples: A for its right context, H until the window that covers it ends, D for the worker, N because a host delivers blocks of up to N
//! samples, and Z for the resampling filters in both directions, with the rounding of positions between the two rates.

mod deadline;
mod forecast;
mod kept_context;
mod tier;
mod window_spec;

use super::sinc::Sinc;
pub use super::units::{HostSamples, ModelSamples};
use crate::dsp::lowest_terms;
pub use deadline::Deadline;
pub use forecast::LiveForecast;
pub use kept_context::KeptContext;
pub use tier::{AutoChoice, MeasuredCost, ModelTiming, SUSTAINABLE_LOAD, Tier};
pub use window_spec::WindowSpec;

/// Longest window, in seconds.
const MAX_WINDOW_SECONDS: u64 = 60;
/// Largest ratio of the two sample rates. Beyond it the resampling filter would be longer than a window.
const MAX_RATIO: u32 = 32;
/// Largest block that a host may announce.
pub const MAX_BLOCK: HostSamples = HostSamples(1 << 16);
/// Time within which the worker notices a complete hop. It polls, because the audio thread must not make system calls.
const WAKE_SECONDS: f64 = 0.002;

/// The input of [`Plan::new`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanRequest {
    /// The host's sample rate in Hz.
    pub host_rate: u32,
    /// The model's sample rate in Hz.
    pub model_rate: u32,
    /// W: the model's input window.
    pub window: ModelSamples,
    /// H: new samples per window.
    pub hop: ModelSamples,
    /// A: right context of the samples that become final.
    pub lookahead: ModelSamples,
    /// F ≤ A: length of the crossfade from one window to the next.
    pub fade: ModelSamples,
    /// D: time allowed for a window.
    pub deadline: Deadline,
    /// N: the host's largest block.
    pub max_block: HostSamples,
    /// Hops with kept context instead of repeated windows; `window`, `hop` and `lookahead` then only describe it. None for repeated windows.
    pub context: Option<KeptContext>,
}

impl PlanRequest {
    /// With the lengths of its kept context, if it has one.
    fn described(self) -> Self {
        self.context.map_or(self, |context| context.describe(self))
    }
}

/// Why a [`PlanRequest`] is invalid.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A rate is 0, or one is far higher than the other.
    #[error(
        "host rate {host} Hz and model rate {model} Hz: expected rates above 0, neither of them more than {MAX_RATIO} times the other; choose a usual rate"
    )]
    Rates {
        /// Host rate in Hz.
        host: u32,
        /// Model rate in Hz.
        model: u32,
    },
    /// The window is too long or too short for hop and lookahead.
    #[error("a window of {window} samples: expected at least lookahead + hop = {least} and at most {most}")]
    Window {
        /// Requested samples.
        window: u64,
        /// Fewest samples.
        least: u64,
        /// Most samples.
        most: u64,
    },
    /// The hop is empty.
    #[error("a hop of 0 samples: expected at least 1")]
    Hop,
    /// The fade is longer than the lookahead.
    #[error(
        "a fade of {fade} samples is longer than the lookahead of {lookahead}; shorten the fade or lengthen the lookahead"
    )]
    Fade {
        /// Requested samples.
        fade: u64,
        /// Lookahead of the plan.
        lookahead: u64,
    },
    /// The deadline is negative, too long or not a number.
    #[error("a deadline of {0} s: expected 0 to {MAX_WINDOW_SECONDS}")]
    Deadline(f64),
    /// The host's largest block is out of range.
    #[error("a largest block of {0} samples: expected 1 to {most}", most = MAX_BLOCK.0)]
    Block(u64),
}

/// The terms of the latency, in host samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyParts {
    /// A.
    pub lookahead: HostSamples,
    /// H.
    pub hop: HostSamples,
    /// D, plus the time in which the worker notices new input.
    pub deadline: HostSamples,
    /// N.
    pub block: HostSamples,
    /// What the frames of the transform add with kept context: a frame is final when all frames that overlap it are.
    pub transform: HostSamples,
    /// Z, both directions.
    pub resampler: HostSamples,
}

impl LatencyParts {
    /// L.
    pub fn total(&self) -> HostSamples {
        self.lookahead + self.hop + self.transform + self.deadline + self.block + self.resampler
    }
}

/// A validated [`PlanRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    request: PlanRequest,
    /// Host and model rate, reduced to lowest terms.
    ratio: (u64, u64),
    parts: LatencyParts,
    /// Host samples that the filter to the model's rate reads to either side; 0 if the rates are equal.
    down_reach: u64,
    /// Model samples that the filter back to the host's rate reads to either side.
    up_reach: u64,
}

impl Plan {
    /// Validates the request.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(request: PlanRequest) -> Result<Self, PlanError> {
        let request = request.described();
        let PlanRequest { host_rate: host, model_rate: model, hop, lookahead, .. } = request;
        let ratio = ratio(host, model).ok_or(PlanError::Rates { host, model })?;
        if hop.is_empty() {
            return Err(PlanError::Hop);
        }
        if !(1..=MAX_BLOCK.0).contains(&request.max_block.0) {
            return Err(PlanError::Block(request.max_block.0));
        }
        let most = MAX_WINDOW_SECONDS * u64::from(model);
        let least = hop.0.saturating_add(lookahead.0);
        if !(least..=most).contains(&request.window.0) {
            return Err(PlanError::Window { window: request.window.0, least, most });
        }
        if request.fade > lookahead {
            return Err(PlanError::Fade { fade: request.fade.0, lookahead: lookahead.0 });
        }
        let to_host = |n: u64| (n * ratio.0).div_ceil(ratio.1);
        let deadline = match request.deadline {
            Deadline::WholeHop => to_host(hop.0),
            Deadline::Seconds(s) if (0.0..=MAX_WINDOW_SECONDS as f64).contains(&s) => {
                (s * f64::from(host)).ceil() as u64
            }
            Deadline::Seconds(s) => return Err(PlanError::Deadline(s)),
        };
        let resampled = host != model;
        let reach = |from, to| if resampled { Sinc::reach(from, to) } else { 0 };
        let (down_reach, up_reach) = (reach(ratio.0, ratio.1), reach(ratio.1, ratio.0));
        // Hop k needs `needed_for(k)` samples, and makes those from `final_host(k − 1)` on final. This is the largest difference of the
        // two over all k.
        let longest = request.context.map_or(least, |context| context.longest_wait());
        let wait = if resampled { to_host(longest - 1 + up_reach) + down_reach + 1 } else { longest };
        let parts = LatencyParts {
            lookahead: HostSamples(to_host(lookahead.0)),
            hop: HostSamples(to_host(hop.0)),
            deadline: HostSamples(deadline + (WAKE_SECONDS * f64::from(host)).ceil() as u64),
            block: request.max_block,
            transform: HostSamples(to_host(longest) - to_host(least)),
            resampler: HostSamples(
                (wait + to_host(least))
                    .saturating_sub(to_host(longest) + to_host(lookahead.0) + to_host(hop.0)),
            ),
        };
        Ok(Self { request, ratio, parts, down_reach, up_reach })
    }

    /// L: the constant delay from input to output.
    pub fn latency(&self) -> HostSamples {
        self.parts.total()
    }

    /// The terms of the latency.
    pub fn parts(&self) -> LatencyParts {
        self.parts
    }

    /// Latency in milliseconds.
    pub fn latency_ms(&self) -> f64 {
        1e3 * self.latency().seconds(self.host_rate())
    }

    /// The host's sample rate in Hz.
    pub fn host_rate(&self) -> u32 {
        self.request.host_rate
    }

    /// The model's sample rate in Hz.
    pub fn model_rate(&self) -> u32 {
        self.request.model_rate
    }

    /// W.
    pub fn window(&self) -> ModelSamples {
        self.request.window
    }

    /// H at the model's rate.
    pub fn hop(&self) -> ModelSamples {
        self.request.hop
    }

    /// A at the model's rate.
    pub fn lookahead(&self) -> ModelSamples {
        self.request.lookahead
    }

    /// F at the model's rate.
    pub fn fade(&self) -> ModelSamples {
        self.request.fade
    }

    /// N.
    pub fn max_block(&self) -> HostSamples {
        self.request.max_block
    }

    /// The request.
    pub fn request(&self) -> &PlanRequest {
        &self.request
    }

    /// Duration of a hop in seconds.
    pub fn hop_seconds(&self) -> f64 {
        self.hop().seconds(self.model_rate())
    }

    /// Time allowed for computing a hop, in seconds.
    pub fn deadline_seconds(&self) -> f64 {
        self.parts.deadline.seconds(self.host_rate())
    }

    /// The highest cost of a hop, in seconds, that a measured deadline was made for; none if nothing was measured.
    pub(super) fn expected_cost(&self) -> Option<f64> {
        match self.request.deadline {
            Deadline::WholeHop => None,
            Deadline::Seconds(seconds) => Some(seconds / deadline::MARGIN),
        }
    }

    /// Inference time as a share of real time, if a window takes `seconds_per_window`: at 1 the device only just keeps up.
    pub fn load(&self, seconds_per_window: f64) -> f64 {
        seconds_per_window / self.hop_seconds()
    }

    // Positions count from the start of a segment; hop k, from 1 on, ends at k·H of the model's samples. Host positions follow from these by
    // rounding, not by adding up hops, so that hops are whole frames at the model's rate at every host rate.

    /// Model samples that hop `k` needs.
    pub(super) fn model_needed_for(&self, k: u64) -> u64 {
        self.request.context.map_or(self.hop().0 * k, |context| context.needed_for(k))
    }

    /// Host samples that hop `k` needs.
    pub(super) fn needed_for(&self, k: u64) -> u64 {
        self.host_needed(self.model_needed_for(k))
    }

    /// The last hop that `host` samples are enough for; 0 for none.
    pub(super) fn last_hop(&self, host: u64) -> u64 {
        // The estimate is at most one hop off, because positions are rounded.
        let model = host.saturating_sub(self.down_reach) * self.ratio.1 / self.ratio.0;
        let mut k = model / self.hop().0 + 1;
        while k > 0 && self.needed_for(k) > host {
            k -= 1;
        }
        k
    }

    /// End of the region at the model's rate that is final after hop `k`.
    pub(super) fn final_model(&self, k: u64) -> i64 {
        match self.request.context {
            Some(context) => context.final_after(k) as i64,
            None => (self.hop().0 * k) as i64 - self.lookahead().0 as i64,
        }
    }

    /// End of the region at the host's rate that is final after hop `k`.
    pub(super) fn final_host(&self, k: u64) -> u64 {
        self.host_available(self.final_model(k))
    }

    /// Most provisional stems after a hop, in host samples.
    pub(super) fn most_provisional(&self) -> HostSamples {
        let model = self.request.context.map_or(self.lookahead().0, |context| context.provisional());
        HostSamples((model * self.ratio.0).div_ceil(self.ratio.1) + 1)
    }

    /// Samples of past input that the worker keeps at the model's rate.
    pub(super) fn input_window(&self) -> usize {
        self.request.context.map_or(self.window().len(), |context| context.input_window())
    }

    /// Kept context, if the plan is for hops instead of windows.
    pub fn context(&self) -> Option<KeptContext> {
        self.request.context
    }

    /// The kept context of a model in this plan. A model that keeps none, or has another transform, repeats whole windows over the same hops.
    pub fn kept_context_of(&self, model: &ModelTiming) -> Option<KeptContext> {
        self.request.context.filter(|context| model.context == Some(context.timing))
    }

    /// Index of the first hop that is run. With windows, earlier ones make no sample final; with kept context they begin the context.
    pub(super) fn first_hop(&self) -> u64 {
        if self.request.context.is_some() { 1 } else { self.lookahead().0 / self.hop().0 + 1 }
    }

    /// Host and model rate, reduced to lowest terms.
    pub(super) fn ratio(&self) -> (u64, u64) {
        self.ratio
    }

    /// Host samples from which the first `model` samples can be computed.
    pub(super) fn host_needed(&self, model: u64) -> u64 {
        match model {
            0 => 0,
            _ if self.host_rate() == self.model_rate() => model,
            _ => (model - 1) * self.ratio.0 / self.ratio.1 + self.down_reach + 1,
        }
    }

    /// Host samples that can be computed from the first `model` samples.
    pub(super) fn host_available(&self, model: i64) -> u64 {
        let within = u64::try_from(model - self.up_reach as i64).unwrap_or(0);
        (within * self.ratio.0).div_ceil(self.ratio.1)
    }

    /// Model samples that the last hop of a segment of `host` samples needs: with kept context also silence after the end, for the frames
    /// that reach over it.
    pub(super) fn model_needed_for_end(&self, host: u64) -> u64 {
        let needed = self.model_needed(host);
        self.request.context.map_or(needed, |context| context.needed_for_frames(context.frames_until(needed)))
    }

    /// Model samples from which the first `host` samples can be computed.
    pub(super) fn model_needed(&self, host: u64) -> u64 {
        (host.max(1) - 1) * self.ratio.1 / self.ratio.0 + self.up_reach + 1
    }
}

/// The ratio of two rates in lowest terms; none if it is not a number or extreme.
fn ratio(host: u32, model: u32) -> Option<(u64, u64)> {
    if host == 0 || model == 0 || host / model > MAX_RATIO || model / host > MAX_RATIO {
        return None;
    }
    let (host, model) = lowest_terms(host, model);
    Some((u64::from(host), u64::from(model)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsp::stft::StftConfig;
    use crate::separator::{ContextPlan, FrameTiming};

    fn request(host_rate: u32) -> PlanRequest {
        PlanRequest {
            host_rate,
            model_rate: 44_100,
            window: ModelSamples(88_200),
            hop: ModelSamples(11_025),
            lookahead: ModelSamples(4_410),
            fade: ModelSamples(2_205),
            deadline: Deadline::WholeHop,
            max_block: HostSamples(512),
            context: None,
        }
    }

    #[test]
    fn latency_is_the_sum_of_its_parts_at_every_rate() {
        for rate in [22_050, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000] {
            let plan = Plan::new(request(rate)).unwrap();
            let parts = plan.parts();
            // Hop and lookahead are exact at the model's rate, and rounded up to the host's.
            assert_eq!((plan.hop(), plan.lookahead()), (ModelSamples(11_025), ModelSamples(4_410)));
            for (host, model) in [(parts.hop, plan.hop()), (parts.lookahead, plan.lookahead())] {
                let exact = model.0 as f64 * f64::from(rate) / 44_100.0;
                assert!((0.0..1.0).contains(&(host.0 as f64 - exact)), "{rate}");
            }
            assert_eq!(plan.latency(), parts.total());
            let ms = plan.latency_ms();
            assert!((600.0..640.0).contains(&ms), "{rate}: {ms}");
            assert_eq!(parts.resampler.is_empty(), rate == 44_100);
        }
    }

    #[test]
    fn every_hop_is_final_within_the_latency_at_every_rate() {
        for rate in [22_050, 44_100, 47_999, 48_000, 96_000, 192_000] {
            for (hop, lookahead) in [(1_024, 2_048), (441, 441), (11_025, 4_410)] {
                let (hop, lookahead) = (ModelSamples(hop), ModelSamples(lookahead));
                let plan =
                    Plan::new(PlanRequest { hop, lookahead, fade: ModelSamples(100), ..request(rate) })
                        .unwrap();
                let wait = plan.latency() - plan.parts().deadline - plan.parts().block;
                let waits = (1..5_000).map(|k| plan.needed_for(k) - plan.final_host(k - 1));
                let longest = waits.max().unwrap();
                assert!(longest <= wait.0 && wait.0 - longest <= 2, "{rate}: {longest} of {wait:?}");
                for k in (1..5_000).step_by(7) {
                    let needed = plan.needed_for(k);
                    assert_eq!((plan.last_hop(needed), plan.last_hop(needed - 1)), (k, k - 1), "{rate}");
                    // What is said to be available can be computed, and one sample more cannot.
                    let model = plan.final_model(k).max(1);
                    let host = plan.host_available(model);
                    assert!(host == 0 || plan.model_needed(host) <= model as u64, "{rate}");
                    assert!(plan.model_needed(host + 1) > model as u64, "{rate}");
                }
            }
        }
    }

    #[test]
    fn hops_with_kept_context_are_final_within_the_latency_at_every_rate() {
        for rate in [22_050, 44_100, 47_999, 48_000, 96_000, 192_000] {
            for (hop_frames, lookahead_frames) in [(1, 1), (1, 2), (4, 4), (6, 16)] {
                let plan = ContextPlan { hop_frames, lookahead_frames, ..ContextPlan::default() };
                let timing = FrameTiming::new(StftConfig {
                    n_fft: 2048,
                    hop_length: 1024,
                    win_length: 2048,
                    normalized: false,
                });
                let context = Some(KeptContext { plan, timing });
                let plan =
                    Plan::new(PlanRequest { context, fade: ModelSamples(256), ..request(rate) }).unwrap();
                assert_eq!(plan.hop().0, 1024 * hop_frames as u64);
                let wait = plan.latency() - plan.parts().deadline - plan.parts().block;
                // From the start on, and after hours.
                let hops = || (3..5_000).chain(2_000_000..2_002_000);
                let longest = hops().map(|k| plan.needed_for(k) - plan.final_host(k - 1)).max().unwrap();
                assert!(longest <= wait.0 && wait.0 - longest <= 2, "{rate}: {longest} of {wait:?}");
                for k in hops().step_by(7) {
                    let needed = plan.needed_for(k);
                    assert_eq!((plan.last_hop(needed), plan.last_hop(needed - 1)), (k, k - 1), "{rate}");
                }
            }
        }
    }

    #[test]
    fn a_shorter_deadline_shortens_the_latency_by_as_much() {
        let whole = Plan::new(request(48_000)).unwrap();
        let short = Plan::new(PlanRequest { deadline: Deadline::Seconds(0.05), ..request(48_000) }).unwrap();
        assert_eq!(whole.latency() - short.latency(), whole.parts().hop - HostSamples(2_400));
    }

    #[test]
    fn impossible_plans_say_what_is_wrong() {
        let bad = |change: &dyn Fn(&mut PlanRequest)| {
            let mut request = request(48_000);
            change(&mut request);
            Plan::new(request).unwrap_err()
        };
        assert!(matches!(bad(&|r| r.host_rate = 0), PlanError::Rates { .. }));
        assert!(matches!(bad(&|r| r.host_rate = 1_000), PlanError::Rates { .. }));
        assert!(matches!(bad(&|r| r.host_rate = u32::MAX), PlanError::Rates { .. }));
        assert!(matches!(bad(&|r| r.window = ModelSamples(15_000)), PlanError::Window { .. }));
        assert!(matches!(bad(&|r| r.window = ModelSamples(u64::MAX)), PlanError::Window { .. }));
        assert!(matches!(bad(&|r| r.hop = ModelSamples(u64::MAX)), PlanError::Window { .. }));
        assert!(matches!(bad(&|r| r.hop = ModelSamples(0)), PlanError::Hop));
        assert!(matches!(bad(&|r| r.fade = ModelSamples(5_000)), PlanError::Fade { .. }));
        assert!(matches!(bad(&|r| r.deadline = Deadline::Seconds(f64::NAN)), PlanError::Deadline(_)));
        assert!(matches!(bad(&|r| r.max_block = HostSamples(0)), PlanError::Block(0)));
    }
}
