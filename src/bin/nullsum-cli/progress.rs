//! Progress of songs and downloads: a bar on a terminal, JSON events with `--json`, otherwise nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use nullsum::offline::render::RenderProgress;
use nullsum::registry::{DownloadProgress, DownloadStage, FileKind, human_size};
use serde_json::json;

use crate::printer::Printer;
use crate::report::{clock, path_text};

/// Steps of a bar.
const STEPS: u64 = 1000;
/// Shortest time between two events.
const EVENT_INTERVAL: Duration = Duration::from_millis(500);

/// Progress of one song.
pub struct SongProgress<'a> {
    printer: Printer,
    input: &'a Path,
    bar: Option<ProgressBar>,
    started: Instant,
    last_event: Option<Instant>,
    /// Passes over the song. Speed is in seconds of audio finished, so it is divided by them.
    passes: f64,
}

impl<'a> SongProgress<'a> {
    /// `place` is the number of the song, from 1, and the number of songs.
    pub fn new(printer: Printer, input: &'a Path, place: (usize, usize), passes: usize) -> Self {
        let bar = printer.has_progress().then(|| {
            let name = input.file_name().unwrap_or(input.as_os_str()).to_string_lossy();
            let prefix =
                if place.1 > 1 { format!("[{}/{}] {name}", place.0, place.1) } else { name.into_owned() };
            let bar = ProgressBar::new(STEPS).with_style(style("{prefix} {wide_bar} {percent:>3}% {msg}"));
            bar.set_prefix(prefix);
            bar.set_message("starting");
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { printer, input, bar, started: Instant::now(), last_event: None, passes: passes as f64 }
    }

    /// Shows the progress.
    pub fn update(&mut self, progress: RenderProgress) {
        let elapsed = self.started.elapsed().as_secs_f64();
        let speed = progress.seconds / self.passes / elapsed.max(1e-6);
        let eta = progress.fraction.filter(|f| *f > 0.0).map(|f| elapsed * (1.0 - f) / f);
        if let Some(bar) = &self.bar {
            if let Some(fraction) = progress.fraction {
                bar.set_position((fraction * STEPS as f64) as u64);
            }
            let eta = eta.map_or_else(String::new, |eta| format!(", {} left", clock(eta)));
            bar.set_message(format!("{speed:.2}× real time{eta}"));
        }
        if self.printer.json() && self.last_event.is_none_or(|at| at.elapsed() >= EVENT_INTERVAL) {
            self.last_event = Some(Instant::now());
            self.printer.event(&json!({
                "event": "progress",
                "input": path_text(self.input),
                "fraction": progress.fraction,
                "seconds": progress.seconds,
                "speed": speed,
                "eta_seconds": eta,
            }));
        }
    }
}

impl Drop for SongProgress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Progress of one download.
pub struct FetchProgress {
    printer: Printer,
    name: String,
    bar: Option<ProgressBar>,
    last_event: Option<Instant>,
}

impl FetchProgress {
    pub fn new(printer: Printer, name: &str) -> Self {
        let bar = printer.has_progress().then(|| {
            let style = style("{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg}");
            let bar = ProgressBar::new(0).with_style(style);
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { printer, name: name.into(), bar, last_event: None }
    }

    pub fn update(&mut self, progress: DownloadProgress) {
        let stage = match progress.stage {
            DownloadStage::Waiting => "waiting for another download of it",
            DownloadStage::Connecting => "connecting",
            DownloadStage::Downloading => "downloading",
            DownloadStage::Verifying => "verifying",
        };
        if let Some(bar) = &self.bar {
            if let Some(total) = progress.total_bytes {
                bar.set_length(total);
            }
            bar.set_position(progress.done_bytes);
            bar.set_message(if progress.stage == DownloadStage::Downloading { "" } else { stage });
        }
        if self.printer.json() && self.last_event.is_none_or(|at| at.elapsed() >= EVENT_INTERVAL) {
            self.last_event = Some(Instant::now());
            self.printer.event(&json!({
                "event": "download",
                "model": self.name,
                "file": if progress.file == FileKind::Config { "config" } else { "checkpoint" },
                "stage": stage,
                "done_bytes": progress.done_bytes,
                "total_bytes": progress.total_bytes,
            }));
        }
    }
}

impl Drop for FetchProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `527 MB from github.com, licence MIT`.
pub fn download_description(entry: &nullsum::registry::RegistryEntry) -> String {
    let size = entry.checkpoint.size.map_or_else(|| "size not stated".to_owned(), human_size);
    format!("{size} from {}, licence: {}", entry.source, entry.licence_text())
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}
