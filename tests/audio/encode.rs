//! Written files hold the samples that were given.

use std::path::Path;
use std::process::Command;

use nullsum::audio::{
    AudioError, AudioWriter, Container, Decoder, Planar, SampleFormat, SourceFormat, WriterSpec,
};

use crate::make::{Noise, read_all, sine};

fn spec(container: Container, format: SampleFormat, channels: usize, sample_rate: u32) -> WriterSpec {
    WriterSpec { container, format, channels, sample_rate }
}

fn write(path: &Path, spec: WriterSpec, block: &Planar, step: usize) -> u64 {
    let mut writer = AudioWriter::create(path, spec).unwrap();
    let mut at = 0;
    while at < block.samples() {
        let end = block.samples().min(at + step);
        writer.write(&block.slice(at..end)).unwrap();
        at = end;
    }
    assert_eq!(writer.written(), block.samples() as u64);
    let clipped = writer.clipped();
    assert_eq!(writer.finish().unwrap(), path);
    clipped
}

fn read(path: &Path) -> (Decoder, Planar) {
    let mut decoder = Decoder::open(path).unwrap();
    let all = read_all(&mut decoder, 3000).unwrap();
    assert_eq!(decoder.warnings(), [""; 0]);
    (decoder, all)
}

/// Noise on the grid of `bits`, with runs at full scale of both signs, which is what breaks predictors.
fn grid_noise(channels: usize, samples: usize, bits: u32, seed: u64) -> Planar {
    let mut noise = Noise(seed);
    let full = (1_i64 << (bits - 1)) as f64;
    let planes = (0..channels)
        .map(|channel| {
            (0..samples)
                .map(|n| {
                    let step = match (n / 100) % 5 {
                        0 => (noise.uniform() * full).floor(),
                        1 if (n + channel) % 2 == 0 => -full,
                        1 => full - 1.0,
                        2 => (noise.uniform() * 8.0).floor(),
                        3 => (full * 0.7 * (n as f64 * 0.05).sin()).floor(),
                        _ => 0.0,
                    };
                    (step / full) as f32
                })
                .collect()
        })
        .collect();
    Planar::from_planes(planes).unwrap()
}

#[test]
fn grid_values_come_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    use {Container::*, SampleFormat::*};
    let table = [
        (Wav, Pcm16, SourceFormat::Int16),
        (Wav, Pcm24, SourceFormat::Int24),
        (Wav, Float32, SourceFormat::Float32),
        (Flac, Pcm16, SourceFormat::Int16),
        (Flac, Pcm24, SourceFormat::Int24),
    ];
    for (container, format, source) in table {
        let bits = if format == Pcm16 { 16 } else { 24 };
        for (channels, rate) in [(1, 8000), (2, 44_100), (2, 192_000), (6, 48_000), (8, 44_056)] {
            let block = grid_noise(channels, 10_000 + channels, bits, u64::from(rate));
            let path = folder.path().join(format!("{channels}.{}", container.extension()));
            assert_eq!(write(&path, spec(container, format, channels, rate), &block, 777), 0);
            let (decoder, all) = read(&path);
            let info = decoder.info();
            assert_eq!((info.channels, info.sample_rate, info.sample_format), (channels, rate, source));
            assert_eq!(info.samples, Some(block.samples() as u64));
            assert!(all == block, "{container:?} {format:?} {channels} channels differ");
        }
    }
}

#[test]
fn every_short_length_is_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    for container in [Container::Wav, Container::Flac] {
        for samples in (0..70).chain([4095, 4096, 4097, 8192, 8193]) {
            let block = grid_noise(2, samples, 24, 5);
            let path = folder.path().join("short");
            write(&path, spec(container, SampleFormat::Pcm24, 2, 48_000), &block, 50);
            let (decoder, all) = read(&path);
            assert_eq!(decoder.info().samples, Some(samples as u64), "{container:?}");
            assert!(all == block, "{container:?} {samples}");
        }
    }
}

#[test]
fn flac_works_at_every_rate_that_it_allows() {
    let folder = tempfile::tempdir().unwrap();
    let block = grid_noise(2, 5000, 16, 9);
    for rate in [1000, 11_025, 44_100, 65_537, 88_200, 96_000, 96_001, 176_400, 352_800, 655_350] {
        let path = folder.path().join("rate.flac");
        write(&path, spec(Container::Flac, SampleFormat::Pcm16, 2, rate), &block, 5000);
        let (decoder, all) = read(&path);
        assert_eq!(decoder.info().sample_rate, rate);
        assert!(all == block, "{rate}");
    }
}

#[test]
fn flac_stream_info_holds_sizes_and_checksum_of_the_samples() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("info.flac");
    let block = Planar::from_planes(vec![sine(10_000, 440.0, 44_100.0, 0.5); 2]).unwrap();
    write(&path, spec(Container::Flac, SampleFormat::Pcm16, 2, 44_100), &block, 10_000);
    let bytes = std::fs::read(&path).unwrap();
    let be = |range: std::ops::Range<usize>| {
        bytes[range].iter().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte))
    };
    assert_eq!(&bytes[..8], b"fLaC\x80\0\0\x22");
    assert_eq!((be(8..10), be(10..12)), (4096, 4096));
    assert!(be(12..15) > 14 && be(12..15) < be(15..18) && be(15..18) < 4096 * 4, "frame sizes");
    let packed = be(18..26);
    assert_eq!((packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1), (44_100, 2, 16));
    assert_eq!(packed & ((1 << 36) - 1), 10_000);
    assert!(be(26..42) != 0);
    assert!(bytes.len() < 10_000 * 4 * 6 / 10, "a sine compresses: {} bytes", bytes.len());
    // The decoder compares the checksum; a wrong one is a warning there.
    let mut wrong = bytes;
    wrong[30] ^= 1;
    std::fs::write(&path, wrong).unwrap();
    let mut decoder = Decoder::open(&path).unwrap();
    read_all(&mut decoder, 4096).unwrap();
    assert_eq!(decoder.warning_count(), 1);
}

