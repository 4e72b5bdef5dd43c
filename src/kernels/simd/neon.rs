//! NEON, which every aarch64 processor has.

use core::arch::aarch64::*;

use super::Simd;

/// 128-bit vectors, fused multiply-add, 32 registers.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Neon;

// SAFETY: NEON is part of the aarch64 baseline; pointers are the caller's, by the trait's contract.
#[allow(unused_unsafe, reason = "which intrinsics are safe depends on the compiler's version")]
impl Simd for Neon {
    type V = float32x4_t;
    type M = uint32x4_t;
    const LANES: usize = 4;
    const MR: usize = 6;

    intrinsics! {
        float32x4_t;
        add(a, b) = vaddq_f32;
        sub(a, b) = vsubq_f32;
        mul(a, b) = vmulq_f32;
        div(a, b) = vdivq_f32;
        max(a, b) = vmaxq_f32;
        min(a, b) = vminq_f32;
        round(v) = vrndnq_f32;
        abs(v) = vabsq_f32;
        swap_pairs(v) = vrev64q_f32;
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: float32x4_t) {
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn lt(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        unsafe { vcltq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn select(m: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(m, a, b) }
    }
    #[inline(always)]
    unsafe fn exp2i(v: float32x4_t) -> float32x4_t {
        unsafe {
            let biased = vaddq_s32(vcvtnq_s32_f32(v), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn copysign(v: float32x4_t, sign: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(vdupq_n_u32(0x8000_0000), sign, v) }
    }
    #[inline(always)]
    unsafe fn lower_bf16(v: float32x4_t) -> float32x4_t {
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_f32(v))) }
    }
    #[inline(always)]
    unsafe fn upper_bf16(v: float32x4_t) -> float32x4_t {
        unsafe { vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(0xffff_0000))) }
    }
    /// Needs the dot-product extension, which only kernels for `Isa::NeonDot` use. Its intrinsic is not stable in Rust.
    #[inline(always)]
    unsafe fn dot_i8(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        let mut sum = c;
        unsafe {
            core::arch::asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                sum = inout(vreg) sum,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sum
    }
    #[inline(always)]
    unsafe fn i32_to_f32(v: float32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(vreinterpretq_s32_f32(v)) }
    }
}
