//! `tiers`: measures live use on this device: latency, load, and the SDR of the live stems against the offline stems and
//! against true stems.

mod forecast;
mod output;
mod song;

pub use forecast::verdict;
use nullsum::audio::Planar;
use nullsum::demo::{Stereo, baseline_sdr, sdr};
use nullsum::embedded;
use nullsum::live::{
    HostSamples, MeasuredCost, ModelSamples, ModelTiming, Plan, PlanRequest, SharedModel, Tier,
    WindowSeparator, WindowSpec, default_threads, measure, measure_hop, offline_reference,
};
use nullsum::offline::demix::{DemixOptions, demix};
use nullsum::offline::plan::ChunkPlan;
use nullsum::offline::reader::MemoryReader;
use nullsum::separator::{MaskRule, Runtime, Separator};

use crate::args::TiersArgs;
use crate::exit::{CliResult, ExitStatus, OrFail};
use crate::interrupt;
use crate::model_source;
use crate::printer::Printer;

/// Hops that are timed.
const TIMED_HOPS: usize = 40;
/// Window that is timed, in seconds.
const TIMED_SECONDS: f64 = 4.0;

/// Measurements of a tier or of one point of a sweep.
pub struct Row {
    name: String,
    /// The plan at the host's rate.
    plan: Plan,
    /// Seconds that a hop takes.
    seconds: f64,
    /// Share of all processors.
    load: f64,
    to_offline: Vec<f64>,
    /// Empty without true stems; `None` for a stem that the song does not have.
    to_truth: Vec<Option<f64>>,
}

/// Measures every tier, or every point of a sweep.
pub fn run(args: &TiersArgs) -> CliResult {
    if let Some(name) = &args.arch {
        return forecast::run(name, args);
    }
    let mut model = args.model.clone();
    model.model.get_or_insert_with(|| embedded::NAME.into());
    let source = model_source::open_model(&model, Printer::stderr_only())?;
    let family = model_source::family(&model);
    let mut separator = Separator::load(&source.checkpoint, &source.config, family, runtime(args))
        .or_fail(ExitStatus::Model)?;
    let info = separator.info().clone();
    let names = separator.stem_names();
    let material = song::material(args, info.sample_rate, &names)?;
    let song = &material.song;
    let rule = info.rule(MaskRule::Complete);
    let offline = whole(&mut separator, song, rule)?;
    let (timing, threads) = (separator.timing(), separator.threads());
    let shared = SharedModel::new(Box::new(separator));
    let window = ModelSamples((TIMED_SECONDS * f64::from(info.sample_rate)) as u64).min(timing.chunk);
    let cost = measure(&shared, window, 3, &interrupt::stop_requested).or_fail(ExitStatus::Failed)?;
    let mut rows = Vec::new();
    for (name, request) in requests(args, &timing) {
        interrupt::check_stop()?;
        let plan = Plan::new(request.with_measured_deadline(cost)).or_fail(ExitStatus::Usage)?;
        let live = live_stems(&shared, &plan, rule, song)?;
        let to_offline = live.iter().zip(&offline).map(|(live, offline)| sdr(offline, live)).collect();
        let seconds = seconds_a_hop(&shared, &plan, cost)?;
        let load = plan.load(seconds) * share_of_processors(threads);
        rows.push(Row { name, plan, seconds, load, to_offline, to_truth: material.to_truth(&live) });
    }
    let bounds = [
        ("offline", material.to_truth(&offline)),
        ("mixture", material.of_truth(|truth| baseline_sdr(truth, &pair(song.planes())))),
    ];
    if args.json {
        output::print_json(&rows, &bounds, &names);
        return Ok(());
    }
    let seconds = song.samples() as f64 / f64::from(info.sample_rate);
    output::print_heading(args, &source.name, shared.runs_on(), seconds, &timing);
    output::print_table(&rows, &bounds, &names, &material);
    Ok(())
}

/// As live separation runs: it leaves a processor to the host, and may choose int8.
fn runtime(args: &TiersArgs) -> Runtime {
    let runtime = args.run.runtime();
    let threads = if args.run.threads.is_some() { runtime.threads } else { default_threads() };
    Runtime { threads, auto_may_use_int8: true, ..runtime }
}

/// Share of all processors that `threads` threads are.
fn share_of_processors(threads: usize) -> f64 {
    threads as f64 / std::thread::available_parallelism().map_or(threads, usize::from).max(threads) as f64
}

/// The stems that a render with this plan gives, at the model's rate, where resampling does not blur the comparison.
fn live_stems(shared: &SharedModel, plan: &Plan, rule: MaskRule, song: &Planar) -> CliResult<Vec<Stereo>> {
    let at_rate = PlanRequest { host_rate: plan.model_rate(), max_block: HostSamples(1), ..*plan.request() };
    let plan = Plan::new(at_rate).or_fail(ExitStatus::Usage)?;
    let stems = shared.with(|model| offline_reference(&plan, model, rule, song.planes()));
    Ok(stems.or_fail(ExitStatus::Failed)?.iter().map(|stem| pair(stem)).collect())
}

/// Seconds that a hop takes. Hops with kept context are timed, with a full context; windows follow from the measured one.
fn seconds_a_hop(shared: &SharedModel, plan: &Plan, cost: MeasuredCost) -> CliResult<f64> {
    let Some(context) = plan.context() else { return Ok(cost.of_hop(plan.request())) };
    let rounds = (context.plan.context_frames, TIMED_HOPS);
    measure_hop(shared, context, rounds, &interrupt::stop_requested).or_fail(ExitStatus::Failed)
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
