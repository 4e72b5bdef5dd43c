//! Decoding of every file type.

use nullsum::audio::{Decoder, Planar, SourceFormat};
use nullsum::dsp::snr_db;

use crate::make::{Wav, aiff, decode, file, fixture, read_all, sine};

const PCM: u16 = 1;
const FLOAT: u16 = 3;

fn info_of(bytes: Vec<u8>) -> nullsum::audio::SourceInfo {
    Decoder::from_source(Box::new(std::io::Cursor::new(bytes)), "bytes".as_ref()).unwrap().info().clone()
}

fn mono(bytes: Vec<u8>) -> Vec<f32> {
    decode(bytes).unwrap().into_planes().swap_remove(0)
}

#[test]
fn integers_come_out_as_exact_multiples_of_their_step() {
    let steps16 = [0_i16, 1, -1, 12_345, i16::MAX, i16::MIN];
    let data = steps16.iter().flat_map(|s| s.to_le_bytes()).collect();
    let found = mono(Wav::new(PCM, 1, 16, data).bytes());
    let expected: Vec<f32> = steps16.iter().map(|&s| f32::from(s) / 32_768.0).collect();
    assert_eq!(found, expected);

    let steps24 = [0_i32, 1, -1, 1_234_567, (1 << 23) - 1, -(1 << 23)];
    let expected: Vec<f32> = steps24.iter().map(|&s| s as f32 / 8_388_608.0).collect();
    let data: Vec<u8> = steps24.iter().flat_map(|s| s.to_le_bytes()[..3].to_vec()).collect();
    assert_eq!(mono(Wav::new(PCM, 1, 24, data.clone()).bytes()), expected);
    let big: Vec<u8> = steps24.iter().flat_map(|s| s.to_be_bytes()[1..].to_vec()).collect();
    assert_eq!(mono(aiff(None, 1, 24, 6, &big)), expected);
    assert_eq!(mono(aiff(Some(b"sowt"), 1, 24, 6, &data)), expected);

    // 24 valid bits of 32: what a writer left below them is not part of the sample.
    let data = steps24.iter().flat_map(|s| ((s << 8) | 0x5A).to_le_bytes()).collect();
    let mut padded = Wav::new(PCM, 1, 32, data);
    padded.extensible = Some(24);
    assert_eq!(info_of(padded.bytes()).sample_format, SourceFormat::Int24);
    assert_eq!(mono(padded.bytes()), expected);
}

#[test]
fn wide_and_narrow_samples_are_scaled_to_full_scale_one() {
    let bytes = Wav::new(PCM, 1, 8, vec![0, 128, 129, 255]).bytes();
    assert_eq!(info_of(bytes.clone()).sample_format, SourceFormat::Int8);
    assert_eq!(mono(bytes), [-1.0, 0.0, 1.0 / 128.0, 127.0 / 128.0]);

    let wide = [i32::MIN, -1, 0, 1 << 30, i32::MAX];
    let bytes = Wav::new(PCM, 1, 32, wide.iter().flat_map(|s| s.to_le_bytes()).collect()).bytes();
    let info = info_of(bytes.clone());
    assert_eq!(info.sample_format, SourceFormat::Int32);
    assert!(!info.sample_format.is_exact());
    assert_eq!(mono(bytes), [-1.0, -1.0 / 2_147_483_648.0, 0.0, 0.5, 1.0]);

    let floats = [0.1_f32, -3.5, f32::MIN_POSITIVE];
    let bytes = Wav::new(FLOAT, 1, 32, floats.iter().flat_map(|s| s.to_le_bytes()).collect()).bytes();
    assert_eq!(info_of(bytes.clone()).sample_format, SourceFormat::Float32);
    assert_eq!(mono(bytes), floats);

    let doubles = [0.1_f64, -3.5, 1e-300];
    let bytes = Wav::new(FLOAT, 1, 64, doubles.iter().flat_map(|s| s.to_le_bytes()).collect()).bytes();
    assert_eq!(info_of(bytes.clone()).sample_format, SourceFormat::Float64);
    assert_eq!(mono(bytes), [0.1_f32, -3.5, 0.0]);

    let big =
        aiff(Some(b"fl32"), 1, 32, 3, &floats.iter().flat_map(|s| s.to_be_bytes()).collect::<Vec<u8>>());
    assert_eq!(mono(big), floats);
    assert_eq!(mono(aiff(None, 1, 8, 3, &[0x80, 0, 0x7F])), [-1.0, 0.0, 127.0 / 128.0]);
}

