//! An instance without a wrapper: its session, its control thread, and the audio thread's half, played by the test.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::library::OpenError;
use super::params::{RenderMode, TierChoice};
use super::selection::{Known, Selection};
use super::session::{Command, ModelView, View};
use super::*;
use crate::stream::{HostSamples, Plan, Tier};

/// How long a model may take to be loaded, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// An instance that was activated as by a VST3 host.
struct Bench {
    session: Guard,
    processor: Processor,
    position: usize,
}

impl Deref for Bench {
    type Target = Arc<Session>;

    fn deref(&self) -> &Self::Target {
        &self.session.0
    }
}

impl Bench {
    fn host() -> Host {
        Host { rate: 44_100, max_block: 512, channels: 2, api: PluginApi::Vst3, offline: false }
    }

    fn new() -> Self {
        let session = Session::new(Arc::new(NullsumParams::new()), None);
        set(&session.params.tier, TierChoice::Low);
        set(&session.params.render, RenderMode::Realtime);
        let live = control::activate(&session, Self::host()).unwrap();
        session.send(Command::Look);
        let processor = Processor::new(session.clone(), live, 44_100.0, false);
        Self { session: Guard(session), processor, position: 0 }
    }

    /// Plays a block of a tone; true when it came out as it went in, later.
    fn block(&mut self) -> bool {
        let tone = |at: usize| (at as f32 * 0.03).sin() * 0.4;
        let samples: Vec<f32> = (self.position..self.position + 512).map(tone).collect();
        let mut planes = [samples.clone(), samples];
        let (session, processor) = (&self.session.0, &mut self.processor);
        let renders = processor.renders(&session.params, 512);
        processor.adopt(renders);
        let latency = processor.latency() as usize;
        let mut transport = Transport::new(44_100.0);
        transport.playing = true;
        let mut main = planes.each_mut().map(Vec::as_mut_slice);
        processor.process(&session.params, &mut main, &mut [], &transport, renders);
        let start = self.position;
        self.position += 512;
        planes.iter().all(|plane| {
            plane.iter().enumerate().all(|(n, y)| *y == (start + n).checked_sub(latency).map_or(0.0, tone))
        })
    }

    /// Plays in step with the clock until `done`; true when all blocks came out as they went in.
    fn play_until(&mut self, done: impl Fn(&View) -> bool) -> bool {
        let (start, mut exact) = (Instant::now(), true);
        while !done(&self.view()) {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.view());
            exact &= self.block();
            std::thread::sleep(Duration::from_millis(11));
        }
        exact
    }

    fn play_until_ready(&mut self) -> bool {
        self.play_until(|view| matches!(view.model, ModelView::Ready { .. }) && view.tier.is_some())
    }

    fn choose(&self, checkpoint: &Path) {
        self.select(Selection::file(checkpoint.to_path_buf(), None));
    }
}

fn set<T: PartialEq + nice_plug::prelude::Enum + 'static>(param: &EnumParam<T>, value: T) {
    let normalized = param.preview_normalized(value);
    // SAFETY: the parameter is alive.
    unsafe { param.as_ptr()._internal_set_normalized_value(normalized) };
}

/// The embedded checkpoint as a file of the user's, `length` bytes of it, with a weight changed by `number`.
fn checkpoint(folder: &Path, name: &str, length: usize, number: u8) -> PathBuf {
    let mut bytes = include_bytes!("../../assets/nullsum-preview.safetensors").to_vec();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header] ^= number;
    bytes.truncate(length);
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_audio_thread_takes_no_lock_of_its_instance() {
    let mut bench = Bench::new();
    bench.play_until_ready();
    let session = bench.session.0.clone();
    // Somebody holds all there are. The control thread is kept waiting, and so would be an audio thread that wants one.
    let held = session.hold_every_lock();
    let (done, told) = mpsc::channel();
    let player = std::thread::spawn(move || {
        for n in 0..400u16 {
            let params = &bench.session.0.params;
            // SAFETY: the parameters are alive.
            unsafe { params.drums.gain.as_ptr()._internal_set_normalized_value(f32::from(n % 100) / 100.0) };
            bench.block();
            if n == 200 {
                bench.processor.reset();
            }
        }
        let _ = done.send(());
        bench
    });
    let played = told.recv_timeout(Duration::from_secs(20));
    drop(held);
    assert!(played.is_ok(), "the audio thread waits for a lock");
    drop(player.join());
}

#[test]
fn a_lock_that_the_audio_thread_takes_would_be_noticed() {
    let bench = Bench::new();
    let session = bench.session.0.clone();
    let held = session.hold_every_lock();
    let (done, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        bench.view();
        bench.params.model.get();
        let _ = done.send(());
        bench
    });
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
    drop(held);
    assert!(told.recv_timeout(PATIENCE).is_ok());
    drop(reader.join());
}

