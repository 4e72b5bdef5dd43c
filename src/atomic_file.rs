//! Files that appear under their name only when they are complete.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tempfile::NamedTempFile;

/// A file being written under a temporary name. Dropping it before [`publish`](Self::publish) removes it.
pub(crate) struct AtomicFile {
    // Declared before the registration, so that the path stays registered until the file is removed.
    file: NamedTempFile,
    registration: Registration,
}

impl AtomicFile {
    /// Creates a temporary file in the folder of `target`.
    ///
    /// Errors: those of creating a file in that folder.
    pub fn create_beside(target: &Path) -> io::Result<Self> {
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".nullsum-").suffix(".part");
        // Temporary files are private by default; the result needs the permissions of any new file, which the umask sets.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder)?;
        let registration = Registration::new(file.path());
        Ok(Self { file, registration })
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
        ClosedAtomicFile { path: file.into_temp_path(), _registration: registration }
    }
}

/// The path of an unfinished file that is not open.
#[cfg(feature = "download")]
pub(crate) struct ClosedAtomicFile {
    path: tempfile::TempPath,
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