#[test]
fn channels_stay_apart_and_blocks_of_any_size_agree() {
    let samples = 10_007;
    let data = (0..samples).flat_map(|n| [n as i16, -(n as i16), 7]).flat_map(i16::to_le_bytes).collect();
    let mut wav = Wav::new(PCM, 3, 16, data);
    wav.rate = 96_000;
    let (_folder, path) = file("drei Kanäle – 三.wav", &wav.bytes());
    let mut whole = None;
    for block in [1_000_000, 1, 7, 4096, 4097] {
        let mut decoder = Decoder::open(&path).unwrap();
        assert_eq!(decoder.info().sample_rate, 96_000);
        assert_eq!(decoder.info().samples, Some(samples));
        let all = read_all(&mut decoder, block).unwrap();
        assert_eq!(decoder.position(), samples);
        assert_eq!(all.channel(2), vec![7.0 / 32_768.0; samples as usize]);
        assert_eq!(all.channel(0)[300], -all.channel(1)[300]);
        assert_eq!(*whole.get_or_insert(all.clone()), all);
    }
}

#[test]
fn zero_and_one_sample_are_legal() {
    for (count, bytes) in [
        (0, Wav::new(PCM, 2, 16, vec![]).bytes()),
        (1, Wav::new(PCM, 2, 16, vec![1, 0, 2, 0]).bytes()),
        (0, aiff(None, 2, 16, 0, &[])),
        (1, aiff(None, 2, 16, 1, &[0, 1, 0, 2])),
    ] {
        let info = info_of(bytes.clone());
        assert_eq!((info.channels, info.samples), (2, Some(count)));
        assert_eq!(decode(bytes).unwrap().samples() as u64, count);
    }
}

#[test]
fn streamed_headers_are_read_to_the_end_of_the_file() {
    let data: Vec<u8> = (0..4000).map(|n| n as u8).collect();
    let whole = decode(Wav::new(PCM, 2, 16, data.clone()).bytes()).unwrap();
    for (riff, size) in [(u32::MAX, u32::MAX), (0, 0), (36, 0), (u32::MAX, 0), (0x7FFF_F024, 0x7FFF_F000)] {
        let mut wav = Wav::new(PCM, 2, 16, data.clone());
        (wav.riff_size, wav.data_size) = (Some(riff), Some(size));
        assert_eq!(decode(wav.bytes()).unwrap(), whole, "sizes {riff:#x} {size:#x}");
    }
    // An empty file with a chunk behind it is not a streamed one.
    let mut empty = Wav::new(PCM, 2, 16, vec![]);
    empty.after = b"LIST\x04\0\0\0INFO".to_vec();
    assert_eq!(decode(empty.bytes()).unwrap().samples(), 0);

    let mut aiff = aiff(None, 2, 16, 0, &[]);
    let form = aiff.len();
    aiff.extend(&data);
    assert_eq!(decode(aiff.clone()).unwrap().samples(), 1000, "a form that ends where the sound begins");
    aiff[4..8].fill(0);
    assert_eq!(decode(aiff.clone()).unwrap().samples(), 1000, "a form without a size");
    aiff.truncate(form);
    aiff.extend(b"NAME\0\0\0\x04song");
    aiff[4..8].copy_from_slice(&(form as u32 + 4).to_be_bytes());
    assert_eq!(decode(aiff).unwrap().samples(), 0, "an empty one with a chunk behind it");
}

#[test]
fn rf64_and_foreign_chunks_are_followed() {
    let data: Vec<u8> = (0..40).collect();
    let whole = decode(Wav::new(PCM, 1, 16, data.clone()).bytes()).unwrap();
    let mut rf64 = Wav::new(PCM, 1, 16, data.clone());
    (rf64.magic, rf64.riff_size, rf64.data_size) = (*b"RF64", Some(u32::MAX), Some(u32::MAX));
    rf64.before = [b"ds64\x1c\0\0\0".as_slice(), &[0; 8], &40_u64.to_le_bytes(), &[0; 12]].concat();
    rf64.after = b"LIST\x04\0\0\0INFO".to_vec();
    assert_eq!(decode(rf64.bytes()).unwrap(), whole);
    let mut odd = Wav::new(PCM, 1, 16, data);
    odd.before = b"abcd\x03\0\0\0xyz\0".to_vec();
    assert_eq!(decode(odd.bytes()).unwrap(), whole);
}

