//! The command-line program, run as a process.
#![cfg(feature = "cli")]

#[path = "cli/cache.rs"]
mod cache;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/memory.rs"]
mod memory;
#[path = "cli/reference.rs"]
mod reference;
#[path = "cli/stem_file.rs"]
mod stem_file;
#[path = "cli/support.rs"]
mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nullsum::audio::{Decoder, SampleFormat, SourceFormat};
use support::{Spec, Studio, read, sum_to};

const STEMS: [&str; 4] = ["drums", "bass", "other", "vocals"];

fn stems(studio: &Studio, folder: &str, name: &str, extension: &str) -> Vec<PathBuf> {
    STEMS.map(|stem| studio.path(&format!("{folder}/{name}_{stem}.{extension}"))).into()
}

#[test]
fn command_lines_of_the_reference_program_work() {
    let studio = Studio::new();
    studio.song("input/song.wav", 0.3);
    let line = [
        "--model_type",
        "bs_roformer",
        "--config_path",
        "model.yaml",
        "--start_check_point",
        "model.safetensors",
        "--output_folder",
        "out",
        "--extract_instrumental",
        "--disable_detailed_pbar",
        "--force_cpu",
        "--flac_file",
        "--pcm_type",
        "PCM_24",
        "--device_ids",
        "0",
        "1",
    ];
    // Without an input the folder `input` is read, as in the reference; with `--input_folder` too.
    for more in
        [&[][..], &["--input_folder", "input"], &["input/song.wav", "--use_tta", "--disable-lossless"]]
    {
        let _ = std::fs::remove_dir_all(studio.path("out"));
        studio.run(&[&line[..], more].concat()).ok();
        let names =
            ["bass", "drums", "instrumental", "other", "vocals"].map(|stem| format!("song_{stem}.flac"));
        assert_eq!(studio.files("out"), names, "{more:?}");
    }
}

#[test]
fn a_song_after_the_bare_lossless_flag_is_separated() {
    let studio = Studio::new();
    let song = read(&studio.song("song.wav", 0.3));
    let run = studio.separate(&["--lossless", "song.wav"]).ok();
    assert!(run.out.contains("exact"), "{}", run.out);
    assert!(sum_to(&song, &stems(&studio, "output", "song", "wav")));
    studio.separate(&["--lossless=off", "-o", "off", "song.wav"]).ok();
    assert!(!sum_to(&song, &stems(&studio, "off", "song", "wav")));
}

#[test]
fn written_stems_sum_to_the_song_bit_for_bit_in_every_order() {
    let studio = Studio::new();
    let kinds =
        [("16", SampleFormat::Pcm16, SourceFormat::Int16), ("24", SampleFormat::Pcm24, SourceFormat::Int24)];
    for (bits, format, depth) in kinds {
        let song = read(&studio.noise(&format!("s{bits}.wav"), Spec { format, ..Spec::default() }));
        for (kind, mode) in [("wav", "spectral"), ("flac", "spectral"), ("wav", "hybrid")] {
            let folder = format!("{bits}{kind}{mode}");
            let lossless = format!("--lossless={mode}");
            let input = format!("s{bits}.wav");
            studio.separate(&[&lossless, "--format", kind, "-o", &folder, &input]).ok();
            let files = stems(&studio, &folder, &format!("s{bits}"), kind);
            assert!(sum_to(&song, &files), "{folder}");
            assert_eq!(Decoder::open(&files[0]).unwrap().info().sample_format, depth);
        }
    }
}

#[test]
fn a_single_stem_model_also_writes_the_complement() {
    let studio = Studio::new();
    studio.model("voice", &["vocals"]);
    let song = read(&studio.song("song.wav", 0.3));
    studio.run(&["--model", "voice.safetensors", "--config", "voice.yaml", "song.wav"]).ok();
    let files = ["vocals", "instrumental"].map(|stem| studio.path(&format!("output/song_{stem}.wav")));
    assert!(sum_to(&song, &files));
}

