//! One attention and one feed-forward layer over all sequences of a spectrogram's features, in place.

use std::sync::Arc;

use super::attention::{self, AttentionHead};
use super::error::KernelError;
use super::gemm::{Gemm, Packed, pad_bias};
use super::isa::{Kernels, Target};
use super::pool::Pool;
use super::rotary::Rotary;
use super::rows::{Axis, SequenceRows, Sequences};
use super::scratch::{AlignedVec, with_scratch};

/// Rows per projection.
const TILE: usize = 96;
/// How many rows ahead of their use rows are prefetched.
pub(super) const PREFETCH_ROWS: usize = 3;
/// Target rows per task; short sequences are grouped.
const TASK_ROWS: usize = 288;

/// Rows and hidden features of the feed-forward per step.
fn feed_forward_tile(kernels: &Kernels) -> (usize, usize) {
    if kernels.bf16_dot {
        // These products are so fast that they wait for a layer's weights, which exceed the second-level cache.
        (2 * TILE, 384)
    } else {
        (TILE, 384)
    }
}

/// A linear layer's parameters: `weight` [out, in], `bias` `[out]`.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// Row-major, as PyTorch stores it.
    pub weight: &'a [f32],
    /// One value an output.
    pub bias: &'a [f32],
}

/// The parameters of one layer, named as in the checkpoint. Sizes follow from the lengths.
#[derive(Debug, Clone, Copy)]
pub struct TransformerWeights<'a> {
    /// `0.norm.gamma` `[dim]`.
    pub attention_norm: &'a [f32],
    /// `0.to_qkv.weight` [3 · heads · dim_head, dim], laid out (qkv h d).
    pub to_qkv: &'a [f32],
    /// `0.to_gates` [heads, dim].
    pub to_gates: Linear<'a>,
    /// `0.to_out.0.weight` [dim, heads · dim_head].
    pub to_out: &'a [f32],
    /// `1.net.0.gamma` `[dim]`.
    pub feed_forward_norm: &'a [f32],
    /// `1.net.1` [inner, dim].
    pub linear_in: Linear<'a>,
    /// `1.net.4` [dim, inner].
    pub linear_out: Linear<'a>,
    /// `norm.gamma` `[dim]` when a norm follows the layer (Mel-Band RoFormer; after the last layer of a transformer).
    pub norm: Option<&'a [f32]>,
}

/// A layer with its weights packed for one instruction set.
pub struct TransformerBlock {
    kernels: &'static Kernels,
    dim: usize,
    heads: usize,
    dim_head: usize,
    inner: usize,
    /// Head by head its q, k and v: the order of use.
    qkv: Packed,
    gates: Packed,
    gates_bias: AlignedVec,
    out: Packed,
    linear_in: Packed,
    linear_in_bias: AlignedVec,
    linear_out: Packed,
    linear_out_bias: AlignedVec,
    /// gamma · √dim.
    norm: Option<Vec<f32>>,
    rotary: Option<Arc<Rotary>>,
}

impl TransformerBlock {
    /// Packs a layer. Layers may share `rotary`; `None` means no positions.
    pub fn new(
        target: impl Into<Target>,
        weights: &TransformerWeights<'_>,
        rotary: Option<Arc<Rotary>>,
    ) -> Result<Self, KernelError> {
        let kernels = target.into().kernels()?;
        let dim = require_nonzero("attention norm", weights.attention_norm.len())?;
        let heads = require_nonzero("to_gates.bias", weights.to_gates.bias.len())?;
        let inner = require_nonzero("feed-forward bias", weights.linear_in.bias.len())?;
        let dim_head = require_nonzero("to_qkv.weight", weights.to_qkv.len() / (3 * heads * dim))?;
        let hd = heads * dim_head;
        let check = KernelError::check;
        check("to_qkv.weight", 3 * hd * dim, weights.to_qkv.len())?;
        check("to_gates.weight", heads * dim, weights.to_gates.weight.len())?;
        check("to_out.weight", dim * hd, weights.to_out.len())?;
        check("feed-forward norm", dim, weights.feed_forward_norm.len())?;
        check("feed-forward first weight", inner * dim, weights.linear_in.weight.len())?;
        check("feed-forward second weight", dim * inner, weights.linear_out.weight.len())?;
        check("feed-forward second bias", dim, weights.linear_out.bias.len())?;
        if let Some(gamma) = weights.norm {
            check("norm", dim, gamma.len())?;
        }
        if let Some(rotary) = &rotary {
            check("rotary dim_head", dim_head, rotary.dim_head())?;
        }
        // The gains are folded into the weights; x / ‖x‖ remains at run time.
        let attention_scale = fold_gain(weights.attention_norm);
        let columns = Some(attention_scale.as_slice());
        let mut qkv = Vec::with_capacity(3 * heads);
        for head in 0..heads {
            let part = |which: usize, scale: f64| {
                let from = (which * hd + head * dim_head) * dim;
                let rows = &weights.to_qkv[from..from + dim_head * dim];
                Packed::new(kernels, rows, dim_head, dim, columns, scale)
            };
            let q_scale = std::f64::consts::LOG2_E / (dim_head as f64).sqrt();
            qkv.extend([part(0, q_scale)?, part(1, 1.0)?, part(2, 1.0)?]);
        }
        let ff_scale = fold_gain(weights.feed_forward_norm);
        Ok(Self {
            kernels,
            dim,
            heads,
            dim_head,
            inner,
            qkv: Packed::stack(&qkv),
            gates: Packed::new(kernels, weights.to_gates.weight, heads, dim, columns, 1.0)?,
            gates_bias: pad_bias(kernels, weights.to_gates.bias),
            out: Packed::new(kernels, weights.to_out, dim, hd, None, 1.0)?,
            linear_in: Packed::new(kernels, weights.linear_in.weight, inner, dim, Some(&ff_scale), 1.0)?,
            linear_in_bias: pad_bias(kernels, weights.linear_in.bias),
            linear_out: Packed::new(kernels, weights.linear_out.weight, dim, inner, None, 1.0)?,
            linear_out_bias: pad_bias(kernels, weights.linear_out.bias),
            norm: weights.norm.map(|gamma| fold_gain(gamma).iter().map(|&g| g as f32).collect()),
            rotary,
        })
    }

