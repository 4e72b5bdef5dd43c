//! Chooses the estimate that is played for each sample, and crossfades between estimates.
//!
//! While hops are on time all samples are final. When one is late, the provisional stems of the hop before it continue seamlessly, since they
//! are the same estimate, and fade out before they end. Final stems that arrive meanwhile fade in at their own position, so alignment is kept.
//! Two provisional estimates may have a weight at once: one that is played and one that fades out. A third would need a step, so final
//! stems wait until the older one has faded out.

use super::super::shared::{Availability, PROVISIONAL_SLOTS, SlotMask};
use super::CHUNK;

/// Sources of stems: the final ones, and the slots of provisional ones.
pub(super) const SOURCES: usize = 1 + PROVISIONAL_SLOTS;
const FINAL: usize = 0;

/// Weights of the sources over a chunk. The dry signal has the rest to 1.
pub(super) struct Weights {
    /// [sources][samples].
    pub(super) of: [[f32; CHUNK]; SOURCES],
    /// Sources with a weight above 0. The weights of the others are not filled.
    pub(super) used: [bool; SOURCES],
    /// Whether all samples are final; `of` is then not filled.
    pub(super) all_final: bool,
    /// Sum of the weights of a sample.
    pub(super) sum: [f32; CHUNK],
}

impl Weights {
    pub(super) fn new() -> Self {
        Self { of: [[0.0; CHUNK]; SOURCES], used: [false; SOURCES], all_final: false, sum: [0.0; CHUNK] }
    }

    fn set(&mut self, source: usize, index: usize, weight: f32) {
        let (Some(used), Some(of)) = (self.used.get_mut(source), self.of.get_mut(source)) else { return };
        if !*used {
            if weight == 0.0 {
                return;
            }
            *used = true;
            of.fill(0.0);
        }
        if let (Some(cell), Some(sum)) = (of.get_mut(index), self.sum.get_mut(index)) {
            *cell = weight;
            *sum += weight;
        }
    }
}

/// Provisional stems of one hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Provisional {
    pub(super) slot: usize,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// A provisional source with its weight.
#[derive(Clone, Copy, Debug, Default)]
struct Weighted {
    source: Option<Provisional>,
    weight: f32,
}

impl Weighted {
    fn step(&mut self, by: f32) {
        self.weight = (self.weight + by).clamp(0.0, 1.0);
        if self.weight == 0.0 && by < 0.0 {
            self.source = None;
        }
    }
}

/// Tracks the weights sample by sample.
pub(super) struct DropoutConcealer {
    final_weight: f32,
    /// The provisional stems that are played, or were played last.
    playing: Weighted,
    /// Those before, which fade out.
    fading: Weighted,
    fade: u64,
    step: f32,
    /// Host samples of a hop.
    hop: u64,
    /// Consecutive samples without final stems.
    late_run: u64,
}

impl DropoutConcealer {
    pub(super) fn new(fade: u64, hop: u64) -> Self {
        let fade = fade.max(1);
        Self {
            final_weight: 1.0,
            playing: Weighted::default(),
            fading: Weighted::default(),
            fade,
            step: 1.0 / fade as f32,
            hop: hop.max(1),
            late_run: 0,
        }
    }

