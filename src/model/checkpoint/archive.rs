//! Zip archives of `torch.save`.

use std::io::{BufReader, Read};
use std::ops::Range;

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::bytes::{BytesReader, CheckpointBytes};
use super::{CheckpointError, printable};

/// Most entries of an archive. Each takes a few hundred bytes of memory while the file is read.
const MAX_ENTRIES: u64 = 1 << 20;

const NO_TORCHSCRIPT: &str =
    "TorchScript holds programs; save the model's `state_dict()` with torch.save instead";
const LITTLE_ENDIAN: &str = "save it again on a little-endian machine";
const NO_NPZ: &str = "save the weights as safetensors (for MLX: mx.save_safetensors) or with torch.save";
const JOIN_PARTS: &str = "join all parts first: copy /b name.zip.001 + name.zip.002 name.zip (Windows), or \
     cat name.zip.0* > name.zip; then unpack it";

/// The zip file and its entries by name.
pub(super) struct Archive<'a> {
    pub bytes: &'a CheckpointBytes,
    zip: ZipArchive<BufReader<BytesReader<'a>>>,
    /// The folder everything is in, with its slash.
    pub root: String,
}

/// An entry of an archive: where it lies in the file, or decompressed.
pub(super) enum ArchiveEntry {
    Stored { range: Range<u64>, crc32: u32 },
    Inflated(Vec<u8>),
}

impl<'a> Archive<'a> {
    pub fn open(bytes: &'a CheckpointBytes) -> Result<Self, CheckpointError> {
        let origin = bytes.origin();
        let damaged = |reason: String| damaged(origin, reason);
        match directory_entries(bytes)? {
            None if is_part(origin) => {
                return Err(unsupported(origin, "a part of a split zip archive", JOIN_PARTS));
            }
            None => {
                let reason =
                    "its directory is missing at the end; the file is incomplete, download or copy it again";
                return Err(damaged(reason.to_owned()));
            }
            Some(entries) if entries > MAX_ENTRIES => {
                return Err(damaged(format!("it claims {entries} entries, more than {MAX_ENTRIES}")));
            }
            Some(_) => {}
        }
        let reader = BufReader::with_capacity(64 << 10, bytes.reader());
        let zip = ZipArchive::new(reader).map_err(|error| damaged(error.to_string()))?;
        let root = zip.file_names().find_map(|name| match name.strip_suffix("data.pkl")? {
            "" => Some(String::new()),
            folder => folder.ends_with('/').then(|| folder.to_owned()),
        });
        match root {
            Some(root) => Ok(Self { bytes, zip, root }),
            None => Err(without_pickle(&zip, origin)),
        }
    }

    /// Refuses TorchScript and big-endian numbers.
    pub fn refuse_other_kinds(&mut self) -> Result<(), CheckpointError> {
        let origin = self.bytes.origin();
        let code = format!("{}code/", self.root);
        let constants = format!("{}constants.pkl", self.root);
        if self.zip.file_names().any(|name| name == constants || name.starts_with(&code)) {
            return Err(unsupported(origin, "a TorchScript archive", NO_TORCHSCRIPT));
        }
        let byteorder = format!("{}byteorder", self.root);
        if self.zip.index_for_name(&byteorder).is_some() {
            let order = self.read(&byteorder, 64, 64)?;
            let order = String::from_utf8_lossy(&order).trim().to_owned();
            if order != "little" {
                let found = format!("its numbers are in {order:?} byte order");
                return Err(unsupported(origin, &found, LITTLE_ENDIAN));
            }
        }
        Ok(())
    }

    pub fn damaged(&self, reason: String) -> CheckpointError {
        damaged(self.bytes.origin(), reason)
    }

    /// The content of an entry, with its checksum verified. Compressed ones may have at most `inflated` bytes, others
    /// `stored`.
    pub fn read(&mut self, name: &str, stored: u64, inflated: u64) -> Result<Vec<u8>, CheckpointError> {
        match self.find(name, inflated)? {
            ArchiveEntry::Inflated(bytes) => Ok(bytes),
            ArchiveEntry::Stored { range, .. } if range.end - range.start > stored => {
                Err(self.damaged(format!(
                    "entry {name:?} has {} bytes, more than the limit of {stored}",
                    range.end - range.start
                )))
            }
            ArchiveEntry::Stored { range, crc32 } => {
                let bytes = self.bytes.range(range)?.into_owned();
                let found = crc32fast::hash(&bytes);
                if crc32 != 0 && crc32 != found {
                    return Err(self.damaged(format!(
                        "entry {name:?} has CRC-32 {found:08x}, the directory states {crc32:08x}; download or copy the \
                         file again"
                    )));
                }
                Ok(bytes)
            }
        }
    }

