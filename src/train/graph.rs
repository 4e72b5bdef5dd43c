//! The blocks of the network as graphs of candle operations that all have a gradient.
//!
//! candle's fused norm, softmax and rotary embedding have none, and `slice_set` records nothing: `backward` over `model::roformer`
//! would change the mask estimators alone. These functions compute the same from elementary operations, on every device and in f64
//! too. They are also the reference for the kernels of [`cpu`](super::cpu).

use std::f64::consts::TAU;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::sigmoid;

use super::parameters::Parameters;
use crate::model::architecture::{Architecture, Position, ValueResidual};

mod hyper_connections;
mod linear_attention;

use hyper_connections::HyperConnections;

/// A module's place in the network: where its tensors are, and whether candle records what is computed from them.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    pub arch: &'a Architecture,
    pub parameters: &'a Parameters,
    pub tracked: bool,
    prefix: String,
}

impl<'a> Scope<'a> {
    pub fn new(arch: &'a Architecture, parameters: &'a Parameters, tracked: bool) -> Self {
        Self { arch, parameters, tracked, prefix: String::new() }
    }

    /// The module `name` inside this one.
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        let prefix =
            if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Self { prefix, ..self.clone() }
    }

    pub fn get(&self, name: &str) -> Result<Tensor> {
        self.parameters.tensor(&self.path(name), self.tracked)
    }

    /// The full name of a tensor of this module.
    pub fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// x · Wᵀ + b, without b where `bias` is false: [..., input] → [..., output]
    pub fn linear(&self, x: &Tensor, bias: bool) -> Result<Tensor> {
        let weight = self.get("weight")?;
        let (output, input) = weight.dims2()?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = output;
        }
        let y = x.contiguous()?.reshape(((), input))?.matmul(&weight.t()?)?;
        let y = if bias { y.broadcast_add(&self.get("bias")?)? } else { y };
        y.reshape(shape)
    }

    /// The references' `RMSNorm` at this place: [..., dim] → same shape
    pub fn rms_norm(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x)?.broadcast_mul(&self.get("gamma")?)
    }
}

/// Which axis a transformer attends over, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// Linear attention over the joined (t k) sequence.
    Linear,
    /// Over frames.
    Time,
    /// Over bands.
    Freq,
}

/// x / max(‖x‖₂, 1e-12) · sqrt(dim) over the last axis. The maximum is taken of squares, as the root has no gradient at 0.
pub(super) fn rms_norm(x: &Tensor) -> Result<Tensor> {
    let dim = x.dim(D::Minus1)?;
    let norm = x.sqr()?.sum_keepdim(D::Minus1)?.maximum(1e-24)?.sqrt()?;
    x.broadcast_div(&norm)? * (dim as f64).sqrt()
}

/// Softmax over the last axis. Its largest score is a constant to the gradient, which it does not change.
pub(super) fn softmax(scores: &Tensor) -> Result<Tensor> {
    let weights = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}

/// a + weight · (b − a), weight broadcast.
fn lerp(a: &Tensor, b: &Tensor, weight: &Tensor) -> Result<Tensor> {
    a + (b - a)?.broadcast_mul(weight)?
}

/// The module that says how much of the first layer's values comes in.
fn value_residual_name(kind: ValueResidual) -> &'static str {
    match kind {
        ValueResidual::ToValueResidualMix => "to_value_residual_mix",
        ValueResidual::LearnedValueResidualMix => "learned_value_residual_mix.0",
    }
}

/// Features of the tokens of a frame: spec [batch, frames, (f s) c] → [batch, frames, bands, dim]
///
/// `indices` gathers the features of all bands, where they are not the frame in order.
pub(super) fn band_split(scope: &Scope, spec: &Tensor, indices: Option<&Tensor>) -> Result<Tensor> {
    let gathered = match indices {
        Some(indices) => spec.index_select(indices, 2)?,
        None => spec.clone(),
    };
    let mut start = 0;
    let mut tokens = Vec::new();
    for (band, features) in scope.arch.band_features().into_iter().enumerate() {
        let at = scope.pp("band_split.to_features").pp(band);
        let x = at.pp("0").rms_norm(&gathered.narrow(2, start, features)?.contiguous()?)?;
        tokens.push(at.pp("1").linear(&x, true)?);
        start += features;
    }
    Tensor::stack(&tokens, 2)
}

