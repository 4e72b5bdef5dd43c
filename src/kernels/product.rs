//! The two kinds of matrix products: with packed weights, and of activations with activations in attention. Each is a layout of
//! its operands, a multiplication, and the conversions that make its operands.

use super::layout::{Activations, Element, Gemm, TILE_ROWS, tiled_row};
use super::ops::SoftmaxTile;

/// (row, k, lines, scale): a row of k f32 to its lines of a tiled operand and, for i8, its scale. The row may be overwritten.
pub(super) type ConvertRow = unsafe fn(*mut f32, usize, *mut f32, *mut f32);

/// Products of activations with packed weights.
pub(super) struct LinearProduct {
    /// Number type of the activations; f32 means plain rows, others are tiled.
    pub left: Element,
    /// Number type of the weights.
    pub right: Element,
    /// Whether activations of i8 are stored as u8, 128 larger, which VNNI wants.
    pub unsigned_left: bool,
    pub gemm: unsafe fn(&Gemm),
    /// Not called where `left` is f32.
    pub convert_row: ConvertRow,
    /// As `convert_row` of the row's GELU.
    pub gelu_row: ConvertRow,
    /// A product whose GELU becomes an operand at once; its output is not used. None where the GELU follows the product.
    pub gemm_gelu: Option<unsafe fn(&Gemm, *mut f32)>,
}

/// Products of activations with activations, and the softmax between them.
pub(super) struct AttentionProduct {
    /// Number type of all operands; f32 means plain rows, bf16 is tiled.
    pub element: Element,
    /// Queries in a tile: a multiple of the rows that the multiplication takes at a time.
    pub queries: usize,
    pub gemm: unsafe fn(&Gemm),
    /// Not called where `element` is f32.
    pub convert_row: ConvertRow,
    /// The exponentials go to the operand, or stay in the scores where `element` is f32.
    pub softmax: unsafe fn(&SoftmaxTile),
    /// (rows, count, k, stride, panel, nr): up to nr rows of k values to one panel.
    pub keys_to_panel: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize),
    /// (panel of f32, rows, nr, panel): not called where `element` is f32.
    pub values_to_panel: unsafe fn(*const f32, usize, usize, *mut f32),
}

/// Scratch memory that receives a left operand.
#[derive(Clone, Copy)]
pub(super) struct OperandBuffer {
    element: Element,
    convert_row: ConvertRow,
    data: *mut f32,
    scales: *mut f32,
    rows: usize,
    k: usize,
}

impl LinearProduct {
    /// Words of an operand of `rows` rows of k values.
    pub fn operand_words(&self, rows: usize, k: usize) -> usize {
        self.left.operand_words(rows, k)
    }

    /// As [`Self::operand_words`] if rows of f32 must be converted, else 0.
    pub fn converted_words(&self, rows: usize, k: usize) -> usize {
        if self.left == Element::F32 { 0 } else { self.operand_words(rows, k) }
    }

    /// `memory` of [`Self::operand_words`] words as an operand.
    pub fn buffer(&self, memory: *mut f32, rows: usize, k: usize) -> OperandBuffer {
        OperandBuffer::new(self.left, self.convert_row, memory, rows, k)
    }

    /// `count` rows of k f32, `stride` apart, as an operand: converted into `memory`, or the rows themselves.
    ///
    /// # Safety
    /// The rows must be readable and, for a conversion, writable; `memory` must have [`Self::converted_words`] words.
    pub unsafe fn convert(
        &self,
        rows: *mut f32,
        [count, k]: [usize; 2],
        stride: usize,
        memory: *mut f32,
    ) -> Activations {
        // SAFETY: as the caller's.
        unsafe { self.buffer(memory, count, k).convert_with(self.convert_row, rows, stride) }
    }

    /// As [`Self::convert`] of the rows' GELU. `gelu` computes it in place where rows are not converted.
    ///
    /// # Safety
    /// As [`Self::convert`]'s; the rows must be writable.
    pub unsafe fn convert_gelu(
        &self,
        gelu: unsafe fn(*mut f32, usize),
        rows: *mut f32,
        [count, k]: [usize; 2],
        stride: usize,
        memory: *mut f32,
    ) -> Activations {
        // SAFETY: rows of k writable values.
        unsafe {
            if self.left == Element::F32 {
                for i in 0..count {
                    gelu(rows.add(i * stride), k);
                }
            }
            self.buffer(memory, count, k).convert_with(self.gelu_row, rows, stride)
        }
    }
}

impl AttentionProduct {
    /// Words of an operand of `rows` rows of k values if it must be converted, else 0.
    pub fn converted_words(&self, rows: usize, k: usize) -> usize {
        if self.element == Element::F32 { 0 } else { self.element.operand_words(rows, k) }
    }

    /// As [`LinearProduct::convert`].
    ///
    /// # Safety
    /// As [`LinearProduct::convert`]'s.
    pub unsafe fn convert(
        &self,
        rows: *mut f32,
        [count, k]: [usize; 2],
        stride: usize,
        memory: *mut f32,
    ) -> Activations {
        let buffer = OperandBuffer::new(self.element, self.convert_row, memory, count, k);
        // SAFETY: as the caller's.
        unsafe { buffer.convert_with(self.convert_row, rows, stride) }
    }
}

impl OperandBuffer {
    fn new(element: Element, convert_row: ConvertRow, data: *mut f32, rows: usize, k: usize) -> Self {
        let scales = match element {
            Element::Int8 => data.wrapping_add(element.padded_rows(rows) * element.words(k)),
            _ => core::ptr::null_mut(),
        };
        Self { element, convert_row, data, scales, rows, k }
    }

    /// Writes row `index`. `write` gets the place for the k values as f32, which is `spare` if they must be converted.
    ///
    /// # Safety
    /// The buffer must have that row and `spare` room for k floats.
    pub unsafe fn write_row(&self, index: usize, spare: *mut f32, write: impl FnOnce(*mut f32)) {
        debug_assert!(index < self.rows);
        // SAFETY: the row is within the buffer.
        unsafe {
            if self.element == Element::F32 {
                write(self.data.add(index * self.k));
            } else {
                write(spare);
                (self.convert_row)(spare, self.k, self.lines(index), self.scale(index));
            }
        }
    }

    /// The operand as written.
    pub fn activations(&self) -> Activations {
        Activations { data: self.data, stride: self.element.words(self.k), scales: self.scales }
    }

    /// # Safety
    /// As [`LinearProduct::convert`]'s.
    unsafe fn convert_with(&self, convert_row: ConvertRow, rows: *mut f32, stride: usize) -> Activations {
        if self.element == Element::F32 {
            return Activations::rows(rows, stride);
        }
        for i in 0..self.rows {
            // SAFETY: row i is readable, and its lines and scale are within the buffer.
            unsafe { convert_row(rows.add(i * stride), self.k, self.lines(i), self.scale(i)) }
        }
        self.activations()
    }

    fn lines(&self, row: usize) -> *mut f32 {
        debug_assert!(row < self.rows.next_multiple_of(TILE_ROWS));
        self.data.wrapping_add(tiled_row(row, self.element.words(self.k)))
    }

    fn scale(&self, row: usize) -> *mut f32 {
        if self.scales.is_null() { self.scales } else { self.scales.wrapping_add(row) }
    }
}
