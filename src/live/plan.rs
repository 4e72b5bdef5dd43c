//! The arithmetic of live separation: the only place where latency is computed.
//!
//! For every hop of H new samples the model runs over the last W samples. In its estimate the region \[now − A − H, now − A) is final. The
//! last A samples (the lookahead) are provisional, and the next window fades in over them. The longest wait of a sample is therefore
//!
//! > L = A + H + D + N + Z
//!
//! samples: A for its right context, H until the window that covers it ends, D for the worker, N because a host delivers blocks of up to N
//! samples, and Z for the resampling filters in both directions. All are whole numbers of host samples: A and H are multiples of the
//! shortest duration that is a whole number of samples at both rates.

mod tier;
mod window_spec;

use super::sinc::Sinc;
pub use super::units::{HostSamples, ModelSamples};
use crate::dsp::lowest_terms;
pub use tier::{AutoChoice, MeasuredCost, ModelTiming, SUSTAINABLE_LOAD, Tier};
pub use window_spec::WindowSpec;

/// Longest window, in seconds.
const MAX_WINDOW_SECONDS: u64 = 60;
/// Largest numerator or denominator of the reduced ratio of rates. Usual pairs of audio rates stay far below.
const MAX_UNIT: u64 = 8192;
/// Largest block that a host may announce.
pub const MAX_BLOCK: HostSamples = HostSamples(1 << 16);
/// Time within which the worker notices a complete hop. It polls, because the audio thread must not make system calls.
const WAKE_SECONDS: f64 = 0.002;

/// Time allowed for computing one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Deadline {
    /// One hop: any device that keeps up at all is on time.
    #[default]
    WholeHop,
    /// A number of seconds, for a device that is much faster than real time.
    Seconds(f64),
}

/// The input of [`Plan::new`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanRequest {
    /// The host's sample rate in Hz.
    pub host_rate: u32,
    /// The model's sample rate in Hz.
    pub model_rate: u32,
    /// W: the model's input window.
    pub window: ModelSamples,
    /// H: new samples per window. Rounded up to a whole number of samples at both rates.
    pub hop: ModelSamples,
    /// A: right context of the samples that become final. Rounded up likewise.
    pub lookahead: ModelSamples,
    /// F ≤ A: length of the crossfade from one window to the next.
    pub fade: ModelSamples,
    /// D: time allowed for a window.
    pub deadline: Deadline,
    /// N: the host's largest block.
    pub max_block: HostSamples,
}

/// Why a [`PlanRequest`] is invalid.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A rate is 0, or the ratio of the rates is not a small fraction.
    #[error(
        "host rate {host} Hz and model rate {model} Hz: expected rates whose ratio is a fraction of terms up to {MAX_UNIT}; choose a usual rate"
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
        /// Lookahead after rounding.
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
    /// Z, both directions.
    pub resampler: HostSamples,
}

impl LatencyParts {
    /// L.
    pub fn total(&self) -> HostSamples {
        self.lookahead + self.hop + self.deadline + self.block + self.resampler
    }
}

/// A validated [`PlanRequest`], with all lengths at both rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    request: PlanRequest,
    /// Shortest duration that is a whole number of samples at both rates.
    unit: (HostSamples, ModelSamples),
    parts: LatencyParts,
    /// Host samples that the filter to the model's rate reads to the right.
    down_reach: HostSamples,
    /// Host samples by which the filter back to the host's rate delays final stems.
    up_reach: HostSamples,
}

impl Plan {
    /// Validates the request and rounds its lengths.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(request: PlanRequest) -> Result<Self, PlanError> {
        let PlanRequest { host_rate: host, model_rate: model, .. } = request;
        let unit = common_span(host, model).ok_or(PlanError::Rates { host, model })?;
        if request.hop.is_empty() {
            return Err(PlanError::Hop);
        }
        if !(1..=MAX_BLOCK.0).contains(&request.max_block.0) {
            return Err(PlanError::Block(request.max_block.0));
        }
        let most = MAX_WINDOW_SECONDS * u64::from(model);
        let bounded = |n: ModelSamples| ModelSamples(n.0.min(most).next_multiple_of(unit.1.0));
        let (hop, lookahead) = (bounded(request.hop), bounded(request.lookahead));
        let least = (hop + lookahead).0;
        if !(least..=most).contains(&request.window.0) {
            return Err(PlanError::Window { window: request.window.0, least, most });
        }
        if request.fade > lookahead {
            return Err(PlanError::Fade { fade: request.fade.0, lookahead: lookahead.0 });
        }
        let to_host = |n: ModelSamples| HostSamples(n.0 / unit.1.0 * unit.0.0);
        let deadline = match request.deadline {
            Deadline::WholeHop => to_host(hop),
            Deadline::Seconds(s) if (0.0..=MAX_WINDOW_SECONDS as f64).contains(&s) => {
                HostSamples((s * f64::from(host)).ceil() as u64)
            }
            Deadline::Seconds(s) => return Err(PlanError::Deadline(s)),
        };
        let (down_reach, up_reach) = if host == model {
            (HostSamples(0), HostSamples(0))
        } else {
            let up = Sinc::reach(unit.1.0, unit.0.0);
            (HostSamples(Sinc::reach(unit.0.0, unit.1.0)), HostSamples((up * unit.0.0).div_ceil(unit.1.0)))
        };
        let parts = LatencyParts {
            lookahead: to_host(lookahead),
            hop: to_host(hop),
            deadline: deadline + HostSamples((WAKE_SECONDS * f64::from(host)).ceil() as u64),
            block: request.max_block,
            resampler: down_reach + up_reach,
        };
        Ok(Self { request: PlanRequest { hop, lookahead, ..request }, unit, parts, down_reach, up_reach })
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

