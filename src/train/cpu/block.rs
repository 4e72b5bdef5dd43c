//! One block, attention and feed-forward, and its gradient.

use super::rows::{add_bias, add_rows, dot, gelu_backward, rms_norm, rms_norm_backward, softmax_backward};
use crate::kernels::{MatrixView, RowOps, multiply};

/// Sizes of a block. Axis letters below: r rows of tokens, d feature, h head, i feature of all heads, f hidden feature.
#[derive(Clone, Copy, Debug)]
pub struct BlockSizes {
    pub dim: usize,
    pub heads: usize,
    pub dim_head: usize,
    pub hidden: usize,
    /// Tokens of a sequence.
    pub len: usize,
}

impl BlockSizes {
    fn inner(self) -> usize {
        self.heads * self.dim_head
    }
}

/// Cosines and sines of every position: [len, pairs] each.
pub struct Rotation {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
}

impl Rotation {
    pub fn new(freqs: &[f32], sizes: BlockSizes) -> Self {
        // The angle is a product of f32, as in the references; its cosine as exact as can be.
        let angles = || (0..sizes.len).flat_map(|pos| freqs.iter().map(move |f| f64::from(pos as f32 * f)));
        Self {
            cos: angles().map(|a| a.cos() as f32).collect(),
            sin: angles().map(|a| a.sin() as f32).collect(),
            pairs: freqs.len(),
        }
    }

    /// Rotates the interleaved pairs of one head at position `pos`; back for `direction` −1.
    fn rotate(&self, x: &mut [f32], pos: usize, direction: f32) {
        let (cos, sin) = (&self.cos[pos * self.pairs..], &self.sin[pos * self.pairs..]);
        for ((pair, cos), sin) in x.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin).take(self.pairs) {
            let sin = direction * sin;
            *pair = [pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos];
        }
    }
}

/// A block's weights, and what it computes with.
pub struct Block {
    sizes: BlockSizes,
    rotation: Rotation,
    ops: RowOps,
    /// Attention's gamma [d], qkv [3i, d], gates [h, d] and bias [h], out [d, i]; the feed-forward's gamma [d], up [f, d] and bias [f],
    /// down [d, f] and bias [d]; for the last block of a Mel-Band transformer a gamma [d].
    weights: Vec<Vec<f32>>,
}

const NORM: usize = 0;
const QKV: usize = 1;
const GATES: usize = 2;
const GATES_BIAS: usize = 3;
const OUT: usize = 4;
const FF_NORM: usize = 5;
const UP: usize = 6;
const UP_BIAS: usize = 7;
const DOWN: usize = 8;
const DOWN_BIAS: usize = 9;
const LAST_NORM: usize = 10;

/// Intermediate results of a slice of sequences.
struct Activations {
    /// Normed input: [r, d]
    normed: Vec<f32>,
    /// Rotated q, scaled for a softmax of base 2, rotated k, and v: [r, 3i]
    qkv: Vec<f32>,
    /// [r, h]
    gates: Vec<f32>,
    /// Softmax of every sequence and head: [sequences, h, len, len]
    attention: Vec<f32>,
    /// Heads before their gates: [r, i]
    heads: Vec<f32>,
    /// After its gates: [r, i]
    gated: Vec<f32>,
    /// Input plus attention: [r, d]
    middle: Vec<f32>,
    /// Normed, for the feed-forward: [r, d]
    ff_normed: Vec<f32>,
    /// Hidden features before GELU: [r, f]
    hidden: Vec<f32>,
    /// And after: [r, f]
    bent: Vec<f32>,
    /// Before the last norm, where there is one, else the result: [r, d]
    out: Vec<f32>,
}

impl Block {
    pub fn new(sizes: BlockSizes, weights: Vec<Vec<f32>>, rotation: Rotation, ops: RowOps) -> Self {
        Self { sizes, rotation, ops, weights }
    }

