//! The packet table of CAF files: how many samples are music. symphonia counts whole packets.

use std::io::SeekFrom;

use super::MediaSource;
use super::mp4::Playback;
use super::pcm::read_array;

/// More chunks than any real file has.
const MAX_CHUNKS: usize = 4096;

/// Reads delay and number of samples, or `None` where the file has no packet table. The demuxer reports errors.
pub(super) fn read_playback(source: &mut dyn MediaSource) -> Option<Playback> {
    let mut at = 8_u64;
    for _ in 0..MAX_CHUNKS {
        source.seek(SeekFrom::Start(at)).ok()?;
        let kind: [u8; 4] = read_array(source).ok()?;
        // -1 stands for the rest of the file, which only the samples may be.
        let size = u64::try_from(i64::from_be_bytes(read_array(source).ok()?)).ok()?;
        if kind == *b"pakt" {
            let _packets = read_array::<8>(source).ok()?;
            let samples = u64::try_from(i64::from_be_bytes(read_array(source).ok()?)).ok()?;
            let delay = u64::try_from(i32::from_be_bytes(read_array(source).ok()?)).ok()?;
            return (samples > 0).then_some(Playback::Gapless { delay, samples });
        }
        at = at.checked_add(12)?.checked_add(size)?;
    }
    None
}