    /// Finds an entry. Decompresses it when it is compressed and has at most `limit` bytes; its checksum is then verified.
    pub fn find(&mut self, name: &str, limit: u64) -> Result<ArchiveEntry, CheckpointError> {
        let (len, origin) = (self.bytes.len(), self.bytes.origin());
        let damaged = |reason: String| damaged(origin, reason);
        let mut entry = self.zip.by_name(name).map_err(|error| match error {
            ZipError::FileNotFound => damaged(format!("the entry {name:?} is missing")),
            error => damaged(format!("entry {name:?}: {error}")),
        })?;
        let size = entry.size();
        if entry.compression() == CompressionMethod::Stored {
            let crc32 = entry.crc32();
            let range = entry.data_start().and_then(|start| Some(start..start.checked_add(size)?));
            return match range.filter(|range| range.end <= len) {
                Some(range) => Ok(ArchiveEntry::Stored { range, crc32 }),
                None => {
                    Err(damaged(format!("entry {name:?} of {size} bytes reaches beyond the end of the file")))
                }
            };
        }
        if size > limit {
            return Err(damaged(format!(
                "entry {name:?} unpacks to {size} bytes, more than the limit of {limit}"
            )));
        }
        // Nothing is reserved, because the claimed size may be false. One byte more is read to detect that.
        let mut bytes = Vec::new();
        entry
            .by_ref()
            .take(size.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| damaged(format!("entry {name:?} does not unpack: {error}")))?;
        if bytes.len() as u64 != size {
            return Err(damaged(format!(
                "entry {name:?} unpacks to another size than the {size} bytes it claims"
            )));
        }
        Ok(ArchiveEntry::Inflated(bytes))
    }
}

/// The error for an archive without `data.pkl`.
fn without_pickle(zip: &ZipArchive<BufReader<BytesReader<'_>>>, origin: &str) -> CheckpointError {
    if zip.file_names().any(|name| name.ends_with("constants.pkl")) {
        return unsupported(origin, "a TorchScript archive", NO_TORCHSCRIPT);
    }
    if !zip.is_empty() && zip.file_names().all(|name| name.ends_with(".npy")) {
        return unsupported(origin, "a NumPy archive (.npz)", NO_NPZ);
    }
    let names: Vec<String> = zip.file_names().take(4).map(printable).collect();
    let found =
        format!("a zip archive without data.pkl that holds {names:?} (unpack it, if a checkpoint is inside)");
    CheckpointError::NotACheckpoint { file: origin.to_owned(), found }
}

fn damaged(origin: &str, reason: String) -> CheckpointError {
    CheckpointError::Damaged { file: origin.to_owned(), container: "zip archive", reason }
}

fn unsupported(origin: &str, found: &str, advice: &'static str) -> CheckpointError {
    CheckpointError::Unsupported { file: origin.to_owned(), found: found.to_owned(), advice }
}

/// Whether a file name is that of a part: `model.zip.001`, `model.z01`.
fn is_part(origin: &str) -> bool {
    let extension = origin.rsplit('.').next().unwrap_or_default();
    let number = extension.strip_prefix(['z', 'Z']).unwrap_or(extension);
    (2..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number of entries stated in the directory at the end of the file; `None` when there is no directory.
fn directory_entries(bytes: &CheckpointBytes) -> Result<Option<u64>, CheckpointError> {
    const END: usize = 22;
    const LONGEST_COMMENT: usize = 65535;
    // The locator of a zip64 directory, which lies before the end record.
    const LOCATOR: usize = 20;
    let from = bytes.len().saturating_sub((END + LONGEST_COMMENT + LOCATOR) as u64);
    let tail = bytes.range(from..bytes.len())?;
    let Some(at) = tail.windows(END).rposition(|window| window.starts_with(b"PK\x05\x06")) else {
        return Ok(None);
    };
    let entries =
        tail.get(at + 10..).and_then(|rest| rest.first_chunk()).map_or(0, |n| u16::from_le_bytes(*n));
    if entries != u16::MAX {
        return Ok(Some(u64::from(entries)));
    }
    let offset = at
        .checked_sub(LOCATOR)
        .and_then(|start| tail[start..at].strip_prefix(b"PK\x06\x07"))
        .and_then(|rest| rest.get(4..)?.first_chunk())
        .map(|offset| u64::from_le_bytes(*offset));
    let record = offset.and_then(|offset| Some(offset..offset.checked_add(40)?));
    Ok(Some(match record.filter(|record| record.end <= bytes.len()) {
        Some(record) => {
            let record = bytes.range(record)?;
            record.get(32..).and_then(|rest| rest.first_chunk()).map_or(0, |n| u64::from_le_bytes(*n))
        }
        None => u64::from(entries),
    }))
}
