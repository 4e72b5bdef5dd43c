//! Finds where further files begin in a file that holds several one after the other: `cat a.flac b.flac`, chained Ogg.
//!
//! ffmpeg reads some of these to their end and others (WAV, AIFF, CAF, MP4) only up to the first join. MPEG audio and ADTS
//! have no file header and need no search.

use std::io;
use std::ops::Range;

use super::MediaSource;
use super::byte_window::ByteWindow;

/// More files in one than anybody joins. What follows them is one of the codecs' errors.
const MAX_FILES: usize = 4096;
/// More boxes, chunks or elements than a real file has.
const MAX_CHUNKS: usize = 1 << 16;
const EBML: &[u8] = &[0x1A, 0x45, 0xDF, 0xA3];
const SEGMENT: &[u8] = &[0x18, 0x53, 0x80, 0x67];
/// Bytes of the fixed part of an Ogg page header.
const OGG_HEADER: usize = 27;

/// The ranges of the files in a source of `length` bytes, in order. A single one if nothing is joined.
pub(super) fn file_ranges(source: &mut dyn MediaSource, length: u64) -> io::Result<Vec<Range<u64>>> {
    let mut bytes = ByteWindow::new(source);
    let mut starts = vec![0];
    while let Some(next) = next_file(&mut bytes, *starts.last().unwrap_or(&0), length)? {
        starts.push(next);
        if starts.len() == MAX_FILES {
            break;
        }
    }
    let ends = starts.iter().skip(1).copied().chain([length]);
    Ok(starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect())
}

/// Where the file after the one at `start` begins.
fn next_file(bytes: &mut ByteWindow<'_>, start: u64, length: u64) -> io::Result<Option<u64>> {
    let magic = bytes.bytes_at(start, 12)?.to_vec();
    match (magic.get(..4), magic.get(4..8)) {
        (Some(b"RIFF" | b"RF64" | b"BW64" | b"FORM"), _) => next_iff(bytes, &magic, start, length),
        (Some(b"caff"), _) => next_caf(bytes, start, length),
        (Some(b"OggS"), _) => next_ogg_link(bytes, start, length),
        (Some(EBML), _) => next_matroska(bytes, start, length),
        (_, Some(b"ftyp")) => next_mp4(bytes, start, length),
        (Some(b"fLaC" | [b'I', b'D', b'3', _]), _) => next_flac(bytes, start),
        _ => Ok(None),
    }
}

/// Whether a WAV or AIFF header stands here.
fn is_iff(bytes: &[u8]) -> bool {
    let chunk_id = bytes.get(12..16);
    let is_id = chunk_id.is_some_and(|id| id.iter().all(|byte| (b' '..=b'~').contains(byte)));
    is_id
        && matches!(
            (bytes.get(..4), bytes.get(8..12)),
            (Some(b"RIFF" | b"RF64" | b"BW64"), Some(b"WAVE")) | (Some(b"FORM"), Some(b"AIFF" | b"AIFC"))
        )
}

fn next_iff(bytes: &mut ByteWindow<'_>, magic: &[u8], start: u64, length: u64) -> io::Result<Option<u64>> {
    if !is_iff(bytes.bytes_at(start, 16)?) {
        return Ok(None);
    }
    let size = magic.get(4..8).and_then(|size| size.first_chunk()).map_or(0, |size| {
        if magic.starts_with(b"FORM") { u32::from_be_bytes(*size) } else { u32::from_le_bytes(*size) }
    });
    let end = start + 8 + u64::from(size);
    // Files have an even size, but some writers leave the padding out.
    for at in [end, end + 1] {
        if is_iff(bytes.bytes_at(at, 16)?) {
            return Ok(Some(at));
        }
    }
    // The rest of the file is this one, also where the size has 64 bits or has wrapped at 4 GiB.
    let rest = length - (start + 8);
    let reaches_end = |size: u64| size == rest || size + 1 == rest;
    let size_64 = bytes.bytes_at(start + 12, 16)?.to_vec();
    let size_64 = size_64.strip_prefix(b"ds64").and_then(|chunk| chunk.get(4..)?.first_chunk());
    if reaches_end(u64::from(size))
        || size_64.is_some_and(|size| reaches_end(u64::from_le_bytes(*size)))
        || rest >> 32 > 0 && [rest as u32, (rest - 1) as u32].contains(&size)
    {
        return Ok(None);
    }
    // The size is wrong, or is followed by something else.
    let pattern = &magic[..4];
    bytes.find(start + 12, pattern, 16, is_iff)
}

fn next_caf(bytes: &mut ByteWindow<'_>, start: u64, length: u64) -> io::Result<Option<u64>> {
    let is_caf = |bytes: &[u8]| bytes.starts_with(b"caff\0\x01\0\0desc");
    let mut at = start + 8;
    for _ in 0..MAX_CHUNKS {
        let head = bytes.bytes_at(at, 12)?;
        if is_caf(head) {
            return Ok(Some(at));
        }
        let Some(size) = head.get(4..).and_then(|size| size.first_chunk::<8>()) else { return Ok(None) };
        match u64::try_from(i64::from_be_bytes(*size)).ok().and_then(|size| (at + 12).checked_add(size)) {
            Some(next) if next <= length => at = next,
            // Samples to the end of the file.
            _ => return bytes.find(at + 12, b"caff", 12, is_caf),
        }
    }
    Ok(None)
}

