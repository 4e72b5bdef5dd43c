//! Training and fine-tuning on songs with stems.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nullsum::kernels::Pool;
use nullsum::model::config::Config;
use nullsum::train::{
    Confidence, DataOptions, MissingStems, MixConfig, ModelOptions, OptimizerConfig, RoformerForTraining,
    Schedule, SongSet, TrainData, Trainer,
};
use serde_json::json;

use crate::args::{RunArgs, TrainArgs};
use crate::console::Console;
use crate::interrupt;
use crate::source;

pub fn run(args: &TrainArgs) -> Result<()> {
    let pool = Pool::new(args.run.threads)?;
    pool.install(|| train(args))
}

fn train(args: &TrainArgs) -> Result<()> {
    let console = Console::new(args.run.json, args.run.quiet);
    let options = ModelOptions { device: args.run.device.open()?, ..ModelOptions::default() };
    let (mut model, config) =
        source::build(args.init.as_deref(), args.config.as_deref(), args.run.seed, options, &args.run.loss)?;
    let frozen = model.parameters_mut().freeze(&args.freeze)?;
    if model.parameters().trainable_values() == 0 {
        bail!("--freeze leaves no parameter to train");
    }
    console.note(&format!(
        "{}, {} parameters to train, {frozen} tensors frozen",
        model.architecture().family,
        model.parameters().trainable_values()
    ));
    let (instruments, targets) = source::targets(&config)?;
    let data_options = DataOptions {
        instruments,
        sample_rate: config.audio.sample_rate.unwrap_or(44_100),
        channels: model.architecture().channels,
        missing: if args.missing_is_silence { MissingStems::Silent } else { MissingStems::Refuse },
    };
    let folder = args.data.as_deref().context("--data is missing")?;
    let held_out = |name: &str| args.holdout.iter().any(|held| held == name);
    let tell = |name: &str| console.note(&format!("reading {name}"));
    let songs = SongSet::open(folder, &data_options, |name| !held_out(name), tell)?;
    let validation = match &args.validation {
        Some(folder) => Some(SongSet::open(folder, &data_options, |_| true, tell)?),
        None if args.holdout.is_empty() => None,
        None => {
            let set = SongSet::open(folder, &data_options, held_out, tell)?;
            if let Some(unknown) =
                args.holdout.iter().find(|held| set.songs().iter().all(|song| song.name() != *held))
            {
                bail!("--holdout: {} has no song {unknown}", folder.display());
            }
            Some(set)
        }
    };
    let mix = MixConfig { remix: args.remix, drop: args.drop, ..mix_config(&args.run, &config) };
    let data =
        TrainData { songs: &songs, validation: validation.as_ref(), stems: config.stems().to_vec(), targets };
    run_to_end(model, &args.run, mix, &data, None, console)
}

/// How examples are mixed, but for what only training asks for.
pub fn mix_config(args: &RunArgs, config: &Config) -> MixConfig {
    let sample_rate = f64::from(config.audio.sample_rate.unwrap_or(44_100));
    MixConfig {
        batch: args.batch,
        samples: (args.crop.clamp(0.0, 600.0) * sample_rate).round() as usize,
        seed: args.seed,
        gain_db: args.gain_db,
        invert: args.invert,
        swap: args.swap,
        ..MixConfig::plain(1, 1, 0)
    }
}

/// Runs or resumes training, and writes the checkpoint.
pub fn run_to_end(
    model: RoformerForTraining,
    args: &RunArgs,
    mix: MixConfig,
    data: &TrainData,
    confidence: Option<&Confidence>,
    mut console: Console,
) -> Result<()> {
    let out = args.out.clone().context("--out is missing")?;
    let state: PathBuf = args.state.clone().unwrap_or_else(|| out.with_extension("state"));
    for path in [&out, &state] {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            bail!("{}: no such folder to write {} to", folder.display(), path.display());
        }
    }
    let optimizer = OptimizerConfig {
        adam_lr: args.lr,
        muon_lr: args.muon_lr,
        weight_decay: args.weight_decay,
        clip_norm: Some(args.clip),
        average: args.average,
        ..OptimizerConfig::default()
    };
    let schedule = Schedule {
        steps: args.steps,
        warmup: args.warmup,
        decay: args.decay,
        accumulate: args.accumulate,
        validate_every: args.validate_every,
        save_every: Duration::from_secs(args.save_every),
    };
    let mut trainer = Trainer::new(model, optimizer, schedule, mix, &state)?;
    if state.exists() {
        trainer.resume()?;
        console.note(&format!("going on after step {}", trainer.steps()));
    }
    let result = trainer.run(data, confidence, &mut |event| console.show(&event));
    console.finish();
    result?;
    trainer.export(&out)?;
    console.event(&json!({ "event": "written", "checkpoint": out, "step": trainer.steps() }));
    console.note(&format!("{} written after step {}", out.display(), trainer.steps()));
    if interrupt::stop_requested() {
        console.note(&format!("stopped; the same command goes on from {}", state.display()));
    }
    Ok(())
}
