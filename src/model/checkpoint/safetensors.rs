//! Reading `.safetensors`.

use std::collections::BTreeMap;

use safetensors::Dtype as Stored;
use safetensors::tensor::Metadata;

use super::tensor::{TensorEntry, TensorLocation};
use super::{CheckpointError, ContainerContents, Dtype};

/// Largest accepted header. A real one has about a hundred bytes for each tensor, and parsing takes several times its size.
const MAX_HEADER_BYTES: u64 = 32 << 20;
const LENGTH_BYTES: usize = 8;

pub(super) fn read(file: &[u8], origin: &str) -> Result<ContainerContents, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Damaged {
        file: origin.to_owned(),
        container: "safetensors header",
        reason,
    };
    let header = header_length(file, origin)?;
    let (_, metadata) = match safetensors::SafeTensors::read_metadata(file) {
        Ok(read) => read,
        Err(safetensors::SafeTensorError::MetadataIncompleteBuffer) => {
            return Err(wrong_length(file, header, origin));
        }
        Err(error) => return Err(damaged(error.to_string())),
    };
    let start = LENGTH_BYTES + header;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let (from, to) = info.data_offsets;
        let location = TensorLocation::File(start + from..start + to);
        let entry =
            TensorEntry { dtype: dtype(info.dtype), shape: info.shape.clone(), strides: None, location };
        tensors.insert(name, entry);
    }
    if tensors.is_empty() {
        return Err(CheckpointError::NoWeights {
            file: origin.to_owned(),
            found: "the safetensors header lists no tensor".to_owned(),
        });
    }
    Ok(ContainerContents {
        wrapper: None,
        metadata: text_metadata(&metadata),
        skipped: Vec::new(),
        inflated: Vec::new(),
        tensors,
    })
}

fn header_length(file: &[u8], origin: &str) -> Result<usize, CheckpointError> {
    let length = file.first_chunk::<LENGTH_BYTES>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if length > MAX_HEADER_BYTES {
        return Err(CheckpointError::Damaged {
            file: origin.to_owned(),
            container: "safetensors header",
            reason: format!("it claims {length} bytes, more than the {MAX_HEADER_BYTES} any model needs"),
        });
    }
    let available = (file.len() - LENGTH_BYTES) as u64;
    if length > available {
        return Err(CheckpointError::Truncated {
            file: origin.to_owned(),
            what: "the safetensors header".to_owned(),
            needed: length,
            available,
        });
    }
    Ok(length as usize)
}

/// The error for a valid header whose data has the wrong length.
fn wrong_length(file: &[u8], header: usize, origin: &str) -> CheckpointError {
    let start = LENGTH_BYTES + header;
    let available = (file.len() - start) as u64;
    let needed = serde_json::from_slice::<serde_json::Value>(&file[LENGTH_BYTES..start])
        .ok()
        .and_then(|value| {
            let ends =
                value.as_object()?.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
            ends.max()
        })
        .unwrap_or(0);
    if needed > available {
        let what = "the tensor data".to_owned();
        return CheckpointError::Truncated { file: origin.to_owned(), what, needed, available };
    }
    CheckpointError::Damaged {
        file: origin.to_owned(),
        container: "safetensors file",
        reason: format!("{} bytes follow the last tensor", available - needed),
    }
}

fn text_metadata(metadata: &Metadata) -> BTreeMap<String, String> {
    metadata.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone())).collect()
}

fn dtype(stored: Stored) -> Dtype {
    match stored {
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::Bf16,
        Stored::F64 => Dtype::F64,
        Stored::I8 => Dtype::I8,
        Stored::U8 => Dtype::U8,
        Stored::I16 => Dtype::I16,
        Stored::U16 => Dtype::U16,
        Stored::I32 => Dtype::I32,
        Stored::U32 => Dtype::U32,
        Stored::I64 => Dtype::I64,
        Stored::U64 => Dtype::U64,
        Stored::BOOL => Dtype::Bool,
        Stored::C64 => Dtype::Other("complex64"),
        _ => Dtype::Other("float8 or smaller"),
    }
}
