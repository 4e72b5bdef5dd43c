//! The parts of a decoded track that are played, in order: MP4 edit lists and gapless tags.

use std::collections::VecDeque;

use super::Planar;
use super::mp4::{Edit, Playback};

/// Longest silence that an edit list may insert, in seconds. More is treated as a corrupt header.
const MAX_SILENCE_SECONDS: u64 = 6 * 3600;

/// One part of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Samples of silence.
    Silence(u64),
    /// Samples of the track from `start` on; `None` to its end.
    Media { start: u64, samples: Option<u64> },
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Decode on.
    Decode,
    /// Insert this many samples of silence.
    Silence(u64),
    /// Cut another part from the last decoded block.
    CutAgain,
    /// Continue decoding at this sample of the track.
    Seek(u64),
    /// Nothing is left to play.
    End,
}

/// Cuts decoded blocks to the parts that are played.
#[derive(Debug)]
pub(super) struct Timeline {
    parts: VecDeque<Part>,
    /// The last decoded block and its position in the track.
    block: Planar,
    block_at: u64,
    /// Samples of all parts; `None` if the last one has no known end.
    total: Option<u64>,
}

impl Timeline {
    /// The timeline of a track of `sample_rate` Hz that holds `media` samples, where that is known. `None` if it plays
    /// nothing.
    pub(super) fn new(playback: &Playback, sample_rate: u32, media: Option<u64>) -> Option<Self> {
        let parts: VecDeque<Part> = match playback {
            Playback::Gapless { delay, samples } => {
                let rest = media.map(|media| media.saturating_sub(*delay));
                let samples = rest.map_or(*samples, |rest| rest.min(*samples));
                VecDeque::from([Part::Media { start: *delay, samples: Some(samples) }])
            }
            Playback::Edits { edits, movie_scale, media_scale } => edits
                .iter()
                .filter_map(|edit| {
                    part(
                        edit,
                        u64::from(sample_rate),
                        u64::from(*movie_scale),
                        u64::from(*media_scale),
                        media,
                    )
                })
                .collect(),
        };
        if !parts.iter().any(|part| matches!(part, Part::Media { samples, .. } if *samples != Some(0))) {
            return None;
        }
        let length = |part: &Part| match part {
            Part::Silence(samples) => Some(*samples),
            Part::Media { samples, .. } => *samples,
        };
        let total = parts.iter().map(length).try_fold(0_u64, |sum, part| sum.checked_add(part?));
        Some(Self { parts, block: Planar::default(), block_at: 0, total })
    }

    /// Samples of the whole timeline, if known.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// What to do next.
    pub(super) fn next_step(&mut self) -> Step {
        loop {
            match self.parts.front() {
                None => return Step::End,
                Some(Part::Silence(samples)) => {
                    let samples = *samples;
                    self.parts.pop_front();
                    return Step::Silence(samples);
                }
                Some(Part::Media { samples: Some(0), .. }) => {
                    self.parts.pop_front();
                }
                Some(Part::Media { start, .. }) => {
                    let end = self.block_at + self.block.samples() as u64;
                    return match *start {
                        start if start >= end => Step::Decode,
                        start if start >= self.block_at => Step::CutAgain,
                        start => Step::Seek(start),
                    };
                }
            }
        }
    }

    /// Tells that the next decoded block starts at sample `position` of the track.
    pub(super) fn seeked(&mut self, position: u64) {
        self.block.clear();
        self.block_at = position;
    }

    /// Takes the next decoded block and leaves of it what the current part plays.
    pub(super) fn cut_next(&mut self, block: &mut Planar) {
        self.block_at += self.block.samples() as u64;
        std::mem::swap(&mut self.block, block);
        self.cut_again(block);
    }

