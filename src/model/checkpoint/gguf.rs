//! Reading GGUF files of BSRoformer.cpp (`corvo007/BSRoformer.cpp`, `scripts/convert_to_gguf.py`), versions 2 and 3.
//!
//! Its names are those of llama.cpp. They are turned back into the names of the references, by a table. Numbers are f32, f16,
//! bf16, or 8-bit integers in blocks of 32 with a scale (`q8_0`). Files with fewer bits are refused when a weight is read. The
//! hyperparameters become a YAML, which is used where there is no other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::bytes::CheckpointBytes;
use super::dtype::{Q8_BLOCK, Q8_BLOCK_BYTES};
use super::tensor::{TensorEntry, TensorLocation};
use super::{CheckpointError, ContainerContents, Dtype, safetensors};

/// First bytes of the file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// Largest accepted header. Language models with their vocabularies have more; networks of this kind have some 100 KiB.
const MAX_HEADER_BYTES: u64 = 32 << 20;
/// Most tensors and most values.
const MAX_ENTRIES: u64 = 1 << 16;
/// Most nested arrays.
const MAX_DEPTH: usize = 4;
/// Most dimensions, as in ggml.
const MAX_DIMS: u32 = 4;
/// Tensors start at multiples of this many bytes, if the file does not state another number.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Tables of the mel bands, which are computed here.
const BUFFERS: &str = "buffer_";

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    /// An array, which no hyperparameter is.
    Array,
}

/// Reads the header, and where the tensors lie.
pub(super) fn read(
    bytes: &CheckpointBytes,
    wanted: Option<&str>,
) -> Result<ContainerContents, CheckpointError> {
    let header = bytes.range(0..bytes.len().min(MAX_HEADER_BYTES))?;
    let mut reader = Reader { bytes: &header, at: MAGIC.len() };
    let damaged = |reason: String| CheckpointError::Damaged {
        file: bytes.origin().to_owned(),
        container: "GGUF header",
        reason,
    };
    let version = reader.u32().map_err(damaged)?;
    if !(2..=3).contains(&version) {
        return Err(CheckpointError::Unsupported {
            file: bytes.origin().to_owned(),
            found: format!("a GGUF file of version {version}, or one for big-endian machines"),
            advice: "convert the checkpoint again with a current BSRoformer.cpp, or use the checkpoint itself",
        });
    }
    let (values, listed) = read_header(&mut reader).map_err(damaged)?;
    let architecture = match values.get("general.architecture") {
        Some(Value::Text(name)) => name.clone(),
        _ => String::new(),
    };
    if !["bs_roformer", "mel_band_roformer", "bs", "mel_band"].contains(&architecture.as_str()) {
        return Err(CheckpointError::NoWeights {
            file: bytes.origin().to_owned(),
            found: format!("this GGUF file holds a network of the kind {architecture:.40?}, not a RoFormer"),
        });
    }
    let alignment = match values.get("general.alignment") {
        Some(Value::Integer(alignment)) => u64::try_from(*alignment).unwrap_or(0),
        _ => DEFAULT_ALIGNMENT,
    };
    if !alignment.is_power_of_two() || alignment > 1 << 16 {
        return Err(damaged(format!("tensors are aligned to {alignment} bytes, expected a power of two")));
    }
    let data_at = (reader.at as u64).next_multiple_of(alignment);
    let mut tensors = Vec::new();
    let mut skipped = Vec::new();
    for tensor in listed {
        if tensor.name.starts_with(BUFFERS) {
            skipped.push(super::printable(&tensor.name));
            continue;
        }
        let name = reference_name(&tensor.name).unwrap_or_else(|| tensor.name.clone());
        tensors.push((name, entry(&tensor, data_at, bytes)?));
    }
    if tensors.is_empty() {
        let found = "the GGUF header lists no weights".to_owned();
        return Err(CheckpointError::NoWeights { file: bytes.origin().to_owned(), found });
    }
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(damaged(format!("two tensors are called {:.100?}", pair[0].0)));
    }
    let mut contents = safetensors::choose(tensors, wanted, bytes.origin())?;
    contents.skipped = skipped;
    contents.derived_config = Some(config(&values));
    Ok(contents)
}

