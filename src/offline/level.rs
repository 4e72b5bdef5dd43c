//! The level at which the network hears a song.

/// The power of two by which a song of this peak is multiplied for the network, whose arithmetic is made for full scale: 1
/// for all usual levels. Scaling by a power of two is exact.
pub(super) fn network_gain(peak: f32) -> f32 {
    const LOUDEST: f32 = 16.0;
    const QUIETEST: f32 = 1.0 / 1024.0;
    if peak == 0.0 || (QUIETEST..=LOUDEST).contains(&peak) {
        return 1.0;
    }
    // The reciprocal must be finite too.
    2f32.powi(-(peak.log2().round() as i32).clamp(-126, 126))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_levels_are_scaled_by_a_power_of_two() {
        for (peak, gain) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (0.01, 1.0),
            (2f32.powi(31), 2f32.powi(-31)),
            (1e-4, 8192.0),
            (1e-40, 2f32.powi(126)),
            (3e38, 2f32.powi(-126)),
        ] {
            assert_eq!(network_gain(peak), gain, "{peak}");
        }
    }
}
