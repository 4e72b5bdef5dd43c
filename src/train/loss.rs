//! The references' loss on the waveform: L1 of the samples, and of the complex STFT at several resolutions.

use std::sync::Arc;

use rayon::prelude::*;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::num_complex::Complex32;

use super::error::TrainError;
use crate::dsp::stft::{StftConfig, reflect};
use crate::dsp::window::hann_analysis_window;
use crate::model::architecture::{Architecture, Family};
use crate::model::config::Config;

/// Parameters of the loss: `L1(x − y) + stft_weight · Σ L1(STFT(x) − STFT(y))` over `windows`, each L1 a mean.
#[derive(Clone, Debug, PartialEq)]
pub struct LossConfig {
    /// Weight of the STFT terms. By default 1.
    pub stft_weight: f32,
    /// Window lengths in samples. By default 4096, 2048, 1024, 512, 256.
    pub windows: Vec<usize>,
    /// Distance of two frames in samples. By default 147.
    pub hop_length: usize,
    /// Fewest points of a Fourier transform; a longer window has as many points as samples. By default the model's n_fft.
    pub n_fft: usize,
    /// Whether spectra are divided by sqrt(n_fft). By default not.
    pub normalized: bool,
    /// Whether the hop is at least a quarter of the window, as in the Mel-Band RoFormer of `bs-roformer` 1.2. By default only there.
    pub quarter_hop: bool,
    /// Whether the whole crop counts. Otherwise it is `hop · (frames − 1)` samples, which an inverse STFT without a length returns.
    /// By default what the YAML says in `match_input_audio_length`.
    pub whole_crop: bool,
}

impl LossConfig {
    /// What a YAML says, and the references' defaults where it does not.
    pub fn new(config: &Config, arch: &Architecture) -> Self {
        let model = &config.model;
        Self {
            stft_weight: model.multi_stft_resolution_loss_weight.unwrap_or(1.0) as f32,
            windows: model
                .multi_stft_resolutions_window_sizes
                .clone()
                .unwrap_or_else(|| vec![4096, 2048, 1024, 512, 256]),
            hop_length: model.multi_stft_hop_size.unwrap_or(147),
            n_fft: arch.stft.n_fft,
            normalized: model.multi_stft_normalized.unwrap_or(false),
            quarter_hop: arch.family == Family::MelBandRoformer && arch.branch_names,
            whole_crop: model.match_input_audio_length.unwrap_or(false),
        }
    }

    /// Samples of a crop of `samples` that count.
    pub(super) fn counted_samples(&self, stft: &StftConfig, samples: usize) -> usize {
        if self.whole_crop {
            return samples;
        }
        let covered = stft.hop_length * (stft.frames(samples) - 1) + stft.n_fft % 2;
        covered.min(samples)
    }

    /// Fewest samples that every window can reflect.
    pub(super) fn min_samples(&self) -> usize {
        self.windows.iter().map(|&window| window.max(self.n_fft) / 2 + 1).max().unwrap_or(1)
    }
}

/// Parts of a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossParts {
    /// L1 of the waveform.
    pub waveform: f64,
    /// Sum of the L1 of the complex STFT over all windows, without its weight.
    pub stft: f64,
}

/// Planned transforms of a loss.
pub(super) struct WaveformLoss {
    config: LossConfig,
    resolutions: Vec<Resolution>,
}

/// One window length.
struct Resolution {
    stft: StftConfig,
    window: Vec<f32>,
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
}

impl WaveformLoss {
    pub fn new(config: LossConfig) -> Result<Self, TrainError> {
        if config.hop_length == 0 || config.windows.contains(&0) {
            return Err(TrainError::setting("loss", "windows and hop of at least 1 sample", "0"));
        }
        if !config.stft_weight.is_finite() || config.stft_weight < 0.0 {
            return Err(TrainError::setting("loss.stft_weight", "a number from 0 up", config.stft_weight));
        }
        let mut planner = RealFftPlanner::new();
        let windows: &[usize] = if config.stft_weight > 0.0 { &config.windows } else { &[] };
        let resolutions = windows
            .iter()
            .map(|&window| {
                let n_fft = window.max(config.n_fft);
                let hop_length =
                    if config.quarter_hop { config.hop_length.max(window / 4) } else { config.hop_length };
                let normalized = config.normalized;
                Resolution {
                    stft: StftConfig { n_fft, hop_length, win_length: window, normalized },
                    window: hann_analysis_window(window, n_fft),
                    forward: planner.plan_fft_forward(n_fft),
                    inverse: planner.plan_fft_inverse(n_fft),
                }
            })
            .collect();
        Ok(Self { config, resolutions })
    }

    pub fn config(&self) -> &LossConfig {
        &self.config
    }

    /// The loss and its gradient with respect to `difference`, signals of `samples` samples one after the other, each an estimate
    /// minus its target.
    ///
    /// The STFT is linear, so that one transform of the difference stands for two. Signals are tasks of their own, and their sums are
    /// added in order: the result does not depend on the number of threads.
    pub fn evaluate(&self, difference: &[f32], samples: usize) -> (LossParts, Vec<f32>) {
        let count = difference.len() as f64;
        let signals = difference.len() / samples.max(1);
        let mut gradient = vec![0.0f32; difference.len()];
        let tasks: Vec<(f64, f64)> = gradient
            .par_chunks_mut(samples.max(1))
            .zip(difference.par_chunks(samples.max(1)))
            .map(|(gradient, signal)| {
                let mut waveform = 0.0;
                for (g, x) in gradient.iter_mut().zip(signal) {
                    waveform += f64::from(x.abs());
                    *g = sign(*x) / count as f32;
                }
                let mut stft = 0.0;
                for resolution in &self.resolutions {
                    let scale = 1.0 / (signals * resolution.bins(samples)) as f64;
                    let weight = f64::from(self.config.stft_weight) * scale;
                    stft += resolution.add_gradient(signal, weight as f32, gradient) * scale;
                }
                (waveform / count, stft)
            })
            .collect();
        let waveform = tasks.iter().map(|t| t.0).sum();
        let stft = tasks.iter().map(|t| t.1).sum();
        (LossParts { waveform, stft }, gradient)
    }
}

