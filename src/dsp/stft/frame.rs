//! One frame of the transform at a time, for signals that come in pieces.

use rustfft::num_complex::Complex32;

use super::Stft;

/// What the transform of one frame needs, so that a loop over frames allocates once.
pub struct FrameBuffers {
    frame: Vec<f32>,
    bins: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Stft {
    /// Buffers for [`Self::forward_frame`] and [`Self::inverse_frame`].
    pub fn buffers(&self) -> FrameBuffers {
        let scratch = self.forward.get_scratch_len().max(self.inverse.get_scratch_len());
        FrameBuffers {
            frame: self.forward.make_input_vec(),
            bins: self.forward.make_output_vec(),
            scratch: vec![Complex32::default(); scratch],
        }
    }

    /// The analysis window: `n_fft` values, zeros around the Hann window of `win_length`.
    pub fn window(&self) -> &[f32] {
        &self.analysis_window
    }

    /// Spectrum of one channel of one frame, written into `row`: `[freqs, channels]` at `channel`. `sample` gives the frame's samples
    /// 0..n_fft.
    pub fn forward_frame(
        &self,
        mut sample: impl FnMut(usize) -> f32,
        channel: usize,
        channels: usize,
        row: &mut [Complex32],
        buffers: &mut FrameBuffers,
    ) {
        for (i, (x, w)) in buffers.frame.iter_mut().zip(&self.analysis_window).enumerate() {
            *x = sample(i) * w;
        }
        self.transform_frame(channel, channels, row, buffers);
    }

    /// As [`Self::forward_frame`] of the n_fft samples of `samples`.
    pub(super) fn forward_slice(
        &self,
        samples: &[f32],
        channel: usize,
        channels: usize,
        row: &mut [Complex32],
        buffers: &mut FrameBuffers,
    ) {
        let windowed = samples.iter().zip(&self.analysis_window);
        buffers.frame.iter_mut().zip(windowed).for_each(|(x, (sample, w))| *x = sample * w);
        self.transform_frame(channel, channels, row, buffers);
    }

    /// The spectrum of the windowed frame in `buffers`.
    fn transform_frame(
        &self,
        channel: usize,
        channels: usize,
        row: &mut [Complex32],
        buffers: &mut FrameBuffers,
    ) {
        let FrameBuffers { frame, bins, scratch } = buffers;
        // The buffers come from the plan, so their lengths are right and the call cannot fail.
        let done = self.forward.process_with_scratch(frame, bins, scratch);
        debug_assert!(done.is_ok());
        let scale = if self.config.normalized { 1.0 / (self.config.n_fft as f32).sqrt() } else { 1.0 };
        for (values, bin) in row.chunks_exact_mut(channels).zip(bins.iter()) {
            values[channel] = bin * scale;
        }
    }

    /// What the inverse's sums of windowed frames are to be multiplied with, before the envelope divides them: realfft's inverse
    /// is unnormalised.
    pub fn inverse_scale(&self) -> f32 {
        let n_fft = self.config.n_fft as f32;
        if self.config.normalized { 1.0 / n_fft.sqrt() } else { 1.0 / n_fft }
    }

    /// Samples of one channel of one frame, `row` `[freqs, channels]`: `n_fft` of them, before window and
    /// [`scale`](Self::inverse_scale).
    pub fn inverse_frame<'a>(
        &self,
        row: &[Complex32],
        channel: usize,
        channels: usize,
        buffers: &'a mut FrameBuffers,
    ) -> &'a [f32] {
        let FrameBuffers { frame, bins, scratch } = buffers;
        for (bin, values) in bins.iter_mut().zip(row.chunks_exact(channels)) {
            *bin = values[channel];
        }
        // A real signal has real first and last bins; masks don't keep them so, and torch drops the imaginary part.
        let last = bins.len() - 1;
        bins[0].im = 0.0;
        if self.config.n_fft.is_multiple_of(2) {
            bins[last].im = 0.0;
        }
        let done = self.inverse.process_with_scratch(bins, frame, scratch);
        debug_assert!(done.is_ok());
        frame
    }
}
