//! What the audio thread and the thread that matches and reads stems share.
//!
//! ```text
//! audio thread: input + song position ─ rings ─→ player thread: is this what was prepared here? → reads the stems
//! audio thread, one latency later:    ←─ rings ─ stems, and how much of each to use
//! ```
//!
//! All samples have a position: their count since the exchange was opened. The input of a position is decided on while it waits for its output, so
//! the audio thread decides nothing and waits for nobody.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use parking_lot::{Condvar, Mutex};

use crate::live::StemOverlay;
use crate::live::ring::Ring;

/// Song positions that may wait for the player thread.
const MARKS: usize = 4096;
/// Positions in the rings: nearly 12 seconds at 44.1 kHz. They get their memory when they are first used.
const CAPACITY: usize = 1 << 19;

/// The next block has no song position, as the one before.
const NO_SONG: i64 = i64::MIN;
/// The next block needs a mark in any case.
const UNKNOWN: i64 = i64::MAX;

/// Where in the song the input from a position on belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Position of the first sample.
    pub position: u64,
    /// Song position of that sample; none while the transport stands, or where the host does not tell.
    pub song: Option<i64>,
}

/// Rings and cursors.
pub struct Exchange {
    rate: u32,
    channels: usize,
    stems: usize,
    input: Ring,
    /// [stems · channels], and the weights last.
    output: Ring,
    /// End of the input. Written by the audio thread.
    written: CachePadded<AtomicU64>,
    /// End of what is decided. Written by the player thread.
    decided: CachePadded<AtomicU64>,
    /// End of the input that the player has taken. Written by the player thread.
    seen: CachePadded<AtomicU64>,
    marks: ArrayQueue<Mark>,
    /// Song position with which the next block would continue, [`NO_SONG`] or [`UNKNOWN`]. Only for the audio thread.
    next_song: AtomicI64,
    /// Whether a player thread takes the input.
    active: AtomicBool,
    /// Only for offline rendering: wakes the thread that waits, and the player.
    progress: (Mutex<()>, Condvar),
    work: (Mutex<()>, Condvar),
}

impl Exchange {
    /// For a host of `channels` channels at `rate` Hz and up to `stems` stems. Allocates.
    pub fn new(rate: u32, channels: usize, stems: usize) -> Self {
        Self {
            rate,
            channels,
            stems,
            input: Ring::new(channels, CAPACITY),
            output: Ring::new(stems * channels + 1, CAPACITY),
            written: CachePadded::default(),
            decided: CachePadded::default(),
            seen: CachePadded::default(),
            marks: ArrayQueue::new(MARKS),
            next_song: AtomicI64::new(UNKNOWN),
            active: AtomicBool::new(false),
            progress: Default::default(),
            work: Default::default(),
        }
    }

    /// Sample rate in Hz.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Channels of the input and of each stem.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Most stems.
    pub fn stems(&self) -> usize {
        self.stems
    }

    /// Most samples that the player may lag behind the input.
    pub fn capacity(&self) -> u64 {
        // What the audio thread is about to overwrite is left alone.
        (CAPACITY - CAPACITY / 8) as u64
    }

