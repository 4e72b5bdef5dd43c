//! WAV output. The header keeps room for the 64-bit sizes of RF64 in a `JUNK` chunk, which every reader
//! skips; a file that outgrows the 32-bit sizes of RIFF turns into RF64 (EBU Tech 3306) when it is finished.

use std::io::{self, Write};

use super::{ContainerWriter, Metadata, Planar, SampleFormat, TempFile, WriterSpec, patch_bytes, quantise};

/// `RIFF`, its size, `WAVE`.
const RIFF_HEADER: u64 = 12;
/// Payload of the chunk that is `JUNK` or `ds64`: three 64-bit sizes and an empty table.
const DS64: u32 = 28;

const TAG_PCM: u16 = 1;
const TAG_FLOAT: u16 = 3;
const TAG_EXTENSIBLE: u16 = 0xFFFE;
/// The end of the GUID which, behind a format tag, names that format in an extensible header.
const GUID_TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71];

pub(super) struct WavContainer {
    spec: WriterSpec,
    /// Where the size of the `fact` chunk's payload begins, if there is one.
    fact_at: Option<u64>,
    /// Where the samples begin.
    data_at: u64,
    data_bytes: u64,
    bytes: Vec<u8>,
    /// Chunks behind the samples.
    tail: Vec<u8>,
}

impl WavContainer {
    pub(super) fn start(out: &mut TempFile, spec: WriterSpec, metadata: &Metadata) -> io::Result<Self> {
        let mut header = Vec::with_capacity(128);
        header.extend_from_slice(b"RIFF\0\0\0\0WAVEJUNK");
        header.extend_from_slice(&DS64.to_le_bytes());
        header.extend_from_slice(&[0; DS64 as usize]);

        let (tag, float) = match spec.format {
            SampleFormat::Float32 => (TAG_FLOAT, true),
            SampleFormat::Pcm16 | SampleFormat::Pcm24 => (TAG_PCM, false),
        };
        // More than two channels have no agreed order without the extensible header.
        let extensible = spec.channels > 2;
        let frame = spec.channels * spec.format.bytes();
        let fmt_bytes: u32 = if extensible {
            40
        } else if float {
            18
        } else {
            16
        };
        header.extend_from_slice(b"fmt ");
        header.extend_from_slice(&fmt_bytes.to_le_bytes());
        header.extend_from_slice(&(if extensible { TAG_EXTENSIBLE } else { tag }).to_le_bytes());
        header.extend_from_slice(&(spec.channels as u16).to_le_bytes());
        header.extend_from_slice(&spec.sample_rate.to_le_bytes());
        header.extend_from_slice(&(spec.sample_rate.saturating_mul(frame as u32)).to_le_bytes());
        header.extend_from_slice(&(frame as u16).to_le_bytes());
        header.extend_from_slice(&(spec.format.bits() as u16).to_le_bytes());
        if extensible {
            header.extend_from_slice(&22_u16.to_le_bytes());
            header.extend_from_slice(&(spec.format.bits() as u16).to_le_bytes());
            header.extend_from_slice(&speakers(spec.channels).to_le_bytes());
            header.extend_from_slice(&tag.to_le_bytes());
            header.extend_from_slice(&GUID_TAIL);
        } else if float {
            header.extend_from_slice(&0_u16.to_le_bytes());
        }
        let fact_at = float.then(|| {
            header.extend_from_slice(b"fact\x04\0\0\0\0\0\0\0");
            header.len() as u64 - 4
        });
        header.extend_from_slice(&metadata.wav_head());
        header.extend_from_slice(b"data\0\0\0\0");
        out.write_all(&header)?;
        Ok(Self {
            spec,
            fact_at,
            data_at: header.len() as u64,
            data_bytes: 0,
            bytes: Vec::new(),
            tail: metadata.wav_tail(),
        })
    }
}

impl ContainerWriter for WavContainer {
    fn write(&mut self, out: &mut TempFile, block: &Planar) -> io::Result<u64> {
        let bits = self.spec.format.bits();
        let mut clipped = 0;
        self.bytes.clear();
        self.bytes.reserve(block.samples() * block.channels() * self.spec.format.bytes());
        for index in 0..block.samples() {
            for plane in block.planes() {
                let sample = plane[index];
                match self.spec.format {
                    SampleFormat::Float32 => self.bytes.extend_from_slice(&sample.to_le_bytes()),
                    SampleFormat::Pcm16 | SampleFormat::Pcm24 => {
                        let (step, over) = quantise(sample, bits);
                        clipped += u64::from(over);
                        self.bytes.extend_from_slice(&step.to_le_bytes()[..bits / 8]);
                    }
                }
            }
        }
        out.write_all(&self.bytes)?;
        self.data_bytes += self.bytes.len() as u64;
        Ok(clipped)
    }

    fn finish(&mut self, out: &mut TempFile) -> io::Result<()> {
        if self.data_bytes % 2 == 1 {
            out.write_all(&[0])?;
        }
        out.write_all(&self.tail)?;
        let riff_bytes = self.data_at + self.data_bytes + self.data_bytes % 2 + self.tail.len() as u64 - 8;
        let samples = self.data_bytes / (self.spec.channels * self.spec.format.bytes()) as u64;
        let small = |size: u64| u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
        if riff_bytes >= u64::from(u32::MAX) {
            patch_bytes(out, 0, b"RF64\xFF\xFF\xFF\xFF")?;
            let mut ds64 = Vec::with_capacity(36);
            ds64.extend_from_slice(b"ds64");
            ds64.extend_from_slice(&DS64.to_le_bytes());
            for size in [riff_bytes, self.data_bytes, samples] {
                ds64.extend_from_slice(&size.to_le_bytes());
            }
            patch_bytes(out, RIFF_HEADER, &ds64)?;
            patch_bytes(out, self.data_at - 4, &[0xFF; 4])?;
        } else {
            patch_bytes(out, 4, &small(riff_bytes))?;
            patch_bytes(out, self.data_at - 4, &small(self.data_bytes))?;
        }
        if let Some(at) = self.fact_at {
            patch_bytes(out, at, &small(samples))?;
        }
        Ok(())
    }
}

/// The usual speaker positions for a number of channels, or none where no layout is usual.
fn speakers(channels: usize) -> u32 {
    match channels {
        3 => 0x7,
        4 => 0x33,
        5 => 0x37,
        6 => 0x3F,
        7 => 0x70F,
        8 => 0x63F,
        _ => 0,
    }
}
