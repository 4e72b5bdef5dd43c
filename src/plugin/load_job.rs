//! Loading a model on a thread of its own, which may be left behind: a network drive that is gone can block it for ever.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::device::DeviceSetting;
use super::model_loader::{self, LoadStep, LoadedModel, ModelLoadError};
use super::owned_thread::{END_TIMEOUT, OwnedThread};
use super::selection::Selection;

/// Name of the thread.
pub(super) const THREAD_NAME: &str = "nullsum-loader";
/// Shortest time between two reports of progress.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// A model being loaded. Dropping it cancels.
pub(super) struct LoadJob {
    /// Generation of the selection.
    pub generation: u64,
    pub selection: Selection,
    progress: Arc<Progress>,
    thread: Option<OwnedThread>,
}

#[derive(Default)]
struct Progress {
    cancelled: AtomicBool,
    step: Mutex<Option<LoadStep>>,
    result: Mutex<Option<Result<LoadedModel, ModelLoadError>>>,
}

impl LoadJob {
    /// Starts loading. `wake` is called with progress and at the end, on the loader's thread.
    pub fn start(
        selection: Selection,
        generation: u64,
        device: DeviceSetting,
        may_fetch: bool,
        wake: impl Fn() + Send + 'static,
    ) -> Self {
        let progress = Arc::<Progress>::default();
        let (job, chosen) = (progress.clone(), selection.clone());
        let body = move || {
            let mut reported: Option<Instant> = None;
            let mut on_step = |step| {
                *job.step.lock() = Some(step);
                if reported.is_none_or(|reported| reported.elapsed() >= REPORT_INTERVAL) {
                    reported = Some(Instant::now());
                    wake();
                }
                if job.cancelled.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let result = catch_unwind(AssertUnwindSafe(|| {
                model_loader::open(&chosen, &device, may_fetch, &mut on_step)
            }));
            // A bug of ours. The user may choose another model.
            let result = result.unwrap_or_else(|_| Err(internal_error()));
            *job.result.lock() = Some(result);
            wake();
        };
        let thread = OwnedThread::spawn(THREAD_NAME, body);
        if let Err(error) = &thread {
            let reason = format!("the model cannot be loaded: the system starts no thread ({error})");
            *progress.result.lock() = Some(Err(ModelLoadError::Broken { reason, report: None }));
        }
        Self { generation, selection, progress, thread: thread.ok() }
    }

    /// The current step of the job.
    pub fn step(&self) -> Option<LoadStep> {
        *self.progress.step.lock()
    }

    /// Whether the result is there.
    pub fn is_finished(&self) -> bool {
        self.progress.result.lock().is_some()
    }

    /// The result, once.
    pub fn take_result(&self) -> Option<Result<LoadedModel, ModelLoadError>> {
        self.progress.result.lock().take()
    }
}

impl LoadJob {
    /// Cancels, without waiting. The thread ends by itself, if it can.
    pub fn cancel(mut self) -> Option<OwnedThread> {
        self.progress.cancelled.store(true, Relaxed);
        self.thread.take()
    }
}

impl Drop for LoadJob {
    fn drop(&mut self) {
        self.progress.cancelled.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.end_by(Instant::now() + END_TIMEOUT);
        }
    }
}

fn internal_error() -> ModelLoadError {
    ModelLoadError::Broken { reason: "the model could not be loaded: internal error".into(), report: None }
}
