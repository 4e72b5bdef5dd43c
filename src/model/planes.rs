//! Operations on planes, tensors [channels, rows, columns] in f32 that lie row by row: convolutions, instance norm and resizing.
//!
//! candle runs a depthwise convolution as one small convolution a channel, and a norm as eight passes. On the CPU both are one pass here;
//! other devices use candle's operations.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Tensor};
use candle_nn::ops::silu;
use rayon::prelude::*;

use super::transformer::max_slice_bytes;

/// The epsilon of HyperACE's instance norms.
const NORM_EPS: f64 = 1e-8;

/// Pointwise convolution. x: [input, rows, columns], weight: [output, input] → [output, rows, columns]
pub(super) fn pointwise(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (input, rows, columns) = x.dims3()?;
    weight.matmul(&x.reshape((input, rows * columns))?)?.reshape((weight.dim(0)?, rows, columns))
}

/// A 3 × 3 convolution of each channel with padding 1. weight: [channels, 9] → [channels, ⌈rows / stride⌉, ⌈columns / stride⌉]
pub(super) fn depthwise(x: &Tensor, weight: &Tensor, stride: [usize; 2]) -> Result<Tensor> {
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op2_no_bwd(&weight.contiguous()?, &Depthwise { stride });
    }
    depthwise_by_taps(x, weight, stride)
}

/// The same with candle's operations.
fn depthwise_by_taps(x: &Tensor, weight: &Tensor, [down, across]: [usize; 2]) -> Result<Tensor> {
    let (channels, rows, columns) = x.dims3()?;
    let (out_rows, out_columns) = (rows.div_ceil(down), columns.div_ceil(across));
    // Room for whole strides after the last tap.
    let padded = x.pad_with_zeros(1, 1, 1 + down)?.pad_with_zeros(2, 1, 1 + across)?;
    let mut sum: Option<Tensor> = None;
    for tap in 0..9 {
        let part = padded.narrow(1, tap / 3, out_rows * down)?;
        let part = part.narrow(2, tap % 3, out_columns * across)?.contiguous()?;
        let part = part.reshape((channels, out_rows, down, out_columns, across))?;
        let part = part.narrow(2, 0, 1)?.narrow(4, 0, 1)?.reshape((channels, out_rows, out_columns))?;
        let term = part.broadcast_mul(&weight.narrow(1, tap, 1)?.unsqueeze(2)?)?;
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => x.zeros_like(),
    }
}

/// A dense 3 × 3 convolution with padding 1. weight: [output, input, 3, 3] → [output, rows, columns]. Rows are cut into slices, because
/// candle unfolds its input to nine times its size.
pub(super) fn conv3(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (input, rows, columns) = x.dims3()?;
    let padded = x.pad_with_zeros(1, 1, 1)?.pad_with_zeros(2, 1, 1)?;
    let row_bytes = 9 * input * columns * 4;
    let step = (max_slice_bytes(x.device()) / row_bytes.max(1)).clamp(1, rows.max(1));
    let slices = (0..rows)
        .step_by(step)
        .map(|start| {
            let count = step.min(rows - start);
            let slice = padded.narrow(1, start, count + 2)?.contiguous()?.unsqueeze(0)?;
            slice.conv2d(weight, 0, 1, 1, 1)?.squeeze(0)
        })
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&slices, 1)
}

/// Instance norm and SiLU: each channel gets mean 0 and variance 1, then weight and bias [channels].
pub(super) fn norm_silu(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op3_no_bwd(&weight.contiguous()?, &bias.contiguous()?, &NormSilu);
    }
    norm_silu_by_passes(x, weight, bias)
}

/// The same with candle's operations.
fn norm_silu_by_passes(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (channels, rows, columns) = x.dims3()?;
    let x = x.reshape((channels, rows * columns))?;
    let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(1)? + NORM_EPS)?.sqrt()?;
    let scale = weight.unsqueeze(1)?.broadcast_div(&deviation)?;
    let out = centred.broadcast_mul(&scale)?.broadcast_add(&bias.unsqueeze(1)?)?;
    silu(&out)?.reshape((channels, rows, columns))
}

/// Bilinear interpolation to another size, as PyTorch's `interpolate(mode="bilinear", align_corners=False)`.
pub(super) fn resize(x: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    resize_axis(&resize_axis(x, 1, rows)?, 2, columns)
}

