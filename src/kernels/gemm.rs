//! C[m, n] (+)= A[m, k] · B[k, n] (+ bias) with B in panels, packed once for weights.
//!
//! Every element of C is one chain of multiply-adds in the order of k, whatever the tiling: the result does not depend on
//! how the rows are dealt out to threads.

use core::mem::MaybeUninit;

use half::bf16;

use super::error::KernelError;
use super::isa::{Format, Kernels};
use super::scratch::AlignedVec;
use super::simd::Simd;
use super::tiles;

/// Rows of A taken through all panels before the next ones, so that they stay in the second-level cache.
const MC: usize = 96;
/// Floats of a panel taken at a time, so that they stay in the first-level cache.
const PANEL: usize = 8192;
/// Rows taken at a time of a panel in bf16, which is widened to f32 beside itself. Even, so that no pair is cut.
const KC_BF16: usize = 256;

/// Words of a row of a tile of A.
const LINE: usize = tiles::STEP / 2;
/// The widest panel of any instruction set.
const MAX_NR: usize = 32;

/// A weight matrix [n, k] as panels [⌈n/nr⌉][k][nr], zero padded; in bf16 [⌈n/nr⌉][pairs][nr] with two rows of k in a word,
/// the earlier in its lower half, zero padded to whole steps of a product of tiles.
pub(super) struct Packed {
    pub n: usize,
    pub k: usize,
    nr: usize,
    format: Format,
    data: AlignedVec,
}

/// Words of one column of k values.
fn column_words(format: Format, k: usize) -> usize {
    match format {
        Format::F32 => k,
        Format::Bf16 => k.next_multiple_of(tiles::STEP) / 2,
    }
}

impl Packed {
    /// Packs rows `weight[n, k]` (PyTorch's layout), each value multiplied by `scale` and by its column's factor.
    pub fn new(
        kernels: &Kernels,
        weight: &[f32],
        n: usize,
        k: usize,
        columns: Option<&[f64]>,
        scale: f64,
    ) -> Result<Self, KernelError> {
        KernelError::check("packed weight", n * k, weight.len())?;
        let (nr, format) = (kernels.nr, kernels.target.format);
        let words = column_words(format, k) * nr;
        let mut data = AlignedVec::zeroed(n.div_ceil(nr) * words);
        let plain = columns.is_none() && scale == 1.0;
        let value = |p: usize, w: f32| {
            if plain { w } else { (f64::from(w) * scale * columns.map_or(1.0, |c| c[p])) as f32 }
        };
        for (panel, rows) in data.chunks_exact_mut(words.max(1)).zip(weight.chunks((nr * k).max(1))) {
            for (j, row) in rows.chunks_exact(k).enumerate() {
                match format {
                    Format::F32 => {
                        for (p, &w) in row.iter().enumerate() {
                            panel[p * nr + j] = value(p, w);
                        }
                    }
                    Format::Bf16 => {
                        for (pair, two) in row.chunks(2).enumerate() {
                            let half = |i: usize| {
                                let narrow = |&w| bf16::from_f32(value(2 * pair + i, w)).to_bits();
                                u32::from(two.get(i).map_or(0, narrow))
                            };
                            panel[pair * nr + j] = f32::from_bits(half(1) << 16 | half(0));
                        }
                    }
                }
            }
        }
        Ok(Self { n, k, nr, format, data })
    }

    /// Matrices of the same k one behind the other, each from a panel of its own on.
    pub fn stack(parts: &[Self]) -> Self {
        let mut data = AlignedVec::zeroed(parts.iter().map(|part| part.data.len()).sum());
        let mut from = 0;
        for part in parts {
            data[from..from + part.data.len()].copy_from_slice(&part.data);
            from += part.data.len();
        }
        let (k, nr, format) =
            parts.first().map_or((0, 1, Format::F32), |part| (part.k, part.nr, part.format));
        Self { n: parts.iter().map(Self::padded).sum(), k, nr, format, data }
    }

    /// Columns with the padding.
    pub fn padded(&self) -> usize {
        self.n.div_ceil(self.nr) * self.nr
    }

    /// Where output `column`, the first of a panel, begins.
    pub fn column(&self, column: usize) -> *const f32 {
        debug_assert!(column.is_multiple_of(self.nr));
        self.data.as_ptr().wrapping_add(column / self.nr * self.panel_stride())
    }

    /// Where row `k` of the first panel begins; in bf16 `k` is even.
    pub fn row(&self, k: usize) -> *const f32 {
        let words = if self.format == Format::F32 { k } else { k / 2 };
        self.data.as_ptr().wrapping_add(words * self.nr)
    }