    /// Sums for gradients, one for each weight.
    pub fn zeros(&self) -> Vec<Vec<f32>> {
        self.weights.iter().map(|weight| vec![0.0; weight.len()]).collect()
    }

    /// x: whole sequences, [r, d], replaced by the block's output.
    pub fn forward(&self, x: &mut [f32]) {
        let activations = self.activate(x);
        match self.weights.get(LAST_NORM) {
            Some(gamma) => rms_norm(&activations.out, gamma, x),
            None => x.copy_from_slice(&activations.out),
        }
    }

    fn activate(&self, x: &[f32]) -> Activations {
        let BlockSizes { dim, heads, hidden, .. } = self.sizes;
        let (rows, inner) = (x.len() / dim, self.sizes.inner());
        let w = |i: usize, out: usize, input: usize| MatrixView::new(&self.weights[i], out, input).t();
        let mut normed = vec![0.0; x.len()];
        rms_norm(x, &self.weights[NORM], &mut normed);
        let input = MatrixView::new(&normed, rows, dim);
        let mut qkv = vec![0.0; rows * 3 * inner];
        multiply(input, w(QKV, 3 * inner, dim), 1.0, &mut qkv, 3 * inner, false);
        self.rotate(&mut qkv);
        let mut gates = vec![0.0; rows * heads];
        multiply(input, w(GATES, heads, dim), 1.0, &mut gates, heads, false);
        add_bias(&mut gates, &self.weights[GATES_BIAS]);
        self.ops.sigmoid(&mut gates);
        let (attention, head_outputs) = self.attend(&qkv);
        let gated = self.gate(&head_outputs, &gates);
        let mut middle = x.to_vec();
        multiply(MatrixView::new(&gated, rows, inner), w(OUT, dim, inner), 1.0, &mut middle, dim, true);
        let mut ff_normed = vec![0.0; x.len()];
        rms_norm(&middle, &self.weights[FF_NORM], &mut ff_normed);
        let mut hidden_values = vec![0.0; rows * hidden];
        let up = w(UP, hidden, dim);
        multiply(MatrixView::new(&ff_normed, rows, dim), up, 1.0, &mut hidden_values, hidden, false);
        add_bias(&mut hidden_values, &self.weights[UP_BIAS]);
        let mut bent = hidden_values.clone();
        self.ops.gelu(&mut bent);
        let mut out = middle.clone();
        multiply(MatrixView::new(&bent, rows, hidden), w(DOWN, dim, hidden), 1.0, &mut out, dim, true);
        add_bias(&mut out, &self.weights[DOWN_BIAS]);
        Activations {
            normed,
            qkv,
            gates,
            attention,
            heads: head_outputs,
            gated,
            middle,
            ff_normed,
            hidden: hidden_values,
            bent,
            out,
        }
    }

    /// What q is multiplied by before a softmax of base 2.
    fn q_scale(&self) -> f32 {
        std::f32::consts::LOG2_E / (self.sizes.dim_head as f32).sqrt()
    }

    /// Rotates q and k, and scales q.
    fn rotate(&self, qkv: &mut [f32]) {
        let BlockSizes { dim_head, len, .. } = self.sizes;
        let (inner, scale) = (self.sizes.inner(), self.q_scale());
        for (row, qkv) in qkv.chunks_exact_mut(3 * inner).enumerate() {
            for head in qkv[..2 * inner].chunks_exact_mut(dim_head) {
                self.rotation.rotate(head, row % len, 1.0);
            }
            qkv[..inner].iter_mut().for_each(|q| *q *= scale);
        }
    }

