//! GFLOP/s of each kernel, and the share of the peak that this machine's multiply-adds reach in registers.
//!
//! `cargo bench --bench kernels [-- FILTER]`; threads from `NULLSUM_THREADS` (default 1), instruction set from
//! `NULLSUM_KERNEL`, `NULLSUM_PRECISION` for the format (`f32`, `bf16` or `int8`). Criterion's elements are floating-point operations. The peak is taken beside every
//! sample, since clocks and neighbours change: the share is the median of the samples' ratios.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use nullsum::kernels::{
    BandMlp, BandSplit, BandWeights, Format, KernelError, Linear, MaskEstimator, PackedLinear, Pool, Rotary,
    RowOps, Sequences, Target, TransformerBlock, TransformerWeights,
};

/// Multiply-adds per register in one measurement of the peak.
const PEAK_ROUNDS: usize = 100_000;

/// Values in −1..1, always the same.
fn values(n: usize, scale: f32) -> Vec<f32> {
    let mut state = 12345u32;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state as f32 / 2_147_483_648.0 - 1.0) * scale
        })
        .collect()
}

struct Bench {
    target: Target,
    ops: RowOps,
    pool: Pool,
}

impl Bench {
    /// Times `f`, of so many floating-point operations on so many threads, beside their peak.
    fn report(&self, criterion: &mut Criterion, name: &str, threads: usize, flops: f64, mut f: impl FnMut()) {
        let (ops, pool) = (self.ops, &self.pool);
        let mut shares = Vec::new();
        let mut group = criterion.benchmark_group("kernels");
        // A pass of the larger ones takes seconds.
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(flops as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|turns| {
                let started = Instant::now();
                (0..turns).for_each(|_| f());
                let spent = started.elapsed();
                shares.push(flops * turns as f64 / spent.as_secs_f64() / peak(ops, pool, threads));
                spent
            });
        });
        group.finish();
        if !shares.is_empty() {
            println!("{:24}peak:   {:.0} %", "", 100.0 * median(&mut shares));
        }
    }

    fn linear(&self, criterion: &mut Criterion, m: usize, n: usize, k: usize) -> Result<(), KernelError> {
        let (weight, bias) = (values(n * k, 0.05), values(n, 1.0));
        let packed = PackedLinear::new(self.target, Linear { weight: &weight, bias: &bias })?;
        let (x, mut out) = (values(m * k, 1.0), vec![0.0; m * n]);
        let flops = 2.0 * (m * n * k) as f64;
        self.report(criterion, &format!("linear {m}×{n}×{k}, one thread"), 1, flops, || {
            packed.forward(&x, &mut out).unwrap_or_else(|error| eprintln!("{error}"));
        });
        Ok(())
    }

    fn transformer(
        &self,
        criterion: &mut Criterion,
        dim: usize,
        heads: usize,
        dim_head: usize,
        sequences: Sequences,
    ) -> Result<(), KernelError> {
        let (hd, inner) = (heads * dim_head, 4 * dim);
        let gamma = vec![1.0; dim];
        let w = |n: usize| values(n * dim, (dim as f32).powf(-0.5));
        let (to_qkv, gates, linear_in, linear_out, to_out) = (w(3 * hd), w(heads), w(inner), w(inner), w(hd));
        let bias = vec![0.1; inner];
        let freqs: Vec<f32> =
            (0..dim_head / 2).map(|i| 10000f32.powf(-2.0 * i as f32 / dim_head as f32)).collect();
        let weights = TransformerWeights {
            attention_norm: &gamma,
            to_qkv: &to_qkv,
            to_gates: Linear { weight: &gates, bias: &bias[..heads] },
            to_out: &to_out,
            feed_forward_norm: &gamma,
            linear_in: Linear { weight: &linear_in, bias: &bias },
            linear_out: Linear { weight: &linear_out, bias: &bias[..dim] },
            norm: None,
        };
        let block =
            TransformerBlock::new(self.target, &weights, Some(Arc::new(Rotary::new(&freqs, dim_head)?)))?;
        let fresh = values(sequences.rows() * dim, 1.0);
        let mut x = fresh.clone();
        let Sequences { frames, bands, axis, .. } = sequences;
        let name = format!("transformer {dim} {heads}×{dim_head}, {frames} × {bands}, {axis:?}");
        self.report(criterion, &name, self.pool.threads(), block.flops(sequences), || {
            block.forward(&self.pool, &mut x, sequences).unwrap_or_else(|error| eprintln!("{error}"));
        });
        Ok(())
    }

    /// The default architecture's band split and mask estimators (dim 384, hidden 768, 4 stems).
    fn ends(
        &self,
        criterion: &mut Criterion,
        dim: usize,
        stems: usize,
        frames: usize,
    ) -> Result<(), KernelError> {
        let counts = [(24, 2), (12, 4), (8, 12), (8, 24), (8, 48), (1, 128), (1, 129)];
        let widths: Vec<usize> =
            counts.iter().flat_map(|&(n, bins)| std::iter::repeat_n(bins * 4, n)).collect();
        let total: usize = widths.iter().sum();
        let (weight, bias, gamma) = (values(2 * 516 * 2 * dim, 0.05), vec![0.1; 2 * 516], vec![1.0; 516]);
        let bands: Vec<_> = widths
            .iter()
            .map(|&n| BandWeights {
                norm: &gamma[..n],
                linear: Linear { weight: &weight[..n * dim], bias: &bias[..dim] },
            })
            .collect();
        let split = BandSplit::new(self.target, &bands)?;
        let (features, mut x) = (values(frames * total, 1.0), values(frames * widths.len() * dim, 1.0));
        let (threads, name) = (self.pool.threads(), format!("band split {dim}, {frames} frames"));
        self.report(criterion, &name, threads, split.flops(frames), || {
            split.forward(&self.pool, &features, &mut x, frames).unwrap_or_else(|error| eprintln!("{error}"));
        });
        let mut packed = Vec::new();
        for _ in 0..stems {
            let mut stem = Vec::new();
            for &n in &widths {
                let first = Linear { weight: &weight[..2 * dim * dim], bias: &bias[..2 * dim] };
                let last = Linear { weight: &weight[..2 * n * 2 * dim], bias: &bias[..2 * n] };
                stem.push(BandMlp::new(self.target, &[first, last], Some(&gamma[..dim]))?);
            }
            packed.push(stem);
        }
        let estimator = MaskEstimator::new(packed, true)?;
        let mut masks = vec![0.0; frames * stems * total];
        let name = format!("mask estimators {dim} × {stems}, {frames} frames");
        self.report(criterion, &name, threads, estimator.flops(frames), || {
            estimator
                .forward(&self.pool, &x, &mut masks, frames)
                .unwrap_or_else(|error| eprintln!("{error}"));
        });
        Ok(())
    }

    /// Elementwise operations; criterion's elements are values here.
    fn small(&self, criterion: &mut Criterion) {
        let x = values(1536, 3.0);
        let mut y = x.clone();
        type Op = fn(&RowOps, &mut [f32]);
        let ops: [(&str, Op); 4] = [
            ("gelu", RowOps::gelu),
            ("tanh", RowOps::tanh),
            ("sigmoid", RowOps::sigmoid),
            ("exp", RowOps::exp),
        ];
        let mut group = criterion.benchmark_group("small");
        group.throughput(Throughput::Elements(x.len() as u64));
        for (name, op) in ops {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    y.copy_from_slice(&x);
                    op(&self.ops, black_box(&mut y));
                });
            });
        }
        group.finish();
    }
}

