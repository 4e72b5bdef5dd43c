//! What is said: text for people, or one JSON object a line for programs.

use std::io::{IsTerminal, Write};
use std::path::Path;

use nullsum::audio::{SourceFormat, SourceInfo};
use nullsum::offline::render::RenderReport;
use serde_json::{Value, json};

use crate::args::TalkArgs;

/// A line on standard output. A closed pipe (`| head`) is no error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error.
pub fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "nullsum-cli: {line}");
}

/// How much is said, and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Talk {
    json: bool,
    quiet: bool,
    plain: bool,
}

impl From<TalkArgs> for Talk {
    fn from(args: TalkArgs) -> Self {
        Self { json: args.json, quiet: args.quiet, plain: args.disable_detailed_pbar }
    }
}

impl Talk {
    /// Text on standard error, for commands whose standard output is one object.
    pub fn aside() -> Self {
        Self { json: false, quiet: false, plain: false }
    }

    /// The same without bars, which are for one song at a time.
    pub fn without_bars(self) -> Self {
        Self { plain: true, ..self }
    }

    /// Whether JSON is wanted.
    pub fn json(self) -> bool {
        self.json
    }

    /// Whether bars are drawn.
    pub fn bars(self) -> bool {
        !(self.json || self.quiet || self.plain) && std::io::stderr().is_terminal()
    }

    /// Text that `--quiet` and `--json` silence, on standard error.
    pub fn note(self, line: &str) {
        if !(self.json || self.quiet) {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Text that `--quiet` and `--json` silence, on standard output.
    pub fn say(self, line: &str) {
        if !(self.json || self.quiet) {
            say(line);
        }
    }

    /// An event, where JSON is wanted.
    pub fn event(self, event: &Value) {
        if self.json {
            say(&event.to_string());
        }
    }

    /// An error that does not end the program.
    pub fn error(self, input: Option<&Path>, message: &str) {
        if self.json {
            say(&json!({"event": "error", "input": input.map(text), "message": message}).to_string());
        } else {
            warn(message);
        }
    }

    /// Something the user should know, whatever the mode.
    pub fn warning(self, message: &str) {
        if self.json {
            say(&json!({"event": "warning", "message": message}).to_string());
        } else {
            warn(message);
        }
    }

    /// A finished song.
    pub fn done(self, report: &RenderReport, lossless: bool) {
        self.event(&done_event(report));
        self.say(&done_text(report, lossless));
        if self.quiet && !self.json {
            for warning in &report.warnings {
                warn(&format!("{}: {warning}", report.input.display()));
            }
        }
    }
}

/// A path as JSON has it.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A finished song as an object. JSON has no −∞: `null_exact` says it, and `null_dbfs` is null then.
fn done_event(report: &RenderReport) -> Value {
    json!({
        "event": "done",
        "input": text(&report.input),
        "outputs": report.outputs.iter().map(|path| text(path)).collect::<Vec<_>>(),
        "audio_seconds": report.audio_seconds,
        "elapsed_seconds": report.elapsed.as_secs_f64(),
        "rtf": rtf(report),
        "sample_rate": report.source.sample_rate,
        "channels": report.source.channels,
        "null_dbfs": report.null_dbfs.is_finite().then_some(report.null_dbfs),
        "null_exact": is_exact(report.null_dbfs),
        "stages": {
            "stft_seconds": report.stages.stft.as_secs_f64(),
            "network_seconds": report.stages.network.as_secs_f64(),
            "mask_seconds": report.stages.mask.as_secs_f64(),
            "istft_seconds": report.stages.istft.as_secs_f64(),
        },
        "warnings": report.warnings,
    })
}

/// Seconds of work per second of audio; none for no audio.
fn rtf(report: &RenderReport) -> Option<f64> {
    (report.audio_seconds > 0.0).then(|| report.elapsed.as_secs_f64() / report.audio_seconds)
}

fn is_exact(null_dbfs: f64) -> bool {
    null_dbfs == f64::NEG_INFINITY
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
        null_text(report.null_dbfs, lossless),
        report.elapsed.as_secs_f64()
    ));
    lines.extend(report.warnings.iter().map(|warning| format!("  warning: {warning}")));
    lines.join("\n")
}

/// The null meter in words.
pub fn null_text(null_dbfs: f64, lossless: bool) -> String {
    if is_exact(null_dbfs) {
        "null −∞ dBFS (exact)".into()
    } else if lossless {
        format!("null {null_dbfs:.1} dBFS")
    } else {
        format!("null {null_dbfs:.1} dBFS (lossless is off)")
    }
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

    #[test]
    fn times_read_as_on_a_clock() {
        assert_eq!([clock(7.34), clock(205.9), clock(3723.0)], ["7.3 s", "3:25", "1:02:03"]);
    }

    #[test]
    fn the_null_meter_says_exact_only_at_minus_infinity() {
        assert!(null_text(f64::NEG_INFINITY, true).contains("exact"));
        assert!(!null_text(-144.0, true).contains("exact"));
        assert!(null_text(-40.0, false).contains("off"));
    }
}