fn next_mp4(bytes: &mut ByteWindow<'_>, start: u64, length: u64) -> io::Result<Option<u64>> {
    let mut at = start;
    for _ in 0..MAX_CHUNKS {
        let head = bytes.bytes_at(at, 16)?;
        let (Some(size), Some(kind)) = (head.first_chunk::<4>(), head.get(4..8)) else { return Ok(None) };
        if kind == b"ftyp" && at > start {
            return Ok(Some(at));
        }
        let size = match (u32::from_be_bytes(*size), head.get(8..).and_then(|size| size.first_chunk())) {
            (1, Some(size)) => u64::from_be_bytes(*size),
            (size, _) => u64::from(size),
        };
        match at.checked_add(size) {
            Some(next) if size >= 8 && next < length => at = next,
            _ => return Ok(None),
        }
    }
    Ok(None)
}

fn next_flac(bytes: &mut ByteWindow<'_>, start: u64) -> io::Result<Option<u64>> {
    // The marker and the header of STREAMINFO, which is the first block and may be the only one.
    let is_flac = |bytes: &[u8]| matches!(bytes, [b'f', b'L', b'a', b'C', 0 | 0x80, 0, 0, 34]);
    // An ID3v2 tag may stand before the marker, and is part of the same file.
    let head = bytes.bytes_at(start, 10)?;
    let own = match *head {
        [b'I', b'D', b'3', _, _, _, a, b, c, d] => {
            let size = [a, b, c, d].into_iter().fold(0, |size, seven| size << 7 | u64::from(seven & 0x7F));
            start + 10 + size
        }
        _ => start,
    };
    if !is_flac(bytes.bytes_at(own, 8)?) {
        return Ok(None);
    }
    bytes.find(own + 42, b"fLaC", 8, is_flac)
}

/// The number of an EBML size field and its length in bytes; no number if the size is unknown.
fn ebml_size(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    let first = *bytes.first()?;
    let count = first.leading_zeros() as usize + 1;
    let field = bytes.get(..count).filter(|_| count <= 8)?;
    let ones = (1_u64 << (7 * count)) - 1;
    let value = field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)) & ones;
    Some(((value != ones).then_some(value), count))
}

fn next_matroska(bytes: &mut ByteWindow<'_>, start: u64, length: u64) -> io::Result<Option<u64>> {
    let is_ebml = |bytes: &[u8]| {
        bytes.starts_with(EBML)
            && (bytes.windows(4).any(|word| word == b"webm")
                || bytes.windows(8).any(|word| word == b"matroska"))
    };
    let mut at = start;
    for _ in 0..MAX_CHUNKS {
        let head = bytes.bytes_at(at, 12)?.to_vec();
        if at > start && head.starts_with(EBML) {
            return Ok(Some(at));
        }
        if !head.starts_with(EBML) && !head.starts_with(SEGMENT) {
            return Ok(None);
        }
        let Some((size, count)) = ebml_size(&head[4..]) else { return Ok(None) };
        match size.and_then(|size| (at + 4 + count as u64).checked_add(size)) {
            Some(next) if next < length => at = next,
            Some(_) => return Ok(None),
            None => return bytes.find(at + 4, EBML, 64, is_ebml),
        }
    }
    Ok(None)
}

/// Where the next link of a chain begins: a page that begins a stream, behind one that does not.
fn next_ogg_link(bytes: &mut ByteWindow<'_>, start: u64, length: u64) -> io::Result<Option<u64>> {
    const BEGIN: u8 = 2;
    let mut at = start;
    let mut in_header = true;
    while at < length {
        let head = bytes.bytes_at(at, OGG_HEADER + 255)?;
        let Some(size) = ogg_page_size(head) else { return Ok(None) };
        match head[5] & BEGIN != 0 {
            true if !in_header => return Ok(Some(at)),
            is_begin => in_header &= is_begin,
        }
        let next = at + size;
        if next == length || bytes.bytes_at(next, 4)? == b"OggS" {
            at = next;
            continue;
        }
        // A damaged page may be shorter than it states, so the next one is searched from its beginning.
        match bytes.find(at + 4, b"OggS", OGG_HEADER + 255, |bytes| ogg_page_size(bytes).is_some())? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Bytes of the page whose header stands here.
fn ogg_page_size(bytes: &[u8]) -> Option<u64> {
    if !bytes.starts_with(b"OggS\0") {
        return None;
    }
    let segments = usize::from(*bytes.get(OGG_HEADER - 1)?);
    let sizes = bytes.get(OGG_HEADER..OGG_HEADER + segments)?;
    Some((OGG_HEADER + segments) as u64 + sizes.iter().map(|size| u64::from(*size)).sum::<u64>())
}
