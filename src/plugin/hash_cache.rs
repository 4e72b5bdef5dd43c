//! Remembers SHA-256 checksums of checkpoints, because hashing half a gigabyte takes a second.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::cache_file;

const HASHES_FILE: &str = "hashes.json";
/// Largest number of files that are remembered.
const MAX_ENTRIES: usize = 64;
/// A file that was written this shortly before it was hashed may change again within the resolution of its time.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Hashes {
    #[serde(default)]
    files: BTreeMap<String, FileHash>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FileHash {
    identity: FileIdentity,
    sha256: String,
    /// Number of the entry. The lowest is dropped first.
    serial: u64,
}

/// What tells that a file has not changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileIdentity {
    size: u64,
    modified_ns: u64,
    /// On Unix also the change time and inode, which copying with an old modification time does not keep.
    #[serde(default)]
    changed_ns: i64,
    #[serde(default)]
    inode: u64,
}

impl FileIdentity {
    /// `None` if the system has no modification time.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let since_epoch = metadata.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let modified_ns = u64::try_from(since_epoch.as_nanos()).ok()?;
        #[cfg(unix)]
        let (changed_ns, inode) = {
            use std::os::unix::fs::MetadataExt;
            (
                metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec()),
                metadata.ino(),
            )
        };
        #[cfg(not(unix))]
        let (changed_ns, inode) = (0, 0);
        Some(Self { size: metadata.len(), modified_ns, changed_ns, inode })
    }

    fn is_settled(&self) -> bool {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.modified_ns);
        modified.elapsed().is_ok_and(|age| age > SETTLED_AFTER)
    }
}

/// The checksum of a file, if it has not changed since it was hashed.
pub(super) fn stored_hash(path: &Path, identity: &FileIdentity) -> Option<String> {
    let mut hashes: Hashes = cache_file::read(HASHES_FILE);
    let entry = hashes.files.remove(&key(path)?)?;
    (entry.identity == *identity).then_some(entry.sha256)
}

/// Remembers the checksum of a file that had this identity before and after it was hashed.
pub(super) fn store_hash(path: &Path, identity: &FileIdentity, sha256: &str) {
    let Some(key) = key(path).filter(|_| identity.is_settled()) else { return };
    cache_file::update(HASHES_FILE, |hashes: &mut Hashes| {
        let serial = hashes.files.values().map(|entry| entry.serial).max().unwrap_or(0) + 1;
        let entry = FileHash { identity: identity.clone(), sha256: sha256.into(), serial };
        hashes.files.insert(key, entry);
        while hashes.files.len() > MAX_ENTRIES {
            let oldest =
                hashes.files.iter().min_by_key(|(_, entry)| entry.serial).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            hashes.files.remove(&oldest);
        }
    });
}

/// Only paths that are valid text are remembered.
fn key(path: &Path) -> Option<String> {
    Some(std::path::absolute(path).ok()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn identity(path: &Path) -> FileIdentity {
        FileIdentity::of(&fs::metadata(path).unwrap()).unwrap()
    }

    fn write(path: &Path, text: &str, age: Duration) {
        fs::write(path, text).unwrap();
        File::options().append(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn a_checksum_holds_while_the_file_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ckpt");
        let old = Duration::from_secs(3_600);
        write(&path, "one", old);
        assert_eq!(stored_hash(&path, &identity(&path)), None);
        store_hash(&path, &identity(&path), "1");
        assert_eq!(stored_hash(&path, &identity(&path)).as_deref(), Some("1"));
        write(&path, "three", old);
        assert_eq!(stored_hash(&path, &identity(&path)), None, "another size");
        write(&path, "two", old / 2);
        assert_eq!(stored_hash(&path, &identity(&path)), None, "another time");
    }

    #[cfg(unix)]
    #[test]
    fn another_file_of_the_same_size_and_time_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.ckpt");
        write(&path, "one", Duration::from_secs(60));
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        store_hash(&path, &identity(&path), "1");
        fs::write(folder.path().join("new"), "two").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(stored_hash(&path, &identity(&path)), None);
    }

    #[test]
    fn a_file_that_was_just_written_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.ckpt");
        write(&path, "one", Duration::ZERO);
        store_hash(&path, &identity(&path), "1");
        assert_eq!(stored_hash(&path, &identity(&path)), None);
    }
}
