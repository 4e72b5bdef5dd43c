//! The short-time Fourier transform and its inverse as matrix products on any candle device.
//!
//! The same transform as [`Stft`](crate::dsp::stft::Stft), for chunks that live on a GPU: window, scale and the cosines and sines of
//! the transform are one basis. A signal is cut into blocks of a hop; a frame is a few neighbouring blocks, and a sample of
//! the inverse the sum of the contributions of a few neighbouring frames. So nothing is scattered, for any hop.

use std::f64::consts::TAU;

use candle_core::{DType, Device, Result, Tensor};

use crate::dsp::stft::{StftConfig, reflect};
use crate::dsp::window::hann_analysis_window;

/// Longest transform that is computed as a matrix product. Each of the two tables takes a gigabyte at this length, twice that if the
/// hop does not divide it. Networks are trained with a few thousand samples.
const MAX_N_FFT: usize = 1 << 14;

/// Number of signal lengths whose tables are kept: a chunk, a live window, the last chunk of a song, and one more.
const MAX_KEPT_LENGTHS: usize = 4;

/// Transforms of one configuration on one device.
pub(super) struct DeviceStft {
    config: StftConfig,
    /// Blocks of a hop that a frame reaches into.
    blocks: usize,
    /// Samples to transform: [blocks · hop, 2 · freqs], cosines before sines. Rows past n_fft are 0.
    forward: Tensor,
    /// And back, the window folded in: [2 · freqs, blocks · hop].
    inverse: Tensor,
    lengths: Vec<Length>,
}

/// Tables for one signal length.
#[derive(Clone)]
struct Length {
    samples: usize,
    /// Where each sample of the padded signal comes from: [(frames + blocks − 1) · hop].
    padding: Tensor,
    /// One over the sum of the squared windows; 0 where no frame reaches: [samples].
    weights: Tensor,
}

