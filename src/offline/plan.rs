//! Where the chunks of a song lie and how they join.
//!
//! step = chunk / overlap, border = chunk − step, fade = chunk / 10, as in Music-Source-Separation-Training. A song longer
//! than two borders is reflect-padded by one border at both ends. Three things differ from that trainer, none of which
//! changes a sample of the result elsewhere. Neighbouring chunks always share a twentieth of their length, in which they
//! are crossfaded: without it (overlap 1) every seam would be a click. And:
//! chunks that lie wholly in the padding are not run; a last chunk of a few samples, a [`ChunkPlan::min_tail`], is not run as all but
//! padding, since the chunk before it covers it; and no sample is ever left
//! without a weight (at overlap 1 the trainer's fades meet at 0, which silences two samples at every join).

use crate::dsp::window::chunk_weight;

/// Weight of a sample whose fades are 0: too small to matter beside another chunk, large enough to stand alone.
const MIN_WEIGHT: f32 = 1e-9;
/// Smallest overlap: chunks share a part of at least 1 / 20 of their length. It costs 5 % more chunks than none.
pub const MIN_OVERLAP: f64 = 20.0 / 19.0;
/// Largest overlap that makes sense.
pub const MAX_OVERLAP: f64 = 64.0;

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
    /// A plan of chunks of `chunk` samples, of which `overlap` cover each sample on average: 2 is half a chunk of overlap,
    /// 1.25 is a fifth. Less than [`MIN_OVERLAP`] is taken as that.
    pub fn new(chunk: usize, overlap: f64) -> Self {
        let shared = chunk.div_ceil(20).min(chunk.saturating_sub(1));
        let step = ((chunk as f64 / overlap.max(1.0)) as usize).min(chunk - shared).max(1);
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
        // The chunk before it covers such a short rest, and keeps its tail.
        if complete && start.is_some() && !padded && remains <= self.min_tail {
            return None;
        }
        // The last chunk of the trainer's grid keeps its tail, whether or not it is run here.
        let ends = complete && at + self.step >= known;
        let successor_dropped = complete && !padded && known.saturating_sub(at + self.step) <= self.min_tail;
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
        for overlap in [1.0, 1.05, 1.25, 1.5, 2.0, 2.7, 3.0, 4.0, 8.0] {
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
                    assert!(
                        covered.iter().all(|&n| n >= overlap as usize),
                        "overlap {overlap}, {samples} samples"
                    );
                }
            }
        }
    }

    #[test]
    fn no_chunk_of_a_long_song_is_mostly_padding() {
        for overlap in [1.0, 1.25, 2.0, 4.0] {
            let plan = ChunkPlan::new(1000, overlap);
            for samples in 2_000..4_100 {
                for chunk in plan.chunks(samples) {
                    assert!(chunk.len > plan.min_tail, "overlap {overlap}, {samples} samples: {chunk:?}");
                }
            }
        }
    }

    /// Weights of all chunks at every sample, normalised: `[samples]` of (chunk, share).
    fn shares(plan: &ChunkPlan, samples: usize) -> Vec<Vec<(usize, f32)>> {
        let offset = if plan.is_padded(samples) { plan.border } else { 0 };
        let chunks = plan.chunks(samples);
        (0..samples)
            .map(|sample| {
                let at = sample + offset;
                let inside = |chunk: &Chunk| (chunk.start..chunk.start + chunk.len).contains(&at);
                let weights: Vec<(usize, f32)> = (0..chunks.len())
                    .filter(|&n| inside(&chunks[n]))
                    .map(|n| (n, plan.weight(at - chunks[n].start, &chunks[n])))
                    .collect();
                let sum: f32 = weights.iter().map(|(_, weight)| weight).sum();
                weights.into_iter().map(|(n, weight)| (n, weight / sum)).collect()
            })
            .collect()
    }

    #[test]
    fn no_chunk_starts_or_ends_with_a_step() {
        for chunk in [200, 1000, 1001] {
            for overlap in [1.0, 1.01, 1.05, 1.1, 1.25, 1.5, 1.9, 2.0, 3.0, 4.0] {
                let plan = ChunkPlan::new(chunk, overlap);
                for samples in [chunk / 2, chunk, chunk + 5, 2 * chunk + 7, 3 * chunk + 5, 5 * chunk] {
                    let shares = shares(&plan, samples);
                    let share = |sample: usize, n: usize| {
                        shares[sample].iter().find(|(other, _)| *other == n).map_or(0.0, |(_, share)| *share)
                    };
                    for sample in 1..samples {
                        for n in 0..plan.chunks(samples).len() {
                            let step = (share(sample, n) - share(sample - 1, n)).abs();
                            // A linear fade over the shared twentieth.
                            assert!(
                                step <= 1.01 / (chunk / 20 - 1) as f32,
                                "chunk {chunk}, overlap {overlap}, {samples} samples: {step} at {sample}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn whole_overlaps_are_the_trainers() {
        for overlap in 2..=64_usize {
            for chunk in [352_800, 485_100, 1001] {
                assert_eq!(ChunkPlan::new(chunk, overlap as f64).step, chunk / overlap);
            }
        }
    }

    #[test]
    fn only_the_outer_ends_keep_full_weight() {
        let plan = ChunkPlan::new(1000, 2.0);
        let chunks = plan.chunks(5_000);
        assert!(chunks[0].first && chunks[1..].iter().all(|c| !c.first));
        let short = plan.chunks(700);
        assert!(short.last().unwrap().last);
    }
}
