//! From bands to bins: four pixel shuffles along the frequency axis, in version 2 with TFC-TDF blocks.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::blocks::{DsConv, NormSilu, pointwise_weight};
use crate::model::architecture::{HyperAceSizes, HyperAceVersion, TDF_BOTTLENECK, TFC_TDF_BLOCKS};
use crate::model::linear::get_f32;
use crate::model::planes::{conv3, pointwise, resize};

/// The reference's `ProgressiveUpsampleHead`.
pub(super) struct UpsampleHead {
    shuffles: Vec<FreqPixelShuffle>,
    final_conv: FinalConv,
    /// Points of the frequency axis at the end.
    points: usize,
}

enum FinalConv {
    /// [output, input]
    Pointwise(Tensor),
    /// [output, input, 3, 3]
    Dense(Tensor),
}

impl UpsampleHead {
    /// `features`: those of all bands.
    pub fn new(bands: usize, features: usize, sizes: &HyperAceSizes, vb: VarBuilder) -> Result<Self> {
        let shuffles = sizes.shuffles();
        let shuffle = |i: usize| {
            let at = vb.pp(format!("block{}", i + 1));
            FreqPixelShuffle::new(shuffles[i], bands << (i + 1), sizes.version, at)
        };
        let (input, output) = (shuffles[3][1], sizes.out_channels);
        let at = vb.pp("final_conv");
        Ok(Self {
            shuffles: (0..shuffles.len()).map(shuffle).collect::<Result<_>>()?,
            final_conv: match sizes.version {
                HyperAceVersion::V1 => FinalConv::Pointwise(pointwise_weight(input, output, &at)?),
                HyperAceVersion::V2 => FinalConv::Dense(get_f32(&at, (output, input, 3, 3), "weight")?),
            },
            points: features / output.max(1),
        })
    }

    /// x: [channels, frames, bands] → [output, frames, points]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for shuffle in &self.shuffles {
            x = shuffle.forward(&x)?;
        }
        let x = resize(&x, x.dim(1)?, self.points)?;
        match &self.final_conv {
            FinalConv::Pointwise(weight) => pointwise(&x, weight),
            FinalConv::Dense(weight) => conv3(&x, weight),
        }
    }
}

struct FreqPixelShuffle {
    conv: DsConv,
    blocks: Vec<TfcTdf>,
}

impl FreqPixelShuffle {
    /// `width`: points of the frequency axis afterwards.
    fn new([from, to]: [usize; 2], width: usize, version: HyperAceVersion, vb: VarBuilder) -> Result<Self> {
        let blocks = if version == HyperAceVersion::V2 { TFC_TDF_BLOCKS } else { 0 };
        let block = |i: usize| TfcTdf::new(to, width, vb.pp(format!("out_conv.blocks.{i}")));
        Ok(Self {
            conv: DsConv::new(from, 2 * to, [1, 1], vb.pp("conv"))?,
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
        })
    }

    /// x: [from, frames, points] → [to, frames, 2 · points]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.conv.forward(x)?;
        let (channels, frames, points) = x.dims3()?;
        // Neighbouring channels become neighbouring points.
        let x = x.reshape((channels / 2, 2, frames, points))?.permute((0, 2, 3, 1))?.contiguous()?;
        let mut x = x.reshape((channels / 2, frames, 2 * points))?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x)
    }
}

/// Time-frequency convolutions around a Linear along the frequency axis, with a shortcut.
struct TfcTdf {
    tfc1: (NormSilu, Tensor),
    /// Weights [hidden, width] and [width, hidden].
    tdf: [(NormSilu, Tensor); 2],
    tfc2: (NormSilu, Tensor),
    shortcut: Tensor,
}

impl TfcTdf {
    fn new(channels: usize, width: usize, vb: VarBuilder) -> Result<Self> {
        let norm = |at: &str| NormSilu::new(channels, vb.pp(at));
        let conv = |at: &str| get_f32(&vb, (channels, channels, 3, 3), &format!("{at}.weight"));
        let hidden = width / TDF_BOTTLENECK;
        Ok(Self {
            tfc1: (norm("tfc1.0")?, conv("tfc1.2")?),
            tdf: [
                (norm("tdf.0")?, get_f32(&vb, (hidden, width), "tdf.2.weight")?),
                (norm("tdf.3")?, get_f32(&vb, (width, hidden), "tdf.5.weight")?),
            ],
            tfc2: (norm("tfc2.0")?, conv("tfc2.2")?),
            shortcut: pointwise_weight(channels, channels, &vb.pp("shortcut"))?,
        })
    }

    /// x: [channels, frames, width] → same shape
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shortcut = pointwise(x, &self.shortcut)?;
        let (norm, weight) = &self.tfc1;
        let x = conv3(&norm.forward(x)?, weight)?;
        let (channels, frames, _) = x.dims3()?;
        let mut dense = x.clone();
        for (norm, weight) in &self.tdf {
            let rows = norm.forward(&dense)?.reshape((channels * frames, ()))?;
            dense = rows.matmul(&weight.t()?)?.reshape((channels, frames, ()))?;
        }
        let (norm, weight) = &self.tfc2;
        conv3(&norm.forward(&(x + dense)?)?, weight)? + shortcut
    }
}
