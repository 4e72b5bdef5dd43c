//! Instruction sets and number formats.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use super::tiles;

/// An instruction set with kernels of its own.
///
/// A new one is a variant here, a `Simd` or `Tiles` implementation, and a module in `compiled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// AMX tiles in plain Rust, for tests; bf16 and int8, slow.
    Emulated,
    /// Plain Rust; every processor.
    Portable,
    /// The x86-64 baseline.
    Sse2,
    /// AVX2 and FMA.
    Avx2,
    /// AVX2, FMA and AVX-VNNI; int8 only.
    AvxVnni,
    /// AVX-512F.
    Avx512,
    /// AVX-512F and AVX-512 VNNI; int8 only.
    Avx512Vnni,
    /// aarch64's NEON.
    Neon,
    /// NEON with the dot-product extension; int8 only.
    NeonDot,
    /// AVX-512F and AVX-512 BF16; bf16 only.
    Avx512Bf16,
    /// AMX with AVX-512F; bf16 and int8.
    Amx,
}

/// Number format of the operands of matrix products. Sums of f32 and bf16, norms and softmax are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// f32.
    F32,
    /// Weights in bf16. Where the instruction set multiplies bf16 (AMX, AVX-512 BF16, and plain Rust for tests), activations too.
    Bf16,
    /// Linear layers in i8 with i32 sums: weights with a scale for each output, activations with a scale for each token. Attention
    /// between activations is f32 or, on AMX, bf16.
    Int8,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// The name that reports show.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl Isa {
    /// All of them, best last.
    pub(super) const ALL: [Self; 11] = [
        Self::Emulated,
        // Slower than f32 on the processor that was measured, whose bf16 products are no faster: only by name.
        Self::Avx512Bf16,
        Self::Portable,
        Self::Neon,
        Self::NeonDot,
        Self::Sse2,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Amx,
    ];

    /// The name `NULLSUM_KERNEL` takes and reports show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emulated => "emulated",
            Self::Portable => "portable",
            Self::Sse2 => "sse2",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Neon => "neon",
            Self::NeonDot => "neondot",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }

    /// The formats that it has kernels for.
    pub fn formats(self) -> &'static [Format] {
        match self {
            Self::Portable | Self::Sse2 | Self::Avx2 => &[Format::F32, Format::Bf16, Format::Int8],
            Self::Avx512 | Self::Neon => &[Format::F32, Format::Bf16],
            Self::Emulated | Self::Amx => &[Format::Bf16, Format::Int8],
            Self::Avx512Bf16 => &[Format::Bf16],
            Self::AvxVnni | Self::Avx512Vnni | Self::NeonDot => &[Format::Int8],
        }
    }

    /// Whether it has kernels for `format`.
    pub fn has(self, format: Format) -> bool {
        self.formats().contains(&format)
    }

    /// Whether this processor has it.
    pub(super) fn is_present(self) -> bool {
        match self {
            Self::Emulated | Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Sse2 => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_present() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => tiles::amx::available(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
    }

    /// Whether products in `format` are so much faster than in wider formats of the same processor that `auto` considers it. AMX
    /// multiplies i8 twice as fast as bf16, but a pass only gains 1.2 × (docs/benchmarks.md), which does not outweigh its accuracy.
    pub fn is_faster_in(self, format: Format) -> bool {
        match format {
            Format::F32 => false,
            Format::Bf16 => self == Self::Amx,
            Format::Int8 => matches!(self, Self::AvxVnni | Self::Avx512Vnni | Self::NeonDot),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
