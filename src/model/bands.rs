//! The assignment of frequency bins to bands.

/// The default split of BS-RoFormer: 62 bands over 1025 bins (arXiv 2309.02612, section 4.1, as trained by the community).
pub fn default_freqs_per_bands() -> Vec<usize> {
    let mut bands = vec![2; 24];
    bands.extend([4; 12]);
    bands.extend([12; 8]);
    bands.extend([24; 8]);
    bands.extend([48; 8]);
    bands.extend([128, 129]);
    bands
}

/// Bins of each mel band, ascending: element `k` lists the bins that band `k` owns. Bands overlap.
///
/// A band owns every bin with a positive weight in the Slaney mel filter bank of `librosa.filters.mel` (its defaults:
/// 0 Hz to Nyquist); the first band also owns bin 0 and the last one the Nyquist bin (arXiv 2310.01809, section 2).
pub fn mel_bands(sample_rate: u32, n_fft: usize, num_bands: usize) -> Vec<Vec<usize>> {
    let freqs = n_fft / 2 + 1;
    let nyquist = f64::from(sample_rate) / 2.0;
    let top = hz_to_mel(nyquist);
    // numpy.linspace: start + i·step, the last point exact.
    let points: Vec<f64> = (0..num_bands + 2)
        .map(|i| mel_to_hz(if i == num_bands + 1 { top } else { i as f64 * (top / (num_bands + 1) as f64) }))
        .collect();
    // numpy.fft.rfftfreq: i / (n·d) with d = 1 / sample_rate.
    let bin_hz = |f: usize| f as f64 * (1.0 / (n_fft as f64 * (1.0 / f64::from(sample_rate))));
    let mut bands: Vec<Vec<usize>> = points
        .windows(3)
        .map(|edge| {
            let (rise, fall) = (edge[1] - edge[0], edge[2] - edge[1]);
            let scale = 2.0 / (edge[2] - edge[0]);
            (0..freqs)
                .filter(|&f| {
                    let lower = (bin_hz(f) - edge[0]) / rise;
                    let upper = (edge[2] - bin_hz(f)) / fall;
                    // librosa stores the triangle as f32 before scaling, so a weight that underflows there is zero.
                    let triangle = lower.min(upper).max(0.0) as f32;
                    (f64::from(triangle) * scale) as f32 > 0.0
                })
                .collect()
        })
        .collect();
    if let Some(first) = bands.first_mut()
        && first.first() != Some(&0)
    {
        first.insert(0, 0);
    }
    if let Some(last) = bands.last_mut()
        && last.last() != Some(&(freqs - 1))
    {
        last.push(freqs - 1);
    }
    bands
}

/// The features of a frame, (f s) c, that the bands own, in band order.
pub struct BandLayout {
    /// Index in the frame of every band feature.
    pub indices: Vec<usize>,
    /// 1 / number of bands that own a feature of the frame, or 0: masks of shared bins are averaged.
    pub weights: Vec<f32>,
    /// Whether the bands cover the frame in order, so that no gather is needed.
    pub whole: bool,
}

impl BandLayout {
    /// The layout of `bands` (lists of bins) in frames of `frame` features, with `bin` features per bin.
    pub fn new(bands: &[Vec<usize>], bin: usize, frame: usize) -> Self {
        let indices: Vec<usize> = bands.iter().flatten().flat_map(|&f| f * bin..(f + 1) * bin).collect();
        let mut owners = vec![0u32; frame];
        indices.iter().for_each(|&i| owners[i] += 1);
        Self {
            whole: indices.len() == frame && indices.iter().enumerate().all(|(i, &f)| i == f),
            weights: owners.iter().map(|&n| if n == 0 { 0.0 } else { 1.0 / n as f32 }).collect(),
            indices,
        }
    }

    /// Gathers the band features of each frame. spec: [frames, features of a frame] → out: [frames, band features]
    pub(super) fn gather(&self, spec: &[f32], frame: usize, out: &mut Vec<f32>) {
        out.clear();
        for row in spec.chunks_exact(frame) {
            out.extend(self.indices.iter().map(|&i| row[i]));
        }
    }

    /// Maps the masks of all bands to their frames; bins shared by several bands get the mean.
    pub(super) fn scatter(&self, masks: &[f32], frame: usize, out: &mut [f32]) {
        for (row, out) in masks.chunks_exact(self.indices.len()).zip(out.chunks_exact_mut(frame)) {
            out.fill(0.0);
            self.indices.iter().zip(row).for_each(|(&i, mask)| out[i] += mask);
            out.iter_mut().zip(&self.weights).for_each(|(mask, weight)| *mask *= weight);
        }
    }
}

/// Slaney's mel scale: linear below 1 kHz, logarithmic above.
fn hz_to_mel(hz: f64) -> f64 {
    let (step, corner) = (200.0 / 3.0, 1000.0);
    if hz < corner { hz / step } else { corner / step + (hz / corner).ln() / (6.4f64.ln() / 27.0) }
}

fn mel_to_hz(mel: f64) -> f64 {
    let (step, corner) = (200.0 / 3.0, 1000.0);
    let corner_mel = corner / step;
    if mel < corner_mel { mel * step } else { corner * ((6.4f64.ln() / 27.0) * (mel - corner_mel)).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_bands_cover_1025_bins_in_62_bands() {
        let bands = default_freqs_per_bands();
        assert_eq!((bands.len(), bands.iter().sum::<usize>()), (62, 1025));
    }

    #[test]
    fn mel_bands_cover_every_bin_and_overlap() {
        let bands = mel_bands(44_100, 2048, 60);
        assert_eq!(bands.len(), 60);
        let mut owners = vec![0; 1025];
        for band in &bands {
            assert!(band.windows(2).all(|w| w[0] < w[1]));
            band.iter().for_each(|&f| owners[f] += 1);
        }
        assert!(owners.iter().all(|&n| (1..=2).contains(&n)), "{owners:?}");
        // Sizes given by librosa 0.10 filters.mel(sr=44100, n_fft=2048, n_mels=60) > 0, with both corners forced.
        assert_eq!(bands.iter().map(Vec::len).sum::<usize>(), 1979);
    }

    #[test]
    fn mel_scale_inverts() {
        for hz in [0.0, 440.0, 1000.0, 5000.0, 22_050.0] {
            assert!((mel_to_hz(hz_to_mel(hz)) - hz).abs() < 1e-9 * hz.max(1.0));
        }
    }
}
