//! Rows of f32 to operands of matrix products.
//!
//! # Safety
//! Each function needs the instruction set of `S` and pointers valid for the lengths it names.

use super::load_up_to;
use super::maps::{GeluCoarse, Interleaved, Map, map};
use crate::kernels::layout::{Element, TILE};
use crate::kernels::simd::Simd;

/// Values in a line of bf16, and from a line to the next of the same row.
pub(super) const LINE_BF16: usize = Element::Bf16.per_line();
const NEXT_LINE_BF16: usize = TILE * Element::Bf16.per_word();
/// The same of i8, which are bytes.
const LINE_I8: usize = Element::Int8.per_line();
const NEXT_LINE_I8: usize = TILE * Element::Int8.per_word();
/// Rows whose largest magnitude is less count as 0 in i8: the reciprocal of their scale could overflow.
pub(in crate::kernels) const SMALLEST_PEAK: f32 = 1e-30;

/// Stores values i.. of a row: in its lines of an operand of tiles, or in place.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn store_value<S: Simd, const BF16: bool>(
    row: *mut f32,
    lines: *mut u16,
    i: usize,
    v: S::V,
) {
    // SAFETY: the caller's; LANES divides LINE_BF16.
    unsafe {
        if BF16 {
            S::store_bf16(lines.add(i / LINE_BF16 * NEXT_LINE_BF16 + i % LINE_BF16), v);
        } else {
            S::store(row.add(i), v);
        }
    }
}

/// Transposes `rows` rows of `n` values (stride `ld`) to `n` rows of `width ≥ rows` columns, zero beyond `rows`: a panel of
/// keys for the GEMM.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(in crate::kernels) unsafe fn transpose(
    src: *const f32,
    rows: usize,
    n: usize,
    ld: usize,
    dst: *mut f32,
    width: usize,
) {
    // SAFETY: reads stay within rows · ld, writes within n · width.
    unsafe {
        for i in 0..n {
            let line = dst.add(i * width);
            for j in 0..rows {
                *line.add(j) = *src.add(j * ld + i);
            }
            for j in rows..width {
                *line.add(j) = 0.0;
            }
        }
    }
}

/// [`transpose`] to words of two bf16, zero padded to whole [`LINE_BF16`]s.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(in crate::kernels) unsafe fn transpose_bf16<S: Simd>(
    src: *const f32,
    rows: usize,
    n: usize,
    ld: usize,
    dst: *mut f32,
    width: usize,
) {
    let mut words = [0u32; LINE_BF16 / 2];
    for k in (0..n).step_by(LINE_BF16) {
        let line = dst.wrapping_add(k / 2 * width).cast::<u32>();
        // SAFETY: reads stay within rows · ld, writes within the padded words · width.
        unsafe {
            for j in 0..width {
                if j < rows {
                    line_to_bf16::<S>(src.add(j * ld + k), LINE_BF16.min(n - k), words.as_mut_ptr().cast());
                } else {
                    words = [0; LINE_BF16 / 2];
                }
                for (i, &word) in words.iter().enumerate() {
                    line.add(i * width + j).write(word);
                }
            }
        }
    }
}

/// Converts n ≤ LINE_BF16 values to a zero padded line of LINE_BF16 bf16.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn line_to_bf16<S: Simd>(row: *const f32, n: usize, line: *mut u16) {
    let mut i = 0;
    while i < LINE_BF16 {
        // SAFETY: LANES divides the line; at most n − i values are read.
        unsafe {
            let v = if i < n { load_up_to::<S>(row.add(i), n - i) } else { S::splat(0.0) };
            S::store_bf16(line.add(i), v);
        }
        i += S::LANES;
    }
}

/// Converts a row of `n` f32 to its lines of an operand of tiles, which are a tile apart.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(in crate::kernels) unsafe fn row_to_bf16<S: Simd>(row: *const f32, n: usize, lines: *mut f32) {
    for k in (0..n).step_by(LINE_BF16) {
        // SAFETY: a line for each LINE_BF16 of n.
        unsafe {
            line_to_bf16::<S>(
                row.add(k),
                LINE_BF16.min(n - k),
                lines.cast::<u16>().add(k / LINE_BF16 * NEXT_LINE_BF16),
            )
        }
    }
}

