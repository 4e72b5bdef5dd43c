//! A stem's strip: fader, meters, solo, mute, polarity, balance.

use egui::{Align2, Color32, CornerRadius, Pos2, Rangef, Rect, Sense, Stroke, StrokeKind, Ui, vec2};
use nice_plug::prelude::Param;

use super::control::{self, Move, Way};
use super::desk::Desk;
use super::key::{Field, Key};
use super::meter::{HOT, Meter};
use super::text;
use super::theme::{Palette, font};
use crate::plugin::params::{LOUDEST_DB, SILENCE_DB};

/// Decibels that the scale marks.
const MARKS: [f32; 8] = [12.0, 6.0, 0.0, -6.0, -12.0, -24.0, -40.0, -60.0];

/// What a strip is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    /// Its slot.
    pub slot: usize,
    /// The stem's name.
    pub name: String,
    /// What the host calls it.
    pub slot_name: &'static str,
    /// Whether it is heard: not muted, nor left out by another's solo.
    pub heard: bool,
}

/// Draws a strip into `rect`. `meters`: one a channel of the instance.
pub fn show(ui: &mut Ui, rect: Rect, desk: &mut Desk, strip: &Strip, meters: &mut [Meter]) {
    let palette = Palette::of(ui.visuals());
    let color = palette.slot(strip.slot);
    let key = |field| Key::Strip(strip.slot, field);
    ui.painter().rect_filled(rect, 6.0, palette.panel);
    let bar = Rect::from_min_size(rect.min, vec2(rect.width(), 4.0));
    ui.painter().rect_filled(
        bar,
        CornerRadius { nw: 6, ne: 6, sw: 0, se: 0 },
        color.gamma_multiply(if strip.heard { 1.0 } else { 0.4 }),
    );
    let inner = rect.shrink2(vec2(8.0, 8.0));
    if inner.width() < 30.0 || inner.height() < 40.0 {
        return;
    }
    let (title, rest) = split_top(inner, 20.0);
    name(ui, title, strip);
    // Where there is one channel, a balance would be a second fader.
    let mono = meters.len() < 2;
    let (rest, pan) = split_bottom(rest, if mono { 0.0 } else { 20.0 });
    let (rest, buttons) = split_bottom(rest, 28.0);
    let (middle, number) = split_bottom(rest, 22.0);
    if middle.height() > 40.0 {
        fader_and_meters(ui, middle.shrink2(vec2(0.0, 4.0)), desk, strip, meters);
    }
    let db = desk.plain(key(Field::Gain));
    control::number(ui, number, desk, key(Field::Gain), &format!("{} dB", text::fader_db(db)));
    let cells = row(buttons.shrink2(vec2(0.0, 2.0)), 3, 4.0);
    for (cell, (field, letter, on, hint)) in cells.into_iter().zip([
        (
            Field::Solo,
            "S",
            palette.solo,
            "Solo: only this stem, and others that are soloed. Alt or Ctrl with a click solos this one alone.",
        ),
        (Field::Mute, "M", palette.bad, "Mute: without this stem"),
        (Field::Phase, "Ø", palette.accent, "Invert the polarity"),
    ]) {
        control::switch(ui, cell, desk, key(field), letter, on, hint);
    }
    if mono {
        return;
    }
    let value = desk.plain(key(Field::Pan));
    let hint = format!(
        "Balance: {}. Drag, turn the wheel, or double-click to type; Alt or Ctrl with a click resets.",
        text::pan(value)
    );
    if !control::typing(ui, pan, desk, key(Field::Pan)) {
        control::slide(ui, pan, desk, key(Field::Pan), 0.5, color, &hint);
    }
}

fn name(ui: &mut Ui, rect: Rect, strip: &Strip) {
    let palette = Palette::of(ui.visuals());
    let label = egui::RichText::new(&strip.name).size(14.0).color(if strip.heard {
        palette.text
    } else {
        palette.weak
    });
    let response = ui.put(rect, egui::Label::new(label).truncate());
    response.on_hover_text(format!(
        "Stem “{}”; its parameters and output are called {} in the host.",
        strip.name, strip.slot_name
    ));
}

