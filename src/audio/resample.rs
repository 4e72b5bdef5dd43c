//! Sample-rate conversion of a stream, aligned and of exact length.
//!
//! The engine is rubato's synchronous FFT resampler in `f64`: a sinc under a squared Blackman-Harris window,
//! whose stop band lies below 120 dB, applied as a linear-phase filter. Its block (and so the length of the
//! filter) is chosen long, 4096 samples of the slower rate, which keeps the pass band flat to about
//! 99 % of the slower Nyquist frequency.

use rubato::audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use super::{AudioError, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Planar};
use crate::dsp::lowest_terms;

/// Shortest filter, in samples of the slower rate. The transition band is about 13.7 / `FILTER_SAMPLES` of
/// the band, 74 Hz at 44.1 kHz on either side of the cutoff.
const FILTER_SAMPLES: usize = 4096;
/// Most samples in the blocks of all channels. Rates without a common divisor, such as only broken headers have, need long blocks.
const MAX_BLOCK_SAMPLES: usize = 1 << 23;

/// Converts a stream of blocks of any size between two fixed rates.
///
/// The output is aligned with the input (the filter's delay is removed) and has exactly `round(samples · to / from)`
/// samples after [`finish`](Self::finish). Equal rates pass through bit for bit. The result does not depend on the
/// block sizes of the input.
pub struct Resampler {
    from: u32,
    to: u32,
    channels: usize,
    // None when the rates are equal.
    engine: Option<FftEngine>,
    /// Samples per channel pushed.
    taken: u64,
    /// Samples per channel returned.
    given: u64,
}

struct FftEngine {
    fft: Fft<f64>,
    /// `[channels][block_in]`, of which the first `filled` samples are set.
    input: Vec<Vec<f64>>,
    filled: usize,
    /// `[channels][block_out]`.
    output: Vec<Vec<f64>>,
    /// Samples of the filter's delay still to be discarded.
    skip: usize,
    block_in: usize,
    block_out: usize,
}

