//! Measures how fast a model runs on this computer, and remembers the result.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::cache_file;
use super::model_loader::LoadedModel;
use crate::live::{ModelSamples, WindowError, measure, plan};

const RECORD: &str = "calibration.json";
/// Length of the measured window in seconds: long enough for a stable result, short enough for a slow computer.
const WINDOW_SECONDS: u64 = 2;
/// Time for repeated measurements, in seconds.
const REPEAT_BUDGET_SECONDS: f64 = 0.5;

/// Measured windows, by computer and model.
#[derive(Debug, Default, Serialize, Deserialize)]
struct CalibrationRecord {
    #[serde(default)]
    seconds: BTreeMap<String, CalibrationEntry>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct CalibrationEntry {
    window: u64,
    seconds: f64,
}

/// The stored measurement of a model, by its SHA-256. It works before the model is loaded, so that the latency is right from the first activation.
pub fn stored_measurement(sha256: &str) -> Option<plan::MeasuredCost> {
    let record: CalibrationRecord = cache_file::read(RECORD);
    let CalibrationEntry { window, seconds } = *record.seconds.get(&key(sha256))?;
    (window > 0 && seconds.is_finite() && seconds > 0.0)
        .then_some(plan::MeasuredCost { window: ModelSamples(window), seconds })
}

/// Measures `model` and stores the result. Instances measure one after the other, because they would slow each other down. A result that another
/// instance stored meanwhile is used, unless `force`.
///
/// # Errors
/// Errors of the model, and cancellation by `stop`, which is checked while waiting and between windows.
pub fn calibrate(
    model: &LoadedModel,
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
    if !force && let Some(measured) = stored_measurement(&model.sha256) {
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
    cache_file::update(RECORD, |record: &mut CalibrationRecord| {
        record
            .seconds
            .insert(key(&model.sha256), CalibrationEntry { window: window.0, seconds: measured.seconds });
    });
    Ok(measured)
}

fn key(sha256: &str) -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} threads | {sha256}", processor_name())
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
