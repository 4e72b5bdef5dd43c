//! How far a song or a download is: a bar on a terminal, events for programs, nothing otherwise.

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use nullsum::offline::render::RenderProgress;
use nullsum::registry::{Progress, Stage, What, human_size};
use serde_json::json;

use crate::report::{Talk, clock, text};

/// Steps of a bar.
const STEPS: u64 = 1000;
/// Shortest time between two events.
const EVENT_INTERVAL: Duration = Duration::from_millis(500);

/// Progress of one song.
pub struct SongProgress<'a> {
    talk: Talk,
    input: &'a Path,
    bar: Option<ProgressBar>,
    started: Instant,
    last_event: Option<Instant>,
    /// Passes over the song, all of which count as one second of work a second of audio.
    passes: f64,
}

impl<'a> SongProgress<'a> {
    /// Begins. `place` is the song's number and how many there are.
    pub fn new(talk: Talk, input: &'a Path, place: (usize, usize), passes: usize) -> Self {
        let bar = talk.bars().then(|| {
            let name = input.file_name().unwrap_or(input.as_os_str()).to_string_lossy();
            let prefix =
                if place.1 > 1 { format!("[{}/{}] {name}", place.0, place.1) } else { name.into_owned() };
            let bar = ProgressBar::new(STEPS).with_style(style("{prefix} {wide_bar} {percent:>3}% {msg}"));
            bar.set_prefix(prefix);
            bar.set_message("starting");
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { talk, input, bar, started: Instant::now(), last_event: None, passes: passes as f64 }
    }

    /// Takes a step.
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
        if self.talk.json() && self.last_event.is_none_or(|at| at.elapsed() >= EVENT_INTERVAL) {
            self.last_event = Some(Instant::now());
            self.talk.event(&json!({
                "event": "progress",
                "input": text(self.input),
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
    talk: Talk,
    name: String,
    bar: Option<ProgressBar>,
    last_event: Option<Instant>,
}

impl FetchProgress {
    /// Begins.
    pub fn new(talk: Talk, name: &str) -> Self {
        let bar = talk.bars().then(|| {
            let style = style("{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg}");
            let bar = ProgressBar::new(0).with_style(style);
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { talk, name: name.into(), bar, last_event: None }
    }

    /// Takes a step.
    pub fn update(&mut self, progress: Progress) {
        let stage = match progress.stage {
            Stage::Waiting => "waiting for another download of it",
            Stage::Connecting => "connecting",
            Stage::Downloading => "downloading",
            Stage::Verifying => "verifying",
        };
        if let Some(bar) = &self.bar {
            if let Some(total) = progress.total_bytes {
                bar.set_length(total);
            }
            bar.set_position(progress.done_bytes);
            bar.set_message(if progress.stage == Stage::Downloading { "" } else { stage });
        }
        if self.talk.json() && self.last_event.is_none_or(|at| at.elapsed() >= EVENT_INTERVAL) {
            self.last_event = Some(Instant::now());
            self.talk.event(&json!({
                "event": "download",
                "model": self.name,
                "file": if progress.what == What::Config { "config" } else { "checkpoint" },
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
pub fn announce(entry: &nullsum::registry::Entry) -> String {
    let size = entry.checkpoint.size.map_or_else(|| "size not stated".to_owned(), human_size);
    format!("{size} from {}, licence: {}", entry.source, entry.licence_text())
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}
