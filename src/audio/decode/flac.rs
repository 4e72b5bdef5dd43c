//! FLAC files without frames. They are legal (a file of zero samples), but symphonia rejects them.

use std::io::SeekFrom;
use std::path::Path;

use super::pcm::{Encoding, PcmLayout, read_array};
use super::{AudioError, MediaSource, check_shape};

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
        data_at: length,
        samples: 0,
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
