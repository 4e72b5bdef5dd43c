//! Products of tiles, of bf16 with f32 sums or of i8 with i32 sums: the arithmetic of AMX, and the same in plain Rust.
//!
//! A is tiled and panels of B have [`NR`] columns (see [`layout`](super::layout)), so that 16 words of a panel are a tile as well.

use super::layout::{Activations, Addend, Element, Gemm, LINE, TILE, TILE_ROWS};
use super::simd::Simd;

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
mod emulated;

pub(super) use emulated::Emulated;

/// Columns of a tile of C.
const COLUMNS: usize = 16;
/// Columns of a panel of B: a tile's.
pub(super) const NR: usize = COLUMNS;
/// Bytes of a row of a tile.
const ROW_BYTES: usize = 64;

/// The eight tiles of a thread: 0–3 are sums, 4 and 5 rows of A, 6 and 7 columns of B.
///
/// # Safety
/// All methods are unsafe: the processor must have the instructions, [`begin`](Self::begin) must have been called on this
/// thread, tile numbers must be below 8, and 16 rows of 64 bytes must be valid at `p`, `stride` bytes apart.
pub(super) trait Tiles {
    /// Configures the tiles, before the first product of a task.
    unsafe fn begin();
    /// Releases the tiles after the last product, so that an idle thread does not carry eight kilobytes of registers.
    unsafe fn end();
    unsafe fn zero<const T: usize>();
    unsafe fn load<const T: usize>(p: *const u8, stride: usize);
    unsafe fn store<const T: usize>(p: *mut u8, stride: usize);
    /// C += A · B of bf16 in f32, or, with `INT8`, of i8 in i32.
    unsafe fn dot<const C: usize, const A: usize, const B: usize, const INT8: bool>();
}

const fn element(int8: bool) -> Element {
    if int8 { Element::Int8 } else { Element::Bf16 }
}

/// Runs a multiplication of bf16 or, with `INT8`, of signed i8; panels are [`NR`] columns.
///
/// # Safety
/// As [`Tiles`]' and [`Simd`]'s; the operands must be valid for the shape, C writable and not overlapping the others.
#[inline(always)]
pub(super) unsafe fn gemm<S: Simd, T: Tiles, const INT8: bool>(g: &Gemm) {
    let steps = element(INT8).words(g.k) / LINE;
    let mut panel = 0;
    while panel * NR < g.n {
        let columns = (g.n - panel * NR).min(2 * NR);
        // The next two panels are fetched line by line while these are in use; after the last ones it is often the next matrix.
        let next = g.b.data.wrapping_add((panel + 2) * g.b.stride);
        let mut i = 0;
        while i < g.m {
            let rows = (g.m - i).min(2 * TILE_ROWS);
            let a = g.a.at_row(i);
            // SAFETY: offsets lie within the matrices the caller vouches for.
            unsafe {
                let block = Block {
                    steps,
                    a,
                    b: g.b.data.add(panel * g.b.stride),
                    b_panel: g.b.stride,
                    c: g.c.data.add(i * g.c.stride + panel * g.c.panel),
                    ldc: g.c.stride,
                    c_panel: g.c.panel,
                    addend: g.addend_of(panel, NR),
                    column_scales: g.b.scales.wrapping_add(panel * NR),
                    rows,
                    columns,
                    next: Prefetch::share(next, g.b.stride, steps, i, rows, g.m),
                };
                match (rows > TILE_ROWS, columns > COLUMNS) {
                    (true, true) => block.run::<S, T, true, true, INT8>(),
                    (true, false) => block.run::<S, T, true, false, INT8>(),
                    (false, true) => block.run::<S, T, false, true, INT8>(),
                    (false, false) => block.run::<S, T, false, false, INT8>(),
                }
            }
            i += rows;
        }
        panel += 2;
    }
}

/// Runs `rounds` rounds of a block's four products on registers. Returns their operations and a value; for the benchmark's peak.
///
/// # Safety
/// As [`Tiles`]'.
#[inline(always)]
pub(super) unsafe fn peak<T: Tiles, const INT8: bool>(rounds: usize) -> (f64, f32) {
    // SAFETY: the caller's.
    unsafe {
        T::zero::<4>();
        T::zero::<5>();
        T::zero::<6>();
        T::zero::<7>();
        for _ in 0..rounds {
            T::dot::<0, 4, 6, INT8>();
            T::dot::<1, 4, 7, INT8>();
            T::dot::<2, 5, 6, INT8>();
            T::dot::<3, 5, 7, INT8>();
        }
    }
    ((rounds * 4 * 2 * TILE_ROWS * COLUMNS * element(INT8).per_line()) as f64, 0.0)
}

