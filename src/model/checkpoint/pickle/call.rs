//! The values that the calls of a pickle stand for. Nothing is called.

use super::arena::Arena;
use super::{Handle, Node, NumpyArray, NumpyDtype, Storage, Tensor};
use crate::model::checkpoint::Dtype;

/// Modules that weights never need and that can run programs. Nothing is executed here anyway; the list lets such a file
/// be reported as malware. Training checkpoints import other modules (numpy, pathlib, their own classes).
const HOSTILE_MODULES: [&str; 24] = [
    "os",
    "posix",
    "nt",
    "subprocess",
    "sys",
    "runpy",
    "socket",
    "shutil",
    "pty",
    "ctypes",
    "importlib",
    "webbrowser",
    "code",
    "codeop",
    "pdb",
    "bdb",
    "timeit",
    "commands",
    "popen2",
    "platform",
    "http",
    "urllib",
    "requests",
    "asyncio",
];
const HOSTILE_BUILTINS: [&str; 11] = [
    "eval",
    "exec",
    "execfile",
    "compile",
    "__import__",
    "open",
    "input",
    "breakpoint",
    "globals",
    "setattr",
    "delattr",
];

/// Longest list accepted by `OrderedDict(list)`. Python 2 wrote dicts of a few hundred entries this way.
const MAX_COPIED: usize = 4096;

/// Whether only malware would import this Python name.
pub(super) fn is_hostile(module: &str, name: &str) -> bool {
    let top = module.split('.').next().unwrap_or(module);
    match top {
        "builtins" | "__builtin__" => HOSTILE_BUILTINS.contains(&name.split('.').next().unwrap_or(name)),
        _ => HOSTILE_MODULES.contains(&top),
    }
}

/// Number type of a storage class; `None` for other names.
fn storage_dtype(module: &str, name: &str) -> Option<Dtype> {
    if !matches!(module, "torch" | "torch.cuda" | "torch.storage") {
        return None;
    }
    let dtype = match name.strip_suffix("Storage")? {
        "Float" => Dtype::F32,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::Bf16,
        "Double" => Dtype::F64,
        "Char" => Dtype::I8,
        "Byte" | "Untyped" => Dtype::U8,
        "Short" => Dtype::I16,
        "Int" => Dtype::I32,
        "Long" => Dtype::I64,
        "Bool" => Dtype::Bool,
        "ComplexFloat" => Dtype::Complex64,
        "ComplexDouble" => Dtype::Complex128,
        "ComplexHalf" => Dtype::Other("complex32"),
        "QInt8" | "QUInt8" | "QInt32" | "QUInt4x2" | "QUInt2x4" => Dtype::Other("quantised"),
        _ => Dtype::Other("unknown"),
    };
    Some(dtype)
}

/// Number type of a dtype global such as `torch.float32`.
fn named_dtype(name: &str) -> Dtype {
    match name {
        "float32" | "float" => Dtype::F32,
        "float16" | "half" => Dtype::F16,
        "bfloat16" => Dtype::Bf16,
        "float64" | "double" => Dtype::F64,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "int16" => Dtype::I16,
        "uint16" => Dtype::U16,
        "int32" => Dtype::I32,
        "uint32" => Dtype::U32,
        "int64" => Dtype::I64,
        "uint64" => Dtype::U64,
        "bool" => Dtype::Bool,
        "complex64" | "cfloat" => Dtype::Complex64,
        "complex128" | "cdouble" => Dtype::Complex128,
        "complex32" | "chalf" => Dtype::Other("complex32"),
        "float8_e4m3fn" => Dtype::F8E4M3,
        "float8_e5m2" => Dtype::F8E5M2,
        "float8_e4m3fnuz" => Dtype::F8E4M3Fnuz,
        "float8_e5m2fnuz" => Dtype::F8E5M2Fnuz,
        "float8_e8m0fnu" => Dtype::Other("float8_e8m0fnu"),
        "float4_e2m1fn_x2" => Dtype::Other("float4_e2m1fn_x2"),
        _ => Dtype::Other("unknown"),
    }
}

