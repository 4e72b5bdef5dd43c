//! One tensor of a checkpoint: its location, and conversion of its elements to `f32`.

use std::ops::Range;

use half::{bf16, f16};

use super::CheckpointError;

/// Number type of a tensor in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit float.
    F64,
    /// Signed 8-bit.
    I8,
    /// Unsigned 8-bit.
    U8,
    /// Signed 16-bit.
    I16,
    /// Unsigned 16-bit.
    U16,
    /// Signed 32-bit.
    I32,
    /// Unsigned 32-bit.
    U32,
    /// Signed 64-bit.
    I64,
    /// Unsigned 64-bit.
    U64,
    /// One byte, 0 or 1.
    Bool,
    /// A type that is recognised but cannot be converted: complex, quantised, 8-bit float.
    Other(&'static str),
}

impl Dtype {
    /// Whether weights may come in this type.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16 | Self::F64)
    }

    /// Bytes of an element; `None` for [`Dtype::Other`].
    #[must_use]
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::F64 | Self::I64 | Self::U64 => Some(8),
            Self::F32 | Self::I32 | Self::U32 => Some(4),
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => Some(2),
            Self::I8 | Self::U8 | Self::Bool => Some(1),
            Self::Other(_) => None,
        }
    }

    /// Lower bound for the bytes of an element, defined for every type.
    pub(super) fn least_bytes(self) -> usize {
        match self {
            Self::Other("complex64") => 8,
            Self::Other("complex128") => 16,
            dtype => dtype.bytes().unwrap_or(1),
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::Bool => "bool",
            Self::Other(name) => name,
        })
    }
}

/// The bytes of a tensor: a range of the file, or of a decompressed storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TensorLocation {
    File(Range<usize>),
    Inflated(usize, Range<usize>),
}

/// A tensor as its container describes it. The reader of the container has checked that every element lies inside
/// `location`.
#[derive(Debug, Clone)]
pub(super) struct TensorEntry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Strides in elements; `None` when the tensor is contiguous.
    pub strides: Option<Vec<usize>>,
    pub location: TensorLocation,
}

/// A tensor of a checkpoint. Its elements stay in the file until they are converted.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    origin: &'a str,
    name: &'a str,
    entry: &'a TensorEntry,
    bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    pub(super) fn new(
        origin: &'a str,
        name: &'a str,
        entry: &'a TensorEntry,
        file: &'a [u8],
        inflated: &'a [Vec<u8>],
    ) -> Option<Self> {
        let bytes = match &entry.location {
            TensorLocation::File(range) => file.get(range.clone())?,
            TensorLocation::Inflated(index, range) => inflated.get(*index)?.get(range.clone())?,
        };
        Some(Self { origin, name, entry, bytes })
    }

    /// Its name in the checkpoint.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Number type in the file.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.entry.dtype
    }

    /// Shape, outermost dimension first; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        &self.entry.shape
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.entry.shape.iter().product()
    }

    /// The elements as stored in the file: little-endian, in order, not aligned. `None` for a strided tensor and for
    /// [`Dtype::Other`].
    #[must_use]
    pub fn bytes(&self) -> Option<&'a [u8]> {
        self.entry.dtype.bytes()?;
        self.entry.strides.is_none().then_some(self.bytes)
    }

    /// All elements as `f32`, in order.
    ///
    /// # Errors
    /// For [`Dtype::Other`], and for an `f64` beyond the range of `f32`.
    pub fn to_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        if let Dtype::Other(name) = self.entry.dtype {
            return Err(self.unconvertible(name));
        }
        // Bounded: the reader of the container checks the number of elements against the bytes present.
        let mut out = vec![0.0; self.elements()];
        self.copy_f32_into(&mut out)?;
        Ok(out)
    }

    /// As [`TensorView::to_f32`], into a slice of exactly [`TensorView::elements`] elements.
    ///
    /// # Errors
    /// As [`TensorView::to_f32`], and for a slice of another length.
    pub fn copy_f32_into(&self, out: &mut [f32]) -> Result<(), CheckpointError> {
        if out.len() != self.elements() {
            return Err(self.error(format!(
                "{} elements do not fit a buffer of {}",
                self.elements(),
                out.len()
            )));
        }
        match self.entry.dtype {
            Dtype::F32 => self.fill(out, f32::from_le_bytes),
            Dtype::F16 => self.fill(out, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => self.fill(out, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => {
                let mut beyond = None;
                self.fill(out, |b| {
                    let exact = f64::from_le_bytes(b);
                    let near = exact as f32;
                    if exact.is_finite() && !near.is_finite() {
                        beyond = Some(exact);
                    }
                    near
                });
                if let Some(value) = beyond {
                    return Err(self.error(format!("{value:e} is beyond the range of f32")));
                }
            }
            Dtype::I8 => self.fill(out, |b| f32::from(i8::from_le_bytes(b))),
            Dtype::U8 | Dtype::Bool => self.fill(out, |b| f32::from(u8::from_le_bytes(b))),
            Dtype::I16 => self.fill(out, |b| f32::from(i16::from_le_bytes(b))),
            Dtype::U16 => self.fill(out, |b| f32::from(u16::from_le_bytes(b))),
            Dtype::I32 => self.fill(out, |b| i32::from_le_bytes(b) as f32),
            Dtype::U32 => self.fill(out, |b| u32::from_le_bytes(b) as f32),
            Dtype::I64 => self.fill(out, |b| i64::from_le_bytes(b) as f32),
            Dtype::U64 => self.fill(out, |b| u64::from_le_bytes(b) as f32),
            Dtype::Other(name) => {
                return Err(
                    self.error(format!("numbers of type {name} cannot be converted; save it as float32"))
                );
            }
        }
        Ok(())
    }

    fn fill<const N: usize>(&self, out: &mut [f32], mut convert: impl FnMut([u8; N]) -> f32) {
        let (elements, _) = self.bytes.as_chunks::<N>();
        match &self.entry.strides {
            None => {
                for (to, from) in out.iter_mut().zip(elements) {
                    *to = convert(*from);
                }
            }
            Some(strides) => {
                let mut index = StridedIndex::new(&self.entry.shape, strides);
                for to in out {
                    // In range: the reader of the container has checked the last element.
                    *to = elements.get(index.at).map_or(0.0, |from| convert(*from));
                    index.step();
                }
            }
        }
    }

    fn unconvertible(&self, dtype: &str) -> CheckpointError {
        self.error(format!("numbers of type {dtype} cannot be used; save it as float32"))
    }

    fn error(&self, reason: String) -> CheckpointError {
        CheckpointError::Tensor { file: self.origin.to_owned(), name: self.name.to_owned(), reason }
    }
}

impl std::fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {:?}", self.name, self.dtype(), self.shape())
    }
}

/// Visits the elements of a strided tensor in order, last dimension fastest.
struct StridedIndex<'a> {
    shape: &'a [usize],
    strides: &'a [usize],
    index: Vec<usize>,
    at: usize,
}

impl<'a> StridedIndex<'a> {
    fn new(shape: &'a [usize], strides: &'a [usize]) -> Self {
        Self { shape, strides, index: vec![0; shape.len()], at: 0 }
    }

    fn step(&mut self) {
        for axis in (0..self.shape.len()).rev() {
            self.index[axis] += 1;
            self.at = self.at.wrapping_add(self.strides[axis]);
            if self.index[axis] < self.shape[axis] {
                return;
            }
            self.at = self.at.wrapping_sub(self.strides[axis].wrapping_mul(self.shape[axis]));
            self.index[axis] = 0;
        }
    }
}
