//! Streaming writers of WAV, FLAC and stem files. Samples that lie on the integer grid of the format are stored exactly.
//!
//! Samples go to a hidden temporary file in the destination folder. [`AudioWriter::finish`] renames it atomically, so
//! that no reader ever sees half a file. A writer dropped before that (an error, a cancelled run) removes it.

mod alac;
mod flac;
pub(super) mod stem_file;
mod wav;

use std::fs;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use super::{AudioError, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Metadata, Planar};
use crate::atomic_file::AtomicFile;

/// Sample format of an output file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SampleFormat {
    /// 16-bit integers, steps of 2⁻¹⁵.
    Pcm16,
    /// 24-bit integers, steps of 2⁻²³.
    Pcm24,
    /// 32-bit floats, never clipped. WAV only.
    Float32,
}

impl SampleFormat {
    /// Bytes per sample.
    pub fn bytes(self) -> usize {
        match self {
            Self::Pcm16 => 2,
            Self::Pcm24 => 3,
            Self::Float32 => 4,
        }
    }

    /// Bits per sample.
    pub fn bits(self) -> usize {
        8 * self.bytes()
    }
}

/// File format of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// RIFF WAVE; becomes RF64 when it outgrows 4 GiB.
    Wav,
    /// Native FLAC.
    Flac,
    /// Native Instruments' stem file: the song and four stems as five stereo tracks of one MP4 file, in ALAC.
    StemM4a,
}

impl Container {
    /// The usual file name extension, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Flac => "flac",
            Self::StemM4a => "stem.m4a",
        }
    }
}

/// Format of an output file. The length need not be known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterSpec {
    /// File format.
    pub container: Container,
    /// Sample format.
    pub format: SampleFormat,
    /// Channels, 1 to [`MAX_CHANNELS`] (FLAC: up to 8; a stem file: [`STEM_FILE_CHANNELS`]).
    pub channels: usize,
    /// Sample rate in Hz.
    pub sample_rate: u32,
}

impl WriterSpec {
    fn check(&self) -> Result<(), String> {
        let (channels, rate) = (self.channels, self.sample_rate);
        if channels == 0 || channels > MAX_CHANNELS {
            return Err(format!("{channels} channels, but a file has 1 to {MAX_CHANNELS}"));
        }
        if !(MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&rate) {
            return Err(format!(
                "a sample rate of {rate} Hz, but {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are possible"
            ));
        }
        if self.format == SampleFormat::Float32 && self.container != Container::Wav {
            let name = if self.container == Container::Flac { "FLAC stores" } else { "A stem file holds" };
            return Err(format!("{name} integers only; choose 16 or 24 bits, or WAV for float"));
        }
        if self.container == Container::StemM4a && channels != STEM_FILE_CHANNELS {
            return Err(format!("{channels} channels, but a stem file has {STEM_FILE_CHANNELS}"));
        }
        if self.container == Container::Flac {
            if channels > flac::MAX_CHANNELS {
                return Err(format!(
                    "{channels} channels, but FLAC has at most {}; use WAV",
                    flac::MAX_CHANNELS
                ));
            }
            if rate > flac::MAX_SAMPLE_RATE {
                return Err(format!("{rate} Hz, but FLAC goes to {} Hz; use WAV", flac::MAX_SAMPLE_RATE));
            }
        }
        Ok(())
    }
}

/// Channels of a stem file: the song and four stems in stereo, one after the other.
pub const STEM_FILE_CHANNELS: usize = stem_file::CHANNELS;

/// Buffered temporary file that the containers write to.
type TempFile = BufWriter<AtomicFile>;

/// Writes one container: blocks as they come, and a corrected header at the end.
trait ContainerWriter: Send {
    /// Writes a block, which has the channels of the specification. Returns the number of clipped samples.
    fn write(&mut self, out: &mut TempFile, block: &Planar) -> io::Result<u64>;
    /// Writes buffered samples and the final header.
    fn finish(&mut self, out: &mut TempFile) -> io::Result<()>;
}