    /// Features.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes of packed weights.
    pub fn bytes(&self) -> usize {
        let all = [&self.qkv, &self.gates, &self.out, &self.linear_in, &self.linear_out];
        all.map(Packed::bytes).iter().sum()
    }

    /// Multiply-adds · 2 of one [`Self::forward`], GEMMs only.
    pub fn flops(&self, sequences: Sequences) -> f64 {
        let (_, len) = sequences.count_and_len();
        let hd = self.heads * self.dim_head;
        let row = self.dim * (4 * hd + self.heads + 2 * self.inner) + 2 * len * hd;
        2.0 * row as f64 * sequences.rows() as f64
    }

    /// x [batch, frames, bands, dim] ← layer(x) along the axis of `sequences`. The bits do not depend on the pool.
    pub fn forward(&self, pool: &Pool, x: &mut [f32], sequences: Sequences) -> Result<(), KernelError> {
        KernelError::check("x", sequences.rows().saturating_mul(self.dim), x.len())?;
        let (count, len) = sequences.count_and_len();
        if count == 0 || len == 0 {
            return Ok(());
        }
        let table = self.rotary.as_ref().map(|rotary| rotary.table(len));
        let table = table.as_deref();
        let rows = SequenceRows::new(x, self.dim, sequences);
        // Whole sequences, about TASK_ROWS rows, but enough tasks for every thread.
        let group = (TASK_ROWS / len).min(count / (3 * pool.threads())).max(1);
        let tasks = count.div_ceil(group);
        let task = |i: usize, feed_forward: bool| {
            let (first, last) = (i * group * len, ((i + 1) * group).min(count) * len);
            // SAFETY: tasks own disjoint rows of x, which is borrowed for the whole call.
            self.kernels.with_tile_registers(|| unsafe {
                self.attention(&rows, first, last, len, table);
                if feed_forward {
                    self.feed_forward(&rows, first, last);
                }
            });
        };
        if tasks >= 8 * pool.threads() || pool.threads() == 1 {
            pool.run(tasks, |i| task(i, true));
        } else {
            // Few long sequences: the feed-forward runs in tasks of its own, whose independent rows balance the load.
            pool.run(tasks, |i| task(i, false));
            let plain = SequenceRows::new(x, self.dim, Sequences { axis: Axis::Band, ..sequences });
            let (tile, _) = feed_forward_tile(self.kernels);
            pool.run(plain.count().div_ceil(tile), |i| {
                let last = ((i + 1) * tile).min(plain.count());
                // SAFETY: as above; the attention is done.
                self.kernels.with_tile_registers(|| unsafe { self.feed_forward(&plain, i * tile, last) });
            });
        }
        Ok(())
    }

