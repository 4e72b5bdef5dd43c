//! A stack of attention and feed-forward blocks over one axis, the references' `Transformer`.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::Architecture;
use super::attention::Attention;
use super::conformer::ConformerParts;
use super::device::memory;
use super::feed_forward::FeedForward;
use super::hyper_connections::HyperConnections;
use super::kept_tokens::KeptTokens;
use super::linear_attention::LinearAttention;
use super::norm::RmsNorm;
use super::position::Tables;

/// Maximum memory for the temporaries of one slice of sequences or frames. Attention scores of a whole 11 s chunk would take
/// gigabytes; slices are independent, so slicing changes no result. GPUs need large slices, because each costs a dozen calls.
pub(super) fn max_slice_bytes(device: &Device) -> usize {
    if device.is_cpu() { 96 << 20 } else { memory(device).map_or(1 << 30, |bytes| bytes / 8) }
}

/// The axis that a transformer attends over, and its kind of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// Linear attention over the joined (t k) sequence.
    Linear,
    /// Over frames.
    Time,
    /// Over bands.
    Freq,
}

/// Softmax or linear attention.
enum AttentionKind {
    Softmax(Box<Attention>),
    Linear(Box<LinearAttention>),
}

/// One block: attention and feed-forward, each with its residual.
struct Block {
    attention: AttentionKind,
    feed_forward: FeedForward,
    /// Whether input is added to output; see [`Architecture::experimental_residuals`].
    residual: bool,
    /// Around attention and feed-forward; `None` means the plain residual.
    hyper: Option<[HyperConnections; 2]>,
    /// What a Conformer's block has besides.
    conformer: Option<ConformerParts>,
}

/// `depth` blocks and, for Mel-Band RoFormer, a norm.
pub(super) struct Transformer {
    blocks: Vec<Block>,
    norm: Option<RmsNorm>,
    streams: usize,
    /// Coefficients of the bytes for one sequence of `len` tokens: a·len² + b·len.
    bytes: [usize; 2],
    keeps_values: bool,
}

/// Sequences whose largest tensor has fewer than 2³¹ values: candle's kernels count in 32 bits. `bytes`: those of a transformer, of which a pair of
/// tokens takes the scores of all heads, twice, and a token all its activations.
fn indices_fit(bytes: [usize; 2], len: usize) -> usize {
    let scores = (bytes[0] / 8).saturating_mul(len).saturating_mul(len);
    let activations = (bytes[1] / 4).saturating_mul(len);
    (i32::MAX as usize / scores.max(activations).max(1)).max(1)
}

impl Transformer {
    /// `depth` blocks of layer `layer`, whose tensors are at `vb`.
    pub fn new(arch: &Architecture, axis: Axis, depth: usize, layer: usize, vb: VarBuilder) -> Result<Self> {
        let blocks = (0..depth)
            .map(|i| Block::new(arch, axis, layer, vb.pp(format!("layers.{i}"))))
            .collect::<Result<_>>()?;
        let inner = arch.heads * arch.dim_head;
        let conv = arch.conformer.map_or(0, |sizes| sizes.conv_channels);
        Ok(Self {
            blocks,
            norm: if arch.transformer_norm() { Some(RmsNorm::new(arch.dim, vb.pp("norm"))?) } else { None },
            streams: arch.hyper_connections.map_or(1, |h| h.streams),
            bytes: [2 * 4 * arch.heads, 4 * (8 * inner + 3 * arch.ff_inner + 4 * arch.dim + 6 * conv)],
            keeps_values: arch.value_residual.is_some() && layer == 0,
        })
    }

    /// x: [sequences, len, dim] → same shape, and the first block's values where later layers mix with them.
    pub fn forward(&self, x: &Tensor, first_values: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let (sequences, len, _) = x.dims3()?;
        let tables = self.blocks.iter().map(|b| b.tables(len, x.device())).collect::<Result<Vec<_>>>()?;
        let per_sequence =
            self.bytes[0].saturating_mul(len).saturating_add(self.bytes[1]).saturating_mul(len);
        let bytes_fit = (max_slice_bytes(x.device()) / per_sequence.max(1)).max(1);
        let step = bytes_fit.min(indices_fit(self.bytes, len)) * self.streams;
        if step >= sequences {
            return self.forward_slice(x, &tables, first_values);
        }
        let out = x.zeros_like()?;
        let mut values = Vec::new();
        for start in (0..sequences).step_by(step) {
            let count = step.min(sequences - start);
            let first = match first_values {
                // The branches process one sequence per group of streams.
                Some(values) => Some(values.narrow(0, start / self.streams, count / self.streams)?),
                None => None,
            };
            let slice = x.narrow(0, start, count)?;
            let (slice, own) = self.forward_slice(&slice, &tables, first.as_ref())?;
            out.slice_set(&slice.contiguous()?, 0, start)?;
            values.extend(own);
        }
        let values = if values.is_empty() { None } else { Some(Tensor::cat(&values, 0)?) };
        Ok((out, values))
    }

    /// Blocks.
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// As [`Self::forward`], of the tokens from number `first` of a stream on, which attend to those in `kept` too, one a block. Sequences
    /// are not cut into slices: a hop is short.
    pub fn forward_hop(
        &self,
        x: &Tensor,
        first_values: Option<&Tensor>,
        first: u64,
        kept: &mut [KeptTokens],
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (_, len, _) = x.dims3()?;
        let (mut x, mut values) = (x.clone(), None);
        for (block, kept) in self.blocks.iter().zip(kept) {
            let tables = block.tables_from(first, len, x.device())?;
            let own;
            (x, own) = block.forward(&x, tables.as_ref(), first_values, Some(kept))?;
            if self.keeps_values && values.is_none() {
                values = Some(own);
            }
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x, DType::F32)?;
        }
        Ok((x, values))
    }

    fn forward_slice(
        &self,
        x: &Tensor,
        tables: &[Option<Arc<Tables>>],
        first_values: Option<&Tensor>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let mut x = x.clone();
        let mut values = None;
        for (block, tables) in self.blocks.iter().zip(tables) {
            let own;
            (x, own) = block.forward(&x, tables.as_deref(), first_values, None)?;
            if self.keeps_values && values.is_none() {
                values = Some(own);
            }
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x, DType::F32)?;
        }
        Ok((x, values))
    }
}

