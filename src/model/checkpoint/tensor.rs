//! One tensor of a checkpoint: its location, and conversion of its elements to `f32`.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};

use super::bytes::PIECE;
use super::dtype::{Q8_BLOCK, Q8_BLOCK_BYTES, f8_e4m3_to_f32, f8_e5m2_to_f32, f8_fnuz_to_f32};
use super::storage::Storages;
use super::{CheckpointError, Dtype};

/// The bytes of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TensorLocation {
    /// A range of the file. `member` is the archive member that it belongs to, where that has a checksum.
    File { range: Range<u64>, member: Option<usize> },
    /// A range of a buffer that was decompressed or decoded when the file was opened.
    Memory { buffer: usize, range: Range<usize> },
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
    name: &'a str,
    entry: &'a TensorEntry,
    /// Scales of the rows, where the elements are scaled integers.
    scales: Option<&'a TensorEntry>,
    storages: &'a Storages,
}

impl<'a> TensorView<'a> {
    pub(super) fn new(
        name: &'a str,
        entry: &'a TensorEntry,
        scales: Option<&'a TensorEntry>,
        storages: &'a Storages,
    ) -> Self {
        Self { name, entry, scales, storages }
    }

    /// Its name in the checkpoint.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Number type in the file.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        if self.scales.is_some() { Dtype::ScaledI8 } else { self.entry.dtype }
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

