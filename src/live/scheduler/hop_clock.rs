//! When the next hop of a stream will be complete.
//!
//! The audio thread makes no system call, so it cannot wake the worker. But it runs at a steady pace: the worker remembers when it last saw
//! a block arrive and how long the block was, and sleeps until the block that completes the hop is due.

use std::time::{Duration, Instant};

/// Polling interval close to the expected time; within what a plan allows for.
const POLL: Duration = Duration::from_millis(1);
/// A change is timed precisely if the poll before it was not longer ago than this.
const PRECISE: Duration = Duration::from_micros(2_500);
/// How much earlier than expected to look.
const EARLY: Duration = Duration::from_micros(1_500);
/// Polling interval while a stream does not move.
const POLL_AT_REST: Duration = Duration::from_millis(20);
/// A stream counts as resting after this time.
const REST_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct HopClock {
    rate: f64,
    /// Largest block of the host.
    max_block: u64,
    written: u64,
    polled: Instant,
    moved: Instant,
    /// Length of the last block, if its arrival was timed precisely.
    block: Option<u64>,
}

impl HopClock {
    pub(super) fn new(rate: u32, max_block: u64, written: u64, now: Instant) -> Self {
        Self { rate: f64::from(rate), max_block, written, polled: now, moved: now, block: None }
    }

    /// Notes the input position at a poll.
    pub(super) fn observe(&mut self, written: u64, now: Instant) {
        if written != self.written {
            let is_precise = now.saturating_duration_since(self.polled) <= PRECISE;
            self.block = is_precise.then(|| written.abs_diff(self.written));
            (self.written, self.moved) = (written, now);
        }
        self.polled = now;
    }

    /// Notes that the stream has work for another reason than its input.
    pub(super) fn touch(&mut self, now: Instant) {
        self.moved = now;
    }

    /// Whether the stream has not moved for a while, as of the last poll.
    pub(super) fn is_at_rest(&self) -> bool {
        self.polled.saturating_duration_since(self.moved) > REST_AFTER
    }

    /// When to look again, if `missing` more samples are needed.
    pub(super) fn next_poll(&self, missing: u64, now: Instant) -> Instant {
        if now.saturating_duration_since(self.moved) > REST_AFTER {
            return now + POLL_AT_REST;
        }
        let seconds = |samples: u64| Duration::from_secs_f64(samples as f64 / self.rate);
        let expected = match self.block.filter(|block| *block > 0) {
            Some(block) => self.moved + seconds(missing.div_ceil(block) * block),
            // The block that completes the hop may be as long as the host's largest.
            None => now + seconds(missing.saturating_sub(self.max_block)),
        };
        expected.checked_sub(EARLY).unwrap_or(expected).max(now + POLL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls a host in virtual time for `seconds`. Returns the polls, and the longest time from a complete hop to the poll that sees it.
    fn run(block: u64, hop: u64, jitter_us: u64, seconds: u64) -> (usize, Duration) {
        let (rate, begun) = (48_000u32, Instant::now());
        let mut clock = HopClock::new(rate, block, 0, begun);
        let arrival = |n: u64| {
            let exact = Duration::from_secs_f64((n * block) as f64 / f64::from(rate));
            begun + exact + Duration::from_micros((n * 7_919) % (jitter_us + 1))
        };
        let (mut now, mut polls, mut worst, mut next_hop, mut blocks) = (begun, 0, Duration::ZERO, hop, 0u64);
        while now < begun + Duration::from_secs(seconds) {
            while arrival(blocks + 1) <= now {
                blocks += 1;
            }
            clock.observe(blocks * block, now);
            while blocks * block >= next_hop {
                if next_hop > 20 * hop {
                    worst = worst.max(now - arrival(next_hop.div_ceil(block)));
                }
                next_hop += hop;
            }
            polls += 1;
            now = clock.next_poll(next_hop - blocks * block, now);
        }
        (polls, worst)
    }

    #[test]
    fn hops_are_noticed_within_two_milliseconds_with_a_few_polls() {
        for (block, hop, jitter, most) in [
            (512, 1_115, 0, 8),
            (512, 1_115, 500, 12),
            (64, 1_115, 300, 8),
            (2_048, 4_459, 300, 12),
            (512, 35_672, 300, 12),
            (1_024, 512, 300, 15),
        ] {
            let (polls, worst) = run(block, hop, jitter, 60);
            let hops = 60 * 48_000 / hop.max(block);
            assert!(worst <= Duration::from_millis(2), "{block} {hop} {jitter}: {worst:?}");
            assert!(polls as u64 <= most * hops, "{block} {hop} {jitter}: {polls} polls for {hops} hops");
        }
    }

    #[test]
    fn a_stream_at_rest_is_polled_rarely() {
        let begun = Instant::now();
        let clock = HopClock::new(48_000, 512, 0, begun);
        let now = begun + Duration::from_secs(2);
        assert_eq!(clock.next_poll(10, now), now + POLL_AT_REST);
    }
}