/// The result of a call: an existing value, or a new one.
enum CallResult<'a> {
    Existing(Handle),
    New(Node<'a>),
}

impl<'a> Arena<'a> {
    /// The value of `callee(*args)`: that of a known constructor, or an opaque one. An error when calls copy too much.
    pub(super) fn call(&mut self, callee: Handle, args: Handle) -> Result<Handle, String> {
        // Counted before the call is evaluated, because evaluation takes as long as the copy.
        self.count_copies(self.pairs_copied_by(callee, args))?;
        let outcome = match *self.node(callee) {
            Node::Global(module, name) => {
                let items = match self.node(args) {
                    Node::Tuple(items) => &items[..],
                    Node::List(items) => &items[..],
                    _ => &[],
                };
                self.construct(module, name, items).unwrap_or(CallResult::New(Node::Object(module, name)))
            }
            Node::Object(module, name) => CallResult::New(Node::Object(module, name)),
            _ => CallResult::New(Node::Opaque("a call of something that is no name")),
        };
        match outcome {
            CallResult::Existing(handle) => Ok(handle),
            CallResult::New(node) => Ok(self.add(node)),
        }
    }

    /// Number of pairs that a call copies from a list into a dict.
    fn pairs_copied_by(&self, callee: Handle, args: Handle) -> usize {
        let (Node::Global("collections", "OrderedDict" | "Counter"), Node::Tuple(args)) =
            (self.node(callee), self.node(args))
        else {
            return 0;
        };
        match args.first().map(|items| self.node(*items)) {
            Some(Node::List(items)) if items.len() <= MAX_COPIED => items.len(),
            _ => 0,
        }
    }

