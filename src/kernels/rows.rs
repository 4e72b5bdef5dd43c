//! How x [batch, frames, bands, dim] is cut into sequences along time or bands.

use std::marker::PhantomData;

/// The axis a sequence runs along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// The frames of a band.
    Time,
    /// The bands of a frame.
    Band,
}

/// The shape of x [batch, frames, bands, dim] without `dim`, and how it is cut into sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequences {
    /// Independent chunks.
    pub batch: usize,
    /// STFT frames.
    pub frames: usize,
    /// Bands.
    pub bands: usize,
    /// The axis a sequence runs along.
    pub axis: Axis,
}

impl Sequences {
    /// One chunk; each band is a sequence of frames.
    pub fn time(frames: usize, bands: usize) -> Self {
        Self { batch: 1, frames, bands, axis: Axis::Time }
    }

    /// One chunk; each frame is a sequence of bands.
    pub fn band(frames: usize, bands: usize) -> Self {
        Self { batch: 1, frames, bands, axis: Axis::Band }
    }

    /// Total number of rows of `dim` values.
    pub fn rows(&self) -> usize {
        self.batch.saturating_mul(self.frames).saturating_mul(self.bands)
    }

    /// (number of sequences, length of each).
    pub(super) fn count_and_len(&self) -> (usize, usize) {
        match self.axis {
            Axis::Time => (self.batch.saturating_mul(self.bands), self.frames),
            Axis::Band => (self.batch.saturating_mul(self.frames), self.bands),
        }
    }
}

/// Rows of x in sequence order. Tasks on several threads share it; each task owns some of the rows.
pub(super) struct SequenceRows<'a> {
    base: *mut f32,
    dim: usize,
    sequences: Sequences,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: `SequenceRows` only computes addresses; whoever dereferences them owns the row (see the tasks).
unsafe impl Send for SequenceRows<'_> {}
// SAFETY: as above.
unsafe impl Sync for SequenceRows<'_> {}

impl<'a> SequenceRows<'a> {
    /// `x` must hold `sequences.rows() · dim` values.
    pub fn new(x: &'a mut [f32], dim: usize, sequences: Sequences) -> Self {
        debug_assert_eq!(x.len(), sequences.rows() * dim);
        Self { base: x.as_mut_ptr(), dim, sequences, borrow: PhantomData }
    }

    /// Each band's frames `first..first + frames` as a sequence, where these are rows of [frames, bands].
    pub fn sequences_of_frames(&self, first: usize, frames: usize) -> SequenceRows<'a> {
        let bands = self.sequences.bands;
        debug_assert!(self.sequences.batch == 1 && first + frames <= self.sequences.frames);
        let base = self.base.wrapping_add(first * bands * self.dim);
        SequenceRows { base, dim: self.dim, sequences: Sequences::time(frames, bands), borrow: PhantomData }
    }

    pub fn count(&self) -> usize {
        self.sequences.rows()
    }

    /// The row at `index`, counted sequence by sequence.
    ///
    /// # Safety
    /// `index` must be below [`Self::count`]; the caller must own the row.
    pub unsafe fn ptr(&self, index: usize) -> *mut f32 {
        let Sequences { frames, bands, axis, .. } = self.sequences;
        let row = match axis {
            Axis::Band => index,
            Axis::Time => {
                let (sequence, frame) = (index / frames, index % frames);
                let (chunk, band) = (sequence / bands, sequence % bands);
                (chunk * frames + frame) * bands + band
            }
        };
        // SAFETY: a row below `count` lies within x.
        unsafe { self.base.add(row * self.dim) }
    }
}
