//! Elementwise and row-wise kernels over slices of any length and alignment.
//!
//! # Safety
//! Each function needs the instruction set of `S` and pointers valid for the lengths it names.

use super::layout::{Element, TILE, tiled_row};
use super::math;
use super::simd::{MAX_LANES, Pair, Simd};

/// Values in a line of bf16, and from a line to the next of the same row.
const LINE_BF16: usize = Element::Bf16.per_line();
const NEXT_LINE_BF16: usize = TILE * Element::Bf16.per_word();
/// The same of i8, which are bytes.
const LINE_I8: usize = Element::Int8.per_line();
const NEXT_LINE_I8: usize = TILE * Element::Int8.per_word();
/// Rows whose largest magnitude is less count as 0 in i8: the reciprocal of their scale could overflow.
pub(super) const SMALLEST_PEAK: f32 = 1e-30;

/// Four vectors at a time, which hides the latency of a polynomial.
type Interleaved<S> = Pair<Pair<S>>;

/// Loads `n < LANES` values; the other lanes hold `fill`.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn load_tail<S: Simd>(p: *const f32, n: usize, fill: f32) -> S::V {
    let mut buffer = [fill; MAX_LANES];
    // SAFETY: n < LANES ≤ MAX_LANES, and p is valid for n reads.
    unsafe {
        core::ptr::copy_nonoverlapping(p, buffer.as_mut_ptr(), n);
        S::load(buffer.as_ptr())
    }
}

/// Stores the first `n < LANES` lanes.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn store_tail<S: Simd>(p: *mut f32, v: S::V, n: usize) {
    let mut buffer = [0.0; MAX_LANES];
    // SAFETY: n < LANES ≤ MAX_LANES, and p is valid for n writes.
    unsafe {
        S::store(buffer.as_mut_ptr(), v);
        core::ptr::copy_nonoverlapping(buffer.as_ptr(), p, n);
    }
}

/// The lanes of a vector, the unused ones zero.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn to_lanes<S: Simd>(v: S::V) -> [f32; MAX_LANES] {
    let mut buffer = [0.0; MAX_LANES];
    // SAFETY: LANES ≤ MAX_LANES.
    unsafe { S::store(buffer.as_mut_ptr(), v) };
    buffer
}

/// # Safety
/// See the module.
#[inline(always)]
unsafe fn sum<S: Simd>(v: S::V) -> f32 {
    // SAFETY: as the caller's.
    unsafe { to_lanes::<S>(v)[..S::LANES].iter().sum() }
}

/// A function of one vector, as a type because closures do not inherit `target_feature`.
pub(super) trait Map<S: Simd> {
    /// # Safety
    /// See the module.
    unsafe fn map(v: S::V) -> S::V;
}

/// Exact GELU.
pub(super) struct Gelu;
/// GELU with bf16 accuracy.
pub(super) struct GeluCoarse;
/// tanh.
pub(super) struct Tanh;
/// Logistic sigmoid.
pub(super) struct Sigmoid;
/// eˣ, for tests.
pub(super) struct Exp;
/// 2ˣ, for tests.
pub(super) struct Exp2;

macro_rules! map_with {
    ($($op:ident => $f:ident),*) => {$(
        impl<S: Simd> Map<S> for $op {
            #[inline(always)]
            unsafe fn map(v: S::V) -> S::V {
                // SAFETY: as the caller's.
                unsafe { math::$f::<S>(v) }
            }
        }
    )*};
}
map_with!(Gelu => gelu, GeluCoarse => gelu_coarse, Tanh => tanh, Sigmoid => sigmoid, Exp => exp, Exp2 => exp2);

