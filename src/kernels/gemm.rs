//! C[m, n] = A[m, k] · B[k, n] + addend on vectors, with B in panels.
//!
//! Every element of C is one chain of multiply-adds in the order of k, whatever the tiling: the result does not depend on
//! how the rows are dealt out to threads. In i8 the chain is exact, in i32.

use core::mem::MaybeUninit;

use super::layout::{Addend, Element, Gemm, LINE, TILE, tiled_row};
use super::simd::Simd;

/// Rows of A taken through all panels before the next ones, so that they stay in the second-level cache.
const MC: usize = 96;
/// Words of a panel taken at a time: 32 KB, so that they stay in the first-level cache. In i8, whose sums must be whole before they
/// are scaled, a panel is taken whole; those of the usual 384 to 1536 inputs are 12 to 48 KB.
const PANEL: usize = 8192;
/// Rows taken at a time of a panel in bf16, which is widened to f32 beside itself. Even, so that no pair is cut.
const KC_BF16: usize = 256;
/// The widest panel of any instruction set.
const MAX_NR: usize = 32;

/// Products of f32 and f32.
pub(super) const F32: u8 = 0;
/// Products of f32 with a B in bf16, which is widened.
pub(super) const WIDENED: u8 = 1;
/// Products of bf16 and bf16 with f32 sums; A is tiled.
pub(super) const BF16: u8 = 2;
/// Products of i8 and i8 with i32 sums; A is tiled.
pub(super) const INT8: u8 = 3;

/// Number type of the operand whose words a step of k takes.
const fn element(kind: u8) -> Element {
    match kind {
        BF16 => Element::Bf16,
        INT8 => Element::Int8,
        _ => Element::F32,
    }
}

const fn is_tiled(kind: u8) -> bool {
    kind == BF16 || kind == INT8
}

/// Rows of C whose sums are kept in registers at a time. Sums of i8 need fewer to hide their latency, and rows of a tiled A need a
/// pointer each.
const fn rows_at_a_time<S: Simd>(kind: u8) -> usize {
    if is_tiled(kind) && S::MR > 8 { 8 } else { S::MR }
}

/// A part of a panel in f32.
#[repr(align(64))]
struct Wide([MaybeUninit<f32>; KC_BF16 * MAX_NR]);

