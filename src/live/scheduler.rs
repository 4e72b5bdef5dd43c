//! One worker for all streams of a process.
//!
//! The scheduler's thread owns the [`Engine`]s. It notices complete hops, hands the most urgent one to the executor, and publishes what comes
//! back. It never runs a model itself, so that it stays responsive: streams come and go, and light hops overtake heavy ones, while a
//! window runs. Ten plugin instances must not run ten inferences at once, since one window already uses all cores.
//!
//! Streams that the machine is too slow for are suspended (`admission`): their output is the delayed input, and a probe every few seconds
//! shows whether they can run again.

mod admission;
mod hop_clock;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::Mutex;

pub use admission::LOAD_BUDGET;
use admission::{COLD_FACTOR, Demand, admit_by_device};
use hop_clock::HopClock;

use super::client::WorkerHandle;
use super::engine::{Begun, Engine, Step};
use super::executor::{Executor, Executors, Finished, Job, JobToken, Urgency};
use super::model::SharedModel;
use super::work::Work;
use crate::kernels::os::{self, Priority};

/// Name of the scheduler's thread.
pub const THREAD_NAME: &str = "nullsum-live";
/// Longest wait for the threads to end when the last handle is dropped. Then they are left to end by themselves.
const JOIN_LIMIT: Duration = Duration::from_millis(80);
/// Shortest time between two probes of a stream that is too slow.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
/// Share of the worker's time that the probes of a stream may take.
const PROBE_SHARE: f64 = 0.1;
/// Longest time between two probes, whatever they take.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// How often flags are looked at that an audio thread sets.
const FLAG_INTERVAL: Duration = Duration::from_millis(20);

/// Messages to the scheduler's thread.
pub(super) enum Message {
    Add(u64, Box<Engine>),
    Swap(u64, Option<SharedModel>),
    Remove(u64),
    /// A client waits: check the streams now.
    Wake,
    Finished(Finished),
    Watch(u64, Arc<AtomicBool>, Box<dyn Fn() + Send>),
    Unwatch(u64),
    Stop,
}

/// A handle to the scheduler. Clones share it; dropping the last one stops it, within 100 ms even while a window runs.
#[derive(Clone)]
pub struct Scheduler(Arc<Inner>);

struct Inner {
    messages: Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    next_id: AtomicU64,
    /// Counts the layers that were run.
    progress: Arc<AtomicU64>,
    loads: Arc<Mutex<Vec<(u64, f64)>>>,
    /// Loads that owners of streams expect; see [`Stream::set_expected_load`](super::Stream::set_expected_load).
    expected_loads: Mutex<Vec<(u64, f64)>>,
}

static PROCESS: Mutex<Weak<Inner>> = Mutex::new(Weak::new());

/// Ends the forwarding of a flag when it is dropped; see [`Scheduler::forward`].
pub struct Forward {
    id: u64,
    messages: Sender<Message>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Unwatch(self.id));
    }
}

