//! Short-time Fourier transform and its inverse, with the conventions of `torch.stft` and `torch.istft`: centred, reflect
//! padding of n_fft/2, periodic Hann window, one-sided spectrum.
//!
//! Spectra are kept frame by frame with the channels interleaved inside a bin, `[frames, freqs, channels]`: this is the
//! feature layout that a RoFormer's band split reads, `(f s) c` per frame, so nothing is ever transposed.

mod frame;

use std::sync::Arc;

use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::num_complex::Complex32;

use super::window::hann_analysis_window;
pub use frame::FrameBuffers;

/// Parameters of the transform, named as in `torch.stft`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StftConfig {
    /// Length of the Fourier transform in samples.
    pub n_fft: usize,
    /// Samples between the starts of two frames.
    pub hop_length: usize,
    /// Length of the Hann window in samples, at most `n_fft`.
    pub win_length: usize,
    /// Whether spectra are divided by sqrt(n_fft).
    pub normalized: bool,
}

impl StftConfig {
    /// Number of bins of the one-sided spectrum.
    pub fn freqs(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Number of frames of a signal of `samples` samples. The centred padding of an odd `n_fft` is one sample shorter than it.
    pub fn frames(&self, samples: usize) -> usize {
        1 + samples.saturating_sub(self.n_fft % 2) / self.hop_length
    }

    /// Fewest samples that reflect padding supports.
    pub fn min_samples(&self) -> usize {
        self.n_fft / 2 + 1
    }
}

/// Planned transforms of one configuration. Clones share the plans.
#[derive(Clone)]
pub struct Stft {
    config: StftConfig,
    analysis_window: Vec<f32>,
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
}

impl Stft {
    /// Plans the transforms. `config` must have passed the model's validation: `n_fft`, `hop_length`, `win_length` > 0 and
    /// `win_length` ≤ `n_fft`.
    pub fn new(config: StftConfig) -> Self {
        let mut planner = RealFftPlanner::new();
        Self {
            analysis_window: hann_analysis_window(config.win_length, config.n_fft),
            forward: planner.plan_fft_forward(config.n_fft),
            inverse: planner.plan_fft_inverse(config.n_fft),
            config,
        }
    }

    /// The configuration of the transforms.
    pub fn config(&self) -> &StftConfig {
        &self.config
    }

    /// Spectrum of one channel, written into `spec`: `[frames, freqs, channels]` at `channel`.
    ///
    /// `signal` needs at least [`StftConfig::min_samples`] samples.
    pub fn forward(&self, signal: &[f32], channel: usize, channels: usize, spec: &mut [Complex32]) {
        self.forward_from(0, signal, channel, channels, spec);
    }

    /// As [`Self::forward`], of the frames from `first` on, as many as `spec` has rows: so that several threads can share a signal.
    pub fn forward_from(
        &self,
        first: usize,
        signal: &[f32],
        channel: usize,
        channels: usize,
        spec: &mut [Complex32],
    ) {
        let StftConfig { n_fft, hop_length, .. } = self.config;
        let freqs = self.config.freqs();
        let mut buffers = self.buffers();
        for (t, row) in spec.chunks_exact_mut(freqs * channels).enumerate() {
            // Position of the frame's first sample in the unpadded signal.
            let start = ((first + t) * hop_length) as isize - (n_fft / 2) as isize;
            let inside = usize::try_from(start).ok().and_then(|start| signal.get(start..start + n_fft));
            if let Some(inside) = inside {
                self.forward_slice(inside, channel, channels, row, &mut buffers);
            } else {
                let sample = |i| signal[reflect(start + i as isize, signal.len())];
                self.forward_frame(sample, channel, channels, row, &mut buffers);
            }
        }
    }

    /// Sum of squared windows over each of `samples` samples of the inverse of `frames` frames.
    pub fn envelope(&self, frames: usize, samples: usize) -> Vec<f32> {
        let squares: Vec<f32> = self.analysis_window.iter().map(|w| w * w).collect();
        let mut envelope = vec![0.0f32; samples];
        for t in 0..frames {
            let (skip, at) = self.overlap(t);
            // Slices, whose loop is vectors; that of a skipping iterator is not.
            let reached = envelope.get_mut(at..).unwrap_or_default();
            reached.iter_mut().zip(&squares[skip.min(squares.len())..]).for_each(|(e, square)| *e += square);
        }
        envelope
    }

    /// Samples of frame t that lie before the signal, and the sample of the signal at which the rest begins.
    fn overlap(&self, t: usize) -> (usize, usize) {
        let start = t * self.config.hop_length;
        let padding = self.config.n_fft / 2;
        (padding.saturating_sub(start), start.saturating_sub(padding))
    }