/// As `torch.sign`: 0 at 0.
fn sign(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

impl Resolution {
    /// Complex values of a signal's spectrum.
    fn bins(&self, samples: usize) -> usize {
        self.stft.frames(samples) * self.stft.freqs()
    }

    /// Σ |Y| over all bins of the STFT Y of `signal`; adds `weight` times its gradient.
    fn add_gradient(&self, signal: &[f32], weight: f32, gradient: &mut [f32]) -> f64 {
        let StftConfig { n_fft, hop_length, win_length, normalized } = self.stft;
        let mut frame = self.forward.make_input_vec();
        let mut bins = self.forward.make_output_vec();
        let mut scratch = self.forward.make_scratch_vec();
        let mut inverse_scratch = self.inverse.make_scratch_vec();
        let scale = if normalized { 1.0 / (n_fft as f32).sqrt() } else { 1.0 };
        let last = bins.len() - 1;
        // Outside the window all is zero.
        let left = (n_fft - win_length) / 2;
        let inside = left..left + win_length;
        let mut sum = 0.0f64;
        for t in 0..self.stft.frames(signal.len()) {
            let start = (t * hop_length) as isize - (n_fft / 2) as isize;
            frame.fill(0.0);
            for i in inside.clone() {
                frame[i] = signal[reflect(start + i as isize, signal.len())] * self.window[i];
            }
            // The buffers come from the plan, so that their lengths are right and the call cannot fail.
            let done = self.forward.process_with_scratch(&mut frame, &mut bins, &mut scratch);
            debug_assert!(done.is_ok());
            let mut frame_sum = 0.0f32;
            for (k, bin) in bins.iter_mut().enumerate() {
                let size = bin.norm_sqr().sqrt();
                frame_sum += size;
                // The adjoint of a one-sided transform: realfft's inverse counts every bin twice but the first and the last.
                let twice = if k == 0 || (k == last && n_fft % 2 == 0) { 1.0 } else { 0.5 };
                *bin = if size > 0.0 { *bin * (weight * scale * twice / size) } else { Complex32::default() };
            }
            sum += f64::from(frame_sum);
            bins[0].im = 0.0;
            if n_fft % 2 == 0 {
                bins[last].im = 0.0;
            }
            let done = self.inverse.process_with_scratch(&mut bins, &mut frame, &mut inverse_scratch);
            debug_assert!(done.is_ok());
            for i in inside.clone() {
                gradient[reflect(start + i as isize, signal.len())] += frame[i] * self.window[i];
            }
        }
        sum * f64::from(scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsp::Random;

    fn loss(stft_weight: f32, n_fft: usize, windows: &[usize], normalized: bool) -> WaveformLoss {
        let windows = windows.to_vec();
        WaveformLoss::new(LossConfig {
            stft_weight,
            windows,
            hop_length: 7,
            n_fft,
            normalized,
            quarter_hop: false,
            whole_crop: true,
        })
        .unwrap()
    }

    #[test]
    fn gradient_predicts_change_of_loss() {
        for (n_fft, windows, normalized) in
            [(32, &[64, 32, 20, 9][..], false), (31, &[31, 50, 16], true), (48, &[48], false)]
        {
            let loss = loss(0.7, n_fft, windows, normalized);
            let samples = 90;
            let x = Random::new(3).noise(2 * samples, 1.0);
            let direction = Random::new(4).noise(2 * samples, 1e-3);
            let total = |x: &[f32]| {
                let (parts, _) = loss.evaluate(x, samples);
                parts.waveform + 0.7 * parts.stft
            };
            let shifted =
                |sign: f32| -> Vec<f32> { x.iter().zip(&direction).map(|(x, d)| x + sign * d).collect() };
            let (_, gradient) = loss.evaluate(&x, samples);
            let predicted: f64 =
                gradient.iter().zip(&direction).map(|(g, d)| 2.0 * f64::from(*g) * f64::from(*d)).sum();
            let found = total(&shifted(1.0)) - total(&shifted(-1.0));
            assert!((predicted - found).abs() < 2e-2 * found.abs().max(1e-5), "{n_fft}: {predicted} {found}");
        }
    }

    #[test]
    fn loss_of_equal_signals_and_its_gradient_are_zero() {
        let (parts, gradient) = loss(1.0, 32, &[32, 16], false).evaluate(&[0.0; 100], 100);
        assert_eq!(parts, LossParts { waveform: 0.0, stft: 0.0 });
        assert!(gradient.iter().all(|&g| g == 0.0));
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        let bad = |change: fn(&mut LossConfig)| {
            let mut config = loss(1.0, 32, &[32], false).config;
            change(&mut config);
            WaveformLoss::new(config).is_err()
        };
        assert!(bad(|c| c.hop_length = 0));
        assert!(bad(|c| c.windows = vec![0]));
        assert!(bad(|c| c.stft_weight = f32::NAN));
    }
}
