//! A trunk with two residual streams, one normalised after each step and one before, as in unwa's BS-EXP-SiameseRoformer
//! (SiameseNorm, arXiv 2602.08064).
//!
//! Reference: `openmirlab/bs-roformer-infer`, `src/bs_roformer/siamese.py` and the forward pass in `bs_roformer.py`.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::Architecture;
use super::attention::Attention;
use super::feed_forward::FeedForward;
use super::linear::get_f32;
use super::norm::RmsNorm;
use super::transformer::max_slice_bytes;
use crate::kernels::JobControl;

/// Time and frequency transformers of all layers.
pub(super) struct SiameseTrunk {
    layers: Vec<[SiameseTransformer; 2]>,
}

struct SiameseTransformer {
    blocks: Vec<Block>,
    /// Bytes of one sequence of `len` tokens: a·len² + b·len.
    bytes: [usize; 2],
}

struct Block {
    attention: Attention,
    feed_forward: FeedForward,
    y_attn_norm: RmsNorm,
    x_attn_norm: RmsNorm,
    y_mlp_norm: RmsNorm,
    x_mlp_norm: RmsNorm,
    /// [dim]
    y_attn: Tensor,
    /// Weight of a step in the stream that is normalised afterwards: 1 + 1/√ℓ for block ℓ, counted from 1 over all transformers.
    coupling: f64,
}

impl SiameseTrunk {
    /// `vb` is at the network's root.
    pub fn new(arch: &Architecture, vb: &VarBuilder) -> Result<Self> {
        let mut number = 0;
        let mut layers = Vec::new();
        for layer in 0..arch.depth {
            let [_, time_at, freq_at] = arch.transformer_indices;
            let mut transformer = |at: usize, depth: usize| -> Result<SiameseTransformer> {
                let made =
                    SiameseTransformer::new(arch, depth, number, vb.pp(format!("layers.{layer}.{at}")))?;
                number += depth;
                Ok(made)
            };
            layers.push([
                transformer(time_at, arch.time_transformer_depth)?,
                transformer(freq_at, arch.freq_transformer_depth)?,
            ]);
        }
        Ok(Self { layers })
    }

    /// x: [batch, frames, bands, dim], f32 → the stream that is normalised after each step, and the other one: same shape
    pub fn forward(&self, x: &Tensor, control: &dyn JobControl) -> Result<(Tensor, Tensor)> {
        let (batch, frames, bands, dim) = x.dims4()?;
        let (mut x, mut y) = (x.clone(), x.clone());
        for [time, freq] in &self.layers {
            for (transformer, sequences, len) in
                [(time, batch * bands, frames), (freq, batch * frames, bands)]
            {
                if control.checkpoint().is_break() {
                    candle_core::bail!("the computation was cancelled")
                }
                let over_time = std::ptr::eq(transformer, time);
                let turn = |x: &Tensor| -> Result<Tensor> {
                    let x = if over_time { x.transpose(1, 2)?.contiguous()? } else { x.contiguous()? };
                    x.reshape((sequences, len, dim))
                };
                let turn_back = |x: Tensor| -> Result<Tensor> {
                    if over_time {
                        x.reshape((batch, bands, frames, dim))?.transpose(1, 2)?.contiguous()
                    } else {
                        x.reshape((batch, frames, bands, dim))
                    }
                };
                let (new_x, new_y) = transformer.forward(&turn(&x)?, &turn(&y)?)?;
                (x, y) = (turn_back(new_x)?, turn_back(new_y)?);
            }
        }
        Ok((x, y))
    }
}

impl SiameseTransformer {
    fn new(arch: &Architecture, depth: usize, before: usize, vb: VarBuilder) -> Result<Self> {
        let block = |i: usize| -> Result<Block> {
            let norm = |name: &str| RmsNorm::new(arch.dim, vb.pp(format!("{name}.{i}")));
            Ok(Block {
                attention: Attention::new(arch, false, vb.pp(format!("layers.{i}.0")))?,
                feed_forward: FeedForward::new(arch, vb.pp(format!("layers.{i}.1")))?,
                y_attn_norm: norm("ln_y_attn")?,
                x_attn_norm: norm("ln_x_attn")?,
                y_mlp_norm: norm("ln_y_mlp")?,
                x_mlp_norm: norm("ln_x_mlp")?,
                y_attn: get_f32(&vb, arch.dim, &format!("y_attn.{i}"))?,
                coupling: 1.0 + 1.0 / ((before + i + 1) as f64).sqrt(),
            })
        };
        let inner = arch.heads * arch.dim_head;
        Ok(Self {
            blocks: (0..depth).map(block).collect::<Result<_>>()?,
            bytes: [2 * 4 * arch.heads, 4 * (8 * inner + 3 * arch.ff_inner + 6 * arch.dim)],
        })
    }

    /// x, y: [sequences, len, dim] → same shapes
    fn forward(&self, x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)> {
        let (sequences, len, _) = x.dims3()?;
        let per_sequence = (self.bytes[0] * len + self.bytes[1]) * len;
        let step = (max_slice_bytes(x.device()) / per_sequence.max(1)).max(1);
        let (mut xs, mut ys) = (Vec::new(), Vec::new());
        for start in (0..sequences).step_by(step) {
            let count = step.min(sequences - start);
            let (mut x, mut y) = (x.narrow(0, start, count)?, y.narrow(0, start, count)?);
            for block in &self.blocks {
                (x, y) = block.forward(&x, &y)?;
            }
            xs.push(x);
            ys.push(y);
        }
        Ok((Tensor::cat(&xs, 0)?, Tensor::cat(&ys, 0)?))
    }
}

impl Block {
    fn forward(&self, x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)> {
        let tables = self.attention.tables(x.dim(1)?, x.device())?;
        let input = (x.broadcast_mul(&self.y_attn)? + self.y_attn_norm.forward(y, DType::F32)?)?;
        let (out, _) = self.attention.forward(&input, &tables, None, None, None)?;
        let y = (y + &out)?;
        let x = self.x_attn_norm.forward(&(x + (out * self.coupling)?)?, DType::F32)?;
        let out = self.feed_forward.forward(&(&x + self.y_mlp_norm.forward(&y, DType::F32)?)?, None)?;
        let y = (y + &out)?;
        let x = self.x_mlp_norm.forward(&(x + (out * self.coupling)?)?, DType::F32)?;
        Ok((x, y))
    }
}
