//! The eight tiles in memory: the yardstick of AMX, and its test where there is none.

use std::cell::RefCell;

use super::{COLUMNS, ROW_BYTES, ROWS, Tiles};

/// Tiles without the instructions; every processor.
pub(in crate::kernels) struct Emulated;

type Tile = [[u8; ROW_BYTES]; ROWS];

thread_local! {
    static TILES: RefCell<[Tile; 8]> = const { RefCell::new([[[0; ROW_BYTES]; ROWS]; 8]) };
}

/// The f32 at `column` of a row.
fn float(row: &[u8; ROW_BYTES], column: usize) -> f32 {
    f32::from_ne_bytes([0, 1, 2, 3].map(|byte| row[4 * column + byte]))
}

/// The two bf16 in word `column` of a row.
fn pair(row: &[u8; ROW_BYTES], column: usize) -> [f32; 2] {
    let bits = float(row, column).to_bits();
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

// SAFETY of all: pointers are the caller's.
impl Tiles for Emulated {
    unsafe fn begin() {}

    unsafe fn end() {}

    unsafe fn zero<const T: usize>() {
        TILES.with_borrow_mut(|tiles| tiles[T] = [[0; ROW_BYTES]; ROWS]);
    }

    unsafe fn load<const T: usize>(p: *const u8, stride: usize) {
        TILES.with_borrow_mut(|tiles| {
            for (i, row) in tiles[T].iter_mut().enumerate() {
                // SAFETY: row i is readable.
                *row = unsafe { p.add(i * stride).cast::<[u8; ROW_BYTES]>().read_unaligned() };
            }
        });
    }

    unsafe fn store<const T: usize>(p: *mut u8, stride: usize) {
        TILES.with_borrow(|tiles| {
            for (i, row) in tiles[T].iter().enumerate() {
                // SAFETY: row i is writable.
                unsafe { p.add(i * stride).cast::<[u8; ROW_BYTES]>().write_unaligned(*row) };
            }
        });
    }

    unsafe fn dot<const C: usize, const A: usize, const B: usize>() {
        TILES.with_borrow_mut(|tiles| {
            let [mut c, a, b] = [C, A, B].map(|tile| tiles[tile]);
            for (c, a) in c.iter_mut().zip(&a) {
                let mut sums: [f32; COLUMNS] = std::array::from_fn(|column| float(c, column));
                for (k, b) in b.iter().enumerate() {
                    let x = pair(a, k);
                    for (column, sum) in sums.iter_mut().enumerate() {
                        let y = pair(b, column);
                        *sum += x[0] * y[0] + x[1] * y[1];
                    }
                }
                for (column, sum) in sums.iter().enumerate() {
                    c[4 * column..4 * column + 4].copy_from_slice(&sum.to_ne_bytes());
                }
            }
            tiles[C] = c;
        });
    }
}
