//! Files that state less than they hold, tags behind the samples, edit lists, and streams that change on the way: all
//! that is there is decoded.
#![allow(clippy::type_complexity, reason = "tables of cases")]

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use nullsum::audio::{AudioWriter, Container, Damage, Decoder, Planar, SampleFormat, WriterSpec};
use nullsum::dsp::snr_db;

use crate::make::{Noise, Wav, aiff, decode, file, fixture, read_all};

const PCM: u16 = 1;

fn noise_bytes(count: usize) -> Vec<u8> {
    let mut noise = Noise(5);
    (0..count).map(|_| noise.next_u32() as u8).collect()
}

fn open(bytes: Vec<u8>) -> Decoder {
    Decoder::from_source(Box::new(std::io::Cursor::new(bytes)), "bytes".as_ref()).unwrap()
}

#[test]
fn wav_files_that_state_less_than_they_hold_are_read_to_their_end() {
    let data = noise_bytes(40_000);
    let samples = data.len() / 4;
    let list = b"LIST\x04\0\0\0INFO".to_vec();
    let id3 = [b"id3 \x0a\0\0\0".as_slice(), &[7; 10]].concat();
    let wav = |riff: Option<u32>, size: u32, after: &[u8]| {
        let mut wav = Wav::new(PCM, 2, 16, data.clone());
        (wav.riff_size, wav.data_size, wav.after) = (riff, Some(size), after.to_vec());
        wav.bytes()
    };
    let whole = data.len() as u32;
    let table: Vec<(&str, Vec<u8>, usize)> = vec![
        ("right", wav(None, whole, &[]), samples),
        ("right, with chunks behind", wav(None, whole, &[list.clone(), id3.clone()].concat()), samples),
        ("data 0, RIFF right", wav(None, 0, &[]), samples),
        ("data 0, RIFF right, chunk behind", wav(None, 0, &list), samples),
        ("data 0, two chunks behind", wav(None, 0, &[list.clone(), id3.clone()].concat()), samples),
        ("half", wav(None, whole / 2, &[]), samples),
        ("half, and RIFF with it", wav(Some(36 + whole / 2), whole / 2, &[]), samples),
        ("half, chunk behind", wav(None, whole / 2, &id3), samples),
        ("one sample too few", wav(None, whole - 4, &[]), samples),
        ("unknown, chunk behind", wav(Some(u32::MAX), u32::MAX, &list), samples),
        ("SoX's unknown, chunk behind", wav(Some(0x7FFF_F024), 0x7FFF_F000, &list), samples),
        ("right, ID3v1 behind", [wav(None, whole, &[]), id3v1()].concat(), samples),
        ("0, ID3v1 behind", [wav(None, 0, &[]), id3v1()].concat(), samples),
        ("right, APEv2 behind", [wav(None, whole, &[]), apev2()].concat(), samples),
    ];
    for (name, bytes, samples) in table {
        let all = decode(bytes).unwrap();
        assert_eq!(all.samples(), samples, "{name}");
    }
    // Where the header is wrong, the decoder says so.
    let wrong = open(wav(None, whole / 2, &[]));
    assert!(wrong.warnings()[0].contains("all of them were read"), "{:?}", wrong.warnings());
    assert!(open(wav(None, whole, &list)).warnings().is_empty());
}

#[test]
fn rf64_files_with_empty_sizes_are_read_to_their_end() {
    let data = noise_bytes(4000);
    for size in [0_u64, 1000, u64::MAX, 4000] {
        for after in [&b""[..], b"LIST\x04\0\0\0INFO"] {
            let mut rf64 = Wav::new(PCM, 1, 16, data.clone());
            (rf64.magic, rf64.riff_size, rf64.data_size) = (*b"RF64", Some(u32::MAX), Some(u32::MAX));
            rf64.before = [b"ds64\x1c\0\0\0".as_slice(), &[0; 8], &size.to_le_bytes(), &[0; 12]].concat();
            rf64.after = after.to_vec();
            assert_eq!(decode(rf64.bytes()).unwrap().samples(), 2000, "{size}, {} bytes behind", after.len());
        }
    }
}

