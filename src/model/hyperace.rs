//! HyperACE: the usual mask estimators plus a convolutional network over frames and bands, as in unwa's BS-RoFormer HyperACE.
//!
//! An encoder halves the frames five times; hypergraph attention relates the points of its four last scales (arXiv 2506.17733, YOLOv13);
//! a decoder returns to the first scale, with what the attention gives it; pixel shuffles raise the bands to bins. Its result is added to the
//! masks. References: `splifft` 0.0.9 for version 1, `pymss-core` 0.1.14 for version 2; names are theirs. Everything is f32.

mod blocks;
mod hypergraph;
mod upsample;

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::{Architecture, HyperAceSizes};
use super::linear::get_f32;
use super::mask_estimator::MaskEstimators;
use super::planes::resize;
use blocks::{Conv, DsC3k2, DsConv};
use hypergraph::HyperAce;
use upsample::UpsampleHead;

/// Mask estimators with a HyperACE head each.
pub(super) struct HyperAceMasks {
    masks: MaskEstimators,
    /// One a stem.
    heads: Vec<SegmModel>,
}

impl HyperAceMasks {
    pub fn new(arch: &Architecture, sizes: &HyperAceSizes, vb: VarBuilder) -> Result<Self> {
        let head = |stem: usize| SegmModel::new(arch, sizes, vb.pp(format!("{stem}.segm")));
        Ok(Self {
            heads: (0..arch.num_stems).map(head).collect::<Result<_>>()?,
            masks: MaskEstimators::new(arch, 0..arch.num_stems, vb)?,
        })
    }

    /// x: [batch, frames, bands, dim] of any number type → [batch, stems, frames, features of all bands], f32
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let masks = self.masks.forward(x)?;
        let x = x.to_dtype(DType::F32)?;
        // One chunk at a time: instance norms look at a chunk alone, and the head needs much memory.
        let chunks = (0..x.dim(0)?)
            .map(|chunk| {
                let x = x.get(chunk)?.permute((2, 0, 1))?.contiguous()?;
                let heads = self.heads.iter().map(|head| head.forward(&x)).collect::<Result<Vec<_>>>()?;
                Tensor::stack(&heads, 0)
            })
            .collect::<Result<Vec<_>>>()?;
        masks + Tensor::stack(&chunks, 0)?
    }
}

/// The head of one stem.
struct SegmModel {
    backbone: Backbone,
    hyperace: HyperAce,
    decoder: Decoder,
    upsample_head: UpsampleHead,
}

impl SegmModel {
    fn new(arch: &Architecture, sizes: &HyperAceSizes, vb: VarBuilder) -> Result<Self> {
        let features: usize = arch.band_features().iter().sum();
        Ok(Self {
            backbone: Backbone::new(arch.dim, sizes, vb.pp("backbone"))?,
            hyperace: HyperAce::new(sizes, vb.pp("hyperace"))?,
            decoder: Decoder::new(sizes, vb.pp("decoder"))?,
            upsample_head: UpsampleHead::new(arch.bands.len(), features, sizes, vb.pp("upsample_head"))?,
        })
    }

    /// x: [dim, frames, bands] → masks [frames, features of all bands]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let frames = x.dim(1)?;
        let stages = self.backbone.forward(x)?;
        let related = self.hyperace.forward(&stages)?;
        let decoded = self.decoder.forward(&stages, &related)?;
        let decoded = resize(&decoded, frames, decoded.dim(2)?)?;
        // [channels, frames, points] → [frames, (points channels)]
        self.upsample_head.forward(&decoded)?.permute((1, 2, 0))?.contiguous()?.reshape((frames, ()))
    }
}

/// The encoder.
struct Backbone {
    stem: DsConv,
    stages: Vec<(DsConv, DsC3k2)>,
}

impl Backbone {
    fn new(dim: usize, sizes: &HyperAceSizes, vb: VarBuilder) -> Result<Self> {
        let [stem_stride, strides @ ..] = sizes.strides();
        let stage = |i: usize| -> Result<(DsConv, DsC3k2)> {
            let at = vb.pp(format!("p{}", i + 2));
            let before = if i == 0 { sizes.stem } else { sizes.channels[i - 1] };
            let after = sizes.channels[i];
            Ok((
                DsConv::new(before, after, strides[i], at.pp(0))?,
                DsC3k2::new(after, after, sizes.depths[i], at.pp(1))?,
            ))
        };
        Ok(Self {
            stem: DsConv::new(dim, sizes.stem, stem_stride, vb.pp("stem"))?,
            stages: (0..sizes.channels.len()).map(stage).collect::<Result<_>>()?,
        })
    }

    /// x: [dim, frames, bands] → one tensor a stage
    fn forward(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let mut x = self.stem.forward(x)?;
        let mut out = Vec::new();
        for (down, blocks) in &self.stages {
            x = blocks.forward(&down.forward(&x)?)?;
            out.push(x.clone());
        }
        Ok(out)
    }
}

/// The decoder: from the deepest stage to the first, each with what the attention found, gated by channel.
struct Decoder {
    /// From the first stage on.
    stages: Vec<DecoderStage>,
    final_d2: DsC3k2,
}

struct DecoderStage {
    h_to_d: Conv,
    skip: Conv,
    /// [channels, 1, 1]
    gamma: Tensor,
    /// To the channels of the stage before; none in the first.
    up: Option<DsC3k2>,
}

impl Decoder {
    fn new(sizes: &HyperAceSizes, vb: VarBuilder) -> Result<Self> {
        let stage = |i: usize| -> Result<DecoderStage> {
            let (number, channels) = (i + 2, sizes.channels[i]);
            let up = match i.checked_sub(1) {
                Some(before) => {
                    Some(DsC3k2::new(channels, sizes.channels[before], 1, vb.pp(format!("up_d{number}")))?)
                }
                None => None,
            };
            let gamma = get_f32(&vb, (1, channels, 1, 1), &format!("fusion_d{number}.gamma"))?.squeeze(0)?;
            Ok(DecoderStage {
                h_to_d: Conv::new(sizes.channels[2], channels, vb.pp(format!("h_to_d{number}")))?,
                skip: Conv::new(channels, channels, vb.pp(format!("skip_p{number}")))?,
                gamma,
                up,
            })
        };
        let first = sizes.channels[0];
        Ok(Self {
            stages: (0..sizes.channels.len()).map(stage).collect::<Result<_>>()?,
            final_d2: DsC3k2::new(first, first, 1, vb.pp("final_d2"))?,
        })
    }

    /// The features of the encoder's stages, and those of the attention → [channels, rows, columns] of the first stage
    fn forward(&self, encoded: &[Tensor], related: &Tensor) -> Result<Tensor> {
        // A deeper stage, and its way to the channels of the one before.
        let mut deeper: Option<(Tensor, &DsC3k2)> = None;
        let mut first = None;
        for (stage, encoded) in self.stages.iter().zip(encoded).rev() {
            let (_, rows, columns) = encoded.dims3()?;
            let mut x = stage.skip.forward(encoded)?;
            if let Some((deeper, up)) = deeper.take() {
                x = (up.forward(&resize(&deeper, rows, columns)?)? + x)?;
            }
            let related = stage.h_to_d.forward(&resize(related, rows, columns)?)?;
            x = (x + related.broadcast_mul(&stage.gamma)?)?;
            match &stage.up {
                Some(up) => deeper = Some((x, up)),
                None => first = Some(x),
            }
        }
        match first {
            Some(x) => self.final_d2.forward(&x),
            None => candle_core::bail!("a decoder without stages"),
        }
    }
}
