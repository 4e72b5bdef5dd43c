//! Reading `.safetensors`.

use std::collections::BTreeMap;

use safetensors::Dtype as Stored;
use safetensors::tensor::Metadata;

use super::bytes::CheckpointBytes;
use super::networks::{self, TensorDict};
use super::tensor::{TensorEntry, TensorLocation};
use super::{CheckpointError, ContainerContents, Dtype, mlx};

/// Largest accepted header. A real one has about a hundred bytes for each tensor, and parsing takes several times its size.
const MAX_HEADER_BYTES: u64 = 32 << 20;
const LENGTH_BYTES: u64 = 8;

pub(super) fn read(
    bytes: &CheckpointBytes,
    wanted: Option<&str>,
) -> Result<ContainerContents, CheckpointError> {
    let origin = bytes.origin();
    let damaged = |reason: String| CheckpointError::Damaged {
        file: origin.to_owned(),
        container: "safetensors header",
        reason,
    };
    let length = header_length(bytes)?;
    let start = LENGTH_BYTES + length;
    let header = bytes.range(LENGTH_BYTES..start)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
    check_length(metadata.data_len() as u64, bytes.len() - start, origin)?;
    let mut listed: Vec<(String, TensorEntry)> = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let (from, to) = info.data_offsets;
            let location =
                TensorLocation::File { range: start + from as u64..start + to as u64, member: None };
            (
                name,
                TensorEntry { dtype: dtype(info.dtype), shape: info.shape.clone(), strides: None, location },
            )
        })
        .collect();
    if listed.is_empty() {
        return Err(CheckpointError::NoWeights {
            file: origin.to_owned(),
            found: "the safetensors header lists no tensor".to_owned(),
        });
    }
    listed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let says_mlx = metadata.metadata().as_ref().is_some_and(|texts| texts.values().any(|text| text == "mlx"));
    let listed = mlx::with_pytorch_names(listed, says_mlx, origin)?;
    let mut contents = choose(listed, wanted, origin)?;
    contents.metadata =
        metadata.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone())).collect();
    Ok(contents)
}

/// Chooses the network among tensors without dicts.
pub(super) fn choose(
    listed: Vec<(String, TensorEntry)>,
    wanted: Option<&str>,
    origin: &str,
) -> Result<ContainerContents, CheckpointError> {
    let (names, entries): (Vec<String>, Vec<TensorEntry>) = listed.into_iter().unzip();
    let identities = (0..names.len() as u64).collect();
    let dict = TensorDict { path: Vec::new(), names, identities };
    let chosen =
        networks::choose(std::slice::from_ref(&dict), wanted).map_err(|e| e.into_checkpoint_error(origin))?;
    let mut contents = ContainerContents::default();
    let by_name: BTreeMap<String, usize> = match chosen {
        Some(choice) => {
            contents.prefix = choice.prefix;
            contents.leftovers = choice.leftovers;
            contents.alternatives = choice.alternatives;
            choice.tensors
        }
        None => {
            let (prefix, tensors, leftovers) = networks::strip_known_prefixes(&dict.names);
            (contents.prefix, contents.leftovers) = (prefix, leftovers);
            tensors
        }
    };
    contents.tensors = by_name.into_iter().map(|(name, at)| (name, entries[at].clone())).collect();
    Ok(contents)
}

fn header_length(bytes: &CheckpointBytes) -> Result<u64, CheckpointError> {
    let mut length = [0; LENGTH_BYTES as usize];
    bytes.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(CheckpointError::Damaged {
            file: bytes.origin().to_owned(),
            container: "safetensors header",
            reason: format!("it claims {length} bytes, more than the {MAX_HEADER_BYTES} any model needs"),
        });
    }
    let available = bytes.len() - LENGTH_BYTES;
    if length > available {
        return Err(CheckpointError::Truncated {
            file: bytes.origin().to_owned(),
            what: "the safetensors header".to_owned(),
            needed: length,
            available,
        });
    }
    Ok(length)
}

/// Checks that the data after the header has the length that the header states.
fn check_length(needed: u64, available: u64, origin: &str) -> Result<(), CheckpointError> {
    if needed > available {
        let what = "the tensor data".to_owned();
        return Err(CheckpointError::Truncated { file: origin.to_owned(), what, needed, available });
    }
    if needed < available {
        return Err(CheckpointError::Damaged {
            file: origin.to_owned(),
            container: "safetensors file",
            reason: format!("{} bytes follow the last tensor", available - needed),
        });
    }
    Ok(())
}

fn dtype(stored: Stored) -> Dtype {
    match stored {
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::Bf16,
        Stored::F64 => Dtype::F64,
        Stored::F8_E4M3 => Dtype::F8E4M3,
        Stored::F8_E5M2 => Dtype::F8E5M2,
        Stored::C64 => Dtype::Complex64,
        Stored::I8 => Dtype::I8,
        Stored::U8 => Dtype::U8,
        Stored::I16 => Dtype::I16,
        Stored::U16 => Dtype::U16,
        Stored::I32 => Dtype::I32,
        Stored::U32 => Dtype::U32,
        Stored::I64 => Dtype::I64,
        Stored::U64 => Dtype::U64,
        Stored::BOOL => Dtype::Bool,
        Stored::F8_E4M3FNUZ => Dtype::F8E4M3Fnuz,
        Stored::F8_E5M2FNUZ => Dtype::F8E5M2Fnuz,
        Stored::F8_E8M0 => Dtype::Other("float8_e8m0fnu"),
        _ => Dtype::Other("a float of fewer than 8 bits"),
    }
}
