//! Delays automation so that it is applied in time with the music.
//!
//! A host sends an automated value together with the input below it, and that input comes out one latency later. Without a delay, a mute drawn at a
//! bar line would act seconds early. So while the transport runs, values from the host wait as long as their input does. Edits made in our editor,
//! and all values while the transport is stopped, apply at once.

use super::routing::STRIP_COUNT;

/// Group of the main output: mix, bypass and output gain.
pub(super) const MAIN: usize = STRIP_COUNT;
/// Group of the solos. They share one group because one solo silences all other strips.
pub(super) const SOLO: usize = STRIP_COUNT + 1;
/// Number of groups of gains. A user edit applies to one group.
pub(super) const GROUPS: usize = STRIP_COUNT + 2;
/// Changes that can wait at a time. When more arrive, changes a few milliseconds apart are merged.
const CAPACITY: usize = 512;
/// How long a user edit overrides delayed values of its group, in seconds. A host may take as long to send the value back.
const USER_OVERRIDE_SECONDS: f32 = 0.5;

/// Left and right gain of each strip; wet share and gain of the main output; and the solos, as a bit mask stored in a float.
pub(super) type Gains = [[f32; 2]; GROUPS];

#[derive(Clone, Copy)]
struct DelayedGains {
    /// Sample at which the gains arrived.
    position: u64,
    gains: Gains,
}

/// Gains waiting for their time. Realtime-safe except for [`AutomationDelay::new`].
pub(super) struct AutomationDelay {
    /// A ring buffer: `count` entries from `first`.
    waiting: Box<[DelayedGains; CAPACITY]>,
    first: usize,
    count: usize,
    latest: Gains,
    applied: Gains,
    /// Samples for which a user edit still overrides each group.
    override_left: [u32; GROUPS],
    override_samples: u32,
    /// Samples processed so far.
    position: u64,
}

impl AutomationDelay {
    /// Allocates.
    pub fn new(rate: f32) -> Self {
        let unity = [[1.0; 2]; GROUPS];
        Self {
            waiting: Box::new([DelayedGains { position: 0, gains: unity }; CAPACITY]),
            first: 0,
            count: 0,
            latest: unity,
            applied: unity,
            override_left: [0; GROUPS],
            override_samples: (USER_OVERRIDE_SECONDS * rate) as u32,
            position: 0,
        }
    }

    /// Returns the gains to apply in a block of `samples` that arrived with `gains`. If `delayed`, host values apply `latency` samples later.
    /// `user_edits` has a bit for each group that the user changed in the editor.
    pub fn gains_for_block(
        &mut self,
        gains: Gains,
        samples: usize,
        latency: u32,
        delayed: bool,
        user_edits: u32,
    ) -> Gains {
        for (group, override_left) in self.override_left.iter_mut().enumerate() {
            if user_edits >> group & 1 == 1 {
                *override_left = self.override_samples;
            }
        }
        if delayed {
            if gains != self.latest {
                self.push(gains, latency);
            }
            // Changes apply at the nearest block boundary.
            let now = self.position + samples as u64 / 2;
            while self.count > 0 && self.waiting[self.first].position + u64::from(latency) <= now {
                self.applied = self.waiting[self.first].gains;
                self.first = (self.first + 1) % CAPACITY;
                self.count -= 1;
            }
            for group in (0..GROUPS).filter(|group| self.override_left[*group] > 0) {
                self.applied[group] = gains[group];
                for i in 0..self.count {
                    self.waiting[(self.first + i) % CAPACITY].gains[group] = gains[group];
                }
            }
        } else {
            self.count = 0;
            self.applied = gains;
        }
        self.latest = gains;
        for override_left in &mut self.override_left {
            *override_left = override_left.saturating_sub(samples as u32);
        }
        self.position += samples as u64;
        self.applied
    }

    fn push(&mut self, gains: Gains, latency: u32) {
        let last = (self.first + self.count.saturating_sub(1)) % CAPACITY;
        let spacing = u64::from(latency) / (CAPACITY as u64 - 1);
        if self.count > 0 && (self.count == CAPACITY || self.waiting[last].position + spacing > self.position)
        {
            self.waiting[last].gains = gains;
            return;
        }
        self.waiting[(self.first + self.count) % CAPACITY] = DelayedGains { position: self.position, gains };
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(gain: f32) -> Gains {
        [[gain; 2]; GROUPS]
    }

    /// Applied gains of the first strip and of the main output for each block of 100 samples, at a latency of 1000 samples.
    fn run(blocks: impl IntoIterator<Item = (f32, bool, u32)>) -> Vec<[f32; 2]> {
        let mut automation = AutomationDelay::new(1000.0);
        let step = |(gain, delayed, user_edits)| {
            let applied = automation.gains_for_block(of(gain), 100, 1000, delayed, user_edits);
            [applied[0][0], applied[MAIN][0]]
        };
        blocks.into_iter().map(step).collect()
    }

    #[test]
    fn host_changes_apply_with_the_input_they_arrived_with() {
        let applied = run((0..40).map(|block| (if (5..8).contains(&block) { 0.0 } else { 1.0 }, true, 0)));
        for (block, applied) in applied.into_iter().enumerate() {
            assert_eq!(applied[0], if (15..18).contains(&block) { 0.0 } else { 1.0 }, "{block}");
        }
    }

    #[test]
    fn changes_apply_at_once_while_stopped_and_clear_waiting_ones() {
        let applied = run((0..40).map(|block| (if block < 5 { 1.0 } else { 0.5 }, block < 8, 0)));
        assert!(applied[..8].iter().all(|applied| applied[0] == 1.0));
        assert!(applied[8..].iter().all(|applied| applied[0] == 0.5));
    }

    #[test]
    fn a_user_edit_applies_at_once_to_its_group_alone() {
        let applied =
            run((0..40).map(|block| (if block < 5 { 1.0 } else { 0.5 }, true, u32::from(block == 5))));
        assert_eq!(applied[4], [1.0, 1.0]);
        assert!(applied[5..].iter().all(|applied| applied[0] == 0.5));
        assert!(applied[5..15].iter().all(|applied| applied[1] == 1.0));
        assert!(applied[15..].iter().all(|applied| applied[1] == 0.5));
    }

    #[test]
    fn dense_automation_is_merged_to_within_milliseconds() {
        let (mut automation, latency, block) = (AutomationDelay::new(48_000.0), 300_000, 16);
        for n in 0..60_000_u64 {
            let applied = automation.gains_for_block(of(n as f32), block as usize, latency, true, 0)[0][0];
            let due = n.saturating_sub(u64::from(latency) / block) as f32;
            if n * block > u64::from(latency) {
                assert!((applied - due).abs() * 16.0 < 1200.0, "block {n}: {applied}, due {due}");
            }
        }
    }
}