impl Resampler {
    /// Prepares the conversion of `channels` channels from `from` Hz to `to` Hz.
    ///
    /// # Errors
    /// [`AudioError::Resample`] when a rate is below [`MIN_SAMPLE_RATE`] or above [`MAX_SAMPLE_RATE`], the channels are none or more
    /// than [`MAX_CHANNELS`], or the conversion would take more than some 200 MB.
    pub fn new(from: u32, to: u32, channels: usize) -> Result<Self, AudioError> {
        let refuse = |what: String| AudioError::Resample { from, to, what };
        if [from, to].iter().any(|rate| !(MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(rate)) {
            return Err(refuse(format!("rates from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are possible")));
        }
        if channels == 0 || channels > MAX_CHANNELS {
            return Err(refuse(format!("{channels} channels, expected 1 to {MAX_CHANNELS}")));
        }
        let engine = match from == to {
            true => None,
            false => Some(FftEngine::new(from, to, channels).map_err(refuse)?),
        };
        Ok(Self { from, to, channels, engine, taken: 0, given: 0 })
    }

    /// Output length for `samples` samples of input: `round(samples · to / from)`, halves rounded up.
    pub fn output_samples(&self, samples: u64) -> u64 {
        let (from, to) = (u128::from(self.from), u128::from(self.to));
        ((u128::from(samples) * to * 2 + from) / (2 * from)) as u64
    }

    /// Converts a block and appends the finished samples to `out`. `out` must have the stream's channels.
    ///
    /// # Errors
    /// [`AudioError::Channels`] when either block has another number of channels.
    pub fn push(&mut self, block: &Planar, out: &mut Planar) -> Result<(), AudioError> {
        for found in [block.channels(), out.channels()] {
            if found != self.channels {
                return Err(AudioError::Channels { expected: self.channels, found });
            }
        }
        let (from, to) = (self.from, self.to);
        let refuse = |what| AudioError::Resample { from, to, what };
        self.taken += block.samples() as u64;
        let Some(engine) = &mut self.engine else {
            out.append(block);
            self.given = self.taken;
            return Ok(());
        };
        let mut at = 0;
        while at < block.samples() {
            at += engine.fill_input(block, at);
            if engine.filled == engine.block_in {
                self.given += engine.process_block(out, u64::MAX).map_err(refuse)?;
            }
        }
        Ok(())
    }

    /// Appends the remaining samples to `out` and resets for another stream of the same rates.
    ///
    /// # Errors
    /// [`AudioError::Channels`] when `out` has another number of channels.
    pub fn finish(&mut self, out: &mut Planar) -> Result<(), AudioError> {
        if out.channels() != self.channels {
            return Err(AudioError::Channels { expected: self.channels, found: out.channels() });
        }
        let total = self.output_samples(self.taken);
        if let Some(engine) = &mut self.engine {
            while self.given < total {
                engine.zero_fill();
                self.given += engine
                    .process_block(out, total - self.given)
                    .map_err(|what| AudioError::Resample { from: self.from, to: self.to, what })?;
            }
            engine.reset();
        }
        (self.taken, self.given) = (0, 0);
        Ok(())
    }
}

impl FftEngine {
    fn new(from: u32, to: u32, channels: usize) -> Result<Self, String> {
        let (unit_in, unit_out) = lowest_terms(from, to);
        let (unit_in, unit_out) = (unit_in as usize, unit_out as usize);
        // An even number of units makes the filter's centre, and with it the delay, a whole number of
        // samples at both rates.
        let units = FILTER_SAMPLES.div_ceil(unit_in.min(unit_out)).next_multiple_of(2);
        if units * (unit_in + unit_out) * channels > MAX_BLOCK_SAMPLES {
            return Err(format!("{channels} channels at these rates would take too much memory"));
        }
        let fft = Fft::new_custom(
            from as usize,
            to as usize,
            units * unit_in,
            1,
            channels,
            WindowFunction::BlackmanHarris2,
            FixedSync::Both,
        )
        .map_err(|error| error.to_string())?;
        let (block_in, block_out) = (fft.input_frames_next(), fft.output_frames_next());
        Ok(Self {
            skip: fft.output_delay(),
            fft,
            input: vec![vec![0.0; block_in]; channels],
            filled: 0,
            output: vec![vec![0.0; block_out]; channels],
            block_in,
            block_out,
        })
    }

    /// Copies samples of `block` from `at` on into the input block; returns how many there was room for.
    fn fill_input(&mut self, block: &Planar, at: usize) -> usize {
        let count = (self.block_in - self.filled).min(block.samples() - at);
        for (to, from) in self.input.iter_mut().zip(block.planes()) {
            for (to, &from) in to[self.filled..].iter_mut().zip(&from[at..at + count]) {
                *to = f64::from(from);
            }
        }
        self.filled += count;
        count
    }

    /// Fills the input block with zeros.
    fn zero_fill(&mut self) {
        for plane in &mut self.input {
            plane[self.filled..].fill(0.0);
        }
        self.filled = self.block_in;
    }

    /// Converts the full input block and appends at most `limit` samples; returns how many.
    fn process_block(&mut self, out: &mut Planar, limit: u64) -> Result<u64, String> {
        let channels = self.input.len();
        let input =
            SequentialSliceOfVecs::new(&self.input, channels, self.block_in).map_err(|e| e.to_string())?;
        let mut output = SequentialSliceOfVecs::new_mut(&mut self.output, channels, self.block_out)
            .map_err(|e| e.to_string())?;
        self.fft.process_into_buffer(&input, &mut output, None).map_err(|e| e.to_string())?;
        self.filled = 0;
        let skipped = self.skip.min(self.block_out);
        self.skip -= skipped;
        let ready = (self.block_out - skipped).min(usize::try_from(limit).unwrap_or(usize::MAX));
        for (to, from) in out.planes_mut().iter_mut().zip(&self.output) {
            to.extend(from[skipped..skipped + ready].iter().map(|&sample| sample as f32));
        }
        Ok(ready as u64)
    }

    fn reset(&mut self) {
        self.fft.reset();
        self.filled = 0;
        self.skip = self.fft.output_delay();
    }
}
