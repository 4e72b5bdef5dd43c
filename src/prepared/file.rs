//! Decodes a song into a temporary recording, at the rate and with the channels of whoever plays it.

use std::io;
use std::path::{Path, PathBuf};

use super::recording::Recording;
use super::store::Store;
use crate::audio::{Decoder, Planar};
use crate::offline::error::OfflineError;
use crate::offline::reader::{FileReader, SongReader};

/// Samples decoded at a time.
const BLOCK: usize = 1 << 15;

/// Why a song's file cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SongFileError {
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] OfflineError),
    /// It has more channels than whoever plays it.
    #[error("{}: {found} channels, expected at most {expected}: this is not the file of that track", path.display())]
    Channels {
        /// The file.
        path: PathBuf,
        /// Its channels.
        found: usize,
        /// Channels of the host.
        expected: usize,
    },
    /// It is too long.
    #[error("{}: longer than the size limit of prepared stems allows; raise the limit", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The temporary file cannot be written.
    #[error("{}: temporary file: {source}", folder.display())]
    Temporary {
        /// Its folder.
        folder: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Decodes the song at `path` to positions from 0 on. `rate` and `channels`: those of the host; none for those of the file. A mono file fills all channels.
///
/// # Errors
/// [`SongFileError`].
pub fn record_file(
    path: &Path,
    rate: Option<u32>,
    channels: Option<usize>,
    store: &Store,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Recording, SongFileError> {
    let rate = match rate {
        Some(rate) => rate,
        None => Decoder::open(path).map_err(OfflineError::from)?.info().sample_rate,
    };
    let mut reader = FileReader::open(path, rate)?;
    let found = reader.channels();
    let expected = channels.unwrap_or(found);
    if found > expected {
        return Err(SongFileError::Channels { path: path.into(), found, expected });
    }
    let failed = |source| SongFileError::Temporary { folder: store.folder().into(), source };
    let mut recording = Recording::new(store.folder(), rate, expected, store.limit()).map_err(failed)?;
    let (mut at, mut block) = (0, Planar::new(found));
    while reader.read(BLOCK, &mut block)? > 0 {
        if is_cancelled() {
            return Err(SongFileError::Cancelled);
        }
        recording.write(at, &block).map_err(failed)?;
        at += block.samples() as i64;
        block.clear();
    }
    if recording.is_full() { Err(SongFileError::TooLong { path: path.into() }) } else { Ok(recording) }
}
