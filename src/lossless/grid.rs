//! The exact grid: mixture and stems as whole multiples of one step, one stem taking the difference in integers.
//!
//! With a step of 2⁻²³ every 16- and 24-bit sample is on the grid, a float holds every multiple up to ±2.0 exactly, and so
//! the sum of the stems is the mixture in any order of summation, in files and in a mixer.

/// Bits after the point of the grid for 24-bit and float output.
pub const FINE_BITS: u32 = 23;
/// Bits after the point of the grid for 16-bit output.
pub const COARSE_BITS: u32 = 15;

/// Puts stems on a grid so that they sum to the mixture.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    bits: u32,
    carrier: usize,
    bounded: bool,
}

/// What happened on the grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GridReport {
    /// Samples of stems that passed full scale and handed the excess to other stems.
    pub handed_over: u64,
    /// Samples of the mixture itself that are past what the output holds: there the sum cannot be exact.
    pub out_of_range: u64,
}

impl GridReport {
    /// Adds another block's report.
    pub fn add(&mut self, other: Self) {
        self.handed_over += other.handed_over;
        self.out_of_range += other.out_of_range;
    }
}

impl Grid {
    /// A grid of step 2^-`bits` whose stem `carrier` takes the difference. `bounded` where the output is integer PCM, which
    /// holds −1 to 1 − step: then a stem past full scale is not clipped, the excess goes to stems with room.
    pub fn new(bits: u32, carrier: usize, bounded: bool) -> Self {
        Self { bits, carrier, bounded }
    }

    /// Quantises one channel. `mixture`: `[samples]`; `stems`: one slice of as many samples each, overwritten with multiples
    /// of the step whose sum is the mixture, itself rounded to the step.
    pub fn settle(&self, mixture: &[f32], stems: &mut [&mut [f32]]) -> GridReport {
        let scale = f64::from(2u32.pow(self.bits));
        let mut report = GridReport::default();
        let mut units = vec![0i64; stems.len()];
        for (i, &m) in mixture.iter().enumerate() {
            let whole = to_units(m, scale);
            let mut others = 0;
            for (n, stem) in stems.iter().enumerate() {
                units[n] = to_units(stem[i], scale);
                if n != self.carrier {
                    others += units[n];
                }
            }
            if let Some(carrier) = units.get_mut(self.carrier) {
                *carrier = whole - others;
            }
            if self.bounded {
                let moved = bound(&mut units, 1i64 << self.bits);
                report.handed_over += u64::from(moved.0);
                report.out_of_range += u64::from(moved.1);
            }
            for (stem, &u) in stems.iter_mut().zip(&units) {
                stem[i] = (u as f64 / scale) as f32;
            }
        }
        report
    }
}

/// Nearest multiple of the step, in steps; what is not finite counts as 0, what is absurdly large is held at ±2³⁹.
fn to_units(x: f32, scale: f64) -> i64 {
    let units = (f64::from(x) * scale).round();
    if units.is_finite() { units.clamp(-(2f64.powi(39)), 2f64.powi(39)) as i64 } else { 0 }
}

/// Brings every value into −`full` ..= `full` − 1 without changing the sum. Returns how many values were brought in, and
/// whether the sum itself does not fit.
fn bound(units: &mut [i64], full: i64) -> (u32, bool) {
    let (low, high) = (-full, full - 1);
    let mut excess = 0;
    let mut moved = 0;
    for u in units.iter_mut() {
        let held = (*u).clamp(low, high);
        moved += u32::from(held != *u);
        excess += *u - held;
        *u = held;
    }
    if excess != 0 {
        for u in units.iter_mut() {
            let taken = (*u + excess).clamp(low, high) - *u;
            *u += taken;
            excess -= taken;
        }
    }
    (moved, excess != 0)
}

/// Peak of mixture − Σ stems over a song.
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

    /// Whether nothing is left at all.
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

    fn settle(grid: Grid, mixture: &[f32], stems: &mut [Vec<f32>]) -> GridReport {
        let mut views: Vec<&mut [f32]> = stems.iter_mut().map(Vec::as_mut_slice).collect();
        grid.settle(mixture, &mut views)
    }

    proptest! {
        #[test]
        fn stems_sum_to_the_mixture_in_any_order(
            bits in prop_oneof![Just(COARSE_BITS), Just(FINE_BITS)],
            carrier in 0usize..4,
            bounded: bool,
            raw in prop::collection::vec((-1f32..1.0, prop::array::uniform4(-0.24f32..0.24)), 1..64),
        ) {
            let scale = 2f32.powi(bits as i32);
            let mixture: Vec<f32> = raw.iter().map(|r| (r.0 * scale).trunc() / scale).collect();
            let mut stems: Vec<Vec<f32>> =
                (0..4).map(|n| raw.iter().map(|r| r.1[n]).collect()).collect();
            let report = settle(Grid::new(bits, carrier, bounded), &mixture, &mut stems);
            prop_assert_eq!(report.out_of_range, 0);
            prop_assert!(sums_exact_in_every_order(&mixture, &stems));
        }

        #[test]
        fn bounded_stems_stay_in_range_and_keep_the_sum(
            m in -32768i64..32768,
            stems in prop::collection::vec(-70_000i64..70_000, 1..5),
        ) {
            let mut units = stems;
            let last = units.len() - 1;
            units[last] = m - units[..last].iter().sum::<i64>();
            let (_, out) = bound(&mut units, 32_768);
            prop_assert!(!out);
            prop_assert_eq!(units.iter().sum::<i64>(), m);
            prop_assert!(units.iter().all(|u| (-32_768..32_768).contains(u)));
        }
    }

    #[test]
    fn values_that_are_no_numbers_cost_nothing() {
        let mut stems = vec![vec![f32::NAN], vec![f32::INFINITY], vec![0.25]];
        settle(Grid::new(FINE_BITS, 2, false), &[0.5], &mut stems);
        assert_eq!(stems, [[0.0], [0.0], [0.5]]);
    }

    #[test]
    fn a_mixture_past_full_scale_is_reported() {
        let mut stems = vec![vec![1.0], vec![0.5]];
        let report = settle(Grid::new(COARSE_BITS, 1, true), &[1.5], &mut stems);
        // 1.5 fits in two stems; only a sum past what all stems hold together does not.
        assert_eq!((report.handed_over, report.out_of_range), (1, 0));
        let mut stems = vec![vec![1.0]];
        assert_eq!(settle(Grid::new(COARSE_BITS, 0, true), &[1.5], &mut stems).out_of_range, 1);
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
