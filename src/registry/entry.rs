//! One known checkpoint: its files, its tasks and its published scores.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::human_size;
use crate::model::architecture::Family;
use crate::model::config::Config;

/// A file on the web, with its published size and hash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RemoteFile {
    /// The URL; https in the registry.
    pub url: String,
    /// SHA-256 as lower-case hex; `None` where no public source states it.
    pub sha256: Option<String>,
    /// Size in bytes; `None` where no public source states it.
    pub size: Option<u64>,
    /// Further URLs of the same file, which are tried when the first one fails.
    #[serde(default)]
    pub mirrors: Vec<String>,
}

impl RemoteFile {
    /// The file name in the cache: the last part of the URL's path. Characters other than letters, digits, `.`, `-` and `_`
    /// are replaced, so that a URL can never leave the cache folder.
    pub fn file_name(&self) -> String {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        let mut name: String = last
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' })
            .collect();
        if name.trim_matches('.').is_empty() {
            name = "model".to_owned();
        }
        name
    }

    /// All URLs in the order in which they are tried.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.url).chain(&self.mirrors).map(String::as_str)
    }
}

/// The task of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Several stems at once, such as drums, bass, other and vocals.
    Stems,
    /// Vocals.
    Vocals,
    /// Everything but vocals.
    Instrumental,
    /// The lead voice, apart from backing vocals and instruments.
    Karaoke,
    /// Singers apart, such as male and female voices.
    Singers,
    /// Guitar.
    Guitar,
    /// Reverberation and echo removal.
    Dereverb,
    /// Noise removal.
    Denoise,
    /// Removal of traces of other stems.
    Debleed,
    /// Audience noise.
    Crowd,
    /// Breath sounds.
    Breath,
    /// Another selection of instruments.
    Other,
}

impl Task {
    /// All tasks, in the order of menus.
    pub const ALL: [Self; 12] = [
        Self::Stems,
        Self::Vocals,
        Self::Instrumental,
        Self::Karaoke,
        Self::Singers,
        Self::Guitar,
        Self::Dereverb,
        Self::Denoise,
        Self::Debleed,
        Self::Crowd,
        Self::Breath,
        Self::Other,
    ];

    /// The word for it in lists and on the command line.
    pub fn key(self) -> &'static str {
        match self {
            Self::Stems => "stems",
            Self::Vocals => "vocals",
            Self::Instrumental => "instrumental",
            Self::Karaoke => "karaoke",
            Self::Singers => "singers",
            Self::Guitar => "guitar",
            Self::Dereverb => "dereverb",
            Self::Denoise => "denoise",
            Self::Debleed => "debleed",
            Self::Crowd => "crowd",
            Self::Breath => "breath",
            Self::Other => "other",
        }
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key())
    }
}

/// No task has this name.
#[derive(Debug, thiserror::Error)]
#[error("unknown task `{name}`: expected one of {}", Task::ALL.map(Task::key).join(", "))]
pub struct UnknownTask {
    /// The name.
    pub name: String,
}

impl std::str::FromStr for Task {
    type Err = UnknownTask;

    fn from_str(name: &str) -> Result<Self, UnknownTask> {
        let lower = name.trim().to_ascii_lowercase();
        Self::ALL
            .into_iter()
            .find(|task| task.key() == lower)
            .ok_or_else(|| UnknownTask { name: name.into() })
    }
}

/// The sizes of a network that its cost follows from, as its YAML states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct NetworkSize {
    /// Features of a token.
    pub dim: usize,
    /// Layers.
    pub depth: usize,
    /// Blocks of the time transformer of a layer.
    pub time_depth: usize,
    /// Blocks of the frequency transformer of a layer.
    pub freq_depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Frequency bands.
    pub bands: usize,
    /// Length of the Fourier transform in samples.
    pub n_fft: usize,
    /// Samples between frames.
    pub hop: usize,
    /// Samples per chunk.
    pub chunk: usize,
}

/// One stem's published signal-to-distortion ratio.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StemScore {
    /// The stem's name in the benchmark.
    pub stem: String,
    /// SDR in dB.
    pub db: f32,
}

/// Published scores of a model in one benchmark. Scores of different benchmarks are not comparable.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct BenchmarkScores {
    /// The benchmark's name.
    pub benchmark: String,
    /// Mean over the stems in dB, where it is published.
    pub average_db: Option<f32>,
    /// Scores per stem.
    pub stems: Vec<StemScore>,
}

