//! Controls that move a parameter: faders, slides, switches. They share one way to be moved.

use egui::{
    Color32, EventFilter, Key as Press, Modifiers, Pos2, Rect, Response, Role, Sense, Stroke, StrokeKind, Ui,
    WidgetInfo,
};

use super::desk::{Desk, Typing};
use super::key::{Field, Key};
use super::theme::{Palette, font};

/// How much slower a drag is with Shift.
const FINE: f32 = 0.1;

/// Which way a control goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Upwards.
    Up,
    /// To the right.
    Right,
}

/// How a control is moved.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// Its direction.
    pub way: Way,
    /// Points of its whole travel.
    pub travel: f32,
    /// Part of the range that a turn of the wheel or a key is.
    pub step: f32,
}

/// Moves a parameter by pointer, wheel and keyboard. A double click or Enter types, Alt or Ctrl with a click resets.
pub fn drive(ui: &Ui, response: &Response, desk: &mut Desk, key: Key, how: Move) {
    let (modifiers, scroll) = ui.input(|input| (input.modifiers, input.smooth_scroll_delta()));
    let fine = if modifiers.shift { FINE } else { 1.0 };
    if response.drag_started() && !desk.holds(key) {
        desk.grab(key);
    }
    if response.dragged() && desk.holds(key) {
        let delta = response.drag_delta();
        let along = if how.way == Way::Up { -delta.y } else { delta.x };
        desk.drag(fine * along / how.travel.max(1.0));
    }
    if desk.holds(key) && !response.dragged() && !response.is_pointer_button_down_on() {
        desk.release();
    }
    if response.double_clicked() {
        begin_typing(desk, key);
    } else if response.clicked() {
        if modifiers.alt || modifiers.command {
            desk.reset(key);
        }
        response.request_focus();
    }
    if response.hovered() && !response.dragged() {
        let turned = if scroll.y == 0.0 { scroll.x } else { scroll.y };
        if turned != 0.0 {
            // A notch of a wheel scrolls about 40 points.
            desk.nudge(key, fine * how.step * turned / 40.0);
        }
    }
    if response.has_focus() {
        keys(ui, response, desk, key, how, fine);
    }
}

fn keys(ui: &Ui, response: &Response, desk: &mut Desk, key: Key, how: Move, fine: f32) {
    let filter = EventFilter {
        vertical_arrows: how.way == Way::Up,
        horizontal_arrows: how.way == Way::Right,
        ..EventFilter::default()
    };
    ui.memory_mut(|memory| memory.set_focus_lock_filter(response.id, filter));
    let pressed = |key| ui.input(|input| input.num_presses(key)) as f32;
    let (more, less) = match how.way {
        Way::Up => (Press::ArrowUp, Press::ArrowDown),
        Way::Right => (Press::ArrowRight, Press::ArrowLeft),
    };
    let steps = pressed(more) - pressed(less) + 6.0 * (pressed(Press::PageUp) - pressed(Press::PageDown));
    if steps != 0.0 {
        desk.nudge(key, fine * how.step * steps);
    }
    if pressed(Press::Home) + pressed(Press::Backspace) + pressed(Press::Delete) > 0.0 {
        desk.reset(key);
    }
    if ui.input_mut(|input| input.consume_key(Modifiers::NONE, Press::Enter)) {
        begin_typing(desk, key);
    }
}

fn begin_typing(desk: &mut Desk, key: Key) {
    desk.typing = Some(Typing { key, text: String::new(), fresh: true, refused: false });
}

/// The field for a typed value in `rect`, where one is being typed. True while it is. A text that means nothing stays, in red.
pub fn typing(ui: &mut Ui, rect: Rect, desk: &mut Desk, key: Key) -> bool {
    let Some(mut typing) = desk.typing.take_if(|typing| typing.key == key) else { return false };
    let bad = Palette::of(ui.visuals()).bad;
    let edit = egui::TextEdit::singleline(&mut typing.text)
        .id(ui.scope_id().with(("typing", key)))
        .font(font(12.0))
        .margin(egui::Margin::symmetric(3, 1))
        .char_limit(24)
        .text_color_opt(typing.refused.then_some(bad))
        .hint_text("value");
    let response = ui.put(rect, edit);
    if response.changed() {
        typing.refused = false;
    }
    if typing.fresh {
        response.request_focus();
        typing.fresh = false;
    } else if ui.input(|input| input.key_pressed(Press::Escape)) {
        return false;
    } else if response.lost_focus() {
        if typing.text.trim().is_empty() || desk.enter(key, &typing.text) {
            return false;
        }
        typing.refused = true;
        // Whoever has gone elsewhere is left there.
        if ui.input(|input| input.key_pressed(Press::Enter)) {
            response.request_focus();
        }
    }
    if typing.refused {
        ui.painter().rect_stroke(rect, 3.0, Stroke::new(1.5, bad), StrokeKind::Inside);
        response.on_hover_text(expected(key));
    }
    desk.typing = Some(typing);
    true
}

/// What a field understands.
fn expected(key: Key) -> &'static str {
    match key {
        Key::Strip(_, Field::Pan) => "Type C, 30L, 30R, or −100 to 100. Escape leaves it as it was.",
        Key::Mix => "Type a percentage from 0 to 100. Escape leaves it as it was.",
        _ => "Type decibels, such as −6.5, or -inf. Escape leaves it as it was.",
    }
}

