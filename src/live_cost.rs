//! What live separation with a model costs on this machine, before the model is loaded or fetched.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cache_file;
use crate::dsp::stft::StftConfig;
use crate::embedded;
use crate::live::{LiveForecast, ModelSamples, ModelTiming, WindowError, default_threads, measure_speed};
use crate::model::architecture::{Architecture, MaskKind};
use crate::model::config::Config;
use crate::registry::{NetworkSize, RegistryEntry};
use crate::separator::{FrameTiming, ModelSpec};

/// Name of the cache file.
const FILE: &str = "machine-speed.json";
/// Sample rate of the registry's models.
const RATE: u32 = 44_100;

/// Runs of the program that measure the speed: the machine may be busy in one of them.
const MEASUREMENTS: u32 = 3;

#[derive(Debug, Default, Serialize, Deserialize)]
struct SpeedRecord {
    /// By version, processor and threads.
    #[serde(default)]
    speeds: BTreeMap<String, Speed>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Speed {
    /// The best measurement, in floating-point operations a second.
    best: f64,
    /// Number of measurements.
    count: u32,
}

fn key() -> String {
    format!("{}, {} threads | {}", processor_name(), default_threads(), env!("CARGO_PKG_VERSION"))
}

/// Name of the processor, if the system provides it. Computers may share a cache folder.
pub(crate) fn processor_name() -> String {
    let linux = || {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    linux()
        .or_else(|| std::env::var("PROCESSOR_IDENTIFIER").ok())
        .unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

/// The speed of this machine in floating-point operations a second, if it was measured before.
pub fn known_speed() -> Option<f64> {
    known().map(|speed| speed.best)
}

fn known() -> Option<Speed> {
    let record: SpeedRecord = cache_file::read(FILE);
    record.speeds.get(&key()).copied().filter(|speed| speed.best.is_finite() && speed.best > 0.0)
}

/// The speed of this machine in floating-point operations a second: the best of three measurements, of which one is made now if fewer are
/// remembered in the cache folder. A measurement takes about a second.
///
/// # Errors
/// Those of [`measure_speed`].
pub fn speed(stop: &dyn Fn() -> bool) -> Result<f64, WindowError> {
    let before = known().unwrap_or_default();
    if before.count >= MEASUREMENTS {
        return Ok(before.best);
    }
    let best = before.best.max(measure_speed(stop)?);
    cache_file::update(FILE, |record: &mut SpeedRecord| {
        record.speeds.insert(key(), Speed { best, count: before.count + 1 });
    });
    Ok(best)
}

/// The forecast for a model that is described, on a machine of `speed` floating-point operations a second.
pub fn of_spec(spec: &ModelSpec, speed: f64) -> LiveForecast {
    LiveForecast::new(&spec.architecture, &ModelTiming::of(spec), speed)
}

/// The forecast for a model of the registry; none where the sizes of its network are not known.
pub fn of_entry(entry: &RegistryEntry, speed: f64) -> Option<LiveForecast> {
    let arch = architecture(&entry.network?, entry.stems.len());
    Some(LiveForecast::new(&arch, &timing_of(entry)?, speed))
}

/// Chunk and transform of a model of the registry, where they are known.
pub fn timing_of(entry: &RegistryEntry) -> Option<ModelTiming> {
    let size = entry.network?;
    Some(ModelTiming {
        rate: RATE,
        chunk: ModelSamples(size.chunk as u64),
        frame_hop: ModelSamples(size.hop as u64),
        frame: ModelSamples(size.n_fft as u64),
        context: Some(FrameTiming::of_lengths(size.n_fft, size.hop, size.n_fft)),
    })
}

/// The description of the embedded model, without its weights; none without the feature `embedded`.
pub fn embedded_spec() -> Option<ModelSpec> {
    let checkpoint = embedded::checkpoint()?;
    let config = Config::from_yaml(checkpoint.config_yaml()?, embedded::NAME).ok()?;
    ModelSpec::resolve(&checkpoint, &config, None).ok()
}

/// A plain network of these sizes. What its YAML leaves open is as in most public checkpoints.
fn architecture(size: &NetworkSize, stems: usize) -> Architecture {
    let freqs = size.n_fft / 2 + 1;
    let bands = size.bands.clamp(1, freqs);
    let edge = |band: usize| band * freqs / bands;
    Architecture {
        dim: size.dim,
        depth: size.depth,
        time_transformer_depth: size.time_depth,
        freq_transformer_depth: size.freq_depth,
        heads: size.heads,
        ff_inner: 4 * size.dim,
        num_stems: stems.max(1),
        bands: (0..bands).map(|band| (edge(band)..edge(band + 1)).collect()).collect(),
        mask_hidden: 4 * size.dim,
        masks: MaskKind::Mlp,
        stft: StftConfig {
            n_fft: size.n_fft,
            hop_length: size.hop,
            win_length: size.n_fft,
            normalized: false,
        },
        ..Architecture::reference_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Tier;
    use crate::registry;

    #[test]
    fn entries_with_known_sizes_have_a_forecast_that_falls_with_the_speed() {
        let mut known = 0;
        for entry in registry::entries() {
            let [slow, fast] = [1e10, 1e15].map(|speed| of_entry(entry, speed));
            assert_eq!(slow.is_some(), entry.network.is_some(), "{}", entry.name);
            let (Some(slow), Some(fast)) = (slow, fast) else { continue };
            known += 1;
            assert_eq!(slow.to_string(), "too slow", "{}", entry.name);
            assert_eq!(fast.lowest_latency(), Some(Tier::Live), "{}", entry.name);
            assert!(slow.loads.iter().zip(&fast.loads).all(|(slow, fast)| slow.1 > fast.1));
        }
        assert!(known > 20, "{known}");
    }
}
