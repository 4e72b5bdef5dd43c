//! `models`: the known checkpoints.

use nullsum::registry::{self, Entry, FetchError, FetchOptions};
use serde_json::json;

use crate::args::{ModelsArgs, ModelsCommand};
use crate::exit::{Code, Failure, OrFail, Outcome, told};
use crate::model_source::fetch;
use crate::report::{Talk, say, text};

/// Lists, fetches, or says where.
pub fn run(args: &ModelsArgs) -> Outcome {
    match &args.command {
        None => list(args.json),
        Some(ModelsCommand::List { json }) => list(*json || args.json),
        Some(ModelsCommand::Download { names, talk }) => return download(names, (*talk).into()),
        Some(ModelsCommand::Path { name }) => return path(name.as_deref()),
    }
    Ok(())
}

fn list(json: bool) {
    if json {
        registry::entries().iter().for_each(|entry| say(&object(entry).to_string()));
        return;
    }
    let heads = ["NAME", "STEMS", "SDR", "SIZE", "LICENCE", "HERE"].map(String::from);
    let mut rows = vec![heads];
    rows.extend(registry::entries().iter().map(|entry| {
        let here = if registry::cached(entry).is_some() { "yes" } else { "" };
        [
            entry.name.clone(),
            entry.stems_text(),
            entry.sdr_text(),
            entry.checkpoint.size.map_or_else(|| "?".into(), registry::human_size),
            entry.licence_text().to_owned(),
            here.into(),
        ]
    }));
    let widths: Vec<usize> =
        (0..6).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        say(line.join("  ").trim_end());
    }
    say(&format!(
        "\nThe first is the default. Weights belong to their authors; figures of different benchmarks do not compare.\n\
         Fetch one with `nullsum-cli models download {}`.",
        registry::default_entry().name
    ));
}

fn object(entry: &Entry) -> serde_json::Value {
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
        "stems": entry.stems,
        "sdr": sdr,
        "bytes": entry.checkpoint.size,
        "sha256": entry.checkpoint.sha256,
        "url": entry.checkpoint.url,
        "config_url": entry.config.url,
        "licence": entry.licence,
        "licence_note": entry.licence_note,
        "source": entry.source,
        "default": entry.name == registry::default_entry().name,
        "checkpoint": registry::cached(entry).map(|files| text(&files.checkpoint)),
    })
}

/// A figure as it was published: f32 digits beyond that are noise.
fn rounded(db: f32) -> serde_json::Value {
    json!((f64::from(db) * 1000.0).round() / 1000.0)
}

fn download(names: &[String], talk: Talk) -> Outcome {
    let entries: Vec<&Entry> =
        names.iter().map(|name| registry::find(name)).collect::<Result<_, _>>().or_fail(Code::Usage)?;
    let mut failed = 0;
    for entry in &entries {
        match fetch_one(entry, talk) {
            Ok(path) => {
                talk.event(&json!({"event": "fetched", "model": entry.name, "checkpoint": path}));
                talk.say(&format!("{}: {path}", entry.name));
            }
            Err(error @ FetchError::Cancelled { .. }) => return Err(error).or_fail(Code::Interrupted),
            Err(error) => {
                failed += 1;
                talk.error(None, &told(&error.into()));
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ if entries.len() == 1 => Err(Failure::said(Code::Model)),
        _ => Err(Failure::said(Code::Failed)),
    }
}

fn fetch_one(entry: &Entry, talk: Talk) -> Result<String, FetchError> {
    let files = match registry::cached(entry) {
        Some(files) => files,
        None => fetch(entry, FetchOptions::from_env(), talk)?,
    };
    Ok(text(&files.checkpoint))
}

fn path(name: Option<&str>) -> Outcome {
    let Some(name) = name else {
        say(&text(&registry::cache_dir().or_fail(Code::Io)?));
        return Ok(());
    };
    let entry = registry::find(name).or_fail(Code::Usage)?;
    match registry::cached(entry) {
        Some(files) => {
            say(&text(&files.checkpoint));
            Ok(())
        }
        None => Err(Failure::new(
            Code::Model,
            format!("{0} is not in the cache; fetch it with `nullsum-cli models download {0}`", entry.name),
        )),
    }
}
