//! The audio thread's half of an instance. Everything here but waiting in a render is loads, stores and arithmetic.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nice_plug::prelude::{Buffer, Transport};
use nice_plug::util::permit_alloc;

use super::clock::Clock;
use super::cues::{Cues, GROUPS, Gains, MAIN, SOLO};
use super::pace::Pace;
use super::params::{Lossless, NullsumParams, RenderMode, decibels_to_gain};
use super::session::{Live, Session};
use super::slot::{Routing, SLOTS};
use crate::stream::smooth::Ramp;
use crate::stream::{BlockingError, Client, NoStems, StemOutputs};

/// How long a render waits for a model that does nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same once it was waited for in vain.
const SHORT_PATIENCE: Duration = Duration::from_millis(50);
/// How long a render waits for a model to be loaded: a big one from a slow disk.
const LOAD_PATIENCE: Duration = Duration::from_secs(120);
/// How long in all where nothing but the pace says that the host renders: it may be one that plays.
const GUESS_PATIENCE: Duration = Duration::from_secs(10);
/// Time that the output gain takes to arrive, in seconds.
const RAMP_SECONDS: f32 = 0.02;

/// Runs a stream for a host.
pub(super) struct Processor {
    session: Arc<Session>,
    live: Option<Box<Live>>,
    rate: f32,
    /// Whether the host has announced that it renders.
    announced: bool,
    pace: Pace,
    /// Whether the host or the user says so, or says otherwise.
    said: bool,
    /// How long it has waited for a model in vain.
    waited: Duration,
    /// Windows that the stream's worker had done when it was given up, until it does another.
    gave_up: Option<u64>,
    cues: Cues,
    output: Ramp,
    clock: Clock,
    /// Whether gains must be there at once: nothing was played yet.
    snap: bool,
}

impl Processor {
    /// For a stream that was just opened.
    pub fn new(session: Arc<Session>, live: Option<Live>, rate: f32, announced: bool) -> Self {
        Self {
            session,
            live: live.map(Box::new),
            rate,
            announced,
            pace: Pace::default(),
            said: announced,
            waited: Duration::ZERO,
            gave_up: None,
            cues: Cues::new(rate),
            output: Ramp::new(1.0, (RAMP_SECONDS * rate) as u32),
            clock: Clock::default(),
            snap: true,
        }
    }

    /// Latency in host samples; 0 where there is no stream, and the input goes through.
    pub fn latency(&self) -> u32 {
        self.live.as_ref().map_or(0, |live| live.latency)
    }

    /// Forgets what was played. Realtime-safe.
    pub fn reset(&mut self) {
        if let Some(live) = &mut self.live {
            live.client.reset();
        }
        self.pace.restart();
        (self.waited, self.gave_up) = (Duration::ZERO, None);
        self.clock = Clock::default();
        self.snap = true;
        self.session.fresh.store(true, Relaxed);
    }

    /// Takes a new stream, where there is one and the old one can be laid aside. True when the latency is another now. Never under way in a
    /// render, nor before the host's pace shows that it isn't one. Realtime-safe.
    pub fn adopt(&mut self, renders: bool) -> bool {
        let may = if renders { self.session.fresh.load(Relaxed) } else { self.pace.is_known() };
        if !may || self.session.handoff.is_empty() || self.session.retired.is_full() {
            return false;
        }
        let Some(next) = self.session.handoff.pop() else { return false };
        let before = self.latency();
        if let Some(old) = self.live.replace(next)
            && let Err(old) = self.session.retired.push(old)
        {
            // There was room a moment ago and nobody else fills it; a leak would still be better than freeing memory here.
            std::mem::forget(old);
        }
        self.snap = true;
        before != self.latency()
    }

    /// Whether this call may wait for the model. Realtime-safe.
    pub fn renders(&mut self, params: &NullsumParams, samples: usize) -> bool {
        self.pace.enter(Instant::now(), samples as f64 / f64::from(self.rate.max(1.0)));
        let (renders, said) = match params.render.value() {
            RenderMode::Realtime => (false, true),
            RenderMode::Offline => (true, true),
            RenderMode::Auto => (self.announced || self.pace.renders(), self.announced),
        };
        self.said = said;
        self.session.renders.store(renders, Relaxed);
        renders
    }

    /// Before the first block of a render: waits until the model is there. Not realtime-safe.
    pub fn settle(&mut self) {
        let started = Instant::now();
        let patience = if self.said { LOAD_PATIENCE } else { GUESS_PATIENCE }.saturating_sub(self.waited);
        let settled = permit_alloc(|| self.session.wait_until_settled(patience));
        // Where there is a model in the end, or only play, the next one is waited for as long.
        self.waited = if settled && self.said { Duration::ZERO } else { self.waited + started.elapsed() };
    }

