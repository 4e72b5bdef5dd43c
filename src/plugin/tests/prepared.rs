//! Prepared stems in an instance: learn, prepare, play.

use super::*;
use crate::audio::Planar;
use crate::embedded;
use crate::model::sidecar_config;
use crate::offline::memory;
use crate::offline::options::RenderOptions;
use crate::plugin::prepared::{self, PrepareCommand, PreparedView};
use crate::prepared::player::MatchState;
use crate::separator::{Runtime, Separator};

const SECONDS: usize = 5;
const SAMPLES: usize = SECONDS * 44_100 / 512 * 512;

/// Two channels of noise with the loudness of music, on the grid of 16 bits.
fn song(seed: u32) -> Planar {
    let mut state = seed;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    let mut level = 0.3;
    let mut plane = || {
        let mut sample = |i: usize| {
            if i.is_multiple_of(4_000) {
                level = 0.05 + 0.4 * (next() + 0.5);
            }
            ((0.3 * (i as f32 * 0.02).sin() + 0.5 * next()) * level * 32_768.0).round() / 32_768.0
        };
        (0..SAMPLES).map(&mut sample).collect::<Vec<f32>>()
    };
    Planar::from_equal(vec![plane(), plane()])
}

impl Bench {
    /// Plays `song` from song position `at`, and silence for one latency. Returns the output that belongs to the song. Waits for the matching, so that
    /// the result does not depend on the computer's load.
    fn play_song(&mut self, song: &Planar, at: i64) -> Planar {
        let latency = self.settled_latency();
        let mut out = Planar::new(2);
        let mut input = song.clone();
        input.append_silence(latency.next_multiple_of(512));
        for from in (0..input.samples()).step_by(512) {
            let mut block = input.slice(from..from + 512).into_planes();
            let mut transport = Transport::new(44_100.0);
            // Silence after the song is not part of what is heard.
            transport.playing = from < song.samples();
            transport.pos_samples = Some(at + from as i64);
            let mut planes: Vec<&mut [f32]> = block.iter_mut().map(Vec::as_mut_slice).collect();
            let shared = &self.shared.0;
            self.processor.process_block(&shared.params, &mut planes, &mut [], &transport, None);
            if let Some(exchange) = shared.prepared.exchange() {
                exchange.wait_until_seen(Duration::from_secs(20));
            }
            out.append(&Planar::from_equal(block));
        }
        assert_eq!(self.processor.latency() as usize, latency);
        out.drop_front(latency);
        out.truncate(song.samples());
        out
    }

    /// The latency when it no longer changes at rest: a model that was measured meanwhile may shorten it, after as much silence.
    fn settled_latency(&mut self) -> usize {
        loop {
            let before = self.processor.latency() as usize;
            for _ in 0..2 * before / 512 + 50 {
                let mut block = [[0f32; 512]; 2];
                let mut planes = block.each_mut().map(|plane| &mut plane[..]);
                let transport = Transport::new(44_100.0);
                self.processor.process_block(&self.shared.0.params, &mut planes, &mut [], &transport, None);
                std::thread::sleep(Duration::from_millis(1));
            }
            if self.processor.latency() as usize == before {
                return before;
            }
        }
    }

    fn prepared_view(&self) -> PreparedView {
        self.shared.0.prepared.view()
    }

