//! Text and JSON events about finished songs.

use std::path::Path;

use nullsum::audio::{SourceFormat, SourceInfo};
use nullsum::lossless::grid::NullMeter;
use nullsum::offline::render::RenderReport;
use serde_json::{Value, json};

use crate::printer::{Printer, print_warning};

impl Printer {
    /// Reports a finished song.
    pub fn done(self, report: &RenderReport, lossless: bool) {
        self.event(&done_event(report));
        self.print_line(&done_text(report, lossless));
        if self == Self::Quiet {
            for warning in &report.warnings {
                print_warning(&format!("{}: {warning}", report.input.display()));
            }
        }
    }
}

/// A path as text for programs: as it is where it is Unicode. In other paths every byte that is no part of a character is
/// written as `\xNN`, and a backslash as `\\`, so that the path can be told again.
pub fn path_text(path: &Path) -> String {
    if let Some(text) = path.to_str() {
        return text.to_owned();
    }
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', r"\\"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!(r"\x{byte:02X}")));
    }
    text
}

/// The keys common to all events of a finished song. JSON has no −∞, so `null_dbfs` is null when `null_exact` is true.
pub fn song_event(event: &str, report: &RenderReport) -> Value {
    json!({
        "event": event,
        "outputs": report.outputs.iter().map(|path| path_text(path)).collect::<Vec<_>>(),
        "audio_seconds": report.audio_seconds,
        "elapsed_seconds": report.elapsed.as_secs_f64(),
        "rtf": rtf(report),
        "null_dbfs": (!report.null.is_exact()).then(|| report.null.peak_dbfs()),
        "null_exact": report.null.is_exact(),
        "warnings": report.warnings,
    })
}

pub fn done_event(report: &RenderReport) -> Value {
    let mut event = song_event("done", report);
    event["input"] = json!(path_text(&report.input));
    event["sample_rate"] = json!(report.source.sample_rate);
    event["channels"] = json!(report.source.channels);
    event["lost_packets"] = json!(report.damage.packets);
    event["lost_seconds"] = json!(report.damage.samples as f64 / f64::from(report.source.sample_rate.max(1)));
    event["stages"] = json!({
        "stft_seconds": report.stages.stft.as_secs_f64(),
        "network_seconds": report.stages.network.as_secs_f64(),
        "mask_seconds": report.stages.mask.as_secs_f64(),
        "istft_seconds": report.stages.istft.as_secs_f64(),
    });
    event
}

/// Real-time factor: seconds of work per second of audio; `None` for an empty file.
fn rtf(report: &RenderReport) -> Option<f64> {
    (report.audio_seconds > 0.0).then(|| report.elapsed.as_secs_f64() / report.audio_seconds)
}

fn done_text(report: &RenderReport, lossless: bool) -> String {
    let mut lines =
        vec![format!("{}: {}", report.input.display(), describe(&report.source, report.audio_seconds))];
    lines.extend(report.outputs.iter().map(|path| format!("  {}", path.display())));
    let speed = match rtf(report) {
        Some(rtf) => format!(", RTF {rtf:.3} ({:.2} times real time)", 1.0 / rtf.max(1e-9)),
        None => String::new(),
    };
    lines.push(format!(
        "  {} in {:.1} s{speed}",
        null_text(report.null, lossless),
        report.elapsed.as_secs_f64()
    ));
    lines.extend(report.warnings.iter().map(|warning| format!("  warning: {warning}")));
    lines.join("\n")
}

/// The result of the null test as text.
pub fn null_text(null: NullMeter, lossless: bool) -> String {
    if null.is_exact() {
        return "null −∞ dBFS (exact)".into();
    }
    let off = if lossless { "" } else { " (lossless is off)" };
    format!("null {:.1} dBFS{off}", null.peak_dbfs())
}

/// `3:25, 44100 Hz stereo, 16-bit FLAC`.
fn describe(source: &SourceInfo, seconds: f64) -> String {
    let channels = match source.channels {
        1 => "mono".to_string(),
        2 => "stereo".to_string(),
        n => format!("{n} channels"),
    };
    let format = match source.sample_format {
        SourceFormat::Int8 => "8-bit ",
        SourceFormat::Int16 => "16-bit ",
        SourceFormat::Int24 => "24-bit ",
        SourceFormat::Int32 => "32-bit ",
        SourceFormat::Float32 => "float ",
        SourceFormat::Float64 => "64-bit float ",
        SourceFormat::Lossy => "",
    };
    format!("{}, {} Hz {channels}, {format}{}", clock(seconds), source.sample_rate, source.container)
}

/// `0:07.3` below a minute's tenths, `1:02:03` above an hour.
pub fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    if whole >= 3600 {
        format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
    } else if whole >= 60 {
        format!("{}:{:02}", whole / 60, whole % 60)
    } else {
        format!("{seconds:.1} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn paths_that_are_not_unicode_can_be_told_again() {
        use std::os::unix::ffi::OsStrExt;
        let text = |bytes: &[u8]| path_text(Path::new(std::ffi::OsStr::from_bytes(bytes)));
        assert_eq!(text("a\\é.wav".as_bytes()), "a\\é.wav");
        assert_eq!(text(b"caf\xE9\\x.wav"), r"caf\xE9\\x.wav");
    }

    #[test]
    fn durations_are_formatted_as_clock_times() {
        assert_eq!([clock(7.34), clock(205.9), clock(3723.0)], ["7.3 s", "3:25", "1:02:03"]);
    }

    #[test]
    fn null_is_exact_only_without_a_difference() {
        let mut null = NullMeter::default();
        assert!(null_text(null, true).contains("exact"));
        null.add(&[0.01], std::iter::once(&[0.0][..]));
        assert_eq!(null_text(null, true), "null -40.0 dBFS");
        assert!(null_text(null, false).contains("off"));
    }
}