/// Writes f(x) of a row of `n` f32, with f(0) = 0, to its lines of an operand of tiles.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(in crate::kernels) unsafe fn map_to_operand<S: Simd, F: Map<S> + Map<Interleaved<S>>>(
    row: *const f32,
    n: usize,
    lines: *mut f32,
) {
    let lines: *mut u16 = lines.cast();
    // SAFETY: i + LANES ≤ n in the loops, the tail is n − i < LANES; LANES divides LINE_BF16.
    unsafe {
        let mut i = 0;
        while i + Interleaved::<S>::LANES <= n {
            let v = <F as Map<Interleaved<S>>>::map(Interleaved::<S>::load(row.add(i)));
            for (j, v) in v.into_iter().flatten().enumerate() {
                store_value::<S, true>(core::ptr::null_mut(), lines, i + j * S::LANES, v);
            }
            i += Interleaved::<S>::LANES;
        }
        while i < n.next_multiple_of(LINE_BF16) {
            let v = if i < n { load_up_to::<S>(row.add(i), n - i) } else { S::splat(0.0) };
            store_value::<S, true>(core::ptr::null_mut(), lines, i, <F as Map<S>>::map(v));
            i += S::LANES;
        }
    }
}

/// Pairs of rows of a panel [`rows`, `width`] in f32 to words of two bf16 [pairs, `width`], the earlier row in the lower half,
/// followed by zeros up to a whole step of a product of tiles.
///
/// # Safety
/// See the module. `dst` must have room for the padded pairs and not overlap `src`; LANES must divide `width`.
#[inline(always)]
pub(in crate::kernels) unsafe fn interleave_rows_bf16<S: Simd>(
    src: *const f32,
    rows: usize,
    width: usize,
    dst: *mut f32,
) {
    // SAFETY: reads stay within rows · width, writes within the padded pairs.
    unsafe {
        for pair in 0..rows.next_multiple_of(LINE_BF16) / 2 {
            for j in (0..width).step_by(S::LANES) {
                let (mut lower, mut upper) = (S::splat(0.0), S::splat(0.0));
                if 2 * pair < rows {
                    lower = S::load(src.add(2 * pair * width + j));
                }
                if 2 * pair + 1 < rows {
                    upper = S::load(src.add((2 * pair + 1) * width + j));
                }
                S::store(dst.add(pair * width + j), S::pair_bf16(lower, upper));
            }
        }
    }
}

/// Quantises a row of `n` f32 to its lines of a tiled operand of i8, the largest magnitude to 127, and writes its scale: the value
/// of one unit. `UNSIGNED`: stored 128 larger, as u8. The scale of a row with a value that is not finite is NaN.
///
/// # Safety
/// See the module. The lines must have room for whole lines of n values.
#[inline(always)]
pub(in crate::kernels) unsafe fn quantize_row<S: Simd, const UNSIGNED: bool>(
    row: *mut f32,
    n: usize,
    lines: *mut f32,
    scale: *mut f32,
) {
    // SAFETY: i + LANES ≤ n in the loops, the tail is n − i < LANES; LANES divides a line.
    unsafe {
        let mut peak = S::splat(0.0);
        // Sums of 0 · x: 0, or NaN where a value is not finite. `max` alone may drop a NaN.
        let mut poison = S::splat(0.0);
        let mut i = 0;
        while i < n {
            let v = load_up_to::<S>(row.add(i), n - i);
            peak = S::max(peak, S::abs(v));
            poison = S::fma(v, S::splat(0.0), poison);
            i += S::LANES;
        }
        let peak = S::largest(peak);
        let (unit, inverse) = if peak < SMALLEST_PEAK { (0.0, 0.0) } else { (peak / 127.0, 127.0 / peak) };
        *scale = unit + S::sum(poison);
        let inverse = S::splat(inverse);
        let bytes = lines.cast::<u8>();
        i = 0;
        while i < n.next_multiple_of(LINE_I8) {
            let v = if i < n { load_up_to::<S>(row.add(i), n - i) } else { S::splat(0.0) };
            S::store_i8::<UNSIGNED>(bytes.add(i / LINE_I8 * NEXT_LINE_I8 + i % LINE_I8), S::mul(v, inverse));
            i += S::LANES;
        }
    }
}

/// [`quantize_row`] of the row's GELU.
///
/// # Safety
/// As [`quantize_row`]'s.
#[inline(always)]
pub(in crate::kernels) unsafe fn gelu_quantize_row<S: Simd, const UNSIGNED: bool>(
    row: *mut f32,
    n: usize,
    lines: *mut f32,
    scale: *mut f32,
) {
    // SAFETY: as the caller's.
    unsafe {
        map::<S, GeluCoarse>(row, n);
        quantize_row::<S, UNSIGNED>(row, n, lines, scale);
    }
}
