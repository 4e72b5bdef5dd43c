//! The worker's half of a stream: input to the model's rate, window by window through the model, stems back to the host's rate.
//!
//! An [`Engine`] is one stream's worth of it and has no thread: [`step`](Engine::step) does what can be done now, at most one
//! window. The [`scheduler`](super::scheduler) calls it on the worker thread; tests and offline programs may call it themselves.
//!
//! The stream is a row of segments. One begins at the start, at every reset and at every jump; within it window k ends at k·H, and it sees
//! zeros before the segment. At a jump the end of the old segment gets one more window, with zeros behind it, so that what was still
//! to be played keeps its stems.

mod history;
mod lines;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use history::History;
use lines::Lines;
pub(in crate::stream) use lines::{fade_in, mix};

use super::model::SharedModel;
use super::plan::Plan;
use super::shared::{Ready, Shared};
use super::sinc::Sinc;
use super::status::{State, Status};

/// Largest magnitude of a stem: far above any music, far below what could overflow in a mix.
const LOUDEST: f32 = (1u32 << 20) as f32;

/// What a call of [`Engine::step`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: there is not enough input yet.
    Idle,
    /// A hop was taken in, and a window run where one was due.
    Ran,
    /// A hop was taken in, but its window left out: it failed, or would have come too late.
    Skipped,
}

/// What is to be done.
enum Next {
    Idle,
    /// Everything so far is void: begin anew at this position.
    Restart(u64),
    /// The next window.
    Hop,
    /// The segment ends at this position.
    Flush(u64),
}

/// Why a model cannot be put into a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// The plan is for another rate.
    #[error(
        "the stream is planned for models at {planned} Hz, this one is at {found} Hz; open the stream with a new plan"
    )]
    Rate {
        /// Of the plan.
        planned: u32,
        /// Of the model.
        found: u32,
    },
    /// There is no room for so many stems.
    #[error("the stream has room for {room} stems, the model has {found}; open the stream with more")]
    Stems {
        /// Of the stream.
        room: usize,
        /// Of the model.
        found: usize,
    },
    /// The plan's window is shorter than the model's transform allows.
    #[error(
        "the plan's window of {window} samples is too short for a model whose transform is {frame} samples long"
    )]
    Window {
        /// Of the plan.
        window: u64,
        /// Of the model.
        frame: u64,
    },
    /// The worker is gone.
    #[error("the worker of this stream has stopped; open the stream again")]
    Stopped,
}

/// Whether `model` fits.
pub(super) fn check(plan: &Plan, room: usize, model: &SharedModel) -> Result<(), SwapError> {
    let timing = model.timing();
    let (planned, window) = (plan.model_rate(), plan.window().0);
    if timing.rate != planned {
        Err(SwapError::Rate { planned, found: timing.rate })
    } else if model.stems() > room {
        Err(SwapError::Stems { room, found: model.stems() })
    } else if window <= timing.frame.0 / 2 {
        Err(SwapError::Window { window, frame: timing.frame.0 })
    } else {
        Ok(())
    }
}

/// One stream's worker, without a thread.
pub struct Engine {
    shared: Arc<Shared>,
    plan: Plan,
    model: Option<SharedModel>,
    history: History,
    lines: Lines,
    up: Option<Sinc>,
    up_reach: usize,
    /// Position of the current segment's start in the stream.
    start: u64,
    /// Index of the next window of the segment.
    window: u64,
    ready: Ready,
    parity: usize,
    /// Smoothed time of a window in seconds; none before the first.
    cost: Option<f64>,
    /// Whether windows are left out that would be too late by the time they are done, not only those that are too late already.
    pub(super) foresee: bool,
    /// [channels, window] of a group of channels.
    input: Vec<f32>,
    /// [groups][stems, channels, window].
    estimates: Vec<Vec<f32>>,
    output: Vec<f32>,
}

