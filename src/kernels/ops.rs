//! Elementwise and row-wise kernels over slices of any length and alignment.
//!
//! # Safety
//! Each function needs the instruction set of `S` and pointers valid for the lengths it names.

mod maps;
mod masks;
mod operands;
mod softmax;

use super::simd::{MAX_LANES, Simd};

pub(super) use maps::{Exp, Exp2, Gelu, GeluCoarse, Sigmoid, Tanh, glu, map};
pub(super) use masks::{MaskBins, apply_masks};
pub(super) use operands::{
    SMALLEST_PEAK, gelu_quantize_row, interleave_rows_bf16, map_to_operand, quantize_row, row_to_bf16,
    transpose, transpose_bf16,
};
pub(super) use softmax::{SoftmaxTile, softmax};

/// A vector of the first values at `p`, of which there are `n`; 0 beyond.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn load_up_to<S: Simd>(p: *const f32, n: usize) -> S::V {
    // SAFETY: as the caller's.
    unsafe { if n >= S::LANES { S::load(p) } else { S::load_first(p, n, 0.0) } }
}

/// Stores a vector as far as there is room for `n` values.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn store_up_to<S: Simd>(p: *mut f32, v: S::V, n: usize) {
    // SAFETY: as the caller's.
    unsafe { if n >= S::LANES { S::store(p, v) } else { S::store_first(p, v, n) } }
}

/// x ← x + y, n values.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn add_assign<S: Simd>(x: *mut f32, y: *const f32, n: usize) {
    let mut i = 0;
    while i < n {
        // SAFETY: at most n − i values.
        unsafe {
            let sum = S::add(load_up_to::<S>(x.add(i), n - i), load_up_to::<S>(y.add(i), n - i));
            store_up_to::<S>(x.add(i), sum, n - i);
        }
        i += S::LANES;
    }
}

/// Σ x·y over n values, in an order that is the same for every instruction set, without fused operations: so are the bits.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn sum_of_products<S: Simd>(x: *const f32, y: *const f32, n: usize) -> f32 {
    let mut sums = [0.0; MAX_LANES];
    let whole = n / MAX_LANES * MAX_LANES;
    // SAFETY: all loads lie within n values, and stores within `sums`.
    unsafe {
        let mut partial = [S::splat(0.0); MAX_LANES];
        let mut i = 0;
        while i < whole {
            for (v, partial) in partial.iter_mut().enumerate().take(MAX_LANES / S::LANES) {
                let at = i + v * S::LANES;
                *partial = S::add(*partial, S::mul(S::load(x.add(at)), S::load(y.add(at))));
            }
            i += MAX_LANES;
        }
        for (v, partial) in partial.into_iter().enumerate().take(MAX_LANES / S::LANES) {
            S::store(sums.as_mut_ptr().add(v * S::LANES), partial);
        }
        let mut rest = 0.0;
        for i in whole..n {
            rest += *x.add(i) * *y.add(i);
        }
        let mut width = MAX_LANES / 2;
        while width > 0 {
            for i in 0..width {
                sums[i] += sums[i + width];
            }
            width /= 2;
        }
        sums[0] + rest
    }
}

/// Prefetches n values. Rows that lie far apart are on new pages, which the hardware prefetcher does not follow.
///
/// # Safety
/// The instruction set only: any address will do.
#[inline(always)]
pub(super) unsafe fn prefetch<S: Simd>(x: *const f32, n: usize) {
    for line in 0..n.div_ceil(16) {
        // SAFETY: a prefetch reads nothing.
        unsafe { S::prefetch(x.wrapping_add(line * 16)) }
    }
}

/// x ← a · x, n values.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn scale<S: Simd>(x: *mut f32, n: usize, a: f32) {
    let mut i = 0;
    while i < n {
        // SAFETY: at most n − i values.
        unsafe {
            let scaled = S::mul(load_up_to::<S>(x.add(i), n - i), S::splat(a));
            store_up_to::<S>(x.add(i), scaled, n - i);
        }
        i += S::LANES;
    }
}

/// out ← x / max(‖x‖₂, 1e-12), times `gamma` unless null. `out` may be `x`.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn normalize<S: Simd>(x: *const f32, out: *mut f32, n: usize, gamma: *const f32) {
    // SAFETY: whole vectors in the first loop, at most n − i values in the others.
    unsafe {
        let (mut even, mut odd) = (S::splat(0.0), S::splat(0.0));
        let mut i = 0;
        while i + 2 * S::LANES <= n {
            let (a, b) = (S::load(x.add(i)), S::load(x.add(i + S::LANES)));
            even = S::fma(a, a, even);
            odd = S::fma(b, b, odd);
            i += 2 * S::LANES;
        }
        while i < n {
            let a = load_up_to::<S>(x.add(i), n - i);
            even = S::fma(a, a, even);
            i += S::LANES;
        }
        // f32::max would drop a NaN.
        let norm = S::sum(S::add(even, odd)).sqrt();
        let factor = S::splat(1.0 / if norm < 1e-12 { 1e-12 } else { norm });
        i = 0;
        while i < n {
            let mut v = S::mul(load_up_to::<S>(x.add(i), n - i), factor);
            if !gamma.is_null() {
                v = S::mul(v, load_up_to::<S>(gamma.add(i), n - i));
            }
            store_up_to::<S>(out.add(i), v, n - i);
            i += S::LANES;
        }
    }
}

/// Rotates the interleaved pairs of a row: `table` holds n cosines (each twice), then n sines (first of a pair negated).
///
/// # Safety
/// See the module. n is even, as LANES is, so that no vector cuts a pair.
#[inline(always)]
pub(super) unsafe fn rotate<S: Simd>(x: *mut f32, table: *const f32, n: usize) {
    let mut i = 0;
    while i < n {
        // SAFETY: at most n − i values of the row, and of the table's 2 · n.
        unsafe {
            let v = load_up_to::<S>(x.add(i), n - i);
            let (cos, sin) = (load_up_to::<S>(table.add(i), n - i), load_up_to::<S>(table.add(n + i), n - i));
            let turned = S::mul(S::swap_pairs(v), sin);
            store_up_to::<S>(x.add(i), S::fma(v, cos, turned), n - i);
        }
        i += S::LANES;
    }
}

/// Runs `rounds` rounds of 12 independent chains of multiply-adds on registers, of f32 or, `INT8`, of four i8. Returns their
/// operations and a value that keeps them from being optimised away.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn peak<S: Simd, const INT8: bool>(rounds: usize) -> (f64, f32) {
    // SAFETY: as the caller's.
    unsafe {
        let mut acc = [S::splat(0.0); 12];
        let (a, b) = (S::splat(core::hint::black_box(0.999)), S::splat(core::hint::black_box(1e-3)));
        for _ in 0..rounds {
            for v in &mut acc {
                *v = if INT8 { S::dot_i8(a, b, *v) } else { S::fma(*v, a, b) };
            }
        }
        let mut total = S::splat(0.0);
        for v in acc {
            total = S::add(total, v);
        }
        ((rounds * 12 * S::LANES * if INT8 { 8 } else { 2 }) as f64, S::sum(total))
    }
}
