//! Starts a worker again that has ended, in the background, and gives up when that happens too often.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::connection::Connection;
use super::error::WorkerError;
use super::launch::Launcher;
use super::protocol::{LoadRequest, RemoteSpec};
use crate::kernels::os;

/// Pause before a worker is started again after a failed start.
const PAUSE: Duration = Duration::from_millis(200);
/// Failures of jobs in a row after which the worker is given up.
const MAX_FAILURES: u32 = 3;

/// When restarts are given up.
#[derive(Clone, Copy, Debug)]
pub struct RestartPolicy {
    /// Crashes within [`within`](Self::within) that end the attempts. By default this is 3.
    pub crashes: usize,
    /// By default this is a minute.
    pub within: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { crashes: 3, within: Duration::from_secs(60) }
    }
}

/// State of a model in a worker, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteState {
    /// It runs.
    Running,
    /// The worker has ended for this reason, and is being started again.
    Restarting(String),
    /// It is not started again, for this reason.
    GivenUp(String),
}

/// Called on any thread when the state of any model has changed.
type Observer = Box<dyn Fn() + Send + Sync>;

static OBSERVER: Mutex<Option<Observer>> = Mutex::new(None);

/// Sets what is called when the state of any model has changed, on any thread.
pub fn set_observer(observer: impl Fn() + Send + Sync + 'static) {
    *OBSERVER.lock() = Some(Box::new(observer));
}

fn notify() {
    if let Some(observer) = &*OBSERVER.lock() {
        observer();
    }
}

/// What is needed to load a model in a worker again.
pub struct Supervisor {
    launcher: Launcher,
    device: String,
    request: LoadRequest,
    spec: RemoteSpec,
    policy: RestartPolicy,
    progress: Mutex<Progress>,
}

struct Progress {
    state: RemoteState,
    crashes: VecDeque<Instant>,
    failures: u32,
    /// A connection with the loaded model, for the model to take.
    fresh: Option<Connection>,
}

impl Supervisor {
    pub(super) fn new(
        launcher: Launcher,
        device: &str,
        request: LoadRequest,
        spec: RemoteSpec,
        policy: RestartPolicy,
    ) -> Arc<Self> {
        let progress =
            Progress { state: RemoteState::Running, crashes: VecDeque::new(), failures: 0, fresh: None };
        let device = device.to_owned();
        Arc::new(Self { launcher, device, request, spec, policy, progress: Mutex::new(progress) })
    }

    /// The state now.
    pub fn state(&self) -> RemoteState {
        self.progress.lock().state.clone()
    }

    /// The connection that was made after a restart.
    pub(super) fn take_connection(&self) -> Option<Connection> {
        self.progress.lock().fresh.take()
    }

    /// Records that a job has run.
    pub(super) fn note_success(&self) {
        self.progress.lock().failures = 0;
    }

    /// Records that a job has failed although the worker runs. A device that fails again and again is given up.
    pub(super) fn note_failure(&self, error: &WorkerError) {
        let mut progress = self.progress.lock();
        progress.failures += 1;
        if progress.failures >= MAX_FAILURES && progress.state == RemoteState::Running {
            progress.state = RemoteState::GivenUp(error.to_string());
            log::error!("the worker of {} is given up: {error}", self.device);
            drop(progress);
            notify();
        }
    }

    /// Records that the worker has ended, and starts it again unless that has happened too often.
    pub(super) fn note_crash(self: &Arc<Self>, error: &WorkerError) {
        if self.count_crash(error) {
            let supervisor = self.clone();
            // The host may unload this library before the worker has started.
            os::pin_library();
            let thread = std::thread::Builder::new().name("nullsum-worker-start".into());
            if let Err(error) = thread.spawn(move || supervisor.restart()) {
                self.give_up(&format!("the system starts no thread: {error}"));
            }
        }
        notify();
    }

    /// Whether to start the worker again.
    fn count_crash(&self, error: &WorkerError) -> bool {
        let mut progress = self.progress.lock();
        let now = Instant::now();
        progress.crashes.push_back(now);
        while progress.crashes.front().is_some_and(|at| now - *at > self.policy.within) {
            progress.crashes.pop_front();
        }
        let count = progress.crashes.len();
        let again = count < self.policy.crashes;
        progress.state = if again {
            log::warn!("the worker of {} is started again: {error}", self.device);
            RemoteState::Restarting(error.to_string())
        } else {
            log::error!("the worker of {} is given up after {count} crashes: {error}", self.device);
            RemoteState::GivenUp(format!(
                "it ended {count} times within {} s; {error}",
                self.policy.within.as_secs()
            ))
        };
        again
    }

    fn give_up(&self, reason: &str) {
        log::error!("the worker of {} is given up: {reason}", self.device);
        self.progress.lock().state = RemoteState::GivenUp(reason.to_owned());
    }

    /// Starts the worker and loads the model, until that succeeds or is given up. Ends early when nobody else needs the model.
    fn restart(self: Arc<Self>) {
        let started = Instant::now();
        while Arc::strong_count(&self) > 1 {
            let mut is_wanted = || {
                if Arc::strong_count(&self) > 1 {
                    std::ops::ControlFlow::Continue(())
                } else {
                    std::ops::ControlFlow::Break(())
                }
            };
            let loaded = self.launcher.connect(&self.device).and_then(|mut connection| {
                let spec = connection.load(&self.request, &mut is_wanted)?;
                if spec == self.spec {
                    return Ok(connection);
                }
                Err(WorkerError::Device(format!("the model loads differently now: {}", spec.runs_on)))
            });
            match loaded {
                Ok(connection) => {
                    log::info!(
                        "the worker of {} runs again after {:.2} s",
                        self.device,
                        started.elapsed().as_secs_f64()
                    );
                    let mut progress = self.progress.lock();
                    (progress.fresh, progress.state) = (Some(connection), RemoteState::Running);
                    drop(progress);
                    return notify();
                }
                Err(error) if error.is_crash() => {
                    if !self.count_crash(&error) {
                        return notify();
                    }
                }
                Err(error) => {
                    self.give_up(&error.to_string());
                    return notify();
                }
            }
            notify();
            std::thread::sleep(PAUSE);
        }
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("device", &self.device)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
