//! The model's input: the last window of the stream at the model's rate.

use super::super::shared::Shared;
use super::super::sinc::Sinc;

/// The last W samples at the model's rate, updated from the input ring.
pub(super) struct InputWindow {
    down: Option<Sinc>,
    /// Reach of the filter on either side, in samples.
    reach: i64,
    ratio: (u64, u64),
    /// Input from position `first` on, per channel.
    host: Vec<Vec<f32>>,
    first: i64,
    /// [channels, window], flat.
    window: Vec<f32>,
    samples: usize,
    /// Position of the window's end, from the start of the segment, at the model's rate.
    end: i64,
}

impl InputWindow {
    /// `ratio`: reduced, host to model.
    pub(super) fn new(channels: usize, samples: usize, ratio: (u64, u64)) -> Self {
        let down = (ratio.0 != ratio.1).then(|| Sinc::new(ratio.0, ratio.1));
        let reach = if down.is_some() { Sinc::reach(ratio.0, ratio.1) as i64 } else { 0 };
        Self {
            down,
            reach,
            ratio,
            host: vec![Vec::new(); channels],
            first: 0,
            window: vec![0.0; channels * samples],
            samples,
            end: 0,
        }
    }

    /// Starts a segment, preceded by zeros.
    pub(super) fn restart(&mut self) {
        for samples in &mut self.host {
            samples.clear();
            samples.resize(self.reach as usize, 0.0);
        }
        self.first = -self.reach;
        self.window.fill(0.0);
        self.end = 0;
    }

    /// Starts a segment that begins with `history`, [channels][samples].
    pub(super) fn restart_with(&mut self, history: &[Vec<f32>]) {
        self.restart();
        for (samples, history) in self.host.iter_mut().zip(history) {
            samples.extend_from_slice(history);
        }
    }

    /// One channel of the window.
    pub(super) fn channel(&self, channel: usize) -> &[f32] {
        self.window.get(channel * self.samples..(channel + 1) * self.samples).unwrap_or(&[])
    }

    /// Position, from the start of the segment, of the first input sample not yet read.
    pub(super) fn taken(&self) -> u64 {
        (self.first + self.host.first().map_or(0, Vec::len) as i64).max(0) as u64
    }

    /// Position of the window's end.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Moves the window's end to `end`. The segment starts at position `start` of the ring. If `length` is given, zeros follow after that many
    /// samples. Returns false if the client has overwritten input that was needed.
    pub(super) fn advance(&mut self, end: i64, shared: &Shared, start: u64, length: Option<u64>) -> bool {
        let mut whole = true;
        while self.end < end {
            let count = ((end - self.end) as usize).min(self.samples);
            whole &= self.step(count, shared, start, length);
        }
        whole
    }

    fn step(&mut self, count: usize, shared: &Shared, start: u64, length: Option<u64>) -> bool {
        let last = self.end + count as i64 - 1;
        let needed = last * self.ratio.0 as i64 / self.ratio.1 as i64 + self.reach + 1;
        let held = self.first + self.host.first().map_or(0, Vec::len) as i64;
        let real = length.map_or(needed, |length| needed.min(length as i64));
        let mut whole = true;
        if needed > held {
            let from = start + held as u64;
            for (channel, samples) in self.host.iter_mut().enumerate() {
                let old = samples.len();
                samples.resize(old + (needed - held) as usize, 0.0);
                let new = &mut samples[old..];
                let real = usize::try_from(real - held).unwrap_or(0).min(new.len());
                shared.read_input(channel, from, &mut new[..real]);
                for x in new.iter_mut().filter(|x| !x.is_finite()) {
                    *x = 0.0;
                }
            }
            whole = real <= held || !shared.overrun(from);
        }
        let keep = self.samples - count;
        for (samples, window) in self.host.iter_mut().zip(self.window.chunks_exact_mut(self.samples)) {
            window.copy_within(count.., 0);
            let new = &mut window[keep..];
            match &self.down {
                Some(down) => down.resample(samples, self.first, self.end, new),
                None => {
                    let from = (self.end - self.first) as usize;
                    new.copy_from_slice(&samples[from..from + count]);
                }
            }
        }
        self.end += count as i64;
        let oldest = self.end * self.ratio.0 as i64 / self.ratio.1 as i64 - self.reach;
        let drop = usize::try_from(oldest - self.first).unwrap_or(0);
        for samples in &mut self.host {
            samples.drain(..drop.min(samples.len()));
        }
        self.first += drop as i64;
        whole
    }
}
