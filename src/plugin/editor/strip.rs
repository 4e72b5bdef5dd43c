//! The mixer strip of one stem: fader, meters, solo, mute, polarity, balance.

use egui::{Align2, Color32, CornerRadius, Pos2, Rangef, Rect, Sense, Stroke, StrokeKind, Ui, vec2};
use nice_plug::prelude::Param;

use super::meter::{Meter, WARN_DB};
use super::param_edits::ParamEdits;
use super::param_id::{ParamId, StripParam};
use super::text;
use super::theme::{Palette, font};
use super::widgets::{self, DragAxis, DragBehaviour};
use crate::plugin::params::{MAX_GAIN_DB, SILENCE_DB};

/// Levels that the scale marks, in dB.
const MARKS: [f32; 8] = [12.0, 6.0, 0.0, -6.0, -12.0, -24.0, -40.0, -60.0];

#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    pub strip_index: usize,
    pub name: String,
    /// Name of the strip's parameters in the host.
    pub host_name: &'static str,
    /// Neither muted nor silenced by another strip's solo.
    pub audible: bool,
}

/// `meters`: one per channel of the instance.
pub fn show(ui: &mut Ui, rect: Rect, edits: &mut ParamEdits, strip: &Strip, meters: &mut [Meter]) {
    let palette = Palette::of(ui.visuals());
    let color = palette.strip_color(strip.strip_index);
    let key = |field| ParamId::Strip(strip.strip_index, field);
    ui.painter().rect_filled(rect, 6.0, palette.panel);
    let bar = Rect::from_min_size(rect.min, vec2(rect.width(), 4.0));
    ui.painter().rect_filled(
        bar,
        CornerRadius { nw: 6, ne: 6, sw: 0, se: 0 },
        color.gamma_multiply(if strip.audible { 1.0 } else { 0.4 }),
    );
    let inner = rect.shrink2(vec2(8.0, 8.0));
    if inner.width() < 30.0 || inner.height() < 40.0 {
        return;
    }
    let (title, rest) = split_top(inner, 20.0);
    draw_name(ui, title, strip);
    // With one channel, a balance control would only be a second fader.
    let mono = meters.len() < 2;
    let (rest, pan) = split_bottom(rest, if mono { 0.0 } else { 20.0 });
    let (rest, buttons) = split_bottom(rest, 28.0);
    let (middle, number) = split_bottom(rest, 22.0);
    if middle.height() > 40.0 {
        fader_and_meters(ui, middle.shrink2(vec2(0.0, 4.0)), edits, strip, meters);
    }
    let db = edits.plain_value(key(StripParam::Gain));
    widgets::value_label(ui, number, edits, key(StripParam::Gain), &format!("{} dB", text::fader_db(db)));
    let cells = row(buttons.shrink2(vec2(0.0, 2.0)), 3, 4.0);
    for (cell, (field, letter, on, hint)) in cells.into_iter().zip([
        (StripParam::Solo, "S", palette.solo, "Solo. Alt-click or Ctrl-click solos this stem exclusively."),
        (StripParam::Mute, "M", palette.bad, "Mute"),
        (StripParam::Phase, "Ø", palette.accent, "Invert polarity"),
    ]) {
        widgets::toggle(ui, cell, edits, key(field), letter, on, hint);
    }
    if mono {
        return;
    }
    let value = edits.plain_value(key(StripParam::Pan));
    let hint = format!(
        "Balance: {}. Drag or turn the wheel; double-click to type a value; Alt-click or Ctrl-click to reset.",
        text::pan(value)
    );
    if !widgets::value_entry_field(ui, pan, edits, key(StripParam::Pan)) {
        widgets::slider(ui, pan, edits, key(StripParam::Pan), 0.5, color, &hint);
    }
}

fn draw_name(ui: &mut Ui, rect: Rect, strip: &Strip) {
    let palette = Palette::of(ui.visuals());
    let label = egui::RichText::new(&strip.name).size(14.0).color(if strip.audible {
        palette.text
    } else {
        palette.weak
    });
    let response = ui.put(rect, egui::Label::new(label).truncate());
    response.on_hover_text(format!(
        "Stem “{}”. Its parameters and its output are called {} in the host.",
        strip.name, strip.host_name
    ));
}

fn fader_and_meters(ui: &mut Ui, rect: Rect, edits: &mut ParamEdits, strip: &Strip, meters: &mut [Meter]) {
    let palette = Palette::of(ui.visuals());
    let color = palette.strip_color(strip.strip_index);
    let key = ParamId::Strip(strip.strip_index, StripParam::Gain);
    let scale = if rect.width() > 66.0 { 22.0 } else { 0.0 };
    let bars = 10.0 * meters.len() as f32;
    let total = (scale + 28.0 + 6.0 + bars).min(rect.width());
    let left = rect.center().x - total / 2.0;
    let fader = Rect::from_x_y_ranges(left + scale..=left + scale + 28.0, rect.y_range());
    let bars = Rect::from_x_y_ranges(fader.right() + 6.0..=left + total, rect.y_range());

    let travel = fader.y_range().shrink(8.0);
    let position = |db: f32| y_of_level(edits, strip.strip_index, db, travel);
    if scale > 0.0 {
        for mark in MARKS {
            let y = position(mark);
            let label = if mark == 0.0 { "0".into() } else { format!("{:.0}", mark.abs()) };
            let ink = if mark == 0.0 { palette.text } else { palette.weak };
            ui.painter().text(Pos2::new(fader.left() - 5.0, y), Align2::RIGHT_CENTER, label, font(9.5), ink);
            let stroke = Stroke::new(1.0, if mark == 0.0 { palette.weak } else { palette.line });
            ui.painter().hline(fader.left() - 2.0..=fader.right(), y, stroke);
        }
    }
    draw_fader(ui, fader, edits, key, travel, color);
    let clear = ui.interact(bars, ui.scope_id().with(("meters", strip.strip_index)), Sense::CLICK);
    if clear.clicked() {
        meters.iter_mut().for_each(Meter::clear);
    }
    let level = |db: f32| y_of_level(edits, strip.strip_index, db, travel);
    let mut bar = Rect::from_min_size(bars.min, vec2(8.0, bars.height()));
    for meter in meters.iter() {
        meter_bar(ui, bar, travel, meter, if strip.audible { color } else { palette.weak }, &level);
        bar = bar.translate(vec2(10.0, 0.0));
    }
    let peak = meters.iter().map(Meter::peak).fold(f32::MIN, f32::max);
    let peak = if peak <= -89.0 { "silent".into() } else { format!("peak {peak:.1} dBFS") };
    clear.on_hover_text(format!(
        "Level after the fader: {peak}. A red mark means that it exceeded full scale; click to clear."
    ));
}

