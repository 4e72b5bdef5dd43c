//! From a session's selection to a model that runs: the built-in one, the registry's, the user's files, found again when they moved.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::path;
use super::selection::{Known, Selection, Source};
use super::store;
use crate::embedded;
use crate::hash::sha256_of;
use crate::model::checkpoint::Checkpoint;
use crate::model::companion;
use crate::model::inspect::Inspection;
use crate::registry::{self, Entry, FetchError, FetchOptions, Progress};
use crate::separator::{Runtime, Separator};
use crate::stream::{SharedModel, WindowSeparator, pooled};

const RECORD: &str = "places.json";
/// Time for a connection; twice as long for an answer, and between two parts of it.
const PATIENCE: Duration = Duration::from_secs(4);
/// Places that are remembered for the list of recent models.
const RECENT: usize = 12;

/// A model that runs.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The weights, shared with every instance that has the same.
    pub model: SharedModel,
    /// What planning needs, and the stems.
    pub known: Known,
    /// Of the checkpoint.
    pub sha256: String,
    /// Where the checkpoint lies; none for the built-in one.
    pub path: Option<PathBuf>,
    /// The YAML that was named for it; none where it was found inside or beside.
    pub config: Option<PathBuf>,
    /// Licence of the weights, where it is known.
    pub licence: Option<String>,
}

/// Why there is no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// The file is not where it was, nor anywhere it is known to have been.
    #[error(
        "{path}: the checkpoint is not there, and none of the same content is known elsewhere; choose where it is now"
    )]
    Missing {
        /// Where it was.
        path: String,
    },
    /// The registry's model was not fetched yet, and nobody has asked for it.
    #[error("{name} is not on this computer yet")]
    NotFetched {
        /// Name in the registry.
        name: String,
        /// Size of the download.
        size: String,
        /// Licence of the weights.
        licence: String,
    },
    /// Somebody stopped it.
    #[error("loading was stopped")]
    Cancelled,
    /// It is broken, or no model for us.
    #[error("{reason}")]
    Broken {
        /// What is wrong.
        reason: String,
        /// What the file holds, as far as it could be read.
        report: Option<String>,
    },
}

fn broken(error: impl std::fmt::Display) -> OpenError {
    OpenError::Broken { reason: error.to_string(), report: None }
}

/// Steps of loading, for display. [`ControlFlow::Break`] stops it.
pub type OnStep<'a> = &'a mut dyn FnMut(Step) -> ControlFlow<()>;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Receiving it.
    Fetching(Progress),
    /// Reading the file to tell its content.
    Hashing {
        /// Bytes so far.
        done: u64,
    },
    /// Building the network.
    Loading,
}

/// Opens what is selected. Fetches only when `may_fetch`.
///
/// # Errors
/// [`OpenError`].
pub fn open(selection: &Selection, may_fetch: bool, on_step: OnStep) -> Result<Loaded, OpenError> {
    match &selection.source {
        Source::Embedded => built_in(on_step),
        Source::Registry { name } => from_registry(name, may_fetch, on_step),
        Source::File { checkpoint, config } => {
            from_file(checkpoint, config.as_deref(), selection.sha256.as_deref(), on_step)
        }
    }
}

fn step(on_step: OnStep, step: Step) -> Result<(), OpenError> {
    if on_step(step).is_break() { Err(OpenError::Cancelled) } else { Ok(()) }
}

fn built_in(on_step: OnStep) -> Result<Loaded, OpenError> {
    step(on_step, Step::Loading)?;
    let checkpoint = embedded::checkpoint()
        .ok_or_else(|| broken("no model is built into this plugin; choose a checkpoint"))?;
    load(&checkpoint, None, None, embedded::sha256().into(), Some("CC0 1.0".into()))
}

fn from_registry(name: &str, may_fetch: bool, on_step: OnStep) -> Result<Loaded, OpenError> {
    let entry = registry::find(name).map_err(broken)?;
    let files = match registry::cached(entry) {
        Some(files) => files,
        None if !may_fetch => {
            return Err(OpenError::NotFetched {
                name: entry.name.clone(),
                size: entry.size_text(),
                licence: entry.licence_text().into(),
            });
        }
        None => fetch(entry, on_step)?,
    };
    // It was hashed when it was fetched; a gigabyte takes a second.
    let sha256 = match registry::recorded_sha256(&files.checkpoint) {
        Some(recorded) => recorded,
        None => hash(&files.checkpoint, on_step)?,
    };
    step(on_step, Step::Loading)?;
    let checkpoint = Checkpoint::open(&files.checkpoint).map_err(broken)?;
    load(&checkpoint, Some(&files.checkpoint), Some(&files.config), sha256, entry.licence.clone())
}

fn fetch(entry: &Entry, on_step: OnStep) -> Result<registry::Files, OpenError> {
    // A host that ends the instance waits for this; the download goes on from where it was.
    let mut options = FetchOptions::from_env();
    options.timeouts.connect = PATIENCE;
    (options.timeouts.response, options.timeouts.stall) = (2 * PATIENCE, 2 * PATIENCE);
    registry::fetch(entry, &options, &mut |progress| on_step(Step::Fetching(progress))).map_err(|error| {
        match error {
            FetchError::Cancelled { .. } => OpenError::Cancelled,
            error => broken(error),
        }
    })
}