#[test]
fn mono_stays_mono_and_other_rates_keep_rate_and_length() {
    let studio = Studio::new();
    // Some come back from the model's rate a sample longer, some a sample shorter; at 96 kHz one of each.
    for (channels, sample_rate, samples) in [
        (1, 44_100, 15_001),
        (2, 48_000, 15_001),
        (2, 48_000, 48_006),
        (1, 22_050, 15_001),
        (3, 44_100, 15_001),
        (2, 88_200, 15_001),
        (1, 96_000, 20_000),
        (1, 96_000, 20_002),
        (1, 96_000, 34),
    ] {
        let name = format!("s{channels}_{sample_rate}_{samples}");
        let spec = Spec { channels, sample_rate, samples, ..Spec::default() };
        let song = read(&studio.noise(&format!("{name}.wav"), spec));
        studio.separate(&[&format!("{name}.wav")]).ok();
        let files = stems(&studio, "output", &name, "wav");
        let info = Decoder::open(&files[0]).unwrap().info().clone();
        let expected = (channels, sample_rate, Some(samples as u64));
        assert_eq!((info.channels, info.sample_rate, info.samples), expected);
        assert!(sum_to(&song, &files), "{name}");
    }
}

#[test]
fn empty_short_and_silent_songs_are_separated() {
    let studio = Studio::new();
    for (name, samples, level) in
        [("none", 0, 0.3), ("one", 1, 0.3), ("few", 40, 0.3), ("silence", 20_000, 0.0)]
    {
        let song = read(&studio.noise(&format!("{name}.wav"), Spec { samples, level, ..Spec::default() }));
        assert_eq!(song.samples(), samples);
        studio.separate(&[&format!("{name}.wav")]).ok();
        assert!(sum_to(&song, &stems(&studio, "output", name, "wav")), "{name}");
    }
}

#[test]
fn a_remix_at_unity_is_the_song_and_the_instrumental_is_the_song_without_vocals() {
    let studio = Studio::new();
    let song = read(&studio.song("song.wav", 0.3));
    studio.separate(&["--mix", "vocals=0dB", "--extract_instrumental", "song.wav"]).ok();
    assert_eq!(read(&studio.path("output/song_mix.wav")), song);
    let parts = ["vocals", "instrumental"].map(|stem| studio.path(&format!("output/song_{stem}.wav")));
    assert!(sum_to(&song, &parts));
    studio.separate(&["--mix", "-o=never", "song.wav"]).fails(2, &["-o=never"]);
    studio.separate(&["--mix", "vocals=mute", "--stems", "vocals", "-o", "two", "song.wav"]).ok();
    assert_eq!(studio.files("two"), ["song_mix.wav", "song_vocals.wav"]);
    let muted = [studio.path("two/song_mix.wav"), studio.path("two/song_vocals.wav")];
    assert!(sum_to(&song, &muted));
}

#[test]
fn shifts_tta_batches_and_normalisation_stay_exact() {
    let studio = Studio::new();
    let song = read(&studio.song("song.wav", 0.6));
    studio.separate(&["-o", "plain", "song.wav"]).ok();
    let plain = read(&studio.path("plain/song_drums.wav"));
    let cases: [(&str, &[&str], bool); 5] = [
        ("shifts", &["--big-shifts", "3"], true),
        ("tta", &["--tta"], true),
        ("normal", &["--normalize"], true),
        ("batch", &["--batch", "3"], false),
        ("float", &["--bits", "float"], true),
    ];
    for (folder, options, differs) in cases {
        studio.separate(&[options, &["-o", folder, "song.wav"]].concat()).ok();
        assert!(sum_to(&song, &stems(&studio, folder, "song", "wav")), "{folder}");
        let drums = read(&studio.path(&format!("{folder}/song_drums.wav")));
        // Batches may round differently: a step of 16 bits.
        let same = |(a, b): (&f32, &f32)| differs && a == b || !differs && (a - b).abs() < 1.5 / 32_768.0;
        assert_eq!(drums.channel(0).iter().zip(plain.channel(0)).all(same), !differs, "{folder}");
    }
}

