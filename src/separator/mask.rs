//! Applies masks to the mixture, optionally completed so that the stems sum to it.

use num_complex::Complex32;
use rayon::prelude::*;

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
    blocks.into_par_iter().for_each(|(spec, mut masks)| {
        for (i, bin) in spec.iter().enumerate() {
            if rule == MaskRule::Complete {
                complete(&mut masks, i);
            }
            for mask in &mut masks {
                mask[i] *= bin;
            }
        }
    });
}

/// Makes the masks of bin `i` sum to 1.
fn complete(masks: &mut [&mut [Complex32]], i: usize) {
    let mut sum = Complex32::default();
    let mut power = 0.0;
    for mask in masks.iter_mut() {
        if !(mask[i].re.is_finite() && mask[i].im.is_finite()) {
            mask[i] = Complex32::default();
        }
        sum += mask[i];
        power += mask[i].norm_sqr();
    }
    let rest = Complex32::new(1.0, 0.0) - sum;
    let even = 1.0 / masks.len() as f32;
    for mask in masks {
        // Below the smallest normal number the quotient is meaningless.
        let weight = if power > f32::MIN_POSITIVE { mask[i].norm_sqr() / power } else { even };
        mask[i] += rest * weight;
    }
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
    fn completion_follows_the_power_of_the_masks() {
        let mut stems = [c(0.3, 0.0), c(0.0, 0.0)];
        apply(MaskRule::Complete, &[c(1.0, 0.0)], &mut stems, 2);
        assert_eq!(stems, [c(1.0, 0.0), c(0.0, 0.0)]);
    }
}
