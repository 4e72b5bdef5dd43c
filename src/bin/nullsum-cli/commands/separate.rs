//! `separate`: separates songs into stems.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nullsum::audio::Origin;
use nullsum::lossless::LosslessMode;
use nullsum::offline::error::OfflineError;
use nullsum::offline::options::{RenderOptions, TimeRange};
use nullsum::offline::outputs::{output_names, output_paths};
use nullsum::offline::render::{RenderReport, render, render_ensemble};
use nullsum::separator::{ModelSpec, Separator, check_chunk, stem_position};
use parking_lot::Mutex;
use serde_json::json;

use crate::args::values::{Bits, Cascade, FileType, NonFinite, PcmType};
use crate::args::{ModelArgs, SeparateArgs};
use crate::batch::{Batch, Song, collect_songs, is_same_file};
use crate::exit::{CliResult, ExitStatus, Failure, OrFail, format_error};
use crate::interrupt;
use crate::jobs::run_jobs;
use crate::model_source::{self, ModelSource};
use crate::names::{NamePlan, RealFileSystem, check_names};
use crate::printer::Printer;
use crate::progress::SongProgress;
use crate::report::done_event;
use crate::summary::BatchSummary;

/// Input folder of the reference program when none is named.
const DEFAULT_INPUT: &str = "input";

/// Separates all songs of the command line.
pub fn run(args: &SeparateArgs) -> CliResult {
    let printer: Printer = args.printer.into();
    check_files(args)?;
    let batch = collect_inputs(args)?;
    batch.warnings.iter().for_each(|warning| printer.warning(warning));
    if batch.songs.is_empty() {
        return Err(Failure::new(ExitStatus::Io, "no audio files found"));
    }
    // A single missing song is reported before the model is loaded.
    if let [only] = batch.songs.as_slice() {
        nullsum::audio::Decoder::open(&only.input).or_fail(ExitStatus::Io)?;
    }

    let models = open_models(args, printer)?;
    let mut workers = load_workers(args, &models, printer)?;
    let Some(worker) = workers.first() else { return Ok(()) };
    let Some(separator) = worker.models.first() else { return Ok(()) };
    let devices = workers.iter().filter_map(|worker| worker.models.first()).map(Separator::device);
    let devices = devices.collect::<Vec<_>>().join(", ");
    let info = separator.info().clone();
    let options = render_options(args, &info, &models.name());
    if let Some(chunk) = options.chunk {
        check_chunk(chunk, &info.architecture).or_fail(ExitStatus::Usage)?;
    }
    let cascade: Vec<CascadeStep> = models
        .cascade
        .iter()
        .zip(&worker.cascade)
        .map(|((stem, source), separator)| CascadeStep {
            stem: stem.clone(),
            model: source.name.clone(),
            info: separator.info().clone(),
        })
        .collect();
    let jobs = plan_jobs(&batch, &info, &options, &cascade, args.files.segments, printer)?;
    if jobs.is_empty() {
        printer.note("This share of the songs is empty.");
        printer.event(&BatchSummary::default().event(0.0));
        return Ok(());
    }
    if jobs.iter().all(|job| job.rejected.is_some()) {
        return Err(all_rejected(&jobs));
    }
    printer.note(&headline(&options.model_name, separator, &devices));
    printer.event(&json!({
        "event": "start",
        "songs": jobs.len(),
        "model": options.model_name,
        "stems": info.stems,
        "device": devices,
        "kernel": separator.kernel(),
        "precision": separator.precision().precision.to_string(),
        "threads": separator.threads(),
        "lossless": options.lossless.to_string(),
    }));
    drop(models);

    let started = Instant::now();
    let summary = separate_all(args, &mut workers, &jobs, printer);
    let elapsed = started.elapsed().as_secs_f64();
    if let Some(path) = &args.files.report {
        summary.write_report(path, elapsed)?;
    }
    if summary.interrupted {
        return Err(Failure::interrupted());
    }
    printer.event(&summary.event(elapsed));
    if jobs.len() > 1 {
        printer.print_line(&summary.text());
    }
    match summary.last_failure {
        None => Ok(()),
        Some(status) if batch.songs.len() == 1 => Err(Failure::already_reported(status)),
        Some(_) => Err(Failure::already_reported(ExitStatus::Failed)),
    }
}

