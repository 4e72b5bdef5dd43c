//! Overlap-add of frames that come a few at a time.

use rayon::prelude::*;

/// Sums of windowed frames that later frames still reach: of each line (stem and channel), and of the squared windows.
pub(super) struct OverlapSums {
    /// Samples of a line: what one frame reaches.
    reach: usize,
    /// [lines, reach]
    sums: Vec<f32>,
    /// [reach]
    envelope: Vec<f32>,
}

impl OverlapSums {
    pub fn new(lines: usize, reach: usize) -> Self {
        Self { reach, sums: vec![0.0; lines * reach], envelope: vec![0.0; reach] }
    }

    /// Begins a stream.
    pub fn reset(&mut self) {
        self.sums.fill(0.0);
        self.envelope.fill(0.0);
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.sums.len() / self.reach
    }

    pub fn bytes(&self) -> usize {
        (self.sums.len() + self.envelope.len()) * size_of::<f32>()
    }

    /// The lines, each for a task of its own, and the envelope.
    pub fn lines(&mut self) -> (impl IndexedParallelIterator<Item = OverlapLine<'_>>, OverlapLine<'_>) {
        let lines = self.sums.par_chunks_exact_mut(self.reach).map(OverlapLine);
        (lines, OverlapLine(&mut self.envelope))
    }
}

/// Sums of one line, from the first sample on that is not final.
pub(super) struct OverlapLine<'a>(&'a mut [f32]);

impl OverlapLine<'_> {
    /// Adds `frame` · `window` without the first `skip` samples, which lie before the line's first.
    pub fn add(&mut self, frame: &[f32], window: &[f32], skip: usize) {
        add_windowed(self.0, frame, window, skip);
    }

    /// The first `count` samples go to `out`, and the line begins after them. Zeros follow what is there.
    pub fn emit(&mut self, out: &mut [f32]) {
        let (have, count) = (self.0.len().min(out.len()), out.len());
        out[..have].copy_from_slice(&self.0[..have]);
        out[have..].fill(0.0);
        self.0.copy_within(have.., 0);
        let left = self.0.len() - count.min(self.0.len());
        self.0[left..].fill(0.0);
    }

    /// What is there, for provisional sums on top of it.
    pub fn peek(&self, out: &mut [f32]) {
        let have = self.0.len().min(out.len());
        out[..have].copy_from_slice(&self.0[..have]);
        out[have..].fill(0.0);
    }
}

/// sums += frame · window, without the first `skip` samples, as far as `sums` reaches.
pub(super) fn add_windowed(sums: &mut [f32], frame: &[f32], window: &[f32], skip: usize) {
    // Slices, whose loop is vectors; that of a skipping iterator is not.
    let (frame, window) = (frame.get(skip..).unwrap_or_default(), window.get(skip..).unwrap_or_default());
    for (sum, (y, w)) in sums.iter_mut().zip(frame.iter().zip(window)) {
        *sum += y * w;
    }
}
