//! Native Instruments' stem files: an MP4 file with five stereo tracks of ALAC, the song and four stems, and a `stem` box
//! that names them. Players that do not know stems play the first track, the song.
//!
//! The packets come first and the header last, since the header lists them all.

use std::io::{self, Write};

use super::alac::{self, AlacStream};
use super::{ContainerWriter, Metadata, Planar, TempFile, WriterSpec, patch_bytes, quantise};

/// Tracks of a stem file: the song, then four stems.
pub(super) const TRACKS: usize = 5;
/// Channels of all tracks.
pub(super) const CHANNELS: usize = TRACKS * alac::CHANNELS;
/// Packets of one track that lie together, a second at most.
const CHUNK_PACKETS: usize = 10;
/// Durations have 32 bits.
const MAX_SAMPLES: u64 = u32::MAX as u64;
/// Higher rates do not fit into the 16 bits of a sample entry; decoders take them from the decoder's configuration.
const MAX_ENTRY_RATE: u32 = 65_535;

const FILE_TYPE: [u8; 28] = *b"\0\0\0\x1cftypM4A \0\0\0\0M4A mp42isom";
/// `mdat` with a size of 64 bits, which is not known yet.
const MEDIA_HEADER: [u8; 16] = *b"\0\0\0\x01mdat\0\0\0\0\0\0\0\0";

struct TrackWriter {
    stream: AlacStream,
    /// Interleaved integers of the packet in the making.
    pending: Vec<i32>,
    /// Packets of the chunk in the making.
    chunk: Vec<u8>,
    /// Sizes of all packets, in bytes.
    sizes: Vec<u32>,
    /// Positions of all chunks.
    chunks: Vec<u64>,
}

pub(super) struct StemFileContainer {
    spec: WriterSpec,
    tracks: Vec<TrackWriter>,
    user_data: Vec<u8>,
    at: u64,
    samples: u64,
}

impl StemFileContainer {
    pub(super) fn start(out: &mut TempFile, spec: WriterSpec, metadata: &Metadata) -> io::Result<Self> {
        out.write_all(&FILE_TYPE)?;
        out.write_all(&MEDIA_HEADER)?;
        let track = || TrackWriter {
            stream: AlacStream::new(spec.format.bits(), spec.sample_rate),
            pending: Vec::with_capacity(alac::FRAME * alac::CHANNELS),
            chunk: Vec::new(),
            sizes: Vec::new(),
            chunks: Vec::new(),
        };
        Ok(Self {
            spec,
            tracks: (0..TRACKS).map(|_| track()).collect(),
            user_data: metadata.mp4_user_data(),
            at: (FILE_TYPE.len() + MEDIA_HEADER.len()) as u64,
            samples: 0,
        })
    }

    /// Encodes one packet of every track.
    fn encode_packets(&mut self) {
        for track in &mut self.tracks {
            let packet = track.stream.encode(&track.pending);
            track.sizes.push(packet.len() as u32);
            track.chunk.extend(packet);
            track.pending.clear();
        }
    }

    /// Writes the packets of every track that are not in the file yet.
    fn write_chunks(&mut self, out: &mut TempFile) -> io::Result<()> {
        for track in self.tracks.iter_mut().filter(|track| !track.chunk.is_empty()) {
            out.write_all(&track.chunk)?;
            track.chunks.push(self.at);
            self.at += track.chunk.len() as u64;
            track.chunk.clear();
        }
        Ok(())
    }

    fn header(&self) -> Vec<u8> {
        let duration = self.samples as u32;
        let mut movie = vec![movie_header(self.spec.sample_rate, duration)];
        movie.extend(self.tracks.iter().enumerate().map(|(n, track)| self.track_box(n, track, duration)));
        movie.push(boxed(b"udta", &self.user_data));
        boxed(b"moov", &movie.concat())
    }

    fn track_box(&self, n: usize, track: &TrackWriter, duration: u32) -> Vec<u8> {
        // In the movie and its preview; only the song is enabled, so that players do not mix the stems to it.
        let flags: u32 = if n == 0 { 7 } else { 6 };
        let mut header = [flags.to_be_bytes(), [0; 4], [0; 4], (n as u32 + 1).to_be_bytes(), [0; 4]].concat();
        header.extend(duration.to_be_bytes());
        // Reserved, layer, alternate group, full volume.
        header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        header.extend(MATRIX.concat());
        header.extend([0; 8]);
        let rate = self.spec.sample_rate;
        let undetermined = [0x55, 0xC4, 0, 0];
        let media_header = [[0; 4], [0; 4], [0; 4], rate.to_be_bytes(), duration.to_be_bytes(), undetermined];
        let reference =
            boxed(b"dref", &[&[0, 0, 0, 0, 0, 0, 0, 1], &boxed(b"url ", &[0, 0, 0, 1])[..]].concat());
        let information =
            [boxed(b"smhd", &[0; 8]), boxed(b"dinf", &reference), boxed(b"stbl", &self.sample_table(track))];
        let media = [
            boxed(b"mdhd", &media_header.concat()),
            boxed(b"hdlr", b"\0\0\0\0\0\0\0\0soun\0\0\0\0\0\0\0\0\0\0\0\0SoundHandler\0"),
            boxed(b"minf", &information.concat()),
        ];
        boxed(b"trak", &[boxed(b"tkhd", &header), boxed(b"mdia", &media.concat())].concat())
    }

