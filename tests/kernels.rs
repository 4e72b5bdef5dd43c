//! The fused kernels against a plain f64 reference, for every instruction set this processor has.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which clippy.toml exempts only inside #[test]"
)]

#[path = "kernels/reference.rs"]
mod reference;
#[path = "kernels/row_ops.rs"]
mod row_ops;
#[path = "kernels/targets.rs"]
mod targets;

use std::sync::Arc;

use nullsum::dsp::snr_db;
use nullsum::kernels::{
    Axis, BandMlp, BandSplit, BandWeights, Format, Isa, KernelError, Linear, MaskEstimator, PackedLinear,
    Pool, Rotary, RowOps, Sequences, Target, TransformerBlock, TransformerWeights,
};
use reference::Random;
use targets::targets;

/// The SNR in dB that a target must reach: f32 sums of up to a few thousand terms, operands of 8 significant bits, or of 7 bits and
/// a sign with one scale a row. A wrong index leaves about 10 dB.
fn snr_limit(target: Target) -> f64 {
    match target.format {
        Format::F32 => 112.0,
        Format::Bf16 => 40.0,
        Format::Int8 => 27.0,
    }
}

/// A transformer layer's parameters, owned.
struct Layer {
    heads: usize,
    dim_head: usize,
    attention_norm: Vec<f32>,
    to_qkv: Vec<f32>,
    gates: (Vec<f32>, Vec<f32>),
    to_out: Vec<f32>,
    ff_norm: Vec<f32>,
    first: (Vec<f32>, Vec<f32>),
    second: (Vec<f32>, Vec<f32>),
    norm: Option<Vec<f32>>,
}

impl Layer {
    fn random(r: &mut Random, dim: usize, heads: usize, dim_head: usize, inner: usize, norm: bool) -> Self {
        let hd = heads * dim_head;
        Self {
            heads,
            dim_head,
            attention_norm: r.around(1.0, 0.3, dim),
            // Large enough that the softmax is far from uniform.
            to_qkv: r.normal(3 * hd * dim, 2.0 / (dim as f64).sqrt()),
            gates: (r.normal(heads * dim, 1.0 / (dim as f64).sqrt()), r.normal(heads, 1.0)),
            to_out: r.normal(dim * hd, 1.0 / (hd as f64).sqrt()),
            ff_norm: r.around(1.0, 0.3, dim),
            first: (r.normal(inner * dim, 1.0 / (dim as f64).sqrt()), r.normal(inner, 0.5)),
            second: (r.normal(dim * inner, 1.0 / (inner as f64).sqrt()), r.normal(dim, 0.5)),
            norm: norm.then(|| r.around(1.0, 0.3, dim)),
        }
    }

