//! What is said: text for people, or one JSON object a line for programs.

use std::io::{IsTerminal, Write};
use std::path::Path;

use nullsum::audio::{SourceFormat, SourceInfo};
use nullsum::lossless::grid::NullMeter;
use nullsum::offline::render::RenderReport;
use serde_json::{Value, json};

use crate::args::{Command, ModelsCommand, TalkArgs};

/// A line on standard output. A closed pipe (`| head`) is no error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error.
pub fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "nullsum-cli: {line}");
}

/// How much is said, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// Events on standard output, nothing else.
    Json,
    /// Warnings and errors alone.
    Quiet,
    /// Lines of text.
    Lines,
    /// Those, and bars where standard error is a terminal.
    Bars,
}

impl From<TalkArgs> for Talk {
    fn from(args: TalkArgs) -> Self {
        match args {
            TalkArgs { json: true, .. } => Self::Json,
            TalkArgs { quiet: true, .. } => Self::Quiet,
            TalkArgs { disable_detailed_pbar: true, .. } => Self::Lines,
            TalkArgs { .. } => Self::Bars,
        }
    }
}

impl Command {
    /// How it tells what ends it.
    pub fn talk(&self) -> Talk {
        let of = |json: bool| if json { Talk::Json } else { Talk::Lines };
        match self {
            Self::Separate(args) => args.talk.into(),
            Self::Demo(args) => args.talk.into(),
            Self::Models(args) => match &args.command {
                None => of(args.json),
                Some(ModelsCommand::List { json }) => of(*json || args.json),
                Some(ModelsCommand::Download { talk, .. }) => (*talk).into(),
                Some(ModelsCommand::Path { .. }) => Talk::Lines,
            },
            Self::Devices(args) => of(args.json),
            // With `--json` their standard output is what was measured and nothing else.
            Self::Bench(_) | Self::Tiers(_) => Talk::aside(),
            Self::Convert(args) if args.quiet => Talk::Quiet,
            Self::Convert(_) | Self::Inspect(_) | Self::Completions(_) => Talk::Lines,
        }
    }
}

impl Talk {
    /// Text on standard error, for commands whose standard output is one object.
    pub fn aside() -> Self {
        Self::Bars
    }

    /// The same without bars, which are for one song at a time.
    pub fn without_bars(self) -> Self {
        if self == Self::Bars { Self::Lines } else { self }
    }

    /// Whether JSON is wanted.
    pub fn json(self) -> bool {
        self == Self::Json
    }

    /// Whether bars are drawn.
    pub fn bars(self) -> bool {
        self == Self::Bars && std::io::stderr().is_terminal()
    }

    /// Whether there is text beside warnings and errors.
    fn is_text(self) -> bool {
        matches!(self, Self::Lines | Self::Bars)
    }

    /// Text that `--quiet` and `--json` silence, on standard error.
    pub fn note(self, line: &str) {
        if self.is_text() {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Text that `--quiet` and `--json` silence, on standard output.
    pub fn say(self, line: &str) {
        if self.is_text() {
            say(line);
        }
    }

    /// An event, where JSON is wanted.
    pub fn event(self, event: &Value) {
        if self.json() {
            say(&event.to_string());
        }
    }

    /// An event where JSON is wanted, else its message on standard error.
    fn tell(self, event: &Value, message: &str) {
        if self.json() {
            self.event(event);
        } else {
            warn(message);
        }
    }

    /// The error that ends the program.
    pub fn fatal(self, message: &str, exit_code: u8) {
        self.tell(&json!({"event": "error", "message": message, "exit_code": exit_code}), message);
    }

    /// An error that does not end the program.
    pub fn error(self, input: Option<&Path>, message: &str) {
        self.tell(&json!({"event": "error", "input": input.map(text), "message": message}), message);
    }

    /// Something the user should know, whatever the mode.
    pub fn warning(self, message: &str) {
        self.tell(&json!({"event": "warning", "message": message}), message);
    }

    /// A finished song.
    pub fn done(self, report: &RenderReport, lossless: bool) {
        self.event(&done_event(report));
        self.say(&done_text(report, lossless));
        if self == Self::Quiet {
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

/// What all events of a finished song hold. JSON has no −∞: `null_exact` says it, and `null_dbfs` is null then.
pub fn song_event(event: &str, report: &RenderReport) -> Value {
    json!({
        "event": event,
        "outputs": report.outputs.iter().map(|path| text(path)).collect::<Vec<_>>(),
        "audio_seconds": report.audio_seconds,
        "elapsed_seconds": report.elapsed.as_secs_f64(),
        "rtf": rtf(report),
        "null_dbfs": (!report.null.is_exact()).then(|| report.null.peak_dbfs()),
        "null_exact": report.null.is_exact(),
        "warnings": report.warnings,
    })
}

fn done_event(report: &RenderReport) -> Value {
    let mut event = song_event("done", report);
    event["input"] = json!(text(&report.input));
    event["sample_rate"] = json!(report.source.sample_rate);
    event["channels"] = json!(report.source.channels);
    event["stages"] = json!({
        "stft_seconds": report.stages.stft.as_secs_f64(),
        "network_seconds": report.stages.network.as_secs_f64(),
        "mask_seconds": report.stages.mask.as_secs_f64(),
        "istft_seconds": report.stages.istft.as_secs_f64(),
    });
    event
}

/// Seconds of work per second of audio; none for no audio.
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

/// The null meter in words.
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
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn errors_are_told_as_the_command_line_asks() {
        for (line, talk) in [
            (&["models", "download", "--json", "name"][..], Talk::Json),
            (&["models", "--json"], Talk::Json),
            (&["models", "path"], Talk::Lines),
            (&["demo", "--quiet", "--json"], Talk::Json),
            (&["demo", "--quiet"], Talk::Quiet),
            (&["separate", "--disable-detailed-pbar"], Talk::Lines),
            (&["separate"], Talk::Bars),
            (&["bench", "--json"], Talk::aside()),
        ] {
            let cli = Cli::try_parse_from([&["nullsum-cli"], line].concat()).unwrap();
            assert_eq!(cli.command.unwrap().talk(), talk, "{line:?}");
        }
    }

    #[test]
    fn times_read_as_on_a_clock() {
        assert_eq!([clock(7.34), clock(205.9), clock(3723.0)], ["7.3 s", "3:25", "1:02:03"]);
    }

    #[test]
    fn the_null_meter_says_exact_only_where_nothing_is_left() {
        let mut null = NullMeter::default();
        assert!(null_text(null, true).contains("exact"));
        null.add(&[0.01], std::iter::once(&[0.0][..]));
        assert_eq!(null_text(null, true), "null -40.0 dBFS");
        assert!(null_text(null, false).contains("off"));
    }
}
