//! What client and worker share: rings of samples, and cursors that say which of them are valid.
//!
//! Positions are host samples since the stream was opened and only ever grow; a reset or a jump is a mark at a position. So an answer that
//! comes after a reset is for positions that nobody will ask for, and cannot be taken for another.

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

/// Which stems there are: all from `from` to `until` are final, and `tail` says where the provisional ones are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// Where the last gap ended. Not packed: it has a cursor of its own, that is written first.
    pub(super) from: u64,
    pub(super) until: u64,
    /// The tail ring that holds provisional stems from `until` on; none after the end of a segment.
    pub(super) tail: Option<usize>,
}

impl Ready {
    fn pack(self) -> u64 {
        self.until << 2 | self.tail.map_or(0, |parity| 2 | parity as u64 & 1)
    }

    fn unpack(bits: u64) -> Self {
        Self { from: 0, until: bits >> 2, tail: (bits & 2 != 0).then_some((bits & 1) as usize) }
    }
}

pub(super) struct Shared {
    pub(super) channels: usize,
    pub(super) stems: usize,
    /// Most samples that the client adds before it says so.
    pub(super) max_block: u64,
    /// The input, written by the client: [channels]. The worker reads it, and the client itself reads the dry signal from it.
    input: Ring,
    /// Position up to which the input is there. Client.
    written: CachePadded<AtomicU64>,
    /// Position of the last jump: what comes from there on has nothing to do with what came before. Client.
    jump: AtomicU64,
    /// Position of the last reset: nothing before it counts any more. Client.
    reset: AtomicU64,
    /// Final stems, written by the worker: [stems · channels].
    stems_final: Ring,
    /// Provisional stems of the last two windows, by turns. Worker.
    stems_tail: [Ring; 2],
    /// Which window each of these belongs to: [`Ready::until`] of it. Written before the samples, so that a reader can tell whether they
    /// were replaced under its hands. Worker.
    tail_of: [AtomicU64; 2],
    /// [`Ready`], packed. Worker.
    ready: CachePadded<AtomicU64>,
    /// [`Ready::from`]. Worker.
    ready_from: AtomicU64,
    /// `written` as it was when the worker had nothing left to do. Worker.
    seen: AtomicU64,
    /// Whether the client waits for the worker, so that no window may be left out. Client.
    blocking: AtomicBool,
    /// Whether the worker is gone. Worker.
    closed: AtomicBool,
    /// Any thread that holds the handle.
    rule: AtomicU8,
    pub(super) status: Arc<Status>,
    /// For clients that wait. Never touched by the audio thread in real time.
    progress: (Mutex<()>, Condvar),
}

impl Shared {
    pub(super) fn new(plan: &Plan, stems: usize, channels: usize) -> Self {
        let latency = plan.latency().0;
        let (block, parts) = (plan.max_block().0, plan.parts());
        // Twice the latency, so that a worker which slept that long still finds all it needs to go on without a seam.
        let input = 2 * latency + 2 * block + 2 * parts.hop.0;
        // The worker writes at most at `written`, the client reads at least at `written` − latency − block.
        let stems_final = latency + 2 * block;
        let status = Arc::new(Status::new(latency, plan.host_rate(), stems, channels));
        let tail = parts.lookahead.len();
        Self {
            channels,
            stems,
            max_block: block,
            input: Ring::new(channels, input as usize),
            written: CachePadded::new(AtomicU64::new(latency)),
            jump: AtomicU64::new(0),
            reset: AtomicU64::new(latency),
            stems_final: Ring::new(stems * channels, stems_final as usize),
            stems_tail: [Ring::new(stems * channels, tail), Ring::new(stems * channels, tail)],
            tail_of: [const { AtomicU64::new(0) }; 2],
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

    // The client's half. Realtime-safe, all but `wait`.

    /// Stores a piece of input, at most `max_block` samples, in front of `written`.
    pub(super) fn put_input(&self, channel: usize, at: u64, samples: &[f32]) {
        self.input.write(channel, at, samples);
    }

    /// To be called before the first `put_input` of a piece: lets the worker notice that it was overrun.
    pub(super) fn begin_input(&self) {
        fence(Release);
    }

    /// Says that the input is there up to `position`.
    pub(super) fn publish_input(&self, position: u64) {
        self.written.store(position, Release);
    }

    /// The client's own input, `latency` ago.
    pub(super) fn own_input(&self, channel: usize, at: u64, out: &mut [f32]) {
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

    /// `from` may be newer than the rest, which shows in its being past `until`.
    pub(super) fn ready(&self) -> Ready {
        let ready = Ready::unpack(self.ready.load(Acquire));
        Ready { from: self.ready_from.load(Acquire), ..ready }
    }

    pub(super) fn read_final(&self, lane: usize, at: u64, out: &mut [f32]) {
        self.stems_final.read(lane, at, out);
    }

    /// Reads provisional stems of the window after `until`. False when a later window has taken their place.
    pub(super) fn read_tail(&self, parity: usize, until: u64, lane: usize, at: u64, out: &mut [f32]) -> bool {
        let (Some(ring), Some(owner)) = (self.stems_tail.get(parity), self.tail_of.get(parity)) else {
            return false;
        };
        ring.read(lane, at, out);
        // Pairs with the fence in `begin_tail`: if a sample of a later window was read, so is its mark.
        fence(Acquire);
        owner.load(Relaxed) == until
    }

    /// Whether the worker has done all it can with the input up to `position`.
    pub(super) fn has_seen(&self, position: u64) -> bool {
        self.seen.load(Acquire) >= position
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    /// Waits until the worker has seen `position`, is gone, or `limit` is over. Not for the audio thread in real time.
    pub(super) fn wait(&self, position: u64, limit: Duration) {
        let mut guard = self.progress.0.lock();
        if !self.has_seen(position) && !self.is_closed() {
            self.progress.1.wait_for(&mut guard, limit);
        }
    }

    // The worker's half.

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

    /// Oldest position that the client surely does not overwrite now.
    pub(super) fn oldest(&self, written: u64) -> u64 {
        (written + self.max_block).saturating_sub(self.input.capacity() as u64)
    }

    /// Copies input. Call [`overrun`](Self::overrun) when all channels are copied.
    pub(super) fn take_input(&self, channel: usize, at: u64, out: &mut [f32]) {
        self.input.read(channel, at, out);
    }

    /// Whether the client may have overwritten samples from `at` on while they were copied.
    pub(super) fn overrun(&self, at: u64) -> bool {
        // Pairs with the fence in `begin_input`: if a sample of a later piece was read, the cursor before that piece is seen.
        fence(Acquire);
        at < self.oldest(self.written.load(Relaxed))
    }

    pub(super) fn put_final(&self, lane: usize, at: u64, samples: &[f32]) {
        self.stems_final.write(lane, at, samples);
    }

    /// To be called before the first `put_tail` of a window.
    pub(super) fn begin_tail(&self, parity: usize, until: u64) {
        self.tail_of[parity & 1].store(until, Relaxed);
        fence(Release);
    }

    pub(super) fn put_tail(&self, parity: usize, lane: usize, at: u64, samples: &[f32]) {
        self.stems_tail[parity & 1].write(lane, at, samples);
    }

    pub(super) fn publish(&self, ready: Ready) {
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

    // The handle's.

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
    fn ready_survives_packing() {
        for tail in [None, Some(0), Some(1)] {
            let ready = Ready { from: 0, until: 123_456_789_012, tail };
            assert_eq!(Ready::unpack(ready.pack()), ready);
        }
    }
}
