//! From the objects of a pickle and the storages beside it to the tensors of a checkpoint.

use std::collections::HashMap;

use super::bytes::CheckpointBytes;
use super::layout::{self, FoundDict};
use super::networks::{self, TensorDict};
use super::pickle::{ArrayLayout, Handle, Node, Pickle, TensorLayout};
use super::tensor::{TensorEntry, TensorLocation};
use super::{CheckpointError, ContainerContents, Dtype, MAX_NAME_BYTES, printable};

/// Most tensors of a checkpoint. A large model has a few thousand.
const MAX_TENSORS: usize = 1 << 18;
/// Most elements of a broadcast view, which has more elements than its storage.
const MAX_BROADCAST: usize = 1 << 20;
/// Most elements of all tensors for each byte present. A number takes at least one byte, so up to four tensors may share
/// every byte; real files share position frequencies and perhaps a tied weight.
const MAX_SHARING: usize = 4;
/// Additional allowance in elements, for small files.
const FREE_SHARING: usize = 16 << 20;

/// Access to the storages of a file by their keys.
pub(super) trait StorageSource {
    /// Finds a storage, and decompresses it into `buffers` where it is compressed.
    fn load(
        &mut self,
        key: &str,
        dtype: Dtype,
        buffers: &mut Vec<Vec<u8>>,
    ) -> Result<StorageSpan, CheckpointError>;
}

/// A whole storage.
#[derive(Clone)]
pub(super) struct StorageSpan {
    pub location: TensorLocation,
    pub bytes: u64,
}

/// Finds the network in a pickle and locates its tensors.
pub(super) fn read(
    pickle: &Pickle<'_>,
    bytes: &CheckpointBytes,
    storages: &mut dyn StorageSource,
    wanted: Option<&str>,
) -> Result<ContainerContents, CheckpointError> {
    let origin = bytes.origin();
    let found = layout::find(pickle);
    let total: usize = found.dicts.iter().map(|dict| dict.tensors.len()).sum();
    let mut dicts: Vec<&FoundDict<'_>> = found.dicts.iter().collect();
    if total > 4 * MAX_TENSORS {
        return Err(too_many(origin, total));
    }
    let named: Vec<TensorDict> = dicts.iter().map(|dict| tensor_dict(pickle, dict)).collect();
    let choice = networks::choose(&named, wanted).map_err(|error| error.into_checkpoint_error(origin))?;
    let mut contents = ContainerContents::default();
    let (dict, tensors) = match choice {
        Some(choice) => {
            contents.prefix = choice.prefix;
            contents.leftovers = choice.leftovers;
            contents.alternatives = choice.alternatives;
            (dicts.swap_remove(choice.dict), choice.tensors)
        }
        None => {
            let at = layout::most_likely(&found.dicts).ok_or_else(|| no_weights(pickle, origin))?;
            let (prefix, tensors, leftovers) = networks::strip_known_prefixes(&named[at].names);
            (contents.prefix, contents.leftovers) = (prefix, leftovers);
            (dicts.swap_remove(at), tensors)
        }
    };
    if tensors.len() > MAX_TENSORS {
        return Err(too_many(origin, tensors.len()));
    }
    contents.wrapper = (!dict.path.is_empty()).then(|| dict.path.join("."));
    contents.skipped.clone_from(&dict.others);
    // Averages that are there and not used are reported, since they would be preferred.
    contents
        .leftovers
        .extend(found.unmatched.iter().map(|path| format!("{path} (matches no weights by order and shape)")));
    let mut reader = TensorReader {
        pickle,
        storages,
        held: bytes.len(),
        spans: HashMap::new(),
        arrays: HashMap::new(),
        buffers: Vec::new(),
        buffer_bytes: (0, 0),
        elements: 0,
    };
    for (name, at) in tensors {
        let (stored_name, value) = dict.tensors[at];
        // One text may be shared by any number of keys, so its copies are limited.
        if stored_name.len() > MAX_NAME_BYTES {
            let reason =
                format!("its name has {} bytes, more than the limit of {MAX_NAME_BYTES}", stored_name.len());
            return Err(TensorProblem::Tensor(reason).into_error(stored_name, origin));
        }
        let entry = reader.entry(value).map_err(|problem| problem.into_error(stored_name, origin))?;
        contents.tensors.insert(name, entry);
    }
    contents.buffers = reader.buffers;
    Ok(contents)
}

