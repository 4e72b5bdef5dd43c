//! Several files in one, and several `data` chunks in one WAV: all that is there is decoded, or the file is refused.
#![allow(clippy::type_complexity, reason = "tables of cases")]

use std::io::Cursor;

use nullsum::audio::{AudioError, Damage, Decoder, Planar};

use crate::make::{Noise, Wav, aiff, decode, fixture, read_all};

const PCM: u16 = 1;

fn noise_bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed);
    (0..count).map(|_| noise.next_u32() as u8).collect()
}

fn open(bytes: Vec<u8>) -> Result<Decoder, AudioError> {
    Decoder::from_source(Box::new(Cursor::new(bytes)), "bytes".as_ref())
}

fn chunk(id: &[u8; 4], size: u32, content: &[u8]) -> Vec<u8> {
    let padding = vec![0; content.len() % 2];
    [&id[..], &size.to_le_bytes(), content, &padding].concat()
}

/// Blocks one after the other, mono on both sides where the result is stereo.
fn join(parts: &[&Planar]) -> Planar {
    let channels = parts.iter().map(|part| part.channels()).max().unwrap();
    let plane = |c: usize| {
        parts.iter().flat_map(|part| part.channel(c.min(part.channels() - 1)).to_vec()).collect::<Vec<f32>>()
    };
    Planar::from_planes((0..channels).map(plane).collect()).unwrap()
}

#[test]
fn all_data_chunks_of_a_wav_file_are_read() {
    // 24 bits in mono and an odd number of samples: the first chunk is padded.
    let [a, b] = [noise_bytes(3 * 1001, 1), noise_bytes(3 * 500, 2)];
    let size = |bytes: &[u8]| bytes.len() as u32;
    let wav = |data: &[u8], after: Vec<u8>| {
        let mut wav = Wav::new(PCM, 1, 24, data.to_vec());
        wav.after = after;
        wav.bytes()
    };
    let list = chunk(b"LIST", 4, b"INFO");
    let second = chunk(b"data", size(&b), &b);
    // What stands in the `fmt ` chunk of this file.
    let whole = wav(&a, vec![]);
    let same_format = whole[12..36].to_vec();
    let expected = join(&[&decode(wav(&a, vec![])).unwrap(), &decode(wav(&b, vec![])).unwrap()]);
    let table: [(&str, Vec<u8>); 7] = [
        ("behind each other", second.clone()),
        ("a chunk between", [list.clone(), second.clone()].concat()),
        ("a chunk behind", [second.clone(), list.clone()].concat()),
        ("the format again", [same_format, second.clone()].concat()),
        ("second states 0", chunk(b"data", 0, &b)),
        ("second states half", chunk(b"data", size(&b) / 2, &b)),
        ("second of unknown size", chunk(b"data", u32::MAX, &b)),
    ];
    for (name, after) in table {
        let mut decoder = open(wav(&a, after)).unwrap();
        let all = read_all(&mut decoder, 700).unwrap();
        assert!(all == expected, "{name}: {} of {} samples", all.samples(), expected.samples());
        let warnings = decoder.warnings();
        assert!(warnings.iter().any(|text| text.contains("2 `data` chunks")), "{name}: {warnings:?}");
    }
    // The first is empty: some recorders write it so and begin again.
    let mut empty = Wav::new(PCM, 1, 24, vec![]);
    empty.after = chunk(b"data", size(&a), &a);
    assert!(decode(empty.bytes()).unwrap() == decode(whole).unwrap());
    // Another format, samples that are missing, a codec whose packets cannot go on in another chunk.
    let other_format = Wav::new(PCM, 2, 16, vec![]).bytes()[12..36].to_vec();
    assert!(matches!(open(wav(&a, [other_format, second].concat())), Err(AudioError::Header { .. })));
    assert!(matches!(open(wav(&a, chunk(b"data", 5000, &b))), Err(AudioError::Truncated { .. })));
    let ima = std::fs::read(fixture("tone_ima.wav")).unwrap();
    let further = chunk(b"data", 64, &[0; 64]);
    assert!(matches!(open([ima, further].concat()), Err(AudioError::Unsupported { .. })));
}

