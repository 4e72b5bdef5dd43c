//! From tokens to one stem's complex mask, the references' `MaskEstimator`.

use candle_core::{Result, Tensor};
use candle_nn::ops::sigmoid;
use candle_nn::{Linear, Module, VarBuilder, linear};

use super::architecture::Architecture;

/// One MLP a band: Linears with tanh between them, then a gated linear unit.
pub(super) struct MaskEstimator {
    bands: Vec<Vec<Linear>>,
}

impl MaskEstimator {
    pub fn new(arch: &Architecture, vb: VarBuilder) -> Result<Self> {
        let bands = arch
            .band_features()
            .iter()
            .enumerate()
            .map(|(k, &features)| {
                arch.mask_sizes(features)
                    .windows(2)
                    .enumerate()
                    .map(|(i, io)| linear(io[0], io[1], vb.pp(format!("to_freqs.{k}.0.{}", 2 * i))))
                    .collect::<Result<Vec<_>>>()
            })
            .collect::<Result<_>>()?;
        Ok(Self { bands })
    }

    /// x: [batch, frames, bands, dim] → [batch, frames, features of all bands]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let masks = self
            .bands
            .iter()
            .enumerate()
            .map(|(k, linears)| {
                let mut h = x.narrow(2, k, 1)?.squeeze(2)?.contiguous()?;
                for (i, linear) in linears.iter().enumerate() {
                    if i > 0 {
                        h = h.tanh()?;
                    }
                    h = linear.forward(&h)?;
                }
                let half = h.dim(2)? / 2;
                h.narrow(2, 0, half)? * sigmoid(&h.narrow(2, half, half)?.contiguous()?)?
            })
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&masks, 2)
    }
}
