//! Products of tiles, of bf16 with f32 sums or of i8 with i32 sums: the arithmetic of AMX, and the same in plain Rust.
//!
//! A is tiled and panels of B have [`NR`] columns (see [`layout`](super::layout)), so that 16 words of a panel are a tile as well.

use super::layout::{Activations, Addend, Element, Gemm, LINE, TILE, TILE_ROWS, tiled_row};
use super::math;
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
    for block in Blocks::new(g, element(INT8)) {
        // SAFETY: the caller's; a block lies within C.
        unsafe { block.run_shape::<S, T, INT8>(None) }
    }
}

/// GELU of A · B + bias, in bf16, to the lines of a tiled operand at `lines`. `g.c` is not used, and `g.n` must be whole panels. The GELU of
/// a block runs between the products of the next one: vectors and tiles work at the same time.
///
/// # Safety
/// As [`gemm`]'s; the operand must have room for g.m rows of g.n values.
#[inline(always)]
pub(super) unsafe fn gemm_gelu<S: Simd, T: Tiles>(g: &Gemm, lines: *mut f32) {
    let words = element(false).words(g.n);
    let mut sums = [const { Sums([0.0; 4 * TILE_ROWS * COLUMNS]) }; 2];
    let [mut sums, mut earlier] = sums.each_mut().map(|sums| sums.0.as_mut_ptr());
    let mut pending: Option<GeluRows> = None;
    for block in Blocks::new(g, element(false)) {
        let rows = block.rows.next_multiple_of(TILE_ROWS);
        // SAFETY: the caller's; the block goes to `sums`, which holds one, and its GELU to its lines of the operand.
        unsafe {
            let whole = Block { c: sums, ldc: 2 * COLUMNS, c_panel: COLUMNS, rows, ..block };
            whole.run_shape::<S, T, false>(pending.as_ref());
            let to = lines.add(tiled_row(block.row, words) + block.column / (2 * NR) * TILE);
            pending = Some(GeluRows { sums, rows, columns: block.columns, to, below: words * TILE_ROWS });
        }
        core::mem::swap(&mut sums, &mut earlier);
    }
    if let Some(pending) = &pending {
        // SAFETY: as above.
        unsafe { pending.convert::<S>(0, 2 * TILE_ROWS) }
    }
}

/// The sums of a block, [32, 32], that wait for their GELU.
struct GeluRows {
    sums: *const f32,
    rows: usize,
    columns: usize,
    /// Lines of the operand: a tile, and from its first value to that of the next 16 rows.
    to: *mut f32,
    below: usize,
}

impl GeluRows {
    /// Rows from..from + count, as far as there are.
    ///
    /// # Safety
    /// The sums must be readable and the lines writable.
    #[inline(always)]
    unsafe fn convert<S: Simd>(&self, from: usize, count: usize) {
        for row in from..(from + count).min(self.rows) {
            // SAFETY: a row of sums is 32 values, as is a line; LANES divides both.
            unsafe {
                let sums = self.sums.add(row * 2 * COLUMNS);
                let to = self.to.add(row / TILE_ROWS * self.below + row % TILE_ROWS * LINE).cast::<u16>();
                for v in (0..2 * COLUMNS).step_by(S::LANES) {
                    let value = if v < self.columns { S::load(sums.add(v)) } else { S::splat(0.0) };
                    S::store_bf16(to.add(v), math::gelu_coarse::<S>(value));
                }
            }
        }
    }
}

/// The blocks of a product, one pair of panels after the other. An iterator and not a function that takes a closure: closures do not
/// inherit instruction sets.
struct Blocks<'a> {
    g: &'a Gemm,
    steps: usize,
    row: usize,
    panel: usize,
    lines_per_block: usize,
    next: Prefetch,
}

impl<'a> Blocks<'a> {
    #[inline(always)]
    fn new(g: &'a Gemm, element: Element) -> Self {
        let steps = element.words(g.k) / LINE;
        // Lines of two panels that a block, and a step of it, fetches: divided once, for blocks are short.
        let panel = steps * TILE_ROWS;
        let lines_per_block = (2 * panel).div_ceil(g.m.div_ceil(2 * TILE_ROWS).max(1));
        let per_step = lines_per_block.div_ceil(steps.max(1));
        let next = Prefetch { data: g.b.data, stride: g.b.stride, from: 0, panel, per_step };
        Self { g, steps, row: 0, panel: 0, lines_per_block, next }
    }
}

