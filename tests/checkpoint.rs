//! What checkpoints are read as. Those that must not be read are in `checkpoint/refused.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in helpers as well")]

#[path = "checkpoint/build.rs"]
mod build;
#[path = "checkpoint/convert.rs"]
mod convert;
#[path = "checkpoint/gguf.rs"]
mod gguf;
#[path = "checkpoint/mlx.rs"]
mod mlx;
#[path = "checkpoint/refused.rs"]
mod refused;
#[path = "checkpoint/saved.rs"]
mod saved;

use std::path::Path;

use build::{Pickle, Tensor, archive, archive_with, one, safetensors, six};
use nullsum::model::checkpoint::{Checkpoint, Dtype, Format};
use zip::CompressionMethod;

fn read(bytes: Vec<u8>) -> Checkpoint {
    Checkpoint::from_bytes(bytes, "test.ckpt").unwrap()
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    checkpoint.get(name).unwrap_or_else(|| panic!("no {name}")).to_f32().unwrap()
}

/// Written by `tests/fixtures/torch_checkpoint.py` with PyTorch 2.15.
#[test]
fn pytorch_file_is_read_completely() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch.ckpt");
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.format(), Format::Torch);
    assert_eq!(checkpoint.wrapper(), Some("state_dict"));
    assert_eq!(checkpoint.prefix(), "module.model.");
    let shapes: Vec<String> = checkpoint.tensors().map(|tensor| format!("{tensor:?}")).collect();
    assert_eq!(
        shapes,
        [
            "count: i64 []",
            "double: f64 [1, 2]",
            "empty: f32 [0, 4]",
            "expanded: f32 [2, 3]",
            "half.bf: bf16 [3]",
            "half.f: f16 [3]",
            "mask: bool [2]",
            "parameter: f32 [2, 2]",
            "slice: f32 [4]",
            "steps: f32 [5]",
            "turned: f32 [4, 3]",
            "weight: f32 [3, 4]",
        ]
    );
    let counted: Vec<f32> = (0..12).map(|i| i as f32).collect();
    assert_eq!(values(&checkpoint, "weight"), counted);
    assert_eq!(values(&checkpoint, "turned"), [0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]);
    assert_eq!(values(&checkpoint, "slice"), [3., 4., 5., 6.]);
    assert_eq!(values(&checkpoint, "steps"), [1., 3., 5., 7., 9.]);
    assert_eq!(values(&checkpoint, "expanded"), [7.; 6]);
    assert_eq!(values(&checkpoint, "half.f"), [1.5, -2., 65504.]);
    assert_eq!(values(&checkpoint, "half.bf"), [1.5, -2., f32::from_bits(0x7f62_0000)]);
    assert_eq!(values(&checkpoint, "double"), [1.25, 2.5]);
    assert_eq!(values(&checkpoint, "parameter"), [1.; 4]);
    assert_eq!(values(&checkpoint, "count"), [5.]);
    assert_eq!(values(&checkpoint, "mask"), [1., 0.]);
    assert!(values(&checkpoint, "empty").is_empty());
    assert!(checkpoint.get("weight").unwrap().bytes().unwrap().is_some());
    assert!(checkpoint.get("turned").unwrap().bytes().unwrap().is_none());
}

#[test]
fn strides_and_offsets_are_followed() {
    let cases: [(Tensor, Vec<f32>); 5] = [
        (Tensor::new("FloatStorage", "0", &[2, 3]), vec![0.5, 1.5, 2.5, 3.5, 4.5, 5.5]),
        (
            Tensor::new("FloatStorage", "0", &[6]).with(0, &[3, 2], &[1, 3]),
            vec![0.5, 3.5, 1.5, 4.5, 2.5, 5.5],
        ),
        (Tensor::new("FloatStorage", "0", &[6]).with(4, &[2], &[1]), vec![4.5, 5.5]),
        (Tensor::new("FloatStorage", "0", &[6]).with(5, &[], &[]), vec![5.5]),
        // An axis of length one may have any stride.
        (Tensor::new("FloatStorage", "0", &[6]).with(0, &[1, 2], &[999, 1]), vec![0.5, 1.5]),
    ];
    for (tensor, expected) in cases {
        let shape = tensor.shape.clone();
        assert_eq!(values(&read(one(tensor)), "w"), expected, "{shape:?}");
    }
}

