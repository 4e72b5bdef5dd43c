//! From the spectrum of a frame to one token per band, the references' `BandSplit`.

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::Architecture;
use super::linear::{Linears, get_f32};
use super::norm::RmsNorm;

/// The [`BandLayout`](super::bands::BandLayout) on the device.
pub(super) struct BandFeatures {
    /// Index of every band feature in the frame: [features of all bands]
    pub indices: Tensor,
    /// Whether the bands cover the frame in order, so that no gather is needed.
    pub whole: bool,
    /// For the first, second, … band that owns a feature of the frame: its index among the features of all bands, and 1, or 0
    /// where there is no such band: [features of a frame] each.
    owners: Vec<(Tensor, Tensor)>,
    /// 1 / number of bands that own a feature, 0 where none does: [features of a frame]
    weights: Tensor,
}

impl BandFeatures {
    pub fn new(arch: &Architecture, device: &Device) -> Result<Self> {
        let layout = arch.band_layout();
        let mut places = vec![Vec::new(); layout.weights.len()];
        layout.indices.iter().enumerate().for_each(|(place, &i)| places[i].push(place as u32));
        let most = places.iter().map(Vec::len).max().unwrap_or(0);
        let owners = (0..most)
            .map(|k| {
                let place: Vec<u32> =
                    places.iter().map(|all| all.get(k).or(all.first()).copied().unwrap_or(0)).collect();
                let there: Vec<f32> =
                    places.iter().map(|all| if k < all.len() { 1.0 } else { 0.0 }).collect();
                Ok((Tensor::new(place, device)?, Tensor::new(there, device)?))
            })
            .collect::<Result<_>>()?;
        let indices: Vec<u32> = layout.indices.iter().map(|&i| i as u32).collect();
        Ok(Self {
            whole: layout.whole,
            indices: Tensor::new(indices, device)?,
            weights: Tensor::new(layout.weights, device)?,
            owners,
        })
    }

    /// Maps the masks of all bands to the frame; bins shared by several bands get the mean. [..., band features] → [..., (f s) c]
    pub fn onto_frame(&self, masks: &Tensor) -> Result<Tensor> {
        if self.whole {
            return Ok(masks.clone());
        }
        // Gathered, not scattered: on GPUs, scattered additions to the same element are serialised.
        let mut sum: Option<Tensor> = None;
        for (place, there) in &self.owners {
            let part = masks.index_select(place, masks.rank() - 1)?.broadcast_mul(there)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        match sum {
            Some(sum) => sum.broadcast_mul(&self.weights),
            None => candle_core::bail!("a network without bands"),
        }
    }
}

/// Runs of equal neighbours, as (length, value).
pub(super) fn runs(sizes: &[usize]) -> Vec<(usize, usize)> {
    sizes.chunk_by(|a, b| a == b).map(|run| (run.len(), run[0])).collect()
}

/// Norm and Linear for each band. Neighbouring bands of equal size share one product.
pub(super) struct BandSplit {
    groups: Vec<Group>,
}

/// Neighbouring bands of equal size.
struct Group {
    bands: usize,
    features: usize,
    /// Without gain, because the gains are folded into the weights.
    norm: RmsNorm,
    linears: Linears,
}

impl BandSplit {
    pub fn new(arch: &Architecture, vb: VarBuilder) -> Result<Self> {
        let mut first = 0;
        let groups = runs(&arch.band_features())
            .into_iter()
            .map(|(bands, features)| {
                let parts = (first..first + bands)
                    .map(|k| {
                        let vb = vb.pp(format!("to_features.{k}"));
                        let gamma = get_f32(&vb, features, "0.gamma")?;
                        let weight = get_f32(&vb, (arch.dim, features), "1.weight")?.broadcast_mul(&gamma)?;
                        Ok((weight, get_f32(&vb, arch.dim, "1.bias")?))
                    })
                    .collect::<Result<Vec<_>>>()?;
                first += bands;
                let norm = RmsNorm::plain(features, vb.device())?;
                Ok(Group { bands, features, norm, linears: Linears::new(&parts, vb.dtype())? })
            })
            .collect::<Result<_>>()?;
        Ok(Self { groups })
    }

    /// spec: [batch, frames, features of a frame], f32 → [batch, frames, bands, dim], f32
    pub fn forward(&self, spec: &Tensor, features: &BandFeatures) -> Result<Tensor> {
        let (batch, frames, _) = spec.dims3()?;
        let gathered = if features.whole { spec.clone() } else { spec.index_select(&features.indices, 2)? };
        let mut start = 0;
        let tokens = self
            .groups
            .iter()
            .map(|group| {
                let size = group.bands * group.features;
                let bands = gathered.narrow(2, start, size)?.contiguous()?;
                start += size;
                // [bands, batch · frames, features]
                let bands = bands.reshape((batch * frames, group.bands, group.features))?.transpose(0, 1)?;
                group.linears.forward(&group.norm.forward(&bands, group.linears.number_type())?)
            })
            .collect::<Result<Vec<_>>>()?;
        let tokens = Tensor::cat(&tokens, 0)?.transpose(0, 1)?.contiguous()?;
        tokens.reshape((batch, frames, (), tokens.dim(2)?))?.to_dtype(candle_core::DType::F32)
    }
}
