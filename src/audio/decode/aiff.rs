//! The headers of AIFF and of uncompressed AIFF-C.

use std::io::SeekFrom;
use std::path::Path;

use super::extent::{ByteOrder, find_chunk, sample_bytes};
use super::pcm::{Encoding, HeaderError, PcmLayout, PcmPart, read_array};
use super::{AudioError, MediaSource, Warnings, check_shape};

/// More chunks than any real file has.
const MAX_CHUNKS: usize = 4096;

/// The `COMM` chunk.
struct Common {
    encoding: Encoding,
    big_endian: bool,
    channels: usize,
    samples: u64,
    sample_rate: u32,
}

/// The `SSND` chunk.
struct Sound {
    data_at: u64,
    /// Bytes of samples that the chunk states.
    stated: u64,
    /// Samples are padded to a multiple of this many bytes; 0 for no padding.
    block_size: u64,
}

/// Reads the header of a file of `length` bytes, whose audio ends at `audio_end`. Returns `None` for compressed AIFF-C,
/// which symphonia may know.
pub(super) fn parse(
    source: &mut dyn MediaSource,
    length: u64,
    audio_end: u64,
    path: &Path,
    warnings: &mut Warnings,
) -> Result<Option<PcmLayout>, AudioError> {
    let Some((common, sound)) = read_chunks(source, length).map_err(|error| error.into_audio_error(path))?
    else {
        return Ok(None);
    };
    check_shape(path, common.channels, common.sample_rate)?;
    let frame = common.encoding.bytes() * common.channels as u64;
    let sound = match sound {
        Some(sound) => sound,
        None if common.samples == 0 => Sound { data_at: length, stated: 0, block_size: 0 },
        None => {
            let what = "no `SSND` chunk up to the end of the file".to_owned();
            return Err(HeaderError::Header(what).into_audio_error(path));
        }
    };
    let available = length.saturating_sub(sound.data_at);
    let expected = common.samples * frame;
    if expected > available {
        return Err(AudioError::Truncated { path: path.to_path_buf(), expected, found: available });
    }
    let end = audio_end.max(sound.data_at);
    let stated = Some(sound.stated).filter(|stated| *stated <= end - sound.data_at);
    let held = sample_bytes(source, sound.data_at, stated, end, ByteOrder::Big)
        .map_err(|error| HeaderError::from(error).into_audio_error(path))?;
    let further = find_chunk(source, sound.data_at + held, end, [b"SSND"; 2], ByteOrder::Big)
        .map_err(|error| HeaderError::from(error).into_audio_error(path))?;
    if further.is_some() {
        let what = "two `SSND` chunks, expected one; split the file first".to_owned();
        return Err(HeaderError::Header(what).into_audio_error(path));
    }
    let is_padding = held > expected && held - expected < sound.block_size;
    let samples = match held / frame {
        samples if samples > common.samples && !is_padding => samples,
        _ => common.samples,
    };
    if samples != common.samples && common.samples > 0 {
        warnings.push(format!(
            "the header states {} samples, the file holds {samples}; all of them were read",
            common.samples
        ));
    }
    if held < expected {
        warnings.push(format!(
            "the sound chunk states {held} bytes, the header {expected}; the header was followed"
        ));
    }
    Ok(Some(PcmLayout {
        container: "AIFF",
        codec: common.encoding.codec(),
        encoding: common.encoding,
        big_endian: common.big_endian,
        channels: common.channels,
        sample_rate: common.sample_rate,
        parts: vec![PcmPart { at: sound.data_at, samples }],
    }))
}

/// Walks the chunks to the common chunk and the samples.
fn read_chunks(
    source: &mut dyn MediaSource,
    length: u64,
) -> Result<Option<(Common, Option<Sound>)>, HeaderError> {
    source.seek(SeekFrom::Start(8))?;
    let compressed = read_array::<4>(source)? == *b"AIFC";
    let mut common = None;
    let mut sound = None;
    let mut at = 12_u64;
    // A limit, since a hostile file could consist of empty chunks.
    for _ in 0..MAX_CHUNKS {
        if at + 8 > length {
            break;
        }
        source.seek(SeekFrom::Start(at))?;
        let id: [u8; 4] = read_array(source)?;
        let size = u64::from(u32::from_be_bytes(read_array(source)?));
        at += 8;
        match &id {
            b"COMM" => match read_common(source, size, compressed)? {
                Some(read) => common = Some(read),
                None => return Ok(None),
            },
            b"SSND" => {
                let offset = u64::from(u32::from_be_bytes(read_array(source)?));
                let block_size = u64::from(u32::from_be_bytes(read_array(source)?));
                sound = Some(Sound {
                    data_at: at + 8 + offset,
                    stated: size.saturating_sub(8 + offset),
                    block_size,
                });
            }
            _ => {}
        }
        if common.is_some() && sound.is_some() {
            break;
        }
        at += size + size % 2;
    }
    match common {
        Some(common) => Ok(Some((common, sound))),
        None => Err(HeaderError::Header("no `COMM` chunk up to the end of the file".to_owned())),
    }
}

