//! Distillation: a student learns the stems that teachers find in music.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nullsum::embedded;
use nullsum::kernels::Pool;
use nullsum::model::config::Config;
use nullsum::separator::{Runtime, Separator};
use nullsum::train::teacher::{
    Teacher, TeacherFacts, file_identity, find_music, student_yaml, teach, teacher_stems,
};
use nullsum::train::{DataOptions, MissingStems, MixConfig, ModelOptions, Song, SongSet, TrainData};
use serde_json::json;

use crate::args::DistillArgs;
use crate::console::Console;
use crate::interrupt;
use crate::source;
use crate::training::{mix_config, run_to_end};

pub fn run(args: &DistillArgs) -> Result<()> {
    let console = Console::new(args.run.json, args.run.quiet);
    let Some(facts) = ask_teachers(args, &console)? else { return Ok(()) };
    let pool = Pool::new(args.run.threads)?;
    let facts = Arc::new(facts);
    pool.install(|| train(args, &facts, console))
}

/// The facts of each song by its folder below the cache; none where the user stopped it.
fn ask_teachers(args: &DistillArgs, console: &Console) -> Result<Option<HashMap<String, TeacherFacts>>> {
    let runtime = Runtime { device: args.run.device, threads: args.run.threads, ..Runtime::default() };
    let mut teachers = Vec::new();
    for (i, path) in args.teacher.iter().enumerate() {
        let (checkpoint, config) = source::open(path, args.teacher_config.get(i).map(|path| path.as_path()))?;
        let identity = if path.exists() { file_identity(path)? } else { embedded::sha256().to_owned() };
        teachers.push(Teacher { separator: Separator::load(&checkpoint, &config, None, runtime)?, identity });
    }
    let stems = teacher_stems(&teachers)?;
    console.note(&format!("teachers of {}", stems.join(", ")));
    let files = find_music(&args.music)?;
    let mut facts = HashMap::new();
    for (i, file) in files.iter().enumerate() {
        let name = file.strip_prefix(&args.music).unwrap_or(file).with_extension("");
        let name = name.to_string_lossy().replace('\\', "/");
        console.note(&format!("[{}/{}] {name}", i + 1, files.len()));
        let mut tell = |fraction: f64| {
            console.event(&json!({ "event": "teaching", "song": name, "fraction": fraction }));
            interrupt::stop_flow()
        };
        let Some(found) = teach(&mut teachers, file, &args.cache.join(&name), &mut tell)? else {
            console.note("stopped; the same command goes on with this song");
            return Ok(None);
        };
        if facts.insert(name.clone(), found).is_some() {
            bail!("{}: two files called {name}; rename one", args.music.display());
        }
    }
    Ok(Some(facts))
}

fn train(args: &DistillArgs, facts: &Arc<HashMap<String, TeacherFacts>>, console: Console) -> Result<()> {
    let first = facts.values().next().context("no music")?;
    let options = ModelOptions { device: args.run.device.open()?, ..ModelOptions::default() };
    let (model, config) = if args.init.is_some() || args.config.is_some() {
        source::build(args.init.as_deref(), args.config.as_deref(), args.run.seed, options, &args.run.loss)?
    } else {
        let yaml = student_yaml(args.size.into(), &first.stems, first.sample_rate, 2);
        let config = Config::from_yaml(&yaml, "the student")?;
        let model = source::from_config(&config, args.run.seed, options, &args.run.loss)?;
        (model, config)
    };
    let stems = config.stems().to_vec();
    let targets = stems
        .iter()
        .map(|stem| {
            first.stems.iter().position(|name| name == stem).with_context(|| {
                format!("the student's stem {stem} is none of the teacher's ({})", first.stems.join(", "))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let data_options = DataOptions {
        instruments: first.stems.clone(),
        sample_rate: config.audio.sample_rate.unwrap_or(first.sample_rate),
        channels: model.architecture().channels,
        missing: MissingStems::Refuse,
    };
    let held_out = |name: &str| args.holdout.iter().any(|held| held == name);
    let open = |keep: &dyn Fn(&str) -> bool| -> Result<SongSet> {
        Ok(SongSet::open(Path::new(&args.cache), &data_options, keep, |_| {})?)
    };
    let songs = open(&|name| facts.contains_key(name) && !held_out(name))?;
    if let Some(unknown) = args.holdout.iter().find(|name| !facts.contains_key(*name)) {
        bail!("--holdout: {} has no song {unknown}", args.music.display());
    }
    let validation = if args.holdout.is_empty() { None } else { Some(open(&held_out)?) };
    let scale = f64::from(first.sample_rate) / f64::from(data_options.sample_rate);
    let known = Arc::clone(facts);
    let confidence = move |song: &Song, sample: usize| {
        let sample = (sample as f64 * scale) as usize;
        known.get(song.name()).map_or_else(Vec::new, |facts| facts.weights_at(sample))
    };
    // Songs as they are: what the student hears must be what the teacher heard.
    let mix = MixConfig { remix: 0.0, drop: 0.0, ..mix_config(&args.run, &config) };
    let data = TrainData { songs: &songs, validation: validation.as_ref(), stems, targets };
    run_to_end(model, &args.run, mix, &data, Some(&confidence), console)
}
