//! Conversion to safetensors: what is in the new file, and that a failure leaves none.

use std::ops::ControlFlow;
use std::path::Path;

use nullsum::model::architecture::Architecture;
use nullsum::model::checkpoint::{Checkpoint, Dtype, Format};
use nullsum::model::config::Config;
use nullsum::model::convert::{self, ConversionReport, ConvertError, WeightFormat};

use crate::build::{Tensor, one, safetensors};

/// A small BS-RoFormer: dim 4, 1 layer, 2 heads of 2, mono, bands of 3 and 6 bins.
const CONFIG: &str = "audio: {chunk_size: 1000}
model: # \"quoted\" – ünïcode
  {dim: 4, depth: 1, heads: 2, dim_head: 2, stereo: false, freqs_per_bands: [3, 6], stft_n_fft: 16, stft_hop_length: 4}
";

fn config() -> Config {
    Config::from_yaml(CONFIG, "small.yaml").unwrap()
}

fn architecture() -> Architecture {
    let mut architecture = Architecture::reference_default();
    (architecture.dim, architecture.depth, architecture.heads, architecture.dim_head) = (4, 1, 2, 2);
    (architecture.ff_inner, architecture.mask_hidden, architecture.channels) = (16, 8, 1);
    architecture.num_stems = 1;
    architecture.bands = vec![(0..3).collect(), (3..9).collect()];
    (architecture.stft.n_fft, architecture.stft.hop_length, architecture.stft.win_length) = (16, 4, 16);
    architecture
}

/// A safetensors file of the network, with f32 weights `(i * 37 % 101) / 64`, and further tensors. `replaced` are other types
/// and bytes for some.
fn file(replaced: &[(&str, &str, Vec<u8>)], further: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (Vec::new(), Vec::new());
    let mut add = |name: &str, dtype: &str, shape: &[usize], bytes: &[u8]| {
        header.push(format!(
            "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{},{}]}}",
            data.len(),
            data.len() + bytes.len()
        ));
        data.extend_from_slice(bytes);
    };
    for tensor in architecture().tensors() {
        let count: usize = tensor.shape.iter().product();
        match replaced.iter().find(|(name, ..)| tensor.name.ends_with(name)) {
            Some((_, dtype, bytes)) => add(&tensor.name, dtype, &tensor.shape, &bytes.repeat(count)),
            None => {
                let values: Vec<u8> =
                    (0..count).flat_map(|i| ((i * 37 % 101) as f32 / 64.0).to_le_bytes()).collect();
                add(&tensor.name, "F32", &tensor.shape, &values);
            }
        }
    }
    further.iter().for_each(|(name, dtype, shape, bytes)| add(name, dtype, shape, bytes));
    safetensors(&format!("{{{}}}", header.join(",")), &data)
}

fn source(replaced: &[(&str, &str, Vec<u8>)]) -> Checkpoint {
    Checkpoint::from_bytes(file(replaced, &[]), "/somewhere/small.ckpt").unwrap()
}

fn convert(source: &Checkpoint, out: &Path, format: WeightFormat) -> Result<ConversionReport, ConvertError> {
    convert::convert(source, &config(), None, out, format, &mut || ControlFlow::Continue(()))
}

fn entries(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn converted_file_holds_weights_and_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let window = [("criterion.window", "F32", &[2][..], vec![0; 8])];
    let source = Checkpoint::from_bytes(file(&[], &window), "/somewhere/small.ckpt").unwrap();
    let parameters: usize = architecture().tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum();
    for (format, width) in [(WeightFormat::F32, 4), (WeightFormat::F16, 2)] {
        let out = folder.path().join("out.safetensors");
        let report = convert(&source, &out, format).unwrap();
        assert_eq!((report.tensors, report.parameters), (architecture().tensors().len(), parameters as u64));
        assert_eq!(report.skipped, ["criterion.window"]);
        assert_eq!(report.bytes, std::fs::metadata(&out).unwrap().len());

        let file = Checkpoint::open(&out).unwrap();
        assert_eq!(file.format(), Format::SafeTensors);
        assert_eq!(file.config_yaml(), Some(CONFIG));
        assert_eq!(file.metadata("format"), Some("pt"));
        assert_eq!(file.metadata("source"), Some("small.ckpt"));
        assert_eq!(file.metadata("source_sha256"), Some(report.source_sha256.as_str()));
        assert_eq!(report.source_sha256.len(), 64);
        for tensor in file.tensors() {
            let original = source.get(tensor.name()).unwrap();
            assert_eq!(tensor.shape(), original.shape());
            // Position frequencies keep their precision.
            let width = if tensor.name().ends_with("rotary_embed.freqs") { 4 } else { width };
            assert_eq!(tensor.bytes().unwrap().unwrap().len(), tensor.elements() * width, "{tensor:?}");
            assert_eq!(tensor.to_f32().unwrap(), original.to_f32().unwrap(), "{tensor:?}");
        }
        assert_eq!(entries(folder.path()), ["out.safetensors"]);
    }
}

#[test]
fn float8_weights_become_f16() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    // 1.5 in both formats.
    let float8 =
        source(&[("to_qkv.weight", "F8_E4M3", vec![0x3c]), ("to_gates.weight", "F8_E5M2", vec![0x3e])]);
    let report = convert(&float8, &out, WeightFormat::F16).unwrap();
    assert_eq!((report.tensors, report.skipped.len()), (architecture().tensors().len(), 0));
    let file = Checkpoint::open(&out).unwrap();
    for part in ["to_qkv", "to_gates"] {
        let tensor = file.get(&format!("layers.0.0.layers.0.0.{part}.weight")).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F16);
        assert!(tensor.to_f32().unwrap().iter().all(|value| *value == 1.5));
    }
}

