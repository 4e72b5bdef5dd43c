//! The built plugin in hosts that are not ours: VST3 in `vst3-host`, CLAP in `clack-host`, in this process.
//!
//! The library under test is the one cargo built beside this test (`libnullsum.so`, features `plugin`); nothing of
//! the crate is linked in, so what is tested is what a host loads. One trait, [`host::Host`], lets every test run
//! over both formats.
#![cfg(feature = "plugin")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod clap;
mod host;
mod library;
mod models;
mod play;
mod signal;
mod vst3;
mod watch;

mod automation;
mod exact;
mod faults;
mod lifecycle;
mod state;
mod stems;
mod strict;
mod torture;

// On a screen of X11, or with what Linux alone tells of a process.
#[cfg(target_os = "linux")]
mod app;
#[cfg(target_os = "linux")]
mod drop;
#[cfg(target_os = "linux")]
mod editor;
#[cfg(target_os = "linux")]
mod lives;
#[cfg(target_os = "linux")]
mod quiet;
#[cfg(target_os = "linux")]
mod screen;
#[cfg(target_os = "linux")]
mod shown;
#[cfg(target_os = "linux")]
mod source;
