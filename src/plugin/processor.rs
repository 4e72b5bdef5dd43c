//! The audio thread's half of an instance. Realtime-safe, except for waiting while rendering offline.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nice_plug::prelude::{Buffer, Transport};
use nice_plug::util::permit_alloc;

use super::automation_delay::{AutomationDelay, GROUPS, Gains, MAIN, SOLO};
use super::instance_shared::{InstanceShared, StreamClient};
use super::jump_detector::TransportJumpDetector;
use super::offline_detector::OfflineRenderDetector;
use super::params::{LosslessChoice, NullsumParams, RenderMode, decibels_to_gain};
use super::player::Feed;
use super::routing::{Routing, STRIP_COUNT};
use crate::live::smooth::Ramp;
use crate::live::{BlockingError, Client, NoStems, StemOutputs};

/// How long a render waits for a worker that makes no progress.
const WORKER_TIMEOUT: Duration = Duration::from_secs(60);
/// The same after one timeout.
const REPEATED_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a render waits for a model to load: a large model on a slow disk.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it waits in total if only the call rate suggests a render, because the host may be playing.
const UNANNOUNCED_LOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Smoothing time of the output gain, in seconds.
const RAMP_SECONDS: f32 = 0.02;

/// Runs a stream for a host.
pub(super) struct Processor {
    shared: Arc<InstanceShared>,
    stream: Option<Box<StreamClient>>,
    rate: f32,
    /// Whether the host announced offline rendering.
    announced: bool,
    offline_detector: OfflineRenderDetector,
    /// Whether the host announced the mode, or the user chose it.
    announced_or_chosen: bool,
    /// Time spent waiting for a model in vain.
    waited: Duration,
    /// Number of finished windows at the last timeout. `None` once the worker makes progress.
    timed_out_at_window: Option<u64>,
    automation: AutomationDelay,
    output: Ramp,
    jump_detector: TransportJumpDetector,
    /// Whether gains apply without smoothing, because nothing was played yet.
    snap_gains: bool,
}

impl Processor {
    pub fn new(
        shared: Arc<InstanceShared>,
        stream: Option<StreamClient>,
        rate: f32,
        announced: bool,
    ) -> Self {
        Self {
            shared,
            stream: stream.map(Box::new),
            rate,
            announced,
            offline_detector: OfflineRenderDetector::default(),
            announced_or_chosen: announced,
            waited: Duration::ZERO,
            timed_out_at_window: None,
            automation: AutomationDelay::new(rate),
            output: Ramp::new(1.0, (RAMP_SECONDS * rate) as u32),
            jump_detector: TransportJumpDetector::default(),
            snap_gains: true,
        }
    }

    /// Latency in samples at the host's rate. 0 without a stream: the input passes through.
    pub fn latency(&self) -> u32 {
        self.stream.as_ref().map_or(0, |stream| stream.latency)
    }

