//! Instruction sets and number formats: which exist, which one is chosen, and the kernels compiled for each.

use std::fmt;

use super::error::KernelError;
use super::gemm::{self, Gemm};
use super::ops::{self, SoftmaxTile};
use super::simd;
use super::tiles;

/// Environment variable that overrides the choice of instruction set, for tests and reports.
pub const ENV: &str = "NULLSUM_KERNEL";

/// An instruction set with kernels of its own.
///
/// A new one is a variant here, a `Simd` or `Tiles` implementation, and a row in `Target::lookup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// AMX tiles in plain Rust, for tests; bf16 only, slow.
    Emulated,
    /// Plain Rust; every processor.
    Portable,
    /// The x86-64 baseline.
    Sse2,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F.
    Avx512,
    /// aarch64's NEON.
    Neon,
    /// AVX-512F and AVX-512 BF16; bf16 only.
    Avx512Bf16,
    /// AMX with AVX-512F; bf16 only.
    Amx,
}

/// Number format of the operands of matrix products. Sums, norms and softmax are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// f32.
    F32,
    /// Weights in bf16. Where the instruction set multiplies bf16 (AMX, AVX-512 BF16, and plain Rust for tests), activations too.
    Bf16,
}

/// Instruction set and format that kernels are compiled for. An [`Isa`] converts to its f32 target if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// Instruction set.
    pub isa: Isa,
    /// Number format.
    pub format: Format,
}

impl Isa {
    /// All of them, best last.
    const ALL: [Self; 8] = [
        Self::Emulated,
        // Slower than f32 on the processor that has run it, whose products of bf16 are no quicker: only by name.
        Self::Avx512Bf16,
        Self::Portable,
        Self::Neon,
        Self::Sse2,
        Self::Avx2,
        Self::Avx512,
        Self::Amx,
    ];

