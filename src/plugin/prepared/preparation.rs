//! A thread that separates what was heard, or the file of the track.

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::channel::Sender;

use super::{JOB_THREAD_NAME, PrepareCommand};
use crate::embedded;
use crate::model::checkpoint::Checkpoint;
use crate::plugin::model_loader::LoadedModel;
use crate::plugin::owned_thread::OwnedThread;
use crate::prepared::file;
use crate::prepared::job::{self, Job, JobError, JobHandle};
use crate::prepared::placement;
use crate::prepared::ranges::Ranges;
use crate::prepared::recording::RecordedPart;
use crate::prepared::store::Store;
use crate::registry;
use crate::separator::{Runtime, Separator};

/// Shortest heard range that is prepared, in seconds.
const MIN_SECONDS: i64 = 1;

/// What is prepared, and how.
pub(super) struct Preparation {
    pub store: Store,
    pub model: LoadedModel,
    pub model_title: String,
    /// Name of the track.
    pub title: Option<String>,
    pub lossless: bool,
    /// Of the host.
    pub rate: u32,
    pub channels: usize,
    /// What was heard, and where.
    pub heard: Option<(RecordedPart, Ranges)>,
    /// The file of the track, instead of what was heard.
    pub file: Option<PathBuf>,
}

/// Starts the thread.
///
/// # Errors
/// If the system refuses.
pub(super) fn start(
    preparation: Preparation,
    report: Sender<PrepareCommand>,
) -> std::io::Result<(Arc<JobHandle>, OwnedThread)> {
    let handle = Arc::<JobHandle>::default();
    let job_handle = Arc::clone(&handle);
    let thread = OwnedThread::spawn(JOB_THREAD_NAME, move || {
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| preparation.run(&job_handle, &report)));
        let problem = match result {
            Ok(Ok(())) => None,
            Ok(Err(_)) if job_handle.is_cancelled() => None,
            Ok(Err(problem)) => Some(problem),
            Err(_) => Some("Internal error while preparing.".into()),
        };
        if let Some(problem) = &problem {
            log::warn!("preparing failed: {problem}");
        }
        let _ = report.send(PrepareCommand::Ended(problem));
    })?;
    Ok((handle, thread))
}

impl Preparation {
    fn run(mut self, handle: &Arc<JobHandle>, report: &Sender<PrepareCommand>) -> Result<(), String> {
        match self.file.take() {
            Some(path) => {
                let (rate, channels) = (Some(self.rate), Some(self.channels));
                let decoded =
                    file::record_file(&path, rate, channels, &self.store, &|| handle.is_cancelled())
                        .map_err(|error| error.to_string())?;
                let length = decoded.heard().total() as i64;
                let mut song = decoded.part(0..length);
                let at = match &mut self.heard {
                    Some((heard, ranges)) => {
                        let placed = placement::place_file(&mut song, heard, ranges);
                        placed.map_err(|error| format!("{}: {error}", path.display()))?
                    }
                    None => None,
                };
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                self.run_job(&mut song, at, name, handle, report)
            }
            None => {
                let least = MIN_SECONDS * i64::from(self.rate);
                let Some((heard, ranges)) = &self.heard else { return Err(JobError::Empty.to_string()) };
                let parts: Vec<_> =
                    ranges.iter().filter(|range| range.end - range.start >= least).cloned().collect();
                let parts: Vec<RecordedPart> = parts.into_iter().map(|range| heard.part(range)).collect();
                if parts.is_empty() {
                    return Err(JobError::Empty.to_string());
                }
                let title = self.title.clone().unwrap_or_else(|| "Track".into());
                for mut part in parts {
                    let at = part.start();
                    self.run_job(&mut part, Some(at), title.clone(), handle, report)?;
                }
                Ok(())
            }
        }
    }

    fn run_job(
        &self,
        song: &mut RecordedPart,
        at: Option<i64>,
        title: String,
        handle: &Arc<JobHandle>,
        report: &Sender<PrepareCommand>,
    ) -> Result<(), String> {
        let job = Job {
            song,
            at,
            title,
            model: self.model_title.clone(),
            model_sha256: self.model.sha256.clone(),
            options: job::options(self.lossless, None),
        };
        let mut on_commit = |id: &str| _ = report.send(PrepareCommand::Prepared { id: id.to_owned(), at });
        job.run(&self.store, handle, &mut || self.load(), &mut on_commit)
            .map(|id| _ = report.send(PrepareCommand::Prepared { id, at }))
            .map_err(|error| error.to_string())
    }

    /// Loads the model once more, for background work at full precision.
    fn load(&self) -> Result<Separator, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let checkpoint = match &self.model.path {
            Some(path) => Checkpoint::open(path).map_err(|error| text(&error))?,
            None => embedded::checkpoint().ok_or("this build has no built-in model")?,
        };
        let path = self.model.path.as_deref();
        let config = registry::load_config(
            &checkpoint,
            path,
            self.model.config.as_deref(),
            &mut registry::cached_config,
        )
        .map_err(|error| text(&error))?;
        let runtime = Runtime { threads: self.model.threads, private_pool: true, ..Runtime::default() };
        Separator::load(&checkpoint, &config, None, runtime).map_err(|error| text(&error))
    }
}