/// Lines of the next two panels that a block fetches, a few in each step of k.
struct Prefetch {
    data: *const f32,
    /// Words from the first to the second panel.
    stride: usize,
    /// Lines of both panels that this block begins with and ends before.
    from: usize,
    to: usize,
    /// Lines of a panel.
    panel: usize,
}

impl Prefetch {
    /// The share of rows i.. of m.
    #[inline(always)]
    fn share(data: *const f32, stride: usize, steps: usize, i: usize, rows: usize, m: usize) -> Self {
        let panel = steps * TILE_ROWS;
        Self { data, stride, from: 2 * panel * i / m, to: 2 * panel * (i + rows) / m, panel }
    }

    /// # Safety
    /// The instruction set only: any address will do.
    #[inline(always)]
    unsafe fn step<S: Simd>(&self, step: usize, steps: usize) {
        let lines = self.to - self.from;
        for line in self.from + lines * step / steps..self.from + lines * (step + 1) / steps {
            let at = if line < self.panel { line * LINE } else { self.stride + (line - self.panel) * LINE };
            // SAFETY: a prefetch reads nothing.
            unsafe { S::prefetch(self.data.wrapping_add(at)) }
        }
    }
}

/// Two by two tiles of C.
struct Block {
    steps: usize,
    a: Activations,
    b: *const f32,
    /// Words from the left tiles of B to the right.
    b_panel: usize,
    c: *mut f32,
    ldc: usize,
    c_panel: usize,
    addend: Addend,
    column_scales: *const f32,
    rows: usize,
    columns: usize,
    next: Prefetch,
}

/// A tile of C on its way to or from memory.
#[repr(align(64))]
struct Edge([f32; TILE_ROWS * COLUMNS]);

impl Block {
    /// # Safety
    /// As [`gemm`]'s. `TALL`: more than one tile of rows; `WIDE`: more than one of columns.
    #[inline(always)]
    unsafe fn run<S: Simd, T: Tiles, const TALL: bool, const WIDE: bool, const INT8: bool>(&self) {
        // SAFETY: the tiles that `TALL` and `WIDE` name lie within the block.
        unsafe {
            self.start::<T, 0, INT8>(0, 0);
            if WIDE {
                self.start::<T, 1, INT8>(0, 1);
            }
            if TALL {
                self.start::<T, 2, INT8>(1, 0);
            }
            if TALL && WIDE {
                self.start::<T, 3, INT8>(1, 1);
            }
            let (mut a, mut b) = (self.a.data, self.b);
            let below = self.a.at_row(TILE_ROWS).data.offset_from(self.a.data);
            for step in 0..self.steps {
                T::load::<4>(a.cast(), ROW_BYTES);
                T::load::<6>(b.cast(), ROW_BYTES);
                T::dot::<0, 4, 6, INT8>();
                if WIDE {
                    T::load::<7>(b.add(self.b_panel).cast(), ROW_BYTES);
                    T::dot::<1, 4, 7, INT8>();
                }
                self.next.step::<S>(step, self.steps);
                if TALL {
                    T::load::<5>(a.offset(below).cast(), ROW_BYTES);
                    T::dot::<2, 5, 6, INT8>();
                    if WIDE {
                        T::dot::<3, 5, 7, INT8>();
                    }
                }
                a = a.add(TILE);
                b = b.add(TILE);
            }
            self.finish::<S, T, 0, INT8>(0, 0);
            if WIDE {
                self.finish::<S, T, 1, INT8>(0, 1);
            }
            if TALL {
                self.finish::<S, T, 2, INT8>(1, 0);
            }
            if TALL && WIDE {
                self.finish::<S, T, 3, INT8>(1, 1);
            }
        }
    }

