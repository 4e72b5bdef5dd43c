//! SSE2, which every x86-64 processor has; AVX2 with FMA, and AVX-VNNI; AVX-512F, its BF16 and its VNNI.

use core::arch::x86_64::*;

use super::Simd;

/// 128-bit vectors, no fused multiply-add.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Sse2;

/// 256-bit vectors, fused multiply-add, with or without AVX-VNNI.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Ymm<const VNNI: bool>;

/// AVX2 and FMA.
pub(in crate::kernels) type Avx2 = Ymm<false>;
/// AVX2, FMA and AVX-VNNI.
pub(in crate::kernels) type AvxVnni = Ymm<true>;

/// 512-bit vectors (AVX-512F alone, but for the methods that say otherwise).
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx512;

// SAFETY of all impls: the trait's contract puts the instruction set and the validity of pointers on the caller; every
// intrinsic used needs only SSE2, AVX2 and FMA, or AVX-512F.
impl Simd for Sse2 {
    type V = __m128;
    type M = __m128;
    const LANES: usize = 4;
    const MR: usize = 4;

    intrinsics! {
        __m128;
        add(a, b) = _mm_add_ps;
        sub(a, b) = _mm_sub_ps;
        mul(a, b) = _mm_mul_ps;
        div(a, b) = _mm_div_ps;
        max(a, b) = _mm_max_ps;
        min(a, b) = _mm_min_ps;
        lt(a, b) = _mm_cmplt_ps;
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m128 {
        unsafe { _mm_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m128 {
        unsafe { _mm_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m128) {
        unsafe { _mm_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m128, b: __m128, c: __m128) -> __m128 {
        unsafe { _mm_add_ps(_mm_mul_ps(a, b), c) }
    }
    #[inline(always)]
    unsafe fn select(m: __m128, a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_or_ps(_mm_and_ps(m, a), _mm_andnot_ps(m, b)) }
    }
    #[inline(always)]
    unsafe fn round(v: __m128) -> __m128 {
        unsafe { _mm_cvtepi32_ps(_mm_cvtps_epi32(v)) }
    }
    #[inline(always)]
    unsafe fn exp2i(v: __m128) -> __m128 {
        unsafe {
            let biased = _mm_add_epi32(_mm_cvtps_epi32(v), _mm_set1_epi32(127));
            _mm_castsi128_ps(_mm_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn abs(v: __m128) -> __m128 {
        unsafe { _mm_andnot_ps(_mm_set1_ps(-0.0), v) }
    }
    #[inline(always)]
    unsafe fn copysign(v: __m128, sign: __m128) -> __m128 {
        unsafe {
            let bit = _mm_set1_ps(-0.0);
            _mm_or_ps(_mm_andnot_ps(bit, v), _mm_and_ps(bit, sign))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn lower_bf16(v: __m128) -> __m128 {
        unsafe { _mm_castsi128_ps(_mm_slli_epi32::<16>(_mm_castps_si128(v))) }
    }
    #[inline(always)]
    unsafe fn upper_bf16(v: __m128) -> __m128 {
        unsafe { _mm_and_ps(v, _mm_castsi128_ps(_mm_set1_epi32(!0xffff))) }
    }
    #[inline(always)]
    unsafe fn swap_pairs(v: __m128) -> __m128 {
        unsafe { _mm_shuffle_ps::<0b10_11_00_01>(v, v) }
    }
    #[inline(always)]
    unsafe fn dot_i8(a: __m128, b: __m128, c: __m128) -> __m128 {
        // Even and odd bytes as words, whose products are added in pairs.
        unsafe {
            let even = |v: __m128| _mm_srai_epi16::<8>(_mm_slli_epi16::<8>(_mm_castps_si128(v)));
            let odd = |v: __m128| _mm_srai_epi16::<8>(_mm_castps_si128(v));
            let sum = _mm_add_epi32(_mm_madd_epi16(even(a), even(b)), _mm_madd_epi16(odd(a), odd(b)));
            _mm_castsi128_ps(_mm_add_epi32(_mm_castps_si128(c), sum))
        }
    }
    #[inline(always)]
    unsafe fn i32_to_f32(v: __m128) -> __m128 {
        unsafe { _mm_cvtepi32_ps(_mm_castps_si128(v)) }
    }
    #[inline(always)]
    unsafe fn store_i8<const UNSIGNED: bool>(p: *mut u8, v: __m128) {
        unsafe {
            let words = _mm_packs_epi32(_mm_cvtps_epi32(v), _mm_setzero_si128());
            let four = _mm_cvtsi128_si32(_mm_packs_epi16(words, words)) as u32;
            p.cast::<u32>().write_unaligned(four ^ if UNSIGNED { 0x8080_8080 } else { 0 });
        }
    }
}

impl<const VNNI: bool> Simd for Ymm<VNNI> {
    type V = __m256;
    type M = __m256;
    const LANES: usize = 8;
    const MR: usize = 6;

    intrinsics! {
        __m256;
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        fma(a, b, c) = _mm256_fmadd_ps;
        max(a, b) = _mm256_max_ps;
        min(a, b) = _mm256_min_ps;
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize, fill: f32) -> __m256 {
        unsafe {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let wanted = _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lane);
            _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, wanted), _mm256_castsi256_ps(wanted))
        }
    }
    #[inline(always)]
    unsafe fn lt(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
    }
    #[inline(always)]
    unsafe fn select(m: __m256, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(b, a, m) }
    }
    #[inline(always)]
    unsafe fn round(v: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
    }
    #[inline(always)]
    unsafe fn exp2i(v: __m256) -> __m256 {
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn abs(v: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), v) }
    }
    #[inline(always)]
    unsafe fn copysign(v: __m256, sign: __m256) -> __m256 {
        unsafe {
            let bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(bit, v), _mm256_and_ps(bit, sign))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn lower_bf16(v: __m256) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(v))) }
    }
    #[inline(always)]
    unsafe fn upper_bf16(v: __m256) -> __m256 {
        unsafe { _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(!0xffff))) }
    }
    #[inline(always)]
    unsafe fn swap_pairs(v: __m256) -> __m256 {
        unsafe { _mm256_permute_ps::<0b10_11_00_01>(v) }
    }
    const UNSIGNED_LEFT: bool = VNNI;
    #[inline(always)]
    unsafe fn dot_i8(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe {
            let (a, b, c) = (_mm256_castps_si256(a), _mm256_castps_si256(b), _mm256_castps_si256(c));
            if VNNI {
                return _mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(c, a, b));
            }
            // Even and odd bytes as words, whose products are added in pairs.
            let even = |v: __m256i| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(v));
            let odd = |v: __m256i| _mm256_srai_epi16::<8>(v);
            let sum =
                _mm256_add_epi32(_mm256_madd_epi16(even(a), even(b)), _mm256_madd_epi16(odd(a), odd(b)));
            _mm256_castsi256_ps(_mm256_add_epi32(c, sum))
        }
    }
    #[inline(always)]
    unsafe fn i32_to_f32(v: __m256) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_castps_si256(v)) }
    }
    #[inline(always)]
    unsafe fn store_i8<const UNSIGNED: bool>(p: *mut u8, v: __m256) {
        unsafe {
            let v = _mm256_cvtps_epi32(v);
            let words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            let flip = _mm_set1_epi8(if UNSIGNED { i8::MIN } else { 0 });
            _mm_storel_epi64(p.cast(), _mm_xor_si128(_mm_packs_epi16(words, words), flip));
        }
    }
}

