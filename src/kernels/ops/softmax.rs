//! The online softmax.
//!
//! # Safety
//! Each function needs the instruction set of `S` and pointers valid for the lengths it names.

use super::operands::{LINE_BF16, store_value};
use super::scale;
use crate::kernels::layout::{Element, tiled_row};
use crate::kernels::math;
use crate::kernels::simd::{Pair, Simd};

/// One tile of the online softmax, in base 2.
pub(in crate::kernels) struct SoftmaxTile {
    /// Scores [rows, n] with row stride `ld`; replaced by p = 2^(score − running maximum) unless written to `operand`.
    pub scores: *mut f32,
    /// Products of bf16: receives p as a tiled operand.
    pub operand: *mut f32,
    pub rows: usize,
    pub n: usize,
    pub ld: usize,
    /// Running maximum and sum of each row; written only, when `first`.
    pub max: *mut f32,
    pub sum: *mut f32,
    /// Unnormalised output rows, rescaled to the new maximum unless `first`.
    pub out: *mut f32,
    pub out_n: usize,
    pub out_ld: usize,
    /// Whether this is the first tile of its rows.
    pub first: bool,
}

/// 2ˣ with the accuracy of the operand's format.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn exp2_for<S: Simd, const BF16: bool>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe { if BF16 { math::exp2_coarse::<S>(x) } else { math::exp2::<S>(x) } }
}

/// The largest of `old` and n scores.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn maximum<S: Simd>(scores: *const f32, n: usize, old: f32) -> f32 {
    // SAFETY: whole vectors in the first loop, at most n − i values in the second.
    unsafe {
        let (mut high, mut other) = (S::splat(old), S::splat(old));
        let mut i = 0;
        while i + 2 * S::LANES <= n {
            high = S::max(high, S::load(scores.add(i)));
            other = S::max(other, S::load(scores.add(i + S::LANES)));
            i += 2 * S::LANES;
        }
        while i + S::LANES <= n {
            high = S::max(high, S::load(scores.add(i)));
            i += S::LANES;
        }
        if i < n {
            other = S::max(other, S::load_first(scores.add(i), n - i, f32::NEG_INFINITY));
        }
        S::largest(S::max(high, other))
    }
}

/// p = 2^(score − max) of a row of n scores, to `lines` of an operand in bf16, or in place. Returns their sum.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn exponentials<S: Simd, const BF16: bool>(s: *mut f32, lines: *mut u16, n: usize, max: f32) -> f32 {
    let mut i = 0;
    // SAFETY: whole vectors in the loops but for the tail of n − i values; a row of an operand is whole lines.
    unsafe {
        let shift = S::splat(max);
        let mut total = S::splat(0.0);
        while i + 2 * S::LANES <= n {
            let v = Pair::<S>::load(s.add(i));
            let p = exp2_for::<Pair<S>, BF16>(Pair::<S>::sub(v, [shift; 2]));
            store_value::<S, BF16>(s, lines, i, p[0]);
            store_value::<S, BF16>(s, lines, i + S::LANES, p[1]);
            total = S::add(total, S::add(p[0], p[1]));
            i += 2 * S::LANES;
        }
        while i + S::LANES <= n {
            let p = exp2_for::<S, BF16>(S::sub(S::load(s.add(i)), shift));
            store_value::<S, BF16>(s, lines, i, p);
            total = S::add(total, p);
            i += S::LANES;
        }
        if i < n {
            // 2^(−∞ − max) = 0 in the unused lanes.
            let v = S::load_first(s.add(i), n - i, f32::NEG_INFINITY);
            let p = exp2_for::<S, BF16>(S::sub(v, shift));
            if BF16 {
                store_value::<S, BF16>(s, lines, i, p);
            } else {
                S::store_first(s.add(i), p, n - i);
            }
            total = S::add(total, p);
            i += S::LANES;
        }
        if BF16 {
            while i < n.next_multiple_of(LINE_BF16) {
                store_value::<S, BF16>(s, lines, i, S::splat(0.0));
                i += S::LANES;
            }
        }
        S::sum(total)
    }
}

/// Scores to exponentials, and what was summed so far to the new maximum.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(in crate::kernels) unsafe fn softmax<S: Simd, const BF16: bool>(t: &SoftmaxTile) {
    for row in 0..t.rows {
        // SAFETY: every row lies at row · ld with n values.
        unsafe {
            let s = t.scores.add(row * t.ld);
            let old = if t.first { f32::NEG_INFINITY } else { *t.max.add(row) };
            let max = maximum::<S>(s, t.n, old);
            let lines = t.operand.wrapping_add(tiled_row(row, Element::Bf16.words(t.n))).cast::<u16>();
            let total = exponentials::<S, BF16>(s, lines, t.n, max);
            *t.max.add(row) = max;
            if t.first {
                *t.sum.add(row) = total;
            } else {
                // In one lane of a vector, by the same function as the scores.
                let fade = S::largest(math::exp2::<S>(S::splat(old - max)));
                *t.sum.add(row) = *t.sum.add(row) * fade + total;
                if fade != 1.0 {
                    scale::<S>(t.out.add(row * t.out_ld), t.out_n, fade);
                }
            }
        }
    }
}
