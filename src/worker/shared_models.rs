//! The models that this process has in workers, each once.

use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::connection::GoOn;
use super::error::WorkerError;
use super::launch;
use super::protocol::{LoadRequest, PathBytes};
use super::remote_model::RemoteModel;
use super::supervisor::{RemoteState, RestartPolicy, Supervisor};
use crate::live::{SharedModel, WindowSeparator, load_shared};

/// A model in a worker.
#[derive(Clone)]
pub struct LoadedRemote {
    /// The model, for streams.
    pub model: SharedModel,
    /// Its state.
    pub supervisor: Arc<Supervisor>,
}

/// A supervisor with the key of its model.
type Known = (String, Weak<Supervisor>);

static SUPERVISORS: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// Returns the process's model on `device`, or loads it. One that was given up is loaded again. `go_on` may end the wait.
///
/// # Errors
/// [`WorkerError`].
pub fn load_shared_remote(
    device: &str,
    (checkpoint, config): (Option<&Path>, Option<&Path>),
    sha256: &str,
    threads: usize,
    go_on: GoOn<'_>,
) -> Result<LoadedRemote, WorkerError> {
    let path = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let request = LoadRequest {
        checkpoint: checkpoint.map(|at| PathBytes::new(&path(at))),
        sha256: sha256.to_owned(),
        config: config.map(|at| PathBytes::new(&path(at))),
        threads,
    };
    let name = format!("worker {device} {threads} threads {sha256} {checkpoint:?} {config:?}");
    let attempt = attempt_of(&name);
    let key = format!("{name} attempt {attempt}");
    let mut made = None;
    let model = load_shared(&key, || {
        let launcher = launch::launcher_for(device)?;
        let model = RemoteModel::load(launcher, device, request, RestartPolicy::default(), go_on)?;
        made = Some(model.supervisor());
        Ok::<_, WorkerError>(Box::new(model) as Box<dyn WindowSeparator>)
    })?;
    let mut supervisors = SUPERVISORS.lock();
    if let Some(supervisor) = made {
        supervisors.push((key, Arc::downgrade(&supervisor)));
        return Ok(LoadedRemote { model, supervisor });
    }
    let found = supervisors.iter().rev().find(|(known, _)| *known == key);
    match found.and_then(|(_, supervisor)| supervisor.upgrade()) {
        Some(supervisor) => Ok(LoadedRemote { model, supervisor }),
        None => Err(WorkerError::Lost),
    }
}

/// How many models of this name were given up.
fn attempt_of(name: &str) -> usize {
    let mut supervisors = SUPERVISORS.lock();
    supervisors.retain(|(_, supervisor)| supervisor.strong_count() > 0);
    let of_name = supervisors.iter().filter(|(key, _)| key.starts_with(name));
    let numbers = of_name.filter_map(|(key, supervisor)| {
        let number: usize = key.rsplit(' ').next()?.parse().ok()?;
        let is_over = matches!(supervisor.upgrade()?.state(), RemoteState::GivenUp(_));
        Some(number + usize::from(is_over))
    });
    numbers.max().unwrap_or(0)
}