fn fader_and_meters(ui: &mut Ui, rect: Rect, desk: &mut Desk, strip: &Strip, meters: &mut [Meter]) {
    let palette = Palette::of(ui.visuals());
    let color = palette.slot(strip.slot);
    let key = Key::Strip(strip.slot, Field::Gain);
    let scale = if rect.width() > 66.0 { 22.0 } else { 0.0 };
    let bars = 10.0 * meters.len() as f32;
    let total = (scale + 28.0 + 6.0 + bars).min(rect.width());
    let left = rect.center().x - total / 2.0;
    let fader = Rect::from_x_y_ranges(left + scale..=left + scale + 28.0, rect.y_range());
    let bars = Rect::from_x_y_ranges(fader.right() + 6.0..=left + total, rect.y_range());

    let travel = fader.y_range().shrink(8.0);
    let position = |db: f32| y_of(desk, strip.slot, db, travel);
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
    fader_of(ui, fader, desk, key, travel, color);
    let clear = ui.interact(bars, ui.scope_id().with(("meters", strip.slot)), Sense::CLICK);
    if clear.clicked() {
        meters.iter_mut().for_each(Meter::clear);
    }
    let level = |db: f32| y_of(desk, strip.slot, db, travel);
    let mut bar = Rect::from_min_size(bars.min, vec2(8.0, bars.height()));
    for meter in meters.iter() {
        meter_bar(ui, bar, travel, meter, if strip.heard { color } else { palette.weak }, &level);
        bar = bar.translate(vec2(10.0, 0.0));
    }
    let peak = meters.iter().map(Meter::peak).fold(f32::MIN, f32::max);
    let peak = if peak <= -89.0 { "silent".into() } else { format!("peak {peak:.1} dBFS") };
    clear.on_hover_text(format!(
        "After the fader, as mixed: {peak}. A red mark was louder than full scale; click to clear."
    ));
}

fn y_of(desk: &Desk, slot: usize, db: f32, travel: Rangef) -> f32 {
    let normalized = desk
        .params
        .strips()
        .get(slot)
        .map_or(0.0, |params| params.gain.preview_normalized(db.clamp(SILENCE_DB, LOUDEST_DB)));
    egui::lerp(travel.max..=travel.min, normalized)
}

fn fader_of(ui: &mut Ui, rect: Rect, desk: &mut Desk, key: Key, travel: Rangef, color: Color32) {
    let palette = Palette::of(ui.visuals());
    let response = ui.interact(rect, ui.scope_id().with(key), Sense::click_and_drag());
    // Half a decibel in the upper half of the range, 24 dB wide.
    control::drive(ui, &response, desk, key, Move { way: Way::Up, travel: travel.span(), step: 0.5 / 48.0 });
    let value = desk.value(key);
    control::announce(ui, &response, desk, key);
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
    control::focus_ring(ui, &response, cap);
    response.on_hover_text(
        "Drag, turn the wheel, or use the arrow keys; Shift is finer. Double-click or Enter types a value. Alt or Ctrl with a click resets.",
    );
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
    part(SILENCE_DB, level.min(HOT), color);
    part(HOT, level.min(0.0), palette.warn);
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

/// The upper `height` of `rect`, and the rest.
pub fn split_top(rect: Rect, height: f32) -> (Rect, Rect) {
    rect.split_top_bottom_at_y((rect.top() + height).min(rect.bottom()))
}

/// `rect` without its lower `height`, and that.
pub fn split_bottom(rect: Rect, height: f32) -> (Rect, Rect) {
    rect.split_top_bottom_at_y((rect.bottom() - height).max(rect.top()))
}

/// `count` cells in a row.
pub fn row(rect: Rect, count: usize, gap: f32) -> Vec<Rect> {
    let width = ((rect.width() - gap * (count.max(1) - 1) as f32) / count.max(1) as f32).max(1.0);
    let cell = |at: usize| {
        Rect::from_min_size(rect.min + vec2(at as f32 * (width + gap), 0.0), vec2(width, rect.height()))
    };
    (0..count).map(cell).collect()
}
