//! Between waveforms and the network: spectra of crops, stems from masks, and the gradient back from stems to masks.

use std::sync::Arc;

use rayon::prelude::*;
use realfft::{RealFftPlanner, RealToComplex};
use rustfft::num_complex::Complex32;

use crate::dsp::stft::{Stft, StftConfig};
use crate::dsp::window::hann_analysis_window;
use crate::model::architecture::Architecture;

/// Transforms of one architecture. Axis letters: b batch, n stem, s channel, t frame, f bin.
pub(super) struct Waveforms {
    stft: Stft,
    channels: usize,
    zero_dc: bool,
    window: Vec<f32>,
    forward: Arc<dyn RealToComplex<f32>>,
}

impl Waveforms {
    pub fn new(arch: &Architecture) -> Self {
        Self {
            stft: Stft::new(arch.stft),
            channels: arch.channels,
            zero_dc: arch.zero_dc,
            window: hann_analysis_window(arch.stft.win_length, arch.stft.n_fft),
            forward: RealFftPlanner::new().plan_fft_forward(arch.stft.n_fft),
        }
    }

    fn frame_bins(&self) -> usize {
        self.stft.config().freqs() * self.channels
    }

    /// Complex values of a crop's spectrum.
    pub fn spectrum_len(&self, samples: usize) -> usize {
        self.stft.config().frames(samples) * self.frame_bins()
    }

    /// Crops [b, s, samples] → [b, t, f, s]
    pub fn spectra(&self, crops: &[f32], samples: usize) -> Vec<Complex32> {
        let mut spectra =
            vec![Complex32::default(); crops.len() / (samples * self.channels) * self.spectrum_len(samples)];
        spectra
            .par_chunks_mut(self.spectrum_len(samples))
            .zip(crops.par_chunks(samples * self.channels))
            .for_each(|(spectrum, crop)| {
                for (channel, signal) in crop.chunks_exact(samples).enumerate() {
                    self.stft.forward(signal, channel, self.channels, spectrum);
                }
            });
        spectra
    }

    /// Masks [b, n, t, f, s] times the mixtures' spectra [b, t, f, s] → stems [b, n, s, samples]
    pub fn stems(&self, masks: &[Complex32], spectra: &[Complex32], samples: usize) -> Vec<f32> {
        let len = self.spectrum_len(samples);
        let stems = masks.len() / spectra.len().max(1);
        let mut out = vec![0.0f32; masks.len() / len * self.channels * samples];
        out.par_chunks_mut(self.channels * samples).zip(masks.par_chunks(len)).enumerate().for_each(
            |(i, (out, mask))| {
                let spectrum = &spectra[i / stems * len..][..len];
                let mut product: Vec<Complex32> = mask.iter().zip(spectrum).map(|(m, x)| m * x).collect();
                if self.zero_dc {
                    for row in product.chunks_exact_mut(self.frame_bins()) {
                        row[..self.channels].fill(Complex32::default());
                    }
                }
                for (channel, signal) in out.chunks_exact_mut(samples).enumerate() {
                    self.stft.inverse(&product, channel, self.channels, signal);
                }
            },
        );
        out
    }

    /// The gradient of [`Waveforms::stems`]: that of the stems [b, n, s, samples] → that of the masks [b, n, t, f, s], real and
    /// imaginary part side by side as if they were one complex number.
    pub fn masks_gradient(&self, stems: &[f32], spectra: &[Complex32], samples: usize) -> Vec<Complex32> {
        let len = self.spectrum_len(samples);
        let crops = spectra.len() / len;
        let signals = stems.len() / (self.channels * samples);
        let envelope = self.envelope(samples);
        let mut gradient = vec![Complex32::default(); signals * len];
        gradient.par_chunks_mut(len).zip(stems.par_chunks(self.channels * samples)).enumerate().for_each(
            |(i, (gradient, stem))| {
                for (channel, signal) in stem.chunks_exact(samples).enumerate() {
                    self.inverse_adjoint(signal, &envelope, channel, gradient);
                }
                if self.zero_dc {
                    for row in gradient.chunks_exact_mut(self.frame_bins()) {
                        row[..self.channels].fill(Complex32::default());
                    }
                }
                let spectrum = &spectra[i / (signals / crops) * len..][..len];
                gradient.iter_mut().zip(spectrum).for_each(|(g, x)| *g *= x.conj());
            },
        );
        gradient
    }

