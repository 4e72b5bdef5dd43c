//! What a user interface may know of a stream: numbers in atomics, written by client and worker, read by anyone.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use atomic_float::AtomicF32;
use parking_lot::Mutex;

use super::scope::Scope;

/// What the worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// There is no model: the output is the delayed input.
    NoModel = 0,
    /// A model runs.
    Running = 1,
    /// The last window failed; the next is tried.
    Failing = 2,
    /// The model panicked and was taken out. The output is the delayed input until another is put in.
    Panicked = 3,
    /// The worker is gone.
    Stopped = 4,
    /// There is a model, but no window of it yet.
    Starting = 5,
}

/// Counters and meters of one stream.
#[derive(Debug)]
pub struct Status {
    state: AtomicU8,
    latency: u64,
    channels: usize,
    windows: AtomicU64,
    late: AtomicU64,
    skipped: AtomicU64,
    cleaned: AtomicU64,
    load: AtomicF32,
    window_seconds: AtomicF32,
    null_peak: AtomicF32,
    stem_peaks: Box<[AtomicF32]>,
    scope: Scope,
    /// Written by the worker, read by the interface; the audio thread never comes here.
    message: Mutex<Option<String>>,
}

impl Status {
    pub(super) fn new(latency: u64, host_rate: u32, stems: usize, channels: usize) -> Self {
        Self {
            state: AtomicU8::new(State::NoModel as u8),
            latency,
            channels,
            windows: AtomicU64::new(0),
            late: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            cleaned: AtomicU64::new(0),
            load: AtomicF32::new(0.0),
            window_seconds: AtomicF32::new(0.0),
            null_peak: AtomicF32::new(0.0),
            stem_peaks: (0..stems * channels).map(|_| AtomicF32::new(0.0)).collect(),
            scope: Scope::new(host_rate, stems),
            message: Mutex::new(None),
        }
    }

    /// What the worker is doing.
    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            0 => State::NoModel,
            1 => State::Running,
            2 => State::Failing,
            3 => State::Panicked,
            5 => State::Starting,
            _ => State::Stopped,
        }
    }

    /// Latency in host samples; never changes.
    pub fn latency_samples(&self) -> u64 {
        self.latency
    }

    /// Channels of the host, and so of each stem.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Windows that were run.
    pub fn windows(&self) -> u64 {
        self.windows.load(Relaxed)
    }

    /// Windows that were not there when their first sample was to be played.
    pub fn late_windows(&self) -> u64 {
        self.late.load(Relaxed)
    }

    /// Windows that the worker left out because they would have come too late.
    pub fn skipped_windows(&self) -> u64 {
        self.skipped.load(Relaxed)
    }

    /// Samples of stems that were not finite and became 0.
    pub fn cleaned_samples(&self) -> u64 {
        self.cleaned.load(Relaxed)
    }

    /// Share of real time that inference takes, smoothed.
    pub fn load(&self) -> f32 {
        self.load.load(Relaxed)
    }

    /// Time that a window takes, smoothed, in seconds.
    pub fn window_seconds(&self) -> f32 {
        self.window_seconds.load(Relaxed)
    }

    /// Peak of input − Σ stems since the last call; 0 when they null exactly.
    pub fn take_null_peak(&self) -> f32 {
        self.null_peak.swap(0.0, Relaxed)
    }

    /// Peak of a stem in a channel, after its gain, since the last call. `lane` is stem · channels + channel.
    pub fn take_stem_peak(&self, lane: usize) -> f32 {
        self.stem_peaks.get(lane).map_or(0.0, |peak| peak.swap(0.0, Relaxed))
    }

    /// What was played lately.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What went wrong last.
    pub fn message(&self) -> Option<String> {
        self.message.lock().clone()
    }

    /// Keeps everybody else from the lock.
    #[cfg(all(test, feature = "plugin"))]
    pub(crate) fn hold(&self) -> impl Sized {
        self.message.lock()
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    pub(super) fn set_message(&self, message: Option<String>) {
        *self.message.lock() = message;
    }

    pub(super) fn count_window(&self, seconds: f64, load: f64) {
        self.windows.fetch_add(1, Relaxed);
        self.window_seconds.store(seconds as f32, Relaxed);
        self.load.store(load as f32, Relaxed);
    }

    pub(super) fn count_skipped(&self) {
        self.skipped.fetch_add(1, Relaxed);
    }

    pub(super) fn count_cleaned(&self, samples: u64) {
        if samples > 0 {
            self.cleaned.fetch_add(samples, Relaxed);
        }
    }

    /// Realtime-safe.
    pub(super) fn count_late(&self, windows: u64) {
        if windows > 0 {
            self.late.fetch_add(windows, Relaxed);
        }
    }

    /// Realtime-safe: the audio thread is the only one that raises the peak, so load and store do.
    pub(super) fn raise_null_peak(&self, peak: f32) {
        raise(&self.null_peak, peak);
    }

    /// Realtime-safe.
    pub(super) fn raise_stem_peak(&self, lane: usize, peak: f32) {
        if let Some(cell) = self.stem_peaks.get(lane) {
            raise(cell, peak);
        }
    }
}

pub(super) fn raise(cell: &AtomicF32, peak: f32) {
    if peak > cell.load(Relaxed) {
        cell.store(peak, Relaxed);
    }
}
