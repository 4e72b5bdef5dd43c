//! Hops with kept context: lengths in frames of the model's transform.

use super::{ModelSamples, PlanRequest};
use crate::separator::{ContextPlan, FrameTiming};

/// Hops of whole STFT frames that keep the keys and values of past frames, instead of windows that repeat them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptContext {
    /// Hop, lookahead and context in frames.
    pub plan: ContextPlan,
    /// The model's transform.
    pub timing: FrameTiming,
}

impl KeptContext {
    fn samples(self, frames: usize) -> u64 {
        frames as u64 * self.timing.hop_length() as u64
    }

    /// The request with its lengths as samples.
    pub(super) fn describe(self, request: PlanRequest) -> PlanRequest {
        let ContextPlan { hop_frames, lookahead_frames, context_frames, margin_frames, .. } = self.plan;
        let window = hop_frames + lookahead_frames + context_frames + margin_frames;
        let [window, hop, lookahead] =
            [window, hop_frames, lookahead_frames].map(|frames| ModelSamples(self.samples(frames)));
        let fade = request.fade.0.min(self.provisional()).min(lookahead.0);
        PlanRequest { window, hop, lookahead, fade: ModelSamples(fade), ..request }
    }

    /// Most model samples between the input that a hop needs and the first sample that it makes final.
    pub(super) fn longest_wait(self) -> u64 {
        self.plan.latency_samples(&self.timing)
    }

    /// Model samples that hop `k` needs.
    pub(super) fn needed_for(self, k: u64) -> u64 {
        if k == 0 { 0 } else { self.plan.samples_for_hop(&self.timing, k) }
    }

    /// Model samples that are final after hop `k`.
    pub(super) fn final_after(self, k: u64) -> u64 {
        self.timing.final_samples(k * self.plan.hop_frames as u64)
    }

    /// Frames that must be final for the first `samples` model samples to be.
    pub(in crate::live) fn frames_until(self, samples: u64) -> u64 {
        (samples + self.timing.reach_before()).div_ceil(self.timing.hop_length() as u64)
    }

    /// Model samples that are needed to make the first `frames` frames final.
    pub(in crate::live) fn needed_for_frames(self, frames: u64) -> u64 {
        self.timing.samples_for(frames + self.plan.lookahead_frames as u64)
    }

    /// Provisional model samples after a hop.
    pub(super) fn provisional(self) -> u64 {
        self.plan.provisional_samples(&self.timing)
    }

    /// Model samples from which a stream can be primed: the context, two hops, the lookahead, and the transform on both sides.
    pub(super) fn input_window(self) -> usize {
        let ContextPlan { hop_frames, lookahead_frames, context_frames, .. } = self.plan;
        let frames = context_frames + 2 * hop_frames + lookahead_frames + 1;
        (self.samples(frames) + self.timing.reach_before() + self.timing.reach_after()) as usize
    }

    /// Model samples of the frames that a usual hop runs through the network.
    pub(super) fn samples_of_a_hop(self) -> u64 {
        self.samples(self.frames_of_a_hop())
    }

    /// Frames that a usual hop runs through the network.
    pub(in crate::live) fn frames_of_a_hop(self) -> usize {
        self.plan.hop_frames + self.plan.lookahead_frames + self.plan.margin_frames
    }
}
