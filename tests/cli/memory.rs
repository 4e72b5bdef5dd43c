//! Memory does not grow with the length of a song.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests; a failure is a failed test")]
#![cfg(target_os = "linux")]

use std::process::Stdio;
use std::time::Duration;

use nullsum::audio::{AudioWriter, Container, Planar, SampleFormat, WriterSpec};
use nullsum::dsp::Random;

use super::support::Studio;

/// Most memory that a song of any length may take, in KiB.
const MOST_KIB: u64 = 64 << 10;

/// A song of noise, written a second at a time.
fn write_noise(studio: &Studio, name: &str, seconds: usize) {
    let spec = WriterSpec {
        container: Container::Wav,
        format: SampleFormat::Pcm16,
        channels: 2,
        sample_rate: 44_100,
    };
    let mut random = Random::new(3);
    let mut plane = || (0..44_100).map(|_| (random.bipolar() * 9000.0).round() / 32_768.0).collect();
    let second = Planar::from_planes(vec![plane(), plane()]).unwrap();
    let mut writer = AudioWriter::create(studio.path(name), spec).unwrap();
    for _ in 0..seconds {
        writer.write(&second).unwrap();
    }
    writer.finish().unwrap();
}

/// Highest resident memory of a run, in KiB, as the system counts it.
fn peak_kib(studio: &Studio, model: &str, line: &[&str]) -> u64 {
    let args = [&["--model", model, "--quiet", "--threads", "1"], line].concat();
    let mut child = studio.command(&args).stdout(Stdio::null()).spawn().unwrap();
    let status_of = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let code = loop {
        let status = std::fs::read_to_string(&status_of).unwrap_or_default();
        let found = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let found = found.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse().ok());
        peak = peak.max(found.unwrap_or(0));
        if let Some(code) = child.try_wait().unwrap() {
            break code;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(code.success(), "{line:?}");
    peak
}

#[test]
#[ignore = "takes minutes on a busy machine: cargo test --release --test cli a_longer_song -- --ignored --nocapture"]
fn a_longer_song_takes_no_more_memory() {
    let studio = Studio::new();
    write_noise(&studio, "short.wav", 10);
    write_noise(&studio, "long.wav", 80);
    for kind in ["wav", "flac", "stem.m4a"] {
        let [short, long] = ["short.wav", "long.wav"]
            .map(|song| peak_kib(&studio, "model.safetensors", &["--format", kind, song]));
        println!("{kind}: {short} KiB for 10 s, {long} KiB for 80 s");
        assert!(long < short + 4096 && long < MOST_KIB, "{kind}: {short} KiB, then {long} KiB");
    }
}

#[test]
#[ignore = "takes minutes: cargo test --release --test cli hour -- --ignored --nocapture"]
fn an_hour_takes_64_mib() {
    let studio = Studio::new();
    write_noise(&studio, "hour.wav", 3600);
    let model = std::env::var("NULLSUM_TEST_MODEL").unwrap_or_else(|_| "model.safetensors".into());
    let peak = peak_kib(&studio, &model, &["--stems", "bass", "hour.wav"]);
    println!("an hour with {model}: {:.1} MiB", peak as f64 / 1024.0);
    assert!(peak < MOST_KIB, "{peak} KiB");
}