impl Scheduler {
    /// The process's scheduler, started if none exists.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn of_process() -> std::io::Result<Self> {
        let mut process = PROCESS.lock();
        if let Some(inner) = process.upgrade() {
            return Ok(Self(inner));
        }
        let scheduler = Self::new()?;
        *process = Arc::downgrade(&scheduler.0);
        Ok(scheduler)
    }

    /// A scheduler with its own threads.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn new() -> std::io::Result<Self> {
        let (messages, queue) = unbounded();
        let (alive, ended) = bounded::<()>(0);
        let (progress, loads) = (Arc::new(AtomicU64::new(0)), Arc::default());
        let results = messages.clone();
        let executor = Executors::new(Arc::clone(&progress), move |finished| {
            // After a stop nobody needs it.
            let _ = results.send(Message::Finished(finished));
        })?;
        let mut runner = Runner::new(Box::new(executor), Arc::clone(&loads));
        let thread = std::thread::Builder::new().name(THREAD_NAME.into()).spawn(move || {
            let _alive = alive;
            run(&queue, &mut runner);
        })?;
        let thread = Mutex::new(Some(thread));
        let (next_id, expected_loads) = (AtomicU64::new(0), Mutex::default());
        Ok(Self(Arc::new(Inner { messages, thread, ended, next_id, progress, loads, expected_loads })))
    }

    /// Share of the worker's time that all streams use, without `except`. 1 is all of it, [`LOAD_BUDGET`] the most that is admitted.
    /// For a stream whose owner has told the load that it expects, that load counts, so that the sum does not depend on which streams
    /// play just now.
    pub fn load_of_others(&self, except: Option<&super::Stream>) -> f64 {
        let except = except.map(super::Stream::id);
        let expected = self.0.expected_loads.lock();
        let is_expected = |id: u64| expected.iter().any(|(known, _)| *known == id);
        let observed = self.0.loads.lock();
        let unexpected = observed.iter().filter(|(id, _)| !is_expected(*id));
        expected.iter().chain(unexpected).filter(|(id, _)| Some(*id) != except).map(|(_, load)| load).sum()
    }

    /// Sets or forgets the expected load of a stream.
    pub(super) fn set_expected_load(&self, id: u64, load: Option<f64>) {
        let mut expected = self.0.expected_loads.lock();
        expected.retain(|(known, _)| *known != id);
        expected.extend(load.filter(|load| load.is_finite()).map(|load| (id, load.max(0.0))));
    }

    /// Number of layers that the worker has run, of any stream. It stands still while nothing plays.
    pub fn progress(&self) -> u64 {
        self.0.progress.load(Relaxed)
    }

    /// Calls `wake` on the scheduler's thread soon after `flag` was set, and clears it. So an audio thread, which must not make system calls,
    /// can wake another thread. Drop the result to end it.
    pub fn forward(&self, flag: Arc<AtomicBool>, wake: impl Fn() + Send + 'static) -> Forward {
        let id = self.new_id();
        self.send(Message::Watch(id, flag, Box::new(wake)));
        Forward { id, messages: self.0.messages.clone() }
    }

    /// Locks the process's handle, for tests.
    #[cfg(all(test, feature = "plugin"))]
    pub(crate) fn lock_process() -> impl Sized {
        PROCESS.lock()
    }

    /// False if the thread has ended.
    pub(super) fn send(&self, message: Message) -> bool {
        self.0.messages.send(message).is_ok()
    }

    pub(super) fn worker(&self) -> WorkerHandle {
        let messages = self.0.messages.clone();
        WorkerHandle {
            wake: Box::new(move || {
                // The waiting client notices if the thread has ended.
                let _ = messages.send(Message::Wake);
            }),
            progress: Arc::clone(&self.0.progress),
        }
    }

    pub(super) fn new_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Relaxed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
        let Some(thread) = self.thread.lock().take() else { return };
        if thread.thread().id() == std::thread::current().id() {
            return;
        }
        // The channel closes when the thread ends; nothing is ever sent.
        match self.ended.recv_timeout(JOIN_LIMIT) {
            Err(RecvTimeoutError::Disconnected) => {
                // The thread catches the panics of its streams. If it panics nevertheless, nothing is left to clean up.
                let _ = thread.join();
            }
            _ => os::pin_library(),
        }
    }
}

/// A stream as the scheduler sees it.
struct ScheduledStream {
    id: u64,
    engine: Box<Engine>,
    clock: HopClock,
    /// When its next hop is due; fixed when the work is first seen.
    due: Option<Instant>,
    /// Whether `due` is of work in the background, which a hop replaces.
    is_background: bool,
    /// The job that runs.
    running: Option<Arc<JobToken>>,
    /// When a suspended stream is probed next.
    next_probe: Instant,
}

impl ScheduledStream {
    /// Updates whether there is work, and its deadline.
    fn update(&mut self, now: Instant) {
        self.clock.observe(self.engine.written(), now);
        if self.engine.is_flight_void()
            && let Some(token) = &self.running
        {
            token.cancel();
        }
        let is_background = self.engine.next_is_background();
        if is_background != self.is_background {
            (self.due, self.is_background) = (None, is_background);
        }
        match self.engine.slack() {
            None => {
                self.due = None;
                self.engine.publish_idle();
            }
            // Fixed when first seen, so that live streams cannot overtake an offline stream for ever.
            Some(slack) if self.due.is_none() => self.due = Some(deadline(now, slack)),
            Some(_) => {}
        }
    }

    fn demand(&self) -> Demand {
        let (cost, plan) = (self.engine.cost(), self.engine.plan());
        let suspended = self.engine.is_suspended();
        Demand {
            cost: if suspended { cost.latest() } else { cost.average() },
            is_first: cost.count() == 1 && !suspended,
            hop: plan.hop_seconds(),
            deadline: plan.deadline_seconds(),
            suspended,
            exempt: self.engine.is_blocking() || self.engine.model().is_none() || self.clock.is_at_rest(),
        }
    }

    /// Longest useful run of a hop in real time. A model that takes longer is too slow, and is not waited for.
    fn run_limit(&self, work: &Work) -> Option<Duration> {
        let plan = self.engine.plan();
        // A hop that catches up takes as many times as long.
        let size = work.frames.map_or(1.0, |frames| frames.size.max(1.0));
        let limit = match self.engine.is_suspended() {
            false => COLD_FACTOR * size * (plan.deadline_seconds() + plan.hop_seconds()),
            // A stream whose probe takes longer than a hop stays suspended, so the rest of the probe is not needed.
            true => plan.hop_seconds(),
        };
        if self.engine.is_blocking() { None } else { Duration::try_from_secs_f64(limit).ok() }
    }