impl Block {
    fn new(arch: &Architecture, axis: Axis, layer: usize, vb: VarBuilder) -> Result<Self> {
        if let (Some(sizes), false) = (arch.conformer, axis == Axis::Linear) {
            return Ok(Self {
                attention: AttentionKind::Softmax(Box::new(Attention::new(arch, layer > 0, vb.pp("attn"))?)),
                feed_forward: FeedForward::new(arch, vb.pp("ff2.ff"))?,
                residual: true,
                hyper: None,
                conformer: Some(ConformerParts::new(arch, sizes, &vb)?),
            });
        }
        let at = |part: &str| if arch.branch_names { vb.pp(part).pp("branch") } else { vb.pp(part) };
        let attention = match axis {
            Axis::Linear => AttentionKind::Linear(Box::new(LinearAttention::new(arch, layer > 0, at("0"))?)),
            Axis::Time | Axis::Freq => {
                AttentionKind::Softmax(Box::new(Attention::new(arch, layer > 0, at("0"))?))
            }
        };
        let hyper = match arch.hyper_connections {
            Some(sizes) => Some([
                HyperConnections::new(arch, sizes, vb.pp("0"))?,
                HyperConnections::new(arch, sizes, vb.pp("1"))?,
            ]),
            None => None,
        };
        let residual = layer == 0 || !arch.experimental_residuals;
        let ff_inner = arch.conformer.map_or(arch.ff_inner, |sizes| sizes.linear_ff_inner);
        let feed_forward = FeedForward::with_inner(arch.dim, ff_inner, at("1"))?;
        Ok(Self { attention, feed_forward, residual, hyper, conformer: None })
    }

    fn tables(&self, len: usize, device: &Device) -> Result<Option<Arc<Tables>>> {
        match &self.attention {
            AttentionKind::Softmax(attention) => Ok(Some(attention.tables(len, device)?)),
            AttentionKind::Linear(_) => Ok(None),
        }
    }

    fn tables_from(&self, first: u64, len: usize, device: &Device) -> Result<Option<Tables>> {
        match &self.attention {
            AttentionKind::Softmax(attention) => Ok(Some(attention.tables_from(first, len, device)?)),
            AttentionKind::Linear(_) => Ok(None),
        }
    }

    fn attend(
        &self,
        x: &Tensor,
        tables: Option<&Tables>,
        first_values: Option<&Tensor>,
        onto: Option<&Tensor>,
        kept: Option<&mut KeptTokens>,
    ) -> Result<(Tensor, Tensor)> {
        match (&self.attention, tables) {
            (AttentionKind::Linear(_), _) if kept.is_some() => {
                candle_core::bail!("linear attention keeps no tokens")
            }
            (AttentionKind::Linear(attention), _) => attention.forward(x, first_values, onto),
            (AttentionKind::Softmax(attention), Some(tables)) => {
                attention.forward(x, tables, first_values, onto, kept)
            }
            (AttentionKind::Softmax(_), None) => candle_core::bail!("softmax attention without its tables"),
        }
    }

    /// x: [sequences, len, dim] → same shape, and this block's values.
    fn forward(
        &self,
        x: &Tensor,
        tables: Option<&Tables>,
        first_values: Option<&Tensor>,
        kept: Option<&mut KeptTokens>,
    ) -> Result<(Tensor, Tensor)> {
        if let Some(parts) = &self.conformer {
            let x = parts.before_attention(x)?;
            let (x, values) = self.attend(&x, tables, first_values, Some(&x), kept)?;
            return Ok((parts.after_attention(&x, &self.feed_forward)?, values));
        }
        match &self.hyper {
            None => {
                let (x, values) = self.attend(x, tables, first_values, self.residual.then_some(x), kept)?;
                Ok((self.feed_forward.forward(&x, self.residual.then_some(&x))?, values))
            }
            Some([around_attention, around_feed_forward]) => {
                let (input, streams) = around_attention.width(x)?;
                let (out, values) = self.attend(&input, tables, first_values, None, kept)?;
                let x = around_attention.depth(&out, streams)?;
                let (input, streams) = around_feed_forward.width(&x)?;
                let out = self.feed_forward.forward(&input, None)?;
                Ok((around_feed_forward.depth(&out, streams)?, values))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::indices_fit;

    #[test]
    fn slices_have_fewer_values_than_a_kernel_can_count() {
        // 8 heads over 1101 frames, the longest chunk of common checkpoints, and ten times as many.
        for (heads, inner, len) in [(8, 512, 1_101), (8, 512, 11_010), (16, 1_024, 32_000), (1, 1, 1)] {
            let bytes = [2 * 4 * heads, 4 * 8 * inner];
            let count = indices_fit(bytes, len);
            let scores = count * heads * len * len;
            assert!(count == 1 || scores < 1 << 31, "{heads} heads, {len} frames: {scores}");
            assert!(count == 1 || count * len * 8 * inner < 1 << 31);
            assert!((count + 1) * (heads * len * len).max(len * 8 * inner) > i32::MAX as usize);
        }
        assert_eq!(indices_fit([usize::MAX; 2], usize::MAX), 1);
    }
}
