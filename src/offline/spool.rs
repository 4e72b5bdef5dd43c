//! A signal in a temporary file, for a second pass in bounded memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use super::error::OfflineError;
use crate::audio::Planar;

/// Planar samples in an unnamed temporary file, which the system removes with the process.
pub(super) struct Spool {
    file: File,
    channels: usize,
    samples: usize,
    bytes: Vec<u8>,
}

impl Spool {
    pub fn new(channels: usize) -> Result<Self, OfflineError> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(Self { file, channels, samples: 0, bytes: Vec::new() })
    }

    pub fn channels(&self) -> usize {
        self.channels
    }

    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Adds a block at the end.
    pub fn append(&mut self, block: &Planar) -> Result<(), OfflineError> {
        self.write(self.samples, block)
    }

    /// Overwrites, or extends, from sample `at`.
    pub fn write(&mut self, at: usize, block: &Planar) -> Result<(), OfflineError> {
        self.bytes.clear();
        for i in 0..block.samples() {
            for channel in block.iter() {
                self.bytes.extend(channel[i].to_le_bytes());
            }
        }
        self.seek(at)?;
        self.file.write_all(&self.bytes).map_err(failed)?;
        self.samples = self.samples.max(at + block.samples());
        Ok(())
    }

    /// Appends samples `at .. at + count` to `out`.
    pub fn read(&mut self, at: usize, count: usize, out: &mut Planar) -> Result<(), OfflineError> {
        self.seek(at)?;
        self.bytes.resize(count * self.channels * size_of::<f32>(), 0);
        self.file.read_exact(&mut self.bytes).map_err(failed)?;
        let values: Vec<f32> =
            self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        out.append_interleaved(&values);
        Ok(())
    }

    fn seek(&mut self, at: usize) -> Result<(), OfflineError> {
        let offset = (at * self.channels * size_of::<f32>()) as u64;
        self.file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(())
    }
}

fn failed(source: std::io::Error) -> OfflineError {
    OfflineError::Spool { folder: std::env::temp_dir().display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_stored_and_can_be_overwritten() {
        let mut spool = Spool::new(2).unwrap();
        let block = Planar::from_planes(vec![vec![1.0, 2.0, 3.0], vec![-1.0, -2.0, -3.0]]).unwrap();
        spool.append(&block).unwrap();
        spool.append(&block).unwrap();
        spool.write(2, &Planar::from_planes(vec![vec![9.0], vec![8.0]]).unwrap()).unwrap();
        let mut out = Planar::new(2);
        spool.read(1, 3, &mut out).unwrap();
        assert_eq!(out.planes(), [[2.0, 9.0, 1.0], [-2.0, 8.0, -1.0]]);
        assert_eq!(spool.samples(), 6);
    }
}
