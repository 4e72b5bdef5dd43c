//! Ctrl-C: the first one stops after the current step and saves, the second one at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of signals so far. Written by the handler's thread, read by the work.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Installs the handler.
pub fn install_handler() {
    let on_signal = || {
        if SIGNALS.fetch_add(1, Ordering::SeqCst) > 0 {
            nullsum::atomic_file::remove_unfinished();
            std::process::exit(130);
        }
        crate::console::print_warning("stopping after the current step; press Ctrl-C again to stop at once");
    };
    if let Err(error) = ctrlc::set_handler(on_signal) {
        crate::console::print_warning(&format!("Ctrl-C will not save: {error}"));
    }
}

/// Whether the user has asked to stop.
pub fn stop_requested() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}

/// The result for callbacks that can stop.
pub fn stop_flow() -> ControlFlow<()> {
    if stop_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
