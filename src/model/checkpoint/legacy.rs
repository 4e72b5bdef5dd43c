//! Reading files from before PyTorch 1.6, which newer versions still write with `_use_new_zipfile_serialization=False`.
//!
//! Such a file is a sequence of pickles: a magic number, a protocol version, facts about the machine, the objects, and the keys
//! of all storages. Then follow the storages in that order, each with its number of elements in 8 bytes.

use std::collections::HashMap;
use std::ops::Range;

use super::bytes::CheckpointBytes;
use super::pickle::{self, Node, Pickle, PickleError};
use super::pickled::{self, StorageSource, StorageSpan};
use super::tensor::TensorLocation;
use super::{CheckpointError, ContainerContents, Dtype};

/// First bytes of the file: a pickled integer of ten bytes.
pub(super) const MAGIC: &[u8] = &[0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The only version of the format.
const PROTOCOL: i64 = 1001;
/// Bytes that are first read for the pickles. The range grows until they are complete.
const FIRST_READ: u64 = 1 << 20;
/// Most storages.
const MAX_STORAGES: usize = 1 << 18;

pub(super) fn read(
    bytes: &CheckpointBytes,
    wanted: Option<&str>,
) -> Result<ContainerContents, CheckpointError> {
    let mut length = FIRST_READ.min(bytes.len());
    loop {
        let head = bytes.range(0..length)?;
        let complete = length == bytes.len() || length >= pickle::MAX_BYTES as u64;
        match pickles(&head) {
            Ok((objects, keys, end)) => {
                let mut storages = LegacyStorages {
                    bytes,
                    starts: HashMap::new(),
                    order: storage_keys(&keys, bytes.origin())?,
                    next: 0,
                    at: end as u64,
                    dtypes: dtypes(&objects),
                };
                return pickled::read(&objects, bytes, &mut storages, wanted);
            }
            Err(PickleError::Broken { .. }) if !complete => length = (length * 4).min(bytes.len()),
            Err(error) => return Err(error.into_checkpoint_error(bytes.origin())),
        }
    }
}

/// The objects, the list of storage keys, and where the storages begin.
fn pickles(head: &[u8]) -> Result<(Pickle<'_>, Pickle<'_>, usize), PickleError> {
    let mut at = 0;
    let mut next = || {
        let (pickle, length) = pickle::read_first(&head[at..]).map_err(|error| match error {
            PickleError::Broken { offset, reason } => PickleError::Broken { offset: at + offset, reason },
            hostile @ PickleError::Hostile { .. } => hostile,
        })?;
        at += length;
        Ok((pickle, at))
    };
    next()?;
    let (protocol, offset) = next()?;
    if !matches!(protocol.node(protocol.root), Node::Int(PROTOCOL)) {
        let found = protocol.describe(protocol.root);
        let reason = format!("the version of the format is {found}, expected {PROTOCOL}");
        return Err(PickleError::Broken { offset, reason });
    }
    let (machine, offset) = next()?;
    if let Node::Dict(pairs) = machine.node(machine.root)
        && pairs.iter().any(|(key, value)| {
            machine.text(*key) == Some("little_endian") && matches!(machine.node(*value), Node::Bool(false))
        })
    {
        let reason =
            "its numbers are in big-endian byte order; save it again on a little-endian machine".to_owned();
        return Err(PickleError::Broken { offset, reason });
    }
    let (objects, _) = next()?;
    let (keys, end) = next()?;
    Ok((objects, keys, end))
}

fn storage_keys(keys: &Pickle<'_>, origin: &str) -> Result<Vec<String>, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Damaged {
        file: origin.to_owned(),
        container: "PyTorch file",
        reason,
    };
    let Node::List(items) = keys.node(keys.root) else {
        return Err(damaged(format!("its storage keys are {}", keys.describe(keys.root))));
    };
    if items.len() > MAX_STORAGES {
        return Err(damaged(format!("it has {} storages, more than {MAX_STORAGES}", items.len())));
    }
    let text = |item: &pickle::Handle| keys.text(*item).map(str::to_owned);
    items
        .iter()
        .map(text)
        .collect::<Option<_>>()
        .ok_or_else(|| damaged("a storage key is no text".to_owned()))
}

/// Number types of the storages, which the list of keys does not state.
fn dtypes(objects: &Pickle<'_>) -> HashMap<String, Dtype> {
    objects.storages().map(|storage| (storage.key.to_owned(), storage.dtype)).collect()
}

/// The storages behind the pickles.
struct LegacyStorages<'a> {
    bytes: &'a CheckpointBytes,
    starts: HashMap<String, Range<u64>>,
    order: Vec<String>,
    /// Index in `order` of the first storage that is not in `starts`.
    next: usize,
    /// Where that storage begins.
    at: u64,
    dtypes: HashMap<String, Dtype>,
}

impl LegacyStorages<'_> {
    /// Locates the next storage in file order.
    fn locate_next(&mut self) -> Result<(), CheckpointError> {
        let key = self.order[self.next].clone();
        let damaged = |reason: String| CheckpointError::Damaged {
            file: self.bytes.origin().to_owned(),
            container: "PyTorch file",
            reason,
        };
        let mut count = [0; 8];
        self.bytes.read_at(self.at, &mut count)?;
        let count = u64::from_le_bytes(count);
        let width = self.dtypes.get(&key).and_then(|dtype| dtype.bytes());
        let width = width.ok_or_else(|| damaged(format!("storage {key:?} has an unknown number type")))?;
        let start = self.at + 8;
        let end = count.checked_mul(width as u64).and_then(|bytes| start.checked_add(bytes));
        let end = end.filter(|end| *end <= self.bytes.len()).ok_or_else(|| CheckpointError::Truncated {
            file: self.bytes.origin().to_owned(),
            what: format!("storage {key:?} of {count} elements"),
            needed: count.saturating_mul(width as u64),
            available: self.bytes.len().saturating_sub(start),
        })?;
        self.starts.insert(key, start..end);
        (self.next, self.at) = (self.next + 1, end);
        Ok(())
    }
}

impl StorageSource for LegacyStorages<'_> {
    fn load(&mut self, key: &str, _: Dtype, _: &mut Vec<Vec<u8>>) -> Result<StorageSpan, CheckpointError> {
        while !self.starts.contains_key(key) {
            if self.next == self.order.len() {
                return Err(CheckpointError::Damaged {
                    file: self.bytes.origin().to_owned(),
                    container: "PyTorch file",
                    reason: format!("storage {:?} is missing", super::printable(key)),
                });
            }
            self.locate_next()?;
        }
        let range = self.starts.get(key).cloned().unwrap_or_default();
        let bytes = range.end - range.start;
        Ok(StorageSpan { location: TensorLocation::File { range, member: None }, bytes })
    }
}