/// Writes one audio file.
///
/// ```no_run
/// use nullsum::audio::{AudioWriter, Container, Planar, SampleFormat, WriterSpec};
///
/// let spec = WriterSpec {
///     container: Container::Wav,
///     format: SampleFormat::Pcm24,
///     channels: 2,
///     sample_rate: 44_100,
/// };
/// let mut writer = AudioWriter::create("vocals.wav", spec)?;
/// writer.write(&Planar::zeros(2, 4096))?;
/// let path = writer.finish()?;
/// # Ok::<(), nullsum::audio::AudioError>(())
/// ```
pub struct AudioWriter {
    path: PathBuf,
    spec: WriterSpec,
    // None after a failed write, which removes the temporary file.
    out: Option<TempFile>,
    encoder: Box<dyn ContainerWriter>,
    written: u64,
    clipped: u64,
}

impl AudioWriter {
    /// Starts a file that [`finish`](Self::finish) will move to `path`, replacing an existing file.
    ///
    /// # Errors
    /// [`AudioError::Spec`] when the specification cannot be stored, [`AudioError::NotAFile`] when a folder is at
    /// `path`, [`AudioError::Create`] when its folder is missing or may not be written.
    pub fn create(path: impl AsRef<Path>, spec: WriterSpec) -> Result<Self, AudioError> {
        Self::create_with(path, spec, &Metadata::default())
    }

    /// Like [`create`](Self::create), with tags, cover art and other metadata.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_with(
        path: impl AsRef<Path>,
        spec: WriterSpec,
        metadata: &Metadata,
    ) -> Result<Self, AudioError> {
        let path = path.as_ref().to_path_buf();
        if let Err(what) = spec.check() {
            return Err(AudioError::Spec { path, what });
        }
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => return Err(AudioError::NotAFile { path, kind: "a folder" }),
            // A name that is too long, for instance, would otherwise fail only at the final rename.
            Err(source) if source.kind() == io::ErrorKind::InvalidFilename => {
                return Err(AudioError::Create { path, source });
            }
            _ => {}
        }
        if path.file_name().is_none() {
            return Err(AudioError::Spec { path, what: "the path names no file".to_owned() });
        }
        let mut out = match AtomicFile::create_beside(&path) {
            Ok(file) => BufWriter::with_capacity(1 << 16, file),
            Err(source) => return Err(AudioError::Create { path, source }),
        };
        let encoder: io::Result<Box<dyn ContainerWriter>> = match spec.container {
            Container::Wav => wav::WavContainer::start(&mut out, spec, metadata)
                .map(|encoder| Box::new(encoder) as Box<dyn ContainerWriter>),
            Container::Flac => flac::FlacContainer::start(&mut out, spec, metadata)
                .map(|encoder| Box::new(encoder) as Box<dyn ContainerWriter>),
            Container::StemM4a => stem_file::StemFileContainer::start(&mut out, spec, metadata)
                .map(|encoder| Box::new(encoder) as Box<dyn ContainerWriter>),
        };
        match encoder {
            Ok(encoder) => Ok(Self { path, spec, out: Some(out), encoder, written: 0, clipped: 0 }),
            Err(source) => {
                discard(out);
                Err(AudioError::Write { path, written: 0, source })
            }
        }
    }

    /// The format given to [`create`](Self::create).
    pub fn spec(&self) -> WriterSpec {
        self.spec
    }

    /// Final path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Samples per channel written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Samples, over all channels, that an integer format could not hold: beyond full scale (stored as the
    /// largest value of their sign) or NaN (stored as 0). Always 0 for float.
    pub fn clipped(&self) -> u64 {
        self.clipped
    }

    /// Appends a block.
    ///
    /// For integers a sample is rounded to the nearest step, so what lies on the grid of the format is stored
    /// exactly, and saturates at full scale (see [`clipped`](Self::clipped)).
    ///
    /// # Errors
    /// [`AudioError::Channels`] for a block of other channels, [`AudioError::Write`] when the disk refuses; the
    /// temporary file is then removed and every later call fails.
    pub fn write(&mut self, block: &Planar) -> Result<(), AudioError> {
        if block.channels() != self.spec.channels {
            return Err(AudioError::Channels { expected: self.spec.channels, found: block.channels() });
        }
        let Some(out) = self.out.as_mut() else { return Err(self.fail(earlier_failure())) };
        match self.encoder.write(out, block) {
            Ok(clipped) => {
                self.clipped += clipped;
                self.written += block.samples() as u64;
                Ok(())
            }
            Err(source) => Err(self.fail(source)),
        }
    }

    /// Completes the file and moves it to its name. Returns the path.
    ///
    /// # Errors
    /// [`AudioError::Write`] when the rest cannot be written or the rename fails; nothing stays behind.
    pub fn finish(self) -> Result<PathBuf, AudioError> {
        self.complete()?.publish()
    }

    /// Completes the file without renaming it, so that a group of files can appear only when all are complete.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub(crate) fn complete(mut self) -> Result<CompleteFile, AudioError> {
        let Some(mut out) = self.out.take() else { return Err(self.fail(earlier_failure())) };
        let done = self.encoder.finish(&mut out).and_then(|()| out.flush());
        // After a failed flush the file is discarded, so the unwritten part of the buffer does not matter.
        let (file, _) = out.into_parts();
        match done {
            Ok(()) => Ok(CompleteFile { path: std::mem::take(&mut self.path), file, written: self.written }),
            Err(source) => Err(self.fail(source)),
        }
    }

    fn fail(&mut self, source: io::Error) -> AudioError {
        if let Some(out) = self.out.take() {
            discard(out);
        }
        AudioError::Write { path: self.path.clone(), written: self.written, source }
    }
}

