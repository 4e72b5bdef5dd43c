//! Measures how fast a model runs on this computer, and remembers the result.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::model_loader::LoadedModel;
use super::thread_setting;
use crate::cache_file;
use crate::live::plan::MeasuredCost;
use crate::live::{
    HostSamples, ModelSamples, Scheduler, Tier, WindowError, measure_hop_undisturbed, measure_undisturbed,
};
use crate::live_cost::processor_name;

const CALIBRATION_FILE: &str = "calibration.json";
/// Length of the measured window in seconds: long enough for a stable result, short enough for a slow computer.
const WINDOW_SECONDS: u64 = 2;
/// Time for repeated measurements, in seconds.
const REPEAT_BUDGET_SECONDS: f64 = 0.5;
/// Most repeated measurements.
const MAX_ROUNDS: usize = 20;
/// How long to try while other streams play. Then the cost of their windows has to do.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause after an attempt that gave way to a stream.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// A new measurement within this factor of the remembered one does not replace it, so that the latency stays the same.
const SAME_WITHIN: f64 = 1.25;
/// Largest number of models that are remembered.
const MAX_ENTRIES: usize = 256;

/// The cache file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct CalibrationRecord {
    /// By computer, version, and model; and in each by device, kernel, precision and threads.
    #[serde(default)]
    measurements: BTreeMap<String, BTreeMap<String, CalibrationEntry>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct CalibrationEntry {
    /// Samples of the measured window.
    window: u64,
    seconds: f64,
    /// See [`MeasuredCost::per_hop`].
    #[serde(default)]
    per_hop: f64,
    /// Channels that the model separates jointly.
    channels: usize,
    /// The setting of the number of threads; 0 in files of older versions.
    #[serde(default)]
    threads: usize,
    /// Number of the measurement. The latest is used before the model is loaded.
    serial: u64,
}

impl CalibrationEntry {
    /// The cost for a host with `channels`, if the entry is valid.
    fn cost(self, channels: usize) -> Option<MeasuredCost> {
        let valid = self.window > 0 && self.seconds.is_finite() && self.seconds > 0.0;
        let measured = MeasuredCost {
            window: ModelSamples(self.window),
            seconds: self.seconds,
            per_hop: if self.per_hop.is_finite() { self.per_hop.max(0.0) } else { 0.0 },
        };
        valid.then(|| measured.for_channels(channels, self.channels))
    }
}

impl CalibrationRecord {
    /// The entry of a model. See [`stored_measurement`].
    fn find(&self, sha256: &str, runs_on: Option<&str>, threads: usize) -> Option<CalibrationEntry> {
        match runs_on {
            Some(runs_on) => self.measurements.get(&key(sha256))?.get(runs_on).copied(),
            None => self.find_latest(sha256, "", threads),
        }
    }

    /// The latest entry of a model on a device, with this setting of threads. `prefix`: how the names of that device begin.
    fn find_latest(&self, sha256: &str, prefix: &str, threads: usize) -> Option<CalibrationEntry> {
        let entries = self.measurements.get(&key(sha256))?.iter();
        let fitting =
            entries.filter(|(runs_on, entry)| runs_on.starts_with(prefix) && entry.threads == threads);
        fitting.max_by_key(|(_, entry)| entry.serial).map(|(_, entry)| *entry)
    }

    fn insert(&mut self, sha256: &str, runs_on: &str, entry: CalibrationEntry) {
        let entries = self.measurements.values().flat_map(BTreeMap::values);
        let serial = entries.map(|entry| entry.serial).max().unwrap_or(0) + 1;
        let entry = CalibrationEntry { serial, ..entry };
        self.measurements.entry(key(sha256)).or_default().insert(runs_on.into(), entry);
        while self.measurements.len() > MAX_ENTRIES {
            let age = |entries: &BTreeMap<String, CalibrationEntry>| entries.values().map(|e| e.serial).max();
            let oldest = self.measurements.iter().min_by_key(|(_, entries)| age(entries));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            self.measurements.remove(&oldest);
        }
    }
}

/// What this process knows, so that a measurement holds although the cache folder cannot be written.
static KNOWN: Mutex<CalibrationRecord> = Mutex::new(CalibrationRecord { measurements: BTreeMap::new() });

