//! One worker thread for all streams of a process, earliest deadline first.
//!
//! Ten instances of a plugin must not thrash the machine with ten inferences at once; a window uses all cores anyway. The thread owns the
//! [`Engine`]s and polls them: the audio thread makes no system call, so nobody can tell it that a hop is full.
//!
//! Inference spreads over a pool of threads that belongs to the scheduler and ends with it. The global pool of rayon never ends, which a host
//! that unloads a plugin would not forgive.

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
/// Name of the threads that inference spreads over.
pub const POOL_THREAD_NAME: &str = "nullsum-pool";

/// Between two looks at the streams while any of them moves; half of what a plan allows for.
const POLL: Duration = Duration::from_millis(1);
/// The same when none has moved for a while.
const POLL_AT_REST: Duration = Duration::from_millis(20);
/// When a stream counts as resting.
const REST_AFTER: Duration = Duration::from_secs(1);

/// What the thread is told.
pub(super) enum Command {
    Add(u64, Box<Engine>),
    Swap(u64, Option<SharedModel>),
    Remove(u64),
    /// Somebody waits: look now.
    Wake,
    Stop,
}

/// A handle of the thread. Clones share it; the last one stops and joins it.
#[derive(Clone)]
pub struct Scheduler(Arc<Inner>);

struct Inner {
    commands: Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
    next_id: AtomicU64,
}

static PROCESS: Mutex<Weak<Inner>> = Mutex::new(Weak::new());

impl Scheduler {
    /// The scheduler of the process, started if there is none.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn of_process() -> std::io::Result<Self> {
        let mut process = PROCESS.lock();
        if let Some(inner) = process.upgrade() {
            return Ok(Self(inner));
        }
        let scheduler = Self::new()?;
        *process = Arc::downgrade(&scheduler.0);
        Ok(scheduler)
    }

    /// A scheduler with a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new() -> std::io::Result<Self> {
        let (commands, queue) = unbounded();
        let thread = std::thread::Builder::new().name(THREAD_NAME.into()).spawn(move || run(&queue))?;
        Ok(Self(Arc::new(Inner { commands, thread: Mutex::new(Some(thread)), next_id: AtomicU64::new(0) })))
    }

    /// Keeps everybody else from the handle of the process.
    #[cfg(all(test, feature = "plugin"))]
    pub(crate) fn hold_process() -> impl Sized {
        PROCESS.lock()
    }

    /// False when the thread is gone.
    pub(super) fn send(&self, command: Command) -> bool {
        self.0.commands.send(command).is_ok()
    }

    pub(super) fn waker(&self) -> super::client::Waker {
        let commands = self.0.commands.clone();
        Box::new(move || {
            // Gone is noticed by the one who waits.
            let _ = commands.send(Command::Wake);
        })
    }

    pub(super) fn new_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            // It catches what its streams throw; were it to panic all the same, there is nothing left to save.
            let _ = thread.join();
        }
    }
}

/// The threads of inference. Joined on drop.
struct Pool {
    pool: Option<rayon::ThreadPool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// One thread a core; none where the system refuses, then inference runs in rayon's global pool.
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
        // Dropping it tells the threads to end.
        self.pool = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A stream as the thread sees it.
struct Entry {
    id: u64,
    engine: Box<Engine>,
    /// When its next window is to be played, from when it was first seen to be due.
    due: Option<Instant>,
    written: u64,
    moved: Instant,
}

impl Entry {
    /// Notes whether there is work, and until when.
    fn look(&mut self, now: Instant) {
        let written = self.engine.written();
        if written != self.written {
            (self.written, self.moved) = (written, now);
        }
        match self.engine.slack() {
            None => {
                self.due = None;
                self.engine.rest();
            }
            // Fixed when first seen: a stream that stands still (offline) is not overtaken for ever by those that run.
            Some(slack) if self.due.is_none() => self.due = Some(deadline(now, slack)),
            Some(_) => {}
        }
    }
}

fn deadline(now: Instant, slack: f64) -> Instant {
    let span = Duration::try_from_secs_f64(slack.abs().min(1e6)).unwrap_or_default();
    if slack < 0.0 { now.checked_sub(span).unwrap_or(now) } else { now + span }
}

/// Index of the earliest deadline; of equal ones the first.
fn earliest(due: impl Iterator<Item = Option<Instant>>) -> Option<usize> {
    due.enumerate().filter_map(|(i, due)| Some((due?, i))).min().map(|(_, i)| i)
}

fn run(queue: &Receiver<Command>) {
    let mut pool = None;
    let mut streams: Vec<Entry> = Vec::new();
    loop {
        while let Ok(command) = queue.try_recv() {
            if !obey(command, &mut streams) {
                return;
            }
        }
        if pool.is_none() && !streams.is_empty() {
            pool = Pool::new();
        }
        let now = Instant::now();
        for stream in &mut streams {
            stream.look(now);
        }
        if let Some(index) = earliest(streams.iter().map(|stream| stream.due)) {
            let stream = &mut streams[index];
            stream.due = None;
            let step = || match &pool {
                Some(pool) => pool.run(|| stream.engine.step()),
                None => stream.engine.step(),
            };
            if catch_unwind(AssertUnwindSafe(step)).is_err() {
                // A defect of ours: the stream ends, its output is the delayed input, the others go on.
                drop_quietly(streams.swap_remove(index));
            } else {
                // The next in a row of equals has its turn first.
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
            Ok(command) => obey(command, &mut streams),
            Err(error) => error == RecvTimeoutError::Timeout,
        };
        if !go_on {
            return;
        }
    }
}

/// False to end.
fn obey(command: Command, streams: &mut Vec<Entry>) -> bool {
    match command {
        Command::Add(id, mut engine) => {
            engine.foresee = true;
            let written = engine.written();
            streams.push(Entry { id, engine, due: None, written, moved: Instant::now() });
        }
        Command::Swap(id, model) => {
            if let Some(stream) = streams.iter_mut().find(|stream| stream.id == id) {
                // Was checked when it was sent.
                let _ = stream.engine.swap(model);
                stream.moved = Instant::now();
            }
        }
        Command::Remove(id) => {
            if let Some(index) = streams.iter().position(|stream| stream.id == id) {
                drop_quietly(streams.swap_remove(index));
            }
        }
        Command::Wake => {}
        Command::Stop => return false,
    }
    true
}

fn drop_quietly(stream: Entry) {
    // Models are foreign code; the engine says in the status what it can.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(stream)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_is_served_and_the_past_is_earlier_than_the_future() {
        let now = Instant::now();
        let due = [None, Some(0.5), Some(-0.1), Some(0.2), None];
        let order = |due: &[Option<f64>]| earliest(due.iter().map(|s| s.map(|s| deadline(now, s))));
        assert_eq!(order(&due), Some(2));
        assert_eq!(order(&[None, None]), None);
        assert_eq!(order(&[Some(0.1), Some(0.1)]), Some(0));
        assert_eq!(order(&[Some(f64::INFINITY), Some(1.0)]), Some(1));
    }
}
