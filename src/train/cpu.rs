//! The network's blocks on the CPU, forward and backward, without a graph: each as one function over slices that stay in cache.
//!
//! Covered are band split and mask estimators of every architecture, and blocks of softmax attention with rotary positions and plain
//! residuals, which is nearly every checkpoint. [`graph`](super::graph) computes the rest, and is what the tests hold these
//! functions against. A result has the same bits on any number of threads: tasks are cut by shapes alone, and summed in order.

mod bands;
mod block;
mod rows;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::graph::{Axis, BlockPlace};
use super::parameters::{Gradients, Parameters};
use crate::kernels::{Format, RowOps, Target};
use crate::model::architecture::{Architecture, Position};
use crate::model::bands::BandLayout;
use bands::{BandMlp, BandNorm};
use block::{Block, BlockSizes, Rotation};

/// Rows of tokens that one task computes together: enough for the matrix products, few enough for the cache.
const TASK_ROWS: usize = 256;
/// Most gradients of one block that are summed apart, which bounds both memory and the threads that find work.
const MAX_PARTIAL_SUMS: usize = 16;

/// The functions of one architecture.
pub(super) struct Kernels {
    arch: Architecture,
    layout: BandLayout,
    /// Where each band's features begin among those of all bands.
    starts: Vec<usize>,
    ops: RowOps,
    covers_blocks: bool,
}

/// The values of a tensor, in order.
fn values(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}

impl Kernels {
    /// None where this processor runs none of the kernels.
    pub fn new(arch: &Architecture) -> Option<Self> {
        let mut start = 0;
        let starts = arch
            .band_features()
            .into_iter()
            .map(|features| {
                start += features;
                start - features
            })
            .collect();
        Some(Self {
            arch: arch.clone(),
            layout: arch.band_layout(),
            starts,
            ops: RowOps::new(Target::best(Format::F32)).ok()?,
            covers_blocks: arch.linear_transformer_depth == 0
                && arch.position == Position::Rotary
                && arch.value_residual.is_none()
                && arch.hyper_connections.is_none(),
        })
    }

    /// Whether blocks are covered.
    pub fn cover_blocks(&self) -> bool {
        self.covers_blocks
    }

    /// spec: [batch, frames, (f s) c] → [batch, frames, bands, dim]
    pub fn band_split(&self, parameters: &Parameters, spec: &Tensor) -> Result<Tensor> {
        let (batch, frames, width) = spec.dims3()?;
        let spec = values(spec)?;
        let (bands, dim) = (self.starts.len(), self.arch.dim);
        let tokens = (0..bands)
            .into_par_iter()
            .with_max_len(1)
            .map(|band| Ok(self.band_norm(parameters, band)?.forward(&self.gather(&spec, width, band))))
            .collect::<Result<Vec<_>>>()?;
        let mut out = vec![0.0; batch * frames * bands * dim];
        out.par_chunks_mut(bands * dim).enumerate().for_each(|(row, out)| {
            for (out, tokens) in out.chunks_exact_mut(dim).zip(&tokens) {
                out.copy_from_slice(&tokens[row * dim..][..dim]);
            }
        });
        Tensor::from_vec(out, (batch, frames, bands, dim), &Device::Cpu)
    }

    /// The gradient of [`Kernels::band_split`], given that of its result.
    pub fn band_split_backward(
        &self,
        parameters: &Parameters,
        spec: &Tensor,
        tokens: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let width = spec.dim(2)?;
        let (spec, tokens) = (values(spec)?, values(tokens)?);
        let (bands, dim) = (self.starts.len(), self.arch.dim);
        let found = (0..bands)
            .into_par_iter()
            .with_max_len(1)
            .map(|band| {
                let gradient: Vec<f32> =
                    tokens.chunks_exact(dim).skip(band).step_by(bands).flatten().copied().collect();
                Ok(self.band_norm(parameters, band)?.backward(&self.gather(&spec, width, band), &gradient))
            })
            .collect::<Result<Vec<_>>>()?;
        for (band, found) in found.into_iter().enumerate() {
            add_all(parameters, gradients, &BandNorm::names(band), found)?;
        }
        Ok(())
    }

    fn band_norm(&self, parameters: &Parameters, band: usize) -> Result<BandNorm> {
        BandNorm::read(parameters, band)
    }