    fn weights(&self) -> TransformerWeights<'_> {
        TransformerWeights {
            attention_norm: &self.attention_norm,
            to_qkv: &self.to_qkv,
            to_gates: linear(&self.gates),
            to_out: &self.to_out,
            feed_forward_norm: &self.ff_norm,
            linear_in: linear(&self.first),
            linear_out: linear(&self.second),
            norm: self.norm.as_deref(),
        }
    }

    /// One sequence [len, dim] through the layer, in f64.
    fn reference(&self, x: &mut [f64], freqs: &[f32]) {
        let dim = self.attention_norm.len();
        let (len, hd, dh) = (x.len() / dim, self.heads * self.dim_head, self.dim_head);
        let xn = reference::rms_norm(x, &self.attention_norm);
        let qkv = reference::linear(&xn, &self.to_qkv, None, dim);
        let gates = reference::linear(&xn, &self.gates.0, Some(&self.gates.1), dim);
        let mut out = vec![0.0; len * hd];
        for head in 0..self.heads {
            let part = |which: usize, t: usize| {
                let from = t * 3 * hd + which * hd + head * dh;
                let mut row = qkv[from..from + dh].to_vec();
                if which < 2 {
                    reference::rotate(&mut row, t, freqs);
                }
                row
            };
            let [q, k, v] = [0, 1, 2].map(|which| (0..len).map(|t| part(which, t)).collect::<Vec<_>>());
            for t in 0..len {
                let dot =
                    |k: &Vec<f64>| q[t].iter().zip(k).map(|(a, b)| a * b).sum::<f64>() / (dh as f64).sqrt();
                let scores: Vec<f64> = k.iter().map(dot).collect();
                let max = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let gate = reference::sigmoid(gates[t * self.heads + head]) / p.iter().sum::<f64>();
                for e in 0..dh {
                    let sum: f64 = p.iter().zip(&v).map(|(p, v)| p * v[e]).sum();
                    out[t * hd + head * dh + e] = sum * gate;
                }
            }
        }
        for (x, y) in x.iter_mut().zip(reference::linear(&out, &self.to_out, None, hd)) {
            *x += y;
        }
        let xn = reference::rms_norm(x, &self.ff_norm);
        let mut hidden = reference::linear(&xn, &self.first.0, Some(&self.first.1), dim);
        hidden.iter_mut().for_each(|v| *v = reference::gelu(*v));
        let inner = self.first.1.len();
        for (x, y) in
            x.iter_mut().zip(reference::linear(&hidden, &self.second.0, Some(&self.second.1), inner))
        {
            *x += y;
        }
        if let Some(norm) = &self.norm {
            let normed = reference::rms_norm(x, norm);
            x.copy_from_slice(&normed);
        }
    }
}

fn linear((weight, bias): &(Vec<f32>, Vec<f32>)) -> Linear<'_> {
    Linear { weight, bias }
}

fn default_freqs(dim_head: usize) -> Vec<f32> {
    (0..dim_head / 2).map(|i| 10000f64.powf(-2.0 * i as f64 / dim_head as f64) as f32).collect()
}

/// x through `layer` sequence by sequence in f64.
fn expected(layer: &Layer, x: &[f32], seq: Sequences, freqs: &[f32]) -> Vec<f64> {
    let dim = layer.attention_norm.len();
    let Sequences { batch, frames, bands, axis } = seq;
    let mut out: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    let (count, len) = match axis {
        Axis::Time => (batch * bands, frames),
        Axis::Band => (batch * frames, bands),
    };
    for s in 0..count {
        let row = |i: usize| match axis {
            Axis::Time => (s / bands * frames + i) * bands + s % bands,
            Axis::Band => s * bands + i,
        };
        let mut one: Vec<f64> = (0..len).flat_map(|i| out[row(i) * dim..][..dim].to_vec()).collect();
        layer.reference(&mut one, freqs);
        for i in 0..len {
            out[row(i) * dim..][..dim].copy_from_slice(&one[i * dim..][..dim]);
        }
    }
    out
}

