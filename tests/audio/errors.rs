//! Broken and hostile inputs give a clear error or a correct result, never a panic or a huge allocation.

use std::io::Cursor;
use std::path::Path;

use nullsum::audio::{AudioError, AudioWriter, Container, Decoder, Planar, SampleFormat, WriterSpec};

use crate::make::{Noise, Wav, aiff, decode, file, fixture, read_all};

fn error_of(bytes: Vec<u8>) -> AudioError {
    match decode(bytes) {
        Err(error) => error,
        Ok(all) => panic!("read {} samples of a broken file", all.samples()),
    }
}

#[test]
fn every_broken_header_is_an_error_that_says_why() {
    let wav = Wav::new(1, 2, 16, vec![0; 100]);
    let with = |change: &dyn Fn(&mut Wav)| {
        let mut wav = wav.clone();
        change(&mut wav);
        wav.bytes()
    };
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("0 bytes", vec![], "0 bytes"),
        ("text", b"Dear diary, today I named a letter .wav".to_vec(), "the text \"Dear diary, \""),
        ("zeros", vec![0; 4096], "not an audio file"),
        ("only a magic", b"RIFF".to_vec(), "header"),
        ("RIFF of another kind", b"RIFF\x10\0\0\0AVI LIST\x04\0\0\0hdrl".to_vec(), "header"),
        ("no fmt", b"RIFF\x04\0\0\0WAVE".to_vec(), "no `fmt` chunk"),
        ("data before fmt", b"RIFF\x10\0\0\0WAVEdata\x04\0\0\0abcd".to_vec(), "before any `fmt`"),
        ("no data", wav.bytes()[..36].to_vec(), "no `data` chunk"),
        ("no channels", with(&|w| w.channels = 0), "0 channels"),
        ("65535 channels", with(&|w| (w.channels, w.block_align) = (65_535, Some(65_534))), "65535 channels"),
        ("65 channels", with(&|w| w.channels = 65), "65 channels"),
        ("rate 0", with(&|w| w.rate = 0), "0 Hz"),
        ("rate 999", with(&|w| w.rate = 999), "999 Hz"),
        ("rate 4 GHz", with(&|w| w.rate = u32::MAX), "4294967295 Hz"),
        ("64-bit integers", with(&|w| w.bits = 64), "64-bit integer"),
        ("0-bit integers", with(&|w| w.bits = 0), "0-bit integer"),
        ("16-bit floats", with(&|w| w.tag = 3), "16-bit float"),
        ("block alignment", with(&|w| w.block_align = Some(5)), "5 bytes for 2 channels"),
        ("4 GB of 100 bytes", with(&|w| w.data_size = Some(u32::MAX - 1)), "4294967194 are missing"),
        (
            "truncated",
            with(&|w| w.data_size = Some(140)),
            "announces 140 bytes of samples, 100 are there, 40 are missing",
        ),
        ("unknown codec", with(&|w| w.tag = 0x1234), "bytes"),
        ("truncated AIFF", aiff(None, 2, 16, 26, &[0; 100]), "4 are missing"),
        ("4 G samples of AIFF", aiff(None, 2, 16, u32::MAX, &[0; 100]), "are missing"),
        ("AIFF of 33 bits", aiff(None, 2, 33, 1, &[0; 100]), "33-bit"),
        ("AIFF without channels", aiff(None, 0, 16, 1, &[0; 100]), "0 channels"),
        ("AIFF without chunks", b"FORM\0\0\0\x04AIFF".to_vec(), "no `COMM`"),
        ("AIFF of an unknown codec", aiff(Some(b"ZZZZ"), 2, 16, 1, &[0; 100]), "bytes"),
        ("only a FLAC magic", b"fLaC".to_vec(), "header"),
        ("only an Ogg magic", b"OggS".to_vec(), "header"),
        ("only an MP4 magic", b"\0\0\0\x14ftypM4A \0\0\0\0M4A ".to_vec(), "bytes"),
    ];
    for (name, bytes, expected) in table {
        let text = error_of(bytes).to_string();
        println!("{name}: {text}");
        assert!(text.starts_with("bytes") || text.contains(" bytes"), "{name}: no file named in {text}");
        assert!(text.contains(expected), "{name}: expected {expected:?} in {text}");
    }
}

#[test]
fn paths_that_are_not_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| Decoder::open(path).err().unwrap();
    assert!(matches!(error(folder.path()), AudioError::NotAFile { kind: "a folder", .. }));
    let missing = folder.path().join("nicht da.wav");
    assert!(matches!(error(&missing), AudioError::Open { .. }));
    assert!(error(&missing).to_string().contains("nicht da.wav"));
    let (_folder, empty) = file("leer.wav", b"");
    assert!(matches!(error(&empty), AudioError::Empty { .. }));
    #[cfg(unix)]
    assert!(matches!(error(Path::new("/dev/zero")), AudioError::NotAFile { kind: "a device or pipe", .. }));
}

#[cfg(unix)]
#[test]
fn a_file_without_read_permission_is_an_error() {
    let (_folder, path) = file("secret.wav", &Wav::new(1, 1, 16, vec![0; 8]).bytes());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    // Root may read everything.
    if std::fs::File::open(&path).is_err() {
        assert!(matches!(Decoder::open(&path), Err(AudioError::Open { .. })));
    }
}

fn flac(samples: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.flac");
    let spec = WriterSpec {
        container: Container::Flac,
        format: SampleFormat::Pcm16,
        channels: 2,
        sample_rate: 44_100,
    };
    let mut writer = AudioWriter::create(&path, spec).unwrap();
    let mut noise = Noise(11);
    let plane: Vec<f32> =
        (0..samples).map(|_| (noise.uniform() * 1000.0).round() as f32 / 32_768.0).collect();
    writer.write(&Planar::from_planes(vec![plane.clone(), plane]).unwrap()).unwrap();
    std::fs::read(writer.finish().unwrap()).unwrap()
}

