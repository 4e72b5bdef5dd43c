//! `cache`: prepares songs for the plugin, and lists, exports and erases prepared stems.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nullsum::embedded;
use nullsum::lossless::LosslessMode;
use nullsum::offline::options::RenderOptions;
use nullsum::prepared::error::StoreError;
use nullsum::prepared::export::export;
use nullsum::prepared::file::{SongFileError, record_file};
use nullsum::prepared::job::{Job, JobError, JobHandle};
use nullsum::prepared::key::sha256_of_file;
use nullsum::prepared::store::{Listed, Store};
use nullsum::registry;
use nullsum::separator::{Runtime, Separator};
use serde_json::{Value, json};

use crate::args::{CacheArgs, CacheCommand, ModelArgs, RunArgs};
use crate::exit::{CliResult, ExitStatus, Failure, OrFail};
use crate::interrupt;
use crate::model_source::{self, ModelSource};
use crate::printer::{self, Printer};

const GIGABYTE: f64 = 1e9;

/// Runs the command.
pub fn run(args: &CacheArgs) -> CliResult {
    let store = Store::in_cache(&registry::cache_dir().or_fail(ExitStatus::Io)?);
    match &args.command {
        None => list(&store, args.json),
        Some(CacheCommand::List { json }) => list(&store, args.json || *json),
        Some(CacheCommand::Prepare { songs, rate, overlap, lossless, model, run }) => {
            let lossless: LosslessMode = (*lossless).into();
            let options = RenderOptions { lossless, overlap: *overlap, ..RenderOptions::default() };
            prepare(&store, songs, *rate, &options, model, run, args.json)
        }
        Some(CacheCommand::Export { id, output }) => {
            let files =
                export(&mut store.open(id).map_err(store_failure)?, output).or_fail(ExitStatus::Io)?;
            print_result(args.json, &json!({ "id": id, "outputs": files }), || {
                files.iter().map(|file| file.display().to_string()).collect()
            });
            Ok(())
        }
        Some(CacheCommand::Erase { ids, all }) => erase(&store, ids, *all, args.json),
        Some(CacheCommand::Limit { gigabytes }) => limit(&store, *gigabytes, args.json),
    }
}

/// Prints a result as JSON, or as lines.
fn print_result(json: bool, value: &Value, lines: impl FnOnce() -> Vec<String>) {
    if json {
        printer::print_line(&value.to_string());
    } else {
        lines().iter().for_each(|line| printer::print_line(line));
    }
}

fn store_failure(error: StoreError) -> Failure {
    let status = match error {
        StoreError::Unknown { .. } | StoreError::Limit { .. } => ExitStatus::Usage,
        _ => ExitStatus::Io,
    };
    Failure { status, error: error.into(), reported: false }
}

fn list(store: &Store, json: bool) -> CliResult {
    let listed = store.list().map_err(store_failure)?;
    let total: u64 = listed.iter().map(|entry| entry.bytes).sum();
    let value = json!({
        "folder": store.folder(),
        "bytes": total,
        "limit_bytes": store.limit(),
        "entries": listed.iter().map(describe).collect::<Vec<_>>(),
    });
    print_result(json, &value, || {
        let mut lines: Vec<String> = listed.iter().map(describe_line).collect();
        lines.push(format!(
            "{} of {} in {}",
            gigabytes(total),
            gigabytes(store.limit()),
            store.folder().display()
        ));
        lines
    });
    Ok(())
}

fn describe(entry: &Listed) -> Value {
    let last_use = entry.last_use.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    match &entry.index {
        Ok(index) => json!({
            "id": entry.id,
            "bytes": entry.bytes,
            "last_use": last_use,
            "title": index.title,
            "model": index.model,
            "stems": index.stems,
            "channels": index.channels,
            "sample_rate": index.key.settings.rate,
            "samples": index.samples,
            "prepared_samples": index.prepared(),
            "song_position": index.at,
            "lossless": index.key.settings.lossless,
            "overlap": index.key.settings.overlap,
            "precision": index.key.settings.precision,
        }),
        Err(error) => {
            json!({ "id": entry.id, "bytes": entry.bytes, "last_use": last_use, "error": error.to_string() })
        }
    }
}

fn describe_line(entry: &Listed) -> String {
    match &entry.index {
        Ok(index) => {
            let percent = 100.0 * index.prepared() as f64 / index.samples.max(1) as f64;
            format!(
                "{}  {}  {:.0} s  {percent:.0} %  {}  {}",
                entry.id,
                gigabytes(entry.bytes),
                index.samples as f64 / f64::from(index.key.settings.rate.max(1)),
                index.model,
                index.title
            )
        }
        Err(error) => format!("{}  {}  damaged: {error}", entry.id, gigabytes(entry.bytes)),
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / GIGABYTE)
}

