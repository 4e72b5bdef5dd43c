//! Where a run's model comes from: a checkpoint, the embedded model, or a YAML alone.

use std::path::Path;

use anyhow::{Context, Result, bail};
use nullsum::embedded;
use nullsum::model::checkpoint::Checkpoint;
use nullsum::model::config::Config;
use nullsum::model::sidecar_config;
use nullsum::train::{LossConfig, ModelOptions, RoformerForTraining};

use crate::args::LossArgs;

/// Opens a checkpoint by path, or the embedded one, with its configuration.
pub fn open(model: &Path, config: Option<&Path>) -> Result<(Checkpoint, Config)> {
    let is_embedded = model == Path::new(embedded::NAME) && !model.exists();
    let (checkpoint, path) = if is_embedded {
        (embedded::checkpoint().context("this build has no embedded model (feature `embedded`)")?, None)
    } else {
        (Checkpoint::open(model)?, Some(model))
    };
    let config = sidecar_config::load(&checkpoint, path, config)?;
    Ok((checkpoint, config))
}

/// The model of a run, and its configuration.
pub fn build(
    init: Option<&Path>,
    config: Option<&Path>,
    seed: u64,
    options: ModelOptions,
    loss: &LossArgs,
) -> Result<(RoformerForTraining, Config)> {
    match (init, config) {
        (Some(init), config) => {
            let (checkpoint, config) = open(init, config)?;
            let model = RoformerForTraining::from_checkpoint(&checkpoint, &config, &options)?;
            let Some(loss) = changed_loss(&model, loss)? else { return Ok((model, config)) };
            let options = ModelOptions { loss: Some(loss), ..options };
            Ok((RoformerForTraining::from_checkpoint(&checkpoint, &config, &options)?, config))
        }
        (None, Some(config)) => {
            let config = Config::from_file(config)?;
            let model = from_config(&config, seed, options, loss)?;
            Ok((model, config))
        }
        (None, None) => bail!("give --config YAML for a new model, or --init MODEL to fine-tune one"),
    }
}

/// A new model.
pub fn from_config(
    config: &Config,
    seed: u64,
    options: ModelOptions,
    loss: &LossArgs,
) -> Result<RoformerForTraining> {
    let model = RoformerForTraining::with_options(config, seed, &options)?;
    let Some(loss) = changed_loss(&model, loss)? else { return Ok(model) };
    Ok(RoformerForTraining::with_options(config, seed, &ModelOptions { loss: Some(loss), ..options })?)
}

/// The loss that the command line asks for, where it differs from the YAML's.
fn changed_loss(model: &RoformerForTraining, args: &LossArgs) -> Result<Option<LossConfig>> {
    let mut loss = model.loss_config().clone();
    if let Some(weight) = args.stft_weight {
        loss.stft_weight = weight;
    }
    if !args.stft_windows.is_empty() {
        loss.windows.clone_from(&args.stft_windows);
    }
    if let Some(hop) = args.stft_hop {
        loss.hop_length = hop;
    }
    if let Some(n_fft) = args.stft_n_fft {
        loss.n_fft = n_fft;
    }
    loss.whole_crop |= args.whole_crop;
    Ok((loss != *model.loss_config()).then_some(loss))
}

/// The instruments of the songs, and the model's stems among them.
pub fn targets(config: &Config) -> Result<(Vec<String>, Vec<usize>)> {
    let instruments = config.training.instruments.clone();
    if instruments.is_empty() {
        bail!(
            "the YAML names no training.instruments: add the names of the stems, such as [drums, bass, other, vocals]"
        );
    }
    let targets = config
        .stems()
        .iter()
        .map(|stem| {
            instruments.iter().position(|name| name == stem).with_context(|| {
                format!(
                    "training.target_instrument {stem} is none of training.instruments ({})",
                    instruments.join(", ")
                )
            })
        })
        .collect::<Result<_>>()?;
    Ok((instruments, targets))
}
