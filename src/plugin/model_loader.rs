//! Loads the selected model: built in, from the registry, or from a user's file, which is found again if it moved.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::device::{self, DeviceSetting, ModelFiles, PlaceError, PlacedModel};
use super::hash_cache::{FileIdentity, store_hash, stored_hash};
use super::selection::{ModelSource, SavedModelSpec, Selection};
use super::{serde_path, thread_setting};
use crate::cache_file;
use crate::embedded;
use crate::hash::sha256_of_reader;
use crate::live::SharedModel;
use crate::model::checkpoint::Checkpoint;
use crate::model::inspect::Inspection;
use crate::registry::{self, DownloadProgress, FetchError, FetchOptions, RegistryEntry};
use crate::worker::Supervisor;

const LOCATIONS_FILE: &str = "places.json";
/// Connection timeout. Responses and stalls get twice as long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Number of entries in the list of recent models.
const MAX_RECENT: usize = 12;

/// A model ready to run.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// The weights, shared with every instance that uses the same model.
    pub model: SharedModel,
    pub spec: SavedModelSpec,
    /// SHA-256 of the checkpoint.
    pub sha256: String,
    /// Path of the checkpoint. `None` for the built-in model.
    pub path: Option<PathBuf>,
    /// The YAML configuration that was named. `None` if it was found inside the checkpoint or beside it.
    pub config: Option<PathBuf>,
    /// Licence of the weights, if known.
    pub licence: Option<String>,
    /// The number of threads that it was loaded for.
    pub threads: usize,
    /// The device that it was loaded for.
    pub device: DeviceSetting,
    /// Why it runs on another device.
    pub device_note: Option<String>,
    /// Watches over the worker that runs it; none in this process.
    pub supervisor: Option<Arc<Supervisor>>,
}

/// Why a model could not be loaded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelLoadError {
    /// The file is neither where it was nor at any other known location.
    #[error(
        "{path}: the checkpoint is missing, and no other location of it is known; choose its new location"
    )]
    Missing {
        /// Path where it was expected.
        path: String,
    },
    /// A model of the registry that was not downloaded yet, and whose download nobody requested.
    #[error("{name} is not on this computer yet")]
    NotFetched {
        /// Name in the registry.
        name: String,
        /// Size of the download.
        size: String,
        /// Licence of the weights.
        licence: String,
    },
    /// Loading was cancelled.
    #[error("loading was stopped")]
    Cancelled,
    /// The file is damaged or not a supported model.
    #[error("{reason}")]
    Broken {
        /// What is wrong.
        reason: String,
        /// What the file contains, as far as it could be read.
        report: Option<String>,
    },
}

fn invalid_model(error: impl std::fmt::Display) -> ModelLoadError {
    ModelLoadError::Broken { reason: error.to_string(), report: None }
}

/// Called at each step of loading. [`ControlFlow::Break`] cancels.
pub type OnLoadStep<'a> = &'a mut dyn FnMut(LoadStep) -> ControlFlow<()>;

/// A step of loading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LoadStep {
    /// Downloading the checkpoint.
    Fetching(DownloadProgress),
    /// Hashing the file to identify it.
    Hashing {
        /// Bytes hashed so far.
        done: u64,
    },
    /// Building the network.
    Loading,
}

/// Loads the selected model on `device`, or on the processor if the device is not there. Downloads it only if `may_fetch`.
///
/// # Errors
/// [`ModelLoadError`].
pub fn open(
    selection: &Selection,
    device: &DeviceSetting,
    may_fetch: bool,
    on_step: OnLoadStep,
) -> Result<LoadedModel, ModelLoadError> {
    match &selection.source {
        ModelSource::Embedded => built_in(device, on_step),
        ModelSource::Registry { name } => from_registry(name, device, may_fetch, on_step),
        ModelSource::File { checkpoint, config } => {
            let named = (checkpoint.as_path(), config.as_deref());
            from_file(named, selection.sha256.as_deref(), device, on_step)
        }
        ModelSource::Unknown(_) => Err(invalid_model(
            "this project names its model in a way that this version does not know; update the plugin, or choose another model (the project keeps its choice until then)",
        )),
    }
}

