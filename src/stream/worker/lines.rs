//! Stems at the model's rate: what is final, and what the next window will replace.

/// Weight of the newer of two estimates at sample `i` of a fade of `fade` samples.
pub(in crate::stream) fn fade_in(i: usize, fade: usize) -> f32 {
    (i + 1) as f32 / (fade + 1) as f32
}

/// Between two estimates.
pub(in crate::stream) fn mix(old: f32, new: f32, weight: f32) -> f32 {
    old + (new - old) * weight
}

/// One line of samples a stem and channel, from position `first` on.
pub(super) struct Lines {
    lines: Vec<Vec<f32>>,
    /// Position of the oldest sample, from the start of the segment.
    first: i64,
    /// Position up to which a window has given an estimate.
    known: i64,
    fade: usize,
}

impl Lines {
    /// `capacity`: most samples that are held at a time.
    pub(super) fn new(lanes: usize, fade: usize, capacity: usize) -> Self {
        Self { lines: vec![Vec::with_capacity(capacity); lanes], first: 0, known: 0, fade }
    }

    /// Begins a segment: zeros before it.
    pub(super) fn restart(&mut self, context: usize) {
        for line in &mut self.lines {
            line.clear();
            line.resize(context, 0.0);
        }
        self.first = -(context as i64);
        self.known = 0;
    }

    pub(super) fn first(&self) -> i64 {
        self.first
    }

    pub(super) fn line(&self, lane: usize) -> &[f32] {
        self.lines.get(lane).map_or(&[], Vec::as_slice)
    }

    /// Whether a window whose region begins at `from` finds an older estimate to fade from.
    pub(super) fn overlaps(&self, from: i64) -> bool {
        self.known > 0 && self.known >= from + self.fade as i64
    }

    /// Replaces a lane from position `from` on by an estimate that ends at position `end`, faded in if `overlap`.
    pub(super) fn put(&mut self, lane: usize, from: i64, end: i64, estimate: &[f32], overlap: bool) {
        let begin = end - estimate.len() as i64;
        let from = from.max(begin).max(self.first);
        let (Some(line), Ok(source), Ok(target)) =
            (self.lines.get_mut(lane), usize::try_from(from - begin), usize::try_from(from - self.first))
        else {
            return;
        };
        let Some(estimate) = estimate.get(source..) else { return };
        line.resize(target + estimate.len(), 0.0);
        let fade = if overlap { self.fade.min(estimate.len()) } else { 0 };
        for (i, (x, new)) in line[target..].iter_mut().zip(estimate).enumerate() {
            *x = if i < fade { mix(*x, *new, fade_in(i, self.fade)) } else { *new };
        }
    }

    /// As [`put`](Self::put), of an estimate that is silent.
    pub(super) fn put_silence(&mut self, lane: usize, from: i64, end: i64, overlap: bool) {
        let from = from.max(self.first);
        let target = usize::try_from(from - self.first).unwrap_or(0);
        let Some(line) = self.lines.get_mut(lane) else { return };
        line.resize(target + usize::try_from(end - from).unwrap_or(0), 0.0);
        for (i, x) in line[target..].iter_mut().enumerate() {
            *x = if overlap && i < self.fade { mix(*x, 0.0, fade_in(i, self.fade)) } else { 0.0 };
        }
    }

    /// Says that all lanes are known up to `end`.
    pub(super) fn advance(&mut self, end: i64) {
        self.known = end;
    }

    /// Makes all lanes reach `end`, with zeros where no window was run.
    pub(super) fn extend(&mut self, end: i64) {
        let length = usize::try_from(end - self.first).unwrap_or(0);
        for line in &mut self.lines {
            if line.len() < length {
                line.resize(length, 0.0);
            }
        }
    }

    /// Forgets what lies before `position`.
    pub(super) fn forget(&mut self, position: i64) {
        let count = usize::try_from(position - self.first).unwrap_or(0);
        let count = self.lines.iter().map(Vec::len).min().unwrap_or(0).min(count);
        for line in &mut self.lines {
            line.drain(..count);
        }
        self.first += count as i64;
    }
}
