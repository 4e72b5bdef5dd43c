//! Training against PyTorch and the reference packages: the loss, and its gradient with respect to every parameter.
//!
//! `tests/parity/gradients.py` wrote the goldens in `tests/fixtures/train`; each names its generator and versions. The tiny ones belong to
//! the weights of the parity case of the same name. `NULLSUM_GRADIENTS_DIR` adds a folder of others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "train/runs.rs"]
mod runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use nullsum::dsp::snr_db;
use nullsum::model::checkpoint::Checkpoint;
use nullsum::model::config::Config;
use nullsum::train::{LossConfig, ModelOptions, RoformerForTraining};
use safetensors::SafeTensors;
use serde_json::Value;

/// Largest relative error of a parameter's gradient, and the least cosine.
const TOLERANCE: f64 = 1e-4;
const COSINE: f64 = 0.99999;

/// What the generator wrote for one case.
struct Golden {
    facts: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    weights: PathBuf,
}

fn goldens() -> Vec<Golden> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(fixtures.join("train")).unwrap().map(|entry| entry.unwrap().path()).collect();
    if let Some(more) = std::env::var_os("NULLSUM_GRADIENTS_DIR") {
        folders.extend(std::fs::read_dir(more).unwrap().map(|entry| entry.unwrap().path()));
    }
    folders.sort();
    folders
        .into_iter()
        .map(|folder| {
            let bytes = std::fs::read(folder.join("gradients.safetensors")).unwrap();
            let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
            let facts = serde_json::from_str(&header.metadata().as_ref().unwrap()["facts"]).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let tensors = tensors
                .iter()
                .map(|(name, view)| {
                    let values = view.data().chunks_exact(4);
                    let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                    (name.to_owned(), (view.shape().to_vec(), values))
                })
                .collect();
            let own = folder.join("model.yaml").exists();
            let weights =
                if own { folder } else { fixtures.join("parity").join(folder.file_name().unwrap()) };
            Golden { facts, tensors, weights }
        })
        .collect()
}

impl Golden {
    fn name(&self) -> &str {
        self.facts["case"].as_str().unwrap()
    }

    fn config(&self) -> Config {
        Config::from_file(&self.weights.join("model.yaml")).unwrap()
    }

    fn checkpoint(&self) -> Checkpoint {
        let file = ["model.ckpt", "model.safetensors"].map(|name| self.weights.join(name));
        Checkpoint::open(file.iter().find(|path| path.exists()).unwrap()).unwrap()
    }

    fn model(&self, dtype: DType, kernels: bool) -> RoformerForTraining {
        let (checkpoint, config) = (self.checkpoint(), self.config());
        let options = ModelOptions { dtype, kernels, ..ModelOptions::default() };
        let model = RoformerForTraining::from_checkpoint(&checkpoint, &config, &options).unwrap();
        let settings = &self.facts["settings"];
        let mut loss = LossConfig::new(&config, model.architecture());
        loss.whole_crop = self.facts["whole_crop"].as_bool().unwrap();
        if let Some(windows) = settings["multi_stft_resolutions_window_sizes"].as_array() {
            loss.windows = windows.iter().map(|w| w.as_u64().unwrap() as usize).collect();
            loss.hop_length = settings["multi_stft_hop_size"].as_u64().unwrap() as usize;
            loss.stft_weight = settings["multi_stft_resolution_loss_weight"].as_f64().unwrap() as f32;
        }
        let options = ModelOptions { loss: Some(loss), ..options };
        RoformerForTraining::from_checkpoint(&checkpoint, &config, &options).unwrap()
    }

    fn tensor(&self, name: &str) -> Tensor {
        let (shape, values) = &self.tensors[name];
        Tensor::from_slice(values, shape.as_slice(), &Device::Cpu).unwrap()
    }

    fn number(&self, key: &str) -> f64 {
        self.facts[key].as_f64().unwrap()
    }

    /// Names of the parameters with their gradients in the reference.
    fn gradients(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.tensors
            .iter()
            .filter_map(|(name, (_, values))| Some((name.strip_prefix("gradient.")?, values.as_slice())))
    }
}

