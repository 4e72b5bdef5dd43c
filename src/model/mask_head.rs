//! The part of a network that turns tokens into masks: the references' MLPs, alone or with a refinement in front.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::{Architecture, MaskKind};
use super::axial_masks::AxialMasks;
use super::fno_masks::FnoMasks;
use super::hyperace::HyperAceMasks;
use super::mask_estimator::MaskEstimators;

/// The mask estimators of all stems.
pub(super) enum MaskHead {
    Mlp(MaskEstimators),
    Axial(AxialMasks),
    Fno(FnoMasks),
    HyperAce(HyperAceMasks),
}

impl MaskHead {
    /// The estimators `0`, `1`, … at `vb`.
    pub fn new(arch: &Architecture, vb: VarBuilder) -> Result<Self> {
        Ok(match arch.masks {
            MaskKind::Mlp => Self::Mlp(MaskEstimators::new(arch, 0..arch.num_stems, vb)?),
            MaskKind::Axial { layers, ff_inner } => Self::Axial(AxialMasks::new(arch, layers, ff_inner, vb)?),
            MaskKind::Fno(sizes) => Self::Fno(FnoMasks::new(arch, sizes, vb)?),
            MaskKind::HyperAce(sizes) => Self::HyperAce(HyperAceMasks::new(arch, &sizes, vb)?),
        })
    }

    /// x: [batch, frames, bands, dim] of any number type → [batch, stems, frames, features of all bands], f32
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Mlp(masks) => masks.forward(x),
            Self::Axial(masks) => masks.forward(x),
            Self::Fno(masks) => masks.forward(x),
            Self::HyperAce(masks) => masks.forward(x),
        }
    }
}