/// x after `block` on `threads` threads, with fresh and with poisoned scratch, which must agree; `offset` misaligns x.
fn run(block: &TransformerBlock, x: &[f32], seq: Sequences, threads: usize, offset: usize) -> Vec<f32> {
    let pool = Pool::new(threads).unwrap();
    let once = |poison: bool| {
        let mut buffer = vec![f32::NAN; offset];
        buffer.extend_from_slice(x);
        buffer.push(f32::NAN);
        if poison {
            pool.poison_scratch();
        }
        let end = offset + x.len();
        block.forward(&pool, &mut buffer[offset..end], seq).unwrap();
        assert_eq!(buffer.pop().map(f32::is_nan), Some(true), "wrote past the end");
        buffer.split_off(offset)
    };
    let (first, second) = (once(false), once(true));
    assert_eq!(bits(&first), bits(&second), "stale scratch was read");
    first
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn transformer_block_matches_f64_over_shapes_and_instruction_sets() {
    // (dim, heads, dim_head, inner, batch, frames, bands)
    let shapes = [
        (8, 1, 2, 32, 1, 1, 1),
        (8, 2, 6, 5, 1, 3, 2),
        (16, 1, 8, 64, 2, 7, 5),
        (33, 3, 10, 31, 1, 17, 3),
        (64, 2, 24, 256, 1, 49, 2),
        (64, 4, 32, 256, 1, 97, 1),
        (96, 2, 48, 384, 1, 1, 62),
        (72, 2, 64, 400, 1, 2, 61),
        (130, 1, 64, 770, 1, 5, 60),
        (24, 1, 16, 48, 3, 33, 20),
        (16, 1, 6, 16, 1, 1030, 1),
        (520, 1, 12, 530, 1, 3, 2),
    ];
    let mut r = Random::new(1);
    let random = (0..20).map(|_| {
        let mut up_to = |n: usize| 1 + r.below(n);
        (8 * up_to(6), up_to(3), 2 * up_to(16), up_to(90), up_to(2), up_to(24), up_to(12))
    });
    let shapes: Vec<_> = shapes.into_iter().chain(random).collect();
    for (dim, heads, dim_head, inner, batch, frames, bands) in shapes {
        let layer = Layer::random(&mut r, dim, heads, dim_head, inner, dim % 16 == 0);
        let freqs = default_freqs(dim_head);
        let rotary = Arc::new(Rotary::new(&freqs, dim_head).unwrap());
        for axis in [Axis::Time, Axis::Band] {
            let seq = Sequences { batch, frames, bands, axis };
            let x = r.normal(seq.rows() * dim, 1.0);
            let want = expected(&layer, &x, seq, &freqs);
            for target in targets() {
                let block =
                    TransformerBlock::new(target, &layer.weights(), Some(Arc::clone(&rotary))).unwrap();
                let got = run(&block, &x, seq, 1, 0);
                let db = snr_db(&want, &got);
                assert!(db > snr_limit(target), "{target} dim {dim} {heads}×{dim_head} {seq:?}: {db:.1} dB");
                let again = run(&block, &x, seq, 3, 1);
                assert_eq!(bits(&got), bits(&again), "{target} {seq:?}: threads change the bits");
            }
        }
    }
}

#[test]
fn features_beyond_the_rotary_frequencies_stay() {
    let mut r = Random::new(2);
    let layer = Layer::random(&mut r, 16, 2, 12, 32, false);
    let freqs = [1.0, 0.3];
    let seq = Sequences::time(9, 2);
    let x = r.normal(seq.rows() * 16, 1.0);
    for (freqs, rotary) in [(&freqs[..], Some(Arc::new(Rotary::new(&freqs, 12).unwrap()))), (&[], None)] {
        let want = expected(&layer, &x, seq, freqs);
        for target in targets() {
            let block = TransformerBlock::new(target, &layer.weights(), rotary.clone()).unwrap();
            assert!(snr_db(&want, &run(&block, &x, seq, 1, 0)) > snr_limit(target));
        }
    }
}

#[test]
fn extreme_levels_and_peaked_scores_stay_finite_and_accurate() {
    let mut r = Random::new(3);
    let mut layer = Layer::random(&mut r, 32, 2, 16, 64, true);
    // Scores of ±1000: one key takes all, the rest underflow.
    layer.to_qkv.iter_mut().for_each(|w| *w *= 12.0);
    let freqs = default_freqs(16);
    let rotary = Arc::new(Rotary::new(&freqs, 16).unwrap());
    let seq = Sequences::time(600, 1);
    for scale in [0.0f32, 1e-20, 1e-6, 1e4, 1e12] {
        let x: Vec<f32> = r.normal(seq.rows() * 32, 1.0).iter().map(|v| v * scale).collect();
        let want = expected(&layer, &x, seq, &freqs);
        for target in targets() {
            let block = TransformerBlock::new(target, &layer.weights(), Some(Arc::clone(&rotary))).unwrap();
            let got = run(&block, &x, seq, 2, 0);
            assert!(got.iter().all(|v| v.is_finite()), "{target} at {scale}");
            // Scores that large magnify the rounding of q and k; to 8 bits, they leave another key on top.
            let db = snr_db(&want, &got);
            assert!(
                db > if target.format == Format::F32 { 70.0 } else { -10.0 },
                "{target} at {scale}: {db:.1} dB"
            );
        }
    }
}

#[test]
fn nan_stays_in_its_own_sequence() {
    let mut r = Random::new(4);
    let layer = Layer::random(&mut r, 16, 2, 8, 32, false);
    let seq = Sequences::band(40, 5);
    let mut x = r.normal(seq.rows() * 16, 1.0);
    x[17 * 5 * 16 + 3] = f32::NAN;
    for target in targets() {
        let block = TransformerBlock::new(target, &layer.weights(), None).unwrap();
        for (frame, row) in run(&block, &x, seq, 2, 0).chunks_exact(5 * 16).enumerate() {
            assert_eq!(row.iter().all(|v| v.is_nan()), frame == 17, "{target} frame {frame}");
            assert_eq!(row.iter().any(|v| v.is_nan()), frame == 17, "{target} frame {frame}");
        }
    }
}

#[test]
fn empty_input_is_accepted() {
    let mut r = Random::new(5);
    let layer = Layer::random(&mut r, 8, 1, 4, 8, false);
    let pool = Pool::new(1).unwrap();
    let block = TransformerBlock::new(Target::best(Format::F32), &layer.weights(), None).unwrap();
    for seq in [Sequences::time(0, 3), Sequences::time(3, 0), Sequences::band(0, 3), Sequences::band(3, 0)] {
        block.forward(&pool, &mut [], seq).unwrap();
    }
}

/// The weights, or what bf16 can hold of them.
fn cut_to_bf16(mut weight: Vec<f32>, cut: bool) -> Vec<f32> {
    if cut {
        weight.iter_mut().for_each(|w| *w = f32::from_bits(w.to_bits() & 0xffff_0000));
    }
    weight
}

#[test]
fn band_split_matches_f64() {
    let mut r = Random::new(6);
    let shapes = [(8, 1, vec![4]), (40, 5, vec![8, 2, 12]), (64, 97, vec![16, 48, 516]), (384, 100, vec![8])];
    for ((dim, frames, widths), exact) in
        shapes.into_iter().flat_map(|shape| [(shape.clone(), false), (shape, true)])
    {
        let bands: Vec<_> = widths
            .iter()
            .map(|&w| {
                let weight = cut_to_bf16(r.normal(dim * w, 1.0 / (w as f64).sqrt()), exact);
                (r.around(1.0, 0.3, w), (weight, r.normal(dim, 0.5)))
            })
            .collect();
        let weights: Vec<_> =
            bands.iter().map(|(norm, layer)| BandWeights { norm, linear: linear(layer) }).collect();
        let total: usize = widths.iter().sum();
        let mut features = vec![0.0; 1];
        features.extend(r.normal(frames * total, 3.0));
        let features = &features[1..];
        let mut want = vec![0.0; frames * widths.len() * dim];
        for t in 0..frames {
            let mut from = t * total;
            for (k, (norm, layer)) in bands.iter().enumerate() {
                let band: Vec<f64> = features[from..from + widths[k]].iter().map(|&v| f64::from(v)).collect();
                let y =
                    reference::linear(&reference::rms_norm(&band, norm), &layer.0, Some(&layer.1), widths[k]);
                want[(t * widths.len() + k) * dim..][..dim].copy_from_slice(&y);
                from += widths[k];
            }
        }
        for target in targets() {
            let split = BandSplit::new(target, &weights).unwrap();
            assert_eq!(split.dim_in(), total);
            let mut results = Vec::new();
            for threads in [1, 2] {
                let pool = Pool::new(threads).unwrap();
                let mut x = vec![f32::NAN; want.len()];
                split.forward(&pool, features, &mut x, frames).unwrap();
                pool.poison_scratch();
                split.forward(&pool, features, &mut x, frames).unwrap();
                let db = snr_db(&want, &x);
                assert!(db > snr_limit(target), "{target} dim {dim}: {db:.1} dB");
                results.push(bits(&x));
            }
            assert_eq!(results[0], results[1]);
        }
    }
}

#[test]
fn mask_estimator_matches_f64() {
    let mut r = Random::new(7);
    // (dim, hidden, depth, stems, frames, mask values a band, norm)
    let shapes = [
        (8, 16, 1, 1, 1, vec![4], false),
        (12, 20, 2, 2, 3, vec![8, 2, 300], true),
        (64, 128, 3, 1, 97, vec![16, 132], false),
        (96, 600, 2, 3, 10, vec![4, 6], true),
    ];
    for (shape, exact) in shapes.into_iter().flat_map(|shape| [(shape.clone(), false), (shape, true)]) {
        let (dim, hidden, depth, stems, frames, widths, with_norm) = shape;
        let norm = with_norm.then(|| r.around(1.0, 0.3, dim));
        let mut sizes = vec![dim];
        sizes.resize(depth, hidden);
        let mut mlp = |out: usize| -> Vec<(Vec<f32>, Vec<f32>)> {
            let ends = sizes[1..].iter().copied().chain([2 * out]);
            let pairs: Vec<_> = sizes.iter().copied().zip(ends).collect();
            let weight = |r: &mut Random, n: usize, k: usize| {
                cut_to_bf16(r.normal(n * k, 1.5 / (k as f64).sqrt()), exact)
            };
            pairs.iter().map(|&(k, n)| (weight(&mut r, n, k), r.normal(n, 0.5))).collect()
        };
        let layers: Vec<Vec<_>> = (0..stems).map(|_| widths.iter().map(|&w| mlp(w)).collect()).collect();
        let x = r.normal(frames * widths.len() * dim, 1.0);
        let total: usize = widths.iter().sum();
        let mut want = Vec::new();
        for stem in &layers {
            for t in 0..frames {
                for (k, mlp) in stem.iter().enumerate() {
                    let row = &x[(t * widths.len() + k) * dim..][..dim];
                    let mut row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
                    if let Some(norm) = &norm {
                        row = reference::rms_norm(&row, norm);
                    }
                    for (i, (weight, bias)) in mlp.iter().enumerate() {
                        if i > 0 {
                            row.iter_mut().for_each(|v| *v = v.tanh());
                        }
                        row = reference::linear(&row, weight, Some(bias), row.len());
                    }
                    let (a, b) = row.split_at(widths[k]);
                    want.extend(a.iter().zip(b).map(|(a, b)| a * reference::sigmoid(*b)));
                }
            }
        }
        for target in targets() {
            let pack = |mlp: &Vec<(Vec<f32>, Vec<f32>)>| {
                BandMlp::new(target, &mlp.iter().map(linear).collect::<Vec<_>>(), norm.as_deref()).unwrap()
            };
            let packed = layers.iter().map(|stem| stem.iter().map(pack).collect()).collect();
            let estimator = MaskEstimator::new(packed, with_norm).unwrap();
            assert_eq!(estimator.dim_out(), total);
            if (target.format, target.isa.has(Format::Bf16), exact) == (Format::F32, true, true) {
                // Kept in bf16, which pads k to 32.
                let most = layers.iter().flatten().flatten().map(|(weight, bias)| {
                    let k = weight.len() / bias.len();
                    2 * k.next_multiple_of(32) * (bias.len() + 64)
                });
                assert!(estimator.bytes() <= most.sum(), "{target}: {} bytes", estimator.bytes());
            }
            let mut results = Vec::new();
            for threads in [1, 2] {
                let pool = Pool::new(threads).unwrap();
                let mut masks = vec![f32::NAN; want.len()];
                estimator.forward(&pool, &x, &mut masks, frames).unwrap();
                pool.poison_scratch();
                estimator.forward(&pool, &x, &mut masks, frames).unwrap();
                let db = snr_db(&want, &masks);
                assert!(db > snr_limit(target), "{target} dim {dim} depth {depth}: {db:.1} dB");
                results.push(bits(&masks));
            }
            assert_eq!(results[0], results[1]);
        }
    }
}

#[test]
fn linear_matches_f64_at_every_remainder() {
    let mut r = Random::new(8);
    for target in targets() {
        for m in [1, 2, 3, 5, 7, 11, 13, 17, 25, 97] {
            for (n, k) in [(1, 1), (15, 3), (16, 700), (17, 16), (33, 513), (64, 2)] {
                let layer = (r.normal(n * k, 1.0), r.normal(n, 1.0));
                let x = r.normal(m * k + 1, 1.0);
                let packed = PackedLinear::new(target, linear(&layer)).unwrap();
                let mut out = vec![f32::NAN; m * n + 1];
                packed.forward(&x[1..], &mut out[..m * n]).unwrap();
                assert!(out[m * n].is_nan(), "{target}: wrote past the end");
                let x: Vec<f64> = x[1..].iter().map(|&v| f64::from(v)).collect();
                let want = reference::linear(&x, &layer.0, Some(&layer.1), k);
                let db = snr_db(&want, &out[..m * n]);
                assert!(db > snr_limit(target), "{target} {m}×{n}×{k}: {db:.1} dB");
            }
        }
    }
}

/// Integers that bf16 and i8 hold and whose sums f32 holds: every format must give the same, bit for bit, at every remainder. Each row
/// has a 127, so that the scales of i8 are 1.
#[test]
fn integers_multiply_exactly_in_every_format() {
    let mut r = Random::new(11);
    let mut integers = |rows: usize, n: usize| -> Vec<f32> {
        let mut values: Vec<f32> = (0..rows * n).map(|_| r.below(255) as f32 - 127.0).collect();
        values.chunks_exact_mut(n).for_each(|row| row[n / 2] = 127.0);
        values
    };
    for target in targets() {
        for m in [1, 2, 6, 15, 16, 17, 31, 32, 33, 47, 48, 49, 97, 130] {
            for (n, k) in
                [(1, 1), (15, 3), (16, 32), (17, 31), (31, 33), (32, 64), (33, 255), (65, 257), (64, 600)]
            {
                let layer = (integers(n, k), integers(1, n));
                let x = integers(m, k);
                let packed = PackedLinear::new(target, linear(&layer)).unwrap();
                let mut out = vec![f32::NAN; m * n];
                packed.forward(&x, &mut out).unwrap();
                let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
                let want = reference::linear(&x, &layer.0, Some(&layer.1), k);
                let same = out.iter().zip(&want).all(|(&got, &want)| f64::from(got) == want);
                assert!(same, "{target} {m}×{n}×{k}");
            }
        }
    }
}

/// Rows quantised as the kernels' documentation says: the largest magnitude to ±127, halves to even. (integers, scale of each row)
fn quantized(rows: &[f32], k: usize) -> (Vec<f64>, Vec<f64>) {
    let mut integers = Vec::new();
    let mut scales = Vec::new();
    for row in rows.chunks_exact(k) {
        let peak = row.iter().fold(0.0f32, |peak, v| peak.max(v.abs()));
        let scale = if peak < 1e-30 { 0.0 } else { peak / 127.0 };
        scales.push(f64::from(scale));
        integers.extend(
            row.iter().map(|&v| {
                if scale == 0.0 { 0.0 } else { (f64::from(v) / f64::from(scale)).round_ties_even() }
            }),
        );
    }
    (integers, scales)
}

#[test]
fn int8_products_are_exact_sums_of_quantized_rows() {
    let mut r = Random::new(12);
    for target in targets().into_iter().filter(|target| target.format == Format::Int8) {
        for (m, n, k) in [(1, 1, 1), (3, 17, 5), (16, 16, 64), (33, 65, 130), (50, 40, 768), (7, 3, 1600)] {
            let mut layer = (r.normal(n * k, 1.0), r.normal(n, 1.0));
            let mut x = r.normal(m * k, 1.0);
            // Rows of very different sizes, one of zeros, one too small to be quantised.
            x.chunks_exact_mut(k).enumerate().for_each(|(i, row)| {
                let factor = [1.0, 1e-12, 1e20, 0.0, 1e-36][i % 5];
                row.iter_mut().for_each(|v| *v *= factor);
            });
            layer.0.chunks_exact_mut(k).step_by(3).for_each(|row| row.iter_mut().for_each(|w| *w *= 1e-9));
            let ((qx, sx), (qw, sw)) = (quantized(&x, k), quantized(&layer.0, k));
            let packed = PackedLinear::new(target, linear(&layer)).unwrap();
            let mut out = vec![f32::NAN; m * n];
            packed.forward(&x, &mut out).unwrap();
            for (i, row) in out.chunks_exact(n).enumerate() {
                for (j, &got) in row.iter().enumerate() {
                    let dot: f64 = qx[i * k..][..k].iter().zip(&qw[j * k..][..k]).map(|(a, b)| a * b).sum();
                    let (product, bias) = (dot * sx[i] * sw[j], f64::from(layer.1[j]));
                    let slack = 2e-7 * (product.abs() + bias.abs())
                        // The kernels divide in f32: a value on the edge may fall to the other side.
                        + 1.01 * sx[i] * sw[j] * 127.0 * if k > 100 { 2.0 } else { 1.0 };
                    let error = (f64::from(got) - product - bias).abs();
                    assert!(
                        error <= slack,
                        "{target} {m}×{n}×{k}: [{i}, {j}] is off by {error}, slack {slack}"
                    );
                }
            }
        }
    }
}

#[test]
fn int8_targets_give_the_same_linear_layers() {
    let mut r = Random::new(13);
    let (m, n, k) = (37, 45, 200);
    let layer = (r.normal(n * k, 1.0), r.normal(n, 1.0));
    let x = r.normal(m * k, 1.0);
    let int8 = targets().into_iter().filter(|target| target.format == Format::Int8);
    let outputs: Vec<_> = int8
        .map(|target| {
            let mut out = vec![f32::NAN; m * n];
            PackedLinear::new(target, linear(&layer)).unwrap().forward(&x, &mut out).unwrap();
            (target, out)
        })
        .collect();
    for (target, out) in &outputs {
        let db = snr_db(&outputs[0].1, out);
        assert!(db > 130.0, "{target} differs from {}: {db:.1} dB", outputs[0].0);
    }
}

#[test]
fn values_that_are_not_finite_spoil_their_own_row_in_int8() {
    let mut r = Random::new(14);
    let (m, n, k) = (20, 18, 70);
    let layer = (r.normal(n * k, 1.0), r.normal(n, 1.0));
    for target in targets().into_iter().filter(|target| target.format == Format::Int8) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 33, 69] {
                let mut x = r.normal(m * k, 1.0);
                x[5 * k + place] = bad;
                let mut out = vec![0.0; m * n];
                PackedLinear::new(target, linear(&layer)).unwrap().forward(&x, &mut out).unwrap();
                for (i, row) in out.chunks_exact(n).enumerate() {
                    let finite = row.iter().filter(|v| v.is_finite()).count();
                    assert_eq!(finite, if i == 5 { 0 } else { n }, "{target}, {bad} at {place}, row {i}");
                }
            }
        }
    }
}

