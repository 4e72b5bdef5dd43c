//! A block of samples on disk: lossless, with a checksum.
//!
//! A block starts with a header of 32 bytes: a magic number, the encoding, the number of planes and samples, and the length of the payload, then a
//! checksum. The checksum covers the store entry, the stream and the number of the block too, so a block of another place is not accepted.

use sha2::{Digest, Sha256};

use crate::audio::Planar;

/// Samples of a block; the last block of a stream is shorter.
pub const BLOCK: usize = 1 << 15;
/// Most planes of a block.
pub const MAX_PLANES: usize = 1024;
/// Steps of the integer encoding: 2²³ to full scale.
const STEPS: f32 = 8_388_608.0;
const MAGIC: [u8; 4] = *b"NSB1";
const HEADER: usize = 32;
/// Bytes of the header that hold the checksum.
const CHECKSUM: std::ops::Range<usize> = 16..32;

/// Encodings of the payload. Both are exact.
const FLOAT: u8 = 0;
const INTEGER_24: u8 = 1;

/// Why a block is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The file ends within the block.
    #[error("it ends after {found} bytes of {expected}")]
    Truncated {
        /// Bytes that the header asks for.
        expected: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// This is no block.
    #[error("it does not start with a block header")]
    Header,
    /// Bytes have changed.
    #[error("its checksum does not match its content")]
    Checksum,
}

/// The place of a block: part of its checksum.
#[derive(Clone, Copy, Debug)]
pub struct BlockId<'a> {
    /// The entry of the store.
    pub entry: &'a str,
    /// The stream within the entry.
    pub stream: &'a str,
    /// Number of the block in the stream.
    pub number: u64,
}

/// The most bytes of a block of `planes` planes.
pub fn max_bytes(planes: usize) -> usize {
    HEADER + planes * BLOCK * size_of::<f32>()
}

/// Encodes up to [`BLOCK`] samples of every plane.
pub fn encode(id: BlockId, planes: &Planar) -> Vec<u8> {
    let is_integer = planes.iter().flatten().all(|x| as_steps(*x).is_some());
    let width = if is_integer { 3 } else { 4 };
    let payload = planes.channels() * planes.samples() * width;
    let mut bytes = Vec::with_capacity(HEADER + payload);
    bytes.extend(MAGIC);
    bytes.push(if is_integer { INTEGER_24 } else { FLOAT });
    bytes.push(0);
    bytes.extend((planes.channels() as u16).to_le_bytes());
    bytes.extend((planes.samples() as u32).to_le_bytes());
    bytes.extend((payload as u32).to_le_bytes());
    bytes.extend([0; 16]);
    for x in planes.iter().flatten() {
        match as_steps(*x).filter(|_| is_integer) {
            Some(steps) => bytes.extend(&steps.to_le_bytes()[..3]),
            None => bytes.extend(x.to_le_bytes()),
        }
    }
    let sum = checksum(id, &bytes);
    bytes[CHECKSUM].copy_from_slice(&sum);
    bytes
}

/// Decodes a block.
///
/// # Errors
/// [`BlockError`].
pub fn decode(id: BlockId, bytes: &[u8]) -> Result<Planar, BlockError> {
    let header = bytes.get(..HEADER).ok_or(BlockError::Truncated { expected: HEADER, found: bytes.len() })?;
    let word =
        |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (encoding, planes) = (header[4], usize::from(u16::from_le_bytes([header[6], header[7]])));
    let (samples, payload) = (word(8), word(12));
    let width = if encoding == INTEGER_24 { 3 } else { 4 };
    let plausible = header[..4] == MAGIC
        && encoding <= INTEGER_24
        && planes <= MAX_PLANES
        && samples <= BLOCK
        && payload == planes * samples * width;
    if !plausible {
        return Err(BlockError::Header);
    }
    let expected = HEADER + payload;
    let Some(whole) = bytes.get(..expected) else {
        return Err(BlockError::Truncated { expected, found: bytes.len() });
    };
    if checksum(id, whole) != header[CHECKSUM] {
        return Err(BlockError::Checksum);
    }
    let decoded = whole[HEADER..].chunks_exact(width).map(|b| match b {
        // The sign comes with the shift back.
        [a, b, c] => (i32::from_le_bytes([0, *a, *b, *c]) >> 8) as f32 / STEPS,
        [a, b, c, d] => f32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0.0,
    });
    let all: Vec<f32> = decoded.collect();
    let planes = if samples == 0 {
        vec![Vec::new(); planes]
    } else {
        all.chunks(samples).map(<[f32]>::to_vec).collect()
    };
    Planar::from_planes(planes).ok_or(BlockError::Header)
}

