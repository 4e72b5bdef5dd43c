//! Sample-rate conversion by absolute position.
//!
//! Output sample m depends only on the input around m·from/to. The filter has no state and is centred on the output sample. So its delay is
//! exact (its reach to the right), pieces of any size give the same bits, and a live stream can be compared with a whole song. The
//! resampler for files ([`audio::resample`](crate::audio::resample)) has a sharper, fifteen times longer filter. Here length is latency.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::kernels::sum_of_products;

/// Half-length of the filter in samples of the slower rate. With the attenuation below, the pass band ends at 94.5 % of the slower
/// Nyquist frequency (20.8 kHz at 44.1 kHz), and the stop band begins at that Nyquist frequency.
const ZEROS: u64 = 128;
/// Attenuation of the stop band in dB.
const ATTENUATION_DB: f64 = 110.0;

/// Largest number of phases in a table. Rates without a common divisor would need one per Hz: hundreds of megabytes, and seconds of work on
/// the host's main thread. They interpolate between neighbouring phases of a table of this size instead, with an error of −118 dB.
const PHASES: u64 = 1024;

/// Reduced ratio of rates, and its table while in use.
type CachedTable = ((u64, u64), Weak<[f32]>);

/// The process's tables, shared by all streams. Locked only when a stream is opened, never by the audio thread.
static TABLES: Mutex<Vec<CachedTable>> = Mutex::new(Vec::new());

/// A polyphase windowed-sinc interpolator for a fixed ratio.
#[derive(Clone, Debug)]
pub(super) struct Sinc {
    /// Reduced ratio of rates: `from` input samples last as long as `to` output samples.
    from: u64,
    to: u64,
    half: usize,
    /// [phases, taps = 2·half], flat. It has `to` phases, or `PHASES` + 1.
    table: Arc<[f32]>,
}

impl Sinc {
    /// Input samples that an output sample reads to the right of its own position.
    pub(super) fn reach(from: u64, to: u64) -> u64 {
        (ZEROS * from.max(to)).div_ceil(to)
    }

    /// The interpolator from rate `from` to rate `to`, reduced.
    pub(super) fn new(from: u64, to: u64) -> Self {
        let half = Self::reach(from, to) as usize;
        // Locked while a table is computed, so that a second caller does not compute it again.
        let mut tables = TABLES.lock();
        tables.retain(|(_, table)| table.strong_count() > 0);
        let known = tables.iter().find(|(ratio, _)| *ratio == (from, to));
        let table = known.and_then(|(_, table)| table.upgrade()).unwrap_or_else(|| {
            let made: Arc<[f32]> = table(from, to, half).into();
            tables.push(((from, to), Arc::downgrade(&made)));
            made
        });
        Self { from, to, half, table }
    }

    /// Locks the tables, for tests.
    #[cfg(all(test, feature = "plugin"))]
    pub(super) fn lock_tables() -> impl Sized {
        TABLES.lock()
    }

    /// Writes output samples from position `at` on. `x[0]` is the input at position `first`; where `x` does not reach, the output is 0.
    ///
    /// Silent input takes a shortcut: instruments pause, and a mixer can have more strips than the model has stems.
    pub(super) fn resample(&self, x: &[f32], first: i64, at: i64, out: &mut [f32]) {
        let (from, to) = (self.from as i64, self.to as i64);
        let taps = 2 * self.half;
        let begin_of = |m: i64| (m * from).div_euclid(to) - self.half as i64 + 1 - first;
        let reached = usize::try_from(begin_of(at)).unwrap_or(0)
            ..usize::try_from(begin_of(at + out.len() as i64) + taps as i64).unwrap_or(0).min(x.len());
        if x.get(reached).unwrap_or_default().iter().all(|x| *x == 0.0) {
            // The same bits as the sum of products would give.
            out.fill(0.0);
            return;
        }
        for (m, y) in (at..).zip(out) {
            let t = m * from;
            let begin = begin_of(m);
            let phase = t.rem_euclid(to) as u64;
            let input = usize::try_from(begin).ok().and_then(|begin| x.get(begin..begin + taps));
            debug_assert!(input.is_some(), "output {m} reaches past the input");
            let filtered = |phase: usize| {
                let filter = self.table.get(phase * taps..(phase + 1) * taps);
                input.zip(filter).map_or(0.0, |(x, h)| sum_of_products(x, h))
            };
            *y = if self.to <= PHASES {
                filtered(phase as usize)
            } else {
                let (below, above) = ((phase * PHASES / self.to) as usize, phase * PHASES % self.to);
                let share = (above as f64 / self.to as f64) as f32;
                (1.0 - share) * filtered(below) + share * filtered(below + 1)
            };
        }
    }
}

