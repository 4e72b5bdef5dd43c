//! From tokens to the stems' complex masks, the references' `MaskEstimator`.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::sigmoid;

use super::architecture::Architecture;
use super::band_split::runs;
use super::linear::{Linears, get_f32};

/// One MLP a stem and band: Linears with tanh between them, then a gated linear unit. All hidden layers have one size, so
/// those of all stems and bands are one product each; the last ones are one for each run of bands of one size.
pub(super) struct MaskEstimators {
    stems: usize,
    /// All but the last Linear, for every stem and band: stems · bands, band by band.
    hidden: Vec<Linears>,
    /// The last Linear of each run of neighbouring bands of one size, and how many they are.
    last: Vec<(usize, Linears)>,
}

impl MaskEstimators {
    /// The estimators `0`, `1`, … at `vb`.
    pub fn new(arch: &Architecture, vb: VarBuilder) -> Result<Self> {
        let features = arch.band_features();
        let linear = |stem: usize, band: usize, i: usize| -> Result<(Tensor, Tensor)> {
            let sizes = arch.mask_sizes(features[band]);
            let at = vb.pp(format!("{stem}.to_freqs.{band}.0.{}", 2 * i));
            // Straight to the number type: they are a third of a large checkpoint.
            Ok((
                get_f32(&at, (sizes[i + 1], sizes[i]), "weight")?.to_dtype(vb.dtype())?,
                get_f32(&at, sizes[i + 1], "bias")?.to_dtype(vb.dtype())?,
            ))
        };
        let linears = |bands: std::ops::Range<usize>, i: usize| -> Result<Linears> {
            let parts = bands
                .flat_map(|band| (0..arch.num_stems).map(move |stem| (stem, band)))
                .map(|(stem, band)| linear(stem, band, i))
                .collect::<Result<Vec<_>>>()?;
            Linears::new(&parts, vb.dtype())
        };
        let final_linear = arch.mask_linears - 1;
        let mut first = 0;
        Ok(Self {
            stems: arch.num_stems,
            hidden: (0..final_linear).map(|i| linears(0..features.len(), i)).collect::<Result<_>>()?,
            last: runs(&features)
                .into_iter()
                .map(|(count, _)| {
                    first += count;
                    Ok((count, linears(first - count..first, final_linear)?))
                })
                .collect::<Result<_>>()?,
        })
    }

    /// x: [batch, frames, bands, dim], f32 → [batch, stems, frames, features of all bands], f32
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, frames, bands, dim) = x.dims4()?;
        let rows = batch * frames;
        // [bands · stems, rows, dim]
        let mut h = x
            .reshape((rows, bands, dim))?
            .transpose(0, 1)?
            .unsqueeze(1)?
            .broadcast_as((bands, self.stems, rows, dim))?
            .contiguous()?
            .reshape((bands * self.stems, rows, dim))?;
        for linears in &self.hidden {
            h = linears.forward(&h)?.tanh()?;
        }
        let mut start = 0;
        let masks = self
            .last
            .iter()
            .map(|(count, linears)| {
                let h = h.narrow(0, start * self.stems, count * self.stems)?;
                start += count;
                let h = linears.forward(&h)?.to_dtype(DType::F32)?;
                let half = h.dim(2)? / 2;
                let gate = sigmoid(&h.narrow(2, half, half)?.contiguous()?)?;
                // [stems, rows, bands · features]
                (h.narrow(2, 0, half)? * gate)?
                    .reshape((*count, self.stems, rows, half))?
                    .permute((1, 2, 0, 3))?
                    .reshape((self.stems, rows, count * half))
            })
            .collect::<Result<Vec<_>>>()?;
        let masks = Tensor::cat(&masks, 2)?.reshape((self.stems, batch, frames, ()))?;
        masks.transpose(0, 1)?.contiguous()
    }
}
