//! Errors of offline separation.

use crate::audio::AudioError;
use crate::separator::SeparateError;

/// An error of offline separation.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The input cannot be read or an output not written.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The network failed.
    #[error(transparent)]
    Separate(#[from] SeparateError),
    /// A temporary file for intermediate results could not be read or written.
    #[error("temporary file in {folder}: {source}; set TMPDIR to a folder with more space")]
    Spool {
        /// Folder of temporary files.
        folder: String,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The input contains non-finite samples and the caller refuses them.
    #[error("{input}: {count} samples are NaN or infinite; clean the file, or allow them to be set to 0")]
    NonFinite {
        /// The input.
        input: String,
        /// How many.
        count: u64,
    },
    /// The model has no such stem.
    #[error("the model has no stem `{name}`; it has {known}")]
    UnknownStem {
        /// The requested name.
        name: String,
        /// The names of the model's stems.
        known: String,
    },
    /// Invalid options.
    #[error("{what}")]
    Options {
        /// The problem, and valid values.
        what: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}
