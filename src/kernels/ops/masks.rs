//! Masks onto the mixture's spectrum.
//!
//! # Safety
//! Each function needs the instruction set of `S` and pointers valid for the lengths it names.

use super::{load_up_to, store_up_to};
use crate::kernels::simd::{MAX_LANES, Simd};

/// Even lanes, of which complex numbers have their real parts.
const IMAGINARY: [f32; MAX_LANES] = {
    let mut lanes = [0.0; MAX_LANES];
    let mut i = 1;
    while i < MAX_LANES {
        lanes[i] = 1.0;
        i += 2;
    }
    lanes
};

/// Complex numbers, real and imaginary parts by turns, of the bins of one block.
pub(in crate::kernels) struct MaskBins<'a> {
    /// The mixture's bins.
    pub spec: *const f32,
    /// The masks of the same bins, one pointer for each stem; replaced by mask times mixture.
    pub stems: &'a [*mut f32],
    /// Floats: twice the bins.
    pub len: usize,
}

/// Multiplies masks with the mixture. `COMPLETE`: first makes the masks of a bin sum to 1, each stem taking of the rest by the power
/// of its mask; masks that are not finite count as 0.
///
/// # Safety
/// See the module; LANES is even.
#[inline(always)]
pub(in crate::kernels) unsafe fn apply_masks<S: Simd, const COMPLETE: bool>(bins: &MaskBins<'_>) {
    let mut i = 0;
    while i < bins.len {
        let n = bins.len - i;
        // SAFETY: at most n floats.
        unsafe { mask_vector::<S, COMPLETE>(load_up_to::<S>(bins.spec.add(i), n), bins.stems, i, n) };
        i += S::LANES;
    }
}

/// One vector of bins, at most `n` floats of it, at float i of every stem.
///
/// # Safety
/// As [`apply_masks`]'.
#[inline(always)]
unsafe fn mask_vector<S: Simd, const COMPLETE: bool>(spec: S::V, stems: &[*mut f32], i: usize, n: usize) {
    // SAFETY: as the caller's.
    unsafe {
        let is_real = S::lt(S::load(IMAGINARY.as_ptr()), S::splat(0.5));
        let (zero, swapped) = (S::splat(0.0), S::swap_pairs(spec));
        // |z|² in both lanes of z.
        let power_of = |z: S::V| {
            let square = S::mul(z, z);
            S::add(square, S::swap_pairs(square))
        };
        let finite_or_zero = |z: S::V| {
            let nothing = S::sub(z, z);
            let nothing = S::add(nothing, S::swap_pairs(nothing));
            S::select(S::lt(S::abs(nothing), S::splat(1.0)), z, zero)
        };
        let (mut rest, mut power) = (S::select(is_real, S::splat(1.0), zero), zero);
        if COMPLETE {
            for stem in stems {
                let mask = finite_or_zero(load_up_to::<S>(stem.add(i), n));
                rest = S::sub(rest, mask);
                power = S::add(power, power_of(mask));
            }
        }
        // Below the smallest normal number the quotient is meaningless.
        let heard = S::lt(S::splat(f32::MIN_POSITIVE), power);
        let even = S::splat(1.0 / stems.len() as f32);
        for stem in stems {
            let mut mask = load_up_to::<S>(stem.add(i), n);
            if COMPLETE {
                mask = finite_or_zero(mask);
                let weight = S::select(heard, S::div(power_of(mask), power), even);
                mask = S::fma(rest, weight, mask);
            }
            let (straight, crossed) = (S::mul(mask, spec), S::mul(mask, swapped));
            let real = S::sub(straight, S::swap_pairs(straight));
            let imaginary = S::add(crossed, S::swap_pairs(crossed));
            let product = S::select(is_real, real, imaginary);
            store_up_to::<S>(stem.add(i), product, n);
        }
    }
}
