//! How fast this machine computes a network, from one layer of it.

use std::time::Instant;

use super::model::WindowError;
use super::threads::default_threads;
use crate::dsp::Random;
use crate::model::architecture::Architecture;
use crate::separator::{MaskRule, ModelSpec, Runtime, SeparateError, Separator};

/// Length of the timed pass in samples: two seconds.
const SAMPLES: usize = 2 * 44_100;
/// Timed passes, after one that warms up.
const ROUNDS: usize = 3;

/// Floating-point operations a second of this machine in a RoFormer of usual width, with the threads and the number format that live
/// separation uses: the best of a few passes over one layer of random weights. Takes about a second.
///
/// # Errors
/// [`WindowError`] if the network cannot be built or run, or if `stop`, called before each pass, returns true.
pub fn measure_speed(stop: &dyn Fn() -> bool) -> Result<f64, WindowError> {
    let arch = Architecture { depth: 1, num_stems: 1, ..Architecture::reference_default() };
    let flops = arch.flops(SAMPLES);
    let runtime = Runtime { threads: default_threads(), auto_may_use_int8: true, ..Runtime::default() };
    let spec = ModelSpec::random("one layer of random weights", arch, SAMPLES);
    let failed = |error: SeparateError| WindowError(error.to_string());
    let mut separator =
        Separator::random(spec, 1, runtime).map_err(|error| WindowError(error.to_string()))?;
    let noise = Random::new(1).noise(2 * SAMPLES, 0.5);
    let mut fastest = f64::INFINITY;
    for round in 0..=ROUNDS {
        if stop() {
            return Err(WindowError("the measurement was stopped".into()));
        }
        let started = Instant::now();
        separator.separate(&[&noise], MaskRule::Plain).map_err(failed)?;
        if round > 0 {
            fastest = fastest.min(started.elapsed().as_secs_f64());
        }
    }
    Ok(flops / fastest.max(1e-9))
}
