//! Reads short pieces at growing positions of a source without a system call for each.

use std::io::{self, Read, SeekFrom};

use super::MediaSource;

/// Bytes read at a time.
pub(super) const BLOCK_BYTES: usize = 1 << 16;

/// A source with the block that was read last.
pub(super) struct ByteWindow<'a> {
    source: &'a mut dyn MediaSource,
    block: Vec<u8>,
    block_at: u64,
}

impl<'a> ByteWindow<'a> {
    pub(super) fn new(source: &'a mut dyn MediaSource) -> Self {
        Self { source, block: Vec::new(), block_at: 0 }
    }

    /// Up to `count` bytes from `at` on, at most [`BLOCK_BYTES`]; fewer only at the end.
    pub(super) fn bytes_at(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let end = self.block_at + self.block.len() as u64;
        if at < self.block_at || at.saturating_add(count as u64) > end {
            self.source.seek(SeekFrom::Start(at))?;
            self.block.clear();
            self.block_at = at;
            Read::take(&mut *self.source, BLOCK_BYTES as u64).read_to_end(&mut self.block)?;
        }
        let rest = self.block.get((at - self.block_at) as usize..).unwrap_or_default();
        Ok(&rest[..rest.len().min(count)])
    }

    /// Position of the first `pattern` from `at` on for which `accept` takes the bytes there, up to `context` of them.
    pub(super) fn find(
        &mut self,
        mut at: u64,
        pattern: &[u8],
        context: usize,
        accept: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Option<u64>> {
        let context = context.max(pattern.len());
        let Some(&first) = pattern.first() else { return Ok(None) };
        loop {
            let bytes = self.bytes_at(at, BLOCK_BYTES)?;
            let is_last = bytes.len() < BLOCK_BYTES;
            // A place near the end of a block is looked at again in the next one, with all that follows it.
            let places = if is_last { bytes.len() } else { bytes.len() - context };
            let mut place = 0;
            while let Some(offset) = bytes[place..places].iter().position(|byte| *byte == first) {
                place += offset;
                let rest = &bytes[place..];
                if rest.starts_with(pattern) && accept(&rest[..rest.len().min(context)]) {
                    return Ok(Some(at + place as u64));
                }
                place += 1;
            }
            if is_last {
                return Ok(None);
            }
            at += places as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found_across_blocks() {
        for place in [0, 1, BLOCK_BYTES - 3, BLOCK_BYTES, 3 * BLOCK_BYTES - 1] {
            let mut bytes = vec![b'O'; 4 * BLOCK_BYTES];
            bytes[place..place + 4].copy_from_slice(b"OggS");
            let mut source = io::Cursor::new(bytes);
            let mut window = ByteWindow::new(&mut source);
            let found = window.find(0, b"OggS", 8, |bytes| bytes.len() == 8).unwrap();
            assert_eq!(found, Some(place as u64));
            assert_eq!(window.find(place as u64 + 1, b"OggS", 8, |_| true).unwrap(), None);
        }
    }
}
