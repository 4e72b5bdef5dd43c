//! The stems' frames of a pass to samples: final ones, and provisional ones behind them.

use rayon::prelude::*;

use super::FrameTiming;
use super::hops::{Pass, StemSpectra};
use super::overlap::{OverlapLine, add_windowed};
use super::state::StreamState;
use crate::dsp::stft::{FrameBuffers, Stft, normalise};

/// Where the frames of a pass go. Samples count from the start of the stream.
#[derive(Clone, Copy)]
struct Layout {
    timing: FrameTiming,
    n_fft: usize,
    /// Frames that become final, and behind them those of the lookahead.
    finals: (u64, u64),
    last: u64,
    /// Final samples, and provisional samples behind them.
    samples: (u64, u64),
    provisional: usize,
}

/// Time-domain frames of one line, before the window.
trait FrameSource {
    /// The frame of this number in the pass; none where it is silent.
    fn frame(&mut self, index: usize) -> Option<&[f32]>;
}

/// Every frame is the window itself: what the sum of squared windows is made of.
struct Squares<'a>(&'a [f32]);

impl FrameSource for Squares<'_> {
    fn frame(&mut self, _: usize) -> Option<&[f32]> {
        Some(self.0)
    }
}

/// The frames of one channel of one stem.
struct StemFrames<'a> {
    stft: &'a Stft,
    spectra: Option<&'a StemSpectra<'a>>,
    stem: usize,
    channel: usize,
    channels: usize,
    buffers: &'a mut FrameBuffers,
}

impl FrameSource for StemFrames<'_> {
    fn frame(&mut self, index: usize) -> Option<&[f32]> {
        let row = self.spectra?.row(self.stem, index);
        Some(self.stft.inverse_frame(row, self.channel, self.channels, self.buffers))
    }
}

impl Layout {
    /// Samples that are written, final and provisional.
    fn len(&self) -> usize {
        (self.samples.1 - self.samples.0) as usize + self.provisional
    }

    /// Position of a frame's first sample.
    fn start(&self, frame: u64) -> i64 {
        (frame * self.timing.hop_length() as u64) as i64 - (self.n_fft / 2) as i64
    }

    /// Overlap-add of one line: `out` ← its samples, `sums` ← what later frames still reach.
    fn add(&self, mut sums: OverlapLine<'_>, out: &mut [f32], window: &[f32], source: &mut impl FrameSource) {
        let (begin, end) = self.samples;
        let mut done = 0;
        for frame in self.finals.0..self.finals.1 {
            let from = begin + done as u64;
            if let Some(samples) = source.frame((frame - self.finals.0) as usize) {
                sums.add(samples, window, (from as i64 - self.start(frame)) as usize);
            }
            let last = frame + 1 == self.finals.1;
            let until = if last { end } else { self.timing.final_samples(frame + 1).min(end) };
            let count = (until - from) as usize;
            sums.emit(&mut out[done..done + count]);
            done += count;
        }
        let ahead = &mut out[done..];
        sums.peek(ahead);
        for frame in self.finals.1..self.last {
            let from = self.start(frame) - end as i64;
            let (at, skip) = (from.max(0) as usize, (-from).max(0) as usize);
            if let (Some(samples), Some(ahead)) =
                (source.frame((frame - self.finals.0) as usize), ahead.get_mut(at..))
            {
                add_windowed(ahead, samples, window, skip);
            }
        }
    }
}

impl StreamState {
    /// Adds the stems' frames of a pass to the sums, hands out what is final and what is provisional, and moves on.
    pub(super) fn add_frames(
        &mut self,
        stft: &Stft,
        pass: &Pass,
        spectra: &StemSpectra<'_>,
        buffers: &mut [FrameBuffers],
        envelope: &mut Vec<f32>,
    ) {
        let layout = self.layout(pass);
        let (channels, spectra) = (self.channels, (!pass.silent).then_some(spectra));
        let (lines, squares) = self.sums.lines();
        envelope.clear();
        envelope.resize(layout.len(), 0.0);
        layout.add(squares, envelope, stft.window(), &mut Squares(stft.window()));
        let (envelope, scale) = (envelope.as_slice(), stft.inverse_scale());
        let at = self.output.final_len;
        let outputs = self.output.samples.par_chunks_exact_mut(self.output.stride);
        lines.zip(outputs).zip(buffers).enumerate().for_each(|(line, ((sums, out), buffers))| {
            let out = &mut out[at..at + layout.len()];
            let (stem, channel) = (line / channels, line % channels);
            let mut frames = StemFrames { stft, spectra, stem, channel, channels, buffers };
            layout.add(sums, out, stft.window(), &mut frames);
            for (x, envelope) in out.iter_mut().zip(envelope) {
                let sample = normalise(*x * scale, *envelope);
                *x = if sample.is_finite() { sample } else { 0.0 };
            }
        });
        self.add_complement(&layout);
        self.output.final_len += (layout.samples.1 - layout.samples.0) as usize;
        self.output.provisional_len = layout.provisional;
        self.final_frames = layout.finals.1;
        self.interrupted = false;
        self.forget();
    }

    fn layout(&self, pass: &Pass) -> Layout {
        let timing = self.timing();
        let next = self.final_frames + pass.finals as u64;
        let last = pass.first + pass.frames as u64;
        let end = self.final_samples_after(next);
        // Up to the centre of the last frame.
        let seen = (last.saturating_sub(1) * timing.hop_length() as u64).min(self.received_samples());
        let provisional = if next < last { seen.saturating_sub(end) } else { 0 };
        Layout {
            timing,
            n_fft: self.n_fft,
            finals: (self.final_frames, next),
            last,
            samples: (self.final_samples(), end),
            provisional: provisional.min(self.plan().provisional_samples(&timing)) as usize,
        }
    }

    /// What the network's stems leave of the mixture, where that is a stem.
    fn add_complement(&mut self, layout: &Layout) {
        let (channels, at, stride) = (self.channels, self.output.final_len, self.output.stride);
        let network = self.sums.count();
        if self.stems * channels == network {
            return;
        }
        let mut samples = std::mem::take(&mut self.output.samples);
        let (stems, rest) = samples.split_at_mut(network * stride);
        for (channel, out) in rest.chunks_exact_mut(stride).enumerate() {
            let read = self.reader(channel);
            let stem = &stems[channel * stride..][..stride];
            let positions = layout.samples.0 as i64..;
            for ((x, stem), position) in out[at..at + layout.len()].iter_mut().zip(&stem[at..]).zip(positions)
            {
                *x = read(position) - stem;
            }
        }
        self.output.samples = samples;
    }
}