#[test]
fn a_broken_model_is_named_and_the_one_before_plays_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    assert!(bench.play_until_ready());
    let before = bench.processor.latency();
    let garbage = folder.path().join("garbage.ckpt");
    std::fs::write(&garbage, "no checkpoint").unwrap();
    let broken = [
        checkpoint(folder.path(), "cut.safetensors", 4_000_000, 0),
        garbage,
        folder.path().join("gone.ckpt"),
    ];
    for path in &broken {
        bench.choose(path);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(bench.play_until(|view| match &view.model {
            ModelView::Failed(OpenError::Broken { reason, .. }) => reason.contains(name),
            ModelView::Failed(OpenError::Missing { path }) => path.contains(name),
            _ => false,
        }));
        let stand_in = bench.view().stand_in.expect("the model before");
        assert_eq!((stand_in.title.as_str(), stand_in.stems.len()), ("Nullsum preview", 4));
        let windows = bench.view().status.unwrap().windows();
        assert!(
            bench
                .play_until(|view| view.status.as_ref().is_some_and(|status| status.windows() > windows + 1))
        );
        assert_eq!(bench.processor.latency(), before);
    }
    bench.choose(&checkpoint(folder.path(), "good.safetensors", usize::MAX, 1));
    assert!(bench.play_until(|view| matches!(view.model, ModelView::Ready { .. })));
    assert_eq!(bench.view().stand_in, None);
}

#[test]
fn an_activation_plans_for_the_model_that_is_wanted_not_for_the_one_that_is_there() {
    let mut bench = Bench::new();
    bench.play_until_ready();
    let there = bench.processor.latency();
    let known =
        Known { rate: 44_100, chunk: 20_000, frame_hop: 441, frame: 2_048, stems: vec!["vocals".into()] };
    let restored = Selection { known: Some(known.clone()), ..Selection::file("/gone/x.ckpt".into(), None) };
    // As a host does it: the control thread has had no time to look.
    bench.params.model.choose(restored);
    let live = control::activate(&bench, Bench::host()).unwrap().unwrap();
    let wanted = Plan::new(Tier::Low.request(&known.timing(), 44_100, HostSamples(512))).unwrap();
    assert_eq!(u64::from(live.latency), wanted.latency().0);
    assert_ne!(live.latency, there);
}

/// Renders with every stem muted, as fast as it goes and without saying so: the loudest of what is left once the pace is known and windows come.
/// None where the machine was so busy that the pace said otherwise.
fn left_of_a_render(bench: &mut Bench) -> Option<f32> {
    let mut loudest = 0f32;
    for block in 0..240 {
        let mut planes = [[0.25f32; 512]; 2];
        planes[0][block % 512] = -0.5;
        let renders = bench.processor.renders(&bench.session.0.params, 512);
        if renders {
            bench.processor.settle();
        }
        bench.processor.adopt(renders);
        let mut main = planes.each_mut().map(|plane| plane.as_mut_slice());
        let transport = Transport::new(44_100.0);
        bench.processor.process(&bench.session.0.params, &mut main, &mut [], &transport, renders);
        if block >= 60 && !renders {
            return None;
        }
        if block >= 90 {
            loudest = planes.iter().flatten().fold(loudest, |loudest, x| loudest.max(x.abs()));
        }
    }
    Some(loudest)
}

#[test]
fn a_render_that_nobody_announces_keeps_its_stems_when_a_state_brings_another_tier() {
    let left = (0..5).find_map(|_| {
        let mut bench = Bench::new();
        bench.play_until_ready();
        // A host loads a state, and takes its time.
        set(&bench.params.tier, TierChoice::High);
        set(&bench.params.render, RenderMode::Auto);
        for strip in bench.params.strips() {
            // SAFETY: the parameter is alive.
            unsafe { strip.mute.as_ptr()._internal_set_normalized_value(1.0) };
        }
        let before = bench.view().latency_ms;
        bench.processor.reset();
        let started = Instant::now();
        while bench.view().latency_ms == before {
            assert!(started.elapsed() < PATIENCE, "{:?}", bench.view());
            std::thread::sleep(Duration::from_millis(20));
        }
        left_of_a_render(&mut bench)
    });
    let left = left.expect("a render at an even pace");
    assert!(left < 1e-5, "{left}");
}

#[test]
fn an_activation_voids_what_was_opened_before_it() {
    let bench = Bench::new();
    let live = control::activate(&bench, Bench::host()).unwrap().unwrap();
    let latency = live.latency;
    // As the control thread leaves it, when a host starts the plugin anew meanwhile.
    assert!(bench.handoff.push(Box::new(live)).is_ok());
    let again = control::activate(&bench, Bench::host()).unwrap().unwrap();
    assert!(bench.handoff.is_empty());
    assert_eq!(again.latency, latency);
}
