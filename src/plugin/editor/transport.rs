//! The file player of the app: play, back to the start, where it is.

use egui::{Align2, Pos2, Rect, Sense, Shape, Stroke, Ui, WidgetInfo, vec2};

use super::control;
use super::theme::{Palette, font};
use crate::plugin::player::Player;

/// Draws it.
pub fn show(ui: &mut Ui, player: &Player, rate: u32) {
    let palette = Palette::of(ui.visuals());
    ui.horizontal(|ui| {
        ui.set_height(24.0);
        ui.spacing_mut().item_spacing.x = 4.0;
        let playing = player.is_playing();
        if button(ui, if playing { "Pause" } else { "Play" }, |ui, rect| {
            if playing { bars(ui, rect) } else { triangle(ui, rect) }
        }) {
            player.set_playing(!playing);
        }
        if button(ui, "Back to the start", start) {
            player.rewind();
        }
        ui.add_space(6.0);
        let (rect, response) =
            ui.allocate_exact_size(vec2(ui.available_width().max(10.0), 24.0), Sense::hover());
        let (position, length) = player.position();
        let name = player.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let painter = ui.painter_at(rect);
        let whole = if length > 0 { format!(" / {}", clock(length, rate)) } else { String::new() };
        let clock = format!("{}{whole}", clock(position, rate));
        let (words, ink) = player.error().map_or((name, palette.text), |error| (error, palette.bad));
        let left = painter.text(rect.left_center(), Align2::LEFT_CENTER, &words, font(12.0), ink);
        let right = painter.text(rect.right_center(), Align2::RIGHT_CENTER, &clock, font(12.0), palette.weak);
        let groove = Rect::from_x_y_ranges(
            left.right() + 12.0..=right.left() - 12.0,
            rect.center().y - 1.5..=rect.center().y + 1.5,
        );
        if groove.width() > 20.0 {
            painter.rect_filled(groove, 1.5, palette.raised);
            let part =
                if length > 0 { (position as f64 / length as f64).clamp(0.0, 1.0) as f32 } else { 0.0 };
            painter.rect_filled(
                groove.with_max_x(groove.left() + groove.width() * part),
                1.5,
                palette.accent,
            );
        }
        let enabled = ui.is_enabled();
        response.widget_info(|| WidgetInfo::labeled(egui::Role::Label, enabled, format!("{words} {clock}")));
    });
}

/// Minutes and seconds.
fn clock(samples: u64, rate: u32) -> String {
    let seconds = samples / u64::from(rate.max(1));
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn button(ui: &mut Ui, name: &str, draw: impl FnOnce(&Ui, Rect)) -> bool {
    let palette = Palette::of(ui.visuals());
    let (rect, response) = ui.allocate_exact_size(vec2(30.0, 24.0), Sense::click());
    ui.painter().rect_filled(rect, 5.0, if response.hovered() { palette.lifted } else { palette.raised });
    draw(ui, Rect::from_center_size(rect.center(), vec2(10.0, 10.0)));
    let enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::labeled(egui::Role::Button, enabled, name));
    control::focus_ring(ui, &response, rect);
    let clicked = response.clicked();
    response.on_hover_text(name);
    clicked
}

fn triangle(ui: &Ui, rect: Rect) {
    let ink = Palette::of(ui.visuals()).text;
    let points = vec![rect.left_top(), rect.right_center(), rect.left_bottom()];
    ui.painter().add(Shape::convex_polygon(points, ink, Stroke::NONE));
}

fn bars(ui: &Ui, rect: Rect) {
    let ink = Palette::of(ui.visuals()).text;
    for x in [rect.left(), rect.right() - 3.5] {
        ui.painter().rect_filled(
            Rect::from_min_size(Pos2::new(x, rect.top()), vec2(3.5, rect.height())),
            1.0,
            ink,
        );
    }
}

fn start(ui: &Ui, rect: Rect) {
    let ink = Palette::of(ui.visuals()).text;
    ui.painter().rect_filled(Rect::from_min_size(rect.min, vec2(2.0, rect.height())), 1.0, ink);
    let points = vec![rect.right_top(), rect.right_bottom(), rect.left_center() + vec2(3.0, 0.0)];
    ui.painter().add(Shape::convex_polygon(points, ink, Stroke::NONE));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_as_minutes_and_seconds_at_any_rate() {
        assert_eq!(clock(48_000 * 75, 48_000), "1:15");
        assert_eq!(clock(10, 0), "0:10");
    }
}