    /// Realtime-safe: forgets what was played.
    pub fn reset(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.client.reset();
        }
        self.offline_detector.restart();
        (self.waited, self.timed_out_at_window) = (Duration::ZERO, None);
        self.jump_detector = TransportJumpDetector::default();
        self.snap_gains = true;
        self.shared.before_first_block.store(true, Relaxed);
    }

    /// Processes one host block in place, in the order that its parts need: detect offline rendering, wait for the model if so, take a new
    /// stream, fill in the app's song, then process. `buses` has one output for each strip. Returns whether the latency changed.
    ///
    /// Realtime-safe, except while rendering offline.
    pub fn process_block(
        &mut self,
        params: &NullsumParams,
        main: &mut [&mut [f32]],
        buses: &mut [Buffer],
        transport: &Transport,
        feed: Option<&Feed>,
    ) -> bool {
        let offline = self.detect_offline(params, main.first().map_or(0, |plane| plane.len()));
        if offline {
            self.wait_until_ready();
        }
        let latency_changed = self.adopt_stream(offline);
        if latency_changed {
            self.shared.set_latency(self.latency());
        }
        if let Some(feed) = feed {
            feed.fill(main);
        }
        self.process(params, main, buses, transport, offline);
        self.offline_detector.end_process(Instant::now());
        latency_changed
    }

    /// Realtime-safe: takes a new stream, if there is one and the old one can be retired. Returns whether the latency changed. Never during a render,
    /// nor before the host is known to play.
    fn adopt_stream(&mut self, offline: bool) -> bool {
        let may = if offline {
            self.shared.before_first_block.load(Relaxed)
        } else {
            self.offline_detector.has_verdict()
        };
        if !may || self.shared.handoff.is_empty() || self.shared.retired.is_full() {
            return false;
        }
        let Some(next) = self.shared.handoff.pop() else { return false };
        let before = self.latency();
        if let Some(old) = self.stream.replace(next)
            && let Err(old) = self.shared.retired.push(old)
        {
            // There was space a moment ago and nobody else fills the queue. A leak would still be better than freeing memory here.
            std::mem::forget(old);
        }
        self.snap_gains = true;
        before != self.latency()
    }

    /// Realtime-safe: whether this call may wait for the model.
    fn detect_offline(&mut self, params: &NullsumParams, samples: usize) -> bool {
        self.offline_detector.begin_process(Instant::now(), samples as f64 / f64::from(self.rate.max(1.0)));
        let (offline, announced_or_chosen) = match params.render.value() {
            RenderMode::Realtime => (false, true),
            RenderMode::Offline => (true, true),
            RenderMode::Auto => (self.announced || self.offline_detector.is_offline(), self.announced),
        };
        self.announced_or_chosen = announced_or_chosen;
        self.shared.offline.store(offline, Relaxed);
        offline
    }

    /// Waits until the model is loaded, before the first block of a render. Not realtime-safe.
    fn wait_until_ready(&mut self) {
        let started = Instant::now();
        let timeout = if self.announced_or_chosen { LOAD_TIMEOUT } else { UNANNOUNCED_LOAD_TIMEOUT }
            .saturating_sub(self.waited);
        let settled = permit_alloc(|| self.shared.wait_until_ready(timeout));
        // After success, or if only the call rate suggests a render, the next wait gets the full time again.
        self.waited = if settled && self.announced_or_chosen {
            Duration::ZERO
        } else {
            self.waited + started.elapsed()
        };
    }

    /// Processes a block in place. `buses` has one output for each strip. Realtime-safe unless `offline`.
    fn process(
        &mut self,
        params: &NullsumParams,
        main: &mut [&mut [f32]],
        buses: &mut [Buffer],
        transport: &Transport,
        offline: bool,
    ) {
        let samples = main.first().map_or(0, |plane| plane.len());
        for bus in buses.iter_mut() {
            for plane in bus.as_slice() {
                plane.fill(0.0);
            }
        }
        let routing = self.shared.routing();
        self.detect_jump(transport, samples);
        let in_time = (transport.playing || offline) && !self.snap_gains;
        let wanted = gains(params, main.len());
        let gains = self.automation.gains_for_block(
            wanted,
            samples,
            self.latency(),
            in_time,
            params.take_user_edits(),
        );
        if let Some(stream) = &mut self.stream {
            let client = &mut stream.client;
            set_gains(client, &gains, routing);
            client.set_carrier(carrier(params, routing));
            if self.snap_gains {
                client.snap_gains();
            }
            let mut outputs = Buses(buses);
            let stems: &mut dyn StemOutputs = if outputs.0.is_empty() { &mut NoStems } else { &mut outputs };
            if offline {
                // After a timeout, the following blocks wait only briefly, until the worker makes progress.
                let windows = client.status().windows();
                let timeout =
                    if self.timed_out_at_window == Some(windows) { REPEATED_TIMEOUT } else { WORKER_TIMEOUT };
                // The status shows the failure to the editor. The block is complete anyway, with dry signal.
                let outcome = permit_alloc(|| client.process_blocking(main, stems, timeout));
                let timed_out = matches!(outcome, Err(BlockingError::Timeout(_)));
                self.timed_out_at_window = timed_out.then(|| client.status().windows());
            } else {
                client.process(main, stems);
            }
        }
        self.apply_output_gain(gains[MAIN][1], main);
        self.shared.record_output_peaks(main);
        self.snap_gains = false;
        if samples > 0 {
            self.shared.before_first_block.store(false, Relaxed);
        }
    }

    /// Detects jumps of the host's position.
    fn detect_jump(&mut self, transport: &Transport, samples: usize) {
        let position = transport.pos_samples().filter(|_| transport.playing);
        if self.jump_detector.detect_jump(position, samples)
            && let Some(stream) = &mut self.stream
        {
            stream.client.jump();
        }
    }

    fn apply_output_gain(&mut self, gain: f32, main: &mut [&mut [f32]]) {
        self.output.set(gain);
        if self.snap_gains {
            self.output.snap();
        }
        if self.output.resting() == Some(1.0) {
            return;
        }
        let start = self.output;
        for plane in main.iter_mut() {
            self.output = start;
            for sample in plane.iter_mut() {
                *sample *= self.output.next();
            }
        }
    }
}

