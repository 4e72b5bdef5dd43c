//! Progress for people on standard error, or one JSON object a line on standard output.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use nullsum::train::{StemScore, TrainEvent};

use crate::interrupt;

/// Prints a line on standard error.
pub fn print_warning(line: &str) {
    let _ = writeln!(std::io::stderr(), "nullsum-train: {line}");
}

/// Shows a run.
pub struct Console {
    json: bool,
    quiet: bool,
    bar: Option<ProgressBar>,
    /// Mean of the loss over about the last 50 steps.
    loss: Option<f64>,
}

impl Console {
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, bar: None, loss: None }
    }

    /// Prints a line for people.
    pub fn note(&self, line: &str) {
        if self.json || self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// Prints an object for programs.
    pub fn event(&self, event: &serde_json::Value) {
        if self.json {
            // A closed pipe is not an error.
            let _ = writeln!(std::io::stdout(), "{event}");
        }
    }

    fn bar(&mut self, steps: u64, at: u64) -> &ProgressBar {
        self.bar.get_or_insert_with(|| {
            let style = "{wide_bar} {pos}/{len} {msg}, {eta} left";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(steps).with_style(style).with_position(at);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        })
    }

    /// Shows an event of the run; stops it after Ctrl-C.
    pub fn show(&mut self, event: &TrainEvent) -> ControlFlow<()> {
        if let Ok(value) = serde_json::to_value(event) {
            self.event(&value);
        }
        match event {
            TrainEvent::Step { step, steps, loss, seconds, .. } => {
                let mean = self.loss.map_or(*loss, |mean| mean + (loss - mean) / 50.0);
                self.loss = Some(mean);
                if !self.json && !self.quiet {
                    let bar = self.bar(*steps, *step);
                    bar.set_position(*step);
                    bar.set_message(format!("loss {mean:.4}, {seconds:.2} s a step"));
                }
            }
            TrainEvent::Validation { step, stems } => {
                self.note(&format!("step {step}: {}", scores(stems)));
            }
            TrainEvent::Saved { .. } => {}
        }
        interrupt::stop_flow()
    }

    /// Ends the progress bar.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// SDR of each stem in words.
fn scores(stems: &[StemScore]) -> String {
    let one = |score: &StemScore| match (score.sdr_db, score.mixture_db) {
        (Some(sdr), Some(mixture)) => format!("{} {sdr:.2} dB (mixture {mixture:.2})", score.stem),
        _ => format!("{} is in no song", score.stem),
    };
    stems.iter().map(one).collect::<Vec<_>>().join(", ")
}
