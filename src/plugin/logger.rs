//! The plugin's log: recent messages in memory, and a rotating file in the cache folder.
//!
//! The library logs with the `log` facade. Nothing logs on the audio thread. A message is appended to the file and the file is closed again, so
//! that several processes can share it and nothing is left open when a host unloads the plugin.

use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::cache_file;

/// Name of the file with the user's choice.
const SETTINGS: &str = "log.json";
/// Name of the log file.
const FILE: &str = "nullsum.log";
/// Name of the previous log file.
const OLD_FILE: &str = "nullsum.old.log";
/// Size from which a new file begins, in bytes.
const MAX_BYTES: u64 = 512 * 1024;
/// Number of warnings and errors kept for the diagnostics.
const MAX_RECENT: usize = 20;

/// The user's choice. By default the file is written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default)]
struct LogSettings {
    enabled: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

#[derive(Default)]
struct LoggerState {
    /// The user's choice, read with the first message: plugin scanning opens no file.
    settings: Option<LogSettings>,
    recent: VecDeque<String>,
}

struct PluginLogger(Mutex<Option<LoggerState>>);

static LOGGER: PluginLogger = PluginLogger(Mutex::new(None));

/// Installs the logger, once per process. A logger that is already there stays.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if log::set_logger(&LOGGER).is_ok() {
            log::set_max_level(LevelFilter::Info);
        }
    });
}

/// Whether messages are written to the file.
pub fn is_file_enabled() -> bool {
    LOGGER.with_state(|state| state.settings().enabled)
}

/// Sets whether messages are written to the file, now and in the future.
pub fn set_file_enabled(enabled: bool) {
    LOGGER.with_state(|state| state.settings = Some(LogSettings { enabled }));
    cache_file::update(SETTINGS, |settings: &mut LogSettings| settings.enabled = enabled);
}

/// The log file, whether or not it exists.
pub fn file_path() -> Option<PathBuf> {
    cache_file::folder().map(|folder| folder.join(FILE))
}

/// The latest warnings and errors, the oldest first.
pub fn recent_warnings() -> Vec<String> {
    LOGGER.with_state(|state| state.recent.iter().cloned().collect())
}

impl LoggerState {
    fn settings(&mut self) -> LogSettings {
        *self.settings.get_or_insert_with(|| cache_file::read(SETTINGS))
    }
}

impl PluginLogger {
    fn with_state<T>(&self, with: impl FnOnce(&mut LoggerState) -> T) -> T {
        with(self.0.lock().get_or_insert_with(LoggerState::default))
    }
}

impl Log for PluginLogger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // Other crates log details that are of no use here.
        metadata.level() <= Level::Warn
            || metadata.target().starts_with("nullsum") && metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format_line(SystemTime::now(), record.level(), &record.args().to_string());
        self.with_state(|state| {
            if record.level() <= Level::Warn {
                if state.recent.len() == MAX_RECENT {
                    state.recent.pop_front();
                }
                state.recent.push_back(line.clone());
            }
            if state.settings().enabled
                && let Some(folder) = cache_file::folder()
            {
                // A log that cannot be written must not disturb the work.
                let _ = append(&folder, &line);
            }
        });
    }

    fn flush(&self) {}
}

/// `2026-01-31 18:05:09Z WARN message`, in one line.
fn format_line(time: SystemTime, level: Level, message: &str) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let message = message.replace('\n', " | ");
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z {level} {message}")
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

/// Appends a line, and begins a new file when the current one is full.
fn append(folder: &Path, line: &str) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(FILE);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() >= MAX_BYTES) {
        fs::rename(&path, folder.join(OLD_FILE))?;
    }
    let mut file = fs::OpenOptions::new().append(true).create(true).open(&path)?;
    // One write, so that lines of several processes do not mix.
    file.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_have_utc_time_and_no_line_breaks() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z WARN a | b"),
            (951_782_399, "2000-02-28 23:59:59Z WARN a | b"),
            (951_868_800, "2000-03-01 00:00:00Z WARN a | b"),
            (1_709_210_096, "2024-02-29 12:34:56Z WARN a | b"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(format_line(time, Level::Warn, "a\nb"), text);
        }
    }

    #[test]
    fn a_full_file_is_kept_as_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new");
        append(&inner, "first").unwrap();
        append(&inner, "second").unwrap();
        let read = |name: &str| fs::read_to_string(inner.join(name)).unwrap();
        assert_eq!(read(FILE), "first\nsecond\n");
        fs::write(inner.join(FILE), vec![b'x'; MAX_BYTES as usize]).unwrap();
        append(&inner, "third").unwrap();
        assert_eq!((read(FILE), read(OLD_FILE).len() as u64), ("third\n".into(), MAX_BYTES));
    }

    #[test]
    fn warnings_are_kept_and_the_switch_is_remembered() {
        let logger = PluginLogger(Mutex::new(None));
        logger.with_state(|state| state.settings = Some(LogSettings { enabled: false }));
        for n in 0..30 {
            let message = format!("late {n}");
            logger.log(
                &Record::builder().level(Level::Warn).target("x").args(format_args!("{message}")).build(),
            );
            logger.log(&Record::builder().level(Level::Info).target("x").args(format_args!("other")).build());
        }
        let recent = logger.with_state(|state| state.recent.clone());
        assert_eq!(recent.len(), MAX_RECENT);
        assert!(recent.iter().all(|line| line.contains("WARN late")), "{recent:?}");
        assert!(recent.back().is_some_and(|line| line.ends_with("late 29")));
        assert!(LogSettings::default().enabled);
    }
}
