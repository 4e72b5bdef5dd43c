//! The exact grid: mixture and stems become integer multiples of one step, and one stem takes the difference.
//!
//! With a step of 2⁻²³ every 16- and 24-bit sample is on the grid, a float holds every multiple up to ±2.0 exactly, and so
//! the sum of the stems is the mixture in any order of summation, in files and in a mixer.

/// Bits after the point of the grid for 24-bit and float output.
pub const FINE_BITS: u32 = 23;
/// Bits after the point of the grid for 16-bit output.
pub const COARSE_BITS: u32 = 15;

/// Puts stems on a grid so that they sum to the mixture.
#[derive(Clone, Copy, Debug)]
pub struct ExactGrid {
    bits: u32,
    remainder_stem: usize,
    integer_pcm: bool,
}

/// Counts of exceptional samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactGridReport {
    /// Stem samples beyond full scale whose excess was moved to other stems.
    pub redistributed: u64,
    /// Mixture samples beyond the range of the output, where the sum cannot be exact.
    pub out_of_range: u64,
}

impl ExactGridReport {
    /// Adds another block's report.
    pub fn add(&mut self, other: Self) {
        self.redistributed += other.redistributed;
        self.out_of_range += other.out_of_range;
    }
}

impl ExactGrid {
    /// A grid of step 2^-`bits` in which the stem of index `remainder_stem` takes the difference. With `integer_pcm` the
    /// output range is −1 to 1 − step: instead of clipping a stem, its excess is moved to stems with headroom.
    pub fn new(bits: u32, remainder_stem: usize, integer_pcm: bool) -> Self {
        Self { bits, remainder_stem, integer_pcm }
    }

    /// Quantises one channel. `mixture`: `[samples]`; `stems`: one slice of as many samples each, overwritten with multiples
    /// of the step whose sum is the mixture, itself rounded to the step.
    pub fn quantise(&self, mixture: &[f32], stems: &mut [&mut [f32]]) -> ExactGridReport {
        let scale = f64::from(2u32.pow(self.bits));
        let mut report = ExactGridReport::default();
        let mut steps = vec![0i64; stems.len()];
        for (i, &m) in mixture.iter().enumerate() {
            let whole = to_steps(m, scale);
            let mut others = 0;
            for (n, stem) in stems.iter().enumerate() {
                steps[n] = to_steps(stem[i], scale);
                if n != self.remainder_stem {
                    others += steps[n];
                }
            }
            if let Some(remainder_stem) = steps.get_mut(self.remainder_stem) {
                *remainder_stem = whole - others;
            }
            if self.integer_pcm {
                let moved = redistribute_excess(&mut steps, 1i64 << self.bits);
                report.redistributed += u64::from(moved.0);
                report.out_of_range += u64::from(moved.1);
            }
            for (stem, &u) in stems.iter_mut().zip(&steps) {
                stem[i] = (u as f64 / scale) as f32;
            }
        }
        report
    }
}

/// Nearest multiple of the step, in steps. Non-finite values become 0; values are limited to ±2³⁹ steps.
fn to_steps(x: f32, scale: f64) -> i64 {
    let steps = (f64::from(x) * scale).round();
    if steps.is_finite() { steps.clamp(-(2f64.powi(39)), 2f64.powi(39)) as i64 } else { 0 }
}

/// Limits every value to −`full` ..= `full` − 1 without changing the sum. Returns the number of limited values, and
/// whether the sum itself is out of range.
fn redistribute_excess(steps: &mut [i64], full: i64) -> (u32, bool) {
    let (low, high) = (-full, full - 1);
    let mut excess = 0;
    let mut moved = 0;
    for u in steps.iter_mut() {
        let limited = (*u).clamp(low, high);
        moved += u32::from(limited != *u);
        excess += *u - limited;
        *u = limited;
    }
    if excess != 0 {
        for u in steps.iter_mut() {
            let taken = (*u + excess).clamp(low, high) - *u;
            *u += taken;
            excess -= taken;
        }
    }
    (moved, excess != 0)
}

/// Peak of the difference between mixture and sum of stems (a null test).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NullMeter {
    peak: f64,
}

