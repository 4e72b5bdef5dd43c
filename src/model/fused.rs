//! The network on the fused CPU kernels: the mathematics of [`Roformer`](super::roformer::Roformer) with transformer blocks
//! that stay in cache. x is the only tensor of full size.
//!
//! It is built from the same architecture and weights and supports nearly all checkpoints: softmax attention with rotary
//! positions and plain residuals. [`unsupported_feature`] names the first option that needs candle.

mod context;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Shape};
use candle_nn::VarBuilder;
use parking_lot::Mutex;
use rayon::prelude::*;

use super::architecture::{Architecture, Position};
use super::bands::BandLayout;
use super::position::PositionEmbed;
use crate::kernels::{
    BandMlp, BandSplit, BandWeights, JobControl, KernelError, Linear, MaskEstimator, Pool, Rotary, Sequences,
    Target, TransformerBlock, TransformerWeights,
};

pub use context::FusedContext;

/// Why the network cannot be built on the kernels.
#[derive(Debug, thiserror::Error)]
pub enum FusedError {
    /// The kernels do not accept a size or the instruction set.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A weight cannot be read.
    #[error(transparent)]
    Weights(#[from] candle_core::Error),
}

/// The first option of `arch` that the kernels do not support; none if they support all.
pub fn unsupported_feature(arch: &Architecture) -> Option<&'static str> {
    if arch.hyper_connections.is_some() {
        Some("hyper-connections")
    } else if arch.value_residual.is_some() {
        Some("value residuals")
    } else if arch.position == Position::Polar {
        Some("PoPE")
    } else if arch.linear_transformer_depth > 0 {
        Some("linear attention")
    } else {
        arch.special_feature()
    }
}

/// A network packed for one instruction set and number format.
pub struct FusedRoformer {
    architecture: Architecture,
    target: Target,
    pool: Pool,
    band_split: BandSplit,
    layers: Vec<Layer>,
    mask_estimator: MaskEstimator,
    /// Position of each band feature in a frame, and one over the number of bands that share it; none if the bands are the
    /// whole frame in order.
    bands: Option<BandLayout>,
    /// x: [frames, bands, dim], kept between calls.
    x: Vec<f32>,
    /// Features of all bands, if they must be gathered.
    gathered: Vec<f32>,
    /// x of the frames whose masks are wanted, where these are not all.
    wanted: Vec<f32>,
    /// Sum of what earlier layers gave to a hop, for skip connections.
    skip_sum: Vec<f32>,
}

struct Layer {
    time: Vec<TransformerBlock>,
    freq: Vec<TransformerBlock>,
}

impl FusedRoformer {
    /// Packs the weights of `vb` for `target` on the threads of `pool`. `arch` must be supported.
    ///
    /// # Errors
    /// [`FusedError`].
    pub fn new(arch: &Architecture, vb: VarBuilder, target: Target, pool: Pool) -> Result<Self, FusedError> {
        let weights = Weights(vb.set_device(Device::Cpu));
        let (band_split, layers, mask_estimator) = pool.install(|| {
            Ok::<_, FusedError>((
                band_split(arch, &weights, target)?,
                layers(arch, &weights, target)?,
                mask_estimator(arch, &weights, target, 0..arch.num_stems)?,
            ))
        })?;
        Ok(Self {
            band_split,
            mask_estimator,
            layers,
            bands: Some(arch.band_layout()).filter(|layout| !layout.whole),
            architecture: arch.clone(),
            target,
            pool,
            x: Vec::new(),
            gathered: Vec::new(),
            wanted: Vec::new(),
            skip_sum: Vec::new(),
        })
    }