fn tensor_dict(pickle: &Pickle<'_>, dict: &FoundDict<'_>) -> TensorDict {
    // A text may be shared by many keys, so no long one is copied. Its length is an error later.
    let name = |text: &str| text.chars().take(MAX_NAME_BYTES + 1).collect();
    TensorDict {
        path: dict.path.clone(),
        names: dict.tensors.iter().map(|(text, _)| name(text)).collect(),
        identities: dict.tensors.iter().map(|(_, value)| pickle.identity(*value)).collect(),
    }
}

fn too_many(origin: &str, count: usize) -> CheckpointError {
    CheckpointError::Damaged {
        file: origin.to_owned(),
        container: "pickle",
        reason: format!("{count} tensors where weights are, more than {MAX_TENSORS}"),
    }
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
    if let Some((place, count)) = layout::unnamed_tensors(pickle) {
        found = format!("at {place} is a list of {count} tensors without names");
    }
    CheckpointError::NoWeights { file: origin.to_owned(), found }
}

/// An error in one tensor, or in the file.
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

/// Locates tensors in their storages. Each storage is loaded once.
struct TensorReader<'r, 'p> {
    pickle: &'r Pickle<'p>,
    storages: &'r mut dyn StorageSource,
    /// Bytes of the file.
    held: u64,
    spans: HashMap<&'p str, StorageSpan>,
    /// Buffers of the NumPy arrays so far, by the handle of their data.
    arrays: HashMap<Handle, usize>,
    buffers: Vec<Vec<u8>>,
    /// Buffers counted so far, and their bytes.
    buffer_bytes: (usize, usize),
    /// Elements of all tensors so far; those of shared storages count repeatedly.
    elements: usize,
}