/// The remembered measurement of a model, by its SHA-256, for a host with `host_channels`. It works before the model is loaded, so that the
/// latency is right from the first activation. `runs_on`: device, kernel, precision and threads of the loaded model; without it, the latest
/// measurement with the present setting of threads counts.
pub fn stored_measurement(sha256: &str, runs_on: Option<&str>, host_channels: usize) -> Option<MeasuredCost> {
    let threads = thread_setting::current();
    let known = KNOWN.lock().find(sha256, runs_on, threads);
    let entry = known.or_else(|| {
        // Another process may have measured it.
        let record: CalibrationRecord = cache_file::read(CALIBRATION_FILE);
        let entry = record.find(sha256, runs_on, threads)?;
        if let Some(runs_on) = runs_on {
            KNOWN.lock().insert(sha256, runs_on, entry);
        }
        Some(entry)
    });
    entry?.cost(host_channels)
}

/// As [`stored_measurement`] before the model is loaded, of the latest measurement on a device. `prefix`: how the names of that device begin.
pub fn stored_measurement_on(sha256: &str, prefix: &str, host_channels: usize) -> Option<MeasuredCost> {
    let threads = thread_setting::current();
    let known = KNOWN.lock().find_latest(sha256, prefix, threads);
    let read =
        || cache_file::read::<CalibrationRecord>(CALIBRATION_FILE).find_latest(sha256, prefix, threads);
    known.or_else(read)?.cost(host_channels)
}

/// Remembers a measurement that was made while nothing else ran. Returns what holds from now on: the measurement before, if the new one is
/// nearly the same.
pub fn remember(model: &LoadedModel, cost: MeasuredCost, host_channels: usize) -> MeasuredCost {
    let (runs_on, channels) = (model.model.runs_on(), model.model.channels());
    if let Some(before) = stored_measurement(&model.sha256, Some(runs_on), host_channels)
        && is_same(before, cost.for_channels(host_channels, channels))
    {
        return before;
    }
    store(&model.sha256, runs_on, cost, channels);
    cost.for_channels(host_channels, channels)
}

fn is_same(a: MeasuredCost, b: MeasuredCost) -> bool {
    let same = |a: f64, b: f64| (1.0 / SAME_WITHIN..=SAME_WITHIN).contains(&(a / b));
    a.window == b.window && same(a.seconds, b.seconds) && same(a.seconds + a.per_hop, b.seconds + b.per_hop)
}

fn store(sha256: &str, runs_on: &str, cost: MeasuredCost, channels: usize) {
    let threads = thread_setting::current();
    let MeasuredCost { window, seconds, per_hop } = cost;
    let entry = CalibrationEntry { window: window.0, seconds, per_hop, channels, threads, serial: 0 };
    KNOWN.lock().insert(sha256, runs_on, entry);
    cache_file::update(CALIBRATION_FILE, |record: &mut CalibrationRecord| {
        record.insert(sha256, runs_on, entry);
    });
}

/// Result of [`calibrate`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Calibration {
    /// Measured now, for one group of the model's channels. See [`remember`].
    Measured(MeasuredCost),
    /// Remembered from before, for all channels of the host.
    Remembered(MeasuredCost),
    /// Streams that play left no room for it.
    Busy,
}

