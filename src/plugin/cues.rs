//! Gains in time with the music.
//!
//! A host hands a value over with the input that it is drawn over, and that input comes out a latency later: a mute drawn at a bar line would be
//! heard seconds before it. So what a host changes while its song plays waits as long as the input does. What the user changes in the editor is
//! heard at once, as is everything while the song stands still.

use super::slot::SLOTS;

/// The main output with mix and bypass, behind the strips.
pub(super) const MAIN: usize = SLOTS;
/// The solos of all strips: one of them silences the others.
pub(super) const SOLO: usize = SLOTS + 1;
/// What is moved by one hand.
pub(super) const GROUPS: usize = SLOTS + 2;
/// Changes that may wait at a time. Where there are more they are taken together, some milliseconds of them.
const MOST: usize = 512;
/// How long a hand stays on what it has moved: a host may take as long to hand the value back. In seconds.
const HOLD: f32 = 0.5;

/// All gains: left and right of each strip, of the main output the share of the remix and the gain, and a bit a solo, as a number.
pub(super) type Gains = [[f32; 2]; GROUPS];

#[derive(Clone, Copy)]
struct Cue {
    /// Sample at which it came.
    at: u64,
    gains: Gains,
}

/// Gains that wait for their time. Realtime-safe but for [`Cues::new`].
pub(super) struct Cues {
    /// Those that wait: `count` from `first` on, in a ring.
    waiting: Box<[Cue; MOST]>,
    first: usize,
    count: usize,
    /// What came last, and what is heard.
    came: Gains,
    heard: Gains,
    /// Samples for which a hand stays on each group.
    held: [u32; GROUPS],
    hold: u32,
    /// Samples so far.
    at: u64,
}

impl Cues {
    /// Nothing waits. Allocates.
    pub fn new(rate: f32) -> Self {
        let unity = [[1.0; 2]; GROUPS];
        Self {
            waiting: Box::new([Cue { at: 0, gains: unity }; MOST]),
            first: 0,
            count: 0,
            came: unity,
            heard: unity,
            held: [0; GROUPS],
            hold: (HOLD * rate) as u32,
            at: 0,
        }
    }

    /// What is heard in a block of `samples` with which `gains` came, `latency` samples after its input if it is in time. `hands`: the groups
    /// that were moved in the editor, a bit each.
    pub fn follow(&mut self, gains: Gains, samples: usize, latency: u32, in_time: bool, hands: u32) -> Gains {
        for (group, held) in self.held.iter_mut().enumerate() {
            if hands >> group & 1 == 1 {
                *held = self.hold;
            }
        }
        if in_time {
            if gains != self.came {
                self.push(gains, latency);
            }
            // A block begins where it is nearest.
            let now = self.at + samples as u64 / 2;
            while self.count > 0 && self.waiting[self.first].at + u64::from(latency) <= now {
                self.heard = self.waiting[self.first].gains;
                self.first = (self.first + 1) % MOST;
                self.count -= 1;
            }
            for group in (0..GROUPS).filter(|group| self.held[*group] > 0) {
                self.heard[group] = gains[group];
                for i in 0..self.count {
                    self.waiting[(self.first + i) % MOST].gains[group] = gains[group];
                }
            }
        } else {
            self.count = 0;
            self.heard = gains;
        }
        self.came = gains;
        for held in &mut self.held {
            *held = held.saturating_sub(samples as u32);
        }
        self.at += samples as u64;
        self.heard
    }

    fn push(&mut self, gains: Gains, latency: u32) {
        let last = (self.first + self.count.saturating_sub(1)) % MOST;
        let spacing = u64::from(latency) / (MOST as u64 - 1);
        if self.count > 0 && (self.count == MOST || self.waiting[last].at + spacing > self.at) {
            self.waiting[last].gains = gains;
            return;
        }
        self.waiting[(self.first + self.count) % MOST] = Cue { at: self.at, gains };
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(gain: f32) -> Gains {
        [[gain; 2]; GROUPS]
    }

    /// What is heard of the first strip and of the main output at each block of 100 samples, 1000 samples late.
    fn run(blocks: impl IntoIterator<Item = (f32, bool, u32)>) -> Vec<[f32; 2]> {
        let mut cues = Cues::new(1000.0);
        let step = |(gain, in_time, hands)| {
            let heard = cues.follow(of(gain), 100, 1000, in_time, hands);
            [heard[0][0], heard[MAIN][0]]
        };
        blocks.into_iter().map(step).collect()
    }

    #[test]
    fn what_a_host_changes_is_heard_with_the_input_that_it_came_with() {
        let heard = run((0..40).map(|block| (if (5..8).contains(&block) { 0.0 } else { 1.0 }, true, 0)));
        for (block, heard) in heard.into_iter().enumerate() {
            assert_eq!(heard[0], if (15..18).contains(&block) { 0.0 } else { 1.0 }, "{block}");
        }
    }

    #[test]
    fn it_is_heard_at_once_while_the_song_stands_still_and_nothing_that_waited_comes_later() {
        let heard = run((0..40).map(|block| (if block < 5 { 1.0 } else { 0.5 }, block < 8, 0)));
        assert!(heard[..8].iter().all(|heard| heard[0] == 1.0));
        assert!(heard[8..].iter().all(|heard| heard[0] == 0.5));
    }

    #[test]
    fn a_hand_in_the_editor_is_heard_at_once_and_holds_its_strip_alone() {
        let heard =
            run((0..40).map(|block| (if block < 5 { 1.0 } else { 0.5 }, true, u32::from(block == 5))));
        assert_eq!(heard[4], [1.0, 1.0]);
        assert!(heard[5..].iter().all(|heard| heard[0] == 0.5));
        assert!(heard[5..15].iter().all(|heard| heard[1] == 1.0));
        assert!(heard[15..].iter().all(|heard| heard[1] == 0.5));
    }

    #[test]
    fn a_host_that_changes_everything_at_every_block_is_followed_within_milliseconds() {
        let (mut cues, latency, block) = (Cues::new(48_000.0), 300_000, 16);
        for n in 0..60_000_u64 {
            let heard = cues.follow(of(n as f32), block as usize, latency, true, 0)[0][0];
            let due = n.saturating_sub(u64::from(latency) / block) as f32;
            if n * block > u64::from(latency) {
                assert!((heard - due).abs() * 16.0 < 1200.0, "block {n}: {heard}, due {due}");
            }
        }
    }
}