#[test]
fn wav_files_over_4_gib_whose_sizes_have_wrapped_are_read_whole() {
    for (bytes, after) in [((1_u64 << 32) + 40_000, &b""[..]), ((1 << 33) + 4, b"LIST\x04\0\0\0INFO")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.wav");
        let mut wav = Wav::new(PCM, 2, 16, vec![]);
        let tail = after.len() as u64;
        (wav.riff_size, wav.data_size) = (Some((bytes + 36 + tail) as u32), Some(bytes as u32));
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(&wav.bytes()).unwrap();
        // A hole takes no space.
        file.seek(SeekFrom::Start(44 + bytes)).unwrap();
        file.write_all(after).unwrap();
        file.set_len(44 + bytes + tail).unwrap();
        assert_eq!(Decoder::open(&path).unwrap().info().samples, Some(bytes / 4));
    }
}

#[test]
fn aiff_files_that_state_less_than_they_hold_are_read_to_their_end() {
    let data = noise_bytes(4000);
    let name = b"NAME\0\0\0\x04song".to_vec();
    // The size of `SSND` is at byte 42 of AIFF: 12 for FORM, 26 for COMM, 4 for the name.
    let with_size = |mut bytes: Vec<u8>, size: u32| {
        bytes[42..46].copy_from_slice(&size.to_be_bytes());
        bytes
    };
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("right", aiff(None, 2, 16, 1000, &data)),
        ("half in COMM", aiff(None, 2, 16, 500, &data)),
        ("half in COMM, chunk behind", [aiff(None, 2, 16, 500, &data), name.clone()].concat()),
        ("half in both", with_size(aiff(None, 2, 16, 500, &data), 8 + 2000)),
        ("half in SSND", with_size(aiff(None, 2, 16, 1000, &data), 8 + 2000)),
        ("0 in SSND", with_size(aiff(None, 2, 16, 1000, &data), 0)),
        ("0 in both, chunk behind", [with_size(aiff(None, 2, 16, 0, &data), 0), name].concat()),
        ("half in COMM, ID3v1 behind", [aiff(None, 2, 16, 500, &data), id3v1()].concat()),
    ];
    for (name, bytes) in table {
        assert_eq!(decode(bytes).unwrap().samples(), 1000, "{name}");
    }
}

fn id3v1() -> Vec<u8> {
    let mut tag = b"TAGsome title".to_vec();
    tag.resize(128, 0);
    tag
}

/// With header and footer.
fn apev2() -> Vec<u8> {
    let item = b"\x04\0\0\0\0\0\0\0Title\0song".to_vec();
    let frame = |flags: u32| {
        let size = (item.len() as u32 + 32).to_le_bytes();
        [b"APETAGEX\xD0\x07\0\0".as_slice(), &size, &1_u32.to_le_bytes(), &flags.to_le_bytes(), &[0; 8]]
            .concat()
    };
    [frame(0xA000_0000), item.clone(), frame(0x8000_0000)].concat()
}

fn lyrics3() -> Vec<u8> {
    let body = b"LYRICSBEGININD0000200".to_vec();
    [body.clone(), format!("{:06}LYRICS200", body.len()).into_bytes()].concat()
}

/// ID3v2.4 with a footer, as it may be appended.
fn id3v2_footer() -> Vec<u8> {
    let size = [0, 0, 0, 20];
    [b"ID3\x04\0\x10".as_slice(), &size, &[0; 20], b"3DI\x04\0\x10", &size].concat()
}

