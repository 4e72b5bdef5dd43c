//! Stems at the model's rate: final samples, and the provisional ones that the next hop replaces.

/// Weight of the newer of two estimates at sample `i` of a fade of `fade` samples.
pub(in crate::live) fn fade_in(i: usize, fade: usize) -> f32 {
    (i + 1) as f32 / (fade + 1) as f32
}

/// Interpolates between two estimates.
pub(in crate::live) fn mix(old: f32, new: f32, weight: f32) -> f32 {
    old + (new - old) * weight
}

/// Samples of each stem channel in use, from position `first` on, crossfaded from window to window. All have the same length.
pub(super) struct StemOverlapBuffer {
    /// [stems × channels]; none for a stem channel that no model has used.
    stems: Vec<Option<Vec<f32>>>,
    length: usize,
    /// Position of the oldest sample, from the start of the segment.
    first: i64,
    /// Position up to which a window has provided an estimate.
    known: i64,
    fade: usize,
}

impl StemOverlapBuffer {
    pub(super) fn new(channels: usize, fade: usize) -> Self {
        Self { stems: vec![None; channels], length: 0, first: 0, known: 0, fade }
    }

    /// Starts a segment, preceded by `context` zeros.
    pub(super) fn restart(&mut self, context: usize) {
        for samples in self.stems.iter_mut().flatten() {
            samples.clear();
            samples.resize(context, 0.0);
        }
        self.length = context;
        self.first = -(context as i64);
        self.known = 0;
    }

    /// Takes a stem channel into use; silent so far.
    pub(super) fn activate(&mut self, stem_channel: usize) {
        if let Some(stem) = self.stems.get_mut(stem_channel) {
            stem.get_or_insert_with(|| vec![0.0; self.length]);
        }
    }

    pub(super) fn first(&self) -> i64 {
        self.first
    }

    /// Position up to which a window has provided an estimate.
    pub(super) fn known(&self) -> i64 {
        self.known
    }

    pub(super) fn samples(&self, stem_channel: usize) -> &[f32] {
        self.stems.get(stem_channel).and_then(Option::as_deref).unwrap_or(&[])
    }

    /// Replaces all stem channels in use from position `from` on, up to `end`, by an estimate. It is faded in over
    /// an older one if `fade_in_over_old`.
    /// `estimate_of` fills the samples of a stem channel, or returns false if it is silent.
    pub(super) fn replace(
        &mut self,
        from: i64,
        end: i64,
        fade_in_over_old: bool,
        scratch: &mut Vec<f32>,
        mut estimate_of: impl FnMut(usize, &mut [f32]) -> bool,
    ) {
        let overlap = fade_in_over_old && self.known > 0 && self.known >= from + self.fade as i64;
        let from = from.max(self.first);
        let target = usize::try_from(from - self.first).unwrap_or(0);
        let count = usize::try_from(end - from).unwrap_or(0);
        scratch.resize(count, 0.0);
        for (stem_channel, samples) in self.stems.iter_mut().enumerate() {
            let Some(samples) = samples else { continue };
            if !estimate_of(stem_channel, scratch) {
                scratch.fill(0.0);
            }
            samples.resize(target + count, 0.0);
            let fade = if overlap { self.fade.min(count) } else { 0 };
            for (i, (x, new)) in samples[target..].iter_mut().zip(&*scratch).enumerate() {
                *x = if i < fade { mix(*x, *new, fade_in(i, self.fade)) } else { *new };
            }
        }
        self.length = target + count;
        self.known = end;
    }

    /// Extends all stem channels to `end` with zeros, where no window was run.
    pub(super) fn extend(&mut self, end: i64) {
        self.length = self.length.max(usize::try_from(end - self.first).unwrap_or(0));
        for samples in self.stems.iter_mut().flatten() {
            samples.resize(self.length, 0.0);
        }
    }

    /// Drops all samples before `position`.
    pub(super) fn forget(&mut self, position: i64) {
        let count = usize::try_from(position - self.first).unwrap_or(0).min(self.length);
        for samples in self.stems.iter_mut().flatten() {
            samples.drain(..count);
        }
        self.length -= count;
        self.first += count as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stem_channel_that_is_taken_into_use_late_is_silent_before() {
        let mut buffer = StemOverlapBuffer::new(3, 4);
        buffer.restart(2);
        buffer.activate(1);
        let mut scratch = Vec::new();
        let ones = |_: usize, out: &mut [f32]| {
            out.fill(1.0);
            true
        };
        buffer.replace(0, 10, true, &mut scratch, ones);
        buffer.activate(2);
        assert_eq!((buffer.samples(0), buffer.samples(2).len()), (&[][..], 12));
        buffer.forget(6);
        buffer.replace(6, 14, true, &mut scratch, |stem_channel, out| {
            stem_channel == 2 && ones(stem_channel, out)
        });
        let [old, new] = [1, 2].map(|stem_channel| buffer.samples(stem_channel).to_vec());
        let expected = [0.8, 0.6, 0.4, 0.2, 0.0, 0.0, 0.0, 0.0];
        assert!(old.iter().zip(expected).all(|(x, y): (&f32, f32)| (x - y).abs() < 1e-6), "{old:?}");
        assert!(old.iter().zip(&new).all(|(old, new)| (old + new - 1.0).abs() < 1e-6));
        assert_eq!((buffer.first(), buffer.known()), (6, 14));
    }
}
