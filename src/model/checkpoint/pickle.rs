//! A reader for the pickles of `torch.save` that executes nothing.
//!
//! A pickle is a program for a stack machine; two of its instructions import a Python name and call it. Here a call of
//! one of the few functions that build tensors becomes a [`Node`]. A call of any other function becomes an opaque node.
//! A name that only malware needs (`os.system`) is an error.
//!
//! Values live in an arena and refer to each other by index, so shared and circular values cost nothing and nothing here
//! recurses. The numbers of values, instructions, stack entries and text bytes are limited, which bounds memory: a value
//! takes about a hundred bytes and an instruction at most one handle in a list, less than half a gigabyte in all.

mod arena;
mod call;
mod machine;

use std::fmt;
use std::hash::{Hash as _, Hasher as _};

pub(super) use machine::{read, read_first};

/// Index of a value in the arena.
pub(super) type Handle = u32;

/// Largest accepted pickle. That of a training checkpoint with its optimizer takes about two megabytes, but NumPy arrays lie
/// in the pickle itself.
pub(super) const MAX_BYTES: usize = u32::MAX as usize;
/// Most instructions. Training checkpoints keep the loss of every step, one instruction each.
const MAX_INSTRUCTIONS: usize = 8 << 20;
/// Most values in the arena, and most in the memo. All floats share one value.
const MAX_VALUES: usize = 2 << 20;
/// Most pairs that all calls together copy: a few bytes can request a copy of the same list many times.
const MAX_COPIES: usize = 1 << 20;
/// Most values on the stack at once.
const MAX_STACK: usize = 1 << 20;
/// Longest text, in bytes. In protocol 2, the numbers of a NumPy array are a text.
const MAX_TEXT: usize = 256 << 20;
/// Longest name of a Python module, class or function, in bytes.
const MAX_GLOBAL: usize = 1 << 10;
/// Most dimensions of a tensor.
const MAX_AXES: usize = 16;

/// A value that the pickle builds. Texts are slices of the pickle.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Bytes written as a text of code points up to 255, as Python 3 writes them in protocol 2.
    Latin1(&'a str),
    Tuple(Box<[Handle]>),
    List(Vec<Handle>),
    /// Pairs in the order they were set; for equal keys the last one wins.
    Dict(Vec<(Handle, Handle)>),
    /// An imported name, not called.
    Global(&'a str, &'a str),
    Storage(Box<Storage<'a>>),
    Tensor(Box<Tensor>),
    /// A NumPy number type.
    NumpyDtype(NumpyDtype<'a>),
    /// A NumPy array; `None` until its state is set.
    NumpyArray(Option<Box<NumpyArray>>),
    /// The result of calling this Python name.
    Object(&'a str, &'a str),
    /// A value that is not needed here.
    Opaque(&'static str),
}

/// A block of numbers in the archive, entry `data/{key}`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub dtype: super::Dtype,
    pub key: &'a str,
    pub elements: i64,
    /// First element of a view of a storage; only in files from before PyTorch 0.4.
    pub view_offset: i64,
}

/// A NumPy number type, such as `f4`.
#[derive(Debug, Clone, Copy)]
pub(super) struct NumpyDtype<'a> {
    pub code: &'a str,
    pub big_endian: bool,
}

/// The state of a NumPy array, unchecked. [`Pickle::array`] checks those that are weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct NumpyArray {
    pub shape: Handle,
    pub dtype: Handle,
    /// `True` or `"F"` where the first dimension varies fastest.
    pub fortran: Handle,
    pub data: Handle,
}

/// A NumPy array whose state is valid.
#[derive(Debug)]
pub(super) struct ArrayLayout {
    pub dtype: super::Dtype,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
    pub data: Handle,
}

/// The arguments of a tensor, unchecked. [`Pickle::tensor`] checks those that are weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensor {
    storage: Handle,
    offset: Handle,
    size: Handle,
    stride: Handle,
    /// Number type, where the storage is untyped and counts bytes.
    dtype: Option<super::Dtype>,
}

/// A tensor whose arguments have valid types and no negative numbers.
#[derive(Debug)]
pub(super) struct TensorLayout<'a> {
    pub storage: Storage<'a>,
    /// In elements.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
}

/// Why a pickle cannot be read.
#[derive(Debug)]
pub(super) enum PickleError {
    Broken { offset: usize, reason: String },
    Hostile { global: String },
}

impl PickleError {
    pub fn into_checkpoint_error(self, origin: &str) -> super::CheckpointError {
        let file = origin.to_owned();
        match self {
            Self::Broken { offset, reason } => super::CheckpointError::Pickle { file, offset, reason },
            Self::Hostile { global } => super::CheckpointError::Hostile { file, global },
        }
    }
}

