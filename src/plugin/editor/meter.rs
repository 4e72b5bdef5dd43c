//! How meters move: at once upwards, slowly downwards, the highest peak held for a while.

/// How fast a level falls, in dB a second.
const FALL: f32 = 26.0;
/// How long a peak is held, in seconds.
const HOLD: f64 = 1.5;
/// What counts as silence, in dB: below it a meter rests.
const FLOOR: f32 = -90.0;

/// Level from which on a meter warns, in dBFS.
pub const HOT: f32 = -6.0;

/// One channel's meter. Levels are in dBFS.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Meter {
    level: f32,
    peak: f32,
    peak_at: f64,
    last: f64,
    clipped: bool,
}

impl Default for Meter {
    fn default() -> Self {
        Self { level: FLOOR, peak: FLOOR, peak_at: 0.0, last: 0.0, clipped: false }
    }
}

impl Meter {
    /// A peak of the time since the last call, `now` in seconds.
    pub fn feed(&mut self, peak: f32, now: f64) {
        let db = if peak > 0.0 { 20.0 * peak.log10() } else { FLOOR };
        let db = if db.is_finite() { db.clamp(FLOOR, 40.0) } else { FLOOR };
        let fall = FALL * (now - self.last).clamp(0.0, 10.0) as f32;
        self.last = now;
        self.level = (self.level - fall).max(db).max(FLOOR);
        if db >= self.peak {
            (self.peak, self.peak_at) = (db, now);
        } else if now - self.peak_at > HOLD {
            self.peak = (self.peak - fall).max(self.level);
        }
        // Full scale itself can be stored; anything above cannot.
        self.clipped |= peak > 1.0;
    }

    /// What the bar shows.
    pub fn level(&self) -> f32 {
        self.level
    }

    /// The held peak.
    pub fn peak(&self) -> f32 {
        self.peak
    }

    /// Whether there was more than full scale since [`clear`](Self::clear).
    pub fn clipped(&self) -> bool {
        self.clipped
    }

    /// Forgets held peak and clipping.
    pub fn clear(&mut self) {
        (self.clipped, self.peak) = (false, self.level);
    }

    /// Whether it would look the same the next time, given silence.
    pub fn rests(&self) -> bool {
        self.level <= FLOOR && self.peak <= FLOOR
    }
}

/// The highest of what was fed lately: for a number that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Held {
    value: f32,
    at: f64,
}

impl Held {
    /// Takes a value of the time since the last call.
    pub fn feed(&mut self, value: f32, now: f64) {
        if value >= self.value || now - self.at > HOLD || now < self.at {
            (self.value, self.at) = (if value.is_finite() { value } else { 0.0 }, now);
        }
    }

    /// The value.
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
        assert!((meter.level() + FALL).abs() < 1e-3, "{}", meter.level());
        assert_eq!(meter.peak(), 0.0);
        for step in 0..200 {
            meter.feed(0.0, 11.0 + f64::from(step) * 0.1);
        }
        assert!(meter.rests());
    }

    #[test]
    fn clipping_is_shown_until_somebody_has_seen_it() {
        let mut meter = Meter::default();
        meter.feed(1.01, 0.0);
        meter.feed(0.0, 100.0);
        assert!(meter.clipped());
        meter.clear();
        assert!(!meter.clipped());
    }

    #[test]
    fn nonsense_does_not_move_a_meter() {
        let mut meter = Meter::default();
        for (peak, now) in [(f32::NAN, 1.0), (-1.0, 2.0), (f32::INFINITY, 3.0), (0.0, f64::MAX), (0.5, 0.0)] {
            meter.feed(peak, now);
            assert!(meter.level().is_finite() && meter.peak().is_finite());
        }
        let mut held = Held::default();
        held.feed(f32::NAN, 10.0);
        held.feed(f32::INFINITY, 20.0);
        assert_eq!(held.get(), 0.0);
    }

    #[test]
    fn a_held_value_is_the_highest_of_the_last_moments() {
        let mut held = Held::default();
        held.feed(0.5, 1.0);
        held.feed(0.1, 1.1);
        assert_eq!(held.get(), 0.5);
        held.feed(0.1, 1.1 + HOLD);
        assert_eq!(held.get(), 0.1);
    }
}
