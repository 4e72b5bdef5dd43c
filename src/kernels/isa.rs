//! Instruction sets and number formats: which there are, which are used, and the kernels compiled for each.

use std::fmt;

use super::error::KernelError;
use super::gemm::{self, Gemm};
use super::ops::{self, SoftmaxTile};
use super::simd;
use super::tiles;

/// The environment variable that overrides the choice, for tests and reports.
pub const ENV: &str = "NULLSUM_KERNEL";

/// An instruction set with kernels of its own.
///
/// A new one is a variant here, a `Simd` or `Tiles` implementation, and a row in `Target::find`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// The tiles of AMX in plain Rust, to test and to compare with; bf16 only, slow.
    Emulated,
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
    /// AVX-512F and AVX-512 BF16; bf16 only.
    Avx512Bf16,
    /// AMX with AVX-512F; bf16 only.
    Amx,
}

/// What products are computed from. Sums, norms and softmax are f32 in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// f32.
    F32,
    /// Weights in bf16; where products are of bf16 (AMX, AVX-512 BF16, and in plain Rust to test them) activations too.
    Bf16,
}

/// What kernels are compiled for. An [`Isa`] alone means f32 where it has that.
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

    /// Whether it has kernels for bf16 alone: whoever takes it means bf16.
    pub fn bf16_only(self) -> bool {
        matches!(self, Self::Emulated | Self::Avx512Bf16 | Self::Amx)
    }

    /// Those this processor can run in some format, best last.
    pub fn available() -> Vec<Self> {
        let usable = |isa: &Self| Target::of(*isa).any(|target| target.find().is_some());
        Self::ALL.into_iter().filter(usable).collect()
    }

    /// The instruction set of that name, if this processor has it.
    pub fn by_name(name: &str) -> Result<Self, KernelError> {
        let available = || names(Self::available());
        let isa = Self::ALL.into_iter().find(|isa| isa.name() == name.to_ascii_lowercase());
        let isa =
            isa.ok_or_else(|| KernelError::UnknownIsa { found: name.to_owned(), available: available() })?;
        if Self::available().contains(&isa) {
            Ok(isa)
        } else {
            Err(KernelError::Unavailable { isa: isa.name().to_owned(), available: available() })
        }
    }

    /// What `NULLSUM_KERNEL` asks for; none where it leaves the choice.
    ///
    /// # Errors
    /// [`KernelError`] where that is unknown, or not on this processor.
    pub fn asked_for() -> Result<Option<Self>, KernelError> {
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
        Isa::ALL.into_iter().flat_map(Self::of).filter(|target| target.find().is_some()).collect()
    }

    /// The best available in `format`, or what `NULLSUM_KERNEL` asks for.
    ///
    /// # Errors
    /// [`KernelError`] where the processor lacks what is asked for, or that has not this format.
    pub fn select(format: Format) -> Result<Self, KernelError> {
        match Isa::asked_for()? {
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
        self.find().ok_or_else(|| {
            // A set may be here in the other format, so both are named.
            let format = match self.format {
                Format::F32 => "f32",
                Format::Bf16 => "bf16",
            };
            let others = Self::available().into_iter().filter(|target| target.format == self.format);
            KernelError::Unavailable {
                isa: format!("{} {format}", self.isa),
                available: names(others.map(|target| target.isa)),
            }
        })
    }

    fn find(self) -> Option<&'static Kernels> {
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

fn names(isas: impl IntoIterator<Item = Isa>) -> String {
    isas.into_iter().map(Isa::name).collect::<Vec<_>>().join(", ")
}

/// The kernels of one instruction set and format. The functions are unsafe only for their pointers: whoever holds `Kernels`
/// has the instruction set.
pub(super) struct Kernels {
    pub target: Target,
    /// Columns of a panel.
    pub nr: usize,
    /// Products are of bf16 in pairs, with A in [`tiles`].
    pub paired: bool,
    /// Both operands activations.
    pub gemm: unsafe fn(&Gemm),
    /// B a [`Packed`](super::gemm::Packed).
    pub project: unsafe fn(&Gemm),
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
    narrow: unsafe fn(*const f32, usize, *mut f32),
    /// (src, rows, width, dst)
    pub pair_rows: unsafe fn(*const f32, usize, usize, *mut f32),
    pub gelu: unsafe fn(*mut f32, usize),
    /// (row, n, its lines of an operand): GELU as exact as bf16 needs it
    gelu_narrow: unsafe fn(*const f32, usize, *mut f32),
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
    pub burst: unsafe fn(usize) -> (f64, f32),
}

impl Kernels {
    /// Words of k values: a row of an operand A, or one column of an operand B of activations.
    pub fn words(&self, k: usize) -> usize {
        if self.paired { k.next_multiple_of(tiles::STEP) / 2 } else { k }
    }

    /// Rows that an operand A of `rows` rows has.
    pub fn rows(&self, rows: usize) -> usize {
        if self.paired { rows.next_multiple_of(tiles::ROWS) } else { rows }
    }

    /// Floats of an operand A of `rows` rows of k values.
    pub fn operand_len(&self, rows: usize, k: usize) -> usize {
        self.rows(rows) * self.words(k)
    }

    /// As [`Self::operand_len`], where f32 stay where they are.
    pub fn narrowed_len(&self, rows: usize, k: usize) -> usize {
        if self.paired { self.operand_len(rows, k) } else { 0 }
    }

    /// Writes row `index` of an operand A of k values: `write` is told where to leave it as f32, which is in `spare` when it must
    /// be narrowed.
    ///
    /// # Safety
    /// The operand must have that row, `spare` room for k floats.
    pub unsafe fn fill_row(
        &self,
        operand: *mut f32,
        index: usize,
        k: usize,
        spare: *mut f32,
        write: impl FnOnce(*mut f32),
    ) {
        // SAFETY: the caller's.
        unsafe {
            if self.paired {
                write(spare);
                (self.narrow)(spare, k, operand.add(tiles::row(index, k)));
            } else {
                write(operand.add(index * k));
            }
        }
    }

    /// Rows of k f32, `ld` apart, as an operand A and its stride: `to` if they are narrowed, else the rows themselves.
    ///
    /// # Safety
    /// The rows must be readable, `to` have room for [`Self::narrowed_len`] floats.
    pub unsafe fn operand(
        &self,
        rows: *const f32,
        count: usize,
        k: usize,
        ld: usize,
        to: *mut f32,
    ) -> (*const f32, usize) {
        if !self.paired {
            return (rows, ld);
        }
        for i in 0..count {
            // SAFETY: the caller's.
            unsafe { (self.narrow)(rows.add(i * ld), k, to.add(tiles::row(i, k))) }
        }
        (to, self.words(k))
    }

    /// As [`Self::operand`] of the rows' GELU.
    ///
    /// # Safety
    /// As [`Self::operand`]'s; the rows must be writable.
    pub unsafe fn gelu_operand(
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
                if self.paired {
                    (self.gelu_narrow)(row, k, to.add(tiles::row(i, k)));
                } else {
                    (self.gelu)(row, k);
                }
            }
        }
        if self.paired { (to, self.words(k)) } else { (rows, ld) }
    }

    /// Runs `f` with this thread ready for products.
    pub fn session<R>(&self, f: impl FnOnce() -> R) -> R {
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
unsafe fn nothing() {}

macro_rules! compile_for {
    ($module:ident, $isa:expr, $simd:ty, $nv:literal $(, $feature:literal)?) => {
        compile_for!(@module $module, $isa, $simd, $($feature)?; {
            pub(super) static F32: Kernels = kernels(Format::F32, false, gemm, nothing, nothing);
            pub(super) static BF16: Kernels = Kernels { project: widening, ..kernels(Format::Bf16, false, gemm, nothing, nothing) };
            const NR: usize = $nv * <S as simd::Simd>::LANES;
        }
            gemm(g: &Gemm) = gemm::gemm::<S, $nv, { gemm::F32 }>(g);
            widening(g: &Gemm) = gemm::gemm::<S, $nv, { gemm::WIDENED }>(g);
            burst(rounds: usize) -> (f64, f32) = ops::fma_burst::<S>(rounds);
        );
    };
    ($module:ident, $isa:expr, $simd:ty, pairs $nv:literal $(, $feature:literal)?) => {
        compile_for!(@module $module, $isa, $simd, $($feature)?; {
            pub(super) static F32: Kernels = kernels(Format::F32, false, f32, nothing, nothing);
            pub(super) static BF16: Kernels = kernels(Format::Bf16, true, gemm, nothing, nothing);
            const NR: usize = $nv * <S as simd::Simd>::LANES;
        }
            f32(g: &Gemm) = gemm::gemm::<S, $nv, { gemm::F32 }>(g);
            gemm(g: &Gemm) = gemm::gemm::<S, $nv, { gemm::PAIRS }>(g);
            burst(rounds: usize) -> (f64, f32) = ops::fma_burst::<S>(rounds);
        );
    };
    ($module:ident, $isa:expr, $simd:ty, pairs only $nv:literal $(, $feature:literal)?) => {
        compile_for!(@module $module, $isa, $simd, $($feature)?; {
            pub(super) static BF16: Kernels = kernels(Format::Bf16, true, gemm, nothing, nothing);
            const NR: usize = $nv * <S as simd::Simd>::LANES;
        }
            gemm(g: &Gemm) = gemm::gemm::<S, $nv, { gemm::PAIRS }>(g);
            burst(rounds: usize) -> (f64, f32) = ops::fma_burst::<S>(rounds);
        );
    };
    ($module:ident, $isa:expr, $simd:ty, tiles $tiles:ty $(, $feature:literal)?) => {
        compile_for!(@module $module, $isa, $simd, $($feature)?; {
            pub(super) static BF16: Kernels = kernels(Format::Bf16, true, gemm, begin, end);
            const NR: usize = tiles::NR;
        }
            gemm(g: &Gemm) = tiles::gemm::<$tiles>(g);
            burst(rounds: usize) -> (f64, f32) = tiles::burst::<$tiles>(rounds);
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
                paired: bool,
                gemm: unsafe fn(&Gemm),
                begin: unsafe fn(),
                end: unsafe fn(),
            ) -> Kernels {
                Kernels {
                    target: Target { isa: $isa, format },
                    nr: NR,
                    paired,
                    gemm,
                    project: gemm,
                    begin,
                    end,
                    softmax,
                    softmax_operand: if paired { softmax_pairs } else { softmax },
                    normalize,
                    rotate,
                    transpose: if paired { transpose_pairs } else { transpose },
                    narrow,
                    pair_rows,
                    gelu,
                    gelu_narrow,
                    tanh,
                    sigmoid,
                    exp,
                    exp2,
                    glu,
                    add_assign,
                    prefetch,
                    scale,
                    burst,
                }
            }

            // SAFETY of all: the kernels are handed out only where the instruction set is; pointers are the caller's.
            compile_for!(@fns $($feature)?; $($gemm)*
                softmax(t: &SoftmaxTile) = ops::softmax::<S, false>(t);
                softmax_pairs(t: &SoftmaxTile) = ops::softmax::<S, true>(t);
                normalize(x: *const f32, out: *mut f32, n: usize, gamma: *const f32) = ops::normalize::<S>(x, out, n, gamma);
                rotate(x: *mut f32, table: *const f32, n: usize) = ops::rotate::<S>(x, table, n);
                transpose(src: *const f32, rows: usize, n: usize, ld: usize, dst: *mut f32, width: usize)
                    = ops::transpose(src, rows, n, ld, dst, width);
                transpose_pairs(src: *const f32, rows: usize, n: usize, ld: usize, dst: *mut f32, width: usize)
                    = ops::transpose_pairs::<S>(src, rows, n, ld, dst, width);
                narrow(row: *const f32, n: usize, lines: *mut f32) = ops::narrow::<S>(row, n, lines);
                pair_rows(src: *const f32, rows: usize, width: usize, dst: *mut f32) = ops::pair_rows::<S>(src, rows, width, dst);
                gelu(x: *mut f32, n: usize) = ops::map::<S, ops::Gelu>(x, n);
                gelu_narrow(row: *const f32, n: usize, lines: *mut f32) = ops::map_operand::<S, ops::GeluCoarse>(row, n, lines);
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
