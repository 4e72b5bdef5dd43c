//! Our own CUDA kernels (`cuda/kernels.cu`) for attention and for the operations between the network's matrix products.
//!
//! The network is written in candle's operations. Where one kernel replaces several of them, the network asks for it first. It gets none
//! unless `NULLSUM_CUDA_KERNELS=fused` is set and the shapes fit. They are off by default because they have only run in an emulation of
//! threads and tensor cores (`tests/emulation`), which the tests below use.

#[cfg(all(test, target_os = "linux"))]
mod emulator;
mod launch;
#[cfg(test)]
pub(crate) mod tests;

#[cfg(not(test))]
use std::sync::LazyLock;

#[cfg(not(test))]
use candle_core::Device;
use candle_core::{D, DType, Result, Shape, Tensor};

use super::linear::Activation;
use launch::{Launch, WARPS};

/// Whether the environment enables the kernels.
#[cfg(not(test))]
static REQUESTED: LazyLock<bool> =
    LazyLock::new(|| std::env::var("NULLSUM_CUDA_KERNELS").is_ok_and(|value| value == "fused"));
/// Queries of a block of the attention.
const QUERIES: usize = 64;
/// Neighbouring features that a thread handles at a time.
const FOUR: usize = 4;

/// Whether operations on `device` use the kernels.
#[cfg(not(test))]
fn kernels_enabled(device: &Device) -> bool {
    device.is_cuda() && *REQUESTED
}

#[cfg(test)]
use tests::kernels_enabled;

/// Suffix of the kernel names for a number type of the matrix products; none if there are no such kernels.
fn suffix(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F16 => Some("f16"),
        DType::F32 => Some("f32"),
        _ => None,
    }
}

/// The kernel for products in `dtype`; none if kernels are disabled or do not support these number types or parts of a row of
/// `part` features.
fn launch<'a, const N: usize>(
    kernel: &str,
    dtype: DType,
    inputs: [(&'a Tensor, DType); N],
    part: usize,
) -> Option<Launch<'a>> {
    let suffix = suffix(dtype)?;
    let fits = part.is_multiple_of(FOUR) && inputs.iter().all(|(x, dtype)| x.dtype() == *dtype);
    (fits && kernels_enabled(inputs[0].0.device()))
        .then(|| Launch { kernel: format!("{kernel}_{suffix}"), inputs: inputs.map(|(x, _)| x).to_vec() })
}

/// [`RmsNorm`](super::norm::RmsNorm) of x [..., dim], f32, in the number type `dtype`.
pub fn rms_norm(x: &Tensor, gamma: &Tensor, dtype: DType) -> Result<Option<Tensor>> {
    let dim = gamma.elem_count();
    let rows = x.elem_count() / dim;
    launch("rms_norm", dtype, [(x, DType::F32), (gamma, DType::F32)], dim)
        .map(|launch| launch.run(&[rows, dim], rows.div_ceil(WARPS), x.shape(), dtype))
        .transpose()
}

/// Scaled q and k with rotary positions, and v, [3, sequences, heads, len, dim_head], from qkv: [sequences, len, (qkv h d)].
pub fn split_heads(qkv: &Tensor, cos: &Tensor, sin: &Tensor, heads: usize) -> Result<Option<Tensor>> {
    let (sequences, len, width) = qkv.dims3()?;
    let (dim, pairs, dtype) = (width / 3 / heads, cos.dim(1)?, qkv.dtype());
    let shape = Shape::from((3, sequences, heads, len, dim));
    launch("split_heads", dtype, [(qkv, dtype), (cos, dtype), (sin, dtype)], dim)
        .map(|launch| launch.run(&[sequences, len, heads, dim, pairs], sequences * len, &shape, dtype))
        .transpose()
}

