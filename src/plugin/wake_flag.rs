//! How threads that must not make system calls wake the control thread of an instance.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Release;

/// A flag that the live engine's worker thread forwards to the control thread, within 20 ms. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct WakeFlag(Arc<AtomicBool>);

impl WakeFlag {
    /// Realtime-safe: has the control thread look soon.
    pub fn set(&self) {
        self.0.store(true, Release);
    }

    /// For [`Scheduler::forward`](crate::live::Scheduler::forward).
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}
