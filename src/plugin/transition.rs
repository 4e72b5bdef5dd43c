//! Replacing the stream that plays by another one, without a click and without a gap.
//!
//! The new stream takes over the past input of the old one. Both then process the same input. The old one is heard until the new one has input
//! for its whole latency and its first stems have faded in; then the outputs are crossfaded. The latency changes when the crossfade begins.

use super::instance_shared::StreamClient;
use super::routing::STRIP_COUNT;
use crate::live::{Client, State, StemOutputs};

/// Length of the crossfade in seconds.
const FADE_SECONDS: f32 = 0.02;
/// How long the first stems of the new stream are waited for, in seconds. A model that needs longer is too slow to play live.
const STEMS_TIMEOUT_SECONDS: f32 = 2.0;
/// Samples processed at a time.
const CHUNK: usize = 256;
/// Largest number of channels of a layout.
const MAX_CHANNELS: usize = 2;

/// Working memory, allocated before anything plays.
pub(super) struct TransitionBuffers {
    main: [[f32; CHUNK]; MAX_CHANNELS],
    stems: [[[f32; CHUNK]; MAX_CHANNELS]; STRIP_COUNT],
}

impl TransitionBuffers {
    /// Allocates.
    pub fn new() -> Box<Self> {
        Box::new(Self {
            main: [[0.0; CHUNK]; MAX_CHANNELS],
            stems: [[[0.0; CHUNK]; MAX_CHANNELS]; STRIP_COUNT],
        })
    }
}

/// The stem outputs of a chunk in the working memory.
struct BufferedStems<'a> {
    stems: &'a mut [[[f32; CHUNK]; MAX_CHANNELS]; STRIP_COUNT],
    samples: usize,
}

impl StemOutputs for BufferedStems<'_> {
    fn plane(&mut self, stem: usize, channel: usize) -> Option<&mut [f32]> {
        self.stems.get_mut(stem)?.get_mut(channel)?.get_mut(..self.samples)
    }
}

/// The stem outputs of the host, or none, from a sample on.
struct Offset<'a> {
    outputs: &'a mut dyn StemOutputs,
    from: usize,
    samples: usize,
}

impl StemOutputs for Offset<'_> {
    fn plane(&mut self, stem: usize, channel: usize) -> Option<&mut [f32]> {
        self.outputs.plane(stem, channel)?.get_mut(self.from..self.from + self.samples)
    }
}

/// The old stream, until it is faded out.
pub(super) struct Transition {
    pub old: Box<StreamClient>,
    /// Samples until the new stream has input for its whole latency.
    missing: u64,
    /// Samples that the stems of the new stream are still waited for.
    patience: u64,
    /// Samples until the first stems of the new stream have faded in, once they are there.
    fade_in: u64,
    fade: usize,
    /// Samples of the crossfade that are done.
    faded: usize,
    has_begun: bool,
}

impl Transition {
    /// Realtime-safe: takes over the past input of `old`. `waits`: whether something is heard, so that the crossfade waits for the new stream.
    pub fn new(old: Box<StreamClient>, new: &mut StreamClient, waits: bool, rate: f32) -> Self {
        let missing = new.client.carry_over(&old.client);
        let (missing, patience) =
            if waits { (missing, (STEMS_TIMEOUT_SECONDS * rate) as u64) } else { (0, 0) };
        Self {
            old,
            missing,
            patience,
            fade_in: u64::from(new.fade_in) + CHUNK as u64,
            fade: ((FADE_SECONDS * rate) as usize).max(1),
            faded: 0,
            has_begun: false,
        }
    }

    /// Whether the new stream is heard, so that its latency holds.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether only the new stream is heard.
    pub fn is_over(&self) -> bool {
        self.faded >= self.fade
    }

    /// Realtime-safe: begins the crossfade if the new stream is ready. Returns whether it begins now.
    pub fn begin_if_ready(&mut self, new: &Client) -> bool {
        // Stems are to come from a model that has not failed.
        let is_starting = matches!(new.status().state(), State::Starting | State::Running);
        let has_stems = self.fade_in == 0 || !is_starting || self.patience == 0;
        let begins = !self.has_begun && self.missing == 0 && has_stems;
        self.has_begun |= begins;
        begins
    }

