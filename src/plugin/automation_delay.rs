//! Delays automation so that it is applied in time with the music.
//!
//! A host sends an automated value together with the input below it, and that input comes out one latency later. Without a delay, a mute drawn
//! at a bar line would act seconds early. So while the transport runs, values from the host wait as long as their input does. Edits made in our
//! editor, and all values while the transport is stopped, apply at once.
//!
//! Both ends are exact to the sample: the format shims split a host's block where a value changes, and [`AutomationDelay::next_segment`] splits
//! it again where a waiting value is due.

use super::routing::STRIP_COUNT;

/// Group of the main output: mix, bypass and output gain.
pub(super) const MAIN: usize = STRIP_COUNT;
/// Group of the solos. They share one group because one solo silences all other strips.
pub(super) const SOLO: usize = STRIP_COUNT + 1;
/// Number of groups of gains. A user edit applies to one group.
pub(super) const GROUPS: usize = STRIP_COUNT + 2;
/// Changes that can wait at a time. While the first half suffices, each keeps its sample; in the second half, changes within a hundredth of the
/// latency or so are merged, so that any number fits.
const CAPACITY: usize = 1024;
/// Changes that can wait without being merged.
const CAPACITY_EXACT: usize = CAPACITY / 2;
/// How long a user edit overrides delayed values of its group, in seconds. A host may take as long to send the value back.
const USER_OVERRIDE_SECONDS: f32 = 0.5;

/// Left and right gain of each strip; wet share and gain of the main output; and the solos, as a bit mask stored in a float.
pub(super) type Gains = [[f32; 2]; GROUPS];