/// A tensor as the header lists it.
struct ListedTensor {
    name: String,
    /// Innermost dimension first.
    dims: Vec<u64>,
    kind: u32,
    offset: u64,
}

fn read_header(reader: &mut Reader) -> Result<(BTreeMap<String, Value>, Vec<ListedTensor>), String> {
    let (tensors, count) = (reader.u64()?, reader.u64()?);
    if tensors > MAX_ENTRIES || count > MAX_ENTRIES {
        return Err(format!(
            "it claims {tensors} tensors and {count} values, expected at most {MAX_ENTRIES}"
        ));
    }
    let mut values = BTreeMap::new();
    for _ in 0..count {
        let key = reader.text()?;
        let kind = reader.u32()?;
        values.insert(key, reader.value(kind, 0)?);
    }
    let mut listed = Vec::new();
    for _ in 0..tensors {
        let name = reader.text()?;
        let count = reader.u32()?;
        if count > MAX_DIMS {
            return Err(format!("a tensor has {count} dimensions, expected at most {MAX_DIMS}"));
        }
        let dims = (0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?;
        listed.push(ListedTensor { name, dims, kind: reader.u32()?, offset: reader.u64()? });
    }
    Ok((values, listed))
}

/// The place of a tensor, checked against the length of the file.
fn entry(
    tensor: &ListedTensor,
    data_at: u64,
    bytes: &CheckpointBytes,
) -> Result<TensorEntry, CheckpointError> {
    let error = |reason: String| CheckpointError::Tensor {
        file: bytes.origin().to_owned(),
        name: super::printable(&tensor.name),
        reason,
    };
    let dtype = dtype(tensor.kind);
    let elements = tensor.dims.iter().try_fold(1_u64, |product, dim| product.checked_mul(*dim));
    let elements = elements.ok_or_else(|| error(format!("its shape {:?} overflows", tensor.dims)))?;
    let length = match dtype {
        Dtype::Q8_0 => {
            // Rows are quantised, each in whole blocks.
            if tensor.dims.first().is_none_or(|row| row % Q8_BLOCK as u64 != 0) {
                return Err(error(format!("its rows are no multiple of {Q8_BLOCK}: {:?}", tensor.dims)));
            }
            elements / Q8_BLOCK as u64 * Q8_BLOCK_BYTES as u64
        }
        dtype => elements.saturating_mul(dtype.least_bytes() as u64),
    };
    let start = data_at.checked_add(tensor.offset);
    // Numbers of other types are refused when they are read; their length is unknown.
    let is_known = !matches!(dtype, Dtype::Other(_));
    let end = start.and_then(|start| start.checked_add(if is_known { length } else { 0 }));
    match (start, end) {
        (Some(start), Some(end)) if end <= bytes.len() => Ok(TensorEntry {
            dtype,
            shape: tensor.dims.iter().rev().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX)).collect(),
            strides: None,
            location: TensorLocation::File { range: start..end, member: None },
        }),
        _ => Err(CheckpointError::Truncated {
            file: bytes.origin().to_owned(),
            what: format!("the tensor `{}`", super::printable(&tensor.name)),
            needed: length,
            available: bytes.len().saturating_sub(start.unwrap_or(u64::MAX)),
        }),
    }
}

