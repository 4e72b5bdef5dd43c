//! Random choices for composing.

use crate::dsp::Random;

impl Random {
    /// From `low` up to `high`.
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// One of `items`, which must not be empty.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[(self.bits() % items.len() as u64) as usize]
    }

    /// Another sequence, independent of how much of it is used.
    pub(super) fn fork(&mut self) -> Self {
        Self::new(self.bits())
    }
}
