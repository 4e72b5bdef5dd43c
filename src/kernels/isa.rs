//! Instruction sets: which there are, which is used, and the kernels compiled for each.

use std::fmt;

use super::error::KernelError;
use super::gemm::{self, Gemm};
use super::ops::{self, SoftmaxTile};
use super::simd;

/// The environment variable that overrides the choice, for tests and reports.
pub const ENV: &str = "NULLSUM_KERNEL";

/// An instruction set with kernels of its own.
///
/// A new one (AMX, say) is a variant here, a `Simd` implementation or a set of functions of its own, and a row in `kernels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust; every processor.
    Portable,
    /// What every x86-64 processor has.
    Sse2,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F.
    Avx512,
    /// aarch64's NEON.
    Neon,
}

impl Isa {
    /// All of them, best last.
    const ALL: [Self; 5] = [Self::Portable, Self::Neon, Self::Sse2, Self::Avx2, Self::Avx512];

    /// The name `NULLSUM_KERNEL` takes and reports show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Sse2 => "sse2",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// Those this processor can run, best last.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.find().is_some()).collect()
    }

    /// The best available, or what `NULLSUM_KERNEL` asks for.
    pub fn select() -> Result<Self, KernelError> {
        match std::env::var(ENV) {
            Ok(name) if !name.is_empty() && name != "auto" => Self::by_name(&name),
            _ => Ok(Self::best()),
        }
    }

    /// The best available.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Portable)
    }

    /// The instruction set of that name, if this processor has it.
    pub fn by_name(name: &str) -> Result<Self, KernelError> {
        let isa = Self::ALL.into_iter().find(|isa| isa.name() == name.to_ascii_lowercase());
        let isa =
            isa.ok_or_else(|| KernelError::UnknownIsa { found: name.to_owned(), available: names() })?;
        isa.kernels().map(|_| isa)
    }

    /// The kernels, or an error when this processor cannot run them: holding the reference proves that it can.
    pub(super) fn kernels(self) -> Result<&'static Kernels, KernelError> {
        let missing = || KernelError::Unavailable { isa: self.name().to_owned(), available: names() };
        self.find().ok_or_else(missing)
    }

    fn find(self) -> Option<&'static Kernels> {
        match self {
            Self::Portable => Some(&portable::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Self::Sse2 => Some(&sse2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => {
                Some(&avx2::KERNELS)
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if is_x86_feature_detected!("avx512f") => Some(&avx512::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Some(&neon::KERNELS),
            _ => None,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn names() -> String {
    Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
}

/// The kernels of one instruction set. The functions are unsafe only for their pointers: whoever holds `Kernels` has the
/// instruction set.
pub(super) struct Kernels {
    pub isa: Isa,
    /// Columns of a panel.
    pub nr: usize,
    pub gemm: unsafe fn(&Gemm),
    pub softmax: unsafe fn(&SoftmaxTile),
    /// (x, out, n, gamma or null)
    pub normalize: unsafe fn(*const f32, *mut f32, usize, *const f32),
    /// (row, table, n)
    pub rotate: unsafe fn(*mut f32, *const f32, usize),
    /// (src, rows, n, ld, dst, width)
    pub transpose: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize),
    pub gelu: unsafe fn(*mut f32, usize),
    pub tanh: unsafe fn(*mut f32, usize),
    pub sigmoid: unsafe fn(*mut f32, usize),
    pub exp: unsafe fn(*mut f32, usize),
    pub exp2: unsafe fn(*mut f32, usize),
    /// (a, b, out, n)
    pub glu: unsafe fn(*const f32, *const f32, *mut f32, usize),
    /// (x, y, n): x += y
    pub add_assign: unsafe fn(*mut f32, *const f32, usize),
    /// (x, n): asks for n values that are about to be used; any address
    pub prefetch: unsafe fn(*const f32, usize),
    /// (x, n, factor)
    pub scale: unsafe fn(*mut f32, usize, f32),
    /// (rounds) → (FLOPs, a value that keeps them alive)
    pub fma_burst: unsafe fn(usize) -> (f64, f32),
}

macro_rules! compile_for {
    ($module:ident, $isa:expr, $simd:ty, $nv:literal $(, $feature:literal)?) => {
        mod $module {
            use super::*;
            use simd::Simd as _;

            type S = $simd;

            pub(super) static KERNELS: Kernels = Kernels {
                isa: $isa,
                nr: $nv * S::LANES,
                gemm,
                softmax,
                normalize,
                rotate,
                transpose,
                gelu,
                tanh,
                sigmoid,
                exp,
                exp2,
                glu,
                add_assign,
                prefetch,
                scale,
                fma_burst,
            };

            // SAFETY of all: `KERNELS` is handed out only where the instruction set is; pointers are the caller's.
            compile_for!(@fns $($feature)?;
                gemm(g: &Gemm) = gemm::gemm::<S, $nv>(g);
                softmax(t: &SoftmaxTile) = ops::softmax::<S>(t);
                normalize(x: *const f32, out: *mut f32, n: usize, gamma: *const f32) = ops::normalize::<S>(x, out, n, gamma);
                rotate(x: *mut f32, table: *const f32, n: usize) = ops::rotate::<S>(x, table, n);
                transpose(src: *const f32, rows: usize, n: usize, ld: usize, dst: *mut f32, width: usize)
                    = ops::transpose(src, rows, n, ld, dst, width);
                gelu(x: *mut f32, n: usize) = ops::map::<S, ops::Gelu>(x, n);
                tanh(x: *mut f32, n: usize) = ops::map::<S, ops::Tanh>(x, n);
                sigmoid(x: *mut f32, n: usize) = ops::map::<S, ops::Sigmoid>(x, n);
                exp(x: *mut f32, n: usize) = ops::map::<S, ops::Exp>(x, n);
                exp2(x: *mut f32, n: usize) = ops::map::<S, ops::Exp2>(x, n);
                glu(a: *const f32, b: *const f32, out: *mut f32, n: usize) = ops::glu::<S>(a, b, out, n);
                add_assign(x: *mut f32, y: *const f32, n: usize) = ops::add_assign::<S>(x, y, n);
                prefetch(x: *const f32, n: usize) = ops::prefetch::<S>(x, n);
                scale(x: *mut f32, n: usize, a: f32) = ops::scale::<S>(x, n, a);
            );
            compile_for!(@burst $($feature)?);
        }
    };
    (@burst $($feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn fma_burst(rounds: usize) -> (f64, f32) {
            // SAFETY: as above.
            unsafe { ops::fma_burst::<S>(rounds) }
        }
    };
    (@fns ; $($name:ident($($arg:ident: $ty:ty),*) = $body:expr;)*) => {$(
        unsafe fn $name($($arg: $ty),*) {
            // SAFETY: as above.
            unsafe { $body }
        }
    )*};
    (@fns $feature:literal; $($name:ident($($arg:ident: $ty:ty),*) = $body:expr;)*) => {$(
        #[target_feature(enable = $feature)]
        unsafe fn $name($($arg: $ty),*) {
            // SAFETY: as above.
            unsafe { $body }
        }
    )*};
}

compile_for!(portable, Isa::Portable, simd::Portable, 2);
#[cfg(target_arch = "x86_64")]
compile_for!(sse2, Isa::Sse2, simd::x86::Sse2, 2);
#[cfg(target_arch = "x86_64")]
compile_for!(avx2, Isa::Avx2, simd::x86::Avx2, 2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
compile_for!(avx512, Isa::Avx512, simd::x86::Avx512, 2, "avx512f,avx2,fma");
#[cfg(target_arch = "aarch64")]
compile_for!(neon, Isa::Neon, simd::neon::Neon, 4);