#[test]
fn tensors_share_a_storage() {
    let whole = Tensor::new("FloatStorage", "0", &[6]);
    let part = whole.clone().with(2, &[2], &[1]);
    let checkpoint = read(archive(&Pickle::new().dict(&[("a", whole), ("b", part)]).stop(), &[six()]));
    assert_eq!(values(&checkpoint, "b"), [2.5, 3.5]);
    assert_eq!(checkpoint.len(), 2);
}

#[test]
fn tied_half_precision_weights_are_accepted() {
    let large = Tensor::new("HalfStorage", "0", &[4 << 20]);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| (name, large.clone()));
    let file = archive(&Pickle::new().dict(&names).stop(), &[("0", vec![0; 8 << 20])]);
    assert_eq!(read(file).len(), 8);
}

#[test]
fn long_training_history_is_skipped() {
    let losses = [&b"("[..], &b"G\x3f\xf0\0\0\0\0\0\0".repeat(1000), b"e"].concat();
    let index = Pickle::new()
        .op(b"}(")
        .text("state_dict")
        .dict(&[("w", Tensor::new("FloatStorage", "0", &[6]))])
        .text("all_losses")
        .op(b"]")
        .op(&losses.repeat(2200))
        .op(b"u")
        .stop();
    assert_eq!(read(archive(&index, &[six()])).names().collect::<Vec<_>>(), ["w"]);
}

#[test]
fn compressed_archives_are_decompressed() {
    let index = Pickle::new().dict(&[("w", Tensor::new("FloatStorage", "0", &[6]))]).stop();
    let file = archive_with(&index, &[six()], &[], CompressionMethod::Deflated);
    assert_eq!(values(&read(file), "w"), [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]);
}

#[test]
fn weights_are_found_under_every_wrapper() {
    let weights =
        [("a", Tensor::new("FloatStorage", "0", &[2])), ("b", Tensor::new("FloatStorage", "0", &[2]))];
    for wrapper in
        ["state_dict", "state", "model", "model_state_dict", "ema", "ema_model", "ema_state_dict", "params"]
    {
        let index = Pickle::new().op(b"}(").text(wrapper).dict(&weights).text("epoch").int(3).op(b"u").stop();
        let checkpoint = read(archive(&index, &[six()]));
        assert_eq!(checkpoint.wrapper(), Some(wrapper));
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"], "{wrapper}");
    }
}

#[test]
fn nested_wrappers_win_over_stray_tensors() {
    let tensor = Tensor::new("FloatStorage", "0", &[2]);
    let weights = [("a", tensor.clone()), ("b", tensor.clone())];
    let index = Pickle::new()
        .op(b"}(")
        .text("best_loss")
        .tensor(&tensor)
        .text("state")
        .op(b"}(")
        .text("state_dict")
        .dict(&weights)
        .op(b"u")
        .op(b"u")
        .stop();
    let checkpoint = read(archive(&index, &[six()]));
    assert_eq!(checkpoint.wrapper(), Some("state.state_dict"));
    assert_eq!(checkpoint.len(), 2);
}

#[test]
fn averaged_weights_are_used_only_when_alone() {
    let tensor = Tensor::new("FloatStorage", "0", &[2]);
    let (one, two) = (vec![("a", tensor.clone())], vec![("a", tensor.clone()), ("b", tensor)]);
    let index = Pickle::new().op(b"}(").text("ema").dict(&two).text("model").dict(&one).op(b"u").stop();
    assert_eq!(read(archive(&index, &[six()])).wrapper(), Some("model"));
}