fn erase(store: &Store, ids: &[String], all: bool, json: bool) -> CliResult {
    let ids = match all {
        true => store.list().map_err(store_failure)?.into_iter().map(|entry| entry.id).collect(),
        false => ids.to_vec(),
    };
    let mut erased = Vec::new();
    for id in ids {
        match store.erase(&id) {
            Ok(()) => erased.push(id),
            Err(error @ StoreError::InUse { .. }) if all => printer::print_warning(&error.to_string()),
            Err(error) => return Err(store_failure(error)),
        }
    }
    print_result(json, &json!({ "erased": erased }), || {
        erased.iter().map(|id| format!("erased {id}")).collect()
    });
    Ok(())
}

fn limit(store: &Store, wanted: Option<f64>, json: bool) -> CliResult {
    let mut erased = 0;
    if let Some(wanted) = wanted {
        if !(0.0..=1e6).contains(&wanted) {
            return Err(Failure::new(
                ExitStatus::Usage,
                format!("a limit of {wanted} GB: expected 0 to 1000000"),
            ));
        }
        erased = store.set_limit((wanted * GIGABYTE) as u64).map_err(store_failure)?;
    }
    print_result(json, &json!({ "limit_bytes": store.limit(), "erased": erased }), || {
        vec![format!("limit {}; {erased} erased", gigabytes(store.limit()))]
    });
    Ok(())
}

fn prepare(
    store: &Store,
    songs: &[PathBuf],
    rate: Option<u32>,
    options: &RenderOptions,
    model: &ModelArgs,
    run: &RunArgs,
    json: bool,
) -> CliResult {
    let printer = Printer::stderr_only();
    let source = model_source::open_model(model, printer)?;
    let checkpoint = Path::new(source.checkpoint.origin());
    let sha256 = match checkpoint.is_file() {
        true => sha256_of_file(checkpoint).or_fail(ExitStatus::Model)?,
        false => embedded::sha256().to_owned(),
    };
    let runtime = Runtime { private_pool: true, ..run.runtime() };
    for song in songs {
        let recording =
            record_file(song, rate, None, store, &interrupt::stop_requested).map_err(file_failure)?;
        let length = i64::try_from(recording.heard().total()).unwrap_or(i64::MAX);
        let title = song.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let job = Job {
            song: &mut recording.part(0..length),
            at: None,
            title,
            model: source.name.clone(),
            model_sha256: sha256.clone(),
            options: options.clone(),
        };
        let id = run_job(job, store, &source, model, runtime).map_err(|error| job_failure(song, error))?;
        print_result(json, &json!({ "input": song, "id": id }), || vec![format!("{id}  {}", song.display())]);
    }
    Ok(())
}

/// Runs a job; Ctrl-C ends it, and what is done stays.
fn run_job(
    job: Job,
    store: &Store,
    source: &ModelSource,
    model: &ModelArgs,
    runtime: Runtime,
) -> Result<String, JobError> {
    let handle = Arc::<JobHandle>::default();
    let watched = Arc::downgrade(&handle);
    // Ends with the job, which holds the only other handle.
    let watcher = std::thread::spawn(move || {
        while let Some(handle) = watched.upgrade() {
            if interrupt::stop_requested() {
                handle.cancel();
            }
            drop(handle);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    let mut load = || {
        Separator::load(&source.checkpoint, &source.config, model_source::family(model), runtime)
            .map_err(|error| error.to_string())
    };
    let result = job.run(store, &handle, &mut load, &mut |_| {});
    drop(handle);
    let _ = watcher.join();
    result
}

fn file_failure(error: SongFileError) -> Failure {
    let status = match error {
        SongFileError::Cancelled => return Failure::interrupted(),
        SongFileError::TooLong { .. } => ExitStatus::Usage,
        _ => ExitStatus::Io,
    };
    Failure { status, error: error.into(), reported: false }
}

fn job_failure(song: &Path, error: JobError) -> Failure {
    let status = match &error {
        JobError::Cancelled => return Failure::interrupted(),
        JobError::Store(StoreError::Limit { .. }) => ExitStatus::Usage,
        JobError::Model(_) => ExitStatus::Model,
        JobError::Offline(_) => ExitStatus::Failed,
        _ => ExitStatus::Io,
    };
    Failure::new(status, format!("{}: {error}", song.display()))
}
