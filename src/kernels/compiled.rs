//! The kernels compiled for each instruction set.

use super::gemm;
use super::isa::{Format, Isa};
use super::layout::{Element, Gemm};
use super::ops::{self, MaskBins, SoftmaxTile};
use super::product::{AttentionProduct, LinearProduct};
use super::simd::{self, Simd};
use super::tiles;

/// Element- and row-wise kernels. They are unsafe for their pointers only: whoever holds them has the instruction set.
pub(super) struct RowKernels {
    pub softmax: unsafe fn(&SoftmaxTile),
    /// (x, out, n, gamma or null)
    pub normalize: unsafe fn(*const f32, *mut f32, usize, *const f32),
    /// (row, table, n)
    pub rotate: unsafe fn(*mut f32, *const f32, usize),
    pub gelu: unsafe fn(*mut f32, usize),
    pub tanh: unsafe fn(*mut f32, usize),
    pub sigmoid: unsafe fn(*mut f32, usize),
    pub exp: unsafe fn(*mut f32, usize),
    pub exp2: unsafe fn(*mut f32, usize),
    /// (a, b, out, n)
    pub glu: unsafe fn(*const f32, *const f32, *mut f32, usize),
    /// (x, y, n) → Σ x·y, the same bits for every instruction set
    pub sum_of_products: unsafe fn(*const f32, *const f32, usize) -> f32,
    /// (x, y, n): x += y
    pub add_assign: unsafe fn(*mut f32, *const f32, usize),
    /// (x, n): fetches n values that are about to be used; any address
    pub prefetch: unsafe fn(*const f32, usize),
    /// (x, n, factor)
    pub scale: unsafe fn(*mut f32, usize, f32),
    pub apply_masks: unsafe fn(&MaskBins<'_>),
    pub complete_masks: unsafe fn(&MaskBins<'_>),
    /// (rows, count, n, stride, panel, nr)
    transpose: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize),
}

/// The kernels of one instruction set and format.
pub(super) struct Kernels {
    /// Columns of a panel.
    pub nr: usize,
    pub ops: &'static RowKernels,
    pub linear: LinearProduct,
    pub attention: AttentionProduct,
    /// Called before and after the products of a task.
    begin: unsafe fn(),
    end: unsafe fn(),
    /// (rounds) → (operations of so many rounds of the linear product on registers, a value that keeps them alive)
    pub peak_flops: unsafe fn(usize) -> (f64, f32),
}

impl Kernels {
    /// Products of f32 with weights of f32, or of bf16 that `linear` widens.
    const fn f32(
        nr: usize,
        ops: &'static RowKernels,
        weights: Element,
        linear: unsafe fn(&Gemm),
        attention: unsafe fn(&Gemm),
        peak_flops: unsafe fn(usize) -> (f64, f32),
    ) -> Self {
        Self {
            nr,
            ops,
            linear: LinearProduct {
                left: Element::F32,
                right: weights,
                unsigned_left: false,
                gemm: linear,
                convert_row: no_conversion,
                gelu_row: no_conversion,
                gemm_gelu: None,
            },
            attention: AttentionProduct {
                element: Element::F32,
                queries: 48,
                gemm: attention,
                convert_row: no_conversion,
                softmax: ops.softmax,
                keys_to_panel: ops.transpose,
                values_to_panel: no_panel,
            },
            begin: no_setup,
            end: no_setup,
            peak_flops,
        }
    }

    /// Products of tiles.
    const fn tiles(
        ops: &'static RowKernels,
        linear: LinearProduct,
        attention: AttentionProduct,
        begin: unsafe fn(),
        end: unsafe fn(),
        peak_flops: unsafe fn(usize) -> (f64, f32),
    ) -> Self {
        Self { nr: tiles::NR, ops, linear, attention, begin, end, peak_flops }
    }