fn read_common(
    source: &mut dyn MediaSource,
    size: u64,
    compressed: bool,
) -> Result<Option<Common>, HeaderError> {
    let channels = u16::from_be_bytes(read_array(source)?);
    let samples = u64::from(u32::from_be_bytes(read_array(source)?));
    let bits = u16::from_be_bytes(read_array(source)?);
    let sample_rate = extended(read_array(source)?);
    let kind: [u8; 4] = if compressed && size >= 22 { read_array(source)? } else { *b"NONE" };
    let signed = match bits {
        1..=32 => Some(Encoding::Signed { bytes: bits.div_ceil(8), valid_bits: bits }),
        _ => None,
    };
    let (encoding, big_endian) = match &kind {
        b"NONE" | b"twos" => (signed, true),
        b"sowt" => (signed, false),
        b"raw " => (Some(Encoding::Unsigned8), true),
        b"in24" => (Some(Encoding::Signed { bytes: 3, valid_bits: 24 }), true),
        b"in32" => (Some(Encoding::Signed { bytes: 4, valid_bits: 32 }), true),
        b"fl32" | b"FL32" => (Some(Encoding::Float32), true),
        b"fl64" | b"FL64" => (Some(Encoding::Float64), true),
        b"alaw" | b"ALAW" => (Some(Encoding::ALaw), true),
        b"ulaw" | b"ULAW" => (Some(Encoding::MuLaw), true),
        _ => return Ok(None),
    };
    let Some(encoding) = encoding else {
        return Err(HeaderError::Header(format!("{bits}-bit samples, expected 1 to 32 bits")));
    };
    // A rate that is no whole number of Hz is rounded; one that is no rate at all becomes 0 and is refused.
    Ok(Some(Common { encoding, big_endian, channels: usize::from(channels), samples, sample_rate }))
}

/// An 80-bit IEEE float as a rounded positive integer; 0 for what is negative, tiny, huge or NaN.
fn extended(bytes: [u8; 10]) -> u32 {
    // Above 2^31 Hz, below 1 Hz, or with the sign bit: no rate.
    let exponent = u32::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    if !(16_383..16_383 + 32).contains(&exponent) {
        return 0;
    }
    let mut mantissa = [0; 8];
    mantissa.copy_from_slice(&bytes[2..]);
    // Value: mantissa · 2^(exponent − 16383 − 63).
    let shift = 63 - (exponent - 16_383);
    let half = 1_u128 << (shift - 1);
    u32::try_from((u128::from(u64::from_be_bytes(mantissa)) + half) >> shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::extended;

    #[test]
    fn eighty_bit_rates_are_read_and_nonsense_becomes_zero() {
        let rate = |exponent: u16, mantissa: u64| {
            let mut bytes = [0; 10];
            bytes[..2].copy_from_slice(&exponent.to_be_bytes());
            bytes[2..].copy_from_slice(&mantissa.to_be_bytes());
            extended(bytes)
        };
        assert_eq!(rate(0x400E, 0xAC44_0000_0000_0000), 44_100);
        assert_eq!(rate(0x400F, 0xBB80_0000_0000_0000), 96_000);
        assert_eq!(rate(0x3FFF, 0x8000_0000_0000_0000), 1);
        assert_eq!(rate(0x400D, 0xAC44_8000_0000_0000), 22_050);
        for nonsense in [(0, 0), (0x7FFF, u64::MAX), (0xC00E, 1 << 63), (0x3FFE, u64::MAX), (0x401F, 1 << 63)]
        {
            assert_eq!(rate(nonsense.0, nonsense.1), 0);
        }
    }
}