/// The integer of a sample on the 24-bit grid.
fn as_steps(x: f32) -> Option<i32> {
    let steps = x * STEPS;
    let is_in_range = (-STEPS..STEPS).contains(&steps);
    (is_in_range && steps.trunc() == steps).then_some(steps as i32)
}

/// The nearest sample on the grid of 2⁻²³, as the audio thread rounds stems before it sums them: half a step goes to the even one.
pub fn to_grid(x: f32) -> f32 {
    if x.is_finite() {
        ((f64::from(x) * f64::from(STEPS)).round_ties_even() / f64::from(STEPS)) as f32
    } else {
        0.0
    }
}

/// Of everything but the checksum itself.
fn checksum(id: BlockId, block: &[u8]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(id.entry.as_bytes());
    hasher.update([0]);
    hasher.update(id.stream.as_bytes());
    hasher.update([0]);
    hasher.update(id.number.to_le_bytes());
    hasher.update(&block[..CHECKSUM.start]);
    hasher.update(&block[CHECKSUM.end..]);
    let mut sum = [0; 16];
    sum.copy_from_slice(&hasher.finalize()[..16]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: BlockId = BlockId { entry: "e", stream: "stems", number: 7 };

    proptest! {
        #[test]
        fn blocks_come_back_bit_for_bit(
            values in prop::collection::vec(prop_oneof![
                (-8_388_608i32..8_388_608).prop_map(|x| x as f32 / STEPS),
                any::<f32>().prop_filter("finite", |x| x.is_finite()),
            ], 0..200),
            integers: bool,
        ) {
            let values: Vec<f32> = values.into_iter().map(|x| if integers { to_grid(x.clamp(-1.0, 0.999)) } else { x }).collect();
            let planes = Planar::from_equal(vec![values.clone(), values.iter().rev().copied().collect()]);
            let bytes = encode(ID, &planes);
            prop_assert!(bytes.len() <= max_bytes(2));
            if integers {
                prop_assert_eq!(bytes.len(), HEADER + 6 * values.len());
            }
            let back = decode(ID, &bytes).unwrap();
            prop_assert_eq!(back.planes(), planes.planes());
        }

        #[test]
        fn any_changed_byte_is_noticed(at in 0usize..1_000, bit in 0u8..8, samples in 1usize..100) {
            let planes = Planar::from_equal(vec![(0..samples).map(|i| i as f32 * 0.001).collect()]);
            let mut bytes = encode(ID, &planes);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            // The byte after the encoding is reserved, and covered by the checksum like all others.
            prop_assert!(decode(ID, &bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(ID, &bytes).is_err());
        }
    }

    #[test]
    fn a_block_of_another_place_is_refused() {
        let bytes = encode(ID, &Planar::zeros(2, 10));
        for id in
            [BlockId { entry: "f", ..ID }, BlockId { stream: "audio", ..ID }, BlockId { number: 8, ..ID }]
        {
            assert_eq!(decode(id, &bytes), Err(BlockError::Checksum));
        }
        assert_eq!(decode(ID, &bytes[..40]), Err(BlockError::Truncated { expected: 92, found: 40 }));
    }
}
