//! Files that appear when they are whole: until then they have another name, in the same folder.

use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// A new file beside `target`, to be written and then `persist`ed as that. It removes itself when dropped before.
///
/// Errors: those of making a file in that folder.
pub(crate) fn beside(target: &Path) -> io::Result<NamedTempFile> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".nullsum-").suffix(".part");
    // Temporary files are private by default; the result shall have the rights of any new file, which the umask says.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}