/// Relative error and cosine of two gradients. `floor` is what rounding alone may leave of a gradient that is 0.
fn compare(expected: &[f32], found: &[f32], floor: f64) -> (f64, f64) {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let difference: Vec<f32> = expected.iter().zip(found).map(|(a, b)| a - b).collect();
    let (e, f) = (dot(expected, expected).sqrt(), dot(found, found).sqrt());
    let error = dot(&difference, &difference).sqrt();
    if error < floor {
        return (0.0, 1.0);
    }
    (error / e, dot(expected, found) / (e * f))
}

/// Holds loss and gradients of one way to compute them against a golden; returns what is wrong.
fn check(golden: &Golden, dtype: DType, kernels: bool) -> Vec<String> {
    let way = format!("{} {dtype:?} kernels {kernels}", golden.name());
    let model = golden.model(dtype, kernels);
    let loss = model.loss(&golden.tensor("x"), &golden.tensor("target")).unwrap();
    let mut wrong = Vec::new();
    for (what, found, expected) in [
        ("loss", loss.value(), golden.number("loss")),
        ("waveform", loss.parts().waveform, golden.number("waveform")),
        ("stft", loss.parts().stft, golden.number("stft")),
    ] {
        if (found - expected).abs() > 2e-5 * expected.abs() {
            wrong.push(format!("{way}: {what} {found}, expected {expected}"));
        }
    }
    let gradients = loss.backward().unwrap();
    let all: f64 = golden.gradients().flat_map(|(_, g)| g).map(|g| f64::from(*g).powi(2)).sum();
    // In an ill-conditioned case single precision costs the reference itself more.
    let tolerance = match dtype {
        DType::F64 => TOLERANCE,
        _ => TOLERANCE.max(4.0 * golden.number("single_error")),
    };
    let mut seen = 0;
    for (name, expected) in golden.gradients() {
        let Some(found) = gradients.by_name(model.parameters(), name) else {
            if expected.iter().any(|g| *g != 0.0) {
                wrong.push(format!("{way}: no gradient of {name}"));
            }
            seen += 1;
            continue;
        };
        let found: Vec<f32> = found.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(found.len(), expected.len(), "{way}: {name}");
        let (error, cosine) = compare(expected, &found, 1e-7 * all.sqrt());
        if error.is_nan() || error > tolerance || cosine < COSINE {
            wrong.push(format!("{way}: {name}: relative error {error:.2e}, cosine {cosine:.7}"));
        }
        seen += 1;
    }
    // Every parameter has a golden: none is left out.
    if seen != model.parameters().len() {
        wrong.push(format!("{way}: {seen} goldens for {} parameters", model.parameters().len()));
    }
    wrong
}

