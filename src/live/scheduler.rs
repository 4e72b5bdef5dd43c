//! One worker thread for all streams of a process, earliest deadline first.
//!
//! Ten plugin instances must not run ten inferences at once, since one window already uses all cores. The thread owns the [`Engine`]s and
//! polls them, because the audio thread makes no system call and so cannot signal a complete hop.
//!
//! Inference runs on a thread pool that belongs to the scheduler and ends with it. Rayon's global pool never ends, so a host could not unload
//! the plugin.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use parking_lot::Mutex;

use super::model::SharedModel;
use super::worker::Engine;

/// Name of the thread.
pub const THREAD_NAME: &str = "nullsum-worker";
/// Name of the threads that run inference.
pub const POOL_THREAD_NAME: &str = "nullsum-pool";

/// Polling interval while any stream moves; half of what a plan allows for.
const POLL: Duration = Duration::from_millis(1);
/// Polling interval when no stream has moved for a while.
const POLL_AT_REST: Duration = Duration::from_millis(20);
/// A stream counts as resting after this time.
const REST_AFTER: Duration = Duration::from_secs(1);

/// Messages to the worker thread.
pub(super) enum SchedulerCommand {
    Add(u64, Box<Engine>),
    Swap(u64, Option<SharedModel>),
    Remove(u64),
    /// A client waits: check the streams now.
    Wake,
    Stop,
}

/// A handle to the worker thread. Clones share it; dropping the last one stops and joins the thread.
#[derive(Clone)]
pub struct Scheduler(Arc<Inner>);

struct Inner {
    commands: Sender<SchedulerCommand>,
    thread: Mutex<Option<JoinHandle<()>>>,
    next_id: AtomicU64,
}

static PROCESS: Mutex<Weak<Inner>> = Mutex::new(Weak::new());

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

    /// A scheduler with its own thread.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn new() -> std::io::Result<Self> {
        let (commands, queue) = unbounded();
        let thread = std::thread::Builder::new().name(THREAD_NAME.into()).spawn(move || run(&queue))?;
        Ok(Self(Arc::new(Inner { commands, thread: Mutex::new(Some(thread)), next_id: AtomicU64::new(0) })))
    }

    /// Locks the process's handle, for tests.
    #[cfg(all(test, feature = "plugin"))]
    pub(crate) fn lock_process() -> impl Sized {
        PROCESS.lock()
    }

    /// False if the thread has ended.
    pub(super) fn send(&self, command: SchedulerCommand) -> bool {
        self.0.commands.send(command).is_ok()
    }

    pub(super) fn waker(&self) -> super::client::Waker {
        let commands = self.0.commands.clone();
        Box::new(move || {
            // The waiting client notices if the thread has ended.
            let _ = commands.send(SchedulerCommand::Wake);
        })
    }

    pub(super) fn new_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.commands.send(SchedulerCommand::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            // The thread catches the panics of its streams. If it panics nevertheless, nothing is left to clean up.
            let _ = thread.join();
        }
    }
}