#[test]
fn weights_that_cannot_be_kept_are_refused_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let f32 = |value: f32| value.to_le_bytes().to_vec();
    for (dtype, bytes, format, parts) in [
        ("F32", f32(65505.0), WeightFormat::F16, ["6.5505e4", "f32"]),
        ("F32", f32(f32::NAN), WeightFormat::F32, ["NaN", "damaged"]),
        ("F32", f32(f32::INFINITY), WeightFormat::F16, ["inf", "damaged"]),
        ("F8_E8M0", vec![1], WeightFormat::F16, ["float8_e8m0fnu", "float32"]),
        ("I8", vec![1], WeightFormat::F32, ["i8", "float32"]),
        ("C64", vec![0; 8], WeightFormat::F32, ["complex64", "float32"]),
        ("C64", vec![0; 8], WeightFormat::F16, ["complex64", "float32"]),
    ] {
        let source = source(&[("to_out.0.weight", dtype, bytes)]);
        let message = convert(&source, &out, format).unwrap_err().to_string();
        assert!(message.contains("to_out.0.weight") && message.contains("small.ckpt"), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert_eq!(entries(folder.path()), [""; 0]);
    }
    let large = source(&[("to_out.0.weight", "F32", f32(65505.0))]);
    assert!(convert(&large, &out, WeightFormat::F32).is_ok());
}

#[test]
fn failure_keeps_existing_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    std::fs::write(&out, b"precious").unwrap();
    let integers =
        Checkpoint::from_bytes(one(Tensor::new("IntStorage", "0", &[6])), "integers.ckpt").unwrap();
    let message = convert(&integers, &out, WeightFormat::F32).unwrap_err().to_string();
    assert!(message.contains("integers.ckpt") && message.contains("not the weights"), "{message}");
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    assert_eq!(entries(folder.path()).len(), 1);
}

#[test]
fn error_names_unwritable_path() {
    let folder = tempfile::tempdir().unwrap();
    for out in [folder.path().to_owned(), folder.path().join("missing/out.safetensors")] {
        let message = convert(&source(&[]), &out, WeightFormat::F32).unwrap_err().to_string();
        assert!(message.contains(&out.display().to_string()), "{message}");
    }
    assert_eq!(entries(folder.path()), [""; 0]);
}

#[test]
fn cancellation_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut left = 3;
    let mut stop = || {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let out = folder.path().join("out.safetensors");
    let error =
        convert::convert(&source(&[]), &config(), None, &out, WeightFormat::F32, &mut stop).unwrap_err();
    assert!(matches!(error, ConvertError::Cancelled), "{error}");
    assert_eq!((left, entries(folder.path())), (0, Vec::new()));
}

#[test]
fn int8_keeps_each_row_within_half_a_unit_and_loads_without_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("small.safetensors");
    let source = source(&[]);
    let report = convert(&source, &out, WeightFormat::Int8).unwrap();
    assert_eq!(report.tensors, source.len());
    let converted = Checkpoint::open(&out).unwrap();
    assert!(converted.names().eq(source.names()), "scales are no tensors of the network");
    assert_eq!(converted.config_yaml(), Some(CONFIG));
    let mut matrices = 0;
    for tensor in source.tensors() {
        let found = converted.get(tensor.name()).unwrap();
        let (want, got) = (tensor.to_f32().unwrap(), found.to_f32().unwrap());
        if tensor.shape().len() < 2 {
            assert_eq!((found.dtype(), want), (Dtype::F32, got), "{}", tensor.name());
            continue;
        }
        matrices += 1;
        assert_eq!(found.dtype(), Dtype::ScaledI8, "{}", tensor.name());
        let row = want.len() / tensor.shape()[0];
        for (want, got) in want.chunks_exact(row).zip(got.chunks_exact(row)) {
            let unit = want.iter().fold(0.0f32, |most, value| most.max(value.abs())) / 127.0;
            let near = want.iter().zip(got).all(|(want, got)| (want - got).abs() <= 0.5001 * unit);
            assert!(near, "{}: {want:?}, not {got:?}", tensor.name());
        }
    }
    assert!(matrices > 5);
    // Converting back gives the integers times their scales, and converting again changes nothing.
    let [wide, again] = ["wide.safetensors", "again.safetensors"].map(|name| folder.path().join(name));
    convert(&converted, &wide, WeightFormat::F32).unwrap();
    convert(&Checkpoint::open(&wide).unwrap(), &again, WeightFormat::Int8).unwrap();
    let again = Checkpoint::open(&again).unwrap();
    for tensor in converted.tensors() {
        let (first, second) = (tensor.to_f32().unwrap(), again.get(tensor.name()).unwrap().to_f32().unwrap());
        let near = first.iter().zip(&second).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs());
        assert!(near, "{}", tensor.name());
    }
}

#[test]
fn scales_that_do_not_belong_to_their_integers_are_refused() {
    let integers = |rows: usize| vec![1u8; 4 * rows];
    let scales = |count: usize| [0.5f32.to_le_bytes(); 8][..count].concat();
    for (dtype, name, shape, scales, expected) in [
        ("I8", "extra.weight.row_scales", 3, scales(3), "expected 2 scales"),
        ("I8", "other.weight.row_scales", 2, scales(2), "no tensor `other.weight`"),
        ("U8", "extra.weight.row_scales", 2, scales(2), "8-bit integers, found u8"),
    ] {
        let further =
            [("extra.weight", dtype, &[2, 4][..], integers(2)), (name, "F32", &[shape][..], scales)];
        let error = Checkpoint::from_bytes(file(&[], &further), "bad.safetensors").unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("bad.safetensors"), "{error}");
    }
}