/// Measures `model`. It gives way to streams that play, between two layers. Instances measure one after the other, because they would slow
/// each other down. A result that another instance remembered meanwhile is used, unless `force`.
///
/// # Errors
/// Errors of the model, and cancellation by `stop`, which is checked while waiting and between layers.
pub fn calibrate(
    model: &LoadedModel,
    host_channels: usize,
    force: bool,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Calibration, WindowError> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = loop {
        if stop() {
            return Err(stopped());
        }
        if let Some(one) = ONE.try_lock_for(Duration::from_millis(50)) {
            break one;
        }
    };
    let runs_on = model.model.runs_on();
    if !force && let Some(cost) = stored_measurement(&model.sha256, Some(runs_on), host_channels) {
        return Ok(Calibration::Remembered(cost));
    }
    let timing = model.model.timing();
    let longest = (WINDOW_SECONDS * u64::from(timing.rate)).min(timing.chunk.0);
    let window = ModelSamples(longest.max(2 * timing.frame.0));
    let started = Instant::now();
    let mut rounds = Rounds::default();
    while !rounds.are_complete() {
        let run = |disturbed: Disturbed<'_>| measure_undisturbed(&model.model, window, disturbed);
        match with_patience(started, stop, run)? {
            Some(seconds) => rounds.add(seconds),
            None => break,
        }
    }
    let Some(seconds) = rounds.shortest else { return Ok(Calibration::Busy) };
    let cost = MeasuredCost { window, seconds, per_hop: 0.0 };
    let request = Tier::Live.request(&timing, timing.rate, HostSamples(1));
    let Some(context) = request.context else { return Ok(Calibration::Measured(cost)) };
    let fill = cost.frames_to_fill(context);
    let run = |disturbed: Disturbed<'_>| measure_hop_undisturbed(&model.model, context, fill, disturbed);
    let hop = with_patience(started, stop, run)?;
    Ok(hop.map_or(Calibration::Busy, |hop| Calibration::Measured(cost.with_hop(&request, hop))))
}

/// Tells whether something else runs.
type Disturbed<'a> = &'a (dyn Fn() -> bool + Sync);

