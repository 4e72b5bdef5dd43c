//! Attention between channels instead of tokens (XCiT, arXiv 2106.09681), the references' `LinearAttention`.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::{sigmoid, softmax_last_dim};

use super::architecture::{Architecture, ValueResidual};
use super::attention::{lerp, value_residual};
use super::linear::{Linear, get_f32};
use super::norm::{RmsNorm, l2_normalize};

/// Scale of the similarities in the references.
const SCALE: f64 = 8.0;

/// Cross-covariance attention over the features of each head.
pub(super) struct LinearAttention {
    norm: RmsNorm,
    /// Output features laid out (qkv h d).
    to_qkv: Linear,
    /// exp of the learned temperature: [heads, 1, 1]
    temperature: Tensor,
    to_out: Linear,
    value_residual: Option<(ValueResidual, Linear)>,
    heads: usize,
    dim_head: usize,
}

impl LinearAttention {
    pub fn new(arch: &Architecture, mixes_values: bool, vb: VarBuilder) -> Result<Self> {
        let inner = arch.heads * arch.dim_head;
        Ok(Self {
            norm: RmsNorm::new(arch.dim, vb.pp("norm"))?,
            to_qkv: Linear::without_bias(arch.dim, 3 * inner, vb.pp("to_qkv.0"))?,
            temperature: get_f32(&vb, (arch.heads, 1, 1), "temperature")?.exp()?,
            to_out: Linear::without_bias(inner, arch.dim, vb.pp("to_out.1"))?,
            value_residual: value_residual(arch, mixes_values, &vb)?,
            heads: arch.heads,
            dim_head: arch.dim_head,
        })
    }

    /// x: [sequences, len, dim] → output [sequences, len, dim], f32, added to `onto` if given, and this block's values
    /// [sequences, heads, dim_head, len].
    pub fn forward(
        &self,
        x: &Tensor,
        first_values: Option<&Tensor>,
        onto: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let (sequences, len, _) = x.dims3()?;
        let x = self.norm.forward(x, self.to_qkv.number_type())?;
        let qkv = self.to_qkv.forward(&x)?.to_dtype(DType::F32)?.reshape((
            sequences,
            len,
            3,
            self.heads,
            self.dim_head,
        ))?;
        // [sequences, heads, dim_head, len]
        let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.permute((0, 2, 3, 1))?.contiguous();
        let (q, k, own_values) = (part(0)?, part(1)?, part(2)?);
        let v = match (&self.value_residual, first_values) {
            (Some((_, to_mix)), Some(first)) => {
                // mix: [sequences, heads, 1, len]
                let mix =
                    sigmoid(&to_mix.forward(&x)?.to_dtype(DType::F32)?)?.transpose(1, 2)?.unsqueeze(2)?;
                lerp(&own_values, first, &mix)?
            }
            _ => own_values.clone(),
        };
        let q = l2_normalize(&q)?.broadcast_mul(&self.temperature)?;
        let scores = (q * SCALE)?.matmul(&l2_normalize(&k)?.t()?)?;
        let out = softmax_last_dim(&scores)?.matmul(&v)?;
        let out = out.permute((0, 3, 1, 2))?.reshape((sequences, len, ()))?;
        Ok((self.to_out.forward_onto(&out, onto)?, own_values))
    }
}
