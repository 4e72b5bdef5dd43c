//! Detects offline rendering from how fast a host calls the plugin.
//!
//! Some hosts never announce that they render. While rendering, a host calls again as soon as it has its block. While playing, it waits for about the
//! duration of the block. The time between the end of one call and the start of the next belongs to the host, so it tells the two apart however slow
//! the model is.

use std::time::Instant;

/// Seconds of audio after which slow calls count as playback.
const SPAN_SECONDS: f64 = 0.3;
/// Seconds of audio per second of host time from which calls count as fast.
const FAST_RATIO: f64 = 2.0;
/// Minimum lead of the audio over host time for offline rendering, in seconds plus one block. Hosts that play prefetch about 0.2 s in one burst. The
/// value is below the latency of every tier, so that a fast render is detected before its first window is needed.
const MIN_LEAD_SECONDS: f64 = 0.25;

/// Watches a host's calls. Realtime-safe: it only reads the clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfflineRenderDetector {
    last_end: Option<Instant>,
    audio: f64,
    host_time: f64,
    /// Audio time minus host time, summed over consecutive fast spans.
    lead: f64,
    /// `None` until there is a verdict.
    verdict: Option<bool>,
}

impl OfflineRenderDetector {
    /// Call at the start of `process`, with the block's duration in seconds.
    pub fn begin_process(&mut self, now: Instant, seconds: f64) {
        let Some(last_end) = self.last_end else { return };
        self.host_time += now.saturating_duration_since(last_end).as_secs_f64();
        self.audio += seconds;
        let fast = self.audio > FAST_RATIO * self.host_time;
        let lead = self.lead + self.audio - self.host_time;
        // A shorter lead may be a burst or the start of a render, so the last verdict stays.
        if fast && lead > MIN_LEAD_SECONDS + seconds {
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
    }

    /// Forgets everything: the time since the last call says nothing.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    pub fn has_verdict(&self) -> bool {
        self.verdict.is_some()
    }

    /// Whether the host appears to render offline.
    pub fn is_offline(&self) -> bool {
        self.verdict == Some(true)
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