/// The error of a batch of which no song can be separated: every reason once.
fn all_rejected(jobs: &[SongJob]) -> Failure {
    let mut status = ExitStatus::Io;
    let mut reasons: Vec<&str> = Vec::new();
    for (found, reason) in jobs.iter().filter_map(|job| job.rejected.as_ref()) {
        if *found == ExitStatus::Usage {
            status = ExitStatus::Usage;
        }
        if !reasons.contains(&reason.as_str()) {
            reasons.push(reason);
        }
    }
    Failure::new(status, reasons.join("\n"))
}

/// The models of a command line.
struct Models {
    /// One, or those of an ensemble.
    main: Vec<ModelSource>,
    /// Stems that are separated further, each with its model.
    cascade: Vec<(String, ModelSource)>,
}

impl Models {
    fn name(&self) -> String {
        self.main.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join("+")
    }
}

fn open_models(args: &SeparateArgs, printer: Printer) -> CliResult<Models> {
    let named = |model: &Path| ModelArgs { model: Some(model.into()), config: None, ..args.model.clone() };
    let open = |args: &ModelArgs| {
        let source = model_source::open_model(args, printer)?;
        for warning in source.config_warnings() {
            printer.warning(&warning);
        }
        CliResult::Ok(source)
    };
    let main = match args.ensemble.as_slice() {
        [] => vec![open(&args.model)?],
        models => models.iter().map(|model| open(&named(model))).collect::<CliResult<_>>()?,
    };
    let step = |step: &Cascade| Ok((step.stem.clone(), open(&named(&step.model))?));
    let cascade = args.then.iter().map(step).collect::<CliResult<_>>()?;
    Ok(Models { main, cascade })
}

/// The separators of one device.
struct Worker {
    models: Vec<Separator>,
    cascade: Vec<Separator>,
}

fn load_workers(args: &SeparateArgs, models: &Models, printer: Printer) -> CliResult<Vec<Worker>> {
    let family = model_source::family(&args.model);
    let mut workers = Vec::new();
    for runtime in args.run.runtimes() {
        let load = |source: &ModelSource| {
            interrupt::check_stop()?;
            Separator::load(&source.checkpoint, &source.config, family, runtime).or_fail(ExitStatus::Model)
        };
        workers.push(Worker {
            models: models.main.iter().map(load).collect::<CliResult<_>>()?,
            cascade: models.cascade.iter().map(|(_, source)| load(source)).collect::<CliResult<_>>()?,
        });
        interrupt::check_stop()?;
        if let Some(error) = runtime.device.fallback() {
            printer.warning(&format!("running on the CPU: {}", format_error(&error.into())));
        }
    }
    Ok(workers)
}

/// A stem that is separated further.
struct CascadeStep {
    stem: String,
    model: String,
    info: ModelSpec,
}

/// A song, or a part of one, with the files to write.
struct SongJob<'a> {
    song: &'a Song,
    options: RenderOptions,
    outputs: Vec<PathBuf>,
    /// The stems to separate further: the file, the options, and the outputs.
    cascade: Vec<(PathBuf, RenderOptions, Vec<PathBuf>)>,
    /// Why it cannot be separated.
    rejected: Option<(ExitStatus, String)>,
}

/// The songs of the command line, or of the reference program's default folder.
fn collect_inputs(args: &SeparateArgs) -> CliResult<Batch> {
    let mut inputs = args.inputs.clone();
    if let Some(folder) = &args.input_folder {
        if !folder.is_dir() {
            return Err(Failure::new(
                ExitStatus::Io,
                format!("--input-folder {}: there is no such folder", folder.display()),
            ));
        }
        inputs.push(folder.clone());
    }
    if inputs.is_empty() {
        if !Path::new(DEFAULT_INPUT).is_dir() {
            return Err(Failure::new(
                ExitStatus::Usage,
                "no song given: name files, folders or patterns, as in `nullsum-cli song.wav`; \
                 `nullsum-cli demo` composes one, `nullsum-cli --help` explains all",
            ));
        }
        inputs.push(DEFAULT_INPUT.into());
    }
    collect_songs(&inputs, &args.output, args.files.shard)
}

