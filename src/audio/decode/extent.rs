//! Finds the end of the samples in a chunked file (WAV, AIFF) whose size fields may be wrong.
//!
//! Recorders that crash, streams that cannot seek back, and files over 4 GiB leave size fields that are 0, too small or
//! wrapped. The samples then reach to the next valid chunk or to the end of the file.

use std::io::{self, Read, SeekFrom};

use super::MediaSource;

/// Bytes at the end of a file that are searched for chunks behind the samples. Cover art is the largest of them.
const TAIL_BYTES: u64 = 32 << 20;
/// Bytes read at a time in that search.
const BLOCK_BYTES: usize = 1 << 20;
/// More chunks than any real file has behind its samples.
const MAX_CHUNKS: usize = 1024;
/// 32-bit sizes of larger files wrap at this value.
const WRAP: u64 = 1 << 32;

/// Chunks that are found behind samples. Their payload is never audio.
const KNOWN_CHUNKS: [&[u8; 4]; 48] = [
    b"LIST", b"list", b"INFO", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"inst", b"acid",
    b"fact", b"plst", b"PEAK", b"JUNK", b"junk", b"PAD ", b"FLLR", b"axml", b"chna", b"_PMX", b"umid",
    b"levl", b"link", b"mext", b"cart", b"afsp", b"LGWV", b"strc", b"DISP", b"ResU", b"minf", b"elm1",
    b"regn", b"SMED", b"DGDA", b"bmrk", b"MARK", b"INST", b"MIDI", b"AESD", b"APPL", b"COMT", b"NAME",
    b"AUTH", b"(c) ", b"ANNO", b"COMM",
];

/// Byte order of chunk sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

/// Number of bytes of samples from `data_at` on, in a file whose audio part ends at `end`. `stated` is the size in the
/// header, which must not reach past `end`; `None` means unknown.
pub(super) fn sample_bytes(
    source: &mut dyn MediaSource,
    data_at: u64,
    stated: Option<u64>,
    end: u64,
    order: ByteOrder,
) -> io::Result<u64> {
    let available = end.saturating_sub(data_at);
    if let Some(stated) = stated {
        let mut bytes = stated;
        // The stated size, and the sizes that it stands for if it has wrapped at 4 GiB.
        while bytes <= available {
            if chunks_reach_end(source, data_at + bytes, end, order)? {
                return Ok(bytes);
            }
            bytes += WRAP;
        }
    }
    let from = data_at.saturating_add(stated.unwrap_or(0)).max(end.saturating_sub(TAIL_BYTES));
    let samples_end = find_trailing_chunks(source, from.min(end), end, order)?.unwrap_or(end);
    Ok(samples_end - data_at)
}

/// Whether the bytes from `at` on are nothing but chunks, or nothing at all.
fn chunks_reach_end(source: &mut dyn MediaSource, at: u64, end: u64, order: ByteOrder) -> io::Result<bool> {
    // Chunks start at even positions, but some writers leave the padding out.
    Ok(walk(source, at + at % 2, end, order)? || at % 2 == 1 && walk(source, at, end, order)?)
}

fn walk(source: &mut dyn MediaSource, mut at: u64, end: u64, order: ByteOrder) -> io::Result<bool> {
    for _ in 0..MAX_CHUNKS {
        if at >= end {
            return Ok(true);
        }
        source.seek(SeekFrom::Start(at))?;
        if end - at < 8 {
            let mut rest = Vec::new();
            Read::take(&mut *source, end - at).read_to_end(&mut rest)?;
            return Ok(rest.iter().all(|byte| *byte == 0));
        }
        let mut header = [0; 8];
        source.read_exact(&mut header)?;
        let (id, size) = parse_header(header, order);
        let next = at + 8 + size + size % 2;
        if [*b"data", *b"SSND"].contains(&id) {
            // More samples; their extent is found in the same way.
            return Ok(true);
        }
        if next > end + 1 {
            // A known chunk is a chunk even if it is cut off.
            return Ok(KNOWN_CHUNKS.contains(&&id));
        }
        if !id.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Ok(false);
        }
        at = next;
    }
    Ok(false)
}

/// The first chunk with one of these ids among those that follow each other from `at` on: its id, where its content begins
/// and its size.
pub(super) fn find_chunk(
    source: &mut dyn MediaSource,
    at: u64,
    end: u64,
    ids: [&[u8; 4]; 2],
    order: ByteOrder,
) -> io::Result<Option<([u8; 4], u64, u64)>> {
    // Chunks start at even positions, but some writers leave the padding out.
    for start in [at + at % 2, at] {
        let mut at = start;
        for _ in 0..MAX_CHUNKS {
            if end.saturating_sub(at) < 8 {
                break;
            }
            let mut header = [0; 8];
            source.seek(SeekFrom::Start(at))?;
            source.read_exact(&mut header)?;
            let (id, size) = parse_header(header, order);
            if ids.contains(&&id) {
                return Ok(Some((id, at + 8, size)));
            }
            if !id.iter().all(|byte| (b' '..=b'~').contains(byte)) {
                break;
            }
            at += 8 + size + size % 2;
        }
    }
    Ok(None)
}

/// Position of the first known chunk between `from` and `end` from which chunks reach exactly to `end`.
fn find_trailing_chunks(
    source: &mut dyn MediaSource,
    from: u64,
    end: u64,
    order: ByteOrder,
) -> io::Result<Option<u64>> {
    let mut at = from + from % 2;
    let mut block = Vec::new();
    while at + 8 <= end {
        block.clear();
        source.seek(SeekFrom::Start(at))?;
        Read::take(&mut *source, BLOCK_BYTES as u64 + 6).read_to_end(&mut block)?;
        for offset in (0..block.len().saturating_sub(7)).step_by(2) {
            let header: [u8; 8] = match block[offset..].first_chunk() {
                Some(header) => *header,
                None => break,
            };
            let (id, size) = parse_header(header, order);
            let position = at + offset as u64;
            if KNOWN_CHUNKS.contains(&&id)
                && position + 8 + size <= end
                && walk(source, position, end, order)?
            {
                return Ok(Some(position));
            }
        }
        at += BLOCK_BYTES as u64;
    }
    Ok(None)
}

fn parse_header(header: [u8; 8], order: ByteOrder) -> ([u8; 4], u64) {
    let [a, b, c, d, size @ ..] = header;
    let size = match order {
        ByteOrder::Little => u32::from_le_bytes(size),
        ByteOrder::Big => u32::from_be_bytes(size),
    };
    ([a, b, c, d], u64::from(size))
}
