//! A lock that allows one download of a model at a time, across processes.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::FetchError;

/// Interval at which a waiting download retries and can be cancelled.
const POLL: Duration = Duration::from_millis(50);

/// An exclusive lock on an entry's folder. Released when dropped, and by the system when the process ends.
pub(super) struct FolderLock {
    /// `None` on file systems without locks (some network file systems).
    file: Option<File>,
}

impl FolderLock {
    /// Waits for the lock for at most `timeout`, calling `on_wait` before each retry.
    pub(super) fn acquire(
        folder: &Path,
        name: &str,
        timeout: Duration,
        on_wait: &mut dyn FnMut() -> Result<(), FetchError>,
    ) -> Result<Self, FetchError> {
        let path = folder.join(".lock");
        // Not truncated, because another process may hold it.
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| FetchError::from_io(&path, "write", None, e))?;
        let since = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file: Some(file) }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(_)) => return Ok(Self { file: None }),
            }
            on_wait()?;
            if since.elapsed() >= timeout {
                return Err(FetchError::Busy { name: name.to_owned(), lock: path });
            }
            thread::sleep(POLL.min(timeout));
        }
    }

    /// Whether the lock works. If not, partial files need unique names.
    pub(super) fn is_exclusive(&self) -> bool {
        self.file.is_some()
    }
}
