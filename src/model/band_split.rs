//! From a frame's spectrum to one token a band, the references' `BandSplit`.

use candle_core::{Device, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear};

use super::architecture::Architecture;
use super::norm::RmsNorm;

/// The [`BandLayout`](super::bands::BandLayout) on the device.
pub(super) struct BandFeatures {
    /// Index of every band feature in the frame: [features of all bands]
    pub indices: Tensor,
    /// 1 / number of bands that own a feature, 0 where none does: [features of a frame]
    pub weights: Tensor,
    /// Whether the bands are the whole frame in order, so that nothing needs gathering.
    pub whole: bool,
    /// Features of each band.
    pub sizes: Vec<usize>,
}

impl BandFeatures {
    pub fn new(arch: &Architecture, device: &Device) -> Result<Self> {
        let layout = arch.band_layout();
        let indices: Vec<u32> = layout.indices.iter().map(|&i| i as u32).collect();
        Ok(Self {
            whole: layout.whole,
            indices: Tensor::new(indices, device)?,
            weights: Tensor::new(layout.weights, device)?,
            sizes: arch.band_features(),
        })
    }
}

/// Norm and Linear for each band.
pub(super) struct BandSplit {
    bands: Vec<(RmsNorm, Linear)>,
}

impl BandSplit {
    pub fn new(arch: &Architecture, vb: VarBuilder) -> Result<Self> {
        let bands = arch
            .band_features()
            .iter()
            .enumerate()
            .map(|(k, &features)| {
                let vb = vb.pp(format!("to_features.{k}"));
                Ok((RmsNorm::new(features, vb.pp("0"))?, linear(features, arch.dim, vb.pp("1"))?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { bands })
    }

    /// spec: [batch, frames, features of a frame] → [batch, frames, bands, dim]
    pub fn forward(&self, spec: &Tensor, features: &BandFeatures) -> Result<Tensor> {
        let gathered = if features.whole { spec.clone() } else { spec.index_select(&features.indices, 2)? };
        let mut start = 0;
        let tokens = self
            .bands
            .iter()
            .zip(&features.sizes)
            .map(|((norm, linear), &size)| {
                let band = gathered.narrow(2, start, size)?;
                start += size;
                linear.forward(&norm.forward(&band)?)
            })
            .collect::<Result<Vec<_>>>()?;
        Tensor::stack(&tokens, 2)
    }
}
