//! Nullsum as an app of its own, on the system's audio devices.
//!
//! `nullsum --play SONG` plays a file in place of the live input; `nullsum --help` lists back ends, devices and rates.

use std::path::Path;
use std::process::ExitCode;

use nice_plug::prelude::nice_export_standalone_with_args;
use nullsum::plugin::{Stereo, player};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--play") {
        let given: Vec<String> = arguments.drain(at..arguments.len().min(at + 2)).collect();
        let Some(song) = given.get(1) else {
            eprintln!("nullsum: --play: expected an audio file");
            return ExitCode::FAILURE;
        };
        if let Err(error) = player::play_in_app(Path::new(song)) {
            eprintln!("nullsum: {error}");
            return ExitCode::FAILURE;
        }
    }
    let ran = nice_export_standalone_with_args::<Stereo, _>(arguments);
    if ran { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
