//! Finds where in a song a second of audio belongs, by its loudness first and by its samples then.

use super::ranges::Ranges;
use crate::audio::Planar;

/// Samples of a step of the loudness, at any rate.
pub const STEP: usize = 512;
/// Steps that are compared: about a second at 44.1 kHz.
const STEPS: usize = 86;
/// Samples that are searched for.
pub const QUERY: usize = (STEPS + 1) * STEP;
/// Places of the query's first step that are tried against those of the song.
const PHASES: usize = 8;
/// Places that are looked at sample by sample: many, since the loudness of a steady beat repeats with every bar.
const CANDIDATES: usize = 512;
/// Least correlation of the loudness, and of the samples.
const MIN_LOUDNESS_MATCH: f32 = 0.5;
const MIN_SAMPLE_MATCH: f64 = 0.9;
/// Samples compared at each place.
const PROBE: usize = 1024;
/// Loudness of silence, so that its logarithm is finite.
const FLOOR: f32 = 1e-9;

/// Loudness of a song in steps of [`STEP`] samples: the logarithm of the energy. It hardly changes with noise, and a gain only adds a constant.
#[derive(Clone, Debug, Default)]
pub struct Envelope {
    steps: Vec<f32>,
    /// Energy and samples of the step that is not complete.
    energy: f32,
    count: usize,
}

impl Envelope {
    /// From steps that were computed before.
    pub fn from_steps(steps: Vec<f32>) -> Self {
        Self { steps, ..Self::default() }
    }

    /// All complete steps.
    pub fn steps(&self) -> &[f32] {
        &self.steps
    }

    /// Adds samples of one channel, or of the mean of all.
    pub fn add(&mut self, samples: &[f32]) {
        for x in samples {
            self.energy += x * x;
            self.count += 1;
            if self.count == STEP {
                self.steps.push((self.energy / STEP as f32 + FLOOR).ln());
                (self.energy, self.count) = (0.0, 0);
            }
        }
    }

    /// Adds samples of all channels.
    pub fn add_planes(&mut self, block: &Planar) {
        let share = 1.0 / block.channels().max(1) as f32;
        let mono: Vec<f32> =
            (0..block.samples()).map(|i| share * block.iter().map(|plane| plane[i]).sum::<f32>()).collect();
        self.add(&mono);
    }