impl<'p> TensorReader<'_, 'p> {
    fn entry(&mut self, value: Handle) -> Result<TensorEntry, TensorProblem> {
        match self.pickle.node(value) {
            Node::Tensor(tensor) => {
                let layout = self.pickle.tensor(tensor).map_err(TensorProblem::Tensor)?;
                self.tensor_entry(&layout)
            }
            Node::NumpyArray(Some(array)) => {
                let layout = self.pickle.array(array).map_err(TensorProblem::Tensor)?;
                self.array_entry(&layout)
            }
            _ => {
                let function =
                    self.pickle.foreign_tensor(value).map_or_else(String::new, |name| name.to_string());
                Err(TensorProblem::Tensor(format!(
                    "built by {function}, a kind of tensor that is not supported; save it dense"
                )))
            }
        }
    }

    /// Locates a tensor in its storage and checks that every element lies inside it.
    fn tensor_entry(&mut self, tensor: &TensorLayout<'p>) -> Result<TensorEntry, TensorProblem> {
        let storage = tensor.storage;
        let extent = Extent::of(&tensor.shape, &tensor.strides, tensor.offset)?;
        let claimed = usize::try_from(storage.elements).map_err(|_| {
            TensorProblem::Tensor(format!("its storage claims {} elements", storage.elements))
        })?;
        if extent.elements > 0 && extent.end > claimed {
            return Err(TensorProblem::Tensor(format!(
                "its shape {:?} reaches element {} of a storage of {claimed}",
                tensor.shape, extent.end
            )));
        }
        let span = match self.spans.get(storage.key) {
            Some(span) => span.clone(),
            None => {
                let span = self.storages.load(storage.key, storage.dtype, &mut self.buffers)?;
                self.spans.insert(storage.key, span.clone());
                span
            }
        };
        self.place(storage.dtype, &tensor.shape, &tensor.strides, &extent, tensor.offset, span)
    }

    fn array_entry(&mut self, array: &ArrayLayout) -> Result<TensorEntry, TensorProblem> {
        let extent = Extent::of(&array.shape, &array.strides, 0)?;
        let buffer = match self.arrays.get(&array.data) {
            Some(buffer) => *buffer,
            None => {
                let bytes = self.pickle.bytes(array.data).ok_or_else(|| {
                    TensorProblem::Tensor(format!("its numbers are {}", self.pickle.describe(array.data)))
                })?;
                self.buffers.push(bytes.into_owned());
                self.arrays.insert(array.data, self.buffers.len() - 1);
                self.buffers.len() - 1
            }
        };
        let bytes = self.buffers[buffer].len();
        let location = TensorLocation::Memory { buffer, range: 0..bytes };
        let span = StorageSpan { location, bytes: bytes as u64 };
        self.place(array.dtype, &array.shape, &array.strides, &extent, 0, span)
    }

    /// The entry of a tensor whose storage is `span`.
    fn place(
        &mut self,
        dtype: Dtype,
        shape: &[usize],
        strides: &[usize],
        extent: &Extent,
        offset: usize,
        span: StorageSpan,
    ) -> Result<TensorEntry, TensorProblem> {
        let &Extent { elements, end } = extent;
        // `Dtype::Other` is checked as well, because the sizes of the network are taken from shapes.
        let width = dtype.least_bytes();
        let available = usize::try_from(span.bytes).unwrap_or(usize::MAX) / width;
        if elements > 0 && end > available {
            return Err(TensorProblem::Tensor(format!(
                "it needs {end} elements of a storage that holds {available}"
            )));
        }
        if elements > available.max(MAX_BROADCAST) {
            return Err(TensorProblem::Tensor(format!(
                "its shape {shape:?} repeats a storage of {available} elements"
            )));
        }
        self.count(elements)?;
        let (from, to) = (offset.min(end).min(available) * width, end.min(available) * width);
        let location = match span.location {
            TensorLocation::File { range, member } => {
                TensorLocation::File { range: range.start + from as u64..range.start + to as u64, member }
            }
            TensorLocation::Memory { buffer, range } => {
                TensorLocation::Memory { buffer, range: range.start + from..range.start + to }
            }
        };
        let strides = (!is_contiguous(shape, strides)).then(|| strides.to_vec());
        Ok(TensorEntry { dtype, shape: shape.to_vec(), strides, location })
    }

    /// Counts the elements of all tensors against the bytes present.
    fn count(&mut self, elements: usize) -> Result<(), TensorProblem> {
        self.elements = self.elements.saturating_add(elements);
        let (counted, bytes) = &mut self.buffer_bytes;
        *bytes += self.buffers[*counted..].iter().map(Vec::len).sum::<usize>();
        *counted = self.buffers.len();
        let held = usize::try_from(self.held).unwrap_or(usize::MAX).saturating_add(*bytes);
        let most = held.saturating_mul(MAX_SHARING).saturating_add(FREE_SHARING);
        if self.elements > most {
            return Err(TensorProblem::Tensor(format!(
                "with it the tensors have {} elements, more than the limit of {most} for {held} bytes; they repeat \
                 the same storages",
                self.elements
            )));
        }
        Ok(())
    }
}

/// How far a tensor reaches.
struct Extent {
    elements: usize,
    /// One past the last element in the storage.
    end: usize,
}

impl Extent {
    fn of(shape: &[usize], strides: &[usize], offset: usize) -> Result<Self, TensorProblem> {
        let overflow =
            || TensorProblem::Tensor(format!("its shape {shape:?} has more elements than can be counted"));
        let mut elements = 1_usize;
        let mut reach = offset;
        for (length, stride) in shape.iter().zip(strides) {
            elements = elements.checked_mul(*length).ok_or_else(overflow)?;
            let step = length.saturating_sub(1).checked_mul(*stride).ok_or_else(overflow)?;
            reach = reach.checked_add(step).ok_or_else(overflow)?;
        }
        let end = if elements == 0 { offset } else { reach.checked_add(1).ok_or_else(overflow)? };
        Ok(Self { elements, end })
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
