//! Recognises files that the user has chosen, so that they find their YAML.

use std::path::{Path, PathBuf};

use super::{RegistryEntry, entries};
use crate::model::checkpoint::Checkpoint;
use crate::model::config::Config;
use crate::model::sidecar_config::{self, SidecarConfigError};

/// The entry of a checkpoint file: by its name and size, or by its size and SHA-256. Reads the whole file only where its size
/// is that of an entry and its name is not.
pub fn recognise(path: &Path) -> Option<&'static RegistryEntry> {
    let size = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.len();
    if let Some(entry) = recognise_name(path, size) {
        return Some(entry);
    }
    // Fine-tuned models of one author often have one size, so the size alone proves nothing.
    if !entries().iter().any(|entry| entry.checkpoint.size == Some(size) && entry.checkpoint.sha256.is_some())
    {
        return None;
    }
    let file = std::fs::File::open(path).ok()?;
    let hash = crate::hash::sha256_of_reader(file, &mut |_| true).ok()??;
    recognise_content(&hash)
}

/// The entry of a checkpoint with this SHA-256, in lower-case hex.
pub fn recognise_content(sha256: &str) -> Option<&'static RegistryEntry> {
    entries().iter().find(|entry| entry.checkpoint.sha256.as_deref() == Some(sha256))
}

/// The entry whose checkpoint has the name of this file, and this size where its size is known.
fn recognise_name(path: &Path, size: u64) -> Option<&'static RegistryEntry> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    entries().iter().find(|entry| {
        entry.checkpoint.size.is_none_or(|known| known == size)
            && entry.file_names().any(|file| file.to_ascii_lowercase() == name)
    })
}

/// The configuration of a checkpoint: `given`, else the one inside the file or beside it, else that of the entry that the
/// file is recognised as, for which `find_yaml` is asked. Corrects stem names that the YAML of an entry states wrongly.
///
/// # Errors
/// [`SidecarConfigError`].
pub fn load_config(
    checkpoint: &Checkpoint,
    path: Option<&Path>,
    given: Option<&Path>,
    find_yaml: &mut dyn FnMut(&'static RegistryEntry) -> Option<PathBuf>,
) -> Result<Config, SidecarConfigError> {
    let size = path.and_then(|path| std::fs::metadata(path).ok()).map(|about| about.len());
    let named = path.zip(size).and_then(|(path, size)| recognise_name(path, size));
    match (sidecar_config::load(checkpoint, path, given), path) {
        (Ok(mut config), _) => {
            // A YAML of the user's own is right about its names.
            let is_of = |entry: &&RegistryEntry| {
                given.is_none_or(|given| given.file_name() == Some(entry.config.file_name().as_ref()))
            };
            if let Some(entry) = named.filter(is_of) {
                entry.correct(&mut config);
            }
            Ok(config)
        }
        (Err(SidecarConfigError::Missing { checkpoint, beside, found }), Some(path)) => {
            let Some(entry) = named.or_else(|| recognise(path)) else {
                return Err(SidecarConfigError::Missing { checkpoint, beside, found });
            };
            match find_yaml(entry) {
                Some(yaml) => {
                    let mut config = Config::from_file(&yaml)?;
                    entry.correct(&mut config);
                    Ok(config)
                }
                None => {
                    let (name, url) = (&entry.name, &entry.config.url);
                    let found = format!("{found} (the file is `{name}` of the registry; its YAML is {url})");
                    Err(SidecarConfigError::Missing { checkpoint, beside, found })
                }
            }
        }
        (Err(error), _) => Err(error),
    }
}
