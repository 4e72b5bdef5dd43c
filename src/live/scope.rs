//! Recent peaks of input and stems, aligned with the output: the data of a waveform display.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use atomic_float::AtomicF32;

/// Columns per second.
pub const COLUMNS_PER_SECOND: u32 = 60;
/// Seconds of history.
const SECONDS: u32 = 12;

/// Peaks of the delayed input and of each stem, per column. Written by the client, read by any thread.
#[derive(Debug)]
pub struct Scope {
    rows: usize,
    columns: usize,
    /// Samples per column.
    span: u32,
    /// [columns, rows]; row 0 is the input, row n + 1 is stem n.
    cells: Box<[AtomicF32]>,
    /// The column being filled; all earlier ones are complete.
    head: AtomicU64,
    /// Samples in the current column. Written by the client.
    filled: AtomicU32,
}

impl Scope {
    pub(super) fn new(host_rate: u32, stems: usize) -> Self {
        let (rows, columns) = (stems + 1, (SECONDS * COLUMNS_PER_SECOND) as usize);
        Self {
            rows,
            columns,
            span: (host_rate / COLUMNS_PER_SECOND).max(1),
            cells: (0..rows * columns).map(|_| AtomicF32::new(0.0)).collect(),
            head: AtomicU64::new(0),
            filled: AtomicU32::new(0),
        }
    }

    /// Number of the column being filled.
    pub fn head(&self) -> u64 {
        self.head.load(Acquire)
    }

    /// Columns in the history, including the one being filled.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Peak of the delayed input in a column; 0 if the column is no longer in the history.
    pub fn input(&self, column: u64) -> f32 {
        self.peak(column, 0)
    }

    /// Peak of a stem in a column, after its gain.
    pub fn stem(&self, column: u64, stem: usize) -> f32 {
        if stem + 1 < self.rows { self.peak(column, stem + 1) } else { 0.0 }
    }

    fn peak(&self, column: u64, row: usize) -> f32 {
        let head = self.head();
        if column > head || head - column >= self.columns as u64 {
            return 0.0;
        }
        self.cell(column, row).map_or(0.0, |cell| cell.load(Relaxed))
    }

    fn cell(&self, column: u64, row: usize) -> Option<&AtomicF32> {
        self.cells.get((column % self.columns as u64) as usize * self.rows + row)
    }

    /// Realtime-safe.
    pub(super) fn raise_input(&self, peak: f32) {
        self.raise(0, peak);
    }

    /// Realtime-safe.
    pub(super) fn raise_stem(&self, stem: usize, peak: f32) {
        self.raise(stem + 1, peak);
    }

    fn raise(&self, row: usize, peak: f32) {
        if let Some(cell) = self.cell(self.head.load(Relaxed), row) {
            super::status::raise(cell, peak);
        }
    }

    /// Advances by `samples` played samples. Realtime-safe.
    pub(super) fn advance(&self, samples: usize) {
        let mut filled = self.filled.load(Relaxed) + samples as u32;
        while filled >= self.span {
            filled -= self.span;
            let next = self.head.load(Relaxed) + 1;
            for row in 0..self.rows {
                if let Some(cell) = self.cell(next, row) {
                    cell.store(0.0, Relaxed);
                }
            }
            self.head.store(next, Release);
        }
        self.filled.store(filled, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_kept_per_column_until_it_is_overwritten() {
        let scope = Scope::new(6_000, 2);
        for column in 0..2_000u64 {
            scope.raise_input(column as f32);
            scope.raise_stem(1, 0.5);
            scope.advance(60);
            scope.advance(40);
        }
        assert_eq!(scope.head(), 2_000);
        assert_eq!(scope.input(1_999), 1_999.0);
        assert_eq!((scope.stem(1_999, 0), scope.stem(1_999, 1), scope.stem(1_999, 2)), (0.0, 0.5, 0.0));
        assert_eq!(scope.input(2_001 - scope.columns() as u64), (2_001 - scope.columns()) as f32);
        assert_eq!(scope.input(2_000 - scope.columns() as u64), 0.0);
        assert_eq!(scope.input(2_000), 0.0);
    }
}
