//! Measures what a model costs on this machine.

use std::time::Instant;

use super::model::{SharedModel, WindowError, WindowSeparator};
use super::plan::{HostSamples, KeptContext, MeasuredCost, ModelSamples, Tier};
use crate::dsp::Random;
use crate::kernels::JobControl;
use crate::separator::MaskRule;

/// Hops that are timed at most.
const TIMED_HOPS: usize = 16;
/// Hops that are timed beside streams that play.
const FEW_HOPS: usize = 5;

/// Times a window of `window` samples of noise on this device: the shortest of `rounds` runs after a warm-up run. A model that keeps context
/// is also timed in the hops of [`Tier::Live`]. For [`Tier::auto`].
///
/// # Errors
/// Those of the model, and an error if `stop`, called before each run, returns true.
pub fn measure(
    model: &SharedModel,
    window: ModelSamples,
    rounds: usize,
    stop: &dyn Fn() -> bool,
) -> Result<MeasuredCost, WindowError> {
    let noise = Random::new(1).noise(window.len() * model.channels(), 0.5);
    let mut out = vec![0.0; noise.len() * model.own_stems()];
    let mut run = || {
        check_stop(stop)?;
        let mut model = model.lock();
        // Waiting for another stream that runs the model is not part of its cost.
        let started = Instant::now();
        model.separate_window(&noise, MaskRule::Complete, &mut out)?;
        Ok::<_, WindowError>(started.elapsed().as_secs_f64())
    };
    run()?;
    let mut seconds = f64::INFINITY;
    for _ in 0..rounds.max(1) {
        seconds = seconds.min(run()?);
    }
    let cost = MeasuredCost { window, seconds, per_hop: 0.0 };
    let timing = model.timing();
    let request = Tier::Live.request(&timing, timing.rate, HostSamples(1));
    let Some(context) = request.context else { return Ok(cost) };
    let rounds = (cost.frames_to_fill(context), rounds.clamp(2, TIMED_HOPS));
    Ok(cost.with_hop(&request, measure_hop(model, context, rounds, stop)?))
}

/// Times `rounds` usual hops of `context` on noise, after `fill` frames that fill the context: the median in seconds.
///
/// # Errors
/// Those of the model, and an error if `stop`, called before the first hop, returns true.
pub fn measure_hop(
    model: &SharedModel,
    context: KeptContext,
    rounds: (usize, usize),
    stop: &dyn Fn() -> bool,
) -> Result<f64, WindowError> {
    check_stop(stop)?;
    let channels = model.channels();
    let mut model = model.lock();
    time_hops(&mut **model, channels, context, rounds, &())
}

/// As one run of [`measure`], beside streams that play. It gives way between two layers when another caller wants the model, or when
/// `is_disturbed` returns true. Seconds of the run; none if the model was in use or the run gave way.
///
/// # Errors
/// Those of the model.
pub fn measure_undisturbed(
    model: &SharedModel,
    window: ModelSamples,
    is_disturbed: &(dyn Fn() -> bool + Sync),
) -> Result<Option<f64>, WindowError> {
    let noise = Random::new(1).noise(window.len() * model.channels(), 0.5);
    let mut out = vec![0.0; noise.len() * model.own_stems()];
    model.run_undisturbed(is_disturbed, |separator, control| {
        let started = Instant::now();
        separator.separate_controlled(&noise, MaskRule::Complete, &mut out, control)?;
        Ok(started.elapsed().as_secs_f64())
    })
}

/// As [`measure_hop`], beside streams that play; see [`measure_undisturbed`].
///
/// # Errors
/// Those of the model.
pub fn measure_hop_undisturbed(
    model: &SharedModel,
    context: KeptContext,
    fill: usize,
    is_disturbed: &(dyn Fn() -> bool + Sync),
) -> Result<Option<f64>, WindowError> {
    let channels = model.channels();
    model.run_undisturbed(is_disturbed, |separator, control| {
        time_hops(separator, channels, context, (fill, FEW_HOPS), control)
    })
}

/// The median of `rounds` hops in seconds, after one of `fill` frames and one that warms up.
fn time_hops(
    model: &mut dyn WindowSeparator,
    channels: usize,
    KeptContext { plan, timing }: KeptContext,
    (fill, rounds): (usize, usize),
    control: &dyn JobControl,
) -> Result<f64, WindowError> {
    let mut state = model.new_stream(&plan)?;
    let mut random = Random::new(1);
    let mut seconds = Vec::with_capacity(rounds);
    let hops = std::iter::repeat_n(plan.hop_frames, rounds.max(1) + 1);
    for (round, frames) in std::iter::once(fill.max(1)).chain(hops).enumerate() {
        let wanted = timing.samples_for(state.final_frames() + (frames + plan.lookahead_frames) as u64);
        let new = wanted.saturating_sub(state.received_samples()) as usize;
        state.push(&random.noise(new * channels, 0.5))?;
        let started = Instant::now();
        model.separate_hop(&mut state, frames, MaskRule::Complete, control)?;
        if round > 1 {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds.get(seconds.len() / 2).copied().unwrap_or_default())
}

fn check_stop(stop: &dyn Fn() -> bool) -> Result<(), WindowError> {
    if stop() { Err(WindowError("the measurement was stopped".into())) } else { Ok(()) }
}
