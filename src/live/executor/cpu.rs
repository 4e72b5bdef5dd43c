//! Jobs on this machine's processor.
//!
//! They run on lanes. A lane has a thread of its own, and threads of its own in the pool of its job. A job that interrupts another one runs on the
//! lane above it. The interrupted job goes on until its threads have ended their tasks, and then pauses until the lanes above are free. A task of
//! a large model takes longer than a short hop may wait, so the lighter job begins at once, beside it.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use super::{Executor, Finished, Job, JobToken, Results, Urgency};
use crate::kernels::os::{self, Priority};
use crate::kernels::{self, JobControl, LANES};
use crate::live::model::SharedModel;
use crate::live::work::Outcome;

/// Names of the threads that run jobs, by lane.
const THREAD_NAMES: [&str; LANES] = ["nullsum-worker", "nullsum-light", "nullsum-lightest"];

/// A job that runs.
pub(in crate::live) struct Running {
    urgency: Urgency,
    model: SharedModel,
    /// Time in which it paused for others.
    paused: Duration,
}

impl Running {
    pub(in crate::live) fn new(job: &Job) -> Self {
        Self { urgency: job.urgency, model: job.work.model.clone(), paused: Duration::ZERO }
    }
}

/// The lane on which a job can begin beside those that run, by lane; none if it must wait.
pub(in crate::live) fn lane_for<'a>(
    running: impl IntoIterator<Item = Option<&'a Running>>,
    urgency: Urgency,
    model: &SharedModel,
) -> Option<usize> {
    let mut lane = 0;
    for (below, running) in running.into_iter().enumerate() {
        let Some(running) = running else { continue };
        // A model runs one window at a time.
        if running.model.is(model) {
            return None;
        }
        lane = if urgency.interrupts(running.urgency) { below + 1 } else { LANES };
    }
    (lane < LANES).then_some(lane)
}

/// Runs jobs on this machine's processor.
pub(in crate::live) struct CpuExecutor {
    shared: Arc<CpuShared>,
    lanes: Vec<LaneThread>,
}

/// The thread of a lane.
struct LaneThread {
    /// None when it is to end.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct CpuShared {
    /// Jobs that run, by lane.
    running: Mutex<[Option<Running>; LANES]>,
    gate: Gate,
    results: Results,
    /// Counts layers.
    progress: Arc<AtomicU64>,
}

impl CpuExecutor {
    /// Starts the threads. `progress` counts the layers that were run.
    pub(in crate::live) fn new(progress: Arc<AtomicU64>, results: Results) -> std::io::Result<Self> {
        let shared =
            Arc::new(CpuShared { running: Mutex::default(), gate: Gate::default(), results, progress });
        let start = |(lane, name): (usize, &str)| {
            let (jobs, queue) = unbounded();
            let shared = shared.clone();
            let run = move || run_jobs(&shared, lane, &queue);
            let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
            Ok::<_, std::io::Error>(LaneThread { jobs: Some(jobs), thread: Some(thread) })
        };
        let lanes = THREAD_NAMES.into_iter().enumerate().map(start).collect::<Result<_, _>>()?;
        Ok(Self { shared, lanes })
    }
}

impl CpuShared {
    fn lane_for(&self, urgency: Urgency, model: &SharedModel) -> Option<usize> {
        lane_for(self.running.lock().iter().map(Option::as_ref), urgency, model)
    }
}

impl Executor for CpuExecutor {
    fn accepts(&self, urgency: Urgency, model: &SharedModel) -> bool {
        self.shared.lane_for(urgency, model).is_some()
    }

    fn start(&mut self, job: Job) {
        // Since it was accepted, jobs may have ended, but none has begun.
        let lane = self.shared.lane_for(job.urgency, &job.work.model).unwrap_or_default();
        self.shared.running.lock()[lane] = Some(Running::new(&job));
        if let Some(jobs) = &self.lanes[lane].jobs {
            // The thread ends only after the sender is gone.
            let _ = jobs.send(job);
        }
    }

    fn join(&mut self, deadline: Instant) -> bool {
        for lane in &mut self.lanes {
            lane.jobs = None;
        }
        self.lanes.iter_mut().all(|lane| lane.join(deadline))
    }
}

