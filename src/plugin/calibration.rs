//! Measures how fast a model runs on this computer, and remembers the result.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::cache_file;
use super::model_loader::LoadedModel;
use crate::live::{ModelSamples, WindowError, measure, plan};

const CALIBRATION_FILE: &str = "calibration.json";
/// Length of the measured window in seconds: long enough for a stable result, short enough for a slow computer.
const WINDOW_SECONDS: u64 = 2;
/// Time for repeated measurements, in seconds.
const REPEAT_BUDGET_SECONDS: f64 = 0.5;
/// Largest number of models that are remembered.
const MAX_ENTRIES: usize = 256;

/// The cache file.
#[derive(Debug, Default, Serialize, Deserialize)]
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
    /// Channels that the model separates jointly.
    channels: usize,
    /// Number of the measurement. The latest is used before the model is loaded.
    serial: u64,
}

impl CalibrationEntry {
    /// The cost for a host with `channels`, if the entry is valid.
    fn cost(self, channels: usize) -> Option<plan::MeasuredCost> {
        let valid = self.window > 0 && self.seconds.is_finite() && self.seconds > 0.0;
        let measured = plan::MeasuredCost { window: ModelSamples(self.window), seconds: self.seconds };
        valid.then(|| for_channels(measured, channels, self.channels))
    }
}

/// The cost of a stream of `host_channels`. A model of fewer channels runs several times for each window.
pub fn for_channels(
    cost: plan::MeasuredCost,
    host_channels: usize,
    model_channels: usize,
) -> plan::MeasuredCost {
    let runs = host_channels.max(1).div_ceil(model_channels.max(1));
    plan::MeasuredCost { seconds: cost.seconds * runs as f64, ..cost }
}

/// The stored measurement of a model, by its SHA-256, for a host with `host_channels`. It works before the model is loaded, so that the latency
/// is right from the first activation. `runs_on`: device, kernel, precision and threads of the loaded model; without it, the latest
/// measurement counts.
pub fn stored_measurement(
    sha256: &str,
    runs_on: Option<&str>,
    host_channels: usize,
) -> Option<plan::MeasuredCost> {
    let record: CalibrationRecord = cache_file::read(CALIBRATION_FILE);
    let entries = record.measurements.get(&key(sha256))?;
    let entry = match runs_on {
        Some(runs_on) => entries.get(runs_on),
        None => entries.values().max_by_key(|entry| entry.serial),
    };
    entry?.cost(host_channels)
}

/// Measures `model` for a host with `host_channels` and stores the result. Instances measure one after the other, because they would slow each
/// other down. A result that another instance stored meanwhile is used, unless `force`.
///
/// # Errors
/// Errors of the model, and cancellation by `stop`, which is checked while waiting and between windows.
pub fn calibrate(
    model: &LoadedModel,
    host_channels: usize,
    force: bool,
    stop: &dyn Fn() -> bool,
) -> Result<plan::MeasuredCost, WindowError> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = loop {
        if stop() {
            return Err(WindowError("the measurement was stopped".into()));
        }
        if let Some(one) = ONE.try_lock_for(Duration::from_millis(50)) {
            break one;
        }
    };
    let runs_on = model.model.runs_on();
    if !force && let Some(measured) = stored_measurement(&model.sha256, Some(runs_on), host_channels) {
        return Ok(measured);
    }
    let timing = model.model.timing();
    let longest = (WINDOW_SECONDS * u64::from(timing.rate)).min(timing.chunk.0);
    let window = ModelSamples(longest.max(2 * timing.frame.0));
    // Measure a fast model several times, because the computer may be busy now. A slow model is measured once.
    let once = measure(&model.model, window, 1, stop)?;
    let rounds = (REPEAT_BUDGET_SECONDS / once.seconds.max(1e-6)).clamp(0.0, 20.0) as usize;
    let again = if rounds > 0 { measure(&model.model, window, rounds, stop)? } else { once };
    let measured = plan::MeasuredCost { window, seconds: once.seconds.min(again.seconds) };
    store(&model.sha256, runs_on, measured, model.model.channels());
    Ok(for_channels(measured, host_channels, model.model.channels()))
}

fn store(sha256: &str, runs_on: &str, cost: plan::MeasuredCost, channels: usize) {
    cache_file::update(CALIBRATION_FILE, |record: &mut CalibrationRecord| {
        let entries = record.measurements.values().flat_map(BTreeMap::values);
        let serial = entries.map(|entry| entry.serial).max().unwrap_or(0) + 1;
        let entry = CalibrationEntry { window: cost.window.0, seconds: cost.seconds, channels, serial };
        record.measurements.entry(key(sha256)).or_default().insert(runs_on.into(), entry);
        while record.measurements.len() > MAX_ENTRIES {
            let age = |entries: &BTreeMap<String, CalibrationEntry>| entries.values().map(|e| e.serial).max();
            let oldest = record.measurements.iter().min_by_key(|(_, entries)| age(entries));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            record.measurements.remove(&oldest);
        }
    });
}

/// What is known before the model is loaded: the computer, the version of the code, and the model.
fn key(sha256: &str) -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} threads | {} | {sha256}", processor_name(), env!("CARGO_PKG_VERSION"))
}

/// Name of the processor, if the system provides it. Computers may share a cache folder.
fn processor_name() -> String {
    let linux = || {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    linux()
        .or_else(|| std::env::var("PROCESSOR_IDENTIFIER").ok())
        .unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_belongs_to_its_device_kernel_and_precision() {
        let cost = |seconds| plan::MeasuredCost { window: ModelSamples(88_200), seconds };
        let model = "calibration-key-test";
        assert_eq!(stored_measurement(model, None, 2), None);
        store(model, "cpu, avx2, f32, 2 threads", cost(1.0), 2);
        store(model, "cpu, amx, bf16, 2 threads", cost(0.25), 2);
        assert_eq!(stored_measurement(model, Some("cpu, avx2, f32, 2 threads"), 2), Some(cost(1.0)));
        assert_eq!(stored_measurement(model, Some("cpu, avx2, f32, 4 threads"), 2), None);
        assert_eq!(stored_measurement(model, None, 2), Some(cost(0.25)), "the latest");
        store(model, "cpu, avx2, f32, 2 threads", cost(0.5), 2);
        assert_eq!(stored_measurement(model, None, 2), Some(cost(0.5)));
        assert!(key(model).contains(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_mono_model_in_a_stereo_host_costs_twice() {
        let cost = plan::MeasuredCost { window: ModelSamples(100), seconds: 0.5 };
        assert_eq!(for_channels(cost, 2, 1).seconds, 1.0);
        assert_eq!(for_channels(cost, 1, 2).seconds, 0.5);
        assert_eq!(for_channels(cost, 2, 2).seconds, 0.5);
        store("mono-model", "cpu", cost, 1);
        assert_eq!(stored_measurement("mono-model", None, 2).unwrap().seconds, 1.0);
        assert_eq!(stored_measurement("mono-model", None, 1).unwrap().seconds, 0.5);
    }

    #[test]
    fn nonsense_in_the_file_is_ignored() {
        for (window, seconds) in [(0, 1.0), (1, 0.0), (1, f64::NAN), (1, -1.0), (1, f64::INFINITY)] {
            assert_eq!(CalibrationEntry { window, seconds, channels: 2, serial: 1 }.cost(2), None);
        }
        let absurd = CalibrationEntry { window: 1, seconds: 1.0, channels: 0, serial: 1 };
        assert_eq!(absurd.cost(2).unwrap().seconds, 2.0);
    }
}