impl DeviceStft {
    /// Prepares the transforms. `config` as for [`Stft::new`](crate::dsp::stft::Stft::new), with an n_fft of at most [`MAX_N_FFT`].
    pub fn new(config: StftConfig, device: &Device) -> Result<Self> {
        let StftConfig { n_fft, hop_length, win_length, normalized } = config;
        if n_fft > MAX_N_FFT {
            candle_core::bail!("n_fft {n_fft} is beyond the {MAX_N_FFT} that a GPU is used for; try the CPU");
        }
        let freqs = config.freqs();
        let blocks = n_fft.div_ceil(hop_length);
        let reach = blocks * hop_length;
        let window = hann_analysis_window(win_length, n_fft);
        let angles: Vec<(f64, f64)> =
            (0..n_fft).map(|k| (TAU * k as f64 / n_fft as f64).sin_cos()).map(|(s, c)| (c, s)).collect();
        let root = (n_fft as f64).sqrt();
        let (down, up) = if normalized { (1.0 / root, 1.0 / root) } else { (1.0, 1.0 / n_fft as f64) };
        let mut forward = vec![0f32; reach * 2 * freqs];
        let mut inverse = vec![0f32; 2 * freqs * reach];
        for n in 0..n_fft {
            let weight = f64::from(window[n]);
            for f in 0..freqs {
                let (cos, sin) = angles[f * n % n_fft];
                forward[n * 2 * freqs + f] = (weight * down * cos) as f32;
                forward[n * 2 * freqs + freqs + f] = (-weight * down * sin) as f32;
                // All bins but the first and, for an even length, the last stand for two. Those two are real in a real
                // signal's spectrum; what masks put into their imaginary parts is dropped, as sin is 0 there.
                let alone = f == 0 || 2 * f == n_fft;
                let scale = weight * up * if alone { 1.0 } else { 2.0 };
                inverse[f * reach + n] = (scale * cos) as f32;
                inverse[(freqs + f) * reach + n] = if alone { 0.0 } else { (-scale * sin) as f32 };
            }
        }
        Ok(Self {
            config,
            blocks,
            forward: Tensor::from_vec(forward, (reach, 2 * freqs), device)?,
            inverse: Tensor::from_vec(inverse, (2 * freqs, reach), device)?,
            lengths: Vec::new(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &StftConfig {
        &self.config
    }

    /// The tables for signals of `samples` samples.
    fn length(&mut self, samples: usize) -> Result<Length> {
        if let Some(known) = self.lengths.iter().find(|known| known.samples == samples) {
            return Ok(known.clone());
        }
        let StftConfig { n_fft, hop_length, win_length, .. } = self.config;
        let frames = self.config.frames(samples);
        let padded = (frames + self.blocks - 1) * hop_length;
        let padding: Vec<u32> =
            (0..padded).map(|i| reflect(i as isize - (n_fft / 2) as isize, samples) as u32).collect();
        let window = hann_analysis_window(win_length, n_fft);
        let mut envelope = vec![0f32; samples];
        for start in (0..frames).map(|t| t * hop_length) {
            for (n, w) in window.iter().enumerate() {
                if let Some(e) = (start + n).checked_sub(n_fft / 2).and_then(|i| envelope.get_mut(i)) {
                    *e += w * w;
                }
            }
        }
        let weights: Vec<f32> =
            envelope.into_iter().map(|e| if e > 1e-11 { e.recip() } else { 0.0 }).collect();
        let device = self.forward.device();
        let length = Length {
            samples,
            padding: Tensor::from_vec(padding, padded, device)?,
            weights: Tensor::from_vec(weights, samples, device)?,
        };
        self.lengths.truncate(MAX_KEPT_LENGTHS - 1);
        self.lengths.insert(0, length.clone());
        Ok(length)
    }

    /// signals: [n, samples] → real and imaginary parts [n, frames, 2 · freqs], all real parts of a frame first. At least
    /// [`StftConfig::min_samples`] samples.
    pub fn forward(&mut self, signals: &Tensor) -> Result<Tensor> {
        let (n, samples) = signals.dims2()?;
        let (hop, frames) = (self.config.hop_length, self.config.frames(samples));
        let padding = self.length(samples)?.padding;
        let padded = signals.index_select(&padding, 1)?.reshape((n, frames + self.blocks - 1, hop))?;
        let shifted = (0..self.blocks).map(|r| padded.narrow(1, r, frames)).collect::<Result<Vec<_>>>()?;
        let rows = Tensor::cat(&shifted, 2)?.contiguous()?.reshape((n * frames, self.blocks * hop))?;
        rows.matmul(&self.forward)?.reshape((n, frames, ()))
    }

    /// spectra: [n, frames, 2 · freqs], contiguous, as [`DeviceStft::forward`] gives them → [n, samples].
    pub fn inverse(&mut self, spectra: &Tensor, samples: usize) -> Result<Tensor> {
        let (n, frames, columns) = spectra.dims3()?;
        let hop = self.config.hop_length;
        let weights = self.length(samples)?.weights;
        let pieces = spectra.reshape((n * frames, columns))?.matmul(&self.inverse)?.reshape((
            n,
            frames,
            self.blocks,
            hop,
        ))?;
        let mut sum: Option<Tensor> = None;
        for r in 0..self.blocks {
            let piece = pieces.narrow(2, r, 1)?.squeeze(2)?.contiguous()?;
            let piece = piece.pad_with_zeros(1, r, self.blocks - 1 - r)?;
            sum = Some(match sum {
                Some(sum) => (sum + piece)?,
                None => piece,
            });
        }
        let Some(sum) = sum else { return Tensor::zeros((n, samples), DType::F32, spectra.device()) };
        let joined = sum.reshape((n, (frames + self.blocks - 1) * hop))?;
        let first = self.config.n_fft / 2;
        let missing = (first + samples).saturating_sub(joined.dim(1)?);
        joined.pad_with_zeros(1, 0, missing)?.narrow(1, first, samples)?.broadcast_mul(&weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsp::snr_db;
    use crate::dsp::stft::Stft;
    use num_complex::Complex32;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Transforms of every kind of checkpoint, and lengths that are and are not multiples of the hop.
    const CASES: [(usize, usize, usize, bool, usize); 9] = [
        (2048, 441, 2048, false, 9999),
        (2048, 512, 2048, true, 8192),
        (2048, 512, 2048, false, 8191),
        (1024, 256, 800, false, 3001),
        (256, 64, 200, true, 1001),
        (255, 60, 255, false, 777),
        (64, 16, 33, true, 33),
        (64, 64, 64, false, 500),
        (64, 48, 64, false, 500),
    ];

    #[test]
    fn spectra_are_those_of_the_fast_transform() {
        for (n_fft, hop_length, win_length, normalized, samples) in CASES {
            let config = StftConfig { n_fft, hop_length, win_length, normalized };
            let (stft, freqs, frames) = (Stft::new(config), config.freqs(), config.frames(samples));
            let mut device_stft = DeviceStft::new(config, &Device::Cpu).unwrap();
            let signals = noise(2 * samples, 1);
            let tensor = Tensor::from_slice(&signals, (2, samples), &Device::Cpu).unwrap();
            let found = device_stft.forward(&tensor).unwrap();
            assert_eq!(found.dims(), [2, frames, 2 * freqs]);
            let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
            let mut expected = Vec::new();
            for signal in signals.chunks_exact(samples) {
                let mut spec = vec![Complex32::default(); frames * freqs];
                stft.forward(signal, 0, 1, &mut spec);
                for row in spec.chunks_exact(freqs) {
                    expected.extend(row.iter().map(|c| c.re).chain(row.iter().map(|c| c.im)));
                }
            }
            let snr = snr_db(&expected, &found);
            assert!(snr > 115.0, "n_fft {n_fft} hop {hop_length} win {win_length}: {snr:.1} dB");
        }
    }

    #[test]
    fn signals_are_those_of_the_fast_inverse_whatever_the_masks_did() {
        for (n_fft, hop_length, win_length, normalized, samples) in CASES {
            let config = StftConfig { n_fft, hop_length, win_length, normalized };
            let (stft, freqs, frames) = (Stft::new(config), config.freqs(), config.frames(samples));
            let mut device_stft = DeviceStft::new(config, &Device::Cpu).unwrap();
            // Noise is no signal's spectrum: its first and last bins are not real, its frames do not fit each other.
            let values = noise(2 * frames * 2 * freqs, 2);
            let tensor = Tensor::from_slice(&values, (2, frames, 2 * freqs), &Device::Cpu).unwrap();
            let found = device_stft.inverse(&tensor, samples).unwrap().flatten_all().unwrap();
            let mut expected = vec![0f32; 2 * samples];
            for (values, signal) in
                values.chunks_exact(frames * 2 * freqs).zip(expected.chunks_exact_mut(samples))
            {
                let spec: Vec<Complex32> = values
                    .chunks_exact(2 * freqs)
                    .flat_map(|row| (0..freqs).map(|f| Complex32::new(row[f], row[freqs + f])))
                    .collect();
                stft.inverse(&spec, 0, 1, signal);
            }
            let snr = snr_db(&expected, &found.to_vec1::<f32>().unwrap());
            assert!(snr > 105.0, "n_fft {n_fft} hop {hop_length} win {win_length}: {snr:.1} dB");
        }
    }

    #[test]
    fn a_transform_too_long_for_a_table_is_refused() {
        let n_fft = MAX_N_FFT + 1;
        let config = StftConfig { n_fft, hop_length: 512, win_length: 2048, normalized: false };
        let Err(error) = DeviceStft::new(config, &Device::Cpu) else { panic!("accepted") };
        let error = error.to_string();
        assert!(error.contains("n_fft 16385") && error.contains("the CPU"), "{error}");
    }

    #[test]
    fn tables_of_a_few_lengths_are_kept() {
        let config = StftConfig { n_fft: 64, hop_length: 16, win_length: 64, normalized: false };
        let mut device_stft = DeviceStft::new(config, &Device::Cpu).unwrap();
        for samples in (100..120).chain([119, 118]) {
            let signal = Tensor::zeros((1, samples), DType::F32, &Device::Cpu).unwrap();
            let spectra = device_stft.forward(&signal).unwrap();
            assert_eq!(device_stft.inverse(&spectra, samples).unwrap().dims(), [1, samples]);
        }
        assert_eq!(device_stft.lengths.len(), MAX_KEPT_LENGTHS);
    }
}