    /// Softmax [sequences, h, len, len] and heads [r, i]
    fn attend(&self, qkv: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let BlockSizes { heads, dim_head, len, .. } = self.sizes;
        let inner = self.sizes.inner();
        let sequences = qkv.len() / (3 * inner * len);
        let mut attention = vec![0.0; sequences * heads * len * len];
        let mut out = vec![0.0; sequences * len * inner];
        for (task, weights) in attention.chunks_exact_mut(len * len).enumerate() {
            let (sequence, head) = (task / heads, task % heads);
            let [q, k, v] = self.head(qkv, sequence, head);
            multiply(q, k.t(), 1.0, weights, len, false);
            self.ops.softmax2(weights, len);
            let out = &mut out[sequence * len * inner + head * dim_head..];
            multiply(MatrixView::new(weights, len, len), v, 1.0, out, inner, false);
        }
        (attention, out)
    }

    /// q, k and v of one head: [len, dim_head] each
    fn head<'a>(&self, qkv: &'a [f32], sequence: usize, head: usize) -> [MatrixView<'a>; 3] {
        let BlockSizes { dim_head, len, .. } = self.sizes;
        let inner = self.sizes.inner();
        [0, 1, 2].map(|part| {
            let start = sequence * len * 3 * inner + part * inner + head * dim_head;
            MatrixView::strided(&qkv[start..], len, dim_head, 3 * inner)
        })
    }

    /// Each head times its gate.
    fn gate(&self, heads: &[f32], gates: &[f32]) -> Vec<f32> {
        let mut gated = heads.to_vec();
        for (head, gate) in gated.chunks_exact_mut(self.sizes.dim_head).zip(gates) {
            head.iter_mut().for_each(|x| *x *= gate);
        }
        gated
    }

    /// The gradient of [`Block::forward`] at `x`, [r, d]: `gradient` is that of the result and becomes that of x; `sums` grow by those of
    /// the weights.
    pub fn backward(&self, x: &[f32], gradient: &mut [f32], sums: &mut [Vec<f32>]) {
        let a = self.activate(x);
        if let Some(gamma) = self.weights.get(LAST_NORM) {
            let mut before = vec![0.0; gradient.len()];
            rms_norm_backward(&a.out, gamma, gradient, &mut sums[LAST_NORM], &mut before);
            gradient.copy_from_slice(&before);
        }
        self.feed_forward_backward(&a, gradient, sums);
        self.attention_backward(x, &a, gradient, sums);
    }

    fn feed_forward_backward(&self, a: &Activations, gradient: &mut [f32], sums: &mut [Vec<f32>]) {
        let BlockSizes { dim, hidden, .. } = self.sizes;
        let rows = gradient.len() / dim;
        let of_out = MatrixView::new(gradient, rows, dim);
        let bent = MatrixView::new(&a.bent, rows, hidden);
        multiply(of_out.t(), bent, 1.0, &mut sums[DOWN], hidden, true);
        add_rows(gradient, &mut sums[DOWN_BIAS]);
        let mut of_hidden = vec![0.0; rows * hidden];
        let down = MatrixView::new(&self.weights[DOWN], dim, hidden);
        multiply(of_out, down, 1.0, &mut of_hidden, hidden, false);
        gelu_backward(&a.hidden, &a.bent, &mut of_hidden, &self.ops, &mut Vec::new());
        let of_hidden_view = MatrixView::new(&of_hidden, rows, hidden);
        let normed = MatrixView::new(&a.ff_normed, rows, dim);
        multiply(of_hidden_view.t(), normed, 1.0, &mut sums[UP], dim, true);
        add_rows(&of_hidden, &mut sums[UP_BIAS]);
        let mut of_normed = vec![0.0; rows * dim];
        let up = MatrixView::new(&self.weights[UP], hidden, dim);
        multiply(of_hidden_view, up, 1.0, &mut of_normed, dim, false);
        rms_norm_backward(&a.middle, &self.weights[FF_NORM], &of_normed, &mut sums[FF_NORM], gradient);
    }

    fn attention_backward(&self, x: &[f32], a: &Activations, gradient: &mut [f32], sums: &mut [Vec<f32>]) {
        let BlockSizes { dim, heads, dim_head, .. } = self.sizes;
        let (rows, inner) = (gradient.len() / dim, self.sizes.inner());
        let of_out = MatrixView::new(gradient, rows, dim);
        multiply(of_out.t(), MatrixView::new(&a.gated, rows, inner), 1.0, &mut sums[OUT], inner, true);
        let mut of_heads = vec![0.0; rows * inner];
        multiply(of_out, MatrixView::new(&self.weights[OUT], dim, inner), 1.0, &mut of_heads, inner, false);
        // Through the gates: sigmoid' = s·(1 − s).
        let mut of_gates = vec![0.0; rows * heads];
        let pairs = of_heads.chunks_exact_mut(dim_head).zip(a.heads.chunks_exact(dim_head));
        for ((of_head, head), (of_gate, gate)) in pairs.zip(of_gates.iter_mut().zip(&a.gates)) {
            *of_gate = dot(of_head, head) * gate * (1.0 - gate);
            of_head.iter_mut().for_each(|g| *g *= gate);
        }
        let of_qkv = self.scores_backward(a, &of_heads);
        let normed = MatrixView::new(&a.normed, rows, dim);
        let of_qkv_view = MatrixView::new(&of_qkv, rows, 3 * inner);
        multiply(of_qkv_view.t(), normed, 1.0, &mut sums[QKV], dim, true);
        let of_gates_view = MatrixView::new(&of_gates, rows, heads);
        multiply(of_gates_view.t(), normed, 1.0, &mut sums[GATES], dim, true);
        add_rows(&of_gates, &mut sums[GATES_BIAS]);
        let mut of_normed = vec![0.0; rows * dim];
        let qkv = MatrixView::new(&self.weights[QKV], 3 * inner, dim);
        multiply(of_qkv_view, qkv, 1.0, &mut of_normed, dim, false);
        multiply(
            of_gates_view,
            MatrixView::new(&self.weights[GATES], heads, dim),
            1.0,
            &mut of_normed,
            dim,
            true,
        );
        rms_norm_backward(x, &self.weights[NORM], &of_normed, &mut sums[NORM], gradient);
    }

    /// The gradient of q, k and v before their rotation, [r, 3i], given that of the heads, [r, i].
    fn scores_backward(&self, a: &Activations, of_heads: &[f32]) -> Vec<f32> {
        let BlockSizes { heads, dim_head, len, .. } = self.sizes;
        let inner = self.sizes.inner();
        let scale = 1.0 / (dim_head as f32).sqrt();
        let mut of_qkv = vec![0.0; a.qkv.len()];
        let mut of_scores = vec![0.0; len * len];
        for (task, weights) in a.attention.chunks_exact(len * len).enumerate() {
            let (sequence, head) = (task / heads, task % heads);
            let [q, k, v] = self.head(&a.qkv, sequence, head);
            let of_head = &of_heads[sequence * len * inner + head * dim_head..];
            let of_head = MatrixView::strided(of_head, len, dim_head, inner);
            let at = |part: usize| sequence * len * 3 * inner + part * inner + head * dim_head;
            let weights_view = MatrixView::new(weights, len, len);
            multiply(weights_view.t(), of_head, 1.0, &mut of_qkv[at(2)..], 3 * inner, false);
            multiply(of_head, v.t(), 1.0, &mut of_scores, len, false);
            softmax_backward(weights, &mut of_scores, len);
            let of_scores = MatrixView::new(&of_scores, len, len);
            multiply(of_scores, k, scale, &mut of_qkv[at(0)..], 3 * inner, false);
            // q carries its scale and the factor of the base.
            multiply(of_scores.t(), q, scale / self.q_scale(), &mut of_qkv[at(1)..], 3 * inner, false);
        }
        for (row, of_qkv) in of_qkv.chunks_exact_mut(3 * inner).enumerate() {
            for head in of_qkv[..2 * inner].chunks_exact_mut(dim_head) {
                self.rotation.rotate(head, row % len, -1.0);
            }
        }
        of_qkv
    }
}