/// Filters of all phases, [phases, 2·half] flat.
fn table(from: u64, to: u64, half: usize) -> Vec<f32> {
    let transition = (ATTENUATION_DB - 8.0) / (2.285 * std::f64::consts::PI * 2.0 * ZEROS as f64);
    // Relative to the input's Nyquist frequency.
    let cutoff = (to as f64 / from as f64).min(1.0) * (1.0 - 0.5 * transition);
    let beta = 0.1102 * (ATTENUATION_DB - 8.7);
    let (phases, last) = if to > PHASES { (PHASES, PHASES) } else { (to, to - 1) };
    let mut table = Vec::with_capacity((last + 1) as usize * 2 * half);
    for phase in 0..=last {
        let fraction = phase as f64 / phases as f64;
        let taps: Vec<f64> = (0..2 * half)
            .map(|j| {
                let x = j as f64 - (half as f64 - 1.0) - fraction;
                sinc(cutoff * x) * kaiser(x / half as f64, beta)
            })
            .collect();
        let sum: f64 = taps.iter().sum();
        table.extend(taps.iter().map(|tap| (tap / sum) as f32));
    }
    table
}

fn sinc(x: f64) -> f64 {
    let x = std::f64::consts::PI * x;
    if x.abs() < 1e-9 { 1.0 } else { x.sin() / x }
}

/// Kaiser window at −1 ≤ x ≤ 1, not normalised.
fn kaiser(x: f64, beta: f64) -> f64 {
    let inside = 1.0 - x * x;
    if inside <= 0.0 { 0.0 } else { bessel_i0(beta * inside.sqrt()) }
}

/// Modified Bessel function of the first kind, order 0.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > 1e-17 * sum {
        term *= (x / (2.0 * k)) * (x / (2.0 * k));
        sum += term;
        k += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsp::snr_db;

    fn sine(hz: f64, rate: f64, range: std::ops::Range<i64>) -> Vec<f32> {
        range.map(|i| (std::f64::consts::TAU * hz * i as f64 / rate).sin() as f32).collect()
    }

    #[test]
    fn a_sine_arrives_in_phase_at_every_ratio() {
        let even = [(160, 147), (147, 160), (2, 1), (1, 2), (320, 147), (147, 640), (1, 4)];
        let odd = [(47_999, 44_100), (44_100, 47_999), (123_457, 44_100), (44_100, 123_457)];
        for (from, to) in even.into_iter().chain(odd) {
            let sinc = Sinc::new(from, to);
            let reach = Sinc::reach(from, to) as i64;
            let slower = 44_100.0;
            let (rate_in, rate_out) = if from < to {
                (slower, slower * to as f64 / from as f64)
            } else {
                (slower * from as f64 / to as f64, slower)
            };
            for hz in [100.0, 5_000.0, 19_000.0] {
                let mut out = vec![0.0; 300];
                let last = 300 * from as i64 / to as i64 + reach + 1;
                sinc.resample(&sine(hz, rate_in, -reach..last), -reach, 0, &mut out);
                let snr = snr_db(&sine(hz, rate_out, 0..300), &out);
                assert!(snr > 95.0, "{from}:{to} at {hz} Hz: {snr} dB");
            }
        }
    }

    #[test]
    fn frequencies_above_the_slower_nyquist_are_removed() {
        let sinc = Sinc::new(2, 1);
        let reach = Sinc::reach(2, 1) as i64;
        let mut out = vec![0.0; 200];
        sinc.resample(&sine(23_000.0, 88_200.0, -reach..400 + reach), -reach, 0, &mut out);
        assert!(out.iter().all(|x| x.abs() < 1e-5));
    }

    #[test]
    fn pieces_give_the_same_bits_as_the_whole() {
        let sinc = Sinc::new(160, 147);
        let x: Vec<f32> = (0..2000).map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.5).collect();
        let mut whole = vec![0.0; 1000];
        sinc.resample(&x, -400, 100, &mut whole);
        let mut piece = vec![0.0; 37];
        sinc.resample(&x[200..], -200, 300, &mut piece);
        assert_eq!(piece, whole[200..237]);
    }

    #[test]
    fn a_ratio_has_one_table_while_in_use() {
        // A ratio that no other test uses.
        let (from, to) = (1_013, 1_009);
        let known = || TABLES.lock().iter().filter(|(ratio, _)| *ratio == (from, to)).count();
        let first = Sinc::new(from, to);
        let (second, back) = (Sinc::new(from, to), Sinc::new(to, from));
        assert!(Arc::ptr_eq(&first.table, &second.table) && !Arc::ptr_eq(&first.table, &back.table));
        assert_eq!(*first.table, *table(from, to, first.half));
        assert_eq!(known(), 1);
        drop((first, second));
        drop(Sinc::new(2, 1));
        assert_eq!(known(), 0, "an unused table is freed");
    }

    #[test]
    fn a_single_sample_in_silence_is_filtered_at_every_position() {
        let (from, to) = (160, 147);
        let sinc = Sinc::new(from, to);
        for place in 0..900 {
            let mut x = vec![0.0; 900];
            x[place] = 1.0;
            let mut out = vec![f32::NAN; 300];
            sinc.resample(&x, -200, 10, &mut out);
            for (m, y) in (10i64..).zip(&out) {
                let begin = (m * from as i64).div_euclid(to as i64) - sinc.half as i64 + 1 + 200;
                let tap = usize::try_from(place as i64 - begin).ok().filter(|tap| *tap < 2 * sinc.half);
                let phase = (m * from as i64).rem_euclid(to as i64) as usize;
                let expected = tap.map_or(0.0, |tap| sinc.table[phase * 2 * sinc.half + tap]);
                assert!(*y == expected, "sample {place}, output {m}: {y} instead of {expected}");
            }
        }
    }
}
