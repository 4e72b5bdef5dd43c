//! Removing an instance, as when a project closes: the host's main thread must not wait.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::kernels::JobControl;
use crate::live::{ModelSamples, ModelTiming, SharedModel, WindowError, WindowSeparator};
use crate::plugin::model_loader::hung_files;
use crate::separator::MaskRule;

/// What the host's main thread may wait for one instance.
const LIMIT: Duration = Duration::from_millis(100);

/// Waits until the control thread has reached a state.
fn wait_for(bench: &Bench, what: &str, done: impl Fn(&View) -> bool) {
    let start = Instant::now();
    while !done(&bench.view()) {
        assert!(start.elapsed() < LOAD_TIMEOUT, "{what}: {:?}", bench.view());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Plays until the selected file is loaded.
fn play_until_loaded(bench: &mut Bench) {
    let start = Instant::now();
    while bench.params.model.get().sha256.is_none() {
        assert!(start.elapsed() < LOAD_TIMEOUT, "{:?}", bench.view());
        bench.block();
        std::thread::sleep(Duration::from_millis(11));
    }
    bench.play_until(|view| matches!(view.model, ModelView::Ready { .. }));
}

/// Drops what a host's main thread drops, and returns how long that took. Repeated, because a busy computer may suspend it at any time.
fn fastest_drop<T>(make: impl Fn() -> T) -> Duration {
    let time = |_| {
        let made = make();
        let start = Instant::now();
        drop(made);
        start.elapsed()
    };
    (0..5).map(time).min().unwrap()
}

/// An instance as nice-plug's wrappers own it.
fn activated_instance() -> Instance {
    let mut instance = Instance::default();
    set(&instance.shared().params.tier, TierChoice::Low);
    set(&instance.shared().params.render, RenderMode::Realtime);
    let config = BufferConfig {
        sample_rate: 44_100.0,
        min_buffer_size: None,
        max_buffer_size: 512,
        process_mode: ProcessMode::Realtime,
    };
    assert!(instance.activate(&STEREO_LAYOUTS[0], &config, PluginApi::Vst3) > 0);
    instance
}

/// A slow model: it hears of a cancellation only between layers, each of which takes a second. Counts the layers.
struct Slow(Arc<AtomicUsize>);

impl WindowSeparator for Slow {
    fn stems(&self) -> usize {
        4
    }

    fn channels(&self) -> usize {
        2
    }

    fn timing(&self) -> ModelTiming {
        let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(ModelSamples);
        ModelTiming { rate: 44_100, chunk, frame_hop, frame, context: None }
    }

    fn separate_window(
        &mut self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
    ) -> Result<(), WindowError> {
        self.separate_controlled(window, rule, out, &())
    }

    fn separate_controlled(
        &mut self,
        _: &[f32],
        _: MaskRule,
        _: &mut [f32],
        control: &dyn JobControl,
    ) -> Result<(), WindowError> {
        for _ in 0..60 {
            if control.checkpoint().is_break() {
                return Err(WindowError("cancelled".into()));
            }
            self.0.fetch_add(1, Relaxed);
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }
}

/// An instance whose worker is in the middle of a layer of a slow model.
fn instance_with_a_slow_model() -> Instance {
    let mut instance = activated_instance();
    let shared = instance.shared().clone();
    let layers = Arc::new(AtomicUsize::new(0));
    let slow = SharedModel::new(Box::new(Slow(layers.clone()))).with_stems_at(&[0, 1, 2, 3], 6);
    let start = Instant::now();
    while !matches!(shared.view().model, ModelView::Ready { .. }) {
        assert!(start.elapsed() < LOAD_TIMEOUT, "{:?}", shared.view());
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut slowed = None;
    while layers.load(Relaxed) == 0 {
        assert!(start.elapsed() < LOAD_TIMEOUT);
        {
            // The control thread may open another stream meanwhile.
            let state = shared.stream_state.lock();
            let stream = state.stream.as_ref().unwrap();
            if slowed.as_ref().is_none_or(|status| !Arc::ptr_eq(status, &stream.status())) {
                slowed = Some(stream.status());
                stream.swap(Some(slow.clone())).unwrap();
            }
        }
        let mut planes = [[0.5f32; 512]; 2];
        let mut main = planes.each_mut().map(|plane| plane.as_mut_slice());
        let transport = Transport::new(44_100.0);
        let processor = instance.processor.as_mut().unwrap();
        processor.process_block(&shared.params, &mut main, &mut [], &transport, None);
        std::thread::sleep(Duration::from_millis(2));
    }
    instance
}

#[test]
fn dropping_an_instance_does_not_wait_for_a_slow_model() {
    let removal = fastest_drop(instance_with_a_slow_model);
    assert!(removal < LIMIT, "{removal:?}");
}

#[test]
fn dropping_an_instance_waits_neither_for_a_slow_model_nor_for_a_hanging_drive() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint(folder.path(), "on-another-dead-share.safetensors", usize::MAX, 11);
    hung_files::hang(&path);
    let removal = fastest_drop(|| {
        let instance = instance_with_a_slow_model();
        instance.shared().select(Selection::file(path.clone(), None));
        let start = Instant::now();
        while !matches!(instance.shared().view().model, ModelView::Loading(_)) {
            assert!(start.elapsed() < LOAD_TIMEOUT);
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(50));
        instance
    });
    hung_files::release(&path);
    assert!(removal < LIMIT, "{removal:?}");
}

#[test]
fn removing_an_instance_does_not_wait_for_a_hanging_drive() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint(folder.path(), "on-a-dead-share.safetensors", usize::MAX, 7);
    hung_files::hang(&path);
    let removal = fastest_drop(|| {
        let bench = Bench::new();
        bench.choose(&path);
        wait_for(&bench, "not loading", |view| matches!(view.model, ModelView::Loading(_)));
        // The loader has reached the drive.
        std::thread::sleep(Duration::from_millis(50));
        bench
    });
    hung_files::release(&path);
    assert!(removal < LIMIT, "{removal:?}");
}

#[test]
fn another_model_can_be_chosen_while_a_drive_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let hung = checkpoint(folder.path(), "hung.safetensors", usize::MAX, 8);
    let good = checkpoint(folder.path(), "good.safetensors", usize::MAX, 9);
    hung_files::hang(&hung);
    let mut bench = Bench::new();
    bench.choose(&hung);
    wait_for(&bench, "not loading", |view| matches!(view.model, ModelView::Loading(_)));
    bench.choose(&good);
    play_until_loaded(&mut bench);
    assert_eq!(bench.params.model.get().title, "good");
    hung_files::release(&hung);
    // The late result of the abandoned loader changes nothing.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(bench.params.model.get().title, "good");
}

#[test]
fn restoring_an_equal_state_does_not_load_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint(folder.path(), "again.safetensors", usize::MAX, 10);
    let mut bench = Bench::new();
    bench.choose(&path);
    play_until_loaded(&mut bench);
    let generation = bench.params.model.generation();
    let loaded =
        || bench.stream_state.lock().model.as_ref().map(|active| active.loaded.model.clone()).unwrap();
    let before = loaded();
    // If the file were read again, loading would hang.
    hung_files::hang(&path);
    for state in [bench.params.model.get(), Selection::file(path.clone(), None)] {
        nice_plug::params::persist::PersistentField::set(&bench.params.model, state);
        bench.send(ControlCommand::Reconcile);
        std::thread::sleep(Duration::from_millis(300));
        assert!(
            matches!(bench.view().model, ModelView::Ready { .. } | ModelView::Measuring),
            "{:?}",
            bench.view().model
        );
    }
    assert_eq!(bench.params.model.generation(), generation);
    assert!(loaded().is(&before));
    assert!(bench.params.model.get().sha256.is_some(), "what loading found out stays");
    hung_files::release(&path);
}
