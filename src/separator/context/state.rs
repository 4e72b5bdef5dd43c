//! What a model keeps of one stream.

use num_complex::Complex32;

use super::overlap::OverlapSums;
use super::{ContextPlan, FrameTiming};
use crate::dsp::stft::reflect;
use crate::separator::network::NetworkContext;
use crate::separator::{ModelSpec, SeparateError};

/// A stream between two hops. One owner; it may move between threads.
///
/// Input is [pushed](Self::push) as it comes. When frames are [ready](Self::ready_frames),
/// [`Separator::separate_hops`](super::Separator::separate_hops) makes them final, and [`output`](Self::output) holds their stems
/// until the next hop.
pub struct StreamState {
    /// Of the separator that opened it.
    pub(super) owner: u64,
    pub(super) plan: ContextPlan,
    pub(super) timing: FrameTiming,
    pub(super) n_fft: usize,
    pub(super) channels: usize,
    /// Stems that come out, the complement included.
    pub(super) stems: usize,
    /// Samples pushed so far.
    pub(super) received: u64,
    pub(super) finished: bool,
    /// Each channel from sample `input_first` on.
    pub(super) input: Vec<Vec<f32>>,
    pub(super) input_first: u64,
    /// Spectra [frames, freqs, channels] from frame `spectra_first` on.
    pub(super) spectra: Vec<Complex32>,
    pub(super) spectra_first: u64,
    /// The last frame that is not silent.
    pub(super) last_loud: Option<u64>,
    pub(super) final_frames: u64,
    pub(super) context: NetworkContext,
    pub(super) sums: OverlapSums,
    pub(super) output: Output,
    /// Whether a hop was begun and did not end: its context is half old, half new.
    pub(super) interrupted: bool,
}

/// The stems of a hop: [stems, channels, final + provisional samples].
#[derive(Default)]
pub(super) struct Output {
    pub first: u64,
    pub final_len: usize,
    pub provisional_len: usize,
    pub samples: Vec<f32>,
    /// From one line to the next.
    pub stride: usize,
    /// Whether the network was run.
    pub ran: bool,
}

impl StreamState {
    pub(super) fn new(owner: u64, info: &ModelSpec, plan: ContextPlan, context: NetworkContext) -> Self {
        let (stft, channels) = (info.architecture.stft, info.architecture.channels);
        let timing = FrameTiming::new(stft);
        let reach = (timing.reach_before() + timing.reach_after()) as usize;
        Self {
            owner,
            plan,
            timing,
            n_fft: stft.n_fft,
            channels,
            stems: info.stem_names().len(),
            received: 0,
            finished: false,
            input: vec![Vec::new(); channels],
            input_first: 0,
            spectra: Vec::new(),
            spectra_first: 0,
            last_loud: None,
            final_frames: 0,
            context,
            sums: OverlapSums::new(info.architecture.num_stems * channels, reach),
            output: Output::default(),
            interrupted: false,
        }
    }

    /// The plan that it was opened with.
    pub fn plan(&self) -> &ContextPlan {
        &self.plan
    }

    /// Where its frames and samples are.
    pub fn timing(&self) -> FrameTiming {
        self.timing
    }

    /// Samples pushed so far.
    pub fn received_samples(&self) -> u64 {
        self.received
    }

    /// Frames that are final.
    pub fn final_frames(&self) -> u64 {
        self.final_frames
    }

    /// Samples that are final.
    pub fn final_samples(&self) -> u64 {
        self.final_samples_after(self.final_frames)
    }

    /// How many frames can be made final now: those with the whole lookahead behind them, and after [`finish`](Self::finish) all that
    /// are left.
    pub fn ready_frames(&self) -> u64 {
        let ahead = if self.finished { 0 } else { self.plan.lookahead_frames as u64 };
        self.available_frames().saturating_sub(self.final_frames + ahead)
    }

    /// Whether the stream has ended and all of it is final.
    pub fn is_finished(&self) -> bool {
        self.finished && self.final_frames == self.available_frames()
    }

    /// Frames whose keys and values are kept now.
    pub fn context_len(&self) -> usize {
        self.context.len()
    }

    /// Bytes of the context; on candle they grow until it is full.
    pub fn context_bytes(&self) -> usize {
        self.context.bytes()
    }

    /// Bytes of all that it holds.
    pub fn bytes(&self) -> usize {
        let input: usize = self.input.iter().map(Vec::capacity).sum();
        let floats = input + 2 * self.spectra.capacity() + self.output.samples.capacity();
        self.context.bytes() + self.sums.bytes() + floats * size_of::<f32>()
    }

    /// Takes in the next samples: planar [channels, samples], any number of them. Values that are not finite become 0. Does not touch
    /// [`output`](Self::output).
    ///
    /// # Errors
    /// [`SeparateError::Shape`] where the channels are not of equal length; [`SeparateError::Finished`] after the end.
    pub fn push(&mut self, input: &[f32]) -> Result<(), SeparateError> {
        let channels = self.channels;
        if !input.len().is_multiple_of(channels) {
            return Err(SeparateError::Shape { channels, min: 0, found: input.len() });
        }
        if self.finished {
            return Err(SeparateError::Finished);
        }
        let samples = input.len() / channels;
        if samples > 0 {
            for (channel, new) in self.input.iter_mut().zip(input.chunks_exact(samples)) {
                channel.extend(new.iter().map(|x| if x.is_finite() { *x } else { 0.0 }));
            }
            self.received += samples as u64;
        }
        Ok(())
    }

