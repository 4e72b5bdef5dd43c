//! Products of bf16 tiles with f32 sums: the arithmetic of AMX, and the same in plain Rust.
//!
//! A tile is 16 rows of 64 bytes, one behind the other. Of an operand A, a tile is 16 rows by [`STEP`] bf16; tiles lie
//! [⌈rows/16⌉][⌈k/STEP⌉], written row by row ([`narrow`](super::ops::narrow)). Panels of B hold pairs of rows, two bf16 in a word,
//! so that of the panels of [`NR`] columns a tile is 16 pairs. Both are padded with zeros to whole [`STEP`]s of k; the rows that A lacks to a
//! whole tile must be there, their values do not matter. A row counts as `lda` = ⌈k/STEP⌉ · 16 floats, which is right for every sixteenth.

use super::gemm::Gemm;

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
mod emulated;

pub(super) use emulated::Emulated;

/// Values of k that a product of tiles takes.
pub(super) const STEP: usize = 32;
/// Rows of a tile.
pub(super) const ROWS: usize = 16;
/// Columns of a tile of C.
const COLUMNS: usize = 16;
/// Columns of a panel of B: a tile's.
pub(super) const NR: usize = COLUMNS;
/// Bytes of a row of a tile.
const ROW_BYTES: usize = 64;
/// bf16 in a tile of an operand.
pub(super) const TILE: usize = ROWS * STEP;

/// Where a row of an operand A of k values begins, in floats.
#[inline(always)]
pub(super) fn row(row: usize, k: usize) -> usize {
    row / ROWS * k.div_ceil(STEP) * TILE / 2 + row % ROWS * STEP / 2
}

/// The eight tiles of a thread: 0–3 are sums, 4 and 5 rows of A, 6 and 7 columns of B.
///
/// # Safety
/// All methods are unsafe: the processor must have the instructions, [`begin`](Self::begin) must have been called on this
/// thread, tile numbers must be below 8, and 16 rows of 64 bytes must be valid at `p`, `stride` bytes apart.
pub(super) trait Tiles {
    /// Before the first product of a task.
    unsafe fn begin();
    /// After the last: a thread that sleeps should not carry eight kilobytes of registers.
    unsafe fn end();
    unsafe fn zero<const T: usize>();
    unsafe fn load<const T: usize>(p: *const u8, stride: usize);
    unsafe fn store<const T: usize>(p: *mut u8, stride: usize);
    /// C += A · B.
    unsafe fn dot<const C: usize, const A: usize, const B: usize>();
}

/// Runs a multiplication; panels are [`NR`] columns.
///
/// # Safety
/// As [`Tiles`]'; A, B, C and the bias must be valid for the shape and strides given (see the module), C writable and not
/// overlapping the others.
#[inline(always)]
pub(super) unsafe fn gemm<T: Tiles>(g: &Gemm) {
    let mut panel = 0;
    while panel * NR < g.n {
        let columns = (g.n - panel * NR).min(2 * NR);
        let mut i = 0;
        while i < g.m {
            let rows = (g.m - i).min(2 * ROWS);
            // SAFETY: offsets lie within the matrices the caller vouches for.
            unsafe {
                let block = Block {
                    steps: g.k.div_ceil(STEP),
                    a: g.a.add(i * g.lda).cast(),
                    a_below: ROWS * g.lda * size_of::<f32>(),
                    b: g.b.add(panel * g.b_panel).cast(),
                    b_panel: g.b_panel * size_of::<f32>(),
                    c: g.c.add(i * g.ldc + panel * g.c_panel),
                    ldc: g.ldc,
                    c_panel: g.c_panel,
                    bias: if g.bias.is_null() { g.bias } else { g.bias.add(panel * NR) },
                    accumulate: g.accumulate,
                    rows,
                    columns,
                };
                match (rows > ROWS, columns > COLUMNS) {
                    (true, true) => block.run::<T, true, true>(),
                    (true, false) => block.run::<T, true, false>(),
                    (false, true) => block.run::<T, false, true>(),
                    (false, false) => block.run::<T, false, false>(),
                }
            }
            i += rows;
        }
        panel += 2;
    }
}

/// Products without memory: `rounds` rounds of a block's four. Returns the FLOPs done; for the benchmark's peak.
///
/// # Safety
/// As [`Tiles`]'.
#[inline(always)]
pub(super) unsafe fn peak_flops<T: Tiles>(rounds: usize) -> (f64, f32) {
    // SAFETY: the caller's.
    unsafe {
        T::zero::<4>();
        T::zero::<5>();
        T::zero::<6>();
        T::zero::<7>();
        for _ in 0..rounds {
            T::dot::<0, 4, 6>();
            T::dot::<1, 4, 7>();
            T::dot::<2, 5, 6>();
            T::dot::<3, 5, 7>();
        }
    }
    ((rounds * 4 * 2 * ROWS * COLUMNS * STEP) as f64, 0.0)
}

