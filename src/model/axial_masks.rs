//! Mask estimators with their own transformers over time and frequency, as in unwa's BS-RoFormer Large-Inst v2.
//!
//! Reference: `openmirlab/bs-roformer-infer`, `src/bs_roformer/large_inst.py`.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::{AXIAL_DIM_HEAD, AXIAL_HEADS, Architecture, Family, Position};
use super::mask_estimator::MaskEstimators;
use super::norm::RmsNorm;
use super::transformer::{Axis, Transformer};

/// For each stem: transformers in pairs, a norm, and the usual MLPs.
pub(super) struct AxialMasks {
    stems: Vec<Stem>,
}

struct Stem {
    layers: Vec<[Transformer; 2]>,
    norm: RmsNorm,
    masks: MaskEstimators,
}

impl AxialMasks {
    pub fn new(arch: &Architecture, layers: usize, ff_inner: usize, vb: VarBuilder) -> Result<Self> {
        let inner = transformer_architecture(arch, ff_inner);
        let stem = |stem: usize| -> Result<Stem> {
            let at = vb.pp(stem);
            let pair = |layer: usize| -> Result<[Transformer; 2]> {
                let at = at.pp(format!("layers.{layer}"));
                Ok([
                    Transformer::new(&inner, Axis::Time, 1, 0, at.pp(0))?,
                    Transformer::new(&inner, Axis::Freq, 1, 0, at.pp(1))?,
                ])
            };
            Ok(Stem {
                layers: (0..layers).map(pair).collect::<Result<_>>()?,
                norm: RmsNorm::new(arch.dim, at.pp("norm"))?,
                masks: MaskEstimators::new(arch, stem..stem + 1, vb.clone())?,
            })
        };
        Ok(Self { stems: (0..arch.num_stems).map(stem).collect::<Result<_>>()? })
    }

    /// x: [batch, frames, bands, dim] of any number type → [batch, stems, frames, features of all bands], f32
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(DType::F32)?;
        let masks = self.stems.iter().map(|stem| stem.forward(&x)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&masks, 1)
    }
}

impl Stem {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, frames, bands, dim) = x.dims4()?;
        let mut x = x.clone();
        for [time, freq] in &self.layers {
            let by_band = x.transpose(1, 2)?.contiguous()?.reshape((batch * bands, frames, dim))?;
            let by_band = time.forward(&by_band, None)?.0.reshape((batch, bands, frames, dim))?;
            let by_frame = by_band.transpose(1, 2)?.contiguous()?.reshape((batch * frames, bands, dim))?;
            x = freq.forward(&by_frame, None)?.0.reshape((batch, frames, bands, dim))?;
        }
        self.masks.forward(&self.norm.forward(&x, DType::F32)?)
    }
}

/// The description of the transformers of a mask estimator.
fn transformer_architecture(arch: &Architecture, ff_inner: usize) -> Architecture {
    Architecture {
        // Without a norm after each transformer.
        family: Family::BsRoformer,
        heads: AXIAL_HEADS,
        dim_head: AXIAL_DIM_HEAD,
        ff_inner,
        position: Position::Rotary,
        value_residual: None,
        hyper_connections: None,
        branch_names: false,
        attention_biases: false,
        experimental_residuals: false,
        conformer: None,
        ..arch.clone()
    }
}
