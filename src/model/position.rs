//! Position embeddings of the attention: rotary (arXiv 2104.09864) or polar, PoPE (arXiv 2509.10534).

use std::f64::consts::TAU;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use parking_lot::Mutex;

use super::architecture::{Architecture, Position};
use super::linear::get_f32;

/// Number of sequence lengths whose tables are cached: frames and bands of a chunk, of a window and of a song's last chunk.
const KEPT: usize = 4;

/// Position embedding of one attention.
pub(super) struct PositionEmbed {
    kind: Kind,
    /// Number type of q and k.
    dtype: DType,
    /// Tables of the most recent lengths, on the device, so that a chunk needs no upload from the host.
    tables: Mutex<Vec<(usize, Arc<Tables>)>>,
}

enum Kind {
    /// Rotates interleaved pairs of q and k. freqs: [dim_head / 2]
    Rotary { freqs: Vec<f32> },
    /// Converts q and k to polar form. inv_freqs: [dim_head], bias: [heads, dim_head]
    Polar { inv_freqs: Vec<f32>, bias: Vec<f32>, heads: usize },
}

impl PositionEmbed {
    pub fn new(arch: &Architecture, vb: VarBuilder) -> Result<Self> {
        let (dim, dtype) = (arch.dim_head, vb.dtype());
        // Taken from the checkpoint where it has them, because training may have changed them.
        let stored = |vb: &VarBuilder, name: &str, len: usize, step: f64| -> Result<Vec<f32>> {
            if vb.contains_tensor(name) {
                get_f32(vb, len, name)?.to_device(&Device::Cpu)?.to_vec1()
            } else {
                Ok((0..len).map(|i| 10_000f64.powf(-step * i as f64 / dim as f64) as f32).collect())
            }
        };
        let kind = match arch.position {
            Position::Rotary => {
                Kind::Rotary { freqs: stored(&vb.pp("rotary_embed"), "freqs", dim / 2, 2.0)? }
            }
            Position::Polar => {
                let vb = vb.pp("pope_embed");
                let bias = get_f32(&vb, (arch.heads, dim), "bias")?.to_device(&Device::Cpu)?;
                let bias = bias.flatten_all()?.to_vec1::<f32>()?;
                Kind::Polar {
                    inv_freqs: stored(&vb, "inv_freqs", dim, 1.0)?,
                    bias: bias.into_iter().map(|b| b.clamp(-TAU as f32, 0.0)).collect(),
                    heads: arch.heads,
                }
            }
        };
        Ok(Self { kind, dtype, tables: Mutex::default() })
    }

    /// Frequencies of the rotary embedding; `None` for the polar one.
    pub fn rotary_freqs(&self) -> Option<&[f32]> {
        match &self.kind {
            Kind::Rotary { freqs } => Some(freqs),
            Kind::Polar { .. } => None,
        }
    }

    /// The tables for sequences of `len` tokens.
    pub fn tables(&self, len: usize, device: &Device) -> Result<Arc<Tables>> {
        let mut kept = self.tables.lock();
        if let Some((_, tables)) = kept.iter().find(|(known, _)| *known == len) {
            return Ok(Arc::clone(tables));
        }
        // The angle in f32, as the references take it.
        let tables =
            Arc::new(self.make_tables(len, device, |pos, freq, bias| f64::from(pos as f32 * freq + bias))?);
        kept.truncate(KEPT - 1);
        kept.insert(0, (len, Arc::clone(&tables)));
        Ok(tables)
    }

    /// The tables for positions `first..first + len`, for streams whose keys are kept. The angles are taken in f64, so that they are good
    /// to 1e-7 for the first 10⁹ positions.
    pub fn tables_from(&self, first: u64, len: usize, device: &Device) -> Result<Tables> {
        let angle = |pos, freq, bias| (first + pos as u64) as f64 * f64::from(freq) + f64::from(bias);
        self.make_tables(len, device, angle)
    }

    /// `angle` gives the angle of a position, a frequency and a bias.
    fn make_tables(
        &self,
        len: usize,
        device: &Device,
        angle: impl Fn(usize, f32, f32) -> f64 + Copy,
    ) -> Result<Tables> {
        match &self.kind {
            Kind::Rotary { freqs } => {
                let (cos, sin) = table(len, freqs, None, angle)?;
                let place = |x: Tensor| x.to_device(device)?.to_dtype(self.dtype);
                Ok(Tables::Rotary { cos: place(cos)?, sin: place(sin)? })
            }
            Kind::Polar { inv_freqs, bias, heads } => {
                let (q_cos, q_sin) = table(len, inv_freqs, None, angle)?;
                let per_head: Vec<_> = bias
                    .chunks_exact(inv_freqs.len())
                    .map(|bias| table(len, inv_freqs, Some(bias), angle))
                    .collect::<Result<_>>()?;
                debug_assert_eq!(per_head.len(), *heads);
                let stack = |tensors: Vec<&Tensor>| Tensor::stack(&tensors, 0)?.to_device(device);
                Ok(Tables::Polar {
                    q: [q_cos.to_device(device)?, q_sin.to_device(device)?],
                    k: [
                        stack(per_head.iter().map(|t| &t.0).collect())?,
                        stack(per_head.iter().map(|t| &t.1).collect())?,
                    ],
                })
            }
        }
    }
}

