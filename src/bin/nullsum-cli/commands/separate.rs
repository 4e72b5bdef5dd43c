//! `separate`: songs in, stems out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nullsum::lossless::LosslessMode;
use nullsum::offline::error::OfflineError;
use nullsum::offline::outputs::output_paths;
use nullsum::offline::render::{RenderOptions, render};
use nullsum::separator::{ModelInfo, Separator, check_chunk};
use parking_lot::Mutex;
use serde_json::json;

use crate::args::SeparateArgs;
use crate::args::values::{Bits, FileType, NonFinite, PcmType};
use crate::batch::{Batch, Song, check_collisions, gather, is_same};
use crate::deal::deal;
use crate::exit::{Code, Failure, OrFail, Outcome, told};
use crate::interrupt;
use crate::model_source;
use crate::progress::SongProgress;
use crate::report::{Talk, text};

/// Folder that the reference reads when no song is named.
const DEFAULT_INPUT: &str = "input";

/// Separates all songs of the command line.
pub fn run(args: &SeparateArgs) -> Outcome {
    let talk: Talk = args.talk.into();
    check_files(args)?;
    let batch = songs(args)?;
    batch.warnings.iter().for_each(|warning| talk.warning(warning));
    if batch.total == 0 {
        return Err(Failure::new(Code::Io, "no audio files found"));
    }
    if batch.songs.is_empty() {
        talk.note("This share of the songs is empty.");
        talk.event(&Tally::default().event(0.0));
        return Ok(());
    }
    // A song that is not there needs no model to say so.
    if let ([only], 1) = (batch.songs.as_slice(), batch.total) {
        nullsum::audio::Decoder::open(&only.input).or_fail(Code::Io)?;
    }

    let source = model_source::open(&args.model, talk)?;
    if let Some(warning) = source.not_understood() {
        talk.warning(&warning);
    }
    let family = model_source::family(&args.model);
    let mut separators = Vec::new();
    for runtime in args.run.runtimes() {
        let separator = Separator::load(&source.checkpoint, &source.config, family, runtime);
        separators.push(separator.or_fail(Code::Model)?);
        interrupt::check()?;
        if let Some(error) = runtime.device.fallback() {
            talk.warning(&format!("running on the CPU: {}", told(&error.into())));
        }
    }
    let Some(separator) = separators.first() else { return Ok(()) };
    let devices = separators.iter().map(Separator::device).collect::<Vec<_>>().join(", ");
    let info = separator.info().clone();
    let options = options(args, &info);
    if let Some(chunk) = options.chunk {
        check_chunk(chunk, &info.architecture).or_fail(Code::Usage)?;
    }
    let jobs = jobs(&batch, &source.name, &info, &options)?;
    talk.note(&headline(&source.name, separator, &devices));
    talk.event(&json!({
        "event": "start",
        "songs": jobs.len(),
        "model": source.name,
        "stems": info.stems,
        "device": devices,
        "kernel": separator.kernel(),
        "precision": separator.arithmetic().precision.to_string(),
        "threads": separator.threads(),
        "lossless": options.lossless.to_string(),
    }));
    drop(source);

    let started = Instant::now();
    let tally = separate_all(args, &mut separators, &jobs, &options, talk)?;
    talk.event(&tally.event(started.elapsed().as_secs_f64()));
    if jobs.len() > 1 {
        talk.say(&tally.text());
    }
    match tally.last_failure {
        None => Ok(()),
        Some(code) if jobs.len() == 1 && batch.total == 1 => Err(Failure::said(code)),
        Some(_) => Err(Failure::said(Code::Failed)),
    }
}

/// A song with what will be written for it.
struct Job<'a> {
    song: &'a Song,
    template: String,
    outputs: Vec<PathBuf>,
}

/// What became of the songs.
#[derive(Default)]
struct Tally {
    done: usize,
    skipped: usize,
    failed: usize,
    audio_seconds: f64,
    last_failure: Option<Code>,
    interrupted: bool,
}