#[test]
fn non_finite_samples_are_refused_or_cleaned() {
    let studio = Studio::new();
    let spec = Spec { format: SampleFormat::Float32, channels: 1, ..Spec::default() };
    let mut samples: Vec<f32> = (0..9_000).map(|n| (n as f32 * 0.05).sin() * 0.3).collect();
    (samples[100], samples[5_000]) = (f32::NAN, f32::INFINITY);
    studio.write("odd.wav", vec![samples], spec);
    studio
        .separate(&["--non-finite", "refuse", "odd.wav"])
        .fails(4, &["2 samples", "odd.wav", "--non-finite clean"]);
    assert!(studio.files("output").is_empty());
    studio.separate(&["odd.wav"]).ok();
    let drums = read(&studio.path("output/odd_drums.wav"));
    assert!(drums.samples() == 9_000 && drums.channel(0).iter().all(|x| x.is_finite()));
}

#[test]
fn folders_keep_their_tree_and_shares_cover_it_exactly_once() {
    let studio = Studio::new();
    for name in ["m/a.wav", "m/x/b.flac", "m/x/y/ünï 曲.wav", "m/z/c.wav", "m/.hidden/d.wav"] {
        studio.song(name, 0.05);
    }
    std::fs::write(studio.path("m/cover.jpg"), b"no song").unwrap();
    studio.separate(&["--stems", "bass", "m"]).ok();
    let whole = studio.files("output");
    assert_eq!(whole, ["a_bass.wav", "x/b_bass.wav", "x/y/ünï 曲_bass.wav", "z/c_bass.wav"]);
    let mut count = 0;
    for shard in ["1/3", "2/3", "3/3"] {
        let before = studio.files("shards").len();
        studio.separate(&["--stems", "bass", "-o", "shards", "--shard", shard, "m/*.wav", "m"]).ok();
        count += studio.files("shards").len() - before;
    }
    assert_eq!((studio.files("shards"), count), (whole, 4));
    // A share may be empty, and that is no error.
    studio.separate(&["--shard", "9/9", "m"]).ok();
}

#[test]
fn names_follow_the_template_and_existing_songs_are_skipped() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    let line =
        ["--template", "{model}/{name}/{stem}", "--skip-existing", "--stems", "bass,drums,bass", "song.wav"];
    studio.separate(&line).ok();
    assert_eq!(studio.files("output"), ["model/song/bass.wav", "model/song/drums.wav"]);
    let run = studio.separate(&line).ok();
    assert!(run.out.contains("there already"), "{}", run.out);
    studio.separate(&["--template", "{name}", "song.wav"]).fails(2, &["{stem}"]);
    studio
        .separate(&["--template", "{name}", "--stems", "bass", "-o", ".", "song.wav"])
        .fails(2, &["song.wav", "overwritten"]);
}

#[test]
fn a_stem_never_overwrites_an_input_of_any_share() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    let other = read(&studio.song("song_vocals.wav", 0.07));
    let words = ["song_vocals.wav", "song.wav", "overwritten"];
    studio.separate(&["-o", ".", "song.wav", "song_vocals.wav"]).fails(2, &words);
    studio.separate(&["-o", ".", "--shard", "1/2", "song.wav", "song_vocals.wav"]).fails(2, &words);
    assert!(read(&studio.path("song_vocals.wav")) == other);
    assert!(!studio.path("song_drums.wav").exists());
}

