//! Logs late windows, failures and recoveries of a stream, from the control thread.

use crate::live::{State, Status};

/// What was logged of the current stream.
#[derive(Debug, Default)]
pub struct StreamLog {
    late: u64,
    skipped: u64,
    cleaned: u64,
    state: Option<State>,
}

impl StreamLog {
    /// Logs what changed since the last call. A stream whose counters are lower than before is a new one.
    pub fn update(&mut self, status: &Status) {
        let (late, skipped, cleaned) =
            (status.late_windows(), status.skipped_windows(), status.cleaned_samples());
        if late < self.late || skipped < self.skipped || cleaned < self.cleaned {
            *self = Self::default();
        }
        if late > self.late {
            log::warn!(
                "{} late windows ({late} in all), load {:.2}: the dry signal played instead",
                late - self.late,
                status.load()
            );
        }
        if skipped > self.skipped {
            log::warn!(
                "{} windows skipped ({skipped} in all), load {:.2}",
                skipped - self.skipped,
                status.load()
            );
        }
        if cleaned > self.cleaned {
            log::warn!("{} samples of stems were NaN or infinite", cleaned - self.cleaned);
        }
        let state = status.state();
        if self.state != Some(state) {
            let message = status.message().map_or_else(String::new, |message| format!(": {message}"));
            match state {
                State::Failing | State::Panicked => log::error!("live stream {state:?}{message}"),
                _ => log::info!("live stream {state:?}{message}"),
            }
        }
        (self.late, self.skipped, self.cleaned, self.state) = (late, skipped, cleaned, Some(state));
    }
}
