//! Reading the zip archives of `torch.save`.
//!
//! An archive holds, in one folder, `data.pkl` (the objects), `data/{key}` (the numbers of each storage) and `byteorder`.
//! PyTorch stores the numbers uncompressed, so tensors are views of the file. Compressed entries of repacked archives are
//! decompressed into memory.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::ops::Range;

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Node, Pickle, PickleError, TensorLayout};
use super::tensor::{TensorEntry, TensorLocation};
use super::{CheckpointError, ContainerContents, MAX_NAME_BYTES, layout, printable};

/// Most entries of an archive. Each takes a few hundred bytes of memory while the file is read.
const MAX_ENTRIES: u64 = 1 << 20;
/// Most tensors of a checkpoint. A large model has a few thousand.
const MAX_TENSORS: usize = 1 << 18;
/// Decompressed storages may be this many times the size of the file, because floats hardly compress.
const MAX_INFLATION: u64 = 4;
/// Additional allowance in bytes, for small files.
const FREE_INFLATION: u64 = 16 << 20;
/// Longest key of a storage. PyTorch uses numbers.
const MAX_KEY_BYTES: usize = 128;
/// Most elements of a broadcast view, which has more elements than its storage.
const MAX_BROADCAST: usize = 1 << 20;
/// Most elements of all tensors for each byte present. A number takes at least one byte, so up to four tensors may share
/// every byte; real files share position frequencies and perhaps a tied weight.
const MAX_SHARING: usize = 4;
/// Additional allowance in elements, for small files.
const FREE_SHARING: usize = 16 << 20;

const NO_TORCHSCRIPT: &str =
    "TorchScript holds programs; save the model's `state_dict()` with torch.save instead";
const LITTLE_ENDIAN: &str = "save it again on a little-endian machine";

type Zip<'a> = ZipArchive<Cursor<&'a [u8]>>;

pub(super) fn read(file: &[u8], origin: &str) -> Result<ContainerContents, CheckpointError> {
    let mut archive = Archive::open(file, origin)?;
    archive.refuse_other_kinds()?;
    let index = archive.load(&format!("{}data.pkl", archive.root), pickle::MAX_BYTES as u64)?;
    let index = index.as_bytes(file);
    let pickle = pickle::read(index).map_err(|error| match error {
        PickleError::Broken { offset, reason } => {
            CheckpointError::Pickle { file: origin.to_owned(), offset, reason }
        }
        PickleError::Hostile { global } => CheckpointError::Hostile { file: origin.to_owned(), global },
    })?;
    let weights = layout::find(&pickle).ok_or_else(|| no_weights(&pickle, origin))?;
    let mut storages = Storages::default();
    let mut skipped = Vec::new();
    let mut tensors = BTreeMap::new();
    if weights.pairs.len() > MAX_TENSORS {
        return Err(archive
            .damaged(format!("{} entries where weights are, more than {MAX_TENSORS}", weights.pairs.len())));
    }
    for (key, value) in weights.pairs {
        let Some(name) = pickle.text(*key) else {
            skipped.push(pickle.describe(*key).to_string());
            continue;
        };
        match pickle.node(*value) {
            Node::Tensor(tensor) => {
                // One text may be shared by any number of keys, so its copies are limited.
                if name.len() > MAX_NAME_BYTES {
                    let reason =
                        format!("its name has {} bytes, more than the limit of {MAX_NAME_BYTES}", name.len());
                    return Err(TensorProblem::Tensor(reason).into_error(name, origin));
                }
                let entry = pickle
                    .tensor(tensor)
                    .map_err(TensorProblem::Tensor)
                    .and_then(|tensor| storages.tensor_entry(&mut archive, &tensor))
                    .map_err(|problem| problem.into_error(name, origin))?;
                tensors.insert(name.to_owned(), entry);
            }
            _ => match pickle.foreign_tensor(*value) {
                Some(function) => {
                    let reason =
                        format!("built by {function}, a kind of tensor that is not supported; save it dense");
                    return Err(TensorProblem::Tensor(reason).into_error(name, origin));
                }
                None => skipped.push(printable(name)),
            },
        }
    }
    let wrapper = (!weights.path.is_empty()).then(|| weights.path.join("."));
    Ok(ContainerContents {
        wrapper,
        metadata: BTreeMap::new(),
        skipped,
        inflated: storages.inflated,
        tensors,
    })
}

fn no_weights(pickle: &Pickle<'_>, origin: &str) -> CheckpointError {
    let mut found = format!("the file holds {}", pickle.describe(pickle.root));
    if let Node::Dict(pairs) = pickle.node(pickle.root) {
        let texts = pairs.iter().filter_map(|(key, _)| pickle.text(*key));
        let keys: Vec<String> = texts.take(8).map(printable).collect();
        if !keys.is_empty() {
            found = format!("the keys at the top are {keys:?}, and none leads to tensors");
        }
    }
    CheckpointError::NoWeights { file: origin.to_owned(), found }
}

/// An error in one tensor, or in the archive.
enum TensorProblem {
    Tensor(String),
    File(CheckpointError),
}

