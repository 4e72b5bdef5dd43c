//! A RoFormer that can be trained: `loss = model.loss(x, target)`, `loss.backward()`.

use std::path::Path;

use bytemuck::cast_slice;
use candle_core::{DType, Device, Tensor};
use rustfft::num_complex::Complex32;

use super::architecture::from_config;
use super::error::TrainError;
use super::loss::{LossConfig, LossParts, WaveformLoss};
use super::network::{Network, Tape};
use super::parameters::{Gradients, Parameters};
use super::waveform::Waveforms;
use super::{export, parameters};
use crate::model::architecture::{Architecture, Family};
use crate::model::checkpoint::Checkpoint;
use crate::model::config::Config;

/// How a model for training is built.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Where the network runs. By default the CPU.
    pub device: Device,
    /// Number type of parameters and network: f32, or f64 to check gradients. By default f32.
    pub dtype: DType,
    /// Whether the CPU's kernels run what they cover. By default they do; without them all runs on candle, more slowly.
    pub kernels: bool,
    /// The family where neither YAML nor tensors tell. By default none.
    pub family: Option<Family>,
    /// The loss. By default what the YAML says, and the references' defaults.
    pub loss: Option<LossConfig>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, dtype: DType::F32, kernels: true, family: None, loss: None }
    }
}

/// BS-RoFormer or Mel-Band RoFormer with a loss and its gradient.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use nullsum::model::config::Config;
/// use nullsum::train::RoformerForTraining;
///
/// let yaml = "model: {dim: 8, depth: 1, heads: 2, dim_head: 4, freqs_per_bands: [10, 23],
///   stft_n_fft: 64, stft_hop_length: 16, stft_win_length: 64}";
/// let model = RoformerForTraining::new(&Config::from_yaml(yaml, "example")?, 0)?;
/// let x = Tensor::randn(0f32, 1.0, (2, 4096), &Device::Cpu)?;
/// let target = Tensor::randn(0f32, 1.0, (2, 4096), &Device::Cpu)?;
///
/// let loss = model.loss(&x, &target)?;
/// let gradients = loss.backward()?;
/// assert!(gradients.norm(model.parameters())? > 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RoformerForTraining {
    parameters: Parameters,
    network: Network,
    waveforms: Waveforms,
    loss: WaveformLoss,
    config_yaml: String,
}

impl RoformerForTraining {
    /// A new network with seeded random parameters on the CPU.
    ///
    /// # Errors
    /// [`TrainError`] where the configuration describes no network.
    pub fn new(config: &Config, seed: u64) -> Result<Self, TrainError> {
        Self::with_options(config, seed, &ModelOptions::default())
    }

    /// A new network with seeded random parameters.
    ///
    /// # Errors
    /// [`TrainError`] where the configuration describes no network, or the device is out of memory.
    pub fn with_options(config: &Config, seed: u64, options: &ModelOptions) -> Result<Self, TrainError> {
        let arch = from_config(config, options.family)?;
        let parameters = Parameters::random(&arch, seed, options.dtype, &options.device)?;
        Self::build(arch, parameters, config, options)
    }