    /// Runs `f` with this thread ready for products.
    pub fn with_tile_registers<R>(&self, f: impl FnOnce() -> R) -> R {
        struct End(unsafe fn());
        impl Drop for End {
            fn drop(&mut self) {
                // SAFETY: these kernels are there, and `begin` was called.
                unsafe { (self.0)() }
            }
        }
        // SAFETY: these kernels are there.
        unsafe { (self.begin)() };
        let _end = End(self.end);
        f()
    }
}

/// Nothing to prepare.
unsafe fn no_setup() {}
/// Rows of f32 are operands as they are.
unsafe fn no_conversion(_: *mut f32, _: usize, _: *mut f32, _: *mut f32) {}
/// Values of f32 are written in panels at once.
unsafe fn no_panel(_: *const f32, _: usize, _: usize, _: *mut f32) {}

/// Puts attributes before an item.
macro_rules! with_attributes {
    ([$($attributes:tt)*] $($item:tt)*) => { $($attributes)* $($item)* };
}

/// Functions `name(arguments) = body;` that carry `attributes`: the generic kernels are inlined into them.
macro_rules! functions {
    ($attributes:tt; $($name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? = $body:expr;)*) => {$(
        with_attributes! { $attributes
            unsafe fn $name($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the kernels are handed out only where the instruction set is; pointers are the caller's.
                unsafe { $body }
            }
        }
    )*};
}

/// `OPS`, the row kernels of the module's vector type `S`.
macro_rules! row_kernels {
    ($attributes:tt) => {
        pub(super) const OPS: RowKernels = RowKernels {
            softmax,
            normalize,
            rotate,
            gelu,
            tanh,
            sigmoid,
            exp,
            exp2,
            glu,
            sum_of_products,
            add_assign,
            prefetch,
            scale,
            apply_masks,
            complete_masks,
            transpose,
        };
        functions! { $attributes;
            softmax(t: &SoftmaxTile) = ops::softmax::<S, false>(t);
            normalize(x: *const f32, out: *mut f32, n: usize, gamma: *const f32) = ops::normalize::<S>(x, out, n, gamma);
            rotate(x: *mut f32, table: *const f32, n: usize) = ops::rotate::<S>(x, table, n);
            gelu(x: *mut f32, n: usize) = ops::map::<S, ops::Gelu>(x, n);
            tanh(x: *mut f32, n: usize) = ops::map::<S, ops::Tanh>(x, n);
            sigmoid(x: *mut f32, n: usize) = ops::map::<S, ops::Sigmoid>(x, n);
            exp(x: *mut f32, n: usize) = ops::map::<S, ops::Exp>(x, n);
            exp2(x: *mut f32, n: usize) = ops::map::<S, ops::Exp2>(x, n);
            glu(a: *const f32, b: *const f32, out: *mut f32, n: usize) = ops::glu::<S>(a, b, out, n);
            sum_of_products(x: *const f32, y: *const f32, n: usize) -> f32 = ops::sum_of_products::<S>(x, y, n);
            add_assign(x: *mut f32, y: *const f32, n: usize) = ops::add_assign::<S>(x, y, n);
            prefetch(x: *const f32, n: usize) = ops::prefetch::<S>(x, n);
            scale(x: *mut f32, n: usize, a: f32) = ops::scale::<S>(x, n, a);
            apply_masks(bins: &MaskBins<'_>) = ops::apply_masks::<S, false>(bins);
            complete_masks(bins: &MaskBins<'_>) = ops::apply_masks::<S, true>(bins);
            transpose(src: *const f32, rows: usize, n: usize, ld: usize, dst: *mut f32, width: usize)
                = ops::transpose(src, rows, n, ld, dst, width);
        }
    };
}

/// `BF16_LINEAR` and `BF16_ATTENTION`, products of bf16 with the module's `gemm_bf16`.
macro_rules! bf16_products {
    ($attributes:tt) => {
        pub(super) const BF16_LINEAR: LinearProduct = LinearProduct {
            left: Element::Bf16,
            right: Element::Bf16,
            unsigned_left: false,
            gemm: gemm_bf16,
            convert_row: row_to_bf16,
            gelu_row: gelu_to_bf16,
            gemm_gelu: None,
        };
        pub(super) const BF16_ATTENTION: AttentionProduct = AttentionProduct {
            element: Element::Bf16,
            queries: 64,
            gemm: gemm_bf16,
            convert_row: row_to_bf16,
            softmax: softmax_bf16,
            keys_to_panel: transpose_bf16,
            values_to_panel: interleave_rows_bf16,
        };
        functions! { $attributes;
            row_to_bf16(row: *mut f32, n: usize, lines: *mut f32, _scale: *mut f32) = ops::row_to_bf16::<S>(row, n, lines);
            gelu_to_bf16(row: *mut f32, n: usize, lines: *mut f32, _scale: *mut f32)
                = ops::map_to_operand::<S, ops::GeluCoarse>(row, n, lines);
            softmax_bf16(t: &SoftmaxTile) = ops::softmax::<S, true>(t);
            transpose_bf16(src: *const f32, rows: usize, n: usize, ld: usize, dst: *mut f32, width: usize)
                = ops::transpose_bf16::<S>(src, rows, n, ld, dst, width);
            interleave_rows_bf16(src: *const f32, rows: usize, width: usize, dst: *mut f32)
                = ops::interleave_rows_bf16::<S>(src, rows, width, dst);
        }
    };
}

/// `INT8_LINEAR`, products of i8 with the module's `gemm_int8`.
macro_rules! int8_product {
    ($attributes:tt, unsigned $unsigned:expr) => {
        pub(super) const INT8_LINEAR: LinearProduct = LinearProduct {
            left: Element::Int8,
            right: Element::Int8,
            unsigned_left: $unsigned,
            gemm: gemm_int8,
            convert_row: quantize_row,
            gelu_row: gelu_quantize_row,
            gemm_gelu: None,
        };
        functions! { $attributes;
            quantize_row(row: *mut f32, n: usize, lines: *mut f32, scale: *mut f32)
                = ops::quantize_row::<S, { $unsigned }>(row, n, lines, scale);
            gelu_quantize_row(row: *mut f32, n: usize, lines: *mut f32, scale: *mut f32)
                = ops::gelu_quantize_row::<S, { $unsigned }>(row, n, lines, scale);
        }
    };
}

mod portable {
    use super::*;

    type S = simd::Portable;
    const NR: usize = 2 * S::LANES;

    row_kernels!([]);
    bf16_products!([]);
    int8_product!([], unsigned false);
    functions! { [];
        gemm_f32(g: &Gemm) = gemm::gemm::<S, 2, { gemm::F32 }>(g);
        gemm_bf16(g: &Gemm) = gemm::gemm::<S, 2, { gemm::BF16 }>(g);
        gemm_int8(g: &Gemm) = gemm::gemm::<S, 2, { gemm::INT8 }>(g);
        peak(rounds: usize) -> (f64, f32) = ops::peak::<S, false>(rounds);
        peak_int8(rounds: usize) -> (f64, f32) = ops::peak::<S, true>(rounds);
    }

    pub(super) static F32: Kernels = Kernels::f32(NR, &OPS, Element::F32, gemm_f32, gemm_f32, peak);
    pub(super) static BF16: Kernels = Kernels {
        linear: BF16_LINEAR,
        attention: BF16_ATTENTION,
        ..Kernels::f32(NR, &OPS, Element::F32, gemm_f32, gemm_f32, peak)
    };
    pub(super) static INT8: Kernels = Kernels {
        linear: INT8_LINEAR,
        ..Kernels::f32(NR, &OPS, Element::F32, gemm_f32, gemm_f32, peak_int8)
    };
}

mod emulated {
    use super::*;

    type S = simd::Portable;
    type T = tiles::Emulated;

    bf16_products!([]);
    int8_product!([], unsigned false);
    functions! { [];
        gemm_bf16(g: &Gemm) = tiles::gemm::<S, T, false>(g);
        gemm_gelu(g: &Gemm, lines: *mut f32) = tiles::gemm_gelu::<S, T>(g, lines);
        gemm_int8(g: &Gemm) = tiles::gemm::<S, T, true>(g);
        peak(rounds: usize) -> (f64, f32) = tiles::peak::<T, false>(rounds);
        peak_int8(rounds: usize) -> (f64, f32) = tiles::peak::<T, true>(rounds);
        begin() = <T as tiles::Tiles>::begin();
        end() = <T as tiles::Tiles>::end();
    }

    const OPS: &RowKernels = &portable::OPS;
    const TILE_LINEAR: LinearProduct = LinearProduct { gemm_gelu: Some(gemm_gelu), ..BF16_LINEAR };
    pub(super) static BF16: Kernels = Kernels::tiles(OPS, TILE_LINEAR, BF16_ATTENTION, begin, end, peak);
    pub(super) static INT8: Kernels = Kernels::tiles(OPS, INT8_LINEAR, BF16_ATTENTION, begin, end, peak_int8);
}

/// The kernels of a vector type with products of f32, of f32 with widened bf16 and, where listed, of i8.
macro_rules! vector_kernels {
    ($module:ident, $attributes:tt, $simd:ty, $vectors:literal $(, int8: $unsigned:expr)?) => {
        mod $module {
            use super::*;

            type S = $simd;
            const NR: usize = $vectors * S::LANES;

            row_kernels!($attributes);
            functions! { $attributes;
                gemm_f32(g: &Gemm) = gemm::gemm::<S, $vectors, { gemm::F32 }>(g);
                gemm_widened(g: &Gemm) = gemm::gemm::<S, $vectors, { gemm::WIDENED }>(g);
                peak(rounds: usize) -> (f64, f32) = ops::peak::<S, false>(rounds);
            }

            pub(super) static F32: Kernels = F32_KERNELS;
            pub(super) static BF16: Kernels = Kernels::f32(NR, &OPS, Element::Bf16, gemm_widened, gemm_f32, peak);
            /// What kernels of i8 with the same vectors share.
            pub(super) const F32_KERNELS: Kernels = Kernels::f32(NR, &OPS, Element::F32, gemm_f32, gemm_f32, peak);

            $(
                int8_product!($attributes, unsigned $unsigned);
                functions! { $attributes;
                    gemm_int8(g: &Gemm) = gemm::gemm::<S, $vectors, { gemm::INT8 }>(g);
                    peak_int8(rounds: usize) -> (f64, f32) = ops::peak::<S, true>(rounds);
                }
                pub(super) static INT8: Kernels =
                    Kernels { linear: INT8_LINEAR, peak_flops: peak_int8, ..F32_KERNELS };
            )?
        }
    };
}

/// Products of i8 with dot-product instructions, on top of the kernels of `base`.
macro_rules! dot_product_kernels {
    ($module:ident, $base:ident, $attributes:tt, $simd:ty, $vectors:literal) => {
        mod $module {
            use super::*;

            type S = $simd;

            int8_product!($attributes, unsigned S::UNSIGNED_LEFT);
            functions! { $attributes;
                gemm_int8(g: &Gemm) = gemm::gemm::<S, $vectors, { gemm::INT8 }>(g);
                peak_int8(rounds: usize) -> (f64, f32) = ops::peak::<S, true>(rounds);
            }
            pub(super) static INT8: Kernels =
                Kernels { linear: INT8_LINEAR, peak_flops: peak_int8, ..$base::F32_KERNELS };
        }
    };
}

#[cfg(target_arch = "x86_64")]
vector_kernels!(sse2, [], simd::x86::Sse2, 2, int8: false);
#[cfg(target_arch = "x86_64")]
vector_kernels!(avx2, [#[target_feature(enable = "avx2,fma")]], simd::x86::Avx2, 2, int8: false);
#[cfg(target_arch = "x86_64")]
vector_kernels!(avx512, [#[target_feature(enable = "avx512f,avx2,fma")]], simd::x86::Avx512, 2);
#[cfg(target_arch = "x86_64")]
dot_product_kernels!(
    avxvnni, avx2, [#[target_feature(enable = "avxvnni,avx2,fma")]], simd::x86::AvxVnni, 2
);
#[cfg(target_arch = "x86_64")]
dot_product_kernels!(
    avx512vnni, avx512, [#[target_feature(enable = "avx512vnni,avx512f,avx2,fma")]], simd::x86::Avx512, 2
);
#[cfg(target_arch = "aarch64")]
vector_kernels!(neon, [], simd::neon::Neon, 4);
#[cfg(target_arch = "aarch64")]
dot_product_kernels!(neondot, neon, [], simd::neon::Neon, 4);

#[cfg(target_arch = "x86_64")]
mod avx512bf16 {
    use super::*;

    type S = simd::x86::Avx512;

    bf16_products!([#[target_feature(enable = "avx512bf16,avx512f,avx2,fma")]]);
    functions! { [#[target_feature(enable = "avx512bf16,avx512f,avx2,fma")]];
        gemm_bf16(g: &Gemm) = gemm::gemm::<S, 2, { gemm::BF16 }>(g);
    }
    pub(super) static BF16: Kernels =
        Kernels { linear: BF16_LINEAR, attention: BF16_ATTENTION, ..avx512::F32_KERNELS };
}

#[cfg(target_arch = "x86_64")]
mod amx {
    use super::*;

    type S = simd::x86::Avx512;
    type T = tiles::amx::Amx;

    bf16_products!([#[target_feature(enable = "avx512bf16,avx512f,avx2,fma")]]);
    int8_product!([#[target_feature(enable = "avx512bf16,avx512f,avx2,fma")]], unsigned false);
    functions! { [#[target_feature(enable = "avx512bf16,avx512f,avx2,fma")]];
        gemm_bf16(g: &Gemm) = tiles::gemm::<S, T, false>(g);
        gemm_gelu(g: &Gemm, lines: *mut f32) = tiles::gemm_gelu::<S, T>(g, lines);
        gemm_int8(g: &Gemm) = tiles::gemm::<S, T, true>(g);
        peak(rounds: usize) -> (f64, f32) = tiles::peak::<T, false>(rounds);
        peak_int8(rounds: usize) -> (f64, f32) = tiles::peak::<T, true>(rounds);
        begin() = <T as tiles::Tiles>::begin();
        end() = <T as tiles::Tiles>::end();
    }

    const OPS: &RowKernels = &avx512::OPS;
    const TILE_LINEAR: LinearProduct = LinearProduct { gemm_gelu: Some(gemm_gelu), ..BF16_LINEAR };
    pub(super) static BF16: Kernels = Kernels::tiles(OPS, TILE_LINEAR, BF16_ATTENTION, begin, end, peak);
    pub(super) static INT8: Kernels = Kernels::tiles(OPS, INT8_LINEAR, BF16_ATTENTION, begin, end, peak_int8);
}

/// Kernels that every processor runs.
pub(super) static PORTABLE: &Kernels = &portable::F32;

/// All kernels of this build.
pub(super) static ALL: &[(Isa, Format, &Kernels)] = &[
    (Isa::Portable, Format::F32, &portable::F32),
    (Isa::Portable, Format::Bf16, &portable::BF16),
    (Isa::Portable, Format::Int8, &portable::INT8),
    (Isa::Emulated, Format::Bf16, &emulated::BF16),
    (Isa::Emulated, Format::Int8, &emulated::INT8),
    #[cfg(target_arch = "x86_64")]
    (Isa::Sse2, Format::F32, &sse2::F32),
    #[cfg(target_arch = "x86_64")]
    (Isa::Sse2, Format::Bf16, &sse2::BF16),
    #[cfg(target_arch = "x86_64")]
    (Isa::Sse2, Format::Int8, &sse2::INT8),
    #[cfg(target_arch = "x86_64")]
    (Isa::Avx2, Format::F32, &avx2::F32),
    #[cfg(target_arch = "x86_64")]
    (Isa::Avx2, Format::Bf16, &avx2::BF16),
    #[cfg(target_arch = "x86_64")]
    (Isa::Avx2, Format::Int8, &avx2::INT8),
    #[cfg(target_arch = "x86_64")]
    (Isa::AvxVnni, Format::Int8, &avxvnni::INT8),
    #[cfg(target_arch = "x86_64")]
    (Isa::Avx512, Format::F32, &avx512::F32),
    #[cfg(target_arch = "x86_64")]
    (Isa::Avx512, Format::Bf16, &avx512::BF16),
    #[cfg(target_arch = "x86_64")]
    (Isa::Avx512Vnni, Format::Int8, &avx512vnni::INT8),
    #[cfg(target_arch = "x86_64")]
    (Isa::Avx512Bf16, Format::Bf16, &avx512bf16::BF16),
    #[cfg(target_arch = "x86_64")]
    (Isa::Amx, Format::Bf16, &amx::BF16),
    #[cfg(target_arch = "x86_64")]
    (Isa::Amx, Format::Int8, &amx::INT8),
    #[cfg(target_arch = "aarch64")]
    (Isa::Neon, Format::F32, &neon::F32),
    #[cfg(target_arch = "aarch64")]
    (Isa::Neon, Format::Bf16, &neon::BF16),
    #[cfg(target_arch = "aarch64")]
    (Isa::NeonDot, Format::Int8, &neondot::INT8),
];
