//! Reading of audio files as a stream of planar `f32`.
//!
//! WAV and AIFF with integer or float samples are parsed here, which gives exact values, exact byte counts in
//! errors, RF64, and streamed headers. symphonia decodes everything compressed except Opus, which a Rust translation
//! of libopus decodes.
//!
//! Damage in a lossless file is an error, because wrong samples would otherwise go unnoticed. In a lossy file an
//! undecodable packet becomes silence of the same length, so that the rest stays in time; [`Decoder::warnings`]
//! records it.

mod adts;
mod aiff;
mod byte_window;
mod caf;
mod codec;
mod conform;
mod extent;
mod flac;
mod foreign;
mod frames;
mod gapless;
mod joined;
mod joins;
pub(super) mod mp4;
mod mpeg;
mod opus;
mod packets;
mod part_source;
mod pcm;
mod probe;
mod timeline;
mod trailing_tags;
mod wav;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub use symphonia::core::io::MediaSource;

use self::foreign::Foreign;
use self::joined::JoinedReader;
use self::part_source::PartSource;
use self::wav::WavContent;
use super::{AudioError, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Planar};

/// Sample format of an input. It determines the format of a bit-exact output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceFormat {
    /// Integers of up to 8 bits: multiples of 2⁻⁷.
    Int8,
    /// Integers of 9 to 16 bits: multiples of 2⁻¹⁵.
    Int16,
    /// Integers of 17 to 24 bits: multiples of 2⁻²³.
    Int24,
    /// Integers of 25 to 32 bits, each rounded to the nearest `f32`.
    Int32,
    /// 32-bit floats, as they are.
    Float32,
    /// 64-bit floats, each rounded to the nearest `f32`.
    Float64,
    /// A lossy codec, which has no integer or float sample format.
    Lossy,
}

impl SourceFormat {
    fn from_int_bits(bits: u32) -> Self {
        match bits {
            0..=8 => Self::Int8,
            9..=16 => Self::Int16,
            17..=24 => Self::Int24,
            _ => Self::Int32,
        }
    }

    /// Whether every sample is exact in `f32`.
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Int8 | Self::Int16 | Self::Int24 | Self::Float32)
    }
}

/// Properties of an open file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// The container, in short: `WAV`, `FLAC`, `Ogg`.
    pub container: String,
    /// The codec, in short: `PCM`, `FLAC`, `MP3`.
    pub codec: String,
    /// Sample rate in Hz, [`MIN_SAMPLE_RATE`] to [`MAX_SAMPLE_RATE`].
    pub sample_rate: u32,
    /// Channels, 1 to [`MAX_CHANNELS`].
    pub channels: usize,
    /// Samples per channel, without encoder delay and padding; `None` when the header does not state it. Exact for
    /// lossless files, approximate for lossy ones.
    pub samples: Option<u64>,
    /// How the samples are stored.
    pub sample_format: SourceFormat,
}

/// Reads the samples of one file in the container's own blocks.
trait BlockReader: Send {
    fn info(&self) -> &SourceInfo;
    /// Reads one block, possibly without samples, into the empty `out`. Returns `false` at the end.
    fn read_block(&mut self, out: &mut Planar, warnings: &mut Warnings) -> Result<bool, AudioError>;
}

/// What could not be decoded of a lossy file. Silence of the same length stands for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Packets that are lost or broken.
    pub packets: u64,
    /// Samples per channel that are lost.
    pub samples: u64,
}

impl Damage {
    /// Whether nothing is lost.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// Problems that are not errors. Only the first are kept, since a broken file can have a million broken packets.
#[derive(Default)]
struct Warnings {
    kept: Vec<String>,
    total: u64,
    damage: Damage,
}

impl Warnings {
    const KEPT: usize = 16;

    fn push(&mut self, warning: String) {
        self.total += 1;
        if self.kept.len() < Self::KEPT {
            self.kept.push(warning);
        }
    }

