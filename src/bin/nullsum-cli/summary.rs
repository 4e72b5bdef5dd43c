//! Counts of a batch: as text, as a JSON event, and as the report file.

use std::io::Write;
use std::path::{Path, PathBuf};

use nullsum::offline::render::RenderReport;
use serde_json::{Value, json};

use crate::exit::{CliResult, ExitStatus, Failure};
use crate::report::path_text;

/// Counts of a batch.
#[derive(Default)]
pub struct BatchSummary {
    pub done: usize,
    pub skipped: usize,
    pub failed: usize,
    pub audio_seconds: f64,
    pub warnings: usize,
    /// Songs of which a part could not be decoded.
    pub damaged: usize,
    pub lost_seconds: f64,
    /// The song that took longest, with its seconds.
    pub slowest: Option<(PathBuf, f64)>,
    pub last_failure: Option<ExitStatus>,
    pub interrupted: bool,
    /// Events of all songs, for the report file.
    pub songs: Vec<Value>,
}

impl BatchSummary {
    /// Counts a finished song.
    pub fn add_done(&mut self, report: &RenderReport, event: Value) {
        let seconds = report.elapsed.as_secs_f64();
        self.done += 1;
        self.audio_seconds += report.audio_seconds;
        self.warnings += report.warnings.len();
        if !report.damage.is_none() {
            self.damaged += 1;
            self.lost_seconds += report.damage.samples as f64 / f64::from(report.source.sample_rate.max(1));
            // The stems are there, but they are not the whole song.
            self.last_failure = Some(ExitStatus::Failed);
        }
        if self.slowest.as_ref().is_none_or(|(_, slowest)| *slowest < seconds) {
            self.slowest = Some((report.input.clone(), seconds));
        }
        self.songs.push(event);
    }

    /// Counts a song that failed.
    pub fn add_failed(&mut self, input: &Path, status: ExitStatus, message: &str) {
        self.failed += 1;
        self.last_failure = Some(status);
        self.songs.push(json!({"event": "error", "input": path_text(input), "message": message}));
    }

    /// Counts a song that was there already.
    pub fn add_skipped(&mut self, input: &Path) -> Value {
        let event = json!({"event": "skipped", "input": path_text(input)});
        self.skipped += 1;
        self.songs.push(event.clone());
        event
    }

    pub fn text(&self) -> String {
        let mut parts = vec![format!("{} separated", self.done)];
        if self.skipped > 0 {
            parts.push(format!("{} there already", self.skipped));
        }
        if self.failed > 0 {
            parts.push(format!("{} failed", self.failed));
        }
        if self.damaged > 0 {
            parts.push(format!("{} damaged ({:.1} s lost)", self.damaged, self.lost_seconds));
        }
        if self.warnings > 0 {
            parts.push(format!("{} warnings", self.warnings));
        }
        let mut text = parts.join(", ");
        if let (Some((song, seconds)), 2..) = (&self.slowest, self.done) {
            text.push_str(&format!("; slowest: {} ({seconds:.1} s)", song.display()));
        }
        text
    }

    pub fn event(&self, elapsed_seconds: f64) -> Value {
        json!({
            "event": "summary",
            "done": self.done,
            "skipped": self.skipped,
            "failed": self.failed,
            "audio_seconds": self.audio_seconds,
            "elapsed_seconds": elapsed_seconds,
            "warnings": self.warnings,
            "damaged": self.damaged,
            "lost_seconds": self.lost_seconds,
            "slowest": self.slowest.as_ref().map(|(song, seconds)| {
                json!({"input": path_text(song), "elapsed_seconds": seconds})
            }),
        })
    }

    /// Writes the summary and the events of all songs as one JSON document.
    pub fn write_report(&self, path: &Path, elapsed_seconds: f64) -> CliResult {
        let report = json!({"summary": self.event(elapsed_seconds), "songs": self.songs});
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut file, &report)?;
            file.write_all(b"\n")?;
            file.persist(path).map(drop).map_err(|error| error.error)
        };
        write().map_err(|error| {
            Failure::new(ExitStatus::Io, format!("cannot write the report {}: {error}", path.display()))
        })
    }
}