/// Masks of one stem: x [batch, frames, bands, dim] → [batch, frames, features of all bands]
pub(super) fn mask_estimator(scope: &Scope, stem: usize, x: &Tensor) -> Result<Tensor> {
    let mut masks = Vec::new();
    for band in 0..scope.arch.bands.len() {
        let at = scope.pp("mask_estimators").pp(stem).pp("to_freqs").pp(band).pp("0");
        let mut h = x.narrow(2, band, 1)?.squeeze(2)?.contiguous()?;
        for i in 0..scope.arch.mask_linears {
            if i > 0 {
                h = h.tanh()?;
            }
            h = at.pp(2 * i).linear(&h, true)?;
        }
        let half = h.dim(2)? / 2;
        masks.push((h.narrow(2, 0, half)? * sigmoid(&h.narrow(2, half, half)?.contiguous()?)?)?);
    }
    Tensor::cat(&masks, 2)
}

/// One block: attention and feed-forward, each with its residual, and for the last block of a Mel-Band transformer the norm.
///
/// x: [sequences, len, dim], first: this axis's values in the first layer → x and this block's own values
pub(super) fn block(
    scope: &Scope,
    place: BlockPlace,
    x: &Tensor,
    first: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let transformer = scope.pp(place.transformer(scope.arch));
    let at = transformer.pp("layers").pp(place.block);
    let branch = |part: &str| if scope.arch.branch_names { at.pp(part).pp("branch") } else { at.pp(part) };
    let attend = |x: &Tensor| match place.axis {
        Axis::Linear => linear_attention::forward(&branch("0"), x, first),
        Axis::Time | Axis::Freq => attention(&branch("0"), x, first),
    };
    let (x, own) = match scope.arch.hyper_connections {
        None => {
            let (out, own) = attend(x)?;
            let x = (out + x)?;
            ((feed_forward(&branch("1"), &x)? + &x)?, own)
        }
        Some(sizes) => {
            let around_attention = HyperConnections::new(&at.pp("0"), sizes)?;
            let (input, streams) = around_attention.width(x)?;
            let (out, own) = attend(&input)?;
            let x = around_attention.depth(&out, streams)?;
            let around_feed_forward = HyperConnections::new(&at.pp("1"), sizes)?;
            let (input, streams) = around_feed_forward.width(&x)?;
            (around_feed_forward.depth(&feed_forward(&branch("1"), &input)?, streams)?, own)
        }
    };
    let x =
        if place.last && scope.arch.transformer_norm() { transformer.pp("norm").rms_norm(&x)? } else { x };
    Ok((x, own))
}

/// Which block of the network.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockPlace {
    pub layer: usize,
    pub axis: Axis,
    pub block: usize,
    /// Whether it is the last of its transformer.
    pub last: bool,
}

impl BlockPlace {
    /// Name of the transformer.
    pub fn transformer(&self, arch: &Architecture) -> String {
        let [linear, time, freq] = arch.transformer_indices;
        let index = match self.axis {
            Axis::Linear => linear,
            Axis::Time => time,
            Axis::Freq => freq,
        };
        format!("layers.{}.{index}", self.layer)
    }
}

fn feed_forward(scope: &Scope, x: &Tensor) -> Result<Tensor> {
    let net = scope.pp("net");
    let h = net.pp("1").linear(&net.pp("0").rms_norm(x)?, true)?.gelu_erf()?;
    net.pp("4").linear(&h, true)
}

/// Gated softmax attention, the references' `Attention`: x [sequences, len, dim] → output of that shape, and the values
/// [sequences, heads, len, dim_head]
fn attention(scope: &Scope, x: &Tensor, first: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let arch = scope.arch;
    let (heads, dim_head) = (arch.heads, arch.dim_head);
    let (sequences, len, _) = x.dims3()?;
    let x = scope.pp("norm").rms_norm(x)?;
    let qkv = scope.pp("to_qkv").linear(&x, false)?.reshape((sequences, len, 3, heads, dim_head))?;
    let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let (q, k, own) = (part(0)?, part(1)?, part(2)?);
    let v = match (arch.value_residual, first) {
        (Some(kind), Some(first)) => {
            // mix: [sequences, heads, len, 1]
            let mix = scope.pp(value_residual_name(kind)).linear(&x, true)?;
            let mix = sigmoid(&mix)?.transpose(1, 2)?.unsqueeze(3)?;
            match kind {
                ValueResidual::ToValueResidualMix => lerp(&own, first, &mix)?,
                ValueResidual::LearnedValueResidualMix => (&own + mix.broadcast_sub(&own)?.mul(first)?)?,
            }
        }
        _ => own.clone(),
    };
    let (q, k) = match arch.position {
        Position::Rotary => {
            let freqs = scope.get("rotary_embed.freqs")?;
            let (cos, sin) = rotary_tables(&freqs, len)?;
            (rotate(&q, &cos, &sin)?, rotate(&k, &cos, &sin)?)
        }
        Position::Polar => polar(&scope.pp("pope_embed"), &q, &k)?,
    };
    let scores = (q * (dim_head as f64).powf(-0.5))?.matmul(&k.t()?.contiguous()?)?;
    let out = softmax(&scores)?.matmul(&v.contiguous()?)?;
    // gates: [sequences, heads, len, 1]
    let gates = sigmoid(&scope.pp("to_gates").linear(&x, true)?)?.transpose(1, 2)?.unsqueeze(3)?;
    let out = out.broadcast_mul(&gates)?.transpose(1, 2)?.contiguous()?;
    let out = out.reshape((sequences, len, heads * dim_head))?;
    Ok((scope.pp("to_out.0").linear(&out, false)?, own))
}

