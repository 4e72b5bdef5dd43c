//! Signal-to-noise ratio between two signals.

/// Signal-to-noise ratio in dB of `other` as a copy of `reference`: 10·log₁₀(Σ r² / Σ (r − o)²), summed in double precision.
///
/// ∞ if both are equal; −∞ if a value is not finite or the lengths differ, so that comparisons against a limit fail.
pub fn snr_db<'a, R, O>(
    reference: impl IntoIterator<Item = &'a R>,
    other: impl IntoIterator<Item = &'a O>,
) -> f64
where
    R: Copy + Into<f64> + 'a,
    O: Copy + Into<f64> + 'a,
{
    let (mut signal, mut error) = (0.0f64, 0.0f64);
    let (mut reference, mut other) = (reference.into_iter(), other.into_iter());
    loop {
        match (reference.next(), other.next()) {
            (Some(r), Some(o)) => {
                let (r, o) = ((*r).into(), (*o).into());
                signal += r * r;
                error += (r - o) * (r - o);
            }
            (None, None) if signal.is_finite() && error.is_finite() => break,
            _ => return f64::NEG_INFINITY,
        }
    }
    if error == 0.0 { f64::INFINITY } else { 10.0 * (signal / error).log10() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_amplitude_is_twenty_decibels() {
        let db = snr_db(&[1.0f32, -2.0, 3.0], &[1.1f64, -2.2, 3.3]);
        assert!((db - 20.0).abs() < 1e-9, "{db}");
        assert_eq!(snr_db(&[1.0f32, 2.0], &[0.0f32, 0.0]), 0.0);
        assert_eq!(snr_db(&[1.0f32, 2.0], &[1.0f32, 2.0]), f64::INFINITY);
    }

    #[test]
    fn non_finite_values_and_different_lengths_give_minus_infinity() {
        for bad in [&[1.0f32][..], &[1.0, 2.0, 3.0], &[1.0, f32::NAN], &[f32::INFINITY, 2.0]] {
            assert_eq!(snr_db(&[1.0f32, 2.0], bad), f64::NEG_INFINITY, "{bad:?}");
            assert_eq!(snr_db(bad, &[1.0f32, 2.0]), f64::NEG_INFINITY, "{bad:?}");
        }
    }
}
