//! Headers of MPEG audio frames, layers 1 to 3.

use super::frames::{Frame, FrameKind};

/// Reads the header at the start of `bytes`.
pub(super) fn parse_header(bytes: &[u8]) -> Option<Frame> {
    const RATES: [u32; 3] = [44_100, 48_000, 32_000];
    /// kbit/s by table and index.
    const BIT_RATES: [[u64; 15]; 5] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let [sync, version, rates, mode] = *bytes.first_chunk()?;
    if sync != 0xFF || version & 0xE0 != 0xE0 {
        return None;
    }
    // Version: 0 is 2.5, 2 is 2, 3 is 1. Layer: 1 is III, 2 is II, 3 is I.
    let (version, layer) = (version >> 3 & 3, version >> 1 & 3);
    if version == 1 || layer == 0 {
        return None;
    }
    let base = *RATES.get(usize::from(rates >> 2 & 3))?;
    let sample_rate = base >> [2, 0, 1, 0][usize::from(version)];
    let table = match (version, layer) {
        (3, 3) => 0,
        (3, 2) => 1,
        (3, _) => 2,
        (_, 3) => 3,
        _ => 4,
    };
    let kbits = *BIT_RATES[table].get(usize::from(rates >> 4))?;
    if kbits == 0 {
        return None;
    }
    let samples = match (version, layer) {
        (_, 3) => 384,
        (3, _) | (_, 2) => 1152,
        _ => 576,
    };
    let padding = u64::from(rates >> 1 & 1);
    let bytes = match layer {
        3 => (kbits * 12_000 / u64::from(sample_rate) + padding) * 4,
        _ => samples / 8 * kbits * 1000 / u64::from(sample_rate) + padding,
    };
    let channels = if mode >> 6 == 3 { 1 } else { 2 };
    Some(Frame { kind: FrameKind::Mpeg { layer: 4 - layer }, channels, sample_rate, samples, bytes })
}
