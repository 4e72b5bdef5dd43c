//! Formats values as text for the user, and parses pasted paths.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use percent_encoding::percent_decode_str;

use super::files::{is_checkpoint, is_yaml};
use crate::embedded;
use crate::live::{LiveForecast, Tier};
use crate::plugin::params::SILENCE_DB;
use crate::registry::{DownloadProgress, DownloadStage, FileKind, human_size};

/// Fader gain in dB: `0.0`, `−6.5`, `+3.0`, `−∞`.
pub fn fader_db(db: f32) -> String {
    if db <= SILENCE_DB {
        return "−∞".into();
    }
    signed(db, 1)
}

/// A number with its sign; a value that rounds to 0 has none.
fn signed(value: f32, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    if text.chars().all(|c| c == '0' || c == '.') {
        text
    } else if value < 0.0 {
        format!("−{text}")
    } else {
        format!("+{text}")
    }
}

/// A linear peak in dBFS: `−6.0`, and `−∞` for silence and invalid values.
pub fn peak_db(peak: f32) -> String {
    let db = 20.0 * peak.log10();
    if db.is_finite() { signed(db, 1) } else { "−∞".into() }
}

/// A level that is already in dBFS: `−6.0`, and `−∞` for silence.
pub fn level_db(db: f32) -> String {
    if db <= -89.0 { "−∞".into() } else { signed(db, 1) }
}

/// The null meter's reading for the peak of input − Σ stems: `exact` for 0.
pub fn null(peak: f32) -> String {
    if peak == 0.0 { "exact".into() } else { format!("{} dBFS", peak_db(peak)) }
}

/// A balance: `C`, `30 L`, `100 R`.
pub fn pan(pan: f32) -> String {
    let percent = (pan.abs() * 100.0).round();
    if percent == 0.0 { "C".into() } else { format!("{percent:.0} {}", if pan < 0.0 { 'L' } else { 'R' }) }
}

/// A fraction as a percentage without decimals.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.0} %", share * 100.0) } else { "–".into() }
}

/// A time in milliseconds, or in seconds from 10 s on.
pub fn time(ms: f64) -> String {
    if ms >= 10_000.0 { format!("{:.1} s", ms / 1000.0) } else { format!("{ms:.0} ms") }
}

/// What live use of a model would cost on this computer, in a few words.
pub fn live_cost(forecast: Option<&LiveForecast>) -> String {
    match forecast.map(LiveForecast::lowest_latency) {
        None => "live: not known".into(),
        Some(None) => "too slow live: bounce".into(),
        Some(Some(Tier::High)) => "live in High only".into(),
        Some(Some(lowest)) => format!("live in {}", tier(lowest)),
    }
}

pub fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Live => "Live",
        Tier::Low => "Low",
        Tier::Balanced => "Balanced",
        Tier::High => "High",
    }
}

/// A number with its digits in groups of three.
pub fn samples(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// A stem's name with a capital first letter, shortened to fit a strip.
pub fn stem_name(name: &str) -> String {
    let mut letters = name.trim().chars().map(|c| if c == '_' { ' ' } else { c }).take(40);
    letters.next().map_or_else(|| "Stem".into(), |first| first.to_uppercase().chain(letters).collect())
}

/// A path, shortened at the beginning to `limit` characters.
pub fn short_path(path: &Path, limit: usize) -> String {
    let text = path.display().to_string();
    let count = text.chars().count();
    if count <= limit { text } else { format!("…{}", text.chars().skip(count - limit).collect::<String>()) }
}

/// Describes a download's progress, with the fraction from 0 to 1 if the size is known.
pub fn progress(progress: &DownloadProgress) -> (String, Option<f32>) {
    let share = progress
        .total_bytes
        .filter(|total| *total > 0)
        .map(|total| (progress.done_bytes as f64 / total as f64).clamp(0.0, 1.0) as f32);
    let what = match progress.file {
        FileKind::Config => "configuration",
        FileKind::Checkpoint => "weights",
    };
    let of = progress.total_bytes.map_or_else(String::new, |total| format!(" of {}", human_size(total)));
    let text = match progress.stage {
        DownloadStage::Waiting => "Waiting for another program that is downloading this model".into(),
        DownloadStage::Connecting => format!("Connecting to download the {what}"),
        DownloadStage::Downloading => {
            format!("Downloading the {what}: {}{of}", human_size(progress.done_bytes))
        }
        DownloadStage::Verifying => format!("Verifying the {what}"),
    };
    (text, share)
}

/// Finds a checkpoint, and its YAML file if there is one, in pasted or typed text: several lines, or the single line that a text field makes of
/// them. Paths may be quoted or be `file:` addresses.
pub fn pasted_paths(text: &str, home: Option<&Path>) -> (Option<PathBuf>, Option<PathBuf>) {
    let (mut checkpoint, mut config) = (None, None);
    for piece in text.lines().flat_map(pieces).take(16) {
        let piece = piece.strip_prefix("file://").map_or_else(
            || piece.to_string(),
            |path| percent_decode_str(path).decode_utf8_lossy().into_owned(),
        );
        let path = match (piece.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(piece),
        };
        if is_checkpoint(&path) {
            checkpoint.get_or_insert(path);
        } else if is_yaml(&path) {
            config.get_or_insert(path);
        }
    }
    (checkpoint, config)
}

/// Splits a line into paths. A space belongs to a path, unless it follows a closing quote or a known file extension.
fn pieces(line: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|first| ['"', '\''].contains(first));
        let ends = |at: usize| {
            let (piece, after) = rest.split_at(at);
            match quote {
                Some(quote) => piece.len() > 1 && piece.ends_with(quote),
                None => {
                    let path = Path::new(piece);
                    is_checkpoint(path) || is_yaml(path) || after.trim_start().starts_with("file://")
                }
            }
        };
        let end = rest.char_indices().find(|(at, c)| c.is_whitespace() && ends(*at));
        let (piece, after) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
        let piece = piece.trim_matches(['"', '\'']);
        if !piece.is_empty() {
            pieces.push(piece);
        }
        rest = after.trim_start();
    }
    pieces
}

