//! A line that asks for something: to fetch a model, to find one that moved, to look at why one is broken.

use egui::{Align, Color32, Frame, Layout, Margin, RichText, Ui};

use super::text;
use super::theme::Palette;
use crate::plugin::library::OpenError;
use crate::plugin::selection::Selection;
use crate::plugin::session::ModelView;

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Fetch what is selected.
    Fetch,
    /// Find the file that is missing.
    Find,
    /// Choose another model.
    Choose,
    /// Show the report.
    Details,
    /// Once more.
    Retry,
}

/// Draws it, where there is something to ask.
pub fn show(ui: &mut Ui, model: &ModelView, selected: &Selection) -> Option<Answer> {
    let palette = Palette::of(ui.visuals());
    let (words, color, answers): (String, _, &[(&str, Answer)]) = match model {
        ModelView::Failed(OpenError::NotFetched { size, licence, .. }) => (
            format!(
                "{} is not on this computer yet: {size}, licence of the weights: {licence}",
                selected.title
            ),
            palette.accent,
            &[("Download", Answer::Fetch), ("Choose another", Answer::Choose)],
        ),
        ModelView::Failed(OpenError::Missing { path }) => (
            format!("The model of this session is not where it was: {}", text::short_path(path.as_ref(), 70)),
            palette.warn,
            &[("Find it …", Answer::Find), ("Choose another", Answer::Choose)],
        ),
        ModelView::Failed(OpenError::Cancelled) => (
            "Loading was stopped".into(),
            palette.warn,
            &[("Try again", Answer::Fetch), ("Choose another", Answer::Choose)],
        ),
        ModelView::Failed(OpenError::Broken { reason, .. }) => (
            first_line(reason),
            palette.bad,
            &[("Details", Answer::Details), ("Try again", Answer::Retry), ("Choose another", Answer::Choose)],
        ),
        ModelView::Unplanned(why) => (first_line(why), palette.bad, &[("Choose another", Answer::Choose)]),
        ModelView::Idle | ModelView::Loading(_) | ModelView::Measuring | ModelView::Ready { .. } => {
            return None;
        }
    };
    line(ui, &words, color, answers)
}

/// Draws what is wrong with files that were named; whether it was read.
pub fn note(ui: &mut Ui, words: &str) -> bool {
    let color = Palette::of(ui.visuals()).warn;
    line(ui, words, color, &[("OK", ())]).is_some()
}

/// Draws that the model is too much for this computer.
pub fn strain(ui: &mut Ui, words: &str) -> Option<Answer> {
    let color = Palette::of(ui.visuals()).bad;
    line(ui, words, color, &[("Choose another", Answer::Choose)])
}

fn line<A: Clone>(ui: &mut Ui, words: &str, color: Color32, answers: &[(&str, A)]) -> Option<A> {
    let palette = Palette::of(ui.visuals());
    let mut answer = None;
    let frame =
        Frame::NONE.fill(color.gamma_multiply(0.16)).corner_radius(6).inner_margin(Margin::symmetric(10, 5));
    frame.show(ui, |ui| {
        ui.horizontal(|ui| {
            ui.set_height(26.0);
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                for (name, what) in answers.iter().rev() {
                    if ui.button(*name).clicked() {
                        answer = Some(what.clone());
                    }
                }
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    let label = egui::Label::new(RichText::new(words).color(palette.text)).truncate();
                    ui.add(label);
                });
            });
        });
    });
    answer
}

fn first_line(words: &str) -> String {
    words.lines().next().unwrap_or_default().chars().take(300).collect()
}
