//! The references' `FeedForward`: norm, Linear, GELU with the exact error function, Linear.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::Architecture;
use super::linear::{Activation, Linear};
use super::norm::RmsNorm;

/// Feed-forward over each token.
pub(super) struct FeedForward {
    norm: RmsNorm,
    up: Linear,
    down: Linear,
}

impl FeedForward {
    pub fn new(arch: &Architecture, vb: VarBuilder) -> Result<Self> {
        Self::with_inner(arch.dim, arch.ff_inner, vb)
    }

    /// With `inner` hidden features.
    pub fn with_inner(dim: usize, inner: usize, vb: VarBuilder) -> Result<Self> {
        let net = vb.pp("net");
        Ok(Self {
            norm: RmsNorm::new(dim, net.pp("0"))?,
            up: Linear::new(dim, inner, net.pp("1"))?,
            down: Linear::new(inner, dim, net.pp("4"))?,
        })
    }

    /// x: [..., dim] → [..., dim], f32, added to `onto` if given
    pub fn forward(&self, x: &Tensor, onto: Option<&Tensor>) -> Result<Tensor> {
        let x = self.norm.forward(x, self.up.number_type())?;
        self.down.forward_onto(&self.up.forward_with_activation(&x, Activation::Gelu)?, onto)
    }
}
