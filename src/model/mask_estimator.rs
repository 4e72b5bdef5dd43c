//! From tokens to the complex masks of the stems, the references' `MaskEstimator`.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::sigmoid;

use super::architecture::Architecture;
use super::band_split::runs;
use super::linear::{Activation, Linears, get_f32};
use super::transformer::max_slice_bytes;

/// One MLP per stem and band: Linears with tanh between them, then a gated linear unit. All hidden layers have the same
/// size, so those of all stems and bands are one batched product. The last Linears are one product for each run of bands
/// of equal size.
pub(super) struct MaskEstimators {
    stems: usize,
    number_type: DType,
    /// Bytes of the activations of one frame.
    bytes: usize,
    /// The hidden Linears for every stem and band, in order (band, stem).
    hidden: Vec<Linears>,
    /// For each run of neighbouring bands of equal size: the number of bands, and their last Linears.
    last: Vec<(usize, Linears)>,
}

impl MaskEstimators {
    /// Estimators of the given stems, which are at `0`, `1`, … of `vb`.
    pub fn new(arch: &Architecture, stems: std::ops::Range<usize>, vb: VarBuilder) -> Result<Self> {
        let features = arch.band_features();
        let linear = |stem: usize, band: usize, i: usize| -> Result<(Tensor, Tensor)> {
            let sizes = arch.mask_sizes(features[band]);
            let at = vb.pp(format!("{stem}.to_freqs.{band}.0.{}", 2 * i));
            // Converted at once, because these weights are a third of a large checkpoint.
            Ok((
                get_f32(&at, (sizes[i + 1], sizes[i]), "weight")?.to_dtype(vb.dtype())?,
                get_f32(&at, sizes[i + 1], "bias")?.to_dtype(vb.dtype())?,
            ))
        };
        let linears = |bands: std::ops::Range<usize>, i: usize| -> Result<Linears> {
            let parts = bands
                .flat_map(|band| stems.clone().map(move |stem| (stem, band)))
                .map(|(stem, band)| linear(stem, band, i))
                .collect::<Result<Vec<_>>>()?;
            Linears::new(&parts, vb.dtype())
        };
        let final_linear = arch.mask_linears - 1;
        let mut first = 0;
        Ok(Self {
            stems: stems.len(),
            number_type: vb.dtype(),
            bytes: 4 * features.len() * stems.len() * (arch.dim + 2 * arch.mask_hidden),
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

    /// x: [batch, frames, bands, dim] of any number type → [batch, stems, frames, features of all bands], f32
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, frames, bands, dim) = x.dims4()?;
        // Converted before the copy for every stem.
        let x = x.to_dtype(self.number_type)?.reshape((batch * frames, bands, dim))?;
        let step = (max_slice_bytes(x.device()) / self.bytes.max(1)).max(1);
        let masks = (0..batch * frames)
            .step_by(step)
            .map(|start| self.forward_rows(&x.narrow(0, start, step.min(batch * frames - start))?))
            .collect::<Result<Vec<_>>>()?;
        let masks = Tensor::cat(&masks, 1)?.reshape((self.stems, batch, frames, ()))?;
        masks.transpose(0, 1)?.contiguous()
    }

    /// x: [rows, bands, dim] → [stems, rows, features of all bands]
    fn forward_rows(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, bands, dim) = x.dims3()?;
        // [bands · stems, rows, dim]
        let mut h = x
            .transpose(0, 1)?
            .unsqueeze(1)?
            .broadcast_as((bands, self.stems, rows, dim))?
            .contiguous()?
            .reshape((bands * self.stems, rows, dim))?;
        for linears in &self.hidden {
            h = linears.forward_with_activation(&h, Activation::Tanh)?;
        }
        let mut start = 0;
        let masks = self
            .last
            .iter()
            .map(|(count, linears)| {
                let h = h.narrow(0, start * self.stems, count * self.stems)?;
                start += count;
                let product = linears.product(&h)?;
                #[cfg(any(feature = "cuda", all(test, target_os = "linux")))]
                if let Some(masks) = super::cuda::gate_bands(&product, &linears.biases, *count)? {
                    return Ok(masks);
                }
                let h = product.broadcast_add(&linears.biases)?.to_dtype(DType::F32)?;
                let half = h.dim(2)? / 2;
                let gate = sigmoid(&h.narrow(2, half, half)?.contiguous()?)?;
                // [stems, rows, bands · features]
                (h.narrow(2, 0, half)? * gate)?
                    .reshape((*count, self.stems, rows, half))?
                    .permute((1, 2, 0, 3))?
                    .reshape((self.stems, rows, count * half))
            })
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&masks, 2)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::weights::seeded;

    #[test]
    fn slices_of_frames_change_nothing() {
        let mut arch = Architecture::reference_default();
        (arch.dim, arch.mask_hidden, arch.num_stems) = (6, 10, 3);
        arch.bands = vec![(0..2).collect(), (2..4).collect(), (4..9).collect()];
        let mut masks = MaskEstimators::new(&arch, 0..3, seeded(1, &Device::Cpu)).unwrap();
        let values: Vec<f32> = (0..2 * 7 * 3 * 6).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let x = Tensor::from_vec(values, (2, 7, 3, 6), &Device::Cpu).unwrap();
        let whole = masks.forward(&x).unwrap();
        assert_eq!(whole.dims(), [2, 3, 7, 2 * 2 * 9]);
        masks.bytes = max_slice_bytes(&Device::Cpu) / 4;
        let sliced = masks.forward(&x).unwrap();
        let error = (whole - sliced).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(error < 1e-6, "{error}");
    }
}
