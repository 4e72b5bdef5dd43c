//! What was played lately, as peaks: a picture for a user interface, aligned with the output.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use atomic_float::AtomicF32;

/// Columns a second.
pub const COLUMNS_PER_SECOND: u32 = 60;
/// Seconds that are kept.
const SECONDS: u32 = 12;

/// Peaks of the input, delayed, and of each stem, column by column. Written by the client, read by anyone.
#[derive(Debug)]
pub struct Scope {
    lanes: usize,
    columns: usize,
    /// Samples of a column.
    span: u32,
    /// [columns, lanes]; lane 0 is the input.
    cells: Box<[AtomicF32]>,
    /// Column that is being filled; those before it are complete.
    head: AtomicU64,
    /// Samples in it. Client.
    filled: AtomicU32,
}

impl Scope {
    pub(super) fn new(host_rate: u32, stems: usize) -> Self {
        let (lanes, columns) = (stems + 1, (SECONDS * COLUMNS_PER_SECOND) as usize);
        Self {
            lanes,
            columns,
            span: (host_rate / COLUMNS_PER_SECOND).max(1),
            cells: (0..lanes * columns).map(|_| AtomicF32::new(0.0)).collect(),
            head: AtomicU64::new(0),
            filled: AtomicU32::new(0),
        }
    }

    /// Number of the column that is being filled.
    pub fn head(&self) -> u64 {
        self.head.load(Acquire)
    }

    /// Columns that are kept, the one that is being filled included.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Peak of the delayed input in a column; 0 where it is not kept any more.
    pub fn input(&self, column: u64) -> f32 {
        self.peak(column, 0)
    }

    /// Peak of a stem, after its gain.
    pub fn stem(&self, column: u64, stem: usize) -> f32 {
        if stem + 1 < self.lanes { self.peak(column, stem + 1) } else { 0.0 }
    }

    fn peak(&self, column: u64, lane: usize) -> f32 {
        let head = self.head();
        if column > head || head - column >= self.columns as u64 {
            return 0.0;
        }
        self.cell(column, lane).map_or(0.0, |cell| cell.load(Relaxed))
    }

    fn cell(&self, column: u64, lane: usize) -> Option<&AtomicF32> {
        self.cells.get((column % self.columns as u64) as usize * self.lanes + lane)
    }

    /// Realtime-safe.
    pub(super) fn raise_input(&self, peak: f32) {
        self.raise(0, peak);
    }

    /// Realtime-safe.
    pub(super) fn raise_stem(&self, stem: usize, peak: f32) {
        self.raise(stem + 1, peak);
    }

    fn raise(&self, lane: usize, peak: f32) {
        if let Some(cell) = self.cell(self.head.load(Relaxed), lane) {
            super::status::raise(cell, peak);
        }
    }

    /// `samples` were played. Realtime-safe.
    pub(super) fn advance(&self, samples: usize) {
        let mut filled = self.filled.load(Relaxed) + samples as u32;
        while filled >= self.span {
            filled -= self.span;
            let next = self.head.load(Relaxed) + 1;
            for lane in 0..self.lanes {
                if let Some(cell) = self.cell(next, lane) {
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
    fn peaks_stand_in_the_column_they_were_played_in_until_it_is_needed_again() {
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
