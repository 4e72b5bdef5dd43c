//! Gated softmax attention, the references' `Attention`.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::{sigmoid, softmax_last_dim};

use super::architecture::{Architecture, ValueResidual};
use super::kept_tokens::KeptTokens;
use super::linear::Linear;
use super::norm::RmsNorm;
use super::position::{PositionEmbed, Tables};

/// Attention over the tokens of a sequence: norm, q k v, positions, softmax, per-head gate, output.
pub(super) struct Attention {
    norm: RmsNorm,
    /// Output features laid out (qkv h d).
    to_qkv: Linear,
    to_gates: Linear,
    to_out: Linear,
    value_residual: Option<(ValueResidual, Linear)>,
    position: PositionEmbed,
    heads: usize,
}

impl Attention {
    /// `mixes_values`: whether the block mixes its values with those of the first layer.
    pub fn new(arch: &Architecture, mixes_values: bool, vb: VarBuilder) -> Result<Self> {
        let inner = arch.heads * arch.dim_head;
        Ok(Self {
            norm: RmsNorm::new(arch.dim, vb.pp("norm"))?,
            to_qkv: Linear::with_bias_if(arch.attention_biases, arch.dim, 3 * inner, vb.pp("to_qkv"))?,
            to_gates: Linear::new(arch.dim, arch.heads, vb.pp("to_gates"))?,
            to_out: Linear::with_bias_if(arch.attention_biases, inner, arch.dim, vb.pp("to_out.0"))?,
            value_residual: value_residual(arch, mixes_values, &vb)?,
            position: PositionEmbed::new(arch, vb)?,
            heads: arch.heads,
        })
    }

    /// As [`Self::tables`], for positions `first..first + len` of a stream.
    pub fn tables_from(&self, first: u64, len: usize, device: &candle_core::Device) -> Result<Tables> {
        self.position.tables_from(first, len, device)
    }

    /// Position tables for [`Attention::forward`] with sequences of `len` tokens.
    pub fn tables(&self, len: usize, device: &candle_core::Device) -> Result<Arc<Tables>> {
        self.position.tables(len, device)
    }

    /// x: [sequences, len, dim] → output [sequences, len, dim], f32, added to `onto` if given, and this block's values
    /// [sequences, heads, len, dim_head]. `first_values` are those of the first layer. The tokens also attend to those in `kept`, which
    /// then keeps the first of them.
    pub fn forward(
        &self,
        x: &Tensor,
        tables: &Tables,
        first_values: Option<&Tensor>,
        onto: Option<&Tensor>,
        kept: Option<&mut KeptTokens>,
    ) -> Result<(Tensor, Tensor)> {
        let x = self.norm.forward(x, self.to_qkv.number_type())?;
        let [q, k, own_values] = tables.split_heads(&self.to_qkv.forward(&x)?, self.heads)?;
        let v = match (&self.value_residual, first_values) {
            (Some((kind, to_mix)), Some(first)) => {
                // mix: [sequences, heads, len, 1]
                let mix = sigmoid(&to_mix.forward(&x)?)?.transpose(1, 2)?.unsqueeze(3)?;
                match kind {
                    ValueResidual::ToValueResidualMix => lerp(&own_values, first, &mix)?,
                    ValueResidual::LearnedValueResidualMix => {
                        (&own_values + mix.broadcast_sub(&own_values)?.mul(first)?)?
                    }
                }
            }
            _ => own_values.clone(),
        };
        let (k, v) = match kept {
            Some(kept) => kept.extend(k, v)?,
            None => (k, v),
        };
        let out = self.join_heads(&attend(&q, &k, &v)?, self.to_gates.product(&x)?)?;
        Ok((self.to_out.forward_onto(&out, onto)?, own_values))
    }

    /// Multiplies each head by its gate. out: [sequences, heads, len, dim_head], gates without bias: [sequences, len, heads] →
    /// [sequences, len, (h d)]
    fn join_heads(&self, out: &Tensor, gates: Tensor) -> Result<Tensor> {
        #[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
        if let Some(bias) = &self.to_gates.bias
            && let Some(joined) = super::cuda::join_heads(out, &gates, bias)?
        {
            return Ok(joined);
        }
        let (sequences, _, len, _) = out.dims4()?;
        // gates: [sequences, heads, len, 1]
        let gates = sigmoid(&self.to_gates.biased(gates)?)?.transpose(1, 2)?.unsqueeze(3)?;
        out.broadcast_mul(&gates)?.transpose(1, 2)?.reshape((sequences, len, ()))
    }
}

/// Softmax attention of scaled q, k and v: [sequences, heads, len, dim_head] each; k and v may be longer than q.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
    if let Some(out) = super::cuda::attend(q, k, v)? {
        return Ok(out);
    }
    softmax(&q.matmul(&k.t()?)?)?.matmul(v)
}

/// Softmax over the last axis, computed in f32 for every number type.
fn softmax(scores: &Tensor) -> Result<Tensor> {
    // candle's CUDA kernel sums in f32, but subtracts the maximum and exponentiates in the number type of the scores.
    if scores.dtype() == DType::F32 {
        return softmax_last_dim(scores);
    }
    softmax_last_dim(&scores.to_dtype(DType::F32)?)?.to_dtype(scores.dtype())
}

/// The Linear that weights the values of the first layer, where the block mixes them in.
pub(super) fn value_residual(
    arch: &Architecture,
    mixes_values: bool,
    vb: &VarBuilder,
) -> Result<Option<(ValueResidual, Linear)>> {
    let Some(kind) = arch.value_residual.filter(|_| mixes_values) else { return Ok(None) };
    let name = match kind {
        ValueResidual::ToValueResidualMix => "to_value_residual_mix",
        ValueResidual::LearnedValueResidualMix => "learned_value_residual_mix.0",
    };
    Ok(Some((kind, Linear::new(arch.dim, arch.heads, vb.pp(name))?)))
}

/// a + weight · (b − a), weight broadcast.
pub(super) fn lerp(a: &Tensor, b: &Tensor, weight: &Tensor) -> Result<Tensor> {
    a + (b - a)?.broadcast_mul(weight)?
}