#[test]
fn average_wins_over_a_few_stray_tensors() {
    let tensor = || Tensor::new("FloatStorage", "0", &[2]);
    let weights = ["a", "b", "c"].map(|name| (name, tensor()));
    let index =
        Pickle::new().op(b"}(").text("ema").dict(&weights).text("step").tensor(&tensor()).op(b"u").stop();
    assert_eq!(read(archive(&index, &[six()])).wrapper(), Some("ema"));
}

#[test]
fn roformer_is_found_beside_other_networks() {
    let tensor = || Tensor::new("FloatStorage", "0", &[2]);
    let others = ["a", "b", "c"].map(|name| (name, tensor()));
    let roformer = [("net.band_split.to_features.0.1.weight", tensor())];
    for (wrapper, other) in
        [("ema", "state_dict"), ("generator", "state_dict"), ("generator", "discriminator")]
    {
        let index = Pickle::new().op(b"}(").text(other).dict(&others).text(wrapper).dict(&roformer);
        let index = index.text("step").tensor(&tensor()).op(b"u").stop();
        assert_eq!(read(archive(&index, &[six()])).wrapper(), Some(wrapper), "{other}");
    }
    // The same tensors under two keys are one network.
    let index = Pickle::new().op(b"}(").text("ema").dict(&roformer).text("model").dict(&roformer).op(b"u");
    let checkpoint = read(archive(&index.stop(), &[six()]));
    assert_eq!(
        (checkpoint.wrapper(), checkpoint.alternatives().len()),
        (Some("model"), 0),
        "the same tensors"
    );
}

#[test]
fn unknown_wrapper_is_used_when_nothing_else_holds_tensors() {
    let weights = [("a", Tensor::new("FloatStorage", "0", &[2]))];
    let index = Pickle::new().op(b"}(").text("generator").dict(&weights).op(b"u").stop();
    assert_eq!(read(archive(&index, &[six()])).wrapper(), Some("generator"));
}

#[test]
fn shared_prefixes_are_removed() {
    let tensor = || Tensor::new("FloatStorage", "0", &[2]);
    let cases: [(&[&str], &str, &[&str]); 7] = [
        (&["module.a", "module.b.c"], "module.", &["a", "b.c"]),
        (&["module.a", "module.b", "n_averaged"], "module.", &["a", "b"]),
        (&["ema_model.a", "initted", "step", "online_model.a"], "online_model.", &["a"]),
        (&["ema_model.a", "initted", "step"], "ema_model.", &["a"]),
        (&["_orig_mod.module.model.a", "_orig_mod.module.model.b"], "_orig_mod.module.model.", &["a", "b"]),
        (&["module.a", "b"], "", &["b", "module.a"]),
        (&["model.", "model.a"], "", &["model.", "model.a"]),
    ];
    for (names, prefix, expected) in cases {
        let tensors: Vec<_> = names.iter().map(|name| (*name, tensor())).collect();
        let checkpoint = read(archive(&Pickle::new().dict(&tensors).stop(), &[six()]));
        assert_eq!(checkpoint.prefix(), prefix);
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn objects_beside_weights_are_listed_as_skipped() {
    let index = Pickle::new()
        .op(b"}(")
        .text("w")
        .tensor(&Tensor::new("FloatStorage", "0", &[6]))
        .text("args")
        .global("argparse", "Namespace")
        .op(b")R}(")
        .text("lr")
        .int(1)
        .op(b"ub")
        .text("mean")
        .global("numpy.core.multiarray", "scalar")
        .op(b"(")
        .text("f8")
        .op(b"C\x01xtR")
        .op(b"u")
        .stop();
    let checkpoint = read(archive(&index, &[six()]));
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["w"]);
    assert_eq!(checkpoint.skipped(), ["args", "mean"]);
}

#[test]
fn parameters_with_attributes_are_tensors() {
    let tensor = Tensor::new("FloatStorage", "0", &[6]);
    let parameter = Pickle::new()
        .op(b"}(")
        .text("w")
        .global("torch._utils", "_rebuild_parameter_with_state")
        .op(b"(")
        .tensor(&tensor)
        .op(b"\x89")
        .global("collections", "OrderedDict")
        .op(b")R}tRu")
        .stop();
    assert_eq!(values(&read(archive(&parameter, &[six()])), "w").len(), 6);
    let subclass = Pickle::new()
        .op(b"}(")
        .text("w")
        .global("torch._tensor", "_rebuild_from_type_v2")
        .op(b"(")
        .global("torch._utils", "_rebuild_tensor_v2")
        .global("torch", "Tensor")
        .op(b"(")
        .storage("FloatStorage", "0", 6)
        .int(0)
        .ints(&[6])
        .ints(&[1])
        .op(b"t}tRu")
        .stop();
    assert_eq!(values(&read(archive(&subclass, &[six()])), "w").len(), 6);
}

#[test]
fn later_values_of_a_key_replace_earlier_ones() {
    let tensor = Tensor::new("FloatStorage", "0", &[6]);
    let index = Pickle::new().dict(&[("w", tensor.clone()), ("w", tensor.with(1, &[1], &[1]))]).stop();
    assert_eq!(values(&read(archive(&index, &[six()])), "w"), [1.5]);
}

#[test]
fn complex_tensors_are_listed_and_refused_on_conversion() {
    let index = Pickle::new().dict(&[("c", Tensor::new("ComplexFloatStorage", "0", &[3]))]).stop();
    let checkpoint = read(archive(&index, &[six()]));
    let tensor = checkpoint.get("c").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::Complex64, &[3][..]));
    let message = tensor.to_f32().unwrap_err().to_string();
    assert!(message.contains("`c`") && message.contains("complex64"), "{message}");
}