    /// Cuts what the current part plays from the last decoded block.
    pub(super) fn cut_again(&mut self, out: &mut Planar) {
        out.reset(self.block.channels());
        let (from, to) = (self.block_at, self.block_at + self.block.samples() as u64);
        let Some(Part::Media { start, samples }) = self.parts.front_mut() else { return };
        let first = (*start).clamp(from, to);
        let last = samples.map_or(to, |samples| start.saturating_add(samples).clamp(first, to));
        out.append_range(&self.block, (first - from) as usize..(last - from) as usize);
        if last > first {
            *start = last;
            if let Some(samples) = samples {
                *samples -= last - first;
            }
        }
    }
}

/// An edit in samples. An edit that reaches to the end of the media, as exactly as the clock of the movie can state it, plays
/// all of it: packet durations are exact, while the clock of the movie often counts milliseconds.
fn part(edit: &Edit, rate: u64, movie_scale: u64, media_scale: u64, media: Option<u64>) -> Option<Part> {
    let to_samples = |ticks: u64, scale: u64| {
        let scale = u128::from(scale.max(1));
        u64::try_from((u128::from(ticks) * u128::from(rate) + scale / 2) / scale).ok()
    };
    let length = to_samples(edit.duration, movie_scale)?;
    let Some(start) = edit.start else {
        return (length <= MAX_SILENCE_SECONDS * rate).then_some(Part::Silence(length));
    };
    let start = to_samples(start, media_scale)?;
    let rest = media.map(|media| media.saturating_sub(start));
    let tolerance = rate.div_ceil(movie_scale.max(1));
    let samples = match rest {
        _ if edit.duration == 0 => rest,
        Some(rest) if length + tolerance >= rest => Some(rest),
        _ => Some(length),
    };
    Some(Part::Media { start, samples })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a track whose samples are their own positions, decoded in blocks of 100.
    fn play(edits: &[(u64, Option<u64>)], media: usize) -> Vec<f32> {
        let edits = edits.iter().map(|&(duration, start)| Edit { duration, start }).collect();
        let playback = Playback::Edits { edits, movie_scale: 1000, media_scale: 1000 };
        let mut timeline = Timeline::new(&playback, 1000, Some(media as u64)).unwrap();
        let total = timeline.total().unwrap();
        let (mut played, mut at) = (Vec::new(), 0);
        loop {
            let mut block = Planar::new(1);
            match timeline.next_step() {
                Step::End => break,
                Step::Silence(samples) => played.extend(vec![-1.0; samples as usize]),
                Step::Seek(to) => {
                    at = to as usize / 100 * 100;
                    timeline.seeked(at as u64);
                }
                Step::CutAgain => timeline.cut_again(&mut block),
                Step::Decode => {
                    let end = (at + 100).min(media);
                    block = Planar::from_equal(vec![(at..end).map(|x| x as f32).collect()]);
                    at = end;
                    timeline.cut_next(&mut block);
                }
            }
            if block.channels() > 0 {
                played.extend(block.channel(0));
            }
        }
        assert_eq!(played.len() as u64, total);
        played
    }

    #[test]
    fn parts_are_played_in_the_order_of_the_list() {
        let range = |from: usize, to: usize| (from..to).map(|x| x as f32).collect::<Vec<_>>();
        let silence = |samples| vec![-1.0; samples];
        for (edits, expected) in [
            (&[(0, Some(21))][..], range(21, 1000)),
            (&[(979, Some(21))], range(21, 1000)),
            (&[(300, Some(100))], range(100, 400)),
            (&[(250, Some(10)), (100, Some(700))], [range(10, 260), range(700, 800)].concat()),
            (&[(30, Some(10)), (20, Some(50))], [range(10, 40), range(50, 70)].concat()),
            (&[(500, None), (200, Some(0))], [silence(500), range(0, 200)].concat()),
            (
                &[(100, Some(0)), (50, None), (100, Some(120))],
                [range(0, 100), silence(50), range(120, 220)].concat(),
            ),
            (&[(100, Some(500)), (250, Some(20))], [range(500, 600), range(20, 270)].concat()),
            (&[(40, Some(10)), (40, Some(10))], [range(10, 50), range(10, 50)].concat()),
        ] {
            assert_eq!(play(edits, 1000), expected, "{edits:?}");
        }
    }
}
