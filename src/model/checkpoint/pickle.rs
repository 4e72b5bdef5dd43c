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

pub(super) use machine::read;

/// Index of a value in the arena.
pub(super) type Handle = u32;

/// Largest accepted pickle. That of a training checkpoint with its optimizer takes about two megabytes.
pub(super) const MAX_BYTES: usize = 62 << 20;
/// Most instructions. Training checkpoints keep the loss of every step, one instruction each.
const MAX_INSTRUCTIONS: usize = 8 << 20;
/// Most values in the arena, and most in the memo. All floats share one value.
const MAX_VALUES: usize = 2 << 20;
/// Most pairs that all calls together copy: a few bytes can request a copy of the same list many times.
const MAX_COPIES: usize = 1 << 20;
/// Most values on the stack at once.
const MAX_STACK: usize = 1 << 20;
/// Longest text, in bytes.
const MAX_TEXT: usize = 16 << 20;
/// Longest name of a Python module, class or function, in bytes.
const MAX_GLOBAL: usize = 1 << 10;
/// Most dimensions of a tensor.
const MAX_AXES: usize = 16;

/// A value that the pickle builds. Texts are slices of the pickle.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Bool,
    Int(i64),
    Text(&'a str),
    Tuple(Box<[Handle]>),
    List(Vec<Handle>),
    /// Pairs in the order they were set; for equal keys the last one wins.
    Dict(Vec<(Handle, Handle)>),
    /// An imported name, not called.
    Global(&'a str, &'a str),
    Storage(Box<Storage<'a>>),
    Tensor(Box<Tensor>),
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

    pub fn text(&self, handle: Handle) -> Option<&'a str> {
        match self.node(handle) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether a dict entry is a tensor under a text key, of a supported kind or not.
    pub fn is_named_tensor(&self, key: Handle, value: Handle) -> bool {
        let tensor = matches!(self.node(value), Node::Tensor(_)) || self.foreign_tensor(value).is_some();
        tensor && matches!(self.node(key), Node::Text(_))
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
        let shape = self.counts(tensor.size, "shape")?;
        let strides = self.counts(tensor.stride, "strides")?;
        if shape.len() != strides.len() {
            return Err(format!("it has {} axes and {} strides", shape.len(), strides.len()));
        }
        Ok(TensorLayout { storage, offset, shape, strides })
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
            Node::Bool => f.write_str("a truth value"),
            Node::Int(value) => write!(f, "the number {value}"),
            Node::Text(text) => write!(f, "the text {:?}", text.chars().take(40).collect::<String>()),
            Node::Tuple(items) => write!(f, "a tuple of {}", items.len()),
            Node::List(items) => write!(f, "a list of {}", items.len()),
            Node::Dict(pairs) => write!(f, "a dict of {}", pairs.len()),
            Node::Global(module, name) => write!(f, "the Python name {}", DottedName(module, name)),
            Node::Storage(storage) => write!(f, "a storage of {} {}", storage.elements, storage.dtype),
            Node::Tensor(_) => f.write_str("a tensor"),
            Node::Object(module, name) => write!(f, "a Python object of {}", DottedName(module, name)),
            Node::Opaque(what) => f.write_str(what),
        }
    }
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
