//! Applies masks to the mixture, optionally completed so that the stems sum to it.

use num_complex::Complex32;
use rayon::prelude::*;

use crate::kernels::apply_masks;

/// What happens to the part of the mixture that no mask takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskRule {
    /// It is lost, as in the reference.
    #[default]
    Plain,
    /// It is shared among the stems by the power of their masks at each time and frequency, so that the masks sum to 1:
    /// `Mₙ' = Mₙ + wₙ·(1 − ΣM)` with `wₙ = |Mₙ|² / Σ|M|²`. Where all masks are 0, all stems get the same share.
    Complete,
}

/// Bins handled by one task.
const BLOCK: usize = 1 << 14;

/// Replaces `masks` [stems, frames, (f s)] by the stems' spectra: each mask, adjusted by `rule`, times `spec` [frames, (f s)].
pub(super) fn apply(rule: MaskRule, spec: &[Complex32], masks: &mut [Complex32], stems: usize) {
    // The stems' rows, cut into blocks of bins so that a task sees all stems of its bins.
    let mut blocks: Vec<(&[Complex32], Vec<&mut [Complex32]>)> =
        spec.chunks(BLOCK).map(|spec| (spec, Vec::with_capacity(stems))).collect();
    for stem in masks.chunks_exact_mut(spec.len()) {
        for (block, masks) in blocks.iter_mut().zip(stem.chunks_mut(BLOCK)) {
            block.1.push(masks);
        }
    }
    blocks.into_par_iter().for_each(|(spec, mut masks)| apply_block(rule, spec, &mut masks));
}

/// As [`apply`], of bins whose masks of each stem are a slice, on the calling thread.
pub(super) fn apply_block(rule: MaskRule, spec: &[Complex32], masks: &mut [&mut [Complex32]]) {
    apply_masks(rule == MaskRule::Complete, spec, masks);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(re: f32, im: f32) -> Complex32 {
        Complex32::new(re, im)
    }

    #[test]
    fn completed_masks_return_the_mixture_and_plain_ones_do_not() {
        let spec = [c(1.0, 2.0), c(-3.0, 0.5), c(0.25, 0.0)];
        let masks = [c(0.5, 0.1), c(0.0, 0.0), c(0.2, 0.0), c(0.1, -0.3), c(0.0, 0.0), c(f32::NAN, 0.0)];
        for rule in [MaskRule::Plain, MaskRule::Complete] {
            let mut stems = masks;
            apply(rule, &spec, &mut stems, 2);
            let error: f32 = (0..3).map(|i| (stems[i] + stems[3 + i] - spec[i]).norm()).sum();
            assert_eq!(error < 1e-6, rule == MaskRule::Complete, "{rule:?}: {error}");
        }
    }

    #[test]
    fn completion_matches_its_formula_for_any_number_of_bins_and_stems() {
        let mut random = crate::dsp::Random::new(3);
        for (bins, stems) in [(1, 1), (1, 3), (3, 2), (7, 4), (8, 1), (9, 5), (33, 4), (100, 17)] {
            let mut draw =
                |n: usize| (0..n).map(|_| c(random.bipolar(), random.bipolar())).collect::<Vec<_>>();
            let (spec, mut masks) = (draw(bins), draw(bins * stems));
            // Bins without any mask, with a mask that is no number, and with one too small for a quotient.
            for (bin, value) in [(0, c(0.0, 0.0)), (bins / 2, c(1e-25, 0.0))] {
                (0..stems).for_each(|n| masks[n * bins + bin] = value);
            }
            masks[(stems - 1) * bins + bins - 1] = c(0.5, f32::INFINITY);
            for rule in [MaskRule::Plain, MaskRule::Complete] {
                let mut found = masks.clone();
                apply(rule, &spec, &mut found, stems);
                for i in 0..bins {
                    let of = |n: usize| masks[n * bins + i];
                    let clean =
                        |z: Complex32| if z.re.is_finite() && z.im.is_finite() { z } else { c(0.0, 0.0) };
                    let sum: Complex32 = (0..stems).map(|n| clean(of(n))).sum();
                    let power: f32 = (0..stems).map(|n| clean(of(n)).norm_sqr()).sum();
                    for n in 0..stems {
                        let share = match power > f32::MIN_POSITIVE {
                            true => clean(of(n)).norm_sqr() / power,
                            false => 1.0 / stems as f32,
                        };
                        let mask = match rule {
                            MaskRule::Plain => of(n),
                            MaskRule::Complete => clean(of(n)) + (c(1.0, 0.0) - sum) * share,
                        };
                        let (got, want) = (found[n * bins + i], mask * spec[i]);
                        let near =
                            (got - want).norm() < 1e-5 * stems as f32 || !(want.re + want.im).is_finite();
                        assert!(near, "{rule:?}, bin {i} of {bins}, stem {n} of {stems}: {got}, not {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn completion_follows_the_power_of_the_masks() {
        let mut stems = [c(0.3, 0.0), c(0.0, 0.0)];
        apply(MaskRule::Complete, &[c(1.0, 0.0)], &mut stems, 2);
        assert_eq!(stems, [c(1.0, 0.0), c(0.0, 0.0)]);
    }
}