#[test]
fn wrong_sizes_are_named_with_expected_and_found() {
    let mut r = Random::new(10);
    let target = Target::best(Format::F32);
    let layer = Layer::random(&mut r, 8, 2, 4, 16, false);
    let expect =
        |weights: TransformerWeights<'_>, name: &str| match TransformerBlock::new(target, &weights, None) {
            Err(KernelError::Size { what, expected, found }) => {
                assert!(what.contains(name), "{what} for {name}");
                assert_ne!(expected, found);
            }
            Err(other) => panic!("{name}: {other}"),
            Ok(_) => panic!("{name}: accepted"),
        };
    let w = layer.weights();
    expect(TransformerWeights { to_qkv: &w.to_qkv[1..], ..w }, "to_qkv");
    expect(TransformerWeights { to_out: &w.to_out[1..], ..w }, "to_out");
    expect(TransformerWeights { feed_forward_norm: &w.feed_forward_norm[1..], ..w }, "feed-forward norm");
    expect(TransformerWeights { norm: Some(&w.to_out[..7]), ..w }, "norm");
    let gates = Linear { weight: &w.to_gates.weight[1..], ..w.to_gates };
    expect(TransformerWeights { to_gates: gates, ..w }, "to_gates");
    let second = Linear { bias: &w.linear_out.bias[1..], ..w.linear_out };
    expect(TransformerWeights { linear_out: second, ..w }, "second bias");
    let empty = TransformerBlock::new(target, &TransformerWeights { attention_norm: &[], ..w }, None);
    assert!(matches!(empty, Err(KernelError::Value { .. })));

    let block = TransformerBlock::new(target, &w, None).unwrap();
    let pool = Pool::new(1).unwrap();
    let error = block.forward(&pool, &mut [0.0; 47], Sequences::time(3, 2)).unwrap_err();
    assert_eq!(error, KernelError::Size { what: "x".to_owned(), expected: 48, found: 47 });
    let huge = Sequences { batch: usize::MAX, frames: usize::MAX, bands: 2, axis: Axis::Time };
    assert!(block.forward(&pool, &mut [0.0; 8], huge).is_err());
    assert!(Rotary::new(&[1.0; 3], 4).is_err());
    let odd = Linear { weight: &[0.0; 24], bias: &[0.0; 3] };
    assert!(matches!(BandMlp::new(target, &[odd], None), Err(KernelError::Value { .. })));
    assert!(BandMlp::new(target, &[], None).is_err());
    assert!(BandSplit::new(target, &[]).is_err());
    assert!(MaskEstimator::new(Vec::new(), false).is_err());
}

#[test]
fn unknown_and_missing_instruction_sets_are_refused() {
    let error = Isa::by_name("z80").unwrap_err().to_string();
    assert!(error.contains("z80") && error.contains("portable"), "{error}");
    assert_eq!(Isa::by_name("PORTABLE").unwrap(), Isa::Portable);
    let missing = if cfg!(target_arch = "x86_64") { Isa::Neon } else { Isa::Avx2 };
    assert!(RowOps::new(missing).is_err());
    assert!(Isa::available().contains(&Isa::Portable));
    // Plain Rust has all formats, the emulation of AMX has no f32.
    let targets = Target::available();
    for format in Format::ALL {
        assert!(targets.contains(&Target { isa: Isa::Portable, format }));
        assert_eq!(Target::best(format).format, format);
    }
    let Err(error) = RowOps::new(Target { isa: Isa::Emulated, format: Format::F32 }) else {
        panic!("accepted")
    };
    let error = error.to_string();
    assert!(error.contains("emulated f32") && !error.contains("emulated, "), "{error}");
    for format in [Format::Bf16, Format::Int8] {
        assert_ne!(Target::best(format).isa, Isa::Emulated, "slow, for tests only");
    }
}
