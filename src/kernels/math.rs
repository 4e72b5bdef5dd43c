//! exp, tanh, sigmoid and GELU on vectors: polynomials of our own (Chebyshev-node fits), branch free.
//!
//! Largest errors measured against f64 (`tests/kernels.rs` sweeps and gates them), in units of the last place: exp 1.0, exp2
//! 1.3 (1.5 without fused multiply-add), sigmoid 2.3, tanh 1.4, GELU 1.9 above zero, 4.7 down to −1 and, relative to results
//! that vanish, 80 in the tail down to −6. Results below 2⁻¹²⁶ are 0, never denormal; NaN stays NaN; exp and exp2 saturate
//! instead of reaching infinity.

use super::simd::{SHIFT, Simd};

/// Horner's rule, highest coefficient first.
///
/// # Safety
/// The instruction set of `S` must be available.
#[inline(always)]
unsafe fn horner<S: Simd, const N: usize>(x: S::V, c: [f32; N]) -> S::V {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let mut p = S::splat(c[0]);
        for &k in &c[1..] {
            p = S::fma(p, x, S::splat(k));
        }
        p
    }
}

/// 2ˣ.
///
/// # Safety
/// The instruction set of `S` must be available.
#[inline(always)]
pub(super) unsafe fn exp2<S: Simd>(x: S::V) -> S::V {
    const Q: [f32; 6] =
        [1.545_416_2e-4, 1.339_201_7e-3, 9.618_08e-3, 5.550_335e-2, 2.402_265e-1, 6.931_472e-1];
    // SAFETY: the caller has the instruction set.
    unsafe {
        let tiny = S::lt(x, S::splat(-126.0));
        let c = S::min(S::splat(127.0), S::max(S::splat(-126.0), x));
        let n = S::round(c);
        let r = S::sub(c, n);
        let p = S::fma(horner::<S, 6>(r, Q), r, S::splat(1.0));
        S::select(tiny, S::splat(0.0), S::mul(p, S::exp2i(n)))
    }
}

/// 2ˣ for x ≤ 127, as exact as a bf16 needs it: within 1e-4 of it, and 2⁻¹²⁵ for anything below.
///
/// # Safety
/// The instruction set of `S` must be available.
#[inline(always)]
pub(super) unsafe fn exp2_coarse<S: Simd>(x: S::V) -> S::V {
    const P: [f32; 4] = [0.055_088_68, 0.242_603_65, 0.693_276_2, 0.999_928_94];
    // SAFETY: the caller has the instruction set.
    unsafe {
        let x = S::max(S::splat(-125.0), x);
        let shifted = S::add(x, S::splat(SHIFT));
        let r = S::sub(x, S::sub(shifted, S::splat(SHIFT)));
        S::scale_exp2(horner::<S, 4>(r, P), shifted)
    }
}

/// eˣ.
///
/// # Safety
/// The instruction set of `S` must be available.
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    const Q: [f32; 5] = [1.392_692_7e-3, 8.363_774e-3, 4.166_655e-2, 1.666_657_3e-1, 0.5];
    // ln 2 in two parts; the first has few enough bits that n · LN2_HI is exact.
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    // SAFETY: the caller has the instruction set.
    unsafe {
        let tiny = S::lt(x, S::splat(-87.336_54));
        let c = S::min(S::splat(88.0), S::max(S::splat(-87.336_54), x));
        let n = S::round(S::mul(c, S::splat(core::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-LN2_HI), c);
        let r = S::fma(n, S::splat(-LN2_LO), r);
        let q = horner::<S, 5>(r, Q);
        let p = S::add(S::fma(q, S::mul(r, r), r), S::splat(1.0));
        S::select(tiny, S::splat(0.0), S::mul(p, S::exp2i(n)))
    }
}

/// 1 / (1 + e⁻ˣ).
///
/// # Safety
/// The instruction set of `S` must be available.
#[inline(always)]
pub(super) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let e = exp::<S>(S::sub(S::splat(0.0), x));
        S::div(S::splat(1.0), S::add(S::splat(1.0), e))
    }
}

/// tanh x.
///
/// # Safety
/// The instruction set of `S` must be available.
#[inline(always)]
pub(super) unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    const P: [f32; 5] = [-6.062_148e-3, 2.097_323_4e-2, -5.384_582_3e-2, 1.333_273_6e-1, -3.333_332_8e-1];
    // SAFETY: the caller has the instruction set.
    unsafe {
        let a = S::abs(x);
        let u = S::mul(x, x);
        let near = S::fma(S::mul(horner::<S, 5>(u, P), u), x, x);
        let e = exp::<S>(S::add(a, a));
        let far = S::sub(S::splat(1.0), S::div(S::splat(2.0), S::add(e, S::splat(1.0))));
        S::select(S::lt(a, S::splat(0.625)), near, S::copysign(far, x))
    }
}

/// x · Φ(x) as exact as a bf16 needs it: within 1.4e-4 + 2.4e-6 · |x|. Φ is a polynomial between −4 and 4, exactly 0 and 1 at them,
/// and stays there beyond.
///
/// # Safety
/// The instruction set of `S` must be available.
#[inline(always)]
pub(super) unsafe fn gelu_coarse<S: Simd>(x: S::V) -> S::V {
    const P: [f32; 8] = [
        -1.279_593_2e-9,
        1.045_383_8e-7,
        -3.711_879e-6,
        7.621_724e-5,
        -1.021_216_9e-3,
        9.581_937e-3,
        -6.606_486e-2,
        0.398_805_83,
    ];
    // SAFETY: the caller has the instruction set.
    unsafe {
        let c = S::min(S::splat(4.0), S::max(S::splat(-4.0), x));
        let phi = S::fma(horner::<S, 8>(S::mul(c, c), P), c, S::splat(0.5));
        S::mul(x, phi)
    }
}

