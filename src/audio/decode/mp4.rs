//! What an MP4 file says about which samples are played: its edit list, and the `iTunSMPB` tag where it has no edit list.
//! symphonia reads neither. Also whether a file is fragmented.

use std::io::{Read, SeekFrom};
use std::ops::Range;

use super::MediaSource;
use super::pcm::read_array;

/// More boxes in one than any real file has.
const MAX_BOXES: usize = 4096;
/// More edits than any real file has.
const MAX_EDITS: u32 = 4096;
/// Longest text of an `iTunSMPB` tag.
const MAX_TAG_BYTES: u64 = 1024;

/// One entry of an edit list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// Length in ticks of the movie; 0 means to the end.
    pub(super) duration: u64,
    /// Start in ticks of the media; `None` for silence.
    pub(super) start: Option<u64>,
}

/// Which samples of the first audio track are played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Playback {
    /// An edit list.
    Edits { edits: Vec<Edit>, movie_scale: u32, media_scale: u32 },
    /// Samples of encoder delay, and samples of music after it.
    Gapless { delay: u64, samples: u64 },
}

/// Reads what is played, or `None` where the file says nothing. The demuxer reports errors.
pub(super) fn read_playback(source: &mut dyn MediaSource, length: u64) -> Option<Playback> {
    let moov = find_box(source, 0..length, b"moov")?;
    let gapless = read_gapless(source, moov.clone());
    let edits = read_edits(source, moov);
    match (edits, gapless) {
        // A single edit from the start cuts nothing at the front, so that the tag says more.
        (Some(Playback::Edits { edits, .. }), Some(gapless))
            if matches!(edits[..], [Edit { start: Some(0), .. }]) =>
        {
            Some(gapless)
        }
        (Some(edits), _) => Some(edits),
        (None, gapless) => gapless,
    }
}

fn read_edits(source: &mut dyn MediaSource, moov: Range<u64>) -> Option<Playback> {
    let mvhd = find_box(source, moov.clone(), b"mvhd")?;
    let movie_scale = timescale(source, mvhd)?;
    let mut at = moov.start;
    for _ in 0..MAX_BOXES {
        let trak = find_box(source, at..moov.end, b"trak")?;
        at = trak.end;
        let mdia = find_box(source, trak.clone(), b"mdia")?;
        let hdlr = find_box(source, mdia.clone(), b"hdlr")?;
        source.seek(SeekFrom::Start(hdlr.start + 8)).ok()?;
        if read_array::<4>(source).ok()? != *b"soun" {
            continue;
        }
        let mdhd = find_box(source, mdia, b"mdhd")?;
        let media_scale = timescale(source, mdhd)?;
        let edts = find_box(source, trak, b"edts")?;
        let elst = find_box(source, edts, b"elst")?;
        let edits = read_edit_list(source, elst)?;
        return Some(Playback::Edits { edits, movie_scale, media_scale });
    }
    None
}

/// Whether the samples are in fragments behind the header, which then does not state their number.
pub(super) fn is_fragmented(source: &mut dyn MediaSource, length: u64) -> bool {
    find_box(source, 0..length, b"moov").is_some_and(|moov| find_box(source, moov, b"mvex").is_some())
}

fn read_edit_list(source: &mut dyn MediaSource, elst: Range<u64>) -> Option<Vec<Edit>> {
    source.seek(SeekFrom::Start(elst.start)).ok()?;
    let [version, ..] = read_array::<4>(source).ok()?;
    let count = u32::from_be_bytes(read_array(source).ok()?);
    let mut edits = Vec::new();
    for _ in 0..count.min(MAX_EDITS) {
        let (duration, start) = match version {
            0 => (
                u64::from(u32::from_be_bytes(read_array(source).ok()?)),
                i64::from(i32::from_be_bytes(read_array(source).ok()?)),
            ),
            _ => (u64::from_be_bytes(read_array(source).ok()?), i64::from_be_bytes(read_array(source).ok()?)),
        };
        let _rate = read_array::<4>(source).ok()?;
        // −1 stands for silence.
        edits.push(Edit { duration, start: u64::try_from(start).ok() });
    }
    edits.iter().any(|edit| edit.start.is_some()).then_some(edits)
}

/// The `iTunSMPB` tag of iTunes: hexadecimal numbers, of which the second is the delay, the third the padding and the
/// fourth the number of samples between them.
fn read_gapless(source: &mut dyn MediaSource, moov: Range<u64>) -> Option<Playback> {
    let udta = find_box(source, moov, b"udta")?;
    let meta = find_box(source, udta, b"meta")?;
    // A full box in MP4, a plain one in QuickTime.
    let ilst =
        find_box(source, meta.start + 4..meta.end, b"ilst").or_else(|| find_box(source, meta, b"ilst"))?;
    let mut at = ilst.start;
    for _ in 0..MAX_BOXES {
        let item = find_box(source, at..ilst.end, b"----")?;
        at = item.end;
        let name = find_box(source, item.clone(), b"name")?;
        if text(source, name.start + 4..name.end)? != "iTunSMPB" {
            continue;
        }
        let data = find_box(source, item, b"data")?;
        let value = text(source, data.start + 8..data.end)?;
        let numbers: Vec<u64> =
            value.split_whitespace().map_while(|word| u64::from_str_radix(word, 16).ok()).collect();
        let (delay, samples) = (*numbers.get(1)?, *numbers.get(3)?);
        return (samples > 0).then_some(Playback::Gapless { delay, samples });
    }
    None
}

fn text(source: &mut dyn MediaSource, range: Range<u64>) -> Option<String> {
    source.seek(SeekFrom::Start(range.start)).ok()?;
    let mut text = String::new();
    source.take(range.end.checked_sub(range.start)?.min(MAX_TAG_BYTES)).read_to_string(&mut text).ok()?;
    Some(text)
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
pub(in crate::audio) fn find_box(
    source: &mut dyn MediaSource,
    range: Range<u64>,
    kind: &[u8; 4],
) -> Option<Range<u64>> {
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