    /// Replaces a block by the output. `buses`: one output a slot. Realtime-safe unless it `renders`.
    pub fn process(
        &mut self,
        params: &NullsumParams,
        main: &mut [&mut [f32]],
        buses: &mut [Buffer],
        transport: &Transport,
        renders: bool,
    ) {
        let samples = main.first().map_or(0, |plane| plane.len());
        for bus in buses.iter_mut() {
            for plane in bus.as_slice() {
                plane.fill(0.0);
            }
        }
        let routing = self.session.routing();
        self.follow(transport, samples);
        let in_time = (transport.playing || renders) && !self.snap;
        let wanted = gains(params, main.len());
        let gains = self.cues.follow(wanted, samples, self.latency(), in_time, params.take_hands());
        if let Some(live) = &mut self.live {
            let client = &mut live.client;
            set_gains(client, &gains, routing);
            client.set_carrier(carrier(params, routing));
            if self.snap {
                client.snap_gains();
            }
            let mut outputs = Buses(buses);
            let stems: &mut dyn StemOutputs = if outputs.0.is_empty() { &mut NoStems } else { &mut outputs };
            if renders {
                // A worker that does nothing is not waited for as long at every block.
                let windows = client.status().windows();
                let patience = if self.gave_up == Some(windows) { SHORT_PATIENCE } else { PATIENCE };
                // A failure is in the status, for the editor; the block is whole all the same.
                let outcome = permit_alloc(|| client.process_blocking(main, stems, patience));
                let timed_out = matches!(outcome, Err(BlockingError::Timeout(_)));
                self.gave_up = timed_out.then(|| client.status().windows());
            } else {
                client.process(main, stems);
            }
        }
        self.amplify(gains[MAIN][1], main);
        self.session.note_output(main);
        self.snap = false;
        if samples > 0 {
            self.session.fresh.store(false, Relaxed);
        }
        self.pace.leave(Instant::now());
    }

    /// Notices jumps of the host's position.
    fn follow(&mut self, transport: &Transport, samples: usize) {
        let position = transport.pos_samples().filter(|_| transport.playing);
        if self.clock.jumps(position, samples)
            && let Some(live) = &mut self.live
        {
            live.client.jump();
        }
    }

    fn amplify(&mut self, gain: f32, main: &mut [&mut [f32]]) {
        self.output.set(gain);
        if self.snap {
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

/// What the parameters come to. Realtime-safe.
fn gains(params: &NullsumParams, channels: usize) -> Gains {
    let mut gains = [[0.0; 2]; GROUPS];
    let mut soloed = 0;
    for (slot, (gains, strip)) in gains.iter_mut().zip(params.strips()).enumerate() {
        soloed |= u32::from(strip.solo.value()) << slot;
        *gains = match (strip.mute.value(), channels) {
            (true, _) => [0.0; 2],
            // There is no side to turn to.
            (false, 1) => [loudest(strip.gains()); 2],
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

/// Gains of all lanes, which are the slots. Realtime-safe.
fn set_gains(client: &mut Client, gains: &Gains, routing: Routing) {
    let soloed = |slot: usize| gains[SOLO][0] as u32 >> slot & 1 == 1;
    // A solo of a strip that shows no stem counts for nothing.
    let any_solo = (0..SLOTS).any(|slot| soloed(slot) && routing.stem(slot).is_some());
    for (slot, gains) in gains[..SLOTS].iter().enumerate() {
        // A slot without a stem is silent, but for what a model before has left there.
        let heard = !any_solo || soloed(slot);
        for (channel, gain) in gains.iter().enumerate() {
            client.set_gain(slot, channel, if heard { *gain } else { 0.0 });
        }
    }
    client.set_wet(gains[MAIN][0]);
}

/// The slot that takes what the others leave. Realtime-safe.
fn carrier(params: &NullsumParams, routing: Routing) -> Option<usize> {
    match params.lossless.value() {
        Lossless::Spectral => routing.stems().checked_sub(1).and_then(|last| routing.slot(last)),
        Lossless::Off => None,
    }
}

/// The gain on the side that a pan leaves as it is.
fn loudest([left, right]: [f32; 2]) -> f32 {
    if left.abs() >= right.abs() { left } else { right }
}

/// The output buses of the multi-output class.
struct Buses<'a, 'b>(&'a mut [Buffer<'b>]);

impl StemOutputs for Buses<'_, '_> {
    fn plane(&mut self, slot: usize, channel: usize) -> Option<&mut [f32]> {
        self.0.get_mut(slot)?.as_slice().get_mut(channel).map(|plane| &mut **plane)
    }
}
