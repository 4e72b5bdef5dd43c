//! The audio thread's half of a stream.
//!
//! > output = input, delayed by L, + Σ (gainₙ − 1) · stemₙ
//!
//! At unity the sum is empty, and the output is the delayed input bit for bit, whatever the worker does. The audio thread only loads, stores
//! and computes in preallocated memory. It never waits for the worker, wakes it or locks anything.

mod concealer;
mod dry;
mod overlay;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use concealer::{DropoutConcealer, Provisional, Weights};
use overlay::Overlay;
pub use overlay::StemOverlay;

use super::plan::{HostSamples, Plan};
use super::shared::{Availability, Shared, SlotMask};
use super::smooth::Ramp;
use super::status::{State, Status};

/// Samples processed at a time.
const CHUNK: usize = 256;
/// Duration of a gain ramp in seconds.
const RAMP_SECONDS: f64 = 0.02;
/// Duration in seconds in which stems that replace the model's fade out when they come too late.
const OVERLAY_FADE_SECONDS: f64 = 0.01;
/// Adding and subtracting it rounds an `f64` to multiples of 2⁻²³: 1.5 · 2⁵², in steps of the grid.
const TO_GRID: f64 = 1.5 * (1u64 << 52) as f64 / (1u64 << 23) as f64;

/// The output planes of the stems.
pub trait StemOutputs {
    /// The whole block of one channel of a stem; none if that output is unused.
    fn plane(&mut self, stem: usize, channel: usize) -> Option<&mut [f32]>;
}

/// No stem outputs: only the main output is used.
pub struct NoStems;

impl StemOutputs for NoStems {
    fn plane(&mut self, _stem: usize, _channel: usize) -> Option<&mut [f32]> {
        None
    }
}

/// Planes of all stems: plane stem × channels + channel. There may be fewer planes than stems.
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

/// Why offline processing is incomplete. The output is filled nevertheless, with the delayed input where stems are missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    /// The worker has ended.
    #[error("the worker has stopped; open the stream again")]
    Stopped,
    /// The worker made no progress within the time limit.
    #[error("the worker made no progress within {0:?}; it may be overloaded or stuck")]
    Timeout(Duration),
    /// The model failed.
    #[error("the model failed: {0}")]
    Model(String),
}

/// The worker, as a client that waits sees it.
pub(super) struct WorkerHandle {
    /// Makes the worker look at its streams now.
    pub(super) wake: Box<dyn Fn() + Send>,
    /// Counts the layers that the worker has run, for any stream.
    pub(super) progress: Arc<AtomicU64>,
}

/// The audio thread's half of a stream: takes blocks of any size and replaces them by the output, L samples later.
pub struct Client {
    shared: Arc<Shared>,
    worker: Option<WorkerHandle>,
    latency: u64,
    max_block: usize,
    /// Position of the next input sample. Starts at L, so that output positions are never negative.
    written: u64,
    /// Position of the last reset; the input before it counts as silence.
    origin: u64,
    concealer: DropoutConcealer,
    /// The availability that applies to the position that is played, with the provisional stems behind it.
    available: (Availability, Option<Provisional>),
    weights: Box<Weights>,
    /// [stems · channels].
    gains: Vec<Ramp>,
    wet: Ramp,
    carrier: Option<usize>,
    overlay: Box<Overlay>,
    scratch: Box<Scratch>,
}

/// Working memory for one chunk.
struct Scratch {
    dry: [f32; CHUNK],
    main: [f32; CHUNK],
    stem: [f32; CHUNK],
    source: [f32; CHUNK],
    wet: [f32; CHUNK],
    /// Sum of all stems except the carrier.
    others: [f64; CHUNK],
    /// Sum of all stems as they are on the buses at unity.
    sum: [f64; CHUNK],
}

