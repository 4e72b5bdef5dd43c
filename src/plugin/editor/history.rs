//! What was done to the parameters from the editor, to be undone, and the two settings that can be compared.

use super::key::Key;

/// Steps that are kept.
const DEPTH: usize = 200;
/// Changes of the same parameter within this time are one step, in seconds: turns of a wheel, presses of a key.
const TOGETHER: f64 = 0.8;

/// A parameter, its value before and after, normalised.
pub type Change = (Key, f32, f32);

#[derive(Clone, Debug, PartialEq)]
struct Step {
    changes: Vec<Change>,
    /// Whether it went from one setting to the other.
    flips: bool,
    at: f64,
}

/// Steps done and undone.
#[derive(Clone, Debug, Default)]
pub struct History {
    done: Vec<Step>,
    undone: Vec<Step>,
    /// 0: A, 1: B.
    active: usize,
    /// The setting that is not heard; none: the same as the one that is.
    other: Option<Vec<(Key, f32)>>,
}

impl History {
    /// A gesture on one parameter ended.
    pub fn record(&mut self, change: Change, now: f64) {
        self.record_all(vec![change], now);
    }

    /// A gesture on several parameters ended, which is one step.
    pub fn record_all(&mut self, mut changes: Vec<Change>, now: f64) {
        changes.retain(|(_, before, after)| before != after);
        if !changes.is_empty() {
            self.push(Step { changes, flips: false, at: now });
        }
    }

    /// Small changes of one parameter in a row become one step.
    pub fn record_tap(&mut self, change: Change, now: f64) {
        if let Some(Step { changes, flips: false, at }) = self.done.last_mut()
            && let [(key, _, after)] = changes.as_mut_slice()
            && *key == change.0
            && (0.0..TOGETHER).contains(&(now - *at))
        {
            (*after, *at) = (change.2, now);
            self.undone.clear();
            return;
        }
        self.record(change, now);
    }

    fn push(&mut self, step: Step) {
        self.undone.clear();
        if self.done.len() == DEPTH {
            self.done.remove(0);
        }
        self.done.push(step);
    }

    /// Whether there is something to undo.
    pub fn can_undo(&self) -> bool {
        !self.done.is_empty()
    }

    /// Whether there is something to do again.
    pub fn can_redo(&self) -> bool {
        !self.undone.is_empty()
    }

    /// Values that undo the last step.
    pub fn undo(&mut self) -> Vec<(Key, f32)> {
        let Some(step) = self.done.pop() else { return Vec::new() };
        let values = step.changes.iter().rev().map(|(key, before, _)| (*key, *before)).collect();
        if step.flips {
            self.flip(step.changes.iter().map(|(key, _, after)| (*key, *after)).collect());
        }
        self.undone.push(step);
        values
    }

    /// Values that do the last undone step again.
    pub fn redo(&mut self) -> Vec<(Key, f32)> {
        let Some(step) = self.undone.pop() else { return Vec::new() };
        let values = step.changes.iter().map(|(key, _, after)| (*key, *after)).collect();
        if step.flips {
            self.flip(step.changes.iter().map(|(key, before, _)| (*key, *before)).collect());
        }
        self.done.push(step);
        values
    }

    fn flip(&mut self, leaving: Vec<(Key, f32)>) {
        self.active = 1 - self.active;
        self.other = Some(leaving);
    }

    /// The setting that is heard: 0 is A.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Goes to the other setting, from `current`, and gives its values.
    pub fn compare(&mut self, current: Vec<(Key, f32)>, now: f64) -> Vec<(Key, f32)> {
        let target = self.other.take().unwrap_or_else(|| current.clone());
        let after = |key: Key| target.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
        let changes = current.iter().map(|(key, before)| (*key, *before, after(*key).unwrap_or(*before)));
        self.push(Step { changes: changes.collect(), flips: true, at: now });
        self.flip(current);
        target
    }

    /// The other setting becomes like `current`.
    pub fn copy_to_other(&mut self, current: Vec<(Key, f32)>) {
        self.other = Some(current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_undone_in_reverse_and_redone_in_order() {
        let mut history = History::default();
        history.record((Key::Mix, 1.0, 0.5), 0.0);
        history.record((Key::Output, 0.75, 0.2), 1.0);
        history.record((Key::Output, 0.2, 0.2), 2.0);
        assert_eq!(history.undo(), [(Key::Output, 0.75)]);
        assert_eq!(history.undo(), [(Key::Mix, 1.0)]);
        assert!(!history.can_undo() && history.undo().is_empty());
        assert_eq!(history.redo(), [(Key::Mix, 0.5)]);
        history.record((Key::Bypass, 0.0, 1.0), 3.0);
        assert!(!history.can_redo() && history.redo().is_empty());
    }

    #[test]
    fn turns_of_a_wheel_are_one_step_and_those_after_a_pause_another() {
        let mut history = History::default();
        for (at, before, after) in [(0.0, 0.5, 0.6), (0.1, 0.6, 0.7), (5.0, 0.7, 0.8)] {
            history.record_tap((Key::Mix, before, after), at);
        }
        assert_eq!(history.undo(), [(Key::Mix, 0.7)]);
        assert_eq!(history.undo(), [(Key::Mix, 0.5)]);
        assert_eq!(history.redo(), [(Key::Mix, 0.7)]);
    }

    #[test]
    fn a_and_b_keep_their_own_values_and_going_between_them_can_be_undone() {
        let mut history = History::default();
        assert_eq!(history.compare(vec![(Key::Mix, 1.0)], 0.0), [(Key::Mix, 1.0)]);
        assert_eq!(history.active(), 1);
        assert_eq!(history.compare(vec![(Key::Mix, 0.3)], 1.0), [(Key::Mix, 1.0)]);
        assert_eq!(history.active(), 0);
        assert_eq!(history.undo(), [(Key::Mix, 0.3)]);
        assert_eq!(history.active(), 1);
        assert_eq!(history.redo(), [(Key::Mix, 1.0)]);
        assert_eq!(history.compare(vec![(Key::Mix, 1.0)], 2.0), [(Key::Mix, 0.3)]);
        history.copy_to_other(vec![(Key::Mix, 0.9)]);
        assert_eq!(history.compare(vec![(Key::Mix, 0.3)], 3.0), [(Key::Mix, 0.9)]);
    }

    #[test]
    fn the_oldest_steps_are_let_go() {
        let mut history = History::default();
        for step in 0..2 * DEPTH {
            history.record((Key::Mix, step as f32, step as f32 + 1.0), step as f64 * 10.0);
        }
        let undone = std::iter::from_fn(|| Some(history.undo()).filter(|values| !values.is_empty())).count();
        assert_eq!(undone, DEPTH);
    }
}