#[test]
fn a_truncated_flac_names_the_sample_where_it_ends() {
    let whole = flac(40_000);
    for cut in [whole.len() - 1, whole.len() / 2, 3000] {
        let error = error_of(whole[..cut].to_vec());
        let AudioError::Damaged { at_sample, .. } = error else { panic!("{error}") };
        assert!(at_sample < 40_000 && at_sample % 4096 == 0, "{error}");
        assert!(error.to_string().contains("40000 samples were announced"), "{error}");
    }
}

#[test]
fn a_flipped_bit_in_flac_is_an_error_not_a_gap() {
    let whole = flac(40_000);
    let original = decode(whole.clone()).unwrap();
    for at in (60..whole.len()).step_by(997) {
        let mut broken = whole.clone();
        broken[at] ^= 0x10;
        match decode(broken) {
            Err(error) => assert!(matches!(error, AudioError::Damaged { .. }), "{error}"),
            Ok(all) => assert!(all == original, "byte {at} changed the samples without an error"),
        }
    }
}

#[test]
fn damaged_lossy_files_keep_their_length_and_warn() {
    for name in ["tone.mp3", "tone.ogg", "tone.opus", "tone.m4a", "tone.aac"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let length = decode(whole.clone()).unwrap().samples();
        for at in (0..whole.len()).step_by(61) {
            let mut broken = whole.clone();
            broken[at] ^= 0xFF;
            // Anything may happen to the sound; the process and its memory stay whole.
            if let Ok(all) = decode(broken) {
                assert!(all.samples() <= length + 48_000, "{name}: {} samples", all.samples());
            }
        }
        for cut in (1..whole.len()).step_by(97) {
            if let Ok(all) = decode(whole[..cut].to_vec()) {
                assert!(all.samples() <= length + 2048, "{name}: {} samples", all.samples());
            }
        }
    }
}

#[test]
fn a_truncated_m4a_is_an_error() {
    let whole = std::fs::read(fixture("tone_alac.m4a")).unwrap();
    for cut in [whole.len() - 1, 2000, 100] {
        assert!(decode(whole[..cut].to_vec()).is_err(), "{cut} bytes");
    }
}

#[test]
fn mutated_headers_never_panic() {
    let seeds = [
        Wav::new(1, 2, 24, vec![7; 600]).bytes(),
        aiff(Some(b"fl64"), 2, 64, 30, &[1; 480]),
        flac(5000),
        std::fs::read(fixture("tone.m4a")).unwrap(),
        std::fs::read(fixture("tone.ogg")).unwrap(),
        std::fs::read(fixture("tone.opus")).unwrap(),
    ];
    let mut noise = Noise(99);
    for seed in &seeds {
        for _ in 0..150 {
            let mut bytes = seed.clone();
            for _ in 0..=noise.next_u32() % 4 {
                let at = noise.next_u32() as usize % bytes.len().min(400);
                bytes[at] = match noise.next_u32() % 3 {
                    0 => 0xFF,
                    1 => 0,
                    _ => noise.next_u32() as u8,
                };
            }
            if let Ok(mut decoder) = Decoder::from_source(Box::new(Cursor::new(bytes)), Path::new("mutant")) {
                let _ = read_all(&mut decoder, 10_000);
            }
        }
    }
}

/// A disk that is full: `/dev/full` cannot be renamed into place, so a limit on file size stands for it.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    if std::env::var_os("NULLSUM_TEST_FULL_DISK").is_none() {
        // The limit holds for a whole process: run this test alone, in a shell that sets it (units of 1024 bytes).
        let run = std::process::Command::new("bash")
            .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["errors::a_full_disk_is_an_error_that_leaves_nothing", "--exact", "--nocapture"])
            .env("NULLSUM_TEST_FULL_DISK", "1")
            .output();
        let Ok(run) = run else { return };
        let text = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    for (container, format) in [
        (Container::Wav, SampleFormat::Pcm16),
        (Container::Wav, SampleFormat::Float32),
        (Container::Flac, SampleFormat::Pcm24),
    ] {
        let path = folder.path().join("full");
        let spec = WriterSpec { container, format, channels: 2, sample_rate: 44_100 };
        let mut writer = AudioWriter::create(&path, spec).unwrap();
        let mut noise = Noise(1);
        let plane: Vec<f32> = (0..10_000).map(|_| noise.uniform() as f32).collect();
        let block = Planar::from_planes(vec![plane.clone(), plane]).unwrap();
        let error = (0..20).find_map(|_| writer.write(&block).err()).expect("100 KiB are not enough");
        assert!(matches!(error, AudioError::Write { .. }), "{error}");
        assert!(error.to_string().contains("no partial file was left"), "{error}");
        assert!(writer.write(&block).is_err() && writer.finish().is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{container:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    let spec = WriterSpec {
        container: Container::Wav,
        format: SampleFormat::Pcm16,
        channels: 1,
        sample_rate: 44_100,
    };
    // Root may write everywhere but in /proc.
    let place = match std::fs::write(folder.path().join("probe"), b"") {
        Ok(()) => Path::new("/proc").to_path_buf(),
        Err(_) => folder.path().to_path_buf(),
    };
    let error = AudioWriter::create(place.join("out.wav"), spec).err().unwrap();
    assert!(matches!(error, AudioError::Create { .. }), "{error}");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}
