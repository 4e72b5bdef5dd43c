//! What a Conformer's block adds to attention and feed-forward (arXiv 2005.08100): a feed-forward in front, a convolution along the sequence,
//! a norm at the end, and half the weight for both feed-forwards.
//!
//! References: `models/bs_roformer/bs_conformer.py` and `mel_band_conformer.py` of Music-Source-Separation-Training, and `pymss-core` 0.1.14.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::{sigmoid, silu};

use super::architecture::{Architecture, ConformerSizes};
use super::feed_forward::FeedForward;
use super::linear::{Linear, get_f32};
use super::norm::RmsNorm;
use super::planes::depthwise_tokens;

/// The epsilon of PyTorch's batch norm.
const BATCH_NORM_EPS: f64 = 1e-5;
/// Weight of the feed-forwards.
const FEED_FORWARD_WEIGHT: f64 = 0.5;

/// The parts of a block around its attention and second feed-forward.
pub(super) struct ConformerParts {
    ff1: FeedForward,
    conv: ConvModule,
    out_norm: RmsNorm,
}

/// `ConformerConvModule`: norm, gated Linear, depthwise convolution with batch norm, SiLU, Linear.
struct ConvModule {
    norm: RmsNorm,
    up: Linear,
    /// The convolution with the batch norm's statistics in it: [kernel, channels]
    weight: Tensor,
    /// [channels]
    bias: Tensor,
    down: Linear,
}

impl ConformerParts {
    /// `vb` is at the block.
    pub fn new(arch: &Architecture, sizes: ConformerSizes, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            ff1: FeedForward::new(arch, vb.pp("ff1.ff"))?,
            conv: ConvModule::new(arch.dim, sizes, vb.pp("conv.net"))?,
            out_norm: RmsNorm::new(arch.dim, vb.pp("out_norm"))?,
        })
    }

    /// x: [sequences, len, dim] → what attention is given, same shape
    pub fn before_attention(&self, x: &Tensor) -> Result<Tensor> {
        add_half(x, &self.ff1)
    }

    /// The rest of a block after its attention. x: [sequences, len, dim] → same shape
    pub fn after_attention(&self, x: &Tensor, ff2: &FeedForward) -> Result<Tensor> {
        let x = self.conv.forward(x)?;
        self.out_norm.forward(&add_half(&x, ff2)?, DType::F32)
    }
}

fn add_half(x: &Tensor, feed_forward: &FeedForward) -> Result<Tensor> {
    x + (feed_forward.forward(x, None)? * FEED_FORWARD_WEIGHT)?
}

impl ConvModule {
    fn new(dim: usize, sizes: ConformerSizes, vb: VarBuilder) -> Result<Self> {
        let ConformerSizes { conv_channels: channels, conv_kernel: kernel, .. } = sizes;
        let batch_norm = |name: &str| get_f32(&vb, channels, &format!("5.{name}"));
        let deviation = (batch_norm("running_var")? + BATCH_NORM_EPS)?.sqrt()?;
        let scale = (batch_norm("weight")? / deviation)?;
        let weight = get_f32(&vb, (channels, 1, kernel), "4.weight")?.squeeze(1)?.t()?.contiguous()?;
        let bias = (get_f32(&vb, channels, "4.bias")? - batch_norm("running_mean")?)?;
        Ok(Self {
            norm: RmsNorm::new(dim, vb.pp("0"))?,
            up: Linear::new(dim, 2 * channels, vb.pp("2"))?,
            weight: weight.broadcast_mul(&scale)?,
            bias: ((bias * scale)? + batch_norm("bias")?)?,
            down: Linear::new(channels, dim, vb.pp("7"))?,
        })
    }

    /// x: [sequences, len, dim] → x plus the convolution, same shape
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.norm.forward(x, self.up.number_type())?;
        let hidden = self.up.forward(&normed)?.to_dtype(DType::F32)?;
        let half = hidden.dim(2)? / 2;
        let gate = sigmoid(&hidden.narrow(2, half, half)?.contiguous()?)?;
        let gated = (hidden.narrow(2, 0, half)? * gate)?;
        let hidden = silu(&depthwise_tokens(&gated, &self.weight)?.broadcast_add(&self.bias)?)?;
        self.down.forward_onto(&hidden, Some(x))
    }
}
