//! Comparison with ffmpeg and flac, where they are installed: files of many codecs and containers, made on the spot, are
//! decoded to the same samples.

use std::path::Path;
use std::process::Command;

use nullsum::audio::{Decoder, Planar};
use nullsum::dsp::snr_db;

use crate::make::{Noise, Wav, read_all};

/// Output of a program; `None` if it is not installed.
fn output_of(program: &str, args: &[&str]) -> Option<Vec<u8>> {
    let output = match Command::new(program).args(args).output() {
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

/// A second of noise and tones, 16 bits, as a WAV file.
fn song(path: &Path, channels: u16) {
    let mut noise = Noise(21);
    let sample = |n: usize, c: usize, noise: &mut Noise| {
        let tone = (n as f64 * 0.03 * (c + 1) as f64).sin() * 9000.0;
        (tone + noise.uniform() * 2000.0) as i16
    };
    let channels_of = usize::from(channels);
    let data = (0..44_100 * channels_of)
        .flat_map(|i| sample(i / channels_of, i % channels_of, &mut noise).to_le_bytes());
    std::fs::write(path, Wav::new(1, channels, 16, data.collect()).bytes()).unwrap();
}

/// All samples, as ffmpeg decodes them.
fn decoded_by_ffmpeg(path: &Path, channels: usize) -> Option<Planar> {
    let line = ["-v", "error", "-i", path.to_str().unwrap(), "-map", "0:a:0", "-f", "f32le", "-"];
    let bytes = output_of("ffmpeg", &line)?;
    let samples: Vec<f32> =
        bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
    let plane = |c: usize| samples.iter().skip(c).step_by(channels).copied().collect();
    Some(Planar::from_planes((0..channels).map(plane).collect()).unwrap())
}

#[test]
fn decoded_samples_are_those_of_ffmpeg() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Name, options of the encoder, how close the samples come in dB; infinite means equal.
    let exact = f64::INFINITY;
    let table: [(&str, &str, f64); 30] = [
        ("a.flac", "-c:a flac", exact),
        ("b.flac", "-c:a flac -sample_fmt s32", exact),
        ("c.m4a", "-c:a alac", exact),
        ("d.caf", "-c:a alac", exact),
        ("e.mka", "-c:a flac", exact),
        ("f.mkv", "-c:a pcm_s24le", exact),
        ("g.mov", "-c:a pcm_s16be", exact),
        ("h.mov", "-c:a pcm_s24le", exact),
        ("i.mov", "-c:a pcm_f32le", exact),
        ("j.aiff", "-c:a pcm_s24be", exact),
        ("k.aiff", "-c:a pcm_s16le", exact),
        ("l.caf", "-c:a pcm_f32be", exact),
        ("m.wav", "-c:a pcm_u8", exact),
        ("n.wav", "-c:a pcm_f64le", exact),
        ("o.wav", "-c:a pcm_s32le", exact),
        ("p.wav", "-c:a pcm_mulaw", exact),
        ("q.wav", "-c:a pcm_alaw", exact),
        ("r.aiff", "-c:a pcm_mulaw", exact),
        ("s.wav", "-rf64 always -c:a pcm_s16le", exact),
        ("t.wav", "-c:a adpcm_ms", 90.0),
        ("u.wav", "-c:a adpcm_ima_wav", 90.0),
        ("v.mp3", "-c:a libmp3lame -b:a 96k", 90.0),
        ("w.mp3", "-c:a libmp3lame -q:a 4 -ar 22050", 90.0),
        ("x.m4a", "-c:a aac -b:a 96k", 90.0),
        ("y.aac", "-c:a aac -b:a 96k", 90.0),
        ("z.ogg", "-c:a libvorbis -q:a 3", 90.0),
        ("A.opus", "-c:a libopus -b:a 96k", 60.0),
        ("B.webm", "-c:a libopus -b:a 96k", 60.0),
        ("C.webm", "-c:a libvorbis", 90.0),
        ("D.mkv", "-c:a libmp3lame -b:a 96k", 90.0),
    ];
    let mut wrong = Vec::new();
    for channels in [1, 2] {
        song(&path("song.wav"), channels);
        for (name, options, wanted) in table {
            let (from, to) = (path("song.wav"), path(name));
            let start = ["-v", "error", "-y", "-i", from.to_str().unwrap()];
            let line: Vec<&str> =
                start.into_iter().chain(options.split(' ')).chain([to.to_str().unwrap()]).collect();
            if output_of("ffmpeg", &line).is_none() {
                return;
            }
            let Some(expected) = decoded_by_ffmpeg(&to, usize::from(channels)) else { return };
            let mut decoder = Decoder::open(&to).unwrap();
            let found = read_all(&mut decoder, 4096).unwrap();
            let common = found.samples().min(expected.samples());
            let snr = snr_db(&expected.channel(0)[..common], &found.channel(0)[..common]);
            let length = found.samples() as i64 - expected.samples() as i64;
            println!(
                "{name:8} {channels} {options:36} {snr:6.1} dB, {length:+} samples, {:?}",
                decoder.warnings()
            );
            // ffmpeg plays the padding of the last AAC packet, which the edit list leaves out; and symphonia plays that of the
            // last packet in Matroska.
            let is_length_right = match name.rsplit_once('.') {
                Some((_, "m4a")) => length == 0 || found.samples() == 44_100,
                Some((_, "mkv" | "webm")) if wanted < exact => (0..1152).contains(&length),
                _ => length == 0,
            };
            let is_right = snr >= wanted && is_length_right && decoder.warnings().is_empty();
            if !is_right {
                wrong.push(format!("{name} {channels}: {snr:.1} dB, {length:+} samples"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn flac_accepts_our_files_and_we_accept_its() {
    use nullsum::audio::{AudioWriter, Container, SampleFormat, WriterSpec};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    song(&path("song.wav"), 2);
    let song = read_all(&mut Decoder::open(path("song.wav")).unwrap(), 4096).unwrap();
    for (n, level) in ["-0", "-5", "-8"].into_iter().enumerate() {
        let (from, to) = (path("song.wav"), path(&format!("{n}.flac")));
        let line = ["-s", "-f", level, "-o", to.to_str().unwrap(), from.to_str().unwrap()];
        if output_of("flac", &line).is_none() {
            return;
        }
        assert!(read_all(&mut Decoder::open(&to).unwrap(), 4096).unwrap() == song, "{level}");
    }
    let spec = WriterSpec {
        container: Container::Flac,
        format: SampleFormat::Pcm24,
        channels: 2,
        sample_rate: 44_100,
    };
    let mut writer = AudioWriter::create(path("ours.flac"), spec).unwrap();
    writer.write(&song).unwrap();
    let ours = writer.finish().unwrap();
    assert!(output_of("flac", &["-s", "-t", ours.to_str().unwrap()]).is_some());
}