    fn add_damage(&mut self, packets: u64, samples: u64) {
        self.damage.packets += packets;
        self.damage.samples = self.damage.samples.saturating_add(samples);
    }
}

/// An open audio file.
///
/// ```no_run
/// use nullsum::audio::{Decoder, Planar};
///
/// let mut decoder = Decoder::open("song.flac")?;
/// println!("{} Hz", decoder.info().sample_rate);
/// let mut block = Planar::default();
/// while decoder.read(4096, &mut block)? > 0 {
///     // block: [channels][up to 4096 samples]
///     block.clear();
/// }
/// # Ok::<(), nullsum::audio::AudioError>(())
/// ```
pub struct Decoder {
    blocks: Box<dyn BlockReader>,
    /// Decoded samples; those from `at` on have not been read yet.
    pending: Planar,
    at: usize,
    ended: bool,
    position: u64,
    non_finite: u64,
    warnings: Warnings,
}

impl Decoder {
    /// Opens a file and reads its header. The format is detected from the content, whatever the extension.
    ///
    /// # Errors
    /// Everything that can be found before decoding: a missing or unreadable file, a folder, an empty file, an unknown
    /// format, an invalid header, a WAV or AIFF file that is shorter than its header states.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, AudioError> {
        let path = path.as_ref();
        let open = |source| AudioError::Open { path: path.to_path_buf(), source };
        let not_a_file = |kind| AudioError::NotAFile { path: path.to_path_buf(), kind };
        let meta = std::fs::metadata(path).map_err(open)?;
        if meta.is_dir() {
            return Err(not_a_file("a folder"));
        }
        // A pipe or device has no length to check a header against, and may never end.
        if !meta.is_file() {
            return Err(not_a_file("a device or pipe"));
        }
        Self::from_source(Box::new(File::open(path).map_err(open)?), path)
    }

    /// Like [`open`](Self::open), for an open source. `path` is used in errors only.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_source(mut source: Box<dyn MediaSource>, path: &Path) -> Result<Self, AudioError> {
        let read = |source| AudioError::Read { path: path.to_path_buf(), source };
        let length = source.seek(SeekFrom::End(0)).map_err(read)?;
        if length == 0 {
            return Err(AudioError::Empty { path: path.to_path_buf() });
        }
        check_format(source.as_mut(), path)?;
        let mut warnings = Warnings::default();
        let files = joins::file_ranges(source.as_mut(), length).map_err(read)?;
        let blocks: Box<dyn BlockReader> = match files.len() {
            ..=1 => open_blocks(source, length, path, &mut warnings)?,
            _ => Box::new(JoinedReader::open(source, files, path, &mut warnings)?),
        };
        let channels = blocks.info().channels;
        Ok(Self {
            blocks,
            pending: Planar::new(channels),
            at: 0,
            ended: false,
            position: 0,
            non_finite: 0,
            warnings,
        })
    }

    /// Properties of the file.
    pub fn info(&self) -> &SourceInfo {
        self.blocks.info()
    }

    /// Appends the next samples to `out`: exactly `max_samples` per channel, fewer only at the end of the file.
    /// Returns how many; 0 is the end. A block of another number of channels is emptied first.
    ///
    /// # Errors
    /// [`AudioError::Damaged`] or [`AudioError::Truncated`] where a lossless stream breaks, [`AudioError::Read`]
    /// when the system does not deliver. After an error the stream is at its end.
    pub fn read(&mut self, max_samples: usize, out: &mut Planar) -> Result<usize, AudioError> {
        if out.channels() != self.pending.channels() {
            out.reset(self.pending.channels());
        }
        let before = out.samples();
        while out.samples() - before < max_samples {
            if self.at == self.pending.samples() {
                self.pending.clear();
                self.at = 0;
                if self.ended {
                    break;
                }
                // An error ends the stream, since the data after it cannot be trusted.
                self.ended = true;
                self.ended = !self.blocks.read_block(&mut self.pending, &mut self.warnings)?;
                continue;
            }
            let count = (max_samples + before - out.samples()).min(self.pending.samples() - self.at);
            out.append_range(&self.pending, self.at..self.at + count);
            self.at += count;
        }
        for plane in out.iter() {
            self.non_finite += plane[before..].iter().filter(|sample| !sample.is_finite()).count() as u64;
        }
        let count = out.samples() - before;
        self.position += count as u64;
        Ok(count)
    }

    /// Samples per channel read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// NaN and infinite samples read so far, over all channels. They are returned unchanged; the caller decides whether
    /// to refuse or clean them.
    pub fn non_finite(&self) -> u64 {
        self.non_finite
    }

    /// Problems found so far that are not errors, as text: the first 16 of [`warning_count`](Self::warning_count).
    pub fn warnings(&self) -> &[String] {
        &self.warnings.kept
    }

    /// What could not be decoded so far and is silence instead. Always none for lossless files, where damage is an error.
    pub fn damage(&self) -> Damage {
        self.warnings.damage
    }

    /// Number of all warnings so far.
    pub fn warning_count(&self) -> u64 {
        self.warnings.total
    }
}

