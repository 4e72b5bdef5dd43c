//! Where fetched models lie: `<cache>/<entry>/<file>`, and beside each file a small record of what was fetched.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Entry, RegistryError, Remote};

/// The environment variable that moves the cache.
pub const CACHE_ENV: &str = "NULLSUM_CACHE";

/// A model on this disk: what the loader needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The weights.
    pub checkpoint: PathBuf,
    /// Their YAML.
    pub config: PathBuf,
}

/// The folder for fetched models: `NULLSUM_CACHE`, or `models` in the platform's cache folder for this program.
///
/// # Errors
/// [`RegistryError::NoCacheDir`] when the variable is unset and no home directory is known.
pub fn cache_dir() -> Result<PathBuf, RegistryError> {
    if let Some(dir) = std::env::var_os(CACHE_ENV).filter(|v| !v.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    directories::ProjectDirs::from("", "", "nullsum")
        .map(|dirs| dirs.cache_dir().join("models"))
        .ok_or(RegistryError::NoCacheDir)
}

/// The folder of one entry below `cache`.
pub fn folder_in(cache: &Path, entry: &Entry) -> PathBuf {
    // Names in the registry need no cleaning; an entry from elsewhere might.
    let name: String = entry
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' })
        .collect();
    cache.join(if name.is_empty() { "_".to_owned() } else { name })
}

/// The entry's files when both are in the cache, complete. Their sizes are compared, their contents are not.
pub fn cached(entry: &Entry) -> Option<Files> {
    cached_in(&cache_dir().ok()?, entry)
}

/// As [`cached`], in the given cache folder.
pub fn cached_in(cache: &Path, entry: &Entry) -> Option<Files> {
    let folder = folder_in(cache, entry);
    Some(Files {
        checkpoint: complete(&folder, &entry.checkpoint)?,
        config: complete(&folder, &entry.config)?,
    })
}

/// The file's path when it is there with the size that the registry or the record states.
pub(super) fn complete(folder: &Path, remote: &Remote) -> Option<PathBuf> {
    let path = folder.join(remote.file_name());
    let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let size = remote.size.or_else(|| Record::beside(&path).map(|r| r.size));
    // Without either, the atomic rename vouches for completeness; an empty file is never a model.
    let fits = size.map_or(meta.len() > 0, |size| size == meta.len());
    fits.then_some(path)
}

/// What was fetched, kept as JSON beside a file (`model.ckpt.fetched.json`), and beside a partial one for resuming.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) url: String,
    /// Of the whole file; 0 while unknown.
    #[serde(default)]
    pub(super) size: u64,
    /// Empty until the file is complete.
    #[serde(default)]
    pub(super) sha256: String,
    #[serde(default)]
    pub(super) etag: Option<String>,
    #[serde(default)]
    pub(super) last_modified: Option<String>,
}

impl Record {
    /// The record beside `path`. A missing, damaged or oversized one is as good as none: it only ever adds knowledge.
    pub(super) fn beside(path: &Path) -> Option<Self> {
        let mut text = String::new();
        File::open(Self::path(path)).ok()?.take(64 * 1024).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// What an `If-Range` header takes: a strong entity tag, else the date.
    #[cfg(feature = "download")]
    pub(super) fn validator(&self) -> Option<&str> {
        let etag = self.etag.as_deref().filter(|tag| !tag.starts_with("W/"));
        etag.or(self.last_modified.as_deref())
    }

    /// `path` + `.fetched.json`.
    pub(super) fn path(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".fetched.json");
        PathBuf::from(name)
    }

    /// Writes it whole or not at all.
    #[cfg(feature = "download")]
    pub(super) fn write_beside(&self, path: &Path) -> std::io::Result<()> {
        let target = Self::path(path);
        let mut temp = crate::partial::beside(&target)?;
        serde_json::to_writer_pretty(&mut temp, self)?;
        temp.publish(&target)
    }
}

/// What a fetched file was hashed to when it was fetched, unless it was written to since.
#[cfg(feature = "plugin")]
pub(crate) fn recorded_sha256(path: &Path) -> Option<String> {
    let record = Record::beside(path)?;
    let (file, beside) = (fs::metadata(path).ok()?, fs::metadata(Record::path(path)).ok()?);
    let whole = record.sha256.len() == 64 && record.size == file.len();
    let untouched = file.modified().ok()? <= beside.modified().ok()?;
    (whole && untouched).then_some(record.sha256)
}
