//! Tensors in safetensors files that appear in one step, whole or not at all.

use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::error::TrainError;
use super::parameters::Parameters;
use crate::atomic_file::AtomicFile;

/// Writes all tensors of a network as f32, `values` in place of its parameters where they are given, with the YAML as metadata.
pub(super) fn checkpoint(
    parameters: &Parameters,
    values: Option<&[Tensor]>,
    config_yaml: &str,
    path: &Path,
) -> Result<(), TrainError> {
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for (name, value) in parameters.tensors() {
        let replaced = values.and_then(|values| values.get(parameters.index(name)?));
        tensors.push((name.to_owned(), replaced.cloned().unwrap_or(value)));
    }
    let metadata = [("format", "pt".to_owned()), ("config", config_yaml.to_owned())];
    write(path, &tensors, &metadata)
}

/// Writes `tensors` as f32 to a temporary file beside `path`, waits for the disk, and renames it. A file that is there stays as it is until then.
///
/// # Errors
/// [`TrainError::Io`], and [`TrainError::NotFinite`] for a value that is NaN or infinite.
pub(super) fn write(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &[(&str, String)],
) -> Result<(), TrainError> {
    if path.is_dir() {
        let error = std::io::Error::from(std::io::ErrorKind::IsADirectory);
        return Err(TrainError::io(path, "cannot be written")(error));
    }
    let file = AtomicFile::create_beside(path).map_err(TrainError::io(path, "cannot be written"))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    let header = header(tensors, metadata);
    let mut put = |bytes: &[u8]| writer.write_all(bytes).map_err(TrainError::io(path, "cannot be written"));
    put(&(header.len() as u64).to_le_bytes())?;
    put(header.as_bytes())?;
    for (name, tensor) in tensors {
        let values: Vec<f32> =
            tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        if let Some((at, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(TrainError::NotFinite { what: name.clone(), at, value });
        }
        // safetensors is little-endian, as every platform that we build for.
        put(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    let file =
        writer.into_inner().map_err(|error| TrainError::io(path, "cannot be written")(error.into_error()))?;
    file.sync().map_err(TrainError::io(path, "cannot be written"))?;
    file.publish(path).map_err(TrainError::io(path, "cannot be replaced"))
}

/// The JSON in front of the data, padded so that numbers are aligned where the file is mapped.
fn header(tensors: &[(String, Tensor)], metadata: &[(&str, String)]) -> String {
    let metadata: serde_json::Map<String, serde_json::Value> =
        metadata.iter().map(|(key, text)| ((*key).to_owned(), text.clone().into())).collect();
    let mut text = format!("{{\"__metadata__\":{}", serde_json::Value::Object(metadata));
    let mut offset = 0;
    for (name, tensor) in tensors {
        let end = offset + 4 * tensor.elem_count();
        let info =
            serde_json::json!({ "dtype": "F32", "shape": tensor.dims(), "data_offsets": [offset, end] });
        // Writing to a string cannot fail.
        _ = write!(text, ",{}:{info}", serde_json::Value::from(name.as_str()));
        offset = end;
    }
    text.push('}');
    while text.len() % 8 != 0 {
        text.push(' ');
    }
    text
}