impl NullMeter {
    /// Meters a block of one channel.
    pub fn add<'a>(&mut self, mixture: &[f32], stems: impl Iterator<Item = &'a [f32]> + Clone) {
        for (i, &m) in mixture.iter().enumerate() {
            let sum: f64 = stems.clone().map(|stem| f64::from(stem[i])).sum();
            self.peak = self.peak.max((f64::from(m) - sum).abs());
        }
    }

    /// The peak in dBFS; −∞ when the stems null exactly.
    pub fn peak_dbfs(&self) -> f64 {
        20.0 * self.peak.log10()
    }

    /// Whether the difference is exactly 0.
    pub fn is_exact(&self) -> bool {
        self.peak == 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums_exact_in_every_order(mixture: &[f32], stems: &[Vec<f32>]) -> bool {
        (0..mixture.len()).all(|i| {
            let orders: [Vec<usize>; 3] = [
                (0..stems.len()).collect(),
                (0..stems.len()).rev().collect(),
                (0..stems.len()).step_by(2).chain((1..stems.len()).step_by(2)).collect(),
            ];
            orders.iter().all(|order| order.iter().fold(0f32, |sum, &n| sum + stems[n][i]) == mixture[i])
        })
    }

    fn quantise(grid: ExactGrid, mixture: &[f32], stems: &mut [Vec<f32>]) -> ExactGridReport {
        let mut views: Vec<&mut [f32]> = stems.iter_mut().map(Vec::as_mut_slice).collect();
        grid.quantise(mixture, &mut views)
    }

    proptest! {
        #[test]
        fn stems_sum_to_the_mixture_in_any_order(
            bits in prop_oneof![Just(COARSE_BITS), Just(FINE_BITS)],
            remainder_stem in 0usize..4,
            integer_pcm: bool,
            raw in prop::collection::vec((-1f32..1.0, prop::array::uniform4(-0.24f32..0.24)), 1..64),
        ) {
            let scale = 2f32.powi(bits as i32);
            let mixture: Vec<f32> = raw.iter().map(|r| (r.0 * scale).trunc() / scale).collect();
            let mut stems: Vec<Vec<f32>> =
                (0..4).map(|n| raw.iter().map(|r| r.1[n]).collect()).collect();
            let report = quantise(ExactGrid::new(bits, remainder_stem, integer_pcm), &mixture, &mut stems);
            prop_assert_eq!(report.out_of_range, 0);
            prop_assert!(sums_exact_in_every_order(&mixture, &stems));
        }

        #[test]
        fn bounded_stems_stay_in_range_and_keep_the_sum(
            m in -32768i64..32768,
            stems in prop::collection::vec(-70_000i64..70_000, 1..5),
        ) {
            let mut steps = stems;
            let last = steps.len() - 1;
            steps[last] = m - steps[..last].iter().sum::<i64>();
            let (_, out) = redistribute_excess(&mut steps, 32_768);
            prop_assert!(!out);
            prop_assert_eq!(steps.iter().sum::<i64>(), m);
            prop_assert!(steps.iter().all(|u| (-32_768..32_768).contains(u)));
        }
    }

    #[test]
    fn non_finite_stem_samples_count_as_zero() {
        let mut stems = vec![vec![f32::NAN], vec![f32::INFINITY], vec![0.25]];
        quantise(ExactGrid::new(FINE_BITS, 2, false), &[0.5], &mut stems);
        assert_eq!(stems, [[0.0], [0.0], [0.5]]);
    }

    #[test]
    fn a_mixture_past_full_scale_is_reported() {
        let mut stems = vec![vec![1.0], vec![0.5]];
        let report = quantise(ExactGrid::new(COARSE_BITS, 1, true), &[1.5], &mut stems);
        // 1.5 fits in two stems; only a sum past what all stems hold together does not.
        assert_eq!((report.redistributed, report.out_of_range), (1, 0));
        let mut stems = vec![vec![1.0]];
        assert_eq!(quantise(ExactGrid::new(COARSE_BITS, 0, true), &[1.5], &mut stems).out_of_range, 1);
    }

    #[test]
    fn the_null_meter_reads_minus_infinity_only_when_exact() {
        let mut meter = NullMeter::default();
        meter.add(&[0.5, 0.25], [[0.25f32, 0.25].as_slice(), &[0.25, 0.0]].into_iter());
        assert!(meter.is_exact() && meter.peak_dbfs() == f64::NEG_INFINITY);
        meter.add(&[0.5], [[0.4f32].as_slice()].into_iter());
        assert!((meter.peak_dbfs() + 20.0).abs() < 1e-4);
    }
}