/// Cosines and sines of `angle(pos, freq, bias)`: [len, freqs] each, as exact as the angle.
fn table(
    len: usize,
    freqs: &[f32],
    bias: Option<&[f32]>,
    angle: impl Fn(usize, f32, f32) -> f64,
) -> Result<(Tensor, Tensor)> {
    let of_angles = |f: fn(f64) -> f64| -> Result<Tensor> {
        let mut values = Vec::with_capacity(len * freqs.len());
        for pos in 0..len {
            for (i, &freq) in freqs.iter().enumerate() {
                values.push(f(angle(pos, freq, bias.map_or(0.0, |bias| bias[i]))) as f32);
            }
        }
        Tensor::from_vec(values, (len, freqs.len()), &Device::Cpu)
    };
    Ok((of_angles(f64::cos)?, of_angles(f64::sin)?))
}

/// Cosines and sines for one sequence length, on the device.
pub(super) enum Tables {
    /// [len, dim_head / 2] each, in the number type of q and k.
    Rotary { cos: Tensor, sin: Tensor },
    /// q: [len, dim_head], k: [heads, len, dim_head], cosine and sine, f32.
    Polar { q: [Tensor; 2], k: [Tensor; 2] },
}

impl Tables {
    /// qkv: [sequences, len, (qkv h d)] → q and k with their positions, q scaled too, and v: [sequences, heads, len, dim_head], q and k in the
    /// polar form with twice the features.
    pub fn split_heads(&self, qkv: &Tensor, heads: usize) -> Result<[Tensor; 3]> {
        let (sequences, len, width) = qkv.dims3()?;
        let dim_head = width / 3 / heads;
        #[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
        if let Self::Rotary { cos, sin } = self
            && let Some(split) = super::cuda::split_heads(qkv, cos, sin, heads)?
        {
            return Ok([split.get(0)?, split.get(1)?, split.get(2)?]);
        }
        let qkv =
            qkv.reshape((sequences, len, 3, heads, dim_head))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
        let (q, k) = self.apply(&qkv.get(0)?, &qkv.get(1)?)?;
        Ok([(q * (dim_head as f64).powf(-0.5))?, k, qkv.get(2)?])
    }

    /// q and k with their positions.
    fn apply(&self, q: &Tensor, k: &Tensor) -> Result<(Tensor, Tensor)> {
        match self {
            Self::Rotary { cos, sin } => Ok((rotate(q, cos, sin)?, rotate(k, cos, sin)?)),
            Self::Polar { q: q_table, k: k_table } => {
                // Magnitude softplus(x), phase from the table; real parts first, then imaginary parts. The dot product does not
                // depend on the order of features.
                let polar = |x: &Tensor, [cos, sin]: &[Tensor; 2]| -> Result<Tensor> {
                    let magnitude = softplus(&x.to_dtype(DType::F32)?)?;
                    Tensor::cat(&[magnitude.broadcast_mul(cos)?, magnitude.broadcast_mul(sin)?], 3)?
                        .to_dtype(x.dtype())
                };
                Ok((polar(q, q_table)?, polar(k, k_table)?))
            }
        }
    }
}

/// Rotates the interleaved pairs of x: [batch, heads, len, dim_head]. An odd last feature stays as it is.
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (dim, pairs) = (x.dim(3)?, cos.dim(1)?);
    if dim == 2 * pairs {
        return candle_nn::rotary_emb::rope_i(&x.contiguous()?, cos, sin);
    }
    if pairs == 0 {
        return Ok(x.clone());
    }
    let rotated = candle_nn::rotary_emb::rope_i(&x.narrow(3, 0, 2 * pairs)?.contiguous()?, cos, sin)?;
    Tensor::cat(&[rotated, x.narrow(3, 2 * pairs, dim - 2 * pairs)?], 3)
}

/// `torch.nn.functional.softplus`: ln(1 + eˣ), x itself above 20.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let linear = x.gt(20f64)?.to_dtype(DType::U8)?;
    let curved = (x.minimum(20f64)?.exp()? + 1.0)?.log()?;
    linear.where_cond(x, &curved)
}