/// Refuses contradictory options before any work.
fn check_files(args: &SeparateArgs) -> CliResult {
    let flac = args.files.flac_file || args.files.format == FileType::Flac;
    let float = args.files.bits == Some(Bits::Float) || args.files.pcm_type == Some(PcmType::Float);
    if flac && float {
        return Err(Failure::new(
            ExitStatus::Usage,
            "FLAC holds integers only: choose 16 or 24 bits, or --format wav for float",
        ));
    }
    check_stem_file(args, float)?;
    if args.output == Path::new("-") {
        return Err(Failure::new(
            ExitStatus::Usage,
            "--output -: several stems cannot go to standard output; name a folder",
        ));
    }
    if let Some(report) = &args.files.report {
        check_report(report)?;
    }
    let no_stems = args.files.stems.as_ref().is_some_and(|stems| {
        stems.iter().all(|stem| stem.trim().is_empty() || stem.trim().eq_ignore_ascii_case("none"))
    });
    if no_stems && args.files.mix.is_none() && !args.files.extract_instrumental {
        return Err(Failure::new(
            ExitStatus::Usage,
            "--stems none leaves nothing to write; add --mix or --extract-instrumental",
        ));
    }
    if let (Some(start), Some(end)) = (args.files.start, args.files.end)
        && end <= start
    {
        return Err(Failure::new(ExitStatus::Usage, "--end must be later than --start"));
    }
    if args.output.exists() && !args.output.is_dir() {
        return Err(Failure::new(
            ExitStatus::Io,
            format!("--output {}: is a file, not a folder", args.output.display()),
        ));
    }
    Ok(())
}

/// Refuses a report that could not be written in the end.
fn check_report(path: &Path) -> CliResult {
    let refuse = |what: String| Failure::new(ExitStatus::Io, format!("--report {}: {what}", path.display()));
    if path == Path::new("-") {
        return Err(Failure::new(
            ExitStatus::Usage,
            "--report -: a report is a file; --json prints the same events to standard output",
        ));
    }
    if path.is_dir() || path.file_name().is_none() {
        return Err(refuse("is a folder, not a file".into()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The report is written there under another name first, as this file is.
    tempfile::NamedTempFile::new_in(folder)
        .map(drop)
        .map_err(|error| refuse(format!("cannot write to the folder {}: {error}", folder.display())))
}

/// Refuses options that contradict `--format stem.m4a`.
fn check_stem_file(args: &SeparateArgs, float: bool) -> CliResult {
    if args.files.flac_file || args.files.format != FileType::StemM4a {
        return Ok(());
    }
    if float {
        return Err(Failure::new(
            ExitStatus::Usage,
            "a stem file holds integers only: choose 16 or 24 bits, or --format wav for float",
        ));
    }
    let parts = [
        ("--stems", args.files.stems.is_some()),
        ("--mix", args.files.mix.is_some()),
        ("--extract-instrumental", args.files.extract_instrumental),
        ("--instrumental-only", args.files.instrumental_only),
        ("--then", !args.then.is_empty()),
    ];
    match parts.iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => Err(Failure::new(
            ExitStatus::Usage,
            format!(
                "--format stem.m4a writes one file with the song and all stems; {option} needs wav or flac"
            ),
        )),
        None => Ok(()),
    }
}

fn render_options(args: &SeparateArgs, info: &ModelSpec, model: &str) -> RenderOptions {
    let (quality, files) = (&args.quality, &args.files);
    let mut stems = files.stems.clone();
    if let Some(stems) = &mut stems {
        let mut seen = std::collections::HashSet::new();
        stems.iter_mut().for_each(|stem| *stem = stem.trim().to_string());
        stems.retain(|stem| seen.insert(stem.clone()) && !stem.eq_ignore_ascii_case("none"));
    }
    if files.instrumental_only {
        stems = Some(Vec::new());
    }
    RenderOptions {
        lossless: if quality.disable_lossless { LosslessMode::Off } else { quality.lossless.into() },
        chunk: quality.chunk.map(|length| length.samples(info.sample_rate)),
        overlap: quality.overlap,
        batch: quality.batch.map(usize::from),
        tta: quality.tta,
        big_shifts: quality.big_shifts.map_or(0, usize::from),
        normalize: match (quality.normalize, quality.no_normalize) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        container: Some(if files.flac_file { FileType::Flac } else { files.format }.into()),
        format: files.bits.map(Into::into).or(files.pcm_type.map(Into::into)),
        stems,
        extract_instrumental: files.extract_instrumental || files.instrumental_only,
        mix: files.mix.clone(),
        refuse_non_finite: quality.non_finite == NonFinite::Refuse,
        template: files.template.clone(),
        model_name: model.to_owned(),
        range: TimeRange { start: files.start.unwrap_or(0.0), end: files.end },
        no_metadata: files.no_metadata,
        ..RenderOptions::default()
    }
}

/// Determines all output paths, and finds songs that cannot be separated: names that the file system refuses, outputs
/// that collide. An output that would overwrite an input is an error for the whole batch.
fn plan_jobs<'a>(
    batch: &'a Batch,
    info: &ModelSpec,
    options: &RenderOptions,
    cascade: &[CascadeStep],
    segments: bool,
    printer: Printer,
) -> CliResult<Vec<SongJob<'a>>> {
    let mut jobs: Vec<SongJob> = Vec::new();
    for song in &batch.songs {
        for options in parts_of(song, options, segments, printer) {
            jobs.push(SongJob { song, options, outputs: Vec::new(), cascade: Vec::new(), rejected: None });
        }
    }
    let paths = |job: &SongJob, portable_names: bool| {
        let options = RenderOptions { portable_names, ..job.options.clone() };
        let mut all = output_paths(&job.song.input, &job.song.folder, info, &options)?;
        for (_, _, outputs) in cascade_of(job, info, &options, cascade)? {
            all.extend(outputs);
        }
        CliResult::Ok(all)
    };
    let mut plans = Vec::new();
    for job in &jobs {
        plans.push(NamePlan {
            input: &job.song.input,
            outputs: paths(job, false)?,
            portable_outputs: paths(job, true)?,
            is_portable: false,
            rejected: None,
        });
    }
    check_names(&mut plans, &RealFileSystem);
    for (job, plan) in jobs.iter_mut().zip(plans) {
        (job.options.portable_names, job.rejected) = (plan.is_portable, plan.rejected);
        job.outputs = output_paths(&job.song.input, &job.song.folder, info, &job.options)?;
        job.cascade = cascade_of(job, info, &job.options, cascade)?;
        if plan.is_portable {
            printer.warning(&format!(
                "{}: the file system of the output refuses some characters of this name; they are replaced by _",
                job.song.input.display()
            ));
        }
    }
    for job in &jobs {
        let outputs = job.cascade.iter().flat_map(|(_, _, outputs)| outputs).chain(&job.outputs);
        if let Some(output) = outputs.into_iter().find(|output| batch.contains_input(output)) {
            let whose = if is_same_file(output, &job.song.input) {
                "itself".into()
            } else {
                job.song.input.display().to_string()
            };
            return Err(Failure::new(
                ExitStatus::Usage,
                format!(
                    "{} is a song to separate and would be overwritten by a stem of {whose}; choose another --output or \
                     --template",
                    output.display()
                ),
            ));
        }
    }
    // Shares are told apart only now, since songs of other shares may collide with ours.
    jobs.retain(|job| job.song.is_in_share);
    Ok(jobs)
}