/// x ← f(x), n values.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn map<S: Simd, F: Map<S> + Map<Interleaved<S>>>(x: *mut f32, n: usize) {
    // SAFETY: i + LANES ≤ n in the loops, the tail is n − i < LANES.
    unsafe {
        let mut i = 0;
        while i + Interleaved::<S>::LANES <= n {
            Interleaved::<S>::store(
                x.add(i),
                <F as Map<Interleaved<S>>>::map(Interleaved::<S>::load(x.add(i))),
            );
            i += Interleaved::<S>::LANES;
        }
        while i + S::LANES <= n {
            S::store(x.add(i), <F as Map<S>>::map(S::load(x.add(i))));
            i += S::LANES;
        }
        if i < n {
            store_tail::<S>(x.add(i), <F as Map<S>>::map(load_tail::<S>(x.add(i), n - i, 0.0)), n - i);
        }
    }
}

/// out ← a · sigmoid(b), n values.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn glu<S: Simd>(a: *const f32, b: *const f32, out: *mut f32, n: usize) {
    // SAFETY: i + LANES ≤ n in the loop, the tail is n − i < LANES.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            let gate = math::sigmoid::<S>(S::load(b.add(i)));
            S::store(out.add(i), S::mul(S::load(a.add(i)), gate));
            i += S::LANES;
        }
        if i < n {
            let gate = math::sigmoid::<S>(load_tail::<S>(b.add(i), n - i, 0.0));
            let v = S::mul(load_tail::<S>(a.add(i), n - i, 0.0), gate);
            store_tail::<S>(out.add(i), v, n - i);
        }
    }
}

/// x ← x + y, n values.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn add_assign<S: Simd>(x: *mut f32, y: *const f32, n: usize) {
    // SAFETY: i + LANES ≤ n in the vector loop, i < n in the scalar one.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            S::store(x.add(i), S::add(S::load(x.add(i)), S::load(y.add(i))));
            i += S::LANES;
        }
        while i < n {
            *x.add(i) += *y.add(i);
            i += 1;
        }
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
    // SAFETY: i + LANES ≤ n in the vector loop, i < n in the scalar one.
    unsafe {
        let factor = S::splat(a);
        let mut i = 0;
        while i + S::LANES <= n {
            S::store(x.add(i), S::mul(S::load(x.add(i)), factor));
            i += S::LANES;
        }
        while i < n {
            *x.add(i) *= a;
            i += 1;
        }
    }
}

/// out ← x / max(‖x‖₂, 1e-12), times `gamma` unless null. `out` may be `x`.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn normalize<S: Simd>(x: *const f32, out: *mut f32, n: usize, gamma: *const f32) {
    // SAFETY: i + LANES ≤ n in the vector loops, i < n in the scalar ones; two accumulators advance by two vectors.
    unsafe {
        let mut even = S::splat(0.0);
        let mut odd = S::splat(0.0);
        let mut i = 0;
        while i + 2 * S::LANES <= n {
            let (a, b) = (S::load(x.add(i)), S::load(x.add(i + S::LANES)));
            even = S::fma(a, a, even);
            odd = S::fma(b, b, odd);
            i += 2 * S::LANES;
        }
        let mut square = sum::<S>(S::add(even, odd));
        while i < n {
            square += *x.add(i) * *x.add(i);
            i += 1;
        }
        // f32::max would drop a NaN.
        let norm = square.sqrt();
        let inverse = 1.0 / if norm < 1e-12 { 1e-12 } else { norm };
        let factor = S::splat(inverse);
        let mut i = 0;
        while i + S::LANES <= n {
            let mut v = S::mul(S::load(x.add(i)), factor);
            if !gamma.is_null() {
                v = S::mul(v, S::load(gamma.add(i)));
            }
            S::store(out.add(i), v);
            i += S::LANES;
        }
        while i < n {
            let v = *x.add(i) * inverse;
            *out.add(i) = if gamma.is_null() { v } else { v * *gamma.add(i) };
            i += 1;
        }
    }
}

