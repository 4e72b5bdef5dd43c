//! A model: opening it and separating with it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::audio::Audio;
use super::error::{Error, Result};
use super::stems::Stems;
use crate::embedded;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::Config;
use crate::model::device::DeviceChoice;
use crate::model::inspect;
use crate::model::precision::Precision;
use crate::model::sidecar_config;
use crate::offline::memory;
use crate::offline::options::RenderOptions;
use crate::offline::render::render;
use crate::separator::{Runtime, Separator};

/// How a model is opened. The defaults suit every checkpoint.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// The YAML with the model's configuration. By default the one inside the checkpoint, else the one beside it.
    pub config: Option<PathBuf>,
    /// Where the network runs. By default the first that works of CUDA, Metal and the CPU.
    pub device: DeviceChoice,
    /// Number type of the matrix products. By default f32, or bf16 where that is faster and a self-check passes.
    pub precision: Precision,
    /// CPU threads, shared by all models with the same number. By default 0, which means one per logical processor.
    pub threads: usize,
}

/// A network with its weights, ready to separate.
///
/// ```no_run
/// use nullsum::{Model, Options};
///
/// let mut model = Model::open("my.ckpt")?; // finds my.yaml beside it
/// let report = model.separate_file("song.flac", "stems", &Options::default())?;
/// println!("{:?}", report.files);
/// # Ok::<(), nullsum::Error>(())
/// ```
pub struct Model {
    separator: Separator,
}

/// The result of [`Model::separate_file`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The files written.
    pub files: Vec<PathBuf>,
    /// Length of the song in seconds.
    pub audio_seconds: f64,
    /// Time taken in seconds.
    pub elapsed_seconds: f64,
    /// Peak of mixture − Σ stems in dBFS; −∞ if the sum is exact.
    pub null_dbfs: f64,
    /// Problems that did not prevent the separation, as text for the user.
    pub warnings: Vec<String>,
}

/// A description of a checkpoint: architecture, stems, cost, and problems that keep it from loading. Its `Display` is the report of
/// `nullsum-cli inspect`.
#[derive(Debug)]
pub struct Inspection(inspect::Inspection);

impl Inspection {
    /// Reads a checkpoint's description without loading its weights. `config` as in [`ModelOptions`].
    ///
    /// # Errors
    /// [`Error::OpenModel`] if the checkpoint or its YAML cannot be read. A network that does not load is part of the description.
    pub fn of(checkpoint: impl AsRef<Path>, config: Option<&Path>) -> Result<Self> {
        let path = checkpoint.as_ref();
        let checkpoint = Checkpoint::open(path)?;
        let config = sidecar_config::load(&checkpoint, Some(path), config)?;
        Ok(Self(inspect::Inspection::new(&checkpoint, &config, None)))
    }

    /// Whether [`Model::open`] would succeed.
    pub fn is_loadable(&self) -> bool {
        self.0.architecture.is_ok()
    }

    /// Names of the stems as the YAML lists them; empty if it does not.
    pub fn stems(&self) -> &[String] {
        &self.0.stems
    }

    /// Sample rate in Hz that the model was trained for.
    pub fn sample_rate(&self) -> u32 {
        self.0.sample_rate
    }
}

