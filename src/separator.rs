//! A loaded model with its transforms: separates chunks of the mixture into stems. Songs and files are handled in other modules.

pub mod context;
mod device_chunk;
mod device_stft;
mod mask;
mod network;
mod precision;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use candle_core::Device;
use candle_nn::VarBuilder;
use num_complex::Complex32;
use rayon::prelude::*;

use crate::dsp::stft::Stft;
use crate::kernels::{JobControl, KernelError, Pool};
use crate::model::architecture::{Architecture, ArchitectureError, Family};
use crate::model::checkpoint::{Checkpoint, CheckpointError};
use crate::model::config::Config;
use crate::model::device::{DeviceChoice, DeviceError, device_name};
use crate::model::fused::FusedError;
use crate::model::precision::Precision;
use crate::model::weights;
use network::Network;

pub use crate::model::context::kept_context_unsupported;
pub use context::{
    ContextError, ContextPlan, FrameTiming, Hop, HopOutput, RemoteHop, RemoteInput, StreamState,
};
pub use mask::MaskRule;
pub use precision::ResolvedPrecision;

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Checkpoint and configuration do not describe a supported network.
    #[error("{origin}: {source}")]
    Architecture {
        /// The checkpoint.
        origin: String,
        /// The mismatch.
        source: ArchitectureError,
    },
    /// The YAML names another number of stems than the network has.
    #[error(
        "{origin}: the network has {found} stems, the YAML names {named} (training.instruments: {names}); give a YAML that belongs to the checkpoint"
    )]
    Stems {
        /// The checkpoint.
        origin: String,
        /// Mask estimators of the network.
        found: usize,
        /// Number of names in the YAML.
        named: usize,
        /// The names.
        names: String,
    },
    /// The device cannot be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The requested precision is not available.
    #[error("{0}")]
    Precision(String),
    /// The chunk is too short for the STFT.
    #[error("a chunk of {chunk} samples is too short: n_fft {n_fft} needs at least {min}")]
    ChunkTooShort {
        /// Requested samples.
        chunk: usize,
        /// Length of the Fourier transform.
        n_fft: usize,
        /// Fewest samples.
        min: usize,
    },
    /// candle could not build the network.
    #[error("the network does not build: {0}")]
    Network(#[from] candle_core::Error),
    /// The CPU kernels could not be built.
    #[error("the network does not build: {0}")]
    Fused(#[from] FusedError),
    /// The thread pool could not be started, or the kernel was not found.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Why a chunk cannot be separated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeparateError {
    /// A chunk has the wrong shape.
    #[error(
        "expected chunks of {channels} channels of equal length, at least {min} samples, found {found} values"
    )]
    Shape {
        /// Channels of the model.
        channels: usize,
        /// Fewest samples.
        min: usize,
        /// Values in the chunk.
        found: usize,
    },
    /// One chunk does not fit into the device's memory.
    #[error("{device} ran out of memory with a chunk of {samples} samples; try a shorter chunk, or the CPU")]
    OutOfMemory {
        /// Name of the device.
        device: String,
        /// Samples of the chunk.
        samples: usize,
    },
    /// There is no such hop yet.
    #[error("a hop of {asked} frames: expected 1 to {ready}, which are ready; push more input first")]
    NotReady {
        /// Frames asked for.
        asked: usize,
        /// Frames that are ready.
        ready: u64,
    },
    /// Input after the end of a stream.
    #[error("the stream has ended; reset it before its next input")]
    Finished,
    /// A stream of another model.
    #[error("the stream was opened by another model; open one with this model")]
    ForeignStream,
    /// Another process sent a result that does not fit.
    #[error("the worker process sent a result that does not fit the stream: {0}")]
    Remote(String),
    /// The [`JobControl`] cancelled the pass.
    #[error("the separation was cancelled")]
    Cancelled,
    /// The network failed.
    #[error("the network failed on {device}: {source}; try fewer chunks at a time, or shorter ones")]
    Network {
        /// Name of the device.
        device: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where and on how many threads a model runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runtime {
    /// The device.
    pub device: DeviceChoice,
    /// Threads of the process-wide pool; separators with the same number share it. 0 means one per processor.
    pub threads: usize,
    /// Number type of the network's matrix products.
    pub precision: Precision,
    /// Whether `Precision::Auto` may choose int8, where that is faster and a self-check finds it accurate enough. For live streams,
    /// whose latency depends on speed. By default this is false.
    pub auto_may_use_int8: bool,
    /// Whether it gets a pool of its own, whose priority and interruptions are not those of other separators. For background work.
    pub private_pool: bool,
    /// Runs chunks on the CPU through the GPU pipeline, candle from waveform to stems. For tests.
    pub as_on_gpu: bool,
}

impl From<DeviceChoice> for Runtime {
    fn from(device: DeviceChoice) -> Self {
        Self { device, ..Self::default() }
    }
}

/// Time spent in each stage since the last [`Separator::take_stage_times`].
#[derive(Clone, Copy, Debug, Default)]
pub struct StageTimes {
    /// Forward transform.
    pub stft: Duration,
    /// The network: band split, transformers, mask estimators.
    pub network: Duration,
    /// Completing masks and multiplying them with the mixture.
    pub mask: Duration,
    /// Inverse transform.
    pub istft: Duration,
}

/// A model's network and the settings of its configuration.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// The checkpoint's path or name.
    pub origin: String,
    /// The network.
    pub architecture: Architecture,
    /// Names of the stems, in the network's order.
    pub stems: Vec<String>,
    /// Name of the complement, the mixture minus the only stem, for models of one stem.
    pub complement: Option<String>,
    /// Sample rate in Hz that the model was trained for.
    pub sample_rate: u32,
    /// Samples of a chunk.
    pub chunk: usize,
    /// Chunks that cover a sample.
    pub overlap: usize,
    /// Chunks per pass.
    pub batch: usize,
    /// Whether the mixture is standardised before separation.
    pub normalize: bool,
}

