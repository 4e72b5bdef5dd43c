//! The instances of this process that have a control thread, so that one can tell the others of a change that concerns all.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::channel::Sender;
use parking_lot::Mutex;

use super::instance_shared::ControlCommand;

static SENDERS: Mutex<Vec<(u64, Sender<ControlCommand>)>> = Mutex::new(Vec::new());

/// Lists an instance as long as it lives.
pub(super) struct Registration(u64);

impl Registration {
    pub fn new(sender: Sender<ControlCommand>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Relaxed);
        SENDERS.lock().push((id, sender));
        Self(id)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        SENDERS.lock().retain(|(id, _)| *id != self.0);
    }
}

/// Has all control threads look: a model was downloaded, or a setting of the user has changed.
pub(super) fn notify_all() {
    for (_, sender) in SENDERS.lock().iter() {
        // An instance that is ending needs no notice.
        let _ = sender.send(ControlCommand::Reconcile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_instances_are_notified_until_they_go() {
        let (sender, commands) = crossbeam::channel::unbounded();
        let registration = Registration::new(sender);
        notify_all();
        assert!(commands.try_recv().is_ok());
        drop(registration);
        while commands.try_recv().is_ok() {}
        notify_all();
        assert!(commands.try_recv().is_err());
    }
}
