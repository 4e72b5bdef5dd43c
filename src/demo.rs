//! A short piece of music composed by the program: a multitrack song for trying and testing separation.
//!
//! Drums, bass, chords with an arpeggio, and a voice made of formants, 20 to 30 seconds of 44.1 kHz stereo in 16 bits. The
//! same seed gives the same piece. The mixture is the exact sum of the stems. It is not a benchmark, since no model was
//! trained on synthetic instruments.

mod bass;
mod drums;
mod harmony;
mod random;
mod score;
mod synth;
mod voice;

use crate::dsp::Random;
use score::Score;

/// Samples per second of the piece.
pub const SAMPLE_RATE: u32 = 44_100;

/// Names of the stems.
pub const STEMS: [&str; 4] = ["drums", "bass", "other", "vocals"];

/// Peak of the mixture, relative to full scale.
const PEAK: f32 = 0.9;

/// Gains of the stems.
const LEVELS: [f32; 4] = [0.8, 1.3, 1.6, 1.9];

/// Two channels of equal length.
pub type Stereo = [Vec<f32>; 2];

/// A piece with all its tracks. Every sample is a multiple of 2⁻¹⁵.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// One track for each name in [`STEMS`].
    pub stems: [Stereo; 4],
    /// Their sum.
    pub mixture: Stereo,
    /// Beats per minute.
    pub tempo: f32,
}

impl Piece {
    /// Samples per channel.
    pub fn samples(&self) -> usize {
        self.mixture[0].len()
    }

    /// The true track of a stem: one of [`STEMS`], or `instrumental`, the mixture without vocals. `None` for other names.
    pub fn reference(&self, stem: &str) -> Option<Stereo> {
        if stem == "instrumental" {
            return self.without("vocals");
        }
        STEMS.iter().position(|name| *name == stem).map(|n| self.stems[n].clone())
    }

    /// The mixture without a track.
    pub fn without(&self, stem: &str) -> Option<Stereo> {
        let track = self.reference(stem)?;
        let rest = |c: usize| self.mixture[c].iter().zip(&track[c]).map(|(mixture, x)| mixture - x).collect();
        Some([rest(0), rest(1)])
    }
}

/// Composes the piece of `seed`.
pub fn compose(seed: u64) -> Piece {
    let mut random = Random::new(seed);
    let score = Score::new(&mut random);
    let mut stems = [
        drums::render(&score, &mut random.fork()),
        bass::render(&score, &mut random.fork()),
        harmony::render(&score, &mut random.fork()),
        voice::render(&score, &mut random.fork()),
    ];
    for (stem, gain) in stems.iter_mut().zip(LEVELS) {
        stem.iter_mut().flatten().for_each(|x| *x *= gain);
    }
    let peak = (0..2)
        .flat_map(|c| (0..score.samples()).map(move |i| (c, i)))
        .map(|(c, i)| stems.iter().map(|stem| stem[c][i]).sum::<f32>().abs())
        .fold(1e-3f32, f32::max);
    for x in stems.iter_mut().flatten().flatten() {
        *x = (*x * PEAK / peak * 32_768.0).round() / 32_768.0;
    }
    let sum = |c: usize| (0..score.samples()).map(|i| stems.iter().map(|stem| stem[c][i]).sum()).collect();
    Piece { mixture: [sum(0), sum(1)], stems, tempo: score.tempo }
}

/// Signal-to-distortion ratio of `estimate` in dB, over all channels: 10·log₁₀(Σ s² / Σ (s − ŝ)²).
pub fn sdr(reference: &Stereo, estimate: &Stereo) -> f64 {
    let (mut signal, mut error) = (0.0f64, 0.0f64);
    for (s, e) in reference.iter().flatten().zip(estimate.iter().flatten()) {
        signal += f64::from(*s).powi(2);
        error += (f64::from(*s) - f64::from(*e)).powi(2);
    }
    10.0 * ((signal + 1e-12) / (error + 1e-12)).log10()
}

/// SDR of the optimally scaled mixture: the score of an estimate that separates nothing.
pub fn baseline_sdr(reference: &Stereo, mixture: &Stereo) -> f64 {
    let dot = |a: &Stereo, b: &Stereo| -> f64 {
        a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let gain = (dot(reference, mixture) / dot(mixture, mixture).max(1e-12)) as f32;
    let scaled = |c: usize| mixture[c].iter().map(|x| gain * x).collect();
    sdr(reference, &[scaled(0), scaled(1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_the_same_for_the_same_seed_and_its_tracks_sum_to_it() {
        let piece = compose(1);
        assert_eq!(piece, compose(1));
        assert_ne!(piece.mixture, compose(2).mixture);
        let seconds = piece.samples() as f32 / SAMPLE_RATE as f32;
        assert!((20.0..=30.0).contains(&seconds), "{seconds} s");
        for c in 0..2 {
            for i in 0..piece.samples() {
                let sum: f32 = piece.stems.iter().map(|stem| stem[c][i]).sum();
                assert_eq!(sum, piece.mixture[c][i]);
                assert!(sum.abs() < 1.0 && (sum * 32_768.0).fract() == 0.0, "{sum}");
            }
        }
    }

    #[test]
    fn every_track_is_audible() {
        let piece = compose(3);
        for (name, stem) in STEMS.iter().zip(&piece.stems) {
            let power: f32 = stem.iter().flatten().map(|x| x * x).sum::<f32>() / (2 * piece.samples()) as f32;
            let level = 10.0 * power.log10();
            assert!((-40.0..-10.0).contains(&level), "{name}: {level} dB");
        }
    }

    #[test]
    fn no_scaled_mixture_beats_the_baseline() {
        let piece = compose(1);
        let voice = piece.reference("vocals").unwrap();
        let baseline = baseline_sdr(&voice, &piece.mixture);
        for gain in [0.0, 0.1, 0.3, 1.0] {
            let scaled = [0, 1].map(|c| piece.mixture[c].iter().map(|x| gain * x).collect());
            assert!(sdr(&voice, &scaled) <= baseline + 1e-3);
        }
        assert!(sdr(&voice, &voice) > 100.0);
        assert!(piece.reference("instrumental").is_some() && piece.reference("guitar").is_none());
    }
}