/// Rotates the interleaved pairs of a row: `table` holds n cosines (each twice), then n sines (first of a pair negated).
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn rotate<S: Simd>(x: *mut f32, table: *const f32, n: usize) {
    // SAFETY: i + LANES ≤ n in the vector loop; n is even, as LANES is, so that the tail is whole pairs.
    unsafe {
        let (cos, sin) = (table, table.add(n));
        let mut i = 0;
        while i + S::LANES <= n {
            let v = S::load(x.add(i));
            let turned = S::mul(S::swap_pairs(v), S::load(sin.add(i)));
            S::store(x.add(i), S::fma(v, S::load(cos.add(i)), turned));
            i += S::LANES;
        }
        while i + 1 < n {
            let (a, b) = (*x.add(i), *x.add(i + 1));
            *x.add(i) = a * *cos.add(i) + b * *sin.add(i);
            *x.add(i + 1) = b * *cos.add(i + 1) + a * *sin.add(i + 1);
            i += 2;
        }
    }
}

/// One tile of the online softmax, in base 2.
pub(super) struct SoftmaxTile {
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

/// Stores values i.. of a row: in its lines of an operand of tiles, or in place.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn store_value<S: Simd, const BF16: bool>(row: *mut f32, lines: *mut u16, i: usize, v: S::V) {
    // SAFETY: the caller's; LANES divides LINE_BF16.
    unsafe {
        if BF16 {
            S::store_bf16(lines.add(i / LINE_BF16 * NEXT_LINE_BF16 + i % LINE_BF16), v);
        } else {
            S::store(row.add(i), v);
        }
    }
}

/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd, const BF16: bool>(t: &SoftmaxTile) {
    // SAFETY: every row lies at row · ld with n values; the loops stay below n.
    unsafe {
        for row in 0..t.rows {
            let s = t.scores.add(row * t.ld);
            let old = if t.first { f32::NEG_INFINITY } else { *t.max.add(row) };
            let mut high = S::splat(old);
            let mut other = high;
            let mut i = 0;
            while i + 2 * S::LANES <= t.n {
                high = S::max(high, S::load(s.add(i)));
                other = S::max(other, S::load(s.add(i + S::LANES)));
                i += 2 * S::LANES;
            }
            high = S::max(high, other);
            while i + S::LANES <= t.n {
                high = S::max(high, S::load(s.add(i)));
                i += S::LANES;
            }
            if i < t.n {
                high = S::max(high, load_tail::<S>(s.add(i), t.n - i, f32::NEG_INFINITY));
            }
            let mut max = f32::NEG_INFINITY;
            for &v in &to_lanes::<S>(high)[..S::LANES] {
                max = if v > max { v } else { max };
            }
            let shift = S::splat(max);
            let lines = t.operand.wrapping_add(tiled_row(row, Element::Bf16.words(t.n))).cast::<u16>();
            let mut total = S::splat(0.0);
            i = 0;
            while i + 2 * S::LANES <= t.n {
                let v = Pair::<S>::load(s.add(i));
                let p = exp2_for::<Pair<S>, BF16>(Pair::<S>::sub(v, [shift; 2]));
                store_value::<S, BF16>(s, lines, i, p[0]);
                store_value::<S, BF16>(s, lines, i + S::LANES, p[1]);
                total = S::add(total, S::add(p[0], p[1]));
                i += 2 * S::LANES;
            }
            while i + S::LANES <= t.n {
                let p = exp2_for::<S, BF16>(S::sub(S::load(s.add(i)), shift));
                store_value::<S, BF16>(s, lines, i, p);
                total = S::add(total, p);
                i += S::LANES;
            }
            if i < t.n {
                // 2^(−∞ − max) = 0 in the unused lanes.
                let v = load_tail::<S>(s.add(i), t.n - i, f32::NEG_INFINITY);
                let p = exp2_for::<S, BF16>(S::sub(v, shift));
                if BF16 {
                    store_value::<S, BF16>(s, lines, i, p);
                    i += S::LANES;
                } else {
                    store_tail::<S>(s.add(i), p, t.n - i);
                }
                total = S::add(total, p);
            }
            if BF16 {
                while i < t.n.next_multiple_of(LINE_BF16) {
                    store_value::<S, BF16>(s, lines, i, S::splat(0.0));
                    i += S::LANES;
                }
            }
            let total = sum::<S>(total);
            *t.max.add(row) = max;
            if t.first {
                *t.sum.add(row) = total;
            } else {
                let fade = to_lanes::<S>(math::exp2::<S>(S::splat(old - max)))[0];
                *t.sum.add(row) = *t.sum.add(row) * fade + total;
                if fade != 1.0 {
                    scale::<S>(t.out.add(row * t.out_ld), t.out_n, fade);
                }
            }
        }
    }
}

