//! `separate`: separates songs into stems.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nullsum::lossless::LosslessMode;
use nullsum::offline::error::OfflineError;
use nullsum::offline::options::RenderOptions;
use nullsum::offline::outputs::output_paths;
use nullsum::offline::render::render;
use nullsum::separator::{ModelSpec, Separator, check_chunk};
use parking_lot::Mutex;
use serde_json::json;

use crate::args::SeparateArgs;
use crate::args::values::{Bits, FileType, NonFinite, PcmType};
use crate::batch::{Batch, Song, check_collisions, collect_songs, is_same_file};
use crate::exit::{CliResult, ExitStatus, Failure, OrFail, format_error};
use crate::interrupt;
use crate::jobs::run_jobs;
use crate::model_source;
use crate::printer::Printer;
use crate::progress::SongProgress;
use crate::report::path_text;

/// Input folder of the reference program when none is named.
const DEFAULT_INPUT: &str = "input";

/// Separates all songs of the command line.
pub fn run(args: &SeparateArgs) -> CliResult {
    let printer: Printer = args.printer.into();
    check_files(args)?;
    let batch = collect_inputs(args)?;
    batch.warnings.iter().for_each(|warning| printer.warning(warning));
    if batch.total == 0 {
        return Err(Failure::new(ExitStatus::Io, "no audio files found"));
    }
    if batch.songs.is_empty() {
        printer.note("This share of the songs is empty.");
        printer.event(&BatchSummary::default().event(0.0));
        return Ok(());
    }
    // A single missing song is reported before the model is loaded.
    if let ([only], 1) = (batch.songs.as_slice(), batch.total) {
        nullsum::audio::Decoder::open(&only.input).or_fail(ExitStatus::Io)?;
    }

    let source = model_source::open_model(&args.model, printer)?;
    for warning in source.config_warnings() {
        printer.warning(&warning);
    }
    let family = model_source::family(&args.model);
    let mut separators = Vec::new();
    for runtime in args.run.runtimes() {
        let separator = Separator::load(&source.checkpoint, &source.config, family, runtime);
        separators.push(separator.or_fail(ExitStatus::Model)?);
        interrupt::check_stop()?;
        if let Some(error) = runtime.device.fallback() {
            printer.warning(&format!("running on the CPU: {}", format_error(&error.into())));
        }
    }
    let Some(separator) = separators.first() else { return Ok(()) };
    let devices = separators.iter().map(Separator::device).collect::<Vec<_>>().join(", ");
    let info = separator.info().clone();
    let options = render_options(args, &info);
    if let Some(chunk) = options.chunk {
        check_chunk(chunk, &info.architecture).or_fail(ExitStatus::Usage)?;
    }
    let jobs = plan_jobs(&batch, &source.name, &info, &options)?;
    printer.note(&headline(&source.name, separator, &devices));
    printer.event(&json!({
        "event": "start",
        "songs": jobs.len(),
        "model": source.name,
        "stems": info.stems,
        "device": devices,
        "kernel": separator.kernel(),
        "precision": separator.precision().precision.to_string(),
        "threads": separator.threads(),
        "lossless": options.lossless.to_string(),
    }));
    drop(source);

    let started = Instant::now();
    let summary = separate_all(args, &mut separators, &jobs, &options, printer)?;
    printer.event(&summary.event(started.elapsed().as_secs_f64()));
    if jobs.len() > 1 {
        printer.print_line(&summary.text());
    }
    match summary.last_failure {
        None => Ok(()),
        Some(status) if jobs.len() == 1 && batch.total == 1 => Err(Failure::already_reported(status)),
        Some(_) => Err(Failure::already_reported(ExitStatus::Failed)),
    }
}

/// A song with the files to write.
struct SongJob<'a> {
    song: &'a Song,
    template: String,
    outputs: Vec<PathBuf>,
}

/// Counts of a batch.
#[derive(Default)]
struct BatchSummary {
    done: usize,
    skipped: usize,
    failed: usize,
    audio_seconds: f64,
    last_failure: Option<ExitStatus>,
    interrupted: bool,
}

impl BatchSummary {
    fn text(&self) -> String {
        let mut parts = vec![format!("{} separated", self.done)];
        if self.skipped > 0 {
            parts.push(format!("{} there already", self.skipped));
        }
        if self.failed > 0 {
            parts.push(format!("{} failed", self.failed));
        }
        parts.join(", ")
    }

