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

/// Floats of scratch for [`AttentionHead::attend`] over segments of these lengths: the scores' exponentials as an operand, scores, running
/// maximum and sum.
pub(super) fn scratch_len(kernels: &Kernels, lens: [usize; 2]) -> usize {
    let (width, queries) = (scores_width(kernels, lens), kernels.attention.queries);
    kernels.attention.converted_words(queries, width) + queries * (width + 2)
}

/// Columns of the scores' buffer: those of the widest tile.
fn scores_width(kernels: &Kernels, lens: [usize; 2]) -> usize {
    let [one, other] = lens.map(|len| keys_in_tile(kernels, len));
    one.max(other)
}

/// Keys and values of some tokens.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    /// Tokens; an empty segment is skipped.
    pub len: usize,
    /// Keys as panels [⌈len/nr⌉][words of dim_head][nr]. Columns beyond `len` do not matter.
    pub keys: Panels,
    /// Values as panels [⌈dim_head/nr⌉][words of len][nr]. Rows beyond `len` that a word or line holds are finite.
    pub values: Panels,
    /// Number type of keys and values.
    pub element: Element,
    /// The product that reads them.
    pub gemm: unsafe fn(&Gemm),
}

impl Segment {
    /// Tokens as the kernels' own products read them.
    pub fn new(kernels: &Kernels, len: usize, keys: Panels, values: Panels) -> Self {
        let (element, gemm) = (kernels.attention.element, kernels.attention.gemm);
        Self { len, keys, values, element, gemm }
    }

    /// No tokens.
    pub fn empty(kernels: &Kernels) -> Self {
        let none = Panels::plain(core::ptr::null(), 0);
        Self::new(kernels, 0, none, none)
    }
}

/// One head of one sequence. Strides are in floats.
pub(super) struct AttentionHead {
    /// Rows of `q` and of `out`.
    pub queries: usize,
    pub dim_head: usize,
    /// Queries, an operand [queries, dim_head], rotated, scaled by log₂e / √dim_head (the softmax works in base 2).
    pub q: Activations,
    /// Tokens that the queries attend to: those kept from earlier calls, and those of this call.
    pub segments: [Segment; 2],
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
    /// Floats from one row of scores to the next.
    width: usize,
}

impl AttentionHead {
    /// out ← softmax(q · kᵀ) · v · gate.
    ///
    /// # Safety
    /// Pointers must be valid for the shapes above, `scratch` for [`scratch_len`] floats, and nothing may overlap what is written.
    pub unsafe fn attend(&self, kernels: &Kernels, scratch: *mut f32) {
        let queries = kernels.attention.queries;
        let width = scores_width(kernels, self.segments.map(|segment| segment.len));
        // SAFETY: query rows stay below `queries`; scratch has the size of `scratch_len`.
        unsafe {
            let scores = scratch.add(kernels.attention.converted_words(queries, width));
            let max = scores.add(queries * width);
            let tile = TileScratch { operand: scratch, scores, max, sum: max.add(queries), width };
            let mut q0 = 0;
            while q0 < self.queries {
                let rows = queries.min(self.queries - q0);
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
        let mut first = true;
        // SAFETY: as the caller's.
        unsafe {
            for segment in self.segments.iter().filter(|segment| segment.len > 0) {
                self.attend_segment(kernels, segment, [q0, rows], tile, first);
                first = false;
            }
            let out = self.out.add(q0 * self.ldo);
            for row in 0..rows {
                let gate = *self.gates.add((q0 + row) * self.gate_stride);
                (kernels.ops.scale)(out.add(row * self.ldo), self.dim_head, gate / *tile.sum.add(row));
            }
        }
    }

    /// Adds the tokens of one segment to the running softmax of the queries q0..q0 + rows.
    ///
    /// # Safety
    /// As [`Self::attend`]'s.
    unsafe fn attend_segment(
        &self,
        kernels: &Kernels,
        segment: &Segment,
        [q0, rows]: [usize; 2],
        tile: &TileScratch,
        first: bool,
    ) {
        let (product, nr) = (&kernels.attention, kernels.nr);
        let width = keys_in_tile(kernels, segment.len);
        let mut k0 = 0;
        while k0 < segment.len {
            let n = width.min(segment.len - k0);
            let started = !first || k0 > 0;
            // SAFETY: key columns stay below the padded length, for which the panels exist; `k0` is a multiple of whole panels and
            // of whole lines.
            unsafe {
                let out = self.out.add(q0 * self.ldo);
                let Segment { keys, values, .. } = *segment;
                (segment.gemm)(&Gemm {
                    m: rows,
                    n: n.next_multiple_of(nr),
                    k: self.dim_head,
                    a: self.q.at_row(q0),
                    b: Panels::plain(keys.data.add(k0 / nr * keys.stride), keys.stride),
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
                    first: !started,
                });
                let a = match product.element {
                    Element::F32 => Activations::rows(tile.scores, tile.width),
                    element => Activations::rows(tile.operand, element.words(n)),
                };
                let row = k0 / segment.element.per_word() * nr;
                (segment.gemm)(&Gemm {
                    m: rows,
                    n: self.dim_head,
                    k: n,
                    a,
                    b: Panels::plain(values.data.add(row), values.stride),
                    c: Output { data: out, stride: self.ldo, panel: nr },
                    addend: if started { Addend::Output } else { Addend::Zero },
                });
            }
            k0 += n;
        }
    }
}
