//! How fast a model runs on this device: measured once, remembered for the machine and the model.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::library::Loaded;
use super::store;
use crate::stream::{ModelSamples, WindowError, measure, plan};

const RECORD: &str = "calibration.json";
/// Window that is timed, in seconds: long enough to tell, short enough for a device that is too slow.
const WINDOW_SECONDS: u64 = 2;
/// Time for measuring again, in seconds.
const PATIENCE_SECONDS: f64 = 0.5;

/// Time for a window by machine and model.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    #[serde(default)]
    seconds: BTreeMap<String, Entry>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Entry {
    window: u64,
    seconds: f64,
}

/// What was measured on this machine for the model of this content, which need not be loaded for it: the latency must be right from the
/// first activation.
pub fn remembered(sha256: &str) -> Option<plan::Measured> {
    let record: Record = store::read(RECORD);
    let Entry { window, seconds } = *record.seconds.get(&key(sha256))?;
    (window > 0 && seconds.is_finite() && seconds > 0.0)
        .then_some(plan::Measured { window: ModelSamples(window), seconds })
}

/// Measures `model` and remembers it. Instances do it one after the other, since they would measure each other; where another has done it
/// meanwhile, that is taken, unless it is to be done `anew`.
///
/// # Errors
/// Those of the model; and that it was stopped, which is asked while it waits and between two windows.
pub fn calibrate(model: &Loaded, anew: bool, stop: &dyn Fn() -> bool) -> Result<plan::Measured, WindowError> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = loop {
        if stop() {
            return Err(WindowError("the measurement was stopped".into()));
        }
        if let Some(one) = ONE.try_lock_for(Duration::from_millis(50)) {
            break one;
        }
    };
    if !anew && let Some(measured) = remembered(&model.sha256) {
        return Ok(measured);
    }
    let timing = model.model.timing();
    let longest = (WINDOW_SECONDS * u64::from(timing.rate)).min(timing.chunk.0);
    let window = ModelSamples(longest.max(2 * timing.frame.0));
    // A quick model is timed often, since the machine may be busy just now; a slow one is not kept from its work.
    let once = measure(&model.model, window, 1, stop)?;
    let rounds = (PATIENCE_SECONDS / once.seconds.max(1e-6)).clamp(0.0, 20.0) as usize;
    let again = if rounds > 0 { measure(&model.model, window, rounds, stop)? } else { once };
    let measured = plan::Measured { window, seconds: once.seconds.min(again.seconds) };
    store::update(RECORD, |record: &mut Record| {
        record.seconds.insert(key(&model.sha256), Entry { window: window.0, seconds: measured.seconds });
    });
    Ok(measured)
}

fn key(sha256: &str) -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} threads | {sha256}", machine())
}

/// The processor's name where the system tells it. A cache folder may be shared by machines.
fn machine() -> String {
    let linux = || {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    linux()
        .or_else(|| std::env::var("PROCESSOR_IDENTIFIER").ok())
        .unwrap_or_else(|| std::env::consts::ARCH.to_string())
}
