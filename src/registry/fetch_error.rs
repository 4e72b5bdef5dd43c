//! Errors of downloads.

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
    /// The model is not in the cache, and downloads are disabled.
    #[error(
        "{name} is not in the cache, and downloads are disabled; allow downloads, or copy its checkpoint and \
         configuration to {}", folder.display()
    )]
    Offline {
        /// The entry.
        name: String,
        /// The folder for its files.
        folder: PathBuf,
    },
    /// The progress callback cancelled the download.
    #[error(
        "the download of {name} was cancelled; the partial file is kept, and the next download resumes it"
    )]
    Cancelled {
        /// The entry.
        name: String,
    },
    /// Another process is downloading the same model and did not finish in time.
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
        /// Why it is invalid.
        reason: &'static str,
    },
    /// The connection failed.
    #[error("cannot reach {url}: {reason}; check the network (HTTPS_PROXY and SSL_CERT_FILE are respected)")]
    Unreachable {
        /// The URL.
        url: String,
        /// The network error.
        reason: String,
    },
    /// The server did not respond in time.
    #[error("no answer from {url} within {seconds} s ({phase}); try again later")]
    Timeout {
        /// The URL.
        url: String,
        /// The step that timed out.
        phase: &'static str,
        /// The time limit.
        seconds: f64,
    },
    /// The server returned an HTTP error.
    #[error("{url} answered with HTTP status {status}: {advice}")]
    Status {
        /// The URL of the registry.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The likely cause, and what to do.
        advice: &'static str,
    },
    /// The server redirects too often.
    #[error("{url} redirects more than {limit} times; report this link as broken")]
    TooManyRedirects {
        /// The URL.
        url: String,
        /// Number of redirects followed.
        limit: u32,
    },
    /// The transfer stalled.
    #[error(
        "{url} sent nothing for {seconds} s after {} bytes; the partial file is kept, and the next download resumes it",
        got
    )]
    Stalled {
        /// The URL.
        url: String,
        /// Bytes on disk.
        got: u64,
        /// Time without data.
        seconds: f64,
    },
    /// The connection closed early.
    #[error(
        "{url} closed the connection after {got} of {} bytes; the partial file is kept, and the next download resumes it",
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
    /// The size differs from the published one.
    #[error(
        "{url} has {found} bytes, but the published size is {expected}; the file was replaced or altered, and nothing was \
         kept. If it was replaced on purpose, download it manually and open the file"
    )]
    WrongSize {
        /// The URL.
        url: String,
        /// Bytes published.
        expected: u64,
        /// Bytes found (at least).
        found: u64,
    },
    /// The SHA-256 differs from the published one.
    #[error(
        "{url} has SHA-256 {found}, but the published one is {expected}; the file was replaced or altered, and nothing was \
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
    /// The server sent something that is not a model.
    #[error("{url} returned {what} instead of the file; {advice}")]
    NotAModel {
        /// The URL.
        url: String,
        /// A description of the content.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The file exceeds the size limit.
    #[error("{url} is larger than the limit of {}; it was not downloaded", human_size(*limit))]
    TooLarge {
        /// The URL.
        url: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The disk is full.
    #[error(
        "the disk of {} is full{}; free some space, or set NULLSUM_CACHE to a folder on another disk. The partial file is kept",
        path.display(),
        needed.map_or_else(String::new, |n| format!(" ({} needed)", human_size(n)))
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Size of the complete file, if known.
        needed: Option<u64>,
    },
    /// A file or folder of the cache cannot be used.
    #[error("cannot {action} {}: {source}; check its permissions, or set NULLSUM_CACHE to another folder", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The operation that failed.
        action: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
}

impl FetchError {
    /// Whether the network or the host is unavailable, so that a caller may fall back to a cached model.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Offline { .. } | Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// Whether another host may have the file: this one is unavailable, or has no or another file.
    pub(super) fn concerns_host(&self) -> bool {
        self.is_unreachable()
            || matches!(
                self,
                Self::Status { .. }
                    | Self::TooManyRedirects { .. }
                    | Self::Stalled { .. }
                    | Self::Truncated { .. }
                    | Self::WrongSize { .. }
                    | Self::WrongHash { .. }
                    | Self::NotAModel { .. }
            )
    }

    /// Whether the connection broke during the transfer, so that an immediate retry is sensible.
    pub(super) fn is_interruption(&self) -> bool {
        matches!(self, Self::Stalled { .. } | Self::Truncated { .. })
    }

    /// Classifies a file system error.
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
            404 | 410 => "the file no longer exists there; look for it on the model's page",
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
    fn full_disk_error_states_needed_size() {
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
    fn only_network_errors_count_as_unreachable() {
        assert!(FetchError::status("u", 503).is_unreachable());
        assert!(!FetchError::status("u", 404).is_unreachable());
        let wrong = FetchError::WrongSize { url: "u".into(), expected: 1, found: 2 };
        assert!(!wrong.is_unreachable());
    }
}
