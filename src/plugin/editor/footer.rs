//! The status line.

use egui::{Align, Color32, Layout, RichText, Sense, Ui, vec2};

use super::overload::Overload;
use super::text;
use super::theme::Palette;
use crate::live::{State, Status};
use crate::plugin::instance_shared::{ModelView, View};
use crate::plugin::model_loader::LoadStep;
use crate::registry::human_size;

/// Describes the model's state: text, severity, and progress from 0 to 1 if known.
pub fn model_status(view: &View, preview: bool) -> (String, Severity, Option<f32>) {
    match &view.model {
        ModelView::Idle => ("No model loaded yet: start audio in the host".into(), Severity::Idle, None),
        ModelView::Loading(None) => ("Loading the model".into(), Severity::Busy, None),
        ModelView::Loading(Some(LoadStep::Fetching(progress))) => {
            let (label, share) = text::progress(progress);
            (label, Severity::Busy, share)
        }
        ModelView::Loading(Some(LoadStep::Hashing { done })) => {
            (format!("Reading the model file: {}", human_size(*done)), Severity::Busy, None)
        }
        ModelView::Loading(Some(LoadStep::Loading)) => ("Building the network".into(), Severity::Busy, None),
        ModelView::Measuring => {
            ("Measuring how fast the model runs on this computer".into(), Severity::Busy, None)
        }
        ModelView::Ready { runs_on, .. } => {
            let what = if preview { "Preview model on" } else { "Runs on" };
            (format!("{what} {runs_on}"), Severity::Good, None)
        }
        ModelView::Failed(_) => match &view.stand_in {
            Some(playing) => (format!("{} keeps playing", playing.title), Severity::Problem, None),
            None => ("No model: the input passes through unchanged".into(), Severity::Problem, None),
        },
        ModelView::Unplanned(why) => {
            (format!("This model cannot run live here: {why}"), Severity::Problem, None)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Idle,
    Busy,
    Good,
    Problem,
}

impl Severity {
    pub fn color(self, palette: &Palette) -> Color32 {
        match self {
            Self::Idle => palette.weak,
            Self::Busy => palette.accent,
            Self::Good => palette.good,
            Self::Problem => palette.bad,
        }
    }
}

pub fn show(ui: &mut Ui, view: &View, preview: bool, overload: Option<Overload>) {
    let palette = Palette::of(ui.visuals());
    ui.horizontal(|ui| {
        ui.set_height(20.0);
        let (label, mut severity, share) = model_status(view, preview);
        let state = view.status.as_ref().map(|status| status.state());
        if overload.is_some() || matches!(state, Some(State::Failing | State::Panicked | State::Stopped)) {
            severity = Severity::Problem;
        }
        let (dot, _) = ui.allocate_exact_size(vec2(10.0, 10.0), Sense::hover());
        ui.painter().circle_filled(dot.center(), 4.0, severity.color(palette));
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            numbers(ui, view);
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                if let Some(share) = share {
                    ui.add(
                        egui::ProgressBar::new(share)
                            .desired_width(120.0)
                            .desired_height(8.0)
                            .fill(palette.accent),
                    );
                }
                let stream_error = view.status.as_ref().and_then(|status| stream_error(status));
                let (label, ink) = match stream_error {
                    // It names the cause of what the stream reports.
                    _ if view.device_note.is_some() => {
                        (view.device_note.clone().unwrap_or_default(), palette.warn)
                    }
                    Some(stream_error) if severity != Severity::Busy => (stream_error, palette.bad),
                    _ if view.restart_pending => (
                        "Waiting for the host to restart the plugin with the new latency".into(),
                        palette.warn,
                    ),
                    _ => overload
                        .map_or((label, palette.text), |overload| (overload.status_text(), palette.bad)),
                };
                let shown = egui::Label::new(RichText::new(&label).color(ink).size(12.0)).truncate();
                ui.add(shown).on_hover_text(label);
            });
        });
    });
}

/// Describes what is wrong with the stream, with the stream's own message if it has one.
fn stream_error(status: &Status) -> Option<String> {
    let label = match status.state() {
        State::Failing => "The model failed on the last window; trying the next one",
        State::Panicked => "The model crashed and was unloaded; the input passes through",
        State::Stopped => "The live engine has stopped; the input passes through",
        State::TooSlow => "This computer is too slow for these settings; the input passes through",
        State::NoModel | State::Running | State::Starting => return None,
    };
    Some(status.message().map_or_else(|| label.into(), |message| format!("{label}: {message}")))
}

fn numbers(ui: &mut Ui, view: &View) {
    let palette = Palette::of(ui.visuals());
    let mut number = |label: String, ink: Color32, hint: &str| {
        ui.label(RichText::new(label).color(ink).size(12.0)).on_hover_text(hint);
    };
    number(format!("{} Hz", text::samples(view.host_rate.into())), palette.weak, "Host sample rate");
    if view.offline {
        number(
            "rendering".into(),
            palette.accent,
            "The host renders offline: the plugin waits for every window",
        );
    }
    let Some(status) = &view.status else { return };
    let (late, skipped, cleaned) =
        (status.late_windows(), status.skipped_windows(), status.cleaned_samples());
    if cleaned > 0 {
        let hint = "Samples that the model returned as NaN or infinity, replaced by silence. Its weights may be damaged.";
        number(format!("{cleaned} cleaned"), palette.warn, hint);
    }
    if skipped > 0 {
        let hint = "Windows that were skipped because they would have been late. Choose a tier with a longer latency.";
        number(format!("{skipped} skipped"), palette.warn, hint);
    }
    let ink = if late > 0 { palette.warn } else { palette.weak };
    let hint = "Late windows: the dry signal played instead, in sync";
    number(format!("{late} late"), ink, hint);
    let load = f64::from(status.load());
    if status.windows() > 0 && view.stems().is_some() {
        let hint = "Processing time divided by audio time (real-time factor)";
        number(format!("load {}", text::percent(load)), palette.load(load), hint);
    }
}
