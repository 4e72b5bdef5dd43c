//! The window of the model by hand: a line under the tiers.

use egui::{Align, Layout, RichText, Slider, Ui};

use super::text;
use super::theme::Palette;
use crate::plugin::session::Facts;
use crate::stream::plan::Shape;

/// The line while it is there.
#[derive(Default)]
pub struct ByHand {
    /// As it is being moved; the plugin hears of it when it is let go, since every change is a new stream.
    moving: Option<Shape>,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// To use these measures.
    Set(Shape),
    /// To go back to the tier.
    Off,
}

impl ByHand {
    /// Draws the line for what is set now.
    pub fn show(&mut self, ui: &mut Ui, set: Shape, facts: Option<&Facts>) -> Option<Change> {
        let palette = Palette::of(ui.visuals());
        let mut shape = self.moving.unwrap_or(set);
        let mut change = None;
        ui.horizontal(|ui| {
            ui.set_height(24.0);
            ui.spacing_mut().item_spacing.x = 6.0;
            ui.spacing_mut().slider_width = ((ui.available_width() - 560.0) / 3.0).clamp(36.0, 110.0);
            let longest = facts.map_or(Shape::WINDOW.1, |facts| {
                facts.timing.chunk.seconds(facts.timing.rate.max(1)).clamp(Shape::WINDOW.0, Shape::WINDOW.1)
            });
            let lines = [
                (
                    &mut shape.window,
                    (Shape::WINDOW.0, longest),
                    "Window",
                    "What the model sees at once: longer is better, and more work",
                ),
                (
                    &mut shape.hop,
                    Shape::HOP,
                    "Hop",
                    "New audio per window: counts twice in the latency; half of it is twice the work",
                ),
                (
                    &mut shape.lookahead,
                    Shape::LOOKAHEAD,
                    "Lookahead",
                    "What the model sees of the future: counts once in the latency",
                ),
            ];
            let (mut moves, mut done) = (false, false);
            for (value, (least, most), name, hint) in lines {
                let slider = Slider::new(value, least..=most)
                    .logarithmic(true)
                    .smallest_positive(0.01)
                    .update_while_editing(false)
                    .custom_formatter(|seconds, _| text::time(1e3 * seconds))
                    .custom_parser(seconds_of);
                // Before its slider: after the number it would be read as the next one's.
                let name = ui.label(RichText::new(name).size(12.0)).on_hover_text(hint);
                let response = ui.add(slider).labelled_by(name.id).on_hover_text(hint);
                if response.changed() || response.dragged() {
                    moves = true;
                }
                done |= response.drag_stopped() || (response.changed() && !response.dragged());
            }
            if done {
                self.moving = None;
                change = Some(Change::Set(shape.sane()));
            } else if moves {
                // As it is: what a window on its way through a short one takes from the hop, it gives back.
                self.moving = Some(shape);
            }
            let shape = shape.sane();
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                if ui.button("Tier").on_hover_text("Back to the tier").clicked() {
                    self.moving = None;
                    change = Some(Change::Off);
                }
                let Some((latency_ms, load)) = facts.and_then(|facts| facts.of_window(shape)) else { return };
                let share = load.map_or_else(
                    || "load not measured".into(),
                    |load| format!("load {}", text::percent(load)),
                );
                let ink = load.map_or(palette.weak, |load| palette.load(load));
                let words =
                    RichText::new(format!("{} · {share}", text::time(latency_ms))).size(12.0).color(ink);
                ui.add(egui::Label::new(words).truncate());
            });
        });
        change
    }
}

/// Seconds out of `250 ms`, `0.25 s` or `250`: milliseconds where no unit is said.
fn seconds_of(text: &str) -> Option<f64> {
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
    fn times_are_typed_with_and_without_their_unit() {
        for (text, seconds) in [("250", 0.25), ("250 ms", 0.25), ("1,5 s", 1.5), (" 2s ", 2.0)] {
            assert!((seconds_of(text).unwrap() - seconds).abs() < 1e-12, "{text}");
        }
        assert_eq!((seconds_of("long"), seconds_of("NaN"), seconds_of("")), (None, None, None));
    }
}
