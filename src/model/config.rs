//! The YAML configuration of a checkpoint, in the format of Music-Source-Separation-Training.
//!
//! Only the keys needed for separation are read. Training settings are allowed and listed in [`Config::unknown`]. Values
//! are interpreted as PyYAML does (`True`, `yes`, `1_000`). Sequences may have the tag `!!python/tuple`; no tag constructs
//! an object. A model argument that is absent or `null` is `None`, because its default differs between model libraries;
//! [`Architecture::resolve`](crate::model::architecture::Architecture::resolve) chooses it.

mod error;
mod section;
mod yaml;

use std::io::Read as _;
use std::path::Path;

use super::checkpoint::printable;
pub use error::ConfigError;
use section::Section;
use yaml::Document;

/// A checkpoint's configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Audio format that the model was trained on.
    pub audio: AudioConfig,
    /// Arguments of the model's constructor.
    pub model: ModelOptions,
    /// Stem names, and other training settings that affect inference.
    pub training: TrainingConfig,
    /// How a song is split into chunks.
    pub inference: InferenceConfig,
    /// Dotted names of ignored keys outside `model`, such as `training.lr`.
    pub unknown: Vec<String>,
    /// What the user should know: misspelt keys, values of a wrong type that change nothing, unusual training code.
    pub warnings: Vec<String>,
    text: String,
}

/// The section `audio`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AudioConfig {
    /// Samples per chunk.
    pub chunk_size: Option<usize>,
    /// In Hz.
    pub sample_rate: Option<u32>,
    /// 1 or 2 in practice.
    pub num_channels: Option<usize>,
}

/// The section `training`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainingConfig {
    /// All stems of the data set, in the order of the model's outputs.
    pub instruments: Vec<String>,
    /// If set, the model's only stem.
    pub target_instrument: Option<String>,
    /// Whether training used mixed precision.
    pub use_amp: Option<bool>,
    /// The trainer's name for the kind of network.
    pub model_type: Option<String>,
}

/// The section `inference`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferenceConfig {
    /// Number of chunks that cover each sample.
    pub num_overlap: Option<usize>,
    /// Number of chunks processed at once.
    pub batch_size: Option<usize>,
    /// Samples per chunk; overrides `audio.chunk_size`.
    pub chunk_size: Option<usize>,
    /// Whether the mixture is standardised before separation.
    pub normalize: Option<bool>,
}

/// The section `model`: arguments of the references' `BSRoformer` and `MelBandRoformer`, under the same names.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are the reference's; the layers that use them document them")]
pub struct ModelOptions {
    pub dim: Option<usize>,
    pub depth: Option<usize>,
    pub stereo: Option<bool>,
    pub num_stems: Option<usize>,
    pub time_transformer_depth: Option<usize>,
    pub freq_transformer_depth: Option<usize>,
    pub linear_transformer_depth: Option<usize>,
    pub freqs_per_bands: Option<Vec<usize>>,
    /// First bin, and the bin after the last; -1 means the end of the spectrum.
    pub freq_range: Option<(i64, i64)>,
    pub num_bands: Option<usize>,
    pub dim_head: Option<usize>,
    pub heads: Option<usize>,
    pub attn_dropout: Option<f64>,
    pub ff_dropout: Option<f64>,
    pub flash_attn: Option<bool>,
    pub linear_flash_attn: Option<bool>,
    pub sage_attention: Option<bool>,
    pub dim_freqs_in: Option<usize>,
    pub sample_rate: Option<u32>,
    pub stft_n_fft: Option<usize>,
    pub stft_hop_length: Option<usize>,
    pub stft_win_length: Option<usize>,
    pub stft_normalized: Option<bool>,
    pub mask_estimator_depth: Option<usize>,
    pub mlp_expansion_factor: Option<usize>,
    pub zero_dc: Option<bool>,
    pub skip_connection: Option<bool>,
    pub use_pope: Option<bool>,
    pub match_input_audio_length: Option<bool>,
    pub add_value_residual: Option<bool>,
    pub num_residual_streams: Option<usize>,
    pub num_residual_fracs: Option<usize>,
    pub mc_hyper_conn_sinkhorn_iters: Option<usize>,
    pub use_torch_checkpoint: Option<bool>,
    pub multi_stft_resolution_loss_weight: Option<f64>,
    pub multi_stft_resolutions_window_sizes: Option<Vec<usize>>,
    pub multi_stft_hop_size: Option<usize>,
    pub multi_stft_normalized: Option<bool>,
    pub time_conformer_depth: Option<usize>,
    pub freq_conformer_depth: Option<usize>,
    pub linear_conformer_depth: Option<usize>,
    pub ff_mult: Option<f64>,
    pub conv_expansion_factor: Option<usize>,
    pub conv_kernel_size: Option<usize>,
    pub conv_dropout: Option<f64>,
    pub use_shared_bias: Option<bool>,
    pub use_mask_estimator_fno: Option<bool>,
    pub use_mask_estimator_hyper_ace: Option<bool>,
    pub hyperace_version: Option<usize>,
    /// Whether HyperACE v1 halves its bands as well as its frames, as in MSST-WebUI. No trainer writes this key: no tensor tells which of
    /// the two layouts a checkpoint was trained with.
    pub hyperace_band_strides: Option<bool>,
    /// Whether blocks from the second layer on have no residual connection, as in MSST's models between 15 February and 27 March
    /// 2025. No trainer writes this key; it is for users whose checkpoint was trained with that code.
    pub experimental_residuals: Option<bool>,
    /// Names of other arguments, in file order.
    pub unknown: Vec<String>,
}

