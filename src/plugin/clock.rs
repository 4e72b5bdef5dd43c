//! Jumps of a host's position, such as the end of a loop.

/// How far a position may be from where it should be before it counts as a jump, in samples: some hosts round.
const SLACK: i64 = 2;

/// Follows a host's position block by block.
///
/// A jump is believed of a position that has kept time until then. Some hosts say that they play and give no position, which reads as one that
/// stands still; others give that of a song at another speed, or the same one for the parts of a block. To none of them is a block a jump.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// Where the song was, and where it should be at the next block.
    last: Option<i64>,
    expected: Option<i64>,
    /// Whether it was where it should be.
    keeps_time: bool,
}

impl Clock {
    /// A block of `samples` begins, at `position` while the song plays. Whether it jumps here. Realtime-safe.
    pub fn jumps(&mut self, position: Option<i64>, samples: usize) -> bool {
        // Where it stands still, the song will go on from there.
        let Some(position) = position.filter(|_| samples > 0) else { return false };
        if self.last.replace(position) == Some(position) {
            self.expected = self.expected.map(|expected| expected.saturating_add(samples as i64));
            return false;
        }
        let expected = self.expected.replace(position.saturating_add(samples as i64));
        let Some(expected) = expected else { return false };
        let in_time = position.saturating_sub(expected).abs() <= SLACK;
        let kept_time = std::mem::replace(&mut self.keeps_time, in_time);
        kept_time && !in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of the blocks of 100 samples that jump.
    fn jumps(positions: impl IntoIterator<Item = Option<i64>>) -> Vec<usize> {
        let mut clock = Clock::default();
        positions.into_iter().enumerate().filter(|(_, at)| clock.jumps(*at, 100)).map(|(n, _)| n).collect()
    }

    #[test]
    fn the_end_of_a_loop_jumps_and_so_does_the_next_one() {
        let looped = (0..12).map(|block| Some(block % 4 * 100));
        assert_eq!(jumps(looped), [4, 8]);
    }

    #[test]
    fn a_song_that_stops_and_goes_on_does_not_jump_and_one_that_starts_elsewhere_does() {
        assert!(jumps([Some(0), Some(100), None, None, Some(200), Some(300)]).is_empty());
        assert_eq!(jumps([Some(0), Some(100), None, Some(5000), Some(5100)]), [3]);
        assert_eq!(jumps([Some(0), Some(101), Some(199), Some(301)]), [0; 0], "hosts round");
    }

    #[test]
    fn a_position_that_is_no_clock_never_jumps() {
        assert!(jumps([Some(0); 20]).is_empty(), "stands still");
        assert!(jumps((0..20).map(|block| Some(block * 130))).is_empty(), "another speed");
        assert!(jumps((0..20).map(|block| Some(block / 2 * 200))).is_empty(), "the same for both halves");
        assert!(jumps((0..20).map(|block| Some(block * block * 1000))).is_empty(), "nonsense");
        let now_and_then = [0, 100, 200, 200, 400, 500, 500, 500, 800, 900];
        assert!(jumps(now_and_then.map(Some)).is_empty(), "the same for the parts of a block now and then");
    }
}