/// Realtime-safe: the gains that the parameters ask for.
fn gains(params: &NullsumParams, channels: usize) -> Gains {
    let mut gains = [[0.0; 2]; GROUPS];
    let mut soloed = 0;
    for (index, (gains, strip)) in gains.iter_mut().zip(params.strips()).enumerate() {
        soloed |= u32::from(strip.solo.value()) << index;
        *gains = match (strip.mute.value(), channels) {
            (true, _) => [0.0; 2],
            // A mono strip has no sides.
            (false, 1) => [gain_before_pan(strip.gains()); 2],
            (false, _) => strip.gains(),
        };
    }
    gains[SOLO][0] = soloed as f32;
    gains[MAIN] = match params.bypass.value() {
        true => [0.0, 1.0],
        false => [params.mix.value(), decibels_to_gain(params.output.value())],
    };
    gains
}

/// Realtime-safe: sets the gains of all strips.
fn set_gains(client: &mut Client, gains: &Gains, routing: Routing) {
    let soloed = |strip: usize| gains[SOLO][0] as u32 >> strip & 1 == 1;
    // The solo of a strip without a stem has no effect.
    let any_solo = (0..STRIP_COUNT).any(|strip| soloed(strip) && routing.stem(strip).is_some());
    for (strip, gains) in gains[..STRIP_COUNT].iter().enumerate() {
        // A strip without a stem is silent, except for the remaining output of a previous model.
        let heard = !any_solo || soloed(strip);
        for (channel, gain) in gains.iter().enumerate() {
            client.set_gain(strip, channel, if heard { *gain } else { 0.0 });
        }
    }
    client.set_wet(gains[MAIN][0]);
}

/// Realtime-safe: the strip that carries what the other stems leave.
fn carrier(params: &NullsumParams, routing: Routing) -> Option<usize> {
    match params.lossless.value() {
        LosslessChoice::Spectral => routing.stems().checked_sub(1).and_then(|last| routing.strip(last)),
        LosslessChoice::Off => None,
    }
}

/// The gain of the side that the pan leaves unchanged.
fn gain_before_pan([left, right]: [f32; 2]) -> f32 {
    if left.abs() >= right.abs() { left } else { right }
}

/// Output buses of the multi-output class.
struct Buses<'a, 'b>(&'a mut [Buffer<'b>]);

impl StemOutputs for Buses<'_, '_> {
    fn plane(&mut self, strip: usize, channel: usize) -> Option<&mut [f32]> {
        self.0.get_mut(strip)?.as_slice().get_mut(channel).map(|plane| &mut **plane)
    }
}
