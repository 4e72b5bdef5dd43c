//! Undo history of the editor's parameter changes, and the two settings A and B.

use super::param_id::ParamId;

/// Maximum number of undo steps.
const DEPTH: usize = 200;
/// Wheel turns and key presses on one parameter within this time form one undo step, in seconds.
const MERGE_SECONDS: f64 = 0.8;

/// A parameter, its value before and after, normalised.
pub type Change = (ParamId, f32, f32);

#[derive(Clone, Debug, PartialEq)]
struct Step {
    changes: Vec<Change>,
    /// Whether this step switched between A and B.
    flips: bool,
    at: f64,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    done: Vec<Step>,
    undone: Vec<Step>,
    /// 0 is setting A, 1 is setting B.
    active: usize,
    /// Values of the inactive setting; `None` if it equals the active one.
    other: Option<Vec<(ParamId, f32)>>,
}

impl History {
    pub fn record(&mut self, change: Change, now: f64) {
        self.record_all(vec![change], now);
    }

    /// Records changes of several parameters as one step.
    pub fn record_all(&mut self, mut changes: Vec<Change>, now: f64) {
        changes.retain(|(_, before, after)| before != after);
        if !changes.is_empty() {
            self.push(Step { changes, flips: false, at: now });
        }
    }

    /// Records a small change and merges it with a recent one of the same parameter.
    pub fn record_tap(&mut self, change: Change, now: f64) {
        if let Some(Step { changes, flips: false, at }) = self.done.last_mut()
            && let [(key, _, after)] = changes.as_mut_slice()
            && *key == change.0
            && (0.0..MERGE_SECONDS).contains(&(now - *at))
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

    pub fn can_undo(&self) -> bool {
        !self.done.is_empty()
    }

    pub fn can_redo(&self) -> bool {
        !self.undone.is_empty()
    }

    /// Takes the last step off the stack and returns the values to restore.
    pub fn undo(&mut self) -> Vec<(ParamId, f32)> {
        let Some(step) = self.done.pop() else { return Vec::new() };
        let values = step.changes.iter().rev().map(|(key, before, _)| (*key, *before)).collect();
        if step.flips {
            self.flip(step.changes.iter().map(|(key, _, after)| (*key, *after)).collect());
        }
        self.undone.push(step);
        values
    }

    /// Takes back the last undo and returns the values to set.
    pub fn redo(&mut self) -> Vec<(ParamId, f32)> {
        let Some(step) = self.undone.pop() else { return Vec::new() };
        let values = step.changes.iter().map(|(key, _, after)| (*key, *after)).collect();
        if step.flips {
            self.flip(step.changes.iter().map(|(key, before, _)| (*key, *before)).collect());
        }
        self.done.push(step);
        values
    }

    fn flip(&mut self, leaving: Vec<(ParamId, f32)>) {
        self.active = 1 - self.active;
        self.other = Some(leaving);
    }

    /// The active setting: 0 is A, 1 is B.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Stores `current` in the active setting, switches to the other one and returns its values.
    pub fn compare(&mut self, current: Vec<(ParamId, f32)>, now: f64) -> Vec<(ParamId, f32)> {
        let target = self.other.take().unwrap_or_else(|| current.clone());
        let after = |key: ParamId| target.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
        let changes = current.iter().map(|(key, before)| (*key, *before, after(*key).unwrap_or(*before)));
        self.push(Step { changes: changes.collect(), flips: true, at: now });
        self.flip(current);
        target
    }

    pub fn copy_to_other(&mut self, current: Vec<(ParamId, f32)>) {
        self.other = Some(current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_undone_in_reverse_and_redone_in_order() {
        let mut history = History::default();
        history.record((ParamId::Mix, 1.0, 0.5), 0.0);
        history.record((ParamId::Output, 0.75, 0.2), 1.0);
        history.record((ParamId::Output, 0.2, 0.2), 2.0);
        assert_eq!(history.undo(), [(ParamId::Output, 0.75)]);
        assert_eq!(history.undo(), [(ParamId::Mix, 1.0)]);
        assert!(!history.can_undo() && history.undo().is_empty());
        assert_eq!(history.redo(), [(ParamId::Mix, 0.5)]);
        history.record((ParamId::Bypass, 0.0, 1.0), 3.0);
        assert!(!history.can_redo() && history.redo().is_empty());
    }

    #[test]
    fn wheel_turns_merge_into_one_step_until_a_pause() {
        let mut history = History::default();
        for (at, before, after) in [(0.0, 0.5, 0.6), (0.1, 0.6, 0.7), (5.0, 0.7, 0.8)] {
            history.record_tap((ParamId::Mix, before, after), at);
        }
        assert_eq!(history.undo(), [(ParamId::Mix, 0.7)]);
        assert_eq!(history.undo(), [(ParamId::Mix, 0.5)]);
        assert_eq!(history.redo(), [(ParamId::Mix, 0.7)]);
    }

    #[test]
    fn a_and_b_keep_their_values_and_switching_can_be_undone() {
        let mut history = History::default();
        assert_eq!(history.compare(vec![(ParamId::Mix, 1.0)], 0.0), [(ParamId::Mix, 1.0)]);
        assert_eq!(history.active(), 1);
        assert_eq!(history.compare(vec![(ParamId::Mix, 0.3)], 1.0), [(ParamId::Mix, 1.0)]);
        assert_eq!(history.active(), 0);
        assert_eq!(history.undo(), [(ParamId::Mix, 0.3)]);
        assert_eq!(history.active(), 1);
        assert_eq!(history.redo(), [(ParamId::Mix, 1.0)]);
        assert_eq!(history.compare(vec![(ParamId::Mix, 1.0)], 2.0), [(ParamId::Mix, 0.3)]);
        history.copy_to_other(vec![(ParamId::Mix, 0.9)]);
        assert_eq!(history.compare(vec![(ParamId::Mix, 0.3)], 3.0), [(ParamId::Mix, 0.9)]);
    }

    #[test]
    fn the_oldest_steps_are_dropped() {
        let mut history = History::default();
        for step in 0..2 * DEPTH {
            history.record((ParamId::Mix, step as f32, step as f32 + 1.0), step as f64 * 10.0);
        }
        let undone = std::iter::from_fn(|| Some(history.undo()).filter(|values| !values.is_empty())).count();
        assert_eq!(undone, DEPTH);
    }
}
