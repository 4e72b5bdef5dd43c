//! The block of samples that every part of the audio layer passes on.

use std::ops::Range;

/// Planar samples: one `Vec` a channel, all of one length. `[channels][samples]`.
///
/// Cleared and filled again for every block, so that a stream allocates only while its largest block grows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Planar {
    planes: Vec<Vec<f32>>,
}

impl Planar {
    /// An empty block of `channels` channels.
    pub fn new(channels: usize) -> Self {
        Self { planes: vec![Vec::new(); channels] }
    }

    /// A block of `samples` zeros per channel.
    pub fn zeros(channels: usize, samples: usize) -> Self {
        Self { planes: vec![vec![0.0; samples]; channels] }
    }

    /// Takes planes as they are, or `None` when their lengths differ.
    pub fn from_planes(planes: Vec<Vec<f32>>) -> Option<Self> {
        let samples = planes.first().map_or(0, Vec::len);
        planes.iter().all(|plane| plane.len() == samples).then_some(Self { planes })
    }

    /// Takes planes that a caller has made of one length. Panics when they differ: to go on would lose samples without a word.
    pub fn from_equal(planes: Vec<Vec<f32>>) -> Self {
        let block = Self { planes };
        let samples = block.samples();
        assert!(block.planes.iter().all(|plane| plane.len() == samples), "planes of different lengths");
        block
    }

    /// The planes themselves, `[channels][samples]`.
    pub fn into_planes(self) -> Vec<Vec<f32>> {
        self.planes
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.planes.len()
    }

    /// Samples per channel.
    pub fn samples(&self) -> usize {
        self.planes.first().map_or(0, Vec::len)
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.samples() == 0
    }

    /// All planes, `[channels][samples]`.
    pub fn planes(&self) -> &[Vec<f32>] {
        &self.planes
    }

    /// One channel. Panics, as a slice does, when it does not exist.
    pub fn channel(&self, channel: usize) -> &[f32] {
        &self.planes[channel]
    }

    /// One channel to write in. Its length stays. Panics, as a slice does, when it does not exist.
    pub fn channel_mut(&mut self, channel: usize) -> &mut [f32] {
        &mut self.planes[channel]
    }

    /// The channels in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.planes.iter().map(Vec::as_slice)
    }

    /// The channels in order, to write in.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [f32]> {
        self.planes.iter_mut().map(Vec::as_mut_slice)
    }

    /// Drops the samples, keeps the channels and their memory.
    pub fn clear(&mut self) {
        for plane in &mut self.planes {
            plane.clear();
        }
    }

    /// Empties the block and gives it `channels` channels, reusing the memory of those it has.
    pub fn reset(&mut self, channels: usize) {
        self.planes.resize_with(channels, Vec::new);
        self.clear();
    }

    /// Room for `additional` more samples per channel without reallocation.
    pub fn reserve(&mut self, additional: usize) {
        for plane in &mut self.planes {
            plane.reserve(additional);
        }
    }

    /// Cuts or zero-pads to `samples` per channel.
    pub fn resize(&mut self, samples: usize) {
        for plane in &mut self.planes {
            plane.resize(samples, 0.0);
        }
    }

    /// Keeps the first `samples` per channel.
    pub fn truncate(&mut self, samples: usize) {
        for plane in &mut self.planes {
            plane.truncate(samples);
        }
    }

    /// Removes the first `samples` per channel (all, when there are fewer).
    pub fn drop_front(&mut self, samples: usize) {
        for plane in &mut self.planes {
            plane.drain(..samples.min(plane.len()));
        }
    }

    /// Appends another block. Panics when the numbers of channels differ.
    pub fn append(&mut self, other: &Planar) {
        self.append_range(other, 0..other.samples());
    }

    /// Appends a range of samples of another block. Panics when the numbers of channels differ or the range
    /// reaches past the block.
    pub fn append_range(&mut self, other: &Planar, range: Range<usize>) {
        assert_eq!(self.channels(), other.channels(), "blocks of different channel counts");
        for (plane, from) in self.planes.iter_mut().zip(&other.planes) {
            plane.extend_from_slice(&from[range.clone()]);
        }
    }

    /// Appends `samples` zeros per channel.
    pub fn append_silence(&mut self, samples: usize) {
        self.resize(self.samples() + samples);
    }

    /// Appends the sample frames of one interleaved slice; a last incomplete frame is dropped.
    pub fn append_interleaved(&mut self, interleaved: &[f32]) {
        let channels = self.channels();
        if channels == 0 {
            return;
        }
        for (channel, plane) in self.planes.iter_mut().enumerate() {
            plane.extend(interleaved.chunks_exact(channels).map(|frame| frame[channel]));
        }
    }

    /// A copy of a range of samples. Panics when the range reaches past the block.
    pub fn slice(&self, range: Range<usize>) -> Planar {
        Self { planes: self.planes.iter().map(|plane| plane[range.clone()].to_vec()).collect() }
    }

    /// Appends to one plane while a block is assembled; the caller gives every plane the same length.
    pub(crate) fn planes_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.planes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_and_reset_keep_the_memory() {
        let mut block = Planar::zeros(2, 1000);
        let capacity = block.planes[0].capacity();
        block.clear();
        assert!(block.is_empty() && block.channels() == 2);
        block.reset(2);
        assert_eq!(block.planes[0].capacity(), capacity);
        block.reset(3);
        assert_eq!((block.channels(), block.samples()), (3, 0));
    }

    #[test]
    fn append_slice_and_drop_front_agree_with_vectors() {
        let mut block = Planar::new(2);
        block.append_interleaved(&[1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 9.0]);
        assert_eq!(block.channel(0), [1.0, 2.0, 3.0]);
        assert_eq!(block.channel(1), [-1.0, -2.0, -3.0]);
        let copy = block.slice(1..3);
        block.append(&copy);
        assert_eq!(block.channel(1), [-1.0, -2.0, -3.0, -2.0, -3.0]);
        block.drop_front(4);
        assert_eq!(block.channel(0), [3.0]);
        block.drop_front(7);
        assert!(block.is_empty());
        block.append_silence(2);
        assert_eq!(block, Planar::zeros(2, 2));
    }

    #[test]
    fn planes_of_different_lengths_are_refused() {
        assert!(Planar::from_planes(vec![vec![0.0; 2], vec![0.0; 3]]).is_none());
        assert!(Planar::from_planes(Vec::new()).is_some_and(|p| p.samples() == 0));
    }
}
