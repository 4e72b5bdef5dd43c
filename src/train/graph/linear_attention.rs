//! Attention between channels instead of tokens (XCiT, arXiv 2106.09681), the references' `LinearAttention`.

use candle_core::{D, Result, Tensor};
use candle_nn::ops::sigmoid;

use super::{Scope, lerp, softmax, value_residual_name};

/// Scale of the similarities in the references.
const SCALE: f64 = 8.0;

/// x: [sequences, len, dim] → output of that shape, and the values [sequences, heads, dim_head, len]
pub fn forward(scope: &Scope, x: &Tensor, first: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let (heads, dim_head) = (scope.arch.heads, scope.arch.dim_head);
    let (sequences, len, _) = x.dims3()?;
    let x = scope.pp("norm").rms_norm(x)?;
    let qkv = scope.pp("to_qkv.0").linear(&x, false)?.reshape((sequences, len, 3, heads, dim_head))?;
    let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.permute((0, 2, 3, 1))?.contiguous();
    let (q, k, own) = (part(0)?, part(1)?, part(2)?);
    let v = match (scope.arch.value_residual, first) {
        (Some(kind), Some(first)) => {
            // mix: [sequences, heads, 1, len]. In Mel-Band RoFormer, whose kind this is in linear attention, the arguments of
            // `lerp` are in order.
            let mix = scope.pp(value_residual_name(kind)).linear(&x, true)?;
            lerp(&own, first, &sigmoid(&mix)?.transpose(1, 2)?.unsqueeze(2)?)?
        }
        _ => own.clone(),
    };
    let q = l2_normalize(&q)?.broadcast_mul(&scope.get("temperature")?.exp()?)?;
    let scores = (q * SCALE)?.matmul(&l2_normalize(&k)?.t()?.contiguous()?)?;
    let out = softmax(&scores)?.matmul(&v.contiguous()?)?;
    let out = out.permute((0, 3, 1, 2))?.contiguous()?.reshape((sequences, len, heads * dim_head))?;
    Ok((scope.pp("to_out.1").linear(&out, false)?, own))
}

/// `torch.nn.functional.normalize(x, p=2, dim=-1)`.
fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.maximum(1e-24)?.sqrt()?)
}
