//! Headers of ADTS frames, which hold AAC.

use super::frames::{Frame, FrameKind};

/// Samples of an AAC frame.
const FRAME_SAMPLES: u64 = 1024;

/// Reads the header at the start of `bytes`.
pub(super) fn parse_header(bytes: &[u8]) -> Option<Frame> {
    const RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let [sync, flags, format, size_high, size, size_low, blocks] = *bytes.first_chunk()?;
    // Twelve bits of synchronisation; the two bits of the layer are 0.
    if sync != 0xFF || flags & 0xF6 != 0xF0 {
        return None;
    }
    let sample_rate = *RATES.get(usize::from(format >> 2 & 15))?;
    let channels = match (format & 1) << 2 | size_high >> 6 {
        // The channels are stated in the frame itself.
        0 => return None,
        7 => 8,
        channels => usize::from(channels),
    };
    let header = if flags & 1 == 0 { 9 } else { 7 };
    let bytes = u64::from(size_high & 3) << 11 | u64::from(size) << 3 | u64::from(size_low >> 5);
    if bytes < header {
        return None;
    }
    let samples = FRAME_SAMPLES * (u64::from(blocks & 3) + 1);
    Some(Frame { kind: FrameKind::Adts, channels, sample_rate, samples, bytes })
}