/// Refuses formats that are known and cannot be read, by their name.
fn check_format(source: &mut dyn MediaSource, path: &Path) -> Result<(), AudioError> {
    let read = |source| AudioError::Read { path: path.to_path_buf(), source };
    let path = path.to_path_buf();
    let mut head = Vec::with_capacity(foreign::HEAD_BYTES);
    source.seek(SeekFrom::Start(0)).map_err(read)?;
    Read::take(&mut *source, foreign::HEAD_BYTES as u64).read_to_end(&mut head).map_err(read)?;
    match foreign::identify(&head) {
        None => Ok(()),
        Some(Foreign::Audio(name)) => Err(AudioError::Unsupported {
            path,
            what: format!("its header is that of {name}, which cannot be read"),
        }),
        Some(Foreign::Other(what)) => Err(AudioError::Unrecognised { path, found: what.to_owned() }),
    }
}

/// Opens a single file of `length` bytes.
fn open_blocks(
    mut source: Box<dyn MediaSource>,
    mut length: u64,
    path: &Path,
    warnings: &mut Warnings,
) -> Result<Box<dyn BlockReader>, AudioError> {
    let read = |source| AudioError::Read { path: path.to_path_buf(), source };
    source.seek(SeekFrom::Start(0)).map_err(read)?;
    let mut magic = Vec::with_capacity(12);
    source.by_ref().take(12).read_to_end(&mut magic).map_err(read)?;
    if magic.starts_with(b"ID3") {
        // FLAC behind an ID3v2 tag is a FLAC file of its own.
        let at = probe::after_id3v2(source.as_mut()).map_err(read)?;
        let mut marker = Vec::with_capacity(4);
        source.seek(SeekFrom::Start(at)).map_err(read)?;
        Read::take(&mut source, 4).read_to_end(&mut marker).map_err(read)?;
        if marker == b"fLaC" {
            let part = PartSource::new(source, at, length).map_err(read)?;
            return open_blocks(Box::new(part), length - at, path, warnings);
        }
    }
    let is_flac = magic.starts_with(b"fLaC");
    let mut audio_end = trailing_tags::audio_end(source.as_mut(), length, is_flac).map_err(read)?;
    let header = match (magic.get(..4), magic.get(8..12)) {
        (Some(b"RIFF" | b"RF64" | b"BW64"), Some(b"WAVE")) => {
            match wav::parse(source.as_mut(), length, audio_end, path, warnings)? {
                WavContent::Pcm(layout) => Some(layout),
                WavContent::Compressed(wav) => {
                    (length, audio_end) = (wav.length(), wav.length());
                    source = Box::new(wav.source(source).map_err(read)?);
                    None
                }
            }
        }
        (Some(b"FORM"), Some(b"AIFF" | b"AIFC")) => {
            aiff::parse(source.as_mut(), length, audio_end, path, warnings)?
        }
        (Some(b"fLaC"), _) => flac::parse_empty(source.as_mut(), length, path)?,
        _ => None,
    };
    if let Some(layout) = header {
        return Ok(Box::new(pcm::PcmReader::new(source, layout, path)?));
    }
    let frames_end = match is_flac {
        true => flac::frames_end(source.as_mut(), audio_end).map_err(read)?,
        false => None,
    };
    if let Some(end) = frames_end {
        warnings
            .push(format!("{} bytes behind the last frame are no audio and were left out", audio_end - end));
        audio_end = end;
    }
    source.seek(SeekFrom::Start(0)).map_err(read)?;
    // Demuxers take tags behind the last frame for damage.
    if (1..length).contains(&audio_end) {
        source = Box::new(PartSource::new(source, 0, audio_end).map_err(read)?);
        length = audio_end;
    }
    Ok(Box::new(packets::PacketReader::open(source, length, path, &magic, warnings)?))
}

/// Refuses an implausible channel count or sample rate.
fn check_shape(path: &Path, channels: usize, sample_rate: u32) -> Result<(), AudioError> {
    let header = |what| Err(AudioError::Header { path: PathBuf::from(path), what });
    if channels == 0 || channels > MAX_CHANNELS {
        return header(format!("{channels} channels, expected 1 to {MAX_CHANNELS}"));
    }
    if !(MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&sample_rate) {
        return header(format!(
            "a sample rate of {sample_rate} Hz, expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
        ));
    }
    Ok(())
}
