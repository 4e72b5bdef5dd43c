//! The audio thread's half of an instance. Everything here but waiting in a render is loads, stores and arithmetic.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nice_plug::prelude::{Buffer, Transport};
use nice_plug::util::permit_alloc;

use super::pace::Pace;
use super::params::{Lossless, NullsumParams, RenderMode, decibels_to_gain};
use super::session::{Live, Session};
use super::slot::{Routing, SLOTS};
use crate::stream::smooth::Ramp;
use crate::stream::{NoStems, StemOutputs};

/// How long a render waits for a model that does nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a render waits for a model to be loaded: a big one from a slow disk.
const LOAD_PATIENCE: Duration = Duration::from_secs(120);
/// How long in all where nothing but the pace says that the host renders: it may be one that plays.
const GUESS_PATIENCE: Duration = Duration::from_secs(10);
/// Time that the output gain takes to arrive, in seconds.
const RAMP_SECONDS: f32 = 0.02;
/// How far the host's position may be from where it should be before it counts as a jump, in samples: some hosts round.
const JUMP: i64 = 2;

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
    /// What is left of how long it waits for a model where nobody does.
    patience: Duration,
    output: Ramp,
    /// Where the host's song should be at the next call, while it plays.
    expected: Option<i64>,
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
            patience: GUESS_PATIENCE,
            output: Ramp::new(1.0, (RAMP_SECONDS * rate) as u32),
            expected: None,
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
        self.patience = GUESS_PATIENCE;
        self.expected = None;
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
        let patience = if self.said { LOAD_PATIENCE } else { self.patience };
        if patience.is_zero() {
            return;
        }
        permit_alloc(|| {
            self.session.wait_until_settled(patience);
        });
        if !self.said {
            self.patience = self.patience.saturating_sub(started.elapsed());
        }
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
        if let Some(live) = &mut self.live {
            let client = &mut live.client;
            set_gains(client, params, routing);
            if self.snap {
                client.snap_gains();
            }
            let mut outputs = Buses(buses);
            let stems: &mut dyn StemOutputs = if outputs.0.is_empty() { &mut NoStems } else { &mut outputs };
            if renders {
                // A failure is in the status, for the editor; the block is whole all the same.
                let _ = permit_alloc(|| client.process_blocking(main, stems, PATIENCE));
            } else {
                client.process(main, stems);
            }
        }
        self.amplify(params, main);
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
        if let (Some(position), Some(expected)) = (position, self.expected)
            && position.saturating_sub(expected).abs() > JUMP
            && let Some(live) = &mut self.live
        {
            live.client.jump();
        }
        // Where it stands still, the song will go on from there.
        self.expected = match position {
            Some(position) => Some(position.saturating_add(samples as i64)),
            None => self.expected,
        };
    }

    fn amplify(&mut self, params: &NullsumParams, main: &mut [&mut [f32]]) {
        self.output.set(if params.bypass.value() { 1.0 } else { decibels_to_gain(params.output.value()) });
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

/// Gains of all lanes, which are the slots. Realtime-safe.
fn set_gains(client: &mut crate::stream::Client, params: &NullsumParams, routing: Routing) {
    let strips = params.strips();
    let soloed = |slot: usize| strips.get(slot).is_some_and(|strip| strip.solo.value());
    let any_solo = (0..SLOTS).any(|slot| routing.stem(slot).is_some() && soloed(slot));
    for (slot, strip) in strips.iter().enumerate() {
        // A slot without a stem is silent, but for what a model before has left there.
        let heard = !strip.mute.value() && (!any_solo || soloed(slot));
        let gains = if heard { strip.gains() } else { [0.0; 2] };
        for (channel, gain) in gains.into_iter().enumerate() {
            client.set_gain(slot, channel, gain);
        }
    }
    client.set_wet(if params.bypass.value() { 0.0 } else { params.mix.value() });
    client.set_carrier(match params.lossless.value() {
        Lossless::Spectral => routing.stems().checked_sub(1).and_then(|last| routing.slot(last)),
        Lossless::Off => None,
    });
}

/// The output buses of the multi-output class.
struct Buses<'a, 'b>(&'a mut [Buffer<'b>]);

impl StemOutputs for Buses<'_, '_> {
    fn plane(&mut self, slot: usize, channel: usize) -> Option<&mut [f32]> {
        self.0.get_mut(slot)?.as_slice().get_mut(channel).map(|plane| &mut **plane)
    }
}
