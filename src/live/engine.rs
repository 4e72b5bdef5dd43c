//! The worker's half of a stream: cuts hops out of the input, and publishes their stems.
//!
//! An [`Engine`] serves one stream and has no thread. A hop has three parts: `begin` *cuts* its input from the rings and resamples
//! it to the model's rate, the resulting `Work` *runs* anywhere, and `finish` *publishes* its stems, resampled back. The
//! [`scheduler`](super::scheduler) does the first and the last on its thread and hands the work to an executor. [`step`](Engine::step) does all three in
//! turn, for tests and offline programs.
//!
//! A stream consists of segments. A segment starts at the beginning, at every reset and at every jump. Within a segment hop k ends at
//! k·H, with zeros before the segment's start. At a jump the old segment gets one more window, padded with zeros, so that its remaining
//! samples still have stems.
//!
//! With kept context (`frames`) a hop runs its new frames only. With repeated windows (`windows`) it runs the whole last window.
//!
//! In real time several hops may become final at once: those that have arrived since the last one. So a stream that was late, or whose
//! host delivers blocks of several hops, catches up with one window, or one larger hop. A render runs one hop at a time.

mod context_states;
mod frames;
mod input_window;
mod outcome;
mod overlap;
mod publish;
mod windows;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use context_states::ContextStates;
use input_window::InputWindow;
use overlap::StemOverlapBuffer;
pub(in crate::live) use overlap::{fade_in, mix};

use super::cost::CostTracker;
use super::model::SharedModel;
use super::plan::Plan;
use super::shared::{Availability, Shared};
use super::sinc::Sinc;
use super::status::{State, Status};
use super::work::{Group, Outcome, Work};
use crate::kernels::JobControl;

/// Seconds for which priming may wait for other work.
const PRIMING_SLACK: f64 = 1.0;

/// Most input that is read at once, in samples at the model's rate. Resampling it takes a fraction of a millisecond; the input of many seconds, in which a
/// slow model ran, would make the hops of other streams late.
const MAX_READ: i64 = 4096;

/// Result of [`Engine::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There was not enough input.
    Idle,
    /// Input was read, and a window was run if one was due.
    Ran,
    /// A part of the input was read; there is more.
    Read,
    /// Input was read, but its window failed or was skipped.
    Skipped,
}

/// Result of [`Engine::begin`].
pub(super) enum Begun {
    /// This was all.
    Step(Step),
    /// The work has to be run and given to [`Engine::finish`].
    Work(Work),
}

/// The next piece of work.
#[derive(Clone, Copy, PartialEq)]
enum NextAction {
    Idle,
    /// Discard all state and start a segment at this position.
    Restart(u64),
    /// Run the hops up to this one.
    Hops(u64),
    /// End the segment at this position.
    Flush(u64),
    /// Fill a context from past input; only when there is no other work.
    Prime,
}

/// Work that was begun and not finished.
#[derive(Clone, Copy)]
struct Flight {
    /// First hop that it makes final.
    first: u64,
    /// Its stems end at this model position.
    end: i64,
    kind: FlightKind,
    /// The [`ContextStates`] that travel with it.
    states: Option<u64>,
}

#[derive(Clone, Copy)]
enum FlightKind {
    /// Makes all hops up to this one final.
    Hops(u64),
    /// Ends the segment at this position.
    Flush(u64),
    /// Only measures the cost.
    Probe,
    /// Fills a context.
    Prime,
}

/// Why a model cannot be used in a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// The plan is for another sample rate.
    #[error(
        "the stream is planned for models at {planned} Hz, this one is at {found} Hz; open the stream with a new plan"
    )]
    Rate {
        /// In the plan.
        planned: u32,
        /// In the model.
        found: u32,
    },
    /// The model has more stems than the stream has room for.
    #[error("the stream has room for {room} stems, the model has {found}; open the stream with more")]
    Stems {
        /// In the stream.
        room: usize,
        /// In the model.
        found: usize,
    },
    /// The plan's window is shorter than the model's transform allows.
    #[error(
        "the plan's window of {window} samples is too short for a model whose transform is {frame} samples long"
    )]
    Window {
        /// In the plan.
        window: u64,
        /// In the model.
        frame: u64,
    },
    /// The worker has ended.
    #[error("the worker of this stream has stopped; open the stream again")]
    Stopped,
}

