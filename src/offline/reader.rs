//! Readers of a song at the model's rate: from a file, from a spooled signal, from memory.

use std::path::Path;

use super::error::OfflineError;
use super::spool::Spool;
use crate::audio::{AudioError, Decoder, Planar, Resampler};

/// A stream of planar blocks at the model's sample rate.
pub trait SongReader {
    /// Channels of every block.
    fn channels(&self) -> usize;
    /// Appends up to `max` samples to `out` and returns how many; 0 at the end.
    ///
    /// # Errors
    /// [`OfflineError`], from reading or resampling.
    fn read(&mut self, max: usize, out: &mut Planar) -> Result<usize, OfflineError>;
}

/// Samples decoded at a time.
const BLOCK: usize = 1 << 15;

/// Reads an audio file, resampled to the model's rate, with non-finite samples set to 0.
pub struct FileReader {
    decoder: Decoder,
    resampler: Resampler,
    decoded: Planar,
    ready: Planar,
    cleaned: u64,
    /// Factor for all samples.
    gain: f32,
    /// Samples still to be decoded; `None` to the end of the file.
    left: Option<u64>,
    ended: bool,
}

impl FileReader {
    /// Opens `path` at `sample_rate`.
    ///
    /// # Errors
    /// [`OfflineError::Audio`].
    pub fn open(path: &Path, sample_rate: u32) -> Result<Self, OfflineError> {
        let decoder = Decoder::open(path)?;
        let (rate, channels) = (decoder.info().sample_rate, decoder.info().channels);
        Ok(Self {
            resampler: Resampler::new(rate, sample_rate, channels)?,
            decoder,
            decoded: Planar::new(channels),
            ready: Planar::new(channels),
            cleaned: 0,
            gain: 1.0,
            left: None,
            ended: false,
        })
    }

    /// Multiplies all samples by `gain`.
    #[must_use]
    pub fn with_gain(self, gain: f32) -> Self {
        Self { gain, ..self }
    }

    /// Reads only the samples from `start` up to `end` (`None` for all that follow), counted at the rate of the file.
    ///
    /// # Errors
    /// [`OfflineError::Audio`] while the samples before are skipped.
    pub fn with_range(mut self, start: u64, end: Option<u64>) -> Result<Self, OfflineError> {
        skip_samples(&mut self.decoder, start)?;
        self.left = end.map(|end| end.saturating_sub(start));
        Ok(self)
    }

    /// Number of non-finite samples set to 0 so far.
    pub fn cleaned(&self) -> u64 {
        self.cleaned
    }

    /// The underlying decoder.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }
}

/// Reads past the first `samples` samples.
pub(super) fn skip_samples(decoder: &mut Decoder, mut samples: u64) -> Result<(), AudioError> {
    let mut block = Planar::default();
    while samples > 0 {
        block.clear();
        let count = decoder.read(BLOCK.min(usize::try_from(samples).unwrap_or(BLOCK)), &mut block)?;
        if count == 0 {
            break;
        }
        samples -= count as u64;
    }
    Ok(())
}

/// Largest absolute value of all finite samples from `start` up to `end`.
pub(super) fn peak(path: &Path, start: u64, end: Option<u64>) -> Result<f32, AudioError> {
    let mut decoder = Decoder::open(path)?;
    skip_samples(&mut decoder, start)?;
    let mut left = end.map_or(u64::MAX, |end| end.saturating_sub(start));
    let mut block = Planar::default();
    let mut peak = 0f32;
    loop {
        block.clear();
        let count = decoder.read(BLOCK.min(usize::try_from(left).unwrap_or(BLOCK)), &mut block)?;
        if count == 0 {
            return Ok(peak);
        }
        left -= count as u64;
        peak = block.iter().flatten().filter(|x| x.is_finite()).fold(peak, |peak, x| peak.max(x.abs()));
    }
}

/// Sets non-finite samples to 0 and returns their number.
pub(super) fn clean(block: &mut Planar) -> u64 {
    let mut cleaned = 0;
    for channel in block.iter_mut() {
        for x in channel.iter_mut().filter(|x| !x.is_finite()) {
            *x = 0.0;
            cleaned += 1;
        }
    }
    cleaned
}

impl SongReader for FileReader {
    fn channels(&self) -> usize {
        self.ready.channels()
    }

    fn read(&mut self, max: usize, out: &mut Planar) -> Result<usize, OfflineError> {
        while self.ready.is_empty() && !self.ended {
            self.decoded.clear();
            let count = self.left.map_or(BLOCK, |left| BLOCK.min(usize::try_from(left).unwrap_or(BLOCK)));
            let count = self.decoder.read(count, &mut self.decoded)?;
            self.left = self.left.map(|left| left - count as u64);
            if count == 0 {
                self.resampler.finish(&mut self.ready)?;
                self.ended = true;
            } else {
                self.cleaned += clean(&mut self.decoded);
                if self.gain != 1.0 {
                    self.decoded.iter_mut().flatten().for_each(|x| *x *= self.gain);
                }
                self.resampler.push(&self.decoded, &mut self.ready)?;
            }
        }
        let count = self.ready.samples().min(max);
        out.append_range(&self.ready, 0..count);
        self.ready.drop_front(count);
        Ok(count)
    }
}

/// Reads samples in memory.
pub struct MemoryReader<'a> {
    samples: &'a Planar,
    at: usize,
}

impl<'a> MemoryReader<'a> {
    /// A reader of all of `samples`.
    pub fn new(samples: &'a Planar) -> Self {
        Self { samples, at: 0 }
    }
}

impl SongReader for MemoryReader<'_> {
    fn channels(&self) -> usize {
        self.samples.channels()
    }

    fn read(&mut self, max: usize, out: &mut Planar) -> Result<usize, OfflineError> {
        let count = max.min(self.samples.samples() - self.at);
        out.append_range(self.samples, self.at..self.at + count);
        self.at += count;
        Ok(count)
    }
}

/// Reads a spooled signal, circularly shifted by `shift` samples.
pub(super) struct ShiftedReader<'a> {
    spool: &'a mut Spool,
    shift: usize,
    at: usize,
}

impl<'a> ShiftedReader<'a> {
    pub fn new(spool: &'a mut Spool, shift: usize) -> Self {
        Self { spool, shift, at: 0 }
    }
}

impl SongReader for ShiftedReader<'_> {
    fn channels(&self) -> usize {
        self.spool.channels()
    }

    fn read(&mut self, max: usize, out: &mut Planar) -> Result<usize, OfflineError> {
        let samples = self.spool.samples();
        if self.at >= samples {
            return Ok(0);
        }
        let from = (self.at + samples - self.shift) % samples;
        let count = max.min(samples - self.at).min(samples - from);
        self.spool.read(from, count, out)?;
        self.at += count;
        Ok(count)
    }
}
