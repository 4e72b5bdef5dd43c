//! Where the work of streams runs.
//!
//! An [`Executor`] is asynchronous: the scheduler gives it a job and goes on serving its streams; the result comes back as a message. The only
//! executor so far is this machine's processor. A GPU or a worker process is another implementation of the same trait.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use super::model::SharedModel;
use super::work::{Outcome, Work};
use crate::kernels::JobControl;
use crate::kernels::os::{self, Priority};

/// Name of the thread that runs jobs on the processor.
pub const THREAD_NAME: &str = "nullsum-worker";

/// Jobs that may be interrupted within one another.
const MAX_DEPTH: usize = 3;

/// Work of a stream, to be run.
pub(super) struct Job {
    pub(super) stream: u64,
    pub(super) work: Work,
    pub(super) urgency: Urgency,
    pub(super) token: Arc<JobToken>,
}

/// Work that was run.
pub(super) struct Finished {
    pub(super) stream: u64,
    pub(super) work: Work,
    pub(super) outcome: Outcome,
}

/// Ends a job early.
#[derive(Debug, Default)]
pub(super) struct JobToken {
    cancelled: AtomicBool,
    /// Longest run time, without interruptions; the result would be useless after it.
    limit: Option<Duration>,
}

impl JobToken {
    pub(super) fn with_limit(limit: Option<Duration>) -> Self {
        Self { cancelled: AtomicBool::new(false), limit }
    }

    /// Ends the job at its next layer. For any thread.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    #[cfg(test)]
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    fn is_over(&self, run_time: Duration) -> bool {
        self.cancelled.load(Relaxed) || self.limit.is_some_and(|limit| run_time > limit)
    }
}

/// How urgent a job is, and how long it is likely to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Urgency {
    pub(super) due: Instant,
    /// None before the first measurement.
    pub(super) cost: Option<Duration>,
    pub(super) priority: Priority,
}

impl Urgency {
    /// Whether this job should run in the middle of `running`: it is much lighter, or the other is background work. Deadlines do not count: a
    /// heavy job that is late must not make others late, and a light one delays it by little.
    pub(super) fn interrupts(self, running: Self) -> bool {
        if self.priority == Priority::Background {
            return false;
        }
        if running.priority == Priority::Background {
            return true;
        }
        let Some(cost) = self.cost else { return false };
        running.cost.is_none_or(|running| 2 * cost < running)
    }
}

/// Runs jobs.
pub(super) trait Executor: Send {
    /// Whether a job of this urgency on this model would begin soon: at once, or at the next layer of a job that it interrupts.
    fn accepts(&self, urgency: Urgency, model: &SharedModel) -> bool;

    /// Begins a job that was accepted. Never blocks. The result is sent to wherever the executor was told to.
    fn start(&mut self, job: Job);

    /// Waits until all jobs have ended, but not beyond `deadline`. Cancel them first. True if they have ended.
    fn join(&mut self, deadline: Instant) -> bool;
}

/// Receives the results of an executor.
pub(super) type Results = Box<dyn Fn(Finished) + Send + Sync>;

/// Runs jobs on this machine's processor: one at a time, on a thread of its own and the pool of the job's model. A light job runs
/// between two layers or tasks of a heavy one, if the two have different models.
pub(super) struct CpuExecutor {
    shared: Arc<CpuShared>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct CpuShared {
    state: Mutex<CpuState>,
    /// Whether `CpuState::urgent` holds a job, to be seen without the lock.
    has_urgent: AtomicBool,
    results: Results,
    /// Counts layers.
    progress: Arc<AtomicU64>,
}

#[derive(Default)]
struct CpuState {
    /// The job that runs, last, and those that it interrupts.
    running: Vec<Running>,
    /// The job that is to interrupt them.
    urgent: Option<Job>,
}

/// A job that runs.
pub(super) struct Running {
    stream: u64,
    urgency: Urgency,
    model: SharedModel,
    /// Time spent in jobs that interrupted it.
    interrupted: Duration,
}

impl Running {
    pub(super) fn new(job: &Job) -> Self {
        Self {
            stream: job.stream,
            urgency: job.urgency,
            model: job.work.model.clone(),
            interrupted: Duration::ZERO,
        }
    }
}

/// Whether a job may interrupt those that run; the last of them is interrupted.
pub(super) fn may_interrupt(running: &[Running], urgency: Urgency, model: &SharedModel) -> bool {
    running.len() < MAX_DEPTH
        && running.last().is_some_and(|last| urgency.interrupts(last.urgency))
        // A model runs one window at a time: a job on the same one would wait for itself.
        && running.iter().all(|running| !running.model.is(model))
}

impl CpuExecutor {
    /// Starts the thread. `progress` counts the layers that were run.
    pub(super) fn new(progress: Arc<AtomicU64>, results: Results) -> std::io::Result<Self> {
        let (jobs, queue) = unbounded();
        let shared = Arc::new(CpuShared {
            state: Mutex::new(CpuState::default()),
            has_urgent: AtomicBool::new(false),
            results,
            progress,
        });
        let thread_shared = shared.clone();
        let thread = std::thread::Builder::new()
            .name(THREAD_NAME.into())
            .spawn(move || run_jobs(&thread_shared, &queue))?;
        Ok(Self { shared, jobs: Some(jobs), thread: Some(thread) })
    }
}

impl Executor for CpuExecutor {
    fn accepts(&self, urgency: Urgency, model: &SharedModel) -> bool {
        let state = self.shared.state.lock();
        state.urgent.is_none() && (state.running.is_empty() || may_interrupt(&state.running, urgency, model))
    }