    fn sample_table(&self, track: &TrackWriter) -> Vec<u8> {
        let packets = track.sizes.len();
        let whole = self.samples / alac::FRAME as u64;
        let rest = self.samples % alac::FRAME as u64;
        let mut times = vec![[whole as u32, alac::FRAME as u32], [1, rest as u32]];
        times.retain(|[count, samples]| *count > 0 && *samples > 0);
        // First chunk, packets in it, description.
        let mut chunks = Vec::new();
        if packets >= CHUNK_PACKETS {
            chunks.push([1, CHUNK_PACKETS as u32, 1]);
        }
        if !packets.is_multiple_of(CHUNK_PACKETS) {
            chunks.push([(packets / CHUNK_PACKETS) as u32 + 1, (packets % CHUNK_PACKETS) as u32, 1]);
        }
        let mut sizes = [[0; 4], [0; 4], (packets as u32).to_be_bytes()].concat();
        sizes.extend(track.sizes.iter().flat_map(|size| size.to_be_bytes()));
        let offsets = if self.at < u64::from(u32::MAX) {
            let offsets: Vec<[u32; 1]> = track.chunks.iter().map(|&at| [at as u32]).collect();
            boxed(b"stco", &table(&offsets))
        } else {
            let offsets: Vec<[u32; 2]> =
                track.chunks.iter().map(|&at| [(at >> 32) as u32, at as u32]).collect();
            boxed(b"co64", &table(&offsets))
        };
        [
            boxed(b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1], &self.sample_entry(track)[..]].concat()),
            boxed(b"stts", &table(&times)),
            boxed(b"stsc", &table(&chunks)),
            boxed(b"stsz", &sizes),
            offsets,
        ]
        .concat()
    }

    fn sample_entry(&self, track: &TrackWriter) -> Vec<u8> {
        let rate = self.spec.sample_rate;
        let entry_rate = if rate <= MAX_ENTRY_RATE { rate << 16 } else { 0 };
        // Reserved, index of the data reference, reserved.
        let mut entry = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
        entry.extend((alac::CHANNELS as u16).to_be_bytes());
        entry.extend((self.spec.format.bits() as u16).to_be_bytes());
        entry.extend([0; 4]);
        entry.extend(entry_rate.to_be_bytes());
        entry.extend(boxed(b"alac", &[&[0; 4], &track.stream.cookie()[..]].concat()));
        boxed(b"alac", &entry)
    }
}

impl ContainerWriter for StemFileContainer {
    fn write(&mut self, out: &mut TempFile, block: &Planar) -> io::Result<u64> {
        let bits = self.spec.format.bits();
        let mut clipped = 0;
        if self.samples + block.samples() as u64 > MAX_SAMPLES {
            return Err(io::Error::other("a stem file holds at most 2^32 samples; use WAV"));
        }
        for index in 0..block.samples() {
            for (n, plane) in block.planes().iter().enumerate() {
                let (step, over) = quantise(plane[index], bits);
                clipped += u64::from(over);
                self.tracks[n / alac::CHANNELS].pending.push(step);
            }
            self.samples += 1;
            if self.samples.is_multiple_of(alac::FRAME as u64) {
                self.encode_packets();
                if self.tracks[0].sizes.len().is_multiple_of(CHUNK_PACKETS) {
                    self.write_chunks(out)?;
                }
            }
        }
        Ok(clipped)
    }

    fn finish(&mut self, out: &mut TempFile) -> io::Result<()> {
        if !self.tracks[0].pending.is_empty() {
            self.encode_packets();
        }
        self.write_chunks(out)?;
        out.write_all(&self.header())?;
        let media_bytes = self.at - FILE_TYPE.len() as u64;
        patch_bytes(out, FILE_TYPE.len() as u64 + 8, &media_bytes.to_be_bytes())
    }
}

/// The identity.
const MATRIX: [[u8; 4]; 9] =
    [[0, 1, 0, 0], [0; 4], [0; 4], [0; 4], [0, 1, 0, 0], [0; 4], [0; 4], [0; 4], [0x40, 0, 0, 0]];

fn movie_header(rate: u32, duration: u32) -> Vec<u8> {
    let mut header = [[0; 4], [0; 4], [0; 4], rate.to_be_bytes(), duration.to_be_bytes()].concat();
    // Speed 1, full volume, reserved.
    header.extend([0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header.extend(MATRIX.concat());
    header.extend([0; 24]);
    header.extend((TRACKS as u32 + 1).to_be_bytes());
    boxed(b"mvhd", &header)
}

/// A table of a full box: the number of rows, then the rows.
fn table<const N: usize>(rows: &[[u32; N]]) -> Vec<u8> {
    let mut bytes = [[0; 4], (rows.len() as u32).to_be_bytes()].concat();
    bytes.extend(rows.iter().flatten().flat_map(|value| value.to_be_bytes()));
    bytes
}

/// A box of MP4: its size, its kind and its content.
pub(crate) fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes(), &kind[..], content].concat()
}