impl Engine {
    pub(super) fn new(plan: Plan, shared: Arc<Shared>) -> Self {
        let (host, model) = plan.unit();
        let up = (host.0 != model.0).then(|| Sinc::new(model.0, host.0));
        let up_reach = if up.is_some() { Sinc::reach(model.0, host.0) as usize } else { 0 };
        let held = 4 * up_reach + 2 * (plan.hop() + plan.lookahead()).len();
        let mut engine = Self {
            history: History::new(shared.channels, plan.window().len(), (host.0, model.0)),
            lines: Lines::new(shared.stems * shared.channels, plan.fade().len(), held),
            up,
            up_reach,
            start: 0,
            window: 1,
            ready: Ready { from: 0, until: 0, tail: None },
            parity: 0,
            cost: None,
            foresee: false,
            model: None,
            input: Vec::new(),
            estimates: Vec::new(),
            output: Vec::new(),
            shared,
            plan,
        };
        engine.begin(engine.shared.reset());
        engine
    }

    /// What happens in the stream.
    pub fn status(&self) -> Arc<Status> {
        self.shared.status.clone()
    }

    /// Puts a model in, or takes it out. The next window is the new one's, faded in over the lookahead of the last like any other; the
    /// old one is dropped here.
    ///
    /// # Errors
    /// [`SwapError`]; then the old model stays.
    pub fn swap(&mut self, model: Option<SharedModel>) -> Result<(), SwapError> {
        if let Some(model) = &model {
            check(&self.plan, self.shared.stems, model)?;
        }
        let state = match &model {
            None => State::NoModel,
            Some(_) if self.shared.status.state() == State::Running => State::Running,
            Some(_) => State::Starting,
        };
        self.put_model(model, state);
        self.cost = None;
        self.shared.status.set_message(None);
        Ok(())
    }

    fn put_model(&mut self, model: Option<SharedModel>, state: State) {
        let old = std::mem::replace(&mut self.model, model);
        if catch_unwind(AssertUnwindSafe(move || drop(old))).is_err() {
            self.shared.status.set_message(Some("the old model panicked while it was dropped".into()));
        }
        self.shared.status.set_state(state);
    }

    /// Does what can be done now, at most one window.
    pub fn step(&mut self) -> Step {
        let written = self.shared.written();
        match self.next(written) {
            Next::Idle => {
                self.shared.publish_seen(written);
                Step::Idle
            }
            Next::Restart(at) => {
                self.begin(at);
                Step::Ran
            }
            Next::Hop => self.hop(written),
            Next::Flush(at) => self.flush(at),
        }
    }

    /// Steps until there is nothing to do.
    pub fn run_until_idle(&mut self) {
        while self.step() != Step::Idle {}
    }

    /// Seconds until the next window's first sample is to be played; none when there is nothing to do.
    pub(super) fn slack(&self) -> Option<f64> {
        let written = self.shared.written();
        match self.next(written) {
            Next::Idle => None,
            Next::Restart(_) => Some(0.0),
            Next::Hop | Next::Flush(_) => {
                let due = self.final_at(self.window - 1) + self.plan.latency().0;
                Some((due as f64 - written as f64) / f64::from(self.plan.host_rate()))
            }
        }
    }

    /// Position of the input, to see whether it moves.
    pub(super) fn written(&self) -> u64 {
        self.shared.written()
    }

    /// Says that the input up to now was looked at.
    pub(super) fn rest(&mut self) {
        let written = self.shared.written();
        if let Next::Idle = self.next(written) {
            self.shared.publish_seen(written);
        }
    }

    /// Start of what the window after `k` makes final, in the stream.
    fn final_at(&self, k: u64) -> u64 {
        self.start + self.plan.final_host(k).max(0) as u64
    }

    fn next(&self, written: u64) -> Next {
        let (reset, jump) = (self.shared.reset(), self.shared.jump());
        if reset > self.start {
            return Next::Restart(reset);
        }
        if self.start + self.history.taken() < self.shared.oldest(written) {
            return Next::Restart(written.saturating_sub(self.plan.latency().0).max(reset));
        }
        let parts = self.plan.parts();
        let needed = self.start + self.plan.needed_for(self.window).0;
        // Too short a segment makes nothing final; it stays one with the next.
        let ends = jump >= self.start + (parts.lookahead + parts.hop + parts.resampler).0;
        if ends && needed > jump && written >= jump {
            Next::Flush(jump)
        } else if needed <= written {
            Next::Hop
        } else {
            Next::Idle
        }
    }

