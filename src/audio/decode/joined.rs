//! Reads files that are joined in one, one after the other, as one stream.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::conform::Conformer;
use super::frames::stream_rate;
use super::part_source::PartSource;
use super::{AudioError, BlockReader, MediaSource, Planar, SourceFormat, SourceInfo, Warnings, open_blocks};

/// Reads several files in one source.
pub(super) struct JoinedReader {
    source: SharedSource,
    path: PathBuf,
    info: SourceInfo,
    /// The files still to be read, and the one that is being read.
    ranges: std::vec::IntoIter<Range<u64>>,
    current: Option<Box<dyn BlockReader>>,
    /// Converts what differs from `info`; none where nothing does.
    conformer: Option<Conformer>,
    block: Planar,
}

impl JoinedReader {
    /// Opens every file once, to learn the format of the whole.
    pub(super) fn open(
        source: Box<dyn MediaSource>,
        ranges: Vec<Range<u64>>,
        path: &Path,
        warnings: &mut Warnings,
    ) -> Result<Self, AudioError> {
        let source = SharedSource { inner: Arc::new(Mutex::new(source)), at: 0 };
        let mut infos = Vec::with_capacity(ranges.len());
        for range in &ranges {
            infos.push(open_part(&source, range, path, &mut Warnings::default())?.info().clone());
        }
        let info = common_info(&infos, path)?;
        let differs =
            |part: &SourceInfo| (part.channels, part.sample_rate) != (info.channels, info.sample_rate);
        let conformer = infos.iter().any(differs).then(|| Conformer::new(info.channels, info.sample_rate));
        warnings.push(format!(
            "{} files are joined in this one; all of them were read, one after the other",
            ranges.len()
        ));
        let block = Planar::default();
        let ranges = ranges.into_iter();
        Ok(Self { source, path: path.to_path_buf(), info, ranges, current: None, conformer, block })
    }
}

fn open_part(
    source: &SharedSource,
    range: &Range<u64>,
    path: &Path,
    warnings: &mut Warnings,
) -> Result<Box<dyn BlockReader>, AudioError> {
    let read = |source| AudioError::Read { path: path.to_path_buf(), source };
    let part = PartSource::new(Box::new(source.clone()), range.start, range.end).map_err(read)?;
    open_blocks(Box::new(part), range.end - range.start, path, warnings)
}

/// The format that loses nothing of any file: the most channels, and the rate that suits them all.
fn common_info(infos: &[SourceInfo], path: &Path) -> Result<SourceInfo, AudioError> {
    let Some(first) = infos.first() else {
        return Err(AudioError::Empty { path: path.to_path_buf() });
    };
    let sample_rate = stream_rate(infos.iter().map(|info| info.sample_rate));
    let is_lossless = |info: &SourceInfo| info.sample_format != SourceFormat::Lossy;
    if let Some(other) = infos.iter().find(|info| info.sample_rate != first.sample_rate)
        && infos.iter().any(is_lossless)
    {
        return Err(AudioError::Joined {
            path: path.to_path_buf(),
            count: infos.len(),
            rates: (first.sample_rate, other.sample_rate),
        });
    }
    let samples = infos.iter().try_fold(0_u64, |sum, info| {
        let samples = info.samples? as f64 * f64::from(sample_rate) / f64::from(info.sample_rate.max(1));
        sum.checked_add(samples.round() as u64)
    });
    Ok(SourceInfo {
        sample_rate,
        channels: infos.iter().map(|info| info.channels).max().unwrap_or(first.channels),
        samples,
        sample_format: infos
            .iter()
            .map(|info| info.sample_format)
            .max_by_key(|format| width(*format))
            .unwrap_or(first.sample_format),
        ..first.clone()
    })
}

/// Order of formats: each holds the samples of those before it.
fn width(format: SourceFormat) -> u8 {
    match format {
        SourceFormat::Int8 => 0,
        SourceFormat::Int16 => 1,
        SourceFormat::Int24 => 2,
        SourceFormat::Float32 => 3,
        SourceFormat::Int32 => 4,
        SourceFormat::Float64 => 5,
        SourceFormat::Lossy => 6,
    }
}

impl BlockReader for JoinedReader {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn read_block(&mut self, out: &mut Planar, warnings: &mut Warnings) -> Result<bool, AudioError> {
        let reader = match &mut self.current {
            Some(reader) => reader,
            none => match self.ranges.next() {
                Some(range) => none.insert(open_part(&self.source, &range, &self.path, warnings)?),
                None => {
                    // What a resampler still holds comes last.
                    let mut rest = self.conformer.take();
                    if let Some(conformer) = &mut rest {
                        conformer.flush(out)?;
                    }
                    return Ok(!out.is_empty());
                }
            },
        };
        let (channels, sample_rate) = (reader.info().channels, reader.info().sample_rate);
        let block = if self.conformer.is_some() { &mut self.block } else { &mut *out };
        block.reset(channels);
        let more = reader.read_block(block, warnings)?;
        if reader.info().samples.is_none() {
            // The file is longer than its header states.
            self.info.samples = None;
        }
        if let Some(conformer) = &mut self.conformer {
            conformer.conform(std::mem::take(&mut self.block), sample_rate, out)?;
        }
        if !more {
            self.current = None;
        }
        Ok(true)
    }
}

/// A source that several readers share, each with a position of its own.
#[derive(Clone)]
struct SharedSource {
    inner: Arc<Mutex<Box<dyn MediaSource>>>,
    at: u64,
}

impl Read for SharedSource {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner.lock();
        inner.seek(SeekFrom::Start(self.at))?;
        let count = inner.read(out)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for SharedSource {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut inner = self.inner.lock();
        inner.seek(SeekFrom::Start(self.at))?;
        self.at = inner.seek(to)?;
        Ok(self.at)
    }
}

impl MediaSource for SharedSource {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        self.inner.lock().byte_len()
    }
}
