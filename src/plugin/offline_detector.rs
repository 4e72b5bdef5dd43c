//! Detects offline rendering from how fast a host calls the plugin.
//!
//! Some hosts never announce that they render. While rendering, a host calls again as soon as it has its block. While playing, it waits for
//! about the duration of the block. The time between the end of one call and the start of the next belongs to the host, so it tells the two
//! apart however slow the model is.
//!
//! A host that plays but is starved of audio also calls again at once, and our waiting for the model starves it. So waiting has a budget. It
//! grows only while the audio gets further ahead of the wall clock than any playing host prefetches.

use std::time::Instant;

/// Seconds of audio after which slow calls count as playback.
const SPAN_SECONDS: f64 = 0.3;
/// Seconds of audio per second of host time from which calls count as fast.
const FAST_RATIO: f64 = 2.0;
/// Minimum lead of the audio over host time for offline rendering, in seconds plus one block. Hosts that play prefetch about 0.2 s in one burst.
/// A fast render of a tier with a longer latency is detected before its first window is needed.
const MIN_LEAD_SECONDS: f64 = 0.25;
/// Waiting that a host may cost without any proof that it renders, in seconds.
const WAIT_BUDGET_SECONDS: f64 = 5.0;
/// Lead of the audio over the wall clock that a playing host may have, in seconds: its prefetch.
const PREFETCH_SECONDS: f64 = 0.4;
/// Seconds of waiting allowed per second of lead. A render whose model takes up to 90 % of real time then never uses up its budget.
const WAIT_PER_LEAD: f64 = 20.0;

/// Watches a host's calls. Realtime-safe: it only reads the clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfflineRenderDetector {
    last_end: Option<Instant>,
    call_start: Option<Instant>,
    audio: f64,
    host_time: f64,
    /// Audio time minus host time, summed over consecutive fast spans.
    lead: f64,
    /// `None` until there is a verdict.
    verdict: Option<bool>,
    budget: WaitBudget,
}

/// What waiting has cost since the calls look like a render.
#[derive(Clone, Copy, Debug, Default)]
struct WaitBudget {
    audio: f64,
    host_time: f64,
    /// Seconds spent inside calls.
    waited: f64,
    is_spent: bool,
}

impl WaitBudget {
    fn add_wait(&mut self, seconds: f64) {
        self.waited += seconds;
        let lead = self.audio - self.host_time - self.waited;
        let allowed = WAIT_BUDGET_SECONDS + WAIT_PER_LEAD * (lead - PREFETCH_SECONDS).max(0.0);
        self.is_spent |= self.waited > allowed;
    }
}

impl OfflineRenderDetector {
    /// Call at the start of the host's `process`, with the block's duration in seconds.
    pub fn begin_process(&mut self, now: Instant, seconds: f64) {
        self.call_start = Some(now);
        let Some(last_end) = self.last_end else { return };
        let host_time = now.saturating_duration_since(last_end).as_secs_f64();
        self.host_time += host_time;
        self.audio += seconds;
        self.budget.host_time += host_time;
        self.budget.audio += seconds;
        let fast = self.audio > FAST_RATIO * self.host_time;
        let lead = self.lead + self.audio - self.host_time;
        // A shorter lead may be a burst or the start of a render, so the last verdict stays.
        if fast && lead > MIN_LEAD_SECONDS + seconds {
            if self.verdict != Some(true) {
                self.budget = WaitBudget { is_spent: self.budget.is_spent, ..WaitBudget::default() };
            }
            self.verdict = Some(true);
        }
        if self.audio >= SPAN_SECONDS {
            if !fast {
                self.verdict = Some(false);
            }
            self.lead = if fast { lead } else { 0.0 };
            (self.audio, self.host_time) = (0.0, 0.0);
        }
    }

    /// Call at the end of `process`.
    pub fn end_process(&mut self, now: Instant) {
        self.last_end = Some(now);
        if let Some(start) = self.call_start.take().filter(|_| self.verdict == Some(true)) {
            self.budget.add_wait(now.saturating_duration_since(start).as_secs_f64());
        }
    }