    fn begin(&mut self, at: u64) {
        self.start = at;
        self.window = 1;
        self.history.restart();
        self.lines.restart(self.up_reach);
    }

    fn hop(&mut self, written: u64) -> Step {
        let k = self.window;
        let end = (self.plan.hop().0 * k) as i64;
        self.window += 1;
        if !self.history.advance(end, &self.shared, self.start, None) {
            self.begin(self.shared.written().saturating_sub(self.plan.latency().0).max(self.start));
            return Step::Skipped;
        }
        let step = if k < self.plan.first_window() {
            Step::Ran
        } else if self.model.is_none() {
            Step::Skipped
        } else if self.too_late(k, written) {
            self.shared.status.count_skipped();
            Step::Skipped
        } else if self.run(self.plan.final_model(k - 1).max(0)) {
            let (from, until) = (self.final_at(k - 1), self.final_at(k));
            if from < until {
                self.put_final(from, until);
                self.put_tail(until);
            }
            Step::Ran
        } else {
            Step::Skipped
        };
        self.lines.extend(end);
        let (host, model) = self.plan.unit();
        let next = self.plan.final_host(k) * model.0 as i64 / host.0 as i64 - self.up_reach as i64 - 1;
        self.lines.forget(next);
        step
    }

    /// Gives the end of the segment a window of its own, then begins the next.
    fn flush(&mut self, at: u64) -> Step {
        let length = at - self.start;
        let k = self.window;
        let end = self.plan.model_needed(length) as i64;
        let mut step = Step::Skipped;
        if self.model.is_some()
            && self.history.advance(end, &self.shared, self.start, Some(length))
            && self.run(self.plan.final_model(k - 1).max(0))
        {
            self.lines.extend(end);
            let from = self.final_at(k - 1);
            self.ready.tail = None;
            self.put_final(from, at);
            self.shared.publish(self.ready);
            step = Step::Ran;
        }
        self.begin(at);
        step
    }

    /// Whether nothing of what window `k` makes final can still be played.
    fn too_late(&self, k: u64, written: u64) -> bool {
        if self.shared.is_blocking() {
            return false;
        }
        // However slow, a window that gets all the time there is, is run: its tail is still worth something.
        let parts = self.plan.parts();
        let most = 0.5 * (parts.hop + parts.deadline).0 as f64;
        let cost = self.cost.filter(|_| self.foresee).unwrap_or(0.0) * f64::from(self.plan.host_rate());
        self.final_at(k) + self.plan.latency().0 <= written + cost.min(most) as u64
    }

    /// Runs the model over the window as it is and replaces the stems from model position `from` on. False when it failed.
    fn run(&mut self, from: i64) -> bool {
        // Taken out while it runs, so that it is in one place when it panics.
        let Some(model) = self.model.take() else { return false };
        let failed = self.estimate(&model);
        let (group, stems) = (model.channels(), model.stems());
        self.model = Some(model);
        if let Err((state, message)) = failed {
            match state {
                State::Panicked => self.put_model(None, state),
                _ => self.shared.status.set_state(state),
            }
            self.shared.status.set_message(Some(message));
            return false;
        }
        let (samples, channels) = (self.plan.window().len(), self.shared.channels);
        let overlap = self.lines.overlaps(from);
        let end = self.history.end();
        for (g, estimate) in self.estimates.iter_mut().enumerate() {
            let first = g * group;
            let alone = group == 2 && first + 1 == channels;
            for s in 0..self.shared.stems {
                for m in 0..group.min(channels - first) {
                    let begin = (s * group + m) * samples;
                    if alone && s < stems {
                        for i in begin..begin + samples {
                            estimate[i] = 0.5 * (estimate[i] + estimate[i + samples]);
                        }
                    }
                    // A model of fewer stems than there is room for is silent in the rest.
                    let signal = estimate.get(begin..begin + samples).filter(|_| s < stems);
                    match signal {
                        Some(signal) => self.lines.put(s * channels + first + m, from, end, signal, overlap),
                        None => self.lines.put_silence(s * channels + first + m, from, end, overlap),
                    }
                }
            }
        }
        self.lines.advance(end);
        true
    }

