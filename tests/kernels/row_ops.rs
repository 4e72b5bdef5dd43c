//! Operations on rows, for every instruction set.

use nullsum::dsp::snr_db;
use nullsum::kernels::{RowOps, sum_of_products};

use super::bits;
use super::reference::{self, Random};
use super::targets::targets;

/// The largest |got − want| in units of the last place of want.
fn ulps(from: f32, to: f32, apply: impl Fn(&mut [f32]), exact: impl Fn(f64) -> f64) -> f64 {
    let x: Vec<f32> = (0..200_003).map(|i| from + (to - from) * (i as f32 / 200_002.0)).collect();
    let mut y = x.clone();
    apply(&mut y);
    let error = |(&x, &y): (&f32, &f32)| {
        let want = exact(f64::from(x));
        let ulp = f64::from(f32::EPSILON) * 2f64.powf(want.abs().max(1e-37).log2().floor());
        (f64::from(y) - want).abs() / ulp
    };
    x.iter().zip(&y).map(error).fold(0.0, f64::max)
}

#[test]
fn small_operations_are_accurate_to_a_few_units_in_the_last_place() {
    for target in targets() {
        let ops = RowOps::new(target).unwrap();
        let check = |name: &str, ulps: f64, limit: f64| {
            println!("{target} {name}: {ulps:.2} ulp");
            assert!(ulps < limit, "{target} {name}: {ulps:.2} ulp");
        };
        check("exp2", ulps(-125.9, 126.9, |x| ops.exp2(x), f64::exp2), 2.0);
        check("exp2 near 0", ulps(-1.0, 1.0, |x| ops.exp2(x), f64::exp2), 2.0);
        check("exp", ulps(-87.3, 87.9, |x| ops.exp(x), f64::exp), 1.5);
        check("exp near 0", ulps(-1.0, 1.0, |x| ops.exp(x), f64::exp), 1.5);
        check("sigmoid", ulps(-85.0, 85.0, |x| ops.sigmoid(x), reference::sigmoid), 3.0);
        check("sigmoid near 0", ulps(-4.0, 4.0, |x| ops.sigmoid(x), reference::sigmoid), 3.0);
        check("tanh", ulps(-12.0, 12.0, |x| ops.tanh(x), f64::tanh), 3.0);
        check("tanh near 0", ulps(-0.7, 0.7, |x| ops.tanh(x), f64::tanh), 3.0);
        check("gelu above 0", ulps(1e-6, 12.0, |x| ops.gelu(x), reference::gelu), 3.0);
        // Φ in the tail is 2 to a polynomial of up to 30; below −6 nothing is left of it.
        check("gelu to −1", ulps(-1.0, -1e-6, |x| ops.gelu(x), reference::gelu), 6.0);
        check("gelu to −6", ulps(-6.0, -1.0, |x| ops.gelu(x), reference::gelu), 100.0);
        let mut x = [-1e30, -1e4, -30.0, 0.0, 30.0, 1e30, f32::NAN];
        ops.gelu(&mut x);
        assert!(x[1].abs() < 1e-10 && x[2].abs() < 1e-10 && x[3] == 0.0, "{target} {x:?}");
        assert!(x[4] == 30.0 && x[5] == 1e30 && x[6].is_nan(), "{target} {x:?}");
        for f in [RowOps::exp, RowOps::exp2, RowOps::tanh, RowOps::sigmoid] {
            let mut x = [f32::NAN, -1e30, 1e30, f32::NEG_INFINITY, f32::INFINITY];
            f(&ops, &mut x);
            assert!(x[0].is_nan() && x[1..].iter().all(|v| v.is_finite()), "{target} {x:?}");
        }
    }
}

#[test]
fn softmax_and_norm_match_f64() {
    let mut r = Random::new(9);
    for target in targets() {
        let ops = RowOps::new(target).unwrap();
        for n in [1, 2, 7, 16, 33, 345] {
            let x = r.normal(3 * n, 20.0);
            let gamma = r.around(1.0, 0.3, n);
            let (mut soft, mut norm) = (x.clone(), x.clone());
            ops.softmax2(&mut soft, n);
            ops.rms_norm(&mut norm, &gamma);
            let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            let mut want = Vec::new();
            for row in x.chunks_exact(n) {
                let sum: f64 = row.iter().map(|v| v.exp2()).sum();
                want.extend(row.iter().map(|v| v.exp2() / sum));
            }
            assert!(snr_db(&want, &soft) > 112.0, "{target} softmax {n}");
            assert!(snr_db(&reference::rms_norm(&x, &gamma), &norm) > 112.0, "{target} norm {n}");
        }
    }
}

#[test]
fn sums_of_products_have_the_same_bits_for_every_instruction_set() {
    let mut r = Random::new(12);
    let (x, y) = (r.normal(700, 1.0), r.normal(700, 1.0));
    let in_sixteen_sums = |x: &[f32], y: &[f32]| {
        let whole = x.len() / 16 * 16;
        let mut sums = [0f32; 16];
        for i in 0..whole {
            sums[i % 16] += x[i] * y[i];
        }
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                sums[i] += sums[i + width];
            }
        }
        sums[0] + x[whole..].iter().zip(&y[whole..]).fold(0.0, |sum, (x, y)| sum + x * y)
    };
    for n in (0..70).chain([256, 279, 512, 600]) {
        for offset in [0, 1, 7] {
            let (x, y) = (&x[offset..offset + n], &y[n / 10..n / 10 + n]);
            let expected = in_sixteen_sums(x, y);
            let exact: f64 = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            assert!((f64::from(expected) - exact).abs() < 1e-4, "{n}");
            for target in targets() {
                let found = RowOps::new(target).unwrap().sum_of_products(x, y);
                assert_eq!(bits(&[found]), bits(&[expected]), "{target}, {n} values from {offset} on");
            }
            assert_eq!(bits(&[sum_of_products(x, y)]), bits(&[expected]), "{n} values");
        }
    }
    assert_eq!(sum_of_products(&[1.0, 2.0, 3.0], &[4.0]), 4.0, "the shorter one counts");
}
