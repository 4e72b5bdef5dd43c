//! Downloads an entry into the cache. Files appear only when they are complete.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::{cache_dir, cached_files_in, complete_file, entry_folder};
use super::fetch_error::FetchError;
use super::http::resolve_url;
use super::lock::FolderLock;
use super::transfer::Transfer;
use super::{ModelFiles, RegistryEntry, RemoteFile};
use crate::atomic_file::AtomicFile;

/// The environment variable that names a mirror: see [`FetchOptions::base_url`].
pub const MIRROR_ENV: &str = "NULLSUM_MIRROR";

/// Largest accepted YAML, far above that of any model.
const CONFIG_LIMIT: u64 = 4 << 20;
/// Largest accepted checkpoint. The largest public one has 6.4 GB; the limit stops an endless response.
const CHECKPOINT_LIMIT: u64 = 64 << 30;

/// Options of a download.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Only use files in the cache. By default this is false.
    pub offline: bool,
    /// The cache folder. By default this is [`cache_dir`].
    pub cache_dir: Option<PathBuf>,
    /// Replaces scheme and host of every URL, for mirrors and tests. For example, with `http://mirror:8080/x`, the file
    /// `https://host/a/b.ckpt` is fetched from `http://mirror:8080/x/a/b.ckpt`.
    pub base_url: Option<String>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// How often an interrupted transfer is resumed within one call. An attempt without new bytes is not retried.
    pub retries: u32,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { offline: false, cache_dir: None, base_url: None, timeouts: Timeouts::default(), retries: 3 }
    }
}

impl FetchOptions {
    /// The defaults, with the mirror named by [`MIRROR_ENV`].
    pub fn from_env() -> Self {
        let base_url = std::env::var(MIRROR_ENV).ok().filter(|v| !v.trim().is_empty());
        Self { base_url, ..Self::default() }
    }
}

/// Time limits. None of them bounds the whole download: a slow connection may continue as long as bytes arrive.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the DNS lookup, and again for the connection with its TLS handshake.
    pub connect: Duration,
    /// For the response headers after the request.
    pub response: Duration,
    /// For the next bytes of a response body. A cancellation takes at most this long.
    pub stall: Duration,
    /// For another process that downloads the same model.
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

/// The two files of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// The YAML.
    Config,
    /// The weights.
    Checkpoint,
}

/// The current step of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadStage {
    /// Waiting for another process that downloads the same model.
    Waiting,
    /// Waiting for the server's response.
    Connecting,
    /// Receiving the file. `done_bytes` includes the part left by an earlier download.
    Downloading,
    /// Hashing the downloaded file.
    Verifying,
}

/// Progress of a download, passed to the callback after every read. The display should be throttled, not the callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress {
    /// The current file.
    pub file: FileKind,
    /// The current step.
    pub stage: DownloadStage,
    /// Bytes of this file received, or hashed.
    pub done_bytes: u64,
    /// Bytes of the whole file, once known.
    pub total_bytes: Option<u64>,
}

/// Downloads the files of an entry that are missing from the cache, and returns their paths.
///
/// An interrupted or cancelled download leaves a partial file, which the next call resumes if the server still has the same
/// file. A file gets its final name only when it is complete, has the published size and SHA-256 where these are known,
/// and is synced to disk. Processes that download the same model wait for each other.
///
/// The callback is called for every step and cancels the download with [`ControlFlow::Break`].
///
/// # Errors
/// See [`FetchError`]; [`FetchError::is_unreachable`] distinguishes a missing network from a broken model.
pub fn fetch(
    entry: &RegistryEntry,
    options: &FetchOptions,
    progress: &mut dyn FnMut(DownloadProgress) -> ControlFlow<()>,
) -> Result<ModelFiles, FetchError> {
    let cache = match &options.cache_dir {
        Some(dir) => dir.clone(),
        None => cache_dir()?,
    };
    if let Some(files) = cached_files_in(&cache, entry) {
        return Ok(files);
    }
    let folder = entry_folder(&cache, entry);
    if options.offline {
        return Err(FetchError::Offline { name: entry.name.clone(), folder });
    }
    fs::create_dir_all(&folder).map_err(|e| FetchError::from_io(&folder, "create", None, e))?;

    let mut notify = |progressed: DownloadProgress| match progress(progressed) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(FetchError::Cancelled { name: entry.name.clone() }),
    };
    let waiting = DownloadProgress {
        file: FileKind::Checkpoint,
        stage: DownloadStage::Waiting,
        done_bytes: 0,
        total_bytes: entry.checkpoint.size,
    };
    let lock = FolderLock::acquire(&folder, &entry.name, options.timeouts.lock, &mut || notify(waiting))?;

    log::info!("downloading {} to {}", entry.name, folder.display());
    // The small file first: if it no longer exists, no time is spent on the large one.
    let config = fetch_file(&entry.config, FileKind::Config, &folder, &lock, options, &mut notify)?;
    let checkpoint =
        fetch_file(&entry.checkpoint, FileKind::Checkpoint, &folder, &lock, options, &mut notify)?;
    log::info!("downloaded {}", entry.name);
    Ok(ModelFiles { checkpoint, config })
}

