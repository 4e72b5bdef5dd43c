//! Mask estimators that are Fourier neural operators over time (arXiv 2010.08895), as in unwa's BS-RoFormer FNO.
//!
//! Reference: `openmirlab/bs-roformer-infer`, `src/bs_roformer/fno.py`, which states the inference of `neuraloperator`'s FNO1d.
//! Everything is f32, as the reference computes it even in mixed precision. A block works on the lowest frequencies alone, so
//! the transforms are products with a matrix of few columns.

use std::f64::consts::TAU;
use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::sigmoid;
use parking_lot::Mutex;

use super::architecture::{Architecture, FnoSizes};
use super::linear::get_f32;

/// One operator a stem and band.
pub(super) struct FnoMasks {
    /// [stem][band]
    operators: Vec<Vec<Operator>>,
    modes: usize,
    /// Transforms of the length met last.
    transforms: Mutex<Option<Arc<Transforms>>>,
}

/// Two pointwise layers with GELU between them.
struct ChannelMlp {
    up: Pointwise,
    down: Pointwise,
}

/// A convolution of width 1 along time: a matrix product.
struct Pointwise {
    /// [input, output]
    weight: Tensor,
    /// [output]
    bias: Option<Tensor>,
}

struct Block {
    /// Real and imaginary part, [modes, channels] each.
    spectrum: [Tensor; 2],
    /// [channels]
    bias: Tensor,
    skip: Pointwise,
    mlp: ChannelMlp,
    /// [channels]
    mlp_skip: Tensor,
}

struct Operator {
    lifting: ChannelMlp,
    blocks: Vec<Block>,
    projection: ChannelMlp,
}

/// The Fourier transform of one length and its inverse, restricted to the lowest frequencies, as real matrices.
struct Transforms {
    frames: usize,
    /// Real and imaginary part of the forward transform, [modes, frames] each.
    forward: [Tensor; 2],
    /// What a real and an imaginary part add to each frame, [frames, modes] each.
    inverse: [Tensor; 2],
    /// Positions 0 to 1: [frames, 1]
    grid: Tensor,
}

impl FnoMasks {
    pub fn new(arch: &Architecture, sizes: FnoSizes, vb: VarBuilder) -> Result<Self> {
        let operator = |stem: usize, band: usize, features: usize| {
            Operator::new(arch.dim, features, sizes, vb.pp(format!("{stem}.to_freqs.{band}.0")))
        };
        let stem = |stem: usize| -> Result<Vec<Operator>> {
            let bands = arch.band_features();
            bands.iter().enumerate().map(|(band, features)| operator(stem, band, *features)).collect()
        };
        Ok(Self {
            operators: (0..arch.num_stems).map(stem).collect::<Result<_>>()?,
            modes: sizes.modes,
            transforms: Mutex::default(),
        })
    }

    /// x: [batch, frames, bands, dim] of any number type → [batch, stems, frames, features of all bands], f32
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(DType::F32)?;
        let transforms = self.transforms(x.dim(1)?, x.device())?;
        let stems = self
            .operators
            .iter()
            .map(|bands| {
                let masks = bands
                    .iter()
                    .enumerate()
                    .map(|(band, operator)| {
                        operator.forward(&x.narrow(2, band, 1)?.squeeze(2)?.contiguous()?, &transforms)
                    })
                    .collect::<Result<Vec<_>>>()?;
                Tensor::cat(&masks, 2)
            })
            .collect::<Result<Vec<_>>>()?;
        Tensor::stack(&stems, 1)
    }

    fn transforms(&self, frames: usize, device: &Device) -> Result<Arc<Transforms>> {
        let mut kept = self.transforms.lock();
        match kept.as_ref().filter(|transforms| transforms.frames == frames) {
            Some(transforms) => Ok(Arc::clone(transforms)),
            None => {
                let made = Arc::new(Transforms::new(frames, self.modes, device)?);
                *kept = Some(Arc::clone(&made));
                Ok(made)
            }
        }
    }
}

impl Transforms {
    fn new(frames: usize, modes: usize, device: &Device) -> Result<Self> {
        // A short signal has fewer frequencies than the network has weights.
        let modes = modes.min(frames / 2 + 1);
        let matrix = |rows: usize, columns: usize, value: &dyn Fn(usize, usize) -> f64| {
            let values: Vec<f32> =
                (0..rows * columns).map(|i| value(i / columns, i % columns) as f32).collect();
            Tensor::from_vec(values, (rows, columns), device)
        };
        let angle = |k: usize, t: usize| TAU * ((k * t) % frames) as f64 / frames as f64;
        // The forward transform is divided by the length (`norm="forward"`), the inverse is not.
        let scale = 1.0 / frames as f64;
        // A frequency stands for its negative too, but for 0 and the highest of an even length, whose imaginary parts vanish.
        let single = |k: usize| k == 0 || 2 * k == frames;
        let weight = |k: usize| if single(k) { 1.0 } else { 2.0 };
        Ok(Self {
            frames,
            forward: [
                matrix(modes, frames, &|k, t| scale * angle(k, t).cos())?,
                matrix(modes, frames, &|k, t| -scale * angle(k, t).sin())?,
            ],
            inverse: [
                matrix(frames, modes, &|t, k| weight(k) * angle(k, t).cos())?,
                matrix(frames, modes, &|t, k| if single(k) { 0.0 } else { -2.0 * angle(k, t).sin() })?,
            ],
            grid: matrix(frames, 1, &|t, _| t as f64 / frames as f64)?,
        })
    }
}