#[test]
fn joined_files_are_read_one_after_the_other() {
    let of = |name: &str| std::fs::read(fixture(name)).unwrap();
    let wav = |channels: u16, seed: u64| Wav::new(PCM, channels, 16, noise_bytes(4000, seed)).bytes();
    let streamed = |seed: u64| {
        let mut wav = Wav::new(PCM, 2, 16, noise_bytes(4000, seed));
        (wav.riff_size, wav.data_size) = (Some(u32::MAX), Some(u32::MAX));
        wav.bytes()
    };
    let aiff = |channels: u16, seed: u64| {
        aiff(None, channels, 16, 2000 / u32::from(channels), &noise_bytes(4000, seed))
    };
    let folder = tempfile::tempdir().unwrap();
    let flac = |samples: usize| super::recovery::flac_noise(&folder.path().join("x.flac"), samples, 9);
    let id3 = |bytes: Vec<u8>| [b"ID3\x04\0\0\0\0\x01\x00".as_slice(), &[0; 128], &bytes].concat();
    let table: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("WAV", vec![wav(2, 1), wav(2, 2), wav(2, 3)]),
        ("WAV, mono first", vec![wav(1, 1), wav(2, 2)]),
        ("WAV, stereo first", vec![wav(2, 1), wav(1, 2)]),
        ("WAV from a pipe", vec![streamed(1), streamed(2)]),
        ("WAV from a pipe, then from an editor", vec![streamed(1), wav(2, 2)]),
        ("AIFF", vec![aiff(2, 1), aiff(2, 2)]),
        ("AIFF, mono first", vec![aiff(1, 1), aiff(2, 2)]),
        ("FLAC of one length", vec![flac(9000), flac(9000)]),
        ("FLAC of two lengths", vec![flac(9000), flac(5000)]),
        ("FLAC with tags in front", vec![id3(flac(900)), id3(flac(500))]),
        ("ALAC", vec![of("tone_alac.m4a"), of("tone_alac.m4a")]),
        ("AAC", vec![of("tone.m4a"), of("tone.m4a")]),
        ("CAF", vec![of("tone_pcm.caf"), of("tone_pcm.caf")]),
        ("Matroska", vec![of("tone.mka"), of("tone.mka")]),
        ("WebM", vec![of("tone.webm"), of("tone.webm")]),
        ("Vorbis", vec![of("tone.ogg"), of("tone.ogg")]),
        ("Vorbis, mono first", vec![of("mono.ogg"), of("tone.ogg")]),
        ("Vorbis, stereo first", vec![of("tone.ogg"), of("mono.ogg"), of("tone.ogg")]),
        ("Opus, mono first", vec![of("mono.opus"), of("tone.opus")]),
        ("Opus, stereo first", vec![of("tone.opus"), of("mono.opus")]),
    ];
    for (name, files) in table {
        let parts: Vec<Planar> = files.iter().map(|file| decode(file.clone()).unwrap()).collect();
        let expected = join(&parts.iter().collect::<Vec<_>>());
        let mut decoder = open(files.concat()).unwrap();
        let stated = decoder.info().samples;
        let all = read_all(&mut decoder, 700).unwrap();
        let warnings = decoder.warnings();
        assert!(all == expected, "{name}: {} of {} samples", all.samples(), expected.samples());
        assert!(stated.is_none_or(|stated| stated == all.samples() as u64), "{name}: {stated:?}");
        assert_eq!(decoder.damage(), Damage::default(), "{name}: {warnings:?}");
        assert!(warnings.iter().any(|text| text.contains("are joined in this one")), "{name}: {warnings:?}");
    }
}

#[test]
fn joined_files_of_other_rates_are_converted_or_refused() {
    let mut fast = Wav::new(PCM, 2, 16, noise_bytes(4000, 1));
    let slow = fast.bytes();
    fast.rate = 48_000;
    let Err(error) = open([slow, fast.bytes()].concat()) else { panic!("two rates in one WAV") };
    assert!(matches!(error, AudioError::Joined { count: 2, rates: (44_100, 48_000), .. }), "{error}");
    // Vorbis is converted, as MP3 is. Opus always has 48 kHz.
    let of = |name: &str| std::fs::read(fixture(name)).unwrap();
    let mut decoder = open([of("tone.ogg"), of("tone.opus")].concat()).unwrap();
    let length =
        decode(of("tone.ogg")).unwrap().samples() + decode(of("tone.opus")).unwrap().samples() * 441 / 480;
    assert_eq!((decoder.info().sample_rate, decoder.info().channels), (44_100, 2));
    let all = read_all(&mut decoder, 900).unwrap();
    assert!((length - 2..=length + 2).contains(&all.samples()), "{} of {length}", all.samples());
}
