//! The audio thread's half of an instance. Realtime-safe, except for waiting while rendering offline.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nice_plug::prelude::{Buffer, Transport};
use nice_plug::util::permit_alloc;

use super::automation_delay::{AutomationDelay, GROUPS, Gains, MAIN, SOLO};
use super::instance_shared::{InstanceShared, RenderFailure, StreamClient};
use super::jump_detector::TransportJumpDetector;
use super::offline_detector::OfflineRenderDetector;
use super::params::{AutomationTiming, LosslessChoice, NullsumParams, RenderMode, decibels_to_gain};
use super::player::Feed;
use super::routing::{Routing, STRIP_COUNT};
use super::transition::{Transition, TransitionBuffers};
use crate::live::smooth::Ramp;
use crate::live::{BlockingError, Client, NoStems, StemOutputs};
use crate::prepared::exchange::Exchange;

/// How long a render waits for a worker that makes no progress.
const WORKER_TIMEOUT: Duration = Duration::from_secs(60);
/// The same after one timeout.
const REPEATED_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a render waits for a model to load: a large model on a slow disk.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it waits in total if only the call rate suggests a render, because the host may be playing.
const UNANNOUNCED_LOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a render waits for prepared stems. A drive that needs longer is left out.
const PREPARED_TIMEOUT: Duration = Duration::from_secs(10);
/// Smoothing time of the output gain, in seconds.
const RAMP_SECONDS: f32 = 0.02;
/// Largest number of channels of a layout.
const MAX_CHANNELS: usize = 2;
/// Wet share and output gain in bypass.
const BYPASSED: [f32; 2] = [0.0, 1.0];

/// Runs a stream for a host.
pub(super) struct Processor {
    shared: Arc<InstanceShared>,
    stream: Option<Box<StreamClient>>,
    /// The stream before it, until it is faded out.
    transition: Option<Transition>,
    buffers: Box<TransitionBuffers>,
    rate: f32,
    /// Whether the host announced offline rendering at activation.
    announced: bool,
    offline_detector: OfflineRenderDetector,
    /// Whether the host announced the mode, or the user chose it.
    announced_or_chosen: bool,
    /// Time spent waiting for a model in vain.
    waited: Duration,
    /// Number of finished windows at the last timeout. `None` once the worker makes progress.
    timed_out_at_window: Option<u64>,
    automation: AutomationDelay,
    /// Hands the input to the thread that matches prepared songs, and takes their stems from it.
    exchange: Option<Arc<Exchange>>,
    output: Ramp,
    jump_detector: TransportJumpDetector,
    /// Whether gains apply without smoothing, because nothing was played yet.
    snap_gains: bool,
    /// Samples of the current block that are done.
    done: usize,
    /// A panic ended processing: from then on only the delayed input is output.
    has_panicked: bool,
    /// Makes the next segment panic after its input was written, or before.
    #[cfg(test)]
    pub panic_next: Option<bool>,
}

impl Processor {
    pub fn new(
        shared: Arc<InstanceShared>,
        stream: Option<StreamClient>,
        rate: f32,
        announced: bool,
    ) -> Self {
        Self {
            exchange: shared.prepared.exchange(),
            shared,
            stream: stream.map(Box::new),
            transition: None,
            buffers: TransitionBuffers::new(),
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
            done: 0,
            has_panicked: false,
            #[cfg(test)]
            panic_next: None,
        }
    }

    /// Latency in samples at the host's rate, of the stream that is heard. 0 without a stream: the input passes through.
    pub fn latency(&self) -> u32 {
        match &self.transition {
            Some(transition) if !transition.has_begun() => transition.old.latency,
            _ => self.stream.as_ref().map_or(0, |stream| stream.latency),
        }
    }

    /// Realtime-safe: forgets what was played.
    pub fn reset(&mut self) {
        self.end_transition();
        if let Some(stream) = &mut self.stream {
            stream.client.reset();
        }
        self.offline_detector.restart();
        (self.waited, self.timed_out_at_window) = (Duration::ZERO, None);
        self.jump_detector = TransportJumpDetector::default();
        self.snap_gains = true;
        self.shared.note_reset();
    }

