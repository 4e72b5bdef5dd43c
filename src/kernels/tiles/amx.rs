//! The tiles of AMX. Its intrinsics are not stable in Rust, so the instructions are written out.

use core::arch::asm;
use std::sync::OnceLock;

use super::{ROW_BYTES, Tiles};
use crate::kernels::layout::TILE_ROWS;

/// Intel's Advanced Matrix Extensions, bf16 and i8.
pub(in crate::kernels) struct Amx;

/// What `ldtilecfg` reads: every tile is whole.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row, of 16 tiles of which there are 8.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static WHOLE: Configuration = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        row_bytes[tile] = ROW_BYTES as u16;
        rows[tile] = TILE_ROWS as u8;
        tile += 1;
    }
    Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// Whether processor and system let this process use AMX with bf16 and i8. Asks the system for it the first time.
pub(in crate::kernels) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| processor_has_it() && system_allows_it())
}

fn processor_has_it() -> bool {
    use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    /// AMX-BF16, AMX-TILE and AMX-INT8 in EDX of leaf 7. All processors with AMX have all three.
    const AMX: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    /// OSXSAVE in ECX of leaf 1.
    const OSXSAVE: u32 = 1 << 27;
    /// The system saves tile configuration and tile data.
    const TILES: u64 = 0b11 << 17;
    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: OSXSAVE, looked at before, says that the instruction works.
        unsafe { _xgetbv(0) }
    }
    if !is_x86_feature_detected!("avx512bf16")
        || !is_x86_feature_detected!("avx512f")
        || !is_x86_feature_detected!("xsave")
    {
        return false;
    }
    __cpuid(0).eax >= 7
        && __cpuid(1).ecx & OSXSAVE != 0
        && __cpuid_count(7, 0).edx & AMX == AMX
        // SAFETY: xsave is there.
        && unsafe { saved() } & TILES == TILES
}

/// Linux gives a process the tile registers only when it asks; a refusal is an answer.
#[cfg(target_os = "linux")]
fn system_allows_it() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and writes no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Not known elsewhere, so not used.
#[cfg(not(target_os = "linux"))]
fn system_allows_it() -> bool {
    false
}

/// One instruction on a tile whose number is a constant.
macro_rules! on_tile {
    ($tile:expr, $before:literal, $after:literal $(, $operands:tt)*) => {
        match $tile {
            0 => on_tile!(@ "tmm0", $before, $after $(, $operands)*),
            1 => on_tile!(@ "tmm1", $before, $after $(, $operands)*),
            2 => on_tile!(@ "tmm2", $before, $after $(, $operands)*),
            3 => on_tile!(@ "tmm3", $before, $after $(, $operands)*),
            4 => on_tile!(@ "tmm4", $before, $after $(, $operands)*),
            5 => on_tile!(@ "tmm5", $before, $after $(, $operands)*),
            6 => on_tile!(@ "tmm6", $before, $after $(, $operands)*),
            _ => on_tile!(@ "tmm7", $before, $after $(, $operands)*),
        }
    };
    (@ $name:tt, $before:literal, $after:literal) => {
        asm!(concat!($before, $name, $after), out($name) _, options(nomem, nostack, preserves_flags))
    };
    (@ $name:tt, $before:literal, $after:literal, ($p:expr, $stride:expr)) => {
        asm!(
            concat!($before, $name, $after),
            p = in(reg) $p,
            stride = in(reg) $stride,
            out($name) _,
            options(nostack, preserves_flags)
        )
    };
}

// Each instruction declares the tile that it writes as clobbered. The compiler itself puts nothing into tile registers, so that they
// keep their values from one instruction to the next.
// SAFETY of all: the trait's contract; tile numbers are constants below 8.
impl Tiles for Amx {
    #[inline(always)]
    unsafe fn begin() {
        // SAFETY: reads 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn end() {
        // SAFETY: no memory.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn zero<const T: usize>() {
        // SAFETY: no memory.
        unsafe { on_tile!(T, "tilezero ", "") }
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(p: *const u8, stride: usize) {
        // SAFETY: sixteen rows are readable.
        unsafe { on_tile!(T, "tileloadd ", ", [{p} + {stride}]", (p, stride)) }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(p: *mut u8, stride: usize) {
        // SAFETY: sixteen rows are writable.
        unsafe { on_tile!(T, "tilestored [{p} + {stride}], ", "", (p, stride)) }
    }

    #[inline(always)]
    unsafe fn dot<const C: usize, const A: usize, const B: usize, const INT8: bool>() {
        macro_rules! dot {
            ($name:literal, $c:tt, $a:tt, $b:tt) => {
                asm!(
                    concat!($name, $c, ", ", $a, ", ", $b),
                    out($c) _,
                    options(nomem, nostack, preserves_flags)
                )
            };
            ($c:tt, $a:tt, $b:tt) => {
                if INT8 {
                    dot!("tdpbssd ", $c, $a, $b)
                } else {
                    dot!("tdpbf16ps ", $c, $a, $b)
                }
            };
        }
        // SAFETY: no memory. These are the four products of a block.
        unsafe {
            match (C, A, B) {
                (0, 4, 6) => dot!("tmm0", "tmm4", "tmm6"),
                (1, 4, 7) => dot!("tmm1", "tmm4", "tmm7"),
                (2, 5, 6) => dot!("tmm2", "tmm5", "tmm6"),
                _ => dot!("tmm3", "tmm5", "tmm7"),
            }
        }
    }
}
