//! Convolutions with instance norm and SiLU, and the residual blocks made of them.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::model::linear::get_f32;
use crate::model::planes::{depthwise, norm_silu, pointwise};

/// Gain and bias of an instance norm, which SiLU follows.
pub(super) struct NormSilu {
    /// [channels]
    weight: Tensor,
    /// [channels]
    bias: Tensor,
}

impl NormSilu {
    pub fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { weight: get_f32(&vb, channels, "weight")?, bias: get_f32(&vb, channels, "bias")? })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        norm_silu(x, &self.weight, &self.bias)
    }
}

/// The weight [output, input] of a convolution of size 1.
pub(super) fn pointwise_weight(input: usize, output: usize, vb: &VarBuilder) -> Result<Tensor> {
    get_f32(vb, (output, input, 1, 1), "weight")?.reshape((output, input))
}

/// `Conv` of size 1.
pub(super) struct Conv {
    weight: Tensor,
    norm: NormSilu,
}

impl Conv {
    pub fn new(input: usize, output: usize, vb: VarBuilder) -> Result<Self> {
        let weight = pointwise_weight(input, output, &vb.pp("conv"))?;
        Ok(Self { weight, norm: NormSilu::new(output, vb.pp("bn"))? })
    }

    /// x: [input, rows, columns] → [output, rows, columns]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(&pointwise(x, &self.weight)?)
    }
}

/// `DSConv`: a depthwise 3 × 3 and a pointwise convolution.
pub(super) struct DsConv {
    depthwise: Tensor,
    stride: [usize; 2],
    pointwise: Tensor,
    norm: NormSilu,
}

impl DsConv {
    pub fn new(input: usize, output: usize, stride: [usize; 2], vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            depthwise: get_f32(&vb, (input, 1, 3, 3), "dwconv.weight")?.reshape((input, 9))?,
            stride,
            pointwise: pointwise_weight(input, output, &vb.pp("pwconv"))?,
            norm: NormSilu::new(output, vb.pp("bn"))?,
        })
    }

    /// x: [input, rows, columns] → [output, ⌈rows / stride⌉, ⌈columns / stride⌉]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = depthwise(x, &self.depthwise, self.stride)?;
        self.norm.forward(&pointwise(&x, &self.pointwise)?)
    }
}

/// `DS_C3k`: bottlenecks beside a shortcut.
pub(super) struct DsC3k {
    cv1: Conv,
    cv2: Conv,
    cv3: Conv,
    /// Two convolutions each, whose input is added to their output.
    bottlenecks: Vec<[DsConv; 2]>,
}

impl DsC3k {
    pub fn new(channels: usize, depth: usize, vb: VarBuilder) -> Result<Self> {
        let bottleneck = |i: usize| -> Result<[DsConv; 2]> {
            let conv = |name: &str| DsConv::new(channels, channels, [1, 1], vb.pp(format!("m.{i}.{name}")));
            Ok([conv("dsconv1")?, conv("dsconv2")?])
        };
        Ok(Self {
            cv1: Conv::new(channels, channels, vb.pp("cv1"))?,
            cv2: Conv::new(channels, channels, vb.pp("cv2"))?,
            cv3: Conv::new(2 * channels, channels, vb.pp("cv3"))?,
            bottlenecks: (0..depth).map(bottleneck).collect::<Result<_>>()?,
        })
    }

    /// x: [channels, rows, columns] → same shape
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut deep = self.cv1.forward(x)?;
        for [first, second] in &self.bottlenecks {
            deep = (&deep + second.forward(&first.forward(&deep)?)?)?;
        }
        self.cv3.forward(&Tensor::cat(&[deep, self.cv2.forward(x)?], 0)?)
    }
}

/// `DS_C3k2`: a [`DsC3k`] on half of the channels.
pub(super) struct DsC3k2 {
    cv1: Conv,
    inner: DsC3k,
    cv2: Conv,
}

impl DsC3k2 {
    pub fn new(input: usize, output: usize, depth: usize, vb: VarBuilder) -> Result<Self> {
        let hidden = output / 2;
        Ok(Self {
            cv1: Conv::new(input, hidden, vb.pp("cv1"))?,
            inner: DsC3k::new(hidden, depth, vb.pp("m"))?,
            cv2: Conv::new(hidden, output, vb.pp("cv2"))?,
        })
    }

    /// x: [input, rows, columns] → [output, rows, columns]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.cv2.forward(&self.inner.forward(&self.cv1.forward(x)?)?)
    }
}
