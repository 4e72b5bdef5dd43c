//! The registry of known checkpoints, the cache of downloaded ones, and (feature `download`) the download.
//!
//! The entries are data: `assets/registry.json`. It states a hash or a size only where a public source does; unknown
//! values are absent, never guessed. Weights belong to their authors and are not part of this program. Each entry states
//! the licence that they were published under, or that none is stated.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde::Deserialize;

mod cache;
#[cfg(feature = "download")]
mod download;
mod entry;
#[cfg(feature = "download")]
mod fetch_error;
#[cfg(feature = "download")]
mod http;
#[cfg(feature = "download")]
mod lock;
mod recognition;
#[cfg(feature = "download")]
mod transfer;

#[cfg(feature = "plugin")]
pub(crate) use cache::recorded_sha256;
pub use cache::{
    CACHE_ENV, ModelFiles, cache_dir, cached_config, cached_files, cached_files_in, entry_folder,
};
#[cfg(feature = "download")]
pub use download::{
    DownloadProgress, DownloadStage, FetchOptions, FileKind, MIRROR_ENV, Timeouts, fetch, fetch_config,
};
pub use entry::{BenchmarkScores, NetworkSize, RegistryEntry, RemoteFile, StemScore, Task, UnknownTask};
#[cfg(feature = "download")]
pub use fetch_error::FetchError;
pub use recognition::{load_config, recognise, recognise_content};

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

/// Finds an entry by its name, or by any file name of its checkpoint with or without extension, ignoring case.
///
/// # Errors
/// [`RegistryError::UnknownModel`] with similar names.
pub fn find(name: &str) -> Result<&'static RegistryEntry, RegistryError> {
    let wanted = name.trim().to_ascii_lowercase();
    if wanted == "default" {
        return Ok(default_entry());
    }
    let is_it = |e: &&RegistryEntry| {
        e.name == wanted
            || e.file_names().any(|file| {
                let file = file.to_ascii_lowercase();
                file == wanted || file.rsplit_once('.').is_some_and(|(stem, _)| stem == wanted)
            })
    };
    match entries().iter().find(is_it) {
        Some(entry) => Ok(entry),
        None => Err(RegistryError::UnknownModel { name: name.to_owned(), similar: similar_names(&wanted) }),
    }
}

/// The entries for a task, or all.
pub fn entries_for(task: Option<Task>) -> Vec<&'static RegistryEntry> {
    entries().iter().filter(|entry| task.is_none_or(|task| entry.tasks.contains(&task))).collect()
}

/// Names of all benchmarks, the one with most entries first.
pub fn benchmarks() -> Vec<&'static str> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for scores in entries().iter().flat_map(|entry| &entry.sdr) {
        match counts.iter_mut().find(|(name, _)| *name == scores.benchmark) {
            Some((_, count)) => *count += 1,
            None => counts.push((&scores.benchmark, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().map(|(name, _)| name).collect()
}

/// Sorts entries by their score in one benchmark, the best first. Those without one follow in their order.
pub fn sort_by_score(entries: &mut [&RegistryEntry], benchmark: &str, stem: Option<&str>) {
    let key = |entry: &RegistryEntry| entry.score(benchmark, stem).unwrap_or(f32::NEG_INFINITY);
    entries.sort_by(|a, b| key(b).total_cmp(&key(a)));
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
        let name = |url: &str| {
            RemoteFile { url: url.to_owned(), sha256: None, size: None, mirrors: Vec::new() }.file_name()
        };
        assert_eq!(name("https://x.org/a/model.ckpt?download=true"), "model.ckpt");
        assert_eq!(name("https://x.org/a/.."), "model");
        assert_eq!(name("https://x.org/a/%2e%2e%2fb c.ckpt"), "_2e_2e_2fb_c.ckpt");
        assert_eq!(name("https://x.org/"), "model");
        assert_eq!(name("https://x.org/a\\..\\b"), "a_.._b");
    }
}
