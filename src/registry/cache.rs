//! The cache of downloaded models: `<cache>/<entry>/<file>`, and beside each file a record of its download.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{RegistryEntry, RegistryError, RemoteFile};

/// The environment variable that sets the cache folder.
pub const CACHE_ENV: &str = "NULLSUM_CACHE";

/// Paths of a downloaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// The weights.
    pub checkpoint: PathBuf,
    /// The YAML configuration.
    pub config: PathBuf,
}

/// The folder for downloaded models: `NULLSUM_CACHE`, else `models` in the platform's cache folder of this program.
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

/// The folder of one entry in `cache`.
pub fn entry_folder(cache: &Path, entry: &RegistryEntry) -> PathBuf {
    // Registry names are safe; names of other entries may not be.
    let name: String = entry
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' })
        .collect();
    cache.join(if name.is_empty() { "_".to_owned() } else { name })
}

/// The entry's files, when both are in the cache and complete. Sizes are checked, contents are not.
pub fn cached_files(entry: &RegistryEntry) -> Option<ModelFiles> {
    cached_files_in(&cache_dir().ok()?, entry)
}

/// The YAML of an entry, when it is in the cache.
pub fn cached_config(entry: &RegistryEntry) -> Option<PathBuf> {
    complete_file(&entry_folder(&cache_dir().ok()?, entry), &entry.config)
}

/// As [`cached_files`], in the given cache folder.
pub fn cached_files_in(cache: &Path, entry: &RegistryEntry) -> Option<ModelFiles> {
    let folder = entry_folder(cache, entry);
    Some(ModelFiles {
        checkpoint: complete_file(&folder, &entry.checkpoint)?,
        config: complete_file(&folder, &entry.config)?,
    })
}

/// The path of a file that exists with the size stated in the registry or the download record.
pub(super) fn complete_file(folder: &Path, remote: &RemoteFile) -> Option<PathBuf> {
    let path = folder.join(remote.file_name());
    let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let size = remote.size.or_else(|| FetchRecord::beside(&path).map(|r| r.size));
    // Without a stated size, the atomic rename guarantees completeness; an empty file is never a model.
    let fits = size.map_or(meta.len() > 0, |size| size == meta.len());
    fits.then_some(path)
}

/// Record of a download, stored as JSON beside a file (`model.ckpt.fetched.json`), and beside a partial file for resuming.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FetchRecord {
    pub(super) url: String,
    /// Size of the complete file; 0 while unknown.
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

impl FetchRecord {
    /// The record beside `path`. A missing, damaged or oversized record counts as none.
    pub(super) fn beside(path: &Path) -> Option<Self> {
        let mut text = String::new();
        File::open(Self::path(path)).ok()?.take(64 * 1024).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Value for an `If-Range` header: a strong entity tag, else the date.
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

    /// Writes the record atomically.
    #[cfg(feature = "download")]
    pub(super) fn write_beside(&self, path: &Path) -> std::io::Result<()> {
        let target = Self::path(path);
        let mut temp = crate::atomic_file::AtomicFile::create_beside(&target)?;
        serde_json::to_writer_pretty(&mut temp, self)?;
        temp.publish(&target)
    }
}

/// The SHA-256 computed when the file was downloaded; `None` if the file was modified since.
#[cfg(feature = "plugin")]
pub(crate) fn recorded_sha256(path: &Path) -> Option<String> {
    let record = FetchRecord::beside(path)?;
    let (file, beside) = (fs::metadata(path).ok()?, fs::metadata(FetchRecord::path(path)).ok()?);
    let complete = record.sha256.len() == 64 && record.size == file.len();
    let unmodified = file.modified().ok()? <= beside.modified().ok()?;
    (complete && unmodified).then_some(record.sha256)
}
