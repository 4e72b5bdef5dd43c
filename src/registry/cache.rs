//! Where fetched models lie: `<cache>/<entry>/<file>`, and beside each file a small record of what was fetched.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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

/// What [`verify`] found out about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Same SHA-256 as the registry states.
    Published,
    /// The registry states none; same SHA-256 as on the day it was fetched.
    AsFetched,
    /// Neither the registry nor the cache knows its SHA-256.
    Unknown {
        /// What it is.
        found: String,
    },
    /// The file changed or was damaged.
    Differs {
        /// What was stated or recorded.
        expected: String,
        /// What it is.
        found: String,
    },
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

/// The entry's files when both are in the cache, complete. Their sizes are compared, their contents are not: see
/// [`verify`].
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

/// Hashes the cached checkpoint and config (a second or so a gigabyte) and compares them with what is known.
///
/// # Errors
/// When a file cannot be read.
pub fn verify(entry: &Entry, files: &Files) -> Result<[(PathBuf, Verdict); 2], RegistryError> {
    let judge = |path: &Path, remote: &Remote| {
        let unreadable = |source| RegistryError::Unreadable { path: path.to_owned(), source };
        let found = File::open(path).and_then(|f| sha256_of(f, &mut |_| true)).map_err(unreadable)?;
        let found = found.unwrap_or_default();
        let recorded = Record::beside(path).map(|r| r.sha256);
        Ok(match (remote.sha256.clone(), recorded) {
            (Some(stated), _) if stated.eq_ignore_ascii_case(&found) => Verdict::Published,
            (None, Some(recorded)) if recorded == found => Verdict::AsFetched,
            (Some(expected), _) | (None, Some(expected)) => Verdict::Differs { expected, found },
            (None, None) => Verdict::Unknown { found },
        })
    };
    Ok([
        (files.checkpoint.clone(), judge(&files.checkpoint, &entry.checkpoint)?),
        (files.config.clone(), judge(&files.config, &entry.config)?),
    ])
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
    pub(super) fn write_beside(&self, path: &Path) -> io::Result<()> {
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

/// SHA-256 as lower-case hex. `tick` gets the bytes read so far and may stop it, which gives `None`.
pub(crate) fn sha256_of(mut file: File, tick: &mut dyn FnMut(u64) -> bool) -> io::Result<Option<String>> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                done += n as u64;
                if !tick(done) {
                    return Ok(None);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let digest = hasher.finalize();
    let mut hex = String::with_capacity(64);
    for byte in digest {
        hex.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        hex.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    Ok(Some(hex))
}