    /// 1 / sum of squared windows at each sample, 0 where no frame reaches, as in [`Stft::inverse`].
    fn envelope(&self, samples: usize) -> Vec<f32> {
        let StftConfig { n_fft, hop_length, .. } = *self.stft.config();
        let mut sum = vec![0.0f32; samples];
        for t in 0..self.stft.config().frames(samples) {
            let start = (t * hop_length) as isize - (n_fft / 2) as isize;
            for (i, w) in self.window.iter().enumerate() {
                if let Some(e) = usize::try_from(start + i as isize).ok().and_then(|at| sum.get_mut(at)) {
                    *e += w * w;
                }
            }
        }
        sum.into_iter().map(|e| if e > 1e-11 { 1.0 / e } else { 0.0 }).collect()
    }

    /// The adjoint of [`Stft::inverse`] for one channel: `signal` is the gradient of its result.
    fn inverse_adjoint(&self, signal: &[f32], envelope: &[f32], channel: usize, spec: &mut [Complex32]) {
        let StftConfig { n_fft, hop_length, normalized, .. } = *self.stft.config();
        let freqs = self.stft.config().freqs();
        let mut frame = self.forward.make_input_vec();
        let mut bins = self.forward.make_output_vec();
        let mut scratch = self.forward.make_scratch_vec();
        let scale = if normalized { 1.0 / (n_fft as f32).sqrt() } else { 1.0 / n_fft as f32 };
        for (t, row) in spec.chunks_exact_mut(freqs * self.channels).enumerate() {
            let start = (t * hop_length) as isize - (n_fft / 2) as isize;
            for (i, (x, w)) in frame.iter_mut().zip(&self.window).enumerate() {
                let at = usize::try_from(start + i as isize).ok().filter(|&at| at < signal.len());
                *x = at.map_or(0.0, |at| signal[at] * envelope[at] * w);
            }
            // The buffers come from the plan, so that their lengths are right and the call cannot fail.
            let done = self.forward.process_with_scratch(&mut frame, &mut bins, &mut scratch);
            debug_assert!(done.is_ok());
            for (f, bin) in bins.iter().enumerate() {
                // Bins inside the spectrum stand for two of the real signal's.
                let real = f == 0 || (n_fft % 2 == 0 && f == freqs - 1);
                row[f * self.channels + channel] =
                    if real { Complex32::new(bin.re * scale, 0.0) } else { bin * (2.0 * scale) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsp::Random;

    #[test]
    fn adjoint_of_stems_is_exact() {
        // <A m, y> = <m, A' y> for the linear map A from masks to stems.
        for (n_fft, hop_length, win_length, normalized, zero_dc) in
            [(32, 10, 32, false, false), (31, 9, 31, true, true), (32, 8, 20, true, false)]
        {
            let mut arch = Architecture::reference_default();
            arch.stft = StftConfig { n_fft, hop_length, win_length, normalized };
            arch.zero_dc = zero_dc;
            let waveforms = Waveforms::new(&arch);
            let (batch, stems, samples) = (2, 3, 93);
            let crops = Random::new(1).noise(batch * 2 * samples, 1.0);
            let spectra = waveforms.spectra(&crops, samples);
            let numbers = Random::new(2).noise(2 * spectra.len() * stems, 1.0);
            let masks: Vec<Complex32> = numbers.chunks_exact(2).map(|c| Complex32::new(c[0], c[1])).collect();
            let y = Random::new(3).noise(batch * stems * 2 * samples, 1.0);
            let out = waveforms.stems(&masks, &spectra, samples);
            let gradient = waveforms.masks_gradient(&y, &spectra, samples);
            let left: f64 = out.iter().zip(&y).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let right: f64 = masks
                .iter()
                .zip(&gradient)
                .map(|(m, g)| f64::from(m.re * g.re) + f64::from(m.im * g.im))
                .sum();
            assert!((left - right).abs() < 1e-4 * left.abs().max(1.0), "{n_fft}: {left} {right}");
        }
    }
}
