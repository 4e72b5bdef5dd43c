//! Nullsum as an app of its own, on the system's audio devices.
//!
//! `nullsum --play SONG` plays a file in place of the live input; `nullsum --help` lists back ends, devices and rates.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use nice_plug::prelude::nice_export_standalone_with_args;
use nullsum::plugin::{Stereo, player};

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--play") {
        let given: Vec<OsString> = arguments.drain(at..arguments.len().min(at + 2)).collect();
        let Some(song) = given.get(1) else {
            eprintln!("nullsum: --play: expected an audio file");
            return ExitCode::FAILURE;
        };
        if let Err(error) = player::play_in_app(Path::new(song)) {
            eprintln!("nullsum: {error}");
            return ExitCode::FAILURE;
        }
    }
    #[cfg(unix)]
    if let Err(error) = end_on_signals() {
        eprintln!("nullsum: Ctrl-C will not end the app: {error}");
    }
    // What is left is for the framework, which knows text alone.
    let arguments = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    let ran = nice_export_standalone_with_args::<Stereo, _>(arguments.collect::<Vec<_>>());
    if ran { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lets Ctrl-C, and the system at the end of a session, end the app. nice-plug's wrapper catches these signals and heeds them only where
/// there is no window; so no thread is given them but one that waits for them. Nothing is lost: the app keeps no state of its own, and
/// what it caches appears when it is complete.
#[cfg(unix)]
fn end_on_signals() -> std::io::Result<()> {
    // SAFETY: the set is initialised by sigemptyset before it is read; the calls have no other condition.
    let signals = unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&mut signals, signal);
        }
        // The threads to come inherit it.
        match libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut()) {
            0 => signals,
            error => return Err(std::io::Error::from_raw_os_error(error)),
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut signal = 0;
        // SAFETY: the set is initialised. _exit, since the audio driver and OpenGL are at work in other threads.
        unsafe {
            if libc::sigwait(&signals, &mut signal) == 0 {
                libc::_exit(128 + signal);
            }
        }
    })?;
    Ok(())
}
