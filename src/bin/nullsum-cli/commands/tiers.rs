//! `tiers`: what live use costs and gives on this device: latency, load, and how near the live stems come to the offline ones.

use std::path::Path;

use nullsum::audio::Planar;
use nullsum::demo::{Stereo, compose, sdr};
use nullsum::embedded;
use nullsum::offline::demix::{DemixOptions, demix};
use nullsum::offline::plan::ChunkPlan;
use nullsum::offline::source::{FileSource, MemorySource, Source as _};
use nullsum::separator::{MaskRule, Separator};
use nullsum::stream::{
    HostSamples, ModelSamples, Plan, PlanRequest, SharedModel, Tier, WindowSeparator, measure,
    offline_reference,
};
use serde_json::json;

use crate::args::TiersArgs;
use crate::exit::{Code, OrFail, Outcome, code_of};
use crate::interrupt;
use crate::model_source;
use crate::report::{Talk, say};

/// Window that is timed, in seconds.
const TIMED_SECONDS: f64 = 4.0;

/// Measures every tier.
pub fn run(args: &TiersArgs) -> Outcome {
    let mut model = args.model.clone();
    model.model.get_or_insert_with(|| embedded::NAME.into());
    let source = model_source::open(&model, Talk::aside())?;
    let family = model_source::family(&model);
    let mut separator = Separator::load(&source.checkpoint, &source.config, family, args.run.runtime())
        .or_fail(Code::Model)?;
    let info = separator.info().clone();
    let song = match &args.song {
        Some(path) => read(path, info.sample_rate, args.start, args.seconds)?,
        None => composed(info.sample_rate)?,
    };
    let rule = if info.complement.is_none() { MaskRule::Complete } else { MaskRule::Plain };
    let offline = whole(&mut separator, &song, rule)?;
    let names = separator.stem_names();
    let timing = separator.timing();

    let shared = SharedModel::new(Box::new(separator));
    let window = ModelSamples((TIMED_SECONDS * f64::from(info.sample_rate)) as u64);
    let measured = measure(&shared, ModelSamples(window.0.min(timing.chunk.0)), 3).or_fail(Code::Failed)?;
    let mut rows = Vec::new();
    for tier in Tier::ALL {
        interrupt::check()?;
        // What a host sees; and the same at the model's rate, where resampling does not blur the comparison.
        let host = Plan::new(tier.request(&timing, args.rate, HostSamples(u64::from(args.block))))
            .or_fail(Code::Usage)?;
        let request = PlanRequest {
            max_block: HostSamples(1),
            ..tier.request(&timing, info.sample_rate, HostSamples(1))
        };
        let plan = Plan::new(request).or_fail(Code::Usage)?;
        let mut borrowed = Borrowed(&shared);
        let live = offline_reference(&plan, &mut borrowed, rule, song.planes()).or_fail(Code::Failed)?;
        let per_stem: Vec<f64> =
            live.iter().zip(&offline).map(|(live, offline)| sdr(offline, &pair(live))).collect();
        rows.push((tier, host, tier.load(&timing, measured), per_stem));
    }
    if args.json {
        for (tier, plan, load, per_stem) in &rows {
            let stems: serde_json::Map<_, _> =
                names.iter().zip(per_stem).map(|(name, sdr)| (name.clone(), json!(sdr))).collect();
            say(&json!({
                "tier": tier.to_string(), "latency_samples": plan.latency().0, "latency_ms": plan.latency_ms(),
                "window_seconds": plan.window().seconds(plan.model_rate()),
                "hop_seconds": plan.hop().seconds(plan.model_rate()),
                "lookahead_seconds": plan.lookahead().seconds(plan.model_rate()),
                "load": load, "sdr_to_offline_db": stems,
            })
            .to_string());
        }
        return Ok(());
    }
    say(&format!(
        "{}, {}; {} Hz, blocks of {}; {:.1} s of audio, live stems against offline ones",
        source.name,
        shared.runs_on(),
        args.rate,
        args.block,
        song.samples() as f64 / f64::from(info.sample_rate)
    ));
    say(&format!(
        "{:<10}{:>10}{:>9}{:>8}{:>11}{:>8}   SDR to offline, dB",
        "tier", "latency", "window", "hop", "lookahead", "load"
    ));
    for (tier, plan, load, per_stem) in &rows {
        let stems: Vec<String> =
            names.iter().zip(per_stem).map(|(name, sdr)| format!("{name} {sdr:.1}")).collect();
        let rate = plan.model_rate();
        say(&format!(
            "{:<10}{:>7.0} ms{:>7.2} s{:>6.2} s{:>9.2} s{:>6.0} %   {}",
            tier.to_string(),
            plan.latency_ms(),
            plan.window().seconds(rate),
            plan.hop().seconds(rate),
            plan.lookahead().seconds(rate),
            100.0 * load,
            stems.join(", ")
        ));
    }
    Ok(())
}

