//! State shared by client and worker: rings of samples, and cursors that say which positions are valid.
//!
//! Positions are host samples since the stream was opened and only grow; a reset or a jump is a mark at a position. So a result that arrives
//! after a reset belongs to positions that are never read, and cannot be mistaken for a newer one.

mod provisional;

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, fence};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use parking_lot::{Condvar, Mutex};

use super::plan::Plan;
use super::ring::Ring;
use super::status::{State, Status};
use crate::separator::MaskRule;
pub(super) use provisional::{PROVISIONAL_SLOTS, ProvisionalSlots, SlotMask};

/// Length of the longest loop whose beginning is still held when it ends, with the context before it.
const LOOP_SECONDS: u64 = 16;

/// Which stems are available: final ones from `from` to `until`, and provisional ones from `until` on in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Availability {
    /// End of the last gap. It has its own cursor, which is written first.
    pub(super) from: u64,
    pub(super) until: u64,
    /// Slot of the provisional stems from `until` on; none after the end of a segment.
    pub(super) slot: Option<usize>,
}

impl Availability {
    fn pack(self) -> u64 {
        self.until << 4 | self.slot.map_or(0, |slot| slot as u64 + 1)
    }

    fn unpack(bits: u64) -> Self {
        Self { from: 0, until: bits >> 4, slot: ((bits & 15) as usize).checked_sub(1) }
    }
}

pub(super) struct Shared {
    pub(super) channels: usize,
    pub(super) stems: usize,
    /// Largest number of samples that the client writes before it publishes them.
    pub(super) max_block: u64,
    /// The input, [channels]. Written by the client, read by the worker and, as the dry signal, by the client.
    input: Ring,
    /// Position up to which input is valid. Written by the client.
    written: CachePadded<AtomicU64>,
    /// Position of the last jump: input from there on is unrelated to earlier input. Written by the client.
    jump: AtomicU64,
    /// How far the last jump went back in the music, in samples; 0 if that is not known. Written by the client, before `jump`.
    jump_back: AtomicU64,
    /// Position of the last reset: earlier input is ignored. Written by the client.
    reset: AtomicU64,
    /// Final stems, [stems × channels]. Written by the worker.
    stems_final: Ring,
    /// Provisional stems of the last hops.
    pub(super) provisional: ProvisionalSlots,
    /// [`Availability`], packed. Written by the worker.
    available: CachePadded<AtomicU64>,
    /// [`Availability::from`]. Written by the worker.
    available_from: AtomicU64,
    /// The value of `written` when the worker last ran out of work. Written by the worker.
    seen: AtomicU64,
    /// Whether the client waits for the worker, so that no hop may be skipped. Written by the client.
    blocking: AtomicBool,
    /// Whether the worker has ended. Written by the worker.
    closed: AtomicBool,
    /// Written by any thread that holds the handle.
    rule: AtomicU8,
    pub(super) status: Arc<Status>,
    /// For offline clients that wait. Never used by the audio thread in real time.
    progress: (Mutex<()>, Condvar),
}

impl Shared {
    pub(super) fn new(plan: &Plan, stems: usize, channels: usize) -> Self {
        let latency = plan.latency().0;
        let (block, parts) = (plan.max_block().0, plan.parts());
        // Twice the latency, so that a worker that was blocked that long still finds all the input it needs to continue seamlessly.
        let seamless = 2 * latency + 2 * block + 2 * parts.hop.0;
        // With kept context the worker also looks back to where a loop begins.
        let loops = plan.context().map_or(0, |_| LOOP_SECONDS * u64::from(plan.host_rate()));
        let input = Ring::new(channels, seamless.max(loops) as usize);
        (0..channels).for_each(|channel| input.allocate(channel));
        // The worker writes up to `written`; the client reads from `written` − latency − block on.
        let stems_final = Ring::new(stems * channels, (latency + 2 * block) as usize);
        Self {
            channels,
            stems,
            max_block: block,
            input,
            written: CachePadded::new(AtomicU64::new(latency)),
            jump: AtomicU64::new(0),
            jump_back: AtomicU64::new(0),
            reset: AtomicU64::new(latency),
            stems_final,
            provisional: ProvisionalSlots::new(stems * channels, plan.most_provisional().len()),
            available: CachePadded::new(AtomicU64::new(0)),
            available_from: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            blocking: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            rule: AtomicU8::new(MaskRule::Complete as u8),
            status: Arc::new(Status::new(latency, plan.host_rate(), stems, channels)),
            progress: (Mutex::new(()), Condvar::new()),
        }
    }

    // Called by the client. Realtime-safe, except `wait`.

    /// Stores a piece of input, at most `max_block` samples, after `written`.
    pub(super) fn write_input(&self, channel: usize, at: u64, samples: &[f32]) {
        self.input.write(channel, at, samples);
    }

    /// Call before the first `write_input` of a piece. It lets the worker detect an overrun.
    pub(super) fn begin_input(&self) {
        fence(Release);
    }