    /// From one panel to the next.
    pub fn panel_stride(&self) -> usize {
        column_words(self.format, self.k) * self.nr
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }
}

/// A bias padded as its weight's panels are.
pub(super) fn pad_bias(kernels: &Kernels, bias: &[f32]) -> AlignedVec {
    let mut padded = AlignedVec::zeroed(bias.len().div_ceil(kernels.nr) * kernels.nr);
    padded[..bias.len()].copy_from_slice(bias);
    padded
}

/// One multiplication. Strides are in floats.
#[derive(Clone, Copy)]
pub(super) struct Gemm {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const f32,
    pub lda: usize,
    pub b: *const f32,
    /// From one panel of B to the next.
    pub b_panel: usize,
    pub c: *mut f32,
    pub ldc: usize,
    /// From one panel of C to the next: `nr` in a plain matrix.
    pub c_panel: usize,
    /// Padded to whole panels, or null.
    pub bias: *const f32,
    /// Adds to C; the bias is then ignored.
    pub accumulate: bool,
}

/// Initial value of a tile of C.
#[derive(Clone, Copy)]
enum Start {
    Zero,
    Bias(*const f32),
    Output,
}

/// Products of f32 and f32.
pub(super) const F32: u8 = 0;
/// Products of f32 with a bf16 B that is widened to f32.
pub(super) const WIDENED: u8 = 1;
/// Products of bf16 and bf16, two at a time: a word of A or B is a pair. A lies in [`tiles`].
pub(super) const BF16_DOT: u8 = 2;

/// A part of a panel in f32.
#[repr(align(64))]
struct Wide([MaybeUninit<f32>; KC_BF16 * MAX_NR]);

/// Runs a multiplication. `KIND`: [`F32`], [`WIDENED`] or [`BF16_DOT`].
///
/// # Safety
/// `S`'s instruction set must be available; A, B, C and the bias must be valid for the shape and strides given, C writable
/// and not overlapping the others.
#[inline(always)]
pub(super) unsafe fn gemm<S: Simd, const NV: usize, const KIND: u8>(g: &Gemm) {
    let nr = NV * S::LANES;
    if g.m == 0 || g.n == 0 {
        return;
    }
    let mut wide = Wide([const { MaybeUninit::uninit() }; KC_BF16 * MAX_NR]);
    let wide: *mut f32 = wide.0.as_mut_ptr().cast();
    let k = if KIND == BF16_DOT { g.k.div_ceil(2) } else { g.k };
    let kc = match KIND {
        WIDENED => KC_BF16,
        _ => k.div_ceil(k.div_ceil(PANEL / nr).max(1)).next_multiple_of(if KIND == BF16_DOT {
            LINE
        } else {
            1
        }),
    };
    let mut i0 = 0;
    while i0 < g.m {
        let rows = (g.m - i0).min(MC);
        let mut k0 = 0;
        loop {
            let depth = (k - k0).min(kc);
            for panel in 0..g.n.div_ceil(nr) {
                let columns = (g.n - panel * nr).min(nr);
                // SAFETY: panel and row offsets lie within the matrices the caller vouches for.
                unsafe {
                    let start = if k0 > 0 || g.accumulate {
                        Start::Output
                    } else if g.bias.is_null() {
                        Start::Zero
                    } else {
                        Start::Bias(g.bias.add(panel * nr))
                    };
                    let words = if KIND == WIDENED { k0 / 2 } else { k0 };
                    let mut b = g.b.add(panel * g.b_panel + words * nr);
                    // The panel after this one, fetched bit by bit while this one is in use; past the last panel it is
                    // often the next matrix.
                    let next = b.wrapping_add(g.b_panel);
                    let lines = if KIND == WIDENED { depth.div_ceil(2) } else { depth } * nr / 16;
                    if KIND == WIDENED {
                        widen::<S, NV>(b, depth.div_ceil(2), wide);
                        b = wide;
                    }
                    let mut i = 0;
                    while i < rows {
                        let step = match KIND {
                            // Within a tile of A.
                            BF16_DOT => (rows - i).min(if S::MR < 8 { 4 } else { 8 }),
                            _ => rows_of_tile(rows - i, S::MR),
                        };
                        for line in lines * i / rows..lines * (i + step) / rows {
                            S::prefetch(next.wrapping_add(line * 16));
                        }
                        let a = match KIND {
                            BF16_DOT => g.a.add(tiles::row(i0 + i, g.k) + k0 / LINE * tiles::TILE / 2),
                            _ => g.a.add((i0 + i) * g.lda + k0),
                        };
                        let c = g.c.add((i0 + i) * g.ldc + panel * g.c_panel);
                        tile_with_rows::<S, NV, KIND>(step, depth, a, g.lda, b, c, g.ldc, start, columns);
                        i += step;
                    }
                }
            }
            k0 += depth;
            if k0 >= k {
                break;
            }
        }
        i0 += rows;
    }
}

