//! Parameter changes made in the editor. Each goes through the host as a complete gesture and is recorded for undo.

use std::sync::Arc;

use nice_plug::context::gui::GuiContext;

use super::history::History;
use super::param_id::{ParamId, ParamRef, StripParam};
use crate::plugin::params::NullsumParams;
use crate::plugin::presets::Preset;
use crate::plugin::routing::STRIP_COUNT;

/// How long the editor shows the value it sent instead of the parameter's, in seconds: a playing host applies it one block later.
const ROUND_TRIP: f64 = 0.2;

#[derive(Clone, Copy, Debug)]
struct DragGesture {
    key: ParamId,
    value_before: f32,
    /// Value at the pointer before snapping, so that small movements add up.
    unsnapped: f32,
    value: f32,
}

#[derive(Clone, Debug)]
pub struct ValueEntry {
    pub key: ParamId,
    pub text: String,
    /// Whether the text field is new and must take the keyboard focus.
    pub needs_focus: bool,
    /// Whether the user has typed nothing yet, so that typing replaces the whole text.
    pub is_untouched: bool,
    /// Whether the user entered a text that is not a value.
    pub is_invalid: bool,
}

pub struct ParamEdits {
    pub params: Arc<NullsumParams>,
    /// Connection to the host; `None` until a window is open.
    pub gui: Option<GuiContext>,
    pub history: History,
    pub value_entry: Option<ValueEntry>,
    /// Time of this frame, in seconds.
    pub now: f64,
    gesture: Option<DragGesture>,
    /// The latest value sent to the host, and when.
    last_sent: Option<(ParamId, f32, f64)>,
}

impl ParamEdits {
    pub fn new(params: Arc<NullsumParams>) -> Self {
        Self {
            params,
            gui: None,
            history: History::default(),
            value_entry: None,
            now: 0.0,
            gesture: None,
            last_sent: None,
        }
    }

    /// Connects to a new window and drops any unfinished gesture of the old one.
    pub fn attach_window(&mut self, gui: Option<GuiContext>) {
        self.gui = gui;
        (self.gesture, self.value_entry, self.last_sent) = (None, None, None);
    }