/// Cosines and sines of `position · freq`: [len, pairs] each. The angle is a product of f32, as in the references.
pub(super) fn rotary_tables(freqs: &Tensor, len: usize) -> Result<(Tensor, Tensor)> {
    let (device, dtype) = (freqs.device().clone(), freqs.dtype());
    let freqs = freqs.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    let table = |f: fn(f64) -> f64| -> Result<Tensor> {
        let values: Vec<f64> =
            (0..len).flat_map(|pos| freqs.iter().map(move |freq| f(f64::from(pos as f32 * freq)))).collect();
        Tensor::from_vec(values, (len, freqs.len()), &Device::Cpu)?.to_dtype(dtype)?.to_device(&device)
    };
    Ok((table(f64::cos)?, table(f64::sin)?))
}

/// Rotates the interleaved pairs of x: [sequences, heads, len, dim_head]. An odd last feature stays as it is.
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (sequences, heads, len, dim) = x.dims4()?;
    let pairs = cos.dim(1)?;
    if pairs == 0 {
        return Ok(x.clone());
    }
    let split = x.narrow(3, 0, 2 * pairs)?.contiguous()?.reshape((sequences, heads, len, pairs, 2))?;
    let (even, odd) = (split.narrow(4, 0, 1)?.squeeze(4)?, split.narrow(4, 1, 1)?.squeeze(4)?);
    let new_even = (even.broadcast_mul(cos)? - odd.broadcast_mul(sin)?)?;
    let new_odd = (even.broadcast_mul(sin)? + odd.broadcast_mul(cos)?)?;
    let rotated = Tensor::stack(&[new_even, new_odd], 4)?.reshape((sequences, heads, len, 2 * pairs))?;
    if dim == 2 * pairs {
        return Ok(rotated);
    }
    Tensor::cat(&[rotated, x.narrow(3, 2 * pairs, dim - 2 * pairs)?], 3)
}

/// PoPE: q and k in polar form, real and imaginary parts side by side: [sequences, heads, len, 2 · dim_head]
fn polar(scope: &Scope, q: &Tensor, k: &Tensor) -> Result<(Tensor, Tensor)> {
    let (_, heads, len, dim) = q.dims4()?;
    let inv_freqs = scope.get("inv_freqs")?;
    let positions = Tensor::arange(0u32, len as u32, q.device())?.to_dtype(q.dtype())?.unsqueeze(1)?;
    // [len, dim]
    let angles = positions.broadcast_mul(&inv_freqs.unsqueeze(0)?)?;
    let bias = scope.get("bias")?;
    // Inside the bounds, ends included, the clamp passes the gradient on; candle's halves it at the ends.
    let inside = bias.ge(-TAU)?.mul(&bias.le(0f64)?)?;
    let bias = inside.where_cond(&bias, &bias.detach().clamp(-TAU, 0f64)?)?;
    // [heads, len, dim]
    let k_angles = bias.reshape((heads, 1, dim))?.broadcast_add(&angles.unsqueeze(0)?)?;
    let form = |x: &Tensor, angles: &Tensor| -> Result<Tensor> {
        let magnitude = softplus(x)?;
        let (re, im) = (magnitude.broadcast_mul(&angles.cos()?)?, magnitude.broadcast_mul(&angles.sin()?)?);
        Tensor::cat(&[re, im], 3)
    };
    Ok((form(q, &angles)?, form(k, &k_angles)?))
}

/// `torch.nn.functional.softplus`: ln(1 + eˣ), x itself above 20.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let linear = x.gt(20f64)?;
    let curved = (x.minimum(20f64)?.exp()? + 1.0)?.log()?;
    linear.where_cond(x, &curved)
}