    /// Processes one block in place, in the order that its parts need: detect offline rendering, wait for the model if so, take a new stream,
    /// fill in the app's song, then process. `buses` has one output for each strip. Returns whether the latency changed.
    ///
    /// A panic ends processing for good: from then on the output is the delayed input. The host keeps running.
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
        self.done = 0;
        for plane in buses.iter_mut().flat_map(|bus| bus.as_slice()) {
            plane.fill(0.0);
        }
        let start = self.stream.as_ref().map_or(0, |stream| stream.client.position());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            !self.has_panicked && self.process_block_unguarded(params, main, buses, transport, feed)
        }));
        if outcome.is_err() {
            self.has_panicked = true;
            self.shared.report_audio_panic();
        }
        if self.has_panicked {
            self.process_dry(main, start);
        }
        self.offline_detector.end_process(Instant::now());
        outcome.unwrap_or(false)
    }

    fn process_block_unguarded(
        &mut self,
        params: &NullsumParams,
        main: &mut [&mut [f32]],
        buses: &mut [Buffer],
        transport: &Transport,
        feed: Option<&Feed>,
    ) -> bool {
        let samples = main.first().map_or(0, |plane| plane.len());
        let offline = self.detect_offline(params, samples);
        if offline {
            self.wait_until_ready();
        }
        let latency = self.latency();
        if offline {
            self.end_transition();
        }
        let is_heard = transport.playing || main.iter().any(|plane| plane.iter().any(|x| *x != 0.0));
        self.adopt_stream(offline, is_heard);
        if let Some(feed) = feed {
            feed.fill(main);
        }
        self.shared.note_block(transport.playing);
        self.process(params, main, buses, transport, offline);
        let latency_changed = latency != self.latency();
        if latency_changed {
            self.shared.set_latency(self.latency());
        }
        latency_changed
    }

    /// Realtime-safe: takes a new stream, if there is one and the old one can be retired. Never during a render, nor before the host is known
    /// to play. `is_heard`: whether something plays, which continues on the old stream until the new one is ready.
    fn adopt_stream(&mut self, offline: bool, is_heard: bool) {
        let may = if offline {
            self.shared.before_first_block.load(Relaxed)
        } else {
            self.offline_detector.has_verdict() && self.transition.is_none()
        };
        if !may || self.shared.handoff.is_empty() || self.shared.retired.is_full() {
            return;
        }
        // Set first, so that the control thread keeps the worker's half of the old stream.
        self.shared.set_in_transition(true);
        let next = self.shared.handoff.pop();
        match (next, self.stream.take()) {
            (Some(mut next), Some(old)) if !self.snap_gains && !offline => {
                self.transition = Some(Transition::new(old, &mut next, is_heard, self.rate));
                self.stream = Some(next);
            }
            (Some(next), old) => {
                self.stream = Some(next);
                self.snap_gains = true;
                self.retire(old);
            }
            (None, old) => {
                self.stream = old;
                self.shared.set_in_transition(false);
            }
        }
        self.shared.wake_control();
    }

    /// Realtime-safe: from now on only the new stream is heard.
    fn end_transition(&mut self) {
        if let Some(transition) = self.transition.take() {
            self.retire(Some(transition.old));
        }
    }

    /// Realtime-safe: leaves a stream to the control thread.
    fn retire(&mut self, old: Option<Box<StreamClient>>) {
        if let Some(old) = old
            && let Err(old) = self.shared.retired.push(old)
        {
            // There was space when the stream was replaced, and nobody else fills the queue. A leak would still be better than freeing
            // memory here.
            std::mem::forget(old);
        }
        self.shared.set_in_transition(false);
        self.shared.wake_control();
    }

    /// Realtime-safe: whether this call may wait for the model.
    fn detect_offline(&mut self, params: &NullsumParams, samples: usize) -> bool {
        let call = self.shared.host_call.begin_part(samples);
        if let Some(samples) = call.new_call_samples {
            self.offline_detector
                .begin_process(Instant::now(), samples as f64 / f64::from(self.rate.max(1.0)));
        }
        let announced = call.announced_offline.unwrap_or(self.announced);
        if announced {
            self.shared.note_offline_announced();
        }
        let by_rate = self.offline_detector.is_offline() && !self.shared.host_announces_offline();
        let (offline, announced_or_chosen) = match params.render.value() {
            RenderMode::Realtime => (false, true),
            RenderMode::Offline => (true, true),
            RenderMode::Auto => (announced || by_rate, announced),
        };
        if self.offline_detector.is_budget_spent() && params.render.value() == RenderMode::Auto && !announced
        {
            self.shared.report_render_failure(RenderFailure::Unannounced);
        }
        self.announced_or_chosen = announced_or_chosen;
        self.shared.note_offline(offline);
        offline
    }

    /// Waits until the model is loaded, before the first block of a render. Not realtime-safe.
    fn wait_until_ready(&mut self) {
        let started = Instant::now();
        let timeout = if self.announced_or_chosen { LOAD_TIMEOUT } else { UNANNOUNCED_LOAD_TIMEOUT }
            .saturating_sub(self.waited);
        let ready = permit_alloc(|| self.shared.wait_until_ready(timeout));
        if !ready {
            self.shared.report_render_failure(RenderFailure::NotLoaded);
        }
        // After success, the next wait gets the full time again; if only the call rate suggests a render, the time is for all waits.
        self.waited =
            if ready && self.announced_or_chosen { Duration::ZERO } else { self.waited + started.elapsed() };
    }

    /// Realtime-safe unless `offline`.
    fn process(
        &mut self,
        params: &NullsumParams,
        main: &mut [&mut [f32]],
        buses: &mut [Buffer],
        transport: &Transport,
        offline: bool,
    ) {
        let samples = main.first().map_or(0, |plane| plane.len());
        let routing = self.shared.routing();
        self.detect_jump(transport, samples);
        let delayed = (transport.playing || offline)
            && !self.snap_gains
            && params.automation.get() == AutomationTiming::InTime;
        let wanted = gains(params, main.len());
        self.automation.begin_block(wanted, self.latency(), delayed, params.take_user_edits());
        let carrier = match params.lossless.value() {
            LosslessChoice::Spectral => routing.carrier(),
            LosslessChoice::Off => None,
        };
        for client in self.clients() {
            client.set_carrier(carrier);
        }
        // The app's own song has no position in a host's project.
        let song = transport.pos_samples().filter(|_| transport.playing && self.shared.player().is_none());
        while self.done < samples {
            let longest = self.advance_transition().min(samples - self.done);
            let (mut gains, length) = self.automation.next_segment(longest);
            // At once: the dry signal is aligned, so the switch is seamless.
            if params.bypass.value() {
                gains[MAIN] = BYPASSED;
            }
            let range = self.done..self.done + length;
            self.share_input(main, range.clone(), song.map(|song| song + self.done as i64), offline);
            self.process_segment(&gains, routing, main, buses, range, offline);
            self.snap_gains = false;
            self.done += length;
        }
        self.shared.record_output_peaks(main);
        if samples > 0 {
            self.shared.before_first_block.store(false, Relaxed);
        }
    }

    /// Leaves a part of the input to be matched with prepared stems. A render waits until it was. Realtime-safe unless `offline`.
    fn share_input(
        &mut self,
        main: &mut [&mut [f32]],
        range: Range<usize>,
        song: Option<i64>,
        offline: bool,
    ) {
        let Some(exchange) = self.exchange.clone() else { return };
        let next = exchange.position();
        for client in self.clients() {
            client.align_overlay(next);
        }
        let mut planes: [&mut [f32]; MAX_CHANNELS] = Default::default();
        let channels = main.len().min(MAX_CHANNELS);
        for (part, plane) in planes.iter_mut().zip(main.iter_mut()) {
            *part = plane.get_mut(range.clone()).unwrap_or_default();
        }
        exchange.push(planes.get(..channels).unwrap_or_default(), song);
        if offline {
            permit_alloc(|| exchange.wait_until_seen(PREPARED_TIMEOUT));
        }
    }

    /// Processes a part of the block with constant gains. Realtime-safe unless `offline`.
    fn process_segment(
        &mut self,
        gains: &Gains,
        routing: Routing,
        main: &mut [&mut [f32]],
        buses: &mut [Buffer],
        range: Range<usize>,
        offline: bool,
    ) {
        #[cfg(test)]
        self.panic_if_asked(main, &range, false);
        let mut planes: [&mut [f32]; MAX_CHANNELS] = Default::default();
        let channels = main.len().min(MAX_CHANNELS);
        for (part, plane) in planes.iter_mut().zip(main.iter_mut()) {
            *part = plane.get_mut(range.clone()).unwrap_or_default();
        }
        let main = planes.get_mut(..channels).unwrap_or_default();
        let snaps = self.snap_gains;
        for client in self.clients() {
            set_gains(client, gains, routing);
            if snaps {
                client.snap_gains();
            }
        }
        let mut outputs = Buses { buses, range };
        let stems: &mut dyn StemOutputs = if outputs.buses.is_empty() { &mut NoStems } else { &mut outputs };
        match (&mut self.stream, &mut self.transition) {
            _ if offline => self.process_offline(main, stems),
            (Some(stream), Some(transition)) => {
                // Nothing of the new stream was heard yet, so its gains need no ramp.
                if !transition.has_begun() {
                    stream.client.snap_gains();
                }
                transition.process(&mut stream.client, main, stems, &mut self.buffers);
            }
            (Some(stream), None) => stream.client.process(main, stems),
            (None, _) => {}
        }
        #[cfg(test)]
        self.panic_if_asked(main, &(0..0), true);
        self.apply_output_gain(gains[MAIN][1], main);
    }

    /// Realtime-safe: the streams that process the input.
    fn clients(&mut self) -> impl Iterator<Item = &mut Client> {
        let old = self.transition.as_mut().map(|transition| &mut transition.old);
        self.stream.iter_mut().chain(old).map(|stream| &mut stream.client)
    }

    /// Realtime-safe: begins or ends the crossfade when it is time. Returns the samples until that may be the case again.
    fn advance_transition(&mut self) -> usize {
        if self.transition.as_ref().is_some_and(Transition::is_over) {
            self.end_transition();
        }
        let (Some(transition), Some(stream)) = (&mut self.transition, &self.stream) else {
            return usize::MAX;
        };
        if transition.begin_if_ready(&stream.client) {
            self.automation.change_latency(transition.old.latency, stream.latency);
        }
        transition.next_check()
    }

    /// Waits for the model. Not realtime-safe.
    fn process_offline(&mut self, main: &mut [&mut [f32]], stems: &mut dyn StemOutputs) {
        let Some(stream) = &mut self.stream else { return };
        let client = &mut stream.client;
        // After a timeout, the following blocks wait only briefly, until the worker makes progress.
        let windows = client.status().windows();
        let timeout =
            if self.timed_out_at_window == Some(windows) { REPEATED_TIMEOUT } else { WORKER_TIMEOUT };
        // The block is complete in any case, with dry signal where stems are missing.
        let outcome = permit_alloc(|| client.process_blocking(main, stems, timeout));
        let timed_out = matches!(outcome, Err(BlockingError::Timeout(_)));
        self.timed_out_at_window = timed_out.then(|| client.status().windows());
        match outcome {
            Ok(()) => {}
            Err(BlockingError::Stopped) => self.shared.report_render_failure(RenderFailure::Stopped),
            Err(BlockingError::Timeout(_)) => self.shared.report_render_failure(RenderFailure::Timeout),
            Err(BlockingError::Model(_)) => self.shared.report_render_failure(RenderFailure::Model),
        }
    }

    /// Outputs the delayed input for the rest of a block, after a panic. `start`: the client's position at the start of the block.
    fn process_dry(&mut self, main: &mut [&mut [f32]], start: u64) {
        let samples = main.first().map_or(0, |plane| plane.len());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let Some(stream) = &mut self.stream else { return };
            // Input that the client has already taken was overwritten, so its output is lost.
            let taken = usize::try_from(stream.client.position().saturating_sub(start)).unwrap_or(samples);
            let (lost, taken) = (self.done.min(samples), taken.clamp(self.done, samples));
            let mut planes: [&mut [f32]; MAX_CHANNELS] = Default::default();
            let channels = main.len().min(MAX_CHANNELS);
            for (part, plane) in planes.iter_mut().zip(main.iter_mut()) {
                plane.get_mut(lost..taken).unwrap_or_default().fill(0.0);
                *part = plane.get_mut(taken..).unwrap_or_default();
            }
            stream.client.process_dry(planes.get_mut(..channels).unwrap_or_default());
        }));
        if outcome.is_err() {
            // Not even the delayed input is available: silence is all that is left.
            for plane in main.iter_mut() {
                plane.fill(0.0);
            }
        }
    }

    #[cfg(test)]
    fn panic_if_asked(&mut self, main: &mut [&mut [f32]], range: &Range<usize>, after_input: bool) {
        if self.panic_next == Some(after_input) {
            self.panic_next = None;
            let _ = (main, range);
            panic!("as a test asked");
        }
    }

    /// Detects jumps of the host's position.
    fn detect_jump(&mut self, transport: &Transport, samples: usize) {
        let position = transport.pos_samples().filter(|_| transport.playing);
        let Some(distance) = self.jump_detector.detect_jump(position, samples) else { return };
        for client in self.clients() {
            match distance {
                ..0 => client.jump_back(distance.unsigned_abs()),
                0.. => client.jump(),
            }
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
    gains[MAIN] = [params.mix.value(), decibels_to_gain(params.output.value())];
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

/// The gain of the side that the pan leaves unchanged.
fn gain_before_pan([left, right]: [f32; 2]) -> f32 {
    if left.abs() >= right.abs() { left } else { right }
}

/// A part of the output buses of the multi-output class.
struct Buses<'a, 'b> {
    buses: &'a mut [Buffer<'b>],
    range: Range<usize>,
}

impl StemOutputs for Buses<'_, '_> {
    fn plane(&mut self, strip: usize, channel: usize) -> Option<&mut [f32]> {
        let plane = self.buses.get_mut(strip)?.as_slice().get_mut(channel)?;
        plane.get_mut(self.range.clone())
    }
}