/// Runs a multiplication. `KIND`: [`F32`], [`WIDENED`], [`BF16`] or [`INT8`].
///
/// # Safety
/// `S`'s instruction set must be available; the operands must be valid for the shape and laid out as `KIND` wants, C writable and
/// not overlapping the others.
#[inline(always)]
pub(super) unsafe fn gemm<S: Simd, const NV: usize, const KIND: u8>(g: &Gemm) {
    let nr = NV * S::LANES;
    if g.m == 0 || g.n == 0 {
        return;
    }
    let mut wide = Wide([const { MaybeUninit::uninit() }; KC_BF16 * MAX_NR]);
    let wide: *mut f32 = wide.0.as_mut_ptr().cast();
    // In words.
    let k = g.k.div_ceil(element(KIND).per_word());
    let kc = match KIND {
        WIDENED => KC_BF16,
        INT8 => k.max(1),
        BF16 => k.div_ceil(k.div_ceil(PANEL / nr).max(1)).next_multiple_of(LINE),
        _ => k.div_ceil(k.div_ceil(PANEL / nr).max(1)),
    };
    let mut i0 = 0;
    while i0 < g.m {
        let rows = (g.m - i0).min(MC);
        let mut k0 = 0;
        loop {
            let depth = (k - k0).min(kc);
            // Lines of a panel, and those to be fetched for each row that passes: one division for all tiles, which are short.
            let lines = if KIND == WIDENED { depth.div_ceil(2) } else { depth } * nr / 16;
            let lines_per_row = lines.div_ceil(rows);
            for panel in 0..g.n.div_ceil(nr) {
                // SAFETY: panel and row offsets lie within the matrices the caller vouches for.
                unsafe {
                    let words = if KIND == WIDENED { k0 / 2 } else { k0 };
                    let mut b = g.b.data.add(panel * g.b.stride + words * nr);
                    // The panel after this one, fetched bit by bit while this one is in use; past the last panel it is
                    // often the next matrix.
                    let next = b.wrapping_add(g.b.stride);
                    if KIND == WIDENED {
                        widen::<S, NV>(b, depth.div_ceil(2), wide);
                        b = wide;
                    }
                    let mut tile = Tile {
                        k: depth,
                        a: [core::ptr::null(); MAX_MR],
                        b,
                        c: core::ptr::null_mut(),
                        ldc: g.c.stride,
                        addend: if k0 > 0 { Addend::Output } else { g.addend_of(panel, nr) },
                        columns: (g.n - panel * nr).min(nr),
                        row_scales: core::ptr::null(),
                        column_scales: g.b.scales.wrapping_add(panel * nr),
                        initial: match g.b.initial.is_null() {
                            true => g.b.initial,
                            false => g.b.initial.add(panel * nr),
                        },
                    };
                    let mut i = 0;
                    while i < rows {
                        let step = rows_of_tile(rows - i, rows_at_a_time::<S>(KIND));
                        for line in lines_per_row * i..(lines_per_row * (i + step)).min(lines) {
                            S::prefetch(next.wrapping_add(line * 16));
                        }
                        let row = i0 + i;
                        for (r, a) in tile.a[..step].iter_mut().enumerate() {
                            *a = if is_tiled(KIND) {
                                g.a.data.add(tiled_row(row + r, g.a.stride) + k0 / LINE * TILE)
                            } else {
                                g.a.data.add((row + r) * g.a.stride + k0)
                            };
                        }
                        tile.c = g.c.data.add(row * g.c.stride + panel * g.c.panel);
                        tile.row_scales = g.a.scales.wrapping_add(row);
                        tile.run_rows::<S, NV, KIND>(step);
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

/// The most rows of any instruction set.
const MAX_MR: usize = 12;

/// A few rows by one panel of C.
struct Tile {
    /// Words of k.
    k: usize,
    a: [*const f32; MAX_MR],
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    addend: Addend,
    columns: usize,
    /// i8: scales of the rows and columns, and the initial sums.
    row_scales: *const f32,
    column_scales: *const f32,
    initial: *const f32,
}

impl Tile {
    /// # Safety
    /// As [`gemm`]'s.
    #[inline(always)]
    unsafe fn run_rows<S: Simd, const NV: usize, const KIND: u8>(&self, rows: usize) {
        macro_rules! dispatch_rows {
            ($($n:literal)*) => {
                match rows {
                    $($n if $n <= rows_at_a_time::<S>(KIND) => self.run::<S, $n, NV, KIND>(),)*
                    _ => {}
                }
            };
        }
        // SAFETY: as the caller's.
        unsafe { dispatch_rows!(1 2 3 4 5 6 7 8 9 10 11 12) }
    }

    /// # Safety
    /// As [`gemm`]'s.
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize, const NV: usize, const KIND: u8>(&self) {
        // SAFETY: rows i < MR and vectors j < NV stay in the tile.
        unsafe {
            let mut acc =
                if KIND == INT8 { self.initial_sums::<S, MR, NV>() } else { self.load_addend::<S, MR, NV>() };
            let mut line = self.b;
            let mut p = 0;
            let mut at = 0;
            while p < self.k {
                // A tiled row is lines of words that lie a tile apart; others are one piece.
                let end = if is_tiled(KIND) { self.k.min(p + LINE) } else { self.k };
                let first = at;
                while p < end {
                    let mut bv = [S::splat(0.0); NV];
                    for (j, v) in bv.iter_mut().enumerate() {
                        *v = S::load(line.add(j * S::LANES));
                    }
                    #[allow(clippy::needless_range_loop, reason = "rows of two arrays, and of registers")]
                    for i in 0..MR {
                        let av = S::splat(*self.a[i].add(at));
                        for j in 0..NV {
                            acc[i][j] = match KIND {
                                BF16 => S::dot_bf16(av, bv[j], acc[i][j]),
                                INT8 => S::dot_i8(av, bv[j], acc[i][j]),
                                _ => S::fma(av, bv[j], acc[i][j]),
                            };
                        }
                    }
                    line = line.add(NV * S::LANES);
                    p += 1;
                    at += 1;
                }
                at = first + TILE;
            }
            if KIND == INT8 {
                let addend = self.load_addend::<S, MR, NV>();
                for i in 0..MR {
                    let row = S::splat(*self.row_scales.add(i));
                    for j in 0..NV {
                        let scale = S::mul(row, S::load(self.column_scales.add(j * S::LANES)));
                        acc[i][j] = S::fma(S::i32_to_f32(acc[i][j]), scale, addend[i][j]);
                    }
                }
            }
            self.store::<S, MR, NV>(&acc);
        }
    }

    /// The sums of i8 before the first product.
    ///
    /// # Safety
    /// As [`gemm`]'s.
    #[inline(always)]
    unsafe fn initial_sums<S: Simd, const MR: usize, const NV: usize>(&self) -> [[S::V; NV]; MR] {
        // SAFETY: initial sums are padded to whole panels.
        unsafe {
            let mut sums = [S::splat(0.0); NV];
            if !self.initial.is_null() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(self.initial.add(j * S::LANES));
                }
            }
            [sums; MR]
        }
    }

    /// # Safety
    /// As [`gemm`]'s.
    #[inline(always)]
    unsafe fn load_addend<S: Simd, const MR: usize, const NV: usize>(&self) -> [[S::V; NV]; MR] {
        // SAFETY: a row of a partial tile goes through `edge`, which holds a whole one; a bias is padded to whole panels.
        unsafe {
            let mut acc = [[S::splat(0.0); NV]; MR];
            match self.addend {
                Addend::Zero => {}
                Addend::Bias(bias) => {
                    for row in &mut acc {
                        for (j, v) in row.iter_mut().enumerate() {
                            *v = S::load(bias.add(j * S::LANES));
                        }
                    }
                }
                Addend::Output => {
                    for (i, row) in acc.iter_mut().enumerate() {
                        let mut edge = [0.0; MAX_NR];
                        let mut from = self.c.add(i * self.ldc).cast_const();
                        if self.columns != NV * S::LANES {
                            core::ptr::copy_nonoverlapping(from, edge.as_mut_ptr(), self.columns);
                            from = edge.as_ptr();
                        }
                        for (j, v) in row.iter_mut().enumerate() {
                            *v = S::load(from.add(j * S::LANES));
                        }
                    }
                }
            }
            acc
        }
    }

    /// # Safety
    /// As [`gemm`]'s.
    #[inline(always)]
    unsafe fn store<S: Simd, const MR: usize, const NV: usize>(&self, acc: &[[S::V; NV]; MR]) {
        let whole = self.columns == NV * S::LANES;
        // SAFETY: a row of a partial tile goes through `edge`, which holds a whole one.
        unsafe {
            for (i, row) in acc.iter().enumerate() {
                let mut edge = MaybeUninit::<[f32; MAX_NR]>::uninit();
                let to = if whole { self.c.add(i * self.ldc) } else { edge.as_mut_ptr().cast() };
                for (j, &v) in row.iter().enumerate() {
                    S::store(to.add(j * S::LANES), v);
                }
                if !whole {
                    core::ptr::copy_nonoverlapping(to, self.c.add(i * self.ldc), self.columns);
                }
            }
        }
    }
}