/// x · Φ(x), the exact GELU. Φ(−|x|) is a polynomial near zero and 2 to a polynomial in the tail, so that the tail keeps its
/// relative accuracy where `1 + erf` cancels.
///
/// # Safety
/// The instruction set of `S` must be available.
#[inline(always)]
pub(super) unsafe fn gelu<S: Simd>(x: S::V) -> S::V {
    // erf(z)/z in z², |z| ≤ 1.
    const ERF: [f32; 7] = [
        7.843_019_6e-5,
        -8.007_761e-4,
        5.188_149e-3,
        -2.685_377e-2,
        1.128_358_5e-1,
        -3.761_262_6e-1,
        core::f32::consts::FRAC_2_SQRT_PI,
    ];
    // −log₂ erfc(z), 1 ≤ z ≤ 6.
    const TAIL: [f32; 10] = [
        1.222_605_3e-7,
        -4.881_276e-6,
        8.836_09e-5,
        -9.651_285_3e-4,
        7.157_623_3e-3,
        -3.859_124_7e-2,
        1.592_078_5e-1,
        9.114_619_5e-1,
        1.630_462_4,
        -4.002_835_3e-4,
    ];
    // SAFETY: the caller has the instruction set.
    unsafe {
        let half = S::splat(0.5);
        let z = S::mul(S::abs(x), S::splat(core::f32::consts::FRAC_1_SQRT_2));
        let erf = S::mul(horner::<S, 7>(S::mul(z, z), ERF), z);
        let near = S::sub(half, S::mul(half, erf));
        let g = horner::<S, 10>(S::min(S::splat(6.0), z), TAIL);
        let far = S::mul(half, exp2::<S>(S::sub(S::splat(0.0), g)));
        let phi = S::select(S::lt(z, S::splat(1.0)), near, far);
        let low = S::mul(x, phi);
        S::select(S::lt(x, S::splat(0.0)), low, S::sub(x, low))
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Portable;
    use super::*;

    /// Calls `visit(x, f(x))` over `from..to`.
    ///
    /// # Safety
    /// The instruction set of `S` must be available.
    unsafe fn sweep<S: Simd>(from: f32, to: f32, f: impl Fn(S::V) -> S::V, mut visit: impl FnMut(f64, f64)) {
        let count = 40_000;
        let xs: Vec<f32> = (0..count).map(|i| from + (to - from) * i as f32 / (count - 1) as f32).collect();
        let mut out = vec![0.0; S::LANES];
        for xs in xs.chunks_exact(S::LANES) {
            // SAFETY: both slices hold LANES values.
            unsafe { S::store(out.as_mut_ptr(), f(S::load(xs.as_ptr()))) };
            xs.iter().zip(&out).for_each(|(&x, &y)| visit(f64::from(x), f64::from(y)));
        }
    }

    /// # Safety
    /// The instruction set of `S` must be available.
    unsafe fn coarse_functions_are_as_exact_as_bf16_needs<S: Simd>() {
        let near = |found: f64, exact: f64, error: f64, what: &str, x: f64| {
            assert!((found - exact).abs() <= error, "{what}({x}): {found}, not {exact}");
        };
        let exact_gelu = |x: f64| {
            let mut exact = [0.0f32; 4];
            // SAFETY: plain Rust, of four values.
            unsafe {
                Portable::store(exact.as_mut_ptr(), gelu::<Portable>(Portable::splat(x as f32)));
            }
            f64::from(exact[0])
        };
        // SAFETY: the caller's.
        unsafe {
            let exp2 = |x| exp2_coarse::<S>(x);
            sweep::<S>(-125.0, 127.0, exp2, |x, y| near(y, x.exp2(), 1e-4 * x.exp2(), "exp2", x));
            sweep::<S>(-1e4, -125.0, exp2, |x, y| near(y, 0.0, 3e-38, "exp2", x));
            let least = exp2(S::splat(f32::NEG_INFINITY));
            sweep::<S>(0.0, 1.0, |_| least, |_, y| near(y, 0.0, 3e-38, "exp2", f64::NEG_INFINITY));
            let gelu = |x| gelu_coarse::<S>(x);
            sweep::<S>(-9.0, 9.0, gelu, |x, y| near(y, exact_gelu(x), 1.4e-4, "gelu", x));
            for (from, to) in [(-1e3, -4.0), (4.0, 1e3)] {
                let error = |x: f64| 1.4e-4 + 2.4e-6 * x.abs();
                sweep::<S>(from, to, gelu, |x, y| near(y, x.max(0.0), error(x), "gelu", x));
            }
        }
    }

    #[test]
    fn coarse_functions_hold_on_every_instruction_set_that_has_them() {
        // SAFETY: plain Rust, or an instruction set that is there.
        unsafe {
            coarse_functions_are_as_exact_as_bf16_needs::<Portable>();
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx512f") {
                coarse_functions_are_as_exact_as_bf16_needs::<super::super::simd::x86::Avx512>();
            }
        }
    }
}
