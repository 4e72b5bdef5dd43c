//! The audio thread's half of a stream.
//!
//! > output = input, delayed by L, + Σ (gainₙ − 1) · stemₙ
//!
//! At unity the sum is empty and the output is the delayed input, bit for bit, whatever the worker does: the stems take no part in it. Everything
//! on the audio thread is loads, stores and arithmetic over memory that was there before; the worker is never waited for, never woken, never locked out.

mod cover;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cover::{Cover, SOURCES, Weights};

use super::plan::{HostSamples, Plan};
use super::shared::{Ready, Shared};
use super::smooth::Ramp;
use super::status::{State, Status};

/// Samples handled at a time.
const CHUNK: usize = 256;
/// Time that a gain takes to arrive, in seconds.
const RAMP_SECONDS: f64 = 0.02;
/// Adding and subtracting it rounds an `f64` to multiples of 2⁻²³: 1.5 · 2⁵², in steps of the grid.
const TO_GRID: f64 = 1.5 * (1u64 << 52) as f64 / (1u64 << 23) as f64;

/// Where a stem's samples go.
pub trait StemOutputs {
    /// The whole block of a channel of a stem; none where nobody listens.
    fn plane(&mut self, stem: usize, channel: usize) -> Option<&mut [f32]>;
}

/// No outputs but the main one.
pub struct NoStems;

impl StemOutputs for NoStems {
    fn plane(&mut self, _stem: usize, _channel: usize) -> Option<&mut [f32]> {
        None
    }
}

/// Planes in a row, stem by stem: plane stem · channels + channel. There may be fewer than there are stems.
pub struct StemPlanes<'a, 'b> {
    /// The planes.
    pub planes: &'a mut [&'b mut [f32]],
    /// Channels of each stem.
    pub channels: usize,
}

impl StemOutputs for StemPlanes<'_, '_> {
    fn plane(&mut self, stem: usize, channel: usize) -> Option<&mut [f32]> {
        self.planes.get_mut(stem * self.channels + channel).map(|plane| &mut **plane)
    }
}

/// Why offline processing is not complete. The output is filled all the same, where stems are missing with the delayed input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    /// The worker is gone.
    #[error("the worker has stopped; open the stream again")]
    Stopped,
    /// The worker did nothing for as long as one was prepared to wait.
    #[error("the worker has not finished within {0:?}; it may be overloaded or stuck")]
    Timeout(Duration),
    /// The model fails.
    #[error("the model failed: {0}")]
    Model(String),
}

/// How a waiting client wakes the worker.
pub(super) type Waker = Box<dyn Fn() + Send>;

/// The audio thread's half of a stream: blocks of any size in, blocks of the same size out, L samples later.
pub struct Client {
    shared: Arc<Shared>,
    waker: Option<Waker>,
    latency: u64,
    max_block: usize,
    /// Position of the next input sample. Starts at L, so that positions of the output never are negative.
    written: u64,
    /// Position of the last reset; silence before it.
    origin: u64,
    cover: Cover,
    /// What the worker had made when it was last seen in one piece.
    ready: Ready,
    weights: Box<Weights>,
    /// [stems · channels].
    gains: Vec<Ramp>,
    wet: Ramp,
    carrier: Option<usize>,
    scratch: Box<Scratch>,
}

/// A chunk's worth of everything.
struct Scratch {
    dry: [f32; CHUNK],
    main: [f32; CHUNK],
    stem: [f32; CHUNK],
    source: [f32; CHUNK],
    wet: [f32; CHUNK],
    /// Sum of the stems but the carrier.
    others: [f64; CHUNK],
    /// Sum of all the stems as they stand on the buses at unity.
    sum: [f64; CHUNK],
}

impl Client {
    pub(super) fn new(plan: &Plan, shared: Arc<Shared>, waker: Option<Waker>) -> Self {
        let parts = plan.parts();
        let latency = plan.latency().0;
        let ramp = (RAMP_SECONDS * f64::from(plan.host_rate())) as u32;
        let fade = plan.fade().0 * u64::from(plan.host_rate()) / u64::from(plan.model_rate());
        Self {
            waker,
            latency,
            max_block: plan.max_block().len(),
            written: latency,
            origin: latency,
            cover: Cover::new(fade.min(parts.lookahead.0), parts.hop.0, parts.lookahead.0),
            ready: Ready { from: 0, until: 0, tail: None },
            weights: Box::new(Weights { of: [[0.0; CHUNK]; SOURCES], used: [false; SOURCES], whole: false }),
            gains: vec![Ramp::new(1.0, ramp); shared.stems * shared.channels],
            wet: Ramp::new(1.0, ramp),
            carrier: shared.stems.checked_sub(1),
            scratch: Box::new(Scratch {
                dry: [0.0; CHUNK],
                main: [0.0; CHUNK],
                stem: [0.0; CHUNK],
                source: [0.0; CHUNK],
                wet: [0.0; CHUNK],
                others: [0.0; CHUNK],
                sum: [0.0; CHUNK],
            }),
            shared,
        }
    }