/// The bytes of a FLAC file of noise.
pub fn flac_noise(path: &Path, samples: usize, seed: u64) -> Vec<u8> {
    let spec = WriterSpec {
        container: Container::Flac,
        format: SampleFormat::Pcm16,
        channels: 2,
        sample_rate: 44_100,
    };
    let mut noise = Noise(seed);
    let plane: Vec<f32> =
        (0..samples).map(|_| (noise.uniform() * 9000.0).round() as f32 / 32_768.0).collect();
    let song = Planar::from_planes(vec![plane.clone(), plane]).unwrap();
    let mut writer = AudioWriter::create(path, spec).unwrap();
    writer.write(&song).unwrap();
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn flac_files_with_tags_behind_the_last_frame_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let whole = flac_noise(&folder.path().join("x.flac"), 20_000, 11);
    let song = decode(whole.clone()).unwrap();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("ID3v1", id3v1()),
        ("APEv2", apev2()),
        ("APEv2 and ID3v1", [apev2(), id3v1()].concat()),
        ("Lyrics3 and ID3v1", [lyrics3(), id3v1()].concat()),
        ("ID3v2 with a footer", id3v2_footer()),
        ("ID3v2 without a footer", [b"ID3\x04\0\0\0\0\x01\x00".as_slice(), &[9; 128]].concat()),
        ("two of one kind", [id3v1(), id3v1()].concat()),
        ("zeros", vec![0; 4096]),
    ];
    let in_front = [b"ID3\x04\0\0\0\0\x01\x00".as_slice(), &[0; 128]].concat();
    for (name, tags) in table {
        for front in [&[][..], &in_front] {
            let mut decoder = open([front, &whole, &tags].concat());
            let all = read_all(&mut decoder, 3000).unwrap();
            assert!(all == song && decoder.warnings().is_empty(), "{name}: {:?}", decoder.warnings());
        }
    }
}

/// The fixture with another edit list, and with an `iTunSMPB` tag where one is given. Its `moov` is the last box.
fn m4a(name: &str, edits: Option<&[(u32, i32)]>, gapless: Option<&str>) -> Vec<u8> {
    let mut bytes = std::fs::read(fixture(name)).unwrap();
    let find = |bytes: &[u8], kind: &[u8]| bytes.windows(4).position(|word| word == kind).unwrap() - 4;
    let size = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let boxed =
        |kind: &[u8], content: &[u8]| [&(content.len() as u32 + 8).to_be_bytes(), kind, content].concat();
    let grow = |bytes: &mut Vec<u8>, kind: &[u8], by: i64| {
        let at = find(bytes, kind);
        let new = (i64::from(size(bytes, at)) + by) as u32;
        bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
    };
    let at = find(&bytes, b"edts");
    let old = size(&bytes, at) as usize;
    let edts = edits.map_or(Vec::new(), |edits| {
        let mut list = [[0; 4], (edits.len() as u32).to_be_bytes()].concat();
        for (duration, start) in edits {
            list.extend([&duration.to_be_bytes()[..], &start.to_be_bytes(), &[0, 1, 0, 0]].concat());
        }
        boxed(b"edts", &boxed(b"elst", &list))
    });
    let by = edts.len() as i64 - old as i64;
    bytes.splice(at..at + old, edts);
    grow(&mut bytes, b"moov", by);
    grow(&mut bytes, b"trak", by);
    if let Some(text) = gapless {
        let at = find(&bytes, b"udta");
        let old = size(&bytes, at) as usize;
        let item = [
            boxed(b"mean", b"\0\0\0\0com.apple.iTunes"),
            boxed(b"name", b"\0\0\0\0iTunSMPB"),
            boxed(b"data", &[b"\0\0\0\x01\0\0\0\0".as_slice(), text.as_bytes()].concat()),
        ];
        let ilst = boxed(b"ilst", &boxed(b"----", &item.concat()));
        let handler = boxed(b"hdlr", b"\0\0\0\0\0\0\0\0mdirappl\0\0\0\0\0\0\0\0\0");
        let udta = boxed(b"udta", &boxed(b"meta", &[&[0; 4], &handler[..], &ilst].concat()));
        let by = udta.len() as i64 - old as i64;
        bytes.splice(at..at + old, udta);
        grow(&mut bytes, b"moov", by);
    }
    bytes
}

