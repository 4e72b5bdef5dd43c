//! Conversion of a checkpoint to one safetensors file with its configuration inside.
//!
//! The result holds every tensor of the network without prefixes, in one number type, and the YAML text as metadata. Tensors
//! are converted one at a time. The result is opened and resolved before it gets its name.

use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use half::f16;

use super::architecture::{Architecture, ArchitectureError, Family};
use super::checkpoint::{Checkpoint, CheckpointError, Dtype, ROW_SCALES, TensorView};
use super::config::{Config, ConfigError};
use super::inspect::holds_weights;
use crate::atomic_file::AtomicFile;

/// Number type of converted weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// Exact for every source but `f64`.
    F32,
    /// Half the size, about three decimal digits. Position frequencies and the statistics of batch norms stay `F32`, because later steps
    /// multiply their error.
    F16,
    /// A quarter of the size: matrices as 8-bit integers with a scale for each row, 30 to 40 dB from the source. All else stays `F32`.
    Int8,
}

/// Number type of one tensor in the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    F32,
    F16,
    /// 8-bit integers, whose scales are a tensor of their own.
    ScaledI8,
    /// The f32 scales of the rows of a matrix of 8-bit integers.
    RowScales,
    /// Complex weights keep their precision: they are few.
    Complex64,
}

impl WeightFormat {
    /// The format that `tensor` is written in.
    fn for_tensor(self, tensor: &TensorView<'_>) -> Stored {
        if tensor.dtype().is_complex() {
            return Stored::Complex64;
        }
        // Also the statistics of batch norms, which divide.
        let frequencies = ["rotary_embed.freqs", "pope_embed.inv_freqs", ".running_mean", ".running_var"];
        // Numbers that are f16 in the source were so when the model was evaluated.
        let exact =
            tensor.dtype() != Dtype::F16 && frequencies.iter().any(|name| tensor.name().ends_with(name));
        match self {
            Self::F16 if !exact => Stored::F16,
            Self::Int8 if tensor.shape().len() >= 2 && tensor.name().ends_with("weight") => Stored::ScaledI8,
            _ => Stored::F32,
        }
    }
}

impl Stored {
    /// The name of the number type in a header, and its bytes.
    fn dtype(self) -> (&'static str, usize) {
        match self {
            Self::Complex64 => ("C64", 8),
            Self::F32 | Self::RowScales => ("F32", 4),
            Self::F16 => ("F16", 2),
            Self::ScaledI8 => ("I8", 1),
        }
    }

