//! A part of a file as a source of its own, with some bytes corrected: demuxers neither meet what surrounds the audio nor
//! sizes that are wrong.

use std::io::{self, Read, Seek, SeekFrom};

use super::MediaSource;

/// The part.
pub(super) struct PartSource {
    inner: Box<dyn MediaSource>,
    start: u64,
    length: u64,
    at: u64,
    /// Positions in the part, with the bytes that stand there.
    patches: Vec<(u64, [u8; 4])>,
}

impl PartSource {
    /// The bytes of `inner` from `start` up to `end`.
    pub(super) fn new(mut inner: Box<dyn MediaSource>, start: u64, end: u64) -> io::Result<Self> {
        inner.seek(SeekFrom::Start(start))?;
        Ok(Self { inner, start, length: end.saturating_sub(start), at: 0, patches: Vec::new() })
    }

    /// Puts other bytes at a position.
    #[must_use]
    pub(super) fn with_patch(mut self, at: u64, bytes: [u8; 4]) -> Self {
        self.patches.push((at, bytes));
        self
    }
}

impl Read for PartSource {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = out.len().min(left);
        let read = self.inner.read(&mut out[..count])?;
        for (at, bytes) in &self.patches {
            for (place, byte) in (*at..).zip(bytes) {
                if let Some(offset) =
                    place.checked_sub(self.at).and_then(|offset| usize::try_from(offset).ok())
                    && offset < read
                {
                    out[offset] = *byte;
                }
            }
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for PartSource {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        let position = position.and_then(|at| Some((at, self.start.checked_add(at)?)));
        let (at, inner_at) = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.inner.seek(SeekFrom::Start(inner_at))?;
        self.at = at;
        Ok(at)
    }
}

impl MediaSource for PartSource {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_its_own_positions_and_corrected_bytes() {
        let bytes: Vec<u8> = (0..50).collect();
        for step in [1, 3, 64] {
            let inner = Box::new(io::Cursor::new(bytes.clone()));
            let mut part = PartSource::new(inner, 10, 40).unwrap().with_patch(5, [99; 4]);
            let mut all: Vec<u8> = Vec::new();
            let mut block = vec![0; step];
            loop {
                match part.read(&mut block).unwrap() {
                    0 => break,
                    count => all.extend(&block[..count]),
                }
            }
            let expected: Vec<u8> = (10..15).chain([99; 4]).chain(19..40).collect();
            assert_eq!(all, expected, "{step}");
            assert_eq!(part.seek(SeekFrom::End(-3)).unwrap(), 27);
            assert_eq!(part.read(&mut block[..1]).unwrap(), 1);
            assert_eq!((block[0], part.stream_position().unwrap()), (37, 28));
        }
    }
}