/// Downloads only the YAML of an entry, for a checkpoint that the user has already. Returns its path in the cache.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_config(
    entry: &RegistryEntry,
    options: &FetchOptions,
    progress: &mut dyn FnMut(DownloadProgress) -> ControlFlow<()>,
) -> Result<PathBuf, FetchError> {
    let cache = match &options.cache_dir {
        Some(dir) => dir.clone(),
        None => cache_dir()?,
    };
    let folder = entry_folder(&cache, entry);
    if let Some(path) = complete_file(&folder, &entry.config) {
        return Ok(path);
    }
    if options.offline {
        return Err(FetchError::Offline { name: entry.name.clone(), folder });
    }
    fs::create_dir_all(&folder).map_err(|e| FetchError::from_io(&folder, "create", None, e))?;
    let mut notify = |progressed: DownloadProgress| match progress(progressed) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(FetchError::Cancelled { name: entry.name.clone() }),
    };
    let waiting = DownloadProgress {
        file: FileKind::Config,
        stage: DownloadStage::Waiting,
        done_bytes: 0,
        total_bytes: entry.config.size,
    };
    let lock = FolderLock::acquire(&folder, &entry.name, options.timeouts.lock, &mut || notify(waiting))?;
    fetch_file(&entry.config, FileKind::Config, &folder, &lock, options, &mut notify)
}

/// Downloads a file from the first of its URLs that has it.
fn fetch_file(
    remote: &RemoteFile,
    kind: FileKind,
    folder: &Path,
    lock: &FolderLock,
    options: &FetchOptions,
    notify: &mut dyn FnMut(DownloadProgress) -> Result<(), FetchError>,
) -> Result<PathBuf, FetchError> {
    let mut first = None;
    for url in remote.urls() {
        match fetch_from(url, remote, kind, folder, lock, options, notify) {
            Err(error) if error.concerns_host() => _ = first.get_or_insert(error),
            done => return done,
        }
    }
    // The error of the author's URL tells most.
    Err(first.unwrap_or_else(|| FetchError::BadUrl { url: remote.url.clone(), reason: "it names no file" }))
}

#[allow(clippy::too_many_arguments, reason = "one step of `fetch_file`, called once")]
fn fetch_from(
    url: &str,
    remote: &RemoteFile,
    kind: FileKind,
    folder: &Path,
    lock: &FolderLock,
    options: &FetchOptions,
    notify: &mut dyn FnMut(DownloadProgress) -> Result<(), FetchError>,
) -> Result<PathBuf, FetchError> {
    // Checked while holding the lock, because its previous holder may have downloaded the file.
    if let Some(path) = complete_file(folder, remote) {
        return Ok(path);
    }
    let url = resolve_url(url, options.base_url.as_deref())?;
    let target = folder.join(remote.file_name());
    // Without working locks, a temporary file that is removed; otherwise a partial file that the next call resumes.
    let mut own = None;
    let part = if lock.is_exclusive() {
        let mut name = target.as_os_str().to_owned();
        name.push(".part");
        PathBuf::from(name)
    } else {
        let temp = AtomicFile::create_beside(&target)
            .map_err(|e| FetchError::from_io(folder, "write in", remote.size, e))?
            .close();
        own.insert(temp).path().to_path_buf()
    };
    let limit = match kind {
        FileKind::Config => CONFIG_LIMIT,
        FileKind::Checkpoint => CHECKPOINT_LIMIT,
    };
    let mut report = |stage, done_bytes, total_bytes| {
        notify(DownloadProgress { file: kind, stage, done_bytes, total_bytes })
    };
    Transfer { url, remote, part, limit, options, notify: &mut report }.run(&target)?;
    Ok(target)
}
