//! Stem files: the song and four stems in one file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests; a failure is a failed test")]

use std::path::Path;

use nullsum::audio::{Decoder, Origin, Planar, SampleFormat, SourceFormat};

use super::support::{Spec, Studio, read};

/// Names of the stems, in the order of the tracks behind the song.
const STEMS: [&str; 4] = ["drums", "bass", "other", "vocals"];

/// Track `n` of a stem file, read by our own reader from a copy in which all other tracks are hidden.
pub fn read_track(path: &Path, n: usize) -> (SourceFormat, Planar) {
    let mut bytes = std::fs::read(path).unwrap();
    let movie = bytes.windows(4).rposition(|word| word == b"moov").unwrap();
    let tracks: Vec<usize> =
        (movie..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(b"trak")).collect();
    assert_eq!(tracks.len(), 5);
    for (other, at) in tracks.into_iter().enumerate().filter(|(other, _)| *other != n) {
        assert!(other < 5);
        bytes[at..at + 4].copy_from_slice(b"free");
    }
    let mut decoder = Decoder::from_source(Box::new(std::io::Cursor::new(bytes)), path).unwrap();
    let format = decoder.info().sample_format;
    let mut all = Planar::default();
    while decoder.read(5000, &mut all).unwrap() > 0 {}
    assert!(decoder.warnings().is_empty(), "{:?}", decoder.warnings());
    (format, all)
}

#[test]
fn tracks_are_the_song_and_its_stems_bit_for_bit() {
    let studio = Studio::new();
    let table = [
        ("a", SampleFormat::Pcm16, 20_000, 2, 44_100, 0.3),
        ("b", SampleFormat::Pcm24, 20_000, 2, 48_000, 0.3),
        // Noise at full scale is not compressed.
        ("c", SampleFormat::Pcm16, 45_055, 2, 44_100, 1.0),
        ("d", SampleFormat::Pcm16, 4096, 1, 44_100, 0.3),
        ("e", SampleFormat::Pcm24, 8192 * 5 + 1, 1, 96_000, 0.3),
        ("f", SampleFormat::Pcm16, 1, 2, 44_100, 0.3),
        ("g", SampleFormat::Pcm16, 30_000, 2, 44_100, 0.0),
    ];
    for (name, format, samples, channels, sample_rate, level) in table {
        let input = format!("{name}.wav");
        let song = read(&studio.noise(&input, Spec { samples, channels, sample_rate, format, level }));
        studio.separate(&["-o", "wav", &input]).ok();
        let run = studio.separate(&["--format", "stem.m4a", "-o", "dj", &input]).ok();
        assert!(run.out.contains("exact"), "{}", run.out);
        let file = studio.path(&format!("dj/{name}.stem.m4a"));
        let stereo = |mono: &Planar| {
            let last = mono.channels() - 1;
            Planar::from_planes(vec![mono.channel(0).to_vec(), mono.channel(last).to_vec()]).unwrap()
        };
        let (depth, first) = read_track(&file, 0);
        let bits = if format == SampleFormat::Pcm16 { SourceFormat::Int16 } else { SourceFormat::Int24 };
        assert_eq!(depth, bits, "{name}");
        assert!(first == stereo(&song), "{name}: the song");
        // Players and we ourselves take the song.
        assert!(read(&file) == first, "{name}");
        for (n, stem) in STEMS.iter().enumerate() {
            let wav = read(&studio.path(&format!("wav/{name}_{stem}.wav")));
            assert!(read_track(&file, n + 1).1 == stereo(&wav), "{name}: {stem}");
        }
    }
}

#[test]
fn stem_files_name_their_stems_and_where_they_come_from() {
    let studio = Studio::new();
    studio.model("two", &["vocals", "rest"]);
    studio.song("song.wav", 0.2);
    let line = ["--format", "stem.m4a", "song.wav"];
    for (model, names) in
        [("model", ["drums", "bass", "other", "vocals"]), ("two", ["rest", "vocals", "-", "-"])]
    {
        studio.run(&[&["--model", &format!("{model}.safetensors"), "-o", model], &line[..]].concat()).ok();
        let path = studio.path(&format!("{model}/song.stem.m4a"));
        let bytes = std::fs::read(&path).unwrap();
        let movie = bytes.windows(4).rposition(|word| word == b"moov").unwrap();
        let at = movie + bytes[movie..].windows(4).position(|word| word == b"stem").unwrap();
        let size = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
        let description: serde_json::Value = serde_json::from_slice(&bytes[at + 4..at - 4 + size]).unwrap();
        let stems = description["stems"].as_array().unwrap();
        let found: Vec<&str> = stems.iter().map(|stem| stem["name"].as_str().unwrap()).collect();
        assert_eq!(found, names);
        assert!(stems.iter().all(|stem| stem["color"].as_str().unwrap().starts_with('#')));
        for processor in ["compressor", "limiter"] {
            assert_eq!(description["mastering_dsp"][processor]["enabled"], false);
        }
        assert_eq!(Origin::of_file(&path).unwrap().model, model);
    }
    // A later run knows them.
    let run = studio.separate(&["-o", "later", "--stems", "bass", "model"]);
    assert!(run.err.contains("stems of earlier runs"), "{}{}", run.out, run.err);
    let again = studio.separate(&[&["--skip-existing", "-o", "model"], &line[..]].concat()).ok();
    assert!(again.out.contains("there already"), "{}", again.out);
}

#[test]
fn what_a_stem_file_cannot_hold_is_refused_before_any_work() {
    let studio = Studio::new();
    studio.song("song.wav", 0.1);
    studio.noise("wide.wav", Spec { channels: 3, ..Spec::default() });
    studio.model("five", &["drums", "bass", "other", "vocals", "piano"]);
    let table: [(&[&str], i32, &[&str]); 7] = [
        (&["--bits", "float", "song.wav"], 2, &["integers"]),
        (&["--stems", "bass", "song.wav"], 2, &["--stems"]),
        (&["--mix", "vocals=mute", "song.wav"], 2, &["--mix"]),
        (&["--instrumental-only", "song.wav"], 2, &["--instrumental-only"]),
        (&["--then", "vocals:model.safetensors", "song.wav"], 2, &["--then"]),
        (&["wide.wav"], 2, &["stereo", "3 channels"]),
        (&["--model", "five.safetensors", "song.wav"], 2, &["four stems", "piano"]),
    ];
    for (line, status, words) in table {
        let model: &[&str] = if line[0] == "--model" { &[] } else { &["--model", "model.safetensors"] };
        studio.run(&[model, &["--format", "stem.m4a"], line].concat()).fails(status, words);
        assert!(studio.files("output").is_empty(), "{line:?}");
    }
}
