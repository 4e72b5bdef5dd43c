//! Matrix products in the network's number type.
//!
//! The number type is that of the builder: weights and the activations that meet them are rounded to it, devices accumulate in
//! f32. Norms, softmax, masks and the sums along the residual stream are f32 whatever it is.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

/// A tensor of a builder in f32, whatever the network's number type.
pub(super) fn get_f32(vb: &VarBuilder, shape: impl Into<candle_core::Shape>, name: &str) -> Result<Tensor> {
    vb.get_with_hints_dtype(shape, name, Default::default(), DType::F32)
}

/// x · Wᵀ + b.
pub(super) struct Linear {
    /// Transposed view of [output, input]: what matrix products of all devices take without a copy.
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `weight` [output, input] and `bias` [output] at `vb`.
    pub fn new(input: usize, output: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { weight: vb.get((output, input), "weight")?.t()?, bias: Some(vb.get(output, "bias")?) })
    }

    /// `weight` alone.
    pub fn without_bias(input: usize, output: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { weight: vb.get((output, input), "weight")?.t()?, bias: None })
    }

    /// x: [..., input] of any number type → [..., output] of the weight's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (input, output) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = output;
        }
        let rows = x.to_dtype(self.weight.dtype())?.contiguous()?.reshape(((), input))?;
        let out = rows.matmul(&self.weight)?;
        match &self.bias {
            Some(bias) => out.broadcast_add(bias)?,
            None => out,
        }
        .reshape(shape)
    }
}

/// Several Linears of one size, each for a signal of its own, as one product.
pub(super) struct Linears {
    /// [n, input, output]
    weights: Tensor,
    /// [n, 1, output]
    biases: Tensor,
}

impl Linears {
    /// From weights [output, input] and biases [output].
    pub fn new(parts: &[(Tensor, Tensor)], dtype: DType) -> Result<Self> {
        let (weights, biases): (Vec<&Tensor>, Vec<&Tensor>) = parts.iter().map(|(w, b)| (w, b)).unzip();
        Ok(Self {
            weights: Tensor::stack(&weights, 0)?.transpose(1, 2)?.to_dtype(dtype)?,
            biases: Tensor::stack(&biases, 0)?.unsqueeze(1)?.to_dtype(dtype)?,
        })
    }

    /// x: [n, rows, input] of any number type → [n, rows, output] of the weights'.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.to_dtype(self.weights.dtype())?.contiguous()?.matmul(&self.weights)?.broadcast_add(&self.biases)
    }
}
