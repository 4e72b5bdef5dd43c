//! Values that a host sets on the edit controller while audio runs.
//!
//! Processor and controller are one object here. While audio runs, parameter values reach the processor with the blocks. The wrapper ignores values
//! set on the controller meanwhile, because they may be out of date. But a host expects to read back what it set, also from a saved state, and after
//! processing stopped if no block followed.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Marks an empty entry; the bits of a NaN.
const NONE: u64 = u64::MAX;

/// Values that the controller reports until the processor has received its own.
pub(super) struct ControllerValues {
    /// Sorted.
    ids: Box<[u32]>,
    values: Box<[AtomicU64]>,
    /// A value was set after the last block.
    set_since_block: AtomicBool,
}

impl ControllerValues {
    pub fn new(mut ids: Vec<u32>) -> Self {
        ids.sort_unstable();
        let values = ids.iter().map(|_| AtomicU64::new(NONE)).collect();
        Self { ids: ids.into(), values, set_since_block: AtomicBool::new(false) }
    }

    fn of(&self, id: u32) -> Option<&AtomicU64> {
        self.values.get(self.ids.binary_search(&id).ok()?)
    }

    /// Sets the reported value. False if the parameter does not exist or the value is not finite.
    pub fn set(&self, id: u32, value: f64) -> bool {
        let Some(entry) = self.of(id).filter(|_| value.is_finite()) else { return false };
        entry.store(value.clamp(0.0, 1.0).to_bits(), Relaxed);
        self.set_since_block.store(true, Relaxed);
        true
    }

    /// The reported value, if it differs from the processor's.
    pub fn get(&self, id: u32) -> Option<f64> {
        let bits = self.of(id)?.load(Relaxed);
        (bits != NONE).then(|| f64::from_bits(bits))
    }

    /// Realtime-safe: the processor received a value of its own.
    pub fn forget(&self, id: u32) {
        if let Some(entry) = self.of(id) {
            entry.store(NONE, Relaxed);
        }
    }

    /// Forgets the values of all parameters.
    pub fn forget_all(&self) {
        self.set_since_block.store(false, Relaxed);
        for entry in &self.values {
            entry.store(NONE, Relaxed);
        }
    }

    /// Realtime-safe: a block begins, and brings the values that the processor should have.
    pub fn begin_block(&self) {
        self.set_since_block.store(false, Relaxed);
    }

    /// Passes the reported values to the processor, unless a block came since they were set. Otherwise they could overwrite newer values.
    /// Realtime-safe if `set` is.
    pub fn flush(&self, mut set: impl FnMut(u32, f64)) {
        if !self.set_since_block.swap(false, Relaxed) {
            return;
        }
        for (id, entry) in self.ids.iter().zip(&self.values) {
            let bits = entry.swap(NONE, Relaxed);
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
    fn a_value_is_reported_until_the_processor_has_one() {
        let values = ControllerValues::new(vec![9, 2, 7]);
        assert_eq!(values.get(7), None);
        assert!(values.set(7, 0.25) && values.set(2, 3.0));
        assert_eq!((values.get(7), values.get(2), values.get(9)), (Some(0.25), Some(1.0), None));
        values.forget(7);
        assert_eq!((values.get(7), values.get(2)), (None, Some(1.0)));
        values.forget_all();
        assert_eq!(values.get(2), None);
    }

    #[test]
    fn flush_passes_values_once_and_not_after_a_block() {
        let values = ControllerValues::new(vec![9, 2, 7]);
        let mut given = Vec::new();
        assert!(values.set(7, 0.25) && values.set(9, 1.0));
        values.flush(|id, value| given.push((id, value)));
        values.flush(|id, value| given.push((id, value)));
        assert!(values.set(2, 0.5));
        values.begin_block();
        values.flush(|id, value| given.push((id, value)));
        assert_eq!(given, [(7, 0.25), (9, 1.0)]);
        assert_eq!((values.get(7), values.get(2)), (None, Some(0.5)));
    }

    #[test]
    fn unknown_ids_and_nan_are_refused() {
        let values = ControllerValues::new(vec![1]);
        assert!(!values.set(3, 0.5) && !values.set(1, f64::NAN));
        assert_eq!((values.get(3), values.get(1)), (None, None));
    }
}
