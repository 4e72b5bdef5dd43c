//! The Opus codec: packets in, planar samples at 48 kHz out. The Ogg around it is symphonia's.
//!
//! `unsafe-libopus` is libopus 1.3.1, the reference decoder, translated to Rust by a tool. It needs no C compiler but
//! uses raw pointers, all of which stay in this file.

use std::ffi::c_int;
use std::ptr::NonNull;

use unsafe_libopus::{
    OPUS_OK, OpusMSDecoder, opus_multistream_decode_float, opus_multistream_decoder_create,
    opus_multistream_decoder_destroy,
};

use super::Planar;

/// Opus always decodes to this rate.
pub(super) const SAMPLE_RATE: u32 = 48_000;
/// The longest packet: 120 ms.
const MAX_PACKET_SAMPLES: usize = 5760;
/// A packet of one stream has at most 48 frames of 1275 bytes; far more is a corrupt or hostile file.
const MAX_PACKET_BYTES: usize = 1 << 24;

/// The fields of the identification header (RFC 7845, section 5.1) that decoding needs.
#[derive(Debug, PartialEq)]
struct Head {
    channels: u8,
    pre_skip: u16,
    /// Linear factor.
    gain: f32,
    streams: u8,
    coupled: u8,
    mapping: Vec<u8>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let broken = || "broken Opus header".to_owned();
        if bytes.len() < 19 || !bytes.starts_with(b"OpusHead") {
            return Err(broken());
        }
        let (channels, family) = (bytes[9], bytes[18]);
        let (streams, coupled, mapping) = match (family, bytes.get(19..21)) {
            (0, _) if (1..=2).contains(&channels) => (1, channels - 1, (0..channels).collect()),
            (0, _) | (_, None) => return Err(broken()),
            (_, Some(counts)) => {
                let mapping = bytes.get(21..21 + usize::from(channels)).ok_or_else(broken)?;
                let mapping = match (family, wave_order(channels)) {
                    (1, Some(order)) => order.iter().map(|&place| mapping[place]).collect(),
                    _ => mapping.to_vec(),
                };
                (counts[0], counts[1], mapping)
            }
        };
        // Version 0 is the `dOps` box of MP4, with the same fields in big-endian order.
        let word = |at: usize| match bytes[8] {
            0 => u16::from_be_bytes([bytes[at], bytes[at + 1]]),
            _ => u16::from_le_bytes([bytes[at], bytes[at + 1]]),
        };
        let gain_q8 = f32::from(word(16) as i16);
        Ok(Self {
            channels,
            pre_skip: word(10),
            gain: 10_f32.powf(gain_q8 / (20.0 * 256.0)),
            streams,
            coupled,
            mapping,
        })
    }
}

/// For each channel in WAV order, its index in the surround layouts of Opus, which are those of Vorbis.
fn wave_order(channels: u8) -> Option<&'static [usize]> {
    match channels {
        3 => Some(&[0, 2, 1]),
        5 => Some(&[0, 2, 1, 3, 4]),
        6 => Some(&[0, 2, 1, 5, 3, 4]),
        7 => Some(&[0, 2, 1, 6, 5, 3, 4]),
        8 => Some(&[0, 2, 1, 7, 5, 6, 3, 4]),
        _ => None,
    }
}

/// One Opus stream being decoded.
pub(super) struct OpusStream {
    decoder: NonNull<OpusMSDecoder>,
    channels: usize,
    pre_skip: usize,
    /// Decoder delay still to be dropped, in samples.
    skip_start: usize,
    gain: f32,
    /// One packet, interleaved.
    pcm: Vec<f32>,
}

// SAFETY: the decoder state is one heap block without thread-local or shared parts; it is owned here alone and
// reached only through `&mut self`.
unsafe impl Send for OpusStream {}

impl OpusStream {
    /// Creates a decoder from an identification header.
    pub(super) fn new(head: &[u8]) -> Result<Self, String> {
        let head = Head::parse(head)?;
        let mut status: c_int = OPUS_OK;
        // SAFETY: `mapping` holds `channels` bytes, as the function requires; all other arguments are checked by it.
        let decoder = unsafe {
            opus_multistream_decoder_create(
                SAMPLE_RATE as i32,
                i32::from(head.channels),
                i32::from(head.streams),
                i32::from(head.coupled),
                head.mapping.as_ptr(),
                &mut status,
            )
        };
        match NonNull::new(decoder) {
            Some(decoder) if status == OPUS_OK => Ok(Self {
                decoder,
                channels: usize::from(head.channels),
                pre_skip: usize::from(head.pre_skip),
                skip_start: usize::from(head.pre_skip),
                gain: head.gain,
                pcm: vec![0.0; MAX_PACKET_SAMPLES * usize::from(head.channels)],
            }),
            _ => Err(format!("Opus header with an impossible channel layout (error {status})")),
        }
    }