    /// Time to the next probe: probes take a small share of the worker's time.
    fn probe_interval(&self) -> Duration {
        let cost = self.engine.cost().latest().unwrap_or(0.0);
        let rare = Duration::try_from_secs_f64(cost / PROBE_SHARE).unwrap_or(MAX_PROBE_INTERVAL);
        rare.clamp(PROBE_INTERVAL, MAX_PROBE_INTERVAL)
    }

    fn urgency(&self, due: Instant) -> Urgency {
        let cost = self.engine.cost().percentile(0.9).or_else(|| self.engine.plan().expected_cost());
        let cost = cost.and_then(|cost| Duration::try_from_secs_f64(cost).ok());
        // Without its context a stream has no stems, unless another model still plays.
        let in_background = self.engine.is_suspended() || self.is_background && self.engine.primes_incoming();
        let priority = match (self.engine.is_blocking(), in_background) {
            (true, _) => Priority::Normal,
            (false, false) => Priority::Live,
            (false, true) => Priority::Background,
        };
        Urgency { due, cost, priority }
    }
}

fn deadline(now: Instant, slack: f64) -> Instant {
    let span = Duration::try_from_secs_f64(slack.abs().min(1e6)).unwrap_or_default();
    if slack < 0.0 { now.checked_sub(span).unwrap_or(now) } else { now + span }
}

/// Indices of the streams that have work, earliest deadline first; equal ones in their order.
fn by_deadline(due: impl Iterator<Item = Option<Instant>>) -> Vec<(Instant, usize)> {
    let mut order: Vec<_> = due.enumerate().filter_map(|(i, due)| Some((due?, i))).collect();
    order.sort();
    order
}

/// Identifier, flag of the audio thread, and what is called when the flag is set.
type WatchedFlag = (u64, Arc<AtomicBool>, Box<dyn Fn() + Send>);

/// What [`Runner::begin_most_urgent`] has done.
enum Began {
    Nothing,
    Something,
    /// A part of a longer piece of work.
    Part,
}

/// The scheduler without its thread: everything happens at the times that it is told.
struct Runner {
    streams: Vec<ScheduledStream>,
    executor: Box<dyn Executor>,
    watched: Vec<WatchedFlag>,
    loads: Arc<Mutex<Vec<(u64, f64)>>>,
}

impl Runner {
    fn new(executor: Box<dyn Executor>, loads: Arc<Mutex<Vec<(u64, f64)>>>) -> Self {
        Self { streams: Vec::new(), executor, watched: Vec::new(), loads }
    }

