//! Nullsum as an app of its own, on the system's audio devices.
//!
//! `nullsum SONG` plays a file in place of the live input; `nullsum --help` lists back ends, devices and rates.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use nice_plug::prelude::nice_export_standalone_with_args;
use nullsum::plugin::{Stereo, player};

/// Before the framework's own.
const HELP: &str = "\
Nullsum: separates what comes from an audio device, or a song.

Usage: nullsum [SONG] [OPTIONS]

  --play <SONG>
          Play this file over and over in place of the input. SONG alone means the same. On Linux, a song can also be
          dropped on the window

No input is connected unless it is named: --input-device <NAME>, or with JACK --connect-jack-inputs <PORTS>. An empty NAME
lists the devices. All other options:

";
/// Options that connect an input.
const INPUTS: [&str; 2] = ["--input-device", "--connect-jack-inputs"];

fn main() -> ExitCode {
    let asked = match Asked::of(std::env::args_os()) {
        Ok(asked) => asked,
        Err(error) => return fail(&error),
    };
    if asked.help {
        print!("{HELP}");
    } else if let Err(error) = player::play_in_app(asked.song.as_deref(), asked.has_input) {
        return fail(&error.to_string());
    }
    #[cfg(unix)]
    if let Err(error) = end_on_signals() {
        eprintln!("nullsum: Ctrl-C will not end the app: {error}");
    }
    // It knows text alone.
    let arguments = asked.rest.iter().map(|argument| argument.to_string_lossy().into_owned());
    let ran = nice_export_standalone_with_args::<Stereo, _>(arguments.collect::<Vec<_>>());
    if ran { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("nullsum: {error}");
    ExitCode::FAILURE
}

/// A command line.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    song: Option<PathBuf>,
    help: bool,
    /// Whether an input is named.
    has_input: bool,
    /// What is left for the framework.
    rest: Vec<OsString>,
}

impl Asked {
    /// The framework takes nothing but options, so whatever is neither one nor the value of one is a song.
    fn of(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let program = arguments.next();
        let mut asked = Self { rest: program.into_iter().collect(), ..Self::default() };
        while let Some(argument) = arguments.next() {
            if argument == "--play" {
                asked.play(&arguments.next().unwrap_or_default())?;
            } else if let Some(song) = after(&argument, "--play=") {
                asked.play(song)?;
            } else if !argument.as_encoded_bytes().starts_with(b"-") {
                asked.play(&argument)?;
            } else {
                asked.help |= argument == "--help" || argument == "-h";
                asked.has_input |= INPUTS.iter().any(|name| {
                    after(&argument, name)
                        .is_some_and(|rest| rest.is_empty() || rest.as_encoded_bytes().starts_with(b"="))
                });
                let value = if takes_next(&argument) { arguments.next() } else { None };
                asked.rest.push(argument);
                asked.rest.extend(value);
            }
        }
        Ok(asked)
    }

    fn play(&mut self, song: &OsStr) -> Result<(), String> {
        if song.is_empty() {
            return Err("--play: expected an audio file".into());
        }
        match self.song.replace(song.into()) {
            None => Ok(()),
            Some(first) => Err(format!("one song at a time: {} or {}", first.display(), song.display())),
        }
    }
}

/// What follows a beginning.
fn after<'a>(argument: &'a OsStr, beginning: &str) -> Option<&'a OsStr> {
    let rest = argument.as_encoded_bytes().strip_prefix(beginning.as_bytes())?;
    // SAFETY: encoded bytes of an OsStr, cut behind UTF-8.
    Some(unsafe { OsStr::from_encoded_bytes_unchecked(rest) })
}

/// Whether an option's value is the next argument: all of the framework's but its help take one, unless it is joined to them.
fn takes_next(option: &OsStr) -> bool {
    match option.as_encoded_bytes() {
        b"--" | b"--help" | b"-h" => false,
        [b'-', b'-', name @ ..] => !name.contains(&b'='),
        short => short.len() == 2,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str]) -> Result<Asked, String> {
        Asked::of(["nullsum"].iter().chain(arguments).map(OsString::from))
    }

    /// Song, whether there is an input, and what the framework gets.
    fn parts(arguments: &[&str]) -> Result<(String, bool, String), String> {
        let Asked { song, has_input, rest, .. } = asked(arguments)?;
        let rest: Vec<_> = rest.iter().skip(1).map(|argument| argument.to_string_lossy()).collect();
        Ok((song.unwrap_or_default().display().to_string(), has_input, rest.join(" ")))
    }

    #[test]
    fn a_song_is_found_however_it_is_named_and_the_framework_gets_the_rest() {
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
    fn a_command_line_that_means_nothing_is_refused_in_words() {
        for arguments in [&["--play"][..], &["--play="], &[""], &["a.flac", "b.flac"]] {
            assert!(asked(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn help_is_asked_for_by_an_option_not_by_a_value() {
        for (arguments, help) in
            [(&["--help"][..], true), (&["-h", "a.flac"], true), (&["--midi-input", "-h"], false)]
        {
            assert_eq!(asked(arguments).map(|asked| asked.help), Ok(help), "{arguments:?}");
        }
    }
}
