//! Whether what arrives is what was prepared: bit for bit, or up to one gain and a residual far below it.

use std::collections::VecDeque;

/// The residual may have this share of the input's energy: −60 dB.
const MAX_RESIDUAL: f64 = 1e-6;
/// Seconds for which one gain must hold.
const GAIN_SECONDS: f64 = 0.5;

/// Compares pieces of the input with the prepared audio.
#[derive(Debug)]
pub struct Matcher {
    /// Samples for which one gain must hold.
    least: usize,
    /// Sums over the last pieces, at least `least` samples together.
    pieces: VecDeque<Sums>,
    /// The gain of the last piece, if it matched up to a gain.
    held: Option<f64>,
}

/// Energies of a piece.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    samples: usize,
    /// Input · input, input · reference, reference · reference.
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Matcher {
    /// For audio at `rate` Hz.
    pub fn new(rate: u32) -> Self {
        Self {
            least: ((GAIN_SECONDS * f64::from(rate)).ceil() as usize).max(1),
            pieces: VecDeque::new(),
            held: None,
        }
    }

    /// Compares a piece of the input with the prepared audio at the same place, both `[channels][samples]`. Returns the factor by which the prepared
    /// stems are to be multiplied: exactly 1 where every sample is equal; none if this is something else.
    pub fn compare(&mut self, input: &[&[f32]], reference: &[&[f32]]) -> Option<f32> {
        if is_equal(input, reference) {
            let energy = reference.iter().flat_map(|plane| plane.iter()).map(|y| f64::from(*y).powi(2)).sum();
            self.push(Sums { samples: samples(input), xx: energy, xy: energy, yy: energy });
            return Some(1.0);
        }
        let mut sums = Sums { samples: samples(input), ..Sums::default() };
        for (x, y) in pairs(input, reference) {
            sums.xx += x * x;
            sums.xy += x * y;
            sums.yy += y * y;
        }
        // Values that are not finite match nothing.
        if !(sums.xx + sums.yy).is_finite() {
            self.restart();
            return None;
        }
        self.push(sums);
        let gain = self.find_gain(input, reference);
        self.held = gain;
        gain.map(|gain| gain as f32)
    }

    /// Forgets what was heard before.
    pub fn restart(&mut self) {
        self.pieces.clear();
        self.held = None;
    }

    fn push(&mut self, sums: Sums) {
        self.pieces.push_back(sums);
        let mut total: usize = self.pieces.iter().map(|piece| piece.samples).sum();
        while let Some(first) = self.pieces.front()
            && total - first.samples >= self.least
        {
            total -= first.samples;
            self.pieces.pop_front();
        }
    }

    /// The gain that holds for all pieces in memory: that of the piece before if it still does, else the best one.
    fn find_gain(&self, input: &[&[f32]], reference: &[&[f32]]) -> Option<f64> {
        let mut all = Sums::default();
        for piece in &self.pieces {
            all.samples += piece.samples;
            all.xx += piece.xx;
            all.xy += piece.xy;
            all.yy += piece.yy;
        }
        if all.samples < self.least || all.yy == 0.0 || all.xy == 0.0 {
            return None;
        }
        // The level is that of the whole time: in a rest, dither may be louder than the music.
        let allowed = MAX_RESIDUAL * all.xx * samples(input) as f64 / all.samples as f64;
        let holds = |gain: f64| {
            let before = all.xx - 2.0 * gain * all.xy + gain * gain * all.yy;
            let now: f64 = pairs(input, reference).map(|(x, y)| (x - gain * y).powi(2)).sum();
            before <= MAX_RESIDUAL * all.xx && now <= allowed
        };
        self.held.filter(|gain| holds(*gain)).or_else(|| Some(all.xy / all.yy).filter(|gain| holds(*gain)))
    }
}

/// Whether all samples are equal. 0 and −0 are.
pub fn is_equal(input: &[&[f32]], reference: &[&[f32]]) -> bool {
    input.len() == reference.len() && input.iter().zip(reference).all(|(x, y)| x == y)
}

fn samples(planes: &[&[f32]]) -> usize {
    planes.first().map_or(0, |plane| plane.len())
}

