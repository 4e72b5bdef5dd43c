//! The stems of a song that is read in pieces, from any sample on: for work that is interrupted and continued.

use std::ops::ControlFlow;

use super::error::OfflineError;
use super::level::network_gain;
use super::options::RenderOptions;
use super::passes::SongPasses;
use super::reader::{SongReader, clean};
use super::render::RenderProgress;
use crate::audio::{Planar, Resampler};
use crate::kernels::JobControl;
use crate::separator::Separator;

/// A song at its own rate.
pub trait Song {
    /// Sample rate in Hz.
    fn rate(&self) -> u32;

    /// Channels.
    fn channels(&self) -> usize;

    /// Samples per channel.
    fn samples(&self) -> u64;

    /// Reads `count` samples from `at` on, all of which exist.
    ///
    /// # Errors
    /// Those of the system.
    fn read(&mut self, at: u64, count: usize) -> std::io::Result<Planar>;
}

/// Samples read at a time.
const BLOCK: usize = 1 << 15;

/// Reads a song at the model's rate, multiplied by a gain.
struct RateReader<'a> {
    song: &'a mut dyn Song,
    at: u64,
    gain: f32,
    resampler: Resampler,
    ready: Planar,
    ended: bool,
}

impl<'a> RateReader<'a> {
    fn new(song: &'a mut dyn Song, rate: u32, gain: f32) -> Result<Self, OfflineError> {
        let channels = song.channels();
        let resampler = Resampler::new(song.rate(), rate, channels)?;
        Ok(Self { song, at: 0, gain, resampler, ready: Planar::new(channels), ended: false })
    }
}

impl SongReader for RateReader<'_> {
    fn channels(&self) -> usize {
        self.song.channels()
    }

    fn read(&mut self, max: usize, out: &mut Planar) -> Result<usize, OfflineError> {
        while self.ready.is_empty() && !self.ended {
            let count = BLOCK.min(usize::try_from(self.song.samples() - self.at).unwrap_or(BLOCK));
            if count == 0 {
                self.resampler.finish(&mut self.ready)?;
                self.ended = true;
                break;
            }
            let mut block = self.song.read(self.at, count).map_err(unreadable)?;
            clean(&mut block);
            if self.gain != 1.0 {
                block.iter_mut().flatten().for_each(|x| *x *= self.gain);
            }
            self.at += count as u64;
            self.resampler.push(&block, &mut self.ready)?;
        }
        let count = self.ready.samples().min(max);
        out.append_range(&self.ready, 0..count);
        self.ready.drop_front(count);
        Ok(count)
    }
}

fn unreadable(source: std::io::Error) -> OfflineError {
    OfflineError::Spool { folder: std::env::temp_dir().display().to_string(), source }
}

/// Calls `on_block` with all of `song` at `rate` Hz, block by block.
///
/// # Errors
/// [`OfflineError`] of the song or of `on_block`.
pub fn for_each_block(
    song: &mut dyn Song,
    rate: u32,
    on_block: &mut dyn FnMut(&Planar) -> Result<(), OfflineError>,
) -> Result<(), OfflineError> {
    let mut reader = RateReader::new(song, rate, 1.0)?;
    let mut block = Planar::new(reader.channels());
    while reader.read(BLOCK, &mut block)? > 0 {
        on_block(&block)?;
        block.clear();
    }
    Ok(())
}

/// What of a song is separated, and how.
#[derive(Clone, Copy)]
pub struct StemsRequest<'a> {
    /// As for files; options that concern files are ignored.
    pub options: &'a RenderOptions,
    /// Largest absolute value of the song.
    pub peak: f32,
    /// First sample whose stems are wanted, at the rate of the song.
    pub first: u64,
    /// Asked between the layers of the network.
    pub control: &'a dyn JobControl,
}

/// Separates `song` as [`render`](super::render::render) does, before the sum is made exact, and calls `sink` with the stems of the network: stems ·
/// channels planes at the rate of the song.
///
/// The stems do not depend on [`StemsRequest::first`]: they are the same bit for bit.
///
/// # Errors
/// [`OfflineError`]; [`OfflineError::Cancelled`] when `on_progress` breaks.
pub fn separate_from(
    separator: &mut Separator,
    song: &mut dyn Song,
    request: StemsRequest,
    sink: &mut dyn FnMut(&Planar) -> Result<(), OfflineError>,
    on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
) -> Result<(), OfflineError> {
    let StemsRequest { options, peak, first, control } = request;
    let info = separator.info().clone();
    let (rate, channels, samples) = (song.rate(), song.channels(), song.samples());
    let (gain, num_stems) = (network_gain(peak), info.architecture.num_stems);
    // A converter of the sample rate has memory: its stems are computed from the start again.
    let is_direct = rate == info.sample_rate;
    let mut at = if is_direct { first } else { 0 };
    let mut resamplers = (0..num_stems)
        .map(|_| Resampler::new(info.sample_rate, rate, channels))
        .collect::<Result<Vec<_>, _>>()?;
    let mut emit = |mut block: Planar| -> Result<(), OfflineError> {
        // Conversion there and back may change the length by a sample.
        block.truncate(usize::try_from(samples - at.min(samples)).unwrap_or(usize::MAX));
        let skipped = usize::try_from(first.saturating_sub(at)).unwrap_or(usize::MAX).min(block.samples());
        at += block.samples() as u64;
        block.drop_front(skipped);
        block.iter_mut().flatten().for_each(|x| *x *= gain.recip());
        if block.is_empty() { Ok(()) } else { sink(&block) }
    };
    let mut on_block = |block: &Planar| -> Result<(), OfflineError> {
        let mut converted = Vec::with_capacity(block.channels());
        for (n, resampler) in resamplers.iter_mut().enumerate() {
            let planes = block.planes()[n * channels..(n + 1) * channels].to_vec();
            let mut stem = Planar::new(channels);
            resampler.push(&Planar::from_equal(planes), &mut stem)?;
            converted.extend(stem.into_planes());
        }
        emit(Planar::from_equal(converted))
    };
    let passes = SongPasses::new(separator, &info, options, Some(samples), rate)?;
    let passes = passes.starting_at(if is_direct { first } else { 0 }).controlled(control);
    passes.run(&mut RateReader::new(song, info.sample_rate, gain)?, &mut on_block, on_progress)?;
    let mut converted = Vec::new();
    for resampler in &mut resamplers {
        let mut stem = Planar::new(channels);
        resampler.finish(&mut stem)?;
        converted.extend(stem.into_planes());
    }
    emit(Planar::from_equal(converted))?;
    // The conversion may also have lost a sample.
    let missing = usize::try_from(samples.saturating_sub(at)).unwrap_or(0);
    if missing > 0 { sink(&Planar::zeros(num_stems * channels, missing)) } else { Ok(()) }
}
