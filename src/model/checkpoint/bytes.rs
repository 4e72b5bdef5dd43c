//! The bytes of a checkpoint file, and detection of its format.

use std::borrow::Cow;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use super::CheckpointError;

/// The bytes of a checkpoint, memory-mapped or in memory.
pub(super) enum CheckpointBytes {
    Mapped(Mmap),
    Memory(Cow<'static, [u8]>),
}

impl CheckpointBytes {
    pub fn open(path: &Path, origin: &str) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { file: origin.to_owned(), source };
        // Checked before opening: on some systems, opening a folder fails with a permission error.
        let about = std::fs::metadata(path).map_err(io)?;
        if about.is_dir() {
            return Err(CheckpointError::Folder { file: origin.to_owned() });
        }
        if !about.is_file() {
            // Opening a pipe would block until a writer appears, and pipes and devices cannot be mapped.
            let found = "a pipe or device (copy it to a file first)".to_owned();
            return Err(CheckpointError::NotACheckpoint { file: origin.to_owned(), found });
        }
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            return Err(CheckpointError::Empty { file: origin.to_owned() });
        }
        // SAFETY: the map is read-only and private. Its content is treated as untrusted bytes: nothing relies
        // on it staying the same between two reads, except that the file keeps its length, which the
        // documentation of `Checkpoint::open` asks for (a file truncated under any reader's map ends the
        // process with SIGBUS; no undefined value is ever read).
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self::Mapped(map))
    }
}

impl Deref for CheckpointBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}

/// The supported containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContainerKind {
    Zip,
    SafeTensors,
}

/// First bytes of files from before PyTorch 1.6: a pickled integer of ten bytes.
const LEGACY_MAGIC: &[u8] = &[0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

const RESAVE: &str = "load it once with a current PyTorch and write it again: \
     torch.save(torch.load(\"old.ckpt\", map_location=\"cpu\", weights_only=True), \"new.ckpt\")";

/// Detects the container from its first bytes; the error names other formats that users often pass by mistake.
pub(super) fn detect_container(bytes: &[u8], origin: &str) -> Result<ContainerKind, CheckpointError> {
    let file = || origin.to_owned();
    if bytes.is_empty() {
        return Err(CheckpointError::Empty { file: file() });
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return Ok(ContainerKind::Zip);
    }
    if bytes.len() >= 9 && bytes[8] == b'{' {
        return Ok(ContainerKind::SafeTensors);
    }
    if bytes.first() == Some(&0x80) && bytes.get(1).is_some_and(|protocol| *protocol <= 5) {
        if bytes.get(2..).is_some_and(|rest| rest.starts_with(LEGACY_MAGIC)) {
            return Err(CheckpointError::Unsupported {
                file: file(),
                found: "written in PyTorch's format from before version 1.6".to_owned(),
                advice: RESAVE,
            });
        }
        return Err(CheckpointError::NotACheckpoint {
            file: file(),
            found: "a bare Python pickle".to_owned(),
        });
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Err(CheckpointError::Unsupported {
            file: file(),
            found: "a tar archive, as PyTorch wrote them before version 0.1.10".to_owned(),
            advice: RESAVE,
        });
    }
    Err(CheckpointError::NotACheckpoint { file: file(), found: describe(bytes) })
}

fn describe(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(512)];
    let text = String::from_utf8_lossy(head).trim_start().to_ascii_lowercase();
    let known: [(bool, &str); 12] = [
        (
            text.starts_with("version https://git-lfs"),
            "a Git LFS pointer (fetch the file itself: git lfs pull)",
        ),
        (
            text.starts_with("<!doctype html") || text.starts_with("<html"),
            "a web page (the download failed; use the file's direct link)",
        ),
        (head.starts_with(b"GGUF"), "a GGUF file"),
        (head.starts_with(&[0x1f, 0x8b]), "a gzip archive (unpack it first)"),
        (head.starts_with(b"7z\xbc\xaf"), "a 7-Zip archive (unpack it first)"),
        (head.starts_with(b"Rar!"), "a RAR archive (unpack it first)"),
        (head.starts_with(b"RIFF"), "a RIFF file such as WAV"),
        (head.starts_with(b"fLaC"), "a FLAC file"),
        (head.starts_with(b"\x89HDF"), "an HDF5 file"),
        (head.starts_with(b"\x93NUMPY"), "a NumPy array"),
        (text.starts_with('{'), "a JSON text"),
        (head.iter().all(|byte| *byte == 0), "nothing but zero bytes (the download is damaged)"),
    ];
    if let Some((_, name)) = known.iter().find(|(found, _)| *found) {
        return (*name).to_owned();
    }
    let start: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    if std::str::from_utf8(head).is_ok_and(|text| text.chars().all(|c| !c.is_control() || c.is_whitespace()))
    {
        let line: String =
            String::from_utf8_lossy(head).lines().next().unwrap_or("").chars().take(40).collect();
        return format!("a text file that begins with {line:?}");
    }
    format!("a file that begins with the bytes {}", start.join(" "))
}
