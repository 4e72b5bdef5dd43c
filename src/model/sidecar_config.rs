//! Finding the YAML configuration of a checkpoint: inside the file or beside it.

use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::config::{Config, ConfigError};

/// Why no configuration was found for a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum SidecarConfigError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No configuration exists.
    #[error(
        "{checkpoint}: no configuration found: none inside the file, no {beside} (or .yml) beside it, and {found}; pass the \
         YAML that came with the checkpoint"
    )]
    Missing {
        /// The checkpoint.
        checkpoint: String,
        /// The path searched first.
        beside: String,
        /// The other YAML files of the folder, in words.
        found: String,
    },
}

/// Loads the configuration of `checkpoint`: `given`, else the one inside the file, else the one that [`find_beside`] finds
/// for `path`, else one made of the hyperparameters in the file (GGUF).
///
/// # Errors
/// [`SidecarConfigError`].
pub fn load(
    checkpoint: &Checkpoint,
    path: Option<&Path>,
    given: Option<&Path>,
) -> Result<Config, SidecarConfigError> {
    match (given, checkpoint.config_yaml(), path) {
        (Some(given), _, _) => Ok(Config::from_file(given)?),
        (None, Some(yaml), _) => {
            Ok(Config::from_yaml(yaml, &format!("{} (embedded configuration)", checkpoint.origin()))?)
        }
        (None, None, Some(path)) => match (find_beside(path), checkpoint.derived_config_yaml()) {
            (Ok(beside), _) => Ok(Config::from_file(&beside)?),
            (Err(_), Some(yaml)) => Ok(derived(checkpoint, yaml)?),
            (Err(error), None) => Err(error),
        },
        (None, None, None) => match checkpoint.derived_config_yaml() {
            Some(yaml) => Ok(derived(checkpoint, yaml)?),
            None => Err(missing(Path::new(checkpoint.origin()), "it is not a file on disk".into())),
        },
    }
}

fn derived(checkpoint: &Checkpoint, yaml: &str) -> Result<Config, ConfigError> {
    Config::from_yaml(yaml, &format!("{} (hyperparameters of the file)", checkpoint.origin()))
}

/// The YAML of a checkpoint file: the one with the same name beside it, or the only one in its folder.
///
/// # Errors
/// [`SidecarConfigError::Missing`].
pub fn find_beside(checkpoint: &Path) -> Result<PathBuf, SidecarConfigError> {
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
        [] => Err(missing(checkpoint, "its folder holds no other YAML".into())),
        [first, ..] => Err(missing(
            checkpoint,
            format!("its folder holds {} others ({}, …)", others.len(), first.display()),
        )),
    }
}

fn missing(checkpoint: &Path, found: String) -> SidecarConfigError {
    SidecarConfigError::Missing {
        checkpoint: checkpoint.display().to_string(),
        beside: checkpoint.with_extension("yaml").display().to_string(),
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_name_wins_over_only_yaml_and_error_names_searched_paths() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let checkpoint = at("a.ckpt");
        let error = find_beside(&checkpoint).unwrap_err().to_string();
        assert!(error.contains("a.yaml") && error.contains("pass the YAML"), "{error}");
        std::fs::write(at("x.yml"), "").unwrap();
        assert_eq!(find_beside(&checkpoint).unwrap(), at("x.yml"));
        std::fs::write(at("y.yaml"), "").unwrap();
        assert!(find_beside(&checkpoint).unwrap_err().to_string().contains("2 others"));
        std::fs::write(at("a.yml"), "").unwrap();
        assert_eq!(find_beside(&checkpoint).unwrap(), at("a.yml"));
    }
}
