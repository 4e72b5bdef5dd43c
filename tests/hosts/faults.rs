//! Models that cannot be loaded, produce invalid numbers, or are too slow, selected during playback.

use std::path::Path;

use serde_json::json;

use crate::host::{Host, Layout, OFFLINE, RENDER, Run, both, steady};
use crate::models::{self, BROKEN, Kind, Models, choose_known, is_loaded};
use crate::play::{Heard, Song};
use crate::signal::grid;

const BLOCK: usize = 441;

/// An instance that plays in real time.
fn playing<H: Host>(prepare: impl FnOnce(&mut H)) -> (H, Song) {
    let mut host: H = steady(Layout::Stereo);
    prepare(&mut host);
    host.activate(Run::live(44100, BLOCK));
    let mut song = Song::new(grid(2, 1 << 17));
    song.keep_time();
    (host, song)
}

/// Selects a model during playback.
fn choose<H: Host>(host: &mut H, song: &mut Song, checkpoint: &Path) {
    models::choose(host, checkpoint);
    if H::RESTORES_ANEW {
        song.restart();
    }
}

/// Plays until `done`, for at most a minute. Returns what was heard.
fn play_until<H: Host>(
    host: &mut H,
    song: &mut Song,
    what: &str,
    mut done: impl FnMut(&mut H, Heard) -> bool,
) -> Heard {
    let mut all = Heard::default();
    for _ in 0..600 {
        let heard = song.play(host, BLOCK, 0.1);
        all = Heard { exact: all.exact + heard.exact, changed: all.changed + heard.changed };
        if done(host, heard) {
            return all;
        }
    }
    panic!("{}: {what}: not within a minute", H::FORMAT);
}

/// Longer than the tier's latency, so that earlier output was played.
const PAST: f64 = 0.7;

/// Checks that stems are audible once earlier output was played: with one muted, the output differs from the input everywhere. Rendered offline, so
/// that the result does not depend on the load of the computer. The first block waits until the selected model is loaded, or failed to load.
fn stems_are_heard<H: Host>(host: &mut H, song: &mut Song, what: &str) {
    host.set(RENDER, OFFLINE);
    song.hurry();
    song.play(host, BLOCK, PAST);
    let heard = song.play(host, BLOCK, 0.5);
    assert_eq!(heard.exact, 0, "{}: {what}: the stems are gone: {heard:?}", H::FORMAT);
}

both! {
    fn whatever_is_chosen_while_it_plays_the_dry_signal_stays_exact<H>() {
        let models = Models::new();
        let (mut host, mut song) = playing::<H>(|_| ());
        for kind in BROKEN.into_iter().chain([Kind::Huge, Kind::Good(1)]) {
            let checkpoint = models.write(kind);
            choose(&mut host, &mut song, &checkpoint);
            let heard = if BROKEN.contains(&kind) {
                song.play(&mut host, BLOCK, 0.4)
            } else {
                let loaded = play_until(&mut host, &mut song, &format!("{kind:?}"), |host, _| is_loaded(host, &checkpoint));
                let after = song.play(&mut host, BLOCK, 0.6);
                Heard { exact: loaded.exact + after.exact, changed: loaded.changed + after.changed }
            };
            assert_eq!(heard.changed, 0, "{} {kind:?}: {heard:?}", H::FORMAT);
        }
    }

    fn a_model_that_cannot_be_loaded_leaves_the_one_before_playing<H>() {
        let models = Models::new();
        let (mut host, mut song) = playing::<H>(|host| host.set("Drums Mute", 1.0));
        stems_are_heard(&mut host, &mut song, "the first model");
        for kind in BROKEN {
            choose(&mut host, &mut song, &models.write(kind));
            stems_are_heard(&mut host, &mut song, &format!("the model before {kind:?}"));
        }
        let good = models.write(Kind::Good(2));
        choose(&mut host, &mut song, &good);
        stems_are_heard(&mut host, &mut song, "a good model");
        assert!(is_loaded(&mut host, &good), "{}", H::FORMAT);
    }

    fn a_model_of_huge_weights_gives_numbers_and_a_good_one_after_it_plays<H>() {
        let models = Models::new();
        let (mut host, mut song) = playing::<H>(|host| host.set("Drums Mute", 1.0));
        stems_are_heard(&mut host, &mut song, "the first model");
        let huge = models.write(Kind::Huge);
        choose(&mut host, &mut song, &huge);
        song.play(&mut host, BLOCK, PAST);
        assert!(is_loaded(&mut host, &huge), "{}", H::FORMAT);
        // Whatever the model does, the song fails at the first sample that is not a number.
        song.play(&mut host, BLOCK, PAST);
        choose(&mut host, &mut song, &models.write(Kind::Good(3)));
        stems_are_heard(&mut host, &mut song, "a good model");
    }

    fn models_swapped_every_fifth_of_a_second_leave_no_gap<H>() {
        let models = Models::new();
        let good: Vec<_> = (4..7).map(|number| models.write(Kind::Good(number))).collect();
        let (mut host, mut song) = playing::<H>(|_| ());
        for swap in 0..20 {
            choose(&mut host, &mut song, &good[swap % good.len()]);
            let heard = song.play(&mut host, BLOCK, 0.2);
            assert_eq!(heard.changed, 0, "{} swap {swap}: {heard:?}", H::FORMAT);
        }
        host.set("Drums Mute", 1.0);
        stems_are_heard(&mut host, &mut song, "the last model");
    }

    /// Frames of ten samples need thousands of hops a second, which hardly any computer keeps up with.
    fn a_worker_that_never_keeps_up_leaves_the_dry_signal_exact<H>() {
        let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/bs_seed_stereo_four_stems/model.ckpt");
        let known = json!({ "rate": 44100, "chunk": 70, "frame_hop": 10, "frame": 24, "context_window": 24, "stems": ["drums", "bass", "other", "vocals"] });
        let (mut host, mut song) = playing::<H>(|host| choose_known(host, &checkpoint, known));
        let heard = play_until(&mut host, &mut song, "the model", |host, _| is_loaded(host, &checkpoint));
        assert_eq!(heard.changed, 0, "{}: while it loads: {heard:?}", H::FORMAT);
        let heard = song.play(&mut host, BLOCK, 1.5);
        assert_eq!(heard.changed, 0, "{}: {heard:?}", H::FORMAT);
    }
}