#[test]
fn edit_lists_play_what_players_play() {
    // All samples of the track: 12 packets, of which the last is cut to what the file says.
    let raw = decode(m4a("tone.m4a", Some(&[(0, 0)]), None)).unwrap();
    assert_eq!(raw.samples(), 12_049);
    let part = |from: usize, to: usize| raw.slice(from..to);
    let silence = |samples| Planar::zeros(2, samples);
    let join = |parts: &[Planar]| {
        let mut all = Planar::new(2);
        parts.iter().for_each(|part| all.append(part));
        all
    };
    // The movie counts milliseconds, 44.1 samples.
    let table: Vec<(&str, Option<&[(u32, i32)]>, Option<&str>, Planar)> = vec![
        ("as encoded", Some(&[(250, 1024)]), None, part(1024, 12_049)),
        ("no list", None, None, part(0, 12_049)),
        ("no list, iTunSMPB", None, Some(" 00000000 00000400 000000EF 0000000000002B11"), part(1024, 12_049)),
        (
            "no list, iTunSMPB with padding",
            None,
            Some(" 00000000 00000840 0000010D 0000000000002000 0"),
            part(2112, 2112 + 8192),
        ),
        (
            "list of all and iTunSMPB",
            Some(&[(273, 0)]),
            Some(" 00000000 00000400 0 0000000000002B11"),
            part(1024, 12_049),
        ),
        ("a part", Some(&[(100, 3072)]), None, part(3072, 3072 + 4410)),
        ("a part far in", Some(&[(50, 9000)]), None, part(9000, 9000 + 2205)),
        ("two parts", Some(&[(100, 1024), (50, 8000)]), None, join(&[part(1024, 5434), part(8000, 10_205)])),
        (
            "two near parts",
            Some(&[(10, 1024), (10, 1500)]),
            None,
            join(&[part(1024, 1465), part(1500, 1941)]),
        ),
        ("a late start", Some(&[(500, -1), (250, 1024)]), None, join(&[silence(22_050), part(1024, 12_049)])),
        (
            "silence between",
            Some(&[(10, 1024), (20, -1), (10, 2048)]),
            None,
            join(&[part(1024, 1465), silence(882), part(2048, 2489)]),
        ),
        ("to the end", Some(&[(0, 2048)]), None, part(2048, 12_049)),
    ];
    for (name, edits, gapless, expected) in table {
        let mut decoder = open(m4a("tone.m4a", edits, gapless));
        assert_eq!(decoder.info().samples, Some(expected.samples() as u64), "{name}");
        let all = read_all(&mut decoder, 777).unwrap();
        assert!(all == expected, "{name}: {} samples, expected {}", all.samples(), expected.samples());
        assert!(decoder.warnings().is_empty(), "{name}: {:?}", decoder.warnings());
    }
    // Going back means decoding again, which is the same but for what the codec keeps from packet to packet.
    let all = decode(m4a("tone.m4a", Some(&[(50, 9000), (100, 3072)]), None)).unwrap();
    let expected = join(&[part(9000, 9000 + 2205), part(3072, 3072 + 4410)]);
    assert_eq!(all.samples(), expected.samples());
    assert!(snr_db(expected.channel(0), all.channel(0)) > 60.0);
    // Lossless codecs have edits too.
    let raw = decode(m4a("tone_alac.m4a", None, None)).unwrap();
    let cut = decode(m4a("tone_alac.m4a", Some(&[(20, 441)]), None)).unwrap();
    assert!(cut == raw.slice(441..441 + 882));
}

/// A silent frame of 128 kbit/s; `rate`: index of 44.1, 48 or 32 kHz.
fn silent_frame(rate: u8, mono: bool) -> Vec<u8> {
    let hertz = [44_100, 48_000, 32_000][usize::from(rate)];
    let mut frame = vec![0; 144_000 * 128 / hertz];
    frame[..4].copy_from_slice(&[0xFF, 0xFB, 9 << 4 | rate << 2, if mono { 0xC0 } else { 0 }]);
    frame
}

