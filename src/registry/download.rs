//! Fetching an entry into the cache: both files, once, whole, or not at all.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::{cache_dir, cached_in, complete, folder_in};
use super::fetch_error::FetchError;
use super::http::transferable;
use super::lock::Lock;
use super::transfer::Transfer;
use super::{Entry, Files, Remote};
use crate::partial;

/// The environment variable that names a mirror: see [`FetchOptions::base_url`].
pub const MIRROR_ENV: &str = "NULLSUM_MIRROR";

/// No YAML of a model comes near this.
const CONFIG_LIMIT: u64 = 4 << 20;
/// The largest public checkpoint has 6.4 GB; this is to stop an endless body, not a large model.
const CHECKPOINT_LIMIT: u64 = 64 << 30;

/// How to fetch. [`FetchOptions::from_env`] is what the command line uses.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Only use what is in the cache.
    pub offline: bool,
    /// Where to keep the files; `None`: [`cache_dir`].
    pub cache_dir: Option<PathBuf>,
    /// Replaces scheme and host of every URL, for mirrors and tests: with `http://mirror:8080/x`, the file
    /// `https://host/a/b.ckpt` is fetched from `http://mirror:8080/x/a/b.ckpt`.
    pub base_url: Option<String>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How often a connection that breaks in the middle of a body is taken up again within one call. Only attempts
    /// that brought new bytes are followed by another.
    pub retries: u32,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { offline: false, cache_dir: None, base_url: None, timeouts: Timeouts::default(), retries: 3 }
    }
}

impl FetchOptions {
    /// The defaults, with the mirror that [`MIRROR_ENV`] names.
    pub fn from_env() -> Self {
        let base_url = std::env::var(MIRROR_ENV).ok().filter(|v| !v.trim().is_empty());
        Self { base_url, ..Self::default() }
    }
}

/// Patience. None of these bounds the whole download: a slow line may take its time as long as bytes come.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the name look-up, and again for the connection with its TLS handshake.
    pub connect: Duration,
    /// For the response headers after the request.
    pub response: Duration,
    /// For the next bytes of a body. A cancellation waits at most this long.
    pub stall: Duration,
    /// For another process that fetches the same model.
    pub lock: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            response: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            lock: Duration::from_secs(3600),
        }
    }
}

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The YAML.
    Config,
    /// The weights.
    Checkpoint,
}

/// What is being done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Another process is fetching this model; waiting for it.
    Waiting,
    /// Asking the server.
    Connecting,
    /// Receiving the body. `done_bytes` starts at what an earlier download left.
    Downloading,
    /// Hashing the file on disk.
    Verifying,
}

/// A moment of a download, given to the callback after every read; throttle the display, not the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which file.
    pub what: What,
    /// What is being done with it.
    pub stage: Stage,
    /// Bytes of this file received, or hashed.
    pub done_bytes: u64,
    /// Bytes of the whole file, once known.
    pub total_bytes: Option<u64>,
}

/// Makes sure that the entry's checkpoint and config are in the cache, fetching what is missing, and returns where.
///
/// A broken or cancelled download leaves its part, which the next call continues (if the server still has the same
/// file). A file gets its final name only when it is whole, has the published size and SHA-256 where these are
/// known, and is synced to disk. Two processes that fetch the same model wait for each other.
///
/// The callback sees every step and stops the download with [`ControlFlow::Break`].
///
/// # Errors
/// See [`FetchError`]; [`FetchError::is_unreachable`] tells a missing network from a broken model.
pub fn fetch(
    entry: &Entry,
    options: &FetchOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Files, FetchError> {
    let cache = match &options.cache_dir {
        Some(dir) => dir.clone(),
        None => cache_dir()?,
    };
    if let Some(files) = cached_in(&cache, entry) {
        return Ok(files);
    }
    let folder = folder_in(&cache, entry);
    if options.offline {
        return Err(FetchError::Offline { name: entry.name.clone(), folder });
    }
    fs::create_dir_all(&folder).map_err(|e| FetchError::from_io(&folder, "create", None, e))?;

    let mut notify = |progressed: Progress| match progress(progressed) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(FetchError::Cancelled { name: entry.name.clone() }),
    };
    let waiting = Progress {
        what: What::Checkpoint,
        stage: Stage::Waiting,
        done_bytes: 0,
        total_bytes: entry.checkpoint.size,
    };
    let lock = Lock::acquire(&folder, &entry.name, options.timeouts.lock, &mut || notify(waiting))?;

    // The small file first: when it is gone, nobody has waited for the large one.
    let config = fetch_file(&entry.config, What::Config, &folder, &lock, options, &mut notify)?;
    let checkpoint = fetch_file(&entry.checkpoint, What::Checkpoint, &folder, &lock, options, &mut notify)?;
    Ok(Files { checkpoint, config })
}

fn fetch_file(
    remote: &Remote,
    what: What,
    folder: &Path,
    lock: &Lock,
    options: &FetchOptions,
    notify: &mut dyn FnMut(Progress) -> Result<(), FetchError>,
) -> Result<PathBuf, FetchError> {
    // Looked at under the lock: whoever held it before may have fetched the file.
    if let Some(path) = complete(folder, remote) {
        return Ok(path);
    }
    let url = transferable(&remote.url, options.base_url.as_deref())?;
    let target = folder.join(remote.file_name());
    // Where locks don't work, a part of one's own that goes away again; else one that the next call continues.
    let mut own = None;
    let part = if lock.is_exclusive() {
        let mut name = target.as_os_str().to_owned();
        name.push(".part");
        PathBuf::from(name)
    } else {
        let temp = partial::beside(&target)
            .map_err(|e| FetchError::from_io(folder, "write in", remote.size, e))?
            .close();
        own.insert(temp).path().to_path_buf()
    };
    let limit = match what {
        What::Config => CONFIG_LIMIT,
        What::Checkpoint => CHECKPOINT_LIMIT,
    };
    let mut report =
        |stage, done_bytes, total_bytes| notify(Progress { what, stage, done_bytes, total_bytes });
    Transfer { url, remote, part, limit, options, notify: &mut report }.run(&target)?;
    Ok(target)
}
