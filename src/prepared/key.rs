//! The key of prepared stems: a hash of the audio, the model and the settings of the separation.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::audio::Planar;
use crate::hash;

/// How the stems were separated: everything but audio and model that changes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Sample rate of audio and stems in Hz.
    pub rate: u32,
    /// Samples of a chunk at the model's rate.
    pub chunk: usize,
    /// Chunks that cover each sample on average.
    pub overlap: f64,
    /// How the residual is distributed: `off`, `spectral` or `hybrid`.
    pub lossless: String,
    /// Number type of the network: `f32`, `bf16`, …
    pub precision: String,
    /// Whether the stems are the mean over three variants of the mixture.
    #[serde(default)]
    pub tta: bool,
    /// Circular shifts of the song, of which the stems are the mean.
    #[serde(default)]
    pub shifts: usize,
    /// Whether the mixture was standardised first.
    #[serde(default)]
    pub normalize: bool,
}

/// Identifies prepared stems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Hash of the audio at the model's rate, see [`ContentHash`].
    pub audio: String,
    /// SHA-256 of the checkpoint.
    pub model: String,
    /// How it separates.
    pub settings: Settings,
}

impl Key {
    /// The name of the entry: 32 hexadecimal digits.
    pub fn id(&self) -> String {
        let Settings { rate, chunk, overlap, lossless, precision, tta, shifts, normalize } = &self.settings;
        let text = format!(
            "{}\n{}\n{rate}\n{chunk}\n{overlap}\n{lossless}\n{precision}\n{tta}\n{shifts}\n{normalize}",
            self.audio, self.model
        );
        let mut id = hash::sha256(text.as_bytes());
        id.truncate(32);
        id
    }
}

/// SHA-256 of a checkpoint's file.
///
/// # Errors
/// Those of reading it.
pub fn sha256_of_file(path: &Path) -> std::io::Result<String> {
    let hashed = hash::sha256_of_reader(std::fs::File::open(path)?, &mut |_| true)?;
    hashed.ok_or_else(|| std::io::ErrorKind::Interrupted.into())
}

/// Whether `id` may be the name of an entry: nothing else is ever used as a path.
pub fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// SHA-256 of audio: rate, channels and all samples, whatever the size of the blocks that it comes in.
pub struct ContentHash(Sha256);

impl ContentHash {
    /// For audio of `channels` channels at `rate` Hz.
    pub fn new(rate: u32, channels: usize) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(rate.to_le_bytes());
        hasher.update((channels as u32).to_le_bytes());
        Self(hasher)
    }

    /// Adds a block.
    pub fn add(&mut self, block: &Planar) {
        let mut bytes = Vec::with_capacity(block.channels() * block.samples() * size_of::<f32>());
        for i in 0..block.samples() {
            for channel in block.iter() {
                // 0 and −0 sound the same and compare as equal.
                bytes.extend((channel[i] + 0.0).to_le_bytes());
            }
        }
        self.0.update(&bytes);
    }

    /// The hash in lower-case hex.
    pub fn finish(self) -> String {
        hash::hex(&self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_key_changes_the_id() {
        let settings = Settings {
            rate: 44_100,
            chunk: 1000,
            overlap: 2.0,
            lossless: "spectral".into(),
            precision: "f32".into(),
            tta: false,
            shifts: 1,
            normalize: false,
        };
        let key = Key { audio: "a".into(), model: "m".into(), settings: settings.clone() };
        let others = [
            Key { audio: "b".into(), ..key.clone() },
            Key { model: "n".into(), ..key.clone() },
            Key { settings: Settings { rate: 48_000, ..settings.clone() }, ..key.clone() },
            Key { settings: Settings { chunk: 1001, ..settings.clone() }, ..key.clone() },
            Key { settings: Settings { overlap: 2.5, ..settings.clone() }, ..key.clone() },
            Key { settings: Settings { lossless: "off".into(), ..settings.clone() }, ..key.clone() },
            Key { settings: Settings { precision: "bf16".into(), ..settings.clone() }, ..key.clone() },
            Key { settings: Settings { tta: true, ..settings.clone() }, ..key.clone() },
            Key { settings: Settings { shifts: 2, ..settings.clone() }, ..key.clone() },
            Key { settings: Settings { normalize: true, ..settings }, ..key.clone() },
        ];
        assert!(is_id(&key.id()));
        for other in others {
            assert_ne!(key.id(), other.id(), "{other:?}");
        }
        assert!(!is_id("../../etc") && !is_id(&"A".repeat(32)) && !is_id(""));
    }

    #[test]
    fn content_hash_ignores_block_sizes_and_signed_zeros() {
        let of = |pieces: &[&[f32]]| {
            let mut hash = ContentHash::new(44_100, 1);
            pieces.iter().for_each(|piece| hash.add(&Planar::from_equal(vec![piece.to_vec()])));
            hash.finish()
        };
        assert_eq!(of(&[&[0.0, 1.0, 2.0]]), of(&[&[-0.0], &[1.0, 2.0]]));
        assert_ne!(of(&[&[0.0, 1.0]]), of(&[&[0.0, 1.5]]));
    }
}