/// A shared model for those who want one of their own.
struct Borrowed<'a>(&'a SharedModel);

impl WindowSeparator for Borrowed<'_> {
    fn stems(&self) -> usize {
        self.0.stems()
    }

    fn channels(&self) -> usize {
        self.0.channels()
    }

    fn timing(&self) -> nullsum::stream::ModelTiming {
        self.0.timing()
    }

    fn separate_window(
        &mut self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
    ) -> Result<(), nullsum::stream::WindowError> {
        self.0.separate_window(window, rule, out)
    }
}

/// A part of a song in stereo, at the model's rate.
fn read(path: &Path, rate: u32, start: f64, seconds: f64) -> Outcome<Planar> {
    let mut source = FileSource::open(path, rate).map_err(|error| failure(path, error))?;
    let first = (start * f64::from(rate)) as usize;
    let wanted = first + (seconds * f64::from(rate)) as usize;
    let mut song = Planar::new(source.channels());
    while song.samples() < wanted {
        interrupt::check()?;
        if source.read(wanted - song.samples(), &mut song).map_err(|error| failure(path, error))? == 0 {
            break;
        }
    }
    song.drop_front(first);
    let mut planes = song.into_planes();
    planes.truncate(2);
    if let [mono] = &planes[..] {
        planes.push(mono.clone());
    }
    match Planar::from_planes(planes).filter(|song| song.samples() >= rate as usize) {
        Some(song) => Ok(song),
        None => Err(crate::exit::Failure::new(
            Code::Io,
            format!("{}: less than a second of audio from {start} s on", path.display()),
        )),
    }
}

fn failure(path: &Path, error: nullsum::offline::error::OfflineError) -> crate::exit::Failure {
    crate::exit::Failure::new(code_of(&error), format!("{}: {error}", path.display()))
}

/// The demonstration piece, for want of a song.
fn composed(rate: u32) -> Outcome<Planar> {
    let [left, right] = compose(0).mixture;
    let mut out = Planar::new(2);
    let piece = Planar::from_planes(vec![left, right]).unwrap_or_default();
    let mut resampler =
        nullsum::audio::Resampler::new(nullsum::demo::SAMPLE_RATE, rate, 2).or_fail(Code::Failed)?;
    resampler.push(&piece, &mut out).or_fail(Code::Failed)?;
    resampler.finish(&mut out).or_fail(Code::Failed)?;
    Ok(out)
}

/// The offline stems, as the command line makes them by default: `[stems]`.
fn whole(separator: &mut Separator, song: &Planar, rule: MaskRule) -> Outcome<Vec<Stereo>> {
    let info = separator.info().clone();
    let options = DemixOptions {
        plan: ChunkPlan::new(info.chunk, info.overlap),
        batch: info.batch,
        rule,
        standardise: None,
        tta: false,
    };
    let mut stems: Vec<Stereo> = vec![Stereo::default(); info.architecture.num_stems];
    demix(
        separator,
        &mut MemorySource::new(song),
        &options,
        &mut |block| {
            for (stem, planes) in stems.iter_mut().zip(block.planes().chunks(2)) {
                for (stem, plane) in stem.iter_mut().zip(planes) {
                    stem.extend_from_slice(plane);
                }
            }
            Ok(())
        },
        &mut |_| interrupt::flow(),
    )
    .or_fail(Code::Failed)?;
    if info.complement.is_some() {
        let rest = std::array::from_fn(|c| {
            let stem = stems.first().map_or(&[][..], |stem| &stem[c]);
            song.channel(c).iter().zip(stem).map(|(mixture, stem)| mixture - stem).collect()
        });
        stems.push(rest);
    }
    Ok(stems)
}

fn pair(stem: &[Vec<f32>]) -> Stereo {
    std::array::from_fn(|c| stem.get(c).or(stem.first()).cloned().unwrap_or_default())
}
