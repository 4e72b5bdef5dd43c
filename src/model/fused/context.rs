//! The fused network over a few frames of each of several streams, whose past frames are kept as keys and values.

use super::{FusedRoformer, Layer, add, checkpoint};
use crate::kernels::{CacheFormat, ContextHop, JobControl, KernelError, KeyValueCache, Pool, Sequences};

/// What the network keeps of a stream: a cache for each of its time blocks.
pub struct FusedContext {
    caches: Vec<KeyValueCache>,
}

impl FusedContext {
    /// Frames that are kept now.
    pub fn len(&self) -> usize {
        self.caches.first().map_or(0, KeyValueCache::len)
    }

    /// Whether no frame is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.caches.iter_mut().for_each(KeyValueCache::clear);
    }

    /// A hop of `frames` frames from number `first` of the stream on. The first `leaving` of them are kept afterwards; masks are wanted
    /// from the one at `wanted_from` on.
    pub fn hop(&mut self, first: u64, frames: usize, leaving: usize, wanted_from: usize) -> ContextHop<'_> {
        let (leaving, wanted_from) = (leaving.min(frames), wanted_from.min(frames));
        ContextHop { first, frames, leaving, wanted_from, caches: &mut self.caches }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.caches.iter().map(KeyValueCache::bytes).sum()
    }
}

impl FusedRoformer {
    /// Room for `frames` kept frames of a stream.
    pub fn new_context(&self, frames: usize, format: CacheFormat) -> FusedContext {
        let bands = self.architecture.bands.len();
        let blocks = self.layers.iter().flat_map(|layer| &layer.time);
        FusedContext { caches: blocks.map(|block| block.new_cache(bands, frames, format)).collect() }
    }

    /// spec: [frames of all hops, (f s) c] → masks [stems, wanted frames of all hops, (f s) c]. `control` is asked between layers.
    /// After an error, which is also what comes of a cancelled pass, the contexts hold part of the hop and must be cleared.
    ///
    /// # Errors
    /// [`KernelError`] where sizes differ.
    pub fn forward_hops(
        &mut self,
        spec: &[f32],
        hops: &mut [ContextHop<'_>],
        masks: &mut Vec<f32>,
        control: &dyn JobControl,
    ) -> Result<(), KernelError> {
        let frames: usize = hops.iter().map(|hop| hop.frames).sum();
        let wanted: usize = hops.iter().map(ContextHop::wanted).sum();
        let features = self.architecture.frame_features();
        KernelError::check("spec", frames * features, spec.len())?;
        self.split_bands(spec, frames)?;
        let mut block = 0;
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 && self.architecture.skip_connection {
                add(&mut self.x, &self.skip_sum);
            }
            layer.forward_hops(
                self.architecture.bands.len(),
                &self.pool,
                &mut self.x,
                &mut block,
                hops,
                control,
            )?;
            if self.architecture.skip_connection {
                if i == 0 {
                    self.skip_sum.clear();
                    self.skip_sum.extend_from_slice(&self.x);
                } else {
                    add(&mut self.skip_sum, &self.x);
                }
            }
        }
        checkpoint(control)?;
        if wanted < frames {
            self.select_wanted(hops);
        }
        masks.resize(self.architecture.num_stems * wanted * features, 0.0);
        self.estimate_masks(wanted == frames, masks, wanted)
    }

    /// `wanted` ← x of the frames whose masks are wanted.
    fn select_wanted(&mut self, hops: &[ContextHop<'_>]) {
        let row = self.architecture.bands.len() * self.architecture.dim;
        self.wanted.clear();
        let mut first = 0;
        for hop in hops {
            let end = first + hop.frames;
            self.wanted.extend_from_slice(&self.x[(first + hop.wanted_from) * row..end * row]);
            first = end;
        }
    }
}

impl Layer {
    /// x [frames of all hops, bands, dim] through both transformers; `block` counts the time blocks.
    fn forward_hops(
        &self,
        bands: usize,
        pool: &Pool,
        x: &mut [f32],
        block: &mut usize,
        hops: &mut [ContextHop<'_>],
        control: &dyn JobControl,
    ) -> Result<(), KernelError> {
        let frames = hops.iter().map(|hop| hop.frames).sum();
        for time in &self.time {
            checkpoint(control)?;
            time.forward_hops(pool, x, bands, *block, hops)?;
            *block += 1;
        }
        for freq in &self.freq {
            freq.forward(pool, x, Sequences::band(frames, bands))?;
        }
        Ok(())
    }
}