impl ModelSpec {
    /// Reads the network and its settings from a checkpoint and its YAML.
    ///
    /// # Errors
    /// [`LoadError::Architecture`], [`LoadError::Stems`], [`LoadError::ChunkTooShort`].
    pub fn resolve(
        checkpoint: &Checkpoint,
        config: &Config,
        family: Option<Family>,
    ) -> Result<Self, LoadError> {
        let origin = checkpoint.origin().to_string();
        let architecture = Architecture::resolve(config, checkpoint, family)
            .map_err(|source| LoadError::Architecture { origin: origin.clone(), source })?;
        let (stems, complement) = name_stems(config, architecture.num_stems).ok_or_else(|| {
            let names = config.stems().to_vec();
            LoadError::Stems {
                origin: origin.clone(),
                found: architecture.num_stems,
                named: names.len(),
                names: names.join(", "),
            }
        })?;
        let sample_rate = config.audio.sample_rate.unwrap_or(44_100);
        let chunk = config.chunk_size().unwrap_or(8 * sample_rate as usize);
        check_chunk(chunk, &architecture)?;
        architecture
            .check_cost(chunk, sample_rate)
            .map_err(|source| LoadError::Architecture { origin: origin.clone(), source })?;
        Ok(Self {
            origin,
            stems,
            complement,
            sample_rate,
            chunk,
            overlap: config.inference.num_overlap.unwrap_or(2).max(1),
            batch: config.inference.batch_size.unwrap_or(1).max(1),
            normalize: config.inference.normalize.unwrap_or(false),
            architecture,
        })
    }

    /// Names of all output stems: those of the network, and the complement of a single stem.
    pub fn stem_names(&self) -> Vec<String> {
        self.stems.iter().chain(&self.complement).cloned().collect()
    }

    /// The mask rule that this model uses when `wanted` is requested.
    pub fn rule(&self, wanted: MaskRule) -> MaskRule {
        // Completion would give a single stem the whole mixture. Its complement is a separate stem instead.
        if self.complement.is_some() { MaskRule::Plain } else { wanted }
    }

    /// A model of random weights with `architecture`, for benchmarks.
    pub fn random(name: &str, architecture: Architecture, chunk: usize) -> Self {
        Self {
            origin: name.into(),
            stems: (0..architecture.num_stems).map(|n| format!("stem{n}")).collect(),
            complement: None,
            sample_rate: 44_100,
            chunk,
            overlap: 1,
            batch: 1,
            normalize: false,
            architecture,
        }
    }
}

