//! Chooses the estimate that is played for each sample, and crossfades between estimates.

use super::super::shared::Availability;
use super::CHUNK;

/// Sources of stems: final ones, and the two rings of provisional ones.
pub(super) const SOURCES: usize = 3;
const FINAL: usize = 0;

/// Weights of the sources over a chunk. The dry signal has the rest to 1.
pub(super) struct Weights {
    /// [sources][samples].
    pub(super) of: [[f32; CHUNK]; SOURCES],
    /// Sources with a weight above 0.
    pub(super) used: [bool; SOURCES],
    /// Whether all samples are final; `of` is then not filled.
    pub(super) whole: bool,
}

/// Tracks the weights sample by sample.
///
/// While windows are on time, all samples are final. If a window is late, the provisional stems of its predecessor continue seamlessly
/// (they are the same estimate) and fade out before they end. Once the window arrives it fades in at its own position, so alignment is kept.
pub(super) struct DropoutConcealer {
    weights: [f32; SOURCES],
    /// First position in each ring of provisional stems.
    provisional_begin: [u64; 2],
    fade: u64,
    step: f32,
    /// Host samples of a hop, and of the provisional stems of a window.
    hop: u64,
    provisional: u64,
    /// Consecutive samples without final stems.
    late_run: u64,
}

impl DropoutConcealer {
    pub(super) fn new(fade: u64, hop: u64, provisional: u64) -> Self {
        let fade = fade.max(1);
        Self {
            weights: [1.0, 0.0, 0.0],
            provisional_begin: [0; 2],
            fade,
            step: 1.0 / fade as f32,
            hop: hop.max(1),
            provisional,
            late_run: 0,
        }
    }

    /// Restarts after silence: nothing is to be faded. Realtime-safe.
    pub(super) fn restart(&mut self) {
        self.weights = [1.0, 0.0, 0.0];
        self.provisional_begin = [0; 2];
        self.late_run = 0;
    }

    /// First position in a ring of provisional stems. Realtime-safe.
    pub(super) fn provisional_begin(&self, parity: usize) -> u64 {
        self.provisional_begin.get(parity).copied().unwrap_or(0)
    }

    /// Fills `weights` for `count` samples from `at` on. All weights are 0 before `origin`. Returns the number of newly late windows.
    ///
    /// Realtime-safe.
    pub(super) fn fill(
        &mut self,
        at: u64,
        count: usize,
        origin: u64,
        ready: Availability,
        weights: &mut Weights,
    ) -> u64 {
        weights.used = [false; SOURCES];
        weights.whole = false;
        let end = at + count as u64;
        if at >= ready.from && end <= ready.until && at >= origin && self.weights == [1.0, 0.0, 0.0] {
            weights.whole = true;
            weights.used[FINAL] = true;
            self.late_run = 0;
            return 0;
        }
        if let Some(begin) = ready.provisional.and_then(|parity| self.provisional_begin.get_mut(parity)) {
            *begin = ready.until;
        }
        let mut late = 0;
        for (i, position) in (at..end).take(CHUNK).enumerate() {
            if position < origin {
                for of in &mut weights.of {
                    of[i] = 0.0;
                }
                continue;
            }
            let is_final = position >= ready.from && position < ready.until;
            if is_final {
                self.late_run = 0;
            } else if position >= ready.until {
                late += u64::from(self.late_run.is_multiple_of(self.hop));
                self.late_run += 1;
            }
            self.advance(position, is_final, ready);
            for ((of, used), weight) in weights.of.iter_mut().zip(&mut weights.used).zip(self.weights) {
                of[i] = weight;
                *used |= weight != 0.0;
            }
        }
        late
    }

