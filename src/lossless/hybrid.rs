//! The hybrid rule: the model runs again on the residual and divides it between `drums` and `other`.
//!
//! With r the residual, r_d and r_o the drums and other stems of the second pass:
//! `ratio = Σ|r_d| / (Σ|r_d| + Σ|r_o|)` over the whole song, `ambiguous = r − (r_d + r_o)`,
//! `drums += r_d + ambiguous·ratio`, `other += r_o + ambiguous·(1 − ratio)`. A model without both gives r to its first
//! stem. The rule is that of `lossless-bs-roformer` 1.0.0.

/// Energies of drums and other in the second pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Energies {
    drums: f64,
    other: f64,
}

impl Energies {
    /// Adds a block of the second pass.
    pub fn add(&mut self, drums: &[f32], other: &[f32]) {
        let sum = |x: &[f32]| x.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        self.drums += sum(drums);
        self.other += sum(other);
    }

    /// Share of the ambiguous part that `drums` gets; 0.5 where the second pass is silent.
    pub fn ratio(&self) -> f32 {
        let all = self.drums + self.other;
        if all > 0.0 { (self.drums / all) as f32 } else { 0.5 }
    }
}

/// Adds a block of the residual to `drums` and `other`.
pub fn distribute(
    residual: &[f32],
    residual_drums: &[f32],
    residual_other: &[f32],
    ratio: f32,
    drums: &mut [f32],
    other: &mut [f32],
) {
    for (i, r) in residual.iter().enumerate() {
        let (rd, ro) = (residual_drums[i], residual_other[i]);
        let ambiguous = r - (rd + ro);
        drums[i] += rd + ambiguous * ratio;
        other[i] += ro + ambiguous * (1.0 - ratio);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_residual_is_distributed() {
        let residual = [0.5f32, -0.25, 0.125];
        let (rd, ro) = ([0.1f32, -0.1, 0.0], [0.2f32, -0.05, 0.3]);
        let mut energies = Energies::default();
        energies.add(&rd, &ro);
        let ratio = energies.ratio();
        assert!((ratio - 0.2 / 0.75).abs() < 1e-6);
        let (mut drums, mut other) = ([1.0f32, 2.0, 3.0], [4.0f32, 5.0, 6.0]);
        distribute(&residual, &rd, &ro, ratio, &mut drums, &mut other);
        for i in 0..3 {
            let given = (drums[i] - [1.0, 2.0, 3.0][i]) + (other[i] - [4.0, 5.0, 6.0][i]);
            assert!((given - residual[i]).abs() < 1e-6);
        }
        assert!((drums[0] - (1.0 + 0.1 + 0.2 * ratio)).abs() < 1e-6);
    }

    #[test]
    fn a_silent_second_pass_divides_equally() {
        assert_eq!(Energies::default().ratio(), 0.5);
    }
}