const MAX_SAMPLES: usize = 1 << 30;
const MAX_N_FFT: usize = 1 << 20;
const MAX_DIM: usize = 65_536;
const MAX_DEPTH: usize = 1024;
const MAX_BANDS: usize = 65_536;
const MAX_STEMS: usize = 256;

impl Config {
    /// Reads a configuration from a file.
    ///
    /// # Errors
    /// When the file cannot be read or [`Config::from_yaml`] refuses its text.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let origin = path.display().to_string();
        let io = |source| ConfigError::Io { file: origin.clone(), source };
        // Checked before opening: on some systems, opening a folder fails with a permission error.
        if std::fs::metadata(path).map_err(io)?.is_dir() {
            return Err(ConfigError::Folder { file: origin });
        }
        let file = std::fs::File::open(path).map_err(io)?;
        let mut bytes = Vec::new();
        // Bounded here and not by the file size, because a pipe has none.
        file.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        let text = String::from_utf8(bytes).map_err(|_| ConfigError::NotText { file: origin.clone() })?;
        Self::from_yaml(&text, &origin)
    }

    /// Reads a configuration from its text; `origin` names it in errors.
    ///
    /// # Errors
    /// [`ConfigError`] for text that is not YAML, exceeds the limits for untrusted files, lacks a `model` section, or holds a
    /// value of the wrong type or out of range. The message names file, line, column, key, expected and found.
    pub fn from_yaml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let document = Document::parse(text, origin)?;
        let mut top = Section::top(&document, origin)?;
        let mut audio = top.section("audio")?;
        let mut model = top.section("model")?;
        let mut training = top.section("training")?;
        let mut inference = top.section("inference")?;
        if !model.is_present() {
            return Err(ConfigError::Missing { file: origin.to_owned(), key: "model".to_owned() });
        }
        let model_type = top.any_text("model_type");
        let mut config = Self {
            audio: AudioConfig {
                chunk_size: audio.integer("chunk_size", 1, MAX_SAMPLES)?,
                sample_rate: audio.sample_rate("sample_rate")?,
                num_channels: audio.integer("num_channels", 1, 64)?,
            },
            model: model_options(&mut model)?,
            training: TrainingConfig {
                instruments: training.stem_names("instruments", MAX_STEMS)?,
                target_instrument: training.stem_name("target_instrument")?,
                use_amp: training.boolean_without_effect("use_amp"),
                model_type: training.any_text("model_type").or(model_type),
            },
            inference: InferenceConfig {
                num_overlap: inference.integer("num_overlap", 1, 1024)?,
                batch_size: inference.integer("batch_size", 1, 65_536)?,
                chunk_size: inference.integer("chunk_size", 1, MAX_SAMPLES)?,
                normalize: inference.boolean("normalize")?,
            },
            unknown: Vec::new(),
            warnings: Vec::new(),
            text: text.to_owned(),
        };
        for section in [&top, &audio, &model, &training, &inference] {
            config.warnings.extend(section.warnings());
        }
        config.make_stems_distinct(origin);
        config.warn_about_training_code(origin);
        for section in [&top, &audio, &training, &inference] {
            config.unknown.extend(section.unread_keys().map(|key| section.dotted(key)));
        }
        Ok(config)
    }

    /// Renames stems that differ only in case: their files would be the same on Windows and macOS.
    fn make_stems_distinct(&mut self, origin: &str) {
        let names = &mut self.training.instruments;
        for at in 1..names.len() {
            let taken = |names: &[String], name: &str| names.iter().any(|other| other.to_lowercase() == name);
            if !taken(&names[..at], &names[at].to_lowercase()) {
                continue;
            }
            let free = (2..)
                .map(|number| format!("{} {number}", names[at]))
                .find(|name| !taken(names, &name.to_lowercase()));
            if let Some(free) = free {
                self.warnings.push(format!(
                    "{origin}: training.instruments: {:?} differs from another name only in case; it is called {free:?}",
                    names[at]
                ));
                names[at] = free;
            }
        }
    }

    /// Warns about trainers whose networks differ under the same tensor names.
    fn warn_about_training_code(&mut self, origin: &str) {
        let experimental = self
            .training
            .model_type
            .as_deref()
            .is_some_and(|name| name.to_ascii_lowercase().contains("experimental"));
        if experimental && self.model.experimental_residuals.is_none() {
            self.warnings.push(format!(
                "{origin}: model_type {:?}: between 15 February and 27 March 2025 this code had no residual connections from \
                 the second layer on, and its checkpoints look the same; if the stems sound broken, set \
                 model.experimental_residuals: true in the YAML",
                self.training.model_type.as_deref().unwrap_or_default()
            ));
        }
    }

    /// Samples per chunk: `inference.chunk_size`, else `audio.chunk_size`.
    #[must_use]
    pub fn chunk_size(&self) -> Option<usize> {
        self.inference.chunk_size.or(self.audio.chunk_size)
    }

    /// The names of the model's outputs: the target instrument when one is set, else all instruments.
    #[must_use]
    pub fn stems(&self) -> &[String] {
        match &self.training.target_instrument {
            Some(target) => std::slice::from_ref(target),
            None => &self.training.instruments,
        }
    }

    /// The source text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn model_options(model: &mut Section<'_>) -> Result<ModelOptions, ConfigError> {
    let mut options = ModelOptions {
        dim: model.integer("dim", 1, MAX_DIM)?,
        depth: model.integer("depth", 1, MAX_DEPTH)?,
        stereo: model.boolean("stereo")?,
        num_stems: model.integer("num_stems", 1, MAX_STEMS)?,
        time_transformer_depth: model.integer("time_transformer_depth", 0, MAX_DEPTH)?,
        freq_transformer_depth: model.integer("freq_transformer_depth", 0, MAX_DEPTH)?,
        linear_transformer_depth: model.integer("linear_transformer_depth", 0, MAX_DEPTH)?,
        freqs_per_bands: model.integers("freqs_per_bands", 1, MAX_N_FFT, MAX_BANDS)?,
        freq_range: model.range("freq_range", MAX_N_FFT)?,
        num_bands: model.integer("num_bands", 1, MAX_BANDS)?,
        dim_head: model.integer("dim_head", 1, MAX_DIM)?,
        heads: model.integer("heads", 1, 4096)?,
        attn_dropout: model.float_without_effect("attn_dropout"),
        ff_dropout: model.float_without_effect("ff_dropout"),
        flash_attn: model.boolean_without_effect("flash_attn"),
        linear_flash_attn: model.boolean_without_effect("linear_flash_attn"),
        sage_attention: model.boolean_without_effect("sage_attention"),
        dim_freqs_in: model.integer_without_effect("dim_freqs_in"),
        sample_rate: model.sample_rate("sample_rate")?,
        stft_n_fft: model.integer("stft_n_fft", 2, MAX_N_FFT)?,
        stft_hop_length: model.integer("stft_hop_length", 1, MAX_N_FFT)?,
        stft_win_length: model.integer("stft_win_length", 1, MAX_N_FFT)?,
        stft_normalized: model.boolean("stft_normalized")?,
        mask_estimator_depth: model.integer("mask_estimator_depth", 1, 64)?,
        mlp_expansion_factor: model.integer("mlp_expansion_factor", 1, 1024)?,
        zero_dc: model.boolean("zero_dc")?,
        skip_connection: model.boolean("skip_connection")?,
        use_pope: model.boolean("use_pope")?,
        match_input_audio_length: model.boolean("match_input_audio_length")?,
        add_value_residual: model.boolean("add_value_residual")?,
        num_residual_streams: model.integer("num_residual_streams", 1, 1024)?,
        num_residual_fracs: model.integer("num_residual_fracs", 1, 1024)?,
        mc_hyper_conn_sinkhorn_iters: model.integer("mc_hyper_conn_sinkhorn_iters", 0, 1024)?,
        use_torch_checkpoint: model.boolean_without_effect("use_torch_checkpoint"),
        multi_stft_resolution_loss_weight: model.float_without_effect("multi_stft_resolution_loss_weight"),
        multi_stft_resolutions_window_sizes: model
            .integers_without_effect("multi_stft_resolutions_window_sizes"),
        multi_stft_hop_size: model.integer_without_effect("multi_stft_hop_size"),
        multi_stft_normalized: model.boolean_without_effect("multi_stft_normalized"),
        time_conformer_depth: model.integer("time_conformer_depth", 0, MAX_DEPTH)?,
        freq_conformer_depth: model.integer("freq_conformer_depth", 0, MAX_DEPTH)?,
        linear_conformer_depth: model.integer("linear_conformer_depth", 0, MAX_DEPTH)?,
        // The tensors tell.
        ff_mult: model.float_without_effect("ff_mult"),
        conv_expansion_factor: model.integer("conv_expansion_factor", 1, 1024)?,
        conv_kernel_size: model.integer("conv_kernel_size", 1, MAX_DIM)?,
        conv_dropout: model.float_without_effect("conv_dropout"),
        use_shared_bias: model.boolean_without_effect("use_shared_bias"),
        use_mask_estimator_fno: model.boolean_without_effect("use_mask_estimator_fno"),
        use_mask_estimator_hyper_ace: model.boolean_without_effect("use_mask_estimator_hyper_ace"),
        hyperace_version: model.integer("hyperace_version", 1, 64)?,
        hyperace_band_strides: model.boolean("hyperace_band_strides")?,
        experimental_residuals: model.boolean("experimental_residuals")?,
        unknown: Vec::new(),
    };
    options.unknown = model.unread_keys().map(str::to_owned).collect();
    Ok(options)
}
