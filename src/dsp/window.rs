//! The STFT's Hann analysis window and the weights that crossfade chunks.

use std::f64::consts::TAU;

/// Periodic Hann window of `win_length` samples, zero-padded and centred to `n_fft`, as `torch.stft` prepares it.
///
/// The cosine is taken in f64, so the window is the f32 nearest to the exact one.
pub fn hann_analysis_window(win_length: usize, n_fft: usize) -> Vec<f32> {
    let mut window = vec![0.0; n_fft];
    let left = n_fft.saturating_sub(win_length) / 2;
    for (n, w) in window[left..].iter_mut().take(win_length).enumerate() {
        *w = (0.5 - 0.5 * (TAU * n as f64 / win_length as f64).cos()) as f32;
    }
    window
}

/// Weight of sample `i` of a chunk of `chunk` samples in the overlap-add: a linear fade of `fade` samples in and out, 1
/// between. The ends are those of `torch.linspace(0, 1, fade)`: the first sample weighs 0, the last of the fade 1.
///
/// The first chunk of a song keeps its head at 1 (`first`), the last one its tail (`last`).
pub fn chunk_weight(i: usize, chunk: usize, fade: usize, first: bool, last: bool) -> f32 {
    let ramp = |k: usize| if fade > 1 { k as f32 / (fade - 1) as f32 } else { 0.0 };
    let mut weight = 1.0;
    if !first && i < fade {
        weight *= ramp(i);
    }
    if !last && i + fade >= chunk {
        weight *= ramp(chunk - 1 - i);
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hann_is_periodic_and_centred() {
        let w = hann_analysis_window(4, 8);
        let expected = [0.0, 0.0, 0.0, 0.5, 1.0, 0.5, 0.0, 0.0];
        assert!(w.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-7), "{w:?}");
    }

    #[test]
    fn chunk_weight_fades_both_ends_except_at_the_song_ends() {
        assert_eq!(chunk_weight(0, 100, 10, false, false), 0.0);
        assert_eq!(chunk_weight(9, 100, 10, false, false), 1.0);
        assert_eq!(chunk_weight(0, 100, 10, true, false), 1.0);
        assert_eq!(chunk_weight(99, 100, 10, false, false), 0.0);
        assert_eq!(chunk_weight(99, 100, 10, false, true), 1.0);
        assert_eq!(chunk_weight(50, 100, 10, false, false), 1.0);
    }
}