/// A number that is typed on a double click, in `rect`.
pub fn number(ui: &mut Ui, rect: Rect, desk: &mut Desk, key: Key, text: &str) {
    if typing(ui, rect, desk, key) {
        return;
    }
    let palette = Palette::of(ui.visuals());
    let response = ui.interact(rect, ui.scope_id().with(("number", key)), Sense::CLICK);
    if response.hovered() {
        ui.painter().rect_filled(rect, 3.0, palette.raised);
    }
    ui.painter().text(rect.center(), egui::Align2::CENTER_CENTER, text, font(12.0), palette.text);
    if response.clicked() {
        if ui.input(|input| input.modifiers.alt || input.modifiers.command) {
            desk.reset(key);
        } else {
            begin_typing(desk, key);
        }
    }
    response.on_hover_text("Click to type a value. Alt or Ctrl with a click resets it.");
}

/// The ring around what has the keyboard.
pub fn focus_ring(ui: &Ui, response: &Response, rect: Rect) {
    if response.has_focus() {
        let palette = Palette::of(ui.visuals());
        ui.painter().rect_stroke(
            rect.expand(2.0),
            5.0,
            Stroke::new(1.5, palette.accent),
            StrokeKind::Outside,
        );
    }
}

/// A slide in `rect`, filled from `origin` (0 to 1) in `color`.
pub fn slide(ui: &mut Ui, rect: Rect, desk: &mut Desk, key: Key, origin: f32, color: Color32, hint: &str) {
    let palette = Palette::of(ui.visuals());
    let response = ui.interact(rect, ui.scope_id().with(key), Sense::click_and_drag());
    drive(ui, &response, desk, key, Move { way: Way::Right, travel: rect.width(), step: 0.02 });
    let value = desk.value(key);
    announce(ui, &response, desk, key);
    let groove = Rect::from_center_size(rect.center(), egui::vec2((rect.width() - 8.0).max(1.0), 4.0));
    let x = |part: f32| egui::lerp(groove.x_range(), part.clamp(0.0, 1.0));
    let painter = ui.painter();
    painter.rect_filled(groove, 2.0, palette.groove);
    let filled = Rect::from_x_y_ranges(x(origin).min(x(value))..=x(origin).max(x(value)), groove.y_range());
    painter.rect_filled(filled, 2.0, color);
    painter.vline(x(origin), groove.expand(2.0).y_range(), Stroke::new(1.0, palette.weak));
    let cap = if response.hovered() || response.dragged() { palette.text } else { palette.weak };
    painter.circle(Pos2::new(x(value), groove.center().y), 5.0, cap, Stroke::new(1.0, palette.panel));
    focus_ring(ui, &response, rect);
    response.on_hover_text(hint);
}

/// Tells assistive technology what a control is.
pub fn announce(ui: &Ui, response: &Response, desk: &Desk, key: Key) {
    let (enabled, value) = (ui.is_enabled(), f64::from(desk.plain(key)));
    response.widget_info(|| WidgetInfo::slider(enabled, value, desk.name(key)));
}

/// A switch in `rect`, in `color` while it is on. Alt or Ctrl with a click solos alone.
pub fn switch(ui: &mut Ui, rect: Rect, desk: &mut Desk, key: Key, text: &str, color: Color32, hint: &str) {
    let palette = Palette::of(ui.visuals());
    let response = ui.interact(rect, ui.scope_id().with(key), Sense::click());
    if response.clicked() {
        let alone = ui.input(|input| input.modifiers.alt || input.modifiers.command);
        match key {
            Key::Strip(slot, Field::Solo) if alone => desk.solo_alone(slot),
            _ => desk.set(key, if desk.value(key) >= 0.5 { 0.0 } else { 1.0 }),
        }
    }
    let on = desk.value(key) >= 0.5;
    let (enabled, name) = (ui.is_enabled(), desk.name(key));
    response.widget_info(|| WidgetInfo::selected(Role::CheckBox, enabled, on, &name));
    let fill = match (on, response.hovered()) {
        (true, _) => color,
        (false, true) => palette.lifted,
        (false, false) => palette.raised,
    };
    ui.painter().rect_filled(rect, 4.0, fill);
    let ink = if on { Palette::on(color) } else { palette.text };
    ui.painter().text(rect.center(), egui::Align2::CENTER_CENTER, text, font(12.0), ink);
    focus_ring(ui, &response, rect);
    response.on_hover_text(hint);
}

/// One of several, in `rect`. True when it was chosen now.
pub fn choice(
    ui: &mut Ui,
    rect: Rect,
    id: impl std::hash::Hash + std::fmt::Debug,
    chosen: bool,
    text: &str,
    hint: &str,
) -> bool {
    let palette = Palette::of(ui.visuals());
    let response = ui.interact(rect, ui.scope_id().with(("choice", id)), Sense::click());
    let enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::selected(Role::RadioButton, enabled, chosen, text));
    let fill = match (chosen, response.hovered()) {
        (true, _) => palette.lifted,
        (false, true) => palette.lifted.gamma_multiply(0.5),
        (false, false) => Color32::TRANSPARENT,
    };
    ui.painter().rect_filled(rect, 4.0, fill);
    let ink = if chosen { palette.text } else { palette.weak };
    ui.painter().text(rect.center(), egui::Align2::CENTER_CENTER, text, font(12.0), ink);
    focus_ring(ui, &response, rect);
    let clicked = response.clicked();
    if !hint.is_empty() {
        response.on_hover_text(hint);
    }
    clicked && !chosen
}
