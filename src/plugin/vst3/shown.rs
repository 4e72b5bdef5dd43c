//! What a host has set on the edit controller while audio runs.
//!
//! Processor and controller are one object here. While audio runs, values reach the processor with the blocks, exact to the block, and the
//! wrapper ignores what is set on the controller beside that: it may be old by the time it is set. But a host asks the controller for
//! what it has just set, and must find it; also in a state, and after an end of processing, if no block has come since.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Bits of no value: a NaN.
const NONE: u64 = u64::MAX;

/// Values that the controller shows until the processor has its own.
pub(super) struct Shown {
    /// Ids in order.
    ids: Box<[u32]>,
    values: Box<[AtomicU64]>,
    /// A value was set after the last block.
    fresh: AtomicBool,
}

impl Shown {
    /// Nothing is set.
    pub fn new(mut ids: Vec<u32>) -> Self {
        ids.sort_unstable();
        let values = ids.iter().map(|_| AtomicU64::new(NONE)).collect();
        Self { ids: ids.into(), values, fresh: AtomicBool::new(false) }
    }

    fn of(&self, id: u32) -> Option<&AtomicU64> {
        self.values.get(self.ids.binary_search(&id).ok()?)
    }

    /// Shows a value from now on; false where there is no such parameter, or it is no value.
    pub fn set(&self, id: u32, value: f64) -> bool {
        let Some(shown) = self.of(id).filter(|_| value.is_finite()) else { return false };
        shown.store(value.clamp(0.0, 1.0).to_bits(), Relaxed);
        self.fresh.store(true, Relaxed);
        true
    }

    /// What is shown instead of the processor's value.
    pub fn get(&self, id: u32) -> Option<f64> {
        let bits = self.of(id)?.load(Relaxed);
        (bits != NONE).then(|| f64::from_bits(bits))
    }

    /// The processor has a value of its own. Realtime-safe.
    pub fn forget(&self, id: u32) {
        if let Some(shown) = self.of(id) {
            shown.store(NONE, Relaxed);
        }
    }

    /// As [`forget`](Self::forget), for all parameters.
    pub fn forget_all(&self) {
        self.fresh.store(false, Relaxed);
        for shown in &self.values {
            shown.store(NONE, Relaxed);
        }
    }

    /// A block brings what the processor is to have. Realtime-safe.
    pub fn block(&self) {
        self.fresh.store(false, Relaxed);
    }

    /// Gives the processor what is shown, unless a block has come since: then it might undo what that has brought.
    /// Realtime-safe if `set` is.
    pub fn settle(&self, mut set: impl FnMut(u32, f64)) {
        if !self.fresh.swap(false, Relaxed) {
            return;
        }
        for (id, shown) in self.ids.iter().zip(&self.values) {
            let bits = shown.swap(NONE, Relaxed);
            if bits != NONE {
                set(*id, f64::from_bits(bits));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_until_the_processor_has_one() {
        let shown = Shown::new(vec![9, 2, 7]);
        assert_eq!(shown.get(7), None);
        assert!(shown.set(7, 0.25) && shown.set(2, 3.0));
        assert_eq!((shown.get(7), shown.get(2), shown.get(9)), (Some(0.25), Some(1.0), None));
        shown.forget(7);
        assert_eq!((shown.get(7), shown.get(2)), (None, Some(1.0)));
        shown.forget_all();
        assert_eq!(shown.get(2), None);
    }

    #[test]
    fn what_is_shown_is_given_away_once_and_not_after_a_block() {
        let shown = Shown::new(vec![9, 2, 7]);
        let mut given = Vec::new();
        assert!(shown.set(7, 0.25) && shown.set(9, 1.0));
        shown.settle(|id, value| given.push((id, value)));
        shown.settle(|id, value| given.push((id, value)));
        assert!(shown.set(2, 0.5));
        shown.block();
        shown.settle(|id, value| given.push((id, value)));
        assert_eq!(given, [(7, 0.25), (9, 1.0)]);
        assert_eq!((shown.get(7), shown.get(2)), (None, Some(0.5)));
    }

    #[test]
    fn strangers_and_nonsense_are_refused() {
        let shown = Shown::new(vec![1]);
        assert!(!shown.set(3, 0.5) && !shown.set(1, f64::NAN));
        assert_eq!((shown.get(3), shown.get(1)), (None, None));
    }
}
