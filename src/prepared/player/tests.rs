use super::*;
use crate::live::StemOverlay;
use crate::prepared::align::Envelope;
use crate::prepared::block::BLOCK;
use crate::prepared::entry::NewEntry;
use crate::prepared::key::{ContentHash, Key, Settings};
use crate::prepared::store::Store;

const RATE: u32 = 44_100;
const FADE: usize = 441;
const LATENCY: usize = 4_096;
const CHUNK: usize = 256;

/// Noise whose loudness changes as in music, on the grid of 16 bits.
pub(super) fn music(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    let mut level = 0.5;
    (0..count)
        .map(|i| {
            if i % 3_000 == 0 {
                level = 0.05 + (next() + 0.5) * 0.5;
            }
            (level * next() * 32_768.0).round() / 32_768.0
        })
        .collect()
}

/// The stem of a song: any function of the mixture will do.
fn stem_of(x: f32) -> f32 {
    0.25 * x
}

/// Prepares `song`, of one channel and two stems, of which `prepared` samples are done.
fn prepare(store: &Store, song: &[f32], prepared: usize, at: Option<i64>) -> String {
    let planes = Planar::from_equal(vec![song.to_vec()]);
    let mut hash = ContentHash::new(RATE, 1);
    hash.add(&planes);
    let settings = Settings {
        rate: RATE,
        chunk: 1,
        overlap: 1.0,
        lossless: "spectral".into(),
        precision: "f32".into(),
        tta: false,
        shifts: 1,
        normalize: false,
    };
    let new = NewEntry {
        key: Key { audio: hash.finish(), model: "m".into(), settings },
        title: "T".into(),
        model: "M".into(),
        stems: vec!["vocals".into(), "other".into()],
        channels: 1,
        samples: song.len() as u64,
        at,
    };
    let mut envelope = Envelope::default();
    envelope.add(song);
    let mut writer = store.write(new).unwrap();
    let stems = song[..prepared].iter().map(|x| stem_of(*x)).collect::<Vec<_>>();
    let rest = song[..prepared].iter().map(|x| x - stem_of(*x)).collect();
    for (part, planes) in [
        (Part::Audio, planes),
        (Part::Envelope, Planar::from_equal(vec![envelope.steps().to_vec()])),
        (Part::Stems, Planar::from_equal(vec![stems, rest])),
    ] {
        writer.keep_blocks(part, 0).unwrap();
        writer.append(part, &planes).unwrap();
        if part != Part::Stems || prepared == song.len() {
            writer.finish(part).unwrap();
        }
    }
    writer.commit().unwrap();
    writer.id().to_owned()
}

/// What the audio thread hears one latency after each sample of input.
struct Heard {
    input: Vec<f32>,
    weights: Vec<f32>,
    stems: Vec<f32>,
}

struct Host {
    _folder: tempfile::TempDir,
    store: Store,
    exchange: Arc<Exchange>,
    player: Player,
    heard: Heard,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_cache(folder.path());
        let exchange = Arc::new(Exchange::new(RATE, 1, 3));
        let player = Player::new(exchange.clone());
        let heard = Heard { input: Vec::new(), weights: Vec::new(), stems: Vec::new() };
        Self { _folder: folder, store, exchange, player, heard }
    }

    /// Uses prepared songs; their first stem goes to strip 2.
    fn use_songs(&mut self, ids: &[String]) {
        let songs =
            ids.iter().map(|id| Song::new(self.store.open(id).unwrap(), vec![Some(2), Some(0)], None));
        self.player.set_songs(songs.collect());
    }

    /// Plays `input` from song position `at` on.
    fn play(&mut self, at: Option<i64>, input: &[f32]) {
        let mut done = 0;
        // Blocks of changing sizes.
        for size in [64, 500, 1, 777].into_iter().cycle() {
            if done == input.len() {
                break;
            }
            let size = size.min(input.len() - done);
            let mut block = input[done..done + size].to_vec();
            self.exchange.push(&[&mut block], at.map(|at| at + done as i64));
            self.player.step();
            self.heard.input.extend(&block);
            done += size;
            self.listen();
        }
    }

    /// Reads what is due, one latency after the input.
    fn listen(&mut self) {
        let due = (self.exchange.position() as usize).saturating_sub(LATENCY);
        while self.heard.weights.len() < due {
            let at = self.heard.weights.len();
            let count = CHUNK.min(due - at);
            assert!(self.exchange.decided() >= (at + count + FADE) as u64, "decided late, at {at}");
            let (mut weights, mut stems) = (vec![0.0; count], vec![0.0; count]);
            self.exchange.read_weights(at as u64, &mut weights);
            self.exchange.read_stem(2, 0, at as u64, &mut stems);
            self.heard.weights.extend(weights);
            self.heard.stems.extend(stems);
        }
    }

    /// Plays silence until all is heard, and checks what must always hold. Returns the weights.
    fn finish(&mut self, gain: f32) -> Vec<f32> {
        let count = self.heard.input.len();
        self.play(None, &vec![0.0; LATENCY + CHUNK]);
        for i in 0..count {
            let (weight, stem) = (self.heard.weights[i], self.heard.stems[i]);
            assert!((0.0..=1.0).contains(&weight));
            if weight > 0.0 {
                let expected = stem_of(self.heard.input[i] / gain) * gain;
                assert!(
                    (stem - expected).abs() <= 1e-4 * gain.max(1.0),
                    "at {i}: {stem} instead of {expected}"
                );
                if gain == 1.0 {
                    assert!(stem == stem_of(self.heard.input[i]) || self.is_inexact(), "bit for bit, at {i}");
                }
            }
        }
        for (i, pair) in self.heard.weights.windows(2).enumerate() {
            assert!((pair[1] - pair[0]).abs() <= 1.5 / FADE as f32, "a step at {i}");
        }
        self.heard.weights[..count].to_vec()
    }

    fn is_inexact(&self) -> bool {
        matches!(self.player.state(), MatchState::Missed | MatchState::Matched { .. })
            && self.heard.input.iter().any(|x| (x * 32_768.0).fract() != 0.0)
    }
}

