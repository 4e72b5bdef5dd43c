//! Weights that were exported for MLX.

use nullsum::model::architecture::{Architecture, Family};
use nullsum::model::checkpoint::Checkpoint;
use nullsum::model::config::Config;
use serde_json::{Map, json};

use crate::build::safetensors;
use crate::gguf::{NamedTensor, network};

/// The name that a port to `mlx.nn` gives a weight: sequences are lists called `layers`, factors of norms are `weight`.
fn mlx_name(name: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let source: Vec<&str> = name.split('.').collect();
    let in_masks = source.contains(&"to_freqs");
    for (at, part) in source.iter().enumerate() {
        let before = |back: usize| at.checked_sub(back).map_or("", |place| source[place]);
        let is_child = before(1) == "to_out"
            || before(1) == "net"
            || before(2) == "to_features"
            || in_masks && (before(2) == "to_freqs" || before(3) == "to_freqs");
        if is_child && part.bytes().all(|byte| byte.is_ascii_digit()) {
            parts.push("layers".into());
        }
        parts.push(if *part == "gamma" { "weight".into() } else { (*part).into() });
    }
    parts.join(".")
}

fn file(tensors: &[NamedTensor], metadata: &str) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let from = data.len();
        values.iter().for_each(|value| data.extend(value.to_le_bytes()));
        header.insert(
            name.clone(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [from, data.len()]}),
        );
    }
    header.insert("__metadata__".into(), json!({"format": metadata}));
    safetensors(&serde_json::Value::Object(header).to_string(), &data)
}

fn open(bytes: Vec<u8>) -> Result<Checkpoint, String> {
    Checkpoint::from_bytes(bytes, "model.safetensors").map_err(|error| error.to_string())
}

#[test]
fn weights_of_mlx_are_those_of_pytorch_under_other_names() {
    let (arch, tensors) = network();
    // MLX computes rotary positions without a weight.
    let tensors: Vec<_> = tensors.into_iter().filter(|(name, _, _)| !name.ends_with("freqs")).collect();
    for prefix in ["", "model."] {
        let exported: Vec<NamedTensor> = tensors
            .iter()
            .map(|(name, shape, values)| (prefix.to_owned() + &mlx_name(name), shape.clone(), values.clone()))
            .collect();
        assert!(exported.iter().any(|(name, _, _)| name.contains("to_out.layers.0.weight")));
        let checkpoint = open(file(&exported, "mlx")).unwrap();
        assert_eq!(checkpoint.prefix(), prefix);
        for (name, shape, values) in &tensors {
            let view = checkpoint.get(name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!((view.shape(), &view.to_f32().unwrap()), (&shape[..], values), "{name}");
        }
        let yaml = "audio: {chunk_size: 8000, sample_rate: 44100}\nmodel: {dim: 32, depth: 1, num_stems: 2, heads: 2, \
                    dim_head: 16, stereo: true, freqs_per_bands: [8, 24, 33], stft_n_fft: 128, stft_hop_length: 64, \
                    stft_win_length: 128}\ntraining: {instruments: [vocals, other]}\n";
        let config = Config::from_yaml(yaml, "model.yaml").unwrap();
        let resolved = Architecture::resolve(&config, &checkpoint, None).unwrap();
        assert_eq!((resolved.family, &resolved.bands), (Family::BsRoformer, &arch.bands));
    }
    // A port that keeps PyTorch's names needs no table.
    let kept = open(file(&tensors, "mlx")).unwrap();
    assert!(tensors.iter().all(|(name, _, _)| kept.get(name).is_some()));
}

#[test]
fn other_exports_of_mlx_are_refused_by_name() {
    let weight = |name: &str| (name.to_owned(), vec![2, 2], vec![1.0; 4]);
    let unknown = open(file(&[weight("encoder.blocks.0.attention.query.weight")], "mlx")).unwrap_err();
    assert!(unknown.contains("MLX export") && unknown.contains("PyTorch checkpoint"), "{unknown}");
    // The same names without the mark of MLX are another network.
    assert!(open(file(&[weight("encoder.blocks.0.attention.query.weight")], "pt")).is_ok());
    let twice = ["band_split.to_features.0.layers.1.weight", "final_norm.weight", "final_norm.gamma"];
    let twice = open(file(&twice.map(weight), "mlx")).unwrap_err();
    assert!(twice.contains("two weights for `final_norm.gamma`"), "{twice}");
    // Quantised: integers of 32 bits with a scale and a bias for each group.
    let header = json!({
        "band_split.to_features.0.layers.1.weight": {"dtype": "U32", "shape": [2], "data_offsets": [0, 8]},
        "band_split.to_features.0.layers.1.scales": {"dtype": "F16", "shape": [2], "data_offsets": [8, 12]},
        "band_split.to_features.0.layers.1.biases": {"dtype": "F16", "shape": [2], "data_offsets": [12, 16]},
    });
    let quantised = open(safetensors(&header.to_string(), &[0; 16])).unwrap_err();
    assert!(
        quantised.contains("quantised") && quantised.contains("to_features.0.layers.1.weight"),
        "{quantised}"
    );
}