#[test]
fn loss_and_gradients_equal_the_reference_packages() {
    let goldens = goldens();
    assert!(goldens.len() >= 35, "{} goldens", goldens.len());
    let mut wrong = Vec::new();
    for golden in &goldens {
        for (dtype, kernels) in [(DType::F32, true), (DType::F32, false), (DType::F64, false)] {
            wrong.extend(check(golden, dtype, kernels));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn export_is_a_checkpoint_with_the_same_stems() {
    let folder = tempfile::tempdir().unwrap();
    for golden in
        goldens().iter().filter(|golden| golden.name().contains("lucid") || golden.name().contains("tereo"))
    {
        let model = golden.model(DType::F32, true);
        let path = folder.path().join(format!("{}.safetensors", golden.name()));
        model.export(&path).unwrap();
        let exported = Checkpoint::open(&path).unwrap();
        // The names are those of the checkpoint that it came from.
        let names: Vec<&str> = exported.names().collect();
        assert_eq!(names, golden.checkpoint().names().collect::<Vec<_>>(), "{}", golden.name());
        let config = Config::from_yaml(exported.config_yaml().unwrap(), "exported").unwrap();
        let again =
            RoformerForTraining::from_checkpoint(&exported, &config, &ModelOptions::default()).unwrap();
        let stems = |model: &RoformerForTraining| -> Vec<f32> {
            model.forward(&golden.tensor("x")).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        assert_eq!(stems(&model), stems(&again), "{}", golden.name());
    }
}

#[test]
fn stems_of_training_are_those_of_separation() {
    use nullsum::model::device::DeviceChoice;
    use nullsum::separator::{MaskRule, Separator};
    for golden in goldens() {
        let model = golden.model(DType::F32, true);
        let x = golden.tensor("x").narrow(0, 0, 1).unwrap();
        let samples = x.dim(2).unwrap();
        let found: Vec<f32> = model.forward(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let mut separator =
            Separator::load(&golden.checkpoint(), &golden.config(), None, DeviceChoice::Cpu).unwrap();
        let chunk: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        let stems = separator.separate(&[&chunk], separator.info().rule(MaskRule::default())).unwrap();
        let db = snr_db(&stems[0], &found);
        assert!(db > 85.0, "{}: {db:.1} dB of {samples} samples", golden.name());
    }
}

/// A small network on the reference's transform.
const YAML: &str =
    "model: {dim: 8, depth: 1, heads: 2, dim_head: 4, num_stems: 2, stereo: true, freqs_per_bands: [10, 23],
  stft_n_fft: 64, stft_hop_length: 16, stft_win_length: 64, multi_stft_resolutions_window_sizes: [64, 32]}
training: {instruments: [a, b]}";

#[test]
fn bad_crops_and_targets_are_named() {
    let model = RoformerForTraining::new(&Config::from_yaml(YAML, "small").unwrap(), 0).unwrap();
    let crop = |shape: &[usize], value: f32| Tensor::full(value, shape, &Device::Cpu).unwrap();
    let (x, y) = (crop(&[1, 2, 500], 0.1), crop(&[1, 2, 2, 500], 0.1));
    let fails = |x: &Tensor, y: &Tensor| match model.loss(x, y) {
        Ok(_) => panic!("{x} and {y} are taken"),
        Err(error) => error.to_string(),
    };
    assert!(model.loss(&x, &y).is_ok());
    for (bad, part) in [
        (crop(&[1, 500], 0.1), "[1, 500]"),
        (crop(&[1, 3, 500], 0.1), "[1, 3, 500]"),
        (crop(&[1, 2, 30], 0.1), "at least"),
        (crop(&[0, 2, 500], 0.1), "crops"),
    ] {
        let error = fails(&bad, &y);
        assert!(error.contains(part) && error.contains("crops"), "{error}");
    }
    for bad in [crop(&[1, 1, 2, 500], 0.1), crop(&[1, 2, 2, 499], 0.1), crop(&[2, 2, 2, 500], 0.1)] {
        let error = fails(&x, &bad);
        assert!(error.contains("target: expected shape [1, 2, 2, 500]"), "{error}");
    }
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(fails(&crop(&[1, 2, 500], bad), &y).contains("crops: value 0 is"));
        assert!(fails(&x, &crop(&[1, 2, 2, 500], bad)).contains("target: value 0 is"));
    }
}

#[test]
fn silence_has_a_finite_gradient() {
    let model = RoformerForTraining::new(&Config::from_yaml(YAML, "small").unwrap(), 0).unwrap();
    let x = Tensor::zeros((1, 2, 500), DType::F32, &Device::Cpu).unwrap();
    let y = Tensor::zeros((1, 2, 2, 500), DType::F32, &Device::Cpu).unwrap();
    let gradients = model.loss(&x, &y).unwrap().backward().unwrap();
    assert_eq!(gradients.norm(model.parameters()).unwrap(), 0.0);
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let model = RoformerForTraining::new(&Config::from_yaml(YAML, "small").unwrap(), 0).unwrap();
    let noise = |seed, n| nullsum::dsp::Random::new(seed).noise(n, 0.5);
    let x = Tensor::from_vec(noise(1, 2 * 2 * 9000), (2, 2, 9000), &Device::Cpu).unwrap();
    let y = Tensor::from_vec(noise(2, 2 * 2 * 2 * 9000), (2, 2, 2, 9000), &Device::Cpu).unwrap();
    let run = |threads| -> Vec<Vec<f32>> {
        let pool = nullsum::kernels::Pool::new(threads).unwrap();
        pool.install(|| {
            let gradients = model.loss(&x, &y).unwrap().backward().unwrap();
            (0..model.parameters().len())
                .map(|i| gradients.get(i).unwrap().flatten_all().unwrap().to_vec1().unwrap())
                .collect()
        })
    };
    assert_eq!(run(1), run(3));
}