/// Number types of ggml.
fn dtype(kind: u32) -> Dtype {
    match kind {
        0 => Dtype::F32,
        1 => Dtype::F16,
        8 => Dtype::Q8_0,
        24 => Dtype::I8,
        25 => Dtype::I16,
        26 => Dtype::I32,
        27 => Dtype::I64,
        28 => Dtype::F64,
        30 => Dtype::Bf16,
        2 => Dtype::Other("q4_0"),
        3 => Dtype::Other("q4_1"),
        6 => Dtype::Other("q5_0"),
        7 => Dtype::Other("q5_1"),
        _ => Dtype::Other("an integer of fewer than 8 bits"),
    }
}

/// The name in the references of a tensor of BSRoformer.cpp; `None` for names that are not in the table.
fn reference_name(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    // Norms have one weight, which the references call gamma.
    let gamma = |suffix: &str| if suffix == "weight" { "gamma" } else { "beta" }.to_owned();
    Some(match parts[..] {
        ["final_norm", suffix] => format!("final_norm.{}", gamma(suffix)),
        ["final_norm_gamma"] => "final_norm.gamma".to_owned(),
        ["band_split", band, "norm", suffix] => {
            format!("band_split.to_features.{band}.0.{}", gamma(suffix))
        }
        ["band_split", band, "linear", suffix] => format!("band_split.to_features.{band}.1.{suffix}"),
        ["mask_est", stem, "freq", band, "mlp", layer, suffix] => {
            format!("mask_estimators.{stem}.to_freqs.{band}.0.{layer}.{suffix}")
        }
        ["blk", layer, module, suffix] => {
            let (axis, module) = match module.split_once('_')? {
                ("time", module) => (0, module),
                ("freq", module) => (1, module),
                _ => return None,
            };
            let block = format!("layers.{layer}.{axis}");
            match module {
                "norm" => format!("{block}.norm.{}", gamma(suffix)),
                "attn_norm" => format!("{block}.layers.0.0.norm.{}", gamma(suffix)),
                "attn_qkv" => format!("{block}.layers.0.0.to_qkv.{suffix}"),
                "attn_gate" => format!("{block}.layers.0.0.to_gates.{suffix}"),
                "attn_out" => format!("{block}.layers.0.0.to_out.0.{suffix}"),
                "ff_norm" => format!("{block}.layers.0.1.net.0.{}", gamma(suffix)),
                "ff_in" => format!("{block}.layers.0.1.net.1.{suffix}"),
                "ff_out" => format!("{block}.layers.0.1.net.4.{suffix}"),
                _ => return None,
            }
        }
        // Constants: all dots became underscores.
        [flat] => {
            let block = flat.strip_prefix("layers_")?.strip_suffix("_rotary_embed_freqs")?;
            let [layer, axis, "layers", depth, "0"] = block.split('_').collect::<Vec<_>>()[..] else {
                return None;
            };
            format!("layers.{layer}.{axis}.layers.{depth}.0.rotary_embed.freqs")
        }
        _ => return None,
    })
}

/// The hyperparameters as a YAML. Names of stems are not among them.
fn config(values: &BTreeMap<String, Value>) -> String {
    let (mut model, mut audio, mut inference) = (String::new(), String::new(), String::new());
    for (key, value) in values {
        let Some((owner, key)) = key.split_once('.') else { continue };
        let is_plain =
            key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if owner == "general" || !is_plain {
            continue;
        }
        let text = match value {
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Text(_) | Value::Array => continue,
        };
        let (section, key) = match key {
            "default_chunk_size" => (&mut audio, "chunk_size"),
            "default_num_overlap" if text == "0" => continue,
            "default_num_overlap" => (&mut inference, "num_overlap"),
            key => (&mut model, key),
        };
        // Writing to a text cannot fail.
        let _ = writeln!(section, "  {key}: {text}");
    }
    [("model", model), ("audio", audio), ("inference", inference)]
        .into_iter()
        .filter(|(_, lines)| !lines.is_empty())
        .map(|(section, lines)| format!("{section}:\n{lines}"))
        .collect()
}

