//! Lossy files with incomplete headers, and streams with a missing part.

use nullsum::audio::Decoder;

use crate::make::{decode, file, fixture, read_all};

/// A frame of silence of an MP3 of 44.1 kHz stereo, of a bit rate by its index in the format's table.
fn silent_frame(index: u8, kbits: usize) -> Vec<u8> {
    let mut frame = vec![0; 144_000 * kbits / 44_100];
    frame[..4].copy_from_slice(&[0xFF, 0xFB, index << 4, 0]);
    frame
}

#[test]
fn an_mp3_without_a_tag_is_as_long_as_its_frames() {
    let loud = silent_frame(14, 320).repeat(30);
    let bytes = [loud, silent_frame(1, 32).repeat(300)].concat();
    let (_folder, path) = file("song.mp3", &bytes);
    let mut decoder = Decoder::open(path).unwrap();
    let samples = read_all(&mut decoder, 4096).unwrap().samples();
    assert!((329 * 1152..=330 * 1152).contains(&samples), "{samples} samples");
    assert!(decoder.warnings().is_empty(), "{:?}", decoder.warnings());
}

#[test]
fn concatenated_mp3_files_are_both_decoded() {
    let one = std::fs::read(fixture("tone.mp3")).unwrap();
    let length = decode(one.clone()).unwrap().samples();
    let both = decode([one.clone(), one].concat()).unwrap();
    // The second one's delay and padding, of which nothing tells, are heard too.
    assert!((2 * length..2 * length + 4 * 1152).contains(&both.samples()), "{} samples", both.samples());
    let second = &both.channel(0)[length + 2304..2 * length];
    assert!(second.iter().any(|sample| sample.abs() > 0.3));
}

#[test]
fn a_fragmented_mp4_is_read_to_its_end() {
    let whole = decode(std::fs::read(fixture("tone.m4a")).unwrap()).unwrap();
    let all = decode(std::fs::read(fixture("tone_fragments.m4a")).unwrap()).unwrap();
    assert!(all.samples() >= whole.samples(), "{} samples", all.samples());
    assert!(all.channel(0)[4000..10_000].iter().any(|sample| sample.abs() > 0.3));
}

/// Packets of an Ogg file of one stream.
fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut packets, mut part, mut at) = (Vec::new(), Vec::new(), 0);
    while at < bytes.len() {
        assert_eq!(&bytes[at..at + 4], b"OggS");
        let sizes = &bytes[at + 27..at + 27 + usize::from(bytes[at + 26])];
        at += 27 + sizes.len();
        for &size in sizes {
            part.extend(&bytes[at..at + usize::from(size)]);
            at += usize::from(size);
            if size < 255 {
                packets.push(std::mem::take(&mut part));
            }
        }
    }
    packets
}

/// A page with one packet.
fn page(packet: &[u8], kind: u8, granule: u64, sequence: u32) -> Vec<u8> {
    let mut page = [b"OggS\0".as_slice(), &[kind], &granule.to_le_bytes(), &[1, 0, 0, 0]].concat();
    page.extend(sequence.to_le_bytes());
    page.extend([0; 4]);
    let sizes: Vec<u8> =
        std::iter::repeat_n(255, packet.len() / 255).chain([(packet.len() % 255) as u8]).collect();
    page.push(sizes.len() as u8);
    page.extend(sizes);
    page.extend(packet);
    let crc = page.iter().fold(0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| (crc << 1) ^ (0x04C1_1DB7 * (crc >> 31)))
    });
    page[22..26].copy_from_slice(&crc.to_le_bytes());
    page
}

#[test]
fn samples_after_lost_ogg_pages_stay_in_time() {
    let original = std::fs::read(fixture("tone.opus")).unwrap();
    let whole = decode(original.clone()).unwrap();
    let packets = packets(&original);
    let pre_skip = u64::from(u16::from_le_bytes([packets[0][10], packets[0][11]]));
    let last = packets.len() - 1;
    let mut pages: Vec<Vec<u8>> = packets
        .iter()
        .enumerate()
        .map(|(n, packet)| match n {
            0 => page(packet, 2, 0, 0),
            n if n == last => page(packet, 4, pre_skip + whole.samples() as u64, n as u32),
            n => page(packet, 0, (n as u64).saturating_sub(1) * 960, n as u32),
        })
        .collect();
    assert_eq!(decode(pages.concat()).unwrap().samples(), whole.samples(), "a packet a page");
    // A flipped bit, which the checksum tells: 160 ms.
    for page in &mut pages[4..12] {
        *page.last_mut().unwrap() ^= 1;
    }
    let (_folder, path) = file("song.opus", &pages.concat());
    let mut decoder = Decoder::open(path).unwrap();
    let all = read_all(&mut decoder, 1000).unwrap();
    assert_eq!(all.samples(), whole.samples());
    assert!(decoder.warnings().iter().any(|warning| warning.contains("missing")), "{:?}", decoder.warnings());
}
