//! One attention and one feed-forward layer over all sequences of a spectrogram's features, in place.

use std::sync::Arc;

use super::attention::{self, AttentionHead, Segment};
use super::compiled::Kernels;
use super::context::{CacheFormat, ContextHop, KeyValueCache};
use super::error::KernelError;
use super::layout::{Activations, Addend, Element, Gemm, Output, Panels, TILE_ROWS};
use super::packed::{Folded, Packed, pad_bias};
use super::pool::Pool;
use super::product::OperandBuffer;
use super::rotary::Rotary;
use super::rows::{Axis, SequenceRows, Sequences};
use super::scratch::{AlignedVec, with_scratch};
use super::target::Target;

/// Rows per projection.
const TILE: usize = 96;
/// How many rows ahead of their use rows are prefetched.
pub(super) const PREFETCH_ROWS: usize = 3;
/// Hidden features of the feed-forward per step: its weights of a step and the hidden rows stay in the second-level cache.
const HIDDEN: usize = 384;

/// Rows of a task; short sequences are grouped. Every task reads all weights of a layer, and products of bf16 tiles are so fast that they
/// wait for these. Otherwise more rows gain nothing.
fn task_rows(kernels: &Kernels) -> usize {
    if kernels.linear.gemm_gelu.is_some() { 416 } else { 3 * TILE }
}

/// Rows of the feed-forward per step. Its weights exceed the second-level cache, so each step reads them anew. Where the hidden rows are not
/// in memory as f32, a whole task fits.
fn feed_forward_rows(kernels: &Kernels) -> usize {
    match kernels.linear.left {
        Element::F32 => TILE,
        _ if kernels.linear.gemm_gelu.is_some() => 448,
        _ => 2 * TILE,
    }
}