impl Tally {
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

/// The songs of the command line, or of the reference's default folder.
fn songs(args: &SeparateArgs) -> Outcome<Batch> {
    let mut inputs = args.inputs.clone();
    if let Some(folder) = &args.input_folder {
        if !folder.is_dir() {
            return Err(Failure::new(
                Code::Io,
                format!("--input-folder {}: there is no such folder", folder.display()),
            ));
        }
        inputs.push(folder.clone());
    }
    if inputs.is_empty() {
        if !Path::new(DEFAULT_INPUT).is_dir() {
            return Err(Failure::new(
                Code::Usage,
                "no song given: name files, folders or patterns, as in `nullsum-cli song.wav`; \
                 `nullsum-cli demo` composes one, `nullsum-cli --help` explains all",
            ));
        }
        inputs.push(DEFAULT_INPUT.into());
    }
    gather(&inputs, &args.output, &args.files.template, args.files.shard)
}

/// Options that contradict each other, before any work.
fn check_files(args: &SeparateArgs) -> Outcome {
    let flac = args.files.flac_file || args.files.format == FileType::Flac;
    let float = args.files.bits == Some(Bits::Float) || args.files.pcm_type == Some(PcmType::Float);
    if flac && float {
        return Err(Failure::new(
            Code::Usage,
            "FLAC holds integers only: choose 16 or 24 bits, or --format wav for float",
        ));
    }
    if args.output.exists() && !args.output.is_dir() {
        return Err(Failure::new(
            Code::Io,
            format!("--output {}: is a file, not a folder", args.output.display()),
        ));
    }
    Ok(())
}

fn options(args: &SeparateArgs, info: &ModelInfo) -> RenderOptions {
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

/// Names all outputs and makes sure that none is another's, or a song.
fn jobs<'a>(
    batch: &'a Batch,
    model: &str,
    info: &ModelInfo,
    options: &RenderOptions,
) -> Outcome<Vec<Job<'a>>> {
    let jobs: Vec<Job> = batch
        .songs
        .iter()
        .map(|song| {
            let template = song.template.replace("{model}", model);
            let options = RenderOptions { template: Some(template.clone()), ..options.clone() };
            let outputs = output_paths(&song.input, &song.folder, info, &options)?;
            Ok(Job { song, template, outputs })
        })
        .collect::<Result<_, OfflineError>>()?;
    check_collisions(
        jobs.iter().flat_map(|job| job.outputs.iter().map(|out| (out.clone(), job.song.input.as_path()))),
    )?;
    for job in &jobs {
        if let Some(output) = job.outputs.iter().find(|output| batch.has(output)) {
            let whose = if is_same(output, &job.song.input) {
                "itself".into()
            } else {
                job.song.input.display().to_string()
            };
            return Err(Failure::new(
                Code::Usage,
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
        separator.arithmetic(),
        separator.threads()
    )
}

/// Separates all songs, each on whichever separator is free.
fn separate_all(
    args: &SeparateArgs,
    separators: &mut [Separator],
    jobs: &[Job],
    options: &RenderOptions,
    talk: Talk,
) -> Outcome<Tally> {
    let talk = if separators.len() > 1 { talk.without_bars() } else { talk };
    let tally = Mutex::new(Tally::default());
    deal(separators, jobs, |separator, place, job| {
        separate_one(args, separator, job, (place + 1, jobs.len()), options, talk, &tally)
    });
    let tally = tally.into_inner();
    if tally.interrupted { Err(Failure::interrupted()) } else { Ok(tally) }
}

/// Separates one song, the `place.0`th of `place.1`. Breaks where no other should follow.
fn separate_one(
    args: &SeparateArgs,
    separator: &mut Separator,
    job: &Job,
    place: (usize, usize),
    options: &RenderOptions,
    talk: Talk,
    tally: &Mutex<Tally>,
) -> ControlFlow<()> {
    if interrupt::requested() {
        tally.lock().interrupted = true;
        return ControlFlow::Break(());
    }
    let lossless = options.lossless != LosslessMode::Off;
    let passes = options.passes(separator.info());
    let input = &job.song.input;
    if args.files.skip_existing && job.outputs.iter().all(|output| output.is_file()) {
        tally.lock().skipped += 1;
        talk.event(&json!({"event": "skipped", "input": text(input)}));
        talk.say(&format!("{}: there already", input.display()));
        return ControlFlow::Continue(());
    }
    let options = RenderOptions { template: Some(job.template.clone()), ..options.clone() };
    let result = {
        let mut progress = SongProgress::new(talk, input, place, passes);
        render(separator, input, &job.song.folder, &options, &mut |step| {
            progress.update(step);
            interrupt::flow()
        })
    };
    let mut tally = tally.lock();
    match result {
        Ok(report) => {
            tally.done += 1;
            tally.audio_seconds += report.audio_seconds;
            talk.done(&report, lossless);
        }
        Err(OfflineError::Cancelled) => {
            tally.interrupted = true;
            return ControlFlow::Break(());
        }
        Err(error) => {
            let failure = Failure::from(error);
            tally.failed += 1;
            tally.last_failure = Some(failure.code);
            talk.error(Some(input), &explain(input, &failure));
            if args.files.fail_fast {
                return ControlFlow::Break(());
            }
        }
    }
    ControlFlow::Continue(())
}

/// The error, with the song where it does not name it.
fn explain(input: &Path, failure: &Failure) -> String {
    let message = told(&failure.error);
    if message.contains(&*input.to_string_lossy()) {
        message
    } else {
        format!("{}: {message}", input.display())
    }
}