/// Checks that `model` fits the plan and the stream.
pub(super) fn check(plan: &Plan, room: usize, model: &SharedModel) -> Result<(), SwapError> {
    let timing = model.timing();
    let (planned, window) = (plan.model_rate(), plan.input_window() as u64);
    if timing.rate != planned {
        Err(SwapError::Rate { planned, found: timing.rate })
    } else if model.stems() > room {
        Err(SwapError::Stems { room, found: model.stems() })
    } else if plan.kept_context_of(&timing).is_none() && window <= timing.frame.0 / 2 {
        Err(SwapError::Window { window, frame: timing.frame.0 })
    } else {
        Ok(())
    }
}

/// The worker's half of one stream, without a thread.
pub struct Engine {
    shared: Arc<Shared>,
    plan: Plan,
    model: Option<SharedModel>,
    input: InputWindow,
    overlap: StemOverlapBuffer,
    up: Option<Sinc>,
    up_reach: usize,
    /// Position of the current segment's start in the stream.
    start: u64,
    /// First position whose stems belong to the segment. After a jump back the segment starts earlier, with the history of a loop.
    floor: u64,
    /// The input from `start` to `floor`, [channels][samples].
    history: Vec<Vec<f32>>,
    /// The last reset that was heeded.
    reset: u64,
    /// The next hop of the segment, from 1 on.
    hop: u64,
    available: Availability,
    flight: Option<Flight>,
    /// The context that the model keeps, in a plan with kept context.
    states: Option<ContextStates>,
    /// A model that replaces the present one when its context is filled.
    incoming: Option<ContextStates>,
    /// Identifies the next states.
    next_states: u64,
    cost: CostTracker,
    /// Whether the stream is too slow: hops are read, and no window is run but probes.
    suspended: bool,
    /// Whether the next hop of a suspended stream is a probe.
    probe: bool,
    /// Memory of the last work.
    spare: Vec<Group>,
    estimate: Vec<f32>,
    output: Vec<f32>,
}

impl Engine {
    pub(super) fn new(plan: Plan, shared: Arc<Shared>) -> Self {
        let (host, model) = plan.ratio();
        let up = (host != model).then(|| Sinc::new(model, host));
        let up_reach = if up.is_some() { Sinc::reach(model, host) as usize } else { 0 };
        let mut engine = Self {
            input: InputWindow::new(shared.channels, plan.input_window(), (host, model)),
            overlap: StemOverlapBuffer::new(shared.stems * shared.channels, plan.fade().len()),
            up,
            up_reach,
            start: 0,
            floor: 0,
            history: Vec::new(),
            reset: shared.reset(),
            hop: 1,
            available: Availability::default(),
            flight: None,
            states: None,
            incoming: None,
            next_states: 0,
            cost: CostTracker::default(),
            suspended: false,
            probe: false,
            model: None,
            spare: Vec::new(),
            estimate: Vec::new(),
            output: Vec::new(),
            shared,
            plan,
        };
        engine.begin_segment(engine.reset);
        engine
    }

    /// Counters and meters of the stream.
    pub fn status(&self) -> Arc<Status> {
        self.shared.status.clone()
    }

    /// Replaces the model, or removes it. The new model fades in over the lookahead of the old one: with the next window, or, with kept
    /// context, when its context is filled from past input. The old model is dropped on this thread.
    ///
    /// # Errors
    /// [`SwapError`]; the old model then stays.
    pub fn swap(&mut self, model: Option<SharedModel>) -> Result<(), SwapError> {
        if let Some(model) = &model {
            check(&self.plan, self.shared.stems, model)?;
            let channels = self.shared.channels;
            for position in model.positions() {
                for stem_channel in position * channels..(position + 1) * channels {
                    self.shared.allocate_stem(stem_channel);
                    self.overlap.activate(stem_channel);
                }
            }
        }
        self.incoming = None;
        if let Some(model) = model.as_ref().filter(|model| self.can_prime(model)) {
            self.prime_incoming(model.clone());
            return Ok(());
        }
        let state = match &model {
            None => State::NoModel,
            Some(_) if self.shared.status.state() == State::Running => State::Running,
            Some(_) => State::Starting,
        };
        self.take_model(model, state);
        Ok(())
    }

