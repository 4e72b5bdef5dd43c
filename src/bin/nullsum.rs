//! The standalone app, which runs on the system's audio devices.
//!
//! `nullsum SONG` plays a file instead of the live input. `nullsum --help` lists the audio backends and their options.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use nice_plug::prelude::nice_export_standalone_with_args;
use nullsum::plugin::{Stereo, player};

/// Printed before the framework's own help.
const HELP: &str = "\
Nullsum: separates live audio input, or a song, into stems.

Usage: nullsum [SONG] [OPTIONS]

  --play <SONG>
          Play this file in a loop instead of the input. A bare SONG means the same. On Linux you can also drop a
          song on the window

No input is connected by default. To connect one, use --input-device <NAME>, or with JACK --connect-jack-inputs <PORTS>.
An empty NAME lists the devices. All other options:

";
/// Options that connect an input.
const INPUTS: [&str; 2] = ["--input-device", "--connect-jack-inputs"];

fn main() -> ExitCode {
    let parsed = match Arguments::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => return fail(&error),
    };
    if parsed.help {
        print!("{HELP}");
    } else if let Err(error) = player::play_in_app(parsed.song.as_deref(), parsed.has_input) {
        return fail(&error.to_string());
    }
    #[cfg(unix)]
    if let Err(error) = end_on_signals() {
        eprintln!("nullsum: Ctrl-C will not end the app: {error}");
    }
    // The framework accepts only Unicode arguments.
    let arguments = parsed.rest.iter().map(|argument| argument.to_string_lossy().into_owned());
    let ran = nice_export_standalone_with_args::<Stereo, _>(arguments.collect::<Vec<_>>());
    if ran { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("nullsum: {error}");
    ExitCode::FAILURE
}

/// The parsed command line.
#[derive(Debug, Default, PartialEq)]
struct Arguments {
    song: Option<PathBuf>,
    help: bool,
    /// Whether an option connects a live input.
    has_input: bool,
    /// Arguments for the framework.
    rest: Vec<OsString>,
}

impl Arguments {
    /// The framework accepts only options, so an argument that is neither an option nor an option's value is a song.
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let program = arguments.next();
        let mut parsed = Self { rest: program.into_iter().collect(), ..Self::default() };
        while let Some(argument) = arguments.next() {
            if argument == "--play" {
                parsed.play(&arguments.next().unwrap_or_default())?;
            } else if let Some(song) = strip_prefix(&argument, "--play=") {
                parsed.play(song)?;
            } else if !argument.as_encoded_bytes().starts_with(b"-") {
                parsed.play(&argument)?;
            } else {
                parsed.help |= argument == "--help" || argument == "-h";
                parsed.has_input |= INPUTS.iter().any(|name| {
                    strip_prefix(&argument, name)
                        .is_some_and(|rest| rest.is_empty() || rest.as_encoded_bytes().starts_with(b"="))
                });
                let value = if takes_next(&argument) { arguments.next() } else { None };
                parsed.rest.push(argument);
                parsed.rest.extend(value);
            }
        }
        Ok(parsed)
    }

    fn play(&mut self, song: &OsStr) -> Result<(), String> {
        if song.is_empty() {
            return Err("--play: expected an audio file".into());
        }
        match self.song.replace(song.into()) {
            None => Ok(()),
            Some(first) => {
                Err(format!("expected one song, found two: {} and {}", first.display(), song.display()))
            }
        }
    }
}

fn strip_prefix<'a>(argument: &'a OsStr, prefix: &str) -> Option<&'a OsStr> {
    let rest = argument.as_encoded_bytes().strip_prefix(prefix.as_bytes())?;
    // SAFETY: the bytes come from an OsStr and are split directly after a non-empty UTF-8 string, which is allowed.
    Some(unsafe { OsStr::from_encoded_bytes_unchecked(rest) })
}

/// Whether the option's value is the next argument. All options of the framework except help take a value, which may also be joined to them.
fn takes_next(option: &OsStr) -> bool {
    match option.as_encoded_bytes() {
        b"--" | b"--help" | b"-h" => false,
        [b'-', b'-', name @ ..] => !name.contains(&b'='),
        short => short.len() == 2,
    }
}

/// Makes Ctrl-C and the system's shutdown end the app. nice-plug catches these signals but ignores them while a window is open, so we block
/// them in every thread and wait for them in one of ours. Nothing is lost: the app saves no state, and cache files are renamed into place when
/// they are complete.
#[cfg(unix)]
fn end_on_signals() -> std::io::Result<()> {
    // SAFETY: sigemptyset initialises the set before it is read. The calls have no other preconditions.
    let signals = unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&mut signals, signal);
        }
        // Threads started from now on inherit the mask.
        match libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut()) {
            0 => signals,
            error => return Err(std::io::Error::from_raw_os_error(error)),
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut signal = 0;
        // SAFETY: the set is initialised. `_exit` skips destructors, since the audio driver and OpenGL still run in other threads.
        unsafe {
            if libc::sigwait(&signals, &mut signal) == 0 {
                libc::_exit(128 + signal);
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(["nullsum"].iter().chain(arguments).map(OsString::from))
    }

    /// The song, whether an input is connected, and the framework's arguments.
    fn parts(arguments: &[&str]) -> Result<(String, bool, String), String> {
        let Arguments { song, has_input, rest, .. } = parse(arguments)?;
        let rest: Vec<_> = rest.iter().skip(1).map(|argument| argument.to_string_lossy()).collect();
        Ok((song.unwrap_or_default().display().to_string(), has_input, rest.join(" ")))
    }

    #[test]
    fn song_and_framework_arguments_are_told_apart() {
        for (arguments, song, has_input, rest) in [
            (&[][..], "", false, ""),
            (&["a.flac"], "a.flac", false, ""),
            (&["--play", "a.flac"], "a.flac", false, ""),
            (&["--play=a.flac", "-b", "alsa"], "a.flac", false, "-b alsa"),
            (&["-b", "alsa", "-r48000", "a.flac", "-p=512"], "a.flac", false, "-b alsa -r48000 -p=512"),
            (&["--backend=alsa", "a.flac"], "a.flac", false, "--backend=alsa"),
            (&["--input-device", "a.flac"], "", true, "--input-device a.flac"),
            (&["--input-device=hw", "a.flac"], "a.flac", true, "--input-device=hw"),
            (&["--connect-jack-inputs", "x:1,x:2"], "", true, "--connect-jack-inputs x:1,x:2"),
            (&["--input-latency", "0.1"], "", false, "--input-latency 0.1"),
            (&["--play", "--odd.flac"], "--odd.flac", false, ""),
        ] {
            let expected = (song.to_string(), has_input, rest.to_string());
            assert_eq!(parts(arguments), Ok(expected), "{arguments:?}");
        }
    }

    #[test]
    fn empty_and_repeated_songs_are_rejected() {
        for arguments in [&["--play"][..], &["--play="], &[""], &["a.flac", "b.flac"]] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn only_an_option_requests_help_not_an_option_value() {
        for (arguments, help) in
            [(&["--help"][..], true), (&["-h", "a.flac"], true), (&["--midi-input", "-h"], false)]
        {
            assert_eq!(parse(arguments).map(|parsed| parsed.help), Ok(help), "{arguments:?}");
        }
    }
}