#[derive(Clone, Copy)]
struct DelayedGains {
    /// Sample at which the gains apply.
    due: u64,
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
            waiting: Box::new([DelayedGains { due: 0, gains: unity }; CAPACITY]),
            first: 0,
            count: 0,
            latest: unity,
            applied: unity,
            override_left: [0; GROUPS],
            override_samples: (USER_OVERRIDE_SECONDS * rate) as u32,
            position: 0,
        }
    }

    /// Begins a block that arrived with `gains`. If `delayed`, host values apply `latency` samples later. `user_edits` has a bit for each group that
    /// the user changed in the editor.
    pub fn begin_block(&mut self, gains: Gains, latency: u32, delayed: bool, user_edits: u32) {
        for (group, override_left) in self.override_left.iter_mut().enumerate() {
            if user_edits >> group & 1 == 1 {
                *override_left = self.override_samples;
            }
        }
        if !delayed {
            self.count = 0;
            self.applied = gains;
        } else if gains != self.latest {
            self.push(gains, latency);
        }
        self.latest = gains;
        for group in (0..GROUPS).filter(|group| self.override_left[*group] > 0) {
            self.applied[group] = gains[group];
            for i in 0..self.count {
                self.waiting[(self.first + i) % CAPACITY].gains[group] = gains[group];
            }
        }
    }

    /// The latency changes: waiting values are due that much earlier or later, so that they stay with their input.
    pub fn change_latency(&mut self, before: u32, after: u32) {
        for i in 0..self.count {
            let due = &mut self.waiting[(self.first + i) % CAPACITY].due;
            *due = (*due + u64::from(after)).saturating_sub(u64::from(before)).max(self.position);
        }
    }

    /// The gains from here on, and how many of the next `samples` they apply to: at least one.
    pub fn next_segment(&mut self, samples: usize) -> (Gains, usize) {
        while self.count > 0 && self.waiting[self.first].due <= self.position {
            self.applied = self.waiting[self.first].gains;
            self.first = (self.first + 1) % CAPACITY;
            self.count -= 1;
        }
        let until_next = match self.count {
            0 => u64::MAX,
            _ => self.waiting[self.first].due - self.position,
        };
        let length = (samples as u64).min(until_next);
        self.position += length;
        for override_left in &mut self.override_left {
            *override_left = override_left.saturating_sub(length as u32);
        }
        (self.applied, length as usize)
    }

    fn push(&mut self, gains: Gains, latency: u32) {
        let due = self.position + u64::from(latency);
        let last = (self.first + self.count.saturating_sub(1)) % CAPACITY;
        let spacing = match self.count {
            0..CAPACITY_EXACT => 1,
            _ => u64::from(latency) / (CAPACITY - CAPACITY_EXACT - 1) as u64 + 1,
        };
        // A shorter latency than before must not reorder changes.
        let due = if self.count > 0 { due.max(self.waiting[last].due) } else { due };
        if self.count > 0 && (self.count == CAPACITY || due < self.waiting[last].due + spacing) {
            self.waiting[last].gains = gains;
            return;
        }
        self.waiting[(self.first + self.count) % CAPACITY] = DelayedGains { due, gains };
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(gain: f32) -> Gains {
        [[gain; 2]; GROUPS]
    }

    /// Applied gains of the first strip and of the main output at each sample, for blocks of 100 samples at a latency of 1000 samples.
    fn run(blocks: impl IntoIterator<Item = (f32, bool, u32)>) -> Vec<[f32; 2]> {
        let mut automation = AutomationDelay::new(1000.0);
        let mut applied = Vec::new();
        for (gain, delayed, user_edits) in blocks {
            automation.begin_block(of(gain), 1000, delayed, user_edits);
            play(&mut automation, 100, &mut applied);
        }
        applied
    }

    fn play(automation: &mut AutomationDelay, samples: usize, applied: &mut Vec<[f32; 2]>) {
        let mut left = samples;
        while left > 0 {
            let (gains, length) = automation.next_segment(left);
            assert!((1..=left).contains(&length));
            applied.extend(std::iter::repeat_n([gains[0][0], gains[MAIN][0]], length));
            left -= length;
        }
    }

    #[test]
    fn host_changes_apply_with_the_input_they_arrived_with() {
        let applied = run((0..40).map(|block| (if (5..8).contains(&block) { 0.0 } else { 1.0 }, true, 0)));
        for (sample, applied) in applied.into_iter().enumerate() {
            assert_eq!(applied[0], if (1500..1800).contains(&sample) { 0.0 } else { 1.0 }, "{sample}");
        }
    }

    #[test]
    fn any_sample_of_any_block_size_is_exact() {
        let mut random = crate::dsp::Random::new(3);
        let mut next = |bound: f32| (random.unit() * bound) as usize;
        let mut automation = AutomationDelay::new(48_000.0);
        let latency = 12_345;
        let (mut input, mut applied) = (Vec::new(), Vec::new());
        automation.begin_block(of(1.0), latency, false, 0);
        let mut gain = 1.0;
        while input.len() < 200_000 {
            let length = 1 + next(700.0);
            if next(4.0) == 0 {
                gain = next(1000.0) as f32;
            }
            automation.begin_block(of(gain), latency, true, 0);
            input.extend(std::iter::repeat_n(gain, length));
            play(&mut automation, length, &mut applied);
        }
        let late = latency as usize;
        assert!(applied[..late].iter().all(|gains| gains[0] == 1.0));
        assert!(applied[late..].iter().zip(&input).all(|(applied, input)| applied[0] == *input));
    }

    #[test]
    fn waiting_values_follow_a_change_of_the_latency() {
        for (after, expected) in [
            // What would be due already applies at once.
            (300, [(599, 1.0), (600, 0.5), (699, 0.5), (700, 0.75)]),
            (2_500, [(2_499, 1.0), (2_500, 0.25), (2_700, 0.5), (2_900, 0.75)]),
        ] {
            let mut automation = AutomationDelay::new(48_000.0);
            let mut applied = Vec::new();
            automation.begin_block(of(1.0), 1_000, false, 0);
            for gain in [0.25, 0.5, 0.75] {
                automation.begin_block(of(gain), 1_000, true, 0);
                play(&mut automation, 200, &mut applied);
            }
            automation.change_latency(1_000, after);
            play(&mut automation, 4_000, &mut applied);
            for (sample, gain) in expected {
                assert_eq!(applied[sample][0], gain, "latency {after}, sample {sample}");
            }
        }
    }

    #[test]
    fn changes_apply_at_once_while_stopped_and_clear_waiting_ones() {
        let applied = run((0..40).map(|block| (if block < 5 { 1.0 } else { 0.5 }, block < 8, 0)));
        assert!(applied[..800].iter().all(|applied| applied[0] == 1.0));
        assert!(applied[800..].iter().all(|applied| applied[0] == 0.5));
    }

    #[test]
    fn a_user_edit_applies_at_once_to_its_group_alone() {
        let applied =
            run((0..40).map(|block| (if block < 5 { 1.0 } else { 0.5 }, true, u32::from(block == 5))));
        assert_eq!(applied[499], [1.0, 1.0]);
        assert!(applied[500..].iter().all(|applied| applied[0] == 0.5));
        assert!(applied[500..1500].iter().all(|applied| applied[1] == 1.0));
        assert!(applied[1500..].iter().all(|applied| applied[1] == 0.5));
    }

    #[test]
    fn dense_automation_is_merged_to_within_milliseconds() {
        let (mut automation, latency, block) = (AutomationDelay::new(48_000.0), 300_000, 16);
        let mut applied = Vec::new();
        for n in 0..60_000_u64 {
            automation.begin_block(of(n as f32), latency, true, 0);
            applied.clear();
            play(&mut automation, block as usize, &mut applied);
            let due = n.saturating_sub(u64::from(latency) / block) as f32;
            if n * block > u64::from(latency) {
                assert!(
                    (applied[0][0] - due).abs() * 16.0 < 1300.0,
                    "block {n}: {}, due {due}",
                    applied[0][0]
                );
            }
        }
    }
}