impl Simd for Avx512 {
    type V = __m512;
    type M = __mmask16;
    const LANES: usize = 16;
    const MR: usize = 12;

    intrinsics! {
        __m512;
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        fma(a, b, c) = _mm512_fmadd_ps;
        max(a, b) = _mm512_max_ps;
        min(a, b) = _mm512_min_ps;
        abs(v) = _mm512_abs_ps;
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize, fill: f32) -> __m512 {
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), !(u16::MAX << n), p) }
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: __m512, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, !(u16::MAX << n), v) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(v) }
    }
    #[inline(always)]
    unsafe fn largest(v: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(v) }
    }
    #[inline(always)]
    unsafe fn lt(a: __m512, b: __m512) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }
    #[inline(always)]
    unsafe fn select(m: __mmask16, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(m, b, a) }
    }
    #[inline(always)]
    unsafe fn round(v: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
    }
    #[inline(always)]
    unsafe fn exp2i(v: __m512) -> __m512 {
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn scale_exp2(v: __m512, shifted: __m512) -> __m512 {
        unsafe {
            let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), n))
        }
    }
    #[inline(always)]
    unsafe fn copysign(v: __m512, sign: __m512) -> __m512 {
        unsafe {
            let bit = _mm512_set1_epi32(i32::MIN);
            // 0xCA: bit ? sign : v. The float forms of and/or need AVX-512DQ.
            let r = _mm512_ternarylogic_epi32::<0xCA>(bit, _mm512_castps_si512(sign), _mm512_castps_si512(v));
            _mm512_castsi512_ps(r)
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn lower_bf16(v: __m512) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(v))) }
    }
    #[inline(always)]
    unsafe fn upper_bf16(v: __m512) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_and_epi32(_mm512_castps_si512(v), _mm512_set1_epi32(!0xffff))) }
    }
    /// Needs AVX-512 BF16, which only kernels for `Isa::Avx512Bf16` and `Isa::Amx` use.
    #[inline(always)]
    unsafe fn dot_bf16(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the caller's; both types are 512 bits.
        unsafe {
            _mm512_dpbf16_ps(
                c,
                core::mem::transmute::<__m512, __m512bh>(a),
                core::mem::transmute::<__m512, __m512bh>(b),
            )
        }
    }
    /// Needs AVX-512 BF16, as the next.
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: __m512) {
        // SAFETY: the caller's; both types are 256 bits.
        unsafe {
            let narrow = core::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
            _mm256_storeu_si256(p.cast(), narrow);
        }
    }
    #[inline(always)]
    unsafe fn pair_bf16(lower: __m512, upper: __m512) -> __m512 {
        // SAFETY: the caller's; both types are 256 bits.
        unsafe {
            let lower = core::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(lower));
            let upper = core::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(upper));
            let upper = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(upper));
            _mm512_castsi512_ps(_mm512_or_epi32(upper, _mm512_cvtepu16_epi32(lower)))
        }
    }
    #[inline(always)]
    unsafe fn swap_pairs(v: __m512) -> __m512 {
        unsafe { _mm512_permute_ps::<0b10_11_00_01>(v) }
    }
    const UNSIGNED_LEFT: bool = true;
    /// Needs AVX-512 VNNI, which only kernels for `Isa::Avx512Vnni` use.
    #[inline(always)]
    unsafe fn dot_i8(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe {
            let sum =
                _mm512_dpbusd_epi32(_mm512_castps_si512(c), _mm512_castps_si512(a), _mm512_castps_si512(b));
            _mm512_castsi512_ps(sum)
        }
    }
    #[inline(always)]
    unsafe fn i32_to_f32(v: __m512) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_castps_si512(v)) }
    }
    #[inline(always)]
    unsafe fn store_i8<const UNSIGNED: bool>(p: *mut u8, v: __m512) {
        unsafe {
            let flip = _mm_set1_epi8(if UNSIGNED { i8::MIN } else { 0 });
            _mm_storeu_si128(p.cast(), _mm_xor_si128(_mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)), flip));
        }
    }
}