/// The stems of a song that are separated further: the file, the options, and the outputs.
fn cascade_of(
    job: &SongJob,
    info: &ModelSpec,
    options: &RenderOptions,
    cascade: &[CascadeStep],
) -> CliResult<Vec<(PathBuf, RenderOptions, Vec<PathBuf>)>> {
    let names = output_names(info, options)?;
    let files = output_paths(&job.song.input, &job.song.folder, info, options)?;
    let mut steps = Vec::new();
    for step in cascade {
        let Some(file) = stem_position(&names, &step.stem).and_then(|n| files.get(n)) else {
            return Err(Failure::new(
                ExitStatus::Usage,
                format!("--then {}: no such stem is written; there are {}", step.stem, names.join(", ")),
            ));
        };
        let further = RenderOptions {
            lossless: options.lossless,
            container: options.container,
            format: options.format,
            batch: options.batch,
            tta: options.tta,
            big_shifts: options.big_shifts,
            template: options.template.clone(),
            portable_names: options.portable_names,
            model_name: step.model.clone(),
            no_metadata: options.no_metadata,
            ..RenderOptions::default()
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        let outputs = output_paths(file, folder, &step.info, &further)?;
        steps.push((file.clone(), further, outputs));
    }
    Ok(steps)
}

/// The options for a whole song, or for each of its parts between cue points.
fn parts_of(song: &Song, options: &RenderOptions, segments: bool, printer: Printer) -> Vec<RenderOptions> {
    let cues = match segments {
        true => nullsum::audio::metadata::cue_seconds(&song.input),
        false => Vec::new(),
    };
    if cues.is_empty() {
        if segments {
            printer.warning(&format!("{}: no cue points; the whole song is one part", song.input.display()));
        }
        return vec![options.clone()];
    }
    let starts = std::iter::once(0.0).chain(cues.iter().copied());
    let ends = cues.iter().copied().map(Some).chain([None]);
    starts
        .zip(ends)
        .filter(|(start, end)| end.is_none_or(|end| end > *start))
        .enumerate()
        .map(|(n, (start, end))| RenderOptions {
            range: TimeRange { start, end },
            name_suffix: format!("_{:02}", n + 1),
            ..options.clone()
        })
        .collect()
}

fn headline(name: &str, separator: &Separator, devices: &str) -> String {
    let info = separator.info();
    format!(
        "{name}: {}, {:.1} M parameters, {} ({}); {} on {devices}, {} threads",
        info.architecture.family,
        info.architecture.parameters() as f64 / 1e6,
        if info.stems.len() == 1 { "one stem".into() } else { format!("{} stems", info.stems.len()) },
        info.stems.join(", "),
        separator.precision(),
        separator.threads()
    )
}

/// Separates all songs, each on the next free separator.
fn separate_all(
    args: &SeparateArgs,
    workers: &mut [Worker],
    jobs: &[SongJob],
    printer: Printer,
) -> BatchSummary {
    let printer = if workers.len() > 1 { printer.without_progress() } else { printer };
    let summary = Mutex::new(BatchSummary::default());
    run_jobs(workers, jobs, |worker, place, job| {
        separate_one(args, worker, job, (place + 1, jobs.len()), printer, &summary)
    });
    summary.into_inner()
}

/// Separates song number `place.0` of `place.1`. Breaks if no further song should start.
fn separate_one(
    args: &SeparateArgs,
    worker: &mut Worker,
    job: &SongJob,
    place: (usize, usize),
    printer: Printer,
    summary: &Mutex<BatchSummary>,
) -> ControlFlow<()> {
    if interrupt::stop_requested() {
        summary.lock().interrupted = true;
        return ControlFlow::Break(());
    }
    let input = &job.song.input;
    let fail = |status: ExitStatus, message: &str| {
        summary.lock().add_failed(input, status, message);
        printer.error(Some(input), message);
        if args.files.fail_fast { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    if let Some((status, message)) = &job.rejected {
        return fail(*status, message);
    }
    if args.files.skip_existing && is_done(job, printer) {
        printer.event(&summary.lock().add_skipped(input));
        printer.print_line(&format!("{}: there already", input.display()));
        return ControlFlow::Continue(());
    }
    let passes = worker.models.iter().map(|separator| job.options.passes(separator.info())).sum();
    let result = {
        let mut progress = SongProgress::new(printer, input, place, passes);
        render_ensemble(&mut worker.models, input, &job.song.folder, &job.options, &mut |step| {
            progress.update(step);
            interrupt::stop_flow()
        })
    };
    let mut results = vec![(input.as_path(), result)];
    for ((file, options, _), separator) in job.cascade.iter().zip(&mut worker.cascade) {
        if results.iter().any(|(_, result)| result.is_err()) {
            break;
        }
        let mut progress = SongProgress::new(printer, file, place, options.passes(separator.info()));
        let folder = file.parent().unwrap_or(Path::new(""));
        let result = render(separator, file, folder, options, &mut |step| {
            progress.update(step);
            interrupt::stop_flow()
        });
        results.push((file, result));
    }
    for (input, result) in results {
        report_result(job, input, result, printer, summary, &fail)?;
    }
    ControlFlow::Continue(())
}

/// Reports what became of a song, or of a stem that was separated further.
fn report_result(
    job: &SongJob,
    input: &Path,
    result: Result<RenderReport, OfflineError>,
    printer: Printer,
    summary: &Mutex<BatchSummary>,
    fail: &dyn Fn(ExitStatus, &str) -> ControlFlow<()>,
) -> ControlFlow<()> {
    match result {
        Ok(report) => {
            summary.lock().add_done(&report, done_event(&report));
            printer.done(&report, job.options.lossless != LosslessMode::Off);
            ControlFlow::Continue(())
        }
        Err(OfflineError::Cancelled) => {
            summary.lock().interrupted = true;
            ControlFlow::Break(())
        }
        Err(error) => {
            let failure = Failure::from(error);
            fail(failure.status, &explain(input, &failure))
        }
    }
}

/// Whether all outputs exist. Those that another model has made do not count.
fn is_done(job: &SongJob, printer: Printer) -> bool {
    if !job.outputs.iter().all(|output| output.is_file()) {
        return false;
    }
    let other = job
        .outputs
        .iter()
        .filter_map(|output| Origin::of_file(output))
        .find(|origin| origin.model != job.options.model_name);
    if let Some(origin) = &other {
        printer.note(&format!(
            "{}: the stems there were made by {}; separating it again",
            job.song.input.display(),
            origin.model
        ));
    }
    other.is_none()
}

/// The text of the error, with the path of the song if it lacks one.
fn explain(input: &Path, failure: &Failure) -> String {
    let message = format_error(&failure.error);
    if message.contains(&*input.to_string_lossy()) {
        message
    } else {
        format!("{}: {message}", input.display())
    }
}
