//! Hops with kept context: only new frames run, and the model's context is filled first where there is past input.
//!
//! A stream of a model that keeps context needs states that have seen the last C frames. At the start of a segment there is nothing to see. After a
//! change of the model, or a pause, the states are *primed*: they run over past input in small pieces, between the hops, and their stems are
//! discarded. Meanwhile the previous model plays, or the delayed input.

use super::super::model::SharedModel;
use super::super::plan::KeptContext;
use super::super::status::State;
use super::super::work::{Group, Work, playable};
use super::context_states::ContextStates;
use super::{Begun, Engine, Flight, FlightKind, Step};

/// Most frames in the context of a probe. A full context would take memory and time, and is discarded after the probe.
const PROBE_CONTEXT_FRAMES: usize = 8;
/// Fewest frames of a piece of priming.
const MIN_PRIMING_FRAMES: u64 = 8;
/// Work, and the states that travel with it.
type FrameJob = Option<(Work, Option<u64>)>;

impl Engine {
    /// How the present model keeps context; none if it repeats windows.
    pub(super) fn kept_context(&self) -> Option<KeptContext> {
        self.model.as_ref().and_then(|model| self.plan.kept_context_of(&model.timing()))
    }

    /// Frames of the hops that have passed.
    fn frames_passed(&self, context: KeptContext) -> u64 {
        (self.hop - 1) * context.plan.hop_frames as u64
    }

    /// The first sample that the input window holds.
    fn oldest_input(&self) -> u64 {
        (self.input.end() as u64).saturating_sub(self.plan.input_window() as u64)
    }

    /// Frames of a piece of priming. The first hop may run the last piece with its own frames.
    fn priming_frames(context: KeptContext) -> u64 {
        let plan = context.plan;
        ((plan.hop_frames + plan.lookahead_frames) as u64).max(MIN_PRIMING_FRAMES)
    }

    /// Whether the context is filled, except for a few frames that the next hop can run with its own.
    fn is_primed(&self, states: &ContextStates, context: KeptContext) -> bool {
        states.can_go_on_from(self.oldest_input())
            && states.done + Self::priming_frames(context) >= self.frames_passed(context)
    }

    /// Whether a new model can wait for its context while the present one plays.
    pub(super) fn can_prime(&self, model: &SharedModel) -> bool {
        let is_playing = self.model.is_some() && self.shared.status.state() == State::Running;
        let keeps = self.plan.kept_context_of(&model.timing()).is_some();
        keeps && is_playing && !self.suspended && !self.shared.is_blocking()
    }

    /// Lets `model` take over when its context is filled.
    pub(super) fn prime_incoming(&mut self, model: SharedModel) {
        if let Some(context) = self.plan.context() {
            let states = self.states_from_past(model, context);
            self.incoming = Some(states);
        }
    }

    /// Whether there is a context to fill now.
    pub(super) fn wants_priming(&self) -> bool {
        let Some(context) = self.plan.context() else { return false };
        if self.suspended || self.model.is_none() || self.shared.is_blocking() {
            return false;
        }
        match (&self.incoming, &self.states) {
            (Some(incoming), _) => !self.is_primed(incoming, context),
            (None, Some(states)) => !self.is_primed(states, context),
            (None, None) => self.kept_context().is_some() && self.frames_passed(context) > 0,
        }
    }

    /// Empty states that begin in past input: as many frames back as the context holds, if the input window holds as many.
    fn states_from_past(&mut self, model: SharedModel, context: KeptContext) -> ContextStates {
        let reach = context.plan.context_frames as u64;
        let held = self.oldest_input().div_ceil(context.timing.hop_length() as u64);
        self.new_states(model, context, self.frames_passed(context).saturating_sub(reach).max(held))
    }

    fn new_states(&mut self, model: SharedModel, context: KeptContext, frame: u64) -> ContextStates {
        self.next_states += 1;
        ContextStates::new(self.next_states, model, context, frame)
    }

    /// Runs the next piece of past input.
    pub(super) fn begin_priming(&mut self) -> Begun {
        let Some(context) = self.plan.context() else { return Begun::Step(Step::Idle) };
        let oldest = self.oldest_input();
        let is_incoming = self.incoming.is_some();
        let before = if is_incoming { self.incoming.take() } else { self.states.take() };
        let (model, waited) = match &before {
            Some(states) => (Some(states.model.clone()), states.hops_waited),
            None => (self.model.clone(), 0),
        };
        let states = match (before.filter(|states| states.can_go_on_from(oldest)), model) {
            (Some(states), _) => states,
            (None, Some(model)) => {
                let mut states = self.states_from_past(model, context);
                states.hops_waited = waited;
                states
            }
            (None, None) => return Begun::Step(Step::Idle),
        };
        let target = states.done + Self::priming_frames(context);
        let target = target.min(self.frames_passed(context));
        let (states, work) = self.cut_frames(states, context, target);
        let id = states.id;
        if is_incoming {
            self.incoming = Some(states)
        } else {
            self.states = Some(states)
        }
        self.flight = Some(Flight { first: self.hop, end: 0, kind: FlightKind::Prime, states: Some(id) });
        Begun::Work(work)
    }

