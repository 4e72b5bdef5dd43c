//! Types of option values.

use std::str::FromStr;

use clap::ValueEnum;
use nullsum::audio::{Container, SampleFormat};
use nullsum::lossless::LosslessMode;
use nullsum::model::architecture::Family;
use nullsum::model::precision::Precision;

/// `--lossless`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LosslessArg {
    /// To every stem in proportion to its mask
    Spectral,
    /// By a second pass over the residual, as the reference program does
    Hybrid,
    /// Not at all
    Off,
}

impl From<LosslessArg> for LosslessMode {
    fn from(arg: LosslessArg) -> Self {
        match arg {
            LosslessArg::Spectral => Self::Spectral,
            LosslessArg::Hybrid => Self::Hybrid,
            LosslessArg::Off => Self::Off,
        }
    }
}

/// `--model-type`, with the trainers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelType {
    /// Disjoint bands
    #[value(name = "bs_roformer", alias = "bs-roformer")]
    BsRoformer,
    /// Overlapping mel bands
    #[value(name = "mel_band_roformer", alias = "mel-band-roformer")]
    MelBandRoformer,
}

impl From<ModelType> for Family {
    fn from(arg: ModelType) -> Self {
        match arg {
            ModelType::BsRoformer => Self::BsRoformer,
            ModelType::MelBandRoformer => Self::MelBandRoformer,
        }
    }
}

/// `--precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// The fastest that is accurate enough
    Auto,
    /// 32-bit floating point
    F32,
    /// 16-bit brain floating point
    Bf16,
    /// 16-bit floating point
    F16,
    /// 8-bit integers in linear layers; CPU only
    Int8,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::Auto => Self::Auto,
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
            PrecisionArg::F16 => Self::F16,
            PrecisionArg::Int8 => Self::Int8,
        }
    }
}

/// `--non-finite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NonFinite {
    /// Set them to 0 and warn
    Clean,
    /// Refuse the song
    Refuse,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileType {
    /// WAV, RF64 from 4 GiB on
    Wav,
    /// FLAC
    Flac,
}

impl From<FileType> for Container {
    fn from(arg: FileType) -> Self {
        match arg {
            FileType::Wav => Self::Wav,
            FileType::Flac => Self::Flac,
        }
    }
}

/// `--bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bits {
    /// 16-bit integers
    #[value(name = "16")]
    Pcm16,
    /// 24-bit integers
    #[value(name = "24")]
    Pcm24,
    /// 32-bit floating point
    #[value(name = "float", alias = "32", alias = "32f")]
    Float,
}

impl From<Bits> for SampleFormat {
    fn from(arg: Bits) -> Self {
        match arg {
            Bits::Pcm16 => Self::Pcm16,
            Bits::Pcm24 => Self::Pcm24,
            Bits::Float => Self::Float32,
        }
    }
}

/// `--pcm-type`, with the reference program's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PcmType {
    /// 16-bit integers
    #[value(name = "PCM_16", alias = "pcm_16")]
    Pcm16,
    /// 24-bit integers
    #[value(name = "PCM_24", alias = "pcm_24")]
    Pcm24,
    /// 32-bit floating point
    #[value(name = "FLOAT", alias = "float")]
    Float,
}

impl From<PcmType> for SampleFormat {
    fn from(arg: PcmType) -> Self {
        match arg {
            PcmType::Pcm16 => Self::Pcm16,
            PcmType::Pcm24 => Self::Pcm24,
            PcmType::Float => Self::Float32,
        }
    }
}

/// `--chunk`: seconds or samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ChunkLength {
    /// Seconds, as in `8s`.
    Seconds(f64),
    /// Samples at the model's rate.
    Samples(usize),
}

impl ChunkLength {
    /// Samples at `sample_rate` Hz.
    pub fn samples(self, sample_rate: u32) -> usize {
        match self {
            Self::Seconds(seconds) => (seconds * f64::from(sample_rate)).round() as usize,
            Self::Samples(samples) => samples,
        }
    }
}

impl FromStr for ChunkLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected seconds, as in 8s or 2.5s, or samples, as in 352800".to_string();
        if let Some(seconds) = text.strip_suffix('s') {
            return Ok(Self::Seconds(self::seconds(seconds).map_err(|_| wrong())?));
        }
        match text.parse() {
            // Ten minutes at 192 kHz.
            Ok(samples) if (1..=115_200_000).contains(&samples) => Ok(Self::Samples(samples)),
            _ => Err(wrong()),
        }
    }
}

/// A number of seconds, up to ten minutes.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 600.0 => Ok(seconds),
        _ => Err("expected seconds, more than 0 and at most 600".into()),
    }
}

/// `--shard I/N`: the Ith share, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Whether the item at `index`, counted from 0, is in this share.
    pub fn contains(self, index: usize) -> bool {
        index % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        match parts {
            Some((index, count)) if index >= 1 && index <= count => Ok(Self { index, count }),
            _ => Err("expected I/N with I from 1 to N, as in 1/8".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_seconds_or_samples() {
        assert_eq!("8s".parse::<ChunkLength>().unwrap().samples(44_100), 352_800);
        assert_eq!("485100".parse::<ChunkLength>().unwrap().samples(44_100), 485_100);
        for wrong in ["", "s", "0", "-8s", "nans", "infs", "8 m", "1e9s"] {
            assert!(wrong.parse::<ChunkLength>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn shards_cover_every_song_exactly_once() {
        for count in 1..6 {
            let shards: Vec<Shard> = (1..=count).map(|i| format!("{i}/{count}").parse().unwrap()).collect();
            for place in 0..20 {
                assert_eq!(shards.iter().filter(|shard| shard.contains(place)).count(), 1);
            }
        }
        for wrong in ["0/4", "5/4", "1", "a/b", "1/0", "-1/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
