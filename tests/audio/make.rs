//! Builders of input files, byte by byte, so that every field can be wrong.

use std::f64::consts::TAU;
use std::path::{Path, PathBuf};

use nullsum::audio::{AudioError, Decoder, Planar};

/// A WAV file; the header fields need not be true.
#[derive(Clone)]
pub struct Wav {
    pub magic: [u8; 4],
    pub tag: u16,
    pub channels: u16,
    pub rate: u32,
    pub bits: u16,
    /// Valid bits of an extensible header.
    pub extensible: Option<u16>,
    pub riff_size: Option<u32>,
    pub data_size: Option<u32>,
    pub block_align: Option<u16>,
    /// Chunks before the samples.
    pub before: Vec<u8>,
    pub data: Vec<u8>,
    pub after: Vec<u8>,
}

impl Wav {
    pub fn new(tag: u16, channels: u16, bits: u16, data: Vec<u8>) -> Self {
        Self {
            magic: *b"RIFF",
            tag,
            channels,
            rate: 44_100,
            bits,
            extensible: None,
            riff_size: None,
            data_size: None,
            block_align: None,
            before: Vec::new(),
            data,
            after: Vec::new(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let align = self.block_align.unwrap_or(self.channels.wrapping_mul(self.bits.div_ceil(8)));
        let mut fmt = Vec::new();
        fmt.extend(if self.extensible.is_some() { 0xFFFE } else { self.tag }.to_le_bytes());
        fmt.extend(self.channels.to_le_bytes());
        fmt.extend(self.rate.to_le_bytes());
        fmt.extend(self.rate.wrapping_mul(u32::from(align)).to_le_bytes());
        fmt.extend(align.to_le_bytes());
        fmt.extend(self.bits.to_le_bytes());
        if let Some(valid) = self.extensible {
            fmt.extend(22_u16.to_le_bytes());
            fmt.extend(valid.to_le_bytes());
            fmt.extend(0_u32.to_le_bytes());
            fmt.extend(self.tag.to_le_bytes());
            fmt.extend([0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71]);
        }
        let mut body = b"WAVE".to_vec();
        body.extend(&self.before);
        body.extend(b"fmt ");
        body.extend((fmt.len() as u32).to_le_bytes());
        body.extend(fmt);
        body.extend(b"data");
        body.extend(self.data_size.unwrap_or(self.data.len() as u32).to_le_bytes());
        body.extend(&self.data);
        if self.data.len() % 2 == 1 {
            body.push(0);
        }
        body.extend(&self.after);
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.riff_size.unwrap_or(body.len() as u32).to_le_bytes());
        bytes.extend(body);
        bytes
    }
}

/// An AIFF or, with a compression type, AIFF-C file.
pub fn aiff(kind: Option<&[u8; 4]>, channels: u16, bits: u16, samples: u32, data: &[u8]) -> Vec<u8> {
    let mut body = if kind.is_some() { b"AIFC".to_vec() } else { b"AIFF".to_vec() };
    let mut common = Vec::new();
    common.extend(channels.to_be_bytes());
    common.extend(samples.to_be_bytes());
    common.extend(bits.to_be_bytes());
    common.extend([0x40, 0x0E, 0xAC, 0x44, 0, 0, 0, 0, 0, 0]);
    if let Some(kind) = kind {
        common.extend(kind);
        common.extend([0, 0]);
    }
    for (id, bytes) in [(b"COMM", common), (b"SSND", [&[0; 8], data].concat())] {
        body.extend(id);
        body.extend((bytes.len() as u32).to_be_bytes());
        body.extend(&bytes);
        if bytes.len() % 2 == 1 {
            body.push(0);
        }
    }
    [b"FORM".as_slice(), &(body.len() as u32).to_be_bytes(), &body].concat()
}

/// A file of these bytes in a folder of its own, removed with it.
pub fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio").join(name)
}

/// Reads to the end in blocks of `block` samples.
pub fn read_all(decoder: &mut Decoder, block: usize) -> Result<Planar, AudioError> {
    let mut all = Planar::new(decoder.info().channels);
    while decoder.read(block, &mut all)? > 0 {}
    Ok(all)
}

/// Opens and reads bytes that stand for a file.
pub fn decode(bytes: Vec<u8>) -> Result<Planar, AudioError> {
    let mut decoder = Decoder::from_source(Box::new(std::io::Cursor::new(bytes)), Path::new("bytes"))?;
    read_all(&mut decoder, 1000)
}

/// A generator that is the same everywhere.
pub struct Noise(pub u64);

impl Noise {
    pub fn next_u32(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 ^ (self.0 >> 20) as u32
    }

    /// Uniform in ±1.
    pub fn uniform(&mut self) -> f64 {
        f64::from(self.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0
    }
}

pub fn sine(samples: usize, hz: f64, rate: f64, amplitude: f64) -> Vec<f32> {
    (0..samples).map(|n| (amplitude * (TAU * hz * n as f64 / rate).sin()) as f32).collect()
}