fn resize_axis(x: &Tensor, axis: usize, length: usize) -> Result<Tensor> {
    let old = x.dim(axis)?;
    if old == length || old == 0 {
        return Ok(x.clone());
    }
    let (mut lower, mut upper, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    // In f32, as PyTorch computes positions for tensors of f32.
    let scale = old as f32 / length as f32;
    for i in 0..length {
        let position = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
        let first = (position as usize).min(old - 1);
        lower.push(first as u32);
        upper.push((first + 1).min(old - 1) as u32);
        weights.push(position - first as f32);
    }
    let device = x.device();
    let mut shape = [1; 3];
    shape[axis] = length;
    let weights = Tensor::from_vec(weights, shape.as_slice(), device)?;
    let x = x.contiguous()?;
    let lower = x.index_select(&index(lower, device)?, axis)?;
    let upper = x.index_select(&index(upper, device)?, axis)?;
    lower.broadcast_mul(&weights.affine(-1.0, 1.0)?)? + upper.broadcast_mul(&weights)?
}

fn index(values: Vec<u32>, device: &Device) -> Result<Tensor> {
    let length = values.len();
    Tensor::from_vec(values, length, device)
}

/// A depthwise convolution along the tokens of sequences, with as many zeros on both sides as keep the length. x: [sequences, len,
/// channels], weight: [kernel, channels] → shape of x
pub(super) fn depthwise_tokens(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() && x.dtype() == DType::F32 {
        return x.contiguous()?.apply_op2_no_bwd(&weight.contiguous()?, &DepthwiseTokens);
    }
    depthwise_tokens_by_taps(x, weight)
}

/// The same with candle's operations.
fn depthwise_tokens_by_taps(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (_, len, _) = x.dims3()?;
    let kernel = weight.dim(0)?;
    let padded = x.pad_with_zeros(1, kernel / 2, kernel / 2)?;
    let mut sum = x.zeros_like()?;
    for tap in 0..kernel {
        sum = (sum + padded.narrow(1, tap, len)?.broadcast_mul(&weight.narrow(0, tap, 1)?)?)?;
    }
    Ok(sum)
}

/// The values of a contiguous tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("expected a contiguous tensor"),
    }
}

struct Depthwise {
    stride: [usize; 2],
}

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise 3 × 3 convolution"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (channels, rows, columns) = l1.shape().dims3()?;
        let (x, weights) = (values(s1, l1)?, values(s2, l2)?);
        if weights.len() != 9 * channels || rows * columns == 0 {
            candle_core::bail!(
                "a depthwise convolution of {channels} channels with {} weights",
                weights.len()
            )
        }
        let [down, across] = self.stride;
        let (out_rows, out_columns) = (rows.div_ceil(down), columns.div_ceil(across));
        let mut out = vec![0.0; channels * out_rows * out_columns];
        out.par_chunks_mut(out_rows * out_columns)
            .zip(x.par_chunks(rows * columns))
            .zip(weights.par_chunks(9))
            .for_each(|((out, plane), taps)| {
                for (row, out) in out.chunks_exact_mut(out_columns).enumerate() {
                    for (tap_row, taps) in taps.chunks_exact(3).enumerate() {
                        let Some(from) = (row * down + tap_row).checked_sub(1).filter(|from| *from < rows)
                        else {
                            continue;
                        };
                        add_row(out, &plane[from * columns..][..columns], taps, across);
                    }
                }
            });
        Ok((CpuStorage::F32(out), Shape::from((channels, out_rows, out_columns))))
    }
}

/// Adds one row of a 3 × 3 convolution.
fn add_row(out: &mut [f32], row: &[f32], taps: &[f32], stride: usize) {
    if stride != 1 {
        for (column, out) in out.iter_mut().enumerate() {
            let at = column * stride;
            let left = at.checked_sub(1).map_or(0.0, |left| row[left]);
            let right = row.get(at + 1).copied().unwrap_or(0.0);
            *out += taps[0] * left + taps[1] * row[at] + taps[2] * right;
        }
        return;
    }
    let last = row.len() - 1;
    out[0] += taps[1] * row[0];
    if last == 0 {
        return;
    }
    out[0] += taps[2] * row[1];
    for (out, near) in out[1..last].iter_mut().zip(row.windows(3)) {
        *out += taps[0] * near[0] + taps[1] * near[1] + taps[2] * near[2];
    }
    out[last] += taps[0] * row[last - 1] + taps[1] * row[last];
}

struct NormSilu;

