//! Memory layouts of the operands of matrix products.
//!
//! The left operand A holds rows of activations, the right operand B columns of weights or activations. Both are addressed in
//! 32-bit words, each one f32, two bf16 or four i8 of neighbouring k, the earlier value in the lower bits.
//!
//! - A of f32 is plain rows, any stride apart.
//! - A of bf16 or i8 is tiled, as AMX loads it: a tile is 16 rows of one line of 16 words, a kilobyte in one piece. Tiles lie
//!   [⌈rows/16⌉][lines of k]. k is zero padded to whole lines. Rows up to a multiple of 16 must exist; their values do not matter.
//! - B lies in panels of `nr` columns, [⌈n/nr⌉][words of k][nr], zero padded to whole panels and, for bf16 and i8, to whole lines.
//!
//! Values of i8 carry scales: one for each row of A and one for each column of B.

/// Words of a line of a tile: 64 bytes, a row of an AMX tile and a cache line.
pub(super) const LINE: usize = 16;
/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Words of a tile.
pub(super) const TILE: usize = TILE_ROWS * LINE;

/// Number type of an operand's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    Bf16,
    Int8,
}

impl Element {
    /// Values in a word.
    pub const fn per_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }

    /// Values in a line of a tile.
    pub const fn per_line(self) -> usize {
        LINE * self.per_word()
    }

    /// Words of k values with their padding.
    pub const fn words(self, k: usize) -> usize {
        match self {
            Self::F32 => k,
            _ => k.next_multiple_of(self.per_line()) / self.per_word(),
        }
    }

    /// Rows of an operand A of `rows` rows with their padding.
    pub const fn padded_rows(self, rows: usize) -> usize {
        match self {
            Self::F32 => rows,
            _ => rows.next_multiple_of(TILE_ROWS),
        }
    }

    /// Words of an operand A of `rows` rows of k values, scales included.
    pub const fn operand_words(self, rows: usize, k: usize) -> usize {
        let values = self.padded_rows(rows) * self.words(k);
        if matches!(self, Self::Int8) { values + self.padded_rows(rows) } else { values }
    }
}

/// Word offset of a row in a tiled operand whose rows have `words` words.
#[inline(always)]
pub(super) const fn tiled_row(row: usize, words: usize) -> usize {
    row / TILE_ROWS * TILE_ROWS * words + row % TILE_ROWS * LINE
}

/// A left operand.
#[derive(Clone, Copy)]
pub(super) struct Activations {
    pub data: *const f32,
    /// Words of a row: the row stride of plain rows, and of tiled rows the sixteenth of the stride of rows of tiles.
    pub stride: usize,
    /// i8: the scale of each row.
    pub scales: *const f32,
}

impl Activations {
    /// Plain rows of f32, `stride` apart.
    pub fn rows(data: *const f32, stride: usize) -> Self {
        Self { data, stride, scales: core::ptr::null() }
    }

    /// The operand from `row` on, in a tiled one a multiple of 16.
    pub fn at_row(self, row: usize) -> Self {
        Self {
            data: self.data.wrapping_add(row * self.stride),
            stride: self.stride,
            scales: if self.scales.is_null() { self.scales } else { self.scales.wrapping_add(row) },
        }
    }
}

/// A right operand.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub data: *const f32,
    /// Words from one panel to the next.
    pub stride: usize,
    /// i8: the scale of each column, padded to whole panels.
    pub scales: *const f32,
    /// i8 with unsigned activations: the initial sum of each column, the bits of an i32.
    pub initial: *const f32,
}

impl Panels {
    /// Panels without scales.
    pub fn plain(data: *const f32, stride: usize) -> Self {
        Self { data, stride, scales: core::ptr::null(), initial: core::ptr::null() }
    }
}

/// The output matrix of a product.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub data: *mut f32,
    /// Floats from one row to the next.
    pub stride: usize,
    /// Floats from one panel of columns to the next: `nr` in a plain matrix.
    pub panel: usize,
}

/// What is added to a product.
#[derive(Clone, Copy)]
pub(super) enum Addend {
    Zero,
    /// One value a column, padded to whole panels.
    Bias(*const f32),
    /// What the output holds.
    Output,
}

/// C[m, n] = A[m, k] · B[k, n] + addend. All shapes are in values; the operands' layouts are those of the product that runs it.
#[derive(Clone, Copy)]
pub(super) struct Gemm {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Activations,
    pub b: Panels,
    pub c: Output,
    pub addend: Addend,
}

impl Gemm {
    /// The addend of the columns from panel `panel` of `nr` columns on.
    pub fn addend_of(&self, panel: usize, nr: usize) -> Addend {
        match self.addend {
            Addend::Bias(bias) => Addend::Bias(bias.wrapping_add(panel * nr)),
            other => other,
        }
    }
}
