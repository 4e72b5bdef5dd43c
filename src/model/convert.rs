//! Conversion of a checkpoint to one safetensors file with its configuration inside.
//!
//! The result holds the floating-point tensors without prefixes, in one number type, and the YAML text as metadata.
//! Tensors are converted one at a time.

use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use half::f16;

use super::checkpoint::{Checkpoint, CheckpointError, Dtype, TensorView};
use super::config::{Config, ConfigError};
use crate::atomic_file::AtomicFile;
use crate::hash;

/// Number type of converted weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// Exact for every source but `f64`.
    F32,
    /// Half the size, about three decimal digits. Position frequencies stay `F32`, because positions multiply their error.
    F16,
}

impl WeightFormat {
    /// The format that `tensor` is written in.
    fn for_tensor(self, tensor: &TensorView<'_>) -> Self {
        let frequencies = ["rotary_embed.freqs", "pope_embed.inv_freqs"];
        // Frequencies that are f16 in the source were so when the model was evaluated.
        let exact =
            tensor.dtype() != Dtype::F16 && frequencies.iter().any(|name| tensor.name().ends_with(name));
        if exact { Self::F32 } else { self }
    }

    /// The name of the number type in a header, and its bytes.
    fn dtype(self) -> (&'static str, usize) {
        match self {
            Self::F32 => ("F32", 4),
            Self::F16 => ("F16", 2),
        }
    }
}

/// Summary of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversionReport {
    /// Tensors in the new file.
    pub tensors: usize,
    /// Number of their elements.
    pub parameters: u64,
    /// Size of the new file in bytes.
    pub bytes: u64,
    /// Names of tensors that hold no weights, such as integer buffers, and were not converted.
    pub skipped: Vec<String>,
    /// SHA-256 of the source, in hexadecimal.
    pub source_sha256: String,
}

/// Why a checkpoint was not converted. No file is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A tensor of the source cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The configuration would be refused when the new file is opened.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The new file cannot be written.
    #[error("{file}: cannot write the converted checkpoint: {source}")]
    Io {
        /// Path of the new file.
        file: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A weight exceeds the range of f16.
    #[error("{file}: tensor `{name}` holds {value:e}, beyond the 65504 of f16; convert to f32 instead")]
    BeyondF16 {
        /// Path of the source.
        file: String,
        /// Name of the tensor.
        name: String,
        /// The weight.
        value: f32,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The source has no floating-point tensors.
    #[error("{file}: none of its tensors holds floating-point numbers, so there are no weights to convert")]
    NoWeights {
        /// Path of the source.
        file: String,
    },
}

/// Writes `checkpoint` to `out` as safetensors with `config_yaml` inside. An existing file is replaced atomically at the
/// end. `on_tensor` is called before each tensor and may cancel the conversion.
///
/// # Errors
/// [`ConvertError`]. The message names file and tensor; no file is left behind.
pub fn convert(
    checkpoint: &Checkpoint,
    config_yaml: &str,
    out: &Path,
    format: WeightFormat,
    on_tensor: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<ConversionReport, ConvertError> {
    Config::from_yaml(config_yaml, "the configuration")?;
    let (mut weights, rest): (Vec<_>, Vec<_>) =
        checkpoint.tensors().partition(|tensor| tensor.dtype().is_float());
    // Wide numbers first, so that every tensor is aligned for readers that map the file.
    weights.sort_by_key(|tensor| std::cmp::Reverse(format.for_tensor(tensor).dtype().1));
    if weights.is_empty() {
        return Err(ConvertError::NoWeights { file: checkpoint.origin().to_owned() });
    }
    let source_sha256 = hash::sha256(checkpoint.raw());
    let header = header(&weights, checkpoint, config_yaml, &source_sha256, format);

    let io = |source| ConvertError::Io { file: out.display().to_string(), source };
    if out.is_dir() {
        return Err(io(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    // Removed when dropped, unless it is published below.
    let temporary = AtomicFile::create_beside(out).map_err(io)?;
    let mut writer = BufWriter::with_capacity(1 << 20, temporary);
    writer.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    writer.write_all(header.as_bytes()).map_err(io)?;
    let mut parameters = 0;
    let mut bytes = (8 + header.len()) as u64;
    for tensor in &weights {
        let format = format.for_tensor(tensor);
        if on_tensor().is_break() {
            return Err(ConvertError::Cancelled);
        }
        let converted;
        let data = match (tensor.dtype(), format, tensor.bytes()) {
            (Dtype::F32, WeightFormat::F32, Some(bytes)) | (Dtype::F16, WeightFormat::F16, Some(bytes)) => {
                bytes
            }
            _ => {
                converted = encode(tensor, checkpoint.origin(), format)?;
                &converted
            }
        };
        writer.write_all(data).map_err(io)?;
        parameters += tensor.elements() as u64;
        bytes += data.len() as u64;
    }
    let file = writer.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync().map_err(io)?;
    file.publish(out).map_err(io)?;
    let skipped = rest.iter().map(|tensor| tensor.name().to_owned()).collect();
    Ok(ConversionReport { tensors: weights.len(), parameters, bytes, skipped, source_sha256 })
}

fn encode(tensor: &TensorView<'_>, origin: &str, format: WeightFormat) -> Result<Vec<u8>, ConvertError> {
    let values = tensor.to_f32()?;
    match format {
        WeightFormat::F32 => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        WeightFormat::F16 => {
            let limit = f16::MAX.to_f32();
            if let Some(value) = values.iter().find(|value| value.abs() > limit) {
                let (file, name) = (origin.to_owned(), tensor.name().to_owned());
                return Err(ConvertError::BeyondF16 { file, name, value: *value });
            }
            Ok(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect())
        }
    }
}

/// The JSON header: metadata, then every tensor in the order it is written.
fn header(
    weights: &[TensorView<'_>],
    checkpoint: &Checkpoint,
    config_yaml: &str,
    sha256: &str,
    format: WeightFormat,
) -> String {
    let source =
        Path::new(checkpoint.origin()).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let metadata = serde_json::json!({
        "format": "pt",
        "config": config_yaml,
        "source": source,
        "source_sha256": sha256,
    });
    let mut text = format!("{{\"__metadata__\":{metadata}");
    let mut offset = 0;
    for tensor in weights {
        let (dtype, width) = format.for_tensor(tensor).dtype();
        let end = offset + tensor.elements() * width;
        let info =
            serde_json::json!({ "dtype": dtype, "shape": tensor.shape(), "data_offsets": [offset, end] });
        // Writing to a string cannot fail.
        _ = write!(text, ",{}:{info}", serde_json::Value::from(tensor.name()));
        offset = end;
    }
    text.push('}');
    // Padded so that the numbers are aligned for readers that map the file.
    while text.len() % 8 != 0 {
        text.push(' ');
    }
    text
}