impl Drop for AudioWriter {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            discard(out);
        }
    }
}

/// A complete file under its temporary name. Dropping it removes it.
pub(crate) struct CompleteFile {
    path: PathBuf,
    file: AtomicFile,
    written: u64,
}

impl CompleteFile {
    /// Moves the file to its name. Returns the path.
    pub fn publish(self) -> Result<PathBuf, AudioError> {
        let Self { path, file, written } = self;
        match file.publish(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(AudioError::Write { path, written, source }),
        }
    }
}

/// Closes without flushing the buffer, which would fail again; the temporary file removes itself.
fn discard(out: TempFile) {
    drop(out.into_parts());
}

fn earlier_failure() -> io::Error {
    io::Error::other("an earlier write failed")
}

/// Rounds to the nearest integer of `bits` bits. The flag tells whether the sample was clipped.
fn quantise(sample: f32, bits: usize) -> (i32, bool) {
    let scale = (1_i32 << (bits - 1)) as f32;
    // Exact: the product only moves the exponent.
    let steps = (sample * scale).round_ties_even();
    let (lowest, highest) = (-scale, scale - 1.0);
    let clipped = !(lowest..=highest).contains(&steps);
    // The cast takes NaN to 0; both limits are exact in f32 up to 24 bits.
    (steps.clamp(lowest, highest) as i32, clipped)
}

/// Overwrites `bytes` at `position` and returns to the end.
fn patch_bytes(out: &mut TempFile, position: u64, bytes: &[u8]) -> io::Result<()> {
    out.seek(io::SeekFrom::Start(position))?;
    out.write_all(bytes)?;
    out.seek(io::SeekFrom::End(0))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::quantise;

    #[test]
    fn grid_values_are_stored_exactly_and_the_rest_rounds_to_nearest() {
        for bits in [16, 24] {
            let full = 1_i32 << (bits - 1);
            for step in [-full, 1 - full, -1, 0, 1, full / 3, full - 1] {
                assert_eq!(quantise(step as f32 / full as f32, bits), (step, false));
            }
            assert_eq!(quantise(1.0, bits), (full - 1, true));
            assert_eq!(quantise(-1.5, bits), (-full, true));
            assert_eq!(quantise(f32::INFINITY, bits), (full - 1, true));
            assert_eq!(quantise(f32::NAN, bits), (0, true));
        }
        assert_eq!(quantise(1.4 / 32768.0, 16), (1, false));
        assert_eq!(quantise(-1.6 / 32768.0, 16), (-2, false));
    }
}
