//! The exact grid: mixture and stems become integer multiples of one step, and one stem takes the difference.
//!
//! Integer output has a fixed step of 2⁻²³ or 2⁻¹⁵, on which every 24- or 16-bit sample lies. In float output the step
//! follows the level, sample by sample: it is as fine as the sum of the stems allows, so a quiet song loses nothing. Floats
//! hold 2²⁴ steps exactly, and so the sum of the stems is the mixture in any order of summation, in files and in a mixer.

/// Bits after the point of the grid for 24-bit output.
pub const FINE_BITS: u32 = 23;
/// Bits after the point of the grid for 16-bit output.
pub const COARSE_BITS: u32 = 15;
/// Steps that a float holds exactly.
const FLOAT_STEPS: f64 = 16_777_216.0;
/// Finest step of float output, well above the smallest normal number.
const MAX_FLOAT_BITS: i32 = 120;

/// Puts stems on a grid so that they sum to the mixture.
#[derive(Clone, Copy, Debug)]
pub struct ExactGrid {
    /// Bits of integer samples; `None` for float.
    integer_bits: Option<u32>,
    remainder_stem: usize,
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
    /// A grid for integer output of step 2^-`bits`, in which the stem of index `remainder_stem` takes the difference. The
    /// range is −1 to 1 − step: instead of clipping a stem, its excess is moved to stems with headroom.
    pub fn integer(bits: u32, remainder_stem: usize) -> Self {
        Self { integer_bits: Some(bits), remainder_stem }
    }

    /// A grid for float output, in which the stem of index `remainder_stem` takes the difference.
    pub fn float(remainder_stem: usize) -> Self {
        Self { integer_bits: None, remainder_stem }
    }

    /// Quantises one channel. `mixture`: `[samples]`; `stems`: one slice of as many samples each, overwritten with multiples
    /// of the step whose sum is the mixture, itself rounded to the step.
    pub fn quantise(&self, mixture: &[f32], stems: &mut [&mut [f32]]) -> ExactGridReport {
        let mut report = ExactGridReport::default();
        let mut steps = vec![0i64; stems.len()];
        for (i, &m) in mixture.iter().enumerate() {
            let scale = match self.integer_bits {
                Some(bits) => {
                    let scale = f64::from(2u32.pow(bits));
                    self.round_to_grid(m, stems, i, scale, &mut steps);
                    let (moved, out) = redistribute_excess(&mut steps, 1i64 << bits);
                    report.redistributed += u64::from(moved);
                    report.out_of_range += u64::from(out);
                    scale
                }
                None => self.round_to_float_grid(m, stems, i, &mut steps),
            };
            for (stem, &u) in stems.iter_mut().zip(&steps) {
                stem[i] = (u as f64 / scale) as f32;
            }
        }
        report
    }

    /// Rounds sample `i` of all stems to steps of 1 / `scale`; the remainder stem takes the difference.
    fn round_to_grid(self, m: f32, stems: &[&mut [f32]], i: usize, scale: f64, steps: &mut [i64]) {
        let mut others = 0;
        for (n, stem) in stems.iter().enumerate() {
            steps[n] = to_steps(stem[i], scale);
            if n != self.remainder_stem {
                others += steps[n];
            }
        }
        if let Some(remainder) = steps.get_mut(self.remainder_stem) {
            *remainder = to_steps(m, scale) - others;
        }
    }

    /// The same for float output, with the best step for this sample. Returns the scale.
    fn round_to_float_grid(self, m: f32, stems: &[&mut [f32]], i: usize, steps: &mut [i64]) -> f64 {
        let m = if m.is_finite() { m } else { 0.0 };
        let loud = |stem: &f32| if stem.is_finite() { f64::from(stem.abs()) } else { 0.0 };
        let others = stems.iter().enumerate().filter(|(n, _)| *n != self.remainder_stem);
        // The remainder stem is at most the mixture and all others together.
        let most = f64::from(m.abs()) + 2.0 * others.map(|(_, stem)| loud(&stem[i])).sum::<f64>();
        let finest = (FINE_BITS as i32 - exponent(most)).min(MAX_FLOAT_BITS);
        // A mixture that needs more bits has them if all stems still fit.
        let needed = fraction_bits(m);
        if needed > finest && needed <= MAX_FLOAT_BITS {
            let scale = 2f64.powi(needed);
            self.round_to_grid(m, stems, i, scale, steps);
            if steps.iter().all(|u| (*u as f64).abs() <= FLOAT_STEPS) {
                return scale;
            }
        }
        let scale = 2f64.powi(finest);
        self.round_to_grid(m, stems, i, scale, steps);
        scale
    }
}