    /// The name `NULLSUM_KERNEL` takes and reports show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emulated => "emulated",
            Self::Portable => "portable",
            Self::Sse2 => "sse2",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }

    /// Whether it has kernels for bf16 only.
    pub fn bf16_only(self) -> bool {
        matches!(self, Self::Emulated | Self::Avx512Bf16 | Self::Amx)
    }

    /// The instruction sets this processor can run in some format, best last.
    pub fn available() -> Vec<Self> {
        let usable = |isa: &Self| Target::of(*isa).any(|target| target.lookup().is_some());
        Self::ALL.into_iter().filter(usable).collect()
    }

    /// The instruction set of that name, if this processor has it.
    pub fn by_name(name: &str) -> Result<Self, KernelError> {
        let available = || join_names(Self::available());
        let isa = Self::ALL.into_iter().find(|isa| isa.name() == name.to_ascii_lowercase());
        let isa =
            isa.ok_or_else(|| KernelError::UnknownIsa { found: name.to_owned(), available: available() })?;
        if Self::available().contains(&isa) {
            Ok(isa)
        } else {
            Err(KernelError::Unavailable { isa: isa.name().to_owned(), available: available() })
        }
    }

    /// The instruction set named by `NULLSUM_KERNEL`; none if it is unset, empty or `auto`.
    ///
    /// # Errors
    /// [`KernelError`] if the name is unknown or this processor lacks the instruction set.
    pub fn from_env() -> Result<Option<Self>, KernelError> {
        match std::env::var(ENV) {
            Ok(name) if !name.is_empty() && name != "auto" => Self::by_name(&name).map(Some),
            _ => Ok(None),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Isa> for Target {
    fn from(isa: Isa) -> Self {
        Self { isa, format: if isa.bf16_only() { Format::Bf16 } else { Format::F32 } }
    }
}

impl Target {
    /// Those this processor can run, best last within each format.
    pub fn available() -> Vec<Self> {
        Isa::ALL.into_iter().flat_map(Self::of).filter(|target| target.lookup().is_some()).collect()
    }

    /// The best available in `format`, or what `NULLSUM_KERNEL` asks for.
    ///
    /// # Errors
    /// [`KernelError`] where the processor lacks what is asked for, or that has not this format.
    pub fn select(format: Format) -> Result<Self, KernelError> {
        match Isa::from_env()? {
            Some(isa) => {
                let target = Self { isa, format };
                target.kernels().map(|_| target)
            }
            None => Ok(Self::best(format)),
        }
    }

    /// The best available in `format`.
    pub fn best(format: Format) -> Self {
        let best = Self::available().into_iter().rfind(|target| target.format == format);
        best.unwrap_or(Self { isa: Isa::Portable, format })
    }

    fn of(isa: Isa) -> impl Iterator<Item = Self> {
        [Format::F32, Format::Bf16].into_iter().map(move |format| Self { isa, format })
    }

    /// The kernels, or an error when this processor cannot run them: holding the reference proves that it can.
    pub(super) fn kernels(self) -> Result<&'static Kernels, KernelError> {
        self.lookup().ok_or_else(|| {
            // A set may be here in the other format, so both are named.
            let format = match self.format {
                Format::F32 => "f32",
                Format::Bf16 => "bf16",
            };
            let others = Self::available().into_iter().filter(|target| target.format == self.format);
            KernelError::Unavailable {
                isa: format!("{} {format}", self.isa),
                available: join_names(others.map(|target| target.isa)),
            }
        })
    }

    fn lookup(self) -> Option<&'static Kernels> {
        let [f32, bf16] = match self.isa {
            Isa::Emulated => [None, Some(&emulated::BF16)],
            Isa::Portable => [Some(&portable::F32), Some(&portable::BF16)],
            #[cfg(target_arch = "x86_64")]
            Isa::Sse2 => [Some(&sse2::F32), Some(&sse2::BF16)],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => {
                [Some(&avx2::F32), Some(&avx2::BF16)]
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if is_x86_feature_detected!("avx512f") => [Some(&avx512::F32), Some(&avx512::BF16)],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") =>
            {
                [None, Some(&avx512bf16::BF16)]
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx if tiles::amx::available() => [None, Some(&amx::BF16)],
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => [Some(&neon::F32), Some(&neon::BF16)],
            _ => [None, None],
        };
        match self.format {
            Format::F32 => f32,
            Format::Bf16 => bf16,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            Format::F32 => write!(f, "{}", self.isa),
            Format::Bf16 => write!(f, "{} bf16", self.isa),
        }
    }
}

fn join_names(isas: impl IntoIterator<Item = Isa>) -> String {
    isas.into_iter().map(Isa::name).collect::<Vec<_>>().join(", ")
}

/// The kernels of one instruction set and format. The functions are unsafe only for their pointers: whoever holds `Kernels`
/// has the instruction set.
pub(super) struct Kernels {
    pub target: Target,
    /// Columns of a panel.
    pub nr: usize,
    /// Products are of bf16 in pairs, with A in [`tiles`].
    pub bf16_dot: bool,
    /// Both operands activations.
    pub gemm: unsafe fn(&Gemm),
    /// B a [`Packed`](super::gemm::Packed).
    pub gemm_packed: unsafe fn(&Gemm),
    /// Before and after the products of a task.
    begin: unsafe fn(),
    end: unsafe fn(),
    pub softmax: unsafe fn(&SoftmaxTile),
    /// As `softmax`, to an operand.
    pub softmax_operand: unsafe fn(&SoftmaxTile),
    /// (x, out, n, gamma or null)
    pub normalize: unsafe fn(*const f32, *mut f32, usize, *const f32),
    /// (row, table, n)
    pub rotate: unsafe fn(*mut f32, *const f32, usize),
    /// (src, rows, n, ld, dst, width)
    pub transpose: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize),
    /// (row, n, its lines of an operand)
    row_to_bf16: unsafe fn(*const f32, usize, *mut f32),
    /// (src, rows, width, dst)
    pub interleave_rows_bf16: unsafe fn(*const f32, usize, usize, *mut f32),
    pub gelu: unsafe fn(*mut f32, usize),
    /// (row, n, its lines of an operand): GELU as exact as bf16 needs it
    gelu_to_bf16: unsafe fn(*const f32, usize, *mut f32),
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
    pub peak_flops: unsafe fn(usize) -> (f64, f32),
}

impl Kernels {
    /// Words of k values: a row of an operand A, or one column of an operand B of activations.
    pub fn packed_stride(&self, k: usize) -> usize {
        if self.bf16_dot { k.next_multiple_of(tiles::STEP) / 2 } else { k }
    }

    /// Rows that an operand A of `rows` rows has.
    pub fn padded_rows(&self, rows: usize) -> usize {
        if self.bf16_dot { rows.next_multiple_of(tiles::ROWS) } else { rows }
    }

    /// Floats of an operand A of `rows` rows of k values.
    pub fn operand_len(&self, rows: usize, k: usize) -> usize {
        self.padded_rows(rows) * self.packed_stride(k)
    }

    /// As [`Self::operand_len`], where f32 stay where they are.
    pub fn converted_len(&self, rows: usize, k: usize) -> usize {
        if self.bf16_dot { self.operand_len(rows, k) } else { 0 }
    }

    /// Writes row `index` of an operand A of k values: `write` is told where to leave it as f32, which is in `spare` when it must
    /// be narrowed.
    ///
    /// # Safety
    /// The operand must have that row, `spare` room for k floats.
    pub unsafe fn write_operand_row(
        &self,
        operand: *mut f32,
        index: usize,
        k: usize,
        spare: *mut f32,
        write: impl FnOnce(*mut f32),
    ) {
        // SAFETY: the caller's.
        unsafe {
            if self.bf16_dot {
                write(spare);
                (self.row_to_bf16)(spare, k, operand.add(tiles::row(index, k)));
            } else {
                write(operand.add(index * k));
            }
        }
    }

    /// Rows of k f32, `ld` apart, as an operand A and its stride: `to` if they are narrowed, else the rows themselves.
    ///
    /// # Safety
    /// The rows must be readable, `to` have room for [`Self::converted_len`] floats.
    pub unsafe fn to_operand(
        &self,
        rows: *const f32,
        count: usize,
        k: usize,
        ld: usize,
        to: *mut f32,
    ) -> (*const f32, usize) {
        if !self.bf16_dot {
            return (rows, ld);
        }
        for i in 0..count {
            // SAFETY: the caller's.
            unsafe { (self.row_to_bf16)(rows.add(i * ld), k, to.add(tiles::row(i, k))) }
        }
        (to, self.packed_stride(k))
    }

    /// As [`Self::to_operand`] of the rows' GELU.
    ///
    /// # Safety
    /// As [`Self::to_operand`]'s; the rows must be writable.
    pub unsafe fn gelu_to_operand(
        &self,
        rows: *mut f32,
        count: usize,
        k: usize,
        ld: usize,
        to: *mut f32,
    ) -> (*const f32, usize) {
        for i in 0..count {
            // SAFETY: the caller's.
            unsafe {
                let row = rows.add(i * ld);
                if self.bf16_dot {
                    (self.gelu_to_bf16)(row, k, to.add(tiles::row(i, k)));
                } else {
                    (self.gelu)(row, k);
                }
            }
        }
        if self.bf16_dot { (to, self.packed_stride(k)) } else { (rows, ld) }
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

macro_rules! compile_for {
    ($module:ident, $isa:expr, $simd:ty, $nv:literal $(, $feature:literal)?) => {
        compile_for!(@module $module, $isa, $simd, $($feature)?; {
            pub(super) static F32: Kernels = kernels(Format::F32, false, gemm, no_setup, no_setup);
            pub(super) static BF16: Kernels = Kernels { gemm_packed: widening, ..kernels(Format::Bf16, false, gemm, no_setup, no_setup) };
            const NR: usize = $nv * <S as simd::Simd>::LANES;
        }
            gemm(g: &Gemm) = gemm::gemm::<S, $nv, { gemm::F32 }>(g);
            widening(g: &Gemm) = gemm::gemm::<S, $nv, { gemm::WIDENED }>(g);
            peak_flops(rounds: usize) -> (f64, f32) = ops::fma_peak::<S>(rounds);
        );
    };
    ($module:ident, $isa:expr, $simd:ty, pairs $nv:literal $(, $feature:literal)?) => {
        compile_for!(@module $module, $isa, $simd, $($feature)?; {
            pub(super) static F32: Kernels = kernels(Format::F32, false, f32, no_setup, no_setup);
            pub(super) static BF16: Kernels = kernels(Format::Bf16, true, gemm, no_setup, no_setup);
            const NR: usize = $nv * <S as simd::Simd>::LANES;
        }
            f32(g: &Gemm) = gemm::gemm::<S, $nv, { gemm::F32 }>(g);
            gemm(g: &Gemm) = gemm::gemm::<S, $nv, { gemm::BF16_DOT }>(g);
            peak_flops(rounds: usize) -> (f64, f32) = ops::fma_peak::<S>(rounds);
        );
    };
    ($module:ident, $isa:expr, $simd:ty, pairs only $nv:literal $(, $feature:literal)?) => {
        compile_for!(@module $module, $isa, $simd, $($feature)?; {
            pub(super) static BF16: Kernels = kernels(Format::Bf16, true, gemm, no_setup, no_setup);
            const NR: usize = $nv * <S as simd::Simd>::LANES;
        }
            gemm(g: &Gemm) = gemm::gemm::<S, $nv, { gemm::BF16_DOT }>(g);
            peak_flops(rounds: usize) -> (f64, f32) = ops::fma_peak::<S>(rounds);
        );
    };
    ($module:ident, $isa:expr, $simd:ty, tiles $tiles:ty $(, $feature:literal)?) => {
        compile_for!(@module $module, $isa, $simd, $($feature)?; {
            pub(super) static BF16: Kernels = kernels(Format::Bf16, true, gemm, begin, end);
            const NR: usize = tiles::NR;
        }
            gemm(g: &Gemm) = tiles::gemm::<$tiles>(g);
            peak_flops(rounds: usize) -> (f64, f32) = tiles::peak_flops::<$tiles>(rounds);
            begin() = <$tiles as tiles::Tiles>::begin();
            end() = <$tiles as tiles::Tiles>::end();
        );
    };
    (@module $module:ident, $isa:expr, $simd:ty, $($feature:literal)?; { $($items:item)* } $($gemm:tt)*) => {
        mod $module {
            use super::*;

            type S = $simd;

            $($items)*

            const fn kernels(
                format: Format,
                bf16_dot: bool,
                gemm: unsafe fn(&Gemm),
                begin: unsafe fn(),
                end: unsafe fn(),
            ) -> Kernels {
                Kernels {
                    target: Target { isa: $isa, format },
                    nr: NR,
                    bf16_dot,
                    gemm,
                    gemm_packed: gemm,
                    begin,
                    end,
                    softmax,
                    softmax_operand: if bf16_dot { softmax_bf16 } else { softmax },
                    normalize,
                    rotate,
                    transpose: if bf16_dot { transpose_bf16 } else { transpose },
                    row_to_bf16,
                    interleave_rows_bf16,
                    gelu,
                    gelu_to_bf16,
                    tanh,
                    sigmoid,
                    exp,
                    exp2,
                    glu,
                    add_assign,
                    prefetch,
                    scale,
                    peak_flops,
                }
            }

            // SAFETY of all: the kernels are handed out only where the instruction set is; pointers are the caller's.
            compile_for!(@fns $($feature)?; $($gemm)*
                softmax(t: &SoftmaxTile) = ops::softmax::<S, false>(t);
                softmax_bf16(t: &SoftmaxTile) = ops::softmax::<S, true>(t);
                normalize(x: *const f32, out: *mut f32, n: usize, gamma: *const f32) = ops::normalize::<S>(x, out, n, gamma);
                rotate(x: *mut f32, table: *const f32, n: usize) = ops::rotate::<S>(x, table, n);
                transpose(src: *const f32, rows: usize, n: usize, ld: usize, dst: *mut f32, width: usize)
                    = ops::transpose(src, rows, n, ld, dst, width);
                transpose_bf16(src: *const f32, rows: usize, n: usize, ld: usize, dst: *mut f32, width: usize)
                    = ops::transpose_bf16::<S>(src, rows, n, ld, dst, width);
                row_to_bf16(row: *const f32, n: usize, lines: *mut f32) = ops::row_to_bf16::<S>(row, n, lines);
                interleave_rows_bf16(src: *const f32, rows: usize, width: usize, dst: *mut f32) = ops::interleave_rows_bf16::<S>(src, rows, width, dst);
                gelu(x: *mut f32, n: usize) = ops::map::<S, ops::Gelu>(x, n);
                gelu_to_bf16(row: *const f32, n: usize, lines: *mut f32) = ops::map_to_operand::<S, ops::GeluCoarse>(row, n, lines);
                tanh(x: *mut f32, n: usize) = ops::map::<S, ops::Tanh>(x, n);
                sigmoid(x: *mut f32, n: usize) = ops::map::<S, ops::Sigmoid>(x, n);
                exp(x: *mut f32, n: usize) = ops::map::<S, ops::Exp>(x, n);
                exp2(x: *mut f32, n: usize) = ops::map::<S, ops::Exp2>(x, n);
                glu(a: *const f32, b: *const f32, out: *mut f32, n: usize) = ops::glu::<S>(a, b, out, n);
                add_assign(x: *mut f32, y: *const f32, n: usize) = ops::add_assign::<S>(x, y, n);
                prefetch(x: *const f32, n: usize) = ops::prefetch::<S>(x, n);
                scale(x: *mut f32, n: usize, a: f32) = ops::scale::<S>(x, n, a);
            );
        }
    };
    (@fns ; $($name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? = $body:expr;)*) => {$(
        unsafe fn $name($($arg: $ty),*) $(-> $out)? {
            // SAFETY: as above.
            unsafe { $body }
        }
    )*};
    (@fns $feature:literal; $($name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? = $body:expr;)*) => {$(
        #[target_feature(enable = $feature)]
        unsafe fn $name($($arg: $ty),*) $(-> $out)? {
            // SAFETY: as above.
            unsafe { $body }
        }
    )*};
}

compile_for!(portable, Isa::Portable, simd::Portable, pairs 2);
compile_for!(emulated, Isa::Emulated, simd::Portable, tiles tiles::Emulated);
#[cfg(target_arch = "x86_64")]
compile_for!(sse2, Isa::Sse2, simd::x86::Sse2, 2);
#[cfg(target_arch = "x86_64")]
compile_for!(avx2, Isa::Avx2, simd::x86::Avx2, 2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
compile_for!(avx512, Isa::Avx512, simd::x86::Avx512, 2, "avx512f,avx2,fma");
#[cfg(target_arch = "x86_64")]
compile_for!(avx512bf16, Isa::Avx512Bf16, simd::x86::Avx512, pairs only 2, "avx512bf16,avx512f,avx2,fma");
#[cfg(target_arch = "x86_64")]
compile_for!(amx, Isa::Amx, simd::x86::Avx512, tiles tiles::amx::Amx, "avx512bf16,avx512f,avx2,fma");
#[cfg(target_arch = "aarch64")]
compile_for!(neon, Isa::Neon, simd::neon::Neon, 4);
