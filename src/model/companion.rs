//! The YAML that belongs to a checkpoint.

use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::config::{Config, ConfigError};

/// Why a checkpoint has no configuration.
#[derive(Debug, thiserror::Error)]
pub enum CompanionError {
    /// There is one, and it is broken.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is none.
    #[error(
        "{checkpoint}: no configuration: none inside the file, no {beside} or .yml beside it, and {found}; give the YAML that \
         came with the checkpoint"
    )]
    Missing {
        /// The checkpoint.
        checkpoint: String,
        /// Where the YAML was looked for first.
        beside: String,
        /// What else there is.
        found: String,
    },
}

/// The configuration of `checkpoint`: `given`, else the one inside it, else the one that [`find`] finds for `path`.
///
/// # Errors
/// [`CompanionError`].
pub fn config_of(
    checkpoint: &Checkpoint,
    path: Option<&Path>,
    given: Option<&Path>,
) -> Result<Config, CompanionError> {
    match (given, checkpoint.config_yaml(), path) {
        (Some(given), _, _) => Ok(Config::from_file(given)?),
        (None, Some(yaml), _) => {
            Ok(Config::from_yaml(yaml, &format!("{} (embedded configuration)", checkpoint.origin()))?)
        }
        (None, None, Some(path)) => Ok(Config::from_file(&find(path)?)?),
        (None, None, None) => Err(missing(Path::new(checkpoint.origin()), "it is no file".into())),
    }
}

/// The YAML of a checkpoint file: the one of its name beside it, or the only one in its folder.
///
/// # Errors
/// [`CompanionError::Missing`].
pub fn find(checkpoint: &Path) -> Result<PathBuf, CompanionError> {
    let beside = ["yaml", "yml"].map(|extension| checkpoint.with_extension(extension));
    if let Some(path) = beside.iter().find(|path| path.is_file()) {
        return Ok(path.clone());
    }
    let folder =
        checkpoint.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_yaml = |path: &PathBuf| {
        path.is_file()
            && path
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"))
    };
    let mut others: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).filter(is_yaml).collect())
        .unwrap_or_default();
    others.sort();
    match others.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(missing(checkpoint, "no other YAML is in its folder".into())),
        [first, ..] => Err(missing(
            checkpoint,
            format!("{} others are in its folder ({}, …)", others.len(), first.display()),
        )),
    }
}

fn missing(checkpoint: &Path, found: String) -> CompanionError {
    CompanionError::Missing {
        checkpoint: checkpoint.display().to_string(),
        beside: checkpoint.with_extension("yaml").display().to_string(),
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yaml_of_the_same_name_wins_then_the_only_one_and_else_all_places_are_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let checkpoint = at("a.ckpt");
        let error = find(&checkpoint).unwrap_err().to_string();
        assert!(error.contains("a.yaml") && error.contains("give the YAML"), "{error}");
        std::fs::write(at("x.yml"), "").unwrap();
        assert_eq!(find(&checkpoint).unwrap(), at("x.yml"));
        std::fs::write(at("y.yaml"), "").unwrap();
        assert!(find(&checkpoint).unwrap_err().to_string().contains("2 others"));
        std::fs::write(at("a.yml"), "").unwrap();
        assert_eq!(find(&checkpoint).unwrap(), at("a.yml"));
    }
}
