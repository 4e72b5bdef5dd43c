//! Attention of one head over one sequence: scores, online softmax and values in tiles that stay in cache.

use super::gemm::Gemm;
use super::isa::Kernels;
use super::ops::SoftmaxTile;
use super::tiles::STEP;

/// Rows of queries in a tile: a multiple of the GEMM tiles of those kernels.
const fn queries(kernels: &Kernels) -> usize {
    if kernels.bf16_dot { 64 } else { 48 }
}

/// Most keys in a tile; longer sequences are split into equal tiles.
const KEYS: usize = 512;

/// Keys in a tile of a sequence of `len`, whole panels.
pub(super) fn keys_in_tile(kernels: &Kernels, len: usize) -> usize {
    let width = len.div_ceil(len.div_ceil(KEYS).max(1)).next_multiple_of(kernels.nr);
    if kernels.bf16_dot { width.next_multiple_of(STEP) } else { width }
}

/// Floats of scratch for [`AttentionHead::attend`]: the scores' exponentials as an operand, scores, running maximum and sum.
pub(super) fn scratch_len(kernels: &Kernels, len: usize) -> usize {
    let width = keys_in_tile(kernels, len);
    kernels.converted_len(queries(kernels), width) + queries(kernels) * (width + 2)
}

/// One head of one sequence. Strides are in floats.
pub(super) struct AttentionHead {
    pub len: usize,
    pub dim_head: usize,
    /// Queries, an operand [len, ldq], rotated, scaled by log₂e / √dim_head (the softmax works in base 2).
    pub q: *const f32,
    pub ldq: usize,
    /// Keys as panels [⌈len/nr⌉][dim_head][nr], zero padded; for products of bf16 in pairs of rows, as the values.
    pub keys: *const f32,
    /// Values as panels [⌈dim_head/nr⌉][len][nr], `v_panel` apart.
    pub v: *const f32,
    pub v_panel: usize,
    /// Output rows, `dim_head` of `ldo` values.
    pub out: *mut f32,
    pub ldo: usize,
    /// Gate of each row, `gate_stride` apart, already through the sigmoid.
    pub gates: *const f32,
    pub gate_stride: usize,
}

impl AttentionHead {
    /// out ← softmax(q · kᵀ) · v · gate.
    ///
    /// # Safety
    /// Pointers must be valid for the shapes above, `scratch` for [`scratch_len`] floats, and nothing may overlap what is written.
    pub unsafe fn attend(&self, kernels: &Kernels, scratch: *mut f32) {
        let nr = kernels.nr;
        let (width, queries) = (keys_in_tile(kernels, self.len), queries(kernels));
        // SAFETY: query rows stay below `len`, key columns below the padded length, for which the panels exist.
        unsafe {
            let operand = scratch;
            let scores = operand.add(kernels.converted_len(queries, width));
            let max = scores.add(queries * width);
            let sum = max.add(queries);
            let mut q0 = 0;
            while q0 < self.len {
                let rows = queries.min(self.len - q0);
                let out = self.out.add(q0 * self.ldo);
                let mut k0 = 0;
                while k0 < self.len {
                    let n = width.min(self.len - k0);
                    (kernels.gemm)(&Gemm {
                        m: rows,
                        n: n.next_multiple_of(nr),
                        k: self.dim_head,
                        a: self.q.add(q0 * self.ldq),
                        lda: self.ldq,
                        b: self.keys.add(k0 * kernels.packed_stride(self.dim_head)),
                        b_panel: kernels.packed_stride(self.dim_head) * nr,
                        c: scores,
                        ldc: width,
                        c_panel: nr,
                        bias: core::ptr::null(),
                        accumulate: false,
                    });
                    (kernels.softmax_operand)(&SoftmaxTile {
                        scores,
                        operand,
                        rows,
                        n,
                        ld: width,
                        max,
                        sum,
                        out,
                        out_n: self.dim_head,
                        out_ld: self.ldo,
                        first: k0 == 0,
                    });
                    let (a, lda) =
                        if kernels.bf16_dot { (operand, kernels.packed_stride(n)) } else { (scores, width) };
                    (kernels.gemm)(&Gemm {
                        m: rows,
                        n: self.dim_head,
                        k: n,
                        a,
                        lda,
                        b: self.v.add(kernels.packed_stride(k0) * nr),
                        b_panel: self.v_panel,
                        c: out,
                        ldc: self.ldo,
                        c_panel: nr,
                        bias: core::ptr::null(),
                        accumulate: k0 > 0,
                    });
                    k0 += n;
                }
                for row in 0..rows {
                    let gate = *self.gates.add((q0 + row) * self.gate_stride);
                    (kernels.scale)(out.add(row * self.ldo), self.dim_head, gate / *sum.add(row));
                }
                q0 += rows;
            }
        }
    }
}
