//! Tags that players of MP3 files append to files of any type: ID3v1, APEv2, Lyrics3 and ID3v2 with a footer.

use std::io::{self, Read, SeekFrom};

use super::MediaSource;

/// Bytes at the end of a FLAC file that are searched for an ID3v2 tag without a footer.
const ID3V2_SEARCH: u64 = 1 << 20;

/// Position where the audio ends, which is `length` without the tags behind it. Only in FLAC can an ID3v2 tag without a
/// footer be told from audio.
pub(super) fn audio_end(source: &mut dyn MediaSource, length: u64, is_flac: bool) -> io::Result<u64> {
    let mut end = length;
    // Every kind at most a few times; a hostile file could be made of tags alone.
    for _ in 0..16 {
        match tag_bytes(source, end)? {
            Some(bytes) if bytes <= end => end -= bytes,
            _ => break,
        }
    }
    let id3v2 = if is_flac { find_id3v2(source, end)? } else { None };
    Ok(id3v2.unwrap_or(end))
}

/// Position of an ID3v2 tag that reaches exactly to `end`.
fn find_id3v2(source: &mut dyn MediaSource, end: u64) -> io::Result<Option<u64>> {
    let from = end.saturating_sub(ID3V2_SEARCH);
    let mut bytes = Vec::new();
    source.seek(SeekFrom::Start(from))?;
    Read::take(&mut *source, end - from).read_to_end(&mut bytes)?;
    // The size field does not count the header of 10 bytes.
    let size_of = |header: &[u8]| match header {
        [b'I', b'D', b'3', 2..=4, _, _, size @ ..] if size.iter().all(|byte| byte & 0x80 == 0) => {
            Some(10 + size.iter().fold(0, |size, byte| size << 7 | usize::from(*byte)))
        }
        _ => None,
    };
    let found = bytes
        .windows(10)
        .enumerate()
        .find(|(at, header)| size_of(header).is_some_and(|size| at + size == bytes.len()))
        .map(|(at, _)| at);
    Ok(found.map(|at| from + at as u64))
}

/// Size of the tag that ends at `end`, if one does.
fn tag_bytes(source: &mut dyn MediaSource, end: u64) -> io::Result<Option<u64>> {
    if let Some(tag) = tail::<128>(source, end)?
        && tag.starts_with(b"TAG")
    {
        // The enhanced tag stands before the plain one.
        let enhanced = tail::<227>(source, end - 128)?.is_some_and(|tag| tag.starts_with(b"TAG+"));
        return Ok(Some(if enhanced { 128 + 227 } else { 128 }));
    }
    if let Some(footer) = tail::<32>(source, end)?
        && footer.starts_with(b"APETAGEX")
    {
        let word = |at: usize| footer[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let header = if word(20) & 0x8000_0000 != 0 { 32 } else { 0 };
        return Ok(Some(u64::from(word(12)).max(32) + header));
    }
    if let Some(footer) = tail::<15>(source, end)?
        && footer.ends_with(b"LYRICS200")
        && let Some(size) =
            std::str::from_utf8(&footer[..6]).ok().and_then(|digits| digits.parse::<u64>().ok())
    {
        return Ok(Some(size + 15));
    }
    if let Some(footer) = tail::<10>(source, end)?
        && footer.starts_with(b"3DI")
    {
        let size = footer[6..].iter().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7F));
        return Ok(Some(size + 20));
    }
    Ok(None)
}

/// The last `N` bytes before `end`.
fn tail<const N: usize>(source: &mut dyn MediaSource, end: u64) -> io::Result<Option<[u8; N]>> {
    let Some(at) = end.checked_sub(N as u64) else { return Ok(None) };
    let mut bytes = [0; N];
    source.seek(SeekFrom::Start(at))?;
    source.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}
