//! The edit list of MP4 files, which symphonia reads but does not apply: it says how many samples the encoder put
//! in front of the music (1024 or 2112 with AAC) and how many belong to it. And whether a file is in fragments.

use std::io::SeekFrom;
use std::ops::Range;

use super::MediaSource;
use super::pcm::read_array;

/// More boxes in one than any real file has.
const MAX_BOXES: usize = 4096;
/// Longest delay that is taken for one, in samples. More is an edit by a user, which cuts or shifts music.
const MAX_DELAY: u64 = 16_384;

/// What the first audio track's only edit keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EditList {
    /// Samples of encoder delay.
    pub(super) delay: u64,
    /// Samples that follow, as exact as the file's clock: true length ≤ `samples` + `tolerance`. 0 when not told.
    pub(super) samples: u64,
    /// One tick of the file's clock, in samples.
    pub(super) tolerance: u64,
}

/// Reads the edit, or none where there is no usable one. Errors of the file are for the demuxer to report.
pub(super) fn read_edit(source: &mut dyn MediaSource, length: u64) -> Option<EditList> {
    let moov = find(source, 0..length, b"moov")?;
    let mvhd = find(source, moov.clone(), b"mvhd")?;
    let movie_scale = timescale(source, mvhd)?;
    let mut at = moov.start;
    for _ in 0..MAX_BOXES {
        let trak = find(source, at..moov.end, b"trak")?;
        at = trak.end;
        let mdia = find(source, trak.clone(), b"mdia")?;
        let hdlr = find(source, mdia.clone(), b"hdlr")?;
        source.seek(SeekFrom::Start(hdlr.start + 8)).ok()?;
        if read_array::<4>(source).ok()? != *b"soun" {
            continue;
        }
        let mdhd = find(source, mdia, b"mdhd")?;
        let media_scale = timescale(source, mdhd)?;
        let edts = find(source, trak, b"edts")?;
        let elst = find(source, edts, b"elst")?;
        return entry(source, elst, movie_scale, media_scale);
    }
    None
}

/// Whether the samples are in fragments behind the head, which then does not tell their number.
pub(super) fn is_fragmented(source: &mut dyn MediaSource, length: u64) -> bool {
    find(source, 0..length, b"moov").is_some_and(|moov| find(source, moov, b"mvex").is_some())
}

/// The entry of an edit list that has one with media in it, behind empty ones if any.
fn entry(
    source: &mut dyn MediaSource,
    elst: Range<u64>,
    movie_scale: u32,
    media_scale: u32,
) -> Option<EditList> {
    source.seek(SeekFrom::Start(elst.start)).ok()?;
    let [version, ..] = read_array::<4>(source).ok()?;
    let count = u32::from_be_bytes(read_array(source).ok()?);
    let mut found = None;
    for _ in 0..count.min(4) {
        let (duration, start) = match version {
            0 => (
                u64::from(u32::from_be_bytes(read_array(source).ok()?)),
                i64::from(i32::from_be_bytes(read_array(source).ok()?)),
            ),
            _ => (u64::from_be_bytes(read_array(source).ok()?), i64::from_be_bytes(read_array(source).ok()?)),
        };
        let _rate = read_array::<4>(source).ok()?;
        match (u64::try_from(start), found) {
            // −1: silence before the media starts.
            (Err(_), None) => {}
            (Ok(start), None) => found = Some((duration, start)),
            // Several pieces: a cut, which is not ours to make.
            _ => return None,
        }
    }
    let (duration, delay) = found.filter(|&(_, delay)| delay <= MAX_DELAY && count <= 4)?;
    let samples = u128::from(duration) * u128::from(media_scale) / u128::from(movie_scale);
    Some(EditList {
        delay,
        samples: u64::try_from(samples).ok()?,
        tolerance: u64::from(media_scale.div_ceil(movie_scale)),
    })
}

/// Ticks per second of an `mvhd` or `mdhd` box.
fn timescale(source: &mut dyn MediaSource, header: Range<u64>) -> Option<u32> {
    source.seek(SeekFrom::Start(header.start)).ok()?;
    let [version, ..] = read_array::<4>(source).ok()?;
    let dates = if version == 0 { 8 } else { 16 };
    source.seek(SeekFrom::Start(header.start + 4 + dates)).ok()?;
    let scale = u32::from_be_bytes(read_array(source).ok()?);
    (scale > 0).then_some(scale)
}

/// The content of the first box of a kind among those that fill a range.
fn find(source: &mut dyn MediaSource, range: Range<u64>, kind: &[u8; 4]) -> Option<Range<u64>> {
    let mut at = range.start;
    for _ in 0..MAX_BOXES {
        if at.checked_add(8)? > range.end {
            return None;
        }
        source.seek(SeekFrom::Start(at)).ok()?;
        let size = u64::from(u32::from_be_bytes(read_array(source).ok()?));
        let name: [u8; 4] = read_array(source).ok()?;
        let (header, size) = match size {
            0 => (8, range.end - at),
            1 => (16, u64::from_be_bytes(read_array(source).ok()?)),
            size => (8, size),
        };
        let end = at.checked_add(size).filter(|&end| size >= header && end <= range.end)?;
        if name == *kind {
            return Some(at + header..end);
        }
        at = end;
    }
    None
}