#[test]
fn stems_are_found_in_any_case() {
    let studio = Studio::new();
    studio.model("loud", &["Drums", "bass", "Other", "Vocals"]);
    let song = read(&studio.song("song.wav", 0.2));
    let line = ["--model", "loud.safetensors", "--extract-instrumental", "--mix", "vocals=mute", "song.wav"];
    studio.run(&line).ok();
    let names = ["Drums", "Other", "Vocals", "bass", "instrumental", "mix"];
    assert_eq!(studio.files("output"), names.map(|name| format!("song_{name}.wav")));
    let [vocals, instrumental, mix] =
        ["Vocals", "instrumental", "mix"].map(|name| read(&studio.path(&format!("output/song_{name}.wav"))));
    let without: Vec<f32> = song.channel(0).iter().zip(vocals.channel(0)).map(|(m, v)| m - v).collect();
    assert_eq!(instrumental.channel(0), without);
    assert_eq!(mix.channel(0), without);
    studio
        .run(&["--model", "loud.safetensors", "-o", "two", "--stems", "vocals,OTHER,Other", "song.wav"])
        .ok();
    assert_eq!(studio.files("two"), ["song_Other.wav", "song_Vocals.wav"]);
}

#[test]
fn unknown_yaml_options_are_warned_about() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    let yaml = std::fs::read_to_string(studio.path("model.yaml")).unwrap();
    std::fs::write(studio.path("odd.yaml"), yaml.replace("  heads: 2", "  heads: 2\n  stft_hop_lenght: 32"))
        .unwrap();
    let run = studio.separate(&["--config", "odd.yaml", "song.wav"]).ok();
    assert!(run.err.contains("stft_hop_lenght"), "{}", run.err);
    assert!(!studio.separate(&["song.wav"]).ok().err.contains("not understood"));
}

#[test]
fn a_file_name_that_is_too_long_leaves_no_stem() {
    let studio = Studio::new();
    let name = "n".repeat(246);
    let song = studio.song(&format!("{name}.wav"), 0.05);
    // `_bass.wav` fits into the 255 of most file systems, `_drums.wav` does not.
    studio.separate(&["--stems", "bass,drums", song.to_str().unwrap()]).fails(4, &["_drums.wav"]);
    assert!(studio.files("output").is_empty());
}

#[test]
fn two_songs_of_one_name_are_refused_before_any_work() {
    let studio = Studio::new();
    studio.song("a/song.wav", 0.05);
    studio.song("b/song.wav", 0.05);
    studio.separate(&["a/song.wav", "b/song.wav"]).fails(2, &["a/song.wav", "b/song.wav"]);
    assert!(studio.files("output").is_empty());
}

#[test]
fn wrong_command_lines_and_inputs_say_what_is_wrong_and_leave_nothing() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    std::fs::write(studio.path("text.wav"), b"this is no song at all").unwrap();
    std::fs::write(studio.path("empty.wav"), b"").unwrap();
    std::fs::create_dir(studio.path("nothing")).unwrap();
    let cases: [(&[&str], i32, &[&str]); 16] = [
        (&["missing.wav"], 4, &["missing.wav"]),
        (&["text.wav"], 4, &["text.wav"]),
        (&["empty.wav"], 4, &["empty.wav"]),
        (&["nothing"], 4, &["nothing", "no audio files"]),
        (&["*.ogg"], 4, &["no audio file matches"]),
        (&["--input_folder", "nowhere"], 4, &["nowhere"]),
        (&["song.wav", "-o", "text.wav"], 4, &["text.wav", "not a folder"]),
        (&["song.wav", "-o", "text.wav/below"], 4, &["text.wav"]),
        (&["song.wav", "--stems", "piano"], 2, &["piano", "drums, bass, other, vocals"]),
        (&["song.wav", "--mix", "piano=mute"], 2, &["piano"]),
        (&["song.wav", "--shard", "5/4"], 2, &["1/8"]),
        (&["song.wav", "--chunk", "10"], 4 - 2, &["chunk"]),
        (&["song.wav", "--precision", "f16"], 3, &["f16 is not available on the CPU", "(--precision)"]),
        (&["song.wav", "--flac_file", "--pcm_type", "FLOAT"], 2, &["FLAC"]),
        (&["song.wav", "--device", "tpu"], 2, &["tpu"]),
        (&[], 2, &["no song given"]),
    ];
    for (args, code, words) in cases {
        studio.separate(args).fails(code, words);
        assert!(studio.files("output").is_empty(), "{args:?}");
    }
}

