//! The worker's half of a stream: resamples the input to the model's rate, runs the model window by window, and resamples the stems back.
//!
//! An [`Engine`] serves one stream and has no thread. [`step`](Engine::step) does the work that is possible now, at most one window. The
//! [`scheduler`](super::scheduler) calls it on the worker thread; tests and offline programs may call it directly.
//!
//! A stream consists of segments. A segment starts at the beginning, at every reset and at every jump. Within a segment window k ends at
//! k·H, with zeros before the segment's start. At a jump the old segment gets one more window, padded with zeros, so that its remaining
//! samples still have stems.

mod input_window;
mod overlap;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use input_window::InputWindow;
use overlap::StemOverlapBuffer;
pub(in crate::live) use overlap::{fade_in, mix};

use super::model::SharedModel;
use super::plan::Plan;
use super::shared::{Availability, Shared};
use super::sinc::Sinc;
use super::status::{State, Status};

/// Stems are clamped to this magnitude: far above any music, and far below values that could overflow in a mix.
const MAX_STEM_AMPLITUDE: f32 = (1u32 << 20) as f32;

/// Result of [`Engine::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There was not enough input.
    Idle,
    /// A hop was read, and its window was run if one was due.
    Ran,
    /// A hop was read, but its window failed or was skipped because it would have been late.
    Skipped,
}

/// The next piece of work.
enum NextAction {
    Idle,
    /// Discard all state and start a segment at this position.
    Restart(u64),
    /// Run the next window.
    Hop,
    /// End the segment at this position.
    Flush(u64),
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

/// The worker's half of one stream, without a thread.
pub struct Engine {
    shared: Arc<Shared>,
    plan: Plan,
    model: Option<SharedModel>,
    input_window: InputWindow,
    overlap: StemOverlapBuffer,
    up: Option<Sinc>,
    up_reach: usize,
    /// Position of the current segment's start in the stream.
    start: u64,
    /// Index of the next window of the segment.
    window: u64,
    ready: Availability,
    parity: usize,
    /// Smoothed run time of a window in seconds; none before the first window.
    cost: Option<f64>,
    /// Whether to skip windows that are predicted to be late by the time they are done, not only those that already are.
    pub(super) skip_predicted_late: bool,
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
            input_window: InputWindow::new(shared.channels, plan.window().len(), (host.0, model.0)),
            overlap: StemOverlapBuffer::new(shared.stems * shared.channels, plan.fade().len(), held),
            up,
            up_reach,
            start: 0,
            window: 1,
            ready: Availability { from: 0, until: 0, provisional: None },
            parity: 0,
            cost: None,
            skip_predicted_late: false,
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

    /// Counters and meters of the stream.
    pub fn status(&self) -> Arc<Status> {
        self.shared.status.clone()
    }

    /// Replaces the model, or removes it. The next window uses the new model and fades in over the lookahead of the last one, as always. The
    /// old model is dropped here.
    ///
    /// # Errors
    /// [`SwapError`]; the old model then stays.
    pub fn swap(&mut self, model: Option<SharedModel>) -> Result<(), SwapError> {
        if let Some(model) = &model {
            check(&self.plan, self.shared.stems, model)?;
        }
        let state = match &model {
            None => State::NoModel,
            Some(_) if self.shared.status.state() == State::Running => State::Running,
            Some(_) => State::Starting,
        };
        self.replace_model(model, state);
        self.cost = None;
        self.shared.status.set_message(None);
        Ok(())
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
        let written = self.shared.written();
        match self.next(written) {
            NextAction::Idle => {
                self.shared.publish_seen(written);
                Step::Idle
            }
            NextAction::Restart(at) => {
                self.begin(at);
                Step::Ran
            }
            NextAction::Hop => self.hop(written),
            NextAction::Flush(at) => self.flush(at),
        }
    }

    /// Steps until no work is left.
    pub fn run_until_idle(&mut self) {
        while self.step() != Step::Idle {}
    }

    /// Seconds until the first sample of the next window is due; none if there is no work.
    pub(super) fn slack(&self) -> Option<f64> {
        let written = self.shared.written();
        match self.next(written) {
            NextAction::Idle => None,
            NextAction::Restart(_) => Some(0.0),
            NextAction::Hop | NextAction::Flush(_) => {
                let due = self.final_at(self.window - 1) + self.plan.latency().0;
                Some((due as f64 - written as f64) / f64::from(self.plan.host_rate()))
            }
        }
    }

    /// Position of the input, which shows whether the stream is moving.
    pub(super) fn written(&self) -> u64 {
        self.shared.written()
    }

    /// Publishes that all input up to now has been processed.
    pub(super) fn publish_idle(&mut self) {
        let written = self.shared.written();
        if let NextAction::Idle = self.next(written) {
            self.shared.publish_seen(written);
        }
    }

    /// First stream position that the window after `k` makes final.
    fn final_at(&self, k: u64) -> u64 {
        self.start + self.plan.final_host(k).max(0) as u64
    }

    fn next(&self, written: u64) -> NextAction {
        let (reset, jump) = (self.shared.reset(), self.shared.jump());
        if reset > self.start {
            return NextAction::Restart(reset);
        }
        if self.start + self.input_window.taken() < self.shared.oldest(written) {
            return NextAction::Restart(written.saturating_sub(self.plan.latency().0).max(reset));
        }
        let parts = self.plan.parts();
        let needed = self.start + self.plan.needed_for(self.window).0;
        // A segment that is too short makes no sample final; it is joined to the next.
        let ends = jump >= self.start + (parts.lookahead + parts.hop + parts.resampler).0;
        if ends && needed > jump && written >= jump {
            NextAction::Flush(jump)
        } else if needed <= written {
            NextAction::Hop
        } else {
            NextAction::Idle
        }
    }