    /// Goes on with another model from the next hop on.
    fn take_model(&mut self, model: Option<SharedModel>, state: State) {
        self.replace_model(model, state);
        self.states = None;
        self.cost.clear();
        self.suspended = false;
        self.shared.status.set_message(None);
    }

    fn replace_model(&mut self, model: Option<SharedModel>, state: State) {
        let old = std::mem::replace(&mut self.model, model);
        if catch_unwind(AssertUnwindSafe(move || drop(old))).is_err() {
            self.shared.status.set_message(Some("the old model panicked while it was dropped".into()));
        }
        self.shared.status.set_state(state);
    }

    /// Does the work that is possible now, at most one window.
    pub fn step(&mut self) -> Step {
        self.step_controlled(&())
    }

    fn step_controlled(&mut self, control: &dyn JobControl) -> Step {
        match self.begin() {
            Begun::Step(step) => step,
            Begun::Work(mut work) => {
                let outcome = work.run(control, || ());
                self.finish(work, outcome)
            }
        }
    }

    /// Steps until no work is left.
    pub fn run_until_idle(&mut self) {
        while self.step() != Step::Idle {}
    }

    // For the scheduler.

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn model(&self) -> Option<&SharedModel> {
        self.model.as_ref()
    }

    /// The model that the next piece of work runs.
    pub(super) fn next_model(&self) -> Option<&SharedModel> {
        match &self.incoming {
            Some(incoming) if self.next_is_background() => Some(&incoming.model),
            _ => self.model(),
        }
    }

    /// Whether a model waits for its context while another one plays.
    pub(super) fn primes_incoming(&self) -> bool {
        self.incoming.is_some()
    }

    /// Whether the next piece of work only fills a context, which has time.
    pub(super) fn next_is_background(&self) -> bool {
        self.next(self.shared.written()) == NextAction::Prime
    }

    pub(super) fn cost(&self) -> &CostTracker {
        &self.cost
    }

    /// Whether a client waits for the worker: an offline render.
    pub(super) fn is_blocking(&self) -> bool {
        self.shared.is_blocking()
    }

    /// Position of the input, which shows whether the stream is moving.
    pub(super) fn written(&self) -> u64 {
        self.shared.written()
    }

    /// Host samples that are missing until the next piece of work.
    pub(super) fn missing(&self) -> u64 {
        (self.start + self.plan.needed_for(self.hop)).saturating_sub(self.shared.written())
    }

    /// Whether work was begun whose result is void, because the stream was reset.
    pub(super) fn is_flight_void(&self) -> bool {
        self.flight.is_some() && self.shared.reset() != self.reset
    }

    /// Seconds until the first sample of the next hop is due; none if there is no work, or work that was begun.
    pub(super) fn slack(&self) -> Option<f64> {
        let written = self.shared.written();
        match self.next(written) {
            NextAction::Idle => None,
            NextAction::Restart(_) => Some(0.0),
            NextAction::Prime => Some(PRIMING_SLACK),
            NextAction::Hops(_) | NextAction::Flush(_) => {
                let due = self.final_at(self.hop - 1) + self.plan.latency().0;
                Some((due as f64 - written as f64) / f64::from(self.plan.host_rate()))
            }
        }
    }

    /// Whether the next piece of work needs an executor, as far as is known now.
    pub(super) fn needs_executor(&self) -> bool {
        let runs = self.model.is_some() && (!self.suspended || self.probe || self.shared.is_blocking());
        match self.next(self.shared.written()) {
            NextAction::Hops(last) => runs && last >= self.plan.first_hop(),
            NextAction::Flush(_) => runs,
            NextAction::Prime => true,
            NextAction::Idle | NextAction::Restart(_) => false,
        }
    }

