//! Provisional stems, one slot for each of the last hops.
//!
//! While the client plays or fades out the provisional stems of one hop, the worker may publish several later hops. So the client announces
//! the slots that it may read, and the worker writes to none of these, nor to the slot that it published last. There are enough slots that
//! one is always free.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU64, fence};

use super::super::ring::Ring;

/// Slots: the client may hold four (the last two availabilities, one playing, one fading out), the worker one, and one is free.
pub(in crate::live) const PROVISIONAL_SLOTS: usize = 6;

/// A set of slots, one bit each.
pub(in crate::live) type SlotMask = u8;

/// Marks a slot that is being written.
const CLAIMED: u64 = u64::MAX;

pub(in crate::live) struct ProvisionalSlots {
    slots: [Slot; PROVISIONAL_SLOTS],
    /// The slots that the client may read. Written by the client.
    held: AtomicU8,
}

struct Slot {
    /// [stems × channels], by position.
    ring: Ring,
    /// First position of its hop, or `CLAIMED`. Written by the worker.
    begin: AtomicU64,
    /// End of the valid positions. Written by the worker.
    end: AtomicU64,
}

impl ProvisionalSlots {
    /// Room for `samples` positions of `channels` ring channels in every slot.
    pub(super) fn new(channels: usize, samples: usize) -> Self {
        let slot = |_| Slot {
            ring: Ring::new(channels, samples),
            begin: AtomicU64::new(CLAIMED),
            end: AtomicU64::new(0),
        };
        Self { slots: std::array::from_fn(slot), held: AtomicU8::new(0) }
    }

    pub(super) fn allocate(&self, channel: usize) {
        self.slots.iter().for_each(|slot| slot.ring.allocate(channel));
    }

    // Called by the client. Realtime-safe.

    /// Announces the slots that the client may read from now on.
    pub(in crate::live) fn hold(&self, slots: SlotMask) {
        self.held.store(slots, Release);
    }

    /// Holds `slot` in addition to `slots`. Returns the end of its stems if it still belongs to the hop that begins at `begin`.
    pub(in crate::live) fn hold_slot(&self, slots: SlotMask, slot: usize, begin: u64) -> Option<u64> {
        self.held.store(slots | 1 << slot, SeqCst);
        // Pairs with the fence in `claim`: either the worker sees that the slot is held, or this sees that the worker has claimed it.
        fence(SeqCst);
        let found = self.slots.get(slot)?;
        (found.begin.load(Acquire) == begin).then(|| found.end.load(Relaxed))
    }

    pub(in crate::live) fn read(&self, slot: usize, channel: usize, at: u64, out: &mut [f32]) {
        match self.slots.get(slot) {
            Some(slot) => slot.ring.read(channel, at, out),
            None => out.fill(0.0),
        }
    }

    // Called by the worker.

    /// Takes a slot that nobody reads, other than `published`. None if the client holds all of them.
    pub(in crate::live) fn claim(&self, published: Option<usize>) -> Option<usize> {
        self.slots.iter().enumerate().find_map(|(index, slot)| {
            let is_held = || self.held.load(SeqCst) & 1 << index != 0;
            if Some(index) == published || is_held() {
                return None;
            }
            let before = slot.begin.swap(CLAIMED, SeqCst);
            fence(SeqCst);
            if is_held() {
                // The client was faster; its samples are untouched.
                slot.begin.store(before, Release);
                return None;
            }
            Some(index)
        })
    }

    pub(in crate::live) fn write(&self, slot: usize, channel: usize, at: u64, samples: &[f32]) {
        if let Some(slot) = self.slots.get(slot) {
            slot.ring.write(channel, at, samples);
        }
    }

    /// Makes a claimed slot readable: its stems cover `begin..end`.
    pub(in crate::live) fn release(&self, slot: usize, begin: u64, end: u64) {
        if let Some(slot) = self.slots.get(slot) {
            slot.end.store(end, Relaxed);
            slot.begin.store(begin, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_and_published_slots_are_never_claimed() {
        let slots = ProvisionalSlots::new(1, 16);
        let mut published = None;
        for hop in 1..100u64 {
            let slot = slots.claim(published).unwrap();
            assert_ne!(Some(slot), published);
            slots.release(slot, hop, hop + 5);
            published = Some(slot);
        }
        let last = published.unwrap();
        assert_eq!(slots.hold_slot(0, last, 99), Some(104));
        for hop in 100..200 {
            let slot = slots.claim(published).unwrap();
            assert_ne!(slot, last);
            slots.release(slot, hop, hop + 5);
            published = Some(slot);
        }
        assert_eq!(slots.hold_slot(1 << last, last, 98), None, "another hop's");
        slots.hold(!0);
        assert_eq!(slots.claim(None), None);
        slots.hold(0);
        assert!(slots.claim(None).is_some());
    }
}
