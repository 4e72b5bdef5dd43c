//! Uncompressed samples at a known position of a file, shared by WAV and AIFF.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{AudioError, BlockReader, MediaSource, Planar, SourceFormat, SourceInfo, Warnings};

/// Samples per channel of one block.
const BLOCK: u64 = 4096;

/// How one sample is stored. Bytes are 1 to 4 for integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Unsigned bytes around 128.
    Unsigned8,
    /// Signed, left-justified in its bytes; the lowest `8 · bytes − valid_bits` bits mean nothing.
    Signed { bytes: u16, valid_bits: u16 },
    /// IEEE float of 4 bytes.
    Float32,
    /// IEEE float of 8 bytes.
    Float64,
    /// G.711 A-law, which stands for integers of 13 bits.
    ALaw,
    /// G.711 µ-law, which stands for integers of 14 bits.
    MuLaw,
}

impl Encoding {
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Unsigned8 | Self::ALaw | Self::MuLaw => 1,
            Self::Signed { bytes, .. } => u64::from(bytes),
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    fn format(self) -> SourceFormat {
        match self {
            Self::Unsigned8 => SourceFormat::Int8,
            Self::Signed { valid_bits, .. } => SourceFormat::from_int_bits(u32::from(valid_bits)),
            Self::Float32 => SourceFormat::Float32,
            Self::Float64 => SourceFormat::Float64,
            Self::ALaw | Self::MuLaw => SourceFormat::Int16,
        }
    }

    /// Short name of the codec.
    pub(super) fn codec(self) -> &'static str {
        match self {
            Self::ALaw => "A-law",
            Self::MuLaw => "µ-law",
            _ => "PCM",
        }
    }
}

/// Position and format of the samples, checked against the file's length.
#[derive(Clone, Debug)]
pub(super) struct PcmLayout {
    pub(super) container: &'static str,
    pub(super) codec: &'static str,
    pub(super) encoding: Encoding,
    pub(super) big_endian: bool,
    pub(super) channels: usize,
    pub(super) sample_rate: u32,
    /// Where the samples lie, in order.
    pub(super) parts: Vec<PcmPart>,
}

/// Samples that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PcmPart {
    /// Position of the first sample.
    pub(super) at: u64,
    /// Complete sample frames from there on.
    pub(super) samples: u64,
}

pub(super) struct PcmReader {
    source: Box<dyn MediaSource>,
    path: PathBuf,
    layout: PcmLayout,
    info: SourceInfo,
    /// Index of the part that is being read, and samples of it that have been.
    part: usize,
    done: u64,
    bytes: Vec<u8>,
}

impl PcmReader {
    pub(super) fn new(
        mut source: Box<dyn MediaSource>,
        layout: PcmLayout,
        path: &Path,
    ) -> Result<Self, AudioError> {
        let at = layout.parts.first().map_or(0, |part| part.at);
        source
            .seek(SeekFrom::Start(at))
            .map_err(|source| AudioError::Read { path: path.to_path_buf(), source })?;
        let info = SourceInfo {
            container: layout.container.to_owned(),
            codec: layout.codec.to_owned(),
            sample_rate: layout.sample_rate,
            channels: layout.channels,
            samples: Some(layout.parts.iter().map(|part| part.samples).sum()),
            sample_format: layout.encoding.format(),
        };
        Ok(Self { source, path: path.to_path_buf(), layout, info, part: 0, done: 0, bytes: Vec::new() })
    }
}