    /// The masks that [`Self::forward`] of a network on `target` gives for one chunk. Layers are packed one at a time, so that
    /// never more than one is in memory.
    ///
    /// # Errors
    /// [`FusedError`].
    pub fn forward_layerwise(
        arch: &Architecture,
        vb: VarBuilder,
        target: Target,
        pool: &Pool,
        spec: &[f32],
    ) -> Result<Vec<f32>, FusedError> {
        let weights = Weights(vb.set_device(Device::Cpu));
        let (frame, bands, rotaries) = (arch.frame_features(), arch.bands.len(), Rotaries::default());
        let frames = spec.len() / frame;
        let layout = Some(arch.band_layout()).filter(|layout| !layout.whole);
        let (mut gathered, mut x) = (Vec::new(), vec![0.0; frames * bands * arch.dim]);
        let features = match &layout {
            None => spec,
            Some(shared) => {
                shared.gather(spec, frame, &mut gathered);
                &gathered
            }
        };
        pool.install(|| band_split(arch, &weights, target))?.forward(pool, features, &mut x, frames)?;
        let mut skip_sum = None;
        for i in 0..arch.depth {
            let layer = pool.install(|| layer(arch, &weights, i, target, &rotaries))?;
            layer.forward(arch, pool, &mut x, &mut skip_sum, frames, &())?;
        }
        let mut masks = vec![0.0; arch.num_stems * frames * frame];
        for (n, masks) in masks.chunks_exact_mut((frames * frame).max(1)).enumerate() {
            let estimator = pool.install(|| mask_estimator(arch, &weights, target, n..n + 1))?;
            match &layout {
                None => estimator.forward(pool, &x, masks, frames)?,
                Some(shared) => {
                    gathered.resize(frames * shared.indices.len(), 0.0);
                    estimator.forward(pool, &x, &mut gathered, frames)?;
                    shared.scatter(&gathered, frame, masks);
                }
            }
        }
        Ok(masks)
    }

    /// Instruction set and format of the kernels.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Thread pool of the network.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// spec: [batch, frames, (f s) c] → masks [batch, stems, frames, (f s) c], flat. Bins that no band owns get the mask 0.
    ///
    /// # Errors
    /// [`KernelError`] if `spec` has the wrong size.
    pub fn forward(&mut self, spec: &[f32], batch: usize) -> Result<Vec<f32>, KernelError> {
        self.forward_controlled(spec, batch, &())
    }

    /// As [`Self::forward`]; asks `control` between transformers.
    ///
    /// # Errors
    /// [`KernelError`] if `spec` has the wrong size, or `control` cancels the pass.
    pub fn forward_controlled(
        &mut self,
        spec: &[f32],
        batch: usize,
        control: &dyn JobControl,
    ) -> Result<Vec<f32>, KernelError> {
        let mut masks = Vec::new();
        self.forward_into(spec, batch, &mut masks, control)?;
        Ok(masks)
    }

    /// As [`Self::forward_controlled`], into memory that earlier calls may have used.
    ///
    /// # Errors
    /// [`KernelError`] if `spec` has the wrong size, or `control` cancels the pass.
    pub fn forward_into(
        &mut self,
        spec: &[f32],
        batch: usize,
        masks: &mut Vec<f32>,
        control: &dyn JobControl,
    ) -> Result<(), KernelError> {
        let frame = self.architecture.frame_features();
        let frames = spec.len() / frame / batch.max(1);
        let stems = self.architecture.num_stems;
        masks.resize(batch * stems * frames * frame, 0.0);
        if frames > 0 {
            let chunks = spec.chunks_exact(frames * frame);
            for (spec, masks) in chunks.zip(masks.chunks_exact_mut(stems * frames * frame)) {
                self.forward_chunk(spec, masks, frames, control)?;
            }
        }
        Ok(())
    }

    fn forward_chunk(
        &mut self,
        spec: &[f32],
        masks: &mut [f32],
        frames: usize,
        control: &dyn JobControl,
    ) -> Result<(), KernelError> {
        self.split_bands(spec, frames)?;
        let mut skip_sum = None;
        for layer in &self.layers {
            layer.forward(&self.architecture, &self.pool, &mut self.x, &mut skip_sum, frames, control)?;
        }
        checkpoint(control)?;
        self.estimate_masks(true, masks, frames)
    }

    /// x ← spec [frames, (f s) c].
    fn split_bands(&mut self, spec: &[f32], frames: usize) -> Result<(), KernelError> {
        let bands = self.architecture.bands.len();
        self.x.resize(frames * bands * self.architecture.dim, 0.0);
        let features = match &self.bands {
            None => spec,
            Some(shared) => {
                shared.gather(spec, self.architecture.frame_features(), &mut self.gathered);
                &self.gathered
            }
        };
        self.band_split.forward(&self.pool, features, &mut self.x, frames)
    }