impl std::fmt::Display for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Model {
    /// Opens a checkpoint: a PyTorch file (`.ckpt`, `.pt`, `.pth`, `.th`, `.bin`) or safetensors, told apart by content. Pickles are read
    /// without executing anything.
    ///
    /// # Errors
    /// [`Error::OpenModel`], with every tensor that differs if checkpoint and YAML do not belong together.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &ModelOptions::default())
    }

    /// Opens a checkpoint with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Self> {
        let path = path.as_ref();
        Self::load(&Checkpoint::open(path)?, Some(path), options)
    }

    /// Opens the small model that is part of the program. It is of preview quality.
    ///
    /// # Errors
    /// [`Error::NoEmbeddedModel`] without the feature `embedded`.
    ///
    /// ```
    /// let model = nullsum::Model::embedded()?;
    /// assert_eq!(model.stems(), ["drums", "bass", "other", "vocals"]);
    /// # Ok::<(), nullsum::Error>(())
    /// ```
    pub fn embedded() -> Result<Self> {
        Self::embedded_with(&ModelOptions::default())
    }

    /// Opens the embedded model with options.
    ///
    /// # Errors
    /// As [`embedded`](Self::embedded), and [`Error::OpenModel`] if a YAML in the options does not fit.
    pub fn embedded_with(options: &ModelOptions) -> Result<Self> {
        Self::load(&embedded::checkpoint().ok_or(Error::NoEmbeddedModel)?, None, options)
    }

    fn load(checkpoint: &Checkpoint, path: Option<&Path>, options: &ModelOptions) -> Result<Self> {
        let config: Config = sidecar_config::load(checkpoint, path, options.config.as_deref())?;
        let runtime = Runtime {
            device: options.device,
            threads: options.threads,
            precision: options.precision,
            ..Runtime::default()
        };
        Ok(Self { separator: Separator::load(checkpoint, &config, None, runtime)? })
    }

    /// Names of the stems, in the order of all results. A model of one stem also yields its complement.
    pub fn stems(&self) -> Vec<String> {
        self.separator.info().stem_names()
    }

    /// Sample rate in Hz that the model was trained for. Audio at other rates is converted.
    pub fn sample_rate(&self) -> u32 {
        self.separator.info().sample_rate
    }

    /// Device, instruction set, number type and threads that the network uses, for display.
    pub fn runs_on(&self) -> String {
        let separator = &self.separator;
        let (device, kernel, precision) =
            (separator.device(), separator.kernel(), separator.precision().precision);
        format!("{device}, {kernel}, {precision}, {} threads", separator.threads())
    }

    /// Separates audio in memory with the default options. Any sample rate, mono to multichannel.
    ///
    /// # Errors
    /// [`Error::Separate`], [`Error::Audio`].
    ///
    /// ```
    /// use nullsum::{Audio, Model};
    ///
    /// let tone: Vec<f32> = (0..44_100).map(|n| (n as f32 * 0.05).sin() * 0.5).collect();
    /// let stems = Model::embedded()?.separate(&Audio::new(vec![tone.clone(), tone], 44_100)?)?;
    /// assert_eq!(stems.len(), 4);
    /// # Ok::<(), nullsum::Error>(())
    /// ```
    pub fn separate(&mut self, audio: &Audio) -> Result<Stems> {
        self.separate_with(audio, &RenderOptions::default(), |_| ControlFlow::Continue(()))
    }

    /// Separates audio in memory. Options that concern files are ignored. `on_progress` gets the fraction done, from 0 to 1, and can cancel.
    ///
    /// # Errors
    /// As [`separate`](Self::separate), and [`Error::Cancelled`].
    pub fn separate_with(
        &mut self,
        audio: &Audio,
        options: &RenderOptions,
        mut on_progress: impl FnMut(f64) -> ControlFlow<()>,
    ) -> Result<Stems> {
        let rate = audio.sample_rate();
        let separated =
            memory::separate(&mut self.separator, audio.planar(), rate, options, &mut |progress| {
                on_progress(progress.fraction.unwrap_or(0.0))
            })?;
        let stems =
            separated.stems.into_iter().map(|(name, samples)| (name, Audio::from_planar(samples, rate)));
        Ok(Stems::new(stems.collect(), separated.null.peak_dbfs()))
    }

    /// Separates an audio file into one file per stem in `folder`, in bounded memory. The files appear only when all are complete.
    ///
    /// # Errors
    /// [`Error::Separate`], [`Error::Audio`].
    pub fn separate_file(
        &mut self,
        input: impl AsRef<Path>,
        folder: impl AsRef<Path>,
        options: &RenderOptions,
    ) -> Result<Report> {
        self.separate_file_with(input, folder, options, |_| ControlFlow::Continue(()))
    }

    /// As [`separate_file`](Self::separate_file); `on_progress` gets the fraction done, from 0 to 1 if the length of the input is known and else
    /// 0, and can cancel.
    ///
    /// # Errors
    /// As [`separate_file`](Self::separate_file), and [`Error::Cancelled`].
    pub fn separate_file_with(
        &mut self,
        input: impl AsRef<Path>,
        folder: impl AsRef<Path>,
        options: &RenderOptions,
        mut on_progress: impl FnMut(f64) -> ControlFlow<()>,
    ) -> Result<Report> {
        let report =
            render(&mut self.separator, input.as_ref(), folder.as_ref(), options, &mut |progress| {
                on_progress(progress.fraction.unwrap_or(0.0))
            })?;
        Ok(Report {
            files: report.outputs,
            audio_seconds: report.audio_seconds,
            elapsed_seconds: report.elapsed.as_secs_f64(),
            null_dbfs: report.null.peak_dbfs(),
            warnings: report.warnings,
        })
    }

    pub(super) fn into_separator(self) -> Separator {
        self.separator
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("stems", &self.stems())
            .field("runs_on", &self.runs_on())
            .finish_non_exhaustive()
    }
}
