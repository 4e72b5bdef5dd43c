//! FLAC output, frame by frame. Memory for one frame; STREAMINFO is written at the end.

use std::io::{self, Write};

use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, StreamInfo};
use flacenc::config;
use flacenc::encode_fixed_size_frame;
use flacenc::error::{Verified, Verify};
use flacenc::source::{Context, Fill, FrameBuf};

use super::{ContainerWriter, Metadata, Planar, TempFile, WriterSpec, patch_bytes, quantise};

/// Limits of the format.
pub(super) const MAX_CHANNELS: usize = 8;
/// Highest rate that a FLAC stream may have, in Hz.
pub(super) const MAX_SAMPLE_RATE: u32 = 655_350;
const MAX_SAMPLES: u64 = (1 << 36) - 1;

/// Samples per channel of every frame but the last.
const BLOCK: usize = 4096;
/// Last frames shorter than this are stored verbatim, since prediction gains nothing there.
const SHORTEST_PREDICTED: usize = 64;
/// More than the header, footer and subframe headers of a frame take.
const FRAME_OVERHEAD_BITS: usize = 1024;
/// A rate for which a frame header has no code, so that it refers to STREAMINFO, where the true one stands. The
/// encoder takes rates to 96 kHz only, FLAC goes further.
const RATE_IN_STREAM_INFO: usize = 70_001;
const HIGHEST_CODED_RATE: usize = 96_000;

/// `fLaC` and the header of the first metadata block, STREAMINFO, of 34 bytes.
const MARKER: [u8; 8] = *b"fLaC\0\0\0\x22";
/// Marks the last metadata block.
const LAST_BLOCK: u8 = 0x80;
const STREAM_INFO_BYTES: usize = 34;

pub(super) struct FlacContainer {
    spec: WriterSpec,
    config: Verified<config::Encoder>,
    verbatim: Verified<config::Encoder>,
    info: StreamInfo,
    frame: FrameBuf,
    md5: Context,
    /// Interleaved integers of the frame in the making.
    pending: Vec<i32>,
    frames: usize,
    samples: u64,
    smallest_frame: usize,
    largest_frame: usize,
}

impl FlacContainer {
    pub(super) fn start(out: &mut TempFile, spec: WriterSpec, metadata: &Metadata) -> io::Result<Self> {
        let bits = spec.format.bits();
        let rate = match spec.sample_rate as usize {
            rate if rate <= HIGHEST_CODED_RATE => rate,
            _ => RATE_IN_STREAM_INFO,
        };
        let mut predicted = config::Encoder::default();
        predicted.block_size = BLOCK;
        predicted.multithread = false;
        // The default estimates the size of a prediction and can be wrong by orders of magnitude for loud 24-bit
        // noise; this counts it.
        predicted.subframe_coding.fixed.order_sel = config::OrderSel::BitCount;
        let mut verbatim = predicted.clone();
        verbatim.subframe_coding.use_constant = false;
        verbatim.subframe_coding.use_fixed = false;
        verbatim.subframe_coding.use_lpc = false;
        let encoder = Self {
            spec,
            config: predicted.into_verified().map_err(|(_, error)| encoder_error(error))?,
            verbatim: verbatim.into_verified().map_err(|(_, error)| encoder_error(error))?,
            info: StreamInfo::new(rate, spec.channels, bits).map_err(encoder_error)?,
            frame: FrameBuf::with_size(spec.channels, BLOCK).map_err(encoder_error)?,
            md5: Context::new(bits, spec.channels),
            pending: Vec::with_capacity(BLOCK * spec.channels),
            frames: 0,
            samples: 0,
            smallest_frame: usize::MAX,
            largest_frame: 0,
        };
        let blocks = metadata.flac_blocks();
        let mut marker = MARKER;
        if blocks.is_empty() {
            marker[4] |= LAST_BLOCK;
        }
        out.write_all(&marker)?;
        out.write_all(&[0; STREAM_INFO_BYTES])?;
        out.write_all(&blocks)?;
        Ok(encoder)
    }

    fn write_frame(&mut self, out: &mut TempFile) -> io::Result<()> {
        let samples = self.pending.len() / self.spec.channels;
        if self.samples + samples as u64 > MAX_SAMPLES {
            return Err(io::Error::other("a FLAC file holds at most 2^36 samples; use WAV"));
        }
        self.md5.fill_interleaved(&self.pending).map_err(encoder_error)?;
        self.frame.fill_interleaved(&self.pending).map_err(encoder_error)?;
        let encode = |config| {
            encode_fixed_size_frame(config, &self.frame, self.frames, &self.info).map_err(encoder_error)
        };
        let mut frame = encode(if samples < SHORTEST_PREDICTED { &self.verbatim } else { &self.config })?;
        let stored_bits = self.pending.len() * (self.spec.format.bits() + 1) + FRAME_OVERHEAD_BITS;
        if frame.count_bits() > stored_bits {
            frame = encode(&self.verbatim)?;
        }
        let mut bits = ByteSink::new();
        frame.write(&mut bits).map_err(encoder_error)?;
        let bytes = bits.as_slice();
        out.write_all(bytes)?;
        self.smallest_frame = self.smallest_frame.min(bytes.len());
        self.largest_frame = self.largest_frame.max(bytes.len());
        self.frames += 1;
        self.samples += samples as u64;
        self.pending.clear();
        Ok(())
    }

    fn stream_info(&self) -> [u8; STREAM_INFO_BYTES] {
        let mut bytes = [0; STREAM_INFO_BYTES];
        let block = (BLOCK as u16).to_be_bytes();
        bytes[0..2].copy_from_slice(&block);
        bytes[2..4].copy_from_slice(&block);
        // 0 stands for "unknown", which is what a file without frames has.
        let smallest = if self.frames == 0 { 0 } else { self.smallest_frame as u32 };
        bytes[4..7].copy_from_slice(&smallest.to_be_bytes()[1..]);
        bytes[7..10].copy_from_slice(&(self.largest_frame as u32).to_be_bytes()[1..]);
        // 20 bits of rate, 3 of channels − 1, 5 of bits − 1, 36 of samples.
        let packed = (u64::from(self.spec.sample_rate) << 44)
            | ((self.spec.channels as u64 - 1) << 41)
            | ((self.spec.format.bits() as u64 - 1) << 36)
            | self.samples;
        bytes[10..18].copy_from_slice(&packed.to_be_bytes());
        bytes[18..].copy_from_slice(&self.md5.md5_digest());
        bytes
    }
}

impl ContainerWriter for FlacContainer {
    fn write(&mut self, out: &mut TempFile, block: &Planar) -> io::Result<u64> {
        let bits = self.spec.format.bits();
        let mut clipped = 0;
        for index in 0..block.samples() {
            for plane in block.planes() {
                let (step, over) = quantise(plane[index], bits);
                clipped += u64::from(over);
                self.pending.push(step);
            }
            if self.pending.len() == BLOCK * self.spec.channels {
                self.write_frame(out)?;
            }
        }
        Ok(clipped)
    }

    fn finish(&mut self, out: &mut TempFile) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.write_frame(out)?;
        }
        patch_bytes(out, MARKER.len() as u64, &self.stream_info())
    }
}

/// Converts an error of the encoder, which is not `Send`, to its text.
fn encoder_error(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("FLAC encoder: {error}"))
}