#[test]
fn mp3_streams_that_change_channels_or_rate_are_decoded_to_their_end() {
    let tone = std::fs::read(fixture("tone.mp3")).unwrap();
    let length = decode(tone.clone()).unwrap().samples();
    let is_loud = |all: &Planar, from: usize| {
        all.iter().all(|channel| channel[from..from + 2000].iter().any(|sample| sample.abs() > 0.2))
    };
    // Frames between two tones, and their length at 44.1 kHz.
    let table = [
        ("mono", silent_frame(0, true).repeat(60), 60 * 1152),
        ("48 kHz", silent_frame(1, false).repeat(50), 50 * 1152 * 441 / 480),
        ("32 kHz mono", silent_frame(2, true).repeat(40), 40 * 1152 * 441 / 320),
    ];
    for (name, frames, samples) in table {
        let mut decoder = open([tone.clone(), frames.clone(), tone.clone()].concat());
        let all = read_all(&mut decoder, 4096).unwrap();
        assert_eq!((all.channels(), decoder.info().sample_rate), (2, 44_100), "{name}");
        // Delay and padding of the second tone, of which nothing tells, are heard too.
        let expected = 2 * length + samples;
        assert!(
            (expected..expected + 5 * 1152).contains(&all.samples()),
            "{name}: {} samples",
            all.samples()
        );
        assert!(is_loud(&all, 4000) && is_loud(&all, length + samples + 6000), "{name}");
        assert_eq!(decoder.damage(), Damage::default(), "{name}: {:?}", decoder.warnings());
        // A mono beginning does not make a mono file.
        let mut decoder = open([silent_frame(0, true).repeat(30), tone.clone()].concat());
        let all = read_all(&mut decoder, 4096).unwrap();
        assert!(all.channels() == 2 && is_loud(&all, 30 * 1152 + 4000));
    }
}

#[test]
fn damage_is_counted_in_packets_and_samples() {
    let whole = std::fs::read(fixture("tone.m4a")).unwrap();
    let length = decode(whole.clone()).unwrap().samples();
    let mut broken = whole;
    // The samples of an MP4 lie in `mdat`, which begins at byte 36.
    broken[700..1000].fill(0xFF);
    let mut decoder = open(broken);
    let all = read_all(&mut decoder, 4096).unwrap();
    assert_eq!(all.samples(), length);
    let damage = decoder.damage();
    assert!((1..12).contains(&damage.packets) && damage.samples == damage.packets * 1024, "{damage:?}");
    assert_eq!(decoder.warning_count(), damage.packets);
}

/// Two Ogg files behind each other are one legal file.
#[test]
fn chained_ogg_streams_are_decoded_one_after_the_other() {
    for name in ["tone.ogg", "tone.opus"] {
        let one = std::fs::read(fixture(name)).unwrap();
        let length = decode(one.clone()).unwrap().samples();
        // Streams of one file have serial numbers of their own; what they are does not matter here.
        let (_folder, path) = file("chain.ogg", &[one.clone(), one].concat());
        let mut decoder = Decoder::open(path).unwrap();
        let all = read_all(&mut decoder, 4096).unwrap();
        assert_eq!(all.samples(), 2 * length, "{name}: {:?}", decoder.warnings());
        let loud = |from: usize| all.channel(0)[from..from + 2000].iter().any(|sample| sample.abs() > 0.2);
        assert!(loud(4000) && loud(length + 4000), "{name}");
    }
}