    /// Name and shape under which `tensor` is stored.
    fn name_and_shape<'a>(self, tensor: &TensorView<'a>) -> (String, &'a [usize]) {
        match self {
            Self::RowScales => (format!("{}{ROW_SCALES}", tensor.name()), &tensor.shape()[..1]),
            _ => (tensor.name().to_owned(), tensor.shape()),
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
    /// Names of tensors that are not part of the network, such as counters and the window of a loss, and were not converted.
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
    /// Checkpoint and configuration give no network.
    #[error("{file}: {source}")]
    Architecture {
        /// Path of the source.
        file: String,
        /// Why.
        source: ArchitectureError,
    },
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
    /// A weight is not a number or infinite.
    #[error(
        "{file}: tensor `{name}`: value {index} is {value}, expected a finite number; the checkpoint is damaged, or its \
         training diverged"
    )]
    NotFinite {
        /// Path of the source.
        file: String,
        /// Name of the tensor.
        name: String,
        /// Index of the weight in the tensor.
        index: usize,
        /// The weight.
        value: f32,
    },
    /// The new file does not hold the network of the source.
    #[error(
        "{file}: the converted checkpoint does not hold the same network: {reason}; report this as a defect"
    )]
    NotTheSame {
        /// Path of the source.
        file: String,
        /// What differs.
        reason: String,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// Writes the network of `checkpoint` to `out` as safetensors with the text of `config` inside. `family` is the user's choice,
/// where there is one. An existing file is replaced atomically at the end. `on_tensor` is called before each tensor and may
/// cancel the conversion.
///
/// # Errors
/// [`ConvertError`]. The message names file and tensor; no file is left behind.
pub fn convert(
    checkpoint: &Checkpoint,
    config: &Config,
    family: Option<Family>,
    out: &Path,
    format: WeightFormat,
    on_tensor: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<ConversionReport, ConvertError> {
    let origin = checkpoint.origin();
    let architecture = Architecture::resolve(config, checkpoint, family)
        .map_err(|source| ConvertError::Architecture { file: origin.to_owned(), source })?;
    let (weights, skipped) = select(checkpoint, &architecture, format)?;
    let source_sha256 = checkpoint.sha256()?;
    let header = header(&weights, checkpoint, config.text(), &source_sha256);

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
    for (tensor, stored) in &weights {
        if on_tensor().is_break() {
            return Err(ConvertError::Cancelled);
        }
        let data = encode(tensor, origin, *stored)?;
        writer.write_all(&data).map_err(io)?;
        parameters += if *stored == Stored::RowScales { 0 } else { tensor.elements() as u64 };
        bytes += data.len() as u64;
    }
    let file = writer.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync().map_err(io)?;
    verify(file.path(), origin, family, &architecture)?;
    file.publish(out).map_err(io)?;
    let tensors = weights.iter().filter(|(_, stored)| *stored != Stored::RowScales).count();
    Ok(ConversionReport { tensors, parameters, bytes, skipped, source_sha256 })
}

/// Tensors with what becomes of each.
type StoredTensors<'a> = Vec<(TensorView<'a>, Stored)>;

/// The tensors to write, wide numbers first, so that every tensor is aligned for readers that map the file; and the names of
/// those that are not part of the network.
fn select<'a>(
    checkpoint: &'a Checkpoint,
    architecture: &Architecture,
    format: WeightFormat,
) -> Result<(StoredTensors<'a>, Vec<String>), CheckpointError> {
    let mut weights = Vec::new();
    for expected in architecture.tensors() {
        let Some(tensor) = checkpoint.get(&expected.name) else { continue };
        if holds_weights(&tensor) {
            let stored = format.for_tensor(&tensor);
            weights.push((tensor, stored));
            if stored == Stored::ScaledI8 {
                weights.push((tensor, Stored::RowScales));
            }
        } else if !expected.optional {
            return Err(tensor.not_a_weight());
        }
    }
    weights.sort_by(|(a, _): &(TensorView<'_>, _), (b, _)| a.name().cmp(b.name()));
    weights.sort_by_key(|(_, stored)| std::cmp::Reverse(stored.dtype().1));
    let written: std::collections::BTreeSet<&str> = weights.iter().map(|(tensor, _)| tensor.name()).collect();
    let others = checkpoint.names().filter(|name| !written.contains(name)).map(str::to_owned);
    let skipped = others.chain(checkpoint.leftovers().iter().cloned()).collect();
    Ok((weights, skipped))
}

/// Opens the new file and checks that it holds the network of the source.
fn verify(
    path: &Path,
    origin: &str,
    family: Option<Family>,
    architecture: &Architecture,
) -> Result<(), ConvertError> {
    let different = |reason: String| ConvertError::NotTheSame { file: origin.to_owned(), reason };
    let written = Checkpoint::open(path).map_err(|error| different(error.to_string()))?;
    let yaml = written.config_yaml().unwrap_or_default();
    let config = Config::from_yaml(yaml, origin)?;
    match Architecture::resolve(&config, &written, family) {
        Ok(found) if found == *architecture => Ok(()),
        Ok(_) => Err(different("it resolves to another architecture".into())),
        Err(error) => Err(different(error.to_string())),
    }
}

fn encode(tensor: &TensorView<'_>, origin: &str, stored: Stored) -> Result<Vec<u8>, ConvertError> {
    let values = match stored {
        Stored::Complex64 => tensor.to_complex()?,
        Stored::F32 | Stored::F16 | Stored::ScaledI8 | Stored::RowScales => tensor.to_f32()?,
    };
    if let Some((index, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        let (file, name) = (origin.to_owned(), tensor.name().to_owned());
        return Err(ConvertError::NotFinite { file, name, index, value: *value });
    }
    match stored {
        Stored::ScaledI8 => Ok(rows(tensor, &values).flat_map(quantize).collect()),
        Stored::RowScales => Ok(rows(tensor, &values).flat_map(|row| row_scale(row).to_le_bytes()).collect()),
        Stored::F32 | Stored::Complex64 => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Stored::F16 => {
            let limit = f16::MAX.to_f32();
            if let Some(value) = values.iter().find(|value| value.abs() > limit) {
                let (file, name) = (origin.to_owned(), tensor.name().to_owned());
                return Err(ConvertError::BeyondF16 { file, name, value: *value });
            }
            Ok(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect())
        }
    }
}

/// The rows of a matrix: one for each output.
fn rows<'a>(tensor: &TensorView<'_>, values: &'a [f32]) -> std::slice::ChunksExact<'a, f32> {
    let rows = tensor.shape().first().copied().unwrap_or(1).max(1);
    values.chunks_exact((values.len() / rows).max(1))
}

/// The value of one unit of a row of integers, whose largest magnitude becomes 127.
fn row_scale(row: &[f32]) -> f32 {
    row.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 127.0
}

/// A row of values as bytes of i8.
fn quantize(row: &[f32]) -> Vec<u8> {
    let scale = row_scale(row);
    // A row of zeros has the scale 0.
    let unit = |value: &f32| if scale > 0.0 { value / scale } else { 0.0 };
    row.iter().map(|value| unit(value).round_ties_even().clamp(-127.0, 127.0) as i8 as u8).collect()
}

/// The JSON header: metadata, then every tensor in the order it is written.
fn header(
    weights: &[(TensorView<'_>, Stored)],
    checkpoint: &Checkpoint,
    config_yaml: &str,
    sha256: &str,
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
    for (tensor, stored) in weights {
        let ((dtype, width), (name, shape)) = (stored.dtype(), stored.name_and_shape(tensor));
        let end = offset + shape.iter().product::<usize>() * width;
        let info = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [offset, end] });
        // Writing to a string cannot fail.
        _ = write!(text, ",{}:{info}", serde_json::Value::from(name));
        offset = end;
    }
    text.push('}');
    // Padded so that the numbers are aligned for readers that map the file.
    while text.len() % 8 != 0 {
        text.push(' ');
    }
    text
}