fn step(on_step: OnLoadStep, step: LoadStep) -> Result<(), ModelLoadError> {
    if on_step(step).is_break() { Err(ModelLoadError::Cancelled) } else { Ok(()) }
}

fn built_in(device: &DeviceSetting, on_step: OnLoadStep) -> Result<LoadedModel, ModelLoadError> {
    step(on_step, LoadStep::Loading)?;
    let checkpoint = embedded::checkpoint()
        .ok_or_else(|| invalid_model("this build has no built-in model; choose a checkpoint"))?;
    let licence = Some("CC0 1.0".into());
    load((&checkpoint, embedded::sha256().into()), (None, None), licence, device, on_step)
}

fn from_registry(
    name: &str,
    device: &DeviceSetting,
    may_fetch: bool,
    on_step: OnLoadStep,
) -> Result<LoadedModel, ModelLoadError> {
    let entry = registry::find(name).map_err(invalid_model)?;
    let files = match registry::cached_files(entry) {
        Some(files) => files,
        None if !may_fetch => {
            return Err(ModelLoadError::NotFetched {
                name: entry.name.clone(),
                size: entry.size_text(),
                licence: entry.licence_text(),
            });
        }
        None => fetch(entry, on_step)?,
    };
    // It was hashed when it was downloaded. Hashing a gigabyte takes a second.
    let sha256 = match registry::recorded_sha256(&files.checkpoint) {
        Some(recorded) => recorded,
        None => hash(&files.checkpoint, on_step)?,
    };
    step(on_step, LoadStep::Loading)?;
    let checkpoint = Checkpoint::open(&files.checkpoint).map_err(invalid_model)?;
    let paths = (Some(files.checkpoint.as_path()), Some(files.config.as_path()));
    load((&checkpoint, sha256), paths, entry.licence.clone(), device, on_step)
}

fn fetch(entry: &RegistryEntry, on_step: OnLoadStep) -> Result<registry::ModelFiles, ModelLoadError> {
    // Closing the instance waits for this request; a later download resumes.
    let mut options = FetchOptions::from_env();
    options.timeouts.connect = CONNECT_TIMEOUT;
    (options.timeouts.response, options.timeouts.stall) = (2 * CONNECT_TIMEOUT, 2 * CONNECT_TIMEOUT);
    registry::fetch(entry, &options, &mut |progress| on_step(LoadStep::Fetching(progress))).map_err(|error| {
        match error {
            FetchError::Cancelled { .. } => ModelLoadError::Cancelled,
            error => invalid_model(error),
        }
    })
}

fn from_file(
    (path, config): (&Path, Option<&Path>),
    sha256: Option<&str>,
    device: &DeviceSetting,
    on_step: OnLoadStep,
) -> Result<LoadedModel, ModelLoadError> {
    #[cfg(test)]
    hung_files::wait_if_hung(path);
    let places = ModelLocations::read();
    let elsewhere = || sha256.and_then(|sha256| places.find(sha256, path));
    let (mut path, mut config) = if path.is_file() {
        (path.to_path_buf(), config.map(Path::to_path_buf))
    } else {
        elsewhere().ok_or_else(|| ModelLoadError::Missing { path: path.display().to_string() })?
    };
    let mut found = hash(&path, on_step)?;
    // Another file has taken its place. The selected one may be at another known location.
    if let Some(wanted) = sha256.filter(|wanted| *wanted != found)
        && let Some((place, with)) = elsewhere()
    {
        match hash(&place, on_step) {
            Ok(there) if there == wanted => (path, config, found) = (place, with, there),
            Err(ModelLoadError::Cancelled) => return Err(ModelLoadError::Cancelled),
            // Another file again, or an unreadable one.
            Ok(_) | Err(_) => {}
        }
    }
    step(on_step, LoadStep::Loading)?;
    let checkpoint = Checkpoint::open(&path).map_err(invalid_model)?;
    // A configuration that moved is searched where it was last used with this checkpoint, or beside it.
    let gone = config.as_ref().is_some_and(|config| !config.is_file());
    let config = if gone { places.config_of(&found, &path) } else { config };
    let loaded = load((&checkpoint, found.clone()), (Some(&path), config.as_deref()), None, device, on_step)?;
    cache_file::update(LOCATIONS_FILE, |places: &mut ModelLocations| places.remember(found, path, config));
    Ok(loaded)
}

