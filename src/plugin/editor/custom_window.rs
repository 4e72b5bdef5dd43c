//! Controls for a custom model window (window, hop, lookahead), shown below the tiers.

use egui::{Align, Layout, RichText, Slider, Ui};

use super::text;
use super::theme::Palette;
use crate::live::plan::WindowSpec;
use crate::plugin::instance_shared::PlanInputs;

#[derive(Default)]
pub struct CustomWindowRow {
    /// Value during a drag. It is applied on release, because every change restarts the stream.
    pending: Option<WindowSpec>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WindowChange {
    Set(WindowSpec),
    UseTier,
}

impl CustomWindowRow {
    /// `set` is the window in effect.
    pub fn show(
        &mut self,
        ui: &mut Ui,
        set: WindowSpec,
        plan_inputs: Option<&PlanInputs>,
    ) -> Option<WindowChange> {
        let palette = Palette::of(ui.visuals());
        let mut shape = self.pending.unwrap_or(set);
        let mut change = None;
        ui.horizontal(|ui| {
            ui.set_height(24.0);
            ui.spacing_mut().item_spacing.x = 6.0;
            ui.spacing_mut().slider_width = ((ui.available_width() - 560.0) / 3.0).clamp(36.0, 110.0);
            let longest = plan_inputs.map_or(WindowSpec::WINDOW.1, |plan_inputs| {
                plan_inputs.timing.chunk.seconds(plan_inputs.timing.rate.max(1)).clamp(WindowSpec::WINDOW.0, WindowSpec::WINDOW.1)
            });
            let lines = [
                (
                    &mut shape.window,
                    (WindowSpec::WINDOW.0, longest),
                    "Window",
                    "Audio that the model uses for a hop, most of it past. Longer mostly sounds better. For models that repeat whole windows it also raises the load.",
                ),
                (
                    &mut shape.hop,
                    WindowSpec::HOP,
                    "Hop",
                    "New audio per hop. Shorter lowers the latency and raises the load.",
                ),
                (
                    &mut shape.lookahead,
                    WindowSpec::LOOKAHEAD,
                    "Lookahead",
                    "Future audio that the model can use. Adds its length to the latency.",
                ),
            ];
            let (mut moves, mut done) = (false, false);
            for (value, (least, most), name, hint) in lines {
                let slider = Slider::new(value, least..=most)
                    .logarithmic(true)
                    .smallest_positive(0.01)
                    .update_while_editing(false)
                    .custom_formatter(|seconds, _| text::time(1e3 * seconds))
                    .custom_parser(parse_seconds);
                // The label stands before its slider. After the value it would look like the next slider's label.
                let name = ui.label(RichText::new(name).size(12.0)).on_hover_text(hint);
                let response = ui.add(slider).labelled_by(name.id).on_hover_text(hint);
                if response.changed() || response.dragged() {
                    moves = true;
                }
                done |= response.drag_stopped() || (response.changed() && !response.dragged());
            }
            if done {
                self.pending = None;
                change = Some(WindowChange::Set(shape.clamped()));
            } else if moves {
                // Not clamped yet: a short window on the way would reduce the hop for good.
                self.pending = Some(shape);
            }
            let shape = shape.clamped();
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                if ui.button("Use tier").on_hover_text("Go back to the latency tier").clicked() {
                    self.pending = None;
                    change = Some(WindowChange::UseTier);
                }
                let Some((latency_ms, load)) = plan_inputs.and_then(|plan_inputs| plan_inputs.of_window(shape)) else { return };
                let share = load.map_or_else(
                    || "load not measured yet".into(),
                    |load| format!("load {}", text::percent(load)),
                );
                let ink = load.map_or(palette.weak, |load| palette.load(load));
                let label =
                    RichText::new(format!("{} · {share}", text::time(latency_ms))).size(12.0).color(ink);
                ui.add(egui::Label::new(label).truncate());
            });
        });
        change
    }
}

/// Parses `250 ms`, `0.25 s` or `250` to seconds. Without a unit the number means milliseconds.
fn parse_seconds(text: &str) -> Option<f64> {
    let text = text.trim().replace(',', ".");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => text.strip_suffix('s').map_or((text.as_str(), 1e-3), |number| (number, 1.0)),
    };
    let seconds = number.trim().parse::<f64>().ok()? * unit;
    seconds.is_finite().then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_parse_with_and_without_a_unit() {
        for (text, seconds) in [("250", 0.25), ("250 ms", 0.25), ("1,5 s", 1.5), (" 2s ", 2.0)] {
            assert!((parse_seconds(text).unwrap() - seconds).abs() < 1e-12, "{text}");
        }
        assert_eq!((parse_seconds("long"), parse_seconds("NaN"), parse_seconds("")), (None, None, None));
    }
}
