//! Comparison with ffmpeg, where it is installed: what we write is what it reads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests; a failure is a failed test")]

use std::path::Path;
use std::process::Command;

use nullsum::audio::{Planar, SampleFormat};

use super::support::{Spec, Studio, read};

/// Output of a program; `None` if it is not installed.
fn output_of(program: &str, args: &[&str]) -> Option<Vec<u8>> {
    let found = Command::new(program).args(args).output();
    let output = match found {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("{program} is not installed: nothing to compare with");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// All samples of an audio track, as ffmpeg decodes it.
fn decoded_by_ffmpeg(path: &Path, track: usize, channels: usize) -> Option<Planar> {
    let (path, track) = (path.to_str().unwrap(), format!("0:a:{track}"));
    let line = ["-v", "error", "-i", path, "-map", &track, "-c:a", "pcm_s32le", "-f", "s32le", "-"];
    let bytes = output_of("ffmpeg", &line)?;
    let samples: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|word| i32::from_le_bytes(word.try_into().unwrap()) as f32 / 2_147_483_648.0)
        .collect();
    let plane = |c: usize| samples.iter().skip(c).step_by(channels).copied().collect();
    Some(Planar::from_planes((0..channels).map(plane).collect()).unwrap())
}

#[test]
fn ffmpeg_reads_the_files_that_we_write() {
    let studio = Studio::new();
    for (name, format, sample_rate) in [
        ("a", SampleFormat::Pcm16, 44_100),
        ("b", SampleFormat::Pcm24, 48_000),
        ("c", SampleFormat::Pcm24, 96_000),
    ] {
        let input = format!("{name}.wav");
        let song =
            read(&studio.noise(&input, Spec { samples: 50_001, sample_rate, format, ..Spec::default() }));
        for kind in ["wav", "flac", "stem.m4a"] {
            studio.separate(&["--format", kind, &input]).ok();
        }
        for kind in ["wav", "flac"] {
            let file = studio.path(&format!("output/{name}_bass.{kind}"));
            let Some(found) = decoded_by_ffmpeg(&file, 0, 2) else { return };
            assert!(found == read(&file), "{name}.{kind}");
        }
        let file = studio.path(&format!("output/{name}.stem.m4a"));
        for (track, stem) in ["", "drums", "bass", "other", "vocals"].iter().enumerate() {
            let Some(found) = decoded_by_ffmpeg(&file, track, 2) else { return };
            let expected = match *stem {
                "" => song.clone(),
                stem => read(&studio.path(&format!("output/{name}_{stem}.wav"))),
            };
            assert!(found == expected, "{name}: track {track}");
        }
        let entries = "stream=codec_name,channels,sample_rate,duration_ts:stream_disposition=default";
        let line = ["-v", "error", "-of", "csv=p=0", "-show_entries", entries, file.to_str().unwrap()];
        let Some(text) = output_of("ffprobe", &line) else { return };
        let streams = String::from_utf8(text).unwrap();
        let rows: Vec<&str> = streams.lines().collect();
        let row = |default: u8| format!("alac,{sample_rate},2,50001,{default}");
        assert_eq!(rows, [row(1), row(0), row(0), row(0), row(0)].map(|row| row.clone()));
    }
}