    /// Ends the stream: the frames that are left mirror what they lack behind the last sample, and become ready.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The stems of the last hop.
    pub fn output(&self) -> HopOutput<'_> {
        HopOutput { output: &self.output, channels: self.channels }
    }

    /// Begins a new stream at sample and frame 0, without context. Keeps its memory.
    pub fn reset(&mut self) {
        (self.received, self.input_first, self.spectra_first, self.final_frames) = (0, 0, 0, 0);
        (self.finished, self.last_loud) = (false, None);
        self.input.iter_mut().for_each(Vec::clear);
        self.spectra.clear();
        self.sums.reset();
        self.output.clear(0);
        self.drop_context();
    }

    /// Forgets keys and values. The stream goes on where it is.
    pub fn drop_context(&mut self) {
        self.context.clear();
        self.interrupted = false;
    }

    /// Frames that are complete; of a stream that has ended all.
    pub(super) fn available_frames(&self) -> u64 {
        if self.finished {
            self.timing.total_frames(self.received)
        } else {
            self.timing.complete_frames(self.received)
        }
    }

    /// Samples that are final once `frames` frames are.
    pub(super) fn final_samples_after(&self, frames: u64) -> u64 {
        if self.finished && frames >= self.available_frames() {
            return self.received;
        }
        self.timing.final_samples(frames).min(self.received)
    }

    /// First sample of frame `frame` in the stream; negative before its start.
    pub(super) fn frame_start(&self, frame: u64) -> i64 {
        (frame * self.timing.hop_length() as u64) as i64 - (self.n_fft / 2) as i64
    }

    /// Reads one channel at positions of the stream, mirrored at its ends.
    pub(super) fn reader(&self, channel: usize) -> impl Fn(i64) -> f32 + use<'_> {
        let samples = self.input[channel].as_slice();
        let (first, received, finished) = (self.input_first as i64, self.received as usize, self.finished);
        move |position| {
            let position =
                if finished { reflect(position as isize, received) as i64 } else { position.abs() };
            // Beyond what is there the window is zero.
            usize::try_from(position - first).ok().and_then(|i| samples.get(i)).copied().unwrap_or(0.0)
        }
    }

    /// Forgets input and spectra that no later hop reads.
    pub(super) fn forget(&mut self) {
        let next = self.spectra_first + self.frames_of_spectra();
        let mirrored = self.received.saturating_sub(self.n_fft as u64 / 2 + 1);
        let needed = self.final_samples().min(self.frame_start(next).max(0) as u64).min(mirrored);
        let gone = (needed.saturating_sub(self.input_first) as usize).min(self.input[0].len());
        self.input.iter_mut().for_each(|channel| drop(channel.drain(..gone)));
        self.input_first += gone as u64;
        let first = self.final_frames.saturating_sub(self.plan.margin_frames as u64);
        let gone = first.saturating_sub(self.spectra_first).min(self.frames_of_spectra());
        self.spectra.drain(..gone as usize * self.bins());
        self.spectra_first += gone;
    }

    /// Values of a frame's spectrum: freqs · channels.
    pub(super) fn bins(&self) -> usize {
        (self.n_fft / 2 + 1) * self.channels
    }

    /// Frames whose spectra are held.
    pub(super) fn frames_of_spectra(&self) -> u64 {
        (self.spectra.len() / self.bins()) as u64
    }
}

impl std::fmt::Debug for StreamState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamState")
            .field("plan", &self.plan)
            .field("received", &self.received)
            .field("final_frames", &self.final_frames)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// Nothing, from sample `first` on.
    pub fn clear(&mut self, first: u64) {
        (self.first, self.final_len, self.provisional_len, self.stride) = (first, 0, 0, 0);
        self.ran = false;
        self.samples.clear();
    }
}

/// What a hop gave.
#[derive(Clone, Copy)]
pub struct HopOutput<'a> {
    output: &'a Output,
    channels: usize,
}

impl<'a> HopOutput<'a> {
    /// Position in the stream of the first final sample. Hops join without a gap.
    pub fn first_sample(&self) -> u64 {
        self.output.first
    }

    /// Final samples.
    pub fn final_len(&self) -> usize {
        self.output.final_len
    }

    /// Provisional samples, which follow the final ones and which the next hop replaces.
    pub fn provisional_len(&self) -> usize {
        self.output.provisional_len
    }

    /// Whether all that the network would have seen was silent, so that it was not run.
    pub fn is_silent(&self) -> bool {
        !self.output.ran
    }

    /// Final samples of a channel of a stem; empty for one that there is not.
    pub fn final_samples(&self, stem: usize, channel: usize) -> &'a [f32] {
        self.line(stem, channel, 0..self.output.final_len)
    }

    /// Provisional samples of a channel of a stem.
    pub fn provisional_samples(&self, stem: usize, channel: usize) -> &'a [f32] {
        let Output { final_len, provisional_len, .. } = *self.output;
        self.line(stem, channel, final_len..final_len + provisional_len)
    }

    fn line(&self, stem: usize, channel: usize, samples: std::ops::Range<usize>) -> &'a [f32] {
        let Output { samples: all, stride, .. } = self.output;
        let line = if channel < self.channels { stem * self.channels + channel } else { usize::MAX };
        let line = line.checked_mul(*stride).and_then(|first| all.get(first..first + stride));
        line.and_then(|line| line.get(samples)).unwrap_or(&[])
    }
}
