//! Banner under the header. It reports a problem with the model and offers buttons to solve it.

use egui::{Align, Color32, Frame, Layout, Margin, RichText, Ui};

use super::text;
use super::theme::Palette;
use crate::plugin::instance_shared::{ModelView, PendingPlan};
use crate::plugin::model_loader::ModelLoadError;
use crate::plugin::selection::Selection;

#[derive(Clone, Debug, PartialEq)]
pub enum BannerAction {
    Download,
    LocateFile,
    ChooseModel,
    ShowDetails,
    Retry,
}

/// Shows the banner if the model needs the user's attention.
pub fn show(ui: &mut Ui, model: &ModelView, selected: &Selection) -> Option<BannerAction> {
    let palette = Palette::of(ui.visuals());
    let (text, color, buttons): (String, _, &[(&str, BannerAction)]) = match model {
        ModelView::Failed(ModelLoadError::NotFetched { size, licence, .. }) => (
            format!("{} is not downloaded yet ({size}; licence of the weights: {licence})", selected.title),
            palette.accent,
            &[("Download", BannerAction::Download), ("Choose another", BannerAction::ChooseModel)],
        ),
        ModelView::Failed(ModelLoadError::Missing { path }) => (
            format!("This project's model file has moved: {}", text::short_path(path.as_ref(), 70)),
            palette.warn,
            &[("Locate file…", BannerAction::LocateFile), ("Choose another", BannerAction::ChooseModel)],
        ),
        ModelView::Failed(ModelLoadError::Cancelled) => (
            "Loading was cancelled".into(),
            palette.warn,
            &[("Try again", BannerAction::Download), ("Choose another", BannerAction::ChooseModel)],
        ),
        ModelView::Failed(ModelLoadError::Broken { reason, .. }) => (
            first_line(reason),
            palette.bad,
            &[
                ("Details", BannerAction::ShowDetails),
                ("Try again", BannerAction::Retry),
                ("Choose another", BannerAction::ChooseModel),
            ],
        ),
        ModelView::Unplanned(why) => {
            (first_line(why), palette.bad, &[("Choose another", BannerAction::ChooseModel)])
        }
        ModelView::Idle | ModelView::Loading(_) | ModelView::Measuring | ModelView::Ready { .. } => {
            return None;
        }
    };
    show_line(ui, &text, color, buttons)
}

/// Shows an error about files that the user named. Returns true when the user dismisses it.
pub fn show_notice(ui: &mut Ui, text: &str) -> bool {
    let color = Palette::of(ui.visuals()).warn;
    show_line(ui, text, color, &[("OK", ())]).is_some()
}

/// Offers a better setting of the Auto tier. Returns true to apply it now.
pub fn show_pending(ui: &mut Ui, pending: &PendingPlan) -> bool {
    let name = pending.tier.map_or_else(|| "another window".into(), |tier| format!("tier {tier}"));
    let text = format!(
        "Auto changes to {name} ({:.0} ms) when playback stops, because the model's cost is now known better",
        pending.latency_ms
    );
    let color = Palette::of(ui.visuals()).accent;
    show_line(ui, &text, color, &[("Apply now", ())]).is_some()
}

/// Shows that the model is too slow for this computer.
pub fn show_overload(ui: &mut Ui, text: &str) -> Option<BannerAction> {
    let color = Palette::of(ui.visuals()).bad;
    show_line(ui, text, color, &[("Choose another", BannerAction::ChooseModel)])
}

fn show_line<A: Clone>(ui: &mut Ui, text: &str, color: Color32, buttons: &[(&str, A)]) -> Option<A> {
    let palette = Palette::of(ui.visuals());
    let mut action = None;
    let frame =
        Frame::NONE.fill(color.gamma_multiply(0.16)).corner_radius(6).inner_margin(Margin::symmetric(10, 5));
    frame.show(ui, |ui| {
        ui.horizontal(|ui| {
            ui.set_height(26.0);
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                for (name, what) in buttons.iter().rev() {
                    if ui.button(*name).clicked() {
                        action = Some(what.clone());
                    }
                }
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    let label = egui::Label::new(RichText::new(text).color(palette.text)).truncate();
                    ui.add(label);
                });
            });
        });
    });
    action
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}