fn pairs<'a>(input: &'a [&[f32]], reference: &'a [&[f32]]) -> impl Iterator<Item = (f64, f64)> + 'a {
    input
        .iter()
        .zip(reference)
        .flat_map(|(x, y)| x.iter().zip(*y))
        .map(|(x, y)| (f64::from(*x), f64::from(*y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: u32 = 8_000;
    const PIECE: usize = 64;

    /// Deterministic noise between −0.5 and 0.5.
    fn noise(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 16_777_216.0 - 0.5
        };
        (0..count).map(|_| (next() * 32_768.0).round() / 32_768.0).collect()
    }

    /// The results for all pieces of a signal.
    fn run(matcher: &mut Matcher, input: &[f32], reference: &[f32]) -> Vec<Option<f32>> {
        let pieces = input.chunks(PIECE).zip(reference.chunks(PIECE));
        pieces.map(|(x, y)| matcher.compare(&[x], &[y])).collect()
    }

    #[test]
    fn equal_audio_matches_at_once_and_other_audio_never() {
        let song = noise(1, 16_000);
        let mut matcher = Matcher::new(RATE);
        assert!(run(&mut matcher, &song, &song).iter().all(|gain| *gain == Some(1.0)));
        let other = noise(2, 16_000);
        assert!(run(&mut matcher, &other, &song).iter().all(Option::is_none), "from the first piece on");
        let moved: Vec<f32> = song.iter().skip(1).copied().chain([0.0]).collect();
        assert!(run(&mut matcher, &moved, &song).iter().all(Option::is_none));
        assert!(
            run(&mut matcher, &vec![0.0; 16_000], &song).iter().all(Option::is_none),
            "silence is not the song"
        );
        assert!(run(&mut matcher, &song, &vec![0.0; 16_000]).iter().all(Option::is_none));
        let silence = vec![0.0; 1_000];
        assert!(run(&mut matcher, &silence, &silence).iter().all(|gain| *gain == Some(1.0)));
        assert!(run(&mut matcher, &vec![f32::NAN; 100], &song[..100]).iter().all(Option::is_none));
    }

    #[test]
    fn one_step_of_16_bits_matches_without_a_gap() {
        let song = noise(1, 16_000);
        let changed: Vec<f32> =
            song.iter().enumerate().map(|(i, x)| if i % 3 == 0 { x + 1.0 / 32_768.0 } else { *x }).collect();
        let mut matcher = Matcher::new(RATE);
        assert!(run(&mut matcher, &song, &song).iter().all(Option::is_some));
        let results = run(&mut matcher, &changed, &song);
        assert!(results.iter().all(|gain| gain.is_some_and(|gain| (gain - 1.0).abs() < 1e-3)), "{results:?}");
    }

    #[test]
    fn a_gain_matches_after_half_a_second() {
        let song = noise(1, 16_000);
        for decibels in [3.0f32, -3.0, -40.0, 20.0] {
            let gain = 10f32.powf(decibels / 20.0);
            let louder: Vec<f32> = song.iter().map(|x| x * gain).collect();
            let mut matcher = Matcher::new(RATE);
            run(&mut matcher, &song, &song);
            let results = run(&mut matcher, &louder, &song);
            let first = results.iter().position(Option::is_some).unwrap() * PIECE;
            assert!((4_000 - 2 * PIECE..4_000 + PIECE).contains(&first), "{decibels} dB: at {first}");
            assert!(
                results[first / PIECE..]
                    .iter()
                    .all(|found| found.is_some_and(|found| (found / gain - 1.0).abs() < 1e-4))
            );
            // Another song ends it at once.
            assert_eq!(run(&mut matcher, &noise(9, PIECE), &song[..PIECE]), [None]);
        }
    }

    #[test]
    fn a_gain_that_moves_does_not_match() {
        let song = noise(1, 16_000);
        let faded: Vec<f32> = song.iter().enumerate().map(|(i, x)| x * (1.0 - i as f32 / 16_000.0)).collect();
        let mut matcher = Matcher::new(RATE);
        assert!(run(&mut matcher, &faded, &song)[1..].iter().all(Option::is_none));
    }

    proptest! {
        #[test]
        fn the_residual_decides(seed in 1u32..1000, gain in 0.05f32..4.0, level_db in -90f32..-30.0) {
            let song = noise(seed, 8_000);
            let level = 10f32.powf(level_db / 20.0);
            // Independent noise of this level, relative to the input.
            let input: Vec<f32> = song.iter().zip(noise(seed + 5_000, 8_000)).map(|(x, n)| gain * (x + level * n)).collect();
            let mut matcher = Matcher::new(RATE);
            let last = run(&mut matcher, &input, &song).pop().flatten();
            if level_db < -62.0 {
                prop_assert!(last.is_some_and(|found| (found / gain - 1.0).abs() < 2e-3), "{level_db}: {last:?}");
            } else if level_db > -58.0 {
                prop_assert_eq!(last, None);
            }
        }
    }
}
