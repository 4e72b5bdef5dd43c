//! Detection of a checkpoint's format from its content.

use super::bytes::CheckpointBytes;
use super::{CheckpointError, gguf, legacy};

/// The supported containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContainerKind {
    Zip,
    SafeTensors,
    /// PyTorch before 1.6.
    Legacy,
    Gguf,
}

/// Bytes that are read for the detection.
const HEAD: u64 = 512;

const RESAVE: &str = "load it once with a current PyTorch and write it again: \
     torch.save(torch.load(\"old.ckpt\", map_location=\"cpu\", weights_only=True), \"new.ckpt\")";

/// Detects the container from its first bytes; the error names other formats that users often pass by mistake.
pub(super) fn detect_container(bytes: &CheckpointBytes) -> Result<ContainerKind, CheckpointError> {
    let head = bytes.range(0..HEAD.min(bytes.len()))?;
    detect(&head, bytes.origin())
}

fn detect(bytes: &[u8], origin: &str) -> Result<ContainerKind, CheckpointError> {
    let file = || origin.to_owned();
    if bytes.is_empty() {
        return Err(CheckpointError::Empty { file: file() });
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return Ok(ContainerKind::Zip);
    }
    if bytes.starts_with(gguf::MAGIC) {
        return Ok(ContainerKind::Gguf);
    }
    if bytes.len() >= 9 && bytes[8] == b'{' {
        return Ok(ContainerKind::SafeTensors);
    }
    if bytes.first() == Some(&0x80) && bytes.get(1).is_some_and(|protocol| *protocol <= 5) {
        if bytes.get(2..).is_some_and(|rest| rest.starts_with(legacy::MAGIC)) {
            return Ok(ContainerKind::Legacy);
        }
        return Err(CheckpointError::NotACheckpoint {
            file: file(),
            found: "a bare Python pickle (save its weights with torch.save or as safetensors)".to_owned(),
        });
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Err(CheckpointError::Unsupported {
            file: file(),
            found: "a tar archive, as PyTorch wrote them before version 0.1.10".to_owned(),
            advice: RESAVE,
        });
    }
    Err(CheckpointError::NotACheckpoint { file: file(), found: describe(bytes, origin) })
}

fn describe(bytes: &[u8], origin: &str) -> String {
    let head = &bytes[..bytes.len().min(512)];
    let text = String::from_utf8_lossy(head).trim_start().to_ascii_lowercase();
    let known: [(bool, &str); 14] = [
        (
            text.starts_with("version https://git-lfs"),
            "a Git LFS pointer (fetch the file itself: git lfs pull)",
        ),
        (
            text.starts_with("<!doctype html") || text.starts_with("<html"),
            "a web page (the download failed; use the file's direct link)",
        ),
        (is_onnx(head), "an ONNX model (use the checkpoint that it was exported from)"),
        (
            head.starts_with(b"PK\x07\x08") || head.starts_with(b"PK00"),
            "the first part of a split zip archive (join all parts and unpack them)",
        ),
        (head.starts_with(b"TFL3") || head.get(4..8) == Some(b"TFL3"), "a TensorFlow Lite model"),
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
    if is_later_part(origin) {
        return "a later part of a split archive (join all parts and unpack them)".to_owned();
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

/// Whether a file begins like an ONNX model: a protocol buffer with the version of the format, and then the producer, the
/// domain, the graph or the operator sets.
fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [0x08, 1..=20, 0x12 | 0x1A | 0x22 | 0x3A | 0x42, ..])
}

/// Whether a file is a later part of a split archive, by its name: `model.zip.002`, `model.z02`, `model.r01`.
fn is_later_part(origin: &str) -> bool {
    let extension = origin.rsplit_once('.').map_or("", |(_, extension)| extension);
    let number = extension.strip_prefix(['z', 'Z', 'r', 'R']).unwrap_or(extension);
    number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit())
}
