//! Brings blocks of a stream that changes channels or sample rate on the way to one format.

use super::{AudioError, Planar};
use crate::audio::Resampler;

/// Converts blocks to a fixed number of channels and a fixed rate.
pub(super) struct Conformer {
    channels: usize,
    sample_rate: u32,
    /// Blocks of another rate that follow each other share a resampler.
    resampler: Option<(u32, Resampler)>,
}

impl Conformer {
    pub(super) fn new(channels: usize, sample_rate: u32) -> Self {
        Self { channels, sample_rate, resampler: None }
    }

    /// Appends `block` of `sample_rate` Hz to `out`, which has the channels of the stream.
    pub(super) fn conform(
        &mut self,
        block: Planar,
        sample_rate: u32,
        out: &mut Planar,
    ) -> Result<(), AudioError> {
        let block = with_channels(block, self.channels);
        if self.resampler.as_ref().is_some_and(|(rate, _)| *rate != sample_rate) {
            self.flush(out)?;
        }
        if sample_rate == self.sample_rate {
            out.append(&block);
            return Ok(());
        }
        let (_, resampler) = match &mut self.resampler {
            Some(resampler) => resampler,
            none => none.insert((sample_rate, Resampler::new(sample_rate, self.sample_rate, self.channels)?)),
        };
        resampler.push(&block, out)
    }

    /// Appends what a resampler still holds to `out`.
    pub(super) fn flush(&mut self, out: &mut Planar) -> Result<(), AudioError> {
        match self.resampler.take() {
            Some((_, mut resampler)) => resampler.finish(out),
            None => Ok(()),
        }
    }
}

/// The block with another number of channels: mono goes to the front channels, and to mono goes the mean. Otherwise
/// channels are left out or silent.
fn with_channels(block: Planar, channels: usize) -> Planar {
    let samples = block.samples();
    match (block.channels(), channels) {
        (same, wanted) if same == wanted => block,
        (0, _) => Planar::zeros(channels, samples),
        (1, _) => {
            let mono = block.into_planes().swap_remove(0);
            Planar::from_equal(
                (0..channels).map(|c| if c < 2 { mono.clone() } else { vec![0.0; samples] }).collect(),
            )
        }
        (count, 1) => {
            let share = 1.0 / count as f32;
            let mean = |i: usize| block.iter().map(|channel| channel[i]).sum::<f32>() * share;
            Planar::from_equal(vec![(0..samples).map(mean).collect()])
        }
        _ => {
            let mut planes = block.into_planes();
            planes.resize(channels, vec![0.0; samples]);
            Planar::from_equal(planes)
        }
    }
}