/// The threads that run inference. Joined on drop.
struct Pool {
    pool: Option<rayon::ThreadPool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// One thread per core. None if the system refuses; inference then runs in rayon's global pool.
    fn new() -> Option<Self> {
        let mut threads = Vec::new();
        let pool = rayon::ThreadPoolBuilder::new()
            .spawn_handler(|thread| {
                let builder = std::thread::Builder::new().name(POOL_THREAD_NAME.into());
                threads.push(builder.spawn(|| thread.run())?);
                Ok(())
            })
            .build()
            .ok()?;
        Some(Self { pool: Some(pool), threads })
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Dropping the pool tells its threads to end.
        self.pool = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A stream as the worker thread sees it.
struct ScheduledStream {
    id: u64,
    engine: Box<Engine>,
    /// When its next window is due; fixed when the work is first seen.
    due: Option<Instant>,
    written: u64,
    moved: Instant,
}

impl ScheduledStream {
    /// Updates whether there is work, and its deadline.
    fn update_deadline(&mut self, now: Instant) {
        let written = self.engine.written();
        if written != self.written {
            (self.written, self.moved) = (written, now);
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
}

fn deadline(now: Instant, slack: f64) -> Instant {
    let span = Duration::try_from_secs_f64(slack.abs().min(1e6)).unwrap_or_default();
    if slack < 0.0 { now.checked_sub(span).unwrap_or(now) } else { now + span }
}

/// Index of the earliest deadline; the first of equal ones.
fn earliest(due: impl Iterator<Item = Option<Instant>>) -> Option<usize> {
    due.enumerate().filter_map(|(i, due)| Some((due?, i))).min().map(|(_, i)| i)
}

fn run(queue: &Receiver<SchedulerCommand>) {
    let mut pool = None;
    let mut streams: Vec<ScheduledStream> = Vec::new();
    loop {
        while let Ok(command) = queue.try_recv() {
            if !apply_command(command, &mut streams) {
                return;
            }
        }
        if pool.is_none() && !streams.is_empty() {
            pool = Pool::new();
        }
        let now = Instant::now();
        for stream in &mut streams {
            stream.update_deadline(now);
        }
        if let Some(index) = earliest(streams.iter().map(|stream| stream.due)) {
            let stream = &mut streams[index];
            stream.due = None;
            let step = || match &pool {
                Some(pool) => pool.run(|| stream.engine.step()),
                None => stream.engine.step(),
            };
            if catch_unwind(AssertUnwindSafe(step)).is_err() {
                // A defect of our own: this stream ends and outputs the delayed input; the others continue.
                drop_quietly(streams.swap_remove(index));
            } else {
                // Among equal deadlines the next stream goes first.
                streams[index..].rotate_left(1);
            }
            continue;
        }
        let resting = streams.iter().all(|stream| now.duration_since(stream.moved) > REST_AFTER);
        let command = match (streams.is_empty(), resting) {
            (true, _) => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (false, true) => queue.recv_timeout(POLL_AT_REST),
            (false, false) => queue.recv_timeout(POLL),
        };
        let go_on = match command {
            Ok(command) => apply_command(command, &mut streams),
            Err(error) => error == RecvTimeoutError::Timeout,
        };
        if !go_on {
            return;
        }
    }
}

/// Returns false to end the thread.
fn apply_command(command: SchedulerCommand, streams: &mut Vec<ScheduledStream>) -> bool {
    match command {
        SchedulerCommand::Add(id, mut engine) => {
            engine.skip_predicted_late = true;
            let written = engine.written();
            streams.push(ScheduledStream { id, engine, due: None, written, moved: Instant::now() });
        }
        SchedulerCommand::Swap(id, model) => {
            if let Some(stream) = streams.iter_mut().find(|stream| stream.id == id) {
                // The model was checked when the command was sent.
                let _ = stream.engine.swap(model);
                stream.moved = Instant::now();
            }
        }
        SchedulerCommand::Remove(id) => {
            if let Some(index) = streams.iter().position(|stream| stream.id == id) {
                drop_quietly(streams.swap_remove(index));
            }
        }
        SchedulerCommand::Wake => {}
        SchedulerCommand::Stop => return false,
    }
    true
}

fn drop_quietly(stream: ScheduledStream) {
    // A model's drop may panic; the engine reports it in the status.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(stream)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_is_served_first() {
        let now = Instant::now();
        let due = [None, Some(0.5), Some(-0.1), Some(0.2), None];
        let order = |due: &[Option<f64>]| earliest(due.iter().map(|s| s.map(|s| deadline(now, s))));
        assert_eq!(order(&due), Some(2));
        assert_eq!(order(&[None, None]), None);
        assert_eq!(order(&[Some(0.1), Some(0.1)]), Some(0));
        assert_eq!(order(&[Some(f64::INFINITY), Some(1.0)]), Some(1));
    }
}
