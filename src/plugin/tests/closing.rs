//! Removing an instance, as when a project closes: the host's main thread must not wait.

use super::*;
use crate::plugin::model_loader::hung_files;

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

/// Ends an instance, and checks how long the main thread waited. Repeated, because a busy computer may suspend it at any time.
fn fastest_removal(make: impl Fn() -> Bench) -> Duration {
    (0..5)
        .map(|_| {
            let bench = make();
            let start = Instant::now();
            bench.shared.0.stop();
            start.elapsed()
        })
        .min()
        .unwrap()
}

#[test]
fn removing_an_instance_does_not_wait_for_a_hanging_drive() {
    let folder = tempfile::tempdir().unwrap();
    let path = checkpoint(folder.path(), "on-a-dead-share.safetensors", usize::MAX, 7);
    hung_files::hang(&path);
    let removal = fastest_removal(|| {
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
        assert!(matches!(bench.view().model, ModelView::Ready { .. }), "{:?}", bench.view().model);
    }
    assert_eq!(bench.params.model.generation(), generation);
    assert!(loaded().is(&before));
    assert!(bench.params.model.get().sha256.is_some(), "what loading found out stays");
    hung_files::release(&path);
}