#[test]
fn models_that_cannot_be_opened_are_explained() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    std::fs::create_dir(studio.path("alone")).unwrap();
    std::fs::copy(studio.path("model.safetensors"), studio.path("alone/net.safetensors")).unwrap();
    studio.model("three", &["a", "b", "c"]);
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--model", "alone/net.safetensors"], &["net.yaml", "--config"]),
        (&["--model", "alone"], &["folder"]),
        (&["--model", "alone/missing.ckpt"], &["missing.ckpt"]),
        (&["--model", "bs-rofomer-musdb18hq", "--offline"], &["did you mean bs-roformer-musdb18hq"]),
        (&["--model", "bs-roformer-musdb18hq", "--offline"], &["--offline", "models download"]),
        (&["--model", "three.safetensors", "--config", "model.yaml"], &["three.safetensors"]),
    ];
    for (args, words) in cases {
        studio.run(&[args, &["song.wav"]].concat()).fails(3, words);
    }
    assert!(studio.files("output").is_empty());
}

#[test]
fn a_missing_yaml_is_reported_before_any_download() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    let line =
        ["--start_check_point", "bs_roformer/model_bs_roformer_ep_17_sdr_9.6568.ckpt", "--config_path"];
    let run = studio.run(&[&line[..], &["gone.yaml", "song.wav"]].concat()).fails(3, &["gone.yaml"]);
    assert!(!run.err.contains("Fetching"), "{}", run.err);
    assert_eq!(run.err.matches("No such file").count(), usize::from(cfg!(unix)), "{}", run.err);
    let run = studio.run(&["--config", "gone.yaml", "song.wav"]).fails(3, &["gone.yaml"]);
    assert!(!run.err.contains("Fetching"), "{}", run.err);
    let own = ["bs_roformer/config_bs_roformer_384_8_2_485100.yaml", "--offline", "song.wav"];
    studio.run(&[&line[..], &own].concat()).fails(3, &["--offline", "models download"]);
}

#[test]
fn without_network_nothing_stands_in_for_the_default_model() {
    let studio = Studio::new();
    studio.song("song.wav", 0.05);
    for args in [&["--offline", "song.wav"][..], &["song.wav"]] {
        let started = Instant::now();
        let run = studio.run(args);
        if cfg!(feature = "embedded") {
            run.fails(3, &["--model embedded", "models download"]);
        } else {
            run.fails(3, &["no model is embedded"]);
        }
        assert!(started.elapsed() < Duration::from_secs(60));
        assert!(studio.files("output").is_empty());
    }
    if cfg!(feature = "embedded") {
        studio.run(&["--offline", "--model", "embedded", "song.wav"]).ok();
    }
}

#[test]
fn one_bad_song_does_not_stop_the_others() {
    let studio = Studio::new();
    studio.song("a.wav", 0.05);
    studio.song("c.wav", 0.05);
    std::fs::write(studio.path("b.wav"), b"this is no song at all").unwrap();
    let songs = ["--stems", "bass", "a.wav", "b.wav", "c.wav"];
    let run = studio.separate(&songs).fails(1, &["b.wav", "2 separated, 1 failed"]);
    // The code is the same where a share holds only one.
    let shares = ["1/3", "2/3", "3/3"];
    let codes = shares
        .map(|shard| studio.separate(&["-o", "share", "--shard", shard, "a.wav", "b.wav", "c.wav"]).code);
    assert_eq!((codes.iter().filter(|code| **code == 1).count(), codes.iter().sum::<i32>()), (1, 1));
    assert!(!run.err.contains("a.wav"));
    assert_eq!(studio.files("output"), ["a_bass.wav", "c_bass.wav"]);
    std::fs::remove_dir_all(studio.path("output")).unwrap();
    studio.separate(&[&["--fail-fast"], &songs[..]].concat()).fails(1, &["b.wav"]);
    assert_eq!(studio.files("output"), ["a_bass.wav"]);
}