    fn param(&self, key: ParamId) -> Option<ParamRef<'_>> {
        ParamRef::of(&self.params, key)
    }

    /// Full name of a parameter, for assistive technology.
    pub fn param_name(&self, key: ParamId) -> String {
        self.param(key).map_or_else(String::new, ParamRef::name)
    }

    /// Normalised value. During and shortly after a gesture it is the value sent, which the host may not have applied yet.
    pub fn value(&self, key: ParamId) -> f32 {
        match self.gesture {
            Some(gesture) if gesture.key == key => gesture.value,
            _ => match self.last_sent {
                Some((last_sent, value, at))
                    if last_sent == key && (0.0..ROUND_TRIP).contains(&(self.now - at)) =>
                {
                    value
                }
                _ => self.param(key).map_or(0.0, ParamRef::normalized),
            },
        }
    }

    /// Value of a float parameter in its unit, and of any other parameter normalised.
    pub fn plain_value(&self, key: ParamId) -> f32 {
        let value = self.value(key);
        self.param(key).map_or(value, |param| param.plain(value))
    }

    /// The value as text without its unit, in the form that [`set_from_text`](Self::set_from_text) reads.
    pub fn value_text(&self, key: ParamId) -> String {
        let value = self.value(key);
        self.param(key).map_or_else(String::new, |param| param.text(value))
    }

    pub fn is_dragging(&self, key: ParamId) -> bool {
        self.gesture.is_some_and(|gesture| gesture.key == key)
    }

    pub fn begin_drag(&mut self, key: ParamId) {
        self.end_drag();
        let Some(param) = self.param(key) else { return };
        let value = self.value(key);
        if let Some(gui) = &self.gui {
            param.begin_gesture(&gui.param_setter());
        }
        self.gesture = Some(DragGesture { key, value_before: value, unsnapped: value, value });
    }

    /// Moves the dragged parameter by a fraction of its range.
    pub fn drag_by(&mut self, by: f32) {
        let Some(mut gesture) = self.gesture else { return };
        let Some(param) = self.param(gesture.key) else { return };
        gesture.unsnapped = (gesture.unsnapped + if by.is_finite() { by } else { 0.0 }).clamp(0.0, 1.0);
        let value = param.snap(gesture.unsnapped);
        if value != gesture.value {
            gesture.value = value;
            if let Some(gui) = &self.gui {
                self.params.mark_user_edits(gesture.key.automation_groups());
                param.set_normalized(&gui.param_setter(), value);
            }
        }
        self.gesture = Some(gesture);
    }

    pub fn end_drag(&mut self) {
        let Some(gesture) = self.gesture.take() else { return };
        if let (Some(param), Some(gui)) = (self.param(gesture.key), &self.gui) {
            param.end_gesture(&gui.param_setter());
        }
        self.last_sent = Some((gesture.key, gesture.value, self.now));
        self.history.record((gesture.key, gesture.value_before, gesture.value), self.now);
    }

    /// Sets a value in one complete gesture and records it for undo.
    pub fn set_value(&mut self, key: ParamId, normalized: f32) {
        if let Some(change) = self.set_without_undo(key, normalized) {
            self.history.record(change, self.now);
        }
    }

    pub fn nudge(&mut self, key: ParamId, by: f32) {
        let to = self.value(key) + by;
        if let Some(change) = self.set_without_undo(key, to.clamp(0.0, 1.0)) {
            self.history.record_tap(change, self.now);
        }
    }

    pub fn reset_to_default(&mut self, key: ParamId) {
        if let Some(default) = self.param(key).map(ParamRef::default_normalized) {
            self.set_value(key, default);
        }
    }

    /// Sets a parameter from text. Returns false if the text is not a value.
    pub fn set_from_text(&mut self, key: ParamId, text: &str) -> bool {
        let value = self.param(key).and_then(|param| param.parse(text));
        if let Some(value) = value {
            self.set_value(key, value);
        }
        value.is_some()
    }

    pub fn solo_exclusively(&mut self, strip_index: usize) {
        let mut changes = Vec::new();
        // This strip last: until the host applies the values, the editor shows only the latest one sent.
        let others = (0..STRIP_COUNT).filter(|other| *other != strip_index).map(|other| (other, 0.0));
        for (strip_index, value) in others.chain([(strip_index, 1.0)]) {
            let key = ParamId::Strip(strip_index, StripParam::Solo);
            if self.value(key) != value {
                changes.extend(self.set_without_undo(key, value));
            }
        }
        self.history.record_all(changes, self.now);
    }

    /// Sets all parameters of a preset, as one step for undo.
    pub fn apply_preset(&mut self, preset: &Preset) {
        let values = preset.values(&self.params);
        let wanted = |key: &ParamId| {
            let param = self.param(*key)?.as_ptr();
            values.iter().find(|(other, _)| *other == param).map(|(_, value)| *value)
        };
        let wanted: Vec<_> = ParamId::audible().filter_map(|key| Some((key, wanted(&key)?))).collect();
        let mut changes = Vec::new();
        for (key, value) in wanted {
            if self.value(key) != value {
                changes.extend(self.set_without_undo(key, value));
            }
        }
        self.history.record_all(changes, self.now);
    }

    fn set_without_undo(&mut self, key: ParamId, normalized: f32) -> Option<(ParamId, f32, f32)> {
        self.end_drag();
        let param = self.param(key)?;
        let (value_before, after) = (self.value(key), param.snap(normalized));
        if let Some(gui) = &self.gui {
            self.params.mark_user_edits(key.automation_groups());
            let setter = gui.param_setter();
            param.begin_gesture(&setter);
            param.set_normalized(&setter, after);
            param.end_gesture(&setter);
        }
        self.last_sent = Some((key, after, self.now));
        Some((key, value_before, after))
    }

    fn apply_values(&mut self, values: Vec<(ParamId, f32)>) {
        for (key, value) in values {
            if self.value(key) != value {
                self.set_without_undo(key, value);
            }
        }
    }

    pub fn undo(&mut self) {
        self.end_drag();
        let values = self.history.undo();
        self.apply_values(values);
    }

    pub fn redo(&mut self) {
        self.end_drag();
        let values = self.history.redo();
        self.apply_values(values);
    }

    /// Switches between settings A and B.
    pub fn toggle_ab(&mut self) {
        self.end_drag();
        let values = self.history.compare(self.audible_values(), self.now);
        self.apply_values(values);
    }

    /// Copies the active setting to the inactive one.
    pub fn copy_to_other(&mut self) {
        let audible_values = self.audible_values();
        self.history.copy_to_other(audible_values);
    }

    fn audible_values(&self) -> Vec<(ParamId, f32)> {
        ParamId::audible().map(|key| (key, self.value(key))).collect()
    }
}