    /// The work of the hops from `first` to `last`; none while the context is being filled, or without a model.
    pub(super) fn cut_hops(
        &mut self,
        mut context: KeptContext,
        (first, last): (u64, u64),
        kind: FlightKind,
    ) -> FrameJob {
        let hop_frames = context.plan.hop_frames as u64;
        let (begin, target) = ((first - 1) * hop_frames, last * hop_frames);
        let model = self.model.clone()?;
        let (blocking, oldest) = (self.shared.is_blocking(), self.oldest_input());
        let gap = Self::priming_frames(context);
        let states = match self.states.take() {
            // A probe only measures the cost of a hop, so a short context is enough.
            _ if matches!(kind, FlightKind::Probe) => {
                context.plan.context_frames = context.plan.context_frames.min(PROBE_CONTEXT_FRAMES);
                self.new_states(model, context, target - hop_frames)
            }
            Some(states) if states.can_go_on_from(oldest) && (blocking || states.done + gap >= begin) => {
                states
            }
            Some(mut states)
                if !blocking
                    && self.history.is_empty()
                    && !states.has_waited_enough(context, self.plan.model_rate()) =>
            {
                states.hops_waited += last + 1 - first;
                self.states = Some(states);
                return None;
            }
            // After a jump back, stems without context are better than none.
            _ if !self.history.is_empty() => self.new_states(model, context, begin),
            None if !blocking && begin > 0 => {
                // `wants_priming` is true from now on.
                return None;
            }
            _ => self.new_states(model, context, begin),
        };
        let (states, work) = self.cut_frames(states, context, target);
        let id = states.id;
        self.states = Some(states);
        Some((work, Some(id)))
    }

    /// The work of the frames that are left in a segment whose last model sample is `end`.
    pub(super) fn cut_end(&mut self, context: KeptContext, end: u64) -> FrameJob {
        let states = self.states.take().filter(|states| states.can_go_on_from(self.oldest_input()));
        let passed = self.frames_passed(context);
        let states = match (states, self.model.clone()) {
            (Some(states), _) => states,
            (None, Some(model)) if self.shared.is_blocking() || passed == 0 => {
                self.new_states(model, context, passed)
            }
            _ => return None,
        };
        let (states, work) = self.cut_frames(states, context, context.frames_until(end));
        let id = states.id;
        self.states = Some(states);
        Some((work, Some(id)))
    }

    /// Makes the incoming model the present one if its context is filled, or if priming has taken too long.
    pub(super) fn let_incoming_take_over(&mut self, hops: u64) {
        let Some(context) = self.plan.context() else { return };
        let Some(mut incoming) = self.incoming.take() else { return };
        incoming.hops_waited += hops;
        let waited = incoming.has_waited_enough(context, self.plan.model_rate());
        let passed = self.frames_passed(context);
        let behind = passed.saturating_sub(incoming.done + hops * context.plan.hop_frames as u64);
        let is_primed =
            incoming.can_go_on_from(self.oldest_input()) && behind <= Self::priming_frames(context);
        if !is_primed && !waited && !self.shared.is_blocking() {
            self.incoming = Some(incoming);
            return;
        }
        self.take_model(Some(incoming.model.clone()), self.shared.status.state());
        self.states = Some(incoming);
    }