    /// x ← x + attention(x) for rows first..last, which are whole sequences of `len`.
    ///
    /// # Safety
    /// No one else may touch these rows.
    unsafe fn attention(
        &self,
        rows: &SequenceRows<'_>,
        first: usize,
        last: usize,
        len: usize,
        table: Option<&[f32]>,
    ) {
        let (kn, nr, dim, dim_head) = (self.kernels, self.kernels.nr, self.dim, self.dim_head);
        let (count, hd) = (last - first, self.heads * dim_head);
        let padded = dim_head.next_multiple_of(nr);
        let (lda, packed_stride) = (kn.packed_stride(dim), kn.packed_stride(dim_head));
        let key_panels = len.div_ceil(nr) * packed_stride * nr;
        // Products of bf16 take values as pairs of rows, others as they come.
        let pairs = if kn.bf16_dot { kn.packed_stride(len) * nr } else { 0 };
        let sizes = [
            kn.operand_len(count, dim),
            dim.max(kn.converted_len(TILE, hd)),
            count * self.heads,
            count * hd,
            count * padded,
            count * padded,
            count * padded,
            kn.converted_len(len, dim_head),
            key_panels,
            pairs * padded / nr,
            attention::scratch_len(kn, len),
            TILE * dim,
        ];
        with_scratch(sizes, |[xn, spare, gates, out, q, k, v, queries, keys, values, work, sum]| {
            let [xn, spare, gates, out] = [xn, spare, gates, out].map(<[f32]>::as_mut_ptr);
            let [q, k, v, queries] = [q, k, v, queries].map(<[f32]>::as_mut_ptr);
            let [keys, values, work, sum] = [keys, values, work, sum].map(<[f32]>::as_mut_ptr);
            // SAFETY: every pointer is a scratch slice of the size computed above, or a row of x that is ours; packed weights
            // and padded biases have the sizes checked in `new`.
            unsafe {
                for row in 0..count {
                    (kn.prefetch)(rows.ptr(first + (row + PREFETCH_ROWS).min(count - 1)), dim);
                    let x = rows.ptr(first + row);
                    kn.write_operand_row(xn, row, dim, spare, |to| {
                        (kn.normalize)(x, to, dim, std::ptr::null())
                    });
                }
                let plain = Gemm {
                    m: count,
                    n: self.heads,
                    k: dim,
                    a: xn,
                    lda,
                    b: self.gates.row(0),
                    b_panel: self.gates.panel_stride(),
                    c: gates,
                    ldc: self.heads,
                    c_panel: nr,
                    bias: self.gates_bias.as_ptr(),
                    accumulate: false,
                };
                (kn.gemm_packed)(&plain);
                (kn.sigmoid)(gates, count * self.heads);
                // f32 rows are tiled so that they stay in cache for q, k and v. bf16 rows are half the size and gain more from
                // reusing the weights.
                let tile = if kn.bf16_dot { count } else { TILE };
                for head in 0..self.heads {
                    let mut r = 0;
                    while r < count {
                        let m = tile.min(count - r);
                        let a = xn.add(r * lda);
                        let gemm_packed = |part: usize, c: *mut f32, ldc: usize, c_panel: usize| {
                            let b = self.qkv.column((3 * head + part) * padded);
                            let (n, b_panel, bias) = (padded, self.qkv.panel_stride(), std::ptr::null());
                            (kn.gemm_packed)(&Gemm { m, n, a, b, b_panel, c, ldc, c_panel, bias, ..plain });
                        };
                        gemm_packed(0, q.add(r * padded), padded, nr);
                        gemm_packed(1, k.add(r * padded), padded, nr);
                        // Values are written in panels directly.
                        gemm_packed(2, v.add(r * nr), nr, count * nr);
                        r += m;
                    }
                    if let Some(table) = table {
                        for row in 0..count {
                            let angles = table.as_ptr().add((row % len) * 2 * dim_head);
                            (kn.rotate)(q.add(row * padded), angles, dim_head);
                            (kn.rotate)(k.add(row * padded), angles, dim_head);
                        }
                    }
                    for s in (0..count).step_by(len) {
                        let mut p = 0;
                        while p < len {
                            let tokens = nr.min(len - p);
                            let to = keys.add(p * packed_stride);
                            (kn.transpose)(k.add((s + p) * padded), tokens, dim_head, padded, to, nr);
                            p += nr;
                        }
                        let (q, ldq) = kn.to_operand(q.add(s * padded), len, dim_head, padded, queries);
                        let mut one = AttentionHead {
                            len,
                            dim_head,
                            q,
                            ldq,
                            keys,
                            v: v.add(s * nr),
                            v_panel: count * nr,
                            out: out.add(s * hd + head * dim_head),
                            ldo: hd,
                            gates: gates.add(s * self.heads + head),
                            gate_stride: self.heads,
                        };
                        if kn.bf16_dot {
                            for panel in 0..padded / nr {
                                (kn.interleave_rows_bf16)(
                                    one.v.add(panel * one.v_panel),
                                    len,
                                    nr,
                                    values.add(panel * pairs),
                                );
                            }
                            (one.v, one.v_panel) = (values, pairs);
                        }
                        one.attend(kn, work);
                    }
                }
                let mut r = 0;
                while r < count {
                    let m = TILE.min(count - r);
                    let (a, lda) = kn.to_operand(out.add(r * hd), m, hd, hd, spare);
                    (kn.gemm_packed)(&Gemm {
                        m,
                        n: dim,
                        k: hd,
                        a,
                        lda,
                        b: self.out.row(0),
                        b_panel: self.out.panel_stride(),
                        c: sum,
                        ldc: dim,
                        c_panel: nr,
                        bias: std::ptr::null(),
                        accumulate: false,
                    });
                    for row in 0..m {
                        (kn.prefetch)(rows.ptr(first + r + (row + PREFETCH_ROWS).min(m - 1)), dim);
                        (kn.add_assign)(rows.ptr(first + r + row), sum.add(row * dim), dim);
                    }
                    r += m;
                }
            }
        });
    }

