//! Widgets that edit a parameter: faders, sliders, toggles, value fields. All share the same pointer and keyboard handling.

use std::borrow::Cow;

use egui::{
    Color32, EventFilter, Key, Modifiers, Pos2, Rect, Response, Role, Sense, Stroke, StrokeKind, Ui,
    WidgetInfo,
};

use egui::text::{CCursor, CCursorRange};

use super::param_edits::{ParamEdits, ValueEntry};
use super::param_id::{ParamId, ParamRef, StripParam};
use super::theme::{Palette, font};
use crate::plugin::indications::AutomationState;

/// Speed of a drag with Shift held, relative to normal.
const FINE: f32 = 0.1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DragAxis {
    Vertical,
    Horizontal,
}

#[derive(Clone, Copy, Debug)]
pub struct DragBehaviour {
    pub axis: DragAxis,
    /// Length of the whole range, in points.
    pub travel_points: f32,
    /// Step of one wheel notch or key press, as a fraction of the range.
    pub step: f32,
}

/// Changes a parameter by pointer, wheel and keyboard. A double-click or Enter opens a value field; Alt-click or Ctrl-click resets.
pub fn handle_param_input(
    ui: &Ui,
    response: &Response,
    edits: &mut ParamEdits,
    key: ParamId,
    drag: DragBehaviour,
) {
    let (modifiers, scroll) = ui.input(|input| (input.modifiers, input.smooth_scroll_delta()));
    let fine = if modifiers.shift { FINE } else { 1.0 };
    if response.drag_started() && !edits.is_dragging(key) {
        edits.begin_drag(key);
    }
    if response.dragged() && edits.is_dragging(key) {
        let delta = response.drag_delta();
        let along = if drag.axis == DragAxis::Vertical { -delta.y } else { delta.x };
        edits.drag_by(fine * along / drag.travel_points.max(1.0));
    }
    if edits.is_dragging(key) && !response.dragged() && !response.is_pointer_button_down_on() {
        edits.end_drag();
    }
    if response.double_clicked() {
        begin_value_entry(edits, key);
    } else if response.clicked() {
        if modifiers.alt || modifiers.command {
            edits.reset_to_default(key);
        }
        response.request_focus();
    }
    if response.hovered() && !response.dragged() {
        let turned = if scroll.y == 0.0 { scroll.x } else { scroll.y };
        if turned != 0.0 {
            // A notch of a wheel scrolls about 40 points.
            edits.nudge(key, fine * drag.step * turned / 40.0);
        }
    }
    if response.has_focus() {
        handle_keys(ui, response, edits, key, drag, fine);
    }
}

fn handle_keys(
    ui: &Ui,
    response: &Response,
    edits: &mut ParamEdits,
    key: ParamId,
    drag: DragBehaviour,
    fine: f32,
) {
    let filter = EventFilter {
        vertical_arrows: drag.axis == DragAxis::Vertical,
        horizontal_arrows: drag.axis == DragAxis::Horizontal,
        ..EventFilter::default()
    };
    ui.memory_mut(|memory| memory.set_focus_lock_filter(response.id, filter));
    let pressed = |key| ui.input(|input| input.num_presses(key)) as f32;
    let (more, less) = match drag.axis {
        DragAxis::Vertical => (Key::ArrowUp, Key::ArrowDown),
        DragAxis::Horizontal => (Key::ArrowRight, Key::ArrowLeft),
    };
    let steps = pressed(more) - pressed(less) + 6.0 * (pressed(Key::PageUp) - pressed(Key::PageDown));
    if steps != 0.0 {
        edits.nudge(key, fine * drag.step * steps);
    }
    if pressed(Key::Home) + pressed(Key::Backspace) + pressed(Key::Delete) > 0.0 {
        edits.reset_to_default(key);
    }
    if ui.input_mut(|input| input.consume_key(Modifiers::NONE, Key::Enter)) {
        begin_value_entry(edits, key);
    }
}

fn begin_value_entry(edits: &mut ParamEdits, key: ParamId) {
    let text = edits.value_text(key);
    edits.value_entry =
        Some(ValueEntry { key, text, needs_focus: true, is_untouched: true, is_invalid: false });
}

/// Draws the value field in `rect` while the user is typing a value for `key`, and returns whether it is open.
/// An invalid text stays in the field, in red.
pub fn value_entry_field(ui: &mut Ui, rect: Rect, edits: &mut ParamEdits, key: ParamId) -> bool {
    let Some(mut value_entry) = edits.value_entry.take_if(|value_entry| value_entry.key == key) else {
        return false;
    };
    let bad = Palette::of(ui.visuals()).bad;
    let id = ui.scope_id().with(("typing", key));
    let types = |event: &egui::Event| matches!(event, egui::Event::Text(_) | egui::Event::Paste(_));
    let starts_typing = value_entry.is_untouched && ui.input(|input| input.events.iter().any(types));
    if value_entry.needs_focus || starts_typing {
        select_all(ui, id, &value_entry.text);
    }
    let edits_text = |event: &egui::Event| {
        matches!(
            event,
            egui::Event::Key { pressed: true, .. } | egui::Event::PointerButton { pressed: true, .. }
        )
    };
    value_entry.is_untouched &=
        value_entry.needs_focus || !(starts_typing || ui.input(|input| input.events.iter().any(edits_text)));
    let edit = egui::TextEdit::singleline(&mut value_entry.text)
        .id(id)
        .font(font(12.0))
        .margin(egui::Margin::symmetric(3, 1))
        .char_limit(24)
        .text_color_opt(value_entry.is_invalid.then_some(bad))
        .align(egui::Align2::CENTER_CENTER);
    let response = ui.put(rect, edit);
    if response.changed() {
        value_entry.is_invalid = false;
    }
    if value_entry.needs_focus {
        response.request_focus();
        value_entry.needs_focus = false;
    } else if ui.input(|input| input.key_pressed(Key::Escape)) {
        return false;
    } else if response.lost_focus() {
        if value_entry.text.trim().is_empty() || edits.set_from_text(key, &value_entry.text) {
            return false;
        }
        value_entry.is_invalid = true;
        // Keep the focus on Enter only: a user who moved to another widget stays there.
        if ui.input(|input| input.key_pressed(Key::Enter)) {
            response.request_focus();
        }
    }
    if value_entry.is_invalid {
        ui.painter().rect_stroke(rect, 3.0, Stroke::new(1.5, bad), StrokeKind::Inside);
        response.on_hover_text(value_format_hint(key));
    }
    edits.value_entry = Some(value_entry);
    true
}

