//! Samples shared by two threads, addressed by their absolute position in the stream.
//!
//! The cells are atomic and no element is popped, so reader and writer cannot lose alignment. Sample p is in cell p mod capacity until
//! sample p + capacity is written. Cursors outside the ring say which positions are valid. Relaxed loads and stores compile to plain ones
//! on all common processors.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Ring channels (audio channels, or stems × channels) of equal capacity.
pub(super) struct Ring {
    /// [channels, capacity], bits of `f32`.
    cells: Box<[AtomicU32]>,
    capacity: usize,
}

impl Ring {
    /// Room for at least `samples` positions in each of `channels` ring channels.
    pub(super) fn new(channels: usize, samples: usize) -> Self {
        let capacity = samples.max(1).next_power_of_two();
        Self { cells: (0..channels * capacity).map(|_| AtomicU32::new(0)).collect(), capacity }
    }

    /// Positions in each ring channel.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Cells of `channel` for `len` positions from `at` on: the part before the wrap, and the part after it.
    fn cells(&self, channel: usize, at: u64, len: usize) -> (&[AtomicU32], &[AtomicU32]) {
        let cells = self.cells.get(channel * self.capacity..(channel + 1) * self.capacity).unwrap_or(&[]);
        let from = (at & (self.capacity as u64 - 1)) as usize;
        let head = len.min(self.capacity - from);
        let tail = (len - head).min(self.capacity);
        (cells.get(from..from + head).unwrap_or(&[]), cells.get(..tail).unwrap_or(&[]))
    }

    /// Stores samples from position `at` on.
    ///
    /// Realtime-safe: stores only.
    pub(super) fn write(&self, channel: usize, at: u64, samples: &[f32]) {
        let (head, tail) = self.cells(channel, at, samples.len());
        for (cell, sample) in head.iter().chain(tail).zip(samples) {
            cell.store(sample.to_bits(), Relaxed);
        }
    }

    /// Loads samples from position `at` on.
    ///
    /// Realtime-safe: loads only.
    pub(super) fn read(&self, channel: usize, at: u64, out: &mut [f32]) {
        let (head, tail) = self.cells(channel, at, out.len());
        let (out_head, out_tail) = out.split_at_mut(head.len().min(out.len()));
        for (x, cell) in out_head.iter_mut().zip(head) {
            *x = f32::from_bits(cell.load(Relaxed));
        }
        for (x, cell) in out_tail.iter_mut().zip(tail) {
            *x = f32::from_bits(cell.load(Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_back_across_the_wrap() {
        let ring = Ring::new(2, 10);
        assert_eq!(ring.capacity(), 16);
        let samples: Vec<f32> = (0..12).map(|i| i as f32).collect();
        ring.write(1, 1_000_009, &samples);
        let mut out = [0.0; 5];
        ring.read(1, 1_000_012, &mut out);
        assert_eq!(out, [3.0, 4.0, 5.0, 6.0, 7.0]);
        ring.read(0, 1_000_012, &mut out);
        assert_eq!(out, [0.0; 5]);
    }

    #[test]
    fn invalid_channels_and_lengths_do_not_panic() {
        let ring = Ring::new(1, 4);
        ring.write(7, 3, &[1.0]);
        ring.write(0, 3, &[1.0; 9]);
        ring.read(7, u64::MAX, &mut [0.0; 9]);
        ring.read(0, u64::MAX, &mut [0.0; 9]);
    }
}
