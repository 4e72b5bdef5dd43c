//! Prepared stems in hosts: `nullsum-cli cache prepare` leaves them, and the plugin plays them.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::host::{LOW, Layout, OFFLINE, RENDER, Run, TIER, both};
use crate::play::{Blocks, assert_delayed, play};
use crate::signal::Random;

const RATE: u32 = 44_100;
const SECONDS: usize = 8;
/// Until then the song is found by its content, where a host tells no position.
const FOUND: usize = 3 * RATE as usize;

/// Runs `nullsum-cli cache …` with `cache` as the cache folder. Returns what it prints, as JSON.
fn cache_command(cache: &Path, args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_nullsum-cli"))
        .args(["cache", "--json"])
        .args(args)
        .env("NULLSUM_CACHE", cache)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

/// Noise whose loudness changes as in music, on the grid of 16 bits.
fn music() -> Vec<Vec<f32>> {
    let channel = |seed: u64| {
        let mut random = Random::new(seed);
        let mut level = 0.0;
        let mut sample = |i: usize| {
            let mut unit = || f64::from(random.next()) / f64::from(u32::MAX);
            if i.is_multiple_of(3_000) {
                level = 0.05 + 0.5 * unit();
            }
            ((level * (unit() - 0.5) * 32_768.0).round() / 32_768.0) as f32
        };
        (0..SECONDS * RATE as usize).map(&mut sample).collect()
    };
    vec![channel(5), channel(6)]
}

fn write_song(path: &Path, song: &[Vec<f32>]) {
    let spec = hound::WavSpec {
        channels: song.len() as u16,
        sample_rate: RATE,
        bits_per_sample: 32,
        sample_format: hound::SampleFormat::Float,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for i in 0..song[0].len() {
        song.iter().for_each(|channel| writer.write_sample(channel[i]).unwrap());
    }
    writer.finalize().unwrap();
}

fn read_stem(path: &str, channel: usize) -> Vec<f32> {
    hound::WavReader::open(path)
        .unwrap()
        .samples::<f32>()
        .map(Result::unwrap)
        .skip(channel)
        .step_by(2)
        .collect()
}

both! {
    fn prepared_stems_are_those_of_the_command_line<H>() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, song_file) = (folder.path().join("cache"), folder.path().join("song.wav"));
        let song = music();
        write_song(&song_file, &song);
        let prepared = cache_command(&cache, &["prepare", "--model", "embedded", song_file.to_str().unwrap()]);
        let id = prepared["id"].as_str().unwrap();
        let out = folder.path().join("stems");
        let exported = cache_command(&cache, &["export", id, "-o", out.to_str().unwrap()]);
        let files: Vec<&str> = exported["outputs"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
        let mut host = H::create(Layout::Multi);
        // After the library was loaded, which gives the tests a cache of their own.
        // SAFETY: each test has a process of its own, and no thread of the plugin runs yet.
        unsafe { std::env::set_var("NULLSUM_CACHE", &cache) };
        host.set(TIER, LOW);
        host.set(RENDER, OFFLINE);
        let mut state: Value = serde_json::from_slice(&host.save()).unwrap();
        state["fields"]["prepared"] = json!(json!({ "songs": { id: null } }).to_string());
        assert!(host.load(state.to_string().as_bytes()), "{}", H::FORMAT);
        host.activate(Run::offline(RATE, 512));
        let latency = host.latency();
        let mut input = song.clone();
        input.iter_mut().for_each(|channel| channel.resize(SECONDS * RATE as usize + latency, 0.0));
        let mut output = play(&mut host, &input, Blocks::Fixed(512));
        assert_delayed(H::FORMAT, &input, &output[0], latency);
        for channel in output.iter_mut().flatten() {
            channel.drain(..latency);
        }
        // The strips of the embedded model, in their order.
        for (bus, stem) in [(1, "vocals"), (2, "drums"), (3, "bass"), (4, "other")] {
            let file = files.iter().find(|file| file.contains(&format!("({stem})"))).unwrap();
            for (channel, heard) in output[bus].iter().enumerate().take(2) {
                let expected = read_stem(file, channel);
                let last = song[0].len() - 2_000;
                let pairs = || heard[FOUND..last].iter().zip(&expected[FOUND..last]);
                let worst = pairs().map(|(x, y)| (x - y).abs()).fold(0f32, f32::max);
                assert!(worst <= 2.0 / 8_388_608.0, "{}: {stem}: {worst}", H::FORMAT);
            }
        }
        let saved: Value = serde_json::from_slice(&host.save()).unwrap();
        let kept: Value = serde_json::from_str(saved["fields"]["prepared"].as_str().unwrap()).unwrap();
        assert!(kept["songs"].get(id).is_some(), "the project keeps the key: {kept}");
    }
}