/// Sequences of `len` rows in a task: as many as make about `rows` rows, which reuse a layer's weights, unless fewer let the threads end
/// clearly earlier. The results do not depend on it.
fn sequences_per_task(rows: usize, count: usize, len: usize, threads: usize) -> usize {
    // Sequences that the busiest thread computes.
    let longest = |group: usize| count.div_ceil(group).div_ceil(threads) * group;
    let most = (rows / len.max(1)).clamp(1, count.max(1));
    let best = (1..=most).map(longest).min().unwrap_or(1);
    (1..=most).rev().find(|&group| 100 * longest(group) <= 108 * best).unwrap_or(1)
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
    /// One matrix for each [`HIDDEN`] inputs, which are multiplied in turn.
    linear_out: Vec<Packed>,
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
        let folded = Folded { scale: 1.0, columns: Some(&attention_scale) };
        let pack =
            |weight: &[f32], shape, folded| Packed::new(&kernels.linear, kernels.nr, weight, shape, folded);
        let mut qkv = Vec::with_capacity(3 * heads);
        for head in 0..heads {
            let part = |which: usize, scale: f64| {
                let from = (which * hd + head * dim_head) * dim;
                let rows = &weights.to_qkv[from..from + dim_head * dim];
                pack(rows, [dim_head, dim], Folded { scale, ..folded })
            };
            let q_scale = std::f64::consts::LOG2_E / (dim_head as f64).sqrt();
            qkv.extend([part(0, q_scale)?, part(1, 1.0)?, part(2, 1.0)?]);
        }
        let qkv = Packed::stack(&qkv).ok_or_else(|| no_heads(heads))?;
        let ff_scale = fold_gain(weights.feed_forward_norm);
        let ff_folded = Folded { scale: 1.0, columns: Some(&ff_scale) };
        Ok(Self {
            kernels,
            dim,
            heads,
            dim_head,
            inner,
            qkv,
            gates: pack(weights.to_gates.weight, [heads, dim], folded)?,
            gates_bias: pad_bias(kernels.nr, weights.to_gates.bias),
            out: pack(weights.to_out, [dim, hd], Folded::NONE)?,
            linear_in: pack(weights.linear_in.weight, [inner, dim], ff_folded)?,
            linear_in_bias: pad_bias(kernels.nr, weights.linear_in.bias),
            linear_out: pack_by_inputs(kernels, weights.linear_out.weight, [dim, inner])?,
            linear_out_bias: pad_bias(kernels.nr, weights.linear_out.bias),
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
        let all = [&self.qkv, &self.gates, &self.out, &self.linear_in].into_iter().chain(&self.linear_out);
        all.map(Packed::bytes).sum()
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
        let group = sequences_per_task(task_rows(self.kernels), count, len, pool.threads());
        let tasks = count.div_ceil(group);
        let task = |i: usize, feed_forward: bool| {
            let (first, last) = (i * group * len, ((i + 1) * group).min(count) * len);
            // SAFETY: tasks own disjoint rows of x, which is borrowed for the whole call.
            self.kernels.with_tile_registers(|| unsafe {
                self.attention(&rows, first, last, len, table, None);
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
            self.feed_forward_all(pool, plain);
        }
        Ok(())
    }

    /// All rows through the feed-forward, in about equal parts.
    fn feed_forward_all(&self, pool: &Pool, rows: SequenceRows<'_>) {
        let tile = feed_forward_rows(self.kernels);
        // Few rows are dealt to all threads, in whole tiles of the products.
        let tile = tile.min(rows.count().div_ceil(pool.threads()).next_multiple_of(TILE_ROWS));
        pool.run(rows.count().div_ceil(tile), |i| {
            let last = ((i + 1) * tile).min(rows.count());
            // SAFETY: tasks own disjoint rows of x, which is borrowed for the whole call.
            self.kernels.with_tile_registers(|| unsafe { self.feed_forward(&rows, i * tile, last) });
        });
    }

    /// A cache for [`Self::forward_hops`]: keys and values of the last `frames` frames that left a hop, for each of `bands` bands.
    pub fn new_cache(&self, bands: usize, frames: usize, format: CacheFormat) -> KeyValueCache {
        KeyValueCache::new(self.kernels, [bands, self.heads, self.dim_head], frames, format)
    }

    /// x [frames of all hops, bands, dim] ← layer(x) along time. The frames of each hop attend to one another and to what
    /// `hop.caches[block]` keeps; then the first `hop.leaving` of them are kept too. The bits of a hop do not depend on the pool
    /// or on the other hops.
    ///
    /// # Errors
    /// [`KernelError`] where sizes differ.
    pub fn forward_hops(
        &self,
        pool: &Pool,
        x: &mut [f32],
        bands: usize,
        block: usize,
        hops: &mut [ContextHop<'_>],
    ) -> Result<(), KernelError> {
        let frames: usize = hops.iter().map(|hop| hop.frames).sum();
        KernelError::check("x", frames.saturating_mul(bands * self.dim), x.len())?;
        let mut longest = 0;
        for hop in hops.iter_mut() {
            let (first, frames) = (hop.first, hop.frames);
            let cache = hop.cache(block)?;
            cache.check(self.kernels, [bands, self.heads, self.dim_head])?;
            if let Some(rotary) = &self.rotary {
                rotary.rows_from(first, frames, &mut cache.angles);
            }
            longest = longest.max(frames);
        }
        if frames == 0 || bands == 0 {
            return Ok(());
        }
        let rows = SequenceRows::new(x, self.dim, Sequences::band(frames, bands));
        // But a task for every thread.
        let parts = (bands * longest)
            .div_ceil(task_rows(self.kernels))
            .max(pool.threads().div_ceil(hops.len()))
            .min(bands);
        let (shared, positions) = (&*hops, self.rotary.is_some());
        pool.run(parts * shared.len(), |task| {
            let (index, part) = (task / parts, task % parts);
            let before = shared[..index].iter().map(|hop| hop.frames).sum();
            let hop = &shared[index];
            let (from, to) = (part * bands / parts, (part + 1) * bands / parts);
            let kept = Kept { cache: &hop.caches[block], sequence: from, leaving: hop.leaving };
            let table = positions.then_some(kept.cache.angles.as_slice());
            let rows = rows.sequences_of_frames(before, hop.frames);
            let (first, last) = (from * hop.frames, to * hop.frames);
            if first < last {
                // SAFETY: tasks own disjoint rows of x and disjoint sequences of the caches, all of which are borrowed for the
                // whole call.
                self.kernels.with_tile_registers(|| unsafe {
                    self.attention(&rows, first, last, hop.frames, table, Some(kept));
                    self.feed_forward(&rows, first, last);
                });
            }
        });
        for hop in hops.iter_mut() {
            let leaving = hop.leaving;
            hop.cache(block)?.advance(leaving);
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
        kept: Option<Kept<'_>>,
    ) {
        let kept_len = kept.as_ref().map_or(0, |kept| kept.cache.len());
        let (kn, dim) = (self.kernels, self.dim);
        let (count, hd) = (last - first, self.heads * self.dim_head);
        let padded = self.dim_head.next_multiple_of(kn.nr);
        let (element, linear) = (kn.attention.element, &kn.linear);
        let value_panel = if element == Element::F32 { 0 } else { element.words(len) * kn.nr };
        let sizes = [
            linear.operand_words(count, dim),
            dim.max(linear.converted_words(TILE, hd)),
            count * self.heads,
            count * hd,
            count * padded,
            count * padded,
            count * padded,
            kn.attention.converted_words(len, self.dim_head),
            len.div_ceil(kn.nr) * element.words(self.dim_head) * kn.nr,
            value_panel * padded / kn.nr,
            attention::scratch_len(kn, [kept_len, len]),
            TILE * dim,
        ];
        with_scratch(sizes, |[xn, spare, gates, out, q, k, v, queries, keys, values, work, sum]| {
            let [spare, gates, out, q, k, v] = [spare, gates, out, q, k, v].map(<[f32]>::as_mut_ptr);
            let [queries, keys, values, work, sum] =
                [queries, keys, values, work, sum].map(<[f32]>::as_mut_ptr);
            let xn = linear.buffer(xn.as_mut_ptr(), count, dim);
            let head = HeadScratch { count, len, padded, q, k, v, queries, keys, values, value_panel, work };
            // SAFETY: every pointer is a scratch slice of the size computed above, or a row of x that is ours; packed weights
            // and padded biases have the sizes checked in `new`.
            unsafe {
                self.normalize_rows(rows, first, count, &xn, spare);
                let xn = xn.activations();
                (linear.gemm)(&Gemm {
                    m: count,
                    n: self.heads,
                    k: dim,
                    a: xn,
                    b: self.gates.panels(),
                    c: Output { data: gates, stride: self.heads, panel: kn.nr },
                    addend: Addend::Bias(self.gates_bias.as_ptr()),
                });
                (kn.ops.sigmoid)(gates, count * self.heads);
                for index in 0..self.heads {
                    self.project_head(index, xn, &head);
                    if let Some(table) = table {
                        self.rotate_head(table, &head);
                    }
                    for s in (0..count).step_by(len) {
                        let out = out.add(s * hd + index * self.dim_head);
                        let gates = gates.add(s * self.heads + index);
                        let at = kept.as_ref().map(|kept| (kept, kept.sequence + s / len, index));
                        let earlier = at.map(|(kept, sequence, index)| kept.cache.segment(sequence, index));
                        self.attend_sequence(s, &head, earlier, gates, out);
                        // Only now: what is kept last overwrites what was kept first.
                        if let Some((kept, sequence, index)) = at {
                            let (keys, values) = (k.add(s * padded), v.add(s * kn.nr));
                            let leaving = kept.leaving.min(len);
                            kept.cache.keep(
                                (sequence, index),
                                leaving,
                                (keys, padded),
                                (values, count * kn.nr),
                            );
                        }
                    }
                }
                self.add_attention(rows, first, count, out, [spare, sum]);
            }
        });
    }

    /// Rows of x, each divided by its norm, as an operand.
    ///
    /// # Safety
    /// Rows first..first + count must be readable, the buffer as large, `spare` hold `dim` floats.
    unsafe fn normalize_rows(
        &self,
        rows: &SequenceRows<'_>,
        first: usize,
        count: usize,
        xn: &OperandBuffer,
        spare: *mut f32,
    ) {
        let ops = self.kernels.ops;
        for row in 0..count {
            // SAFETY: as the caller's.
            unsafe {
                (ops.prefetch)(rows.ptr(first + (row + PREFETCH_ROWS).min(count - 1)), self.dim);
                let x = rows.ptr(first + row);
                xn.write_row(row, spare, |to| (ops.normalize)(x, to, self.dim, std::ptr::null()));
            }
        }
    }

    /// Queries, keys and values of one head.
    ///
    /// # Safety
    /// `xn` must have `count` rows and the scratch its sizes.
    unsafe fn project_head(&self, index: usize, xn: Activations, head: &HeadScratch) {
        let (kn, padded) = (self.kernels, head.padded);
        // f32 rows are tiled so that they stay in cache for q, k and v. Narrow rows are half the size or less and gain more from
        // reusing the weights.
        let tile = if kn.linear.left == Element::F32 { TILE } else { head.count };
        let mut r = 0;
        while r < head.count {
            let m = tile.min(head.count - r);
            let project = |part: usize, c: Output| {
                let b = self.qkv.panels_from((3 * index + part) * padded);
                let product = Gemm { m, n: padded, k: self.dim, a: xn.at_row(r), b, c, addend: Addend::Zero };
                // SAFETY: rows r..r + m of the operand and of the output.
                unsafe { (kn.linear.gemm)(&product) }
            };
            // SAFETY: rows below `count`.
            unsafe {
                project(0, Output { data: head.q.add(r * padded), stride: padded, panel: kn.nr });
                project(1, Output { data: head.k.add(r * padded), stride: padded, panel: kn.nr });
                // Values are written in panels directly.
                project(2, Output { data: head.v.add(r * kn.nr), stride: kn.nr, panel: head.count * kn.nr });
            }
            r += m;
        }
    }

    /// Rotates queries and keys by their positions.
    ///
    /// # Safety
    /// The scratch must have its sizes, `table` rows for `len` positions.
    unsafe fn rotate_head(&self, table: &[f32], head: &HeadScratch) {
        for row in 0..head.count {
            let angles = table[(row % head.len) * 2 * self.dim_head..].as_ptr();
            // SAFETY: rows below `count` of `dim_head` values.
            unsafe {
                (self.kernels.ops.rotate)(head.q.add(row * head.padded), angles, self.dim_head);
                (self.kernels.ops.rotate)(head.k.add(row * head.padded), angles, self.dim_head);
            }
        }
    }

    /// Attention of the sequence that begins at row s to itself and to `earlier` tokens, to rows of `out`.
    ///
    /// # Safety
    /// The scratch must have its sizes; `gates` and `out` must be rows of heads, `heads` and heads · dim_head apart.
    unsafe fn attend_sequence(
        &self,
        s: usize,
        head: &HeadScratch,
        earlier: Option<Segment>,
        gates: *const f32,
        out: *mut f32,
    ) {
        let (kn, dim_head) = (self.kernels, self.dim_head);
        let HeadScratch { len, padded, .. } = *head;
        let product = &kn.attention;
        let words = product.element.words(dim_head);
        // SAFETY: rows s..s + len of q and k, panels of the values' rows, and operands of the sizes in `attention`.
        unsafe {
            for p in (0..len).step_by(kn.nr) {
                let rows = head.k.add((s + p) * padded);
                let tokens = kn.nr.min(len - p);
                (product.keys_to_panel)(rows, tokens, dim_head, padded, head.keys.add(p * words), kn.nr);
            }
            let q = product.convert(head.q.add(s * padded), [len, dim_head], padded, head.queries);
            let mut values = Panels::plain(head.v.add(s * kn.nr), head.count * kn.nr);
            if product.element != Element::F32 {
                for panel in 0..padded / kn.nr {
                    let to = head.values.add(panel * head.value_panel);
                    (product.values_to_panel)(values.data.add(panel * values.stride), len, kn.nr, to);
                }
                values = Panels::plain(head.values, head.value_panel);
            }
            let own = Segment::new(kn, len, Panels::plain(head.keys, words * kn.nr), values);
            let one = AttentionHead {
                queries: len,
                dim_head,
                q,
                segments: [earlier.unwrap_or(Segment::empty(kn)), own],
                out,
                ldo: self.heads * dim_head,
                gates,
                gate_stride: self.heads,
            };
            one.attend(kn, head.work);
        }
    }

    /// x ← x + to_out(out) for `count` rows from `first` on.
    ///
    /// # Safety
    /// No one else may touch these rows; the memory must have the sizes in `attention`.
    unsafe fn add_attention(
        &self,
        rows: &SequenceRows<'_>,
        first: usize,
        count: usize,
        out: *mut f32,
        [converted, sum]: [*mut f32; 2],
    ) {
        let (kn, dim, hd) = (self.kernels, self.dim, self.heads * self.dim_head);
        let mut r = 0;
        while r < count {
            let m = TILE.min(count - r);
            // SAFETY: rows r..r + m.
            unsafe {
                let a = kn.linear.convert(out.add(r * hd), [m, hd], hd, converted);
                (kn.linear.gemm)(&Gemm {
                    m,
                    n: dim,
                    k: hd,
                    a,
                    b: self.out.panels(),
                    c: Output { data: sum, stride: dim, panel: kn.nr },
                    addend: Addend::Zero,
                });
                for row in 0..m {
                    (kn.ops.prefetch)(rows.ptr(first + r + (row + PREFETCH_ROWS).min(m - 1)), dim);
                    (kn.ops.add_assign)(rows.ptr(first + r + row), sum.add(row * dim), dim);
                }
            }
            r += m;
        }
    }

    /// x ← x + feed-forward(x), then the norm if there is one, for rows first..last.
    ///
    /// # Safety
    /// No one else may touch these rows.
    unsafe fn feed_forward(&self, rows: &SequenceRows<'_>, first: usize, last: usize) {
        let (kn, dim) = (self.kernels, self.dim);
        // Equal steps: a short last one would read all weights for a few rows.
        let steps = (last - first).div_ceil(feed_forward_rows(kn)).max(1);
        let tile = (last - first).div_ceil(steps).next_multiple_of(TILE_ROWS);
        let width = HIDDEN.min(self.inner).next_multiple_of(kn.nr);
        let sizes = [
            kn.linear.operand_words(tile, dim),
            dim,
            if kn.linear.gemm_gelu.is_some() { 0 } else { tile * width },
            kn.linear.converted_words(tile, width),
            tile * dim,
        ];
        with_scratch(sizes, |[xn, spare, hidden, converted, sum]| {
            let [xn, spare, hidden] = [xn, spare, hidden].map(<[f32]>::as_mut_ptr);
            let [converted, sum] = [converted, sum].map(<[f32]>::as_mut_ptr);
            let mut r = first;
            while r < last {
                let m = tile.min(last - r);
                // SAFETY: as in `attention`.
                unsafe {
                    let xn = kn.linear.buffer(xn, m, dim);
                    self.normalize_rows(rows, r, m, &xn, spare);
                    for index in 0..self.linear_out.len() {
                        self.feed_forward_step(index, m, xn.activations(), [hidden, converted, sum]);
                    }
                    for row in 0..m {
                        (kn.ops.prefetch)(rows.ptr(r + (row + PREFETCH_ROWS).min(m - 1)), dim);
                        let x = rows.ptr(r + row);
                        (kn.ops.add_assign)(x, sum.add(row * dim), dim);
                        if let Some(gamma) = &self.norm {
                            (kn.ops.normalize)(x, x, dim, gamma.as_ptr());
                        }
                    }
                }
                r += m;
            }
        });
    }

    /// sum [m, dim] ← the part of the feed-forward that goes through the hidden features of step `index`, added to the earlier parts.
    ///
    /// # Safety
    /// `xn` must have m rows; the memory must have the sizes in `feed_forward`.
    unsafe fn feed_forward_step(
        &self,
        index: usize,
        m: usize,
        xn: Activations,
        [hidden, converted, sum]: [*mut f32; 3],
    ) {
        let (kn, weight) = (self.kernels, &self.linear_out[index]);
        let (from, n) = (index * HIDDEN, weight.k);
        let width = n.next_multiple_of(kn.nr);
        let product = Gemm {
            m,
            n: width,
            k: self.dim,
            a: xn,
            b: self.linear_in.panels_from(from),
            c: Output { data: hidden, stride: width, panel: kn.nr },
            addend: Addend::Bias(self.linear_in_bias[from..].as_ptr()),
        };
        // SAFETY: `from` is the first of a panel, as HIDDEN is whole panels; the memory has the sizes in `feed_forward`.
        unsafe {
            let a = match kn.linear.gemm_gelu {
                Some(gemm_gelu) => {
                    gemm_gelu(&product, converted);
                    kn.linear.buffer(converted, m, n).activations()
                }
                None => {
                    (kn.linear.gemm)(&product);
                    kn.linear.convert_gelu(kn.ops.gelu, hidden, [m, n], width, converted)
                }
            };
            (kn.linear.gemm)(&Gemm {
                m,
                n: self.dim,
                k: n,
                a,
                b: weight.panels(),
                c: Output { data: sum, stride: self.dim, panel: kn.nr },
                addend: if index == 0 { Addend::Bias(self.linear_out_bias.as_ptr()) } else { Addend::Output },
            });
        }
    }
}

/// Scratch of the attention of one head.
struct HeadScratch {
    /// Rows: whole sequences of `len`.
    count: usize,
    len: usize,
    /// Features of a head, whole panels.
    padded: usize,
    /// [count, padded]
    q: *mut f32,
    k: *mut f32,
    /// Panels [padded/nr][count][nr].
    v: *mut f32,
    /// Operands of one sequence, where they differ from q, k and v.
    queries: *mut f32,
    keys: *mut f32,
    values: *mut f32,
    /// Words of a panel of `values`.
    value_panel: usize,
    work: *mut f32,
}

/// What sequences attend to besides themselves, and where their tokens go.
struct Kept<'a> {
    cache: &'a KeyValueCache,
    /// The cache's sequence that is the first of a task.
    sequence: usize,
    /// Tokens, the first of each sequence, that are kept afterwards.
    leaving: usize,
}

/// A weight [n, k] as one matrix for each [`HIDDEN`] inputs.
fn pack_by_inputs(kernels: &Kernels, weight: &[f32], [n, k]: [usize; 2]) -> Result<Vec<Packed>, KernelError> {
    (0..k)
        .step_by(HIDDEN)
        .map(|from| {
            let width = HIDDEN.min(k - from);
            let part: Vec<f32> =
                weight.chunks_exact(k).flat_map(|row| &row[from..from + width]).copied().collect();
            Packed::new(&kernels.linear, kernels.nr, &part, [n, width], Folded::NONE)
        })
        .collect()
}

/// A layer without heads; sizes are checked before.
fn no_heads(found: usize) -> KernelError {
    KernelError::Value { what: "number of heads".to_owned(), expected: "at least 1".to_owned(), found }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_fill_any_number_of_threads() {
        // Sequences along bands of 8 s and of 2 s of the default architecture, and of the embedded model.
        for (rows, count, len) in
            [(416, 801, 62), (288, 801, 62), (416, 201, 62), (288, 345, 20), (288, 65, 20)]
        {
            for threads in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64] {
                let group = sequences_per_task(rows, count, len, threads);
                assert!((1..=rows / len).contains(&group));
                let longest = count.div_ceil(group).div_ceil(threads) * group;
                // One sequence a task is the finest cut there is.
                let finest = count.div_ceil(threads);
                assert!(100 * longest <= 108 * finest, "{count} of {len} on {threads}: {group}");
            }
        }
        // Large tasks where threads are few.
        assert_eq!(sequences_per_task(288, 801, 62, 2), 288 / 62);
        assert_eq!((sequences_per_task(288, 1, 1000, 8), sequences_per_task(288, 3, 1, 64)), (1, 1));
    }
}
