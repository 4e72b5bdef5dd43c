//! Which model runs: the one that is named, or the best that is at hand.

use std::path::Path;
use std::time::Duration;

use nullsum::embedded;
use nullsum::model::architecture::Family;
use nullsum::model::checkpoint::Checkpoint;
use nullsum::model::companion;
use nullsum::model::config::Config;
use nullsum::registry::{self, Entry, FetchError, FetchOptions, Files};

use crate::args::ModelArgs;
use crate::exit::{Code, Failure, OrFail, Outcome, told};
use crate::interrupt;
use crate::progress::{FetchProgress, announce};
use crate::report::Talk;

/// How long the unasked-for download waits for a network that is not there.
const PATIENCE: Duration = Duration::from_secs(3);

/// An open checkpoint with its configuration.
pub struct Source {
    /// A name for reports and file names.
    pub name: String,
    /// The weights.
    pub checkpoint: Checkpoint,
    /// What its YAML says.
    pub config: Config,
}

impl Source {
    /// A warning of arguments in the YAML that have no effect: they are spelt wrong, or of a network that we do not know.
    pub fn not_understood(&self) -> Option<String> {
        let unknown = &self.config.model.unknown;
        (!unknown.is_empty()).then(|| {
            format!(
                "{}: not understood in the YAML's model section, and ignored: {}",
                self.name,
                unknown.join(", ")
            )
        })
    }
}

/// Opens what the user wants; the default where nothing is named.
pub fn open(args: &ModelArgs, talk: Talk) -> Outcome<Source> {
    match &args.model {
        Some(model) => named(model, args, talk),
        None => default(args, talk),
    }
}

/// The family that the user named, where one was.
pub fn family(args: &ModelArgs) -> Option<Family> {
    args.model_type.map(Into::into)
}

fn named(model: &Path, args: &ModelArgs, talk: Talk) -> Outcome<Source> {
    if model == Path::new(embedded::NAME) {
        return built_in(args.config.as_deref());
    }
    if model.exists() {
        return from_file(model, args.config.as_deref());
    }
    // The reference names the default checkpoint by its file, and fetches it when it is missing.
    let name = model.file_name().unwrap_or(model.as_os_str()).to_string_lossy();
    let is_path = model.components().count() > 1;
    match registry::find(&name) {
        Ok(entry) => {
            let config = given(entry, args.config.as_deref())?;
            let files = match registry::cached(entry) {
                Some(files) => files,
                None => {
                    fetch(entry, FetchOptions { offline: args.offline, ..FetchOptions::from_env() }, talk)
                        .or_fail(Code::Model)?
                }
            };
            from_registry(entry, &files, config)
        }
        Err(_) if is_path => {
            Err(Failure::new(Code::Model, format!("{}: there is no such checkpoint", model.display())))
        }
        Err(error) => {
            Err(Failure::new(Code::Model, format!("{}: there is no such file, and {error}", model.display())))
        }
    }
}

/// The registry's first, from the cache or the network; the embedded one without either.
fn default(args: &ModelArgs, talk: Talk) -> Outcome<Source> {
    let entry = registry::default_entry();
    let config = given(entry, args.config.as_deref())?;
    if let Some(files) = registry::cached(entry) {
        return from_registry(entry, &files, config);
    }
    let mut options = FetchOptions { offline: args.offline, ..FetchOptions::from_env() };
    options.timeouts.connect = PATIENCE;
    options.timeouts.response = 2 * PATIENCE;
    if !args.offline {
        talk.note(&format!("The default model, {}, is not here yet.", entry.name));
    }
    match fetch(entry, options, talk) {
        Ok(files) => from_registry(entry, &files, config),
        Err(error @ FetchError::Cancelled { .. }) => Err(error).or_fail(Code::Interrupted),
        Err(error) if error.is_unreachable() && has_built_in() => {
            let why = match error {
                FetchError::Offline { .. } => format!("{} is not in the cache, and --offline", entry.name),
                error => error.to_string(),
            };
            talk.warning(&format!(
                "{why}; using the small model that is built in, which is of lower quality"
            ));
            built_in(args.config.as_deref().filter(|_| config.is_some()))
        }
        // The network is there, and something is wrong that the user can mend: not the time for another model.
        Err(error) if has_built_in() => {
            let embedded = embedded::NAME;
            Err(Failure::new(
                Code::Model,
                format!("{error}; --model {embedded} runs the small model that is built in"),
            ))
        }
        Err(error) => Err(Failure::new(
            Code::Model,
            format!(
                "{}; no model is embedded in this build, so there is none to run. Name one with --model",
                told(&error.into())
            ),
        )),
    }
}

