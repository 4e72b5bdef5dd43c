//! Transport of the standalone app's song player: play, back to the start, close, seek bar.

use egui::{Align2, EventFilter, Key, Pos2, Rect, RichText, Sense, Shape, Stroke, Ui, WidgetInfo, vec2};

use super::theme::{Palette, font};
use super::widgets;
use crate::plugin::player::Player;

/// Seconds that an arrow key seeks.
const STEP: f64 = 5.0;
const HINT: &str = "Click or drag to seek. The song plays in a loop.";

pub fn show(ui: &mut Ui, player: &Player, rate: u32) {
    let palette = Palette::of(ui.visuals());
    ui.horizontal(|ui| {
        ui.set_height(24.0);
        ui.spacing_mut().item_spacing.x = 4.0;
        let Some(song) = player.song() else {
            let label = RichText::new(invitation(player.has_input())).size(12.0).color(palette.weak);
            ui.add(egui::Label::new(label).truncate()).on_hover_text(
                "To use a live input, start the app with: nullsum --input-device NAME, or with JACK: --connect-jack-inputs PORTS. See nullsum --help.",
            );
            return;
        };
        let playing = player.is_playing();
        if button(ui, if playing { "Pause" } else { "Play" }, |ui, rect| {
            if playing { bars(ui, rect) } else { triangle(ui, rect) }
        }) {
            player.set_playing(!playing);
        }
        if button(ui, "Back to the start", start) {
            player.seek(0);
        }
        let close = if player.has_input() { "Back to the live input" } else { "Close the song" };
        if button(ui, close, cross) {
            player.close();
        }
        ui.add_space(6.0);
        let (rect, response) =
            ui.allocate_exact_size(vec2(ui.available_width().max(10.0), 24.0), Sense::hover());
        let (position, length) = player.position();
        let whole = if length > 0 { format!(" / {}", clock(length, rate)) } else { String::new() };
        let clock = format!("{}{whole}", clock(position, rate));
        let name = song.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (label, ink, most) = match player.error() {
            Some(error) => (error, palette.bad, 0.8),
            None => (name, palette.text, 0.4),
        };
        // Limits the width of a long name, so that the seek bar has room.
        let room = rect.with_max_x(rect.left() + most * rect.width());
        let left = ui.painter_at(room).text(room.left_center(), Align2::LEFT_CENTER, &label, font(12.0), ink);
        let right = ui.painter_at(rect).text(
            rect.right_center(),
            Align2::RIGHT_CENTER,
            &clock,
            font(12.0),
            palette.weak,
        );
        let enabled = ui.is_enabled();
        response.widget_info(|| WidgetInfo::labeled(egui::Role::Label, enabled, format!("{label} {clock}")));
        response.on_hover_text(label);
        let groove = Rect::from_x_y_ranges(
            left.right().min(room.right()) + 12.0..=right.left() - 12.0,
            rect.center().y - 1.5..=rect.center().y + 1.5,
        );
        if groove.width() > 20.0
            && let Some(to) = bar(ui, groove, position, length, rate)
        {
            player.seek(to);
        }
    });
}

/// Text shown while no song is loaded.
fn invitation(has_input: bool) -> &'static str {
    // File drops are supported on Linux only.
    match (cfg!(target_os = "linux"), has_input) {
        (true, false) => "Drop a song here, or start with --input-device NAME",
        (true, true) => "Live input. Drop a song here to play it instead",
        (false, false) => "Start with a song, or with --input-device NAME",
        (false, true) => "Live input",
    }
}

/// The seek bar. Returns the position, in samples, that the user seeks to by a click, a drag or the arrow keys.
fn bar(ui: &mut Ui, groove: Rect, position: u64, length: u64, rate: u32) -> Option<u64> {
    let palette = Palette::of(ui.visuals());
    let sense = if length > 0 { Sense::click_and_drag() } else { Sense::hover() };
    let response = ui.interact(groove.expand2(vec2(0.0, 9.0)), ui.scope_id().with("song"), sense);
    // Normalised pointer position during a click or drag.
    let pointed = response
        .interact_pointer_pos()
        .filter(|_| length > 0)
        .map(|at| ((at.x - groove.left()) / groove.width()).clamp(0.0, 1.0));
    let whole = length as f64;
    let mut to = pointed
        .filter(|_| response.clicked() || response.drag_stopped())
        .map(|part| (f64::from(part) * whole) as u64);
    if response.has_focus() && length > 0 {
        let filter = EventFilter { horizontal_arrows: true, ..EventFilter::default() };
        ui.memory_mut(|memory| memory.set_focus_lock_filter(response.id, filter));
        let pressed = |key| ui.input(|input| input.num_presses(key)) as f64;
        let steps = pressed(Key::ArrowRight) - pressed(Key::ArrowLeft);
        if steps != 0.0 {
            to = Some((position as f64 + STEP * f64::from(rate) * steps).clamp(0.0, whole) as u64);
        }
    }
    let played = if length > 0 { (position as f64 / whole).clamp(0.0, 1.0) as f32 } else { 0.0 };
    let head = groove.left() + groove.width() * pointed.unwrap_or(played);
    ui.painter().rect_filled(groove, 1.5, palette.raised);
    ui.painter().rect_filled(groove.with_max_x(head), 1.5, palette.accent);
    if response.hovered() || pointed.is_some() {
        ui.painter().circle_filled(Pos2::new(head, groove.center().y), 5.0, palette.text);
    }
    let (enabled, seconds) = (ui.is_enabled(), position as f64 / f64::from(rate.max(1)));
    response.widget_info(|| WidgetInfo::slider(enabled, seconds, "Position in seconds"));
    widgets::focus_ring(ui, &response, groove.expand2(vec2(2.0, 6.0)));
    response.on_hover_text(HINT);
    to
}

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
    widgets::focus_ring(ui, &response, rect);
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

fn cross(ui: &Ui, rect: Rect) {
    let stroke = Stroke::new(1.6, Palette::of(ui.visuals()).text);
    let rect = rect.shrink(1.0);
    ui.painter().line_segment([rect.left_top(), rect.right_bottom()], stroke);
    ui.painter().line_segment([rect.left_bottom(), rect.right_top()], stroke);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_formats_minutes_and_seconds_at_any_rate() {
        assert_eq!(clock(48_000 * 75, 48_000), "1:15");
        assert_eq!(clock(10, 0), "0:10");
    }
}
