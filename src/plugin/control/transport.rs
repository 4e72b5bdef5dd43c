//! Whether the host plays, as the control thread sees it.

use std::time::{Duration, Instant};

use super::decide::Transport;

/// Blocks must come at least this often while the transport runs.
const PLAYING_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a running transport is looked at.
const PLAYING_INTERVAL: Duration = Duration::from_secs(1);
/// The transport counts as stopped after this time, and as idle after the longer one.
const STOPPED_AFTER: Duration = Duration::from_millis(300);
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// Whether the host plays, from the blocks that it sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransportWatch {
    blocks: u64,
    last_block: Instant,
    last_playing: Instant,
    /// The host has reported a running transport. One that never does may play at any time.
    reports_transport: bool,
    /// The host reports a running transport now, or sends blocks without ever reporting one.
    is_running: bool,
}

impl TransportWatch {
    /// The host may play at any time.
    pub fn new(now: Instant) -> Self {
        Self { blocks: 0, last_block: now, last_playing: now, reports_transport: false, is_running: false }
    }

    /// Number of blocks at the last update.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Whether the host has ever reported a running transport.
    pub fn reports_transport(&self) -> bool {
        self.reports_transport
    }

    /// Takes whether the transport runs in the latest block, and the number of blocks so far.
    pub fn update(&mut self, (playing, blocks): (bool, u64), now: Instant) {
        self.is_running = playing || blocks != self.blocks && !self.reports_transport;
        if blocks != self.blocks {
            (self.blocks, self.last_block) = (blocks, now);
            self.reports_transport |= playing;
            if playing || !self.reports_transport {
                self.last_playing = now;
            }
        } else if playing && now.duration_since(self.last_block) < PLAYING_TIMEOUT {
            self.last_playing = now;
        }
    }

    /// When the state may change without a notice; none while it is idle.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        match self.state(now) {
            Transport::Idle => None,
            Transport::Stopped => Some(self.last_playing + IDLE_AFTER),
            _ if self.is_running => Some(now + PLAYING_INTERVAL),
            _ => Some(self.last_playing + STOPPED_AFTER),
        }
    }

    pub fn state(&self, now: Instant) -> Transport {
        match now.duration_since(self.last_playing) {
            stopped if stopped >= IDLE_AFTER => Transport::Idle,
            stopped if stopped >= STOPPED_AFTER => Transport::Stopped,
            _ => Transport::Playing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transport_stops_when_the_host_says_so_or_sends_no_blocks() {
        let start = Instant::now();
        let watch = TransportWatch::new(start);
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let run = |blocks: &[(f64, bool, u64)]| {
            let mut watch = watch;
            for (at, playing, count) in blocks {
                watch.update((*playing, *count), after(*at));
            }
            watch
        };
        let playing = run(&[(1.0, true, 10), (2.0, true, 20), (3.0, true, 30)]);
        assert_eq!(playing.state(after(3.1)), Transport::Playing);
        let stopped = run(&[(1.0, true, 10), (2.0, false, 20), (2.9, false, 30)]);
        assert_eq!(stopped.state(after(2.9)), Transport::Stopped);
        assert_eq!(stopped.state(after(6.5)), Transport::Idle);
        let starved = run(&[(1.0, true, 10), (1.5, true, 10), (2.5, true, 10)]);
        assert_eq!(starved.state(after(2.5)), Transport::Stopped, "no blocks");
        let silent = run(&[(1.0, false, 10), (2.0, false, 20)]);
        assert_eq!(silent.state(after(2.1)), Transport::Playing, "a host without a transport");
        assert_eq!(silent.state(after(8.0)), Transport::Idle);
    }
    #[test]
    fn only_a_running_transport_is_looked_at_for_ever() {
        let start = Instant::now();
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut watch = TransportWatch::new(start);
        watch.update((true, 1), after(1.0));
        assert_eq!(watch.next_change(after(1.0)), Some(after(1.0) + PLAYING_INTERVAL));
        // Its blocks go on while it stands still.
        let (mut now, mut looks) = (after(1.2), 0);
        watch.update((false, 9), now);
        assert_eq!(watch.next_change(now), Some(after(1.0) + STOPPED_AFTER));
        while let Some(next) = watch.next_change(now) {
            assert!(next > now && looks < 3);
            now = next;
            looks += 1;
            watch.update((false, 10 + looks), now);
        }
        assert_eq!((watch.state(now), looks), (Transport::Idle, 2));
    }
}