/// Runs `attempt` until it succeeds undisturbed by streams; none if that takes longer than [`PATIENCE`] from `started` on.
fn with_patience(
    started: Instant,
    stop: Disturbed<'_>,
    attempt: impl Fn(Disturbed<'_>) -> Result<Option<f64>, WindowError>,
) -> Result<Option<f64>, WindowError> {
    let scheduler = Scheduler::of_process().ok();
    let progress = || scheduler.as_ref().map_or(0, Scheduler::progress);
    loop {
        if stop() {
            return Err(stopped());
        }
        let before = progress();
        match attempt(&|| stop() || progress() != before)? {
            None if started.elapsed() < PATIENCE => std::thread::sleep(RETRY_PAUSE),
            outcome => return Ok(outcome),
        }
    }
}

fn stopped() -> WindowError {
    WindowError("the measurement was stopped".into())
}

/// The runs of a measurement: the first warms up, a slow model then runs once, and a fast one several times.
#[derive(Debug, Default)]
struct Rounds {
    is_warm: bool,
    count: usize,
    total: f64,
    shortest: Option<f64>,
}

impl Rounds {
    fn add(&mut self, seconds: f64) {
        if std::mem::replace(&mut self.is_warm, true) {
            self.count += 1;
            self.total += seconds;
            self.shortest = Some(self.shortest.map_or(seconds, |shortest| shortest.min(seconds)));
        }
    }

    fn are_complete(&self) -> bool {
        self.count > 0 && (self.total >= REPEAT_BUDGET_SECONDS || self.count >= MAX_ROUNDS)
    }
}

/// What is known before the model is loaded: the computer, the version of the code, and the model.
fn key(sha256: &str) -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} threads | {} | {sha256}", processor_name(), env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREADS: &str = "cpu, avx2, f32, 2 threads";

    fn cost(seconds: f64) -> MeasuredCost {
        MeasuredCost { window: ModelSamples(88_200), seconds, per_hop: 0.0 }
    }

    #[test]
    fn a_measurement_belongs_to_its_device_kernel_and_precision() {
        let model = "calibration-key-test";
        assert_eq!(stored_measurement(model, None, 2), None);
        store(model, THREADS, cost(1.0), 2);
        store(model, "cpu, amx, bf16, 2 threads", cost(0.25), 2);
        assert_eq!(stored_measurement(model, Some(THREADS), 2), Some(cost(1.0)));
        assert_eq!(stored_measurement(model, Some("cpu, avx2, f32, 4 threads"), 2), None);
        assert_eq!(stored_measurement(model, None, 2), Some(cost(0.25)), "the latest");
        store(model, THREADS, cost(0.5), 2);
        assert_eq!(stored_measurement(model, None, 2), Some(cost(0.5)));
        assert!(key(model).contains(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn before_loading_only_the_present_number_of_threads_counts() {
        let threads = thread_setting::current();
        let entry = |seconds, threads| CalibrationEntry {
            window: 88_200,
            seconds,
            per_hop: 0.0,
            channels: 2,
            threads,
            serial: 0,
        };
        let mut record = CalibrationRecord::default();
        record.insert("m", "a", entry(1.0, threads));
        record.insert("m", "b", entry(2.0, threads + 1));
        assert_eq!(record.find("m", None, threads).map(|entry| entry.seconds), Some(1.0));
        assert_eq!(record.find("m", None, threads + 1).map(|entry| entry.seconds), Some(2.0));
        assert_eq!(record.find("m", None, threads + 2), None);
        assert_eq!(record.find("m", Some("b"), threads).map(|entry| entry.seconds), Some(2.0));
        let old: CalibrationEntry =
            serde_json::from_str(r#"{"window":1,"seconds":1.0,"channels":2,"serial":3}"#).unwrap();
        assert_eq!(old.threads, 0);
    }

    #[test]
    fn before_loading_only_the_chosen_device_counts() {
        let model = "calibration-device-test";
        store(model, "cpu, avx2, f32, 2 threads", cost(1.0), 2);
        store(model, "worker: cuda:0, candle, f32, 2 threads", cost(0.25), 2);
        let seconds = |prefix| stored_measurement_on(model, prefix, 2).map(|cost| cost.seconds);
        assert_eq!((seconds("cpu,"), seconds("worker: cuda:0,")), (Some(1.0), Some(0.25)));
        assert_eq!((seconds("worker: cuda:1,"), seconds("")), (None, Some(0.25)));
    }

    #[test]
    fn another_process_reads_what_one_has_measured() {
        store("read-back", THREADS, cost(0.75), 2);
        KNOWN.lock().measurements.remove(&key("read-back"));
        assert_eq!(stored_measurement("read-back", None, 2), Some(cost(0.75)));
        assert_eq!(stored_measurement("read-back", Some(THREADS), 2), Some(cost(0.75)));
        assert!(KNOWN.lock().measurements.contains_key(&key("read-back")));
    }

    #[test]
    fn a_mono_model_in_a_stereo_host_costs_twice() {
        store("mono-model", "cpu", cost(0.5), 1);
        assert_eq!(stored_measurement("mono-model", None, 2).unwrap().seconds, 1.0);
        assert_eq!(stored_measurement("mono-model", None, 1).unwrap().seconds, 0.5);
    }

    #[test]
    fn nearly_equal_measurements_are_one() {
        for (seconds, same) in [(1.0, true), (1.2, true), (0.81, true), (1.3, false), (0.7, false)] {
            assert_eq!(is_same(cost(1.0), cost(seconds)), same, "{seconds}");
        }
        let other = MeasuredCost { window: ModelSamples(1), seconds: 1.0, per_hop: 0.0 };
        assert!(!is_same(cost(1.0), other));
        assert!(!is_same(cost(1.0), cost(f64::NAN)));
    }

    #[test]
    fn the_first_run_only_warms_up_and_slow_models_run_once_more() {
        let run = |seconds: &[f64]| {
            let mut rounds = Rounds::default();
            let needed = seconds.iter().take_while(|seconds| {
                let more = !rounds.are_complete();
                if more {
                    rounds.add(**seconds);
                }
                more
            });
            (needed.count(), rounds.shortest)
        };
        assert_eq!(run(&[9.0]), (1, None));
        assert_eq!(run(&[9.0, 3.0, 1.0]), (2, Some(3.0)));
        assert_eq!(run(&[9.0, 0.3, 0.2, 0.1]), (3, Some(0.2)));
        assert_eq!(run(&[0.001; 100]), (1 + MAX_ROUNDS, Some(0.001)));
    }

    #[test]
    fn nonsense_in_the_file_is_ignored() {
        let entry = |window, seconds, channels| CalibrationEntry {
            window,
            seconds,
            per_hop: 0.0,
            channels,
            threads: 1,
            serial: 1,
        };
        for (window, seconds) in [(0, 1.0), (1, 0.0), (1, f64::NAN), (1, -1.0), (1, f64::INFINITY)] {
            assert_eq!(entry(window, seconds, 2).cost(2), None);
        }
        assert_eq!(entry(1, 1.0, 0).cost(2).unwrap().seconds, 2.0);
    }
}