    fn wait_for(&self, what: &str, done: impl Fn(&PreparedView) -> bool) {
        let started = Instant::now();
        while !done(&self.prepared_view()) {
            assert!(started.elapsed() < LOAD_TIMEOUT, "{what}: {:?}", self.prepared_view());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn mute_vocals(&self, mute: bool) {
        let value = if mute { 1.0 } else { 0.0 };
        // SAFETY: the parameter is alive.
        unsafe { self.params.vocals.mute.as_ptr()._internal_set_normalized_value(value) };
    }
}

/// The stem `name` of a whole separation, as the command line makes it.
fn reference(song: &Planar, name: &str) -> Planar {
    let checkpoint = embedded::checkpoint().unwrap();
    let config = sidecar_config::load(&checkpoint, None, None).unwrap();
    let mut separator = Separator::load(&checkpoint, &config, None, Runtime::default()).unwrap();
    let separated = memory::separate(&mut separator, song, 44_100, &RenderOptions::default(), &mut |_| {
        std::ops::ControlFlow::Continue(())
    });
    separated.unwrap().stems.into_iter().find(|(stem, _)| stem == name).unwrap().1
}

/// Largest difference from the input minus `stem`, without the first and last moments, in which stems fade.
fn worst(out: &Planar, song: &Planar, stem: &Planar) -> f32 {
    let mut worst = 0f32;
    for c in 0..2 {
        for i in 2_000..song.samples() - 2_000 {
            worst = worst.max((out.channel(c)[i] - (song.channel(c)[i] - stem.channel(c)[i])).abs());
        }
    }
    worst
}

#[test]
fn a_song_that_was_heard_is_prepared_and_plays_as_the_command_line_separates_it() {
    let mut bench = Bench::new();
    assert!(bench.play_until_ready());
    let (song, other) = (song(1), song(99));
    let vocals = reference(&song, "vocals");
    prepared::send(&bench, PrepareCommand::Learn(true));
    bench.wait_for("learning", |_| {
        bench.params.prepared.lock().learn
            && bench.prepared.exchange().is_some_and(|exchange| exchange.is_active())
    });
    // Learning: the output is the delayed input.
    std::thread::sleep(Duration::from_millis(300));
    assert!(bench.play_song(&song, 1_000) == song);
    bench.wait_for("heard", |view| {
        view.heard.iter().any(|range| range.start == 1_000 && range.end >= 1_000 + SAMPLES as i64)
    });
    prepared::send(&bench, PrepareCommand::PrepareHeard);
    bench.wait_for("prepared", |view| {
        view.job.is_none() && !view.prepared.is_empty() || view.problem.is_some()
    });
    assert_eq!(bench.prepared_view().problem, None);
    assert_eq!(bench.params.prepared.lock().songs.len(), 1, "the project keeps the key");

    // Prepared: unity is exact, and stems are those of the command line.
    assert!(bench.play_song(&song, 1_000) == song);
    bench.mute_vocals(true);
    bench.play_song(&song, 1_000);
    let out = bench.play_song(&song, 1_000);
    let error = worst(&out, &song, &vocals);
    assert!(error <= 2.0 / 8_388_608.0, "{error}");
    assert_eq!(bench.prepared_view().problem, None);

    // A loop, a moved clip, and another song at the same place.
    let part = song.slice(0..512 * 200);
    bench.play_song(&part, 1_000);
    let out = bench.play_song(&part, 1_000);
    assert!(worst(&out, &part, &vocals) <= 2.0 / 8_388_608.0);
    bench.play_song(&song, 441_000);
    let out = bench.play_song(&song, 441_000);
    assert!(worst(&out, &song, &vocals) <= 2.0 / 8_388_608.0, "found by its content");
    bench.play_song(&other, 1_000);
    bench.wait_for("a miss", |view| view.state == MatchState::Missed);
    bench.mute_vocals(false);
    bench.play_song(&other, 1_000);
    assert!(bench.play_song(&other, 1_000) == other, "unity is exact without a match");
}

#[test]
fn a_new_instance_plays_what_another_has_prepared_and_says_what_is_missing() {
    let song = song(7);
    let vocals = reference(&song, "vocals");
    let memory = {
        let mut bench = Bench::new();
        bench.play_until_ready();
        prepared::send(&bench, PrepareCommand::Learn(true));
        bench
            .wait_for("learning", |_| bench.prepared.exchange().is_some_and(|exchange| exchange.is_active()));
        std::thread::sleep(Duration::from_millis(300));
        bench.play_song(&song, 0);
        bench.wait_for("heard", |view| !view.heard.is_empty());
        prepared::send(&bench, PrepareCommand::PrepareHeard);
        bench.wait_for("prepared", |view| {
            view.job.is_none() && !view.prepared.is_empty() || view.problem.is_some()
        });
        bench.params.prepared.lock().clone()
    };
    let mut bench = Bench::new();
    {
        let mut restored = bench.params.prepared.lock();
        *restored = memory;
        restored.learn = false;
        restored.songs.insert("0".repeat(32), Some(0));
    }
    bench.play_until_ready();
    bench.send(ControlCommand::Reconcile);
    bench.wait_for("opened", |view| view.missing == 1 && view.prepared.iter().any(|range| range.start == 0));
    bench.mute_vocals(true);
    bench.play_song(&song, 0);
    let out = bench.play_song(&song, 0);
    assert!(worst(&out, &song, &vocals) <= 2.0 / 8_388_608.0);
    // Erased while it is in use: this instance lets go of it first.
    let id = bench.params.prepared.lock().songs.keys().find(|id| !id.starts_with("00")).unwrap().clone();
    prepared::send(&bench, PrepareCommand::Erase(id.clone()));
    bench.wait_for("erased", |view| {
        !view.entries.iter().any(|entry| entry.id == id) && view.prepared.iter().all(|range| range.start != 0)
    });
    assert_eq!(bench.prepared_view().problem, None);
}
