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
mod screen;
mod signal;
mod source;
mod vst3;
mod watch;

mod app;
mod automation;
mod drop;
mod editor;
mod exact;
mod faults;
mod lifecycle;
mod quiet;
mod state;
mod stems;
mod strict;
mod torture;
