//! Audio in and out of files: decoding to planar `f32`, sample-rate conversion, and lossless writing.
//!
//! Everything streams in blocks of bounded size, knows nothing of models or threads, and treats every file as
//! untrusted: a broken one gives an [`AudioError`] that names the file and the place, never a panic, a huge
//! allocation or a partial output.
//!
//! Scale: full scale is ±1.0. Integer sources of up to 24 bits are exact in `f32` (multiples of 2⁻²³ at
//! the finest), which is what the lossless guarantees of the rest of the crate stand on.

pub mod buffer;
pub mod decode;
pub mod encode;
pub mod error;
pub mod resample;

pub use buffer::Planar;
pub use decode::{Decoder, SourceFormat, SourceInfo};
pub use encode::{AudioWriter, Container, SampleFormat, WriterSpec};
pub use error::AudioError;
pub use resample::Resampler;

/// Extensions of names that are taken for audio. What a file is, its content says.
pub const EXTENSIONS: [&str; 16] = [
    "wav", "wave", "bwf", "rf64", "aif", "aiff", "aifc", "flac", "mp3", "ogg", "oga", "opus", "m4a", "m4b",
    "mp4", "aac",
];

/// Most channels a file may have, read or written. More is taken for a corrupt header.
pub const MAX_CHANNELS: usize = 64;

/// Lowest sample rate accepted, in Hz: below any in use. Less is taken for a corrupt header; to convert it would need much memory.
pub const MIN_SAMPLE_RATE: u32 = 1_000;

/// Highest sample rate accepted, in Hz: the fastest rate in use for PCM.
pub const MAX_SAMPLE_RATE: u32 = 768_000;
