//! Stems from elsewhere that replace those of the model: prepared stems.
//!
//! Realtime-safe throughout: loads from rings, computes, and never waits.

use std::sync::Arc;

use super::CHUNK;

/// Stems by the position of their input, in a count of its own. Another thread decides, position by position, which of them are used; it does so in
/// the time between the input and its output.
pub trait StemOverlay: Send + Sync {
    /// End of the positions that are decided.
    fn decided(&self) -> u64;

    /// How much of each stem is replaced at the positions from `at` on: 0 none, 1 all.
    fn read_weights(&self, at: u64, out: &mut [f32]);

    /// Samples of a channel of a stem from position `at` on.
    fn read_stem(&self, stem: usize, channel: usize, at: u64, out: &mut [f32]);
}

/// The overlay of a client.
pub(super) struct Overlay {
    source: Option<Arc<dyn StemOverlay>>,
    /// What to add to a position of the stream, modulo 2⁶⁴, for that of the overlay.
    offset: u64,
    /// Samples of a fade.
    fade: u64,
    /// Falls before the end of what is decided, so that late stems end without a click.
    level: f32,
    /// Position of the chunk, in the overlay's count.
    at: u64,
    weights: [f32; CHUNK],
    stem: [f32; CHUNK],
    is_used: bool,
    /// Whether nothing of the model is heard in this chunk.
    covers_all: bool,
}

impl Overlay {
    pub(super) fn new(fade: u64) -> Box<Self> {
        Box::new(Self {
            source: None,
            offset: 0,
            fade: fade.max(1),
            level: 0.0,
            at: 0,
            weights: [0.0; CHUNK],
            stem: [0.0; CHUNK],
            is_used: false,
            covers_all: false,
        })
    }

    pub(super) fn set_source(&mut self, source: Option<Arc<dyn StemOverlay>>) {
        self.source = source;
    }

    pub(super) fn set_offset(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Whether the model's stems are not heard at all in the chunk that was begun.
    pub(super) fn covers_all(&self) -> bool {
        self.covers_all
    }

    /// Prepares the weights of `n` samples from `position` on.
    pub(super) fn begin(&mut self, position: u64, n: usize) {
        (self.is_used, self.covers_all) = (false, false);
        let Some(source) = &self.source else { return };
        let at = position.wrapping_add(self.offset);
        // Before the overlay's first position.
        let is_before = at > u64::MAX / 2;
        let decided = if is_before { 0 } else { source.decided().saturating_sub(at) };
        let Some(weights) = self.weights.get_mut(..n) else { return };
        if decided == 0 {
            self.level = 0.0;
            return;
        }
        source.read_weights(at, weights);
        let step = 1.0 / self.fade as f32;
        let mut least = 1f32;
        for (i, weight) in weights.iter_mut().enumerate() {
            let left = decided.saturating_sub(i as u64);
            if left == 0 {
                *weight = 0.0;
            }
            self.level = match () {
                () if left <= self.fade => self.level.min(left as f32 * step),
                // Nothing is heard of it, so there is nothing to fade.
                () if *weight == 0.0 => 1.0,
                () => (self.level + step).min(1.0),
            };
            *weight = weight.min(self.level);
            self.is_used |= *weight > 0.0;
            least = least.min(*weight);
        }
        self.covers_all = least >= 1.0;
        self.at = at;
    }

    /// Mixes the overlay's channel of a stem into `stem`, the model's.
    pub(super) fn mix(&mut self, stem: usize, channel: usize, model: &mut [f32]) {
        let Some(source) = self.source.as_ref().filter(|_| self.is_used) else { return };
        let Some(prepared) = self.stem.get_mut(..model.len()) else { return };
        source.read_stem(stem, channel, self.at, prepared);
        for ((x, y), weight) in model.iter_mut().zip(prepared).zip(&self.weights) {
            if *weight >= 1.0 {
                *x = *y;
            } else if *weight > 0.0 {
                *x += weight * (*y - *x);
            }
        }
    }

    /// The share of the input that stems claim at sample `i`, of which the model's have `share`.
    pub(super) fn total_share(&self, i: usize, share: f32) -> f32 {
        match self.weights.get(i).filter(|_| self.is_used) {
            Some(weight) if *weight >= 1.0 => 1.0,
            Some(weight) => share + weight * (1.0 - share),
            None => share,
        }
    }
}