/// `pairs` pairs of rows of a panel, from bf16 to f32.
///
/// # Safety
/// `from` must hold the pairs, `to` twice as many values.
#[inline(always)]
unsafe fn widen<S: Simd, const NV: usize>(from: *const f32, pairs: usize, to: *mut f32) {
    let nr = NV * S::LANES;
    for pair in 0..pairs {
        for j in 0..NV {
            // SAFETY: the caller's.
            unsafe {
                let words = S::load(from.add(pair * nr + j * S::LANES));
                S::store(to.add(2 * pair * nr + j * S::LANES), S::lower_bf16(words));
                S::store(to.add((2 * pair + 1) * nr + j * S::LANES), S::upper_bf16(words));
            }
        }
    }
}

/// Rows of the next tile. A remainder is split over two tiles, since a small last tile cannot fill the pipeline.
#[inline(always)]
fn rows_of_tile(left: usize, mr: usize) -> usize {
    if left > mr && left < mr + mr / 2 + 1 { left.div_ceil(2) } else { left.min(mr) }
}

/// # Safety
/// As [`gemm`]'s.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "registers, not an interface")]
unsafe fn tile_with_rows<S: Simd, const NV: usize, const KIND: u8>(
    rows: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    start: Start,
    columns: usize,
) {
    macro_rules! dispatch_rows {
        ($($n:literal)*) => {
            match rows {
                $($n if $n <= S::MR => tile::<S, $n, NV, KIND>(k, a, lda, b, c, ldc, start, columns),)*
                _ => {}
            }
        };
    }
    // SAFETY: the caller's.
    unsafe { dispatch_rows!(1 2 3 4 5 6 7 8 9 10 11 12) }
}

/// `MR` rows by one panel.
///
/// # Safety
/// As [`gemm`]'s.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "registers, not an interface")]
unsafe fn tile<S: Simd, const MR: usize, const NV: usize, const KIND: u8>(
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    start: Start,
    columns: usize,
) {
    let whole = columns == NV * S::LANES;
    // SAFETY: rows i < MR and vectors j < NV stay in the tile; a partial tile goes through `edge`, which is a full one.
    unsafe {
        let mut edge = MaybeUninit::<[[f32; MAX_NR]; MR]>::uninit();
        let edge: *mut f32 = edge.as_mut_ptr().cast();
        let mut acc = [[S::splat(0.0); NV]; MR];
        match start {
            Start::Zero => {}
            Start::Bias(bias) => {
                for row in &mut acc {
                    for (j, v) in row.iter_mut().enumerate() {
                        *v = S::load(bias.add(j * S::LANES));
                    }
                }
            }
            Start::Output => {
                for (i, row) in acc.iter_mut().enumerate() {
                    let mut from = c.add(i * ldc).cast_const();
                    if !whole {
                        let row = edge.add(i * MAX_NR);
                        row.write_bytes(0, MAX_NR);
                        core::ptr::copy_nonoverlapping(from, row, columns);
                        from = row;
                    }
                    for (j, v) in row.iter_mut().enumerate() {
                        *v = S::load(from.add(j * S::LANES));
                    }
                }
            }
        }
        let mut rows = [a; MR];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = a.add(i * if KIND == BF16_DOT { LINE } else { lda });
        }
        let mut line = b;
        for p in 0..k {
            let mut bv = [S::splat(0.0); NV];
            for (j, v) in bv.iter_mut().enumerate() {
                *v = S::load(line.add(j * S::LANES));
            }
            for i in 0..MR {
                let at = if KIND == BF16_DOT { p / LINE * tiles::TILE / 2 + p % LINE } else { p };
                let av = S::splat(*rows[i].add(at));
                for j in 0..NV {
                    acc[i][j] = if KIND == BF16_DOT {
                        S::dot_bf16(av, bv[j], acc[i][j])
                    } else {
                        S::fma(av, bv[j], acc[i][j])
                    };
                }
            }
            line = line.add(NV * S::LANES);
        }
        for (i, row) in acc.iter().enumerate() {
            let to = if whole { c.add(i * ldc) } else { edge.add(i * MAX_NR) };
            for (j, &v) in row.iter().enumerate() {
                S::store(to.add(j * S::LANES), v);
            }
            if !whole {
                core::ptr::copy_nonoverlapping(edge.add(i * MAX_NR), c.add(i * ldc), columns);
            }
        }
    }
}
