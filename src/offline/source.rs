//! Where a song's samples come from: a file brought to the model's rate, a spooled signal, or memory.

use std::path::Path;

use super::error::OfflineError;
use super::spool::Spool;
use crate::audio::{Decoder, Planar, Resampler};

/// A stream of planar blocks at the model's sample rate.
pub trait Source {
    /// Channels of every block.
    fn channels(&self) -> usize;
    /// Appends up to `max` samples to `out` and returns how many; 0 at the end.
    ///
    /// # Errors
    /// [`OfflineError`], as the stream has it.
    fn read(&mut self, max: usize, out: &mut Planar) -> Result<usize, OfflineError>;
}

/// Samples decoded at a time.
const BLOCK: usize = 1 << 15;

/// An audio file at the model's rate, without values that are not finite.
pub struct FileSource {
    decoder: Decoder,
    resampler: Resampler,
    decoded: Planar,
    ready: Planar,
    cleaned: u64,
    ended: bool,
}

impl FileSource {
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
            ended: false,
        })
    }

    /// Values set to 0 so far because they were not finite.
    pub fn cleaned(&self) -> u64 {
        self.cleaned
    }

    /// The decoder underneath.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }
}

/// Sets what is not finite to 0 and returns how many values that was.
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

impl Source for FileSource {
    fn channels(&self) -> usize {
        self.ready.channels()
    }

    fn read(&mut self, max: usize, out: &mut Planar) -> Result<usize, OfflineError> {
        while self.ready.is_empty() && !self.ended {
            self.decoded.clear();
            if self.decoder.read(BLOCK, &mut self.decoded)? == 0 {
                self.resampler.finish(&mut self.ready)?;
                self.ended = true;
            } else {
                self.cleaned += clean(&mut self.decoded);
                self.resampler.push(&self.decoded, &mut self.ready)?;
            }
        }
        let count = self.ready.samples().min(max);
        out.append_range(&self.ready, 0..count);
        self.ready.drop_front(count);
        Ok(count)
    }
}

/// Samples in memory.
pub struct MemorySource<'a> {
    samples: &'a Planar,
    at: usize,
}

impl<'a> MemorySource<'a> {
    /// A source of all of `samples`.
    pub fn new(samples: &'a Planar) -> Self {
        Self { samples, at: 0 }
    }
}

impl Source for MemorySource<'_> {
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

/// A spooled signal, begun `shift` samples before its end and wrapped round: its circular shift.
pub(super) struct ShiftedSource<'a> {
    spool: &'a mut Spool,
    shift: usize,
    at: usize,
}

impl<'a> ShiftedSource<'a> {
    pub fn new(spool: &'a mut Spool, shift: usize) -> Self {
        Self { spool, shift, at: 0 }
    }
}

impl Source for ShiftedSource<'_> {
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
