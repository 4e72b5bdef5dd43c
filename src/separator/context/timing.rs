//! Which frames and samples of a stream are where: pure arithmetic on absolute numbers.

use super::ContextPlan;
use crate::dsp::stft::StftConfig;

/// Frames and samples of a stream at the model's rate, both counted from its start.
///
/// Frame `f` is centred on sample `f · hop_length`. It reads the `win_length` samples around its centre, and writes to the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTiming {
    config: StftConfig,
}

impl FrameTiming {
    /// Of streams of a model with this transform.
    pub const fn new(config: StftConfig) -> Self {
        Self { config }
    }

    /// Of a transform of `n_fft` samples every `hop_length`, with windows of `win_length` samples, at most `n_fft`.
    pub const fn of_lengths(n_fft: usize, hop_length: usize, win_length: usize) -> Self {
        Self::new(StftConfig { n_fft, hop_length, win_length, normalized: false })
    }

    /// Samples of the Fourier transform.
    pub const fn n_fft(&self) -> usize {
        self.config.n_fft
    }

    /// Samples of the analysis window.
    pub const fn win_length(&self) -> usize {
        self.config.win_length
    }

    /// Samples between two frames.
    pub const fn hop_length(&self) -> usize {
        self.config.hop_length
    }

    /// Samples before its centre that a frame reaches.
    pub const fn reach_before(&self) -> u64 {
        let StftConfig { n_fft, win_length, .. } = self.config;
        (n_fft / 2 - (n_fft - win_length) / 2) as u64
    }

    /// Samples from its centre on that a frame reaches. The first frame mirrors what it lacks before the start, and may need a
    /// sample more for that.
    pub const fn reach_after(&self) -> u64 {
        let before = self.reach_before();
        let after = self.config.win_length as u64 - before;
        if after > before { after } else { before }
    }

    /// Frames that are complete once samples `0..samples` are there.
    pub const fn complete_frames(&self, samples: u64) -> u64 {
        match samples.checked_sub(self.reach_after()) {
            Some(beyond) => 1 + beyond / self.config.hop_length as u64,
            None => 0,
        }
    }

    /// Samples that must be there for frames `0..frames` to be complete.
    pub const fn samples_for(&self, frames: u64) -> u64 {
        if frames == 0 { 0 } else { (frames - 1) * self.config.hop_length as u64 + self.reach_after() }
    }

    /// Once frames `0..frames` are final, samples `0..n` are: no later frame reaches them.
    pub const fn final_samples(&self, frames: u64) -> u64 {
        (frames * self.config.hop_length as u64).saturating_sub(self.reach_before())
    }

    /// Frames of a stream that ended after `samples`: those of the transform of all of it.
    pub const fn total_frames(&self, samples: u64) -> u64 {
        if samples == 0 {
            return 0;
        }
        1 + samples.saturating_sub(self.config.n_fft as u64 % 2) / self.config.hop_length as u64
    }
}

impl ContextPlan {
    /// How long a sample waits for the input of the hop that makes it final, at most, in samples at the model's rate.
    ///
    /// Hop k makes frames up to k·H final, and with them the samples before `k·H·hop_length − win_length/2`.
    /// The first sample that it does not reach waits for hop k + 1, which needs `((k+1)·H + A − 1)·hop_length + win_length/2` samples.
    /// The difference is `(H + A − 1)·hop_length + win_length`, whatever k is.
    pub const fn latency_samples(&self, timing: &FrameTiming) -> u64 {
        let frames = (self.hop_frames + self.lookahead_frames) as u64;
        frames.saturating_sub(1) * timing.hop_length() as u64 + timing.reach_after() + timing.reach_before()
    }

    /// Samples that must be there for hop number `hop` (the first is 1), if each makes `hop_frames` frames final.
    pub const fn samples_for_hop(&self, timing: &FrameTiming, hop: u64) -> u64 {
        timing.samples_for(hop * self.hop_frames as u64 + self.lookahead_frames as u64)
    }

    /// Provisional samples that follow the final ones of a hop: up to the centre of the last frame that is looked at, beyond which the
    /// frames' own fades leave little to go by.
    pub const fn provisional_samples(&self, timing: &FrameTiming) -> u64 {
        let ahead = self.lookahead_frames as u64 * timing.hop_length() as u64 + timing.reach_before();
        ahead.saturating_sub(timing.hop_length() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings() -> impl Iterator<Item = FrameTiming> {
        [(2048, 1024, 2048), (2048, 441, 2048), (64, 16, 33), (255, 60, 255), (25, 10, 25), (256, 64, 200)]
            .into_iter()
            .map(|(n_fft, hop_length, win_length)| {
                FrameTiming::new(StftConfig { n_fft, hop_length, win_length, normalized: false })
            })
    }

    #[test]
    fn samples_for_a_frame_are_the_fewest_that_complete_it() {
        for timing in timings() {
            for frames in 1..50 {
                let samples = timing.samples_for(frames);
                assert_eq!(timing.complete_frames(samples), frames, "{timing:?}");
                assert_eq!(timing.complete_frames(samples - 1), frames - 1, "{timing:?}");
            }
        }
    }

    #[test]
    fn a_stream_has_the_frames_of_its_transform_and_none_is_complete_before_its_end() {
        for timing in timings() {
            for samples in 1..500 {
                assert_eq!(timing.total_frames(samples), timing.config.frames(samples as usize) as u64);
                assert!(timing.complete_frames(samples) <= timing.total_frames(samples), "{timing:?}");
            }
            assert_eq!(timing.total_frames(0), 0);
        }
    }

    #[test]
    fn no_sample_waits_longer_than_the_latency_and_one_waits_as_long() {
        for timing in timings() {
            for (hop_frames, lookahead_frames) in [(1, 0), (1, 2), (4, 4), (3, 0)] {
                let plan = ContextPlan { hop_frames, lookahead_frames, ..ContextPlan::default() };
                let waits = (10..20).map(|hop| {
                    let first = timing.final_samples((hop - 1) * hop_frames as u64);
                    plan.samples_for_hop(&timing, hop) - first
                });
                assert!(
                    waits.clone().all(|wait| wait == plan.latency_samples(&timing)),
                    "{timing:?} {plan:?}"
                );
            }
        }
    }
}