#[test]
fn json_mode_prints_one_object_a_line_and_nothing_else() {
    let studio = Studio::new();
    studio.song("a.wav", 0.3);
    std::fs::write(studio.path("b.wav"), b"this is no song at all").unwrap();
    let run = studio.separate(&["--json", "a.wav", "b.wav"]);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    let events = run.events();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("start", "summary"));
    let one = |kind: &str| events.iter().find(|event| event["event"] == kind).unwrap();
    assert!(one("progress")["fraction"].is_number());
    assert_eq!(one("done")["outputs"].as_array().unwrap().len(), 4);
    assert!(
        one("done")["rtf"].is_number()
            && one("done")["null_exact"] == true
            && one("done")["null_dbfs"].is_null()
    );
    assert!(one("error")["message"].as_str().unwrap().contains("b.wav"));
    assert_eq!((&one("summary")["done"], &one("summary")["failed"]), (&1.into(), &1.into()));
    // Fatal errors too.
    let run = studio.separate(&["--json", "--stems", "piano", "a.wav"]);
    assert_eq!((run.events()[0]["exit_code"].as_u64(), run.code), (Some(2), 2));
    let run = studio.run(&["models", "download", "--json", "nonsuch"]);
    let message = run.events()[0]["message"].to_string();
    assert!(run.code == 2 && run.err.is_empty() && message.contains("nonsuch"), "{message}{}", run.err);
}

