//! Matrix products in the network's number type.
//!
//! The number type is that of the builder. Weights and the activations multiplied with them are rounded to it; devices
//! accumulate in f32. Norms, softmax, masks and the sums of the residual stream are always f32.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

/// A tensor of a builder in f32, whatever the network's number type.
pub(super) fn get_f32(vb: &VarBuilder, shape: impl Into<candle_core::Shape>, name: &str) -> Result<Tensor> {
    vb.get_with_hints_dtype(shape, name, Default::default(), DType::F32)
}

/// Activation function after a Linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// GELU with the exact error function.
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// Applies the activation to a product plus its bias.
    fn apply(self, product: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        #[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
        if let Some(bias) = bias
            && let Some(out) = super::cuda::activate(&product, bias, self)?
        {
            return Ok(out);
        }
        let sum = add_bias(product, bias)?;
        match self {
            Self::Gelu => sum.gelu_erf(),
            Self::Tanh => sum.tanh(),
        }
    }
}

/// Adds the bias, where there is one.
fn add_bias(product: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => product.broadcast_add(bias),
        None => Ok(product),
    }
}

/// x · Wᵀ + b.
pub(super) struct Linear {
    /// Transposed view of [output, input], which the matrix products of all devices accept without a copy.
    weight: Tensor,
    pub bias: Option<Tensor>,
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

    /// With or without bias.
    pub fn with_bias_if(bias: bool, input: usize, output: usize, vb: VarBuilder) -> Result<Self> {
        if bias { Self::new(input, output, vb) } else { Self::without_bias(input, output, vb) }
    }

    /// The number type of the product.
    pub fn number_type(&self) -> DType {
        self.weight.dtype()
    }

    /// x: [..., input] of any number type → [..., output] of the weight's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.biased(self.product(x)?)
    }

    /// [`Linear::forward`] and an activation.
    pub fn forward_with_activation(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        activation.apply(self.product(x)?, self.bias.as_ref())
    }

    /// [`Linear::forward`] in f32, added to `onto` [..., output], f32, if given.
    pub fn forward_onto(&self, x: &Tensor, onto: Option<&Tensor>) -> Result<Tensor> {
        let product = self.product(x)?;
        let Some(onto) = onto else { return self.biased(product)?.to_dtype(DType::F32) };
        #[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
        if let Some(sum) = super::cuda::add(&product, self.bias.as_ref(), onto)? {
            return Ok(sum);
        }
        self.biased(product)?.to_dtype(DType::F32)? + onto
    }

    /// [`Linear::forward`] without the bias.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        let (input, output) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = output;
        }
        let rows = x.to_dtype(self.weight.dtype())?.contiguous()?.reshape(((), input))?;
        rows.matmul(&self.weight)?.reshape(shape)
    }

    /// A product plus the bias.
    pub fn biased(&self, product: Tensor) -> Result<Tensor> {
        add_bias(product, self.bias.as_ref())
    }
}

/// Several Linears of equal size with separate inputs, as one batched product.
pub(super) struct Linears {
    /// [n, input, output]
    weights: Tensor,
    /// [n, 1, output]
    pub biases: Tensor,
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

    /// The number type of the products.
    pub fn number_type(&self) -> DType {
        self.weights.dtype()
    }

    /// x: [n, rows, input] of any number type → [n, rows, output] of the weights'.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.product(x)?.broadcast_add(&self.biases)
    }

    /// [`Linears::forward`] and an activation.
    pub fn forward_with_activation(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        activation.apply(self.product(x)?, Some(&self.biases))
    }

    /// [`Linears::forward`] without the biases.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        x.to_dtype(self.weights.dtype())?.contiguous()?.matmul(&self.weights)
    }
}