    /// x ← x + feed-forward(x), then the norm if there is one, for rows first..last.
    ///
    /// # Safety
    /// No one else may touch these rows.
    unsafe fn feed_forward(&self, rows: &SequenceRows<'_>, first: usize, last: usize) {
        let (kn, nr, dim) = (self.kernels, self.kernels.nr, self.dim);
        let (tile, width) = feed_forward_tile(kn);
        let (tile, width) = (tile.min(last - first), width.min(self.inner).next_multiple_of(nr));
        let sizes = [kn.operand_len(tile, dim), dim, tile * width, kn.converted_len(tile, width), tile * dim];
        with_scratch(sizes, |[xn, spare, hidden, converted, sum]| {
            let [xn, spare, hidden] = [xn, spare, hidden].map(<[f32]>::as_mut_ptr);
            let [converted, sum] = [converted, sum].map(<[f32]>::as_mut_ptr);
            let mut r = first;
            while r < last {
                let m = tile.min(last - r);
                // SAFETY: as in `attention`; panels c0/nr and rows c0 exist because c0 < inner and width is whole panels.
                unsafe {
                    for row in 0..m {
                        (kn.prefetch)(rows.ptr(r + (row + PREFETCH_ROWS).min(m - 1)), dim);
                        let x = rows.ptr(r + row);
                        kn.write_operand_row(xn, row, dim, spare, |to| {
                            (kn.normalize)(x, to, dim, std::ptr::null())
                        });
                    }
                    let mut c0 = 0;
                    while c0 < self.inner {
                        let n = width.min(self.inner - c0);
                        (kn.gemm_packed)(&Gemm {
                            m,
                            n: n.next_multiple_of(nr),
                            k: dim,
                            a: xn,
                            lda: kn.packed_stride(dim),
                            b: self.linear_in.column(c0),
                            b_panel: self.linear_in.panel_stride(),
                            c: hidden,
                            ldc: width,
                            c_panel: nr,
                            bias: self.linear_in_bias.as_ptr().add(c0),
                            accumulate: false,
                        });
                        let (a, lda) = kn.gelu_to_operand(hidden, m, n, width, converted);
                        (kn.gemm_packed)(&Gemm {
                            m,
                            n: dim,
                            k: n,
                            a,
                            lda,
                            b: self.linear_out.row(c0),
                            b_panel: self.linear_out.panel_stride(),
                            c: sum,
                            ldc: dim,
                            c_panel: nr,
                            bias: self.linear_out_bias.as_ptr(),
                            accumulate: c0 > 0,
                        });
                        c0 += n;
                    }
                    for row in 0..m {
                        (kn.prefetch)(rows.ptr(r + (row + PREFETCH_ROWS).min(m - 1)), dim);
                        let x = rows.ptr(r + row);
                        (kn.add_assign)(x, sum.add(row * dim), dim);
                        if let Some(gamma) = &self.norm {
                            (kn.normalize)(x, x, dim, gamma.as_ptr());
                        }
                    }
                }
                r += m;
            }
        });
    }
}

/// gamma · √dim, which is folded into the weights after a norm.
pub(super) fn fold_gain(gamma: &[f32]) -> Vec<f64> {
    let root = (gamma.len() as f64).sqrt();
    gamma.iter().map(|&g| f64::from(g) * root).collect()
}

/// An error if `found` is 0.
pub(super) fn require_nonzero(what: &str, found: usize) -> Result<usize, KernelError> {
    if found > 0 {
        return Ok(found);
    }
    Err(KernelError::Value {
        what: format!("the size given by {what}"),
        expected: "at least 1".to_owned(),
        found,
    })
}
