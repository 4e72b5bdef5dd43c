//! Measures what the hops of a stream with kept context cost, against an offline pass at overlap 1 in the same run.
//!
//!     cargo run --release --example kept_context_cost -- embedded|default f32|bf16|auto THREADS [HOP,LOOKAHEAD,CONTEXT]...
//!
//! Hops are timed with a full context, in turns with offline chunks of the model's own length. The figures are medians.

use std::time::Instant;

use nullsum::dsp::Random;
use nullsum::model::architecture::Architecture;
use nullsum::model::config::Config;
use nullsum::separator::{
    ContextPlan, FrameTiming, Hop, MaskRule, ModelSpec, Runtime, Separator, StreamState,
};

type Failure = Box<dyn std::error::Error>;

/// Offline passes, and rounds of hops between them.
const ROUNDS: usize = 7;
/// Seconds of hops in a round, at least.
const ROUND_SECONDS: f64 = 1.0;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, precision, threads, plans @ ..] = arguments.as_slice() else {
        return Err(
            "usage: kept_context_cost embedded|default f32|bf16|auto THREADS [HOP,LOOKAHEAD,CONTEXT]..."
                .into(),
        );
    };
    let runtime = Runtime { threads: threads.parse()?, precision: precision.parse()?, ..Runtime::default() };
    let mut separator = load(model, runtime)?;
    let timing = FrameTiming::new(separator.info().architecture.stft);
    println!("{model}: {} on {} threads", separator.kernel(), separator.threads());
    println!(
        "| plan | waits | hop | offline pass of as much audio | ratio | load of one processor | context |"
    );
    println!("|---|---|---|---|---|---|---|");
    for text in plans {
        let parts = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let [hop_frames, lookahead_frames, context_frames] = parts[..] else {
            return Err(format!("{text}: expected HOP,LOOKAHEAD,CONTEXT in frames").into());
        };
        let plan = ContextPlan { hop_frames, lookahead_frames, context_frames, ..ContextPlan::default() };
        let cost = measure(&mut separator, &plan)?;
        println!(
            "| H {hop_frames}, A {lookahead_frames}, C {context_frames} | {:.0} ms | {:.2} ms | {:.2} ms | {:.2} | {:.1} % | {:.1} MB |",
            1e3 * plan.latency_samples(&timing) as f64 / f64::from(separator.info().sample_rate),
            1e3 * cost.hop,
            1e3 * cost.offline,
            cost.hop / cost.offline,
            100.0 * cost.hop / cost.seconds,
            cost.bytes as f64 / 1e6,
        );
    }
    Ok(())
}

fn load(model: &str, runtime: Runtime) -> Result<Separator, Failure> {
    if model == "default" {
        let spec = ModelSpec::random("default architecture", Architecture::reference_default(), 8 * 44_100);
        return Ok(Separator::random(spec, 1, runtime)?);
    }
    let checkpoint = nullsum::embedded::checkpoint().ok_or("this build has no embedded model")?;
    let config = Config::from_yaml(checkpoint.config_yaml().unwrap_or_default(), "embedded")?;
    Ok(Separator::load(&checkpoint, &config, None, runtime)?)
}

/// Processor time in seconds.
struct Cost {
    hop: f64,
    /// Of a pass, for as much audio as a hop has.
    offline: f64,
    /// Audio of a hop.
    seconds: f64,
    bytes: usize,
}

fn measure(separator: &mut Separator, plan: &ContextPlan) -> Result<Cost, Failure> {
    let info = separator.info().clone();
    let (rate, channels) = (f64::from(info.sample_rate), info.architecture.channels);
    let mut noise = Noise { random: Random::new(1), channels };
    let chunk = noise.samples(info.chunk);
    let mut state = separator.new_stream(plan)?;
    while state.context_len() < plan.context_frames {
        hop(separator, &mut state, plan, &mut noise)?;
    }
    let seconds = (plan.hop_frames * info.architecture.stft.hop_length) as f64 / rate;
    let hops = ((ROUND_SECONDS / seconds).ceil() as usize).max(3);
    let (mut passes, mut times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = processor_seconds();
        separator.separate(&[&chunk], MaskRule::Complete)?;
        passes.push((processor_seconds() - started) * rate / info.chunk as f64 * seconds);
        for _ in 0..hops {
            times.push(hop(separator, &mut state, plan, &mut noise)?);
        }
    }
    Ok(Cost { hop: median(&mut times), offline: median(&mut passes), seconds, bytes: state.context_bytes() })
}

/// Runs the next hop; its processor time.
fn hop(
    separator: &mut Separator,
    state: &mut StreamState,
    plan: &ContextPlan,
    noise: &mut Noise,
) -> Result<f64, Failure> {
    let next = state.final_frames() + (plan.hop_frames + plan.lookahead_frames) as u64;
    let missing = state.timing().samples_for(next) - state.received_samples();
    state.push(&noise.samples(missing as usize))?;
    let started = processor_seconds();
    separator.separate_hops(&mut [Hop { state, frames: plan.hop_frames, rule: MaskRule::Complete }], &())?;
    Ok(processor_seconds() - started)
}

struct Noise {
    random: Random,
    channels: usize,
}

impl Noise {
    /// Planar noise of `samples` samples.
    fn samples(&mut self, samples: usize) -> Vec<f32> {
        (0..samples * self.channels).map(|_| 0.1 * self.random.bipolar()).collect()
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Processor time of all threads, where the system tells; else the time that passed.
fn processor_seconds() -> f64 {
    #[cfg(unix)]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes one timespec.
        if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } == 0 {
            return time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        }
    }
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    STARTED.get_or_init(Instant::now).elapsed().as_secs_f64()
}
