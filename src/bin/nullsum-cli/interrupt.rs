//! Ctrl-C and termination signals: the first one stops cleanly after the current step, the second one at once.
//!
//! A signal that is ignored when the program starts (`nohup`, `trap '' INT`) stays ignored.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use crate::exit::{CliResult, Failure};
use crate::printer::print_warning;

/// Number of signals so far. Written by the handler's thread, read by the work.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);
/// The first of them; 2 (SIGINT) stands for Ctrl-C on every system.
static FIRST_SIGNAL: AtomicI32 = AtomicI32::new(SIGINT);

const SIGINT: i32 = 2;

/// Installs the handler.
pub fn install_handler() {
    if let Err(error) = install() {
        // Without a handler, Ctrl-C still ends the process but leaves temporary files.
        print_warning(&format!("Ctrl-C will not clean up: {error}"));
    }
}

#[cfg(unix)]
fn install() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let wanted: Vec<i32> =
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal)).collect();
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    std::thread::Builder::new()
        .name("nullsum-signals".into())
        .spawn(move || signals.forever().for_each(handle))
        .map(drop)
}

#[cfg(windows)]
fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| handle(SIGINT))
}

/// Whether the process was started with the signal ignored.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a null pointer for the new action the call only writes the present one to `action`, which is a valid
    // place for it, and for which all zeros are a valid value too.
    let handler = unsafe {
        if libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) != 0 {
            return false;
        }
        action.assume_init().sa_sigaction
    };
    handler == libc::SIG_IGN
}

/// Runs on the handler's own thread, not in a signal context.
fn handle(signal: i32) {
    if SIGNALS.fetch_add(1, Ordering::SeqCst) > 0 {
        nullsum::atomic_file::remove_unfinished();
        std::process::exit(exit_code());
    }
    FIRST_SIGNAL.store(signal, Ordering::SeqCst);
    print_warning("stopping after the current step; press Ctrl-C again to stop at once");
}

/// Exit status of an interrupted program, as shells define it: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP.
pub fn exit_code() -> i32 {
    128 + FIRST_SIGNAL.load(Ordering::SeqCst)
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
