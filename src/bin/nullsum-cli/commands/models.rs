//! `models`: the known checkpoints.

use nullsum::live::LiveForecast;
use nullsum::live_cost;
use nullsum::registry::{self, FetchError, FetchOptions, RegistryEntry, Task};
use serde_json::json;

use crate::args::{ModelsArgs, ModelsCommand};
use crate::exit::{CliResult, ExitStatus, Failure, OrFail, format_error};
use crate::interrupt;
use crate::model_source::fetch;
use crate::printer::{Printer, print_line};
use crate::report::path_text;

/// Lists models, downloads them, or prints their paths.
pub fn run(args: &ModelsArgs) -> CliResult {
    match &args.command {
        None => list(args.json, None, None),
        Some(ModelsCommand::List { json, task, sort }) => list(*json || args.json, *task, sort.as_deref()),
        Some(ModelsCommand::Download { names, printer }) => return download(names, (*printer).into()),
        Some(ModelsCommand::Path { name }) => return path(name.as_deref()),
    }
    Ok(())
}

fn list(json: bool, task: Option<Task>, benchmark: Option<&str>) {
    let mut entries = registry::entries_for(task);
    if let Some(benchmark) = benchmark {
        registry::sort_by_score(&mut entries, benchmark, task.map(Task::key));
    }
    // Without it the cost of live use is unknown, and the list is still useful.
    let speed = live_cost::speed(&interrupt::stop_requested).ok();
    if json {
        entries.iter().for_each(|entry| print_line(&object(entry, speed).to_string()));
        return;
    }
    let heads = ["NAME", "STEMS", "SDR", "SIZE", "LICENCE", "LIVE", "HERE"].map(String::from);
    let mut rows = vec![heads];
    rows.extend(entries.iter().map(|entry| {
        let here = if registry::cached_files(entry).is_some() { "yes" } else { "" };
        [
            entry.name.clone(),
            entry.stems_text(),
            score_text(entry, task, benchmark),
            entry.checkpoint.size.map_or_else(|| "?".into(), registry::human_size),
            entry.licence_text(),
            forecast(entry, speed).map_or_else(|| "unknown".into(), |forecast| forecast.to_string()),
            here.into(),
        ]
    }));
    let widths: Vec<usize> =
        (0..7).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        print_line(line.join("  ").trim_end());
    }
    print_line(&format!(
        "\nThe default is {0}. LIVE is the lowest tier that this machine sustains, as predicted. Weights belong to their authors; scores of different benchmarks are not comparable.\n\
         Benchmarks for --sort: {1}. Download a model with `nullsum-cli models download {0}`.",
        registry::default_entry().name,
        registry::benchmarks().join(", ")
    ));
}

/// What live use would cost on this machine.
fn forecast(entry: &RegistryEntry, speed: Option<f64>) -> Option<LiveForecast> {
    live_cost::of_entry(entry, speed?)
}

/// The score in `benchmark` where models are sorted by it, else the first published one.
fn score_text(entry: &RegistryEntry, task: Option<Task>, benchmark: Option<&str>) -> String {
    match benchmark {
        Some(benchmark) => entry
            .score(benchmark, task.map(Task::key))
            .map_or_else(|| "-".to_owned(), |db| format!("{db:.2} dB")),
        None => entry.sdr_text(),
    }
}

fn object(entry: &RegistryEntry, speed: Option<f64>) -> serde_json::Value {
    let live = forecast(entry, speed).map(|forecast| {
        let loads: serde_json::Map<_, _> =
            forecast.loads.iter().map(|(tier, load)| (tier.to_string(), json!(load))).collect();
        json!({"lowest_tier": forecast.lowest_latency().map(|tier| tier.to_string()), "predicted_loads": loads})
    });
    let sdr: Vec<_> = entry
        .sdr
        .iter()
        .map(|sdr| {
            let stems: serde_json::Map<_, _> =
                sdr.stems.iter().map(|s| (s.stem.clone(), rounded(s.db))).collect();
            json!({"benchmark": sdr.benchmark, "average_db": sdr.average_db.map(rounded), "stems": stems})
        })
        .collect();
    json!({
        "name": entry.name,
        "title": entry.title,
        "author": entry.author,
        "architecture": entry.architecture.key(),
        "tasks": entry.tasks,
        "stems": entry.stems,
        "aliases": entry.aliases,
        "network": entry.network,
        "live": live,
        "sdr": sdr,
        "bytes": entry.checkpoint.size,
        "sha256": entry.checkpoint.sha256,
        "url": entry.checkpoint.url,
        "config_url": entry.config.url,
        "licence": entry.licence,
        "code_licence": entry.code_licence,
        "licence_note": entry.licence_note,
        "source": entry.source,
        "default": entry.name == registry::default_entry().name,
        "checkpoint": registry::cached_files(entry).map(|files| path_text(&files.checkpoint)),
    })
}

/// Rounds to published precision; further digits come from the f32 representation.
fn rounded(db: f32) -> serde_json::Value {
    json!((f64::from(db) * 1000.0).round() / 1000.0)
}

fn download(names: &[String], printer: Printer) -> CliResult {
    let entries: Vec<&RegistryEntry> =
        names.iter().map(|name| registry::find(name)).collect::<Result<_, _>>().or_fail(ExitStatus::Usage)?;
    let mut failed = 0;
    for entry in &entries {
        match fetch_one(entry, printer) {
            Ok(path) => {
                printer.event(&json!({"event": "fetched", "model": entry.name, "checkpoint": path}));
                printer.print_line(&format!("{}: {path}", entry.name));
            }
            Err(error @ FetchError::Cancelled { .. }) => return Err(error).or_fail(ExitStatus::Interrupted),
            Err(error) => {
                failed += 1;
                printer.error(None, &format_error(&error.into()));
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ if entries.len() == 1 => Err(Failure::already_reported(ExitStatus::Model)),
        _ => Err(Failure::already_reported(ExitStatus::Failed)),
    }
}

fn fetch_one(entry: &RegistryEntry, printer: Printer) -> Result<String, FetchError> {
    let files = match registry::cached_files(entry) {
        Some(files) => files,
        None => fetch(entry, FetchOptions::from_env(), printer)?,
    };
    Ok(path_text(&files.checkpoint))
}

fn path(name: Option<&str>) -> CliResult {
    let Some(name) = name else {
        print_line(&path_text(&registry::cache_dir().or_fail(ExitStatus::Io)?));
        return Ok(());
    };
    let entry = registry::find(name).or_fail(ExitStatus::Usage)?;
    match registry::cached_files(entry) {
        Some(files) => {
            print_line(&path_text(&files.checkpoint));
            Ok(())
        }
        None => Err(Failure::new(
            ExitStatus::Model,
            format!("{0} is not in the cache; fetch it with `nullsum-cli models download {0}`", entry.name),
        )),
    }
}
