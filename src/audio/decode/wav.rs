//! The headers of WAV: RIFF, RF64 and BW64, plain and extensible, finished and streamed.

use std::io::SeekFrom;
use std::path::Path;

use super::extent::{ByteOrder, find_chunk, sample_bytes};
use super::part_source::PartSource;
use super::pcm::{Encoding, HeaderError, PcmLayout, PcmPart, read_array};
use super::{AudioError, MediaSource, Warnings, check_shape};

/// More chunks before the samples than any real file has.
const MAX_CHUNKS: usize = 4096;

const TAG_PCM: u16 = 1;
const TAG_FLOAT: u16 = 3;
const TAG_A_LAW: u16 = 6;
const TAG_MU_LAW: u16 = 7;
/// Layers I and II, and layer III.
const TAGS_MPEG: [u16; 2] = [0x50, 0x55];
const TAG_EXTENSIBLE: u16 = 0xFFFE;

/// Whether a size is one that writers leave if they cannot go back to the header: 2³² − 1 (ffmpeg) or slightly below 2³¹
/// (SoX).
fn is_placeholder(size: u64) -> bool {
    size == u64::from(u32::MAX) || (0x7FFF_F000..=0x7FFF_FFFF).contains(&size)
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Format {
    /// How samples are stored; for compressed ones, the tag of the codec.
    encoding: Result<Encoding, u16>,
    channels: usize,
    sample_rate: u32,
}

/// What a WAV file holds.
pub(super) enum WavContent {
    Pcm(PcmLayout),
    Compressed(CompressedWav),
}

/// Samples of another codec, which symphonia may know.
pub(super) struct CompressedWav {
    data_at: u64,
    bytes: u64,
    is_mpeg: bool,
    /// The header is wrong about the samples, and so may be a `fact` chunk at this position.
    wrong_fact_at: Option<u64>,
}

impl CompressedWav {
    /// The source as a demuxer can read it: MPEG frames without the container, everything else with the true sizes.
    pub(super) fn source(&self, source: Box<dyn MediaSource>) -> std::io::Result<PartSource> {
        let end = self.data_at + self.bytes;
        if self.is_mpeg {
            return PartSource::new(source, self.data_at, end);
        }
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
        let mut part = PartSource::new(source, 0, end)?
            .with_patch(0, *b"RIFF")
            .with_patch(4, size(end - 8))
            .with_patch(self.data_at - 4, size(self.bytes));
        if let Some(at) = self.wrong_fact_at {
            part = part.with_patch(at, *b"JUNK");
        }
        Ok(part)
    }

    pub(super) fn length(&self) -> u64 {
        if self.is_mpeg { self.bytes } else { self.data_at + self.bytes }
    }
}

/// The `data` chunk and the format of its samples.
struct Header {
    format: Format,
    data_at: u64,
    /// Bytes that the header states; `None` if it does not know.
    stated: Option<u64>,
    fact_at: Option<u64>,
}

/// Reads the header of a file of `length` bytes, whose audio ends at `audio_end`.
pub(super) fn parse(
    source: &mut dyn MediaSource,
    length: u64,
    audio_end: u64,
    path: &Path,
    warnings: &mut Warnings,
) -> Result<WavContent, AudioError> {
    let header = read_header(source, length).map_err(|error| error.into_audio_error(path))?;
    let Header { format, data_at, stated, fact_at } = header;
    check_shape(path, format.channels, format.sample_rate)?;
    let mut data = Data { source, length, audio_end, path, format };
    let bytes = data.bytes_of(data_at, stated, warnings)?;
    let further = data.further_chunks(data_at + bytes, warnings)?;
    let encoding = match format.encoding {
        Ok(encoding) => encoding,
        Err(_) if !further.is_empty() => {
            return Err(AudioError::Unsupported {
                path: path.to_path_buf(),
                what: format!("compressed samples in {} `data` chunks", further.len() + 1),
            });
        }
        Err(tag) => {
            return Ok(WavContent::Compressed(CompressedWav {
                data_at,
                bytes,
                is_mpeg: TAGS_MPEG.contains(&tag),
                wrong_fact_at: fact_at.filter(|_| stated != Some(bytes)),
            }));
        }
    };
    if !further.is_empty() {
        warnings.push(format!(
            "the file has {} `data` chunks where one is usual; all of them were read, one after the other",
            further.len() + 1
        ));
    }
    let frame = encoding.bytes() * format.channels as u64;
    let parts = [(data_at, bytes)].into_iter().chain(further).map(|(at, bytes)| {
        if bytes % frame != 0 {
            warnings
                .push(format!("the last {} bytes are not a whole sample and were left out", bytes % frame));
        }
        PcmPart { at, samples: bytes / frame }
    });
    Ok(WavContent::Pcm(PcmLayout {
        container: "WAV",
        codec: encoding.codec(),
        encoding,
        big_endian: false,
        channels: format.channels,
        sample_rate: format.sample_rate,
        parts: parts.collect(),
    }))
}

/// Finds the extent of `data` chunks.
struct Data<'a> {
    source: &'a mut dyn MediaSource,
    length: u64,
    audio_end: u64,
    path: &'a Path,
    format: Format,
}

