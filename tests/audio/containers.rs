//! Containers and codecs of all kinds, in files that ffmpeg made (see `tests/fixtures/audio/README.md`).

use std::f64::consts::TAU;

use nullsum::audio::{Decoder, SourceFormat};
use nullsum::dsp::snr_db;

use crate::make::{decode, fixture, read_all};

/// One channel of the song that all fixtures hold.
fn tone(samples: usize, channel: usize, sample_rate: u32) -> Vec<f32> {
    let (hertz, level) = [(440.0, 0.4), (660.0, 0.3)][channel];
    let sample = |n: usize| level * (TAU * hertz * n as f64 / f64::from(sample_rate)).sin();
    (0..samples).map(|n| sample(n) as f32).collect()
}

#[test]
fn every_container_is_read_in_time_and_whole() {
    // File, container, codec, rate, samples before the music, samples of music, how close the codec comes in dB.
    let table = [
        ("tone.mka", "Matroska", "FLAC", 44_100, 0, 11_025, 85.0),
        // Matroska states no encoder delay of AAC, and neither does MP3 in WAV.
        ("tone.mkv", "Matroska", "AAC", 44_100, 1024, 11_025, 12.0),
        ("tone.webm", "Matroska", "Vorbis", 44_100, 0, 11_025, 20.0),
        ("tone_opus.webm", "Matroska", "Opus", 48_000, 0, 12_000, 20.0),
        ("tone.caf", "CAF", "ALAC", 44_100, 0, 2646, 85.0),
        ("tone_pcm.caf", "CAF", "PCM", 44_100, 0, 1323, 85.0),
        ("tone.mov", "MP4", "AAC", 44_100, 0, 11_025, 12.0),
        ("tone.3gp", "MP4", "AAC", 44_100, 0, 11_025, 12.0),
        // With a video track in front.
        ("tone.m4v", "MP4", "AAC", 44_100, 0, 11_025, 12.0),
        ("tone_ima.wav", "WAV", "ADPCM_IMA_WAV", 44_100, 0, 11_025, 20.0),
        ("tone_ms.wav", "WAV", "ADPCM_MS", 44_100, 0, 11_025, 20.0),
        ("tone_mp3.wav", "MP3", "MP3", 44_100, 1105, 11_025, 20.0),
    ];
    let mut wrong = Vec::new();
    for (name, container, codec, sample_rate, delay, samples, db) in table {
        let mut decoder = Decoder::open(fixture(name)).unwrap();
        let all = read_all(&mut decoder, 3000).unwrap();
        let info = decoder.info().clone();
        // Some containers do not state the padding at the end, which then is decoded too.
        let padding = if db > 80.0 { 0 } else { 2500 };
        let count = samples - 500.min(samples / 4);
        let snr = |channel: usize| match all.channel(channel).get(delay..delay + count) {
            // The first block of a lossy codec is less exact.
            Some(found) => snr_db(&tone(count, channel, sample_rate)[count / 4..], &found[count / 4..]),
            None => f64::NEG_INFINITY,
        };
        let is_right = (info.container.as_str(), info.codec.as_str()) == (container, codec)
            && (info.sample_rate, info.channels) == (sample_rate, 2)
            && (delay + samples..=delay + samples + padding).contains(&all.samples())
            && (0..2).all(|channel| snr(channel) > db)
            && info.sample_format == depth(name)
            && decoder.warnings().is_empty();
        println!(
            "{name}: {info:?}, {} samples, {:.1} and {:.1} dB, {:?}",
            all.samples(),
            snr(0),
            snr(1),
            decoder.warnings()
        );
        if !is_right {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}; run with --nocapture");
}

/// The depth that stems of a fixture get.
fn depth(name: &str) -> SourceFormat {
    match name {
        "tone.mka" | "tone.caf" => SourceFormat::Int16,
        "tone_pcm.caf" => SourceFormat::Int24,
        _ => SourceFormat::Lossy,
    }
}

/// Positions of the size of `data` and of the samples in a WAV file.
fn data_chunk(bytes: &[u8]) -> (usize, usize) {
    let at = bytes.windows(4).position(|word| word == b"data").unwrap();
    (at + 4, at + 8)
}

#[test]
fn compressed_wav_files_that_state_less_than_they_hold_are_read_to_their_end() {
    for name in ["tone_ima.wav", "tone_ms.wav", "tone_mp3.wav"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let expected = decode(whole.clone()).unwrap();
        let (size_at, data_at) = data_chunk(&whole);
        let held = (whole.len() - data_at) as u32;
        let list = b"LIST\x04\0\0\0INFO";
        let table: [(&str, u32, u32, &[u8]); 6] = [
            ("0", 0, 0, b""),
            ("0, RIFF right", whole.len() as u32 - 8, 0, b""),
            ("half", whole.len() as u32 - 8, held / 2, b""),
            ("unknown", u32::MAX, u32::MAX, b""),
            ("half, chunk behind", 0, held / 2, list),
            ("right, chunk behind", 0, u32::from_le_bytes(whole[size_at..data_at].try_into().unwrap()), list),
        ];
        for (case, riff, size, after) in table {
            let mut bytes = [&whole, after].concat();
            bytes[4..8].copy_from_slice(&riff.to_le_bytes());
            bytes[size_at..data_at].copy_from_slice(&size.to_le_bytes());
            let all = decode(bytes).unwrap();
            assert!(all == expected, "{name}, {case}: {} of {}", all.samples(), expected.samples());
        }
        let cut = whole[..whole.len() - 500].to_vec();
        assert!(decode(cut).is_err(), "{name}: the end is missing");
    }
}

#[test]
fn audio_that_starts_late_in_a_video_gets_its_silence() {
    let mut decoder = Decoder::open(fixture("tone_late.mkv")).unwrap();
    let all = read_all(&mut decoder, 3000).unwrap();
    // Half a second, as exactly as the milliseconds of the container and the encoder's delay tell.
    let late = all.channel(0).iter().position(|sample| sample.abs() > 0.05).unwrap();
    assert!((21_000..23_100).contains(&late), "{late}");
    assert!((late + 11_025 - 100..late + 14_000).contains(&all.samples()), "{}", all.samples());
    assert!(all.channel(0)[..20_000].iter().all(|sample| *sample == 0.0));
}