    /// Where tile (i, j) begins, and how many rows and columns of it there are.
    ///
    /// # Safety
    /// The tile must lie within the block.
    #[inline(always)]
    unsafe fn tile(&self, i: usize, j: usize) -> (*mut f32, usize, usize) {
        let rows = (self.rows - i * TILE_ROWS).min(TILE_ROWS);
        let columns = (self.columns - j * COLUMNS).min(COLUMNS);
        // SAFETY: the caller's.
        (unsafe { self.c.add(i * TILE_ROWS * self.ldc + j * self.c_panel) }, rows, columns)
    }

    /// # Safety
    /// As [`Self::run`]'s.
    #[inline(always)]
    unsafe fn start<T: Tiles, const C: usize, const INT8: bool>(&self, i: usize, j: usize) {
        // SAFETY: a partial tile goes through `edge`, which is a whole one; the bias is padded to whole panels.
        unsafe {
            match self.addend {
                // Sums of i8 are scaled before anything is added.
                _ if INT8 => T::zero::<C>(),
                Addend::Zero => T::zero::<C>(),
                // The same sixteen values in every row.
                Addend::Bias(bias) => T::load::<C>(bias.add(j * COLUMNS).cast(), 0),
                Addend::Output => {
                    let (c, rows, columns) = self.tile(i, j);
                    if rows == TILE_ROWS && columns == COLUMNS {
                        return T::load::<C>(c.cast_const().cast(), self.ldc * size_of::<f32>());
                    }
                    let mut edge = Edge([0.0; TILE_ROWS * COLUMNS]);
                    for row in 0..rows {
                        let to = edge.0.as_mut_ptr().add(row * COLUMNS);
                        core::ptr::copy_nonoverlapping(c.add(row * self.ldc).cast_const(), to, columns);
                    }
                    T::load::<C>(edge.0.as_ptr().cast(), ROW_BYTES);
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::run`]'s.
    #[inline(always)]
    unsafe fn finish<S: Simd, T: Tiles, const C: usize, const INT8: bool>(&self, i: usize, j: usize) {
        // SAFETY: as in `start`.
        unsafe {
            let (c, rows, columns) = self.tile(i, j);
            if !INT8 && rows == TILE_ROWS && columns == COLUMNS {
                return T::store::<C>(c.cast(), self.ldc * size_of::<f32>());
            }
            let mut edge = Edge([0.0; TILE_ROWS * COLUMNS]);
            T::store::<C>(edge.0.as_mut_ptr().cast(), ROW_BYTES);
            for row in 0..rows {
                let sums = edge.0.as_mut_ptr().add(row * COLUMNS);
                let to = c.add(row * self.ldc);
                if INT8 {
                    self.scale_row::<S>(sums, i * TILE_ROWS + row, j, to, columns);
                } else {
                    core::ptr::copy_nonoverlapping(sums.cast_const(), to, columns);
                }
            }
        }
    }

    /// Sums of i8 of a row of a tile, scaled and added to what the product adds, to their place in C.
    ///
    /// # Safety
    /// `sums` must hold COLUMNS values, `to` be a row of C with `columns`.
    #[inline(always)]
    unsafe fn scale_row<S: Simd>(&self, sums: *mut f32, row: usize, j: usize, to: *mut f32, columns: usize) {
        // SAFETY: scales and the bias are padded to whole panels; a partial row goes through `whole`.
        unsafe {
            let row_scale = S::splat(*self.a.scales.add(row));
            let mut whole = [0.0; COLUMNS];
            if matches!(self.addend, Addend::Output) && columns < COLUMNS {
                core::ptr::copy_nonoverlapping(to.cast_const(), whole.as_mut_ptr(), columns);
            }
            let out = if columns == COLUMNS { to } else { whole.as_mut_ptr() };
            for v in (0..COLUMNS).step_by(S::LANES) {
                let scale = S::mul(row_scale, S::load(self.column_scales.add(j * COLUMNS + v)));
                let addend = match self.addend {
                    Addend::Zero => S::splat(0.0),
                    Addend::Bias(bias) => S::load(bias.add(j * COLUMNS + v)),
                    Addend::Output => S::load(out.add(v)),
                };
                S::store(out.add(v), S::fma(S::i32_to_f32(S::load(sums.add(v))), scale, addend));
            }
            if columns < COLUMNS {
                core::ptr::copy_nonoverlapping(whole.as_ptr(), to, columns);
            }
        }
    }
}