/// Transposes `rows` rows of `n` values (stride `ld`) to `n` rows of `width ≥ rows` columns, zero beyond `rows`: a panel of
/// keys for the GEMM.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn transpose(
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
pub(super) unsafe fn transpose_bf16<S: Simd>(
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
    // SAFETY: i + LANES ≤ LINE_BF16, which LANES divides; the tail is n − i < LANES.
    unsafe {
        while i + S::LANES <= n {
            S::store_bf16(line.add(i), S::load(row.add(i)));
            i += S::LANES;
        }
        while i < LINE_BF16 {
            S::store_bf16(line.add(i), load_tail::<S>(row.wrapping_add(i), n.saturating_sub(i), 0.0));
            i += S::LANES;
        }
    }
}

/// Converts a row of `n` f32 to its lines of an operand of tiles, which are a tile apart.
///
/// # Safety
/// See the module.
#[inline(always)]
pub(super) unsafe fn row_to_bf16<S: Simd>(row: *const f32, n: usize, lines: *mut f32) {
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
pub(super) unsafe fn map_to_operand<S: Simd, F: Map<S> + Map<Interleaved<S>>>(
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
            let v = if i + S::LANES <= n {
                S::load(row.add(i))
            } else {
                load_tail::<S>(row.wrapping_add(i), n.saturating_sub(i), 0.0)
            };
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
pub(super) unsafe fn interleave_rows_bf16<S: Simd>(
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
pub(super) struct MaskBins<'a> {
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
pub(super) unsafe fn apply_masks<S: Simd, const COMPLETE: bool>(bins: &MaskBins<'_>) {
    let mut i = 0;
    // SAFETY: i + LANES ≤ len in the loop; the tail goes through buffers of LANES values.
    unsafe {
        while i + S::LANES <= bins.len {
            mask_vector::<S, COMPLETE>(S::load(bins.spec.add(i)), bins.stems, i, S::LANES);
            i += S::LANES;
        }
        if i < bins.len {
            let n = bins.len - i;
            mask_vector::<S, COMPLETE>(load_tail::<S>(bins.spec.add(i), n, 0.0), bins.stems, i, n);
        }
    }
}

/// One vector of bins, `n` floats of it, at float i of every stem.
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
            if n == S::LANES {
                S::store(stem.add(i), product);
            } else {
                store_tail::<S>(stem.add(i), product, n);
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
pub(super) unsafe fn quantize_row<S: Simd, const UNSIGNED: bool>(
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
        let peak = to_lanes::<S>(peak)[..S::LANES].iter().fold(0.0f32, |peak, &v| peak.max(v));
        let (unit, inverse) = if peak < SMALLEST_PEAK { (0.0, 0.0) } else { (peak / 127.0, 127.0 / peak) };
        *scale = unit + sum::<S>(poison);
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
pub(super) unsafe fn gelu_quantize_row<S: Simd, const UNSIGNED: bool>(
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

/// A vector of the first values at `p`, of which there are `n`; 0 beyond.
///
/// # Safety
/// See the module.
#[inline(always)]
unsafe fn load_up_to<S: Simd>(p: *const f32, n: usize) -> S::V {
    // SAFETY: as the caller's.
    unsafe { if n >= S::LANES { S::load(p) } else { load_tail::<S>(p, n, 0.0) } }
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
        ((rounds * 12 * S::LANES * if INT8 { 8 } else { 2 }) as f64, sum::<S>(total))
    }
}