/// Two by two tiles of C.
struct Block {
    steps: usize,
    a: *const u8,
    /// From the upper tiles of A to the lower, in bytes.
    a_below: usize,
    b: *const u8,
    /// From the left tiles of B to the right, in bytes.
    b_panel: usize,
    c: *mut f32,
    /// In floats, as the next.
    ldc: usize,
    c_panel: usize,
    bias: *const f32,
    accumulate: bool,
    rows: usize,
    columns: usize,
}

/// A tile of C that is not whole, on its way to or from memory.
#[repr(align(64))]
struct Edge([f32; ROWS * COLUMNS]);

impl Block {
    /// # Safety
    /// As [`gemm`]'s. `TALL`: more than one tile of rows; `WIDE`: more than one of columns.
    #[inline(always)]
    unsafe fn run<T: Tiles, const TALL: bool, const WIDE: bool>(&self) {
        // SAFETY: the tiles that `TALL` and `WIDE` name lie within the block.
        unsafe {
            self.start::<T, 0>(0, 0);
            if WIDE {
                self.start::<T, 1>(0, 1);
            }
            if TALL {
                self.start::<T, 2>(1, 0);
            }
            if TALL && WIDE {
                self.start::<T, 3>(1, 1);
            }
            let (mut a, mut b) = (self.a, self.b);
            for _ in 0..self.steps {
                T::load::<4>(a, ROW_BYTES);
                T::load::<6>(b, ROW_BYTES);
                T::dot::<0, 4, 6>();
                if WIDE {
                    T::load::<7>(b.add(self.b_panel), ROW_BYTES);
                    T::dot::<1, 4, 7>();
                }
                if TALL {
                    T::load::<5>(a.add(self.a_below), ROW_BYTES);
                    T::dot::<2, 5, 6>();
                    if WIDE {
                        T::dot::<3, 5, 7>();
                    }
                }
                a = a.add(ROWS * ROW_BYTES);
                b = b.add(ROWS * ROW_BYTES);
            }
            self.finish::<T, 0>(0, 0);
            if WIDE {
                self.finish::<T, 1>(0, 1);
            }
            if TALL {
                self.finish::<T, 2>(1, 0);
            }
            if TALL && WIDE {
                self.finish::<T, 3>(1, 1);
            }
        }
    }

    /// Where tile (i, j) begins, and how many rows and columns of it there are.
    ///
    /// # Safety
    /// The tile must lie within the block.
    #[inline(always)]
    unsafe fn tile(&self, i: usize, j: usize) -> (*mut f32, usize, usize) {
        let (rows, columns) = ((self.rows - i * ROWS).min(ROWS), (self.columns - j * COLUMNS).min(COLUMNS));
        // SAFETY: the caller's.
        (unsafe { self.c.add(i * ROWS * self.ldc + j * self.c_panel) }, rows, columns)
    }

    /// # Safety
    /// As [`Self::run`]'s.
    #[inline(always)]
    unsafe fn start<T: Tiles, const C: usize>(&self, i: usize, j: usize) {
        // SAFETY: a partial tile goes through `edge`, which is a whole one; the bias is padded to whole panels.
        unsafe {
            if self.accumulate {
                let (c, rows, columns) = self.tile(i, j);
                if rows == ROWS && columns == COLUMNS {
                    return T::load::<C>(c.cast_const().cast(), self.ldc * size_of::<f32>());
                }
                let mut edge = Edge([0.0; ROWS * COLUMNS]);
                for row in 0..rows {
                    let to = edge.0.as_mut_ptr().add(row * COLUMNS);
                    core::ptr::copy_nonoverlapping(c.add(row * self.ldc).cast_const(), to, columns);
                }
                T::load::<C>(edge.0.as_ptr().cast(), ROW_BYTES);
            } else if self.bias.is_null() {
                T::zero::<C>();
            } else {
                // The same sixteen values in every row.
                T::load::<C>(self.bias.add(j * COLUMNS).cast(), 0);
            }
        }
    }

    /// # Safety
    /// As [`Self::run`]'s.
    #[inline(always)]
    unsafe fn finish<T: Tiles, const C: usize>(&self, i: usize, j: usize) {
        // SAFETY: as in `start`.
        unsafe {
            let (c, rows, columns) = self.tile(i, j);
            if rows == ROWS && columns == COLUMNS {
                return T::store::<C>(c.cast(), self.ldc * size_of::<f32>());
            }
            let mut edge = Edge([0.0; ROWS * COLUMNS]);
            T::store::<C>(edge.0.as_mut_ptr().cast(), ROW_BYTES);
            for row in 0..rows {
                let from = edge.0.as_ptr().add(row * COLUMNS);
                core::ptr::copy_nonoverlapping(from, c.add(row * self.ldc), columns);
            }
        }
    }
}