impl Client {
    pub(super) fn new(plan: &Plan, shared: Arc<Shared>, worker: Option<WorkerHandle>) -> Self {
        let parts = plan.parts();
        let latency = plan.latency().0;
        let ramp = (RAMP_SECONDS * f64::from(plan.host_rate())) as u32;
        let fade = plan.fade().0 * u64::from(plan.host_rate()) / u64::from(plan.model_rate());
        Self {
            worker,
            latency,
            max_block: plan.max_block().len(),
            written: latency,
            origin: latency,
            concealer: DropoutConcealer::new(fade.min(parts.lookahead.0).min(parts.hop.0), parts.hop.0),
            available: (Availability::default(), None),
            weights: Box::new(Weights::new()),
            gains: vec![Ramp::new(1.0, ramp); shared.stems * shared.channels],
            wet: Ramp::new(1.0, ramp),
            carrier: shared.stems.checked_sub(1),
            overlay: Overlay::new((OVERLAY_FADE_SECONDS * f64::from(plan.host_rate())) as u64),
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

    /// L. Constant.
    ///
    /// Realtime-safe.
    pub fn latency(&self) -> HostSamples {
        HostSamples(self.latency)
    }

    /// Counters and meters.
    pub fn status(&self) -> &Status {
        &self.shared.status
    }

    /// Sets the target gain of a stem in a channel. Solo, mute, pan and polarity are gains too. Values that are not finite are ignored.
    ///
    /// Realtime-safe.
    pub fn set_gain(&mut self, stem: usize, channel: usize, gain: f32) {
        if channel < self.shared.channels
            && let Some(ramp) = self.gains.get_mut(stem * self.shared.channels + channel)
        {
            ramp.set(gain);
        }
    }

    /// Sets the target share of the remix: 0 is the delayed input, as in bypass, 1 is the remix.
    ///
    /// Realtime-safe.
    pub fn set_wet(&mut self, wet: f32) {
        self.wet.set(wet);
    }

    /// Sets all gains to their targets at once, for the start of a render.
    ///
    /// Realtime-safe.
    pub fn snap_gains(&mut self) {
        for ramp in &mut self.gains {
            ramp.snap();
        }
        self.wet.snap();
    }

    /// Sets the stem that takes the remainder of the input, so that the stems sum to the input: bit for bit on the grid of 2⁻²³, in any order.
    /// With none, stems are the model's estimates.
    ///
    /// Realtime-safe.
    pub fn set_carrier(&mut self, carrier: Option<usize>) {
        self.carrier = carrier.filter(|stem| *stem < self.shared.stems);
    }

    /// Sets the stems that replace those of the model where they are there in time. Not for the audio thread.
    pub fn set_overlay(&mut self, source: Option<Arc<dyn StemOverlay>>) {
        self.overlay.set_source(source);
    }

    /// Tells which position of the overlay the next input sample has.
    ///
    /// Realtime-safe.
    pub fn align_overlay(&mut self, next: u64) {
        self.overlay.set_offset(next.wrapping_sub(self.written));
    }

    /// Discards all past input: the output is silent until new input arrives, and the model sees zeros before it.
    ///
    /// Realtime-safe: marks a position.
    pub fn reset(&mut self) {
        self.origin = self.written;
        self.concealer.restart();
        self.shared.mark_reset(self.written);
    }

    /// Takes over the past input of another client of the same host, when this one replaces it and before its first block. The output then continues
    /// with the input of L samples ago instead of silence, and the model has context from the start. Returns how many of these L samples
    /// the other client does not have: for so long the output is silent.
    ///
    /// Realtime-safe: copies up to L samples of each channel.
    pub fn carry_over(&mut self, old: &Self) -> u64 {
        if self.written != self.latency || self.shared.channels != old.shared.channels {
            return self.latency;
        }
        // Without the oldest block, which the old client may be overwriting in another call; and no older than its last reset.
        let kept = (old.shared.input_capacity() - old.max_block.min(old.shared.input_capacity())) as u64;
        let history = self.latency.min(kept).min(old.written - old.origin.min(old.written));
        self.shared.begin_input();
        for channel in 0..self.shared.channels {
            for done in (0..history).step_by(CHUNK) {
                let n = (history - done).min(CHUNK as u64) as usize;
                let Some(piece) = self.scratch.dry.get_mut(..n) else { continue };
                old.shared.read_own_input(channel, old.written - history + done, piece);
                self.shared.write_input(channel, self.written - history + done, piece);
            }
        }
        self.origin = self.written - history;
        self.shared.mark_reset(self.origin);
        self.shared.publish_input(self.written);
        self.latency - history
    }

    /// Marks a discontinuity of the input, as at the end of a loop. Earlier input is still output with its stems; neither side is context
    /// for the other.
    ///
    /// Realtime-safe: marks a position.
    pub fn jump(&mut self) {
        self.shared.mark_jump(self.written, 0);
    }

    /// Marks a jump back by `samples` in the music, as at the end of a loop: the input goes on with what came `samples` ago. A model that keeps
    /// context then hears again what came before that, so that the first bars of each pass have context.
    ///
    /// Realtime-safe: marks a position.
    pub fn jump_back(&mut self, samples: u64) {
        self.shared.mark_jump(self.written, samples);
    }

    /// Replaces a block of the input by the output. `main`: `[channels][samples]`, as many channels as the stream has. `stems` gets each
    /// stem after its gain, aligned with the output.
    ///
    /// Realtime-safe: it does not allocate, lock, wait or make system calls, for blocks of any size.
    pub fn process(&mut self, main: &mut [&mut [f32]], stems: &mut dyn StemOutputs) {
        self.shared.set_blocking(false);
        let total = length(main);
        let mut at = 0;
        while at < total {
            let count = (total - at).min(self.max_block);
            self.write_input(main, at, count);
            self.write_output(main, stems, at, count);
            at += count;
        }
    }

    /// As [`process`](Self::process), but waits for the worker, so that no window is missing: for offline rendering. `patience` is the longest
    /// time without progress of the worker.
    ///
    /// # Errors
    /// [`BlockingError`]. The block is processed nevertheless.
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
            self.write_input(main, at, count);
            // After a timeout the remaining pieces of the block do not wait again.
            if outcome.is_ok() {
                outcome = self.wait(patience);
            }
            self.write_output(main, stems, at, count);
            at += count;
        }
        outcome
    }