    /// Signal of one channel of `spec`, `[frames, freqs, channels]`, written into all of `signal`: windowed overlap-add over
    /// the sum of squared windows. Samples that no frame reaches become 0.
    pub fn inverse(&self, spec: &[Complex32], channel: usize, channels: usize, signal: &mut [f32]) {
        let frames = spec.len() / (self.config.freqs() * channels).max(1);
        self.inverse_with(&self.envelope(frames, signal.len()), spec, channel, channels, signal);
    }

    /// As [`Self::inverse`], with the [`envelope`](Self::envelope) of as many frames and samples, which several signals share.
    pub fn inverse_with(
        &self,
        envelope: &[f32],
        spec: &[Complex32],
        channel: usize,
        channels: usize,
        signal: &mut [f32],
    ) {
        let (mut buffers, scale) = (self.buffers(), self.inverse_scale());
        signal.fill(0.0);
        for (t, row) in spec.chunks_exact(self.config.freqs() * channels).enumerate() {
            let frame = self.inverse_frame(row, channel, channels, &mut buffers);
            let (skip, at) = self.overlap(t);
            let skip = skip.min(frame.len());
            let windowed = frame[skip..].iter().zip(&self.analysis_window[skip..]);
            let reached = signal.get_mut(at..).unwrap_or_default();
            reached.iter_mut().zip(windowed).for_each(|(x, (y, w))| *x += y * w);
        }
        for (x, e) in signal.iter_mut().zip(envelope) {
            *x = normalise(*x * scale, *e);
        }
    }
}

/// A sample of the overlap-add over its sum of squared windows; 0 where no frame reaches.
pub(crate) fn normalise(sum: f32, envelope: f32) -> f32 {
    if envelope > 1e-11 { sum / envelope } else { 0.0 }
}

/// Index into a signal of `len` samples reflected at both ends, the ends not repeated.
pub(crate) fn reflect(index: isize, len: usize) -> usize {
    let last = len as isize - 1;
    if last <= 0 {
        return 0;
    }
    let period = 2 * last;
    let i = index.rem_euclid(period);
    (if i > last { period - i } else { i }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsp::snr_db;

    fn noise(n: usize) -> Vec<f32> {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        (0..n)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn frame_count_matches_torch() {
        // (2 · (n_fft / 2) + samples − n_fft) / hop + 1 frames fit into the padded signal.
        for (n_fft, hop_length, samples, frames) in
            [(2048, 512, 8192, 17), (2048, 512, 8191, 16), (25, 10, 70, 7), (25, 10, 71, 8)]
        {
            let config = StftConfig { n_fft, hop_length, win_length: n_fft, normalized: false };
            assert_eq!(config.frames(samples), frames, "{n_fft}, {hop_length}, {samples}");
        }
    }

    #[test]
    fn inverse_of_forward_is_the_signal() {
        for (n_fft, hop_length, win_length, normalized, samples) in [
            (2048, 441, 2048, false, 9999),
            (2048, 512, 2048, true, 8192),
            (256, 64, 200, false, 1001),
            (255, 60, 255, false, 777),
            (25, 10, 25, false, 70),
            (64, 16, 33, true, 33),
        ] {
            let stft = Stft::new(StftConfig { n_fft, hop_length, win_length, normalized });
            let config = *stft.config();
            let channels = 2;
            let signals = [noise(samples), noise(samples + 7)[7..].to_vec()];
            let mut spec = vec![Complex32::default(); config.frames(samples) * config.freqs() * channels];
            for (c, signal) in signals.iter().enumerate() {
                stft.forward(signal, c, channels, &mut spec);
            }
            for (c, signal) in signals.iter().enumerate() {
                let mut back = vec![f32::NAN; samples];
                stft.inverse(&spec, c, channels, &mut back);
                // The last samples past the final frame's half window are unreachable only where hop > win/2.
                let snr = snr_db(signal, &back);
                assert!(snr > 120.0, "n_fft {n_fft} hop {hop_length} win {win_length}: {snr:.1} dB");
            }
        }
    }

    #[test]
    fn a_bin_centred_tone_lands_in_its_bin() {
        let config = StftConfig { n_fft: 64, hop_length: 16, win_length: 64, normalized: false };
        let signal: Vec<f32> =
            (0..640).map(|n| (std::f64::consts::TAU * 5.0 * n as f64 / 64.0).cos() as f32).collect();
        let stft = Stft::new(config);
        let mut spec = vec![Complex32::default(); config.frames(640) * config.freqs()];
        stft.forward(&signal, 0, 1, &mut spec);
        let middle = &spec[20 * config.freqs()..21 * config.freqs()];
        // Half the window's sum, 32/2, and half of that in each neighbour.
        assert!((middle[5].norm() - 16.0).abs() < 1e-3);
        assert!((middle[4].norm() - 8.0).abs() < 1e-3);
        assert!(middle[10].norm() < 1e-3);
    }

    #[test]
    fn reflection_does_not_repeat_the_ends() {
        let got: Vec<usize> = (-3..7).map(|i| reflect(i, 4)).collect();
        assert_eq!(got, [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]);
    }
}
