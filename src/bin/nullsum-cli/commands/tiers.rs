//! `tiers`: measures live use on this device: latency, load, and the SDR of the live stems against the offline stems and
//! against true stems.

mod song;

use nullsum::audio::Planar;
use nullsum::demo::{Stereo, baseline_sdr, sdr};
use nullsum::embedded;
use nullsum::live::{
    HostSamples, ModelSamples, ModelTiming, Plan, PlanRequest, SharedModel, Tier, WindowSeparator,
    WindowSpec, measure, offline_reference,
};
use nullsum::offline::demix::{DemixOptions, demix};
use nullsum::offline::plan::ChunkPlan;
use nullsum::offline::reader::MemoryReader;
use nullsum::separator::{MaskRule, Separator};
use serde_json::{Map, Value, json};

use crate::args::TiersArgs;
use crate::exit::{CliResult, ExitStatus, OrFail};
use crate::interrupt;
use crate::model_source;
use crate::printer::{Printer, print_line};

/// Window that is timed, in seconds.
const TIMED_SECONDS: f64 = 4.0;

/// Measurements of a tier or of one point of a sweep.
struct Row {
    name: String,
    /// The plan at the host's rate.
    plan: Plan,
    load: f64,
    to_offline: Vec<f64>,
    /// Empty without true stems; `None` for a stem that the song does not have.
    to_truth: Vec<Option<f64>>,
}

/// Measures every tier, or every point of a sweep.
pub fn run(args: &TiersArgs) -> CliResult {
    let mut model = args.model.clone();
    model.model.get_or_insert_with(|| embedded::NAME.into());
    let source = model_source::open_model(&model, Printer::stderr_only())?;
    let family = model_source::family(&model);
    let mut separator = Separator::load(&source.checkpoint, &source.config, family, args.run.runtime())
        .or_fail(ExitStatus::Model)?;
    let info = separator.info().clone();
    let names = separator.stem_names();
    let material = song::material(args, info.sample_rate, &names)?;
    let song = &material.song;
    let rule = info.rule(MaskRule::Complete);
    let offline = whole(&mut separator, song, rule)?;
    let timing = separator.timing();

    let shared = SharedModel::new(Box::new(separator));
    let window = ModelSamples((TIMED_SECONDS * f64::from(info.sample_rate)) as u64);
    let measured =
        measure(&shared, ModelSamples(window.0.min(timing.chunk.0)), 3, &interrupt::stop_requested)
            .or_fail(ExitStatus::Failed)?;
    let mut rows = Vec::new();
    for (name, request) in requests(args, &timing) {
        interrupt::check_stop()?;
        // What a host sees; and the same at the model's rate, where resampling does not blur the comparison.
        let plan = Plan::new(request).or_fail(ExitStatus::Usage)?;
        let request =
            PlanRequest { host_rate: info.sample_rate, max_block: HostSamples(1), ..*plan.request() };
        let mut borrowed = Borrowed(&shared);
        let at_rate = Plan::new(request).or_fail(ExitStatus::Usage)?;
        let live =
            offline_reference(&at_rate, &mut borrowed, rule, song.planes()).or_fail(ExitStatus::Failed)?;
        let live: Vec<Stereo> = live.iter().map(|stem| pair(stem)).collect();
        let to_offline = live.iter().zip(&offline).map(|(live, offline)| sdr(offline, live)).collect();
        let load = measured.load(plan.request());
        rows.push(Row { name, plan, load, to_offline, to_truth: material.to_truth(&live) });
    }
    let bounds = [
        ("offline", material.to_truth(&offline)),
        ("mixture", material.of_truth(|truth| baseline_sdr(truth, &pair(song.planes())))),
    ];
    if args.json {
        for row in &rows {
            print_line(&described(row, &names).to_string());
        }
        for (name, truth) in bounds.iter().filter(|(_, truth)| !truth.is_empty()) {
            print_line(&json!({ "tier": name, "true_sdr_db": by_stem(&names, truth) }).to_string());
        }
        return Ok(());
    }
    print_line(&format!(
        "{}, {}; {} Hz, blocks of {}; {:.1} s of audio, live stems against offline ones",
        source.name,
        shared.runs_on(),
        args.rate,
        args.block,
        song.samples() as f64 / f64::from(info.sample_rate)
    ));
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(9) + 1;
    print_line(&format!(
        "{:<width$}{:>10}{:>9}{:>8}{:>11}{:>8}   SDR to offline, dB",
        "tier", "latency", "window", "hop", "lookahead", "load"
    ));
    for row in &rows {
        let rate = row.plan.model_rate();
        let values: Vec<Option<f64>> = row.to_offline.iter().copied().map(Some).collect();
        print_line(&format!(
            "{:<width$}{:>7.0} ms{:>7.2} s{:>6.2} s{:>9.2} s{:>6.0} %   {}",
            row.name,
            row.plan.latency_ms(),
            row.plan.window().seconds(rate),
            row.plan.hop().seconds(rate),
            row.plan.lookahead().seconds(rate),
            100.0 * row.load,
            listed(&names, &values)
        ));
    }
    if material.has_truth() {
        print_line(&format!(
            "\n{:<width$}SDR to the true stems, dB (mixture: scaled, nothing separated)",
            ""
        ));
        let live = rows.iter().map(|row| (row.name.as_str(), &row.to_truth));
        for (name, truth) in live.chain(bounds.iter().map(|(name, truth)| (*name, truth))) {
            print_line(&format!("{name:<width$}{}", listed(&names, truth)));
        }
    }
    Ok(())
}

