//! Ctrl-C: the first stops after what is in flight, cleanly; the second at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::exit::{Failure, Outcome};

/// Signals so far. Written by the handler's thread, read by the work.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Installs the handler.
pub fn install() {
    let on_signal = || {
        if SIGNALS.fetch_add(1, Ordering::SeqCst) > 0 {
            nullsum::partial::remove_unfinished();
            std::process::exit(130);
        }
        crate::report::warn("stopping after what is in flight; press Ctrl-C again to stop at once");
    };
    // Without a handler Ctrl-C still ends the process.
    if let Err(error) = ctrlc::set_handler(on_signal) {
        crate::report::warn(&format!("Ctrl-C will not clean up: {error}"));
    }
}

/// Whether the user wants to stop.
pub fn requested() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}

/// For callbacks that may stop the work.
pub fn flow() -> ControlFlow<()> {
    if requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Fails once the user wants to stop.
pub fn check() -> Outcome {
    if requested() { Err(Failure::interrupted()) } else { Ok(()) }
}
