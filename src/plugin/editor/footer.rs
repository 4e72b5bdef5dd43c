//! The status line.

use egui::{Align, Color32, Layout, RichText, Sense, Ui, vec2};

use super::strain::Strain;
use super::text;
use super::theme::Palette;
use crate::plugin::library::Step;
use crate::plugin::session::{ModelView, View};
use crate::registry::human_size;
use crate::stream::{State, Status};

/// What a model's state is in a few words: text, whether it is well, and how far it is.
pub fn model_line(view: &View, preview: bool) -> (String, Tone, Option<f32>) {
    match &view.model {
        ModelView::Idle => ("No model yet: start the audio".into(), Tone::Quiet, None),
        ModelView::Loading(None) => ("Loading".into(), Tone::Busy, None),
        ModelView::Loading(Some(Step::Fetching(progress))) => {
            let (words, share) = text::progress(progress);
            (words, Tone::Busy, share)
        }
        ModelView::Loading(Some(Step::Hashing { done })) => {
            (format!("Reading the file: {}", human_size(*done)), Tone::Busy, None)
        }
        ModelView::Loading(Some(Step::Loading)) => ("Building the network".into(), Tone::Busy, None),
        ModelView::Measuring => ("Measuring how fast this computer runs the model".into(), Tone::Busy, None),
        ModelView::Ready { runs_on, .. } => {
            let what = if preview { "Preview model on" } else { "Runs on" };
            (format!("{what} {runs_on}"), Tone::Good, None)
        }
        ModelView::Failed(_) => match &view.stand_in {
            Some(playing) => (format!("{} plays on", playing.title), Tone::Bad, None),
            None => ("No model: the input goes through unchanged".into(), Tone::Bad, None),
        },
        ModelView::Unplanned(why) => (format!("No stream for this model: {why}"), Tone::Bad, None),
    }
}

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Nothing to see.
    Quiet,
    /// It goes on.
    Busy,
    /// As it should be.
    Good,
    /// It needs somebody.
    Bad,
}

impl Tone {
    /// Its colour.
    pub fn color(self, palette: &Palette) -> Color32 {
        match self {
            Self::Quiet => palette.weak,
            Self::Busy => palette.accent,
            Self::Good => palette.good,
            Self::Bad => palette.bad,
        }
    }
}

/// Draws it.
pub fn show(ui: &mut Ui, view: &View, preview: bool, strain: Option<Strain>) {
    let palette = Palette::of(ui.visuals());
    ui.horizontal(|ui| {
        ui.set_height(20.0);
        let (words, mut tone, share) = model_line(view, preview);
        let state = view.status.as_ref().map(|status| status.state());
        if strain.is_some() || matches!(state, Some(State::Failing | State::Panicked | State::Stopped)) {
            tone = Tone::Bad;
        }
        let (dot, _) = ui.allocate_exact_size(vec2(10.0, 10.0), Sense::hover());
        ui.painter().circle_filled(dot.center(), 4.0, tone.color(palette));
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
                let trouble = view.status.as_ref().and_then(|status| trouble(status));
                let (words, ink) = match trouble {
                    Some(trouble) if tone != Tone::Busy => (trouble, palette.bad),
                    _ if view.restart_pending => (
                        "Waiting for the host to restart the plugin with the new latency".into(),
                        palette.warn,
                    ),
                    _ => strain.map_or((words, palette.text), |strain| (strain.words(), palette.bad)),
                };
                ui.add(egui::Label::new(RichText::new(words).color(ink).size(12.0)).truncate());
            });
        });
    });
}

/// What is wrong with the stream, in its own words where it has any.
fn trouble(status: &Status) -> Option<String> {
    let words = match status.state() {
        State::Failing => "The last window failed; the next is tried",
        State::Panicked => "The model failed and was taken out; the input goes through",
        State::Stopped => "The worker has ended; the input goes through",
        State::NoModel | State::Running | State::Starting => return None,
    };
    Some(status.message().map_or_else(|| words.into(), |message| format!("{words}: {message}")))
}

fn numbers(ui: &mut Ui, view: &View) {
    let palette = Palette::of(ui.visuals());
    let mut number = |words: String, ink: Color32, hint: &str| {
        ui.label(RichText::new(words).color(ink).size(12.0)).on_hover_text(hint);
    };
    number(format!("{} Hz", text::samples(view.host_rate.into())), palette.weak, "Sample rate of the host");
    if view.renders {
        number("rendering".into(), palette.accent, "The host renders: every window is waited for");
    }
    let Some(status) = &view.status else { return };
    let (late, skipped, cleaned) =
        (status.late_windows(), status.skipped_windows(), status.cleaned_samples());
    if cleaned > 0 {
        let hint =
            "Samples of stems that were no numbers and became silence; the model's weights may be broken";
        number(format!("{cleaned} cleaned"), palette.warn, hint);
    }
    if skipped > 0 {
        let hint = "Windows that were left out because they would have come too late: choose a higher tier";
        number(format!("{skipped} skipped"), palette.warn, hint);
    }
    let ink = if late > 0 { palette.warn } else { palette.weak };
    let hint = "Windows that were not there in time: the sound went on with the input, in place, and came back exactly";
    number(format!("{late} late"), ink, hint);
    let load = f64::from(status.load());
    if status.windows() > 0 && view.stems().is_some() {
        let hint = "Share of real time that the model takes (real-time factor)";
        number(format!("load {}", text::percent(load)), palette.load(load), hint);
    }
}