/// Checks that `chunk` samples are enough for the STFT of `architecture`.
///
/// # Errors
/// [`LoadError::ChunkTooShort`].
pub fn check_chunk(chunk: usize, architecture: &Architecture) -> Result<(), LoadError> {
    let (n_fft, min) = (architecture.stft.n_fft, architecture.stft.min_samples());
    if chunk < min { Err(LoadError::ChunkTooShort { chunk, n_fft, min }) } else { Ok(()) }
}

/// Index of the stem `wanted` in `names`. An exact match wins; otherwise the first name that differs only in case, since YAMLs
/// write both `Vocals` and `vocals`.
pub fn stem_position(names: &[String], wanted: &str) -> Option<usize> {
    let exact = names.iter().position(|name| name == wanted);
    exact.or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(wanted)))
}

/// Names of the network's stems and, for a single stem, of its complement.
fn name_stems(config: &Config, count: usize) -> Option<(Vec<String>, Option<String>)> {
    let mut names = config.stems().to_vec();
    if names.is_empty() {
        names =
            if count == 1 { vec!["vocals".into()] } else { (0..count).map(|n| format!("stem{n}")).collect() };
    }
    // If the YAML lists several stems for a network of one, the network estimates the first.
    if count == 1 {
        names.truncate(1);
    }
    if names.len() != count {
        return None;
    }
    let complement = (count == 1).then(|| {
        let others: Vec<_> = config.training.instruments.iter().filter(|name| **name != names[0]).collect();
        match (others[..].first(), names[0].to_ascii_lowercase().as_str()) {
            (Some(only), _) if others.len() == 1 => only.to_string(),
            (_, "vocals") => "instrumental".into(),
            (_, "instrumental") => "vocals".into(),
            _ => "residual".into(),
        }
    });
    Some((names, complement))
}

/// Chunks per batch on a GPU. Larger batches gain little, and a song's last batch is seldom full.
const GPU_BATCH: usize = 4;

/// Frames of a task of the forward transform.
const TRANSFORM_FRAMES: usize = 32;

/// A loaded model. It accepts chunks of any length from [`StftConfig::min_samples`](crate::dsp::stft::StftConfig::min_samples) up.
pub struct Separator {
    /// Tells its streams from those of others.
    id: u64,
    info: ModelSpec,
    network: Network,
    /// Most samples in a batch, over all its chunks. Lowered when the device runs out of memory.
    most_samples: usize,
    pool: Pool,
    stft: Stft,
    /// The transform's envelope of the last length of a chunk.
    envelope: Vec<f32>,
    buffers: PassBuffers,
    stages: StageTimes,
    hops: context::HopWorkspace,
}

/// Memory of a pass, kept for the next: fresh pages cost a few percent of a small model's time.
#[derive(Default)]
struct PassBuffers {
    /// [batch, frames, freqs, channels]
    spec: Vec<Complex32>,
    /// [batch, stems, frames, (f s) c], then the stems' spectra.
    masks: Vec<f32>,
}