    /// masks [stems, frames, (f s) c] of the frames of x: of all, or of those in `wanted`.
    fn estimate_masks(&mut self, all: bool, masks: &mut [f32], frames: usize) -> Result<(), KernelError> {
        let x = if all { &self.x } else { &self.wanted };
        match &self.bands {
            None => self.mask_estimator.forward(&self.pool, x, masks, frames),
            Some(shared) => {
                let stems = self.architecture.num_stems;
                self.gathered.resize(stems * frames * shared.indices.len(), 0.0);
                self.mask_estimator.forward(&self.pool, x, &mut self.gathered, frames)?;
                shared.scatter(&self.gathered, self.architecture.frame_features(), masks);
                Ok(())
            }
        }
    }
}

impl Layer {
    /// x [frames, bands, dim] through both transformers. `skip_sum` is the sum of earlier layers' outputs, for skip connections.
    fn forward(
        &self,
        arch: &Architecture,
        pool: &Pool,
        x: &mut [f32],
        skip_sum: &mut Option<Vec<f32>>,
        frames: usize,
        control: &dyn JobControl,
    ) -> Result<(), KernelError> {
        let bands = arch.bands.len();
        if let Some(sum) = skip_sum {
            add(x, sum);
        }
        for block in &self.time {
            checkpoint(control)?;
            block.forward(pool, x, Sequences::time(frames, bands))?;
        }
        for block in &self.freq {
            checkpoint(control)?;
            block.forward(pool, x, Sequences::band(frames, bands))?;
        }
        if arch.skip_connection {
            match skip_sum {
                Some(sum) => add(sum, x),
                None => *skip_sum = Some(x.to_vec()),
            }
        }
        Ok(())
    }
}

fn checkpoint(control: &dyn JobControl) -> Result<(), KernelError> {
    if control.checkpoint().is_break() { Err(KernelError::Cancelled) } else { Ok(()) }
}

/// x += y.
fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += *y);
}

/// Reads tensors by name as flat vectors.
struct Weights<'a>(VarBuilder<'a>);

impl<'a> Weights<'a> {
    fn pp(&self, part: impl ToString) -> Weights<'a> {
        Weights(self.0.pp(part))
    }

    fn get(&self, name: &str, shape: impl Into<Shape>) -> Result<Vec<f32>, FusedError> {
        Ok(self.0.get(shape, name)?.flatten_all()?.to_vec1()?)
    }

    /// Weight [output, input] and bias [output].
    fn linear(&self, at: &str, input: usize, output: usize) -> Result<[Vec<f32>; 2], FusedError> {
        let at = self.pp(at);
        Ok([at.get("weight", (output, input))?, at.get("bias", output)?])
    }
}

/// Rotary tables by frequencies; all blocks of a checkpoint share one.
#[derive(Default)]
struct Rotaries(Mutex<Vec<(Vec<f32>, Arc<Rotary>)>>);

impl Rotaries {
    fn get(&self, freqs: &[f32], dim_head: usize) -> Result<Arc<Rotary>, KernelError> {
        let mut known = self.0.lock();
        if let Some((_, rotary)) = known.iter().find(|(known, _)| known == freqs) {
            return Ok(Arc::clone(rotary));
        }
        let rotary = Arc::new(Rotary::new(freqs, dim_head)?);
        known.push((freqs.to_vec(), Arc::clone(&rotary)));
        Ok(rotary)
    }
}

fn as_linear([weight, bias]: &[Vec<f32>; 2]) -> Linear<'_> {
    Linear { weight, bias }
}

fn band_split(arch: &Architecture, weights: &Weights, target: Target) -> Result<BandSplit, FusedError> {
    let bands = arch
        .band_features()
        .into_par_iter()
        .enumerate()
        .map(|(k, features)| {
            let at = weights.pp(format!("band_split.to_features.{k}"));
            Ok((at.get("0.gamma", features)?, at.linear("1", features, arch.dim)?))
        })
        .collect::<Result<Vec<_>, FusedError>>()?;
    let bands: Vec<_> =
        bands.iter().map(|(norm, linear)| BandWeights { norm, linear: as_linear(linear) }).collect();
    Ok(BandSplit::new(target, &bands)?)
}

