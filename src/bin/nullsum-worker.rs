//! Runs models for plugins, in a process of its own: on a GPU, or on the processor.
//!
//! Plugins start it when they need it, and it ends with the last of them. See `nullsum::worker`.

use std::process::ExitCode;

const HELP: &str = "\
Runs models for Nullsum's plugins in a process of its own. Plugins start it; there is no need to.

Usage: nullsum-worker devices
       nullsum-worker serve --device <DEVICE> [--folder <FOLDER>] [--linger-ms <MS>] [--foreground]

  devices      Lists this program's devices as JSON
  serve        Serves clients until the last has gone
  --device     cpu, cuda:N or metal
  --folder     Folder of its socket; by default nullsum in the user's runtime folder
  --linger-ms  How long to wait for another client after the last has gone; 2000 by default
  --foreground Does not leave the terminal
  --version    Prints the version
";

#[cfg(unix)]
fn main() -> ExitCode {
    nullsum::worker::daemon::close_inherited_files();
    unix::main()
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    print!("{HELP}");
    eprintln!("nullsum-worker: worker processes are not available on this system");
    ExitCode::FAILURE
}

#[cfg(unix)]
mod unix {
    use std::ffi::{OsStr, OsString};
    use std::path::PathBuf;
    use std::process::ExitCode;
    use std::time::Duration;

    use nullsum::worker::{daemon, server};

    use super::HELP;

    struct StderrLogger;

    impl log::Log for StderrLogger {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Info
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                eprintln!("{}: {}", record.level(), record.args());
            }
        }

        fn flush(&self) {}
    }

    pub fn main() -> ExitCode {
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // The process that starts a worker reads its output.
                println!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    fn run(arguments: &[OsString]) -> Result<(), String> {
        let Some((command, options)) = arguments.split_first() else {
            return Err(format!("no command\n\n{HELP}"));
        };
        match command.to_str() {
            Some("devices") if options.is_empty() => {
                println!("{}", serde_json::to_string(&daemon::devices()).map_err(|error| error.to_string())?);
                Ok(())
            }
            Some("serve") => serve(arguments, options),
            Some("--version" | "-V") => {
                println!("nullsum-worker {}", env!("CARGO_PKG_VERSION"));
                Ok(())
            }
            Some("--help" | "-h" | "help") => {
                print!("{HELP}");
                Ok(())
            }
            _ => Err(format!("unknown command `{}`\n\n{HELP}", command.display())),
        }
    }

    fn serve(arguments: &[OsString], options: &[OsString]) -> Result<(), String> {
        let (mut device, mut folder, mut linger, mut foreground) = (None, None, server::LINGER, false);
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let name = option.to_string_lossy().into_owned();
            let mut value = || options.next().ok_or_else(|| format!("{name}: expected a value"));
            match name.as_str() {
                "--device" => device = Some(value()?.to_string_lossy().into_owned()),
                "--folder" => folder = Some(PathBuf::from(value()?)),
                "--linger-ms" => linger = Duration::from_millis(number(value()?)?),
                "--foreground" => foreground = true,
                _ => return Err(format!("unknown option `{name}`\n\n{HELP}")),
            }
        }
        let device = device.ok_or_else(|| format!("serve: expected --device\n\n{HELP}"))?;
        if foreground {
            if log::set_logger(&StderrLogger).is_ok() {
                log::set_max_level(log::LevelFilter::Info);
            }
            return daemon::serve(&device, folder.as_deref(), linger).map_err(|error| error.to_string());
        }
        let mut again = arguments.to_vec();
        again.push("--foreground".into());
        daemon::start_detached(&again).map_err(|error| error.to_string())
    }

    fn number(text: &OsStr) -> Result<u64, String> {
        let parsed = text.to_str().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| format!("--linger-ms {}: expected a number", text.display()))
    }
}