/// FLOP/s of so many of the pool's threads with every operand in a register: the median of three short bursts.
fn peak(ops: RowOps, pool: &Pool, threads: usize) -> f64 {
    let mut bursts = [(); 3].map(|()| {
        let started = Instant::now();
        pool.run(threads, |_| _ = black_box(ops.peak_flops(PEAK_ROUNDS)));
        started.elapsed().as_secs_f64()
    });
    ops.peak_flops(1) * PEAK_ROUNDS as f64 * threads as f64 / median(&mut bursts)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), KernelError> {
    let threads = std::env::var("NULLSUM_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let precision = std::env::var("NULLSUM_PRECISION").unwrap_or_default();
    let format = Format::ALL.into_iter().find(|format| format.name() == precision).unwrap_or(Format::F32);
    let target = Target::select(format)?;
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    let bench = Bench { target, ops: RowOps::new(target)?, pool: Pool::new(threads)? };
    println!("{target}, {threads} threads");
    bench.linear(&mut criterion, 96, 1536, 384)?;
    bench.linear(&mut criterion, 96, 384, 1536)?;
    bench.linear(&mut criterion, 345, 345, 64)?;
    bench.linear(&mut criterion, 48, 64, 345)?;
    for frames in [345, 1101] {
        bench.transformer(&mut criterion, 384, 8, 64, Sequences::time(frames, 62))?;
        bench.transformer(&mut criterion, 384, 8, 64, Sequences::band(frames, 62))?;
    }
    bench.transformer(&mut criterion, 64, 4, 32, Sequences::time(345, 60))?;
    bench.transformer(&mut criterion, 96, 4, 24, Sequences::band(345, 60))?;
    bench.transformer(&mut criterion, 384, 8, 64, Sequences::time(20, 62))?;
    bench.ends(&mut criterion, 384, 4, 345)?;
    bench.ends(&mut criterion, 64, 4, 345)?;
    bench.small(&mut criterion);
    criterion.final_summary();
    Ok(())
}