    /// L. Never changes.
    ///
    /// Realtime-safe.
    pub fn latency(&self) -> HostSamples {
        HostSamples(self.latency)
    }

    /// Counters and meters.
    pub fn status(&self) -> &Status {
        &self.shared.status
    }

    /// Sets where a stem's gain in a channel goes. Solo, mute, pan and phase are gains. Values that are not finite are ignored.
    ///
    /// Realtime-safe.
    pub fn set_gain(&mut self, stem: usize, channel: usize, gain: f32) {
        if channel < self.shared.channels
            && let Some(ramp) = self.gains.get_mut(stem * self.shared.channels + channel)
        {
            ramp.set(gain);
        }
    }

    /// Sets where the share of the remix goes: 0 is the delayed input, as for a bypass, 1 the remix.
    ///
    /// Realtime-safe.
    pub fn set_wet(&mut self, wet: f32) {
        self.wet.set(wet);
    }

    /// Makes all gains arrive at once, for the beginning of a render.
    ///
    /// Realtime-safe.
    pub fn snap_gains(&mut self) {
        for ramp in &mut self.gains {
            ramp.snap();
        }
        self.wet.snap();
    }

    /// The stem that takes what the others leave of the input, so that the stems sum to it: on the grid of 2⁻²³ bit for bit, in any order. None:
    /// stems are what the model says.
    ///
    /// Realtime-safe.
    pub fn set_carrier(&mut self, carrier: Option<usize>) {
        self.carrier = carrier.filter(|stem| *stem < self.shared.stems);
    }

    /// Forgets everything: the output is silent until the input from now on arrives, the model sees zeros before it.
    ///
    /// Realtime-safe: marks a position.
    pub fn reset(&mut self) {
        self.origin = self.written;
        self.cover.restart();
        self.shared.mark_reset(self.written);
    }

    /// Says that the input jumps here, as at the end of a loop. What was put in before still comes out, with its stems; neither side is
    /// context for the other.
    ///
    /// Realtime-safe: marks a position.
    pub fn jump(&mut self) {
        self.shared.mark_jump(self.written);
    }

    /// Replaces a block of the input by the output. `main`: `[channels][samples]`, as many channels as the stream has. `stems` gets each
    /// stem after its gain, aligned with the output.
    ///
    /// Realtime-safe: no allocation, no lock, no system call, no wait, for blocks of any size.
    pub fn process(&mut self, main: &mut [&mut [f32]], stems: &mut dyn StemOutputs) {
        self.shared.set_blocking(false);
        let total = length(main);
        let mut at = 0;
        while at < total {
            let count = (total - at).min(self.max_block);
            self.take_in(main, at, count);
            self.give_out(main, stems, at, count);
            at += count;
        }
    }

    /// As [`process`](Self::process), but waits for the worker, so that no window is missing: for offline rendering. `patience` is how long
    /// the worker may do nothing.
    ///
    /// # Errors
    /// [`BlockingError`]. The block is processed all the same.
    pub fn process_blocking(
        &mut self,
        main: &mut [&mut [f32]],
        stems: &mut dyn StemOutputs,
        patience: Duration,
    ) -> Result<(), BlockingError> {
        self.shared.set_blocking(true);
        let total = length(main);
        let (mut at, mut outcome) = (0, Ok(()));
        while at < total {
            let count = (total - at).min(self.max_block);
            self.take_in(main, at, count);
            // Having given up once, it does not wait for every piece again.
            if outcome.is_ok() {
                outcome = self.wait(patience);
            }
            self.give_out(main, stems, at, count);
            at += count;
        }
        outcome
    }

