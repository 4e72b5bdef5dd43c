//! Processor time of a transformer block of the default architecture in every number format that this machine has, as a table.
//!
//! `cargo bench --bench formats [-- avx512,avx512vnni-int8]`: all targets, or those named. One thread; all targets run by turns in one
//! process, and the table holds the best and the median of nine turns. Processor time (on Unix; elsewhere wall time) excludes what
//! other programs take, but not their effect on caches and clocks.

use std::sync::Arc;
#[cfg(not(unix))]
use std::time::Instant;

use nullsum::kernels::{
    KernelError, Linear, Pool, Rotary, RowOps, Sequences, Target, TransformerBlock, TransformerWeights,
};

const TURNS: usize = 9;
/// Rounds of multiply-adds on registers for the peak.
const PEAK_ROUNDS: usize = 20_000;
const DIM: usize = 384;
const HEADS: usize = 8;
const DIM_HEAD: usize = 64;

/// Values in ±scale, always the same.
fn values(n: usize, scale: f32) -> Vec<f32> {
    let mut state = 12345u32;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state as f32 / 2_147_483_648.0 - 1.0) * scale
        })
        .collect()
}

fn block(target: Target) -> Result<TransformerBlock, KernelError> {
    let (inner, features) = (4 * DIM, HEADS * DIM_HEAD);
    let weight = |outputs: usize| values(outputs * DIM, (DIM as f32).powf(-0.5));
    let (to_qkv, to_gates, to_out) = (weight(3 * features), weight(HEADS), weight(features));
    let (linear_in, linear_out) = (weight(inner), weight(inner));
    let (gamma, bias) = (vec![1.0; DIM], vec![0.1; inner]);
    let freqs: Vec<f32> =
        (0..DIM_HEAD / 2).map(|i| 10000f32.powf(-2.0 * i as f32 / DIM_HEAD as f32)).collect();
    let weights = TransformerWeights {
        attention_norm: &gamma,
        to_qkv: &to_qkv,
        to_gates: Linear { weight: &to_gates, bias: &bias[..HEADS] },
        to_out: &to_out,
        feed_forward_norm: &gamma,
        linear_in: Linear { weight: &linear_in, bias: &bias },
        linear_out: Linear { weight: &linear_out, bias: &bias[..DIM] },
        norm: None,
    };
    TransformerBlock::new(target, &weights, Some(Arc::new(Rotary::new(&freqs, DIM_HEAD)?)))
}

/// Processor seconds of this process.
#[cfg(unix)]
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, which `time` is.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// Seconds of the wall clock.
#[cfg(not(unix))]
fn processor_seconds() -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// One target's turns.
struct Contestant {
    target: Target,
    block: TransformerBlock,
    ops: RowOps,
    times: Vec<f64>,
    peak: f64,
}

fn contestants() -> Result<Vec<Contestant>, KernelError> {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let label = |target: &Target| target.to_string().replace(' ', "-");
    Target::available()
        .into_iter()
        .filter(|target| wanted.is_empty() || wanted.split(',').any(|name| name == label(target)))
        .map(|target| {
            let (block, ops) = (block(target)?, RowOps::new(target)?);
            Ok(Contestant { target, block, ops, times: Vec::new(), peak: 0.0 })
        })
        .collect()
}

fn main() -> Result<(), KernelError> {
    let pool = Pool::new(1)?;
    println!("| Sequences | Target | Best | Median | of the peak |\n|---|---|---|---|---|");
    for (name, sequences) in [
        ("time, 345 frames × 6 bands", Sequences::time(345, 6)),
        ("time, 801 frames × 3 bands", Sequences::time(801, 3)),
        ("bands, 40 frames × 62 bands", Sequences::band(40, 62)),
    ] {
        let mut contestants = contestants()?;
        let fresh = values(sequences.rows() * DIM, 1.0);
        // The first turn warms up.
        for turn in 0..=TURNS {
            for contestant in &mut contestants {
                let mut x = fresh.clone();
                let started = processor_seconds();
                contestant.block.forward(&pool, &mut x, sequences)?;
                let spent = processor_seconds() - started;
                let started = processor_seconds();
                let flops = contestant.ops.peak_flops(PEAK_ROUNDS);
                contestant.peak = contestant.peak.max(flops / (processor_seconds() - started));
                if turn > 0 {
                    contestant.times.push(spent);
                }
            }
        }
        for Contestant { target, block, times, peak, .. } in &mut contestants {
            times.sort_by(f64::total_cmp);
            let (best, median) = (times[0], times[times.len() / 2]);
            let share = 100.0 * block.flops(sequences) / best / *peak;
            println!("| {name} | {target} | {:.1} ms | {:.1} ms | {share:.0} % |", 1e3 * best, 1e3 * median);
        }
    }
    Ok(())
}
