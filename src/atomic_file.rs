//! Files that appear under their name only when they are complete.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tempfile::NamedTempFile;

/// First part of all temporary names.
const PREFIX: &str = ".nullsum-";
/// Last part of all temporary names.
const SUFFIX: &str = ".part";
/// Stands between the random part of a temporary name and the name of the machine.
const HOST_MARK: char = '@';
/// Age from which a file counts as abandoned if no lock can tell.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Tries to create a file that is not removed by another process at once.
const TRIES: usize = 8;

/// A file being written under a temporary name. Dropping it before [`publish`](Self::publish) removes it.
///
/// The process holds a lock on it, so that a later process can tell whether it is abandoned. The first file in a folder
/// removes all abandoned ones there.
pub(crate) struct AtomicFile {
    // Declared before the registration, so that the path stays registered until the file is removed.
    file: NamedTempFile,
    registration: Registration,
}

impl AtomicFile {
    /// Creates a temporary file in the folder of `target`. Its name has the unusual characters of the target's name, so that
    /// a file system that refuses them does so now and not at the end.
    ///
    /// Errors: those of creating a file in that folder.
    pub fn create_beside(target: &Path) -> io::Result<Self> {
        let folder = folder_of(target);
        remove_abandoned_once(folder);
        let mut error = io::Error::other("other processes keep removing it");
        for _ in 0..TRIES {
            let file = new_file(folder, target)?;
            match file.as_file().try_lock() {
                // Another process may have taken it for abandoned before the lock.
                Ok(()) if fs::symlink_metadata(file.path()).is_err() => continue,
                Err(TryLockError::WouldBlock) => continue,
                // File systems without locks are left to the age of the file.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            match fs::symlink_metadata(file.path()) {
                Ok(_) => {
                    let registration = Registration::new(file.path());
                    return Ok(Self { file, registration });
                }
                Err(found) => error = found,
            }
        }
        Err(error)
    }

    /// Renames the file to `target`, replacing an existing file atomically.
    ///
    /// Errors: those of the rename; the temporary file is then removed.
    pub fn publish(self, target: &Path) -> io::Result<()> {
        let Self { file, registration } = self;
        // The error contains the file, which removes itself.
        file.persist(target).map_err(|error| error.error)?;
        drop(registration);
        Ok(())
    }

    /// The temporary path.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Waits until the data is on disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Closes the file and keeps its path, so that other code can write there. Dropping the result removes the file.
    #[cfg(feature = "download")]
    pub fn close(self) -> ClosedAtomicFile {
        let Self { file, registration } = self;
        // The handle keeps the lock. On Windows a lock would keep the other writers out.
        let (file, path) = file.into_parts();
        ClosedAtomicFile { path, _lock: (!cfg!(windows)).then_some(file), _registration: registration }
    }
}

/// The path of an unfinished file that is not open.
#[cfg(feature = "download")]
pub(crate) struct ClosedAtomicFile {
    path: tempfile::TempPath,
    _lock: Option<File>,
    _registration: Registration,
}

