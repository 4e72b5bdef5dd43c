//! Records the host's audio by song position in a temporary file.
//!
//! The audio thread never touches this: it leaves its input in a ring, and a background thread records it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::entry::read_exact_at;
use super::ranges::Ranges;
use crate::audio::Planar;
use crate::offline::song_stems::Song;

/// Samples of a page: the unit in which the file grows.
const PAGE: i64 = 1 << 15;

/// The recording of one instance. Positions are samples of the song at the host's rate, and may be negative.
#[derive(Debug)]
pub struct Recording {
    rate: u32,
    channels: usize,
    file: Arc<File>,
    /// The place in the file of each page of the song.
    pages: BTreeMap<i64, u64>,
    max_pages: usize,
    heard: Ranges,
    is_full: bool,
}

impl Recording {
    /// An empty recording, in a file without a name in `folder`. It takes at most `max_bytes`.
    ///
    /// # Errors
    /// Those of creating the file.
    pub fn new(folder: &Path, rate: u32, channels: usize, max_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let page_bytes = PAGE as u64 * channels.max(1) as u64 * size_of::<f32>() as u64;
        Ok(Self {
            rate,
            channels: channels.max(1),
            file: Arc::new(tempfile::tempfile_in(folder)?),
            pages: BTreeMap::new(),
            max_pages: usize::try_from(max_bytes / page_bytes).unwrap_or(usize::MAX),
            heard: Ranges::default(),
            is_full: false,
        })
    }

    /// Sample rate in Hz.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// What has been heard.
    pub fn heard(&self) -> &Ranges {
        &self.heard
    }

    /// Whether more was heard than there is room for.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Records a block from song position `at` on. What was heard there before is replaced. Beyond the size limit nothing is recorded.
    ///
    /// # Errors
    /// Those of the file. What was recorded before stays.
    pub fn write(&mut self, at: i64, block: &Planar) -> io::Result<()> {
        let mut done = 0;
        while done < block.samples() {
            let (page, within, count) = place(at + done as i64, block.samples() - done);
            let Some(slot) = self.slot(page) else {
                self.is_full = true;
                return Ok(());
            };
            let mut bytes = Vec::with_capacity(count * self.channels * size_of::<f32>());
            for i in done..done + count {
                for channel in 0..self.channels {
                    bytes.extend(block.channel(channel.min(block.channels() - 1))[i].to_le_bytes());
                }
            }
            write_all_at(&self.file, self.offset(slot, within), &bytes)?;
            let from = at + done as i64;
            self.heard.add(from..from + count as i64);
            done += count;
        }
        Ok(())
    }

    /// A part of the recording as a song, for another thread. What is recorded there later may show in it.
    pub fn part(&self, range: Range<i64>) -> RecordedPart {
        let recording = Self {
            file: Arc::clone(&self.file),
            pages: self.pages.clone(),
            heard: self.heard.clone(),
            ..*self
        };
        RecordedPart { recording, range }
    }

    /// Everything from the first to the last heard sample, as a song.
    pub fn whole(&self) -> RecordedPart {
        let (first, last) = (self.heard.iter().next(), self.heard.iter().next_back());
        self.part(first.map_or(0, |range| range.start)..last.map_or(0, |range| range.end))
    }

    /// Reads samples. Parts that were not heard are silent.
    ///
    /// # Errors
    /// Those of the file.
    pub fn read(&self, range: Range<i64>) -> io::Result<Planar> {
        let total = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut out = Planar::new(self.channels);
        while out.samples() < total {
            let (page, within, count) = place(range.start + out.samples() as i64, total - out.samples());
            let mut bytes = vec![0; count * self.channels * size_of::<f32>()];
            if let Some(slot) = self.pages.get(&page) {
                self.read_page(*slot, within, &mut bytes)?;
            }
            let values: Vec<f32> =
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            out.append_interleaved(&values);
        }
        Ok(out)
    }

    /// Reads bytes of a page, of which the end may not be written yet.
    fn read_page(&self, slot: u64, within: i64, bytes: &mut [u8]) -> io::Result<()> {
        let offset = self.offset(slot, within);
        let length = self.file.metadata()?.len();
        let there = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        read_exact_at(&self.file, offset, bytes.get_mut(..there).unwrap_or_default())
    }

