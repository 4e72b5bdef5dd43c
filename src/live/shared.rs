//! State shared by client and worker: rings of samples, and cursors that say which positions are valid.
//!
//! Positions are host samples since the stream was opened and only grow; a reset or a jump is a mark at a position. So a result that arrives
//! after a reset belongs to positions that are never read, and cannot be mistaken for a newer one.

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

/// Which stems are available: final ones from `from` to `until`, and provisional ones in the ring `provisional`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Availability {
    /// End of the last gap. It has its own cursor, which is written first.
    pub(super) from: u64,
    pub(super) until: u64,
    /// Index of the ring of provisional stems from `until` on; none after the end of a segment.
    pub(super) provisional: Option<usize>,
}

impl Availability {
    fn pack(self) -> u64 {
        self.until << 2 | self.provisional.map_or(0, |parity| 2 | parity as u64 & 1)
    }

    fn unpack(bits: u64) -> Self {
        Self { from: 0, until: bits >> 2, provisional: (bits & 2 != 0).then_some((bits & 1) as usize) }
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
    /// Position of the last reset: earlier input is ignored. Written by the client.
    reset: AtomicU64,
    /// Final stems, [stems × channels]. Written by the worker.
    stems_final: Ring,
    /// Provisional stems of the last two windows, alternating. Written by the worker.
    stems_provisional: [Ring; 2],
    /// [`Availability::until`] of the window in each of these rings. Written before the samples, so that a reader notices if they were
    /// replaced while it read them. Written by the worker.
    provisional_of: [AtomicU64; 2],
    /// [`Availability`], packed. Written by the worker.
    ready: CachePadded<AtomicU64>,
    /// [`Availability::from`]. Written by the worker.
    ready_from: AtomicU64,
    /// The value of `written` when the worker last ran out of work. Written by the worker.
    seen: AtomicU64,
    /// Whether the client waits for the worker, so that no window may be skipped. Written by the client.
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
        let input = 2 * latency + 2 * block + 2 * parts.hop.0;
        // The worker writes up to `written`; the client reads from `written` − latency − block on.
        let stems_final = latency + 2 * block;
        let status = Arc::new(Status::new(latency, plan.host_rate(), stems, channels));
        let provisional = parts.lookahead.len();
        Self {
            channels,
            stems,
            max_block: block,
            input: Ring::new(channels, input as usize),
            written: CachePadded::new(AtomicU64::new(latency)),
            jump: AtomicU64::new(0),
            reset: AtomicU64::new(latency),
            stems_final: Ring::new(stems * channels, stems_final as usize),
            stems_provisional: [(); 2].map(|()| Ring::new(stems * channels, provisional)),
            provisional_of: [const { AtomicU64::new(0) }; 2],
            ready: CachePadded::new(AtomicU64::new(0)),
            ready_from: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            blocking: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            rule: AtomicU8::new(MaskRule::Complete as u8),
            status,
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

    pub(super) fn mark_jump(&self, position: u64) {
        self.jump.store(position, Release);
    }

    pub(super) fn mark_reset(&self, position: u64) {
        self.reset.store(position, Release);
    }

    pub(super) fn set_blocking(&self, blocking: bool) {
        self.blocking.store(blocking, Relaxed);
    }

    /// `from` may be newer than `until`; it is then greater than `until`.
    pub(super) fn ready(&self) -> Availability {
        let ready = Availability::unpack(self.ready.load(Acquire));
        Availability { from: self.ready_from.load(Acquire), ..ready }
    }

    pub(super) fn read_final(&self, stem_channel: usize, at: u64, out: &mut [f32]) {
        self.stems_final.read(stem_channel, at, out);
    }

    /// Reads provisional stems that follow `until`. False if a later window has replaced them.
    pub(super) fn read_provisional(
        &self,
        parity: usize,
        until: u64,
        stem_channel: usize,
        at: u64,
        out: &mut [f32],
    ) -> bool {
        let (Some(ring), Some(owner)) = (self.stems_provisional.get(parity), self.provisional_of.get(parity))
        else {
            return false;
        };
        ring.read(stem_channel, at, out);
        // Pairs with the fence in `begin_provisional`: if a sample of a later window was read, so is its mark.
        fence(Acquire);
        owner.load(Relaxed) == until
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

    pub(super) fn reset(&self) -> u64 {
        self.reset.load(Acquire)
    }

    pub(super) fn is_blocking(&self) -> bool {
        self.blocking.load(Relaxed)
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

    /// Call before the first `write_provisional` of a window.
    pub(super) fn begin_provisional(&self, parity: usize, until: u64) {
        self.provisional_of[parity & 1].store(until, Relaxed);
        fence(Release);
    }

    pub(super) fn write_provisional(&self, parity: usize, stem_channel: usize, at: u64, samples: &[f32]) {
        self.stems_provisional[parity & 1].write(stem_channel, at, samples);
    }

    pub(super) fn publish(&self, ready: Availability) {
        self.ready_from.store(ready.from, Release);
        self.ready.store(ready.pack(), Release);
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
        for provisional in [None, Some(0), Some(1)] {
            let ready = Availability { from: 0, until: 123_456_789_012, provisional };
            assert_eq!(Availability::unpack(ready.pack()), ready);
        }
    }
}