impl Iterator for Blocks<'_> {
    type Item = Block;

    #[inline(always)]
    fn next(&mut self) -> Option<Block> {
        let g = self.g;
        if self.row >= g.m {
            self.row = 0;
            self.panel += 2;
        }
        if self.panel * NR >= g.n || g.m == 0 {
            return None;
        }
        if self.row == 0 {
            // The next two panels are fetched line by line while these are in use; after the last ones it is often the next matrix.
            self.next.data = g.b.data.wrapping_add((self.panel + 2) * g.b.stride);
            self.next.from = 0;
        }
        let (row, panel) = (self.row, self.panel);
        let block = Block {
            steps: self.steps,
            a: g.a.at_row(row),
            b: g.b.data.wrapping_add(panel * g.b.stride),
            b_panel: g.b.stride,
            c: g.c.data.wrapping_add(row * g.c.stride + panel * g.c.panel),
            ldc: g.c.stride,
            c_panel: g.c.panel,
            addend: g.addend_of(panel, NR),
            column_scales: g.b.scales.wrapping_add(panel * NR),
            row,
            column: panel * NR,
            rows: (g.m - row).min(2 * TILE_ROWS),
            columns: (g.n - panel * NR).min(2 * NR),
            next: self.next,
        };
        self.next.from += self.lines_per_block;
        self.row += block.rows;
        Some(block)
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
#[derive(Clone, Copy)]
struct Prefetch {
    data: *const f32,
    /// Words from the first to the second panel.
    stride: usize,
    /// The line of both panels that this block begins with.
    from: usize,
    /// Lines of a panel.
    panel: usize,
    per_step: usize,
}

impl Prefetch {
    /// # Safety
    /// The instruction set only: any address will do.
    #[inline(always)]
    unsafe fn step<S: Simd>(&self, step: usize) {
        let from = self.from + step * self.per_step;
        for line in from..(from + self.per_step).min(2 * self.panel) {
            let at = if line < self.panel { line * LINE } else { self.stride + (line - self.panel) * LINE };
            // SAFETY: a prefetch reads nothing.
            unsafe { S::prefetch(self.data.wrapping_add(at)) }
        }
    }
}

/// Two by two tiles of C.
#[derive(Clone, Copy)]
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
    /// Its first row and column, and how many there are.
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
    next: Prefetch,
}

/// A tile of C on its way to or from memory.
#[repr(align(64))]
struct Edge([f32; TILE_ROWS * COLUMNS]);

/// The four tiles of a block of C.
#[repr(align(64))]
struct Sums([f32; 4 * TILE_ROWS * COLUMNS]);

impl Block {
    /// `pending` becomes an operand between the steps of k.
    ///
    /// # Safety
    /// As [`gemm`]'s.
    #[inline(always)]
    unsafe fn run_shape<S: Simd, T: Tiles, const INT8: bool>(&self, pending: Option<&GeluRows>) {
        // SAFETY: the caller's.
        unsafe {
            match (self.rows > TILE_ROWS, self.columns > COLUMNS) {
                (true, true) => self.run::<S, T, true, true, INT8>(pending),
                (true, false) => self.run::<S, T, true, false, INT8>(pending),
                (false, true) => self.run::<S, T, false, true, INT8>(pending),
                (false, false) => self.run::<S, T, false, false, INT8>(pending),
            }
        }
    }

    /// `TALL`: more than one tile of rows; `WIDE`: more than one of columns.
    ///
    /// # Safety
    /// As [`gemm`]'s.
    #[inline(always)]
    unsafe fn run<S: Simd, T: Tiles, const TALL: bool, const WIDE: bool, const INT8: bool>(
        &self,
        pending: Option<&GeluRows>,
    ) {
        let gelu_rows = (2 * TILE_ROWS).div_ceil(self.steps.max(1));
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
                self.next.step::<S>(step);
                if let Some(pending) = pending {
                    pending.convert::<S>(step * gelu_rows, gelu_rows);
                }
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
