//! Meter ballistics: instant attack, slow release, peak hold.

const FALL_DB_PER_SECOND: f32 = 26.0;
const HOLD_SECONDS: f64 = 1.5;
/// Levels at or below this count as silence.
const SILENCE_DB: f32 = -90.0;

/// Level from which a meter turns to its warning colour, in dBFS.
pub const WARN_DB: f32 = -6.0;

/// One channel's meter. Levels are in dBFS.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Meter {
    level: f32,
    peak: f32,
    peak_seconds: f64,
    last_seconds: f64,
    clipped: bool,
}

impl Default for Meter {
    fn default() -> Self {
        Self { level: SILENCE_DB, peak: SILENCE_DB, peak_seconds: 0.0, last_seconds: 0.0, clipped: false }
    }
}

impl Meter {
    /// `peak` is the linear peak since the last call, `now` the time in seconds.
    pub fn feed(&mut self, peak: f32, now: f64) {
        let db = if peak > 0.0 { 20.0 * peak.log10() } else { SILENCE_DB };
        let db = if db.is_finite() { db.clamp(SILENCE_DB, 40.0) } else { SILENCE_DB };
        let fall = FALL_DB_PER_SECOND * (now - self.last_seconds).clamp(0.0, 10.0) as f32;
        self.last_seconds = now;
        self.level = (self.level - fall).max(db).max(SILENCE_DB);
        if db >= self.peak {
            (self.peak, self.peak_seconds) = (db, now);
        } else if now - self.peak_seconds > HOLD_SECONDS {
            self.peak = (self.peak - fall).max(self.level);
        }
        // Full scale itself fits into PCM; anything above clips.
        self.clipped |= peak > 1.0;
    }

    pub fn level(&self) -> f32 {
        self.level
    }

    pub fn peak(&self) -> f32 {
        self.peak
    }

    /// Whether a peak exceeded full scale since [`clear`](Self::clear).
    pub fn clipped(&self) -> bool {
        self.clipped
    }

    pub fn clear(&mut self) {
        (self.clipped, self.peak) = (false, self.level);
    }

    /// Whether the meter shows silence, so that it needs no redraw.
    pub fn is_silent(&self) -> bool {
        self.level <= SILENCE_DB && self.peak <= SILENCE_DB
    }
}

/// Maximum of the recent values, for a number that stays readable.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeakHold {
    value: f32,
    at: f64,
}

impl PeakHold {
    /// `value` is the maximum since the last call, `now` the time in seconds.
    pub fn feed(&mut self, value: f32, now: f64) {
        if value >= self.value || now - self.at > HOLD_SECONDS || now < self.at {
            (self.value, self.at) = (if value.is_finite() { value } else { 0.0 }, now);
        }
    }

    pub fn get(&self) -> f32 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_rises_at_once_falls_steadily_and_holds_its_peak() {
        let mut meter = Meter::default();
        meter.feed(1.0, 10.0);
        assert_eq!((meter.level(), meter.peak(), meter.clipped()), (0.0, 0.0, false));
        meter.feed(0.0, 11.0);
        assert!((meter.level() + FALL_DB_PER_SECOND).abs() < 1e-3, "{}", meter.level());
        assert_eq!(meter.peak(), 0.0);
        for step in 0..200 {
            meter.feed(0.0, 11.0 + f64::from(step) * 0.1);
        }
        assert!(meter.is_silent());
    }

    #[test]
    fn clipping_is_shown_until_cleared() {
        let mut meter = Meter::default();
        meter.feed(1.01, 0.0);
        meter.feed(0.0, 100.0);
        assert!(meter.clipped());
        meter.clear();
        assert!(!meter.clipped());
    }

    #[test]
    fn invalid_peaks_do_not_move_a_meter() {
        let mut meter = Meter::default();
        for (peak, now) in [(f32::NAN, 1.0), (-1.0, 2.0), (f32::INFINITY, 3.0), (0.0, f64::MAX), (0.5, 0.0)] {
            meter.feed(peak, now);
            assert!(meter.level().is_finite() && meter.peak().is_finite());
        }
        let mut peak_hold = PeakHold::default();
        peak_hold.feed(f32::NAN, 10.0);
        peak_hold.feed(f32::INFINITY, 20.0);
        assert_eq!(peak_hold.get(), 0.0);
    }

    #[test]
    fn a_held_value_is_the_highest_of_the_last_moments() {
        let mut peak_hold = PeakHold::default();
        peak_hold.feed(0.5, 1.0);
        peak_hold.feed(0.1, 1.1);
        assert_eq!(peak_hold.get(), 0.5);
        peak_hold.feed(0.1, 1.1 + HOLD_SECONDS);
        assert_eq!(peak_hold.get(), 0.1);
    }
}