#[test]
fn buffer_of_the_wrong_length_is_refused() {
    let checkpoint = read(one(Tensor::new("FloatStorage", "0", &[6])));
    let message = checkpoint.get("w").unwrap().copy_f32_into(&mut [0.0; 5]).unwrap_err().to_string();
    assert!(message.contains('6') && message.contains('5'), "{message}");
}

#[test]
fn double_beyond_single_precision_is_refused() {
    let index = Pickle::new().dict(&[("w", Tensor::new("DoubleStorage", "0", &[1]))]).stop();
    let checkpoint = read(archive(&index, &[("0", 1e300_f64.to_le_bytes().to_vec())]));
    let message = checkpoint.get("w").unwrap().to_f32().unwrap_err().to_string();
    assert!(message.contains("1e300"), "{message}");
}

#[test]
fn safetensors_is_read_with_metadata_and_prefix() {
    let header = r#"{"__metadata__":{"config":"model: {}"},
        "model.a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "model.b":{"dtype":"BF16","shape":[1,1],"data_offsets":[8,10]},
        "model.n":{"dtype":"I64","shape":[],"data_offsets":[10,18]}}"#;
    let mut data = [1.5_f32, -2.0].map(f32::to_le_bytes).concat();
    data.extend([0xc0, 0x3f]);
    data.extend(7_i64.to_le_bytes());
    let checkpoint = read(safetensors(header, &data));
    assert_eq!(checkpoint.format(), Format::SafeTensors);
    assert_eq!(checkpoint.prefix(), "model.");
    assert_eq!(checkpoint.config_yaml(), Some("model: {}"));
    assert_eq!(values(&checkpoint, "a"), [1.5, -2.0]);
    assert_eq!(values(&checkpoint, "b"), [1.5]);
    assert_eq!(values(&checkpoint, "n"), [7.0]);
}

#[test]
fn content_decides_not_the_extension_and_names_may_be_unicode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("голос – 音 ♫.safetensors");
    std::fs::write(&path, one(Tensor::new("FloatStorage", "0", &[6]))).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.format(), Format::Torch);
    assert!(checkpoint.origin().contains("音 ♫"));

    let index = Pickle::new().dict(&[("слой.вес", Tensor::new("FloatStorage", "0", &[6]))]).stop();
    assert_eq!(read(archive(&index, &[six()])).names().collect::<Vec<_>>(), ["слой.вес"]);
}

#[test]
fn checkpoints_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Checkpoint>();
}