    fn advance(&mut self, position: u64, is_final: bool, ready: Availability) {
        let behind = position >= ready.until;
        let provisional = ready.provisional.filter(|_| behind && position < ready.until + self.provisional);
        if !is_final && self.weights[FINAL] > 0.0 {
            // Provisional stems continue the same estimate, so they take over the full weight at once.
            let whole = self.weights[FINAL];
            if let Some(weight) = provisional.and_then(|parity| self.weights.get_mut(1 + parity)) {
                *weight = (*weight + whole).min(1.0);
            }
            self.weights[FINAL] = 0.0;
        }
        let target = match provisional {
            _ if is_final => Some(FINAL),
            Some(parity) if position + self.fade < ready.until + self.provisional => Some(1 + parity),
            _ => None,
        };
        for source in 0..SOURCES {
            let Some(weight) = self.weights.get(source).copied() else { continue };
            let weight = if Some(source) == target {
                (weight + self.step).min(1.0)
            } else {
                (weight - self.step).max(0.0)
            };
            let held = match source {
                FINAL => is_final,
                // A newer window may have overwritten the ring, for later positions.
                provisional => {
                    let begin = self.provisional_begin(provisional - 1);
                    (begin..begin + self.provisional).contains(&position)
                }
            };
            if let Some(now) = self.weights.get_mut(source) {
                *now = if held { weight } else { 0.0 };
            }
        }
        // Rounding must not leave a remainder of provisional weight beside the final stems.
        if target == Some(FINAL) && self.weights[FINAL] == 1.0 {
            self.weights = [1.0, 0.0, 0.0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Weights {
        Weights { of: [[0.0; CHUNK]; SOURCES], used: [false; SOURCES], whole: false }
    }

    /// Weight of final, tails and dry at each of `count` samples from `at` on.
    fn follow(
        concealer: &mut DropoutConcealer,
        at: u64,
        count: usize,
        ready: Availability,
    ) -> (Vec<[f32; 3]>, u64) {
        let (mut all, mut late) = (Vec::new(), 0);
        for from in (0..count).step_by(CHUNK) {
            let n = CHUNK.min(count - from);
            let mut w = weights();
            late += concealer.fill(at + from as u64, n, 0, ready, &mut w);
            all.extend((0..n).map(|i| if w.whole { [1.0, 0.0, 0.0] } else { w.of.map(|of| of[i]) }));
        }
        (all, late)
    }

    #[test]
    fn a_late_window_is_concealed_by_provisional_stems_then_by_dry_then_fades_back() {
        let mut concealer = DropoutConcealer::new(10, 100, 50);
        let early = Availability { from: 0, until: 100, provisional: Some(1) };
        let (w, late) = follow(&mut concealer, 0, 250, early);
        assert!(w[..100].iter().all(|w| *w == [1.0, 0.0, 0.0]));
        assert!(w[100..139].iter().all(|w| *w == [0.0, 0.0, 1.0]));
        assert!(w[140..150].windows(2).all(|w| w[1][2] < w[0][2]));
        assert!(w[150..].iter().all(|w| *w == [0.0; 3]));
        assert_eq!(late, 2);
        let (w, late) =
            follow(&mut concealer, 250, 50, Availability { from: 200, until: 300, provisional: Some(0) });
        assert!(w[0][0] > 0.0 && w[0][0] < 0.2 && w[10..].iter().all(|w| *w == [1.0, 0.0, 0.0]));
        assert_eq!(late, 0);
    }

    #[test]
    fn weights_only_jump_from_a_window_to_its_own_provisional_stems() {
        let mut concealer = DropoutConcealer::new(10, 100, 50);
        // Always late by 20 samples: provisional and final stems alternate.
        let mut before = [1.0f32, 0.0, 0.0];
        for hop in 0..20u64 {
            for (from, ready) in [(0, hop.max(1)), (20, hop + 1)] {
                let ready =
                    Availability { from: 0, until: 100 * ready, provisional: Some((ready % 2) as usize) };
                let count = if from == 0 { 20 } else { 80 };
                for w in follow(&mut concealer, 100 * hop + from, count, ready).0 {
                    let sum: f32 = w.iter().sum();
                    assert!(sum < 1.0 + 1e-6);
                    let moved: f32 = sum - before.iter().sum::<f32>();
                    assert!(moved.abs() < 0.1001, "hop {hop}: {before:?} {w:?}");
                    before = w;
                }
            }
        }
    }

    #[test]
    fn unwritten_samples_are_never_used() {
        let mut concealer = DropoutConcealer::new(10, 100, 50);
        follow(&mut concealer, 0, 200, Availability { from: 0, until: 0, provisional: None });
        let gap = Availability { from: 300, until: 400, provisional: Some(0) };
        let (w, _) = follow(&mut concealer, 200, 200, gap);
        assert!(w[..100].iter().all(|w| *w == [0.0; 3]));
        assert_eq!(w[199], [1.0, 0.0, 0.0]);
    }
}