/// Share of samples where only prepared stems are heard.
fn covered(weights: &[f32]) -> f64 {
    weights.iter().filter(|w| **w == 1.0).count() as f64 / weights.len().max(1) as f64
}

#[test]
fn a_prepared_song_plays_from_its_first_to_its_last_sample() {
    let song = music(1, 5 * BLOCK + 77);
    let mut host = Host::new();
    let id = prepare(&host.store, &song, song.len(), Some(1_000));
    host.use_songs(&[id]);
    host.play(Some(1_000), &song);
    let weights = host.finish(1.0);
    assert!(weights[FADE..song.len() - FADE].iter().all(|w| *w == 1.0));
}

#[test]
fn old_stems_never_sound_over_another_song() {
    let (song, other) = (music(1, 4 * BLOCK), music(2, 4 * BLOCK));
    let mut host = Host::new();
    let id = prepare(&host.store, &song, song.len(), Some(0));
    host.use_songs(&[id]);
    // Another song at the same place, then a change from one to the other in the middle, at an odd place.
    host.play(Some(0), &other);
    let cut = BLOCK + 12_345;
    let mixed: Vec<f32> = song[..cut].iter().chain(&other[cut..]).copied().collect();
    host.play(Some(0), &mixed);
    let weights = host.finish(1.0);
    assert!(weights[..other.len()].iter().all(|w| *w == 0.0));
    let second = &weights[other.len()..];
    assert!(second[FADE..cut - 2 * FADE].iter().all(|w| *w == 1.0));
    assert!(second[cut..].iter().all(|w| *w == 0.0), "not one sample");
}

#[test]
fn a_loop_and_a_scrub_follow_the_song_position() {
    let song = music(1, 6 * BLOCK);
    let mut host = Host::new();
    let id = prepare(&host.store, &song, song.len(), Some(-5_000));
    host.use_songs(&[id]);
    for _ in 0..5 {
        host.play(Some(-5_000 + 30_000), &song[30_000..70_003]);
    }
    for at in [150_000, 3, 99_999, 40_000, 40_001] {
        host.play(Some(-5_000 + at as i64), &song[at..at + 3_000]);
    }
    let weights = host.finish(1.0);
    assert!(weights[FADE..weights.len() - FADE].iter().all(|w| *w == 1.0), "no gap at a jump");
}

#[test]
fn one_step_and_three_decibels_play_on() {
    let song = music(1, 6 * BLOCK);
    for (name, gain, change) in [("1 LSB", 1.0, 1.0 / 32_768.0), ("3 dB", 1.412_537_5, 0.0)] {
        let mut host = Host::new();
        let id = prepare(&host.store, &song, song.len(), Some(0));
        host.use_songs(&[id]);
        let input: Vec<f32> = song
            .iter()
            .enumerate()
            .map(|(i, x)| gain * x + if i % 2 == 0 { change } else { 0.0 } * 0.999)
            .collect();
        host.play(Some(0), &input);
        let weights = host.finish(gain);
        let half = RATE as usize / 2 + 2 * FADE;
        assert!(weights[half..input.len() - FADE].iter().all(|w| *w == 1.0), "{name}");
        assert!(
            weights[..half / 2].iter().all(|w| *w == 0.0),
            "{name}: one gain must hold for half a second"
        );
    }
}

#[test]
fn a_moved_clip_is_found_by_its_content_with_and_without_a_transport() {
    let song = music(1, 8 * BLOCK);
    for at in [Some(441_000 + 17), None] {
        let mut host = Host::new();
        let other = prepare(&host.store, &music(5, 3 * BLOCK), 3 * BLOCK, Some(0));
        let id = prepare(&host.store, &song, song.len(), Some(0));
        host.use_songs(&[other, id]);
        host.play(at, &song[5_000..]);
        let first = host.finish(1.0);
        let found = first.iter().position(|w| *w > 0.0).unwrap();
        assert!(found < 2 * RATE as usize, "{at:?}: found after {found} samples");
        assert!(covered(&first[found + FADE..first.len() - FADE]) == 1.0, "{at:?}");
        if at.is_some() {
            // The second time, at once.
            host.play(at, &song[5_000..20_000]);
            let all = host.finish(1.0);
            let second = &all[all.len() - 15_000..];
            assert!(second[FADE..15_000 - 2 * FADE].iter().all(|w| *w == 1.0));
        }
    }
}

