//! One vector type per instruction set, behind one trait, so that every kernel is written once.
//!
//! Generic kernels are `#[inline(always)]` and get compiled inside a function that carries the `target_feature`s (see
//! `isa`); only then do the intrinsics become single instructions.

use core::marker::PhantomData;

/// Operations that are one intrinsic on whole vectors.
macro_rules! intrinsics {
    ($vector:ty; $($name:ident($($arg:ident),*) = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        unsafe fn $name($($arg: $vector),*) -> $vector {
            // SAFETY: the caller has the instruction set.
            unsafe { $intrinsic($($arg),*) }
        }
    )*};
}

#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

/// Lanes of the widest vector: the size of the stack buffers for tails.
pub(super) const MAX_LANES: usize = 16;

/// 1.5 · 2²³: added, it pushes the fraction out of the mantissa, whose lowest bits are then the integer.
pub(super) const SHIFT: f32 = 12_582_912.0;

/// The operations the kernels need.
///
/// # Safety
/// All methods are unsafe: the caller vouches that the processor has the instruction set, and, for loads and stores, that
/// `LANES` values are readable or writable at the pointer. No alignment is required.
pub(super) trait Simd: Copy + 'static {
    /// A vector of `LANES` floats.
    type V: Copy;
    /// The result of a comparison.
    type M: Copy;
    /// Floats in a vector.
    const LANES: usize;
    /// Rows of a GEMM tile; with `NV` vectors of columns the accumulators fill the register file.
    const MR: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Loads the first `n < LANES` lanes; the others hold `fill`. Only n values need to be readable.
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize, fill: f32) -> Self::V {
        const { assert!(Self::LANES <= MAX_LANES) }
        let mut lanes = [fill; MAX_LANES];
        // SAFETY: the caller gives n readable values; the buffer holds MAX_LANES.
        unsafe {
            core::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            Self::load(lanes.as_ptr())
        }
    }
    /// Stores the first `n < LANES` lanes. Only n values need to be writable.
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: the caller gives n writable values.
        unsafe { core::ptr::copy_nonoverlapping(to_lanes::<Self>(v).as_ptr(), p, n) }
    }
    /// The sum of the lanes, halves first, so that no chain is longer than it must be.
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        // SAFETY: the caller's.
        let mut lanes = unsafe { to_lanes::<Self>(v) };
        let mut half = Self::LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
            half /= 2;
        }
        lanes[0]
    }
    /// The largest lane. A NaN may survive or not.
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        // SAFETY: the caller's.
        let mut lanes = unsafe { to_lanes::<Self>(v) };
        let mut half = Self::LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] = if lanes[i + half] > lanes[i] { lanes[i + half] } else { lanes[i] };
            }
            half /= 2;
        }
        lanes[0]
    }
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a·b + c`, fused where the instruction set can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; a NaN in `b` survives.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; a NaN in `b` survives.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `a < b`, false for NaN.
    unsafe fn lt(a: Self::V, b: Self::V) -> Self::M;
    /// `m ? a : b`.
    unsafe fn select(m: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// Nearest integer, for |x| < 2²².
    unsafe fn round(v: Self::V) -> Self::V;
    /// 2ᵛ for integral v in −126..=127.
    unsafe fn exp2i(v: Self::V) -> Self::V;
    /// `v` · 2ⁿ for n + [`SHIFT`], where that is neither denormal nor infinite.
    #[inline(always)]
    unsafe fn scale_exp2(v: Self::V, shifted: Self::V) -> Self::V {
        // SAFETY: the caller's.
        unsafe { Self::mul(v, Self::exp2i(Self::sub(shifted, Self::splat(SHIFT)))) }
    }
    unsafe fn abs(v: Self::V) -> Self::V;
    /// The magnitude of `v` with the sign of `sign`.
    unsafe fn copysign(v: Self::V, sign: Self::V) -> Self::V;
    /// Prefetches the cache line at `p`, which may be any address.
    #[inline(always)]
    unsafe fn prefetch(_p: *const f32) {}
    /// Each lane's lower half as a bf16.
    unsafe fn lower_bf16(v: Self::V) -> Self::V;
    /// Each lane's upper half as a bf16.
    unsafe fn upper_bf16(v: Self::V) -> Self::V;
    /// Lanes of two bf16: `c` + lower · lower + upper · upper.
    #[inline(always)]
    unsafe fn dot_bf16(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the caller's.
        unsafe {
            let upper = Self::fma(Self::upper_bf16(a), Self::upper_bf16(b), c);
            Self::fma(Self::lower_bf16(a), Self::lower_bf16(b), upper)
        }
    }
    /// Stores `LANES` bf16.
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V) {
        // SAFETY: the caller gives LANES writable values.
        unsafe {
            let lanes = to_lanes::<Self>(v);
            for (i, &lane) in lanes[..Self::LANES].iter().enumerate() {
                p.add(i).write_unaligned(to_bf16(lane));
            }
        }
    }
    /// Lanes of two bf16.
    #[inline(always)]
    unsafe fn pair_bf16(lower: Self::V, upper: Self::V) -> Self::V {
        // SAFETY: the buffer holds MAX_LANES values.
        unsafe {
            let (mut a, b) = (to_lanes::<Self>(lower), to_lanes::<Self>(upper));
            for (a, &b) in a.iter_mut().zip(&b) {
                *a = f32::from_bits(u32::from(to_bf16(b)) << 16 | u32::from(to_bf16(*a)));
            }
            Self::load(a.as_ptr())
        }
    }
    /// (x₀, x₁, x₂, x₃, …) → (x₁, x₀, x₃, x₂, …).
    unsafe fn swap_pairs(v: Self::V) -> Self::V;
    /// Whether the left operand of [`dot_i8`](Self::dot_i8) is u8, 128 larger than the value that is meant.
    const UNSIGNED_LEFT: bool = false;
    /// Lanes of four i8 (the left ones possibly u8): `c`, the bits of an i32, + Σ a · b.
    #[inline(always)]
    unsafe fn dot_i8(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the buffer holds MAX_LANES values.
        unsafe {
            let (a, b, mut c) = (to_lanes::<Self>(a), to_lanes::<Self>(b), to_lanes::<Self>(c));
            for ((c, a), b) in c.iter_mut().zip(a).zip(b) {
                let products = a.to_bits().to_le_bytes().into_iter().zip(b.to_bits().to_le_bytes());
                let sum: i32 = products.map(|(a, b)| i32::from(a as i8) * i32::from(b as i8)).sum();
                *c = f32::from_bits((c.to_bits() as i32).wrapping_add(sum) as u32);
            }
            Self::load(c.as_ptr())
        }
    }
    /// Lanes of i32 to f32.
    #[inline(always)]
    unsafe fn i32_to_f32(v: Self::V) -> Self::V {
        // SAFETY: the buffer holds MAX_LANES values.
        unsafe {
            let mut lanes = to_lanes::<Self>(v);
            lanes.iter_mut().for_each(|lane| *lane = lane.to_bits() as i32 as f32);
            Self::load(lanes.as_ptr())
        }
    }
    /// Stores `LANES` values within ±127, rounded to the nearest, halves to even, as i8 or, `UNSIGNED`, 128 larger as u8.
    #[inline(always)]
    unsafe fn store_i8<const UNSIGNED: bool>(p: *mut u8, v: Self::V) {
        // SAFETY: the caller gives LANES writable bytes.
        unsafe {
            let lanes = to_lanes::<Self>(Self::round(v));
            for (i, &lane) in lanes[..Self::LANES].iter().enumerate() {
                p.add(i).write(lane as i8 as u8 ^ if UNSIGNED { 0x80 } else { 0 });
            }
        }
    }
}

/// The lanes of a vector, the unused ones zero.
///
/// # Safety
/// The instruction set of `S` must be available.
#[inline(always)]
unsafe fn to_lanes<S: Simd>(v: S::V) -> [f32; MAX_LANES] {
    const { assert!(S::LANES <= MAX_LANES) }
    let mut lanes = [0.0; MAX_LANES];
    // SAFETY: the caller's; the buffer holds MAX_LANES values.
    unsafe { S::store(lanes.as_mut_ptr(), v) };
    lanes
}

/// f32 to bf16, to the nearest, halves to even; NaN stays NaN.
#[inline(always)]
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    (if x.is_nan() { bits | 0x0040_0000 } else { rounded } >> 16) as u16
}

/// Two vectors at once. Interleaving two chains of dependent operations, such as polynomials, hides their latency.
#[derive(Clone, Copy)]
pub(super) struct Pair<S>(PhantomData<S>);

macro_rules! pairwise {
    ($($name:ident($($arg:ident: $ty:ident),*) -> $out:ident;)*) => {$(
        #[inline(always)]
        unsafe fn $name($($arg: [S::$ty; 2]),*) -> [S::$out; 2] {
            // SAFETY: the caller's.
            unsafe { [S::$name($($arg[0]),*), S::$name($($arg[1]),*)] }
        }
    )*};
}

impl<S: Simd> Simd for Pair<S> {
    type V = [S::V; 2];
    type M = [S::M; 2];
    const LANES: usize = 2 * S::LANES;
    const MR: usize = 0;

    #[inline(always)]
    unsafe fn splat(x: f32) -> [S::V; 2] {
        // SAFETY: the caller's.
        unsafe { [S::splat(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [S::V; 2] {
        // SAFETY: the caller gives 2 · LANES readable floats.
        unsafe { [S::load(p), S::load(p.add(S::LANES))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [S::V; 2]) {
        // SAFETY: the caller gives 2 · LANES writable floats.
        unsafe {
            S::store(p, v[0]);
            S::store(p.add(S::LANES), v[1]);
        }
    }
    pairwise! {
        add(a: V, b: V) -> V;
        sub(a: V, b: V) -> V;
        mul(a: V, b: V) -> V;
        div(a: V, b: V) -> V;
        fma(a: V, b: V, c: V) -> V;
        max(a: V, b: V) -> V;
        min(a: V, b: V) -> V;
        lt(a: V, b: V) -> M;
        select(m: M, a: V, b: V) -> V;
        round(v: V) -> V;
        exp2i(v: V) -> V;
        scale_exp2(v: V, shifted: V) -> V;
        abs(v: V) -> V;
        copysign(v: V, sign: V) -> V;
        lower_bf16(v: V) -> V;
        upper_bf16(v: V) -> V;
        swap_pairs(v: V) -> V;
    }
}

/// Plain Rust, for processors without their own implementation, and the reference for the others.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Four floats, the vector width of 64-bit baselines.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(super) struct F4([f32; 4]);

macro_rules! lanewise {
    ($i:ident => $e:expr) => {
        F4([
            {
                let $i = 0;
                $e
            },
            {
                let $i = 1;
                $e
            },
            {
                let $i = 2;
                $e
            },
            {
                let $i = 3;
                $e
            },
        ])
    };
}

impl Simd for Portable {
    type V = F4;
    type M = [bool; 4];
    const LANES: usize = 4;
    const MR: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F4 {
        F4([x; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F4 {
        // SAFETY: the caller gives four readable floats.
        F4(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: F4) {
        // SAFETY: the caller gives four writable floats.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v.0) }
    }
    #[inline(always)]
    unsafe fn add(a: F4, b: F4) -> F4 {
        lanewise!(i => a.0[i] + b.0[i])
    }
    #[inline(always)]
    unsafe fn sub(a: F4, b: F4) -> F4 {
        lanewise!(i => a.0[i] - b.0[i])
    }
    #[inline(always)]
    unsafe fn mul(a: F4, b: F4) -> F4 {
        lanewise!(i => a.0[i] * b.0[i])
    }
    #[inline(always)]
    unsafe fn div(a: F4, b: F4) -> F4 {
        lanewise!(i => a.0[i] / b.0[i])
    }
    #[inline(always)]
    unsafe fn fma(a: F4, b: F4, c: F4) -> F4 {
        lanewise!(i => a.0[i] * b.0[i] + c.0[i])
    }
    #[inline(always)]
    unsafe fn max(a: F4, b: F4) -> F4 {
        lanewise!(i => if a.0[i] > b.0[i] { a.0[i] } else { b.0[i] })
    }
    #[inline(always)]
    unsafe fn min(a: F4, b: F4) -> F4 {
        lanewise!(i => if a.0[i] < b.0[i] { a.0[i] } else { b.0[i] })
    }
    #[inline(always)]
    unsafe fn lt(a: F4, b: F4) -> [bool; 4] {
        [a.0[0] < b.0[0], a.0[1] < b.0[1], a.0[2] < b.0[2], a.0[3] < b.0[3]]
    }
    #[inline(always)]
    unsafe fn select(m: [bool; 4], a: F4, b: F4) -> F4 {
        lanewise!(i => if m[i] { a.0[i] } else { b.0[i] })
    }
    #[inline(always)]
    unsafe fn round(v: F4) -> F4 {
        lanewise!(i => (v.0[i] + SHIFT) - SHIFT)
    }
    #[inline(always)]
    unsafe fn exp2i(v: F4) -> F4 {
        lanewise!(i => f32::from_bits((v.0[i] as i32).wrapping_add(127).wrapping_shl(23) as u32))
    }
    #[inline(always)]
    unsafe fn abs(v: F4) -> F4 {
        lanewise!(i => v.0[i].abs())
    }
    #[inline(always)]
    unsafe fn copysign(v: F4, sign: F4) -> F4 {
        lanewise!(i => v.0[i].copysign(sign.0[i]))
    }
    #[inline(always)]
    unsafe fn lower_bf16(v: F4) -> F4 {
        lanewise!(i => f32::from_bits(v.0[i].to_bits() << 16))
    }
    #[inline(always)]
    unsafe fn upper_bf16(v: F4) -> F4 {
        lanewise!(i => f32::from_bits(v.0[i].to_bits() & 0xffff_0000))
    }
    #[inline(always)]
    unsafe fn swap_pairs(v: F4) -> F4 {
        F4([v.0[1], v.0[0], v.0[3], v.0[2]])
    }
}