    /// Places in the song, in samples, where the loudness runs most as in `query`, in the order of the song.
    fn candidates(&self, query: &[f32]) -> Vec<i64> {
        let mut found = Vec::new();
        // The steps of the song begin anywhere within those of the query.
        for phase in (0..STEP).step_by(STEP / PHASES) {
            let mut wanted = Self::default();
            wanted.add(query.get(phase..).unwrap_or_default());
            if let Some(wanted) = normalised(wanted.steps.get(..STEPS).unwrap_or_default()) {
                self.add_candidates(&wanted, phase, &mut found);
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        // In the order of the song, so that each part of it is read once.
        let mut places: Vec<i64> = found.into_iter().take(CANDIDATES).map(|(_, at)| at).collect();
        places.sort_unstable();
        places
    }

    /// Adds the places where the song's loudness is like `wanted`, which begins `phase` samples into the query.
    fn add_candidates(&self, wanted: &[f32], phase: usize, found: &mut Vec<(f32, i64)>) {
        for (at, window) in self.steps.windows(STEPS).enumerate() {
            let mean = window.iter().sum::<f32>() / STEPS as f32;
            let spread = window.iter().map(|x| (x - mean).powi(2)).sum::<f32>().sqrt();
            let product: f32 = window.iter().zip(wanted).map(|(x, y)| (x - mean) * y).sum();
            let match_ = product / spread.max(1e-6);
            if match_ >= MIN_LOUDNESS_MATCH {
                found.push((match_, (at * STEP) as i64 - phase as i64));
            }
        }
    }
}

/// The steps without their mean, of unit length; none if they are flat.
fn normalised(steps: &[f32]) -> Option<Vec<f32>> {
    if steps.len() < STEPS {
        return None;
    }
    let mean = steps.iter().sum::<f32>() / steps.len() as f32;
    let length = steps.iter().map(|x| (x - mean).powi(2)).sum::<f32>().sqrt();
    (length > 0.05).then(|| steps.iter().map(|x| (x - mean) / length).collect())
}

/// Where `query`, [`QUERY`] samples of one channel, begins in a song: the position in samples, negative if it begins before the song. `read` gives
/// samples of the song from a position on, silence outside it. None if it is nowhere, or too flat to tell.
pub fn find<E>(
    query: &[f32],
    song: &Envelope,
    read: &mut dyn FnMut(i64, usize) -> Result<Vec<f32>, E>,
) -> Result<Option<i64>, E> {
    let mut best: Option<(f64, i64)> = None;
    for at in song.candidates(query) {
        let reach = STEP / PHASES;
        // The loudest part tells most.
        let from = loudest(query);
        let Some(probe) = query.get(from..from + PROBE) else { continue };
        let first = at + from as i64 - reach as i64;
        let song = read(first, PROBE + 2 * reach)?;
        let energy: f64 = probe.iter().map(|x| f64::from(*x).powi(2)).sum();
        for (lag, window) in song.windows(PROBE).enumerate() {
            let product: f32 = window.iter().zip(probe).map(|(x, y)| x * y).sum();
            let product = f64::from(product);
            // Most places are nothing like it.
            if product <= 0.0 {
                continue;
            }
            let there: f64 = window.iter().map(|x| f64::from(*x).powi(2)).sum();
            let match_ = product / (energy * there).sqrt().max(1e-12);
            if match_ >= MIN_SAMPLE_MATCH && best.is_none_or(|(other, _)| match_ > other) {
                best = Some((match_, first + lag as i64 - from as i64));
            }
        }
    }
    Ok(best.map(|(_, at)| at))
}

/// Where the loudest [`PROBE`] samples begin.
fn loudest(query: &[f32]) -> usize {
    let energy = |part: &[f32]| part.iter().map(|x| x * x).sum::<f32>();
    let parts = query.chunks_exact(PROBE).enumerate();
    parts.max_by(|a, b| energy(a.1).total_cmp(&energy(b.1))).map_or(0, |(part, _)| part * PROBE)
}

/// Positions from which to take queries of what was heard: spread over all ranges, at most `count`.
pub fn query_positions(heard: &Ranges, count: usize) -> Vec<i64> {
    let fitting: Vec<_> = heard.iter().filter(|range| range.end - range.start >= QUERY as i64).collect();
    let total: i64 = fitting.iter().map(|range| range.end - range.start - QUERY as i64 + 1).sum();
    let mut positions = Vec::new();
    for n in 0..(count as i64).min(total) {
        let mut at = (2 * n + 1) * total / (2 * (count as i64).min(total));
        for range in &fitting {
            let room = range.end - range.start - QUERY as i64 + 1;
            if at < room {
                positions.push(range.start + at);
                break;
            }
            at -= room;
        }
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise whose loudness changes as in music.
    fn song(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 16_777_216.0 - 0.5
        };
        let mut level = 0.5;
        (0..count)
            .map(|i| {
                if i % 3_000 == 0 {
                    level = 0.02 + (next() + 0.5) * 0.5;
                }
                level * next()
            })
            .collect()
    }

    fn envelope(song: &[f32]) -> Envelope {
        let mut envelope = Envelope::default();
        song.chunks(777).for_each(|part| envelope.add(part));
        envelope
    }

    fn find_in(song: &[f32], query: &[f32]) -> Option<i64> {
        let mut read = |at: i64, count: usize| -> Result<Vec<f32>, ()> {
            Ok((at..at + count as i64)
                .map(|x| usize::try_from(x).ok().and_then(|x| song.get(x)).copied().unwrap_or(0.0))
                .collect())
        };
        find(query, &envelope(song), &mut read).unwrap()
    }

    #[test]
    fn a_second_is_found_to_the_sample_at_any_gain_and_with_noise() {
        let music = song(1, 600_000);
        for at in [0, 1, 255, 12_345, 300_001, 600_000 - QUERY] {
            for gain in [1.0, 0.05, 3.0] {
                let noise = song(77, QUERY);
                let query: Vec<f32> =
                    music[at..at + QUERY].iter().zip(noise).map(|(x, n)| gain * (x + 0.01 * n)).collect();
                assert_eq!(find_in(&music, &query), Some(at as i64), "{at}, {gain}");
            }
        }
    }

    #[test]
    fn foreign_and_silent_audio_is_not_found() {
        let music = song(1, 600_000);
        assert_eq!(find_in(&music, &song(2, QUERY)), None);
        assert_eq!(find_in(&music, &vec![0.0; QUERY]), None);
        assert_eq!(find_in(&music, &[]), None);
        assert_eq!(find_in(&[], &song(2, QUERY)), None);
    }

    #[test]
    fn queries_lie_within_what_was_heard() {
        let mut heard = Ranges::default();
        heard.add(-100..100);
        heard.add(1_000..1_000 + 2 * QUERY as i64);
        heard.add(900_000..900_000 + QUERY as i64);
        let positions = query_positions(&heard, 8);
        assert_eq!(positions.len(), 8);
        for at in positions {
            assert!(heard.contains(&(at..at + QUERY as i64)), "{at}");
        }
        assert!(query_positions(&Ranges::default(), 8).is_empty());
    }
}
