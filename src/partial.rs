//! Files that appear when they are whole: until then they have another name, in the same folder.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tempfile::NamedTempFile;

/// A file in the making. It removes itself when dropped before [`publish`](Self::publish).
pub(crate) struct Partial {
    // Dropped in this order: forgotten only once it is gone.
    file: NamedTempFile,
    known: Known,
}

/// A new file beside `target`, to be written and then published as that.
///
/// Errors: those of making a file in that folder.
pub(crate) fn beside(target: &Path) -> io::Result<Partial> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".nullsum-").suffix(".part");
    // Temporary files are private by default; the result shall have the rights of any new file, which the umask says.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder)?;
    let known = Known::new(file.path());
    Ok(Partial { file, known })
}

impl Partial {
    /// Gives it its name, replacing a file that is there, in one step.
    ///
    /// Errors: those of the rename; the file is then gone.
    pub fn publish(self, target: &Path) -> io::Result<()> {
        let Self { file, known } = self;
        // The error carries the file, which removes itself.
        file.persist(target).map_err(|error| error.error)?;
        drop(known);
        Ok(())
    }

    /// Waits until the disk has what was written.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Closes it and keeps its place, where others may write; what is there in the end is removed.
    #[cfg(feature = "download")]
    pub fn close(self) -> Place {
        let Self { file, known } = self;
        Place { path: file.into_temp_path(), _known: known }
    }
}

/// The place of a file in the making that is not open.
#[cfg(feature = "download")]
pub(crate) struct Place {
    path: tempfile::TempPath,
    _known: Known,
}

#[cfg(feature = "download")]
impl Place {
    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Partial {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Paths of the partial files that there are.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// An entry of [`UNFINISHED`].
struct Known(PathBuf);

impl Known {
    fn new(path: &Path) -> Self {
        UNFINISHED.lock().push(path.to_path_buf());
        Self(path.to_path_buf())
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        UNFINISHED.lock().retain(|path| *path != self.0);
    }
}

/// Removes all files of the process that are still in the making, for a program that is about to exit without dropping them
/// (a second Ctrl-C). Files that are complete stay.
pub fn remove_unfinished() {
    for path in UNFINISHED.lock().drain(..) {
        // One that was completed meanwhile has another name by now.
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
    fn appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let mut file = beside(&target).unwrap();
        file.write_all(b"whole").unwrap();
        assert!(!target.exists() && entries(folder.path()) == 1);
        file.publish(&target).unwrap();
        assert_eq!((fs::read(&target).unwrap().as_slice(), entries(folder.path())), (&b"whole"[..], 1));

        drop(beside(&target).unwrap());
        let nowhere = folder.path().join("missing").join("b");
        assert!(beside(&target).unwrap().publish(&nowhere).is_err());
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn is_known_while_it_is_in_the_making() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let here = || UNFINISHED.lock().iter().filter(|path| path.starts_with(folder.path())).count();
        let (one, other) = (beside(&target).unwrap(), beside(&target).unwrap());
        assert_eq!(here(), 2);
        one.publish(&target).unwrap();
        assert_eq!(here(), 1);
        drop(other);
        assert_eq!(here(), 0);
    }
}