impl BenchmarkScores {
    /// The score that models are sorted by: of `stem` where it is given and published, else the published mean, else the only
    /// stem.
    pub fn score(&self, stem: Option<&str>) -> Option<f32> {
        let of =
            |name: &str| self.stems.iter().find(|score| score.stem.eq_ignore_ascii_case(name)).map(|s| s.db);
        stem.and_then(of).or(self.average_db).or(match self.stems.as_slice() {
            [only] => Some(only.db),
            _ => None,
        })
    }
}

/// One known checkpoint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RegistryEntry {
    /// Unique short name: lower-case letters, digits and hyphens.
    pub name: String,
    /// Title for display.
    pub title: String,
    /// The person who trained it.
    pub author: String,
    /// The network family.
    pub architecture: Family,
    /// What it is for; at least one.
    pub tasks: Vec<Task>,
    /// The model's outputs in lower case, without the residual of the mixture.
    pub stems: Vec<String>,
    /// Stem names that replace those of the YAML, where the YAML names them wrongly; empty otherwise.
    #[serde(default)]
    pub instruments: Vec<String>,
    /// The target instrument that replaces that of the YAML.
    pub target: Option<String>,
    /// Other file names under which the checkpoint is distributed.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The weights.
    pub checkpoint: RemoteFile,
    /// The YAML configuration.
    pub config: RemoteFile,
    /// Sizes of the network; `None` where its YAML is not known.
    pub network: Option<NetworkSize>,
    /// Published scores; may be empty.
    pub sdr: Vec<BenchmarkScores>,
    /// The licence of the weights as published; `None` if not stated.
    pub licence: Option<String>,
    /// The licence of the code that is published with the weights, where only that is stated.
    pub code_licence: Option<String>,
    /// Further statements of the sources about the use of the weights.
    pub licence_note: Option<String>,
    /// The page on which the author or host publishes it.
    pub source: String,
}

impl RegistryEntry {
    /// `drums, bass, other, vocals`; long lists are cut after six.
    pub fn stems_text(&self) -> String {
        const SHOWN: usize = 6;
        let mut text = self.stems.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        if self.stems.len() > SHOWN {
            let _ = write!(text, " and {} more", self.stems.len() - SHOWN);
        }
        text
    }

    /// The size of the checkpoint, `527 MB`, or `size not stated`.
    pub fn size_text(&self) -> String {
        self.checkpoint.size.map_or_else(|| "size not stated".to_owned(), human_size)
    }

    /// The licence of the weights: `GPL-3.0`, `not stated (code: MIT)` or `not stated`.
    pub fn licence_text(&self) -> String {
        match (&self.licence, &self.code_licence) {
            (Some(licence), _) => licence.clone(),
            (None, Some(code)) => format!("not stated (code: {code})"),
            (None, None) => "not stated".to_owned(),
        }
    }

    /// The first published score in short form: `9.65 dB (MUSDB18-HQ)`, `vocals 10.98 dB (Multisong)`, or `-`.
    pub fn sdr_text(&self) -> String {
        let Some(first) = self.sdr.first() else { return "-".to_owned() };
        match (first.average_db, first.stems.as_slice()) {
            (Some(db), _) => format!("{db:.2} dB ({})", first.benchmark),
            (None, []) => "-".to_owned(),
            (None, [one, ..]) => format!("{} {:.2} dB ({})", one.stem, one.db, first.benchmark),
        }
    }

    /// All published scores, one line for each benchmark.
    pub fn sdr_lines(&self) -> Vec<String> {
        self.sdr
            .iter()
            .map(|sdr| {
                let mut parts: Vec<String> =
                    sdr.stems.iter().map(|s| format!("{} {:.2} dB", s.stem, s.db)).collect();
                parts.extend(sdr.average_db.map(|db| format!("mean {db:.2} dB")));
                format!("{}: {}", sdr.benchmark, parts.join(", "))
            })
            .collect()
    }

    /// All file names under which the checkpoint is known.
    pub fn file_names(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.checkpoint.file_name()).chain(self.aliases.iter().cloned())
    }

    /// The score in `benchmark`, where one is published; see [`BenchmarkScores::score`].
    pub fn score(&self, benchmark: &str, stem: Option<&str>) -> Option<f32> {
        let scores = self.sdr.iter().find(|scores| scores.benchmark.eq_ignore_ascii_case(benchmark))?;
        scores.score(stem)
    }

    /// Corrects stem names that the YAML of this entry states wrongly.
    pub fn correct(&self, config: &mut Config) {
        if !self.instruments.is_empty() {
            config.training.instruments.clone_from(&self.instruments);
            config.training.target_instrument.clone_from(&self.target);
        }
    }
}