    fn begin(&mut self, at: u64) {
        self.start = at;
        self.window = 1;
        self.input_window.restart();
        self.overlap.restart(self.up_reach);
    }

    fn hop(&mut self, written: u64) -> Step {
        let k = self.window;
        let end = (self.plan.hop().0 * k) as i64;
        self.window += 1;
        if !self.input_window.advance(end, &self.shared, self.start, None) {
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
                self.write_final(from, until);
                self.write_provisional(until);
            }
            Step::Ran
        } else {
            Step::Skipped
        };
        self.overlap.extend(end);
        let (host, model) = self.plan.unit();
        let next = self.plan.final_host(k) * model.0 as i64 / host.0 as i64 - self.up_reach as i64 - 1;
        self.overlap.forget(next);
        step
    }

    /// Gives the end of the segment a window of its own, then begins the next.
    fn flush(&mut self, at: u64) -> Step {
        let length = at - self.start;
        let k = self.window;
        let end = self.plan.model_needed(length) as i64;
        let mut step = Step::Skipped;
        if self.model.is_some()
            && self.input_window.advance(end, &self.shared, self.start, Some(length))
            && self.run(self.plan.final_model(k - 1).max(0))
        {
            self.overlap.extend(end);
            let from = self.final_at(k - 1);
            self.ready.provisional = None;
            self.write_final(from, at);
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
        // A window that can use all the available time is run even if it will be late: its provisional stems are still useful.
        let parts = self.plan.parts();
        let most = 0.5 * (parts.hop + parts.deadline).0 as f64;
        let cost =
            self.cost.filter(|_| self.skip_predicted_late).unwrap_or(0.0) * f64::from(self.plan.host_rate());
        self.final_at(k) + self.plan.latency().0 <= written + cost.min(most) as u64
    }

    /// Runs the model over the current window and replaces the stems from model position `from` on. False if the model failed.
    fn run(&mut self, from: i64) -> bool {
        // Moved out while it runs, so that a panic leaves no half-used model behind.
        let Some(model) = self.model.take() else { return false };
        let failed = self.estimate(&model);
        let (group, stems) = (model.channels(), model.stems());
        self.model = Some(model);
        if let Err((state, message)) = failed {
            match state {
                State::Panicked => self.replace_model(None, state),
                _ => self.shared.status.set_state(state),
            }
            self.shared.status.set_message(Some(message));
            return false;
        }
        let (samples, channels) = (self.plan.window().len(), self.shared.channels);
        let overlap = self.overlap.overlaps(from);
        let end = self.input_window.end();
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
                    // Stems that the model does not have are silent.
                    let signal = estimate.get(begin..begin + samples).filter(|_| s < stems);
                    match signal {
                        Some(signal) => {
                            self.overlap.write(s * channels + first + m, from, end, signal, overlap)
                        }
                        None => self.overlap.write_silence(s * channels + first + m, from, end, overlap),
                    }
                }
            }
        }
        self.overlap.advance(end);
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
                // An odd last channel is used for both.
                self.input.extend_from_slice(self.input_window.channel((g * group + m).min(channels - 1)));
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
                *x = if x.is_finite() { x.clamp(-MAX_STEM_AMPLITUDE, MAX_STEM_AMPLITUDE) } else { 0.0 };
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

    /// Writes final stems from stream position `from` to `until`; `write_provisional` publishes them.
    fn write_final(&mut self, from: u64, until: u64) {
        for stem_channel in 0..self.shared.stems * self.shared.channels {
            self.at_host_rate(stem_channel, from, until);
            self.shared.write_final(stem_channel, from, &self.output);
        }
        if from != self.ready.until {
            self.ready.from = from;
        }
        self.ready.until = until;
    }

    /// Writes the lookahead, provisional stems from stream position `from` on, and publishes what is available.
    fn write_provisional(&mut self, from: u64) {
        self.parity ^= 1;
        let until = from + self.plan.parts().lookahead.0;
        self.shared.begin_provisional(self.parity, from);
        for stem_channel in 0..self.shared.stems * self.shared.channels {
            self.at_host_rate(stem_channel, from, until);
            self.shared.write_provisional(self.parity, stem_channel, from, &self.output);
        }
        self.ready.provisional = Some(self.parity);
        self.shared.publish(self.ready);
    }

    /// Fills `output` with samples of a stem channel at the host's rate.
    fn at_host_rate(&mut self, stem_channel: usize, from: u64, until: u64) {
        let at = (from - self.start) as i64;
        let samples = self.overlap.samples(stem_channel);
        self.output.clear();
        self.output.resize((until - from) as usize, 0.0);
        match &self.up {
            Some(up) => up.resample(samples, self.overlap.first(), at, &mut self.output),
            None => {
                let begin = usize::try_from(at - self.overlap.first()).unwrap_or(0);
                let source = samples.get(begin..).unwrap_or(&[]);
                for (x, y) in self.output.iter_mut().zip(source) {
                    *x = *y;
                }
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

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the model panicked: {}", text.unwrap_or("no reason given"))
}