    /// Fills `estimates`.
    fn estimate(&mut self, model: &SharedModel) -> Result<(), (State, String)> {
        let (group, channels) = (model.channels(), self.shared.channels);
        self.estimates.resize_with(channels.div_ceil(group), Vec::new);
        let started = Instant::now();
        let rule = self.shared.rule();
        let mut cleaned = 0;
        for (g, estimate) in self.estimates.iter_mut().enumerate() {
            self.input.clear();
            for m in 0..group {
                // An odd last channel stands for both.
                self.input.extend_from_slice(self.history.channel((g * group + m).min(channels - 1)));
            }
            estimate.clear();
            estimate.resize(model.stems() * group * self.plan.window().len(), 0.0);
            if self.input.iter().all(|x| *x == 0.0) {
                continue;
            }
            let input = &self.input;
            match catch_unwind(AssertUnwindSafe(|| model.separate_window(input, rule, estimate))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err((State::Failing, error.to_string())),
                Err(panic) => return Err((State::Panicked, panic_text(&*panic))),
            }
            for x in estimate.iter_mut() {
                cleaned += u64::from(!x.is_finite());
                *x = if x.is_finite() { x.clamp(-LOUDEST, LOUDEST) } else { 0.0 };
            }
        }
        self.shared.status.count_cleaned(cleaned);
        self.note_time(started.elapsed().as_secs_f64());
        Ok(())
    }

    fn note_time(&mut self, seconds: f64) {
        let cost = self.cost.map_or(seconds, |cost| 0.8 * cost + 0.2 * seconds);
        self.cost = Some(cost);
        self.shared.status.count_window(cost, self.plan.load(cost));
        if self.shared.status.state() != State::Running {
            self.shared.status.set_state(State::Running);
            self.shared.status.set_message(None);
        }
    }

    /// Hands out final stems from stream position `from` to `until`, without saying so yet.
    fn put_final(&mut self, from: u64, until: u64) {
        for lane in 0..self.shared.stems * self.shared.channels {
            self.at_host_rate(lane, from, until);
            self.shared.put_final(lane, from, &self.output);
        }
        if from != self.ready.until {
            self.ready.from = from;
        }
        self.ready.until = until;
    }

    /// Hands out the lookahead, provisional stems from stream position `from` on, and says what there is.
    fn put_tail(&mut self, from: u64) {
        self.parity ^= 1;
        let until = from + self.plan.parts().lookahead.0;
        self.shared.begin_tail(self.parity, from);
        for lane in 0..self.shared.stems * self.shared.channels {
            self.at_host_rate(lane, from, until);
            self.shared.put_tail(self.parity, lane, from, &self.output);
        }
        self.ready.tail = Some(self.parity);
        self.shared.publish(self.ready);
    }

    /// Fills `output` with the host's samples of a lane.
    fn at_host_rate(&mut self, lane: usize, from: u64, until: u64) {
        let at = (from - self.start) as i64;
        let line = self.lines.line(lane);
        self.output.clear();
        self.output.resize((until - from) as usize, 0.0);
        match &self.up {
            Some(up) => up.resample(line, self.lines.first(), at, &mut self.output),
            None => {
                let begin = usize::try_from(at - self.lines.first()).unwrap_or(0);
                let source = line.get(begin..).unwrap_or(&[]);
                for (x, y) in self.output.iter_mut().zip(source) {
                    *x = *y;
                }
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.put_model(None, State::Stopped);
        self.shared.close();
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the model panicked: {}", text.unwrap_or("no reason given"))
}