/// The least e for which |x| < 2^e.
fn exponent(x: f64) -> i32 {
    if x == 0.0 { -MAX_FLOAT_BITS } else { ((x.to_bits() >> 52) & 0x7FF) as i32 - 1022 }
}

/// Bits after the point that `x` needs; negative for multiples of 2.
fn fraction_bits(x: f32) -> i32 {
    if x == 0.0 {
        return -MAX_FLOAT_BITS;
    }
    let bits = x.to_bits();
    let (exponent, mantissa) = ((bits >> 23 & 0xFF) as i32, bits & 0x7F_FFFF);
    match exponent {
        0 => 149 - mantissa.trailing_zeros() as i32,
        _ => 150 - exponent - (mantissa | 0x80_0000).trailing_zeros() as i32,
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

    fn stems_of(raw: &[(f32, [f32; 4])]) -> Vec<Vec<f32>> {
        (0..4).map(|n| raw.iter().map(|r| r.1[n]).collect()).collect()
    }

    proptest! {
        #[test]
        fn stems_sum_to_the_mixture_in_any_order(
            bits in prop_oneof![Just(COARSE_BITS), Just(FINE_BITS)],
            remainder_stem in 0usize..4,
            float: bool,
            raw in prop::collection::vec((-1f32..1.0, prop::array::uniform4(-0.24f32..0.24)), 1..64),
        ) {
            let scale = 2f32.powi(bits as i32);
            let mixture: Vec<f32> = raw.iter().map(|r| (r.0 * scale).trunc() / scale).collect();
            let mut stems = stems_of(&raw);
            let grid = match float {
                true => ExactGrid::float(remainder_stem),
                false => ExactGrid::integer(bits, remainder_stem),
            };
            let report = quantise(grid, &mixture, &mut stems);
            prop_assert_eq!(report.out_of_range, 0);
            prop_assert!(sums_exact_in_every_order(&mixture, &stems));
        }

        #[test]
        fn float_stems_keep_their_precision_at_every_level(
            exponent in -90i32..32,
            raw in prop::collection::vec((-1f32..1.0, prop::array::uniform4(-0.5f32..0.5)), 1..64),
        ) {
            let level = 2f32.powi(exponent);
            let raw: Vec<_> = raw.iter().map(|(m, stems)| (m * level, stems.map(|s| s * level))).collect();
            let mixture: Vec<f32> = raw.iter().map(|r| r.0).collect();
            let mut stems = stems_of(&raw);
            quantise(ExactGrid::float(3), &mixture, &mut stems);
            for (i, (m, before)) in raw.iter().enumerate() {
                let most = before.iter().fold(m.abs(), |sum, stem| sum + 2.0 * stem.abs());
                for n in 0..3 {
                    prop_assert!((stems[n][i] - before[n]).abs() <= most * 2f32.powi(-22));
                }
                let sum: f64 = stems.iter().map(|stem| f64::from(stem[i])).sum();
                prop_assert!((sum - f64::from(*m)).abs() <= f64::from(most) * 2f64.powi(-22));
            }
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
        quantise(ExactGrid::float(2), &[0.5], &mut stems);
        assert_eq!(stems, [[0.0], [0.0], [0.5]]);
    }

    #[test]
    fn bits_that_a_float_needs_are_counted() {
        for (x, bits) in
            [(1.0, 0), (0.5, 1), (0.75, 2), (-6.0, -1), (1.0 + 2f32.powi(-23), 23), (2f32.powi(-149), 149)]
        {
            assert_eq!(fraction_bits(x), bits, "{x}");
        }
        for (x, e) in [(1.0, 1), (0.75, 0), (0.5, 0), (0.25, -1), (2f64.powi(31), 32)] {
            assert_eq!(exponent(x), e, "{x}");
        }
    }

    #[test]
    fn a_mixture_past_full_scale_is_reported() {
        let mut stems = vec![vec![1.0], vec![0.5]];
        let report = quantise(ExactGrid::integer(COARSE_BITS, 1), &[1.5], &mut stems);
        // 1.5 fits in two stems; only a sum past what all stems hold together does not.
        assert_eq!((report.redistributed, report.out_of_range), (1, 0));
        let mut stems = vec![vec![1.0]];
        assert_eq!(quantise(ExactGrid::integer(COARSE_BITS, 0), &[1.5], &mut stems).out_of_range, 1);
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