    /// The network of a checkpoint, with its weights.
    ///
    /// # Errors
    /// [`TrainError`] where checkpoint and configuration differ, a value is not finite, or the device is out of memory.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        config: &Config,
        options: &ModelOptions,
    ) -> Result<Self, TrainError> {
        let arch = Architecture::resolve(config, checkpoint, options.family)
            .map_err(|source| TrainError::Architecture { origin: checkpoint.origin().to_owned(), source })?;
        let parameters = Parameters::from_checkpoint(&arch, checkpoint, options.dtype, &options.device)?;
        Self::build(arch, parameters, config, options)
    }

    fn build(
        arch: Architecture,
        parameters: Parameters,
        config: &Config,
        options: &ModelOptions,
    ) -> Result<Self, TrainError> {
        if let Some(feature) = arch.special_feature() {
            return Err(TrainError::setting("model", "a network that can be trained", feature));
        }
        let loss = options.loss.clone().unwrap_or_else(|| LossConfig::new(config, &arch));
        Ok(Self {
            network: Network::new(&arch, &parameters, options.kernels)?,
            waveforms: Waveforms::new(&arch),
            loss: WaveformLoss::new(loss)?,
            config_yaml: config.text().to_owned(),
            parameters,
        })
    }

    /// What was built.
    pub fn architecture(&self) -> &Architecture {
        self.network.arch()
    }

    /// The parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The parameters, to freeze some.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// The loss's settings.
    pub fn loss_config(&self) -> &LossConfig {
        self.loss.config()
    }

    /// The YAML that the network was built from.
    pub fn config_yaml(&self) -> &str {
        &self.config_yaml
    }

    /// The stems of crops: x [batch, samples] or [batch, channels, samples] → [batch, stems, channels, samples], f32 on the CPU.
    ///
    /// # Errors
    /// [`TrainError::Shape`] and [`TrainError::NotFinite`] for bad input, [`TrainError::Network`] where the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TrainError> {
        let run = self.run(x, self.architecture().stft.min_samples())?;
        let [batch, samples] = run.shape;
        let arch = self.architecture();
        let shape = (batch, arch.num_stems, arch.channels, samples);
        Ok(Tensor::from_vec(run.stems, shape, &Device::Cpu)?)
    }

    /// The loss of crops against their stems. x: [batch, samples] or [batch, channels, samples]; target: [batch, stems, channels,
    /// samples], where axes of length 1 between the first and the last may be left out.
    ///
    /// # Errors
    /// As [`RoformerForTraining::forward`].
    pub fn loss(&self, x: &Tensor, target: &Tensor) -> Result<Loss<'_>, TrainError> {
        self.weighted_loss(x, target, None)
    }

    /// [`RoformerForTraining::loss`] of which each stem of each crop has a weight: [batch, stems], row by row. The parts of the loss stay
    /// means over all stems.
    ///
    /// # Errors
    /// As [`RoformerForTraining::loss`].
    pub fn weighted_loss(
        &self,
        x: &Tensor,
        target: &Tensor,
        weights: Option<&[f32]>,
    ) -> Result<Loss<'_>, TrainError> {
        let config = self.loss.config();
        let run = self.run(x, self.min_samples())?;
        let [batch, samples] = run.shape;
        let arch = self.architecture();
        let target = self.target(target, batch, samples)?;
        let signals = batch * arch.num_stems * arch.channels;
        if let Some(weights) = weights
            && weights.len() != batch * arch.num_stems
        {
            return Err(TrainError::Shape {
                what: "weights of the stems",
                expected: format!("[{batch}, {}]", arch.num_stems),
                found: format!("{} values", weights.len()),
            });
        }
        let weight = |signal: usize| weights.map_or(1.0, |weights| weights[signal / arch.channels]);
        let counted = config.counted_samples(&arch.stft, samples);
        let mut difference = Vec::with_capacity(signals * counted);
        for (signal, (x, y)) in run.stems.chunks_exact(samples).zip(target.chunks_exact(samples)).enumerate()
        {
            let weight = weight(signal);
            difference.extend(x[..counted].iter().zip(y).map(|(x, y)| weight * (x - y)));
        }
        let (parts, counted_gradient) = self.loss.evaluate(&difference, counted);
        let mut gradient = vec![0.0; signals * samples];
        for (signal, (to, from)) in
            gradient.chunks_exact_mut(samples).zip(counted_gradient.chunks_exact(counted)).enumerate()
        {
            let weight = weight(signal);
            to.iter_mut().zip(from).for_each(|(to, from)| *to = weight * from);
        }
        let value = parts.waveform + f64::from(config.stft_weight) * parts.stft;
        let spectra = run.spectra;
        Ok(Loss { model: self, value, parts, tape: run.tape, spectra, gradient, shape: run.shape })
    }

    /// Fewest samples of a crop that loss and transforms can take.
    pub fn min_samples(&self) -> usize {
        let stft = &self.architecture().stft;
        let config = self.loss.config();
        // The counted part must be long enough for the loss; it is shorter than the crop by less than a hop.
        let hop = if config.whole_crop { 0 } else { stft.hop_length };
        stft.min_samples().max(if config.stft_weight > 0.0 { config.min_samples() + hop } else { 1 })
    }

    /// Everything that a safetensors checkpoint of this network holds, written to `path` in one step, with the YAML inside. The reference
    /// packages load its tensors.
    ///
    /// # Errors
    /// [`TrainError::Io`], and [`TrainError::NotFinite`] where a parameter is NaN or infinite; `path` then keeps what it was.
    pub fn export(&self, path: &Path) -> Result<(), TrainError> {
        export::checkpoint(&self.parameters, None, &self.config_yaml, path)
    }

    /// The same with other values of the parameters, such as their moving average.
    ///
    /// # Errors
    /// As [`RoformerForTraining::export`].
    pub fn export_values(&self, values: &[Tensor], path: &Path) -> Result<(), TrainError> {
        export::checkpoint(&self.parameters, Some(values), &self.config_yaml, path)
    }

    fn run(&self, x: &Tensor, min_samples: usize) -> Result<Run, TrainError> {
        let arch = self.architecture();
        let (batch, channels, samples) = match *x.dims() {
            [batch, samples] => (batch, 1, samples),
            [batch, channels, samples] => (batch, channels, samples),
            _ => (0, 0, 0),
        };
        if batch == 0 || channels != arch.channels || samples < min_samples {
            return Err(TrainError::Shape {
                what: "crops",
                expected: format!("[batch, {}, at least {min_samples} samples]", arch.channels),
                found: format!("{:?}", x.dims()),
            });
        }
        let crops = finite(x, "crops")?;
        let spectra = self.waveforms.spectra(&crops, samples);
        let frames = arch.stft.frames(samples);
        let flat: &[f32] = cast_slice(&spectra);
        let spec = Tensor::from_slice(flat, (batch, frames, arch.frame_features()), &Device::Cpu)?;
        let (masks, tape) = self.network.forward(&self.parameters, &spec)?;
        let masks: Vec<f32> =
            masks.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let stems = self.waveforms.stems(cast_slice::<f32, Complex32>(&masks), &spectra, samples);
        Ok(Run { stems, spectra, tape, shape: [batch, samples] })
    }

    /// Targets [batch, stems, channels, samples], flat.
    fn target(&self, target: &Tensor, batch: usize, samples: usize) -> Result<Vec<f32>, TrainError> {
        let arch = self.architecture();
        let full = [batch, arch.num_stems, arch.channels, samples];
        let significant = |dims: &[usize]| -> Vec<usize> {
            let inner = dims.len().saturating_sub(1);
            dims.iter()
                .enumerate()
                .filter(|(i, n)| *i == 0 || *i >= inner || **n != 1)
                .map(|(_, n)| *n)
                .collect()
        };
        if target.rank() < 2 || target.rank() > 4 || significant(target.dims()) != significant(&full) {
            return Err(TrainError::Shape {
                what: "target",
                expected: format!("{full:?}"),
                found: format!("{:?}", target.dims()),
            });
        }
        finite(target, "target")
    }
}