    /// Does all that can be done at `now`. Returns when to be called again at the latest; none if only a message can bring work.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        for (_, flag, wake) in &self.watched {
            if flag.swap(false, Relaxed) {
                wake();
            }
        }
        let flags = (!self.watched.is_empty()).then(|| now + FLAG_INTERVAL);
        loop {
            for stream in &mut self.streams {
                stream.update(now);
            }
            self.apply_admission(now);
            match self.begin_most_urgent(now) {
                Began::Nothing => break,
                Began::Something => {}
                // Messages and other streams come first.
                Began::Part => return Some(now),
            }
        }
        // A stream whose job runs, or waits for another to end, is looked at when that has ended.
        let waiting = self
            .streams
            .iter()
            .filter(|stream| stream.running.is_none() && (stream.due.is_none() || stream.is_background));
        let polls = waiting.map(|stream| stream.clock.next_poll(stream.engine.missing(), now));
        // A reset must be noticed while a job runs.
        let resets =
            self.streams.iter().filter(|stream| stream.running.is_some()).map(|_| now + FLAG_INTERVAL);
        polls.chain(resets).chain(flags).min()
    }

    /// Begins the first job that the executor accepts, or does the first piece of work that needs no executor.
    fn begin_most_urgent(&mut self, now: Instant) -> Began {
        for (due, index) in by_deadline(self.streams.iter().map(|stream| stream.due)) {
            let stream = &mut self.streams[index];
            if stream.engine.is_suspended() && now >= stream.next_probe {
                stream.engine.request_probe();
                stream.next_probe = now + stream.probe_interval();
            }
            let urgency = stream.urgency(due);
            if stream.engine.needs_executor()
                && let Some(model) = stream.engine.next_model()
                && !self.executor.accepts(urgency, model)
            {
                continue;
            }
            stream.due = None;
            match catch_unwind(AssertUnwindSafe(|| stream.engine.begin())) {
                Ok(Begun::Step(Step::Read)) => return Began::Part,
                Ok(Begun::Step(_)) => {}
                Ok(Begun::Work(work)) => {
                    let token = Arc::new(JobToken::with_limit(stream.run_limit(&work)));
                    stream.running = Some(Arc::clone(&token));
                    self.executor.start(Job { stream: stream.id, work, urgency, token });
                }
                // A defect of our own: this stream ends and outputs the delayed input; the others continue.
                Err(_) => drop_quietly(self.streams.swap_remove(index)),
            }
            return Began::Something;
        }
        Began::Nothing
    }

    /// Suspends the streams that are too slow, and lets those run again that no longer are.
    fn apply_admission(&mut self, now: Instant) {
        // Streams change places when they take turns; their ids tell which is older.
        let mut streams: Vec<_> = self.streams.iter_mut().collect();
        streams.sort_by_key(|stream| stream.id);
        let demands: Vec<_> = streams.iter().map(|stream| stream.demand()).collect();
        let device = |stream: &&mut ScheduledStream| {
            stream.engine.model().and_then(SharedModel::remote_device).map(str::to_owned)
        };
        let devices: Vec<_> = streams.iter().map(device).collect();
        for ((stream, admitted), demand) in
            streams.into_iter().zip(admit_by_device(&demands, &devices)).zip(&demands)
        {
            if admitted == stream.engine.is_suspended() && !demand.exempt {
                stream.engine.set_suspended(!admitted);
                stream.next_probe = now + PROBE_INTERVAL;
            }
        }
    }

    fn publish_loads(&self) {
        let of = |stream: &ScheduledStream| {
            let demand = stream.demand();
            (stream.id, if demand.suspended { 0.0 } else { demand.load() })
        };
        *self.loads.lock() = self.streams.iter().map(of).collect();
    }

    fn finish(&mut self, finished: Finished) {
        let Some(index) = self.streams.iter().position(|stream| stream.id == finished.stream) else { return };
        let stream = &mut self.streams[index];
        stream.running = None;
        let Finished { work, outcome, .. } = finished;
        if catch_unwind(AssertUnwindSafe(|| stream.engine.finish(work, outcome))).is_err() {
            drop_quietly(self.streams.swap_remove(index));
        } else {
            // Among equal deadlines the next stream goes first.
            self.streams[index..].rotate_left(1);
        }
        self.publish_loads();
    }

    /// Applies a message. False to end.
    fn apply(&mut self, message: Message, now: Instant) -> bool {
        match message {
            Message::Add(id, engine) => {
                let plan = engine.plan();
                let clock = HopClock::new(plan.host_rate(), plan.max_block().0, engine.written(), now);
                let stream = ScheduledStream {
                    id,
                    engine,
                    clock,
                    due: None,
                    is_background: false,
                    running: None,
                    next_probe: now,
                };
                self.streams.push(stream);
            }
            Message::Swap(id, model) => {
                if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
                    // The model was checked when the message was sent.
                    let _ = stream.engine.swap(model);
                    stream.clock.touch(now);
                }
            }
            Message::Remove(id) => {
                if let Some(index) = self.streams.iter().position(|stream| stream.id == id) {
                    drop_quietly(self.streams.swap_remove(index));
                }
                self.publish_loads();
            }
            Message::Wake => {}
            Message::Finished(finished) => self.finish(finished),
            Message::Watch(id, flag, wake) => self.watched.push((id, flag, wake)),
            Message::Unwatch(id) => self.watched.retain(|(watched, ..)| *watched != id),
            Message::Stop => return false,
        }
        true
    }

    /// Ends all streams, and the executor as far as that is possible soon.
    fn stop(&mut self) {
        self.streams.drain(..).for_each(drop_quietly);
        if !self.executor.join(Instant::now() + JOIN_LIMIT / 2) {
            os::pin_library();
        }
    }
}

fn run(queue: &Receiver<Message>, runner: &mut Runner) {
    loop {
        while let Ok(message) = queue.try_recv() {
            if !runner.apply(message, Instant::now()) {
                return runner.stop();
            }
        }
        let message = match runner.turn(Instant::now()) {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(next) => queue.recv_deadline(next),
        };
        let go_on = match message {
            Ok(message) => runner.apply(message, Instant::now()),
            Err(error) => error == RecvTimeoutError::Timeout,
        };
        if !go_on {
            return runner.stop();
        }
    }
}

fn drop_quietly(stream: ScheduledStream) {
    if let Some(token) = &stream.running {
        token.cancel();
    }
    // A model's drop may panic; the engine reports it in the status.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(stream)));
}

#[cfg(test)]
mod tests;
