//! The parameter changes of a block, in order of their samples.

use nice_plug::wrapper::vst3::vst3::{ComRef, Steinberg};

use Steinberg::Vst::{IParamValueQueueTrait, IParameterChanges, IParameterChangesTrait, ParamID, ParamValue};
use Steinberg::kResultOk;

/// Changes of a block that keep their sample. Where there are more, the last value of each parameter applies at the end of the block.
const CAPACITY: usize = 1024;
/// Parts that a block is split into at most, by and large. More changes than that are merged.
const MAX_PARTS: usize = 64;

#[derive(Clone, Copy)]
struct Event {
    sample: usize,
    id: ParamID,
    value: ParamValue,
}

/// Memory for the changes of one block.
pub(super) struct BlockEvents {
    events: Box<[Event; CAPACITY]>,
    count: usize,
    next: usize,
    samples: usize,
    /// How far ahead changes apply, in samples.
    tolerance: usize,
}

impl BlockEvents {
    /// Allocates.
    pub fn new() -> Self {
        let events = Box::new([Event { sample: 0, id: 0, value: 0.0 }; CAPACITY]);
        Self { events, count: 0, next: 0, samples: 0, tolerance: 0 }
    }

    /// Realtime-safe: reads the changes of a block of `samples`.
    ///
    /// # Safety
    /// `changes` is null or valid.
    pub unsafe fn read(&mut self, changes: *mut IParameterChanges, samples: usize) {
        (self.count, self.next, self.samples) = (0, 0, samples);
        // SAFETY: null or valid by this function's contract; queues are valid during the block.
        unsafe {
            let Some(changes) = ComRef::from_raw(changes) else { return };
            for index in 0..changes.getParameterCount() {
                let Some(queue) = ComRef::from_raw(changes.getParameterData(index)) else { continue };
                let (id, points) = (queue.getParameterId(), queue.getPointCount());
                for point in 0..points {
                    let (mut offset, mut value) = (0, f64::NAN);
                    if queue.getPoint(point, &mut offset, &mut value) == kResultOk {
                        let sample = usize::try_from(offset).unwrap_or(0).min(samples.saturating_sub(1));
                        self.push(Event { sample, id, value }, point + 1 == points);
                    }
                }
            }
        }
        let events = self.events.get_mut(..self.count).unwrap_or_default();
        // Insertion sort: stable, in place, and hosts send changes nearly in order.
        for i in 1..events.len() {
            let mut at = i;
            while at > 0 && events[at - 1].sample > events[at].sample {
                events.swap(at - 1, at);
                at -= 1;
            }
        }
        self.tolerance = if self.count > MAX_PARTS { samples / MAX_PARTS } else { 0 };
    }

    fn push(&mut self, event: Event, is_last: bool) {
        if let Some(free) = self.events.get_mut(self.count) {
            *free = event;
            self.count += 1;
        } else if is_last {
            // Full: this parameter's last change takes the place of its latest one, or of the latest of all.
            let same = self.events.iter().rposition(|other| other.id == event.id);
            if let Some(place) = self.events.get_mut(same.unwrap_or(CAPACITY - 1)) {
                *place = event;
            }
        }
    }

    /// Whether a change comes within the block, so that it must be split.
    pub fn splits_block(&self) -> bool {
        self.events.get(..self.count).unwrap_or_default().iter().any(|event| event.sample > self.tolerance)
    }

    /// Realtime-safe: applies the changes due at `sample`, and returns where the next part begins.
    pub fn apply_until_next(&mut self, sample: usize, mut set: impl FnMut(ParamID, ParamValue)) -> usize {
        while let Some(event) = self.events.get(self.next).filter(|_| self.next < self.count) {
            if event.sample > sample + self.tolerance {
                return event.sample;
            }
            set(event.id, event.value);
            self.next += 1;
        }
        self.samples
    }

    /// Realtime-safe: applies all changes that are left.
    pub fn apply_rest(&mut self, set: impl FnMut(ParamID, ParamValue)) {
        self.tolerance = self.samples;
        self.apply_until_next(0, set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(samples: usize, list: &[(usize, ParamID, f64)]) -> BlockEvents {
        let mut events = BlockEvents::new();
        events.samples = samples;
        for (sample, id, value) in list {
            events.push(Event { sample: *sample, id: *id, value: *value }, true);
        }
        let count = events.count;
        events.events[..count].sort_by_key(|event| event.sample);
        events.tolerance = if count > MAX_PARTS { samples / MAX_PARTS } else { 0 };
        events
    }

    /// Parts of the block as their start and what was set there.
    fn parts(mut events: BlockEvents) -> Vec<(usize, Vec<(ParamID, f64)>)> {
        let (mut start, mut parts) = (0, Vec::new());
        while start < events.samples {
            let mut set = Vec::new();
            let end = events.apply_until_next(start, |id, value| set.push((id, value)));
            assert!(end > start);
            parts.push((start, set));
            start = end;
        }
        parts
    }

    #[test]
    fn a_block_is_split_at_every_change() {
        let list = [(0, 1, 0.1), (100, 1, 0.2), (100, 2, 0.3), (511, 1, 0.4)];
        let expected = [(0, vec![(1, 0.1)]), (100, vec![(1, 0.2), (2, 0.3)]), (511, vec![(1, 0.4)])];
        assert!(events(512, &list).splits_block());
        assert_eq!(parts(events(512, &list)), expected);
        assert!(!events(512, &[(0, 1, 0.5)]).splits_block());
        assert_eq!(parts(events(512, &[])), [(0, vec![])]);
    }

    #[test]
    fn many_changes_are_merged_and_the_last_values_arrive() {
        let list: Vec<_> = (0..1000).map(|sample| (sample, 1, sample as f64)).collect();
        let parts = parts(events(1024, &list));
        assert!(parts.len() <= MAX_PARTS + 1, "{}", parts.len());
        assert!(parts.iter().all(|(start, set)| set.iter().all(|(_, value)| *value >= *start as f64)));
        let last = parts.iter().flat_map(|(_, set)| set).next_back().unwrap();
        assert_eq!(last.1, 999.0);
        let flood: Vec<_> = (0..3_000).map(|n| (n % 512, (n % 5) as u32, n as f64)).collect();
        let mut full = events(512, &flood);
        let mut values = [0.0; 5];
        full.apply_rest(|id, value| values[id as usize] = value);
        assert!(full.next <= CAPACITY);
    }
}