#[test]
fn a_half_prepared_song_plays_as_far_as_it_goes_and_on_after_a_reload() {
    let song = music(1, 4 * BLOCK);
    let mut host = Host::new();
    let id = prepare(&host.store, &song, 2 * BLOCK, Some(0));
    host.use_songs(std::slice::from_ref(&id));
    host.play(Some(0), &song);
    let weights = host.finish(1.0);
    assert!(weights[FADE..2 * BLOCK - FADE - PIECE].iter().all(|w| *w == 1.0));
    assert!(weights[2 * BLOCK..].iter().all(|w| *w == 0.0));
    prepare(&host.store, &song, 4 * BLOCK, Some(0));
    host.player.songs_mut().iter_mut().for_each(Song::reload);
    host.play(Some(0), &song);
    let weights = host.finish(1.0);
    assert!(covered(&weights[weights.len() - song.len() + FADE..weights.len() - 2 * FADE]) == 1.0);
}

#[test]
fn damage_while_playing_ends_in_a_miss_with_a_reason() {
    let song = music(1, 12 * BLOCK);
    for damage in ["truncated", "deleted and replaced", "a byte"] {
        let mut host = Host::new();
        let id = prepare(&host.store, &song, song.len(), Some(0));
        host.use_songs(std::slice::from_ref(&id));
        host.play(Some(0), &song[..2 * BLOCK]);
        let file = host.store.folder().join(&id).join("stems.bin");
        match damage {
            "truncated" => std::fs::File::options().write(true).open(&file).unwrap().set_len(70_000).unwrap(),
            "a byte" => {
                use std::io::{Seek, Write};
                let mut file = std::fs::File::options().write(true).open(&file).unwrap();
                file.seek(std::io::SeekFrom::Start(8 * 6 * BLOCK as u64)).unwrap();
                file.write_all(&[0x55; 64]).unwrap();
            }
            _ => {
                std::fs::remove_dir_all(host.store.folder()).unwrap();
            }
        }
        host.play(Some(2 * BLOCK as i64), &song[2 * BLOCK..]);
        let weights = host.finish(1.0);
        assert!(weights[FADE..BLOCK].iter().all(|w| *w == 1.0), "{damage}");
        // An open file outlives its name.
        if damage != "deleted and replaced" {
            assert!(weights[10 * BLOCK..].iter().all(|w| *w == 0.0), "{damage}");
            assert!(
                host.player.songs()[0].problem().is_some_and(|why| why.contains("stems.bin")),
                "{damage}"
            );
        }
    }
}

#[test]
fn what_is_heard_is_recorded_by_song_position() {
    let song = music(1, 2 * BLOCK);
    let mut host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    host.player.set_recording(Some(Recording::new(folder.path(), RATE, 1, 1 << 30).unwrap()));
    host.play(Some(10_000), &song[10_000..50_000]);
    host.play(None, &[0.5; 1_000]);
    host.play(Some(0), &song[..20_000]);
    let recording = host.player.recording().unwrap();
    assert_eq!(recording.heard().iter().cloned().collect::<Vec<_>>(), vec![0..50_000]);
    assert_eq!(recording.read(0..50_000).unwrap().channel(0), &song[..50_000]);
}

#[test]
fn a_player_that_slept_too_long_leaves_out_what_is_lost() {
    let song = music(1, 40 * BLOCK);
    let mut host = Host::new();
    let id = prepare(&host.store, &song, song.len(), Some(0));
    host.use_songs(&[id]);
    for (n, block) in song.chunks(512).enumerate() {
        let mut block = block.to_vec();
        host.exchange.push(&[&mut block], Some(512 * n as i64));
        // Asleep for 20 seconds from the second on.
        if !(100..1_900).contains(&n) {
            host.player.step();
        }
    }
    let at = host.exchange.position();
    assert!(host.exchange.decided() + 2 * FADE as u64 >= at, "it goes on with what is new");
    let mut weights = vec![9.0; 20_000];
    host.exchange.read_weights(1_800 * 512, &mut weights);
    assert!(weights.iter().all(|w| *w == 0.0), "nothing is played of what was lost");
    assert!(matches!(host.player.state(), MatchState::Matched { gain: 1.0 }));
}

#[test]
fn without_song_positions_a_song_is_found_after_any_lead_in() {
    let song = music(5, 8 * RATE as usize);
    for lead in [0, 1, 100, 256, 777, 5_000, 44_100] {
        let mut host = Host::new();
        let id = prepare(&host.store, &song, song.len(), None);
        host.use_songs(&[id]);
        host.play(None, &vec![0.0; lead]);
        host.play(None, &song);
        let weights = host.finish(1.0);
        let found = weights.iter().position(|w| *w > 0.0);
        assert!(
            found.is_some_and(|found| found < lead + 3 * RATE as usize),
            "after {lead} samples: {found:?}"
        );
    }
}