    fn event(&self, elapsed_seconds: f64) -> serde_json::Value {
        json!({
            "event": "summary",
            "done": self.done,
            "skipped": self.skipped,
            "failed": self.failed,
            "audio_seconds": self.audio_seconds,
            "elapsed_seconds": elapsed_seconds,
        })
    }
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
    collect_songs(&inputs, &args.output, &args.files.template, args.files.shard)
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
    if args.output.exists() && !args.output.is_dir() {
        return Err(Failure::new(
            ExitStatus::Io,
            format!("--output {}: is a file, not a folder", args.output.display()),
        ));
    }
    Ok(())
}

fn render_options(args: &SeparateArgs, info: &ModelSpec) -> RenderOptions {
    let (quality, files) = (&args.quality, &args.files);
    let mut stems = files.stems.clone();
    if let Some(stems) = &mut stems {
        let mut seen = std::collections::HashSet::new();
        stems.iter_mut().for_each(|stem| *stem = stem.trim().to_string());
        stems.retain(|stem| seen.insert(stem.clone()));
    }
    RenderOptions {
        lossless: if quality.disable_lossless { LosslessMode::Off } else { quality.lossless.into() },
        chunk: quality.chunk.map(|length| length.samples(info.sample_rate)),
        overlap: quality.overlap.map(usize::from),
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
        extract_instrumental: files.extract_instrumental,
        mix: files.mix.clone(),
        refuse_non_finite: quality.non_finite == NonFinite::Refuse,
        template: None,
    }
}

/// Determines all output paths and refuses collisions among them and with inputs.
fn plan_jobs<'a>(
    batch: &'a Batch,
    model: &str,
    info: &ModelSpec,
    options: &RenderOptions,
) -> CliResult<Vec<SongJob<'a>>> {
    let jobs: Vec<SongJob> = batch
        .songs
        .iter()
        .map(|song| {
            let template = song.template.replace("{model}", model);
            let options = RenderOptions { template: Some(template.clone()), ..options.clone() };
            let outputs = output_paths(&song.input, &song.folder, info, &options)?;
            Ok(SongJob { song, template, outputs })
        })
        .collect::<Result<_, OfflineError>>()?;
    check_collisions(
        jobs.iter().flat_map(|job| job.outputs.iter().map(|out| (out.clone(), job.song.input.as_path()))),
    )?;
    for job in &jobs {
        if let Some(output) = job.outputs.iter().find(|output| batch.contains_input(output)) {
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
    Ok(jobs)
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
    separators: &mut [Separator],
    jobs: &[SongJob],
    options: &RenderOptions,
    printer: Printer,
) -> CliResult<BatchSummary> {
    let printer = if separators.len() > 1 { printer.without_progress() } else { printer };
    let summary = Mutex::new(BatchSummary::default());
    run_jobs(separators, jobs, |separator, place, job| {
        separate_one(args, separator, job, (place + 1, jobs.len()), options, printer, &summary)
    });
    let summary = summary.into_inner();
    if summary.interrupted { Err(Failure::interrupted()) } else { Ok(summary) }
}

/// Separates song number `place.0` of `place.1`. Breaks if no further song should start.
fn separate_one(
    args: &SeparateArgs,
    separator: &mut Separator,
    job: &SongJob,
    place: (usize, usize),
    options: &RenderOptions,
    printer: Printer,
    summary: &Mutex<BatchSummary>,
) -> ControlFlow<()> {
    if interrupt::stop_requested() {
        summary.lock().interrupted = true;
        return ControlFlow::Break(());
    }
    let lossless = options.lossless != LosslessMode::Off;
    let passes = options.passes(separator.info());
    let input = &job.song.input;
    if args.files.skip_existing && job.outputs.iter().all(|output| output.is_file()) {
        summary.lock().skipped += 1;
        printer.event(&json!({"event": "skipped", "input": path_text(input)}));
        printer.print_line(&format!("{}: there already", input.display()));
        return ControlFlow::Continue(());
    }
    let options = RenderOptions { template: Some(job.template.clone()), ..options.clone() };
    let result = {
        let mut progress = SongProgress::new(printer, input, place, passes);
        render(separator, input, &job.song.folder, &options, &mut |step| {
            progress.update(step);
            interrupt::stop_flow()
        })
    };
    let mut summary = summary.lock();
    match result {
        Ok(report) => {
            summary.done += 1;
            summary.audio_seconds += report.audio_seconds;
            printer.done(&report, lossless);
        }
        Err(OfflineError::Cancelled) => {
            summary.interrupted = true;
            return ControlFlow::Break(());
        }
        Err(error) => {
            let failure = Failure::from(error);
            summary.failed += 1;
            summary.last_failure = Some(failure.status);
            printer.error(Some(input), &explain(input, &failure));
            if args.files.fail_fast {
                return ControlFlow::Break(());
            }
        }
    }
    ControlFlow::Continue(())
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
