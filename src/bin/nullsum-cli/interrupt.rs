//! Ctrl-C: the first one stops cleanly after the current step, the second one at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::exit::{CliResult, Failure};

/// Number of signals so far. Written by the handler's thread, read by the work.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Installs the handler.
pub fn install_handler() {
    let on_signal = || {
        if SIGNALS.fetch_add(1, Ordering::SeqCst) > 0 {
            nullsum::atomic_file::remove_unfinished();
            std::process::exit(130);
        }
        crate::printer::print_warning("stopping after the current step; press Ctrl-C again to stop at once");
    };
    // Without a handler, Ctrl-C still ends the process but leaves temporary files.
    if let Err(error) = ctrlc::set_handler(on_signal) {
        crate::printer::print_warning(&format!("Ctrl-C will not clean up: {error}"));
    }
}

/// Whether the user has asked to stop.
pub fn stop_requested() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}

/// The result for callbacks that can cancel.
pub fn stop_flow() -> ControlFlow<()> {
    if stop_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Fails if the user has asked to stop.
pub fn check_stop() -> CliResult {
    if stop_requested() { Err(Failure::interrupted()) } else { Ok(()) }
}
