//! Small JSON files in the cache folder: measured speeds and known model locations.
//!
//! None of them is essential. A file that is missing, unreadable or from another version reads as empty, and write errors are ignored.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic_file::AtomicFile;

/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The cache folder. Unit tests use a temporary one.
pub fn folder() -> Option<PathBuf> {
    #[cfg(test)]
    return Some(std::env::temp_dir().join(format!("nullsum-unit-tests-{}", std::process::id())));
    #[cfg(not(test))]
    crate::registry::cache_dir().ok()
}

/// Reads the file `name`.
pub fn read<T: DeserializeOwned + Default>(name: &str) -> T {
    folder().and_then(|folder| read_from(&folder.join(name))).unwrap_or_default()
}

fn read_from<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Reads the file `name`, changes it and writes it back. A lock orders the instances of one process.
pub fn update<T: DeserializeOwned + Default + Serialize>(name: &str, change: impl FnOnce(&mut T)) {
    static ONE: Mutex<()> = Mutex::new(());
    let Some(folder) = folder() else { return };
    let _one = ONE.lock();
    let mut record = read(name);
    change(&mut record);
    let _ = write_to(&folder, name, &record);
}

fn write_to<T: Serialize>(folder: &Path, name: &str, value: &T) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = AtomicFile::create_beside(&folder.join(name))?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    file.publish(&folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_files_read_back_and_broken_ones_read_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new");
        write_to(&inner, "a.json", &vec![1, 2, 3]).unwrap();
        assert_eq!(read_from::<Vec<u32>>(&inner.join("a.json")), Some(vec![1, 2, 3]));
        fs::write(inner.join("a.json"), "[1, 2").unwrap();
        assert_eq!(read_from::<Vec<u32>>(&inner.join("a.json")), None);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);
    }
}
