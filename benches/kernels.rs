//! GFLOP/s of each kernel and the share of the peak that this machine's multiply-adds reach in registers.
//!
//! `cargo bench --bench kernels [-- FILTER]`; threads from `NULLSUM_THREADS` (default 1), instruction set from
//! `NULLSUM_KERNEL`, `NULLSUM_PRECISION=bf16` for that format. Times are medians over at least 0.3 s; the peak is measured before each one, since clocks and neighbours
//! change. On a machine with other work, look at the last column: the share of the peak in processor time (Linux).

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nullsum::kernels::{
    BandMlp, BandSplit, BandWeights, Format, KernelError, Linear, MaskEstimator, Ops, PackedLinear, Pool,
    Rotary, Sequences, Target, TransformerBlock, TransformerWeights,
};

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

/// Processor seconds of this process so far, in steps of 10 ms; 0 where the system does not say so in `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// Median seconds of `f`.
fn median(f: impl FnMut()) -> f64 {
    timed(f).0
}

/// Median seconds, and mean processor seconds, of `f`.
fn timed(mut f: impl FnMut()) -> (f64, f64) {
    f();
    let cpu = cpu_seconds();
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_millis(300) || times.len() < 3 {
        let run = Instant::now();
        f();
        times.push(run.elapsed().as_secs_f64());
    }
    let cpu = (cpu_seconds() - cpu) / times.len() as f64;
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], cpu)
}

struct Bench {
    target: Target,
    ops: Ops,
    pool: Pool,
    filter: String,
}

impl Bench {
    /// FLOP/s of `threads` threads with every operand in a register.
    fn peak(&self, threads: usize) -> f64 {
        let ops = self.ops;
        let flops = ops.fma_burst(200_000) * threads as f64;
        flops / median(|| self.pool.run(threads, |_| _ = black_box(ops.fma_burst(200_000))))
    }

    fn report(&self, name: &str, flops: f64, f: impl FnMut()) {
        if !name.contains(&self.filter) {
            return;
        }
        let (peak, one) = (self.peak(self.pool.threads()), self.peak(1));
        let (seconds, cpu) = timed(f);
        let rate = flops / seconds;
        println!(
            "{name:<44} {:>9.3} ms {:>7.1} GFLOP/s  {:>3.0} % of {:.1}, {:>3.0} % of processor time",
            seconds * 1e3,
            rate / 1e9,
            100.0 * rate / peak,
            peak / 1e9,
            100.0 * flops / cpu / one
        );
    }

    fn linear(&self, m: usize, n: usize, k: usize) -> Result<(), KernelError> {
        let (weight, bias) = (values(n * k, 0.05), values(n, 1.0));
        let packed = PackedLinear::new(self.target, Linear { weight: &weight, bias: &bias })?;
        let (x, mut out) = (values(m * k, 1.0), vec![0.0; m * n]);
        let flops = 2.0 * (m * n * k) as f64;
        self.report(&format!("linear {m}×{n}×{k}, one thread"), flops, || {
            packed.forward(&x, &mut out).unwrap_or_else(|error| eprintln!("{error}"));
        });
        Ok(())
    }

    fn transformer(
        &self,
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
        self.report(&name, block.flops(sequences), || {
            block.forward(&self.pool, &mut x, sequences).unwrap_or_else(|error| eprintln!("{error}"));
        });
        Ok(())
    }

    /// The default architecture's band split and mask estimators (dim 384, hidden 768, 4 stems).
    fn ends(&self, dim: usize, stems: usize, frames: usize) -> Result<(), KernelError> {
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
        self.report(&format!("band split {dim}, {frames} frames"), split.flops(frames), || {
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
        self.report(
            &format!("mask estimators {dim} × {stems}, {frames} frames"),
            estimator.flops(frames),
            || {
                estimator
                    .forward(&self.pool, &x, &mut masks, frames)
                    .unwrap_or_else(|error| eprintln!("{error}"));
            },
        );
        Ok(())
    }

    /// Nanoseconds a value of the small operations.
    fn small(&self) {
        let x = values(1536, 3.0);
        let mut y = x.clone();
        type Op = fn(&Ops, &mut [f32]);
        let ops: [(&str, Op); 4] =
            [("gelu", Ops::gelu), ("tanh", Ops::tanh), ("sigmoid", Ops::sigmoid), ("exp", Ops::exp)];
        for (name, op) in ops {
            if name.contains(&self.filter) {
                let seconds = median(|| {
                    for _ in 0..100 {
                        y.copy_from_slice(&x);
                        op(&self.ops, &mut y);
                    }
                });
                println!("{name:<44} {:>9.3} ns a value", seconds * 1e9 / 153_600.0);
            }
        }
    }
}

fn main() -> Result<(), KernelError> {
    let threads = std::env::var("NULLSUM_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let bf16 = std::env::var("NULLSUM_PRECISION").is_ok_and(|name| name == "bf16");
    let target = Target::select(if bf16 { Format::Bf16 } else { Format::F32 })?;
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let bench = Bench { target, ops: Ops::new(target)?, pool: Pool::new(threads)?, filter };
    println!("{target}, {threads} threads");
    bench.linear(96, 1536, 384)?;
    bench.linear(96, 384, 1536)?;
    bench.linear(345, 345, 64)?;
    bench.linear(48, 64, 345)?;
    for frames in [345, 1101] {
        bench.transformer(384, 8, 64, Sequences::time(frames, 62))?;
        bench.transformer(384, 8, 64, Sequences::band(frames, 62))?;
    }
    bench.transformer(64, 4, 32, Sequences::time(345, 60))?;
    bench.transformer(96, 4, 24, Sequences::band(345, 60))?;
    bench.transformer(384, 8, 64, Sequences::time(20, 62))?;
    bench.ends(384, 4, 345)?;
    bench.ends(64, 4, 345)?;
    bench.small();
    Ok(())
}
