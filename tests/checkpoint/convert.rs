//! Conversion to safetensors: what is in the new file, and that a failure leaves none.

use std::ops::ControlFlow;
use std::path::Path;

use nullsum::model::checkpoint::{Checkpoint, Dtype, Format};
use nullsum::model::convert::{self, ConversionReport, ConvertError, WeightFormat};

use crate::build::{Pickle, Tensor, archive, one, six};

const CONFIG: &str = "audio:\n  chunk_size: 1000\nmodel:\n  dim: 16 # \"quoted\" – ünïcode\n";

fn mixed() -> Checkpoint {
    let tensors = [
        ("module.a", Tensor::new("FloatStorage", "0", &[2, 3])),
        ("module.b", Tensor::new("FloatStorage", "0", &[6]).with(0, &[3, 2], &[1, 3])),
        ("module.half", Tensor::new("HalfStorage", "1", &[2])),
        ("module.scalar", Tensor::new("DoubleStorage", "2", &[])),
        ("module.steps", Tensor::new("LongStorage", "2", &[1])),
    ];
    let storages = [six(), ("1", vec![0x00, 0x3c, 0x00, 0xc0]), ("2", 2.5_f64.to_le_bytes().to_vec())];
    let bytes = archive(&Pickle::new().dict(&tensors).stop(), &storages);
    Checkpoint::from_bytes(bytes, "/somewhere/mixed.ckpt").unwrap()
}

fn convert(
    source: &Checkpoint,
    config: &str,
    out: &Path,
    precision: WeightFormat,
) -> Result<ConversionReport, ConvertError> {
    convert::convert(source, config, out, precision, &mut || ControlFlow::Continue(()))
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
    let source = mixed();
    for (precision, dtype, width) in [(WeightFormat::F32, Dtype::F32, 4), (WeightFormat::F16, Dtype::F16, 2)]
    {
        let out = folder.path().join("out.safetensors");
        let report = convert(&source, CONFIG, &out, precision).unwrap();
        assert_eq!((report.tensors, report.parameters), (4, 15));
        assert_eq!(report.skipped, ["steps"]);
        assert_eq!(report.bytes, std::fs::metadata(&out).unwrap().len());

        let file = Checkpoint::open(&out).unwrap();
        assert_eq!(file.format(), Format::SafeTensors);
        assert_eq!(file.config_yaml(), Some(CONFIG));
        assert_eq!(file.metadata("format"), Some("pt"));
        assert_eq!(file.metadata("source"), Some("mixed.ckpt"));
        assert_eq!(file.metadata("source_sha256"), Some(report.source_sha256.as_str()));
        assert_eq!(report.source_sha256.len(), 64);
        assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b", "half", "scalar"]);
        for tensor in file.tensors() {
            let original = source.get(tensor.name()).unwrap();
            assert_eq!(tensor.dtype(), dtype);
            assert_eq!(tensor.shape(), original.shape());
            assert_eq!(tensor.bytes().unwrap().len(), tensor.elements() * width);
            assert_eq!(tensor.to_f32().unwrap(), original.to_f32().unwrap(), "{tensor:?}");
        }
        assert_eq!(entries(folder.path()), ["out.safetensors"]);
    }
}

#[test]
fn position_frequencies_keep_their_precision() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let (freqs, weights) = ([1.0_f32, 0.562_341_3, 0.316_227_8], [0.1_f32, 0.2, 0.3]);
    let storages =
        [("0", freqs.map(f32::to_le_bytes).concat()), ("1", weights.map(f32::to_le_bytes).concat())];
    let tensors = [
        ("layers.0.0.layers.0.0.rotary_embed.freqs", Tensor::new("FloatStorage", "0", &[3])),
        ("a.weight", Tensor::new("FloatStorage", "1", &[3])),
    ];
    let source =
        Checkpoint::from_bytes(archive(&Pickle::new().dict(&tensors).stop(), &storages), "a.ckpt").unwrap();
    convert(&source, CONFIG, &out, WeightFormat::F16).unwrap();
    let file = Checkpoint::open(&out).unwrap();
    assert_eq!(file.get(tensors[0].0).unwrap().to_f32().unwrap(), freqs);
    assert_eq!(file.get("a.weight").unwrap().dtype(), Dtype::F16);
}

#[test]
fn weight_beyond_f16_is_refused_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let large = ("0", [1.0_f32, 65505.0].map(f32::to_le_bytes).concat());
    let index = Pickle::new().dict(&[("fine.w", Tensor::new("FloatStorage", "0", &[2]))]).stop();
    let source = Checkpoint::from_bytes(archive(&index, &[large]), "big.ckpt").unwrap();
    let message = convert(&source, CONFIG, &out, WeightFormat::F16).unwrap_err().to_string();
    assert!(
        message.contains("fine.w") && message.contains("6.5505e4") && message.contains("f32"),
        "{message}"
    );
    assert_eq!(entries(folder.path()), [""; 0]);
    assert!(convert(&source, CONFIG, &out, WeightFormat::F32).is_ok());
}

#[test]
fn failure_keeps_existing_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    std::fs::write(&out, b"precious").unwrap();
    let message = convert(&mixed(), "model: [", &out, WeightFormat::F32).unwrap_err().to_string();
    assert!(message.contains("configuration"), "{message}");
    let integers = one(Tensor::new("IntStorage", "0", &[6]));
    let integers = Checkpoint::from_bytes(integers, "integers.ckpt").unwrap();
    let message = convert(&integers, CONFIG, &out, WeightFormat::F32).unwrap_err().to_string();
    assert!(message.contains("integers.ckpt") && message.contains("no weights"), "{message}");
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    assert_eq!(entries(folder.path()).len(), 1);
}

#[test]
fn error_names_unwritable_path() {
    let folder = tempfile::tempdir().unwrap();
    for out in [folder.path().to_owned(), folder.path().join("missing/out.safetensors")] {
        let message = convert(&mixed(), CONFIG, &out, WeightFormat::F32).unwrap_err().to_string();
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
    let error = convert::convert(&mixed(), CONFIG, &out, WeightFormat::F32, &mut stop).unwrap_err();
    assert!(matches!(error, ConvertError::Cancelled), "{error}");
    assert_eq!((left, entries(folder.path())), (0, Vec::new()));
}