    /// Channels of the output.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Keeps the encoder delay from now on; returns how many samples of it were dropped.
    pub(super) fn keep_delay(&mut self) -> usize {
        self.pre_skip - std::mem::take(&mut self.skip_start)
    }

    /// Forgets all packets so far, after a seek.
    pub(super) fn reset(&mut self) {
        // SAFETY: `decoder` is valid until drop; OPUS_RESET_STATE takes no further argument.
        unsafe {
            unsafe_libopus::opus_multistream_decoder_ctl_impl(
                &mut *self.decoder.as_ptr(),
                unsafe_libopus::OPUS_RESET_STATE,
                unsafe_libopus::varargs!(),
            )
        };
    }

    /// Encoder delay in samples.
    pub(super) fn pre_skip(&self) -> usize {
        self.pre_skip
    }

    /// Decodes one packet and appends its samples to `out`, without the encoder's delay at the start of the stream and
    /// `trim_end` samples of padding at its end. Returns the number of samples appended.
    pub(super) fn decode(
        &mut self,
        packet: &[u8],
        trim_end: usize,
        out: &mut Planar,
    ) -> Result<usize, String> {
        // An empty packet would ask the decoder to conceal a loss.
        if packet.is_empty() || packet.len() > MAX_PACKET_BYTES {
            return Err(format!("an Opus packet of {} bytes", packet.len()));
        }
        // SAFETY: `decoder` is valid until drop; `packet` is readable for its length, which fits an i32; `pcm` has
        // room for MAX_PACKET_SAMPLES frames of `channels` samples, the limit that is passed.
        let decoded = unsafe {
            opus_multistream_decode_float(
                self.decoder.as_ptr(),
                packet.as_ptr(),
                packet.len() as i32,
                self.pcm.as_mut_ptr(),
                MAX_PACKET_SAMPLES as i32,
                0,
            )
        };
        let Ok(decoded) = usize::try_from(decoded) else {
            return Err(format!("an invalid Opus packet (error {decoded})"));
        };
        let decoded = decoded.min(MAX_PACKET_SAMPLES);
        let start = self.skip_start.min(decoded);
        self.skip_start -= start;
        let end = decoded.saturating_sub(trim_end).max(start);
        let kept = &mut self.pcm[start * self.channels..end * self.channels];
        if self.gain != 1.0 {
            kept.iter_mut().for_each(|sample| *sample *= self.gain);
        }
        out.append_interleaved(kept);
        Ok(end - start)
    }
}

impl Drop for OpusStream {
    fn drop(&mut self) {
        // SAFETY: created by `opus_multistream_decoder_create`, destroyed once.
        unsafe { opus_multistream_decoder_destroy(self.decoder.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(channels: u8, family: u8, tail: &[u8]) -> Vec<u8> {
        let mut bytes = b"OpusHead\x01".to_vec();
        bytes.push(channels);
        bytes.extend_from_slice(&312_u16.to_le_bytes());
        bytes.extend_from_slice(&48_000_u32.to_le_bytes());
        bytes.extend_from_slice(&(-1536_i16).to_le_bytes());
        bytes.push(family);
        bytes.extend_from_slice(tail);
        bytes
    }

    #[test]
    fn headers_are_read_and_broken_ones_refused() {
        let read = Head::parse(&head(2, 0, &[])).unwrap();
        assert_eq!((read.channels, read.pre_skip, read.streams, read.coupled), (2, 312, 1, 1));
        let mut boxed = head(2, 0, &[]);
        (boxed[8], boxed[10], boxed[11]) = (0, 1, 56);
        (boxed[16], boxed[17]) = (0xFA, 0);
        assert_eq!(Head::parse(&boxed).unwrap(), read);
        assert!((20.0 * read.gain.log10() + 6.0).abs() < 1e-4);
        assert!(OpusStream::new(&head(6, 1, &[4, 2, 0, 4, 1, 2, 3, 5])).is_ok_and(|s| s.channels() == 6));
        for broken in [
            head(3, 0, &[]),
            head(0, 0, &[]),
            head(6, 1, &[4, 2, 0]),
            head(6, 1, &[]),
            head(2, 0, &[])[..18].to_vec(),
        ] {
            assert!(OpusStream::new(&broken).is_err());
        }
        // More coupled streams than streams, and a mapping to a stream that does not exist.
        assert!(OpusStream::new(&head(2, 1, &[1, 2, 0, 1])).is_err());
        assert!(OpusStream::new(&head(2, 1, &[1, 1, 0, 7])).is_err());
    }

    #[test]
    fn garbage_packets_are_errors_or_noise_but_never_more_than_a_packet() {
        let mut stream = OpusStream::new(&head(2, 0, &[])).unwrap();
        let mut seed = 1_u32;
        let mut out = Planar::new(2);
        for length in 0..400 {
            let packet: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            out.clear();
            if let Ok(samples) = stream.decode(&packet, 0, &mut out) {
                assert!(samples <= MAX_PACKET_SAMPLES && out.samples() == samples);
            }
        }
    }
}