    /// The request with its lengths rounded.
    pub fn request(&self) -> &PlanRequest {
        &self.request
    }

    /// Inference time as a share of real time, if a window takes `seconds_per_window`: at 1 the device only just keeps up.
    pub fn load(&self, seconds_per_window: f64) -> f64 {
        seconds_per_window / self.hop().seconds(self.model_rate())
    }

    /// Host samples, from the start of a segment, that window `k` (which ends at k·H) needs.
    pub(super) fn needed_for(&self, k: u64) -> HostSamples {
        self.parts.hop * k + self.down_reach
    }

    /// End of the region at the model's rate that is final after window `k`: k·H − A.
    pub(super) fn final_model(&self, k: u64) -> i64 {
        (self.hop().0 * k) as i64 - self.lookahead().0 as i64
    }

    /// End of the region at the host's rate that is final after window `k`.
    pub(super) fn final_host(&self, k: u64) -> i64 {
        (self.parts.hop.0 * k) as i64 - self.parts.lookahead.0 as i64 - self.up_reach.0 as i64
    }

    /// Index of the first window that makes samples final. Earlier windows are not run.
    pub(super) fn first_window(&self) -> u64 {
        self.lookahead().0 / self.hop().0 + 1
    }

    /// Host and model samples of the shortest common duration: the reduced ratio of the rates.
    pub(super) fn unit(&self) -> (HostSamples, ModelSamples) {
        self.unit
    }

    /// Model samples that must be final before the first `host` samples can be resampled.
    pub(super) fn model_needed(&self, host: u64) -> u64 {
        let reach =
            if self.host_rate() == self.model_rate() { 0 } else { Sinc::reach(self.unit.1.0, self.unit.0.0) };
        (host.max(1) - 1) * self.unit.1.0 / self.unit.0.0 + reach + 1
    }
}

/// Shortest duration that is a whole number of samples at both rates.
fn common_span(host: u32, model: u32) -> Option<(HostSamples, ModelSamples)> {
    if host == 0 || model == 0 {
        return None;
    }
    let (h, m) = lowest_terms(host, model);
    let (h, m) = (u64::from(h), u64::from(m));
    (h <= MAX_UNIT && m <= MAX_UNIT).then_some((HostSamples(h), ModelSamples(m)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        }
    }

    #[test]
    fn latency_is_the_sum_of_its_parts_at_every_rate() {
        for rate in [22_050, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000] {
            let plan = Plan::new(request(rate)).unwrap();
            let parts = plan.parts();
            // Hop and lookahead last equally long at both rates.
            for (host, model) in [(parts.hop, plan.hop()), (parts.lookahead, plan.lookahead())] {
                assert_eq!(host.0 * 44_100, model.0 * u64::from(rate), "{rate}");
            }
            assert!(plan.hop().0 - 11_025 < 147, "{rate}: {:?}", plan.hop());
            assert_eq!(plan.latency(), parts.total());
            let ms = plan.latency_ms();
            assert!((600.0..640.0).contains(&ms), "{rate}: {ms}");
            assert_eq!(parts.resampler.is_empty(), rate == 44_100);
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
        assert!(matches!(bad(&|r| r.host_rate = 48_001), PlanError::Rates { .. }));
        assert!(matches!(bad(&|r| r.window = ModelSamples(15_000)), PlanError::Window { .. }));
        assert!(matches!(bad(&|r| r.window = ModelSamples(u64::MAX)), PlanError::Window { .. }));
        assert!(matches!(bad(&|r| r.hop = ModelSamples(u64::MAX)), PlanError::Window { .. }));
        assert!(matches!(bad(&|r| r.hop = ModelSamples(0)), PlanError::Hop));
        assert!(matches!(bad(&|r| r.fade = ModelSamples(5_000)), PlanError::Fade { .. }));
        assert!(matches!(bad(&|r| r.deadline = Deadline::Seconds(f64::NAN)), PlanError::Deadline(_)));
        assert!(matches!(bad(&|r| r.max_block = HostSamples(0)), PlanError::Block(0)));
    }
}