    fn start(&mut self, job: Job) {
        let mut state = self.shared.state.lock();
        if state.running.is_empty() {
            state.running.push(Running::new(&job));
            if let Some(jobs) = &self.jobs {
                // The thread ends only after the sender is gone.
                let _ = jobs.send(job);
            }
        } else {
            state.urgent = Some(job);
            self.shared.has_urgent.store(true, Release);
        }
    }

    fn join(&mut self, deadline: Instant) -> bool {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return true };
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        // It catches the panics of models.
        let _ = thread.join();
        true
    }
}

fn run_jobs(shared: &Arc<CpuShared>, queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        let mut next = Some(job);
        while let Some(job) = next {
            // Outermost, it may wait for the model, so that it is never given back.
            shared.run(job, true);
            // A job that was to interrupt it may have come too late for that.
            next = shared.take_urgent();
        }
    }
}

thread_local! {
    /// Priority of this thread.
    static PRIORITY: Cell<Priority> = const { Cell::new(Priority::Normal) };
}

impl CpuShared {
    /// Runs a job that is among `running`, and sends its result. `is_outermost` if it interrupts no other.
    ///
    /// A job that interrupts runs on a thread of a pool, which must not wait for a model: whoever has it may need that thread. Such a job is given
    /// back.
    fn run(self: &Arc<Self>, mut job: Job, is_outermost: bool) -> Option<Job> {
        let (stream, priority) = (job.stream, job.urgency.priority);
        if PRIORITY.replace(priority) != priority {
            os::set_priority(priority);
        }
        if let Some(pool) = job.work.model.pool() {
            if is_outermost {
                // Otherwise some threads still work for the job that is interrupted.
                pool.set_priority(priority);
            }
            let shared = Arc::clone(self);
            let share = 1.0 / pool.threads() as f64;
            pool.set_interrupt(Some(Arc::new(move || shared.run_urgent(share))));
        }
        let control = CpuControl { shared: self, stream, token: &job.token, started: Instant::now() };
        let mut outcome = job.work.run(&control, is_outermost);
        let ended = self.remove(stream);
        if let Outcome::Done { seconds: Some(seconds) } | Outcome::Cancelled { seconds } = &mut outcome {
            *seconds = (*seconds - ended.as_secs_f64()).max(0.0);
        }
        if outcome == Outcome::Busy {
            return Some(job);
        }
        (self.results)(Finished { stream, work: job.work, outcome });
        None
    }

    /// Takes a job out of `running`. Returns how long it was interrupted.
    fn remove(&self, stream: u64) -> Duration {
        let mut state = self.state.lock();
        let index = state.running.iter().position(|running| running.stream == stream);
        let removed = index.map(|index| state.running.remove(index).interrupted).unwrap_or_default();
        if state.running.is_empty() && state.urgent.is_none() {
            self.has_urgent.store(false, Relaxed);
        }
        removed
    }

    /// Takes the urgent job and puts it on top of `running`.
    fn take_urgent(&self) -> Option<Job> {
        let mut state = self.state.lock();
        self.has_urgent.store(false, Relaxed);
        let job = state.urgent.take()?;
        state.running.push(Running::new(&job));
        Some(job)
    }

    /// Runs the urgent job, if there is one, on this thread, which has `share` of the power of the job that is interrupted.
    fn run_urgent(self: &Arc<Self>, share: f64) {
        while self.has_urgent.load(Acquire) {
            let Some(job) = self.take_urgent() else { break };
            let (started, before) = (Instant::now(), PRIORITY.get());
            let stream = job.stream;
            let given_back = self.run(job, false);
            if PRIORITY.replace(before) != before {
                os::set_priority(before);
            }
            if let Some(job) = given_back {
                // It runs when the job that it was to interrupt has ended.
                self.state.lock().urgent = Some(job);
                break;
            }
            let lost = started.elapsed().mul_f64(share);
            let mut state = self.state.lock();
            for running in state.running.iter_mut().filter(|running| running.stream != stream) {
                running.interrupted += lost;
            }
        }
    }

    fn interrupted(&self, stream: u64) -> Duration {
        let state = self.state.lock();
        state
            .running
            .iter()
            .find(|running| running.stream == stream)
            .map_or(Duration::ZERO, |r| r.interrupted)
    }
}

struct CpuControl<'a> {
    shared: &'a Arc<CpuShared>,
    stream: u64,
    token: &'a JobToken,
    started: Instant,
}

impl JobControl for CpuControl<'_> {
    fn checkpoint(&self) -> ControlFlow<()> {
        self.shared.progress.fetch_add(1, Relaxed);
        // Between layers no other thread works for this job.
        self.shared.run_urgent(1.0);
        let run_time = self.started.elapsed().saturating_sub(self.shared.interrupted(self.stream));
        if self.token.is_over(run_time) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_much_lighter_jobs_interrupt() {
        let now = Instant::now();
        let job = |due_ms: u64, cost_ms: Option<u64>, priority| Urgency {
            due: now + Duration::from_millis(due_ms),
            cost: cost_ms.map(Duration::from_millis),
            priority,
        };
        let heavy = job(5_000, Some(3_000), Priority::Live);
        assert!(job(50, Some(5), Priority::Live).interrupts(heavy));
        assert!(!job(50, Some(2_000), Priority::Live).interrupts(heavy), "not much lighter");
        assert!(
            job(50, Some(5), Priority::Live).interrupts(job(10, Some(3_000), Priority::Live)),
            "late itself"
        );
        assert!(!job(50, None, Priority::Live).interrupts(heavy), "of unknown cost");
        assert!(job(50, Some(5), Priority::Live).interrupts(job(5_000, None, Priority::Live)));
        assert!(job(9_000, None, Priority::Live).interrupts(job(50, Some(1), Priority::Background)));
        assert!(!job(50, Some(5), Priority::Background).interrupts(heavy));
    }
}