    /// Position of the next input sample.
    ///
    /// Realtime-safe.
    pub fn position(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Takes a block of input, `[channels][samples]`, that belongs to song position `song`.
    ///
    /// Realtime-safe: stores only.
    pub fn push(&self, main: &[&mut [f32]], song: Option<i64>) {
        let position = self.written.load(Relaxed);
        let samples = main.iter().map(|plane| plane.len()).min().unwrap_or(0);
        if samples == 0 {
            return;
        }
        if self.active.load(Relaxed) {
            let code = song.unwrap_or(NO_SONG);
            // Marks are needed where the song does not simply go on, so the queue never fills while the player lives.
            let is_marked =
                code == self.next_song.load(Relaxed) || self.marks.push(Mark { position, song }).is_ok();
            let next = song.map_or(NO_SONG, |song| song.saturating_add(samples as i64));
            self.next_song.store(if is_marked { next } else { UNKNOWN }, Relaxed);
            for channel in 0..self.channels {
                if let Some(plane) = main.get(channel).or(main.last()) {
                    self.input.write(channel, position, plane);
                }
            }
        } else {
            self.next_song.store(UNKNOWN, Relaxed);
        }
        self.written.store(position + samples as u64, Release);
    }

    /// Waits until all input is taken, at most `patience`. For offline rendering only. Returns whether it is.
    pub fn wait_until_seen(&self, patience: Duration) -> bool {
        let (end, until) = (self.written.load(Relaxed), Instant::now() + patience);
        let mut guard = self.progress.0.lock();
        while self.active.load(Relaxed) && self.seen.load(Acquire) < end {
            if Instant::now() >= until {
                return false;
            }
            drop(self.work.0.lock());
            self.work.1.notify_one();
            self.progress.1.wait_for(&mut guard, Duration::from_millis(20));
        }
        true
    }

    /// Whether the player takes the input. While it does not, nothing is kept.
    pub fn set_active(&self, active: bool) {
        for channel in 0..self.channels {
            if active {
                self.input.allocate(channel);
            }
        }
        self.active.store(active, Release);
        self.progress.1.notify_all();
    }

    /// Whether the player takes the input.
    pub fn is_active(&self) -> bool {
        self.active.load(Acquire)
    }

    /// Player thread: sleeps until there may be something to do, at most `longest`.
    pub fn wait_for_work(&self, longest: Duration) {
        let mut guard = self.work.0.lock();
        if self.seen.load(Relaxed) == self.written.load(Acquire) || !self.is_active() {
            self.work.1.wait_for(&mut guard, longest);
        }
    }

    /// Player thread: end of the input.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    /// Player thread: the oldest mark.
    pub(super) fn next_mark(&self) -> Option<Mark> {
        self.marks.pop()
    }

    /// Player thread: reads input. False if it was overwritten meanwhile.
    pub(super) fn read_input(&self, at: u64, planes: &mut [Vec<f32>]) -> bool {
        for (channel, plane) in planes.iter_mut().enumerate() {
            self.input.read(channel, at, plane);
        }
        std::sync::atomic::fence(Acquire);
        self.written.load(Relaxed).saturating_sub(at) <= self.capacity()
    }

    /// Player thread: writes a channel of a stem.
    pub(super) fn write_stem(&self, stem: usize, channel: usize, at: u64, samples: &[f32]) {
        let plane = stem * self.channels + channel;
        self.output.allocate(plane);
        self.output.write(plane, at, samples);
    }

    /// Player thread: silence of all stems that have been used before.
    pub(super) fn clear_stems(&self, at: u64, samples: &[f32]) {
        for plane in (0..self.stems * self.channels).filter(|plane| self.output.is_allocated(*plane)) {
            self.output.write(plane, at, samples);
        }
    }

    /// Player thread: writes weights.
    pub(super) fn write_weights(&self, at: u64, weights: &[f32]) {
        self.output.allocate(self.stems * self.channels);
        self.output.write(self.stems * self.channels, at, weights);
    }

    /// Player thread: publishes what is decided and what was taken.
    pub(super) fn publish(&self, decided: u64, seen: u64) {
        self.decided.store(decided, Release);
        self.seen.store(seen, Release);
    }

    /// Player thread: wakes a render that waits.
    pub(super) fn notify(&self) {
        drop(self.progress.0.lock());
        self.progress.1.notify_all();
    }
}

impl StemOverlay for Exchange {
    fn decided(&self) -> u64 {
        if self.active.load(Relaxed) { self.decided.load(Acquire) } else { 0 }
    }

    fn read_weights(&self, at: u64, out: &mut [f32]) {
        self.output.read(self.stems * self.channels, at, out);
    }

    fn read_stem(&self, stem: usize, channel: usize, at: u64, out: &mut [f32]) {
        self.output.read(stem * self.channels + channel, at, out);
    }
}
