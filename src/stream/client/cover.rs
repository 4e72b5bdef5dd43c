//! Which estimate covers a sample that is about to be played, and how one takes over from another.

use super::super::shared::Ready;
use super::CHUNK;

/// Sources of stems: final ones, and the two tails of provisional ones.
pub(super) const SOURCES: usize = 3;
const FINAL: usize = 0;

/// Weights of the sources over a chunk. What is missing to 1 is the dry signal's.
pub(super) struct Weights {
    /// [sources][samples].
    pub(super) of: [[f32; CHUNK]; SOURCES],
    /// Sources with any weight.
    pub(super) used: [bool; SOURCES],
    /// Whether all is final: then `of` is not filled.
    pub(super) whole: bool,
}

/// Follows the stream sample by sample.
///
/// On time, all is final. When a window is late its predecessor's tail goes on without a seam (it is the same estimate), and is faded out
/// before it ends; when the window is there it is faded in at its own place, so alignment cannot be lost.
pub(super) struct Cover {
    weights: [f32; SOURCES],
    /// Position from which each tail ring holds a tail.
    tail_begin: [u64; 2],
    fade: u64,
    step: f32,
    /// Host samples of a hop and of a tail.
    hop: u64,
    tail: u64,
    /// Samples in a row that no final stem was there for.
    late_run: u64,
}

impl Cover {
    pub(super) fn new(fade: u64, hop: u64, tail: u64) -> Self {
        let fade = fade.max(1);
        Self {
            weights: [1.0, 0.0, 0.0],
            tail_begin: [0; 2],
            fade,
            step: 1.0 / fade as f32,
            hop: hop.max(1),
            tail,
            late_run: 0,
        }
    }

    /// Forgets the past: silence came before, nothing is to be faded. Realtime-safe.
    pub(super) fn restart(&mut self) {
        self.weights = [1.0, 0.0, 0.0];
        self.tail_begin = [0; 2];
        self.late_run = 0;
    }

    /// Position that a tail ring's samples begin at. Realtime-safe.
    pub(super) fn tail_begin(&self, parity: usize) -> u64 {
        self.tail_begin.get(parity).copied().unwrap_or(0)
    }

    /// Fills `weights` for `count` samples from `at` on. Before `origin` there is nothing to separate. Returns the windows that are late, newly.
    ///
    /// Realtime-safe.
    pub(super) fn fill(
        &mut self,
        at: u64,
        count: usize,
        origin: u64,
        ready: Ready,
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
        if let Some(begin) = ready.tail.and_then(|parity| self.tail_begin.get_mut(parity)) {
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

    fn advance(&mut self, position: u64, is_final: bool, ready: Ready) {
        let behind = position >= ready.until;
        let tail = ready.tail.filter(|_| behind && position < ready.until + self.tail);
        if !is_final && self.weights[FINAL] > 0.0 {
            // The tail is what the final stems would have been: it takes their place as it is.
            let whole = self.weights[FINAL];
            if let Some(weight) = tail.and_then(|parity| self.weights.get_mut(1 + parity)) {
                *weight = (*weight + whole).min(1.0);
            }
            self.weights[FINAL] = 0.0;
        }
        let target = match tail {
            _ if is_final => Some(FINAL),
            Some(parity) if position + self.fade < ready.until + self.tail => Some(1 + parity),
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
                // A window that came in the meantime may have taken the ring, for later positions.
                tail => {
                    let begin = self.tail_begin(tail - 1);
                    (begin..begin + self.tail).contains(&position)
                }
            };
            if let Some(now) = self.weights.get_mut(source) {
                *now = if held { weight } else { 0.0 };
            }
        }
        // Rounding must not leave a trace of a tail beside the whole.
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
    fn follow(cover: &mut Cover, at: u64, count: usize, ready: Ready) -> (Vec<[f32; 3]>, u64) {
        let (mut all, mut late) = (Vec::new(), 0);
        for from in (0..count).step_by(CHUNK) {
            let n = CHUNK.min(count - from);
            let mut w = weights();
            late += cover.fill(at + from as u64, n, 0, ready, &mut w);
            all.extend((0..n).map(|i| if w.whole { [1.0, 0.0, 0.0] } else { w.of.map(|of| of[i]) }));
        }
        (all, late)
    }

    #[test]
    fn a_late_window_is_covered_by_the_tail_then_by_dry_then_fades_back() {
        let mut cover = Cover::new(10, 100, 50);
        let early = Ready { from: 0, until: 100, tail: Some(1) };
        let (w, late) = follow(&mut cover, 0, 250, early);
        assert!(w[..100].iter().all(|w| *w == [1.0, 0.0, 0.0]));
        assert!(w[100..139].iter().all(|w| *w == [0.0, 0.0, 1.0]));
        assert!(w[140..150].windows(2).all(|w| w[1][2] < w[0][2]));
        assert!(w[150..].iter().all(|w| *w == [0.0; 3]));
        assert_eq!(late, 2);
        let (w, late) = follow(&mut cover, 250, 50, Ready { from: 200, until: 300, tail: Some(0) });
        assert!(w[0][0] > 0.0 && w[0][0] < 0.2 && w[10..].iter().all(|w| *w == [1.0, 0.0, 0.0]));
        assert_eq!(late, 0);
    }

    #[test]
    fn weights_never_jump_but_from_a_window_into_its_own_tail() {
        let mut cover = Cover::new(10, 100, 50);
        // Always late by 20 samples: tail, then final, by turns.
        let mut before = [1.0f32, 0.0, 0.0];
        for hop in 0..20u64 {
            for (from, ready) in [(0, hop.max(1)), (20, hop + 1)] {
                let ready = Ready { from: 0, until: 100 * ready, tail: Some((ready % 2) as usize) };
                let count = if from == 0 { 20 } else { 80 };
                for w in follow(&mut cover, 100 * hop + from, count, ready).0 {
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
    fn what_was_never_written_is_never_used() {
        let mut cover = Cover::new(10, 100, 50);
        follow(&mut cover, 0, 200, Ready { from: 0, until: 0, tail: None });
        let gap = Ready { from: 300, until: 400, tail: Some(0) };
        let (w, _) = follow(&mut cover, 200, 200, gap);
        assert!(w[..100].iter().all(|w| *w == [0.0; 3]));
        assert_eq!(w[199], [1.0, 0.0, 0.0]);
    }
}