impl TensorProblem {
    fn into_error(self, name: &str, origin: &str) -> CheckpointError {
        match self {
            Self::Tensor(reason) => {
                CheckpointError::Tensor { file: origin.to_owned(), name: printable(name), reason }
            }
            Self::File(error) => error,
        }
    }
}

impl From<CheckpointError> for TensorProblem {
    fn from(error: CheckpointError) -> Self {
        Self::File(error)
    }
}

/// The zip file and its entries by name.
struct Archive<'a> {
    file: &'a [u8],
    origin: &'a str,
    zip: Zip<'a>,
    /// The folder everything is in, with its slash.
    root: String,
}

/// An entry's bytes: where they lie, or unpacked.
enum EntryBytes {
    Stored(Range<usize>),
    Inflated(Vec<u8>),
}

impl EntryBytes {
    fn as_bytes<'a>(&'a self, file: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Stored(range) => file.get(range.clone()).unwrap_or_default(),
            Self::Inflated(bytes) => bytes,
        }
    }
}

impl<'a> Archive<'a> {
    fn open(file: &'a [u8], origin: &'a str) -> Result<Self, CheckpointError> {
        let damaged = |reason: String| CheckpointError::Damaged {
            file: origin.to_owned(),
            container: "zip archive",
            reason,
        };
        match directory_entries(file) {
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
        let zip = Zip::new(Cursor::new(file)).map_err(|error| damaged(error.to_string()))?;
        let root = zip.file_names().find_map(|name| match name.strip_suffix("data.pkl")? {
            "" => Some(String::new()),
            folder => folder.ends_with('/').then(|| folder.to_owned()),
        });
        let Some(root) = root else {
            let scripted = zip.file_names().any(|name| name.ends_with("constants.pkl"));
            if scripted {
                return Err(torchscript(origin));
            }
            let names: Vec<String> = zip.file_names().take(4).map(printable).collect();
            let found = format!(
                "a zip archive without data.pkl that holds {names:?} (unpack it, if a checkpoint is inside)"
            );
            return Err(CheckpointError::NotACheckpoint { file: origin.to_owned(), found });
        };
        Ok(Self { file, origin, zip, root })
    }

    fn refuse_other_kinds(&mut self) -> Result<(), CheckpointError> {
        let code = format!("{}code/", self.root);
        let constants = format!("{}constants.pkl", self.root);
        if self.zip.file_names().any(|name| name == constants || name.starts_with(&code)) {
            return Err(torchscript(self.origin));
        }
        let byteorder = format!("{}byteorder", self.root);
        if self.zip.index_for_name(&byteorder).is_some() {
            let order = self.load(&byteorder, 64)?;
            let order = String::from_utf8_lossy(order.as_bytes(self.file)).trim().to_owned();
            if order != "little" {
                return Err(CheckpointError::Unsupported {
                    file: self.origin.to_owned(),
                    found: format!("its numbers are in {order:?} byte order"),
                    advice: LITTLE_ENDIAN,
                });
            }
        }
        Ok(())
    }

    fn damaged(&self, reason: String) -> CheckpointError {
        CheckpointError::Damaged { file: self.origin.to_owned(), container: "zip archive", reason }
    }

    /// Finds an entry. Decompresses it when it is compressed and has at most `limit` bytes.
    fn load(&mut self, name: &str, limit: u64) -> Result<EntryBytes, CheckpointError> {
        let (file, origin) = (self.file, self.origin);
        let damaged = |reason: String| CheckpointError::Damaged {
            file: origin.to_owned(),
            container: "zip archive",
            reason,
        };
        let mut entry = self.zip.by_name(name).map_err(|error| match error {
            ZipError::FileNotFound => damaged(format!("the entry {name:?} is missing")),
            error => damaged(format!("entry {name:?}: {error}")),
        })?;
        let size = entry.size();
        if entry.compression() == CompressionMethod::Stored {
            let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
            let end = start.and_then(|start| start.checked_add(usize::try_from(size).ok()?));
            return match start.zip(end) {
                Some((start, end)) if end <= file.len() => Ok(EntryBytes::Stored(start..end)),
                _ => {
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
        Ok(EntryBytes::Inflated(bytes))
    }
}

fn torchscript(origin: &str) -> CheckpointError {
    CheckpointError::Unsupported {
        file: origin.to_owned(),
        found: "a TorchScript archive".to_owned(),
        advice: NO_TORCHSCRIPT,
    }
}

/// The number of entries stated in the directory at the end of the file; `None` when there is no directory.
fn directory_entries(file: &[u8]) -> Option<u64> {
    const END: usize = 22;
    const LONGEST_COMMENT: usize = 65535;
    let from = file.len().saturating_sub(END + LONGEST_COMMENT);
    let tail = &file[from..];
    let at = from + tail.windows(END).rposition(|window| window.starts_with(b"PK\x05\x06"))?;
    let entries = u16::from_le_bytes(*file.get(at + 10..)?.first_chunk()?);
    if entries != u16::MAX {
        return Some(u64::from(entries));
    }
    Some(zip64_entries(file, at).unwrap_or(u64::from(entries)))
}

/// The number of entries stated in the zip64 directory, found through the locator before the directory at `end`.
fn zip64_entries(file: &[u8], end: usize) -> Option<u64> {
    let locator = file.get(end.checked_sub(20)?..end)?.strip_prefix(b"PK\x06\x07")?;
    let offset = u64::from_le_bytes(*locator.get(4..)?.first_chunk()?);
    let record = file.get(usize::try_from(offset).ok()?..)?;
    Some(u64::from_le_bytes(*record.get(32..)?.first_chunk()?))
}

/// The storages used so far, each loaded once.
#[derive(Default)]
struct Storages {
    locations: HashMap<String, TensorLocation>,
    inflated: Vec<Vec<u8>>,
    inflated_bytes: u64,
    /// Elements of all tensors so far; those of shared storages count repeatedly.
    elements: usize,
}

impl Storages {
    /// Locates a tensor in its storage and checks that every element lies inside it.
    fn tensor_entry(
        &mut self,
        archive: &mut Archive<'_>,
        tensor: &TensorLayout<'_>,
    ) -> Result<TensorEntry, TensorProblem> {
        let broken = |reason: String| TensorProblem::Tensor(reason);
        let storage = tensor.storage;
        let overflow =
            || broken(format!("its shape {:?} has more elements than can be counted", tensor.shape));
        // The number of elements, and the offset of the last one in the storage.
        let mut elements = 1_usize;
        let mut reach = tensor.offset;
        for (length, stride) in tensor.shape.iter().zip(&tensor.strides) {
            elements = elements.checked_mul(*length).ok_or_else(overflow)?;
            let step = length.saturating_sub(1).checked_mul(*stride).ok_or_else(overflow)?;
            reach = reach.checked_add(step).ok_or_else(overflow)?;
        }
        // `Dtype::Other` is checked as well, because the sizes of the network are taken from shapes.
        let width = storage.dtype.least_bytes();
        let end = if elements == 0 { tensor.offset } else { reach.checked_add(1).ok_or_else(overflow)? };
        let claimed = usize::try_from(storage.elements)
            .map_err(|_| broken(format!("its storage claims {} elements", storage.elements)))?;
        if elements > 0 && end > claimed {
            return Err(broken(format!(
                "its shape {:?} reaches element {end} of a storage of {claimed}",
                tensor.shape
            )));
        }
        let location = self.locate(archive, storage.key)?.clone();
        let range = match &location {
            TensorLocation::File(range) | TensorLocation::Inflated(_, range) => range.clone(),
        };
        let available = range.len() / width;
        if elements > 0 && end > available {
            return Err(broken(format!("it needs {end} elements of a storage that holds {available}")));
        }
        if elements > available.max(MAX_BROADCAST) {
            return Err(broken(format!(
                "its shape {:?} repeats a storage of {available} elements",
                tensor.shape
            )));
        }
        self.elements = self.elements.saturating_add(elements);
        let held = archive.file.len().saturating_add(self.inflated_bytes as usize);
        let most = held.saturating_mul(MAX_SHARING).saturating_add(FREE_SHARING);
        if self.elements > most {
            return Err(broken(format!(
                "with it the tensors have {} elements, more than the limit of {most} for {held} bytes; they repeat \
                 the same storages",
                self.elements
            )));
        }
        let from = range.start + tensor.offset.min(available) * width;
        let to = range.start + end.min(available) * width;
        let view = from.min(to)..to;
        let location = match location {
            TensorLocation::File(_) => TensorLocation::File(view),
            TensorLocation::Inflated(index, _) => TensorLocation::Inflated(index, view),
        };
        let strides = (!is_contiguous(&tensor.shape, &tensor.strides)).then(|| tensor.strides.clone());
        Ok(TensorEntry { dtype: storage.dtype, shape: tensor.shape.clone(), strides, location })
    }

    fn locate(&mut self, archive: &mut Archive<'_>, key: &str) -> Result<&TensorLocation, CheckpointError> {
        if !self.locations.contains_key(key) {
            if key.len() > MAX_KEY_BYTES {
                let reason = format!("a storage is named by a text of {} bytes", key.len());
                return Err(archive.damaged(reason));
            }
            let limit = (archive.file.len() as u64)
                .saturating_mul(MAX_INFLATION)
                .saturating_add(FREE_INFLATION)
                .saturating_sub(self.inflated_bytes);
            let location = match archive.load(&format!("{}data/{key}", archive.root), limit)? {
                EntryBytes::Stored(range) => TensorLocation::File(range),
                EntryBytes::Inflated(bytes) => {
                    self.inflated_bytes += bytes.len() as u64;
                    let range = 0..bytes.len();
                    self.inflated.push(bytes);
                    TensorLocation::Inflated(self.inflated.len() - 1, range)
                }
            };
            self.locations.insert(key.to_owned(), location);
        }
        Ok(&self.locations[key])
    }
}

/// Whether the elements lie in order without gaps. Dimensions of length 1 may have any stride.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1_usize;
    for (length, stride) in shape.iter().zip(strides).rev() {
        if *length != 1 && *stride != expected && !shape.contains(&0) {
            return false;
        }
        expected = expected.saturating_mul(*length);
    }
    true
}
