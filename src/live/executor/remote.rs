//! Jobs of models that run in another process. Their threads here only wait, so each job has one of its own, and none of them keeps the
//! processor's lanes from their work.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use super::{CpuExecutor, Executor, Finished, Job, JobToken, Results, Urgency};
use crate::kernels::JobControl;
use crate::kernels::os::Priority;
use crate::live::model::SharedModel;
use crate::live::work::Outcome;

/// Most jobs that wait for other processes at a time.
const MAX_JOBS: usize = 8;
/// Name of the threads.
const THREAD_NAME: &str = "nullsum-remote";

thread_local! {
    static URGENCY: Cell<Option<RemoteUrgency>> = const { Cell::new(None) };
}

/// What another process needs to know of the urgency of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteUrgency {
    /// When its result is due.
    pub due: Instant,
    /// Whether it may wait for all others.
    pub is_background: bool,
}

impl RemoteUrgency {
    /// Of the job that this thread runs; none outside the live engine.
    pub fn of_this_thread() -> Option<Self> {
        URGENCY.get()
    }
}

/// All executors of a process: its processor, and other processes.
pub(in crate::live) struct Executors {
    cpu: CpuExecutor,
    remote: RemoteExecutor,
}

impl Executors {
    /// Starts the processor's threads; those that wait for other processes are started when they are needed.
    pub(in crate::live) fn new(
        progress: Arc<AtomicU64>,
        results: impl Fn(Finished) + Clone + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let remote = RemoteExecutor::new(Arc::clone(&progress), Box::new(results.clone()));
        Ok(Self { cpu: CpuExecutor::new(progress, Box::new(results))?, remote })
    }
}

impl Executor for Executors {
    fn accepts(&self, urgency: Urgency, model: &SharedModel) -> bool {
        match model.remote_device() {
            Some(_) => self.remote.accepts(urgency, model),
            None => self.cpu.accepts(urgency, model),
        }
    }

    fn start(&mut self, job: Job) {
        match job.work.model.remote_device() {
            Some(_) => self.remote.start(job),
            None => self.cpu.start(job),
        }
    }

    fn join(&mut self, deadline: Instant) -> bool {
        let remote = self.remote.join(deadline);
        self.cpu.join(deadline) && remote
    }
}

/// Waits for jobs of other processes. Each model has one at a time; the other process orders those of several models.
struct RemoteExecutor {
    jobs: Option<Sender<Job>>,
    queue: Receiver<Job>,
    shared: Arc<RemoteShared>,
    threads: Vec<JoinHandle<()>>,
}

struct RemoteShared {
    running: Mutex<Vec<SharedModel>>,
    results: Results,
    progress: Arc<AtomicU64>,
}

impl RemoteExecutor {
    fn new(progress: Arc<AtomicU64>, results: Results) -> Self {
        let (jobs, queue) = unbounded();
        let shared = Arc::new(RemoteShared { running: Mutex::default(), results, progress });
        Self { jobs: Some(jobs), queue, shared, threads: Vec::new() }
    }
}

impl Executor for RemoteExecutor {
    fn accepts(&self, _: Urgency, model: &SharedModel) -> bool {
        let running = self.shared.running.lock();
        running.len() < MAX_JOBS && !running.iter().any(|running| running.is(model))
    }

    fn start(&mut self, job: Job) {
        let count = {
            let mut running = self.shared.running.lock();
            running.push(job.work.model.clone());
            running.len()
        };
        if count > self.threads.len() {
            let (shared, queue) = (self.shared.clone(), self.queue.clone());
            let thread = std::thread::Builder::new().name(THREAD_NAME.into());
            match thread.spawn(move || run_jobs(&shared, &queue)) {
                Ok(thread) => self.threads.push(thread),
                Err(error) if self.threads.is_empty() => {
                    let outcome = Outcome::Failed(format!("the system starts no thread: {error}"));
                    return self.shared.end(job, outcome);
                }
                // A thread that is there takes it later.
                Err(_) => {}
            }
        }
        if let Some(jobs) = &self.jobs {
            // The executor holds a receiver.
            let _ = jobs.send(job);
        }
    }

    fn join(&mut self, deadline: Instant) -> bool {
        self.jobs = None;
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        for thread in self.threads.drain(..) {
            // It catches the panics of models.
            let _ = thread.join();
        }
        true
    }
}

fn run_jobs(shared: &RemoteShared, queue: &Receiver<Job>) {
    while let Ok(mut job) = queue.recv() {
        let is_background = job.urgency.priority == Priority::Background;
        URGENCY.set(Some(RemoteUrgency { due: job.urgency.due, is_background }));
        let control = RemoteControl { shared, token: &job.token, started: Instant::now() };
        let outcome = job.work.run(&control, || {});
        shared.end(job, outcome);
    }
}

impl RemoteShared {
    fn end(&self, job: Job, outcome: Outcome) {
        let mut running = self.running.lock();
        if let Some(index) = running.iter().position(|model| model.is(&job.work.model)) {
            running.swap_remove(index);
        }
        drop(running);
        (self.results)(Finished { stream: job.stream, work: job.work, outcome });
    }
}

struct RemoteControl<'a> {
    shared: &'a RemoteShared,
    token: &'a JobToken,
    started: Instant,
}

impl JobControl for RemoteControl<'_> {
    fn checkpoint(&self) -> ControlFlow<()> {
        self.shared.progress.fetch_add(1, Relaxed);
        if self.token.is_over(self.started.elapsed()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}
