//! `bench`: times the whole pass from waveform to stems.

use std::path::Path;
use std::time::{Duration, Instant};

use nullsum::model::architecture::Architecture;
use nullsum::separator::{MaskRule, ModelSpec, Separator, StageTimes, check_chunk};
use serde_json::json;

use crate::args::{ArchArg, BenchArgs};
use crate::exit::{CliResult, ExitStatus, Failure, OrFail};
use crate::interrupt;
use crate::model_source::{self, ModelSource};
use crate::printer::{Printer, print_line};

/// Sample rate of named architectures, in Hz.
const SAMPLE_RATE: u32 = 44_100;

/// Times one chunk of seeded noise.
pub fn run(args: &BenchArgs) -> CliResult {
    let started = Instant::now();
    let mut separator = load(args)?;
    separator.time_stages(true);
    let load_seconds = started.elapsed().as_secs_f64();
    let info = separator.info().clone();
    let samples = (args.seconds * f64::from(info.sample_rate)).round() as usize;
    check_chunk(samples, &info.architecture).or_fail(ExitStatus::Usage)?;
    let seconds = samples as f64 / f64::from(info.sample_rate);
    let chunk = noise(args.seed, samples * info.architecture.channels);
    // As separation does by default; stems that are kept are the network's own.
    let rule = info.rule(if args.stems.is_some() { MaskRule::Plain } else { MaskRule::Complete });

    let mut passes = Vec::new();
    for pass in 0..args.warmup + args.runs {
        interrupt::check_stop()?;
        separator.take_stage_times();
        let (started, processor) = (Instant::now(), processor_time());
        let stems = separator.separate(&[&chunk], rule).or_fail(ExitStatus::Failed)?;
        let (elapsed, stages) = (started.elapsed(), separator.take_stage_times());
        let processor = processor_time().zip(processor).map(|(after, before)| after - before);
        if pass >= args.warmup {
            passes.push(Pass { elapsed, processor, stages });
        }
        if let (Some(path), 1) = (&args.stems, args.warmup + args.runs - pass) {
            save(path, &chunk, &stems[0])?;
        }
    }
    let median_of = |time: &dyn Fn(&Pass) -> Option<Duration>| {
        let mut times: Vec<f64> = passes.iter().filter_map(time).map(|time| time.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let (low, high) = (times.len().checked_sub(1)? / 2, times.len() / 2);
        Some((times[low] + times[high]) / 2.0)
    };
    let median = median_of(&|pass| Some(pass.elapsed)).unwrap_or_default();
    let processor = median_of(&|pass| pass.processor);
    let stage =
        |time: fn(&StageTimes) -> Duration| median_of(&|pass| Some(time(&pass.stages))).unwrap_or_default();
    let stages = [
        ("stft", stage(|stages| stages.stft)),
        ("network", stage(|stages| stages.network)),
        ("mask", stage(|stages| stages.mask)),
        ("istft", stage(|stages| stages.istft)),
    ];
    let threads = separator.threads();
    let (kernel, peak, arithmetic) = (separator.kernel(), peak_rss_bytes(), separator.precision());
    let gflop = info.architecture.flops(samples) / 1e9;
    if args.json {
        let stages: serde_json::Map<_, _> =
            stages.iter().map(|(name, seconds)| (format!("{name}_seconds"), json!(seconds))).collect();
        print_line(
            &json!({
                "audio_seconds": seconds,
                "median_seconds": median,
                "rtf": median / seconds,
                "processor_seconds": processor,
                "load_seconds": load_seconds,
                "gflop": gflop,
                "precision": arithmetic.precision.to_string(),
                "self_check_db": arithmetic.self_check_db,
                "kernel": kernel,
                "device": separator.device(),
                "threads": threads,
                "peak_rss_bytes": peak,
                "stages": stages,
                "runs": args.runs,
                "model": info.origin,
                "parameters": info.architecture.parameters(),
            })
            .to_string(),
        );
        return Ok(());
    }
    print_line(&format!(
        "{}: {}, {:.1} M parameters, {} stems; {arithmetic}, {kernel} on {}, {threads} threads",
        info.origin,
        info.architecture.family,
        info.architecture.parameters() as f64 / 1e6,
        info.architecture.num_stems,
        separator.device()
    ));
    print_line(&format!(
        "{seconds:.2} s of audio in {median:.3} s, RTF {:.3} ({:.2} times real time), median of {} after {} to warm up",
        median / seconds,
        seconds / median.max(1e-9),
        args.runs,
        args.warmup
    ));
    let spent = processor.map_or(String::new(), |seconds| {
        format!("; processor {seconds:.3} s, {:.1} GFLOP/s a core", gflop / seconds.max(1e-9))
    });
    print_line(&format!("{gflop:.0} GFLOP, {:.1} GFLOP/s{spent}", gflop / median.max(1e-9)));
    for (name, time) in stages {
        print_line(&format!("  {name:<8} {time:.3} s  {:>5.1} %", 100.0 * time / median.max(1e-9)));
    }
    let peak = peak.map_or(String::new(), |peak| format!("; peak memory {:.0} MB", peak as f64 / 1e6));
    print_line(&format!("loaded in {load_seconds:.2} s{peak}"));
    Ok(())
}

/// Times of one pass.
struct Pass {
    elapsed: Duration,
    /// Processor time of all threads; `None` if the system does not report it.
    processor: Option<Duration>,
    stages: StageTimes,
}

/// Writes the chunk and its stems, channel after channel, as raw f32 in the machine's byte order.
fn save(path: &Path, chunk: &[f32], stems: &[f32]) -> CliResult {
    let samples: Vec<u8> = chunk.iter().chain(stems).flat_map(|sample| sample.to_ne_bytes()).collect();
    std::fs::write(path, samples).map_err(|error| {
        Failure::new(ExitStatus::Io, format!("{}: cannot be written: {error}", path.display()))
    })
}

fn load(args: &BenchArgs) -> CliResult<Separator> {
    let runtime = args.run.runtime();
    let source = match (&args.model.model, args.arch) {
        (Some(_), _) => model_source::open_model(&args.model, Printer::stderr_only())?,
        (None, Some(ArchArg::Embedded)) => model_source::open_embedded(args.model.config.as_deref())?,
        (None, _) => {
            let chunk = (args.seconds * f64::from(SAMPLE_RATE)).round() as usize;
            let info = ModelSpec::random(
                "default architecture, random weights",
                Architecture::reference_default(),
                chunk,
            );
            return Separator::random(info, args.seed, runtime).or_fail(ExitStatus::Model);
        }
    };
    let ModelSource { checkpoint, config, .. } = source;
    Separator::load(&checkpoint, &config, model_source::family(&args.model), runtime)
        .or_fail(ExitStatus::Model)
}

/// White noise at about the level of music, the same for the same seed.
fn noise(seed: u64, samples: usize) -> Vec<f32> {
    let mut random = nullsum::dsp::Random::new(seed);
    (0..samples).map(|_| 0.1 * random.bipolar()).collect()
}

/// Processor time of all threads of this process so far.
#[cfg(unix)]
fn processor_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } == 0;
    done.then(|| Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Not available on this system.
#[cfg(not(unix))]
fn processor_time() -> Option<Duration> {
    None
}

/// Peak resident memory of the process.
#[cfg(target_os = "linux")]
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Not available without a further system call.
#[cfg(not(target_os = "linux"))]
fn peak_rss_bytes() -> Option<u64> {
    None
}
