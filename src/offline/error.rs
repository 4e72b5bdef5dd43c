//! What can go wrong while a song is separated.

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
    /// The temporary file that holds intermediate results failed.
    #[error("temporary file in {folder}: {source}; set TMPDIR to a folder with more space")]
    Spool {
        /// Folder of temporary files.
        folder: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The input holds values that are not finite, and the caller wants none.
    #[error("{input}: {count} samples are NaN or infinite; clean the file, or allow them to be set to 0")]
    NonFinite {
        /// The input.
        input: String,
        /// How many.
        count: u64,
    },
    /// A stem that the model does not have.
    #[error("the model has no stem `{name}`; it has {known}")]
    UnknownStem {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An option that cannot be.
    #[error("{what}")]
    Options {
        /// What is wrong, and what would be right.
        what: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}