/// The mask estimators of some stems.
fn mask_estimator(
    arch: &Architecture,
    weights: &Weights,
    target: Target,
    stems: Range<usize>,
) -> Result<MaskEstimator, FusedError> {
    let final_norm = if arch.final_norm() { Some(weights.get("final_norm.gamma", arch.dim)?) } else { None };
    let band = |n: usize, k: usize, features: usize| {
        let at = weights.pp(format!("mask_estimators.{n}.to_freqs.{k}.0"));
        let linears = arch
            .mask_sizes(features)
            .windows(2)
            .enumerate()
            .map(|(i, io)| at.linear(&(2 * i).to_string(), io[0], io[1]))
            .collect::<Result<Vec<_>, FusedError>>()?;
        let linears: Vec<_> = linears.iter().map(as_linear).collect();
        Ok::<_, FusedError>(BandMlp::new(target, &linears, final_norm.as_deref())?)
    };
    let features = arch.band_features();
    let bands = |n| features.par_iter().enumerate().map(|(k, &features)| band(n, k, features)).collect();
    let stems = stems.into_par_iter().map(bands).collect::<Result<_, _>>()?;
    Ok(MaskEstimator::new(stems, final_norm.is_some())?)
}

fn layers(arch: &Architecture, weights: &Weights, target: Target) -> Result<Vec<Layer>, FusedError> {
    let rotaries = Rotaries::default();
    (0..arch.depth).into_par_iter().map(|i| layer(arch, weights, i, target, &rotaries)).collect()
}

fn layer(
    arch: &Architecture,
    weights: &Weights,
    i: usize,
    target: Target,
    rotaries: &Rotaries,
) -> Result<Layer, FusedError> {
    let [_, time_at, freq_at] = arch.transformer_indices;
    let at = weights.pp(format!("layers.{i}"));
    let blocks = |index, depth| blocks(arch, &at.pp(index), depth, target, rotaries);
    let (time, freq) = rayon::join(
        || blocks(time_at, arch.time_transformer_depth),
        || blocks(freq_at, arch.freq_transformer_depth),
    );
    Ok(Layer { time: time?, freq: freq? })
}

/// The blocks of one transformer; the norm that may follow it goes with the last.
fn blocks(
    arch: &Architecture,
    at: &Weights,
    depth: usize,
    target: Target,
    rotaries: &Rotaries,
) -> Result<Vec<TransformerBlock>, FusedError> {
    let (dim, inner) = (arch.dim, arch.heads * arch.dim_head);
    let norm = if arch.transformer_norm() { Some(at.get("norm.gamma", dim)?) } else { None };
    let branch = if arch.branch_names { ".branch" } else { "" };
    (0..depth)
        .map(|j| {
            let attention = at.pp(format!("layers.{j}.0{branch}"));
            let feed_forward = at.pp(format!("layers.{j}.1{branch}.net"));
            let position = PositionEmbed::new(arch, attention.0.clone())?;
            let rotary = rotaries.get(position.rotary_freqs().unwrap_or_default(), arch.dim_head)?;
            let attention_norm = attention.get("norm.gamma", dim)?;
            let to_qkv = attention.get("to_qkv.weight", (3 * inner, dim))?;
            let to_gates = attention.linear("to_gates", dim, arch.heads)?;
            let to_out = attention.get("to_out.0.weight", (dim, inner))?;
            let feed_forward_norm = feed_forward.get("0.gamma", dim)?;
            let linear_in = feed_forward.linear("1", dim, arch.ff_inner)?;
            let linear_out = feed_forward.linear("4", arch.ff_inner, dim)?;
            let weights = TransformerWeights {
                attention_norm: &attention_norm,
                to_qkv: &to_qkv,
                to_gates: as_linear(&to_gates),
                to_out: &to_out,
                feed_forward_norm: &feed_forward_norm,
                linear_in: as_linear(&linear_in),
                linear_out: as_linear(&linear_out),
                norm: norm.as_deref().filter(|_| j + 1 == depth),
            };
            Ok(TransformerBlock::new(target, &weights, Some(rotary))?)
        })
        .collect()
}
