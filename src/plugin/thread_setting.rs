//! The number of threads for live separation: the user's choice in the editor, else the default of the live engine.
//!
//! The choice belongs to the user of this computer, not to a project, so it is kept in the cache folder.

use std::sync::Once;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::cache_file;
use crate::live::default_threads_with_reason;

/// Name of the file with the user's choice.
const SETTINGS_FILE: &str = "threads.json";

/// The user's choice. By default there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ThreadSettings {
    threads: Option<usize>,
}

/// Read when it is first needed: plugin scanning opens no file.
static SETTINGS: Mutex<Option<ThreadSettings>> = Mutex::new(None);

/// Logical processors of this computer.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The user's choice. A file from another computer may hold any number.
pub fn chosen() -> Option<usize> {
    let settings = *SETTINGS.lock().get_or_insert_with(|| cache_file::read(SETTINGS_FILE));
    settings.threads.filter(|threads| *threads > 0).map(|threads| threads.min(processors()))
}

/// Sets or removes the user's choice, now and in the future. Loaded models keep their threads until they are loaded again.
pub fn choose(threads: Option<usize>) {
    *SETTINGS.lock() = Some(ThreadSettings { threads });
    cache_file::update(SETTINGS_FILE, |settings: &mut ThreadSettings| settings.threads = threads);
}

/// The number of threads for models that are loaded from now on.
pub fn current() -> usize {
    current_with_reason().0
}

fn current_with_reason() -> (usize, &'static str) {
    chosen().map_or_else(default_threads_with_reason, |threads| (threads, "set in the editor"))
}

/// Describes the number and its reason, as in `1 of 2 logical processors: one logical processor is left to the host`.
pub fn describe() -> String {
    format_reason(current_with_reason())
}

/// As [`describe`], for the default.
pub fn describe_default() -> String {
    format_reason(default_threads_with_reason())
}

fn format_reason((threads, reason): (usize, &str)) -> String {
    format!("{threads} of {} logical processors: {reason}", processors())
}

/// Logs which number was chosen and why, once per process.
pub fn log_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| log::info!("threads for live separation: {}", describe()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_kept_within_the_computer_and_described() {
        // The choice is the process's, so it ends as it was: models of other tests are loaded meanwhile.
        let (default, reason) = default_threads_with_reason();
        assert_eq!((chosen(), current()), (None, default));
        assert_eq!(describe(), format!("{default} of {} logical processors: {reason}", processors()));
        let wrong: ThreadSettings = serde_json::from_str("{}").unwrap();
        assert_eq!(wrong, ThreadSettings::default());
        for (threads, expected) in
            [(Some(0), None), (Some(1), Some(1)), (Some(usize::MAX), Some(processors()))]
        {
            *SETTINGS.lock() = Some(ThreadSettings { threads });
            assert_eq!(chosen(), expected);
        }
        *SETTINGS.lock() = None;
    }
}