    /// Samples that may be processed until the next call of [`begin_if_ready`](Self::begin_if_ready).
    pub fn next_check(&self) -> usize {
        match (self.has_begun, self.missing) {
            (true, _) => usize::MAX,
            (false, 0) => CHUNK,
            (false, missing) => usize::try_from(missing).unwrap_or(CHUNK).min(CHUNK),
        }
    }

    /// Realtime-safe: as [`Client::process`] of either stream, with the mixture of both as the output.
    pub fn process(
        &mut self,
        new: &mut Client,
        main: &mut [&mut [f32]],
        outputs: &mut dyn StemOutputs,
        buffers: &mut TransitionBuffers,
    ) {
        let (channels, total) = (main.len().min(MAX_CHANNELS), main.first().map_or(0, |plane| plane.len()));
        let mut at = 0;
        while at < total {
            let samples = (total - at).min(CHUNK);
            let mut old_planes: [&mut [f32]; MAX_CHANNELS] = Default::default();
            let mut new_planes: [&mut [f32]; MAX_CHANNELS] = Default::default();
            let planes = old_planes.iter_mut().zip(&mut new_planes).zip(&mut buffers.main);
            for (((old, new), buffer), plane) in planes.zip(main.iter_mut()) {
                let (plane, buffer) =
                    (plane.get_mut(at..at + samples).unwrap_or_default(), &mut buffer[..samples]);
                buffer.iter_mut().zip(&*plane).for_each(|(copy, x)| *copy = *x);
                (*old, *new) = (plane, buffer);
            }
            let (old_planes, new_planes) = (&mut old_planes[..channels], &mut new_planes[..channels]);
            let mut stems = BufferedStems { stems: &mut buffers.stems, samples };
            let mut outputs = Offset { outputs, from: at, samples };
            new.process(new_planes, &mut stems);
            self.old.client.process(old_planes, &mut outputs);
            if self.has_begun {
                self.mix(old_planes, new_planes, &mut outputs, &mut stems);
                self.faded = self.faded.saturating_add(samples);
            }
            if new.status().windows() > 0 {
                self.fade_in = self.fade_in.saturating_sub(samples as u64);
            }
            self.missing = self.missing.saturating_sub(samples as u64);
            self.patience = self.patience.saturating_sub(samples as u64);
            at += samples;
        }
    }

    fn mix(
        &self,
        old: &mut [&mut [f32]],
        new: &[&mut [f32]],
        outputs: &mut dyn StemOutputs,
        stems: &mut BufferedStems,
    ) {
        for (old, new) in old.iter_mut().zip(new) {
            self.fade(old, new);
        }
        for stem in 0..STRIP_COUNT {
            for channel in 0..MAX_CHANNELS {
                if let (Some(old), Some(new)) = (outputs.plane(stem, channel), stems.plane(stem, channel)) {
                    self.fade(old, new);
                }
            }
        }
    }

