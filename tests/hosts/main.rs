//! The built plugin in independent hosts: VST3 in `vst3-host`, CLAP in `clack-host`, in this process.
//!
//! The library under test is the one that cargo built beside this test (`libnullsum.so`, feature `plugin`). Nothing of the crate is linked in,
//! so the tests see what a host loads. The trait [`host::Host`] lets every test run over both formats.
#![cfg(feature = "plugin")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod clap;
mod host;
mod library;
mod models;
mod play;
mod signal;
mod syscall_watch;
mod vst3;

mod automation;
mod conformance;
mod faults;
mod lifecycle;
mod prepared;
mod state;
mod stems;
mod stress;
mod unity;

// These need X11, or process information that only Linux provides.
#[cfg(target_os = "linux")]
mod app;
#[cfg(target_os = "linux")]
mod drag_source;
#[cfg(target_os = "linux")]
mod drop;
#[cfg(target_os = "linux")]
mod editor;
#[cfg(target_os = "linux")]
mod host_window;
#[cfg(target_os = "linux")]
mod leaks;
#[cfg(target_os = "linux")]
mod syscalls;
#[cfg(target_os = "linux")]
mod virtual_screen;
#[cfg(target_os = "linux")]
mod worker;