#[cfg(feature = "download")]
impl ClosedAtomicFile {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The folder that a path lies in.
fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn new_file(folder: &Path, target: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    let suffix = format!("{HOST_MARK}{}{}{SUFFIX}", host_name(), unusual_characters(target));
    builder.prefix(PREFIX).suffix(&suffix);
    // Temporary files are private by default; the result needs the permissions of any new file, which the umask sets.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// The characters of a file name that not every file system accepts, each once.
fn unusual_characters(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let mut unusual = String::new();
    for c in name.chars() {
        let is_usual = c.is_ascii_alphanumeric() || " ._-@".contains(c) || c == char::REPLACEMENT_CHARACTER;
        if !is_usual && !unusual.contains(c) && unusual.len() < 64 {
            unusual.push(c);
        }
    }
    unusual
}

/// The name of this machine, as far as file names may hold it.
fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect()
}

/// Removes abandoned files from a folder, the first time that this process writes there.
fn remove_abandoned_once(folder: &Path) {
    static SEEN: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let is_new = SEEN.lock().get_or_insert_with(HashSet::new).insert(folder.to_path_buf());
    if is_new {
        remove_abandoned(folder, &host_name(), SystemTime::now());
    }
}

/// Removes temporary files that no process holds. What cannot be read or removed stays: it is not ours to complain.
fn remove_abandoned(folder: &Path, host: &str, now: SystemTime) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let Some(middle) = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX)) else {
            continue;
        };
        if !is_file {
            continue;
        }
        let path = entry.path();
        // Locks of another machine are not seen on every file system.
        let is_foreign = middle
            .split_once(HOST_MARK)
            .is_some_and(|(_, other)| !other.starts_with(host) || host.is_empty());
        let lock = File::options().write(true).open(&path).map(|file| (file.try_lock(), file));
        let is_old = || {
            let modified = entry.metadata().and_then(|meta| meta.modified());
            modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age >= ABANDONED))
        };
        let is_abandoned = match &lock {
            Err(_) | Ok((Err(TryLockError::WouldBlock), _)) => false,
            Ok((Ok(()), _)) if !is_foreign => true,
            Ok((Ok(()) | Err(TryLockError::Error(_)), _)) => is_old(),
        };
        if is_abandoned {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Paths of all unfinished files of this process.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Keeps a path in [`UNFINISHED`] until it is dropped.
struct Registration(PathBuf);

impl Registration {
    fn new(path: &Path) -> Self {
        UNFINISHED.lock().push(path.to_path_buf());
        Self(path.to_path_buf())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        UNFINISHED.lock().retain(|path| *path != self.0);
    }
}

/// Removes all unfinished files of this process, for a program that exits without dropping them (a second Ctrl-C).
/// Published files stay.
pub fn remove_unfinished() {
    for path in UNFINISHED.lock().drain(..) {
        // A file published in the meantime has another name now.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_file_appears_complete_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let mut file = AtomicFile::create_beside(&target).unwrap();
        file.write_all(b"whole").unwrap();
        assert!(!target.exists() && entries(folder.path()) == 1);
        file.publish(&target).unwrap();
        assert_eq!((fs::read(&target).unwrap().as_slice(), entries(folder.path())), (&b"whole"[..], 1));

        drop(AtomicFile::create_beside(&target).unwrap());
        let nowhere = folder.path().join("missing").join("b");
        assert!(AtomicFile::create_beside(&target).unwrap().publish(&nowhere).is_err());
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn abandoned_files_are_removed_and_held_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let held = AtomicFile::create_beside(&folder.path().join("held")).unwrap();
        let host = host_name();
        let old = SystemTime::now() - ABANDONED - Duration::from_secs(60);
        // Name, whether it is old, whether it is removed.
        let table = [
            (format!(".nullsum-a{HOST_MARK}{host}.part"), false, true),
            (".nullsum-b.part".to_owned(), false, true),
            (format!(".nullsum-c{HOST_MARK}elsewhere.part"), false, false),
            (format!(".nullsum-d{HOST_MARK}elsewhere.part"), true, true),
            (".nullsum-e.wav".to_owned(), true, false),
            ("song.part".to_owned(), true, false),
        ];
        for (name, is_old, _) in &table {
            let file = File::create(folder.path().join(name)).unwrap();
            if *is_old {
                file.set_modified(old).unwrap();
            }
        }
        remove_abandoned(folder.path(), &host, SystemTime::now());
        for (name, _, removed) in table {
            assert_eq!(!folder.path().join(&name).exists(), removed, "{name}");
        }
        assert!(held.file.path().exists());
    }

    #[test]
    fn a_temporary_name_has_the_unusual_characters_of_the_target() {
        let folder = tempfile::tempdir().unwrap();
        let file = AtomicFile::create_beside(&folder.path().join("Why? é: why?.wav")).unwrap();
        let name = file.file.path().file_name().unwrap().to_string_lossy().into_owned();
        assert!(["?", "é", ":"].iter().all(|c| name.matches(c).count() == 1), "{name}");
    }

    #[test]
    fn unfinished_files_are_registered() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let registered = || UNFINISHED.lock().iter().filter(|path| path.starts_with(folder.path())).count();
        let (one, other) =
            (AtomicFile::create_beside(&target).unwrap(), AtomicFile::create_beside(&target).unwrap());
        assert_eq!(registered(), 2);
        one.publish(&target).unwrap();
        assert_eq!(registered(), 1);
        drop(other);
        assert_eq!(registered(), 0);
    }
}