impl Data<'_> {
    /// Bytes of samples from `data_at` on, where the header states so many; `None` if it does not know.
    fn bytes_of(
        &mut self,
        data_at: u64,
        stated: Option<u64>,
        warnings: &mut Warnings,
    ) -> Result<u64, AudioError> {
        let available = self.length.saturating_sub(data_at);
        if let Some(bytes) = stated.filter(|bytes| *bytes > available) {
            return Err(AudioError::Truncated {
                path: self.path.to_path_buf(),
                expected: bytes,
                found: available,
            });
        }
        let bytes = match stated {
            // Samples that look like a tag at the end of the file are samples if the header counts them.
            Some(bytes) if data_at + bytes > self.audio_end || bytes == available => bytes,
            _ => sample_bytes(self.source, data_at, stated, self.audio_end.max(data_at), ByteOrder::Little)
                .map_err(|error| HeaderError::from(error).into_audio_error(self.path))?,
        };
        if let Some(stated) = stated.filter(|stated| *stated < bytes) {
            warnings.push(format!(
                "the header states {stated} bytes of samples, the file holds {bytes}; all of them were read"
            ));
        }
        Ok(bytes)
    }

    /// The `data` chunks from `at` on, each with its position and bytes. A file should have one only.
    fn further_chunks(
        &mut self,
        mut at: u64,
        warnings: &mut Warnings,
    ) -> Result<Vec<(u64, u64)>, AudioError> {
        let header_error = |error| HeaderError::from(error).into_audio_error(self.path);
        let mut found = Vec::new();
        while found.len() < MAX_CHUNKS {
            let ids = [b"data", b"fmt "];
            let Some((id, data_at, size)) =
                find_chunk(self.source, at, self.audio_end, ids, ByteOrder::Little).map_err(header_error)?
            else {
                break;
            };
            if id == *b"fmt " {
                let format =
                    read_format(self.source, size).map_err(|error| error.into_audio_error(self.path))?;
                if format != self.format {
                    let what = "two `fmt` chunks that differ; split the file first".to_owned();
                    return Err(HeaderError::Header(what).into_audio_error(self.path));
                }
                at = data_at + size;
                continue;
            }
            let stated = Some(size).filter(|size| !(is_placeholder(*size) && *size > self.length - data_at));
            let bytes = self.bytes_of(data_at, stated, warnings)?;
            found.push((data_at, bytes));
            at = data_at + bytes;
        }
        Ok(found)
    }
}