#[test]
fn a_last_partial_sample_is_left_out_with_a_warning() {
    let bytes = Wav::new(PCM, 2, 16, vec![1, 0, 2, 0, 3]).bytes();
    let mut decoder = Decoder::from_source(Box::new(std::io::Cursor::new(bytes)), "bytes".as_ref()).unwrap();
    assert_eq!(read_all(&mut decoder, 10).unwrap().samples(), 1);
    assert_eq!(decoder.warning_count(), 1);
    assert!(decoder.warnings()[0].contains("1 bytes"), "{:?}", decoder.warnings());
}

#[test]
fn non_finite_samples_are_handed_out_and_counted() {
    let floats = [0.5_f32, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.25];
    let bytes = Wav::new(FLOAT, 1, 32, floats.iter().flat_map(|s| s.to_le_bytes()).collect()).bytes();
    let mut decoder = Decoder::from_source(Box::new(std::io::Cursor::new(bytes)), "bytes".as_ref()).unwrap();
    let all = read_all(&mut decoder, 2).unwrap();
    assert_eq!(decoder.non_finite(), 3);
    assert!(all.channel(0)[1].is_nan() && all.channel(0)[4] == 0.25);
}

#[test]
fn compressed_files_keep_position_and_length() {
    // file, container, codec, rate, samples, lowest SNR in dB
    let table = [
        ("tone.mp3", "MP3", "MP3", 44_100, 11_025, 25.0),
        ("tone.ogg", "Ogg", "Vorbis", 44_100, 11_025, 20.0),
        ("tone.opus", "Ogg", "Opus", 48_000, 12_000, 15.0),
        ("tone.m4a", "MP4", "AAC", 44_100, 11_025, 14.0),
        ("tone_alac.m4a", "MP4", "ALAC", 44_100, 2646, 80.0),
    ];
    let mut failures = Vec::new();
    for (name, container, codec, rate, samples, lowest) in table {
        let mut decoder = Decoder::open(fixture(name)).unwrap();
        let info = decoder.info().clone();
        let all = read_all(&mut decoder, 4096).unwrap();
        let snr = [(0, 440.0, 0.4), (1, 660.0, 0.3)].map(|(channel, hz, amplitude)| {
            // The ends carry the codec's onset.
            let tone = sine(samples, hz, f64::from(rate), amplitude);
            let end = all.samples().min(samples).saturating_sub(600);
            snr_db(&tone[600..end], &all.channel(channel)[600..end])
        });
        println!("{name}: {info:?}, {} samples, SNR {snr:.1?} dB, {:?}", all.samples(), decoder.warnings());
        let told =
            (info.container.as_str(), info.codec.as_str(), info.sample_rate, info.channels, info.samples);
        if told != (container, codec, rate, 2, Some(samples as u64))
            || all.samples() != samples
            || snr.iter().any(|&snr| snr < lowest)
        {
            failures.push(format!("{name}: {told:?}, {} samples, SNR {snr:?}", all.samples()));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn raw_aac_streams_are_read() {
    let mut decoder = Decoder::open(fixture("tone.aac")).unwrap();
    assert_eq!(decoder.info().sample_format, SourceFormat::Lossy);
    assert!(read_all(&mut decoder, 4096).unwrap().samples() >= 11_025);
}

#[test]
fn the_extension_does_not_matter() {
    let (_folder, path) = file("song.wav", &std::fs::read(fixture("tone.ogg")).unwrap());
    assert_eq!(Decoder::open(path).unwrap().info().codec, "Vorbis");
    let mut block = Planar::default();
    let (_folder, path) = file("song.mp3", &Wav::new(PCM, 1, 16, vec![0, 64]).bytes());
    assert_eq!(Decoder::open(path).unwrap().read(5, &mut block).unwrap(), 1);
}
