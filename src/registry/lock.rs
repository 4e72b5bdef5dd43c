//! One download of a model at a time, over all processes of this machine.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::FetchError;

/// How often a waiting download looks again, and lets its caller cancel.
const POLL: Duration = Duration::from_millis(50);

/// An exclusive lock on an entry's folder; released when dropped, and by the system when the process dies.
pub(super) struct Lock {
    /// `None` on file systems without locks (some network file systems of clusters).
    file: Option<File>,
}

impl Lock {
    /// Waits for the lock at most `patience`, calling `waiting` at every look.
    pub(super) fn acquire(
        folder: &Path,
        name: &str,
        patience: Duration,
        waiting: &mut dyn FnMut() -> Result<(), FetchError>,
    ) -> Result<Self, FetchError> {
        let path = folder.join(".lock");
        // Never truncated: it has no content, and another process may hold it.
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
            waiting()?;
            if since.elapsed() >= patience {
                return Err(FetchError::Busy { name: name.to_owned(), lock: path });
            }
            thread::sleep(POLL.min(patience));
        }
    }

    /// Whether others are really kept out. If not, partial files need names of their own.
    pub(super) fn is_exclusive(&self) -> bool {
        self.file.is_some()
    }
}