    /// Whether the elements lie in order without gaps.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.entry.strides.is_none()
    }

    /// The elements as stored in the file: little-endian, in order, not aligned. `None` for a strided tensor, for scaled integers and
    /// for types without a fixed number of bytes per element.
    ///
    /// # Errors
    /// When the file cannot be read, has become shorter, or the tensor fails its checksum.
    pub fn bytes(&self) -> Result<Option<Cow<'a, [u8]>>, CheckpointError> {
        if self.entry.dtype.bytes().is_none() || !self.is_contiguous() || self.scales.is_some() {
            return Ok(None);
        }
        self.raw().map(Some)
    }

    /// All elements as `f32`, in order.
    ///
    /// # Errors
    /// For complex numbers and [`Dtype::Other`], for an `f64` beyond the range of `f32`, when the file cannot be read, has
    /// become shorter, or the tensor fails its checksum.
    pub fn to_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        self.refuse_unconvertible()?;
        // Bounded: the reader of the container checks the number of elements against the bytes present.
        let mut out = vec![0.0; self.elements()];
        self.copy_f32_into(&mut out)?;
        Ok(out)
    }

    /// All elements of a complex tensor: real and imaginary part of each, in order.
    ///
    /// # Errors
    /// As [`TensorView::to_f32`], and for types that are not complex.
    pub fn to_complex(&self) -> Result<Vec<f32>, CheckpointError> {
        let mut out = vec![0.0; 2 * self.elements()];
        let (pairs, _) = out.as_chunks_mut::<2>();
        match self.entry.dtype {
            Dtype::Complex64 => self.fill(pairs, |b: [u8; 8]| {
                let [r0, r1, r2, r3, i0, i1, i2, i3] = b;
                [f32::from_le_bytes([r0, r1, r2, r3]), f32::from_le_bytes([i0, i1, i2, i3])]
            })?,
            Dtype::Complex128 => self.fill(pairs, |b: [u8; 16]| {
                let (parts, _) = b.as_chunks::<8>();
                [f64::from_le_bytes(parts[0]) as f32, f64::from_le_bytes(parts[1]) as f32]
            })?,
            other => return Err(self.error(format!("expected complex numbers, found {other}"))),
        }
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
        self.refuse_unconvertible()?;
        if let Some(scales) = self.scales {
            return self.copy_scaled(scales, out);
        }
        match self.entry.dtype {
            Dtype::F32 => self.copy_f32(out),
            Dtype::F16 => self.fill(out, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => self.fill(out, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => self.copy_f64(out),
            Dtype::F8E4M3 => self.fill(out, |[b]| f8_e4m3_to_f32(b)),
            Dtype::F8E5M2 => self.fill(out, |[b]| f8_e5m2_to_f32(b)),
            Dtype::F8E4M3Fnuz => self.fill(out, |[b]| f8_fnuz_to_f32(b, 3)),
            Dtype::F8E5M2Fnuz => self.fill(out, |[b]| f8_fnuz_to_f32(b, 2)),
            Dtype::I8 | Dtype::ScaledI8 => self.fill(out, |b| f32::from(i8::from_le_bytes(b))),
            Dtype::U8 | Dtype::Bool => self.fill(out, |b| f32::from(u8::from_le_bytes(b))),
            Dtype::I16 => self.fill(out, |b| f32::from(i16::from_le_bytes(b))),
            Dtype::U16 => self.fill(out, |b| f32::from(u16::from_le_bytes(b))),
            Dtype::I32 => self.fill(out, |b| i32::from_le_bytes(b) as f32),
            Dtype::U32 => self.fill(out, |b| u32::from_le_bytes(b) as f32),
            Dtype::I64 => self.fill(out, |b| i64::from_le_bytes(b) as f32),
            Dtype::U64 => self.fill(out, |b| u64::from_le_bytes(b) as f32),
            Dtype::Q8_0 => self.fill_from_blocks(out),
            Dtype::Complex64 | Dtype::Complex128 | Dtype::Other(_) => self.refuse_unconvertible(),
        }
    }

    /// Elements in blocks of 8-bit integers with a scale.
    fn fill_from_blocks(&self, out: &mut [f32]) -> Result<(), CheckpointError> {
        let raw = self.raw()?;
        let (blocks, _) = raw.as_chunks::<Q8_BLOCK_BYTES>();
        for (to, block) in out.chunks_mut(Q8_BLOCK).zip(blocks) {
            let [low, high, steps @ ..] = block;
            let scale = f16::from_le_bytes([*low, *high]).to_f32();
            to.iter_mut().zip(steps).for_each(|(to, step)| *to = scale * f32::from(*step as i8));
        }
        Ok(())
    }

    /// Integers times the scale of their row. The reader has checked that there is a scale for each row.
    fn copy_scaled(&self, scales: &TensorEntry, out: &mut [f32]) -> Result<(), CheckpointError> {
        let scales = TensorView::new(self.name, scales, None, self.storages).to_f32()?;
        self.fill(out, |b| f32::from(i8::from_le_bytes(b)))?;
        let row = self.elements() / scales.len().max(1);
        for (values, scale) in out.chunks_exact_mut(row.max(1)).zip(&scales) {
            values.iter_mut().for_each(|value| *value *= scale);
        }
        Ok(())
    }

    /// Contiguous f32 is read straight into `out`.
    fn copy_f32(&self, out: &mut [f32]) -> Result<(), CheckpointError> {
        if cfg!(target_endian = "little")
            && self.is_contiguous()
            && let TensorLocation::File { range, member } = &self.entry.location
        {
            self.storages.verify(*member)?;
            return self.storages.bytes().read_at(range.start, bytemuck::cast_slice_mut(out));
        }
        self.fill(out, f32::from_le_bytes)
    }

    fn copy_f64(&self, out: &mut [f32]) -> Result<(), CheckpointError> {
        let mut beyond = None;
        self.fill(out, |b| {
            let exact = f64::from_le_bytes(b);
            let near = exact as f32;
            if exact.is_finite() && !near.is_finite() {
                beyond = Some(exact);
            }
            near
        })?;
        match beyond {
            Some(value) => Err(self.error(format!("{value:e} is beyond the range of f32"))),
            None => Ok(()),
        }
    }

    /// Converts all elements in order, `N` bytes each.
    fn fill<T, const N: usize>(
        &self,
        out: &mut [T],
        mut convert: impl FnMut([u8; N]) -> T,
    ) -> Result<(), CheckpointError> {
        match (&self.entry.strides, &self.entry.location) {
            (None, TensorLocation::File { range, member }) => {
                self.storages.verify(*member)?;
                // In pieces, so that a large tensor needs no second buffer of its size. PIECE is a multiple of every N.
                let mut rest = out;
                self.storages.bytes().for_each_piece(range.clone(), &mut |piece| {
                    let (elements, _) = piece.as_chunks::<N>();
                    let rest_now = std::mem::take(&mut rest);
                    let (now, later) = rest_now.split_at_mut(elements.len().min(rest_now.len()));
                    now.iter_mut().zip(elements).for_each(|(to, from)| *to = convert(*from));
                    rest = later;
                })
            }
            (None, TensorLocation::Memory { .. }) => {
                let raw = self.raw()?;
                let (elements, _) = raw.as_chunks::<N>();
                out.iter_mut().zip(elements).for_each(|(to, from)| *to = convert(*from));
                Ok(())
            }
            (Some(strides), _) => {
                let raw = self.raw()?;
                let (elements, _) = raw.as_chunks::<N>();
                let mut index = StridedIndex::new(&self.entry.shape, strides);
                for to in out {
                    // In range: the reader of the container has checked the last element.
                    if let Some(from) = elements.get(index.at) {
                        *to = convert(*from);
                    }
                    index.step();
                }
                Ok(())
            }
        }
    }

    /// The bytes that hold the elements.
    fn raw(&self) -> Result<Cow<'a, [u8]>, CheckpointError> {
        self.storages.read(&self.entry.location)
    }

    /// The error for a weight whose number type holds no weights.
    pub(crate) fn not_a_weight(&self) -> CheckpointError {
        self.error(format!(
            "is stored as {}, expected floating-point numbers; save it as float32",
            self.dtype()
        ))
    }

    fn refuse_unconvertible(&self) -> Result<(), CheckpointError> {
        match self.entry.dtype {
            Dtype::Complex64 | Dtype::Complex128 | Dtype::Other(_) => Err(self
                .error(format!("numbers of type {} cannot be used; save it as float32", self.entry.dtype))),
            _ => Ok(()),
        }
    }

    fn error(&self, reason: String) -> CheckpointError {
        let file = self.storages.bytes().origin().to_owned();
        CheckpointError::Tensor { file, name: self.name.to_owned(), reason }
    }
}

const _: () = assert!(PIECE.is_multiple_of(16));

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
