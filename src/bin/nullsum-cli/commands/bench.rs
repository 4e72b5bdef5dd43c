//! `bench`: the time of the whole pass, from waveform to stems.

use std::time::{Duration, Instant};

use nullsum::model::architecture::Architecture;
use nullsum::separator::{MaskRule, ModelInfo, Separator, Stages, check_chunk};
use serde_json::json;

use crate::args::{ArchArg, BenchArgs};
use crate::exit::{Code, Failure, OrFail, Outcome};
use crate::interrupt;
use crate::model_source::{self, Source};
use crate::report::{Talk, say};

/// Sample rate of named architectures, in Hz.
const SAMPLE_RATE: u32 = 44_100;

/// Times one chunk of seeded noise.
pub fn run(args: &BenchArgs) -> Outcome {
    let precision = args.run.precision.resolve().map_err(|message| Failure::new(Code::Usage, message))?;
    let mut separator = load(args)?;
    let info = separator.info().clone();
    let samples = (args.seconds * f64::from(info.sample_rate)).round() as usize;
    check_chunk(samples, &info.architecture).or_fail(Code::Usage)?;
    let seconds = samples as f64 / f64::from(info.sample_rate);
    let chunk = noise(args.seed, samples * info.architecture.channels);
    // As separation does by default.
    let rule = if info.complement.is_none() { MaskRule::Complete } else { MaskRule::Plain };

    let mut passes: Vec<(Duration, Stages)> = Vec::new();
    for pass in 0..args.warmup + args.runs {
        interrupt::check()?;
        separator.take_stages();
        let started = Instant::now();
        separator.separate(&[&chunk], rule).or_fail(Code::Failed)?;
        if pass >= args.warmup {
            passes.push((started.elapsed(), separator.take_stages()));
        }
    }
    let median_of = |time: &dyn Fn(&(Duration, Stages)) -> Duration| {
        let mut times: Vec<f64> = passes.iter().map(|pass| time(pass).as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let (low, high) = ((times.len() - 1) / 2, times.len() / 2);
        (times[low] + times[high]) / 2.0
    };
    let median = median_of(&|pass| pass.0);
    let stages = [
        ("stft", median_of(&|pass| pass.1.stft)),
        ("network", median_of(&|pass| pass.1.network)),
        ("mask", median_of(&|pass| pass.1.mask)),
        ("istft", median_of(&|pass| pass.1.istft)),
    ];
    let threads = separator.threads();
    let (kernel, peak) = (separator.kernel(), peak_rss_bytes());
    if args.json {
        let stages: serde_json::Map<_, _> =
            stages.iter().map(|(name, seconds)| (format!("{name}_seconds"), json!(seconds))).collect();
        say(&json!({
            "audio_seconds": seconds,
            "median_seconds": median,
            "rtf": median / seconds,
            "precision": precision,
            "kernel": kernel,
            "device": separator.device(),
            "threads": threads,
            "peak_rss_bytes": peak,
            "stages": stages,
            "runs": args.runs,
            "model": info.origin,
            "parameters": info.architecture.parameters(),
        })
        .to_string());
        return Ok(());
    }
    say(&format!(
        "{}: {}, {:.1} M parameters, {} stems; {precision}, {kernel} on {}, {threads} threads",
        info.origin,
        info.architecture.family,
        info.architecture.parameters() as f64 / 1e6,
        info.architecture.num_stems,
        separator.device()
    ));
    say(&format!(
        "{seconds:.2} s of audio in {median:.3} s, RTF {:.3} ({:.2} times real time), median of {} after {} to warm up",
        median / seconds,
        seconds / median.max(1e-9),
        args.runs,
        args.warmup
    ));
    for (name, time) in stages {
        say(&format!("  {name:<8} {time:.3} s  {:>5.1} %", 100.0 * time / median.max(1e-9)));
    }
    if let Some(peak) = peak {
        say(&format!("peak memory {:.0} MB", peak as f64 / 1e6));
    }
    Ok(())
}

fn load(args: &BenchArgs) -> Outcome<Separator> {
    let runtime = args.run.runtime();
    let source = match (&args.model.model, args.arch) {
        (Some(_), _) => model_source::open(&args.model, Talk::aside())?,
        (None, Some(ArchArg::Embedded)) => model_source::built_in(args.model.config.as_deref())?,
        (None, _) => {
            let chunk = (args.seconds * f64::from(SAMPLE_RATE)).round() as usize;
            let info = ModelInfo::random(
                "default architecture, random weights",
                Architecture::seed_default(),
                chunk,
            );
            return Separator::random(info, args.seed, runtime).or_fail(Code::Model);
        }
    };
    let Source { checkpoint, config, .. } = source;
    Separator::load(&checkpoint, &config, model_source::family(&args.model), runtime).or_fail(Code::Model)
}

/// White noise at about the level of music, the same for the same seed.
fn noise(seed: u64, samples: usize) -> Vec<f32> {
    let mut random = nullsum::demo::Random::new(seed);
    (0..samples).map(|_| 0.1 * random.bipolar()).collect()
}

/// The most memory that the process has had in use.
#[cfg(target_os = "linux")]
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Not known without a system call that this program does not make.
#[cfg(not(target_os = "linux"))]
fn peak_rss_bytes() -> Option<u64> {
    None
}