impl CustomOp3 for NormSilu {
    fn name(&self) -> &'static str {
        "instance norm with SiLU"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (channels, rows, columns) = l1.shape().dims3()?;
        let (x, weights, biases) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        if weights.len() != channels || biases.len() != channels || rows * columns == 0 {
            candle_core::bail!("an instance norm of {channels} channels with {} weights", weights.len())
        }
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(rows * columns)
            .zip(x.par_chunks(rows * columns))
            .zip(weights.par_iter().zip(biases))
            .for_each(|((out, plane), (weight, bias))| {
                let count = plane.len() as f64;
                let mean = plane.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
                let variance = plane.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
                let scale = (f64::from(*weight) / (variance + NORM_EPS).sqrt()) as f32;
                let mean = mean as f32;
                for (out, x) in out.iter_mut().zip(plane) {
                    let normed = (x - mean) * scale + bias;
                    *out = normed / (1.0 + (-normed).exp());
                }
            });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

struct DepthwiseTokens;

impl CustomOp2 for DepthwiseTokens {
    fn name(&self) -> &'static str {
        "depthwise convolution along tokens"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, len, channels) = l1.shape().dims3()?;
        let (kernel, weight_channels) = l2.shape().dims2()?;
        let (x, weights) = (values(s1, l1)?, values(s2, l2)?);
        if weight_channels != channels || len * channels == 0 {
            candle_core::bail!("a convolution of {channels} channels with weights of {weight_channels}")
        }
        let mut out = vec![0.0; x.len()];
        out.par_chunks_mut(len * channels).zip(x.par_chunks(len * channels)).for_each(|(out, sequence)| {
            for (token, out) in out.chunks_exact_mut(channels).enumerate() {
                for (tap, weights) in weights.chunks_exact(channels).enumerate() {
                    let Some(from) = (token + tap).checked_sub(kernel / 2).filter(|from| *from < len) else {
                        continue;
                    };
                    let x = &sequence[from * channels..][..channels];
                    for ((out, x), weight) in out.iter_mut().zip(x).zip(weights) {
                        *out += x * weight;
                    }
                }
            }
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsp::Random;

    fn random(seed: u64, shape: &[usize]) -> Tensor {
        let mut random = Random::new(seed);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.bipolar()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn assert_close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.dims(), b.dims());
        let error = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn operations_on_the_cpu_equal_those_of_other_devices() {
        for (rows, columns) in [(1, 1), (2, 1), (1, 5), (7, 2), (6, 9)] {
            let x = random(1, &[3, rows, columns]);
            let weight = random(2, &[3, 9]);
            for stride in [[1, 1], [2, 1], [2, 2]] {
                let here = depthwise(&x, &weight, stride).unwrap();
                assert_close(&here, &depthwise_by_taps(&x, &weight, stride).unwrap());
            }
            let (weight, bias) = (random(3, &[3]), random(4, &[3]));
            let here = norm_silu(&x, &weight, &bias).unwrap();
            assert_close(&here, &norm_silu_by_passes(&x, &weight, &bias).unwrap());
        }
        for (len, kernel) in [(1, 3), (9, 1), (9, 5), (4, 31)] {
            let (x, weight) = (random(5, &[2, len, 4]), random(6, &[kernel, 4]));
            let here = depthwise_tokens(&x, &weight).unwrap();
            assert_close(&here, &depthwise_tokens_by_taps(&x, &weight).unwrap());
        }
    }

    #[test]
    fn depthwise_convolutions_equal_dense_ones_channel_by_channel() {
        let (x, weight) = (random(1, &[2, 5, 4]), random(2, &[2, 9]));
        let here = depthwise(&x, &weight, [1, 1]).unwrap();
        for channel in 0..2 {
            let one = x.narrow(0, channel, 1).unwrap();
            let kernel = weight.narrow(0, channel, 1).unwrap().reshape((1, 1, 3, 3)).unwrap();
            assert_close(&here.narrow(0, channel, 1).unwrap(), &conv3(&one, &kernel).unwrap());
        }
    }

    #[test]
    fn interpolation_is_that_of_pytorch() {
        // torch.nn.functional.interpolate(torch.arange(4.)[None, None, None], size=(1, n), mode="bilinear"), PyTorch 2.15
        let x = Tensor::arange(0.0_f32, 4.0, &Device::Cpu).unwrap().reshape((1, 1, 4)).unwrap();
        for (columns, expected) in [
            (2, vec![0.5_f32, 2.5]),
            (3, vec![0.166_666_67, 1.5, 2.833_333_3]),
            (7, vec![0.0, 0.357_142_87, 0.928_571_46, 1.5, 2.071_428_5, 2.642_857_3, 3.0]),
        ] {
            let found = resize(&x, 1, columns).unwrap();
            assert_close(&found, &Tensor::from_vec(expected, (1, 1, columns), &Device::Cpu).unwrap());
        }
    }
}
