//! Types of option values.

use std::path::{Path, PathBuf};
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
    #[value(name = "bs_roformer", aliases = ["bs-roformer", "bs_conformer"])]
    BsRoformer,
    /// Overlapping mel bands
    #[value(name = "mel_band_roformer", aliases = ["mel-band-roformer", "mel_band_conformer"])]
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
    /// One stem file for DJ software: the song and four stems, ALAC
    #[value(name = "stem.m4a")]
    StemM4a,
}

impl From<FileType> for Container {
    fn from(arg: FileType) -> Self {
        match arg {
            FileType::Wav => Self::Wav,
            FileType::Flac => Self::Flac,
            FileType::StemM4a => Self::StemM4a,
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
    /// Whether a song is in this share, by its path relative to the input. It depends on nothing else, so a song that
    /// arrives while shares are run moves no other song.
    pub fn contains(self, relative: &Path) -> bool {
        // FNV-1a, the same on every system.
        let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
        for part in relative.components() {
            for byte in part.as_os_str().as_encoded_bytes().iter().chain(b"/") {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
            }
        }
        // The upper bits are the better ones.
        (hash >> 16) % self.count as u64 == self.index as u64 - 1
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

/// `--then STEM:MODEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cascade {
    pub stem: String,
    pub model: PathBuf,
}

impl FromStr for Cascade {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((stem, model)) if !stem.trim().is_empty() && !model.is_empty() => {
                Ok(Self { stem: stem.trim().into(), model: model.into() })
            }
            _ => Err("expected a stem and a model, as in vocals:lead-backing.ckpt".into()),
        }
    }
}

/// A position in a song: seconds, m:ss or h:mm:ss.
pub fn position(text: &str) -> Result<f64, String> {
    let wrong = || "expected seconds, as in 83.5, or m:ss, as in 1:23.5".to_string();
    let parts: Vec<&str> = text.trim().split(':').collect();
    let (last, whole) = parts.split_last().ok_or_else(wrong)?;
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = last.parse().ok().filter(|_| is_plain(last)).ok_or_else(wrong)?;
    let mut total = 0.0;
    for (n, part) in whole.iter().enumerate() {
        let value: u32 = part.parse().map_err(|_| wrong())?;
        if n > 0 && value >= 60 {
            return Err(wrong());
        }
        total = (total + f64::from(value)) * 60.0;
    }
    // A day is more than any song lasts.
    if whole.len() > 2 || !whole.is_empty() && seconds >= 60.0 || total + seconds > 86_400.0 {
        return Err(wrong());
    }
    Ok(total + seconds)
}

/// `--overlap`: chunks that cover each sample, on average.
pub fn overlap(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(overlap) if (1.0..=64.0).contains(&overlap) => Ok(overlap),
        _ => Err("expected a number from 1 to 64, as in 2 or 1.25".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_seconds_or_clock_times() {
        for (text, seconds) in
            [("0", 0.0), ("83.5", 83.5), ("1:23.5", 83.5), ("90:00", 5400.0), ("1:02:03", 3723.0)]
        {
            assert_eq!(position(text), Ok(seconds), "{text}");
        }
        for wrong in
            ["", "-1", "1:60", "1:2:3:4", "1:60:00", "a", "1:", ":30", "inf", "nan", "1e9", "99999999"]
        {
            assert!(position(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn overlaps_may_be_fractions() {
        assert_eq!((overlap("2"), overlap("1.25")), (Ok(2.0), Ok(1.25)));
        for wrong in ["0", "0.9", "65", "nan", "inf", "two", ""] {
            assert!(overlap(wrong).is_err(), "{wrong}");
        }
    }

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
            for n in 0..20 {
                let path = PathBuf::from(format!("album {}/song {n}.wav", n % 3));
                assert_eq!(shards.iter().filter(|shard| shard.contains(&path)).count(), 1);
            }
        }
        for wrong in ["0/4", "5/4", "1", "a/b", "1/0", "-1/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
