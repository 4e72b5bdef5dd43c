//! Tests of an instance without a wrapper: shared state, control thread and audio half, driven by the test.

mod closing;
mod prepared;
mod processing;
mod saved_states;
mod waking;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::instance_shared::{ControlCommand, ModelView, View};
use super::model_loader::ModelLoadError;
use super::params::{RenderMode, TierChoice};
use super::selection::{SavedModelSpec, Selection};
use super::*;
use crate::live::{HostSamples, Plan, Tier};

/// Time limit for loading a model on a busy computer.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// An instance activated as by a VST3 host.
struct Bench {
    shared: InstanceGuard,
    processor: Processor,
    position: usize,
}

impl Deref for Bench {
    type Target = Arc<InstanceShared>;

    fn deref(&self) -> &Self::Target {
        &self.shared.0
    }
}

impl Bench {
    fn host() -> HostConfig {
        HostConfig { rate: 44_100, max_block: 512, channels: 2, api: PluginApi::Vst3, offline: false }
    }

    fn new() -> Self {
        let shared = InstanceShared::new(Arc::new(NullsumParams::new()), None, crate::plugin::control::run);
        set(&shared.params.tier, TierChoice::Low);
        set(&shared.params.render, RenderMode::Realtime);
        let stream_client = control::activate(&shared, Self::host()).unwrap();
        shared.send(ControlCommand::Reconcile);
        let processor = Processor::new(shared.clone(), stream_client, 44_100.0, false);
        Self { shared: InstanceGuard(shared), processor, position: 0 }
    }

    /// Plays a block of a tone. True if the output is the delayed input.
    fn block(&mut self) -> bool {
        let tone = |at: usize| (at as f32 * 0.03).sin() * 0.4;
        let samples: Vec<f32> = (self.position..self.position + 512).map(tone).collect();
        let mut planes = [samples.clone(), samples];
        let (shared, processor) = (&self.shared.0, &mut self.processor);
        let mut transport = Transport::new(44_100.0);
        transport.playing = true;
        let mut main = planes.each_mut().map(Vec::as_mut_slice);
        processor.process_block(&shared.params, &mut main, &mut [], &transport, None);
        let latency = processor.latency() as usize;
        let start = self.position;
        self.position += 512;
        planes.iter().all(|plane| {
            plane.iter().enumerate().all(|(n, y)| *y == (start + n).checked_sub(latency).map_or(0.0, tone))
        })
    }

    /// Plays in real time until `done`. True if all output was the delayed input.
    fn play_until(&mut self, done: impl Fn(&View) -> bool) -> bool {
        let (start, mut exact) = (Instant::now(), true);
        while !done(&self.view()) {
            assert!(start.elapsed() < LOAD_TIMEOUT, "{:?}", self.view());
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

/// Writes a user's checkpoint file: `length` bytes of the embedded one, with a weight changed by `number`.
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
fn the_audio_thread_takes_no_lock() {
    let mut bench = Bench::new();
    bench.play_until_ready();
    let shared = bench.shared.0.clone();
    // Every lock is taken. The control thread waits, and an audio thread that needs a lock would too.
    let held = shared.lock_everything();
    let (done, told) = mpsc::channel();
    let player = std::thread::spawn(move || {
        for n in 0..400u16 {
            let params = &bench.shared.0.params;
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
fn a_lock_taken_by_the_audio_thread_would_be_detected() {
    let bench = Bench::new();
    let shared = bench.shared.0.clone();
    let held = shared.lock_everything();
    let (done, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        bench.view();
        bench.params.model.get();
        let _ = done.send(());
        bench
    });
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
    drop(held);
    assert!(told.recv_timeout(LOAD_TIMEOUT).is_ok());
    drop(reader.join());
}

#[test]
fn a_broken_model_is_reported_and_the_previous_one_continues() {
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
            ModelView::Failed(ModelLoadError::Broken { reason, .. }) => reason.contains(name),
            ModelView::Failed(ModelLoadError::Missing { path }) => path.contains(name),
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
fn an_activation_plans_for_the_wanted_model() {
    let mut bench = Bench::new();
    bench.play_until_ready();
    let there = bench.processor.latency();
    let spec = SavedModelSpec {
        rate: 44_100,
        chunk: 20_000,
        frame_hop: 441,
        frame: 2_048,
        context_window: None,
        stems: vec!["vocals".into()],
    };
    let restored = Selection { spec: Some(spec.clone()), ..Selection::file("/gone/x.ckpt".into(), None) };
    // As a host does it, before the control thread notices.
    bench.params.model.choose(restored);
    let stream_client = control::activate(&bench, Bench::host()).unwrap().unwrap();
    let wanted = Plan::new(Tier::Low.request(&spec.timing(), 44_100, HostSamples(512))).unwrap();
    assert_eq!(u64::from(stream_client.latency), wanted.latency().0);
    assert_ne!(stream_client.latency, there);
}

/// Renders with all stems muted, at full speed and without announcing it. Returns the largest residual once the render is detected and windows
/// arrive; `None` if the computer was so busy that the detector decided otherwise.
fn render_residual(bench: &mut Bench) -> Option<f32> {
    let mut loudest = 0f32;
    for block in 0..240 {
        let mut planes = [[0.25f32; 512]; 2];
        planes[0][block % 512] = -0.5;
        let mut main = planes.each_mut().map(|plane| plane.as_mut_slice());
        let transport = Transport::new(44_100.0);
        bench.processor.process_block(&bench.shared.0.params, &mut main, &mut [], &transport, None);
        if block >= 60 && !bench.shared.0.offline.load(Relaxed) {
            return None;
        }
        if block >= 90 {
            loudest = planes.iter().flatten().fold(loudest, |loudest, x| loudest.max(x.abs()));
        }
    }
    Some(loudest)
}

#[test]
fn an_unannounced_render_keeps_its_stems_when_a_state_changes_the_tier() {
    let left = (0..5).find_map(|_| {
        let mut bench = Bench::new();
        bench.play_until_ready();
        // A host loads a state and takes its time.
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
            assert!(started.elapsed() < LOAD_TIMEOUT, "{:?}", bench.view());
            std::thread::sleep(Duration::from_millis(20));
        }
        render_residual(&mut bench)
    });
    let left = left.expect("a render at an even pace");
    assert!(left < 1e-5, "{left}");
}

#[test]
fn an_empty_name_of_the_track_is_none() {
    let bench = Bench::new();
    for (name, expected) in
        [(" Lead vox ", Some("Lead vox")), ("", None), ("Bass", Some("Bass")), ("  ", None)]
    {
        bench.set_track_name(name);
        assert_eq!(bench.track_name().as_deref(), expected);
    }
}

#[test]
fn an_activation_discards_streams_opened_before_it() {
    let bench = Bench::new();
    let stream_client = control::activate(&bench, Bench::host()).unwrap().unwrap();
    let latency = stream_client.latency;
    // As the control thread leaves it when a host restarts the plugin meanwhile.
    assert!(bench.handoff.push(Box::new(stream_client)).is_ok());
    let again = control::activate(&bench, Bench::host()).unwrap().unwrap();
    assert!(bench.handoff.is_empty());
    assert_eq!(again.latency, latency);
}
