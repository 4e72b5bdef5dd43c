//! What can go wrong while training.

use std::path::Path;

use crate::audio::AudioError;
use crate::model::architecture::ArchitectureError;
use crate::model::checkpoint::CheckpointError;
use crate::model::config::ConfigError;

/// Why training cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The YAML cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// YAML and tensors describe no network.
    #[error("{origin}: {source}")]
    Architecture {
        /// The checkpoint or the YAML.
        origin: String,
        /// What is wrong.
        source: ArchitectureError,
    },
    /// A tensor of the wrong shape.
    #[error("{what}: expected shape {expected}, found {found}")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// The shape that the model takes.
        expected: String,
        /// The shape given.
        found: String,
    },
    /// A value that is NaN or infinite.
    #[error("{what}: value {at} is {value}, expected a finite number")]
    NotFinite {
        /// Which tensor.
        what: String,
        /// Index of the first such value in the flattened tensor.
        at: usize,
        /// The value.
        value: f32,
    },
    /// A setting outside its range.
    #[error("{setting}: expected {expected}, found {found}")]
    Setting {
        /// Name of the setting.
        setting: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A folder or file of training data that cannot be used.
    #[error("{path}: {reason}")]
    Data {
        /// The folder or file.
        path: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// An audio file that cannot be read.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// A file that cannot be read or written.
    #[error("{file}: {action}: {source}")]
    Io {
        /// Path of the file.
        file: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A state file that does not continue this run.
    #[error("{file}: {reason}")]
    State {
        /// Path of the file.
        file: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The network or its gradient failed on its device.
    #[error("the network failed: {0}")]
    Network(#[from] candle_core::Error),
}

impl TrainError {
    /// An [`Io`](Self::Io) error of `path`, for `map_err`.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let file = path.display().to_string();
        move |source| Self::Io { file, action, source }
    }

    /// A [`Data`](Self::Data) error of `path`.
    pub(super) fn data(path: &Path, reason: impl Into<String>) -> Self {
        Self::Data { path: path.display().to_string(), reason: reason.into() }
    }

    /// A [`Setting`](Self::Setting) error.
    pub(super) fn setting(setting: &str, expected: impl Into<String>, found: impl std::fmt::Display) -> Self {
        Self::Setting { setting: setting.into(), expected: expected.into(), found: found.to_string() }
    }
}
