//! Where the chunks of a song lie and how they join.
//!
//! step = chunk / overlap, border = chunk − step, fade = chunk / 10, as in Music-Source-Separation-Training. A song longer
//! than two borders is reflect-padded by one border at both ends. Three things differ from that trainer, none of which
//! changes a sample of the result elsewhere:
//! chunks that lie wholly in the padding are not run; a last chunk of a few samples, a [`ChunkPlan::min_tail`], is not run as all but
//! padding (where nothing else covers it, the chunk is moved back to end with the song); and no sample is ever left
//! without a weight (at overlap 1 the trainer's fades meet at 0, which silences two samples at every join).

use crate::dsp::window::chunk_weight;

/// Weight of a sample whose fades say 0: too little to matter beside any other chunk, enough to stand alone.
const MIN_WEIGHT: f32 = 1e-9;

/// Sizes of the chunks, in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlan {
    /// Samples of a chunk.
    pub chunk: usize,
    /// Distance of two chunks.
    pub step: usize,
    /// Padding at both ends.
    pub border: usize,
    /// Length of a chunk's fades.
    pub fade: usize,
    /// Most samples of a last chunk that are not worth a chunk of their own.
    pub min_tail: usize,
}

/// One chunk of a song.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// First sample, counted from the start of the padded song.
    pub start: usize,
    /// Samples of the padded song in it; the rest of the chunk is padding of its own.
    pub len: usize,
    /// Whether it keeps its head at full weight.
    pub first: bool,
    /// Whether it keeps its tail at full weight.
    pub last: bool,
}

impl ChunkPlan {
    /// A plan of `chunk` samples, `overlap` chunks covering each sample.
    pub fn new(chunk: usize, overlap: usize) -> Self {
        let step = (chunk / overlap.max(1)).max(1);
        Self { chunk, step, border: chunk - step, fade: chunk / 10, min_tail: chunk / 100 }
    }

    /// Whether a song of `samples` samples is padded at its ends.
    pub fn is_padded(&self, samples: usize) -> bool {
        self.border > 0 && samples > 2 * self.border
    }

    /// Samples past a chunk's start that must be known, or known not to exist, before [`ChunkPlan::next_chunk`] can decide.
    pub fn lookahead(&self) -> usize {
        self.chunk.max(self.step + self.min_tail) + 1
    }

    /// The chunk after the one that starts at `start` (`None` for the first chunk of all). `known` counts the samples of the
    /// padded song known so far, all of them when `complete`; `padded` tells whether the ends are padded.
    pub fn next_chunk(
        &self,
        start: Option<usize>,
        known: usize,
        complete: bool,
        padded: bool,
    ) -> Option<Chunk> {
        let at = start.map_or(0, |start| start + self.step);
        let reach = if padded { self.border } else { 0 };
        if complete && at + reach >= known {
            return None;
        }
        let remains = known - at;
        if complete && start.is_some() && !padded && remains <= self.min_tail {
            if self.border > 0 || known < self.chunk {
                return None;
            }
            // It ends with the song, so the chunk after it would start past the end.
            return Some(Chunk { start: known - self.chunk, len: self.chunk, first: false, last: true });
        }
        // The last chunk of the trainer's grid keeps its tail, whether or not it is run here.
        let ends = complete && at + self.step >= known;
        let successor_dropped =
            complete && !padded && self.border > 0 && known.saturating_sub(at + self.step) <= self.min_tail;
        Some(Chunk {
            start: at,
            len: remains.min(self.chunk),
            first: start.is_none(),
            last: ends || successor_dropped,
        })
    }

    /// Weight of sample `i` of `chunk`.
    pub fn weight(&self, i: usize, chunk: &Chunk) -> f32 {
        chunk_weight(i, self.chunk, self.fade, chunk.first, chunk.last).max(MIN_WEIGHT)
    }

    /// All chunks of a song of `samples` samples.
    pub fn chunks(&self, samples: usize) -> Vec<Chunk> {
        let padded = self.is_padded(samples);
        let known = samples + if padded { 2 * self.border } else { 0 };
        let mut chunks: Vec<Chunk> = Vec::new();
        while let Some(chunk) = self.next_chunk(chunks.last().map(|c| c.start), known, true, padded) {
            chunks.push(chunk);
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_covered_and_no_chunk_is_in_vain() {
        for overlap in [1, 2, 3, 4, 8] {
            let plan = ChunkPlan::new(1000, overlap);
            for samples in
                (1..60).chain([99, 100, 101, 500, 999, 1000, 1001, 1050, 1100, 1101, 1999, 5003, 9_999])
            {
                let offset = if plan.is_padded(samples) { plan.border } else { 0 };
                let chunks = plan.chunks(samples);
                let mut covered = vec![0; samples];
                for chunk in &chunks {
                    let from = chunk.start.saturating_sub(offset);
                    let to = (chunk.start + chunk.len).saturating_sub(offset).min(samples);
                    assert!(from < to, "overlap {overlap}, {samples} samples: {chunk:?} is in vain");
                    covered[from..to].iter_mut().for_each(|n| *n += 1);
                }
                assert!(covered.iter().all(|&n| n >= 1), "overlap {overlap}, {samples} samples");
                if offset > 0 {
                    assert!(covered.iter().all(|&n| n >= overlap), "overlap {overlap}, {samples} samples");
                }
            }
        }
    }

    #[test]
    fn no_chunk_of_a_long_song_is_mostly_padding() {
        for overlap in [1, 2, 4] {
            let plan = ChunkPlan::new(1000, overlap);
            for samples in 2_000..4_100 {
                for chunk in plan.chunks(samples) {
                    assert!(chunk.len > plan.min_tail, "overlap {overlap}, {samples} samples: {chunk:?}");
                }
            }
        }
    }

    #[test]
    fn a_short_tail_at_overlap_one_moves_the_last_chunk_back() {
        let plan = ChunkPlan::new(1000, 1);
        let chunks = plan.chunks(3_005);
        assert_eq!(chunks.len(), 4);
        assert_eq!(chunks[3], Chunk { start: 2_005, len: 1000, first: false, last: true });
        assert!(!chunks[2].last);
    }

    #[test]
    fn only_the_outer_ends_keep_full_weight() {
        let plan = ChunkPlan::new(1000, 2);
        let chunks = plan.chunks(5_000);
        assert!(chunks[0].first && chunks[1..].iter().all(|c| !c.first));
        let short = plan.chunks(700);
        assert!(short.last().unwrap().last);
    }
}