/// Number of the next separator.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Separator {
    /// Loads a checkpoint.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(
        checkpoint: &Checkpoint,
        config: &Config,
        family: Option<Family>,
        runtime: impl Into<Runtime>,
    ) -> Result<Self, LoadError> {
        let info = ModelSpec::resolve(checkpoint, config, family)?;
        Self::build(info, runtime.into(), |device| weights::from_checkpoint(checkpoint, device))
    }

    /// A network of seeded random weights.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn random(info: ModelSpec, seed: u64, runtime: impl Into<Runtime>) -> Result<Self, LoadError> {
        Self::build(info, runtime.into(), |device| weights::seeded(seed, device))
    }

    fn build<'a>(
        info: ModelSpec,
        runtime: Runtime,
        weights: impl FnOnce(&Device) -> VarBuilder<'a>,
    ) -> Result<Self, LoadError> {
        let device = runtime.device.open()?;
        let pool =
            if runtime.private_pool { Pool::new(runtime.threads) } else { Pool::shared(runtime.threads) }?;
        let on_device = !device.is_cpu() || runtime.as_on_gpu;
        let arch = &info.architecture;
        let network = Network::new(arch, weights(&device), &pool, &runtime, on_device)?;
        let separator = Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            hops: context::HopWorkspace::default(),
            stft: Stft::new(arch.stft),
            envelope: Vec::new(),
            buffers: PassBuffers::default(),
            most_samples: usize::MAX,
            network,
            pool,
            info,
            stages: StageTimes::default(),
        };
        separator.log_loaded();
        Ok(separator)
    }

    fn log_loaded(&self) {
        let (info, arch) = (&self.info, &self.info.architecture);
        log::info!(
            "loaded {}: {}, dim {}, depth {}, {:.1} M parameters, stems {}; runs on {}, {}, {}, {} threads",
            info.origin,
            arch.family,
            arch.dim,
            arch.depth,
            arch.parameters() as f64 / 1e6,
            info.stem_names().join(", "),
            self.device(),
            self.kernel(),
            self.precision().precision,
            self.threads()
        );
    }

    /// Makes the device report out of memory from that many samples on.
    #[cfg(test)]
    pub(crate) fn simulate_out_of_memory_at(&mut self, samples: usize) {
        if let Some((pipeline, _)) = self.network.device_pipeline() {
            pipeline.out_of_memory_at = samples;
        }
    }

    /// The network and its settings.
    pub fn info(&self) -> &ModelSpec {
        &self.info
    }

    /// Name of the device.
    pub fn device(&self) -> String {
        self.network.device()
    }

    /// Backend of the network: the instruction set of the fused CPU kernels, or `candle` with the reason.
    pub fn kernel(&self) -> String {
        self.network.kernel()
    }

    /// Precision of the matrix products, and the self-check behind it.
    pub fn precision(&self) -> ResolvedPrecision {
        self.network.precision()
    }

    /// Number of threads of its pool.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Default number of chunks per pass: the configuration's, and at least a few on a GPU, since one chunk does not fill it.
    pub fn batch(&self) -> usize {
        if self.network.is_on_device() { self.info.batch.max(GPU_BATCH) } else { self.info.batch }
    }

    /// The longest of `chunk`, `chunk / 2`, `chunk / 4`, … that may fit after the device ran out of memory.
    /// None if that is less than a second or too short for the STFT.
    pub fn chunk_that_fits(&self, chunk: usize) -> Option<usize> {
        let least = (self.info.sample_rate as usize).max(self.info.architecture.stft.min_samples());
        let mut fits = chunk;
        while fits > self.most_samples {
            fits /= 2;
        }
        (fits == chunk || fits >= least).then_some(fits)
    }

    /// The network alone: `spec` [batch, frames, (f s)] → masks [batch, stems, frames, (f s)], flat.
    ///
    /// # Errors
    /// [`SeparateError::Network`].
    pub fn masks(&mut self, spec: &[Complex32], batch: usize) -> Result<Vec<Complex32>, SeparateError> {
        let mut masks = Vec::new();
        self.estimate_masks(spec, batch, &mut masks, &())?;
        // In place where the capacity is even.
        Ok(bytemuck::allocation::try_cast_vec(masks)
            .unwrap_or_else(|(_, masks)| bytemuck::cast_slice(&masks).to_vec()))
    }

    fn estimate_masks(
        &mut self,
        spec: &[Complex32],
        batch: usize,
        masks: &mut Vec<f32>,
        control: &dyn JobControl,
    ) -> Result<(), SeparateError> {
        let (pool, network) = (self.pool.clone(), &mut self.network);
        pool.install(|| network.forward(bytemuck::cast_slice(spec), batch, masks, control))
            .map_err(|source| SeparateError::Network { device: self.network.device(), source })
    }

    /// Whether a device is waited for after each stage, so that [`take_stage_times`](Self::take_stage_times) tells them apart. By default this is
    /// false: the waits cost time, and the last stage has the time of all. The stages of the processor are always told apart.
    pub fn time_stages(&mut self, times_stages: bool) {
        if let Some((pipeline, _)) = self.network.device_pipeline() {
            pipeline.times_stages = times_stages;
        }
    }

    /// Time spent in each stage since the last call.
    pub fn take_stage_times(&mut self) -> StageTimes {
        std::mem::take(&mut self.stages)
    }

    /// Separates a batch of chunks of one length. `chunks[i]` is planar, [channels, samples] flat; the result holds one
    /// [stems, channels, samples] for each, flat. Values that are not finite become 0.
    ///
    /// # Errors
    /// [`SeparateError`].
    pub fn separate(&mut self, chunks: &[&[f32]], rule: MaskRule) -> Result<Vec<Vec<f32>>, SeparateError> {
        self.separate_controlled(chunks, rule, &())
    }

    /// As [`Self::separate`]; asks `control` between the layers of the network.
    ///
    /// # Errors
    /// [`SeparateError`]; [`SeparateError::Cancelled`] if `control` cancelled the pass.
    pub fn separate_controlled(
        &mut self,
        chunks: &[&[f32]],
        rule: MaskRule,
        control: &dyn JobControl,
    ) -> Result<Vec<Vec<f32>>, SeparateError> {
        let recorded = Recorded::new(control);
        let separated = self.separate_anywhere(chunks, rule, &recorded);
        if recorded.is_cancelled() { Err(SeparateError::Cancelled) } else { separated }
    }

    /// The pool that it runs on.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    fn separate_anywhere(
        &mut self,
        chunks: &[&[f32]],
        rule: MaskRule,
        control: &dyn JobControl,
    ) -> Result<Vec<Vec<f32>>, SeparateError> {
        if self.network.is_on_gpu() {
            return self.separate_in_pool(chunks, rule, control);
        }
        // All parallel work, candle's included, stays in the pool.
        let pool = self.pool.clone();
        pool.install(|| self.separate_in_pool(chunks, rule, control))
    }

    /// Separates as many chunks at a time as fit, halving the number when the device runs out of memory. None if chunks run on the host.
    fn separate_on_device(
        &mut self,
        chunks: &[&[f32]],
        samples: usize,
        rule: MaskRule,
        control: &dyn JobControl,
    ) -> Result<Option<Vec<Vec<f32>>>, SeparateError> {
        let Some((pipeline, network)) = self.network.device_pipeline() else { return Ok(None) };
        let mut out = Vec::with_capacity(chunks.len());
        while out.len() < chunks.len() {
            let left = &chunks[out.len()..];
            let count = (self.most_samples / samples).clamp(1, left.len());
            match pipeline.separate(network, &left[..count], samples, rule, control, &mut self.stages) {
                Ok(stems) => out.extend(stems),
                Err(error) if device_chunk::is_out_of_memory(&error) => {
                    self.most_samples = count * samples / 2;
                    if count == 1 {
                        let device = device_name(network.device());
                        return Err(SeparateError::OutOfMemory { device, samples });
                    }
                }
                Err(error) => {
                    let device = device_name(network.device());
                    return Err(SeparateError::Network { device, source: Box::new(error) });
                }
            }
        }
        Ok(Some(out))
    }

    fn separate_in_pool(
        &mut self,
        chunks: &[&[f32]],
        rule: MaskRule,
        control: &dyn JobControl,
    ) -> Result<Vec<Vec<f32>>, SeparateError> {
        let channels = self.info.architecture.channels;
        let Some(first) = chunks.first() else { return Ok(Vec::new()) };
        let samples = first.len() / channels;
        let min = self.info.architecture.stft.min_samples();
        for chunk in chunks {
            if chunk.len() != samples * channels || samples < min {
                return Err(SeparateError::Shape { channels, min, found: chunk.len() });
            }
        }
        if let Some(stems) = self.separate_on_device(chunks, samples, rule, control)? {
            return Ok(stems);
        }
        let mut buffers = std::mem::take(&mut self.buffers);
        let separated = self.separate_chunks(chunks, samples, rule, &mut buffers, control);
        self.buffers = buffers;
        separated
    }

    /// On the host, chunks of `samples` samples.
    fn separate_chunks(
        &mut self,
        chunks: &[&[f32]],
        samples: usize,
        rule: MaskRule,
        PassBuffers { spec, masks }: &mut PassBuffers,
        control: &dyn JobControl,
    ) -> Result<Vec<Vec<f32>>, SeparateError> {
        let channels = self.info.architecture.channels;
        let config = *self.stft.config();
        let (frames, bins) = (config.frames(samples), config.freqs() * channels);
        let spectrum = frames * bins;

        let started = Instant::now();
        spec.resize(chunks.len() * spectrum, Complex32::default());
        // Parts of a spectrum are tasks, since most passes have one chunk.
        let parts = spec.chunks_exact_mut(spectrum).zip(chunks).flat_map(|(spec, chunk)| {
            let parts = spec.chunks_mut(TRANSFORM_FRAMES * bins).enumerate();
            parts.map(move |(part, spec)| (part * TRANSFORM_FRAMES, spec, chunk))
        });
        parts.collect::<Vec<_>>().into_par_iter().for_each(|(first, spec, chunk)| {
            for (c, signal) in chunk.chunks_exact(samples).enumerate() {
                self.stft.forward_from(first, signal, c, channels, spec);
            }
        });
        self.stages.stft += started.elapsed();

        let started = Instant::now();
        self.estimate_masks(spec, chunks.len(), masks, control)?;
        let masks: &mut [Complex32] = bytemuck::cast_slice_mut(masks);
        self.stages.network += started.elapsed();

        let started = Instant::now();
        let stems = self.info.architecture.num_stems;
        if self.info.architecture.zero_dc {
            for row in masks.chunks_exact_mut(bins) {
                row[..channels].fill(Complex32::default());
            }
        }
        for (spec, masks) in spec.chunks_exact(spectrum).zip(masks.chunks_exact_mut(stems * spectrum)) {
            mask::apply(rule, spec, masks, stems);
        }
        self.stages.mask += started.elapsed();

        let started = Instant::now();
        if self.envelope.len() != samples {
            self.envelope = self.stft.envelope(frames, samples);
        }
        let out = masks
            .chunks_exact(stems * spectrum)
            .map(|spectra| {
                let mut out = vec![0.0; stems * channels * samples];
                out.par_chunks_exact_mut(samples).enumerate().for_each(|(i, signal)| {
                    let spectrum = &spectra[i / channels * spectrum..][..spectrum];
                    self.stft.inverse_with(&self.envelope, spectrum, i % channels, channels, signal);
                    signal.iter_mut().filter(|x| !x.is_finite()).for_each(|x| *x = 0.0);
                });
                out
            })
            .collect();
        self.stages.istft += started.elapsed();
        Ok(out)
    }
}