/// Selects the whole text of a field, so that typing replaces it.
fn select_all(ui: &Ui, id: egui::Id, text: &str) {
    let mut state = egui::text_edit::TextEditState::load(ui.ctx(), id).unwrap_or_default();
    let range = CCursorRange::two(CCursor::new(0), CCursor::new(text.chars().count()));
    state.cursor.set_char_range(Some(range));
    state.store(ui.ctx(), id);
}

fn value_format_hint(key: ParamId) -> &'static str {
    match key {
        ParamId::Strip(_, StripParam::Pan) => "Enter C, 30L, 30R, or −100 to 100. Press Escape to cancel.",
        ParamId::Mix => "Enter a percentage from 0 to 100. Press Escape to cancel.",
        _ => "Enter a level in dB, such as −6.5, or -inf. Press Escape to cancel.",
    }
}

/// A value that turns into a value field when clicked.
pub fn value_label(ui: &mut Ui, rect: Rect, edits: &mut ParamEdits, key: ParamId, text: &str) {
    if value_entry_field(ui, rect, edits, key) {
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
            edits.reset_to_default(key);
        } else {
            begin_value_entry(edits, key);
        }
    }
    response.on_hover_text("Click to type a value. Alt-click or Ctrl-click to reset.");
}

/// Draws a ring around the widget with keyboard focus.
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

/// Marks a parameter that the host has mapped to a controller or automates, with a dot in the host's colour in the top right corner. Returns
/// the hint with what the host tells.
pub fn draw_indication<'a>(
    ui: &Ui,
    rect: Rect,
    edits: &ParamEdits,
    key: ParamId,
    hint: &'a str,
) -> Cow<'a, str> {
    let indication =
        ParamRef::of(&edits.params, key).and_then(|param| edits.params.indications.get(param.as_ptr()));
    let Some(indication) = indication else { return Cow::Borrowed(hint) };
    let palette = Palette::of(ui.visuals());
    let mapping = indication.mapping.as_ref().map(|(_, color)| (*color, palette.accent));
    let automation = indication.automation.map(|(state, color)| {
        let usual = if state == AutomationState::Recording { palette.bad } else { palette.good };
        (color, usual)
    });
    let mut at = rect.right_top() + egui::vec2(-3.0, 3.0);
    for (color, usual) in [automation, mapping].into_iter().flatten() {
        let color = color.map_or(usual, |[red, green, blue]| Color32::from_rgb(red, green, blue));
        ui.painter().circle_filled(at, 2.5, color);
        at.x -= 7.0;
    }
    Cow::Owned(format!("{hint}\n{}", indication.text()))
}

/// A horizontal slider, filled in `color` from `origin` (normalised) to the value.
pub fn slider(
    ui: &mut Ui,
    rect: Rect,
    edits: &mut ParamEdits,
    key: ParamId,
    origin: f32,
    color: Color32,
    hint: &str,
) {
    let palette = Palette::of(ui.visuals());
    let response = ui.interact(rect, ui.scope_id().with(key), Sense::click_and_drag());
    handle_param_input(
        ui,
        &response,
        edits,
        key,
        DragBehaviour { axis: DragAxis::Horizontal, travel_points: rect.width(), step: 0.02 },
    );
    let value = edits.value(key);
    describe_to_accessibility(ui, &response, edits, key);
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
    response.on_hover_text(draw_indication(ui, rect, edits, key, hint));
}

/// Describes a slider to assistive technology.
pub fn describe_to_accessibility(ui: &Ui, response: &Response, edits: &ParamEdits, key: ParamId) {
    let (enabled, value) = (ui.is_enabled(), f64::from(edits.plain_value(key)));
    response.widget_info(|| WidgetInfo::slider(enabled, value, edits.param_name(key)));
}

/// A toggle button, shown in `color` while it is on. Alt-click or Ctrl-click on a solo button solos exclusively.
pub fn toggle(
    ui: &mut Ui,
    rect: Rect,
    edits: &mut ParamEdits,
    key: ParamId,
    text: &str,
    color: Color32,
    hint: &str,
) {
    let palette = Palette::of(ui.visuals());
    let response = ui.interact(rect, ui.scope_id().with(key), Sense::click());
    if response.clicked() {
        let alone = ui.input(|input| input.modifiers.alt || input.modifiers.command);
        match key {
            ParamId::Strip(strip_index, StripParam::Solo) if alone => edits.solo_exclusively(strip_index),
            _ => edits.set_value(key, if edits.value(key) >= 0.5 { 0.0 } else { 1.0 }),
        }
    }
    let on = edits.value(key) >= 0.5;
    let (enabled, name) = (ui.is_enabled(), edits.param_name(key));
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
    response.on_hover_text(draw_indication(ui, rect, edits, key, hint));
}

/// One button of a group. Returns true when the user chose it in this frame.
pub fn radio_button(
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