    fn offset(&self, slot: u64, within: i64) -> u64 {
        (slot * PAGE as u64 + within.unsigned_abs()) * self.channels as u64 * size_of::<f32>() as u64
    }

    /// The place of a page, a new one if need be; none if there is no more room.
    fn slot(&mut self, page: i64) -> Option<u64> {
        let next = self.pages.len();
        let room = next < self.max_pages;
        match self.pages.entry(page) {
            std::collections::btree_map::Entry::Occupied(slot) => Some(*slot.get()),
            std::collections::btree_map::Entry::Vacant(vacant) => room.then(|| *vacant.insert(next as u64)),
        }
    }
}

/// A part of a recording.
#[derive(Debug)]
pub struct RecordedPart {
    recording: Recording,
    range: Range<i64>,
}

impl RecordedPart {
    /// Song position of its first sample.
    pub fn start(&self) -> i64 {
        self.range.start
    }

    /// A part of it, by song positions.
    pub fn part(&self, range: Range<i64>) -> Self {
        self.recording.part(range)
    }
}

impl Song for RecordedPart {
    fn rate(&self) -> u32 {
        self.recording.rate
    }

    fn channels(&self) -> usize {
        self.recording.channels
    }

    fn samples(&self) -> u64 {
        self.range.end.abs_diff(self.range.start)
    }

    fn read(&mut self, at: u64, count: usize) -> io::Result<Planar> {
        let from = self.range.start + at as i64;
        self.recording.read(from..from + count as i64)
    }
}

/// The page of a position, the place in it, and how many of `count` samples lie in it.
fn place(at: i64, count: usize) -> (i64, i64, usize) {
    let within = at.rem_euclid(PAGE);
    (at.div_euclid(PAGE), within, count.min((PAGE - within) as usize))
}

#[cfg(unix)]
fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                bytes = bytes.get(count..).unwrap_or_default();
                offset += count as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: i64, channel: usize) -> f32 {
        at as f32 * 0.001 + channel as f32
    }

    fn block(at: i64, count: usize) -> Planar {
        Planar::from_equal((0..2).map(|c| (at..at + count as i64).map(|x| sample(x, c)).collect()).collect())
    }

    #[test]
    fn positions_are_recorded_in_any_order_and_may_be_negative() {
        let folder = tempfile::tempdir().unwrap();
        let mut recording = Recording::new(folder.path(), 44_100, 2, 1 << 30).unwrap();
        for at in [1_000_000_000_000, -40_000, 70_000, 10_000] {
            for piece in 0..100 {
                recording.write(at + 500 * piece, &block(at + 500 * piece, 500)).unwrap();
            }
        }
        let heard: Vec<_> = recording.heard().iter().cloned().collect();
        assert_eq!(heard, [-40_000..60_000, 70_000..120_000, 1_000_000_000_000..1_000_000_050_000]);
        for range in [-40_000..-39_000, -100..100, 32_000..33_500, 1_000_000_000_000..1_000_000_040_000] {
            let count = (range.end - range.start) as usize;
            assert_eq!(recording.read(range.clone()).unwrap().planes(), block(range.start, count).planes());
        }
        assert!(recording.read(500_000..500_010).unwrap().iter().flatten().all(|x| *x == 0.0));
        recording.write(0, &Planar::zeros(2, 10)).unwrap();
        assert!(recording.read(0..10).unwrap().iter().flatten().all(|x| *x == 0.0), "replaced");
        assert_eq!(recording.read(10..20).unwrap().planes(), block(10, 10).planes());
    }

    #[test]
    fn a_full_recording_keeps_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = 3 * PAGE as u64 * 2 * 4;
        let mut recording = Recording::new(folder.path(), 44_100, 2, bytes).unwrap();
        for at in (0..6 * PAGE).step_by(1000) {
            recording.write(at, &block(at, 1000)).unwrap();
        }
        assert!(recording.is_full());
        assert_eq!(recording.heard().iter().cloned().collect::<Vec<_>>(), vec![0..3 * PAGE]);
        recording.write(5, &block(5, 10)).unwrap();
        assert_eq!(recording.read(0..100).unwrap().planes(), block(0, 100).planes());
        assert!(recording.file.metadata().unwrap().len() <= bytes);
    }
}