impl LaneThread {
    fn join(&mut self, deadline: Instant) -> bool {
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

fn run_jobs(shared: &Arc<CpuShared>, lane: usize, queue: &Receiver<Job>) {
    kernels::enter_lane(lane);
    let priority = Cell::new(Priority::Normal);
    while let Ok(job) = queue.recv() {
        let wanted = if lane > 0 { Priority::Urgent } else { job.urgency.priority };
        if priority.replace(wanted) != wanted {
            os::set_priority(wanted);
        }
        if let Some(pool) = job.work.model.pool() {
            pool.set_priority(wanted);
        }
        shared.run(job, lane);
    }
}

impl CpuShared {
    /// Runs a job that is among `running`, and sends its result.
    fn run(self: &Arc<Self>, mut job: Job, lane: usize) {
        let pool = job.work.model.pool().cloned();
        if let Some(pool) = &pool {
            let shared = Arc::clone(self);
            let share = 1.0 / pool.threads() as f64;
            pool.set_pause(Some(Arc::new(move |lane| shared.pause(lane, share))));
        }
        let control = CpuControl { shared: self, lane, token: &job.token, started: Instant::now() };
        let others_pause = lane > 0 && pool.is_none_or(|pool| pool.has_own_threads());
        let mut closed = None;
        // Only once it has the model: whoever has it may need threads that pause.
        let begin = || closed = others_pause.then(|| self.gate.close_below(lane));
        let mut outcome = job.work.run(&control, begin);
        drop(closed);
        let ended = self.running.lock()[lane].take();
        let paused = ended.map_or(Duration::ZERO, |running| running.paused);
        if let Outcome::Done { seconds: Some(seconds) } | Outcome::Cancelled { seconds } = &mut outcome {
            *seconds = (*seconds - paused.as_secs_f64()).max(0.0);
        }
        (self.results)(Finished { stream: job.stream, work: job.work, outcome });
    }

    /// Pauses this thread, which has `share` of the power of the job on `lane`, while jobs run on the lanes above.
    fn pause(&self, lane: usize, share: f64) {
        let paused = self.gate.wait(lane);
        if !paused.is_zero()
            && let Some(Some(running)) = self.running.lock().get_mut(lane)
        {
            running.paused += paused.mul_f64(share);
        }
    }

    fn paused(&self, lane: usize) -> Duration {
        self.running.lock()[lane].as_ref().map_or(Duration::ZERO, |running| running.paused)
    }
}

struct CpuControl<'a> {
    shared: &'a CpuShared,
    lane: usize,
    token: &'a JobToken,
    started: Instant,
}

impl JobControl for CpuControl<'_> {
    fn checkpoint(&self) -> ControlFlow<()> {
        self.shared.progress.fetch_add(1, Relaxed);
        // Between layers no other thread works for this job.
        self.shared.pause(self.lane, 1.0);
        let run_time = self.started.elapsed().saturating_sub(self.shared.paused(self.lane));
        if self.token.is_over(run_time) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Where the threads of a lane wait while jobs run on the lanes above.
#[derive(Default)]
struct Gate {
    /// One bit for each lane on which a job runs.
    busy: AtomicUsize,
    lock: Mutex<()>,
    opened: Condvar,
}

/// Ends the wait of the lanes below when it is dropped.
struct Closed<'a> {
    gate: &'a Gate,
    lane: usize,
}

impl Gate {
    fn close_below(&self, lane: usize) -> Closed<'_> {
        self.busy.fetch_or(1 << lane, Release);
        Closed { gate: self, lane }
    }

    fn is_open(&self, lane: usize) -> bool {
        self.busy.load(Acquire) >> (lane + 1) == 0
    }

    /// Waits until no job runs above `lane`. Returns for how long; zero, and cheap, if none did.
    fn wait(&self, lane: usize) -> Duration {
        if self.is_open(lane) {
            return Duration::ZERO;
        }
        let started = Instant::now();
        let mut lock = self.lock.lock();
        while !self.is_open(lane) {
            self.opened.wait(&mut lock);
        }
        started.elapsed()
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        // Under the lock, so that nobody begins to wait after the notification.
        let _lock = self.gate.lock.lock();
        self.gate.busy.fetch_and(!(1 << self.lane), Release);
        self.gate.opened.notify_all();
    }
}

#[cfg(test)]
mod tests;
