//! The kept context of a stream: one state for each group of channels.
//!
//! The states travel with the work that uses them, and come back when it has ended. All frames and samples count from the start of the
//! segment, at the model's rate.

use super::super::model::SharedModel;
use super::super::plan::KeptContext;
use super::super::work::{FrameWork, Group};

/// Longest priming in seconds of the stream. It then ends even if the context is not full.
const MAX_PRIMING_SECONDS: f64 = 8.0;

/// The context that one model keeps of this stream.
pub(super) struct ContextStates {
    pub(super) model: SharedModel,
    /// Distinguishes these states from others of the same stream.
    pub(super) id: u64,
    /// One for each group of channels; empty while work uses them.
    groups: Vec<Group>,
    /// Frame of the segment at which the states begin.
    pub(super) first_frame: u64,
    /// Samples that were cut for them.
    received: u64,
    /// Frames that are final.
    pub(super) done: u64,
    /// Whether no stems of these states have been played, so that the first ones must be faded in.
    pub(super) fresh: bool,
    /// Hops that have passed while the context was filled.
    pub(super) hops_waited: u64,
}

impl ContextStates {
    /// Empty states whose first frame is `frame`.
    pub(super) fn new(id: u64, model: SharedModel, context: KeptContext, frame: u64) -> Self {
        Self {
            model,
            id,
            groups: Vec::new(),
            first_frame: frame,
            received: frame * context.timing.hop_length() as u64,
            done: frame,
            fresh: true,
            hops_waited: 0,
        }
    }

    /// Whether the input from `oldest` on suffices to go on.
    pub(super) fn can_go_on_from(&self, oldest: u64) -> bool {
        self.received >= oldest
    }

    /// Whether priming has taken as long as it may.
    pub(super) fn has_waited_enough(&self, context: KeptContext, rate: u32) -> bool {
        let hop = (context.plan.hop_frames * context.timing.hop_length()) as f64 / f64::from(rate.max(1));
        self.hops_waited as f64 * hop > MAX_PRIMING_SECONDS
    }

    /// Takes the groups for work that makes the frames before `target` final. `end` is the end of the input. `cut` gets the index of a group and
    /// a number of samples, and appends that many samples from the end of the group's input.
    pub(super) fn take(
        &mut self,
        (context, count): (KeptContext, usize),
        (end, target): (u64, u64),
        mut cut: impl FnMut(usize, usize, &mut Vec<f32>),
    ) -> (Vec<Group>, FrameWork) {
        let mut groups = std::mem::take(&mut self.groups);
        groups.resize_with(count, Group::default);
        let missing = end.saturating_sub(self.received) as usize;
        for (index, group) in groups.iter_mut().enumerate() {
            group.input.clear();
            cut(index, missing, &mut group.input);
        }
        self.received = self.received.max(end);
        let plan = context.plan;
        let beside = (plan.lookahead_frames + plan.margin_frames) as u64;
        let size = (target.saturating_sub(self.done) + beside) as f64 / context.frames_of_a_hop() as f64;
        (groups, FrameWork { plan, target: target.saturating_sub(self.first_frame), size })
    }

    /// Takes the groups back. False if a state was lost with an error.
    pub(super) fn give_back(&mut self, groups: Vec<Group>) -> bool {
        let done = groups.iter().map(|group| group.state.as_ref().map(|state| state.final_frames()));
        let Some(done) = done.collect::<Option<Vec<_>>>() else { return false };
        self.done = self.first_frame + done.into_iter().min().unwrap_or(0);
        self.groups = groups;
        true
    }
}