    fn wait(&self, patience: Duration) -> Result<(), BlockingError> {
        // Any work of the worker counts: it may be busy with the other tracks of the same render.
        let progress = || {
            let layers = self.worker.as_ref().map_or(0, |worker| worker.progress.load(Relaxed));
            (layers, self.shared.status.windows())
        };
        let (mut since, mut before) = (Instant::now(), progress());
        while !self.shared.has_seen(self.written) {
            if self.shared.is_closed() {
                return Err(BlockingError::Stopped);
            }
            if let Some(worker) = &self.worker {
                (worker.wake)();
            }
            self.shared.wait(self.written, patience.min(Duration::from_millis(50)));
            let now = progress();
            if now != before {
                (since, before) = (Instant::now(), now);
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
    fn write_input(&mut self, main: &[&mut [f32]], at: usize, count: usize) {
        self.shared.begin_input();
        for channel in 0..self.shared.channels {
            // A missing channel is a copy of the last one.
            let plane = main.get(channel).or(main.last()).and_then(|plane| plane.get(at..at + count));
            self.shared.write_input(channel, self.written, plane.unwrap_or(&[]));
        }
        self.written += count as u64;
        self.shared.publish_input(self.written);
    }

    /// Realtime-safe.
    fn write_output(
        &mut self,
        main: &mut [&mut [f32]],
        stems: &mut dyn StemOutputs,
        at: usize,
        count: usize,
    ) {
        let first = self.written - count as u64 - self.latency;
        for plane in main.iter_mut().skip(self.shared.channels) {
            plane.get_mut(at..at + count).unwrap_or_default().fill(0.0);
        }
        let mut done = 0;
        while done < count {
            let n = (count - done).min(CHUNK);
            let position = first + done as u64;
            self.update_available(position);
            let late = self.concealer.fill(position, n, self.origin, self.available, &mut self.weights);
            self.overlay.begin(position, n);
            let late = if self.overlay.covers_all() { 0 } else { late };
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

    /// Reads which stems are available from `position` on, and holds the slots that the next chunk may read. Realtime-safe.
    fn update_available(&mut self, position: u64) {
        let bit = |slot: Option<usize>| slot.map_or(0, |slot| 1 << slot);
        let held: SlotMask = self.concealer.slots() | bit(self.available.0.slot);
        // The worker may publish several hops while this looks; then the newest one is taken, or the old one stays for a chunk.
        for _ in 0..3 {
            let now = merge_availability(self.available.0, self.shared.available(), position);
            if now == self.available.0 {
                break;
            }
            let Some(slot) = now.slot else {
                self.available = (now, None);
                break;
            };
            if let Some(end) = self.shared.provisional.hold_slot(held, slot, now.until) {
                self.available = (now, Some(Provisional { slot, begin: now.until, end }));
                break;
            }
        }
        self.shared.provisional.hold(self.concealer.slots() | bit(self.available.0.slot));
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
            self.overlay.mix(stem, channel, signal.get_mut(..n).unwrap_or_default());
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

    /// Fills `scratch.dry` with the delayed input, and silence before the last reset. Realtime-safe.
    fn read_dry(&mut self, channel: usize, position: u64, n: usize) {
        let silent = usize::try_from(self.origin.saturating_sub(position)).unwrap_or(n).min(n);
        let (before, dry) = self.scratch.dry.split_at_mut(silent.min(CHUNK));
        before.fill(0.0);
        if let Some(dry) = dry.get_mut(..n - silent) {
            self.shared.read_own_input(channel, position + silent as u64, dry);
        }
    }

    /// Fills `scratch.stem` with the weighted sum of a stem's sources. Realtime-safe.
    fn read_stem(&mut self, stem_channel: usize, position: u64, n: usize) {
        let Scratch { stem, source, .. } = &mut *self.scratch;
        let (Some(stem), Some(source)) = (stem.get_mut(..n), source.get_mut(..n)) else { return };
        if self.weights.all_final {
            self.shared.read_final(stem_channel, position, stem);
            return;
        }
        stem.fill(0.0);
        let used = self.weights.of.iter().zip(self.weights.used).enumerate().filter(|(_, (_, used))| *used);
        for (index, (weights, _)) in used {
            match index.checked_sub(1) {
                None => self.shared.read_final(stem_channel, position, source),
                Some(slot) => self.shared.provisional.read(slot, stem_channel, position, source),
            }
            for ((x, y), weight) in stem.iter_mut().zip(&*source).zip(weights) {
                // Samples without weight may never have been written.
                if *weight != 0.0 {
                    *x += weight * y;
                }
            }
        }
    }

    /// Adds `scratch.stem` to main and bus with its gain. Realtime-safe.
    ///
    /// Where stems are missing, the carrier's bus holds the whole input. To the main mix the carrier contributes only the part that the model
    /// estimated, so that a late window leaves the input unchanged there.
    fn add(&mut self, stem: usize, channel: usize, n: usize, at: usize, stems: &mut dyn StemOutputs) {
        let stem_channel = stem * self.shared.channels + channel;
        let Some(ramp) = self.gains.get_mut(stem_channel) else { return };
        let Scratch { dry, main, stem: signal, wet, others, sum, .. } = &mut *self.scratch;
        let partial = self.carrier == Some(stem) && !self.weights.all_final;
        let resting = ramp.resting();
        let mut bus = stems.plane(stem, channel).and_then(|plane| plane.get_mut(at..at + n));
        let mut peak = 0f32;
        // Bounded by the arrays' length, so that no index needs a check.
        for i in 0..n.min(CHUNK) {
            let gain = resting.unwrap_or_else(|| ramp.next());
            let x = signal[i];
            sum[i] += f64::from(x);
            let share = if partial {
                (f64::from(self.overlay.total_share(i, self.weights.sum[i])) * f64::from(dry[i]) - others[i])
                    as f32
            } else {
                x
            };
            let k = wet[i] * (gain - 1.0);
            // Adding 0 would turn −0 into 0, and 0 × ∞ is not a number.
            if k != 0.0 && share != 0.0 {
                main[i] += k * share;
            }
            let y = gain * x;
            // The meter shows the stem's share of the mix, which is 0 without stems.
            peak = peak.max((gain * share).abs());
            if let Some(bus) = bus.as_deref_mut().and_then(|bus| bus.get_mut(i)) {
                *bus = y;
            }
        }
        self.shared.status.raise_stem_peak(stem_channel, peak);
        self.shared.status.scope().raise_stem(stem, peak);
    }
}

/// The availability that applies at `position`, from the previous one and the one published now. Realtime-safe.
fn merge_availability(before: Availability, now: Availability, position: u64) -> Availability {
    // `from` past `until`: the worker is publishing a window after a gap.
    let torn = now.from > now.until;
    // The window after the gap is early: the samples before the gap are played first.
    let early = now.from > before.until && position < before.until;
    if torn || early { before } else { now }
}

/// Samples of a block: the length of its shortest channel.
fn length(main: &[&mut [f32]]) -> usize {
    main.iter().map(|plane| plane.len()).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_before_a_gap_are_played_when_the_window_after_it_is_early() {
        let ready = |from, until| Availability { from, until, slot: Some(0) };
        let before = ready(0, 100);
        assert_eq!(merge_availability(before, ready(0, 200), 50), ready(0, 200), "no gap");
        assert_eq!(merge_availability(before, ready(200, 300), 50), before, "a gap, not reached");
        assert_eq!(merge_availability(before, ready(200, 300), 100), ready(200, 300), "reached");
        assert_eq!(merge_availability(before, ready(200, 100), 100), before, "half published");
    }
}
