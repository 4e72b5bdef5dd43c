//! The frame headers of an MPEG audio or ADTS stream, read before decoding: whether channels or sample rate change on the
//! way, and where frames are missing.
//!
//! Demuxers silently skip bytes that are not a frame, so the audio after them would come too early.

use std::io::{self, SeekFrom};

use super::byte_window::{BLOCK_BYTES, ByteWindow};
use super::{MediaSource, adts, mpeg};

/// Frames of another format that are taken for a change. Fewer may be damage that looks like a header.
const MIN_FRAMES: u64 = 2;
/// Bytes of the longest frame header.
const HEADER_BYTES: usize = 7;
/// Lowest rate that holds all that is heard, in Hz.
const FULL_BAND_RATE: u32 = 44_100;
/// More tags than any real file has between two frames.
const MAX_TAGS: usize = 16;

/// The codec of a frame. A stream has frames of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// MPEG audio of this layer, 1 to 3.
    Mpeg { layer: u8 },
    /// AAC in ADTS.
    Adts,
}

/// What a frame header states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) channels: usize,
    pub(super) sample_rate: u32,
    /// Samples per channel.
    pub(super) samples: u64,
    /// Bytes of the whole frame.
    pub(super) bytes: u64,
}

/// Format that suits a whole stream whose frames differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MixedFormat {
    /// The highest number of channels.
    pub(super) channels: usize,
    /// The rate of the first frames that have 44.1 kHz or more, as players choose it; the highest where none have.
    pub(super) sample_rate: u32,
    /// Length in samples at that rate, encoder delay included.
    pub(super) samples: u64,
}

/// Frames that are missing or overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Samples before it, at the rate of the whole stream.
    pub(super) at: u64,
    pub(super) packets: u64,
    /// Samples that they had, estimated from the bytes.
    pub(super) samples: u64,
}

/// Frames of one format that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Index of the first of them.
    pub(super) first: u64,
    pub(super) channels: usize,
    pub(super) sample_rate: u32,
}

/// Result of [`scan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Set if frames differ.
    pub(super) mixed: Option<MixedFormat>,
    pub(super) gaps: Vec<Gap>,
    /// Changes of the format, the first frame included.
    pub(super) runs: Vec<Run>,
    /// Bytes behind the last frame that are neither frame nor tag.
    pub(super) trailing_bytes: u64,
}

/// Reads all frame headers from `start` on. The result is empty if this is no stream of frames.
pub(super) fn scan(source: &mut dyn MediaSource, start: u64) -> io::Result<Scan> {
    let length = source.seek(SeekFrom::End(0))?;
    let mut reader = HeaderReader { bytes: ByteWindow::new(source) };
    let Some(first) = reader.frame_at(start)? else { return Ok(Scan::default()) };
    let mut census = Census::default();
    let mut at = start;
    while at < length {
        match reader.frame_at(at)? {
            Some(frame) if frame.kind == first.kind => {
                if at + frame.bytes > length {
                    census.add_gap(1, frame);
                    break;
                }
                // A frame with a tag (Xing, Info, VBRI) is not decoded.
                if !reader.is_tag_at(at)? {
                    census.add_frame(frame);
                }
                at += frame.bytes;
            }
            _ => {
                let from = reader.after_tags(at, length)?;
                if from >= length {
                    break;
                }
                let Some((next, frame)) = reader.resync(from, first.kind)? else {
                    census.trailing_bytes = length - from;
                    break;
                };
                if next > from {
                    census.add_gap(((next - from) as f64 / census.mean_bytes(frame)).round() as u64, frame);
                }
                at = next;
            }
        }
    }
    Ok(census.finish())
}

/// What is known of the frames so far.
#[derive(Default)]
struct Census {
    frames: u64,
    bytes: u64,
    seconds: f64,
    /// Frames and samples by rate and channels, in the order in which they appear; real files have one or two.
    counts: Vec<((u32, usize), u64, u64)>,
    runs: Vec<Run>,
    /// Gaps in packets, each with its position in seconds and a frame as long as those that are missing.
    gaps: Vec<(f64, u64, Frame)>,
    trailing_bytes: u64,
}