    /// Forgets everything: the time since the last call says nothing.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    pub fn has_verdict(&self) -> bool {
        self.verdict.is_some()
    }

    /// Whether the host appears to render offline, and waiting has not cost too much.
    pub fn is_offline(&self) -> bool {
        self.verdict == Some(true) && !self.budget.is_spent
    }

    /// Whether waiting has cost so much that the calls no longer count as a render, until the next restart.
    pub fn is_budget_spent(&self) -> bool {
        self.budget.is_spent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A host that spends `own` seconds between calls, and `wait` seconds in each call, for blocks of `block` seconds.
    fn host(block: f64, own: f64, wait: f64, calls: usize) -> OfflineRenderDetector {
        let (mut detector, mut now) = (OfflineRenderDetector::default(), Instant::now());
        for _ in 0..calls {
            detector.begin_process(now, block);
            now += Duration::from_secs_f64(wait);
            detector.end_process(now);
            now += Duration::from_secs_f64(own);
        }
        detector
    }

    /// A host that plays `seconds` and prefetches 0.3 s, with a model that needs `load` of real time and a latency of 0.2 s. While the calls look
    /// like a render, each waits for the model. Returns the underruns of the whole and of the last ten seconds.
    fn starved_player(load: f64, seconds: f64) -> (f64, f64) {
        let (block, prefetch, latency) = (0.01, 0.3, 0.2);
        let mut detector = OfflineRenderDetector::default();
        let start = Instant::now();
        let at = |time: f64| start + Duration::from_secs_f64(time);
        // Wall clock; audio handed over; audio that the model has done; and when the device began to play.
        let (mut now, mut played, mut done, mut origin) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
        let (mut underrun, mut recent) = (0.0f64, 0.0f64);
        while played < seconds {
            let before = now;
            now = now.max(origin + played - prefetch) + 1e-4;
            detector.begin_process(at(now), block);
            done = (done + (now - before) / load).min(played);
            played += block;
            let needed = played - latency;
            if detector.is_offline() && needed > done {
                now += (needed - done) * load;
                done = needed;
            }
            detector.end_process(at(now));
            let late = now - (origin + played - block);
            if late > 0.0 {
                underrun += late;
                origin += late;
                recent += if played > seconds - 10.0 { late } else { 0.0 };
            }
        }
        (underrun, recent)
    }

    #[test]
    fn a_starved_player_recovers() {
        for load in [0.3, 0.6, 0.9, 1.0, 1.2, 2.0, 10.0] {
            let (underrun, recent) = starved_player(load, 60.0);
            assert!(underrun <= WAIT_BUDGET_SECONDS, "load {load}: {underrun} s of underrun");
            assert_eq!(recent, 0.0, "load {load}");
        }
    }

    #[test]
    fn a_player_that_is_starved_for_ever_is_no_render() {
        // Every call takes as long as its block: the host never gets ahead of the clock.
        for load in [0.9f64, 1.0, 1.2, 3.0] {
            let detector = host(0.01, 1e-4, (0.01 * load).max(0.01 - 1e-4), 2_000);
            assert!(detector.is_budget_spent() && !detector.is_offline(), "{load}");
        }
    }

    #[test]
    fn a_render_below_real_time_never_uses_up_its_budget() {
        for load in [0.02, 0.3, 0.7, 0.9] {
            let block = 0.01;
            for calls in [100, 500, 1_000, 5_000, 60_000] {
                let detector = host(block, 1e-4, block * load, calls);
                assert!(detector.is_offline(), "{load}, {calls} calls");
            }
        }
    }

    #[test]
    fn a_slow_render_is_waited_for_until_the_budget_is_spent() {
        let block = 0.01;
        let waited = |calls: usize| host(block, 1e-3, 2.0 * block, calls);
        assert!(waited(150).is_offline());
        assert!(!waited(400).is_offline());
    }

    #[test]
    fn a_few_calls_give_no_verdict() {
        let detector = host(0.01, 1e-4, 0.0, 3);
        assert!(!detector.has_verdict() && !detector.is_offline());
    }

    #[test]
    fn a_fast_render_is_detected_within_the_lowest_latency() {
        for samples in [64.0, 256.0, 512.0] {
            let block = samples / 48_000.0;
            // The output of the call that reaches the latency is the first that needs a window.
            let calls = (0.298 / block) as usize;
            assert!(host(block, block / 30.0, 0.0, calls).is_offline(), "{samples}");
        }
    }

    #[test]
    fn real_time_playback_is_never_offline() {
        for (own, wait) in [(0.010, 0.0), (0.0095, 0.0005), (0.008, 0.002)] {
            let detector = host(0.01, own, wait, 60);
            assert!(detector.has_verdict() && !detector.is_offline());
        }
    }

    #[test]
    fn a_prefetch_burst_is_not_offline() {
        let (mut detector, mut now) = (OfflineRenderDetector::default(), Instant::now());
        for call in 0..9_000 {
            // The host stalls and then catches up, once after a minute of playback.
            let own = match call {
                0..20 => 1e-4,
                200 | 350 | 8_010 => 0.15,
                201..215 | 351..365 | 8_011..8_025 => 1e-4,
                _ => 0.008,
            };
            now += Duration::from_secs_f64(own);
            detector.begin_process(now, 0.01);
            now += Duration::from_secs_f64(0.002);
            detector.end_process(now);
            assert!(!detector.is_offline(), "{call}");
        }
    }

    #[test]
    fn a_prefetch_burst_in_large_blocks_is_not_offline() {
        for (samples, calls) in [(4096.0, 4), (8192.0, 2), (16_384.0, 1)] {
            assert!(!host(samples / 48_000.0, 1e-4, 0.0, calls).is_offline(), "{samples}");
        }
    }

    #[test]
    fn a_render_at_moderate_speed_is_detected() {
        let mut calls = 0..;
        while !host(0.01, 0.003, 0.002, calls.next().unwrap()).has_verdict() {}
        assert!(host(0.01, 0.003, 0.002, calls.next().unwrap()).is_offline());
        assert!(calls.start < 100);
    }

    #[test]
    fn a_render_is_detected_even_if_the_model_is_slow() {
        for wait in [0.0, 0.005, 0.05] {
            assert!(host(0.01, 1e-3, wait, 60).is_offline());
        }
    }
}