/// Against the reference decoder, where it is installed.
#[test]
fn the_reference_decoder_accepts_our_flac() {
    if Command::new("flac").arg("--version").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (format, bits) in [(SampleFormat::Pcm16, 16), (SampleFormat::Pcm24, 24)] {
        for (channels, rate, samples) in
            [(2, 44_100, 0), (1, 44_100, 1), (2, 48_000, 40_000), (6, 192_000, 9000), (8, 655_350, 31)]
        {
            let path = folder.path().join("reference.flac");
            write(
                &path,
                spec(Container::Flac, format, channels, rate),
                &grid_noise(channels, samples, bits, 3),
                1000,
            );
            // Of a file without samples it warns that their number is unknown.
            let strict: &[&str] = if samples > 0 { &["-w"] } else { &[] };
            let run = Command::new("flac").args(["-t", "-s"]).args(strict).arg(&path).output().unwrap();
            assert!(run.status.success(), "{bits} {channels} {rate} {samples}: {run:?}");
        }
    }
}

#[test]
fn hound_reads_our_wav() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hound.wav");
    let block = grid_noise(2, 999, 24, 1);
    write(&path, spec(Container::Wav, SampleFormat::Pcm24, 2, 44_100), &block, 100);
    let mut reader = hound::WavReader::open(&path).unwrap();
    assert_eq!(reader.duration(), 999);
    let left: Vec<i32> = reader.samples::<i32>().step_by(2).map(Result::unwrap).collect();
    let expected: Vec<i32> = block.channel(0).iter().map(|&s| (s * 8_388_608.0) as i32).collect();
    assert_eq!(left, expected);
}

#[test]
fn saturated_samples_are_counted_and_float_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loud.wav");
    let loud = Planar::from_planes(vec![vec![1.5, -1.0, 1.0, -1.25, f32::NAN, 0.5]]).unwrap();
    assert_eq!(write(&path, spec(Container::Wav, SampleFormat::Pcm16, 1, 44_100), &loud, 6), 4);
    let top = 32_767.0 / 32_768.0;
    assert_eq!(read(&path).1.channel(0), [top, -1.0, top, -1.0, 0.0, 0.5]);
    let loud = Planar::from_planes(vec![vec![1.5, -7.0]]).unwrap();
    assert_eq!(write(&path, spec(Container::Wav, SampleFormat::Float32, 1, 44_100), &loud, 6), 0);
    assert_eq!(read(&path).1, loud);
}

#[test]
fn unfinished_files_are_invisible_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stem – ドラム.flac");
    let names = || std::fs::read_dir(folder.path()).unwrap().count();
    let spec = spec(Container::Flac, SampleFormat::Pcm16, 1, 44_100);

    let mut dropped = AudioWriter::create(&path, spec).unwrap();
    dropped.write(&Planar::zeros(1, 100_000)).unwrap();
    assert!(!path.exists());
    drop(dropped);
    assert_eq!(names(), 0);

    std::fs::write(&path, b"an older file").unwrap();
    let mut writer = AudioWriter::create(&path, spec).unwrap();
    writer.write(&Planar::zeros(1, 10)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"an older file");
    writer.finish().unwrap();
    assert_eq!(read(&path).1, Planar::zeros(1, 10));
    assert_eq!(names(), 1);
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        let plain = folder.path().join("plain");
        std::fs::write(&plain, b"").unwrap();
        assert_eq!(
            mode,
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(plain).unwrap().permissions())
        );
    }
}

#[test]
fn impossible_outputs_are_refused_with_advice() {
    use {Container::*, SampleFormat::*};
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (case, advice) in [
        (spec(Flac, Float32, 2, 44_100), "16 or 24"),
        (spec(Flac, Pcm16, 9, 44_100), "at most 8; use WAV"),
        (spec(Flac, Pcm16, 2, 700_000), "use WAV"),
        (spec(Wav, Pcm16, 0, 44_100), "1 to 64"),
        (spec(Wav, Pcm16, 65, 44_100), "1 to 64"),
        (spec(Wav, Pcm16, 2, 0), "0 Hz"),
        (spec(Wav, Pcm16, 2, 800_000), "800000 Hz"),
    ] {
        let Err(error) = AudioWriter::create(&out, case) else { panic!("{case:?} was accepted") };
        assert!(matches!(error, AudioError::Spec { .. }) && error.to_string().contains(advice), "{error}");
    }
    let usual = spec(Wav, Pcm16, 1, 44_100);
    assert!(matches!(AudioWriter::create(folder.path(), usual), Err(AudioError::NotAFile { .. })));
    let missing = folder.path().join("no folder/out.wav");
    let error = AudioWriter::create(&missing, usual).err().unwrap();
    assert!(matches!(error, AudioError::Create { .. }) && error.to_string().contains("no folder"), "{error}");
    let mut writer = AudioWriter::create(&out, usual).unwrap();
    assert!(matches!(writer.write(&Planar::new(2)), Err(AudioError::Channels { expected: 1, found: 2 })));
    assert!(!out.exists());
}