fn y_of_level(edits: &ParamEdits, strip_index: usize, db: f32, travel: Rangef) -> f32 {
    let normalized = edits
        .params
        .strips()
        .get(strip_index)
        .map_or(0.0, |params| params.gain.preview_normalized(db.clamp(SILENCE_DB, MAX_GAIN_DB)));
    egui::lerp(travel.max..=travel.min, normalized)
}

fn draw_fader(ui: &mut Ui, rect: Rect, edits: &mut ParamEdits, key: ParamId, travel: Rangef, color: Color32) {
    let palette = Palette::of(ui.visuals());
    let response = ui.interact(rect, ui.scope_id().with(key), Sense::click_and_drag());
    // A step is 0.5 dB in the upper half of the range, which spans 24 dB.
    widgets::handle_param_input(
        ui,
        &response,
        edits,
        key,
        DragBehaviour { axis: DragAxis::Vertical, travel_points: travel.span(), step: 0.5 / 48.0 },
    );
    let value = edits.value(key);
    widgets::describe_to_accessibility(ui, &response, edits, key);
    let y = egui::lerp(travel.max..=travel.min, value.clamp(0.0, 1.0));
    let painter = ui.painter();
    let groove = Rect::from_x_y_ranges(rect.center().x - 2.0..=rect.center().x + 2.0, travel);
    painter.rect_filled(groove, 2.0, palette.groove);
    let filled = Rect::from_x_y_ranges(groove.x_range(), y..=travel.max);
    painter.rect_filled(filled, 2.0, color.gamma_multiply(0.7));
    let cap = Rect::from_center_size(Pos2::new(rect.center().x, y), vec2(22.0, 13.0));
    let fill = if response.hovered() || response.dragged() { palette.lifted } else { palette.raised };
    painter.rect(cap, 3.0, fill, Stroke::new(1.0, palette.weak), StrokeKind::Inside);
    painter.hline(cap.x_range().shrink(3.0), y, Stroke::new(2.0, color));
    widgets::focus_ring(ui, &response, cap);
    let hint = "Drag, turn the wheel or use the arrow keys; hold Shift for fine control. Double-click or press Enter to type a value. Alt-click or Ctrl-click to reset.";
    response.on_hover_text(widgets::draw_indication(ui, rect, edits, key, hint));
}

fn meter_bar(ui: &Ui, rect: Rect, travel: Rangef, meter: &Meter, color: Color32, y: &dyn Fn(f32) -> f32) {
    let palette = Palette::of(ui.visuals());
    let painter = ui.painter();
    let groove = Rect::from_x_y_ranges(rect.x_range(), travel);
    painter.rect_filled(groove, 1.0, palette.groove);
    let part = |from: f32, to: f32, color: Color32| {
        if to > from {
            painter.rect_filled(Rect::from_x_y_ranges(rect.x_range(), y(to)..=y(from)), 0.0, color);
        }
    };
    let level = meter.level();
    part(SILENCE_DB, level.min(WARN_DB), color);
    part(WARN_DB, level.min(0.0), palette.warn);
    part(0.0, level, palette.bad);
    if meter.peak() > SILENCE_DB {
        let ink = if meter.peak() > 0.0 { palette.bad } else { palette.text };
        painter.hline(rect.x_range(), y(meter.peak()), Stroke::new(1.5, ink));
    }
    if meter.clipped() {
        painter.rect_filled(
            Rect::from_x_y_ranges(rect.x_range(), travel.min - 7.0..=travel.min - 2.0),
            1.0,
            palette.bad,
        );
    }
}

/// Splits off the top `height` points. Returns the top and the rest.
pub fn split_top(rect: Rect, height: f32) -> (Rect, Rect) {
    rect.split_top_bottom_at_y((rect.top() + height).min(rect.bottom()))
}

/// Splits off the bottom `height` points. Returns the rest and the bottom.
pub fn split_bottom(rect: Rect, height: f32) -> (Rect, Rect) {
    rect.split_top_bottom_at_y((rect.bottom() - height).max(rect.top()))
}

pub fn row(rect: Rect, count: usize, gap: f32) -> Vec<Rect> {
    let width = ((rect.width() - gap * (count.max(1) - 1) as f32) / count.max(1) as f32).max(1.0);
    let cell = |at: usize| {
        Rect::from_min_size(rect.min + vec2(at as f32 * (width + gap), 0.0), vec2(width, rect.height()))
    };
    (0..count).map(cell).collect()
}
