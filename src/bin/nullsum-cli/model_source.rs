//! Opens the model of a command line: the named one, or the default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nullsum::embedded;
use nullsum::model::architecture::Family;
use nullsum::model::checkpoint::{Checkpoint, OpenOptions};
use nullsum::model::config::Config;
use nullsum::registry::{self, FetchError, FetchOptions, ModelFiles, RegistryEntry};

use crate::args::ModelArgs;
use crate::exit::{CliResult, ExitStatus, Failure, OrFail, format_error};
use crate::interrupt;
use crate::printer::Printer;
use crate::progress::{FetchProgress, download_description};

/// Timeout in connecting for the default model, which is downloaded without being asked for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Finds the YAML of a registry entry.
type FindYaml<'a> = &'a mut dyn FnMut(&'static RegistryEntry) -> Option<PathBuf>;

/// An open checkpoint with its configuration.
pub struct ModelSource {
    /// A name for reports and file names.
    pub name: String,
    /// The weights.
    pub checkpoint: Checkpoint,
    /// What its YAML says.
    pub config: Config,
}

impl ModelSource {
    /// Warnings about the YAML: misspelt keys, arguments without effect, and the like.
    pub fn config_warnings(&self) -> Vec<String> {
        let unknown = &self.config.model.unknown;
        let ignored = (!unknown.is_empty()).then(|| {
            format!(
                "{}: not understood in the YAML's model section, and ignored: {}",
                self.name,
                unknown.join(", ")
            )
        });
        ignored.into_iter().chain(self.config.warnings.iter().cloned()).collect()
    }
}

/// Opens the model that the arguments name, or the default model.
pub fn open_model(args: &ModelArgs, printer: Printer) -> CliResult<ModelSource> {
    match &args.model {
        Some(model) => open_named(model, args, printer),
        None => open_default(args, printer),
    }
}

/// The family that the arguments name, if any.
pub fn family(args: &ModelArgs) -> Option<Family> {
    args.model_type.map(Into::into)
}

fn open_named(model: &Path, args: &ModelArgs, printer: Printer) -> CliResult<ModelSource> {
    if model == Path::new(embedded::NAME) {
        return open_embedded(args.config.as_deref());
    }
    if model.exists() {
        let options = OpenOptions { weights: args.weights.clone() };
        let fetch_options = FetchOptions { offline: args.offline, ..FetchOptions::from_env() };
        let mut find_yaml = |entry: &'static RegistryEntry| {
            let fetched = registry::fetch_config(entry, &fetch_options, &mut |_| interrupt::stop_flow());
            fetched.map_err(|error| printer.warning(&error.to_string())).ok()
        };
        return open_file(model, args.config.as_deref(), &options, &mut find_yaml);
    }
    // The reference program names its default checkpoint by file name and downloads it if it is missing.
    let name = model.file_name().unwrap_or(model.as_os_str()).to_string_lossy();
    let is_path = model.components().count() > 1;
    match registry::find(&name) {
        Ok(entry) => {
            let config = read_config_override(entry, args.config.as_deref())?;
            let files = match registry::cached_files(entry) {
                Some(files) => files,
                None => {
                    fetch(entry, FetchOptions { offline: args.offline, ..FetchOptions::from_env() }, printer)
                        .or_fail(ExitStatus::Model)?
                }
            };
            open_registry_entry(entry, &files, config)
        }
        Err(_) if is_path => {
            Err(Failure::new(ExitStatus::Model, format!("{}: there is no such checkpoint", model.display())))
        }
        Err(error) => Err(Failure::new(
            ExitStatus::Model,
            format!("{}: there is no such file, and {error}", model.display()),
        )),
    }
}

/// The registry's first model, from the cache or the network.
fn open_default(args: &ModelArgs, printer: Printer) -> CliResult<ModelSource> {
    let entry = registry::default_entry();
    let config = read_config_override(entry, args.config.as_deref())?;
    if let Some(files) = registry::cached_files(entry) {
        return open_registry_entry(entry, &files, config);
    }
    let mut options = FetchOptions { offline: args.offline, ..FetchOptions::from_env() };
    options.timeouts.connect = CONNECT_TIMEOUT;
    options.timeouts.response = 2 * CONNECT_TIMEOUT;
    if !args.offline {
        printer.note(&format!("The default model, {}, is not here yet.", entry.name));
    }
    match fetch(entry, options, printer) {
        Ok(files) => open_registry_entry(entry, &files, config),
        Err(error @ FetchError::Cancelled { .. }) => Err(error).or_fail(ExitStatus::Interrupted),
        // The built-in model is no stand-in: a whole batch of lower quality would carry the same file names.
        Err(error) if has_embedded() => {
            let why = match error {
                FetchError::Offline { .. } => format!("{} is not in the cache, and --offline", entry.name),
                error => error.to_string(),
            };
            Err(Failure::new(
                ExitStatus::Model,
                format!(
                    "{why}; fetch it later with `nullsum-cli models download {}`, or run the small model that is built \
                     in with --model {}",
                    entry.name,
                    embedded::NAME
                ),
            ))
        }
        Err(error) => Err(Failure::new(
            ExitStatus::Model,
            format!(
                "{}; no model is embedded in this build, so there is none to run. Name one with --model",
                format_error(&error.into())
            ),
        )),
    }
}

