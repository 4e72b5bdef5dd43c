//! Encoder delay and padding of an MP3 file, as its tag states them.

use super::Planar;

/// Drops delay at the start, and padding at the end if the stream is as long as stated.
pub(super) struct GaplessTrim {
    /// Samples of delay still to be dropped.
    delay: u64,
    /// Samples of padding.
    padding: usize,
    /// The last `padding` samples, held back until it is known whether more follow.
    held: Planar,
}

impl GaplessTrim {
    pub(super) fn new(delay: u64, padding: usize) -> Self {
        Self { delay, padding, held: Planar::default() }
    }

    /// Samples that are not music.
    pub(super) fn samples(&self) -> u64 {
        self.delay + self.padding as u64
    }

    /// Drops delay from the start of a block.
    pub(super) fn drop_delay(&mut self, out: &mut Planar) {
        let front = usize::try_from(self.delay).unwrap_or(usize::MAX).min(out.samples());
        out.drop_front(front);
        self.delay -= front as u64;
    }

    /// Holds back what may be padding and returns what was held back before.
    pub(super) fn hold_back(&mut self, out: &mut Planar) {
        if self.padding == 0 {
            return;
        }
        if self.held.channels() != out.channels() {
            self.held.reset(out.channels());
        }
        self.held.append(out);
        let count = self.held.samples().saturating_sub(self.padding);
        out.clear();
        out.append_range(&self.held, 0..count);
        self.held.drop_front(count);
    }

    /// What is held back at the end of the stream.
    pub(super) fn held(&self) -> &Planar {
        &self.held
    }
}