    fn wait(&self, patience: Duration) -> Result<(), BlockingError> {
        let mut since = Instant::now();
        let mut windows = self.shared.status.windows();
        while !self.shared.has_seen(self.written) {
            if self.shared.is_closed() {
                return Err(BlockingError::Stopped);
            }
            if let Some(wake) = &self.waker {
                wake();
            }
            self.shared.wait(self.written, patience.min(Duration::from_millis(50)));
            let now = self.shared.status.windows();
            if now != windows {
                (since, windows) = (Instant::now(), now);
            } else if since.elapsed() >= patience && !self.shared.has_seen(self.written) {
                return Err(BlockingError::Timeout(patience));
            }
        }
        match self.shared.status.state() {
            State::Failing | State::Panicked => {
                Err(BlockingError::Model(self.shared.status.message().unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }

    /// Realtime-safe.
    fn take_in(&mut self, main: &[&mut [f32]], at: usize, count: usize) {
        self.shared.begin_input();
        for channel in 0..self.shared.channels {
            // A missing channel is like the last one there is.
            let plane = main.get(channel).or(main.last()).and_then(|plane| plane.get(at..at + count));
            self.shared.put_input(channel, self.written, plane.unwrap_or(&[]));
        }
        self.written += count as u64;
        self.shared.publish_input(self.written);
    }

    /// Realtime-safe.
    fn give_out(&mut self, main: &mut [&mut [f32]], stems: &mut dyn StemOutputs, at: usize, count: usize) {
        let first = self.written - count as u64 - self.latency;
        for plane in main.iter_mut().skip(self.shared.channels) {
            plane.get_mut(at..at + count).unwrap_or_default().fill(0.0);
        }
        let mut done = 0;
        while done < count {
            let n = (count - done).min(CHUNK);
            let position = first + done as u64;
            let ready = self.ready(position);
            let late = self.cover.fill(position, n, self.origin, ready, &mut self.weights);
            if matches!(self.shared.status.state(), State::Running | State::Failing) {
                self.shared.status.count_late(late);
            }
            for wet in self.scratch.wet.iter_mut().take(n) {
                *wet = self.wet.next();
            }
            for channel in 0..self.shared.channels {
                self.mix(channel, position, n, at + done, stems);
                if let Some(plane) = main.get_mut(channel).and_then(|plane| plane.get_mut(at + done..)) {
                    plane.iter_mut().zip(&self.scratch.main).take(n).for_each(|(y, x)| *y = *x);
                }
            }
            self.shared.status.scope().advance(n);
            done += n;
        }
    }

    /// What the worker has made, as far as it matters from `position` on. Realtime-safe.
    fn ready(&mut self, position: u64) -> Ready {
        self.ready = after(self.ready, self.shared.ready(), position);
        self.ready
    }

    /// Mixes `n` samples of a channel into `scratch.main`. Realtime-safe.
    fn mix(&mut self, channel: usize, position: u64, n: usize, at: usize, stems: &mut dyn StemOutputs) {
        self.read_dry(channel, position, n);
        let Scratch { dry, main, others, sum, .. } = &mut *self.scratch;
        *main = *dry;
        let peak = dry.iter().take(n).fold(0f32, |peak, x| peak.max(x.abs()));
        self.shared.status.scope().raise_input(peak);
        others.fill(0.0);
        sum.fill(0.0);
        for stem in 0..self.shared.stems {
            if Some(stem) == self.carrier {
                continue;
            }
            self.read_stem(stem * self.shared.channels + channel, position, n);
            let Scratch { stem: signal, others, .. } = &mut *self.scratch;
            if self.carrier.is_some() {
                for (x, others) in signal.iter_mut().zip(others) {
                    *x = ((f64::from(*x) + TO_GRID) - TO_GRID) as f32;
                    *others += f64::from(*x);
                }
            }
            self.add(stem, channel, n, at, stems);
        }
        if let Some(stem) = self.carrier {
            let Scratch { dry, stem: signal, others, .. } = &mut *self.scratch;
            for ((x, dry), others) in signal.iter_mut().zip(dry).zip(others) {
                *x = (f64::from(*dry) - *others) as f32;
            }
            self.add(stem, channel, n, at, stems);
        }
        let Scratch { dry, sum, .. } = &*self.scratch;
        let null =
            dry.iter().zip(sum).take(n).map(|(dry, sum)| (f64::from(*dry) - sum).abs()).fold(0.0, f64::max);
        self.shared.status.raise_null_peak(null as f32);
    }

    /// Fills `scratch.dry`: the delayed input, silence before the last reset. Realtime-safe.
    fn read_dry(&mut self, channel: usize, position: u64, n: usize) {
        let silent = usize::try_from(self.origin.saturating_sub(position)).unwrap_or(n).min(n);
        let (before, dry) = self.scratch.dry.split_at_mut(silent.min(CHUNK));
        before.fill(0.0);
        if let Some(dry) = dry.get_mut(..n - silent) {
            self.shared.own_input(channel, position + silent as u64, dry);
        }
    }

    /// Fills `scratch.stem` with what there is of a stem, weighted. Realtime-safe.
    fn read_stem(&mut self, lane: usize, position: u64, n: usize) {
        let Scratch { stem, source, .. } = &mut *self.scratch;
        let (Some(stem), Some(source)) = (stem.get_mut(..n), source.get_mut(..n)) else { return };
        if self.weights.whole {
            self.shared.read_final(lane, position, stem);
            return;
        }
        stem.fill(0.0);
        let used = self.weights.of.iter().zip(self.weights.used).enumerate().filter(|(_, (_, used))| *used);
        for (index, (weights, _)) in used {
            let held = match index.checked_sub(1) {
                None => {
                    self.shared.read_final(lane, position, source);
                    true
                }
                Some(parity) => {
                    self.shared.read_tail(parity, self.cover.tail_begin(parity), lane, position, source)
                }
            };
            if !held {
                continue;
            }
            for ((x, y), weight) in stem.iter_mut().zip(&*source).zip(weights) {
                // What has no weight may never have been written.
                if *weight != 0.0 {
                    *x += weight * y;
                }
            }
        }
    }

    /// Adds `scratch.stem` to main and bus with its gain. Realtime-safe.
    ///
    /// The carrier is the whole input where there are no stems. On its bus it is that; to the main mix it contributes no more than the model
    /// has a share in, so that a late window leaves the input alone there.
    fn add(&mut self, stem: usize, channel: usize, n: usize, at: usize, stems: &mut dyn StemOutputs) {
        let lane = stem * self.shared.channels + channel;
        let Some(ramp) = self.gains.get_mut(lane) else { return };
        let Scratch { dry, main, stem: signal, wet, others, sum, .. } = &mut *self.scratch;
        let partial = self.carrier == Some(stem) && !self.weights.whole;
        let resting = ramp.resting();
        let mut bus = stems.plane(stem, channel).and_then(|plane| plane.get_mut(at..at + n));
        let mut peak = 0f32;
        // Bounded by the arrays' length, so that no index needs a check.
        for i in 0..n.min(CHUNK) {
            let gain = resting.unwrap_or_else(|| ramp.next());
            let x = signal[i];
            sum[i] += f64::from(x);
            let share = if partial {
                let [whole, tail, other] = &self.weights.of;
                (f64::from(whole[i] + tail[i] + other[i]) * f64::from(dry[i]) - others[i]) as f32
            } else {
                x
            };
            let k = wet[i] * (gain - 1.0);
            // Adding 0 would turn −0 into 0, and 0 · ∞ is no number.
            if k != 0.0 && share != 0.0 {
                main[i] += k * share;
            }
            let y = gain * x;
            // A strip shows what it does, and without stems it does nothing.
            peak = peak.max((gain * share).abs());
            if let Some(bus) = bus.as_deref_mut().and_then(|bus| bus.get_mut(i)) {
                *bus = y;
            }
        }
        self.shared.status.raise_stem_peak(lane, peak);
        self.shared.status.scope().raise_stem(stem, peak);
    }
}

/// What holds at `position`, of what was there before and what the worker says now. Realtime-safe.
fn after(before: Ready, now: Ready, position: u64) -> Ready {
    // Past its end: the worker is about to publish a window after a gap.
    let torn = now.from > now.until;
    // It has done so early: what lies before the gap is played first.
    let early = now.from > before.until && position < before.until;
    if torn || early { before } else { now }
}

/// Samples of a block: of its shortest channel.
fn length(main: &[&mut [f32]]) -> usize {
    main.iter().map(|plane| plane.len()).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_before_a_gap_is_played_although_the_window_behind_it_is_there() {
        let ready = |from, until| Ready { from, until, tail: Some(0) };
        let before = ready(0, 100);
        assert_eq!(after(before, ready(0, 200), 50), ready(0, 200), "no gap");
        assert_eq!(after(before, ready(200, 300), 50), before, "a gap, not reached");
        assert_eq!(after(before, ready(200, 300), 100), ready(200, 300), "reached");
        assert_eq!(after(before, ready(200, 100), 100), before, "half published");
    }
}