/// Walks the chunks to the samples.
fn read_header(source: &mut dyn MediaSource, length: u64) -> Result<Header, HeaderError> {
    source.seek(SeekFrom::Start(0))?;
    let is_64_bit = read_array::<4>(source)? != *b"RIFF";
    let mut format = None;
    let (mut data_size_64, mut fact_at) = (None, None);
    let mut at = 12_u64;
    // A limit, since a hostile file could consist of empty chunks.
    for _ in 0..MAX_CHUNKS {
        if at.saturating_add(8) > length {
            let missing = if format.is_some() { "data" } else { "fmt" };
            return Err(HeaderError::Header(format!("no `{missing}` chunk up to the end of the file")));
        }
        source.seek(SeekFrom::Start(at))?;
        let id: [u8; 4] = read_array(source)?;
        let size = u64::from(u32::from_le_bytes(read_array(source)?));
        at += 8;
        match &id {
            b"fmt " => format = Some(read_format(source, size)?),
            b"fact" => fact_at = Some(at - 8),
            b"ds64" if is_64_bit && size >= 16 => {
                let _riff_size = read_array::<8>(source)?;
                data_size_64 = Some(u64::from_le_bytes(read_array(source)?));
            }
            b"data" => {
                let Some(format) = format else {
                    return Err(HeaderError::Header(
                        "the `data` chunk comes before any `fmt` chunk".to_owned(),
                    ));
                };
                let stated = match (size, data_size_64) {
                    // A 64-bit size of 0 or of a placeholder is as unknown as a 32-bit one.
                    (size, Some(size_64)) if size == u64::from(u32::MAX) => {
                        Some(size_64).filter(|size| *size != 0 && *size < u64::MAX / 2)
                    }
                    (size, _) if is_placeholder(size) && size > length - at => None,
                    (size, _) => Some(size),
                };
                return Ok(Header { format, data_at: at, stated, fact_at });
            }
            _ => {}
        }
        // Chunks start at even positions.
        at = at.saturating_add(size).saturating_add(size % 2);
    }
    Err(HeaderError::Header(format!("no samples within the first {MAX_CHUNKS} chunks")))
}

fn read_format(source: &mut dyn MediaSource, size: u64) -> Result<Format, HeaderError> {
    if size < 16 {
        return Err(HeaderError::Header(format!("a `fmt` chunk of {size} bytes, expected 16 or more")));
    }
    let mut tag = u16::from_le_bytes(read_array(source)?);
    let channels = u16::from_le_bytes(read_array(source)?);
    let sample_rate = u32::from_le_bytes(read_array(source)?);
    let _bytes_per_second = read_array::<4>(source)?;
    let block_align = u16::from_le_bytes(read_array(source)?);
    let bits = u16::from_le_bytes(read_array(source)?);
    let mut valid_bits = bits;
    if tag == TAG_EXTENSIBLE && size >= 40 {
        let _extension_size = read_array::<2>(source)?;
        let valid = u16::from_le_bytes(read_array(source)?);
        let _speakers = read_array::<4>(source)?;
        tag = u16::from_le_bytes(read_array(source)?);
        // Writers leave 0 where all bits are valid.
        if (1..bits).contains(&valid) {
            valid_bits = valid;
        }
    }
    let encoding = match (tag, bits) {
        (TAG_PCM, 1..=8) => Encoding::Unsigned8,
        (TAG_PCM, 9..=32) => Encoding::Signed { bytes: bits.div_ceil(8), valid_bits },
        (TAG_FLOAT, 32) => Encoding::Float32,
        (TAG_FLOAT, 64) => Encoding::Float64,
        (TAG_A_LAW, 8) => Encoding::ALaw,
        (TAG_MU_LAW, 8) => Encoding::MuLaw,
        (TAG_PCM | TAG_FLOAT, _) => {
            let kind = if tag == TAG_PCM { "integer" } else { "float" };
            return Err(HeaderError::Header(format!(
                "{bits}-bit {kind} samples, expected integers of 1 to 32 bits or floats of 32 or 64"
            )));
        }
        _ => {
            let encoding = Err(tag);
            return Ok(Format { encoding, channels: usize::from(channels), sample_rate });
        }
    };
    let expected = u64::from(channels) * encoding.bytes();
    if channels > 0 && u64::from(block_align) != expected {
        return Err(HeaderError::Header(format!(
            "{block_align} bytes for {channels} channels of {bits} bits, expected {expected}"
        )));
    }
    Ok(Format { encoding: Ok(encoding), channels: usize::from(channels), sample_rate })
}