impl Operator {
    fn new(dim: usize, features: usize, sizes: FnoSizes, vb: VarBuilder) -> Result<Self> {
        let blocks = vb.pp("fno_blocks");
        let block = |i: usize| -> Result<Block> {
            let complex = get_f32(&blocks, (dim, sizes.modes, 2), &format!("convs.{i}.weight.tensor"))?;
            let part = |part: usize| complex.narrow(2, part, 1)?.squeeze(2)?.t()?.contiguous();
            Ok(Block {
                spectrum: [part(0)?, part(1)?],
                bias: get_f32(&blocks, (dim, 1), &format!("convs.{i}.bias"))?.flatten_all()?,
                skip: Pointwise::without_bias(dim, dim, blocks.pp(format!("fno_skips.{i}.conv")))?,
                mlp: ChannelMlp::new(dim, sizes.mlp_hidden, dim, blocks.pp(format!("channel_mlp.{i}")))?,
                mlp_skip: get_f32(&blocks, (1, dim, 1), &format!("channel_mlp_skips.{i}.weight"))?
                    .flatten_all()?,
            })
        };
        Ok(Self {
            lifting: ChannelMlp::new(dim + 1, sizes.lifting, dim, vb.pp("lifting"))?,
            blocks: (0..sizes.blocks).map(block).collect::<Result<_>>()?,
            projection: ChannelMlp::new(dim, sizes.projection, 2 * features, vb.pp("projection"))?,
        })
    }

    /// x: [batch, frames, dim] → [batch, frames, features]
    fn forward(&self, x: &Tensor, transforms: &Transforms) -> Result<Tensor> {
        let (batch, frames, _) = x.dims3()?;
        let grid = transforms.grid.unsqueeze(0)?.broadcast_as((batch, frames, 1))?;
        let mut x = self.lifting.forward(&Tensor::cat(&[x, &grid.contiguous()?], 2)?)?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, transforms, i + 1 < self.blocks.len())?;
        }
        let out = self.projection.forward(&x)?;
        let half = out.dim(D::Minus1)? / 2;
        let gate = sigmoid(&out.narrow(D::Minus1, half, half)?.contiguous()?)?;
        out.narrow(D::Minus1, 0, half)? * gate
    }
}

impl Block {
    /// x: [batch, frames, channels] → same shape. `bends`: whether GELU follows both halves.
    fn forward(&self, x: &Tensor, transforms: &Transforms, bends: bool) -> Result<Tensor> {
        let skip = self.skip.forward(x)?;
        let mlp_skip = x.broadcast_mul(&self.mlp_skip)?;
        let bend = |x: Tensor| if bends { x.gelu_erf() } else { Ok(x) };
        let x = bend((self.convolve(x, transforms)? + skip)?)?;
        bend((self.mlp.forward(&x)? + mlp_skip)?)
    }

    /// Multiplies the lowest frequencies by the learned spectrum; the others vanish.
    fn convolve(&self, x: &Tensor, transforms: &Transforms) -> Result<Tensor> {
        let [cos, sin] = &transforms.forward;
        let modes = cos.dim(0)?;
        let (re, im) = (cos.broadcast_matmul(x)?, sin.broadcast_matmul(x)?);
        let [w_re, w_im] = &self.spectrum;
        let (w_re, w_im) = (w_re.narrow(0, 0, modes)?, w_im.narrow(0, 0, modes)?);
        let out_re = (re.broadcast_mul(&w_re)? - im.broadcast_mul(&w_im)?)?;
        let out_im = (re.broadcast_mul(&w_im)? + im.broadcast_mul(&w_re)?)?;
        let [from_re, from_im] = &transforms.inverse;
        (from_re.broadcast_matmul(&out_re)? + from_im.broadcast_matmul(&out_im)?)?.broadcast_add(&self.bias)
    }
}

impl ChannelMlp {
    fn new(input: usize, hidden: usize, output: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            up: Pointwise::new(input, hidden, vb.pp("fcs.0"))?,
            down: Pointwise::new(hidden, output, vb.pp("fcs.1"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.up.forward(x)?.gelu_erf()?)
    }
}

impl Pointwise {
    fn new(input: usize, output: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { bias: Some(get_f32(&vb, output, "bias")?), ..Self::without_bias(input, output, vb)? })
    }

    fn without_bias(input: usize, output: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self { weight: get_f32(&vb, (output, input, 1), "weight")?.squeeze(2)?.t()?, bias: None })
    }

    /// x: [batch, frames, input] → [batch, frames, output]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, frames, input) = x.dims3()?;
        let product = x.reshape((batch * frames, input))?.matmul(&self.weight)?;
        let product = product.reshape((batch, frames, ()))?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}