/// Reads the header front to back. Errors are texts.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let found = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let bytes = *found.ok_or_else(|| format!("it ends at byte {}, in the middle of a value", self.at))?;
        self.at += N;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.u64()?;
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let bytes = end.and_then(|end| self.bytes.get(self.at..end));
        let bytes = bytes.ok_or_else(|| format!("a text at byte {} claims {length} bytes", self.at))?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.at += bytes.len();
        Ok(text)
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 if depth < MAX_DEPTH => {
                let (kind, count) = (self.u32()?, self.u64()?);
                for _ in 0..count {
                    // Every element takes a byte at least, so the loop ends with the header.
                    self.value(kind, depth + 1)?;
                }
                Value::Array
            }
            9 => return Err(format!("arrays are nested deeper than {MAX_DEPTH}")),
            10 => Value::Integer(i64::try_from(self.u64()?).unwrap_or(i64::MAX)),
            11 => Value::Integer(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            kind => return Err(format!("a value has the unknown type {kind}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::architecture::Architecture;

    /// What the converter makes of a name, for the names that it knows.
    fn converted_name(name: &str) -> String {
        let parts: Vec<&str> = name.split('.').collect();
        let suffix = match parts[parts.len() - 1] {
            "gamma" => "weight",
            "beta" => "bias",
            suffix => suffix,
        };
        match parts[..] {
            ["layers", layer, axis, ref rest @ ..] => {
                let axis = if axis == "0" { "time" } else { "freq" };
                let module = match rest {
                    ["norm", _] => "norm",
                    ["layers", _, "0", "norm", _] => "attn_norm",
                    ["layers", _, "0", "to_qkv", _] => "attn_qkv",
                    ["layers", _, "0", "to_gates", _] => "attn_gate",
                    ["layers", _, "0", "to_out", _, _] => "attn_out",
                    ["layers", _, "1", "net", "0", _] => "ff_norm",
                    ["layers", _, "1", "net", "1", _] => "ff_in",
                    ["layers", _, "1", "net", "4", _] => "ff_out",
                    _ => return name.replace('.', "_"),
                };
                format!("blk.{layer}.{axis}_{module}.{suffix}")
            }
            ["band_split", _, band, "0", _] => format!("band_split.{band}.norm.{suffix}"),
            ["band_split", _, band, _, _] => format!("band_split.{band}.linear.{suffix}"),
            ["mask_estimators", stem, _, band, _, layer, _] => {
                format!("mask_est.{stem}.freq.{band}.mlp.{layer}.{suffix}")
            }
            ["final_norm", _] => format!("final_norm.{suffix}"),
            _ => name.replace('.', "_"),
        }
    }

    #[test]
    fn all_names_of_a_network_come_back() {
        let tensors = Architecture::reference_default().tensors();
        assert!(tensors.len() > 100);
        for tensor in tensors {
            assert_eq!(reference_name(&converted_name(&tensor.name)).as_deref(), Some(&*tensor.name));
        }
        assert_eq!(reference_name("final_norm_gamma").as_deref(), Some("final_norm.gamma"));
        for unknown in ["blk.0.time.weight", "output.weight", "blk.0.width_norm.weight", ""] {
            assert_eq!(reference_name(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn hyperparameters_become_a_yaml() {
        let values = BTreeMap::from([
            ("general.architecture".to_owned(), Value::Text("bs_roformer".into())),
            ("bs_roformer.dim".to_owned(), Value::Integer(384)),
            ("bs_roformer.stereo".to_owned(), Value::Bool(true)),
            ("bs_roformer.default_chunk_size".to_owned(), Value::Integer(352_800)),
            ("bs_roformer.default_num_overlap".to_owned(), Value::Integer(2)),
            ("bs_roformer.x: 1\nother".to_owned(), Value::Integer(1)),
        ]);
        assert_eq!(
            config(&values),
            "model:\n  dim: 384\n  stereo: true\naudio:\n  chunk_size: 352800\ninference:\n  num_overlap: 2\n"
        );
    }
}
