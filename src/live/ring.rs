//! Samples shared by two threads, addressed by their absolute position in the stream.
//!
//! The cells are atomic and no element is popped, so reader and writer cannot lose alignment. Sample p is in cell p mod capacity until
//! sample p + capacity is written. Cursors outside the ring say which positions are valid. Relaxed loads and stores compile to plain ones
//! on all common processors.
//!
//! A channel gets its memory when the worker first needs it: a stream has room for as many stems as the mixer has strips, and a model uses few
//! of them. A channel without memory reads as silence.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Ring channels (audio channels, or stems × channels) of equal capacity.
pub(crate) struct Ring {
    /// [channels][capacity], bits of `f32`.
    channels: Box<[OnceLock<Box<[AtomicU32]>>]>,
    capacity: usize,
}

impl Ring {
    /// Room for at least `samples` positions in each of `channels` ring channels, none of which has memory yet.
    pub(crate) fn new(channels: usize, samples: usize) -> Self {
        let capacity = samples.max(1).next_power_of_two();
        Self { channels: (0..channels).map(|_| OnceLock::new()).collect(), capacity }
    }

    /// Positions in each ring channel.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Gives a channel its memory, all zeros.
    pub(crate) fn allocate(&self, channel: usize) {
        if let Some(cells) = self.channels.get(channel) {
            cells.get_or_init(|| (0..self.capacity).map(|_| AtomicU32::new(0)).collect());
        }
    }

    /// Whether a channel has memory.
    pub(crate) fn is_allocated(&self, channel: usize) -> bool {
        self.channels.get(channel).is_some_and(|cells| cells.get().is_some())
    }

    /// Cells of `channel` for `len` positions from `at` on: the part before the wrap, and the part after it.
    fn cells(&self, channel: usize, at: u64, len: usize) -> (&[AtomicU32], &[AtomicU32]) {
        let cells: &[AtomicU32] =
            self.channels.get(channel).and_then(OnceLock::get).map_or(&[], |cells| cells);
        let from = (at & (self.capacity as u64 - 1)) as usize;
        let head = len.min(self.capacity - from);
        let tail = (len - head).min(self.capacity);
        (cells.get(from..from + head).unwrap_or(&[]), cells.get(..tail).unwrap_or(&[]))
    }

    /// Stores samples from position `at` on.
    ///
    /// Realtime-safe: stores only.
    pub(crate) fn write(&self, channel: usize, at: u64, samples: &[f32]) {
        let (head, tail) = self.cells(channel, at, samples.len());
        for (cell, sample) in head.iter().chain(tail).zip(samples) {
            cell.store(sample.to_bits(), Relaxed);
        }
    }

    /// Loads samples from position `at` on; silence if the channel has no memory.
    ///
    /// Realtime-safe: loads only.
    pub(crate) fn read(&self, channel: usize, at: u64, out: &mut [f32]) {
        let (head, tail) = self.cells(channel, at, out.len());
        if head.is_empty() {
            out.fill(0.0);
            return;
        }
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
        ring.allocate(1);
        assert_eq!(ring.capacity(), 16);
        let samples: Vec<f32> = (0..12).map(|i| i as f32).collect();
        ring.write(1, 1_000_009, &samples);
        let mut out = [9.0; 5];
        ring.read(1, 1_000_012, &mut out);
        assert_eq!(out, [3.0, 4.0, 5.0, 6.0, 7.0]);
        ring.read(0, 1_000_012, &mut out);
        assert_eq!(out, [0.0; 5], "a channel without memory is silent");
    }

    #[test]
    fn invalid_channels_and_lengths_do_not_panic() {
        let ring = Ring::new(1, 4);
        ring.allocate(0);
        ring.allocate(7);
        ring.write(7, 3, &[1.0]);
        ring.write(0, 3, &[1.0; 9]);
        ring.read(7, u64::MAX, &mut [0.0; 9]);
        ring.read(0, u64::MAX, &mut [0.0; 9]);
    }
}
