//! Counters and meters of a stream: atomics that client and worker write and any thread may read.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use atomic_float::AtomicF32;
use parking_lot::Mutex;

use super::scope::Scope;

/// State of the worker's half of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// No model is loaded: the output is the delayed input.
    NoModel = 0,
    /// The model runs.
    Running = 1,
    /// The last window failed; the next one is tried.
    Failing = 2,
    /// The model panicked and was removed. The output is the delayed input until another model is set.
    Panicked = 3,
    /// The worker has ended.
    Stopped = 4,
    /// A model is set, but none of its windows is complete yet.
    Starting = 5,
    /// This machine is too slow for the stream beside the others. The output is the delayed input; a probe every few seconds shows whether
    /// it can run again.
    TooSlow = 6,
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
    window_seconds_percentile: AtomicF32,
    null_peak: AtomicF32,
    stem_peaks: Box<[AtomicF32]>,
    scope: Scope,
    /// Written by the worker, read by the user interface; never locked by the audio thread.
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
            window_seconds_percentile: AtomicF32::new(0.0),
            null_peak: AtomicF32::new(0.0),
            stem_peaks: (0..stems * channels).map(|_| AtomicF32::new(0.0)).collect(),
            scope: Scope::new(host_rate, stems),
            message: Mutex::new(None),
        }
    }

    /// State of the worker's half of a stream.
    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            0 => State::NoModel,
            1 => State::Running,
            2 => State::Failing,
            3 => State::Panicked,
            5 => State::Starting,
            6 => State::TooSlow,
            _ => State::Stopped,
        }
    }

    /// Latency in host samples. Constant for the life of a stream.
    pub fn latency_samples(&self) -> u64 {
        self.latency
    }

    /// Channels of the input and of each stem.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Windows that were computed.
    pub fn windows(&self) -> u64 {
        self.windows.load(Relaxed)
    }

    /// Windows that were not ready when their first sample was due.
    pub fn late_windows(&self) -> u64 {
        self.late.load(Relaxed)
    }

    /// Hops that the worker skipped because they were too late for any window.
    pub fn skipped_windows(&self) -> u64 {
        self.skipped.load(Relaxed)
    }

    /// Stem samples that were not finite and were replaced by 0.
    pub fn cleaned_samples(&self) -> u64 {
        self.cleaned.load(Relaxed)
    }

    /// Inference time as a share of real time, smoothed.
    pub fn load(&self) -> f32 {
        self.load.load(Relaxed)
    }

    /// Run time of a window in seconds, smoothed.
    pub fn window_seconds(&self) -> f32 {
        self.window_seconds.load(Relaxed)
    }

    /// Run time that 95 % of the last windows did not exceed, in seconds, silence excluded; none before the first.
    pub fn cost_percentile(&self) -> Option<f64> {
        Some(f64::from(self.window_seconds_percentile.load(Relaxed))).filter(|seconds| *seconds > 0.0)
    }

    /// Peak of |input − Σ stems| since the last call; 0 if the stems sum to the input exactly.
    pub fn take_null_peak(&self) -> f32 {
        self.null_peak.swap(0.0, Relaxed)
    }

    /// Peak of a stem in a channel, after its gain, since the last call. `stem_channel` is stem × channels + channel.
    pub fn take_stem_peak(&self, stem_channel: usize) -> f32 {
        self.stem_peaks.get(stem_channel).map_or(0.0, |peak| peak.swap(0.0, Relaxed))
    }

    /// Recent peaks of input and stems, for a waveform display.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The last error.
    pub fn message(&self) -> Option<String> {
        self.message.lock().clone()
    }

    /// Locks the message, for tests.
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

    pub(super) fn count_window(&self, seconds: f64, load: f64, percentile: Option<f64>) {
        self.windows.fetch_add(1, Relaxed);
        self.window_seconds.store(seconds as f32, Relaxed);
        self.window_seconds_percentile.store(percentile.unwrap_or(0.0) as f32, Relaxed);
        self.load.store(load as f32, Relaxed);
    }

    pub(super) fn count_skipped(&self, windows: u64) {
        self.skipped.fetch_add(windows, Relaxed);
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

    /// Realtime-safe. The audio thread is the only writer that raises the peak, so a load and a store suffice.
    pub(super) fn raise_null_peak(&self, peak: f32) {
        raise(&self.null_peak, peak);
    }

    /// Realtime-safe.
    pub(super) fn raise_stem_peak(&self, stem_channel: usize, peak: f32) {
        if let Some(cell) = self.stem_peaks.get(stem_channel) {
            raise(cell, peak);
        }
    }
}

pub(super) fn raise(cell: &AtomicF32, peak: f32) {
    if peak > cell.load(Relaxed) {
        cell.store(peak, Relaxed);
    }
}
