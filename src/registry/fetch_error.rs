//! Why a model could not be fetched, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::{RegistryError, human_size};

/// Why a download failed. Every message names the URL or the file and the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The cache folder is unknown.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The model is not in the cache, and downloads are switched off.
    #[error(
        "{name} is not in the cache, and downloads are switched off; allow them once, or put its checkpoint and \
         config into {}", folder.display()
    )]
    Offline {
        /// The entry.
        name: String,
        /// Where its files belong.
        folder: PathBuf,
    },
    /// The progress callback asked to stop.
    #[error(
        "the download of {name} was cancelled; the part that arrived is kept, the next download continues it"
    )]
    Cancelled {
        /// The entry.
        name: String,
    },
    /// Another process is fetching the same model and did not finish in time.
    #[error("another download of {name} is running (lock {}); wait for it to end, then try again", lock.display())]
    Busy {
        /// The entry.
        name: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// The URL cannot be used.
    #[error("cannot fetch {url:?}: {reason}")]
    BadUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No connection came about.
    #[error("cannot reach {url}: {reason}; check the network (HTTPS_PROXY and SSL_CERT_FILE are respected)")]
    Unreachable {
        /// The URL.
        url: String,
        /// The reason from below.
        reason: String,
    },
    /// Nothing answered in time.
    #[error("no answer from {url} within {seconds} s ({phase}); try again later")]
    Timeout {
        /// The URL.
        url: String,
        /// What was waited for.
        phase: &'static str,
        /// For how long.
        seconds: f64,
    },
    /// The server refused.
    #[error("{url} answered with HTTP status {status}: {advice}")]
    Status {
        /// The URL of the registry.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it means here and what to do.
        advice: &'static str,
    },
    /// Redirects without end.
    #[error("{url} redirects more than {limit} times; report this link as broken")]
    TooManyRedirects {
        /// The URL.
        url: String,
        /// How many were followed.
        limit: u32,
    },
    /// The body stopped coming.
    #[error(
        "{url} sent nothing for {seconds} s after {} bytes; they are kept, the next download continues there",
        got
    )]
    Stalled {
        /// The URL.
        url: String,
        /// Bytes on disk.
        got: u64,
        /// How long nothing came.
        seconds: f64,
    },
    /// The body ended early.
    #[error(
        "{url} broke off after {got} of {} bytes; they are kept, the next download continues there",
        expected.map_or_else(|| "an unknown number of".to_owned(), |n| n.to_string())
    )]
    Truncated {
        /// The URL.
        url: String,
        /// Bytes on disk.
        got: u64,
        /// Bytes announced.
        expected: Option<u64>,
    },
    /// The server offers a file of another size than the published one.
    #[error(
        "{url} has {found} bytes where {expected} were published; the file was replaced or altered, and nothing was \
         kept. If it was replaced on purpose, download it by hand and pass its path"
    )]
    WrongSize {
        /// The URL.
        url: String,
        /// Bytes published.
        expected: u64,
        /// Bytes offered (at least).
        found: u64,
    },
    /// The content is not the published one.
    #[error(
        "{url} has SHA-256 {found} where {expected} was published; the file was replaced or altered, and nothing was \
         kept. Try again; if it repeats, do not use this file"
    )]
    WrongHash {
        /// The URL.
        url: String,
        /// Published.
        expected: String,
        /// Found.
        found: String,
    },
    /// Something else than a model file came.
    #[error("{url} gave {what} instead of the file; {advice}")]
    NotAModel {
        /// The URL.
        url: String,
        /// What came.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The file is larger than any model.
    #[error("{url} is larger than {}; not fetched", human_size(*limit))]
    TooLarge {
        /// The URL.
        url: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// No room left.
    #[error(
        "the disk of {} is full{}; make room, or set NULLSUM_CACHE to a folder on another disk. What arrived is kept",
        path.display(),
        needed.map_or_else(String::new, |n| format!(" ({} needed)", human_size(n)))
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Bytes of the whole file, if known.
        needed: Option<u64>,
    },
    /// The cache folder or a file in it cannot be used.
    #[error("cannot {action} {}: {source}; check its permissions, or set NULLSUM_CACHE to another folder", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
}

impl FetchError {
    /// Whether there is no network, rather than something wrong with this model: a caller may fall back to a model
    /// that it has.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Offline { .. } | Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// Whether the connection broke in the middle of a body, so that going on from there makes sense at once.
    pub(super) fn is_interruption(&self) -> bool {
        matches!(self, Self::Stalled { .. } | Self::Truncated { .. })
    }

    /// Sorts an error of the file system.
    pub(super) fn from_io(path: &Path, action: &'static str, needed: Option<u64>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), needed }
            }
            _ => Self::Cache { path: path.to_owned(), action, source },
        }
    }

    pub(super) fn status(url: &str, status: u16) -> Self {
        let advice = match status {
            401 | 403 => {
                "the host refuses access; the file may have been made private, or your network blocks it"
            }
            404 | 410 => "the file is gone from there; look for it on the model's page and pass its path",
            407 => "your proxy asks for a password; put it into HTTPS_PROXY",
            429 => "too many downloads from your address; try again in a while",
            451 => "the host withholds the file for legal reasons",
            500.. => "the host has a problem; try again later",
            _ => "the host did not send the file",
        };
        Self::Status { url: url.to_owned(), status, advice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_and_says_how_much_is_needed() {
        let e = FetchError::from_io(
            Path::new("/c/m.ckpt.part"),
            "write",
            Some(527_385_512),
            io::Error::from(io::ErrorKind::StorageFull),
        );
        assert!(matches!(e, FetchError::DiskFull { .. }));
        let text = e.to_string();
        assert!(
            text.contains("/c/m.ckpt.part is full") || text.contains("is full (527 MB needed)"),
            "{text}"
        );
        let e = FetchError::from_io(
            Path::new("x"),
            "write",
            None,
            io::Error::from(io::ErrorKind::PermissionDenied),
        );
        assert!(e.to_string().starts_with("cannot write x: "), "{e}");
    }

    #[test]
    fn only_network_trouble_counts_as_unreachable() {
        assert!(FetchError::status("u", 503).is_unreachable());
        assert!(!FetchError::status("u", 404).is_unreachable());
        let wrong = FetchError::WrongSize { url: "u".into(), expected: 1, found: 2 };
        assert!(!wrong.is_unreachable());
    }
}