/// The plans to measure, by name.
fn requests(args: &TiersArgs, timing: &ModelTiming) -> Vec<(String, PlanRequest)> {
    let block = HostSamples(u64::from(args.block));
    if args.windows.is_empty() && args.hops.is_empty() && args.lookaheads.is_empty() {
        let named = |tier: Tier| (tier.to_string(), tier.request(timing, args.rate, block));
        return Tier::ALL.map(named).into();
    }
    let or = |given: &[f64], usual: &[f64]| if given.is_empty() { usual.to_vec() } else { given.to_vec() };
    let chunk = timing.chunk.seconds(timing.rate);
    let mut all: Vec<(String, PlanRequest)> = Vec::new();
    for &window in &or(&args.windows, &[chunk]) {
        for &hop in &or(&args.hops, &[chunk / 16.0, chunk / 8.0, chunk / 4.0]) {
            for &lookahead in &or(&args.lookaheads, &[chunk / 32.0, chunk / 16.0, chunk / 8.0]) {
                let request = WindowSpec { window, hop, lookahead }.request(timing, args.rate, block);
                // Lengths are whole frames, so that neighbouring points may be one.
                if all.iter().all(|(_, known)| *known != request) {
                    all.push((format!("{window:.2}/{hop:.3}/{lookahead:.3}"), request));
                }
            }
        }
    }
    all
}

fn described(row: &Row, names: &[String]) -> Value {
    let (plan, rate) = (&row.plan, row.plan.model_rate());
    let to_offline: Vec<Option<f64>> = row.to_offline.iter().copied().map(Some).collect();
    let mut value = json!({
        "tier": row.name, "latency_samples": plan.latency().0, "latency_ms": plan.latency_ms(),
        "window_seconds": plan.window().seconds(rate), "hop_seconds": plan.hop().seconds(rate),
        "lookahead_seconds": plan.lookahead().seconds(rate), "load": row.load,
        "sdr_to_offline_db": by_stem(names, &to_offline),
    });
    if !row.to_truth.is_empty() {
        value["true_sdr_db"] = by_stem(names, &row.to_truth);
    }
    value
}

fn by_stem(names: &[String], values: &[Option<f64>]) -> Value {
    Value::Object(
        names.iter().zip(values).map(|(name, sdr)| (name.clone(), json!(sdr))).collect::<Map<_, _>>(),
    )
}

fn listed(names: &[String], values: &[Option<f64>]) -> String {
    let one = |(name, sdr): (&String, &Option<f64>)| match sdr {
        Some(sdr) => format!("{name} {sdr:.1}"),
        None => format!("{name} –"),
    };
    names.iter().zip(values).map(one).collect::<Vec<_>>().join(", ")
}

/// Adapter that gives a shared model to code that needs an owned one.
struct Borrowed<'a>(&'a SharedModel);

impl WindowSeparator for Borrowed<'_> {
    fn stems(&self) -> usize {
        self.0.stems()
    }

    fn channels(&self) -> usize {
        self.0.channels()
    }

    fn timing(&self) -> nullsum::live::ModelTiming {
        self.0.timing()
    }

    fn separate_window(
        &mut self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
    ) -> Result<(), nullsum::live::WindowError> {
        self.0.separate_window(window, rule, out)
    }
}

/// The offline stems, as the command line makes them by default: `[stems]`.
fn whole(separator: &mut Separator, song: &Planar, rule: MaskRule) -> CliResult<Vec<Stereo>> {
    let info = separator.info().clone();
    let options = DemixOptions {
        plan: ChunkPlan::new(info.chunk, info.overlap as f64),
        batch: info.batch,
        rule,
        standardise: None,
        tta: false,
    };
    let mut stems: Vec<Stereo> = vec![Stereo::default(); info.architecture.num_stems];
    demix(
        separator,
        &mut MemoryReader::new(song),
        &options,
        &mut |block| {
            for (stem, planes) in stems.iter_mut().zip(block.planes().chunks(2)) {
                for (stem, plane) in stem.iter_mut().zip(planes) {
                    stem.extend_from_slice(plane);
                }
            }
            Ok(())
        },
        &mut |_| interrupt::stop_flow(),
    )
    .or_fail(ExitStatus::Failed)?;
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
