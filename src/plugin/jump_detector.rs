//! Detects jumps of the host's transport position, such as the end of a loop.

/// Largest difference from the expected position that is not a jump, in samples. Some hosts round positions.
const TOLERANCE_SAMPLES: i64 = 2;

/// Tracks the host's position block by block.
///
/// A jump counts only if the position advanced in time before it. Some hosts play and report a constant position. Others report positions at
/// another speed, or the same position for each part of a split block. None of these is a jump.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TransportJumpDetector {
    last: Option<i64>,
    /// Position where the next block should begin.
    expected: Option<i64>,
    /// Whether the last block began at the expected position.
    on_time: bool,
}

impl TransportJumpDetector {
    /// Realtime-safe: registers a block of `samples` at `position` (`None` while stopped). Returns how far the position jumped, negative for
    /// back.
    pub fn detect_jump(&mut self, position: Option<i64>, samples: usize) -> Option<i64> {
        // While stopped, the expected position stays: playback usually continues from there.
        let position = position.filter(|_| samples > 0)?;
        if self.last.replace(position) == Some(position) {
            self.expected = self.expected.map(|expected| expected.saturating_add(samples as i64));
            return None;
        }
        let expected = self.expected.replace(position.saturating_add(samples as i64));
        let distance = position.saturating_sub(expected?);
        let in_time = distance.abs() <= TOLERANCE_SAMPLES;
        let was_on_time = std::mem::replace(&mut self.on_time, in_time);
        (was_on_time && !in_time).then_some(distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Indices of the blocks of 100 samples that jump.
    fn jumps(positions: impl IntoIterator<Item = Option<i64>>) -> Vec<usize> {
        let mut detector = TransportJumpDetector::default();
        positions
            .into_iter()
            .enumerate()
            .filter(|(_, at)| detector.detect_jump(*at, 100).is_some())
            .map(|(n, _)| n)
            .collect()
    }

    #[test]
    fn each_loop_end_is_a_jump() {
        let looped = (0..12).map(|block| Some(block % 4 * 100));
        assert_eq!(jumps(looped), [4, 8]);
    }

    #[test]
    fn the_distance_of_a_jump_is_told() {
        let mut detector = TransportJumpDetector::default();
        let mut found = |position| detector.detect_jump(Some(position), 100);
        assert_eq!(
            [0, 100, 200, 0, 100, 5_000].map(&mut found),
            [None, None, None, Some(-300), None, Some(4_800)]
        );
    }

    #[test]
    fn resuming_is_no_jump_and_starting_elsewhere_is() {
        assert!(jumps([Some(0), Some(100), None, None, Some(200), Some(300)]).is_empty());
        assert_eq!(jumps([Some(0), Some(100), None, Some(5000), Some(5100)]), [3]);
        assert_eq!(jumps([Some(0), Some(101), Some(199), Some(301)]), [0; 0], "hosts round");
    }

    #[test]
    fn positions_that_do_not_keep_time_never_jump() {
        assert!(jumps([Some(0); 20]).is_empty(), "stands still");
        assert!(jumps((0..20).map(|block| Some(block * 130))).is_empty(), "another speed");
        assert!(jumps((0..20).map(|block| Some(block / 2 * 200))).is_empty(), "the same for both halves");
        assert!(jumps((0..20).map(|block| Some(block * block * 1000))).is_empty(), "nonsense");
        let now_and_then = [0, 100, 200, 200, 400, 500, 500, 500, 800, 900];
        assert!(jumps(now_and_then.map(Some)).is_empty(), "the same for the parts of a block now and then");
    }
}
