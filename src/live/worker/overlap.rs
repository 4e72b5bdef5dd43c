//! Stems at the model's rate: final samples, and the provisional ones that the next window replaces.

/// Weight of the newer of two estimates at sample `i` of a fade of `fade` samples.
pub(in crate::live) fn fade_in(i: usize, fade: usize) -> f32 {
    (i + 1) as f32 / (fade + 1) as f32
}

/// Interpolates between two estimates.
pub(in crate::live) fn mix(old: f32, new: f32, weight: f32) -> f32 {
    old + (new - old) * weight
}

/// Samples of each stem channel, from position `first` on, crossfaded from window to window.
pub(super) struct StemOverlapBuffer {
    stems: Vec<Vec<f32>>,
    /// Position of the oldest sample, from the start of the segment.
    first: i64,
    /// Position up to which a window has provided an estimate.
    known: i64,
    fade: usize,
}

impl StemOverlapBuffer {
    /// `capacity`: largest number of samples held at a time.
    pub(super) fn new(channels: usize, fade: usize, capacity: usize) -> Self {
        Self { stems: vec![Vec::with_capacity(capacity); channels], first: 0, known: 0, fade }
    }

    /// Starts a segment, preceded by zeros.
    pub(super) fn restart(&mut self, context: usize) {
        for samples in &mut self.stems {
            samples.clear();
            samples.resize(context, 0.0);
        }
        self.first = -(context as i64);
        self.known = 0;
    }

    pub(super) fn first(&self) -> i64 {
        self.first
    }

    pub(super) fn samples(&self, stem_channel: usize) -> &[f32] {
        self.stems.get(stem_channel).map_or(&[], Vec::as_slice)
    }

    /// Whether an older estimate exists to fade from, for a window whose region starts at `from`.
    pub(super) fn overlaps(&self, from: i64) -> bool {
        self.known > 0 && self.known >= from + self.fade as i64
    }

    /// Replaces a stem channel from position `from` on by an estimate that ends at position `end`, faded in if `overlap`.
    pub(super) fn write(
        &mut self,
        stem_channel: usize,
        from: i64,
        end: i64,
        estimate: &[f32],
        overlap: bool,
    ) {
        let begin = end - estimate.len() as i64;
        let from = from.max(begin).max(self.first);
        let (Some(samples), Ok(source), Ok(target)) = (
            self.stems.get_mut(stem_channel),
            usize::try_from(from - begin),
            usize::try_from(from - self.first),
        ) else {
            return;
        };
        let Some(estimate) = estimate.get(source..) else { return };
        samples.resize(target + estimate.len(), 0.0);
        let fade = if overlap { self.fade.min(estimate.len()) } else { 0 };
        for (i, (x, new)) in samples[target..].iter_mut().zip(estimate).enumerate() {
            *x = if i < fade { mix(*x, *new, fade_in(i, self.fade)) } else { *new };
        }
    }

    /// As [`write`](Self::write), for a silent estimate.
    pub(super) fn write_silence(&mut self, stem_channel: usize, from: i64, end: i64, overlap: bool) {
        let from = from.max(self.first);
        let target = usize::try_from(from - self.first).unwrap_or(0);
        let Some(samples) = self.stems.get_mut(stem_channel) else { return };
        samples.resize(target + usize::try_from(end - from).unwrap_or(0), 0.0);
        for (i, x) in samples[target..].iter_mut().enumerate() {
            *x = if overlap && i < self.fade { mix(*x, 0.0, fade_in(i, self.fade)) } else { 0.0 };
        }
    }

    /// Marks all stem channels as estimated up to `end`.
    pub(super) fn advance(&mut self, end: i64) {
        self.known = end;
    }

    /// Extends all stem channels to `end` with zeros, where no window was run.
    pub(super) fn extend(&mut self, end: i64) {
        let length = usize::try_from(end - self.first).unwrap_or(0);
        for samples in &mut self.stems {
            if samples.len() < length {
                samples.resize(length, 0.0);
            }
        }
    }

    /// Drops all samples before `position`.
    pub(super) fn forget(&mut self, position: i64) {
        let count = usize::try_from(position - self.first).unwrap_or(0);
        let count = self.stems.iter().map(Vec::len).min().unwrap_or(0).min(count);
        for samples in &mut self.stems {
            samples.drain(..count);
        }
        self.first += count as i64;
    }
}
