//! The bytes behind all tensors of a checkpoint, and their checksums.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::CheckpointError;
use super::bytes::CheckpointBytes;
use super::tensor::TensorLocation;

/// An uncompressed member of a zip archive, which is used where it lies in the file.
pub(super) struct StoredMember {
    pub name: String,
    pub range: Range<u64>,
    /// CRC-32 of the directory.
    pub crc32: u32,
    pub verified: AtomicBool,
}

/// The bytes behind all tensors of a checkpoint.
pub(super) struct Storages {
    bytes: CheckpointBytes,
    /// Decompressed members and decoded arrays.
    buffers: Vec<Vec<u8>>,
    members: Vec<StoredMember>,
}

impl Storages {
    pub fn new(bytes: CheckpointBytes, buffers: Vec<Vec<u8>>, members: Vec<StoredMember>) -> Self {
        Self { bytes, buffers, members }
    }

    /// The file.
    pub fn bytes(&self) -> &CheckpointBytes {
        &self.bytes
    }

    /// The bytes at a location, verified.
    pub fn read(&self, location: &TensorLocation) -> Result<Cow<'_, [u8]>, CheckpointError> {
        match location {
            TensorLocation::File { range, member } => {
                self.verify(*member)?;
                self.bytes.range(range.clone())
            }
            TensorLocation::Memory { buffer, range } => {
                let part = self.buffers.get(*buffer).and_then(|bytes| bytes.get(range.clone()));
                Ok(Cow::Borrowed(part.unwrap_or_default()))
            }
        }
    }

    /// Checks the CRC-32 of a member, once.
    pub fn verify(&self, member: Option<usize>) -> Result<(), CheckpointError> {
        let Some(member) = member.and_then(|index| self.members.get(index)) else { return Ok(()) };
        // PyTorch writes 0 where it was told to compute none (`torch.serialization.set_crc32_options(False)`).
        if member.crc32 == 0 || member.verified.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut hasher = crc32fast::Hasher::new();
        self.bytes.for_each_piece(member.range.clone(), &mut |piece| hasher.update(piece))?;
        let found = hasher.finalize();
        if found != member.crc32 {
            return Err(CheckpointError::Damaged {
                file: self.bytes.origin().to_owned(),
                container: "zip archive",
                reason: format!(
                    "entry {:?} has CRC-32 {found:08x}, the directory states {:08x}; download or copy the file again",
                    member.name, member.crc32
                ),
            });
        }
        member.verified.store(true, Ordering::Relaxed);
        Ok(())
    }
}
