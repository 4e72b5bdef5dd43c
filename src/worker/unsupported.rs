//! Stands in for worker processes on systems where there are none yet.

use std::path::Path;
use std::sync::Arc;

use super::WorkerError;
use crate::live::SharedModel;

/// A device of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerDevice {
    /// Name, such as `cuda:0`.
    pub name: String,
    /// Name and memory, for display; or why it cannot be used.
    pub description: String,
    /// Whether it can be used.
    pub works: bool,
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

/// Watches over a worker; none can be made.
#[derive(Debug)]
pub enum Supervisor {}

impl Supervisor {
    /// The state now.
    pub fn state(&self) -> RemoteState {
        match *self {}
    }
}

/// A model in a worker.
#[derive(Clone)]
pub struct LoadedRemote {
    /// The model, for streams.
    pub model: SharedModel,
    /// Its state.
    pub supervisor: Arc<Supervisor>,
}

/// No devices.
pub fn devices(_again: bool) -> Vec<WorkerDevice> {
    Vec::new()
}

/// No devices.
pub fn known_devices() -> Option<Vec<WorkerDevice>> {
    Some(Vec::new())
}

/// Is never called.
pub fn set_observer(_observer: impl Fn() + Send + Sync + 'static) {}

/// Always fails.
///
/// # Errors
/// [`WorkerError::Unsupported`].
pub fn load_shared_remote(
    _device: &str,
    _files: (Option<&Path>, Option<&Path>),
    _sha256: &str,
    _threads: usize,
    _go_on: &mut dyn FnMut() -> std::ops::ControlFlow<()>,
) -> Result<LoadedRemote, WorkerError> {
    Err(WorkerError::Unsupported)
}
