//! Where the work of streams runs.
//!
//! An [`Executor`] is asynchronous: the scheduler gives it a job and goes on serving its streams; the result comes back as a message. There
//! are two: this machine's processor (`cpu`), and other processes (`remote`).

mod cpu;
mod remote;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub(super) use cpu::CpuExecutor;
#[cfg(test)]
pub(super) use cpu::{Running, lane_for};
pub(super) use remote::Executors;
pub use remote::RemoteUrgency;

use super::model::SharedModel;
use super::work::{Outcome, Work};
use crate::kernels::os::Priority;

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

    /// Whether the job is to end: it was cancelled, or has run for too long.
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
    /// Whether `running` should pause for this job: it is much lighter, or the other is background work. Deadlines do not count: a heavy job
    /// that is late must not make others late, and a light one delays it by little.
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
    /// Whether a job of this urgency on this model can begin now.
    fn accepts(&self, urgency: Urgency, model: &SharedModel) -> bool;

    /// Begins a job that was accepted. Never blocks. The result is sent to wherever the executor was told to.
    fn start(&mut self, job: Job);

    /// Waits until all jobs have ended, but not beyond `deadline`. Cancel them first. True if they have ended.
    fn join(&mut self, deadline: Instant) -> bool;
}

/// Receives the results of an executor.
pub(super) type Results = Box<dyn Fn(Finished) + Send + Sync>;

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