/// Notes that a pass was cancelled: backends report it by errors of their own.
struct Recorded<'a> {
    control: &'a dyn JobControl,
    cancelled: AtomicBool,
}

impl<'a> Recorded<'a> {
    fn new(control: &'a dyn JobControl) -> Self {
        Self { control, cancelled: AtomicBool::new(false) }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }
}

impl JobControl for Recorded<'_> {
    fn checkpoint(&self) -> ControlFlow<()> {
        let flow = self.control.checkpoint();
        if flow.is_break() {
            self.cancelled.store(true, Relaxed);
        }
        flow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> Config {
        Config::from_yaml(&format!("model:\n  dim: 8\n{yaml}"), "test.yaml").unwrap()
    }

    #[test]
    fn a_single_stem_gets_a_named_complement() {
        for (yaml, stem, complement) in [
            ("training:\n  instruments: [vocals, other]\n  target_instrument: vocals\n", "vocals", "other"),
            ("training:\n  instruments: [vocals]\n", "vocals", "instrumental"),
            ("training:\n  instruments: [drums]\n", "drums", "residual"),
            ("training:\n  instruments: [a, b, c]\n", "a", "residual"),
        ] {
            let (stems, rest) = name_stems(&config(yaml), 1).unwrap();
            assert_eq!((stems[0].as_str(), rest.as_deref()), (stem, Some(complement)), "{yaml}");
        }
    }

    #[test]
    fn stems_must_be_as_many_as_the_network_has() {
        let four = config("training:\n  instruments: [drums, bass, other, vocals]\n");
        assert!(name_stems(&four, 3).is_none());
        assert_eq!(name_stems(&four, 4).unwrap().1, None);
    }
}