    /// Publishes the input up to `position`.
    pub(super) fn publish_input(&self, position: u64) {
        self.written.store(position, Release);
    }

    /// Reads the client's own input, for the dry signal.
    pub(super) fn read_own_input(&self, channel: usize, at: u64, out: &mut [f32]) {
        self.input.read(channel, at, out);
    }

    /// Positions of input that are kept.
    pub(super) fn input_capacity(&self) -> usize {
        self.input.capacity()
    }

    /// Marks a jump at `position`, `back` samples back in the music; 0 if that is not known.
    pub(super) fn mark_jump(&self, position: u64, back: u64) {
        self.jump_back.store(back, Release);
        self.jump.store(position, Release);
    }

    pub(super) fn mark_reset(&self, position: u64) {
        self.reset.store(position, Release);
    }

    pub(super) fn set_blocking(&self, blocking: bool) {
        self.blocking.store(blocking, Relaxed);
    }

    /// `from` may be newer than `until`; it is then greater than `until`.
    pub(super) fn available(&self) -> Availability {
        let available = Availability::unpack(self.available.load(Acquire));
        Availability { from: self.available_from.load(Acquire), ..available }
    }

    pub(super) fn read_final(&self, stem_channel: usize, at: u64, out: &mut [f32]) {
        self.stems_final.read(stem_channel, at, out);
    }

    /// Whether the worker has processed the input up to `position` as far as possible.
    pub(super) fn has_seen(&self, position: u64) -> bool {
        self.seen.load(Acquire) >= position
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    /// Waits until the worker has seen `position`, has ended, or `limit` has passed. Not for the audio thread in real time.
    pub(super) fn wait(&self, position: u64, limit: Duration) {
        let mut guard = self.progress.0.lock();
        if !self.has_seen(position) && !self.is_closed() {
            self.progress.1.wait_for(&mut guard, limit);
        }
    }

    // Called by the worker.

    pub(super) fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    pub(super) fn jump(&self) -> u64 {
        self.jump.load(Acquire)
    }

    /// How far the jump at `position` went back in the music; none if that is not known, or if it is not the last jump.
    pub(super) fn jump_back(&self, position: u64) -> Option<u64> {
        let back = self.jump_back.load(Acquire);
        (self.jump.load(Acquire) == position && back > 0).then_some(back)
    }

    pub(super) fn reset(&self) -> u64 {
        self.reset.load(Acquire)
    }

    pub(super) fn is_blocking(&self) -> bool {
        self.blocking.load(Relaxed)
    }

    /// Gives the rings of a stem channel their memory.
    pub(super) fn allocate_stem(&self, stem_channel: usize) {
        self.stems_final.allocate(stem_channel);
        self.provisional.allocate(stem_channel);
    }

    /// Whether a stem channel has rings. Those without read as silence and need not be written.
    pub(super) fn is_allocated(&self, stem_channel: usize) -> bool {
        self.stems_final.is_allocated(stem_channel)
    }

    /// Oldest position that the client cannot be overwriting now.
    pub(super) fn oldest(&self, written: u64) -> u64 {
        (written + self.max_block).saturating_sub(self.input.capacity() as u64)
    }

    /// Copies input. Call [`overrun`](Self::overrun) after all channels are copied.
    pub(super) fn read_input(&self, channel: usize, at: u64, out: &mut [f32]) {
        self.input.read(channel, at, out);
    }

    /// Whether the client may have overwritten samples from `at` on while they were copied.
    pub(super) fn overrun(&self, at: u64) -> bool {
        // Pairs with the fence in `begin_input`: if a sample of a later piece was read, the cursor before that piece is seen.
        fence(Acquire);
        at < self.oldest(self.written.load(Relaxed))
    }

    pub(super) fn write_final(&self, stem_channel: usize, at: u64, samples: &[f32]) {
        self.stems_final.write(stem_channel, at, samples);
    }

    pub(super) fn publish(&self, available: Availability) {
        self.available_from.store(available.from, Release);
        self.available.store(available.pack(), Release);
    }

    pub(super) fn publish_seen(&self, position: u64) {
        self.seen.store(position, Release);
        if self.is_blocking() {
            drop(self.progress.0.lock());
            self.progress.1.notify_all();
        }
    }

    pub(super) fn close(&self) {
        self.status.set_state(State::Stopped);
        self.closed.store(true, Release);
        drop(self.progress.0.lock());
        self.progress.1.notify_all();
    }

    // Called by any owner of the handle.

    pub(super) fn set_rule(&self, rule: MaskRule) {
        self.rule.store(rule as u8, Relaxed);
    }

    pub(super) fn rule(&self) -> MaskRule {
        if self.rule.load(Relaxed) == MaskRule::Plain as u8 { MaskRule::Plain } else { MaskRule::Complete }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn availability_survives_packing() {
        for slot in [None, Some(0), Some(1), Some(PROVISIONAL_SLOTS - 1)] {
            let available = Availability { from: 0, until: 123_456_789_012, slot };
            assert_eq!(Availability::unpack(available.pack()), available);
        }
    }
}