    /// A band's features of every frame: [rows, features]
    fn gather(&self, spec: &[f32], width: usize, band: usize) -> Vec<f32> {
        let indices = self.indices(band);
        spec.chunks_exact(width).flat_map(|row| indices.iter().map(move |&i| row[i])).collect()
    }

    fn indices(&self, band: usize) -> &[usize] {
        let end = self.starts.get(band + 1).copied().unwrap_or(self.layout.indices.len());
        &self.layout.indices[self.starts[band]..end]
    }

    /// x: [batch, frames, bands, dim] → masks [batch, stems, frames, (f s) c]
    pub fn masks(&self, parameters: &Parameters, x: &Tensor) -> Result<Tensor> {
        let (batch, frames, bands, dim) = x.dims4()?;
        let (x, stems, width) = (values(x)?, self.arch.num_stems, self.layout.weights.len());
        // [band][stem]: [batch · frames, features]
        let masks = (0..bands * stems)
            .into_par_iter()
            .with_max_len(1)
            .map(|task| {
                let (band, stem) = (task / stems, task % stems);
                let mlp = BandMlp::read(parameters, stem, band, self.arch.mask_linears)?;
                Ok(mlp.forward(&band_tokens(&x, band, bands, dim), &self.ops))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut out = vec![0.0f32; batch * stems * frames * width];
        out.par_chunks_mut(width).enumerate().for_each(|(row, out)| {
            let (crop, stem, frame) = (row / (stems * frames), row / frames % stems, row % frames);
            for band in 0..bands {
                let indices = self.indices(band);
                let mask = &masks[band * stems + stem][(crop * frames + frame) * indices.len()..];
                indices.iter().zip(mask).for_each(|(&i, mask)| out[i] += mask);
            }
            out.iter_mut().zip(&self.layout.weights).for_each(|(mask, weight)| *mask *= weight);
        });
        Tensor::from_vec(out, (batch, stems, frames, width), &Device::Cpu)
    }

    /// The gradient of [`Kernels::masks`], given that of its result: adds those of the parameters, returns that of x.
    pub fn masks_backward(
        &self,
        parameters: &Parameters,
        x: &Tensor,
        masks: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let shape = x.dims4()?;
        let (batch, frames, bands, dim) = shape;
        let (x, masks) = (values(x)?, values(masks)?);
        let (stems, width) = (self.arch.num_stems, self.layout.weights.len());
        let found = (0..bands * stems)
            .into_par_iter()
            .with_max_len(1)
            .map(|task| {
                let (band, stem) = (task / stems, task % stems);
                let indices = self.indices(band);
                let mut gradient = Vec::with_capacity(batch * frames * indices.len());
                for crop in 0..batch {
                    let rows = &masks[(crop * stems + stem) * frames * width..][..frames * width];
                    for row in rows.chunks_exact(width) {
                        gradient.extend(indices.iter().map(|&i| row[i] * self.layout.weights[i]));
                    }
                }
                let mlp = BandMlp::read(parameters, stem, band, self.arch.mask_linears)?;
                Ok(mlp.backward(&band_tokens(&x, band, bands, dim), &gradient, &self.ops))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut out = vec![0.0f32; x.len()];
        out.par_chunks_mut(bands * dim).enumerate().for_each(|(row, out)| {
            for (band, out) in out.chunks_exact_mut(dim).enumerate() {
                for stem in 0..stems {
                    let part = &found[band * stems + stem].0[row * dim..][..dim];
                    out.iter_mut().zip(part).for_each(|(x, part)| *x += part);
                }
            }
        });
        for (task, (_, found)) in found.into_iter().enumerate() {
            let names = BandMlp::names(task % stems, task / stems, self.arch.mask_linears);
            add_all(parameters, gradients, &names, found)?;
        }
        Tensor::from_vec(out, shape, &Device::Cpu)
    }

    fn block_of(&self, parameters: &Parameters, place: BlockPlace, len: usize) -> Result<Block> {
        debug_assert!(place.axis != Axis::Linear);
        let arch = &self.arch;
        let sizes = BlockSizes {
            dim: arch.dim,
            heads: arch.heads,
            dim_head: arch.dim_head,
            hidden: arch.ff_inner,
            len,
        };
        let read = |name: &str| values(&parameters.tensor(name, false)?);
        let names = BlockNames::new(arch, place);
        let rotation = Rotation::new(&read(&names.freqs)?, sizes);
        let weights = names.weights.iter().map(|name| read(name)).collect::<Result<Vec<_>>>()?;
        Ok(Block::new(sizes, weights, rotation, self.ops))
    }

    /// x: [sequences, len, dim] → same shape
    pub fn block(&self, parameters: &Parameters, place: BlockPlace, x: &Tensor) -> Result<Tensor> {
        let shape = x.dims3()?;
        let (_, len, dim) = shape;
        let mut x = values(x)?;
        let block = self.block_of(parameters, place, len)?;
        x.par_chunks_mut(task_rows(len) * dim).with_max_len(1).for_each(|slice| block.forward(slice));
        Tensor::from_vec(x, shape, &Device::Cpu)
    }

    /// The gradient of [`Kernels::block`], given that of its result: adds those of the parameters, returns that of x.
    pub fn block_backward(
        &self,
        parameters: &Parameters,
        place: BlockPlace,
        x: &Tensor,
        gradient: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let shape = x.dims3()?;
        let (_, len, dim) = shape;
        let (x, mut gradient) = (values(x)?, values(gradient)?);
        let block = self.block_of(parameters, place, len)?;
        let step = task_rows(len) * dim;
        let mut slices: Vec<(&[f32], &mut [f32])> = x.chunks(step).zip(gradient.chunks_mut(step)).collect();
        let share = slices.len().div_ceil(MAX_PARTIAL_SUMS).max(1);
        let partial: Vec<Vec<Vec<f32>>> = slices
            .par_chunks_mut(share)
            .with_max_len(1)
            .map(|slices| {
                let mut sums = block.zeros();
                for (x, gradient) in slices {
                    block.backward(x, gradient, &mut sums);
                }
                sums
            })
            .collect();
        let mut partial = partial.into_iter();
        let mut sums = partial.next().unwrap_or_else(|| block.zeros());
        for other in partial {
            sums.par_iter_mut().zip(other).for_each(|(sum, other)| {
                sum.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
            });
        }
        add_all(parameters, gradients, &BlockNames::new(&self.arch, place).weights, sums)?;
        Tensor::from_vec(gradient, shape, &Device::Cpu)
    }
}

/// Rows of a task: whole sequences.
fn task_rows(len: usize) -> usize {
    (TASK_ROWS / len.max(1)).max(1) * len
}

/// A band's tokens: [rows, dim] of [rows, bands, dim]
fn band_tokens(x: &[f32], band: usize, bands: usize, dim: usize) -> Vec<f32> {
    x.chunks_exact(dim).skip(band).step_by(bands).flatten().copied().collect()
}

/// Adds flat gradients to those of the parameters called `names`.
fn add_all(
    parameters: &Parameters,
    gradients: &mut Gradients,
    names: &[String],
    found: Vec<Vec<f32>>,
) -> Result<()> {
    for (name, found) in names.iter().zip(found) {
        let Some(index) = parameters.index(name) else { candle_core::bail!("no parameter {name}") };
        let shape = parameters.tensor(name, false)?.shape().clone();
        gradients.add(index, &Tensor::from_vec(found, shape, &Device::Cpu)?)?;
    }
    Ok(())
}

/// Names of a block's tensors.
struct BlockNames {
    freqs: String,
    /// In the order of [`block::Block::new`].
    weights: Vec<String>,
}

impl BlockNames {
    fn new(arch: &Architecture, place: BlockPlace) -> Self {
        let transformer = place.transformer(arch);
        let branch = if arch.branch_names { ".branch" } else { "" };
        let part = |part: usize| format!("{transformer}.layers.{}.{part}{branch}", place.block);
        let (attention, net) = (part(0), format!("{}.net", part(1)));
        let mut weights: Vec<String> =
            ["norm.gamma", "to_qkv.weight", "to_gates.weight", "to_gates.bias", "to_out.0.weight"]
                .map(|name| format!("{attention}.{name}"))
                .into();
        weights.extend(
            ["0.gamma", "1.weight", "1.bias", "4.weight", "4.bias"].map(|name| format!("{net}.{name}")),
        );
        if place.last && arch.transformer_norm() {
            weights.push(format!("{transformer}.norm.gamma"));
        }
        Self { freqs: format!("{attention}.rotary_embed.freqs"), weights }
    }
}