    /// Publishes that all input up to now has been processed, if it has.
    pub(super) fn publish_idle(&mut self) {
        let written = self.shared.written();
        if self.flight.is_none() && self.next(written) == NextAction::Idle {
            self.shared.publish_seen(written);
        }
    }

    /// Suspends the stream because it is too slow, or lets it run again.
    pub(super) fn set_suspended(&mut self, suspended: bool) {
        if suspended {
            self.states = None;
        }
        if self.suspended != suspended && self.model.is_some() {
            self.shared.status.set_state(if suspended { State::TooSlow } else { State::Starting });
        }
        if self.suspended && !suspended {
            // What it cost before is not what it costs now.
            self.cost.forget_all_but_latest();
        }
        self.suspended = suspended;
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Makes the next hop of a suspended stream a probe, which only measures its cost.
    pub(super) fn request_probe(&mut self) {
        self.probe = true;
    }

    /// First stream position that hop `k` + 1 makes final.
    fn final_at(&self, k: u64) -> u64 {
        (self.start + self.plan.final_host(k)).max(self.floor)
    }

    fn next(&self, written: u64) -> NextAction {
        let (reset, jump) = (self.shared.reset(), self.shared.jump());
        if self.flight.is_some() {
            return NextAction::Idle;
        }
        if reset != self.reset {
            return NextAction::Restart(reset);
        }
        if self.start + self.input.taken() < self.shared.oldest(written) {
            return NextAction::Restart(written.saturating_sub(self.plan.latency().0).max(reset));
        }
        let parts = self.plan.parts();
        // A segment that is too short makes no sample final; it is joined to the next.
        let ends = jump >= self.floor + (parts.lookahead + parts.hop + parts.resampler).0;
        let segment_end = if ends { jump } else { u64::MAX };
        if self.start + self.plan.needed_for(self.hop) > segment_end && written >= segment_end {
            return NextAction::Flush(segment_end);
        }
        let last = self.plan.last_hop(written.min(segment_end).saturating_sub(self.start));
        if last >= self.hop {
            NextAction::Hops(last)
        } else if self.wants_priming() {
            NextAction::Prime
        } else {
            NextAction::Idle
        }
    }

    fn begin_segment(&mut self, at: u64) {
        (self.start, self.floor) = (at, at);
        self.history.clear();
        self.hop = 1;
        self.input.restart();
        self.overlap.restart(self.up_reach);
        self.states = None;
        // A new segment has no past input to wait for.
        if let Some(incoming) = self.incoming.take() {
            self.take_model(Some(incoming.model), self.shared.status.state());
        }
    }

    /// Reads the input of the next piece of work, and does what needs no model.
    pub(super) fn begin(&mut self) -> Begun {
        let written = self.shared.written();
        match self.next(written) {
            NextAction::Idle => {
                self.publish_idle();
                Begun::Step(Step::Idle)
            }
            NextAction::Restart(at) => {
                self.reset = self.shared.reset();
                self.begin_segment(at);
                Begun::Step(Step::Ran)
            }
            NextAction::Hops(last) => self.begin_hops(last),
            NextAction::Flush(at) => self.begin_flush(at),
            NextAction::Prime => self.begin_priming(),
        }
    }

    fn begin_hops(&mut self, last: u64) -> Begun {
        let blocking = self.shared.is_blocking();
        let last = if blocking { self.hop } else { last };
        // One window covers so many hops.
        let most = ((self.plan.window() - self.plan.lookahead()).0 / self.plan.hop().0).max(1);
        // Hops whose stems would all be in the past are skipped, unless a render waits for them.
        let mut first = self.hop;
        while !blocking
            && first < last
            && self.final_at(first) + self.plan.latency().0 <= self.shared.written()
        {
            first += 1;
        }
        let last = last.min(first + most - 1);
        let end = self.plan.model_needed_for(last) as i64;
        let part = end.min(self.input.end() + MAX_READ);
        if !self.input.advance(part, &self.shared, self.start, None) {
            self.begin_segment(self.shared.written().saturating_sub(self.plan.latency().0).max(self.floor));
            return Begun::Step(Step::Skipped);
        }
        if part < end {
            return Begun::Step(Step::Read);
        }
        let skipped = first - self.hop;
        self.hop = last + 1;
        let is_history = self.start < self.floor && self.final_at(last) == self.floor;
        if last < self.plan.first_hop() || is_history {
            return Begun::Step(self.pass_hops(last, Step::Ran));
        }
        let probe = std::mem::take(&mut self.probe);
        let kind = match (self.suspended && !blocking, probe) {
            (false, _) => FlightKind::Hops(last),
            (true, true) => FlightKind::Probe,
            (true, false) => return Begun::Step(self.pass_hops(last, Step::Skipped)),
        };
        self.let_incoming_take_over(last + 1 - first);
        let work = match self.kept_context() {
            Some(context) => self.cut_hops(context, (first, last), kind),
            None => self.model.clone().map(|model| (self.cut_window(model), None)),
        };
        let Some((work, states)) = work else { return Begun::Step(self.pass_hops(last, Step::Skipped)) };
        self.shared.status.count_skipped(skipped);
        self.flight = Some(Flight { first, end, kind, states });
        Begun::Work(work)
    }

    /// Gives the rest of the segment a window of its own, or a last hop.
    fn begin_flush(&mut self, at: u64) -> Begun {
        let length = at - self.start;
        let end = self.plan.model_needed_for_end(length) as i64;
        let runs = !self.suspended || self.shared.is_blocking();
        if runs && self.model.is_some() && self.input.advance(end, &self.shared, self.start, Some(length)) {
            let work = match self.kept_context() {
                Some(context) => self.cut_end(context, self.plan.model_needed(length)),
                None => self.model.clone().map(|model| (self.cut_window(model), None)),
            };
            if let Some((work, states)) = work {
                self.flight = Some(Flight { first: self.hop, end, kind: FlightKind::Flush(at), states });
                return Begun::Work(work);
            }
        }
        self.begin_after_jump(at);
        Begun::Step(Step::Skipped)
    }

    /// Publishes the stems of work that has run.
    pub(super) fn finish(&mut self, work: Work, outcome: Outcome) -> Step {
        let Some(flight) = self.flight.take() else { return Step::Skipped };
        let succeeded = self.note_outcome(&work, outcome, flight.kind);
        let is_void = self.shared.reset() != self.reset;
        let publish = succeeded && !is_void;
        if publish && matches!(flight.kind, FlightKind::Hops(_) | FlightKind::Flush(_)) {
            match flight.states {
                Some(_) => self.accept_frames(&work, flight),
                None => self.accept_window(&work, flight),
            }
        }
        match flight.states {
            Some(id) => self.give_back(id, work.groups),
            None => self.spare = work.groups,
        }
        let step = if publish { Step::Ran } else { Step::Skipped };
        match flight.kind {
            FlightKind::Flush(at) => {
                if publish {
                    self.overlap.extend(flight.end);
                    self.write_final(self.final_at(flight.first - 1), at);
                    self.available.slot = None;
                    self.shared.publish(self.available);
                }
                self.begin_after_jump(at);
                step
            }
            FlightKind::Hops(last) => {
                let (from, until) = (self.final_at(flight.first - 1), self.final_at(last));
                if publish && from < until {
                    self.write_final(from, until);
                    self.write_provisional(until);
                }
                self.pass_hops(last, step)
            }
            FlightKind::Probe => self.pass_hops(self.hop - 1, Step::Skipped),
            FlightKind::Prime => {
                if !succeeded && !is_void {
                    self.give_up_priming();
                }
                step
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.replace_model(None, State::Stopped);
        self.shared.close();
    }
}

#[cfg(test)]
mod tests;