/// Softmax attention of q (scaled), k and v, [sequences, heads, len, dim_head] each.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Option<Tensor>> {
    let (sequences, heads, len, dim) = q.dims4()?;
    let fits = matches!(dim, 32 | 48 | 64)
        && [q, k, v].iter().all(|x| x.dtype() == DType::F16 && x.shape() == q.shape());
    let blocks = sequences * heads * len.div_ceil(QUERIES);
    (fits && kernels_enabled(q.device()))
        .then(|| Launch { kernel: format!("attend_{dim}"), inputs: vec![q, k, v] })
        .map(|launch| launch.run(&[len], blocks, q.shape(), DType::F16))
        .transpose()
}

/// Heads x [sequences, heads, len, dim_head] side by side, [sequences, len, (h d)], each times the sigmoid of
/// gates [sequences, len, heads] + bias [heads].
pub fn join_heads(x: &Tensor, gates: &Tensor, bias: &Tensor) -> Result<Option<Tensor>> {
    let (sequences, heads, len, dim) = x.dims4()?;
    let (shape, dtype) = (Shape::from((sequences, len, heads * dim)), x.dtype());
    launch("join_heads", dtype, [(x, dtype), (gates, dtype), (bias, dtype)], dim)
        .map(|launch| launch.run(&[len, heads, dim], sequences * len, &shape, dtype))
        .transpose()
}

/// The activation of x [n · rows, columns] + bias [n, columns], whatever their other axes are.
pub(super) fn activate(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Option<Tensor>> {
    let (columns, dtype) = (x.dim(D::Minus1)?, x.dtype());
    let (blocks, n) = (x.elem_count() / columns, bias.elem_count() / columns);
    let kernel = match activation {
        Activation::Gelu => "gelu",
        Activation::Tanh => "tanh",
    };
    launch(kernel, dtype, [(x, dtype), (bias, dtype)], columns)
        .map(|launch| launch.run(&[blocks / n, columns], blocks, x.shape(), dtype))
        .transpose()
}

/// x + bias + onto, f32: x and onto [..., columns], onto f32, bias [columns].
pub fn add(x: &Tensor, bias: Option<&Tensor>, onto: &Tensor) -> Result<Option<Tensor>> {
    let (columns, dtype) = (x.dim(D::Minus1)?, x.dtype());
    let launch = match bias {
        Some(bias) => launch("add_bias", dtype, [(x, dtype), (bias, dtype), (onto, DType::F32)], columns),
        None => launch("add", dtype, [(x, dtype), (onto, DType::F32)], columns),
    };
    launch.map(|launch| launch.run(&[columns], x.elem_count() / columns, x.shape(), DType::F32)).transpose()
}

/// The gated linear unit of `bands` neighbouring bands side by side, [stems, rows, bands · half], f32, from
/// x [bands · stems, rows, 2 · half] + bias [bands · stems, 1, 2 · half].
pub fn gate_bands(x: &Tensor, bias: &Tensor, bands: usize) -> Result<Option<Tensor>> {
    let ((mlps, rows, width), dtype) = (x.dims3()?, x.dtype());
    let (stems, half) = (mlps / bands, width / 2);
    let shape = Shape::from((stems, rows, bands * half));
    launch("gate_bands", dtype, [(x, dtype), (bias, dtype)], half)
        .map(|launch| launch.run(&[bands, stems, rows, half], stems * rows, &shape, DType::F32))
        .transpose()
}

/// The stems' spectra [batch, stems, channels, frames, 2 · freqs], real parts first, from the mixture's,
/// [batch, frames, freqs, channels, 2], and masks [batch, stems, frames, freqs, channels, 2], which `complete` makes to sum to 1. f32.
pub fn mask_mixture(spec: &Tensor, masks: &Tensor, complete: bool, zero_dc: bool) -> Result<Option<Tensor>> {
    let (batch, frames, freqs, channels, _) = spec.dims5()?;
    let stems = masks.dim(1)?;
    let shape = Shape::from((batch, stems, channels, frames, 2 * freqs));
    let numbers = [stems, frames, freqs, channels, usize::from(complete), usize::from(zero_dc)];
    kernels_enabled(spec.device())
        .then(|| Launch { kernel: "mask_mixture".into(), inputs: vec![spec, masks] })
        .map(|launch| launch.run(&numbers, batch * frames, &shape, DType::F32))
        .transpose()
}