impl Census {
    fn add_frame(&mut self, frame: Frame) {
        let Frame { channels, sample_rate, samples, bytes, .. } = frame;
        if self.runs.last().is_none_or(|run| (run.channels, run.sample_rate) != (channels, sample_rate)) {
            self.runs.push(Run { first: self.frames, channels, sample_rate });
        }
        match self.counts.iter_mut().find(|count| count.0 == (sample_rate, channels)) {
            Some(count) => {
                count.1 += 1;
                count.2 += samples;
            }
            None => self.counts.push(((sample_rate, channels), 1, samples)),
        }
        self.frames += 1;
        self.bytes += bytes;
        self.seconds += samples as f64 / f64::from(sample_rate);
    }

    fn mean_bytes(&self, next: Frame) -> f64 {
        if self.frames == 0 { next.bytes as f64 } else { self.bytes as f64 / self.frames as f64 }
    }

    /// Adds `packets` missing frames as long as `frame`, at least one.
    fn add_gap(&mut self, packets: u64, frame: Frame) {
        self.gaps.push((self.seconds, packets.max(1), frame));
        self.seconds += (packets.max(1) * frame.samples) as f64 / f64::from(frame.sample_rate);
    }

    fn finish(mut self) -> Scan {
        self.counts.retain(|count| count.1 >= MIN_FRAMES);
        let sample_rate = stream_rate(self.counts.iter().map(|count| count.0.0));
        let at_rate = |samples: u64, rate: u32| {
            (samples as f64 * f64::from(sample_rate) / f64::from(rate.max(1))).round() as u64
        };
        let channels = self.counts.iter().map(|count| count.0.1).max().unwrap_or(1);
        let samples = self.counts.iter().map(|count| at_rate(count.2, count.0.0)).sum();
        let mixed = (self.counts.len() > 1).then_some(MixedFormat { channels, sample_rate, samples });
        let gaps = self.gaps.iter().map(|(seconds, packets, frame)| Gap {
            at: (seconds * f64::from(sample_rate)).round() as u64,
            packets: *packets,
            samples: at_rate(packets * frame.samples, frame.sample_rate),
        });
        Scan { mixed, gaps: gaps.collect(), runs: self.runs, trailing_bytes: self.trailing_bytes }
    }
}

/// The rate of a stream whose parts have these rates, in order: the first of 44.1 kHz or more, as players choose it; the
/// highest where none is. 0 if there are none.
pub(super) fn stream_rate(rates: impl Iterator<Item = u32> + Clone) -> u32 {
    let full_band = rates.clone().find(|rate| *rate >= FULL_BAND_RATE);
    full_band.or(rates.max()).unwrap_or(0)
}

struct HeaderReader<'a> {
    bytes: ByteWindow<'a>,
}

