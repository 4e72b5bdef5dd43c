//! The folder of all prepared stems: a list, a size limit, and an eraser.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::entry::{Entry, EntryWriter, Index, NewEntry, UseLock};
use super::error::StoreError;
use super::key::is_id;
use crate::atomic_file::AtomicFile;

/// Size limit where none was set: 10 GB.
pub const DEFAULT_LIMIT: u64 = 10_000_000_000;
/// Name of the store in the cache folder.
const FOLDER: &str = "prepared";
const SETTINGS: &str = "settings.json";
/// Folders being erased have names that begin so.
const ERASED: &str = ".erased-";

/// The store. Cheap to clone; several may use one folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct StoreSettings {
    limit_bytes: u64,
}

/// An entry as the list shows it.
#[derive(Debug)]
pub struct Listed {
    /// Name of the entry.
    pub id: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// When it was last opened.
    pub last_use: SystemTime,
    /// What it holds, or why that is unknown.
    pub index: Result<Index, StoreError>,
}

impl Store {
    /// The store in the cache folder `cache`. Nothing is created until something is written.
    pub fn in_cache(cache: &Path) -> Self {
        Self { folder: cache.join(FOLDER) }
    }

    /// The folder of the store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of an entry.
    fn entry_folder(&self, id: &str) -> Result<PathBuf, StoreError> {
        if is_id(id) { Ok(self.folder.join(id)) } else { Err(StoreError::Unknown { id: id.into() }) }
    }

    /// Opens an entry to read it.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::Read`], [`StoreError::Index`].
    pub fn open(&self, id: &str) -> Result<Entry, StoreError> {
        let folder = self.entry_folder(id)?;
        if !folder.is_dir() {
            return Err(StoreError::Unknown { id: id.into() });
        }
        Entry::open(&folder)
    }

    /// Creates an entry, or continues an incomplete one. Removes old entries to make room.
    ///
    /// # Errors
    /// [`StoreError::Limit`], [`StoreError::Busy`], [`StoreError::Write`].
    pub fn write(&self, new: NewEntry) -> Result<EntryWriter, StoreError> {
        let (needed, limit) = (new.max_bytes(), self.limit());
        if needed > limit {
            return Err(StoreError::Limit { needed, limit });
        }
        let id = new.key.id();
        let folder = self.entry_folder(&id)?;
        self.remove_oldest(limit - needed, Some(&id));
        EntryWriter::open(&folder, new)
    }

    /// All entries, the one last used first. Folders that are not entries are left out.
    ///
    /// # Errors
    /// [`StoreError::Read`] if the folder exists and cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let folders = match fs::read_dir(&self.folder) {
            Ok(folders) => folders,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StoreError::read(&self.folder, source)),
        };
        let mut listed: Vec<Listed> = folders
            .flatten()
            .filter_map(|folder| {
                let id = folder.file_name().to_string_lossy().into_owned();
                let path = folder.path();
                (is_id(&id) && path.is_dir()).then(|| Listed {
                    bytes: size_of_folder(&path),
                    last_use: UseLock::last_use(&path),
                    index: Index::read(&path),
                    id,
                })
            })
            .collect();
        listed.sort_by(|a, b| b.last_use.cmp(&a.last_use).then_with(|| a.id.cmp(&b.id)));
        Ok(listed)
    }

    /// Erases an entry.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::InUse`], [`StoreError::Write`].
    pub fn erase(&self, id: &str) -> Result<(), StoreError> {
        let folder = self.entry_folder(id)?;
        if !folder.is_dir() {
            return Err(StoreError::Unknown { id: id.into() });
        }
        let failed = |source| StoreError::write(&folder, source);
        let Some(lock) = UseLock::exclusive(&folder).map_err(failed)? else {
            return Err(StoreError::InUse { path: folder });
        };
        // Under another name nobody opens it any more; a crash leaves a folder that the next eraser removes.
        let hidden = self.folder.join(format!("{ERASED}{id}-{}", std::process::id()));
        // Windows does not rename a folder with open files.
        if cfg!(windows) {
            drop(lock);
        }
        fs::rename(&folder, &hidden).map_err(failed)?;
        fs::remove_dir_all(&hidden).map_err(failed)
    }

    /// Bytes of all entries.
    pub fn size(&self) -> u64 {
        self.list().map_or(0, |listed| listed.iter().map(|entry| entry.bytes).sum())
    }

    /// The size limit in bytes.
    pub fn limit(&self) -> u64 {
        let mut text = String::new();
        let read =
            File::open(self.folder.join(SETTINGS)).and_then(|file| file.take(4096).read_to_string(&mut text));
        read.ok()
            .and_then(|_| serde_json::from_str::<StoreSettings>(&text).ok())
            .map_or(DEFAULT_LIMIT, |settings| settings.limit_bytes)
    }

    /// Sets the size limit, and removes the oldest entries beyond it. Returns their number.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub fn set_limit(&self, bytes: u64) -> Result<usize, StoreError> {
        let path = self.folder.join(SETTINGS);
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let mut file = AtomicFile::create_beside(&path)?;
            file.write_all(&serde_json::to_vec(&StoreSettings { limit_bytes: bytes })?)?;
            file.publish(&path)
        };
        write().map_err(|source| StoreError::write(&path, source))?;
        Ok(self.remove_oldest(bytes, None))
    }

    /// Removes entries, the one that was not used for the longest time first, until at most `bytes` are left. Entries in use stay, and `keep`.
    /// Returns the number of removed ones.
    fn remove_oldest(&self, bytes: u64, keep: Option<&str>) -> usize {
        self.remove_leftovers();
        let Ok(listed) = self.list() else { return 0 };
        let others = listed.iter().filter(|entry| Some(entry.id.as_str()) != keep);
        let mut total: u64 = others.clone().map(|entry| entry.bytes).sum();
        let mut removed = 0;
        for entry in others.rev() {
            if total <= bytes {
                break;
            }
            if self.erase(&entry.id).is_ok() {
                log::info!("prepared stems {} erased: the store was full", entry.id);
                total -= entry.bytes;
                removed += 1;
            }
        }
        removed
    }

    /// Removes what a crash left of erased entries.
    fn remove_leftovers(&self) {
        for folder in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if folder.file_name().to_string_lossy().starts_with(ERASED) {
                let _ = fs::remove_dir_all(folder.path());
            }
        }
    }
}

/// Bytes of the files in a folder.
fn size_of_folder(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(fs::Metadata::is_file).map(|meta| meta.len()).sum()
}

#[cfg(test)]
mod tests;
