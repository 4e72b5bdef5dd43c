//! The parameters as the editor moves them: through the host, each gesture begun and ended, and remembered for undo.

use std::sync::Arc;

use nice_plug::context::gui::GuiContext;

use super::history::History;
use super::key::{AnyParam, Field, Key};
use crate::plugin::params::NullsumParams;
use crate::plugin::slot::SLOTS;

/// Time that a host may take to hand a value back, in seconds.
const ROUND_TRIP: f64 = 0.2;

/// A parameter that is being dragged.
#[derive(Clone, Copy, Debug)]
struct Grip {
    key: Key,
    before: f32,
    /// Where the pointer is, unsnapped: small movements add up.
    raw: f32,
    value: f32,
}

/// A value that is being typed.
#[derive(Clone, Debug)]
pub struct Typing {
    /// Of which parameter.
    pub key: Key,
    /// So far.
    pub text: String,
    /// Whether the field is new and wants the keyboard.
    pub fresh: bool,
    /// Whether the text was entered, and means nothing.
    pub refused: bool,
}

/// All parameters.
pub struct Desk {
    /// The parameters.
    pub params: Arc<NullsumParams>,
    /// The way to the host; none before a window is open.
    pub gui: Option<GuiContext>,
    /// Undo, A and B.
    pub history: History,
    /// Where a number is being typed.
    pub typing: Option<Typing>,
    /// Time of the frame, in seconds.
    pub now: f64,
    grip: Option<Grip>,
    /// What was set last, and when: a host that plays hands it back a block later.
    sent: Option<(Key, f32, f64)>,
}

impl Desk {
    /// Nothing is held yet.
    pub fn new(params: Arc<NullsumParams>) -> Self {
        Self {
            params,
            gui: None,
            history: History::default(),
            typing: None,
            now: 0.0,
            grip: None,
            sent: None,
        }
    }

    /// A new window: what the old one held is let go.
    pub fn open(&mut self, gui: Option<GuiContext>) {
        self.gui = gui;
        (self.grip, self.typing, self.sent) = (None, None, None);
    }

    fn param(&self, key: Key) -> Option<AnyParam<'_>> {
        AnyParam::of(&self.params, key)
    }

    /// Name of a parameter, for people who do not see its place.
    pub fn name(&self, key: Key) -> String {
        self.param(key).map_or_else(String::new, AnyParam::name)
    }

    /// Value from 0 to 1: where it is dragged to, though the host may not have handed it back yet.
    pub fn value(&self, key: Key) -> f32 {
        match self.grip {
            Some(grip) if grip.key == key => grip.value,
            _ => match self.sent {
                Some((sent, value, at)) if sent == key && (0.0..ROUND_TRIP).contains(&(self.now - at)) => {
                    value
                }
                _ => self.param(key).map_or(0.0, AnyParam::normalized),
            },
        }
    }

    /// Value in its own unit; of switches and choices that from 0 to 1.
    pub fn plain(&self, key: Key) -> f32 {
        let value = self.value(key);
        self.param(key).map_or(value, |param| param.plain(value))
    }

    /// Whether it is being dragged.
    pub fn holds(&self, key: Key) -> bool {
        self.grip.is_some_and(|grip| grip.key == key)
    }

    /// Takes hold of a parameter.
    pub fn grab(&mut self, key: Key) {
        self.release();
        let Some(param) = self.param(key) else { return };
        let value = self.value(key);
        if let Some(gui) = &self.gui {
            param.begin(&gui.param_setter());
        }
        self.grip = Some(Grip { key, before: value, raw: value, value });
    }

    /// Moves what is held by a part of its range.
    pub fn drag(&mut self, by: f32) {
        let Some(mut grip) = self.grip else { return };
        let Some(param) = self.param(grip.key) else { return };
        grip.raw = (grip.raw + if by.is_finite() { by } else { 0.0 }).clamp(0.0, 1.0);
        let value = param.snapped(grip.raw);
        if value != grip.value {
            grip.value = value;
            if let Some(gui) = &self.gui {
                self.params.lay_hands_on(grip.key.groups());
                param.set(&gui.param_setter(), value);
            }
        }
        self.grip = Some(grip);
    }

    /// Lets go.
    pub fn release(&mut self) {
        let Some(grip) = self.grip.take() else { return };
        if let (Some(param), Some(gui)) = (self.param(grip.key), &self.gui) {
            param.end(&gui.param_setter());
        }
        self.sent = Some((grip.key, grip.value, self.now));
        self.history.record((grip.key, grip.before, grip.value), self.now);
    }

    /// A gesture of its own: to a value.
    pub fn set(&mut self, key: Key, normalized: f32) {
        if let Some(change) = self.put(key, normalized) {
            self.history.record(change, self.now);
        }
    }

    /// One of several small movements.
    pub fn nudge(&mut self, key: Key, by: f32) {
        let to = self.value(key) + by;
        if let Some(change) = self.put(key, to.clamp(0.0, 1.0)) {
            self.history.record_tap(change, self.now);
        }
    }

    /// To its default.
    pub fn reset(&mut self, key: Key) {
        if let Some(default) = self.param(key).map(AnyParam::default_normalized) {
            self.set(key, default);
        }
    }

    /// To what a text means; false where it means nothing.
    pub fn enter(&mut self, key: Key, text: &str) -> bool {
        let value = self.param(key).and_then(|param| param.parse(text));
        if let Some(value) = value {
            self.set(key, value);
        }
        value.is_some()
    }

    /// Solos a slot and no other.
    pub fn solo_alone(&mut self, slot: usize) {
        let mut changes = Vec::new();
        // That one last: until a host has handed values back, the last one sent is shown.
        let others = (0..SLOTS).filter(|other| *other != slot).map(|other| (other, 0.0));
        for (slot, value) in others.chain([(slot, 1.0)]) {
            let key = Key::Strip(slot, Field::Solo);
            if self.value(key) != value {
                changes.extend(self.put(key, value));
            }
        }
        self.history.record_all(changes, self.now);
    }

    fn put(&mut self, key: Key, normalized: f32) -> Option<(Key, f32, f32)> {
        self.release();
        let param = self.param(key)?;
        let (before, after) = (self.value(key), param.snapped(normalized));
        if let Some(gui) = &self.gui {
            self.params.lay_hands_on(key.groups());
            let setter = gui.param_setter();
            param.begin(&setter);
            param.set(&setter, after);
            param.end(&setter);
        }
        self.sent = Some((key, after, self.now));
        Some((key, before, after))
    }

    fn apply(&mut self, values: Vec<(Key, f32)>) {
        for (key, value) in values {
            if self.value(key) != value {
                self.put(key, value);
            }
        }
    }

    /// Undoes the last gesture.
    pub fn undo(&mut self) {
        self.release();
        let values = self.history.undo();
        self.apply(values);
    }

    /// Does it again.
    pub fn redo(&mut self) {
        self.release();
        let values = self.history.redo();
        self.apply(values);
    }

    /// Hears the other of A and B.
    pub fn compare(&mut self) {
        self.release();
        let values = self.history.compare(self.heard(), self.now);
        self.apply(values);
    }

    /// Makes the other of A and B like the one that is heard.
    pub fn copy_to_other(&mut self) {
        let heard = self.heard();
        self.history.copy_to_other(heard);
    }

    fn heard(&self) -> Vec<(Key, f32)> {
        Key::heard().map(|key| (key, self.value(key))).collect()
    }
}