    /// Both hold nearly the same music, so the weights sum to 1.
    fn fade(&self, old: &mut [f32], new: &[f32]) {
        for (i, (old, new)) in old.iter_mut().zip(new).enumerate() {
            let weight = ((self.faded + i + 1) as f32 / self.fade as f32).min(1.0);
            *old = if weight < 1.0 { *old + weight * (new - *old) } else { *new };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{
        HostSamples, ModelSamples, ModelTiming, NoStems, Plan, SharedModel, Stream, Tier, WindowError,
        WindowSeparator,
    };
    use crate::separator::MaskRule;

    /// Two stems, each half of the input.
    struct Halves;

    impl WindowSeparator for Halves {
        fn stems(&self) -> usize {
            2
        }

        fn channels(&self) -> usize {
            1
        }

        fn timing(&self) -> ModelTiming {
            let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(ModelSamples);
            ModelTiming { rate: 44_100, chunk, frame_hop, frame, context: None }
        }

        fn separate_window(
            &mut self,
            window: &[f32],
            _: MaskRule,
            out: &mut [f32],
        ) -> Result<(), WindowError> {
            for stem in out.chunks_exact_mut(window.len()) {
                stem.iter_mut().zip(window).for_each(|(y, x)| *y = 0.5 * x);
            }
            Ok(())
        }
    }

    const RATE: u32 = 44_100;

    fn tone(at: usize) -> f32 {
        0.4 * (at as f32 * 0.03).sin()
    }

    /// Plays a tone at half level through a stream of one tier, replaces it by one of another, and returns the output from the replacement on,
    /// with the sample at which the latency changes. `late`: blocks after which the new worker begins to run.
    fn replace(from: Tier, to: Tier, late: usize) -> (Vec<f32>, Option<usize>, [usize; 2]) {
        let open = |tier: Tier| {
            let plan = Plan::new(tier.request(&Halves.timing(), RATE, HostSamples(512))).unwrap();
            let (mut client, mut engine) = Stream::manual(&plan, 2, 1);
            engine.swap(Some(SharedModel::new(Box::new(Halves)))).unwrap();
            client.set_gain(0, 0, 0.5);
            client.set_gain(1, 0, 0.5);
            client.snap_gains();
            let (latency, fade_in) = (plan.latency().0 as u32, crate::plugin::control::fade_in(&plan));
            (StreamClient { client, latency, fade_in }, engine)
        };
        let (mut old, mut old_engine) = open(from);
        let (mut new, mut new_engine) = open(to);
        let latencies = [old.latency as usize, new.latency as usize];
        let mut position = 0;
        let mut input = || {
            position += 512;
            (position - 512..position).map(tone).collect::<Vec<f32>>()
        };
        for _ in 0..4 * old.latency / 512 + 100 {
            old.client.process(&mut [&mut input()], &mut NoStems);
            old_engine.run_until_idle();
        }
        let mut transition = Transition::new(Box::new(old), &mut new, true, RATE as f32);
        let mut buffers = TransitionBuffers::new();
        let (mut output, mut begun, mut block) = (Vec::new(), None, 0);
        while !transition.is_over() {
            let mut samples = input();
            let mut at = 0;
            while at < 512 {
                if transition.begin_if_ready(&new.client) {
                    begun = Some(output.len() + at);
                }
                let length = transition.next_check().min(512 - at);
                let main = &mut [&mut samples[at..at + length]];
                transition.process(&mut new.client, main, &mut NoStems, &mut buffers);
                at += length;
            }
            output.extend(samples);
            old_engine.run_until_idle();
            if block >= late {
                new_engine.run_until_idle();
            }
            block += 1;
            assert!(block < 1_000);
        }
        for _ in 0..200 {
            let mut samples = input();
            new.client.process(&mut [&mut samples], &mut NoStems);
            new_engine.run_until_idle();
            output.extend(samples);
        }
        (output, begun, latencies)
    }

    #[test]
    fn a_new_stream_begins_without_click_gap_or_change_of_level() {
        for (from, to) in [
            (Tier::Low, Tier::Balanced),
            (Tier::Low, Tier::High),
            (Tier::High, Tier::Low),
            (Tier::Balanced, Tier::Balanced),
        ] {
            for late in [0, 7, 40] {
                let (output, begun, _) = replace(from, to, late);
                // The tone at half level, and the crossfade between two of its phases.
                let largest = 0.2 * 0.03 + 2.0 * 0.2 / (FADE_SECONDS * RATE as f32) + 1e-4;
                let step = output.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
                assert!(step <= largest, "{from} to {to}, {late}: step of {step}");
                let loudest = output.iter().fold(0f32, |loudest, x| loudest.max(x.abs()));
                assert!(loudest < 0.2 + 1e-3, "{from} to {to}, {late}: {loudest}, as without stems");
                let begun = begun.unwrap();
                for (i, window) in output.chunks(1024).enumerate() {
                    let peak = window.iter().fold(0f32, |peak, x| peak.max(x.abs()));
                    // The two phases may cancel in the middle of the crossfade.
                    let fades = (i * 1024).abs_diff(begun) < 2048;
                    assert!(peak > 0.19 || fades, "{from} to {to}, {late}: {peak} at {}", i * 1024);
                }
            }
        }
    }

    #[test]
    fn stems_that_do_not_come_are_not_waited_for_for_ever() {
        let (_, begun, _) = replace(Tier::Low, Tier::Low, usize::MAX);
        let limit = (STEMS_TIMEOUT_SECONDS * RATE as f32) as usize;
        assert!(begun.is_some_and(|begun| begun <= limit + CHUNK), "{begun:?}");
    }
}