impl BlockReader for PcmReader {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn read_block(&mut self, out: &mut Planar, _warnings: &mut Warnings) -> Result<bool, AudioError> {
        let Some(part) = self.layout.parts.get(self.part) else { return Ok(false) };
        let samples = BLOCK.min(part.samples - self.done);
        if samples == 0 {
            self.part += 1;
            self.done = 0;
            if let Some(next) = self.layout.parts.get(self.part) {
                self.source
                    .seek(SeekFrom::Start(next.at))
                    .map_err(|source| AudioError::Read { path: self.path.clone(), source })?;
            }
            return Ok(true);
        }
        let width = self.layout.encoding.bytes() as usize;
        let frame = width * self.layout.channels;
        self.bytes.resize(samples as usize * frame, 0);
        // The length was checked when the file was opened, so an early end means that the file has shrunk since.
        self.source
            .read_exact(&mut self.bytes)
            .map_err(|source| AudioError::Read { path: self.path.clone(), source })?;
        if self.layout.big_endian && width > 1 {
            self.bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        for (channel, plane) in out.planes_mut().iter_mut().enumerate() {
            let stored =
                self.bytes.chunks_exact(frame).map(|frame| &frame[channel * width..(channel + 1) * width]);
            match self.layout.encoding {
                Encoding::Unsigned8 => plane.extend(stored.map(|byte| (f32::from(byte[0]) - 128.0) / 128.0)),
                Encoding::Signed { valid_bits, .. } => {
                    let mask = u32::MAX << (32 - u32::from(valid_bits).clamp(1, 32));
                    plane.extend(stored.map(|bytes| {
                        let mut word = [0; 4];
                        word[4 - width..].copy_from_slice(bytes);
                        sample_from_i32((u32::from_le_bytes(word) & mask) as i32)
                    }));
                }
                Encoding::Float32 => plane.extend(stored.map(|bytes| {
                    let mut word = [0; 4];
                    word.copy_from_slice(bytes);
                    f32::from_le_bytes(word)
                })),
                Encoding::Float64 => plane.extend(stored.map(|bytes| {
                    let mut word = [0; 8];
                    word.copy_from_slice(bytes);
                    f64::from_le_bytes(word) as f32
                })),
                Encoding::ALaw => plane.extend(stored.map(|byte| f32::from(a_law(byte[0])) / 32_768.0)),
                Encoding::MuLaw => plane.extend(stored.map(|byte| f32::from(mu_law(byte[0])) / 32_768.0)),
            }
        }
        self.done += samples;
        Ok(true)
    }
}

/// Full scale 2³¹ to ±1: exact when the lowest 8 bits are 0, else the nearest `f32`.
pub(super) fn sample_from_i32(sample: i32) -> f32 {
    sample as f32 / 2_147_483_648.0
}

/// The 16-bit sample that an A-law byte stands for (ITU-T G.711).
fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (mantissa, segment) = (i16::from(byte & 0x0F) << 4, (byte & 0x70) >> 4);
    let magnitude = match segment {
        0 => mantissa + 8,
        segment => (mantissa + 0x108) << (segment - 1),
    };
    if byte & 0x80 != 0 { magnitude } else { -magnitude }
}

/// The 16-bit sample that a µ-law byte stands for (ITU-T G.711).
fn mu_law(byte: u8) -> i16 {
    const BIAS: i16 = 0x84;
    let byte = !byte;
    let magnitude = (((i16::from(byte & 0x0F) << 3) + BIAS) << ((byte & 0x70) >> 4)) - BIAS;
    if byte & 0x80 != 0 { -magnitude } else { magnitude }
}

/// Why a header cannot be read.
pub(super) enum HeaderError {
    /// Reading failed.
    Io(std::io::Error),
    /// The header is invalid.
    Header(String),
}

impl HeaderError {
    pub(super) fn into_audio_error(self, path: &Path) -> AudioError {
        match self {
            Self::Io(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => AudioError::Header {
                path: path.to_path_buf(),
                what: "the file ends within its header; copy or export it again".to_owned(),
            },
            Self::Io(source) => AudioError::Read { path: path.to_path_buf(), source },
            Self::Header(what) => AudioError::Header { path: path.to_path_buf(), what },
        }
    }
}

impl From<std::io::Error> for HeaderError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads `N` bytes.
pub(super) fn read_array<const N: usize>(source: &mut dyn MediaSource) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}
