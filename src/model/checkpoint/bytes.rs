//! The bytes of a checkpoint: a file that is read at given offsets, or memory.
//!
//! Files are not memory-mapped. A mapped file that is truncated, or whose network drive disappears, ends the process, and
//! with it a host application. Here it is an error of the tensor that is being read.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use super::CheckpointError;

/// Size of the pieces in which large parts are read, so that they stay in the processor's cache.
pub(super) const PIECE: usize = 256 << 10;

/// The bytes of a checkpoint.
pub(super) struct CheckpointBytes {
    origin: String,
    kind: Kind,
    len: u64,
}

enum Kind {
    File(File),
    Memory(Cow<'static, [u8]>),
}

impl CheckpointBytes {
    pub fn open(path: &Path, origin: &str) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { file: origin.to_owned(), source };
        // Checked before opening: on some systems, opening a folder fails with a permission error.
        let about = std::fs::metadata(path).map_err(io)?;
        if about.is_dir() {
            return Err(CheckpointError::Folder { file: origin.to_owned() });
        }
        if !about.is_file() {
            // Opening a pipe would block until a writer appears, and pipes and devices have no offsets.
            let found = "a pipe or device (copy it to a file first)".to_owned();
            return Err(CheckpointError::NotACheckpoint { file: origin.to_owned(), found });
        }
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        if len == 0 {
            return Err(CheckpointError::Empty { file: origin.to_owned() });
        }
        Ok(Self { origin: origin.to_owned(), kind: Kind::File(file), len })
    }

    pub fn from_memory(bytes: Cow<'static, [u8]>, origin: &str) -> Self {
        let len = bytes.len() as u64;
        Self { origin: origin.to_owned(), kind: Kind::Memory(bytes), len }
    }

    /// The name of the checkpoint in messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Size in bytes, as it was when the file was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`CheckpointError::Truncated`] when the file has become shorter, else [`CheckpointError::Io`].
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), CheckpointError> {
        self.try_read_at(offset, out).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => CheckpointError::Truncated {
                file: self.origin.clone(),
                what: format!("the part from byte {offset} on"),
                needed: out.len() as u64,
                available: self.current_len().saturating_sub(offset).min(out.len() as u64),
            },
            _ => CheckpointError::Io { file: self.origin.clone(), source },
        })
    }

    /// The bytes of a range; borrowed where they are in memory.
    pub fn range(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        if let Kind::Memory(bytes) = &self.kind {
            let start = usize::try_from(range.start).unwrap_or(usize::MAX);
            if let Some(part) = start.checked_add(length).and_then(|end| bytes.get(start..end)) {
                return Ok(Cow::Borrowed(part));
            }
        }
        // Checked before the allocation: a range may come from an untrusted header.
        if range.end > self.len || range.start > range.end {
            return Err(CheckpointError::Truncated {
                file: self.origin.clone(),
                what: format!("the part from byte {} on", range.start),
                needed: length as u64,
                available: self.len.saturating_sub(range.start),
            });
        }
        let mut out = vec![0; length];
        self.read_at(range.start, &mut out)?;
        Ok(Cow::Owned(out))
    }

    /// Calls `consume` with all bytes of a range, piece by piece.
    pub fn for_each_piece(
        &self,
        range: Range<u64>,
        consume: &mut dyn FnMut(&[u8]),
    ) -> Result<(), CheckpointError> {
        let mut buffer = vec![0; PIECE.min(usize::try_from(range.end - range.start).unwrap_or(PIECE))];
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(PIECE).min(buffer.len());
            self.read_at(at, &mut buffer[..length])?;
            consume(&buffer[..length]);
            at += length as u64;
        }
        Ok(())
    }

    /// A reader of the whole file, for parsers of containers.
    pub fn reader(&self) -> BytesReader<'_> {
        BytesReader { bytes: self, at: 0 }
    }

    fn try_read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &self.kind {
            Kind::File(file) => read_exact_at(file, offset, out),
            Kind::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = start.checked_add(out.len()).and_then(|end| bytes.get(start..end));
                out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    fn current_len(&self) -> u64 {
        match &self.kind {
            Kind::File(file) => file.metadata().map_or(self.len, |about| about.len()),
            Kind::Memory(bytes) => bytes.len() as u64,
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                out = &mut out[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sequential access to [`CheckpointBytes`].
pub(super) struct BytesReader<'a> {
    bytes: &'a CheckpointBytes,
    at: u64,
}

impl Read for BytesReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.bytes.len.saturating_sub(self.at);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        self.bytes.try_read_at(self.at, &mut out[..length])?;
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for BytesReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(offset) => (self.bytes.len, offset),
            SeekFrom::Current(offset) => (self.at, offset),
        };
        self.at = base.checked_add_signed(offset).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