    /// Continues with an empty context after a piece of priming has failed or was cancelled. The next hop then reports the error.
    pub(super) fn give_up_priming(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            self.take_model(Some(incoming.model), self.shared.status.state());
        }
        if let (Some(context), Some(model)) = (self.kept_context(), self.model.clone()) {
            let states = self.new_states(model, context, self.frames_passed(context));
            self.states = Some(states);
        }
    }

    /// Cuts the input that states lack, and makes the frames before `target` final.
    fn cut_frames(
        &mut self,
        mut states: ContextStates,
        context: KeptContext,
        target: u64,
    ) -> (ContextStates, Work) {
        let model = states.model.clone();
        let (group, channels) = (model.channels(), self.shared.channels);
        let input = &self.input;
        let count = channels.div_ceil(group);
        let end = input.end() as u64;
        let (groups, frames) = states.take((context, count), (end, target), |index, missing, samples| {
            for m in 0..group {
                // An odd last channel is used for both.
                let window = input.channel((index * group + m).min(channels - 1));
                samples.extend_from_slice(window.get(window.len().saturating_sub(missing)..).unwrap_or(&[]));
            }
        });
        (states, Work { model, rule: self.shared.rule(), groups, cleaned: 0, frames: Some(frames) })
    }

    /// Begins a segment after a jump. If the jump went back to music that is still held, the segment starts with what came before it, from which the
    /// context is filled.
    pub(super) fn begin_after_jump(&mut self, at: u64) {
        let context = self.kept_context().filter(|_| !self.shared.is_blocking() && !self.suspended);
        let history = context.and_then(|context| self.history_before(context, at));
        self.begin_segment(at);
        let Some(history) = history else { return };
        let length = history.first().map_or(0, Vec::len) as u64;
        self.start = at - length;
        self.input.restart_with(&history);
        self.history = history;
        self.hop = self.plan.last_hop(length) + 1;
        let end = self.plan.model_needed_for(self.hop - 1) as i64;
        self.input.advance(end, &self.shared, self.start, None);
    }

    /// The input before the music to which the jump at `at` went back: as many whole hops as the context is long, or as are held. The part
    /// from before the present segment is the history that this one began with.
    fn history_before(&self, context: KeptContext, at: u64) -> Option<Vec<Vec<f32>>> {
        let source = at.checked_sub(self.shared.jump_back(at)?).filter(|source| *source >= self.floor)?;
        let own = self.history.first().map_or(0, Vec::len) as u64;
        let hops = (context.plan.context_frames as u64).div_ceil(context.plan.hop_frames as u64);
        let length =
            (1..=hops).rev().map(|k| self.plan.final_host(k)).find(|n| *n <= source - self.floor + own)?;
        let from = source.saturating_sub(length).max(self.floor);
        let older = (length - (source - from)) as usize;
        let written = self.shared.written();
        if from < self.shared.oldest(written) || length == 0 {
            return None;
        }
        let read = |channel: usize| {
            let mut samples = vec![0.0; length as usize];
            let (before, now) = samples.split_at_mut(older);
            if let Some(history) = self.history.get(channel) {
                before.copy_from_slice(&history[history.len() - older..]);
            }
            self.shared.read_input(channel, from, now);
            now.iter_mut().filter(|x| !x.is_finite()).for_each(|x| *x = 0.0);
            samples
        };
        let history = (0..self.shared.channels).map(read).collect();
        (!self.shared.overrun(from)).then_some(history)
    }

    /// Takes states back from work that has ended. They are dropped if they belong to nothing any more, or if one was lost.
    pub(super) fn give_back(&mut self, id: u64, groups: Vec<Group>) {
        let is_of = |place: &Option<ContextStates>| place.as_ref().is_some_and(|states| states.id == id);
        let place = if is_of(&self.incoming) { &mut self.incoming } else { &mut self.states };
        let is_whole = is_of(place) && place.as_mut().is_some_and(|states| states.give_back(groups));
        if is_of(place) && (!is_whole || self.suspended) {
            *place = None;
        }
    }

    /// Appends the stems of hops with kept context, final and provisional ones.
    pub(super) fn accept_frames(&mut self, work: &Work, flight: Flight) {
        let Some(states) = self.states.as_mut().filter(|states| Some(states.id) == flight.states) else {
            return;
        };
        let Some(context) = self.plan.context() else { return };
        let Some(output) = work.groups.first().and_then(|group| group.state.as_ref()).map(|s| s.output())
        else {
            return;
        };
        let begin = (output.first_sample() + states.first_frame * context.timing.hop_length() as u64) as i64;
        let end = begin + (output.final_len() + output.provisional_len()) as i64;
        // The stems of frames that only filled the context are not played.
        let from = self.plan.final_model(flight.first - 1).max(begin);
        let (channels, group) = (self.shared.channels, work.model.channels());
        // The stems of one state join without a fade.
        let fade = std::mem::take(&mut states.fresh);
        self.overlap.replace(from, end, fade, &mut self.estimate, |stem_channel, out| {
            let (position, channel) = (stem_channel / channels, stem_channel % channels);
            let Some(stem) = work.model.stem_at(position) else { return false };
            let state = work.groups.get(channel / group).and_then(|group| group.state.as_ref());
            let Some(output) = state.map(|state| state.output()) else { return false };
            let skipped = (output.final_len() + output.provisional_len()).saturating_sub(out.len());
            let plane = |m: usize| {
                let (last, ahead) = (output.final_samples(stem, m), output.provisional_samples(stem, m));
                last.iter().chain(ahead).skip(skipped).map(|x| playable(*x))
            };
            let m = channel % group;
            out.iter_mut().zip(plane(m)).for_each(|(y, x)| *y = x);
            if group == 2 && m == 0 && channel + 1 == channels {
                out.iter_mut().zip(plane(1)).for_each(|(y, x)| *y = 0.5 * (*y + x));
            }
            true
        });
    }
}
