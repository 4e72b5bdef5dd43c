//! Whether a host plays or renders, told from its pace.
//!
//! Some hosts never announce that they render. But one that does calls again as soon as it has its
//! block, and one that plays lets a block's duration pass: the time between the end of a call and the start of the next is the host's own.

use std::time::Instant;

/// Audio over which a host is found to play, in seconds.
const SPAN: f64 = 0.3;
/// Audio handed over per second of the host's own time from which on it counts as rendering.
const FAST: f64 = 2.0;
/// How far a host that renders is ahead of the clock, in seconds, and a block. Hosts that play fetch some audio ahead, 0.2 s as a rule, in one burst,
/// and a block more than that. Less than the latency of any tier, so that a fast render is known for one before its first window is needed.
const LEAD: f64 = 0.25;

/// Watches a host's calls. Realtime-safe: reads the clock, no more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    left: Option<Instant>,
    audio: f64,
    own: f64,
    /// Audio less own time over the spans since the last one that was not fast.
    lead: f64,
    /// None before there is a verdict.
    renders: Option<bool>,
}

impl Pace {
    /// A call begins, with `seconds` of audio.
    pub fn enter(&mut self, now: Instant, seconds: f64) {
        let Some(left) = self.left else { return };
        self.own += now.saturating_duration_since(left).as_secs_f64();
        self.audio += seconds;
        let fast = self.audio > FAST * self.own;
        let lead = self.lead + self.audio - self.own;
        // Less is a burst or the start of a render: what was thought before holds, if anything was.
        if fast && lead > LEAD + seconds {
            self.renders = Some(true);
        }
        if self.audio >= SPAN {
            if !fast {
                self.renders = Some(false);
            }
            self.lead = if fast { lead } else { 0.0 };
            (self.audio, self.own) = (0.0, 0.0);
        }
    }

    /// A call ends.
    pub fn leave(&mut self, now: Instant) {
        self.left = Some(now);
    }

    /// Begins anew: the time since the last call says nothing.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Whether a verdict was formed.
    pub fn is_known(&self) -> bool {
        self.renders.is_some()
    }

    /// Whether the host renders, as far as its pace shows.
    pub fn renders(&self) -> bool {
        self.renders == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A host that needs `own` seconds for itself and `wait` in the plugin for each block of `block` seconds.
    fn host(block: f64, own: f64, wait: f64, calls: usize) -> Pace {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..calls {
            pace.enter(now, block);
            now += Duration::from_secs_f64(wait);
            pace.leave(now);
            now += Duration::from_secs_f64(own);
        }
        pace
    }

    #[test]
    fn a_few_calls_say_nothing() {
        let pace = host(0.01, 1e-4, 0.0, 3);
        assert!(!pace.is_known() && !pace.renders());
    }

    #[test]
    fn a_fast_render_is_known_before_the_shortest_latency_of_a_tier_has_passed() {
        for samples in [64.0, 256.0, 512.0] {
            let block = samples / 48_000.0;
            // The output of the call that reaches the latency is the first that needs a window.
            let calls = (0.298 / block) as usize;
            assert!(host(block, block / 30.0, 0.0, calls).renders(), "{samples}");
        }
    }

    #[test]
    fn a_host_in_real_time_is_never_kept_waiting() {
        for (own, wait) in [(0.010, 0.0), (0.0095, 0.0005), (0.008, 0.002)] {
            let pace = host(0.01, own, wait, 60);
            assert!(pace.is_known() && !pace.renders());
        }
    }

    #[test]
    fn a_burst_ahead_of_the_clock_is_no_render() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for call in 0..9_000 {
            // It stalls, and then fetches what it has missed; once after a minute of play.
            let own = match call {
                0..20 => 1e-4,
                200 | 350 | 8_010 => 0.15,
                201..215 | 351..365 | 8_011..8_025 => 1e-4,
                _ => 0.008,
            };
            now += Duration::from_secs_f64(own);
            pace.enter(now, 0.01);
            now += Duration::from_secs_f64(0.002);
            pace.leave(now);
            assert!(!pace.renders(), "{call}");
        }
    }

    #[test]
    fn a_burst_in_large_blocks_is_no_render() {
        for (samples, calls) in [(4096.0, 4), (8192.0, 2), (16_384.0, 1)] {
            assert!(!host(samples / 48_000.0, 1e-4, 0.0, calls).renders(), "{samples}");
        }
    }

    #[test]
    fn a_render_of_moderate_speed_is_never_taken_for_play() {
        let mut calls = 0..;
        while !host(0.01, 0.003, 0.002, calls.next().unwrap()).is_known() {}
        assert!(host(0.01, 0.003, 0.002, calls.next().unwrap()).renders());
        assert!(calls.start < 100);
    }

    #[test]
    fn a_host_that_renders_shows_it_even_when_the_model_is_slower_than_real_time() {
        for wait in [0.0, 0.005, 0.05] {
            assert!(host(0.01, 1e-3, wait, 60).renders());
        }
    }
}