#[test]
fn quiet_mode_prints_nothing_on_success() {
    let studio = Studio::new();
    studio.song("a.wav", 0.05);
    let run = studio.separate(&["--quiet", "a.wav"]).ok();
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_file() {
    use std::process::Stdio;

    use support::Run;

    let studio = Studio::new();
    studio.song("long.wav", 120.0);
    for presses in [1, 2] {
        let mut child = studio
            .command(&["--model", "model.safetensors", "--overlap", "8", "long.wav"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while studio.files("output").len() < 4 {
            assert!(started.elapsed() < Duration::from_secs(60), "no temporary file appeared");
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
            std::thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..presses {
            let pid = child.id().to_string();
            // The second may come too late, when the first has already ended it.
            let _ = std::process::Command::new("kill")
                .args(["-INT", &pid])
                .stderr(Stdio::null())
                .status()
                .unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!(run.code, 130, "{}", run.err);
        assert!(run.err.contains("press Ctrl-C again"), "{}", run.err);
        assert_eq!(studio.files("output"), Vec::<String>::new());
    }
}

#[test]
fn inspect_reports_and_fails_when_the_checkpoint_would_not_load() {
    let studio = Studio::new();
    let run = studio.run(&["inspect", "model.safetensors"]).ok();
    assert!(run.out.contains("BS-RoFormer") && run.out.contains("drums, bass, other, vocals"), "{}", run.out);
    studio.model("three", &["a", "b", "c"]);
    studio.run(&["inspect", "three.safetensors", "--config", "model.yaml"]).fails(3, &["does not load"]);
    studio.run(&["inspect", "missing.ckpt"]).fails(3, &["missing.ckpt"]);
}

#[test]
fn a_converted_model_needs_no_yaml_and_separates_alike() {
    let studio = Studio::new();
    studio.song("song.wav", 0.2);
    studio.run(&["convert", "model.safetensors", "whole/net.safetensors"]).fails(4, &["whole"]);
    std::fs::create_dir(studio.path("whole")).unwrap();
    studio.run(&["convert", "model.safetensors", "whole/net.safetensors"]).ok();
    studio.run(&["convert", "model.safetensors", "whole/half.safetensors", "--dtype", "f16"]).ok();
    studio.separate(&["song.wav"]).ok();
    for name in ["net", "half"] {
        studio.run(&["--model", &format!("whole/{name}.safetensors"), "-o", name, "song.wav"]).ok();
    }
    let vocals = |folder: &str| read(&studio.path(&format!("{folder}/song_vocals.wav")));
    assert_eq!(vocals("output"), vocals("net"));
    assert_ne!(vocals("output"), vocals("half"));
    studio.run(&["convert", "model.safetensors", "./model.safetensors"]).fails(2, &["one file"]);
}

#[test]
fn models_are_listed_for_people_and_programs() {
    let studio = Studio::new();
    let run = studio.run(&["models"]).ok();
    assert!(run.out.contains("bs-roformer-musdb18hq") && run.out.contains("LICENCE"), "{}", run.out);
    let events = studio.run(&["models", "--json"]).ok().events();
    assert!(events.len() > 10 && events[0]["default"] == true && events[0]["checkpoint"].is_null());
    assert!(studio.run(&["models", "path"]).ok().out.contains("cache"));
    studio.run(&["models", "path", "mel-band-kim"]).fails(3, &["models download mel-band-kim"]);
    studio.run(&["models", "download", "no-such-model"]).fails(2, &["no-such-model"]);
    studio.run(&["models", "download", "mel-band-kim"]).fails(3, &["127.0.0.1"]);
}

#[test]
fn bench_measures_the_whole_pass() {
    let studio = Studio::new();
    let line = ["bench", "--model", "model.safetensors", "--seconds", "0.5", "--runs", "2", "--threads", "1"];
    let run = studio.run(&[&line[..], &["--json"]].concat()).ok();
    let event = &run.events()[0];
    for key in ["audio_seconds", "median_seconds", "rtf", "load_seconds", "gflop"] {
        assert!(event[key].as_f64().unwrap() > 0.0, "{key}: {event}");
    }
    assert_eq!(
        (&event["precision"], &event["threads"], &event["audio_seconds"]),
        (&"f32".into(), &1.into(), &0.5.into())
    );
    assert!(event["kernel"].is_string() && event["stages"]["network_seconds"].is_number());
    assert!(cfg!(not(unix)) || event["processor_seconds"].as_f64().unwrap() > 0.0, "{event}");
    let event = &studio
        .run(&[&line[..], &["--json", "--precision", "bf16", "--stems", "stems.f32"]].concat())
        .ok()
        .events()[0];
    assert_eq!(event["precision"], "bf16", "{event}");
    // Two channels of 22 050 samples: the chunk, then four stems.
    assert_eq!(std::fs::metadata(studio.path("stems.f32")).unwrap().len(), 5 * 2 * 22_050 * 4);
    studio.run(&[&line[..], &["--precision", "f16"]].concat()).fails(3, &["f16 is not available on the CPU"]);
    assert!(cfg!(not(target_os = "linux")) || event["peak_rss_bytes"].as_u64().unwrap() > 1_000_000);
    assert!(studio.run(&line).ok().out.contains("RTF"));
    studio.run(&["bench", "--model", "model.safetensors", "--seconds", "0.0001"]).fails(2, &["too short"]);
}

#[test]
fn inspect_and_bench_explain_why_kernels_are_not_used() {
    let studio = Studio::new();
    let case = |name: &str| format!("{}/tests/fixtures/parity/{name}", env!("CARGO_MANIFEST_DIR"));
    for (name, inspected, kernel) in [
        (
            "bs_lucid_value_residual",
            "no fused kernels for value residuals",
            "candle (no fused kernels for value residuals)",
        ),
        ("bs_msst_skip_connection", "fused kernels", ""),
    ] {
        let (model, yaml) =
            (format!("{}/model.safetensors", case(name)), format!("{}/model.yaml", case(name)));
        let run = studio.run(&["inspect", &model, "--config", &yaml]).ok();
        assert!(run.out.contains(inspected), "{}", run.out);
        let run = studio.run(&[
            "bench",
            "--model",
            &model,
            "--config",
            &yaml,
            "--seconds",
            "0.2",
            "--runs",
            "1",
            "--json",
        ]);
        let event = &run.ok().events()[0];
        let found = event["kernel"].as_str().unwrap();
        assert!(found == kernel || (kernel.is_empty() && !found.contains("candle")), "{found}");
    }
}

#[test]
fn tiers_measures_against_true_stems_and_over_a_sweep() {
    let studio = Studio::new();
    // Two independent stems of one level: half of the mixture is the best guess at either, 3 dB off.
    for (name, level, samples) in [("drums", 0.3, 45_000), ("Bass", 0.3, 45_001), ("vocals", 0.0, 45_002)] {
        studio.noise(&format!("truth/{name}.wav"), Spec { samples, level, ..Spec::default() });
    }
    std::fs::write(studio.path("truth/README.txt"), "not audio").unwrap();
    let line = ["tiers", "--model", "model.safetensors", "--json", "--stems", "truth"];
    let events = studio.run(&line).ok().events();
    let names: Vec<_> = events.iter().map(|event| event["tier"].as_str().unwrap()).collect();
    assert_eq!(names, ["live", "low", "balanced", "high", "offline", "mixture"]);
    for event in &events {
        let truth = &event["true_sdr_db"];
        assert!(truth["drums"].is_f64() && truth["bass"].is_f64(), "{event}");
        assert!(truth["vocals"].is_null() && truth["other"].is_null(), "{event}");
    }
    let half = events[5]["true_sdr_db"]["bass"].as_f64().unwrap();
    assert!((half - 3.01).abs() < 0.1, "{half}");

    let sweep = ["--hops", "0.02,0.04", "--lookaheads", "0.01,0.03", "--rate", "44100"];
    let events = studio.run(&[&line[..], &sweep].concat()).ok().events();
    assert_eq!(events.len(), 4 + 2);
    let lengths: Vec<_> = events[..4]
        .iter()
        .map(|event| ["hop_seconds", "lookahead_seconds"].map(|key| event[key].as_f64().unwrap()))
        .collect();
    for (found, asked) in lengths.iter().zip([[0.02, 0.01], [0.02, 0.03], [0.04, 0.01], [0.04, 0.03]]) {
        assert!(found.iter().zip(asked).all(|(found, asked)| (found - asked).abs() < 0.002), "{lengths:?}");
    }

    std::fs::create_dir(studio.path("empty")).unwrap();
    studio.run(&["tiers", "--stems", "empty"]).fails(4, &["empty", "drums.wav"]);
}

#[test]
fn the_demo_composes_separates_and_measures() {
    let studio = Studio::new();
    let run = studio.run(&["demo", "--model", "model.safetensors", "--json"]).ok();
    let event = run.events().into_iter().find(|event| event["event"] == "demo").unwrap();
    assert_eq!(event["stems"].as_array().unwrap().len(), 4);
    assert!(event["null_exact"] == true && event["stems"][0]["baseline_sdr_db"].is_number(), "{event}");
    let song = read(&studio.path("demo/demo.wav"));
    assert!(sum_to(&song, &stems(&studio, "demo/reference", "demo", "wav")));
    assert!(sum_to(&song, &stems(&studio, "demo", "demo", "wav")));
}

#[test]
fn help_devices_and_completions_work() {
    let studio = Studio::new();
    let help = studio.run(&["--help"]).ok().out;
    for word in ["--lossless", "Exit codes", "130", "demo", "--shard"] {
        assert!(help.contains(word), "{word}");
    }
    assert!(studio.run(&["devices"]).ok().out.starts_with("cpu"));
    assert!(studio.run(&["devices", "--json"]).ok().events()[0]["ready"] == true);
    assert!(studio.run(&["completions", "bash"]).ok().out.contains("nullsum-cli"));
    studio.run(&["--no-such-flag"]).fails(2, &["--no-such-flag"]);
}
