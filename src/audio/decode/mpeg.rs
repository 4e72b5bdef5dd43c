//! The frame headers of an MP3 file, read before decoding: whether channels or sample rate change on the way.

use std::io::{self, Read, SeekFrom};

use super::MediaSource;

/// Frames of another kind that are taken for a change. Fewer may be damage that looks like a header.
const MIN_FRAMES: u64 = 2;
/// Bytes read at a time.
const BLOCK_BYTES: usize = 1 << 16;

/// Format that suits a whole stream whose frames differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MixedFormat {
    /// The highest number of channels.
    pub(super) channels: usize,
    /// The rate of most frames, in Hz.
    pub(super) sample_rate: u32,
    /// Length in samples at that rate, encoder delay included.
    pub(super) samples: u64,
}

/// One frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    channels: usize,
    sample_rate: u32,
    samples: u64,
    bytes: u64,
    /// Version and layer, which never change within a stream.
    kind: (u8, u8),
}

/// Reads all frame headers from `start` on. `None` if all frames have one format, or if this is not an MPEG audio stream.
pub(super) fn mixed_format(source: &mut dyn MediaSource, start: u64) -> io::Result<Option<MixedFormat>> {
    let mut reader = HeaderReader { source, block: Vec::new(), block_at: 0 };
    let Some(first) = reader.frame_at(start)? else { return Ok(None) };
    // Frames and samples by rate and channels; real files have one or two.
    let mut counts: Vec<((u32, usize), u64, u64)> = Vec::new();
    let mut at = start;
    // The first frame may be a tag (Xing, Info, VBRI), which is not decoded.
    let mut is_first = true;
    loop {
        match reader.frame_at(at)? {
            Some(frame) if frame.kind.1 == first.kind.1 => {
                let key = (frame.sample_rate, frame.channels);
                if !std::mem::take(&mut is_first) {
                    match counts.iter_mut().find(|count| count.0 == key) {
                        Some(count) => {
                            count.1 += 1;
                            count.2 += frame.samples;
                        }
                        None => counts.push((key, 1, frame.samples)),
                    }
                }
                at += frame.bytes;
            }
            _ if reader.is_end(at)? => break,
            _ => match reader.resync(at + 1, first.kind.1)? {
                Some(next) => at = next,
                None => break,
            },
        }
    }
    counts.retain(|count| count.1 >= MIN_FRAMES);
    let Some(most) = counts.iter().max_by_key(|count| count.2).filter(|_| counts.len() > 1) else {
        return Ok(None);
    };
    let sample_rate = most.0.0;
    let channels = counts.iter().map(|count| count.0.1).max().unwrap_or(1);
    let samples = counts.iter().map(|count| count.2 * u64::from(sample_rate) / u64::from(count.0.0)).sum();
    Ok(Some(MixedFormat { channels, sample_rate, samples }))
}

struct HeaderReader<'a> {
    source: &'a mut dyn MediaSource,
    block: Vec<u8>,
    block_at: u64,
}

impl HeaderReader<'_> {
    fn bytes_at(&mut self, at: u64) -> io::Result<Option<[u8; 4]>> {
        let end = self.block_at + self.block.len() as u64;
        if at < self.block_at || at + 4 > end {
            self.source.seek(SeekFrom::Start(at))?;
            self.block.clear();
            self.block_at = at;
            Read::take(&mut *self.source, BLOCK_BYTES as u64).read_to_end(&mut self.block)?;
        }
        let offset = (at - self.block_at) as usize;
        Ok(self.block.get(offset..).and_then(|bytes| bytes.first_chunk().copied()))
    }

    fn is_end(&mut self, at: u64) -> io::Result<bool> {
        Ok(self.bytes_at(at)?.is_none())
    }

    fn frame_at(&mut self, at: u64) -> io::Result<Option<Frame>> {
        Ok(self.bytes_at(at)?.and_then(parse_frame))
    }

    /// Position of the next frame of `layer` that another frame follows.
    fn resync(&mut self, mut at: u64, layer: u8) -> io::Result<Option<u64>> {
        while let Some(bytes) = self.bytes_at(at)? {
            if let Some(frame) = parse_frame(bytes).filter(|frame| frame.kind.1 == layer)
                && self.frame_at(at + frame.bytes)?.is_some_and(|next| next.kind == frame.kind)
            {
                return Ok(Some(at));
            }
            at += 1;
        }
        Ok(None)
    }
}

fn parse_frame(header: [u8; 4]) -> Option<Frame> {
    const RATES: [u32; 3] = [44_100, 48_000, 32_000];
    /// kbit/s by table and index.
    const BIT_RATES: [[u64; 15]; 5] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let [sync, version, rates, mode] = header;
    if sync != 0xFF || version & 0xE0 != 0xE0 {
        return None;
    }
    // Version: 0 is 2.5, 2 is 2, 3 is 1. Layer: 1 is III, 2 is II, 3 is I.
    let (version, layer) = (version >> 3 & 3, version >> 1 & 3);
    if version == 1 || layer == 0 {
        return None;
    }
    let base = *RATES.get(usize::from(rates >> 2 & 3))?;
    let sample_rate = base >> [2, 0, 1, 0][usize::from(version)];
    let table = match (version, layer) {
        (3, 3) => 0,
        (3, 2) => 1,
        (3, _) => 2,
        (_, 3) => 3,
        _ => 4,
    };
    let kbits = *BIT_RATES[table].get(usize::from(rates >> 4))?;
    if kbits == 0 {
        return None;
    }
    let samples = match (version, layer) {
        (_, 3) => 384,
        (3, _) | (_, 2) => 1152,
        _ => 576,
    };
    let padding = u64::from(rates >> 1 & 1);
    let bytes = match layer {
        3 => (kbits * 12_000 / u64::from(sample_rate) + padding) * 4,
        _ => samples / 8 * kbits * 1000 / u64::from(sample_rate) + padding,
    };
    let channels = if mode >> 6 == 3 { 1 } else { 2 };
    Some(Frame { channels, sample_rate, samples, bytes, kind: (version, layer) })
}