    fn construct(&self, module: &str, name: &str, args: &[Handle]) -> Option<CallResult<'a>> {
        match (module, name) {
            // Filled later, key by key. The only argument of defaultdict is the factory.
            ("collections", "OrderedDict" | "Counter") if args.is_empty() => {
                Some(CallResult::New(Node::Dict(Vec::new())))
            }
            ("collections", "defaultdict") => Some(CallResult::New(Node::Dict(Vec::new()))),
            ("builtins" | "__builtin__", "dict") if args.is_empty() => {
                Some(CallResult::New(Node::Dict(Vec::new())))
            }
            ("collections", "OrderedDict" | "Counter") => self.dict_of(*args.first()?),
            ("torch", "Size") => {
                let items = *args.first()?;
                matches!(self.node(items), Node::Tuple(_) | Node::List(_))
                    .then_some(CallResult::Existing(items))
            }
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => tensor(args),
            ("torch._utils", "_rebuild_tensor_v3") => self.retyped_tensor(args),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                let data = *args.first()?;
                matches!(self.node(data), Node::Tensor(_)).then_some(CallResult::Existing(data))
            }
            ("torch._tensor", "_rebuild_from_type_v2") => {
                // A tensor with Python attributes: (rebuild function, class, its arguments, attributes).
                let &[function, _, inner, ..] = args else { return None };
                match (self.node(function), self.node(inner)) {
                    (
                        Node::Global("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"),
                        Node::Tuple(inner),
                    ) => tensor(inner),
                    _ => None,
                }
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                Some(CallResult::New(Node::NumpyArray(None)))
            }
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => {
                let &[data, dtype, shape, order, ..] = args else { return None };
                let array = NumpyArray { shape, dtype, fortran: order, data };
                Some(CallResult::New(Node::NumpyArray(Some(Box::new(array)))))
            }
            ("numpy", "dtype") => match self.node(*args.first()?) {
                Node::Text(code) => {
                    Some(CallResult::New(Node::NumpyDtype(NumpyDtype { code, big_endian: false })))
                }
                _ => None,
            },
            ("_codecs", "encode") => match (self.node(*args.first()?), args.get(1).map(|h| self.node(*h))) {
                (Node::Text(text), Some(Node::Text("latin1" | "latin-1" | "iso-8859-1"))) => {
                    Some(CallResult::New(Node::Latin1(text)))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// BUILD: sets the state of a value. Only NumPy arrays and number types have a state that matters.
    pub(super) fn build(&mut self, target: Handle, state: Handle) {
        let Node::Tuple(items) = self.node(state) else { return };
        let items: Vec<Handle> = items.iter().take(5).copied().collect();
        let big_endian = items.get(1).is_some_and(|order| matches!(self.node(*order), Node::Text(">")));
        match (self.node_mut(target), &items[..]) {
            (Some(Node::NumpyDtype(dtype)), _) => dtype.big_endian = big_endian,
            (Some(Node::NumpyArray(array)), &[_, shape, dtype, fortran, data]) => {
                *array = Some(Box::new(NumpyArray { shape, dtype, fortran, data }));
            }
            _ => {}
        }
    }

    /// `OrderedDict(items)` for another dict or a list of pairs.
    fn dict_of(&self, items: Handle) -> Option<CallResult<'a>> {
        let items = match self.node(items) {
            Node::Dict(_) => return Some(CallResult::Existing(items)),
            Node::List(items) if items.len() <= MAX_COPIED => &items[..],
            _ => return None,
        };
        let pair = |item: &Handle| match self.node(*item) {
            Node::Tuple(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
            Node::List(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
            _ => None,
        };
        items.iter().map(pair).collect::<Option<Vec<_>>>().map(|pairs| CallResult::New(Node::Dict(pairs)))
    }

    /// `_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype)`, whose storage counts
    /// bytes.
    fn retyped_tensor(&self, args: &[Handle]) -> Option<CallResult<'a>> {
        let &[storage, offset, size, stride, _, _, dtype, ..] = args else { return None };
        let Node::Global("torch", dtype) = self.node(dtype) else { return None };
        let dtype = Some(named_dtype(dtype));
        Some(CallResult::New(Node::Tensor(Box::new(Tensor { storage, offset, size, stride, dtype }))))
    }

    /// The value of a persistent id: `("storage", class, key, device, elements)`.
    pub(super) fn persistent(&self, id: Handle) -> Node<'a> {
        let Node::Tuple(parts) = self.node(id) else { return Node::Opaque("an unknown persistent id") };
        let &[kind, class, key, _, elements, ref view @ ..] = &parts[..] else {
            return Node::Opaque("an unknown persistent id");
        };
        // Before PyTorch 0.4: (key of the view, first element, elements).
        let view = match view.first().map(|view| self.node(*view)) {
            Some(Node::Tuple(view)) => match (view.get(1), view.get(2)) {
                (Some(first), Some(length)) => match (self.node(*first), self.node(*length)) {
                    (Node::Int(first), Node::Int(length)) => Some((*first, *length)),
                    _ => return Node::Opaque("an unknown persistent id"),
                },
                _ => return Node::Opaque("an unknown persistent id"),
            },
            _ => None,
        };
        match (self.node(kind), self.node(class), self.node(key), self.node(elements)) {
            (Node::Text("storage"), Node::Global(module, name), Node::Text(key), Node::Int(elements)) => {
                match storage_dtype(module, name) {
                    Some(dtype) => {
                        let (view_offset, elements) = match view {
                            Some((first, length)) => (first, first.saturating_add(length)),
                            None => (0, *elements),
                        };
                        Node::Storage(Box::new(Storage { dtype, key, elements, view_offset }))
                    }
                    None => Node::Object(module, name),
                }
            }
            _ => Node::Opaque("an unknown persistent id"),
        }
    }
}

/// `(storage, offset, size, stride, …)`.
fn tensor<'a>(args: &[Handle]) -> Option<CallResult<'a>> {
    let &[storage, offset, size, stride, ..] = args else { return None };
    Some(CallResult::New(Node::Tensor(Box::new(Tensor { storage, offset, size, stride, dtype: None }))))
}
