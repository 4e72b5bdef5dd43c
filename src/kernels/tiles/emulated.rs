//! The eight tiles in memory, in plain Rust: the reference for AMX, and its test on processors without it.

use std::cell::RefCell;

use super::{COLUMNS, ROW_BYTES, Tiles};
use crate::kernels::layout::TILE_ROWS;

/// Tiles without the instructions; every processor.
pub(in crate::kernels) struct Emulated;

type Tile = [[u8; ROW_BYTES]; TILE_ROWS];

thread_local! {
    static TILES: RefCell<[Tile; 8]> = const { RefCell::new([[[0; ROW_BYTES]; TILE_ROWS]; 8]) };
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
        TILES.with_borrow_mut(|tiles| tiles[T] = [[0; ROW_BYTES]; TILE_ROWS]);
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

    unsafe fn dot<const C: usize, const A: usize, const B: usize, const INT8: bool>() {
        TILES.with_borrow_mut(|tiles| {
            let [mut c, a, b] = [C, A, B].map(|tile| tiles[tile]);
            for (c, a) in c.iter_mut().zip(&a) {
                if INT8 { dot_row_i8(c, a, &b) } else { dot_row_bf16(c, a, &b) }
            }
            tiles[C] = c;
        });
    }
}

/// One row of C += A · B of bf16.
fn dot_row_bf16(c: &mut [u8; ROW_BYTES], a: &[u8; ROW_BYTES], b: &Tile) {
    for column in 0..COLUMNS {
        let mut sum = float(c, column);
        for (k, b) in b.iter().enumerate() {
            let (x, y) = (pair(a, k), pair(b, column));
            sum += x[0] * y[0] + x[1] * y[1];
        }
        c[4 * column..4 * column + 4].copy_from_slice(&sum.to_ne_bytes());
    }
}

/// One row of C += A · B of i8.
fn dot_row_i8(c: &mut [u8; ROW_BYTES], a: &[u8; ROW_BYTES], b: &Tile) {
    let product = |a: u8, b: u8| i32::from(a as i8) * i32::from(b as i8);
    for column in 0..COLUMNS {
        let word = 4 * column..4 * column + 4;
        let mut sum = float(c, column).to_bits() as i32;
        for (a, b) in a.chunks_exact(4).zip(b) {
            let four = a.iter().zip(&b[word.clone()]).map(|(&a, &b)| product(a, b));
            sum = sum.wrapping_add(four.sum::<i32>());
        }
        c[word].copy_from_slice(&sum.to_ne_bytes());
    }
}
