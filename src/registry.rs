//! The checkpoints we know of, the cache they live in, and (feature `download`) how they get there.
//!
//! The list is data: `assets/registry.json`. A hash or a size stands there only where a public source gives it; what
//! nobody has stated is absent, never guessed. Weights belong to their authors: each entry says under which licence
//! they were published, or that none is stated, and nothing here ships them.

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
pub use cache::{CACHE_ENV, Files, cache_dir, cached, cached_in, folder_in};
#[cfg(feature = "download")]
pub use download::{FetchOptions, MIRROR_ENV, Progress, Stage, Timeouts, What, fetch};
#[cfg(feature = "download")]
pub use fetch_error::FetchError;

/// Why a look-up in the registry or in its cache failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No entry has this name, nor a checkpoint file of this name.
    #[error("the registry has no model {name:?}{}; `models` lists them all", did_you_mean(.near))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// Names that resemble it, best first; may be empty.
        near: Vec<String>,
    },
    /// The platform names no cache folder (no home directory).
    #[error("no cache folder: the home directory is unknown; set {CACHE_ENV} to a folder for the models")]
    NoCacheDir,
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

/// A file on the web, with what is known about it beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Remote {
    /// Where it lies. https in the registry.
    pub url: String,
    /// Lower-case hex; `None` where no public source states it.
    pub sha256: Option<String>,
    /// Size in bytes; `None` where no public source states it.
    pub size: Option<u64>,
}

impl Remote {
    /// The name under which the file is kept: the last part of the URL's path, with anything but letters, digits,
    /// `.`, `-` and `_` replaced, so that a URL can never lead out of the cache folder.
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
pub struct StemSdr {
    /// The stem, as the benchmark names it.
    pub stem: String,
    /// SDR in dB.
    pub db: f32,
}

/// The figures that one source published for a model. Figures of different benchmarks don't compare.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sdr {
    /// On what it was measured.
    pub benchmark: String,
    /// The mean over the stems in dB, where it was published as such.
    pub average_db: Option<f32>,
    /// Per stem.
    pub stems: Vec<StemSdr>,
}

/// One known checkpoint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry {
    /// Short name for the command line: lower case, digits and hyphens.
    pub name: String,
    /// A title for people.
    pub title: String,
    /// Who trained it.
    pub author: String,
    /// Which of the two architectures.
    pub architecture: Family,
    /// What the model itself puts out, in lower case; the remainder of the mixture is not counted.
    pub stems: Vec<String>,
    /// The weights.
    pub checkpoint: Remote,
    /// The YAML that belongs to them.
    pub config: Remote,
    /// Published quality; empty where nobody published any.
    pub sdr: Vec<Sdr>,
    /// The licence of the weights as published; `None`: not stated.
    pub licence: Option<String>,
    /// What else the sources say about the use of the weights.
    pub licence_note: Option<String>,
    /// The page on which the author, or whoever hosts the file, publishes it.
    pub source: String,
}

impl Entry {
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

    /// The first published figure in a few words: `9.65 dB (MUSDB18-HQ)`, `vocals 10.98 dB (Multisong)`, or `-`.
    pub fn sdr_text(&self) -> String {
        let Some(first) = self.sdr.first() else { return "-".to_owned() };
        match (first.average_db, first.stems.as_slice()) {
            (Some(db), _) => format!("{db:.2} dB ({})", first.benchmark),
            (None, []) => "-".to_owned(),
            (None, [one, ..]) => format!("{} {:.2} dB ({})", one.stem, one.db, first.benchmark),
        }
    }

    /// Every published figure, one line a benchmark.
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

/// Bytes for people, in powers of a thousand as download pages state them: `812 B`, `45.1 MB`, `1.72 GB`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.5 would be printed as 1000.
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
    entries: Vec<Entry>,
}

fn data() -> &'static Data {
    static DATA: OnceLock<Data> = OnceLock::new();
    DATA.get_or_init(|| {
        #[expect(clippy::expect_used, reason = "compiled in, and parsed by this module's tests")]
        serde_json::from_str(include_str!("../assets/registry.json")).expect("assets/registry.json")
    })
}

/// All known checkpoints, the default first.
pub fn entries() -> &'static [Entry] {
    &data().entries
}

/// The checkpoint that is used when none is named.
pub fn default_entry() -> &'static Entry {
    #[expect(clippy::expect_used, reason = "a test of this module finds it")]
    entries().iter().find(|e| e.name == data().default).expect("the default names an entry")
}

/// Finds an entry by its name or by its checkpoint's file name, whatever the case.
///
/// # Errors
/// [`RegistryError::UnknownModel`] with the names that come close.
pub fn find(name: &str) -> Result<&'static Entry, RegistryError> {
    let wanted = name.trim().to_ascii_lowercase();
    if wanted == "default" {
        return Ok(default_entry());
    }
    let is_it = |e: &&Entry| {
        let file = e.checkpoint.file_name().to_ascii_lowercase();
        e.name == wanted || file == wanted || file.rsplit_once('.').is_some_and(|(stem, _)| stem == wanted)
    };
    match entries().iter().find(is_it) {
        Some(entry) => Ok(entry),
        None => Err(RegistryError::UnknownModel { name: name.to_owned(), near: near(&wanted) }),
    }
}

/// Up to three names that resemble `wanted`: by shared words and by edit distance.
fn near(wanted: &str) -> Vec<String> {
    // A name may come from anywhere; nobody's name is longer than this.
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
            // A shared word weighs as much as six typing mistakes.
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
    fn sizes_read_as_on_a_download_page() {
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
    fn a_url_cannot_lead_out_of_the_cache() {
        let name = |url: &str| Remote { url: url.to_owned(), sha256: None, size: None }.file_name();
        assert_eq!(name("https://x.org/a/model.ckpt?download=true"), "model.ckpt");
        assert_eq!(name("https://x.org/a/.."), "model");
        assert_eq!(name("https://x.org/a/%2e%2e%2fb c.ckpt"), "_2e_2e_2fb_c.ckpt");
        assert_eq!(name("https://x.org/"), "model");
        assert_eq!(name("https://x.org/a\\..\\b"), "a_.._b");
    }
}