/// All values of a pickle.
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    pub root: Handle,
}

impl<'a> Pickle<'a> {
    pub fn node(&self, handle: Handle) -> &Node<'a> {
        // Every handle is created with its node, so the default is never used.
        self.nodes.get(handle as usize).unwrap_or(&Node::None)
    }

    /// All storages, in the order of the file.
    pub fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    pub fn text(&self, handle: Handle) -> Option<&'a str> {
        match self.node(handle) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether a value is a tensor or an array, of a supported kind or not.
    pub fn is_tensor(&self, value: Handle) -> bool {
        match self.node(value) {
            Node::Tensor(_) => true,
            Node::NumpyArray(Some(array)) => self.holds_numbers(array),
            _ => self.foreign_tensor(value).is_some(),
        }
    }

    /// Whether an array is one of numbers, and not of texts, dates or Python objects.
    fn holds_numbers(&self, array: &NumpyArray) -> bool {
        match self.node(array.dtype) {
            Node::NumpyDtype(NumpyDtype { code, .. }) => {
                !code.starts_with(['O', 'S', 'U', 'V', 'M', 'm', 'a'])
            }
            _ => true,
        }
    }

    /// Whether a value is a tensor of floating-point numbers.
    pub fn is_float_tensor(&self, value: Handle) -> bool {
        match self.node(value) {
            Node::Tensor(tensor) => self.tensor(tensor).is_ok_and(|layout| layout.storage.dtype.is_float()),
            Node::NumpyArray(Some(array)) => self.array(array).is_ok_and(|layout| layout.dtype.is_float()),
            _ => false,
        }
    }

    /// Shape of a tensor or array.
    pub fn shape(&self, value: Handle) -> Option<Vec<usize>> {
        match self.node(value) {
            Node::Tensor(tensor) => Some(self.tensor(tensor).ok()?.shape),
            Node::NumpyArray(Some(array)) => Some(self.array(array).ok()?.shape),
            _ => None,
        }
    }

    /// A number that is equal for tensors with the same storage and offset.
    pub fn identity(&self, value: Handle) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        match self.node(value) {
            Node::Tensor(tensor) => match (self.node(tensor.storage), self.node(tensor.offset)) {
                (Node::Storage(storage), Node::Int(offset)) => (storage.key, *offset).hash(&mut hasher),
                _ => value.hash(&mut hasher),
            },
            _ => value.hash(&mut hasher),
        }
        hasher.finish()
    }

    /// The PyTorch function that builds this tensor, when its kind is not supported.
    pub fn foreign_tensor(&self, value: Handle) -> Option<DottedName<'a>> {
        match self.node(value) {
            Node::Object(module, name) if module.starts_with("torch") && name.starts_with("_rebuild") => {
                Some(DottedName(module, name))
            }
            _ => None,
        }
    }

    /// Checks the arguments of a tensor; the error says which one is invalid.
    pub fn tensor(&self, tensor: &Tensor) -> Result<TensorLayout<'a>, String> {
        let Node::Storage(storage) = self.node(tensor.storage) else {
            return Err(format!("its storage is {} instead of a storage", self.describe(tensor.storage)));
        };
        let mut storage = **storage;
        if let Some(dtype) = tensor.dtype {
            storage.elements /= dtype.bytes().unwrap_or(1) as i64;
            storage.dtype = dtype;
        }
        let offset = self.count(tensor.offset, "storage offset")?;
        let view = usize::try_from(storage.view_offset)
            .map_err(|_| format!("its storage begins at element {}", storage.view_offset))?;
        let offset = offset.checked_add(view).ok_or("its storage offset is out of range")?;
        let shape = self.counts(tensor.size, "shape")?;
        let strides = self.counts(tensor.stride, "strides")?;
        if shape.len() != strides.len() {
            return Err(format!("it has {} axes and {} strides", shape.len(), strides.len()));
        }
        Ok(TensorLayout { storage, offset, shape, strides })
    }

    /// Checks the state of an array; the error says what is invalid.
    pub fn array(&self, array: &NumpyArray) -> Result<ArrayLayout, String> {
        let Node::NumpyDtype(NumpyDtype { code, big_endian }) = self.node(array.dtype) else {
            return Err(format!("its number type is {}", self.describe(array.dtype)));
        };
        let dtype = numpy_dtype(code).ok_or_else(|| format!("its NumPy number type is {code:.20?}"))?;
        if *big_endian && dtype.bytes() != Some(1) {
            return Err("its numbers are in big-endian byte order; save it on a little-endian machine".into());
        }
        let shape = self.counts(array.shape, "shape")?;
        let mut strides = vec![1_usize; shape.len()];
        let too_large = || "its shape has more elements than can be counted".to_owned();
        if matches!(self.node(array.fortran), Node::Bool(true) | Node::Text("F")) {
            for axis in 1..shape.len() {
                strides[axis] =
                    strides[axis - 1].checked_mul(shape[axis - 1].max(1)).ok_or_else(too_large)?;
            }
        } else {
            for axis in (1..shape.len()).rev() {
                strides[axis - 1] = strides[axis].checked_mul(shape[axis].max(1)).ok_or_else(too_large)?;
            }
        }
        Ok(ArrayLayout { dtype, shape, strides, data: array.data })
    }

    /// The bytes of a value, decoded where they are a text.
    pub fn bytes(&self, handle: Handle) -> Option<std::borrow::Cow<'a, [u8]>> {
        match self.node(handle) {
            Node::Bytes(bytes) => Some(std::borrow::Cow::Borrowed(bytes)),
            Node::Latin1(text) => {
                text.chars().map(|c| u8::try_from(c).ok()).collect::<Option<Vec<u8>>>().map(Into::into)
            }
            _ => None,
        }
    }

    fn count(&self, handle: Handle, what: &str) -> Result<usize, String> {
        match self.node(handle) {
            Node::Int(value) => {
                usize::try_from(*value).map_err(|_| format!("its {what} {value} is out of range"))
            }
            _ => Err(format!("its {what} is {} instead of a whole number", self.describe(handle))),
        }
    }

    fn counts(&self, handle: Handle, what: &str) -> Result<Vec<usize>, String> {
        let items = match self.node(handle) {
            Node::Tuple(items) => &items[..],
            Node::List(items) => &items[..],
            _ => return Err(format!("its {what} is {} instead of a tuple", self.describe(handle))),
        };
        if items.len() > MAX_AXES {
            return Err(format!("its {what} has {} axes, more than {MAX_AXES}", items.len()));
        }
        items.iter().map(|item| self.count(*item, what)).collect()
    }

    /// A short description of a value, for messages.
    pub fn describe(&self, handle: Handle) -> Description<'_, 'a> {
        Description(self.node(handle))
    }
}