fn from_file(
    path: &Path,
    config: Option<&Path>,
    sha256: Option<&str>,
    on_step: OnStep,
) -> Result<Loaded, OpenError> {
    let places = Places::read();
    let elsewhere = || sha256.and_then(|sha256| places.find(sha256, path));
    let (mut path, mut config) = if path.is_file() {
        (path.to_path_buf(), config.map(Path::to_path_buf))
    } else {
        elsewhere().ok_or_else(|| OpenError::Missing { path: path.display().to_string() })?
    };
    let mut found = hash(&path, on_step)?;
    // Another file has taken its place; the one that was meant may lie where it was seen besides.
    if let Some(wanted) = sha256.filter(|wanted| *wanted != found)
        && let Some((place, with)) = elsewhere()
    {
        match hash(&place, on_step) {
            Ok(there) if there == wanted => (path, config, found) = (place, with, there),
            Err(OpenError::Cancelled) => return Err(OpenError::Cancelled),
            // Another one still, or one that cannot be read.
            Ok(_) | Err(_) => {}
        }
    }
    step(on_step, Step::Loading)?;
    let checkpoint = Checkpoint::open(&path).map_err(broken)?;
    // A YAML that moved away is looked for where it was seen with this checkpoint, or beside it.
    let gone = config.as_ref().is_some_and(|config| !config.is_file());
    let config = if gone { places.config_of(&found, &path) } else { config };
    let loaded = load(&checkpoint, Some(&path), config.as_deref(), found.clone(), None)?;
    store::update(RECORD, |places: &mut Places| places.remember(found, path, config));
    Ok(loaded)
}

fn hash(path: &Path, on_step: OnStep) -> Result<String, OpenError> {
    let failed = |error| broken(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let hash = sha256_of(file, &mut |done| on_step(Step::Hashing { done }).is_continue());
    hash.map_err(failed)?.ok_or(OpenError::Cancelled)
}

fn load(
    checkpoint: &Checkpoint,
    path: Option<&Path>,
    config: Option<&Path>,
    sha256: String,
    licence: Option<String>,
) -> Result<Loaded, OpenError> {
    let named = config;
    let config = companion::config_of(checkpoint, path, named).map_err(broken)?;
    let key = format!("{sha256} {}", config.text());
    let model = pooled(&key, || {
        Separator::load(checkpoint, &config, None, Runtime::default())
            .map(|separator| Box::new(separator) as Box<dyn WindowSeparator>)
    })
    .map_err(|error| OpenError::Broken {
        reason: error.to_string(),
        report: Some(Inspection::new(checkpoint, &config, None).to_string()),
    })?;
    let known = Known::of(model.timing(), model.stem_names().to_vec());
    let (path, config) = (path.map(Path::to_path_buf), named.map(Path::to_path_buf));
    Ok(Loaded { model, known, sha256, path, config, licence })
}

/// Where checkpoints were seen, by content.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Places {
    #[serde(default)]
    places: BTreeMap<String, Vec<Place>>,
    /// Contents, the latest first.
    #[serde(default)]
    recent: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Place {
    #[serde(with = "path")]
    checkpoint: PathBuf,
    #[serde(with = "path::optional", default)]
    config: Option<PathBuf>,
}

impl Places {
    /// As they are on disk.
    pub fn read() -> Self {
        store::read(RECORD)
    }

    /// Where a content lies now, of the places it was seen at, but for one of them.
    fn find(&self, sha256: &str, but: &Path) -> Option<(PathBuf, Option<PathBuf>)> {
        let is_there = |place: &&Place| place.checkpoint != but && place.checkpoint.is_file();
        let place = self.places.get(sha256)?.iter().rev().find(is_there)?;
        Some((place.checkpoint.clone(), place.config.clone()))
    }

    /// The YAML that a checkpoint was loaded with, where it is still there.
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
        places.push(Place { checkpoint, config });
        self.recent.retain(|known| *known != sha256);
        self.recent.insert(0, sha256);
        self.recent.truncate(RECENT);
    }

    /// Files of the user's that were loaded lately and are still there, the latest first.
    pub fn recent(&self) -> Vec<Selection> {
        let selection = |sha256: &String| {
            let (checkpoint, config) = self.find(sha256, Path::new(""))?;
            Some(Selection { sha256: Some(sha256.clone()), ..Selection::file(checkpoint, config) })
        };
        self.recent.iter().filter_map(selection).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_moved_is_found_by_its_content_at_the_last_place_that_still_has_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mut places = Places::default();
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
    fn a_yaml_that_moved_with_its_checkpoint_is_known_by_the_checkpoint() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mut places = Places::default();
        places.remember("x".into(), at("a.ckpt"), Some(at("a.yaml")));
        assert_eq!(places.config_of("x", &at("a.ckpt")), None);
        std::fs::write(at("a.yaml"), "").unwrap();
        assert_eq!(places.config_of("x", &at("a.ckpt")), Some(at("a.yaml")));
        assert_eq!(places.config_of("x", &at("b.ckpt")), None);
    }

    #[test]
    fn a_file_that_is_nowhere_is_missing_and_one_that_is_no_model_is_broken() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.ckpt");
        let open = || open(&Selection::file(path.clone(), None), false, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(open(), Err(OpenError::Missing { .. })));
        std::fs::write(&path, "not a checkpoint").unwrap();
        let Err(OpenError::Broken { reason, .. }) = open() else { panic!("opened") };
        assert!(reason.contains("a.ckpt"), "{reason}");
    }
}
