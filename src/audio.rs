//! Audio files: decoding to planar `f32`, sample-rate conversion, and lossless writing.
//!
//! Everything streams in blocks of bounded size. Every file is untrusted: a broken one gives an [`AudioError`] that
//! names the file and the position, never a panic, a huge allocation or an incomplete output.
//!
//! Full scale is ±1.0. Integer samples of up to 24 bits are exact in `f32` (multiples of 2⁻²³), and the exact sums of
//! the stems depend on that.

pub mod buffer;
pub mod decode;
pub mod encode;
pub mod error;
pub mod metadata;
pub mod resample;

pub use buffer::Planar;
pub use decode::{Damage, Decoder, SourceFormat, SourceInfo};
pub use encode::{AudioWriter, Container, STEM_FILE_CHANNELS, SampleFormat, WriterSpec};
pub use error::AudioError;
pub use metadata::{Metadata, Origin};
pub use resample::Resampler;

/// File name extensions that folder searches take for audio. The format itself is detected from the content.
pub const EXTENSIONS: [&str; 32] = [
    "wav", "wave", "bwf", "rf64", "aif", "aiff", "aifc", "flac", "mp3", "mp2", "mp1", "mpga", "ogg", "oga",
    "ogv", "opus", "m4a", "m4b", "m4r", "mp4", "aac", "adts", "caf", "mka", "mkv", "webm", "weba", "mov",
    "m4v", "f4a", "3gp", "3g2",
];

/// Most channels that a file may have, read or written. A header with more is treated as corrupt.
pub const MAX_CHANNELS: usize = 64;

/// Lowest accepted sample rate in Hz. A header with less is treated as corrupt, since converting it would need much memory.
pub const MIN_SAMPLE_RATE: u32 = 1_000;

/// Highest accepted sample rate in Hz, the highest rate in use for PCM.
pub const MAX_SAMPLE_RATE: u32 = 768_000;