/// Displays a node in a few words.
pub(super) struct Description<'n, 'a>(&'n Node<'a>);

impl fmt::Display for Description<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Node::None => f.write_str("None"),
            Node::Bool(_) => f.write_str("a truth value"),
            Node::Int(value) => write!(f, "the number {value}"),
            Node::Text(text) => write!(f, "the text {:?}", text.chars().take(40).collect::<String>()),
            Node::Tuple(items) => write!(f, "a tuple of {}", items.len()),
            Node::List(items) => write!(f, "a list of {}", items.len()),
            Node::Dict(pairs) => write!(f, "a dict of {}", pairs.len()),
            Node::Global(module, name) => write!(f, "the Python name {}", DottedName(module, name)),
            Node::Storage(storage) => write!(f, "a storage of {} {}", storage.elements, storage.dtype),
            Node::Tensor(_) => f.write_str("a tensor"),
            Node::Bytes(_) | Node::Latin1(_) => f.write_str("bytes"),
            Node::NumpyDtype(_) => f.write_str("a NumPy number type"),
            Node::NumpyArray(_) => f.write_str("a NumPy array"),
            Node::Object(module, name) => write!(f, "a Python object of {}", DottedName(module, name)),
            Node::Opaque(what) => f.write_str(what),
        }
    }
}

/// Number type of a NumPy type code.
fn numpy_dtype(code: &str) -> Option<super::Dtype> {
    use super::Dtype;
    Some(match code {
        "f4" => Dtype::F32,
        "f2" => Dtype::F16,
        "f8" => Dtype::F64,
        "c8" => Dtype::Complex64,
        "c16" => Dtype::Complex128,
        "i1" => Dtype::I8,
        "u1" => Dtype::U8,
        "i2" => Dtype::I16,
        "u2" => Dtype::U16,
        "i4" => Dtype::I32,
        "u4" => Dtype::U32,
        "i8" => Dtype::I64,
        "u8" => Dtype::U64,
        "b1" => Dtype::Bool,
        _ => return None,
    })
}

/// A Python name, shortened when it is too long to print.
pub(super) struct DottedName<'a>(pub &'a str, pub &'a str);

impl fmt::Display for DottedName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [self.0, ".", self.1] {
            for c in part.chars().take(80).flat_map(char::escape_debug) {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}
