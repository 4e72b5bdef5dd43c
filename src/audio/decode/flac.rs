//! FLAC files without frames, and what follows the last frame. The former are legal (a file of zero samples), but symphonia
//! rejects them; with the latter it loses the last frame.

use std::io::{self, Read, SeekFrom};
use std::path::Path;

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_FLAC;
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use super::codec::{Codec, catch_panics, make_codec};
use super::pcm::{Encoding, PcmLayout, PcmPart, read_array};
use super::{AudioError, MediaSource, check_shape};

/// Bytes at the end of a file in which the last frame is searched.
const SEARCH_BYTES: u64 = 4 << 20;
/// Bytes of the longest frame header.
const MAX_HEADER_BYTES: usize = 16;

/// Returns an empty layout when the metadata blocks end exactly at the end of the file and state zero samples.
pub(super) fn parse_empty(
    source: &mut dyn MediaSource,
    length: u64,
    path: &Path,
) -> Result<Option<PcmLayout>, AudioError> {
    let Some((sample_rate, channels, bits)) = stream_info_of_empty(source, length) else { return Ok(None) };
    check_shape(path, channels, sample_rate)?;
    Ok(Some(PcmLayout {
        container: "FLAC",
        codec: "FLAC",
        encoding: Encoding::Signed { bytes: bits.div_ceil(8), valid_bits: bits },
        big_endian: true,
        channels,
        sample_rate,
        parts: vec![PcmPart { at: length, samples: 0 }],
    }))
}

/// Rate, channels and bits of a file that holds metadata only. The demuxer reports errors.
fn stream_info_of_empty(source: &mut dyn MediaSource, length: u64) -> Option<(u32, usize, u16)> {
    let mut at = 4;
    let mut info = None;
    // At most 127 kinds of blocks exist; files repeat few of them.
    for _ in 0..1024 {
        source.seek(SeekFrom::Start(at)).ok()?;
        let [kind, size @ ..] = read_array::<4>(source).ok()?;
        let size = u64::from(u32::from_be_bytes([0, size[0], size[1], size[2]]));
        if kind & 0x7F == 0 && size >= 34 {
            source.seek(SeekFrom::Start(at + 14)).ok()?;
            // 20 bits of rate, 3 of channels − 1, 5 of bits − 1, 36 of samples.
            let packed = u64::from_be_bytes(read_array(source).ok()?);
            info = (packed & ((1 << 36) - 1) == 0).then_some((
                (packed >> 44) as u32,
                (packed >> 41 & 7) as usize + 1,
                (packed >> 36 & 31) as u16 + 1,
            ));
        }
        at += 4 + size;
        if kind & 0x80 != 0 {
            return info.filter(|_| at == length);
        }
    }
    None
}

/// Position where the last frame ends, in a file whose audio would end at `end`. `None` if that is `end`, or if the frame that
/// has the last sample of STREAMINFO is not found. The demuxer reports broken headers.
pub(super) fn frames_end(source: &mut dyn MediaSource, end: u64) -> io::Result<Option<u64>> {
    source.seek(SeekFrom::Start(4))?;
    let mut header = Vec::new();
    Read::take(&mut *source, 4 + 34).read_to_end(&mut header)?;
    let [kind, _, _, _, info @ ..] = header.as_slice() else { return Ok(None) };
    let Some(info) = info.first_chunk::<34>().filter(|_| kind & 0x7F == 0) else { return Ok(None) };
    let from = end.saturating_sub(SEARCH_BYTES).max(42);
    let mut bytes = Vec::new();
    source.seek(SeekFrom::Start(from))?;
    Read::take(&mut *source, end.saturating_sub(from)).read_to_end(&mut bytes)?;
    Ok(end_of_last_frame(&bytes, info).filter(|at| *at < bytes.len()).map(|at| from + at as u64))
}

/// Where in `bytes` the last frame of a stream ends.
fn end_of_last_frame(bytes: &[u8], info: &[u8; 34]) -> Option<usize> {
    let block_size = u64::from(u16::from_be_bytes([info[2], info[3]]));
    let [.., a, b, c, d, e] = *info.first_chunk::<18>()?;
    let total = u64::from_be_bytes([0, 0, 0, a & 15, b, c, d, e]);
    if total == 0 {
        return None;
    }
    let start = (0..bytes.len().saturating_sub(1)).rev().find(|&at| {
        bytes[at] == 0xFF
            && samples_of_frame(&bytes[at..], block_size)
                .is_some_and(|(first, samples)| first.checked_add(samples) == Some(total))
    })?;
    // A frame with its checksum has the checksum 0. So have one in 65 536 of its beginnings, which do not decode.
    let mut crc = 0_u16;
    let mut ends = Vec::new();
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        crc = (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| (crc << 1) ^ (0x8005 * (crc >> 15)));
        if crc == 0 {
            ends.push(at + 1);
        }
    }
    if ends.last() == Some(&bytes.len()) {
        return Some(bytes.len());
    }
    ends.into_iter().find(|&end| decodes(&bytes[start..end], info))
}

/// First sample and number of samples of the frame whose header is at the start of `bytes`.
fn samples_of_frame(bytes: &[u8], block_size: u64) -> Option<(u64, u64)> {
    let header = &bytes[..bytes.len().min(MAX_HEADER_BYTES)];
    let [0xFF, blocking @ (0xF8 | 0xF9), sizes, channels, rest @ ..] = header else { return None };
    if channels & 1 != 0 || sizes & 15 == 15 {
        return None;
    }
    // The number is coded like a character of UTF-8.
    let lead = *rest.first()?;
    let (more, value) = match lead.leading_ones() as usize {
        0 => (0, u64::from(lead)),
        ones @ 2..=7 => (ones - 1, u64::from(lead) & (0x7F >> ones)),
        _ => return None,
    };
    let mut number = value;
    for byte in rest.get(1..=more)? {
        if byte & 0xC0 != 0x80 {
            return None;
        }
        number = number << 6 | u64::from(byte & 0x3F);
    }
    let mut at = 1 + more;
    let samples = match sizes >> 4 {
        1 => 192,
        code @ 2..=5 => 576 << (code - 2),
        6 => {
            at += 1;
            u64::from(*rest.get(at - 1)?) + 1
        }
        7 => {
            at += 2;
            u64::from(u16::from_be_bytes([*rest.get(at - 2)?, *rest.get(at - 1)?])) + 1
        }
        code @ 8.. => 256 << (code - 8),
        _ => return None,
    };
    at += match sizes & 15 {
        12 => 1,
        13 | 14 => 2,
        _ => 0,
    };
    let covered = header.get(..4 + at)?;
    let crc = covered
        .iter()
        .fold(0_u8, |crc, byte| (0..8).fold(crc ^ byte, |crc, _| (crc << 1) ^ (0x07 * (crc >> 7))));
    if *rest.get(at)? != crc {
        return None;
    }
    let first = if *blocking == 0xF9 { number } else { number.checked_mul(block_size)? };
    Some((first, samples))
}

/// Whether a frame is whole.
fn decodes(frame: &[u8], info: &[u8; 34]) -> bool {
    let mut params = AudioCodecParameters::new();
    params.for_codec(CODEC_ID_FLAC).with_extra_data(info.to_vec().into());
    let packet = Packet::new(0, Timestamp::from(0_i64), Duration::from(0_u64), frame.to_vec());
    match make_codec(&params) {
        Ok((Codec::Symphonia(mut decoder), _)) => {
            catch_panics(|| Ok(decoder.decode(&packet).map(drop)?)).is_ok()
        }
        _ => false,
    }
}
