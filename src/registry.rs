//! The registry of known checkpoints, the cache of downloaded ones, and (feature `download`) the download.
//!
//! The entries are data: `assets/registry.json`. It states a hash or a size only where a public source does; unknown
//! values are absent, never guessed. Weights belong to their authors and are not part of this program. Each entry states
//! the licence that they were published under, or that none is stated.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::model::architecture::Family;

mod cache;
#[cfg(feature = "download")]
mod download;
#[cfg(feature = "download")]
mod fetch_error;
#[cfg(feature = "download")]
mod http;
#[cfg(feature = "download")]
mod lock;
#[cfg(feature = "download")]
mod transfer;

#[cfg(feature = "plugin")]
pub(crate) use cache::recorded_sha256;
pub use cache::{CACHE_ENV, ModelFiles, cache_dir, cached_files, cached_files_in, entry_folder};
#[cfg(feature = "download")]
pub use download::{DownloadProgress, DownloadStage, FetchOptions, FileKind, MIRROR_ENV, Timeouts, fetch};
#[cfg(feature = "download")]
pub use fetch_error::FetchError;

/// Errors of the registry and its cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No entry or checkpoint file has this name.
    #[error("the registry has no model {name:?}{}", did_you_mean(.similar))]
    UnknownModel {
        /// The requested name.
        name: String,
        /// Similar names, best first; may be empty.
        similar: Vec<String>,
    },
    /// The platform names no cache folder (no home directory).
    #[error("no cache folder: the home directory is unknown; set {CACHE_ENV} to a folder for the models")]
    NoCacheDir,
}

fn did_you_mean(similar: &[String]) -> String {
    if similar.is_empty() { String::new() } else { format!("; did you mean {}?", similar.join(", ")) }
}

/// A file on the web, with its published size and hash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RemoteFile {
    /// The URL; https in the registry.
    pub url: String,
    /// SHA-256 as lower-case hex; `None` where no public source states it.
    pub sha256: Option<String>,
    /// Size in bytes; `None` where no public source states it.
    pub size: Option<u64>,
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
    /// The model's outputs in lower case, without the residual of the mixture.
    pub stems: Vec<String>,
    /// The weights.
    pub checkpoint: RemoteFile,
    /// The YAML configuration.
    pub config: RemoteFile,
    /// Published scores; may be empty.
    pub sdr: Vec<BenchmarkScores>,
    /// The licence of the weights as published; `None` if not stated.
    pub licence: Option<String>,
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

    /// The licence, or `not stated`.
    pub fn licence_text(&self) -> &str {
        self.licence.as_deref().unwrap_or("not stated")
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
}

/// A size in decimal units, as download pages state it: `812 B`, `45.1 MB`, `1.72 GB`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.5 would be rounded to 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

#[derive(Deserialize)]
struct Data {
    default: String,
    entries: Vec<RegistryEntry>,
}

fn data() -> &'static Data {
    static DATA: OnceLock<Data> = OnceLock::new();
    DATA.get_or_init(|| {
        #[expect(clippy::expect_used, reason = "compiled in, and parsed by this module's tests")]
        serde_json::from_str(include_str!("../assets/registry.json")).expect("assets/registry.json")
    })
}

/// All known checkpoints, the default first.
pub fn entries() -> &'static [RegistryEntry] {
    &data().entries
}

/// The checkpoint used when none is named.
pub fn default_entry() -> &'static RegistryEntry {
    #[expect(clippy::expect_used, reason = "a test of this module finds it")]
    entries().iter().find(|e| e.name == data().default).expect("the default names an entry")
}

/// Finds an entry by its name or its checkpoint's file name, ignoring case.
///
/// # Errors
/// [`RegistryError::UnknownModel`] with similar names.
pub fn find(name: &str) -> Result<&'static RegistryEntry, RegistryError> {
    let wanted = name.trim().to_ascii_lowercase();
    if wanted == "default" {
        return Ok(default_entry());
    }
    let is_it = |e: &&RegistryEntry| {
        let file = e.checkpoint.file_name().to_ascii_lowercase();
        e.name == wanted || file == wanted || file.rsplit_once('.').is_some_and(|(stem, _)| stem == wanted)
    };
    match entries().iter().find(is_it) {
        Some(entry) => Ok(entry),
        None => Err(RegistryError::UnknownModel { name: name.to_owned(), similar: similar_names(&wanted) }),
    }
}

/// Up to three names that resemble `wanted`, by shared words and edit distance.
fn similar_names(wanted: &str) -> Vec<String> {
    // The name is untrusted; no real one is longer.
    let wanted: String = wanted.chars().take(64).collect();
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let wanted_words = words(&wanted);
    let mut scored: Vec<(usize, &str)> = entries()
        .iter()
        .filter_map(|e| {
            let distance = strsim::levenshtein(&wanted, &e.name);
            let shared = words(&e.name).intersection(&wanted_words).count();
            let close = distance <= wanted.len().max(4) / 3;
            // A shared word counts as much as six typing errors.
            (close || shared > 0).then(|| ((distance + 24).saturating_sub(6 * shared), e.name.as_str()))
        })
        .collect();
    scored.sort();
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_use_decimal_units() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (4566, "4.57 kB"),
            (45_142_183, "45.1 MB"),
            (527_385_512, "527 MB"),
            (999_999_999, "1.00 GB"),
            (1_719_139_254, "1.72 GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn url_cannot_leave_cache_folder() {
        let name = |url: &str| RemoteFile { url: url.to_owned(), sha256: None, size: None }.file_name();
        assert_eq!(name("https://x.org/a/model.ckpt?download=true"), "model.ckpt");
        assert_eq!(name("https://x.org/a/.."), "model");
        assert_eq!(name("https://x.org/a/%2e%2e%2fb c.ckpt"), "_2e_2e_2fb_c.ckpt");
        assert_eq!(name("https://x.org/"), "model");
        assert_eq!(name("https://x.org/a\\..\\b"), "a_.._b");
    }
}
