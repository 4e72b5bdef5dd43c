//! Checkpoints made from the embedded one, valid and damaged, and states that select them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::host::Host;

/// The embedded checkpoint: 8 bytes of length, a JSON header, tensors.
const EMBEDDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/nullsum-preview.safetensors");

/// A folder of checkpoints, deleted on drop.
pub struct Models(tempfile::TempDir);

/// What is wrong with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing. Equal numbers give equal files.
    Good(u32),
    /// The end is missing.
    Truncated,
    /// It is not a checkpoint.
    Garbage,
    /// The header is cut off.
    Header,
    /// A tensor has another shape.
    Shape,
    /// A tensor is missing.
    Missing,
    /// Every weight is NaN.
    Nan,
    /// Every weight has the largest finite value.
    Huge,
    /// The file is empty.
    Empty,
}

/// The kinds that cannot be loaded.
pub const BROKEN: [Kind; 7] =
    [Kind::Truncated, Kind::Garbage, Kind::Header, Kind::Shape, Kind::Missing, Kind::Nan, Kind::Empty];

impl Models {
    /// An empty folder.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a checkpoint.
    pub fn write(&self, kind: Kind) -> PathBuf {
        let path = self.0.path().join(format!("{kind:?}.safetensors").replace(['(', ')'], "_"));
        std::fs::write(&path, damaged(kind)).unwrap();
        path
    }
}

fn damaged(kind: Kind) -> Vec<u8> {
    let mut bytes = std::fs::read(EMBEDDED).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let start = 8 + length;
    // The embedded weights are f16.
    let fill = |bytes: &mut Vec<u8>, bits: u16| {
        for weight in bytes[start..].chunks_exact_mut(2) {
            weight.copy_from_slice(&bits.to_le_bytes());
        }
    };
    let header = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..start]).unwrap();
        change(&mut header);
        let text = serde_json::to_vec(&header).unwrap();
        [&(text.len() as u64).to_le_bytes(), text.as_slice(), &bytes[start..]].concat()
    };
    let tensor = |header: &serde_json::Map<String, Value>| {
        let square = |tensor: &Value| {
            tensor["shape"].as_array().is_some_and(|shape| shape.len() == 2 && shape[0] != shape[1])
        };
        header.iter().find(|(_, tensor)| square(tensor)).map(|(name, _)| name.clone()).unwrap()
    };
    match kind {
        // Changes the lowest bits of a weight: other content, same sound.
        Kind::Good(number) => bytes[start] ^= number as u8,
        Kind::Truncated => bytes.truncate(start + (bytes.len() - start) / 2),
        Kind::Garbage => {
            bytes = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
        }
        Kind::Header => bytes.truncate(start / 2),
        Kind::Shape => {
            bytes = header(&|header| {
                let name = tensor(header);
                header[&name]["shape"].as_array_mut().unwrap().reverse();
            });
        }
        Kind::Missing => {
            bytes = header(&|header| {
                let name = tensor(header);
                let value = header.remove(&name).unwrap();
                header.insert("something.else".into(), value);
            });
        }
        Kind::Nan => fill(&mut bytes, 0x7e00),
        Kind::Huge => fill(&mut bytes, 0x7bff),
        Kind::Empty => bytes.clear(),
    }
    bytes
}

/// Selects a checkpoint as a restored project does. Nothing else of the state changes.
pub fn choose<H: Host>(host: &mut H, checkpoint: &Path) {
    choose_known(host, checkpoint, Value::Null);
}

/// Selects a checkpoint whose properties are `known` to the state.
pub fn choose_known<H: Host>(host: &mut H, checkpoint: &Path, known: Value) {
    let mut state: Value = serde_json::from_slice(&host.save()).unwrap();
    let selection = json!({
        "format": 1,
        "source": { "from": "file", "checkpoint": checkpoint, "config": null },
        "title": checkpoint.file_stem().unwrap().to_string_lossy(),
        "known": known,
    });
    state["fields"]["model"] = json!(selection.to_string());
    assert!(host.load(state.to_string().as_bytes()), "{}: the state is refused", H::FORMAT);
}

/// The saved model selection of an instance.
pub fn chosen<H: Host>(host: &mut H) -> Value {
    let state: Value = serde_json::from_slice(&host.save()).unwrap();
    serde_json::from_str(state["fields"]["model"].as_str().unwrap()).unwrap()
}

/// Whether the selected model was loaded: an instance then saves its properties.
pub fn is_loaded<H: Host>(host: &mut H, checkpoint: &Path) -> bool {
    let model = chosen(host);
    model["source"]["checkpoint"] == json!(checkpoint) && model["sha256"].is_string()
}
