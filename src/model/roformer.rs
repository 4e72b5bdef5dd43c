//! The network: from the spectrum of a mixture to one complex mask per stem.

mod context;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::Architecture;
use super::band_split::{BandFeatures, BandSplit};
use super::mask_head::MaskHead;
use super::norm::RmsNorm;
use super::siamese::SiameseTrunk;
use super::transformer::{Axis, Transformer};
use crate::kernels::JobControl;
pub use context::RoformerContext;
use context::TimeHop;

/// BS-RoFormer or Mel-Band RoFormer, as described by its [`Architecture`].
pub struct Roformer {
    architecture: Architecture,
    device: Device,
    number_type: DType,
    features: BandFeatures,
    band_split: BandSplit,
    layers: Vec<Layer>,
    /// Instead of the layers.
    siamese: Option<SiameseTrunk>,
    final_norm: Option<RmsNorm>,
    mask_head: MaskHead,
}

/// The transformers of one layer.
struct Layer {
    linear: Option<Transformer>,
    time: Transformer,
    freq: Transformer,
}

/// The first layer's values of each transformer, for value residuals.
#[derive(Default)]
struct FirstValues {
    linear: Option<Tensor>,
    time: Option<Tensor>,
    freq: Option<Tensor>,
}

impl Roformer {
    /// Builds the network on the device of `vb`, whose names and shapes must be those of
    /// [`Architecture::tensors`]. The number type of `vb` is that of the matrix products: f32, f16 or bf16.
    ///
    /// # Errors
    /// A candle error where a tensor is missing or has the wrong shape, or the device is out of memory.
    pub fn new(architecture: &Architecture, vb: VarBuilder) -> Result<Self> {
        let arch = architecture;
        let siamese = if arch.siamese { Some(SiameseTrunk::new(arch, &vb)?) } else { None };
        let plain_layers = if arch.siamese { 0 } else { arch.depth };
        let layers = (0..plain_layers)
            .map(|i| {
                let vb = vb.pp(format!("layers.{i}"));
                let [linear_at, time_at, freq_at] = arch.transformer_indices;
                let transformer = |axis, depth, at: usize| Transformer::new(arch, axis, depth, i, vb.pp(at));
                Ok(Layer {
                    linear: if arch.linear_transformer_depth > 0 {
                        Some(transformer(Axis::Linear, arch.linear_transformer_depth, linear_at)?)
                    } else {
                        None
                    },
                    time: transformer(Axis::Time, arch.time_transformer_depth, time_at)?,
                    freq: transformer(Axis::Freq, arch.freq_transformer_depth, freq_at)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            features: BandFeatures::new(arch, vb.device())?,
            band_split: BandSplit::new(arch, vb.pp("band_split"))?,
            layers,
            siamese,
            final_norm: if arch.final_norm() {
                Some(RmsNorm::new(arch.dim, vb.pp("final_norm"))?)
            } else {
                None
            },
            mask_head: MaskHead::new(arch, vb.pp("mask_estimators"))?,
            device: vb.device().clone(),
            number_type: vb.dtype(),
            architecture: architecture.clone(),
        })
    }

    /// The architecture of the network.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The device of the network.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The number type of the matrix products.
    pub fn number_type(&self) -> DType {
        self.number_type
    }

    /// spec: [batch, frames, (f s) c] → masks [batch, stems, frames, (f s) c], both f32. Bins that no band owns get the mask 0.
    ///
    /// # Errors
    /// A candle error, such as a device out of memory.
    pub fn forward(&self, spec: &Tensor) -> Result<Tensor> {
        self.forward_controlled(spec, &())
    }

    /// As [`Self::forward`]; asks `control` between transformers.
    ///
    /// # Errors
    /// A candle error, also when `control` cancels the pass.
    pub fn forward_controlled(&self, spec: &Tensor, control: &dyn JobControl) -> Result<Tensor> {
        let (batch, frames, _) = spec.dims3()?;
        let mut x = self.band_split.forward(spec, &self.features)?;
        let bands = x.dim(2)?;
        let streams = self.architecture.hyper_connections.map_or(1, |h| h.streams);
        if streams > 1 {
            let dim = x.dim(3)?;
            x = x.unsqueeze(1)?.broadcast_as((batch, streams, frames, bands, dim))?.reshape((
                batch * streams,
                frames,
                bands,
                dim,
            ))?;
        }
        let mut first = FirstValues::default();
        let mut earlier: Option<Tensor> = None;
        for layer in &self.layers {
            x = layer.forward(
                x,
                &mut first,
                &mut earlier,
                self.architecture.skip_connection,
                None,
                control,
            )?;
        }
        if streams > 1 {
            let dim = x.dim(3)?;
            x = x.reshape((batch, streams, frames, bands, dim))?.sum(1)?;
        }
        if let (Some(trunk), Some(norm)) = (&self.siamese, &self.final_norm) {
            let (normalised, sum) = trunk.forward(&x, control)?;
            x = (normalised + norm.forward(&sum, DType::F32)?)?;
            return self.features.onto_frame(&self.mask_head.forward(&x)?);
        }
        self.estimate_masks(x)
    }

    /// x: [batch, frames, bands, dim] → masks [batch, stems, frames, (f s) c].
    fn estimate_masks(&self, mut x: Tensor) -> Result<Tensor> {
        if let Some(norm) = &self.final_norm {
            x = norm.forward(&x, self.number_type)?;
        }
        self.features.onto_frame(&self.mask_head.forward(&x)?)
    }
}

impl Layer {
    /// x: [batch · streams, frames, bands, dim] → same shape. `hop` where x is the next frames of one stream.
    fn forward(
        &self,
        mut x: Tensor,
        first: &mut FirstValues,
        earlier: &mut Option<Tensor>,
        skip_connection: bool,
        hop: Option<TimeHop<'_>>,
        control: &dyn JobControl,
    ) -> Result<Tensor> {
        let (leading, frames, bands, dim) = x.dims4()?;
        let run = |transformer: &Transformer, x: Tensor, first: &mut Option<Tensor>| -> Result<Tensor> {
            checkpoint(control)?;
            let (x, values) = transformer.forward(&x, first.as_ref())?;
            if first.is_none() {
                *first = values;
            }
            Ok(x)
        };
        if let Some(linear) = &self.linear {
            let joined = x.reshape((leading, frames * bands, dim))?;
            x = run(linear, joined, &mut first.linear)?.reshape((leading, frames, bands, dim))?;
        }
        if skip_connection && let Some(earlier) = earlier.as_ref() {
            x = (x + earlier)?;
        }
        let by_band = x.transpose(1, 2)?.contiguous()?.reshape((leading * bands, frames, dim))?;
        let by_band = match hop {
            None => run(&self.time, by_band, &mut first.time)?,
            Some(hop) => {
                checkpoint(control)?;
                let (x, values) =
                    self.time.forward_hop(&by_band, first.time.as_ref(), hop.first, hop.kept)?;
                first.time = first.time.take().or(values);
                x
            }
        };
        let by_band = by_band.reshape((leading, bands, frames, dim))?;
        let by_frame = by_band.transpose(1, 2)?.contiguous()?.reshape((leading * frames, bands, dim))?;
        let x = run(&self.freq, by_frame, &mut first.freq)?.reshape((leading, frames, bands, dim))?;
        if skip_connection {
            *earlier = Some(match earlier.take() {
                Some(earlier) => (earlier + &x)?,
                None => x.clone(),
            });
        }
        Ok(x)
    }
}

fn checkpoint(control: &dyn JobControl) -> Result<()> {
    if control.checkpoint().is_break() {
        candle_core::bail!("the computation was cancelled");
    }
    Ok(())
}
