//! Attention of one head over one sequence: scores, online softmax and values in tiles that stay in cache.

use super::compiled::Kernels;
use super::layout::{Activations, Addend, Element, Gemm, Output, Panels};
use super::ops::SoftmaxTile;

/// Most keys in a tile; longer sequences are split into equal tiles.
const KEYS: usize = 512;

/// Keys in a tile of a sequence of `len` keys, whole panels and whole lines of an operand.
pub(super) fn keys_in_tile(kernels: &Kernels, len: usize) -> usize {
    let width = len.div_ceil(len.div_ceil(KEYS).max(1)).next_multiple_of(kernels.nr);
    match kernels.attention.element {
        Element::F32 => width,
        element => width.next_multiple_of(element.per_line()),
    }
}

/// Floats of scratch for [`AttentionHead::attend`]: the scores' exponentials as an operand, scores, running maximum and sum.
pub(super) fn scratch_len(kernels: &Kernels, len: usize) -> usize {
    let (width, queries) = (keys_in_tile(kernels, len), kernels.attention.queries);
    kernels.attention.converted_words(queries, width) + queries * (width + 2)
}

/// One head of one sequence. Strides are in floats.
pub(super) struct AttentionHead {
    pub len: usize,
    pub dim_head: usize,
    /// Queries, an operand [len, dim_head], rotated, scaled by log₂e / √dim_head (the softmax works in base 2).
    pub q: Activations,
    /// Keys as panels [⌈len/nr⌉][words of dim_head][nr].
    pub keys: Panels,
    /// Values as panels [⌈dim_head/nr⌉][words of len][nr].
    pub values: Panels,
    /// Output rows, `dim_head` of `ldo` values.
    pub out: *mut f32,
    pub ldo: usize,
    /// Gate of each row, `gate_stride` apart, already through the sigmoid.
    pub gates: *const f32,
    pub gate_stride: usize,
}

/// Scratch of a tile of queries.
struct TileScratch {
    operand: *mut f32,
    scores: *mut f32,
    max: *mut f32,
    sum: *mut f32,
    /// Keys in a tile.
    width: usize,
}

impl AttentionHead {
    /// out ← softmax(q · kᵀ) · v · gate.
    ///
    /// # Safety
    /// Pointers must be valid for the shapes above, `scratch` for [`scratch_len`] floats, and nothing may overlap what is written.
    pub unsafe fn attend(&self, kernels: &Kernels, scratch: *mut f32) {
        let (width, queries) = (keys_in_tile(kernels, self.len), kernels.attention.queries);
        // SAFETY: query rows stay below `len`; scratch has the size of `scratch_len`.
        unsafe {
            let scores = scratch.add(kernels.attention.converted_words(queries, width));
            let max = scores.add(queries * width);
            let tile = TileScratch { operand: scratch, scores, max, sum: max.add(queries), width };
            let mut q0 = 0;
            while q0 < self.len {
                let rows = queries.min(self.len - q0);
                self.attend_queries(kernels, q0, rows, &tile);
                q0 += rows;
            }
        }
    }

    /// Output of the queries q0..q0 + rows.
    ///
    /// # Safety
    /// As [`Self::attend`]'s.
    unsafe fn attend_queries(&self, kernels: &Kernels, q0: usize, rows: usize, tile: &TileScratch) {
        let (product, nr) = (&kernels.attention, kernels.nr);
        // SAFETY: key columns stay below the padded length, for which the panels exist.
        unsafe {
            let out = self.out.add(q0 * self.ldo);
            let mut k0 = 0;
            while k0 < self.len {
                let n = tile.width.min(self.len - k0);
                (product.gemm)(&Gemm {
                    m: rows,
                    n: n.next_multiple_of(nr),
                    k: self.dim_head,
                    a: self.q.from_row(q0),
                    b: Panels::plain(self.keys.data.add(k0 / nr * self.keys.stride), self.keys.stride),
                    c: Output { data: tile.scores, stride: tile.width, panel: nr },
                    addend: Addend::Zero,
                });
                (product.softmax)(&SoftmaxTile {
                    scores: tile.scores,
                    operand: tile.operand,
                    rows,
                    n,
                    ld: tile.width,
                    max: tile.max,
                    sum: tile.sum,
                    out,
                    out_n: self.dim_head,
                    out_ld: self.ldo,
                    first: k0 == 0,
                });
                let a = match product.element {
                    Element::F32 => Activations::rows(tile.scores, tile.width),
                    element => Activations::rows(tile.operand, element.words(n)),
                };
                (product.gemm)(&Gemm {
                    m: rows,
                    n: self.dim_head,
                    k: n,
                    a,
                    b: Panels::plain(
                        self.values.data.add(product.element.words(k0) * nr),
                        self.values.stride,
                    ),
                    c: Output { data: out, stride: self.ldo, panel: nr },
                    addend: if k0 == 0 { Addend::Zero } else { Addend::Output },
                });
                k0 += n;
            }
            for row in 0..rows {
                let gate = *self.gates.add((q0 + row) * self.gate_stride);
                (kernels.ops.scale)(out.add(row * self.ldo), self.dim_head, gate / *tile.sum.add(row));
            }
        }
    }
}