    /// Restarts after silence: nothing is to be faded. Realtime-safe.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.fade, self.hop);
    }

    /// Slots that the next chunk may read. Realtime-safe.
    pub(super) fn slots(&self) -> SlotMask {
        let bit = |weighted: &Weighted| weighted.source.map_or(0, |source| 1 << source.slot);
        bit(&self.playing) | bit(&self.fading)
    }

    /// Fills `weights` for `count` samples from `at` on. All weights are 0 before `origin`. `next` are the provisional stems that follow
    /// `available.until`. Returns the number of newly late hops.
    ///
    /// Realtime-safe.
    pub(super) fn fill(
        &mut self,
        at: u64,
        count: usize,
        origin: u64,
        (available, next): (Availability, Option<Provisional>),
        weights: &mut Weights,
    ) -> u64 {
        weights.used = [false; SOURCES];
        weights.all_final = false;
        let end = at + count as u64;
        let settled =
            self.final_weight == 1.0 && self.playing.source.is_none() && self.fading.source.is_none();
        if at >= available.from && end <= available.until && at >= origin && settled {
            weights.all_final = true;
            self.late_run = 0;
            return 0;
        }
        weights.sum.fill(0.0);
        let mut late = 0;
        for (i, position) in (at..end).take(CHUNK).enumerate() {
            if position < origin {
                continue;
            }
            let is_final = position >= available.from && position < available.until;
            if is_final {
                self.late_run = 0;
            } else if position >= available.until {
                late += u64::from(self.late_run.is_multiple_of(self.hop));
                self.late_run += 1;
            }
            self.advance(position, is_final, next);
            weights.set(FINAL, i, self.final_weight);
            for Weighted { source, weight } in [self.playing, self.fading] {
                if let Some(source) = source {
                    weights.set(1 + source.slot, i, weight);
                }
            }
        }
        late
    }

    /// Moves the weights to those of the sample at `position`.
    fn advance(&mut self, position: u64, is_final: bool, next: Option<Provisional>) {
        if !is_final && self.final_weight > 0.0 {
            self.continue_with(next.filter(|next| (next.begin..next.end).contains(&position)));
        }
        // A switch back to final stems is optional as long as provisional ones last. It waits for the fade before it.
        let switching = is_final && (self.final_weight > 0.0 || self.fading.source.is_none());
        let lasts = |source: Provisional| position + self.fade < source.end;
        let keep_playing = !switching && self.playing.source.is_some_and(lasts);
        self.playing.step(if keep_playing { self.step } else { -self.step });
        self.fading.step(-self.step);
        if switching {
            self.final_weight = (self.final_weight + self.step).min(1.0);
            // Rounding must not leave a remainder of provisional weight beside the final stems.
            if self.final_weight == 1.0 {
                (self.playing, self.fading) = (Weighted::default(), Weighted::default());
            }
        }
    }

    /// Final stems end here: the provisional stems that follow them take over their weight, since they continue the same estimate.
    fn continue_with(&mut self, next: Option<Provisional>) {
        let weight = std::mem::take(&mut self.final_weight);
        if next.is_some() {
            if self.playing.source.is_some() {
                self.fading = self.playing;
            }
            self.playing = Weighted { source: next, weight };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_provisional(
        from: u64,
        until: u64,
        slot: usize,
        length: u64,
    ) -> (Availability, Option<Provisional>) {
        let next = Provisional { slot, begin: until, end: until + length };
        (Availability { from, until, slot: Some(slot) }, Some(next))
    }

    /// Weights of all sources at each of `count` samples from `at` on.
    fn follow(
        concealer: &mut DropoutConcealer,
        at: u64,
        count: usize,
        available: (Availability, Option<Provisional>),
    ) -> (Vec<[f32; SOURCES]>, u64) {
        let (mut all, mut late) = (Vec::new(), 0);
        let mut w = Weights::new();
        for from in (0..count).step_by(CHUNK) {
            let n = CHUNK.min(count - from);
            late += concealer.fill(at + from as u64, n, 0, available, &mut w);
            all.extend((0..n).map(|i| {
                let mut of = [0.0; SOURCES];
                of[FINAL] = f32::from(u8::from(w.all_final));
                if !w.all_final {
                    (0..SOURCES).filter(|s| w.used[*s]).for_each(|s| of[s] = w.of[s][i]);
                    assert_eq!(of.iter().sum::<f32>(), w.sum[i]);
                }
                of
            }));
        }
        (all, late)
    }

    const ALL_FINAL: [f32; SOURCES] = {
        let mut weights = [0.0; SOURCES];
        weights[FINAL] = 1.0;
        weights
    };

    #[test]
    fn a_late_hop_is_concealed_by_provisional_stems_then_by_dry_then_fades_back() {
        let mut concealer = DropoutConcealer::new(10, 100);
        let (w, late) = follow(&mut concealer, 0, 250, with_provisional(0, 100, 1, 50));
        assert!(w[..100].iter().all(|w| *w == ALL_FINAL));
        assert!(w[100..139].iter().all(|w| w[2] == 1.0));
        assert!(w[140..150].windows(2).all(|w| w[1][2] < w[0][2]));
        assert!(w[150..].iter().all(|w| *w == [0.0; SOURCES]));
        assert_eq!(late, 2);
        let (w, late) = follow(&mut concealer, 250, 50, with_provisional(200, 300, 0, 50));
        assert!(w[0][0] > 0.0 && w[0][0] < 0.2 && w[10..].iter().all(|w| *w == ALL_FINAL));
        assert_eq!(late, 0);
    }

    #[test]
    fn unwritten_samples_are_never_used() {
        let mut concealer = DropoutConcealer::new(10, 100);
        follow(&mut concealer, 0, 200, (Availability::default(), None));
        let (w, _) = follow(&mut concealer, 200, 200, with_provisional(300, 400, 0, 50));
        assert!(w[..100].iter().all(|w| *w == [0.0; SOURCES]));
        assert_eq!(w[199], ALL_FINAL);
    }
}