impl HeaderReader<'_> {
    fn bytes_at(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        self.bytes.bytes_at(at, count)
    }

    fn frame_at(&mut self, at: u64) -> io::Result<Option<Frame>> {
        let bytes = self.bytes_at(at, HEADER_BYTES)?;
        Ok(mpeg::parse_header(bytes).or_else(|| adts::parse_header(bytes)))
    }

    /// Whether the frame is one that holds a tag with the number of frames.
    fn is_tag_at(&mut self, at: u64) -> io::Result<bool> {
        // The tag stands behind header and side information, which have at most 36 bytes.
        let bytes = self.bytes_at(at, 40)?;
        Ok(bytes.first() == Some(&0xFF)
            && [13, 21, 36].iter().any(|&offset| {
                let word = bytes.get(offset..offset + 4).unwrap_or_default();
                [&b"Xing"[..], b"Info", b"VBRI"].contains(&word)
            }))
    }

    /// Position behind the tags and zeros that begin at `at`.
    fn after_tags(&mut self, mut at: u64, length: u64) -> io::Result<u64> {
        for _ in 0..MAX_TAGS {
            let synchsafe =
                |bytes: &[u8]| bytes.iter().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7F));
            let tag = self.bytes_at(at, 32)?;
            at += match tag {
                [b'I', b'D', b'3', _, _, flags, size @ ..] if size.len() >= 4 => {
                    let footer = if flags & 0x10 != 0 { 10 } else { 0 };
                    10 + synchsafe(&size[..4]) + footer
                }
                [b'T', b'A', b'G', ..] => 128,
                [b'A', b'P', b'E', b'T', b'A', b'G', b'E', b'X', _, _, _, _, a, b, c, d, ..] => {
                    32 + u64::from(u32::from_le_bytes([*a, *b, *c, *d]))
                }
                [0, ..] => self.zeros_at(at)?,
                _ => return Ok(at),
            };
            if at >= length {
                return Ok(length);
            }
        }
        Ok(at)
    }

    fn zeros_at(&mut self, start: u64) -> io::Result<u64> {
        let mut at = start;
        loop {
            let bytes = self.bytes_at(at, BLOCK_BYTES)?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            at += zeros as u64;
            if zeros == 0 || zeros < bytes.len() {
                return Ok(at - start);
            }
        }
    }

    /// The next frame of `kind` from `at` on that another frame or the end follows.
    fn resync(&mut self, mut at: u64, kind: FrameKind) -> io::Result<Option<(u64, Frame)>> {
        while !self.bytes_at(at, 1)?.is_empty() {
            if let Some(frame) = self.frame_at(at)?.filter(|frame| frame.kind == kind) {
                let next = at + frame.bytes;
                let is_end = self.bytes_at(next, 1)?.is_empty() && !self.bytes_at(next - 1, 1)?.is_empty();
                if is_end || self.frame_at(next)?.is_some_and(|next| next.kind == kind) {
                    return Ok(Some((at, frame)));
                }
            }
            at += 1;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of MPEG audio, 128 kbit/s: 417, 384 or 576 bytes.
    fn frame(rate: u8, mono: bool) -> Vec<u8> {
        let hertz = [44_100, 48_000, 32_000][usize::from(rate)];
        let mut frame = vec![1; 144_000 * 128 / hertz];
        frame[..4].copy_from_slice(&[0xFF, 0xFB, 9 << 4 | rate << 2, if mono { 0xC0 } else { 0 }]);
        frame
    }

    fn scan_of(parts: &[Vec<u8>]) -> Scan {
        scan(&mut io::Cursor::new(parts.concat()), 0).unwrap()
    }

    #[test]
    fn the_format_of_a_mixed_stream_loses_nothing_that_is_heard() {
        type Case<'a> = (&'a [(u8, bool, usize)], Option<(usize, u32)>);
        let table: [Case<'_>; 7] = [
            (&[(0, false, 9)], None),
            (&[(0, false, 9), (0, true, 9)], Some((2, 44_100))),
            (&[(0, true, 9), (0, false, 9)], Some((2, 44_100))),
            (&[(0, false, 9), (1, false, 90)], Some((2, 44_100))),
            (&[(1, false, 9), (0, false, 90)], Some((2, 48_000))),
            (&[(2, true, 90), (1, false, 9)], Some((2, 48_000))),
            // One frame may be damage that looks like a header.
            (&[(0, false, 9), (1, true, 1), (0, false, 9)], None),
        ];
        for (parts, expected) in table {
            let frames: Vec<Vec<u8>> =
                parts.iter().map(|(rate, mono, count)| frame(*rate, *mono).repeat(*count)).collect();
            let found = scan_of(&frames).mixed.map(|mixed| (mixed.channels, mixed.sample_rate));
            assert_eq!(found, expected, "{parts:?}");
        }
    }

    #[test]
    fn missing_frames_are_found_and_tags_are_none() {
        let some = || frame(0, false).repeat(10);
        let id3 = [b"ID3\x04\0\0\0\0\x01\x00".as_slice(), &[0xFF; 128]].concat();
        type Case = (&'static str, Vec<Vec<u8>>, Vec<Gap>);
        let table: Vec<Case> = vec![
            ("whole", vec![some(), some()], vec![]),
            ("a tag between", vec![some(), id3, some()], vec![]),
            ("zeros between", vec![some(), vec![0; 3000], some()], vec![]),
            ("tags behind", vec![some(), b"TAG".to_vec(), vec![b' '; 125]], vec![]),
            (
                "three frames overwritten",
                vec![some(), vec![0x55; 3 * 417], some()],
                vec![Gap { at: 11_520, packets: 3, samples: 3456 }],
            ),
            (
                "a part of a frame",
                vec![some(), vec![0x55; 100], some()],
                vec![Gap { at: 11_520, packets: 1, samples: 1152 }],
            ),
            (
                "the end is cut off",
                vec![some(), frame(0, false)[..200].to_vec()],
                vec![Gap { at: 11_520, packets: 1, samples: 1152 }],
            ),
        ];
        for (name, parts, gaps) in table {
            let found = scan_of(&parts);
            assert_eq!((found.gaps, found.trailing_bytes), (gaps, 0), "{name}");
        }
        assert_eq!(scan_of(&[some(), vec![0x55; 5000]]).trailing_bytes, 5000);
        assert_eq!(scan_of(&[vec![0x55; 5000], some()]), Scan::default());
    }
}