/// What one forward pass leaves.
struct Run {
    /// [batch, stems, channels, samples]
    stems: Vec<f32>,
    /// [batch, frames, freqs, channels]
    spectra: Vec<Complex32>,
    tape: Tape,
    /// Batch and samples.
    shape: [usize; 2],
}

/// All values of a tensor as f32, which must be finite.
fn finite(x: &Tensor, what: &str) -> Result<Vec<f32>, TrainError> {
    let values: Vec<f32> = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    match values.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        None => Ok(values),
        Some((at, &value)) => Err(TrainError::NotFinite { what: what.into(), at, value }),
    }
}

/// A loss and what its gradient needs.
#[must_use = "call `backward` for the gradients"]
pub struct Loss<'a> {
    model: &'a RoformerForTraining,
    value: f64,
    parts: LossParts,
    tape: Tape,
    spectra: Vec<Complex32>,
    /// Gradient of the loss with respect to the stems: [batch, stems, channels, samples]
    gradient: Vec<f32>,
    shape: [usize; 2],
}

impl Loss<'_> {
    /// The loss.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// What it is made of.
    pub fn parts(&self) -> LossParts {
        self.parts
    }

    /// The gradient of the loss with respect to every parameter.
    ///
    /// # Errors
    /// [`TrainError::Network`] where the device fails.
    pub fn backward(self) -> Result<parameters::Gradients, TrainError> {
        let mut gradients = Gradients::none(&self.model.parameters);
        let [batch, samples] = self.shape;
        let arch = self.model.architecture();
        let masks = self.model.waveforms.masks_gradient(&self.gradient, &self.spectra, samples);
        let shape = (batch, arch.num_stems, arch.stft.frames(samples), arch.frame_features());
        let masks = Tensor::from_slice(cast_slice::<Complex32, f32>(&masks), shape, &Device::Cpu)?;
        self.model.network.backward(&self.model.parameters, self.tape, &masks, &mut gradients)?;
        Ok(gradients)
    }
}
