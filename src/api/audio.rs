//! Audio in memory.

use std::path::Path;

use super::error::{Error, Result};
use crate::audio::{AudioWriter, Container, Decoder, Planar, SampleFormat, WriterSpec};

/// Audio in memory: planar `f32` samples, full scale ±1.0, at one sample rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Audio {
    samples: Planar,
    sample_rate: u32,
}

/// Samples decoded at a time.
const BLOCK: usize = 1 << 16;

impl Audio {
    /// `channels`: `[channels][samples]`.
    ///
    /// # Errors
    /// [`Error::ChannelLengths`] if there is no channel or their lengths differ.
    ///
    /// ```
    /// let stereo = nullsum::Audio::new(vec![vec![0.0; 48_000], vec![0.0; 48_000]], 48_000)?;
    /// assert_eq!((stereo.channels(), stereo.samples()), (2, 48_000));
    /// # Ok::<(), nullsum::Error>(())
    /// ```
    pub fn new(channels: Vec<Vec<f32>>, sample_rate: u32) -> Result<Self> {
        let lengths: Vec<usize> = channels.iter().map(Vec::len).collect();
        match Planar::from_planes(channels).filter(|samples| samples.channels() > 0) {
            Some(samples) => Ok(Self { samples, sample_rate }),
            None => Err(Error::ChannelLengths { lengths }),
        }
    }

    /// Decodes a whole file: WAV, AIFF, FLAC, MP3, Ogg Vorbis, Opus, AAC or ALAC, told apart by content.
    ///
    /// # Errors
    /// [`Error::Audio`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let mut decoder = Decoder::open(path)?;
        let mut samples = Planar::new(decoder.info().channels);
        let sample_rate = decoder.info().sample_rate;
        while decoder.read(BLOCK, &mut samples)? > 0 {}
        Ok(Self { samples, sample_rate })
    }

    /// Writes a 32-bit float WAV file, which holds every sample exactly. The file appears only when it is complete.
    ///
    /// # Errors
    /// [`Error::Audio`].
    pub fn write_wav(&self, path: impl AsRef<Path>) -> Result<()> {
        let spec = WriterSpec {
            container: Container::Wav,
            format: SampleFormat::Float32,
            channels: self.channels(),
            sample_rate: self.sample_rate,
        };
        let mut writer = AudioWriter::create(path.as_ref(), spec)?;
        writer.write(&self.samples)?;
        writer.finish()?;
        Ok(())
    }

    /// Sample rate in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.samples.channels()
    }

    /// Samples per channel.
    pub fn samples(&self) -> usize {
        self.samples.samples()
    }

    /// The samples of one channel; empty if there is no such channel.
    pub fn channel(&self, channel: usize) -> &[f32] {
        self.samples.planes().get(channel).map_or(&[], Vec::as_slice)
    }

    /// The channels as vectors: `[channels][samples]`.
    pub fn into_channels(self) -> Vec<Vec<f32>> {
        self.samples.into_planes()
    }

    pub(super) fn from_planar(samples: Planar, sample_rate: u32) -> Self {
        Self { samples, sample_rate }
    }

    pub(super) fn planar(&self) -> &Planar {
        &self.samples
    }
}
