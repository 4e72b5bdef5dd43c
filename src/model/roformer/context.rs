//! The network over the next frames of one stream, whose past frames are kept as keys and values.

use candle_core::{DType, Result, Tensor};

use super::{FirstValues, Roformer};
use crate::kernels::JobControl;
use crate::model::context::kept_context_unsupported;
use crate::model::kept_tokens::KeptTokens;

/// What the network keeps of a stream.
pub struct RoformerContext {
    /// Of each time block, layer by layer.
    blocks: Vec<KeptTokens>,
}

impl RoformerContext {
    /// Frames that are kept now.
    pub fn len(&self) -> usize {
        self.blocks.first().map_or(0, KeptTokens::len)
    }

    /// Whether no frame is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.blocks.iter_mut().for_each(KeptTokens::clear);
    }

    /// Bytes that it holds now; they grow until the context is full.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(KeptTokens::bytes).sum()
    }
}

/// A time transformer's part of a hop.
pub(super) struct TimeHop<'a> {
    /// Number of the first frame in the stream.
    pub first: u64,
    /// One a block.
    pub kept: &'a mut [KeptTokens],
}

impl Roformer {
    /// Room for `frames` kept frames of a stream, in half precision where the number type is that, or with `half`.
    pub fn new_context(&self, frames: usize, half: bool) -> RoformerContext {
        let dtype = if half && self.number_type == DType::F32 { DType::BF16 } else { self.number_type };
        let blocks = self.layers.iter().map(|layer| layer.time.depth()).sum();
        RoformerContext { blocks: (0..blocks).map(|_| KeptTokens::new(frames, dtype)).collect() }
    }

    /// spec: [1, frames, (f s) c], frames from number `first` of the stream on → masks [1, stems, frames − wanted_from, (f s) c], f32. The
    /// first `leaving` frames are kept afterwards. `control` is asked between transformers.
    /// After an error, which is also what comes of a cancelled pass, the context holds part of the hop and must be cleared.
    ///
    /// # Errors
    /// A candle error, such as a device out of memory; an error for networks that cannot keep their context.
    pub fn forward_hop(
        &self,
        spec: &Tensor,
        context: &mut RoformerContext,
        first: u64,
        leaving: usize,
        wanted_from: usize,
        control: &dyn JobControl,
    ) -> Result<Tensor> {
        if let Some(reason) = kept_context_unsupported(&self.architecture) {
            candle_core::bail!("no context can be kept: {reason}");
        }
        let (_, frames, _) = spec.dims3()?;
        let mut x = self.band_split.forward(spec, &self.features)?;
        let (mut values, mut earlier) = (FirstValues::default(), None);
        let mut rest = context.blocks.as_mut_slice();
        for layer in &self.layers {
            let Some((kept, others)) = rest.split_at_mut_checked(layer.time.depth()) else {
                candle_core::bail!("the context belongs to another network");
            };
            rest = others;
            kept.iter_mut().for_each(|kept| kept.leaving = leaving);
            let hop = Some(TimeHop { first, kept });
            x = layer.forward(
                x,
                &mut values,
                &mut earlier,
                self.architecture.skip_connection,
                hop,
                control,
            )?;
        }
        let wanted = x.narrow(1, wanted_from, frames - wanted_from)?.contiguous()?;
        self.estimate_masks(wanted)
    }
}