/// Quality of the built-in model: lowest and highest SDR per stem on music that it was not trained on.
pub fn embedded_model_scores() -> &'static str {
    static SCORES: LazyLock<String> = LazyLock::new(|| {
        let scores = embedded::evaluation().unwrap_or_default();
        format_scores(scores.iter().map(|score| (score.stem.as_str(), score.sdr_db)))
    });
    &SCORES
}

/// Lists the range of the scores of each stem: `drums 2.3–6.3, bass 3.7–7.5`.
fn format_scores<'a>(scores: impl Iterator<Item = (&'a str, f32)>) -> String {
    let mut stems: Vec<(&str, f32, f32)> = Vec::new();
    for (stem, sdr) in scores {
        match stems.iter_mut().find(|(known, ..)| *known == stem) {
            Some((_, low, high)) => (*low, *high) = (low.min(sdr), high.max(sdr)),
            None => stems.push((stem, sdr, sdr)),
        }
    }
    let range = |(stem, low, high): (&str, f32, f32)| {
        if high - low < 0.05 { format!("{stem} {high:.1}") } else { format!("{stem} {low:.1}–{high:.1}") }
    };
    stems.into_iter().map(range).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decibels_have_a_sign_unless_they_round_to_zero() {
        assert_eq!(fader_db(0.0), "0.0");
        assert_eq!(fader_db(-0.01), "0.0");
        assert_eq!(fader_db(-6.5), "−6.5");
        assert_eq!(fader_db(3.0), "+3.0");
        assert_eq!(fader_db(SILENCE_DB), "−∞");
        assert_eq!(peak_db(0.5), "−6.0");
        for nothing in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(peak_db(nothing), "−∞");
        }
        assert_eq!([level_db(-90.0), level_db(-3.04), level_db(0.0)], ["−∞", "−3.0", "0.0"]);
        assert_eq!((null(0.0).as_str(), null(1e-6).as_str()), ("exact", "−120.0 dBFS"));
    }

    #[test]
    fn values_are_formatted_for_audio_engineers() {
        assert_eq!([pan(0.0), pan(-0.3), pan(1.0), pan(0.001)], ["C", "30 L", "100 R", "C"]);
        assert_eq!(samples(1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!(samples(12), "12");
        assert_eq!(time(612.4), "612 ms");
        assert_eq!(percent(f64::NAN), "–");
        assert_eq!(stem_name("no_vocals"), "No vocals");
        assert_eq!(stem_name("  "), "Stem");
        assert_eq!(short_path(Path::new("/a/bc"), 3), "…/bc");
    }

    #[test]
    fn clipboard_text_of_file_managers_is_parsed() {
        let home = Path::new("/home/x");
        let paths = |text: &str| pasted_paths(text, Some(home));
        assert_eq!(paths("  \"/a/m.ckpt\"\n"), (Some("/a/m.ckpt".into()), None));
        assert_eq!(
            paths("file:///a%20b/m.safetensors\r\nfile:///a%20b/c.yaml"),
            (Some("/a b/m.safetensors".into()), Some("/a b/c.yaml".into()))
        );
        assert_eq!(paths("~/m.pt"), (Some("/home/x/m.pt".into()), None));
        assert_eq!(paths("file:///100%.ckpt"), (Some("/100%.ckpt".into()), None));
        assert_eq!(paths("hello\n%zz"), (None, None));
    }

    #[test]
    fn paths_joined_by_a_single_line_field_are_split() {
        let both: (Option<PathBuf>, Option<PathBuf>) =
            (Some("/a b/m.CKPT".into()), Some("/a b/c.yaml".into()));
        for text in [
            "/a b/m.CKPT /a b/c.yaml",
            "/a b/c.yaml  /a b/m.CKPT",
            "'/a b/m.CKPT' '/a b/c.yaml'",
            "\"/a b/m.CKPT\" \"/a b/c.yaml\"",
            "'/a b/m.CKPT' /a b/c.yaml",
            "/a b/m.CKPT '/a b/c.yaml'",
            "file:///a%20b/m.CKPT file:///a%20b/c.yaml",
            "'/a b/read me.txt' file:///a%20b/m.CKPT /a b/c.yaml",
        ] {
            assert_eq!(pasted_paths(text, None), both, "{text}");
        }
        for name in ["m.ckpt", "m.pt", "m.pth", "m.SafeTensors"] {
            let (checkpoint, config) = pasted_paths(&format!("/{name} /c.yml"), None);
            assert_eq!((checkpoint, config), (Some(format!("/{name}").into()), Some("/c.yml".into())));
        }
        assert_eq!(pieces("'/it's.ckpt' \"\" 'open"), ["/it's.ckpt", "open"]);
        assert_eq!(pieces("  "), [""; 0]);
        assert_eq!(pieces("/a.pt.d/b c.pt"), ["/a.pt.d/b c.pt"]);
    }

    #[test]
    fn scores_of_the_embedded_model_cover_every_stem() {
        let scores = embedded_model_scores();
        let stems: Vec<&str> = scores.split(", ").filter_map(|part| part.split(' ').next()).collect();
        assert_eq!(stems, ["drums", "bass", "other", "vocals"], "{scores}");
        assert_eq!(format_scores([("x", 1.0), ("x", -2.0), ("y", 3.0)].into_iter()), "x -2.0–1.0, y 3.0");
    }
}