fn has_embedded() -> bool {
    embedded::checkpoint().is_some()
}

/// Opens the embedded model.
pub fn open_embedded(config: Option<&Path>) -> CliResult<ModelSource> {
    let Some(checkpoint) = embedded::checkpoint() else {
        return Err(Failure::new(
            ExitStatus::Model,
            "no model is embedded in this build (feature `embedded`); name another one with --model, or fetch one: \
             nullsum-cli models",
        ));
    };
    with_sidecar_config(embedded::NAME.into(), checkpoint, None, config, &mut |_| None)
}

/// The YAML that the user names for a registry entry, read before any download. `None` if it is the entry's own, which
/// the reference program ships with its code and which is downloaded here.
fn read_config_override(entry: &RegistryEntry, config: Option<&Path>) -> CliResult<Option<Config>> {
    let other =
        |config: &&Path| config.exists() || config.file_name() != Some(entry.config.file_name().as_ref());
    config.filter(other).map(Config::from_file).transpose().or_fail(ExitStatus::Model)
}

fn open_registry_entry(
    entry: &RegistryEntry,
    files: &ModelFiles,
    config: Option<Config>,
) -> CliResult<ModelSource> {
    let checkpoint = Checkpoint::open(&files.checkpoint).or_fail(ExitStatus::Model)?;
    let config = match config {
        Some(config) => config,
        None => {
            let mut config = Config::from_file(&files.config).or_fail(ExitStatus::Model)?;
            entry.correct(&mut config);
            config
        }
    };
    Ok(ModelSource { name: entry.name.clone(), checkpoint, config })
}

/// Opens a checkpoint file, with `config` or the YAML found for it. `find_yaml` is asked for that of a registry entry.
pub fn open_file(
    path: &Path,
    config: Option<&Path>,
    options: &OpenOptions,
    find_yaml: FindYaml<'_>,
) -> CliResult<ModelSource> {
    let checkpoint = Checkpoint::open_with(path, options).or_fail(ExitStatus::Model)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    with_sidecar_config(name, checkpoint, Some(path), config, find_yaml)
}

/// Opens a file, a cached model of the registry or the embedded model. Never downloads.
pub fn open_local(model: &Path, config: Option<&Path>, weights: Option<String>) -> CliResult<ModelSource> {
    if model == Path::new(embedded::NAME) {
        return open_embedded(config);
    }
    let entry = model.to_str().filter(|_| !model.exists()).and_then(|name| registry::find(name).ok());
    match entry.and_then(|entry| Some((entry, registry::cached_files(entry)?))) {
        Some((entry, files)) => open_registry_entry(entry, &files, read_config_override(entry, config)?),
        None => open_file(model, config, &OpenOptions { weights }, &mut registry::cached_config),
    }
}

fn with_sidecar_config(
    name: String,
    checkpoint: Checkpoint,
    path: Option<&Path>,
    config: Option<&Path>,
    find_yaml: FindYaml<'_>,
) -> CliResult<ModelSource> {
    let config = registry::load_config(&checkpoint, path, config, find_yaml).or_fail(ExitStatus::Model)?;
    Ok(ModelSource { name, checkpoint, config })
}

/// Downloads a model, after announcing it.
pub fn fetch(
    entry: &RegistryEntry,
    options: FetchOptions,
    printer: Printer,
) -> Result<ModelFiles, FetchError> {
    if !options.offline {
        printer.note(&format!("Fetching {}: {}", entry.name, download_description(entry)));
        if let Some(note) = &entry.licence_note {
            printer.note(&format!("  {note}"));
        }
        printer.event(&serde_json::json!({
            "event": "fetch",
            "model": entry.name,
            "bytes": entry.checkpoint.size,
            "source": entry.source,
            "licence": entry.licence,
        }));
    }
    let mut progress = FetchProgress::new(printer, &entry.name);
    registry::fetch(entry, &options, &mut |step| {
        progress.update(step);
        interrupt::stop_flow()
    })
}