#[test]
fn adts_streams_that_change_channels_or_rate_are_decoded_to_their_end() {
    let tone = std::fs::read(fixture("tone.aac")).unwrap();
    let length = decode(tone.clone()).unwrap().samples();
    // A frame of silence: one channel element without bands, then the end.
    let mono = |rate: u8| {
        let payload = [0, 0, 0, 7];
        let bytes = 7 + payload.len();
        let header = [
            0xFF,
            0xF1,
            1 << 6 | rate << 2,
            1 << 6 | (bytes >> 11) as u8,
            (bytes >> 3) as u8,
            (bytes << 5) as u8 | 0x1F,
            0xFC,
        ];
        [&header[..], &payload].concat()
    };
    // 44.1 and 48 kHz have the codes 4 and 3.
    for (name, frames, samples) in
        [("mono", mono(4).repeat(40), 40 * 1024), ("48 kHz", mono(3).repeat(40), 40 * 1024 * 441 / 480)]
    {
        let mut decoder = open([tone.clone(), frames, tone.clone()].concat());
        let all = read_all(&mut decoder, 4096).unwrap();
        assert_eq!((all.channels(), decoder.info().sample_rate), (2, 44_100), "{name}");
        assert_eq!(decoder.damage(), Damage::default(), "{name}: {:?}", decoder.warnings());
        let expected = 2 * length + samples;
        assert!((expected - 2..expected + 2).contains(&all.samples()), "{name}: {} samples", all.samples());
        let second = length + samples + 4000;
        assert!(all.channel(1)[second..second + 2000].iter().any(|sample| sample.abs() > 0.2), "{name}");
    }
}

#[test]
fn samples_after_missing_mp3_frames_stay_in_time_and_the_loss_is_counted() {
    let frame = || silent_frame(0, false);
    let tone = std::fs::read(fixture("tone.mp3")).unwrap();
    let length = decode(tone.clone()).unwrap().samples();
    let bytes = frame().len();
    // Bytes in the place of ten frames.
    for lost in [vec![0x55; 10 * bytes], vec![b'x'; 10 * bytes + 7]] {
        let mut decoder = open([frame().repeat(20), lost, frame().repeat(20), tone.clone()].concat());
        let all = read_all(&mut decoder, 4096).unwrap();
        let damage = decoder.damage();
        assert_eq!((damage.packets, damage.samples), (10, 11_520), "{:?}", decoder.warnings());
        let tone_at = 50 * 1152 + 1105 + 529;
        assert!(
            (tone_at + length - 1152..tone_at + length + 3 * 1152).contains(&all.samples()),
            "{}",
            all.samples()
        );
        let loud = |from: usize| all.channel(0)[from..from + 2000].iter().any(|sample| sample.abs() > 0.2);
        assert!(!loud(tone_at - 4000) && loud(tone_at + 2000));
    }
    // A file that ends within a frame.
    let mut decoder = open([frame().repeat(20), frame()[..200].to_vec()].concat());
    let samples = read_all(&mut decoder, 4096).unwrap().samples();
    assert_eq!((samples, decoder.damage().packets), (21 * 1152, 1));
}

#[test]
fn flac_files_with_garbage_behind_the_last_frame_are_whole_and_it_is_mentioned() {
    let folder = tempfile::tempdir().unwrap();
    let whole = flac_noise(&folder.path().join("x.flac"), 20_000, 3);
    let song = decode(whole.clone()).unwrap();
    let garbage = noise_bytes(70_000);
    for (name, rest) in [("noise", garbage), ("text", b"not audio\n".repeat(300)), ("a byte", vec![1])] {
        let mut decoder = open([whole.clone(), rest].concat());
        let all = read_all(&mut decoder, 3000).unwrap();
        assert!(all == song, "{name}: {} samples", all.samples());
        assert!(decoder.warnings()[0].contains("left out"), "{name}: {:?}", decoder.warnings());
    }
}

#[test]
fn flac_files_that_state_less_than_they_hold_are_read_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let whole = flac_noise(&folder.path().join("x.flac"), 20_480, 4);
    let song = decode(whole.clone()).unwrap();
    // The lowest 32 bits of the number of samples stand behind rate, channels and depth.
    for stated in [0_u32, 4096, 8192, 10_000] {
        let mut bytes = whole.clone();
        bytes[22..26].copy_from_slice(&stated.to_be_bytes());
        let mut decoder = open(bytes);
        let all = read_all(&mut decoder, 3000).unwrap();
        assert!(all == song, "{stated}: {} samples", all.samples());
        assert_eq!(decoder.warnings().is_empty(), stated == 0, "{stated}: {:?}", decoder.warnings());
    }
}
