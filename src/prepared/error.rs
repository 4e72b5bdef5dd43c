//! Errors of the store.

use std::io;
use std::path::{Path, PathBuf};

use super::block::BlockError;

/// Why prepared stems cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No folder is known for the cache.
    #[error("no cache folder is known; set NULLSUM_CACHE to one")]
    NoFolder,
    /// A file of the store cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A file of the store cannot be written.
    #[error("{}: cannot be written: {source}; make room, or allow writing there", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// An index is not one of ours.
    #[error("{}: {what}; erase these prepared stems and prepare again", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// The problem.
        what: String,
    },
    /// A block is damaged.
    #[error("{}: block {number} is damaged: {source}; erase these prepared stems and prepare again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Number of the block.
        number: u64,
        /// The problem.
        source: BlockError,
    },
    /// These stems have not been computed yet.
    #[error("these stems are not prepared yet")]
    NotPrepared,
    /// Another thread or process prepares the same.
    #[error("{}: another instance or program prepares the same stems", path.display())]
    Busy {
        /// The entry.
        path: PathBuf,
    },
    /// Something is in use and cannot be erased.
    #[error("{}: in use; stop playing these stems first", path.display())]
    InUse {
        /// The entry.
        path: PathBuf,
    },
    /// There is no such entry.
    #[error("no prepared stems with the id {id}; the list shows which there are")]
    Unknown {
        /// What was asked for.
        id: String,
    },
    /// The stems would not fit.
    #[error(
        "these stems need about {needed} bytes, and the limit is {limit} bytes; raise the limit or erase other stems"
    )]
    Limit {
        /// Bytes that they need.
        needed: u64,
        /// The limit.
        limit: u64,
    },
}

impl StoreError {
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.into(), source }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.into(), source }
    }

    /// Whether the stems themselves are unusable, so that only preparing them again helps.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Index { .. } | Self::Damaged { .. })
    }
}
