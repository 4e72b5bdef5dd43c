//! The references' `FeedForward`: norm, Linear, GELU with the exact error function, Linear.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::Architecture;
use super::linear::Linear;
use super::norm::RmsNorm;

/// Feed-forward over each token.
pub(super) struct FeedForward {
    norm: RmsNorm,
    up: Linear,
    down: Linear,
}

impl FeedForward {
    pub fn new(arch: &Architecture, vb: VarBuilder) -> Result<Self> {
        let net = vb.pp("net");
        Ok(Self {
            norm: RmsNorm::new(arch.dim, net.pp("0"))?,
            up: Linear::new(arch.dim, arch.ff_inner, net.pp("1"))?,
            down: Linear::new(arch.ff_inner, arch.dim, net.pp("4"))?,
        })
    }

    /// x: [..., dim] → [..., dim], f32
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.up.forward(&self.norm.forward(x)?)?.gelu_erf()?)?.to_dtype(DType::F32)
    }
}
