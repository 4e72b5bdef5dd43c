//! Root-mean-square norm: x / max(‖x‖₂, 1e-12) · sqrt(dim) · gamma, over the last axis.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::linear::get_f32;

/// RMSNorm with a learned gain.
pub(super) struct RmsNorm {
    /// gamma: [dim]
    gamma: Tensor,
    eps: f32,
}

impl RmsNorm {
    pub fn new(dim: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self::with_gamma(get_f32(&vb, dim, "gamma")?, dim))
    }

    /// The variant of hyper-connections, whose gain is 1 + gamma.
    pub fn one_plus(dim: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self::with_gamma((get_f32(&vb, dim, "gamma")? + 1.0)?, dim))
    }

    /// Without a gain.
    pub fn plain(dim: usize, device: &Device) -> Result<Self> {
        Ok(Self::with_gamma(Tensor::ones(dim, DType::F32, device)?, dim))
    }

    fn with_gamma(gamma: Tensor, dim: usize) -> Self {
        // candle's fused norm divides by sqrt(mean(x²) + eps): with this eps the two agree to the last bits unless
        // ‖x‖ is near 1e-12, and zeros stay zeros.
        Self { gamma, eps: 1e-24 / dim as f32 }
    }

    /// x: [..., dim], f32 → same shape in the number type `dtype`
    pub fn forward(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        #[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
        if let Some(out) = super::cuda::rms_norm(x, &self.gamma, dtype)? {
            return Ok(out);
        }
        candle_nn::ops::rms_norm(&x.contiguous()?, &self.gamma, self.eps)?.to_dtype(dtype)
    }
}

/// `torch.nn.functional.normalize(x, p=2, dim=-1)`.
pub(super) fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    let norm = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    x.broadcast_div(&norm.maximum(1e-12)?)
}