/// SHA-256 of a file, from the cache if the file has not changed since it was hashed.
fn hash(path: &Path, on_step: OnLoadStep) -> Result<String, ModelLoadError> {
    let failed = |error| invalid_model(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let identity = |file: &File| file.metadata().ok().and_then(|metadata| FileIdentity::of(&metadata));
    let before = identity(&file);
    if let Some(stored) = before.as_ref().and_then(|identity| stored_hash(path, identity)) {
        return Ok(stored);
    }
    let read = sha256_of_reader(&file, &mut |done| on_step(LoadStep::Hashing { done }).is_continue());
    let sha256 = read.map_err(failed)?.ok_or(ModelLoadError::Cancelled)?;
    if let Some(identity) = before.filter(|before| identity(&file).as_ref() == Some(before)) {
        store_hash(path, &identity, &sha256);
    }
    Ok(sha256)
}

fn load(
    (checkpoint, sha256): (&Checkpoint, String),
    (path, named): (Option<&Path>, Option<&Path>),
    licence: Option<String>,
    device: &DeviceSetting,
    on_step: OnLoadStep,
) -> Result<LoadedModel, ModelLoadError> {
    let config = registry::load_config(checkpoint, path, named, &mut registry::cached_config)
        .map_err(invalid_model)?;
    let threads = thread_setting::current();
    thread_setting::log_once();
    let files =
        ModelFiles { checkpoint, config: &config, path, named_config: named, sha256: &sha256, threads };
    let placed = device::place(device, &files, &mut || on_step(LoadStep::Loading)).map_err(|error| {
        let (reason, report) = match error {
            PlaceError::Cancelled => return ModelLoadError::Cancelled,
            PlaceError::Invalid(reason, report) => (reason, report),
            PlaceError::Load(error) => (error.to_string(), None),
        };
        let report = report.or_else(|| Some(Inspection::new(checkpoint, &config, None).to_string()));
        ModelLoadError::Broken { reason, report }
    })?;
    let PlacedModel { model, supervisor, note } = placed;
    let spec = SavedModelSpec::new(model.timing(), model.stem_names().to_vec());
    let (path, config) = (path.map(Path::to_path_buf), named.map(Path::to_path_buf));
    let (device, device_note) = (device.clone(), note);
    Ok(LoadedModel { model, spec, sha256, path, config, licence, threads, device, device_note, supervisor })
}

/// Known locations of checkpoints, by SHA-256.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ModelLocations {
    #[serde(default)]
    places: BTreeMap<String, Vec<ModelLocation>>,
    /// SHA-256 of recently used checkpoints, newest first.
    #[serde(default)]
    recent: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ModelLocation {
    #[serde(with = "serde_path")]
    checkpoint: PathBuf,
    #[serde(with = "serde_path::optional", default)]
    config: Option<PathBuf>,
}

impl ModelLocations {
    /// Reads the locations from the cache folder.
    pub fn read() -> Self {
        cache_file::read(LOCATIONS_FILE)
    }

    /// The latest location that still has a file, other than `but`.
    fn find(&self, sha256: &str, but: &Path) -> Option<(PathBuf, Option<PathBuf>)> {
        let is_there = |place: &&ModelLocation| place.checkpoint != but && place.checkpoint.is_file();
        let place = self.places.get(sha256)?.iter().rev().find(is_there)?;
        Some((place.checkpoint.clone(), place.config.clone()))
    }

    /// The configuration that a checkpoint was last loaded with, if it still exists.
    fn config_of(&self, sha256: &str, checkpoint: &Path) -> Option<PathBuf> {
        let checkpoint = std::path::absolute(checkpoint).ok()?;
        let place = self.places.get(sha256)?.iter().find(|place| place.checkpoint == checkpoint)?;
        place.config.clone().filter(|config| config.is_file())
    }

    fn remember(&mut self, sha256: String, checkpoint: PathBuf, config: Option<PathBuf>) {
        let checkpoint = std::path::absolute(&checkpoint).unwrap_or(checkpoint);
        let config = config.map(|config| std::path::absolute(&config).unwrap_or(config));
        let places = self.places.entry(sha256.clone()).or_default();
        let before =
            places.iter().position(|place| place.checkpoint == checkpoint).map(|at| places.remove(at));
        let config = config.or_else(|| before?.config);
        places.push(ModelLocation { checkpoint, config });
        self.recent.retain(|spec| *spec != sha256);
        self.recent.insert(0, sha256);
        self.recent.truncate(MAX_RECENT);
    }

    /// The user's recently loaded files that still exist, newest first.
    pub fn recent(&self) -> Vec<Selection> {
        let selection = |sha256: &String| {
            let (checkpoint, config) = self.find(sha256, Path::new(""))?;
            Some(Selection { sha256: Some(sha256.clone()), ..Selection::file(checkpoint, config) })
        };
        self.recent.iter().filter_map(selection).collect()
    }
}

/// Stands in for a network drive that is gone: opening its files blocks.
#[cfg(test)]
pub(super) mod hung_files {
    use std::path::{Path, PathBuf};

    use parking_lot::{Condvar, Mutex};

    static HUNG: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    static CHANGED: Condvar = Condvar::new();

    pub fn hang(path: &Path) {
        HUNG.lock().push(path.into());
    }

    pub fn release(path: &Path) {
        HUNG.lock().retain(|hung| hung != path);
        CHANGED.notify_all();
    }

    pub fn wait_if_hung(path: &Path) {
        let mut hung = HUNG.lock();
        while hung.iter().any(|hung| hung == path) {
            CHANGED.wait(&mut hung);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_file_is_found_by_content_at_its_latest_location() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mut places = ModelLocations::default();
        for name in ["a.ckpt", "b.ckpt", "c.ckpt"] {
            places.remember("x".into(), at(name), None);
        }
        std::fs::write(at("a.ckpt"), "").unwrap();
        std::fs::write(at("b.ckpt"), "").unwrap();
        assert_eq!(places.find("x", &at("c.ckpt")), Some((at("b.ckpt"), None)));
        assert_eq!(places.find("x", &at("b.ckpt")), Some((at("a.ckpt"), None)));
        assert_eq!(places.find("y", Path::new("")), None);
        places.remember("y".into(), at("gone"), None);
        assert_eq!(places.recent().len(), 1);
    }

    #[test]
    fn the_configuration_of_a_checkpoint_is_remembered() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mut places = ModelLocations::default();
        places.remember("x".into(), at("a.ckpt"), Some(at("a.yaml")));
        assert_eq!(places.config_of("x", &at("a.ckpt")), None);
        std::fs::write(at("a.yaml"), "").unwrap();
        assert_eq!(places.config_of("x", &at("a.ckpt")), Some(at("a.yaml")));
        assert_eq!(places.config_of("x", &at("b.ckpt")), None);
    }

    #[test]
    fn an_absent_file_is_missing_and_another_file_is_broken() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.ckpt");
        let open = || {
            open(&Selection::file(path.clone(), None), &DeviceSetting::Auto, false, &mut |_| {
                ControlFlow::Continue(())
            })
        };
        assert!(matches!(open(), Err(ModelLoadError::Missing { .. })));
        std::fs::write(&path, "not a checkpoint").unwrap();
        let Err(ModelLoadError::Broken { reason, .. }) = open() else { panic!("opened") };
        assert!(reason.contains("a.ckpt"), "{reason}");
    }
}
