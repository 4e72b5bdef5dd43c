//! ALAC packets. 16 bits are compressed by `alac-encoder`, which knows no other depth; 24 bits are stored in the format's own
//! uncompressed frames, which every decoder reads.

use alac_encoder::{AlacEncoder, FormatDescription};

/// Samples per channel of every packet but the last.
pub(super) const FRAME: usize = 4096;
/// Channels of a stream.
pub(super) const CHANNELS: usize = 2;
/// Parameters of the entropy coder, which all encoders use.
const PB: u8 = 40;
const MB: u8 = 10;
const KB: u8 = 14;
const MAX_RUN: u16 = 255;

/// One stereo stream.
pub(super) struct AlacStream {
    bits: usize,
    sample_rate: u32,
    /// For 16 bits.
    encoder: Option<AlacEncoder>,
    packet: Vec<u8>,
    largest_packet: usize,
}

impl AlacStream {
    /// `bits`: 16 or 24.
    pub(super) fn new(bits: usize, sample_rate: u32) -> Self {
        let format = output_format(sample_rate);
        Self {
            bits,
            sample_rate,
            encoder: (bits == 16).then(|| AlacEncoder::new(&format)),
            // The encoder checks no bounds, and a packet that turns out too long is written before it is thrown away.
            packet: vec![0; 4 * format.max_packet_size() + 64],
            largest_packet: 0,
        }
    }

    /// Encodes up to [`FRAME`] samples per channel, interleaved; fewer only in the last packet.
    pub(super) fn encode(&mut self, interleaved: &[i32]) -> Vec<u8> {
        let packet = match &mut self.encoder {
            Some(encoder) => {
                let samples: Vec<i16> = interleaved.iter().map(|&sample| sample as i16).collect();
                let input = FormatDescription::pcm::<i16>(f64::from(self.sample_rate), CHANNELS as u32);
                let size = encoder.encode(&input, bytemuck::cast_slice(&samples), &mut self.packet);
                self.packet[..size].to_vec()
            }
            None => uncompressed(interleaved, self.bits),
        };
        self.largest_packet = self.largest_packet.max(packet.len());
        packet
    }

    /// The decoder's configuration (`ALACSpecificConfig`).
    pub(super) fn cookie(&self) -> Vec<u8> {
        let mut cookie = (FRAME as u32).to_be_bytes().to_vec();
        // Version 0, then the parameters.
        cookie.extend([0, self.bits as u8, PB, MB, KB, CHANNELS as u8]);
        cookie.extend(MAX_RUN.to_be_bytes());
        cookie.extend((self.largest_packet as u32).to_be_bytes());
        // The mean bit rate is unknown.
        cookie.extend(0_u32.to_be_bytes());
        cookie.extend(self.sample_rate.to_be_bytes());
        cookie
    }
}

fn output_format(sample_rate: u32) -> FormatDescription {
    FormatDescription::alac(f64::from(sample_rate), FRAME as u32, CHANNELS as u32)
}

/// A packet with an uncompressed channel pair.
fn uncompressed(interleaved: &[i32], bits: usize) -> Vec<u8> {
    const CHANNEL_PAIR: u32 = 1;
    const END: u32 = 7;
    let samples = interleaved.len() / CHANNELS;
    let is_partial = samples < FRAME;
    let mut out =
        BitWriter { bytes: Vec::with_capacity(interleaved.len() * bits / 8 + 16), held: 0, count: 0 };
    out.write(CHANNEL_PAIR, 3);
    // Instance 0, then twelve bits that are not used.
    out.write(0, 4 + 12);
    // Whether the number of samples follows, two bits of shift, and 1 for uncompressed.
    out.write(if is_partial { 0b1001 } else { 0b0001 }, 4);
    if is_partial {
        out.write(samples as u32, 32);
    }
    for &sample in interleaved {
        out.write(sample as u32 & (u32::MAX >> (32 - bits)), bits);
    }
    out.write(END, 3);
    out.finish()
}

/// Writes bits, the highest first.
struct BitWriter {
    bytes: Vec<u8>,
    held: u64,
    count: usize,
}

impl BitWriter {
    /// Writes the lowest `bits` of `value`, at most 32.
    fn write(&mut self, value: u32, bits: usize) {
        self.held = self.held << bits | u64::from(value);
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            self.bytes.push((self.held >> self.count) as u8);
        }
    }

    /// Fills the last byte with zeros.
    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.write(0, 8 - self.count);
        }
        self.bytes
    }
}