fn has_built_in() -> bool {
    embedded::checkpoint().is_some()
}

/// The embedded model.
pub fn built_in(config: Option<&Path>) -> Outcome<Source> {
    let Some(checkpoint) = embedded::checkpoint() else {
        return Err(Failure::new(
            Code::Model,
            "no model is embedded in this build (feature `embedded`); name another one with --model, or fetch one: \
             nullsum-cli models",
        ));
    };
    with_config(embedded::NAME.into(), checkpoint, None, config)
}

/// What a YAML says that the user names for an entry of the registry: read before anything is fetched. None where it is the entry's own, which the
/// reference has beside its code, and which is fetched here.
fn given(entry: &Entry, config: Option<&Path>) -> Outcome<Option<Config>> {
    let other =
        |config: &&Path| config.exists() || config.file_name() != Some(entry.config.file_name().as_ref());
    config.filter(other).map(Config::from_file).transpose().or_fail(Code::Model)
}

fn from_registry(entry: &Entry, files: &Files, config: Option<Config>) -> Outcome<Source> {
    let checkpoint = Checkpoint::open(&files.checkpoint).or_fail(Code::Model)?;
    let config = match config {
        Some(config) => config,
        None => Config::from_file(&files.config).or_fail(Code::Model)?,
    };
    Ok(Source { name: entry.name.clone(), checkpoint, config })
}

/// A checkpoint file, with `config` or the YAML that is found for it.
pub fn from_file(path: &Path, config: Option<&Path>) -> Outcome<Source> {
    let checkpoint = Checkpoint::open(path).or_fail(Code::Model)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    with_config(name, checkpoint, Some(path), config)
}

/// A file, a cached model of the registry, or the embedded one, for looking at: never fetched.
pub fn at_hand(model: &Path, config: Option<&Path>) -> Outcome<Source> {
    if model == Path::new(embedded::NAME) {
        return built_in(config);
    }
    let entry = model.to_str().filter(|_| !model.exists()).and_then(|name| registry::find(name).ok());
    match entry.and_then(|entry| Some((entry, registry::cached(entry)?))) {
        Some((entry, files)) => from_registry(entry, &files, given(entry, config)?),
        None => from_file(model, config),
    }
}

fn with_config(
    name: String,
    checkpoint: Checkpoint,
    path: Option<&Path>,
    config: Option<&Path>,
) -> Outcome<Source> {
    let config = companion::config_of(&checkpoint, path, config).or_fail(Code::Model)?;
    Ok(Source { name, checkpoint, config })
}

/// Fetches a model, after saying so.
pub fn fetch(entry: &Entry, options: FetchOptions, talk: Talk) -> Result<Files, FetchError> {
    if !options.offline {
        talk.note(&format!("Fetching {}: {}", entry.name, announce(entry)));
        if let Some(note) = &entry.licence_note {
            talk.note(&format!("  {note}"));
        }
        talk.event(&serde_json::json!({
            "event": "fetch",
            "model": entry.name,
            "bytes": entry.checkpoint.size,
            "source": entry.source,
            "licence": entry.licence,
        }));
    }
    let mut progress = FetchProgress::new(talk, &entry.name);
    registry::fetch(entry, &options, &mut |step| {
        progress.update(step);
        interrupt::flow()
    })
}
