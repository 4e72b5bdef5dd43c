//! Real files and real runs: names, folders, signals, levels, metadata, parts of songs.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nullsum::audio::{Decoder, Origin, Planar, SampleFormat};
use nullsum::dsp::snr_db;

use super::stems;
use super::support::{Run, Spec, Studio, read, sum_to};

#[test]
fn every_overlap_sums_exactly_and_is_checked() {
    let studio = Studio::new();
    let song = read(&studio.song("song.wav", 1.0));
    for overlap in ["1", "1.25", "2.5", "4"] {
        studio.separate(&["--overlap", overlap, "-o", overlap, "song.wav"]).ok();
        assert!(sum_to(&song, &stems(&studio, overlap, "song", "wav")), "{overlap}");
    }
    for wrong in ["0", "0.5", "65", "nan", "x"] {
        studio.separate(&["--overlap", wrong, "song.wav"]).fails(2, &["--overlap"]);
    }
}

#[cfg(unix)]
#[test]
fn signals_that_are_ignored_at_start_stay_ignored_and_termination_has_its_own_status() {
    let studio = Studio::new();
    studio.song("long.wav", 40.0);
    // What the shell ignores, the signal that is sent, the status.
    for (ignored, signal, status) in
        [("HUP", "-HUP", 0), ("INT", "-INT", 0), ("", "-TERM", 143), ("", "-HUP", 129)]
    {
        let program = studio.command(&[]);
        let mut shell = std::process::Command::new("bash");
        let trap = if ignored.is_empty() { String::new() } else { format!("trap '' {ignored}; ") };
        shell.arg("-c").arg(format!("{trap}exec \"$0\" \"$@\"")).arg(program.get_program());
        shell.args([
            "--model",
            "model.safetensors",
            "--overlap",
            "8",
            "long.wav",
            "-o",
            status.to_string().as_str(),
        ]);
        shell.current_dir(studio.path(".")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let started = Instant::now();
        while studio.files(&status.to_string()).len() < 4 {
            assert!(
                started.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(),
                "{signal}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = child.id().to_string();
        std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!(run.code, status, "{signal}: {}", run.err);
        assert_eq!(studio.files(&status.to_string()).len(), if status == 0 { 4 } else { 0 }, "{signal}");
        let _ = std::fs::remove_dir_all(studio.path(&status.to_string()));
    }
}

#[cfg(unix)]
#[test]
fn what_a_killed_run_leaves_is_removed_by_the_next() {
    let studio = Studio::new();
    studio.song("long.wav", 60.0);
    studio.song("short.wav", 0.1);
    let mut child = studio
        .command(&["--model", "model.safetensors", "--overlap", "8", "long.wav"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while studio.files("output").len() < 4 {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    // While it lives, its files stay.
    studio.separate(&["--stems", "bass", "short.wav"]).ok();
    assert_eq!(studio.files("output").len(), 5);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(studio.files("output").len(), 5);
    studio.separate(&["--stems", "bass", "short.wav"]).ok();
    assert_eq!(studio.files("output"), ["short_bass.wav"]);
}

#[test]
fn a_damaged_song_is_separated_and_said_to_be_damaged() {
    let studio = Studio::new();
    let mut bytes =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio/tone.m4a")).unwrap();
    bytes[700..1000].fill(0xFF);
    std::fs::write(studio.path("broken.m4a"), bytes).unwrap();
    studio.song("whole.wav", 0.1);
    let run = studio.separate(&["--json", "broken.m4a", "whole.wav"]);
    assert_eq!(run.code, 1, "{}", run.out);
    let events = run.events();
    let done = events.iter().find(|event| event["event"] == "done").unwrap();
    assert!(
        done["lost_packets"].as_u64().unwrap() > 0 && done["lost_seconds"].as_f64().unwrap() > 0.0,
        "{done}"
    );
    let summary = events.last().unwrap();
    assert_eq!((&summary["done"], &summary["damaged"]), (&2.into(), &1.into()), "{summary}");
    assert!(
        summary["slowest"]["input"].is_string() && summary["warnings"].as_u64().unwrap() > 0,
        "{summary}"
    );
    assert_eq!(studio.files("output").len(), 8);
    studio.separate(&["broken.m4a", "-o", "alone"]).fails(1, &["damaged", "silence"]);
}

/// A song with every frequency in it, as music has: where a band holds nothing but rounding errors, the network hears those.
fn broadband(gain: f32) -> Vec<Vec<f32>> {
    let mut random = nullsum::dsp::Random::new(11);
    let mut sample = |n: usize, c: usize| {
        let tone = ((n * (c + 3)) as f32 * 0.013).sin() * 0.3 + (n as f32 * 0.41).sin() * 0.1;
        (tone + 0.02 * random.bipolar()) * gain
    };
    (0..2).map(|c| (0..30_000).map(|n| sample(n, c)).collect()).collect()
}

#[test]
fn quiet_and_extreme_float_songs_lose_nothing() {
    let studio = Studio::new();
    let spec = Spec { format: SampleFormat::Float32, samples: 30_000, ..Spec::default() };
    let vocals = |gain: f32, folder: &str| {
        let song = read(&studio.write("song.wav", broadband(gain), spec));
        let run = studio.separate(&["-o", folder, "song.wav"]).ok();
        assert!(run.out.contains("null"), "{}", run.out);
        // The sum of the stems, against the level of the song.
        let files: Vec<Planar> =
            stems(&studio, folder, "song", "wav").iter().map(|path| read(path)).collect();
        let sum: Vec<f32> = (0..song.samples())
            .map(|i| files.iter().map(|stem| f64::from(stem.channel(0)[i])).sum::<f64>() as f32)
            .collect();
        assert!(snr_db(song.channel(0), &sum) > 110.0, "{folder}: {:.1} dB", snr_db(song.channel(0), &sum));
        files[3].channel(0).iter().map(|x| x / gain).collect::<Vec<f32>>()
    };
    let reference = vocals(1.0, "loud");
    // A power of two moves exponents only: the stems are the same, bit for bit.
    for exponent in [-13, -40, 2, 31, 90] {
        let scaled = vocals(2f32.powi(exponent), &format!("to{exponent}"));
        assert!(scaled == reference, "2^{exponent}: {:.1} dB", snr_db(&reference, &scaled));
    }
    for (gain, folder) in [(1e-4, "80"), (1e-6, "120"), (1e-9, "180"), (9.0, "above"), (1e30, "huge")] {
        let scaled = vocals(gain, folder);
        let snr = snr_db(&reference, &scaled);
        assert!(snr > 100.0, "gain {gain}: {snr:.1} dB");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn names_need_not_be_unicode() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let studio = Studio::new();
    let song = studio.song("song.wav", 0.05);
    std::fs::create_dir(studio.path("m")).unwrap();
    for name in [&b"caf\xE9.wav"[..], b"caf\xE8.wav"] {
        std::fs::copy(&song, studio.path("m").join(OsStr::from_bytes(name))).unwrap();
    }
    let run = studio.separate(&["--json", "--stems", "bass", "m"]).ok();
    let inputs: Vec<String> = run
        .events()
        .iter()
        .filter(|event| event["event"] == "done")
        .map(|event| event["input"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(inputs, [r"m/caf\xE8.wav", r"m/caf\xE9.wav"]);
    for name in [&b"caf\xE9_bass.wav"[..], b"caf\xE8_bass.wav"] {
        assert!(studio.path("output").join(OsStr::from_bytes(name)).exists());
    }
    // Patterns, reports, further models and segments.
    let name = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    let run = |args: &[&OsStr]| {
        let mut command = studio.command(&["--model", "model.safetensors", "--stems", "bass"]);
        Run::of(command.args(args).output().unwrap()).ok()
    };
    let [out, report, then, segments] = ["-o", "--report", "--then", "--segments"].map(OsStr::new);
    run(&[out, name(b"p\xE9"), report, name(b"r\xE9.json"), name(b"m/caf*.wav")]);
    assert!(studio.path("").join(name(b"p\xE9")).join(name(b"caf\xE8_bass.wav")).exists());
    assert!(studio.path("").join(name(b"r\xE9.json")).exists());
    run(&[out, name(b"t"), then, OsStr::new("bass:model.safetensors"), name(b"m/caf\xE9.wav")]);
    assert!(studio.path("t").join(name(b"caf\xE9_bass_drums.wav")).exists());
    run(&[out, name(b"s"), segments, name(b"m/caf\xE9.wav")]);
    assert!(studio.path("s").join(name(b"caf\xE9_bass.wav")).exists());
}

#[test]
fn outputs_of_every_kind_are_recognised_after_a_rename() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    let table: [(&str, &[&str]); 6] = [
        ("wav", &["--format", "wav"]),
        ("flac", &["--format", "flac"]),
        ("m4a", &["--format", "stem.m4a"]),
        ("wav", &["--stems", "none", "--mix", "vocals=mute"]),
        ("wav", &["--instrumental-only"]),
        ("wav", &["--bits", "float", "--stems", "bass"]),
    ];
    for (n, (extension, args)) in table.iter().enumerate() {
        let folder = format!("out{n}");
        studio.separate(&[&["-o", &folder, "song.wav"], *args].concat()).ok();
        let files = studio.files(&folder);
        assert!(!files.is_empty());
        std::fs::create_dir_all(studio.path("renamed")).unwrap();
        for (k, file) in files.iter().enumerate() {
            let to = studio.path(&format!("renamed/{n} {k}.{extension}"));
            std::fs::copy(studio.path(&format!("{folder}/{file}")), to).unwrap();
        }
    }
    studio.separate(&["-o", "again", "renamed"]).fails(4, &["are stems of earlier runs", "no audio files"]);
    assert!(studio.files("again").is_empty());
}

#[test]
fn joined_songs_are_separated_whole_or_refused() {
    let studio = Studio::new();
    let [a, b] = [0.1, 0.07].map(|seconds| std::fs::read(studio.song("part.wav", seconds)).unwrap());
    std::fs::write(studio.path("joined.wav"), [&a[..], &b].concat()).unwrap();
    let run = studio.separate(&["joined.wav"]).ok();
    assert!(run.out.contains("2 files are joined"), "{}", run.out);
    let song = read(&studio.path("joined.wav"));
    assert_eq!(song.samples(), (0.1 * 44_100.0) as usize + (0.07f32 * 44_100.0) as usize);
    assert!(sum_to(&song, &stems(&studio, "output", "joined", "wav")));
    let slow =
        std::fs::read(studio.noise("slow.wav", Spec { sample_rate: 22_050, ..Spec::default() })).unwrap();
    std::fs::write(studio.path("mixed.wav"), [a, slow].concat()).unwrap();
    studio.separate(&["mixed.wav"]).fails(4, &["joined", "44100 Hz, 22050 Hz", "split it"]);
}

#[test]
fn colliding_songs_are_named_and_the_others_are_done() {
    let studio = Studio::new();
    for name in ["m/a/one.wav", "m/b/one.wav", "m/a/two.wav", "m/b/two.flac", "m/c/three.wav"] {
        studio.song(name, 0.05);
    }
    let songs = ["m/a/one.wav", "m/b/one.wav", "m/a/two.wav", "m/b/two.flac", "m/c/three.wav"];
    let run = studio.separate(&[&["--stems", "bass"], &songs[..]].concat());
    let words = ["m/a/one.wav", "m/b/one.wav", "m/a/two.wav", "m/b/two.flac", "1 separated, 4 failed"];
    run.fails(1, &words);
    assert_eq!(studio.files("output"), ["three_bass.wav"]);
}

#[test]
fn shares_leave_no_song_out_when_one_arrives_between_them() {
    let studio = Studio::new();
    for n in 0..6 {
        studio.song(&format!("m/{n}.wav"), 0.02);
    }
    studio.separate(&["--stems", "bass", "--shard", "1/2", "m"]).ok();
    studio.song("m/00 arrives.wav", 0.02);
    studio.separate(&["--stems", "bass", "--shard", "2/2", "m"]).ok();
    for n in 0..6 {
        assert!(studio.path(&format!("output/{n}_bass.wav")).exists(), "{n}");
    }
}

#[test]
fn stems_of_earlier_runs_are_skipped_unless_they_are_named() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    for kind in ["wav", "flac"] {
        studio.separate(&["-o", "out1", "--format", kind, "--stems", "bass,drums", "song.wav"]).ok();
    }
    let run = studio.separate(&["-o", "out2", "--stems", "bass", "."]).ok();
    assert!(run.err.contains("4 files are stems of earlier runs"), "{}", run.err);
    assert_eq!(studio.files("out2"), ["song_bass.wav"]);
    studio.separate(&["-o", "out3", "--stems", "bass", "*.wav", "out1/*.wav"]).ok();
    assert_eq!(studio.files("out3"), ["song_bass.wav"]);
    studio.separate(&["-o", "out4", "--stems", "bass", "out1/song_drums.wav"]).ok();
    assert_eq!(studio.files("out4"), ["song_drums_bass.wav"]);
    // Without the tag nothing tells them apart.
    studio.separate(&["-o", "plain", "--no-metadata", "--stems", "bass", "song.wav"]).ok();
    assert_eq!(Origin::of_file(&studio.path("plain/song_bass.wav")), None);
    let origin = Origin::of_file(&studio.path("out2/song_bass.wav")).unwrap();
    assert_eq!((origin.model.as_str(), origin.mode.as_str()), ("model", "spectral"));
}

#[test]
fn skipping_tells_models_apart() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    studio.model("other", &["drums", "bass", "other", "vocals"]);
    let with = |model: &str| studio.run(&["--model", model, "--skip-existing", "song.wav"]).ok();
    assert!(!with("model.safetensors").out.contains("there already"));
    assert!(with("model.safetensors").out.contains("there already"));
    let run = with("other.safetensors");
    assert!(
        run.err.contains("made by model") && !run.out.contains("there already"),
        "{}{}",
        run.out,
        run.err
    );
    assert_eq!(Origin::of_file(&studio.path("output/song_bass.wav")).unwrap().model, "other");
}

#[test]
fn templates_are_checked_before_any_work() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    for template in ["{track}_{stem}", "{name}/", "{name", "", "../{stem}"] {
        let run = studio.separate(&["--template", template, "song.wav"]);
        assert_eq!(run.code, 2, "{template}: {}", run.err);
        assert!(studio.files("output").is_empty());
    }
    studio.separate(&["--template", "{track}_{stem}", "song.wav"]).fails(2, &["{track}", "{name}", "{ext}"]);
}

#[test]
fn a_part_of_a_song_is_that_part_and_sums_to_it() {
    let studio = Studio::new();
    for (name, rate) in [("a.wav", 44_100), ("b.wav", 48_000)] {
        let spec = Spec { samples: rate as usize, sample_rate: rate, ..Spec::default() };
        let song = read(&studio.noise(name, spec));
        let at = |seconds: f64| (seconds * f64::from(rate)).round() as usize;
        let ranges: [(&[&str], f64, f64); 4] = [
            (&["--start", "0.5"], 0.5, 1.0),
            (&["--end", "0:00.25"], 0.0, 0.25),
            (&["--start", "0.3", "--end", "0.6"], 0.3, 0.6),
            (&["--start", "0.9", "--end", "1:00"], 0.9, 1.0),
        ];
        for (line, start, end) in ranges {
            studio.separate(&[line, &[name]].concat()).ok();
            let part = song.slice(at(start)..at(end));
            assert!(sum_to(&part, &stems(&studio, "output", &name[..1], "wav")), "{name} {line:?}");
        }
    }
    studio.separate(&["--start", "2", "a.wav"]).fails(2, &["starts at 2.000 s", "1.000 s"]);
    studio.separate(&["--start", "2", "--end", "1", "a.wav"]).fails(2, &["--end"]);
    studio.separate(&["--start", "1:60", "a.wav"]).fails(2, &["m:ss"]);
}

#[test]
fn one_file_only_can_be_asked_for() {
    let studio = Studio::new();
    let song = read(&studio.song("song.wav", 0.2));
    studio.separate(&["song.wav"]).ok();
    let vocals = studio.path("output/song_vocals.wav");
    let cases: [(&str, &[&str], &[&str]); 4] = [
        ("mix", &["--stems", "none", "--mix", "vocals=mute"], &["song_mix.wav"]),
        ("only", &["--instrumental-only"], &["song_instrumental.wav"]),
        ("named", &["--stems", "instrumental"], &["song_instrumental.wav"]),
        ("both", &["--stems", "vocals,Instrumental"], &["song_instrumental.wav", "song_vocals.wav"]),
    ];
    for (folder, line, names) in cases {
        studio.separate(&[line, &["-o", folder, "song.wav"]].concat()).ok();
        assert_eq!(studio.files(folder), names);
        let rest = studio.path(&format!("{folder}/{}", names[0]));
        assert!(sum_to(&song, &[rest, vocals.clone()]), "{folder}");
    }
    studio.separate(&["--stems", "none", "song.wav"]).fails(2, &["--stems none"]);
    studio.separate(&["-o", "-", "song.wav"]).fails(2, &["standard output"]);
}

#[test]
fn a_song_can_come_through_a_pipe() {
    let studio = Studio::new();
    let song = studio.song("song.wav", 0.1);
    let mut command = studio.command(&["--model", "model.safetensors", "-"]);
    let run = Run::of(command.stdin(std::fs::File::open(&song).unwrap()).output().unwrap()).ok();
    assert!(run.out.contains("exact"), "{}", run.out);
    assert!(sum_to(&read(&song), &stems(&studio, "output", "stdin", "wav")));
    let empty = Run::of(
        studio.command(&["--model", "model.safetensors", "-"]).stdin(Stdio::null()).output().unwrap(),
    );
    empty.fails(4, &["empty"]);
}

#[test]
fn a_report_has_the_summary_and_every_song() {
    let studio = Studio::new();
    studio.song("a.wav", 0.05);
    std::fs::write(studio.path("b.wav"), b"this is no song at all").unwrap();
    studio.separate(&["--report", "report.json", "a.wav", "b.wav"]).fails(1, &["b.wav"]);
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(studio.path("report.json")).unwrap()).unwrap();
    assert_eq!((&report["summary"]["done"], &report["summary"]["failed"]), (&1.into(), &1.into()));
    // A report that could not be written in the end is refused before any work.
    std::fs::create_dir(studio.path("folder")).unwrap();
    for (path, status, words) in [
        ("nowhere/report.json", 4, ["nowhere", "cannot write"]),
        ("folder", 4, ["folder", "not a file"]),
        ("-", 2, ["--report -", "--json"]),
    ] {
        studio.separate(&["-o", "none", "--report", path, "a.wav"]).fails(status, &words);
        assert!(studio.files("none").is_empty(), "{path}");
    }
    let songs = report["songs"].as_array().unwrap();
    assert_eq!((songs.len(), &songs[0]["event"], &songs[1]["event"]), (2, &"done".into(), &"error".into()));
}

/// A FLAC file with tags and a picture, made from one without.
fn tagged_flac(plain: &[u8]) -> Vec<u8> {
    let comments = ["TITLE=A song", "ARTIST=Someone", "REPLAYGAIN_TRACK_GAIN=-7.00 dB", "ALBUM=Dé"];
    let mut block =
        [7_u32.to_le_bytes().to_vec(), b"encoder".to_vec(), 4_u32.to_le_bytes().to_vec()].concat();
    for comment in comments {
        block.extend((comment.len() as u32).to_le_bytes());
        block.extend(comment.as_bytes());
    }
    let mut picture = [3_u32.to_be_bytes(), 9_u32.to_be_bytes()].concat();
    picture.extend(b"image/png");
    picture.extend([[0; 4]; 5].concat());
    picture.extend(12_u32.to_be_bytes());
    picture.extend(b"\x89PNG\r\n\x1a\npict");
    let header = |kind: u8, size: usize| [&[kind], &(size as u32).to_be_bytes()[1..]].concat();
    let mut bytes = plain[..42].to_vec();
    bytes[4] = 0;
    bytes.extend([header(4, block.len()), block].concat());
    bytes.extend([header(0x86, picture.len()), picture].concat());
    bytes.extend(&plain[42..]);
    bytes
}

#[test]
fn tags_and_pictures_are_kept_and_replaygain_is_not() {
    let studio = Studio::new();
    let song = studio.song("song.flac", 0.1);
    std::fs::write(&song, tagged_flac(&std::fs::read(&song).unwrap())).unwrap();
    let samples = read(&song);
    for kind in ["flac", "wav"] {
        studio.separate(&["--format", kind, "-o", kind, "song.flac"]).ok();
        assert!(sum_to(&samples, &stems(&studio, kind, "song", kind)));
        let bytes = std::fs::read(studio.path(&format!("{kind}/song_bass.{kind}"))).unwrap();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|word| word == text);
        for text in ["A song", "Someone", "Dé", "NULLSUM", "model=model"] {
            assert!(has(text.as_bytes()), "{kind}: {text}");
        }
        assert!(has(b"\x89PNG\r\n\x1a\npict"), "{kind}: picture");
        assert!(!has(b"-7.00 dB"), "{kind}: ReplayGain");
    }
    studio.separate(&["--no-metadata", "-o", "plain", "song.flac"]).ok();
    let bytes = std::fs::read(studio.path("plain/song_bass.wav")).unwrap();
    assert!(!bytes.windows(6).any(|word| word == b"A song" || word == b"NULLSU"));
}

#[test]
fn production_chunks_go_from_wav_to_wav_and_the_time_reference_moves_with_a_part() {
    let studio = Studio::new();
    let song = studio.song("song.wav", 0.5);
    let samples = read(&song);
    let mut bext = vec![0; 602];
    bext[..5].copy_from_slice(b"Take1");
    bext[338..346].copy_from_slice(&1_000_000_u64.to_le_bytes());
    let mut cue = 1_u32.to_le_bytes().to_vec();
    cue.extend([1, 0, 0, 0, 0, 0, 0, 0, b'd', b'a', b't', b'a', 0, 0, 0, 0, 0, 0, 0, 0]);
    cue.extend(11_025_u32.to_le_bytes());
    let mut bytes = std::fs::read(&song).unwrap();
    let chunk =
        |id: &[u8; 4], data: &[u8]| [id.as_slice(), &(data.len() as u32).to_le_bytes(), data].concat();
    bytes.splice(12..12, [chunk(b"bext", &bext), chunk(b"cue ", &cue)].concat());
    let size = (bytes.len() as u32 - 8).to_le_bytes();
    bytes[4..8].copy_from_slice(&size);
    std::fs::write(&song, &bytes).unwrap();
    assert!(read(&song) == samples);
    let reference = |folder: &str| {
        let bytes = std::fs::read(studio.path(&format!("{folder}/song_bass.wav"))).unwrap();
        let at = bytes.windows(4).position(|word| word == b"bext").unwrap() + 8;
        assert_eq!(&bytes[at..at + 5], b"Take1");
        (
            u64::from_le_bytes(bytes[at + 338..at + 346].try_into().unwrap()),
            bytes.windows(4).any(|word| word == b"cue "),
        )
    };
    studio.separate(&["song.wav"]).ok();
    assert!(sum_to(&samples, &stems(&studio, "output", "song", "wav")));
    assert_eq!(reference("output"), (1_000_000, true));
    studio.separate(&["--start", "0.1", "-o", "part", "song.wav"]).ok();
    assert_eq!(reference("part"), (1_004_410, false));
    // One set of stems for each part between cue points.
    studio.separate(&["--segments", "--stems", "bass", "-o", "parts", "song.wav"]).ok();
    assert_eq!(studio.files("parts"), ["song_01_bass.wav", "song_02_bass.wav"]);
    let lengths = ["01", "02"]
        .map(|n| Decoder::open(studio.path(&format!("parts/song_{n}_bass.wav"))).unwrap().info().samples);
    assert_eq!(lengths, [Some(11_025), Some(11_025)]);
}

#[test]
fn a_stem_can_be_separated_further_and_the_leaves_sum_to_the_song() {
    let studio = Studio::new();
    studio.model("choir", &["lead", "backing"]);
    for (name, format) in [("a.wav", SampleFormat::Pcm16), ("b.wav", SampleFormat::Pcm24)] {
        let song = read(&studio.noise(name, Spec { format, ..Spec::default() }));
        studio.separate(&["--then", "vocals:choir.safetensors", name]).ok();
        let leaf = |stem: &str| studio.path(&format!("output/{}_{stem}.wav", &name[..1]));
        let leaves = ["drums", "bass", "other", "vocals_lead", "vocals_backing"].map(leaf);
        assert!(sum_to(&song, &leaves), "{name}");
        assert_eq!(Origin::of_file(&leaves[3]).unwrap().model, "choir");
    }
    studio.separate(&["--then", "piano:choir.safetensors", "a.wav"]).fails(2, &["piano", "vocals"]);
    studio.separate(&["--then", "vocals", "a.wav"]).fails(2, &["vocals:lead"]);
}

#[test]
fn an_ensemble_is_the_mean_of_its_models_and_exact() {
    let studio = Studio::new();
    // The same names in another order, and another network.
    studio.model("other", &["vocals", "drums", "bass", "other"]);
    let song = read(&studio.noise("song.wav", Spec { format: SampleFormat::Pcm24, ..Spec::default() }));
    for model in ["model", "other"] {
        studio.run(&["--model", &format!("{model}.safetensors"), "-o", model, "song.wav"]).ok();
    }
    studio.run(&["--ensemble", "model.safetensors,other.safetensors", "-o", "both", "song.wav"]).ok();
    assert!(sum_to(&song, &stems(&studio, "both", "song", "wav")));
    for stem in ["drums", "vocals"] {
        let of = |folder: &str| read(&studio.path(&format!("{folder}/song_{stem}.wav")));
        let (a, b, both) = (of("model"), of("other"), of("both"));
        let mean: Vec<f32> = a.channel(0).iter().zip(b.channel(0)).map(|(a, b)| 0.5 * (a + b)).collect();
        assert!(snr_db(&mean, both.channel(0)) > 80.0, "{stem}: {:.1} dB", snr_db(&mean, both.channel(0)));
    }
    studio.model("two", &["drums", "rest"]);
    studio
        .run(&["--ensemble", "model.safetensors,two.safetensors", "-o", "no", "song.wav"])
        .fails(2, &["same stems", "drums, rest"]);
}
