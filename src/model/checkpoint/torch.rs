//! Reading the zip archives of `torch.save`.
//!
//! An archive holds, in one folder, `data.pkl` (the objects), `data/{key}` (the numbers of each storage) and `byteorder`.
//! PyTorch stores the numbers uncompressed, so tensors are views of the file. Compressed entries of repacked archives are
//! decompressed into memory.

use std::sync::atomic::AtomicBool;

use super::archive::{Archive, ArchiveEntry};
use super::bytes::CheckpointBytes;
use super::pickled::{self, StorageSource, StorageSpan};
use super::storage::StoredMember;
use super::tensor::TensorLocation;
use super::{CheckpointError, ContainerContents, Dtype, pickle};

/// Decompressed storages may be this many times the size of the file, because floats hardly compress.
const MAX_INFLATION: u64 = 4;
/// Additional allowance in bytes, for small files.
const FREE_INFLATION: u64 = 16 << 20;
/// Largest compressed `data.pkl`.
const MAX_INFLATED_PICKLE: u64 = 62 << 20;
/// Longest key of a storage. PyTorch uses numbers.
const MAX_KEY_BYTES: usize = 128;

pub(super) fn read(
    bytes: &CheckpointBytes,
    wanted: Option<&str>,
) -> Result<ContainerContents, CheckpointError> {
    let mut archive = Archive::open(bytes)?;
    archive.refuse_other_kinds()?;
    let index = format!("{}data.pkl", archive.root);
    let index = archive.read(&index, pickle::MAX_BYTES as u64, MAX_INFLATED_PICKLE)?;
    let pickle = pickle::read(&index).map_err(|error| error.into_checkpoint_error(bytes.origin()))?;
    let mut storages = ArchiveStorages { archive, members: Vec::new(), inflated_bytes: 0 };
    let mut contents = pickled::read(&pickle, bytes, &mut storages, wanted)?;
    contents.members = storages.members;
    Ok(contents)
}

/// The storages of an archive.
struct ArchiveStorages<'a> {
    archive: Archive<'a>,
    members: Vec<StoredMember>,
    inflated_bytes: u64,
}

impl StorageSource for ArchiveStorages<'_> {
    fn load(
        &mut self,
        key: &str,
        _: Dtype,
        buffers: &mut Vec<Vec<u8>>,
    ) -> Result<StorageSpan, CheckpointError> {
        if key.len() > MAX_KEY_BYTES {
            let reason = format!("a storage is named by a text of {} bytes", key.len());
            return Err(self.archive.damaged(reason));
        }
        let limit = (self.archive.bytes.len())
            .saturating_mul(MAX_INFLATION)
            .saturating_add(FREE_INFLATION)
            .saturating_sub(self.inflated_bytes);
        let name = format!("{}data/{key}", self.archive.root);
        Ok(match self.archive.find(&name, limit)? {
            ArchiveEntry::Stored { range, crc32 } => {
                self.members.push(StoredMember {
                    name,
                    range: range.clone(),
                    crc32,
                    verified: AtomicBool::new(false),
                });
                let bytes = range.end - range.start;
                StorageSpan {
                    location: TensorLocation::File { range, member: Some(self.members.len() - 1) },
                    bytes,
                }
            }
            ArchiveEntry::Inflated(content) => {
                let bytes = content.len();
                self.inflated_bytes += bytes as u64;
                buffers.push(content);
                StorageSpan {
                    location: TensorLocation::Memory { buffer: buffers.len() - 1, range: 0..bytes },
                    bytes: bytes as u64,
                }
            }
        })
    }
}
