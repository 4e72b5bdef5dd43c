//! `-v` and `-vv`: prints the library's log on standard error.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct StderrLogger;

impl Log for StderrLogger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // Details of other crates are not of interest.
        metadata.target().starts_with("nullsum") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_lowercase();
            // A closed standard error must not end the program.
            let _ = writeln!(std::io::stderr(), "nullsum-cli: {level}: {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Installs the logger: `-v` prints what is loaded, chosen and downloaded, `-vv` also details.
pub fn install(verbosity: u8) {
    let level = match verbosity {
        0 => return,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    if log::set_logger(&StderrLogger).is_ok() {
        log::set_max_level(level);
    }
}
