//! The network against the Python packages it must equal.
//!
//! Cases are folders that `tests/parity/generate.py` wrote: weights, YAML, and what the reference made of a chunk. Small
//! ones are in `tests/fixtures/parity`; `NULLSUM_PARITY_DIR` adds a folder of others, such as the full-size ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "parity/families.rs"]
mod families;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use nullsum::audio::Planar;
use nullsum::dsp::snr_db;
use nullsum::dsp::stft::Stft;
use nullsum::model::checkpoint::Checkpoint;
use nullsum::model::config::Config;
use nullsum::model::device::DeviceChoice;
use nullsum::model::roformer::Roformer;
use nullsum::model::weights;
use nullsum::offline::demix::{DemixOptions, demix};
use nullsum::offline::plan::ChunkPlan;
use nullsum::offline::reader::MemoryReader;
use nullsum::separator::{MaskRule, Runtime, Separator};
use num_complex::Complex32;
use safetensors::SafeTensors;
use serde_json::Value;

/// What the generator wrote for one case. Axis letters: n stem, s channel, f bin, t frame, c complex.
struct Case {
    folder: PathBuf,
    facts: Value,
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

/// How close one case came, in dB.
struct Closeness {
    spec: f64,
    mask: f64,
    output: f64,
    /// The worst of the songs.
    demix: Option<f64>,
}

impl Case {
    fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("case.safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let facts = serde_json::from_str(&header.metadata().as_ref().unwrap()["facts"]).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors.iter().map(|(name, view)| {
            let values =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            (name.to_string(), (view.shape().to_vec(), values))
        });
        Self { folder: folder.into(), facts, tensors: tensors.collect() }
    }

    fn name(&self) -> &str {
        self.text("case")
    }

    /// A fact that is a text.
    fn text(&self, key: &str) -> &str {
        self.facts[key].as_str().unwrap()
    }

    fn values(&self, name: &str) -> &[f32] {
        &self.tensors[name].1
    }

    fn shape<const N: usize>(&self, name: &str) -> [usize; N] {
        self.tensors[name].0.as_slice().try_into().unwrap()
    }

    fn number(&self, name: &str) -> f64 {
        self.facts[name].as_f64().unwrap()
    }

    fn checkpoint(&self) -> Checkpoint {
        let file =
            ["model.ckpt", "model.safetensors"].map(|f| self.folder.join(f)).into_iter().find(|f| f.exists());
        Checkpoint::open(&file.unwrap()).unwrap_or_else(|e| panic!("{}: {e}", self.name()))
    }

    fn yaml(&self) -> String {
        std::fs::read_to_string(self.folder.join("model.yaml")).unwrap()
    }

    fn load(&self, yaml: &str) -> Separator {
        let config = Config::from_yaml(yaml, self.name()).unwrap();
        Separator::load(&self.checkpoint(), &config, None, DeviceChoice::Cpu)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name()))
    }

    /// The same, the whole chunk through candle as on a GPU.
    fn load_as_on_gpu(&self, yaml: &str) -> Separator {
        let config = Config::from_yaml(yaml, self.name()).unwrap();
        let runtime = Runtime { device: DeviceChoice::Cpu, as_on_gpu: true, ..Runtime::default() };
        Separator::load(&self.checkpoint(), &config, None, runtime)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name()))
    }

    /// SNR of our spectrum of the stored chunk.
    fn spec_db(&self, separator: &Separator) -> f64 {
        let stft = Stft::new(separator.info().architecture.stft);
        let [channels, samples] = self.shape("chunk");
        let [_, freqs, frames, _] = self.shape::<4>("spec");
        let mut spec = vec![Complex32::default(); frames * freqs * channels];
        for (c, signal) in self.values("chunk").chunks_exact(samples).enumerate() {
            stft.forward(signal, c, channels, &mut spec);
        }
        // [t, f, s] → [s, f, t]
        let order = (0..channels).flat_map(|s| {
            (0..freqs).flat_map(move |f| (0..frames).map(move |t| (t * freqs + f) * channels + s))
        });
        let found: Vec<f32> = order.flat_map(|i| [spec[i].re, spec[i].im]).collect();
        snr_db(self.values("spec"), &found)
    }

    /// SNR of the network's mask for the stored spectrum: the lesser of the network as it runs and of candle's, which are two
    /// where the fused kernels cover the case.
    fn mask_db(&self, separator: &mut Separator) -> f64 {
        let [s, f, t, _] = self.shape("spec");
        let device = candle_core::Device::Cpu;
        let spec = Tensor::from_slice(self.values("spec"), (s, f, t, 2), &device).unwrap();
        let spec = spec.permute((2, 1, 0, 3)).unwrap().reshape((1, t, f * s * 2)).unwrap();
        let values: Vec<f32> = spec.flatten_all().unwrap().to_vec1().unwrap();
        let bins: Vec<Complex32> = values.chunks_exact(2).map(|c| Complex32::new(c[0], c[1])).collect();
        let running: Vec<f32> =
            separator.masks(&bins, 1).unwrap().iter().flat_map(|c| [c.re, c.im]).collect();
        let [n, rows, _, _] = self.shape("mask");
        let running = Tensor::from_vec(running, (1, n, t, f * s * 2), &device).unwrap();

        let checkpoint = self.checkpoint();
        let weights = weights::from_checkpoint(&checkpoint, &device);
        let candle = Roformer::new(&separator.info().architecture, weights).unwrap().forward(&spec).unwrap();

        // The reference's rows are those of the bins that the network sees.
        let first = self.facts["bins"][0].as_u64().unwrap() as usize * s;
        let db = |mask: Tensor| {
            let mask = mask.reshape((n, t, f * s, 2)).unwrap().narrow(2, first, rows).unwrap();
            let mask = mask.transpose(1, 2).unwrap().flatten_all().unwrap();
            snr_db(self.values("mask"), &mask.to_vec1::<f32>().unwrap())
        };
        db(running).min(db(candle))
    }

    /// SNR of the stems of the stored chunk, over the samples that the reference returns.
    fn output_db(&self, separator: &mut Separator) -> f64 {
        let samples = self.shape::<2>("chunk")[1];
        let valid = self.number("valid_samples") as usize;
        let stems = separator.separate(&[self.values("chunk")], MaskRule::Plain).unwrap();
        let counts = |i| i % samples < valid;
        snr_db(picked(self.values("output"), counts), picked(&stems[0], counts))
    }

    /// SNR of one song, over the samples that the reference's fades leave.
    fn song_db(&self, separator: &mut Separator, song: &Value) -> f64 {
        let number = |key: &str| song[key].as_u64().unwrap_or(0) as usize;
        let [channels, total] = self.shape("mixture");
        let length = number("length");
        let mixture = self.values("mixture").chunks_exact(total).map(|c| c[..length].to_vec()).collect();
        let mixture = Planar::from_planes(mixture).unwrap();
        assert_eq!(
            (mixture.channels(), separator.info().chunk),
            (channels, number("chunk")),
            "{}",
            self.name()
        );
        let options = DemixOptions {
            plan: reference_plan(number("chunk"), number("overlap")),
            batch: 1,
            rule: MaskRule::Plain,
            tta: song["tta"].as_bool().unwrap_or(false),
            standardise: None,
        };
        let shifts = number("shifts").max(1);
        let planes = self.shape::<3>(song["tensor"].as_str().unwrap());
        let mut mean = vec![0.0; planes.iter().product()];
        for shift in (0..shifts).map(|i| i * (length / shifts)) {
            let mut shifted = mixture.clone();
            shifted.iter_mut().for_each(|plane| plane.rotate_right(shift));
            let mut stems = Planar::new(planes[0] * planes[1]);
            let mut sink = |block: &Planar| {
                stems.append(block);
                Ok(())
            };
            demix(separator, &mut MemoryReader::new(&shifted), &options, &mut sink, &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
            for (mean, plane) in mean.chunks_exact_mut(length).zip(stems.iter_mut()) {
                plane.rotate_left(shift);
                mean.iter_mut().zip(plane.iter()).for_each(|(m, x)| *m += x / shifts as f32);
            }
        }
        let lost: Vec<usize> =
            song["lost"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as usize).collect();
        let expected = self.values(song["tensor"].as_str().unwrap());
        let counts = |i| !lost.contains(&(i % length));
        snr_db(picked(expected, counts), picked(&mean, counts))
    }

    fn songs(&self) -> Vec<Value> {
        self.facts["demix"].as_array().cloned().unwrap_or_default()
    }

    fn compare(&self) -> Closeness {
        let mut separator = self.load(&self.yaml());
        let songs = self.songs();
        let mut worst: Option<f64> = None;
        for song in &songs {
            let db = self.song_db(&mut separator, song);
            if db < self.number("demix_tolerance_db") {
                println!("{}: {db:.1} dB for the song {song}", self.name());
            }
            worst = Some(worst.map_or(db, |w| w.min(db)));
        }
        Closeness {
            spec: self.spec_db(&separator),
            mask: self.mask_db(&mut separator),
            // Both ways of a chunk: transforms on the host, and everything as on a GPU.
            output: self
                .output_db(&mut separator)
                .min(self.output_db(&mut self.load_as_on_gpu(&self.yaml()))),
            demix: worst,
        }
    }
}

/// The chunks of the reference. At overlap 1 it cuts hard from chunk to chunk, where we keep a crossfade; everything else is
/// the same, so that the comparison runs with its cut.
fn reference_plan(chunk: usize, overlap: usize) -> ChunkPlan {
    let plan = ChunkPlan::new(chunk, overlap as f64);
    match overlap {
        1 => ChunkPlan { step: chunk, border: 0, ..plan },
        _ => plan,
    }
}

/// The values whose indices `counts` picks.
fn picked(values: &[f32], counts: impl Fn(usize) -> bool) -> impl Iterator<Item = &f32> {
    values.iter().enumerate().filter(move |(i, _)| counts(*i)).map(|(_, value)| value)
}

fn cases(folder: &Path) -> Vec<Case> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.safetensors").exists())
        .collect();
    folders.sort();
    folders.iter().map(|folder| Case::read(folder)).collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity")
}

fn fixture(name: &str) -> Case {
    Case::read(&fixtures().join(name))
}

/// Prints a line a case and fails with the names of those that fall short.
fn all_match(folder: &Path) {
    let cases = cases(folder);
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    println!(
        "{:34} {:26} {:>7} {:>7} {:>7} {:>7}",
        "case, SNR in dB", "reference", "spec", "mask", "output", "demix"
    );
    let short: Vec<&str> = cases
        .iter()
        .filter(|case| {
            let found = case.compare();
            let song = found.demix.map_or("-".into(), |db| format!("{db:.1}"));
            println!(
                "{:34} {:26} {:7.1} {:7.1} {:7.1} {song:>7}",
                case.name(),
                case.text("installed"),
                found.spec,
                found.mask,
                found.output
            );
            let tolerance = case.number("tolerance_db");
            found.spec < tolerance
                || found.mask < tolerance
                || found.output < tolerance
                || found.demix.is_some_and(|db| db < case.number("demix_tolerance_db"))
        })
        .map(Case::name)
        .collect();
    assert!(short.is_empty(), "short of their tolerance: {}", short.join(", "));
}

#[test]
fn every_fixture_matches_its_reference() {
    all_match(&fixtures());
}

#[test]
fn cases_from_environment_match_their_references() {
    match std::env::var_os("NULLSUM_PARITY_DIR") {
        Some(folder) => all_match(Path::new(&folder)),
        None => println!("NULLSUM_PARITY_DIR is not set: nothing to compare"),
    }
}

#[test]
fn wrappers_and_prefixes_are_detected() {
    for case in cases(&fixtures()) {
        let checkpoint = case.checkpoint();
        assert_eq!(checkpoint.wrapper().unwrap_or(""), case.text("wrap"), "{}", case.name());
        assert_eq!(checkpoint.prefix(), case.text("prefix"), "{}", case.name());
    }
}

/// An option that only the YAML holds must matter to its fixture, or the fixture would prove nothing about it.
#[test]
fn yaml_only_options_change_results() {
    for (name, from, to) in [
        ("bs_msst_skip_connection", "skip_connection: true", "skip_connection: false"),
        ("mel_msst_skip_connection", "skip_connection: true", "skip_connection: false"),
        ("bs_msst_zero_dc", "zero_dc: true", "zero_dc: false"),
        ("bs_lucid_streams_3", "zero_dc: true", "zero_dc: false"),
        ("bs_seed_short_window", "stft_win_length: 21", "stft_win_length: 23"),
        ("bs_seed_uneven_hop", "stft_hop_length: 7", "stft_hop_length: 8"),
        ("bs_webui_hyperace_v1_band_strides", "hyperace_band_strides: true", "hyperace_band_strides: false"),
        ("bs_pymss_conformer_depths", "skip_connection: true", "skip_connection: false"),
        // Conformers set it unless told otherwise.
        ("bs_pymss_conformer", "stereo: true", "stereo: true\n  zero_dc: false"),
        ("mel_pymss_conformer", "stereo: true", "stereo: true\n  zero_dc: false"),
        ("bs_lucid_streams_4", "mc_hyper_conn_sinkhorn_iters: 5", "mc_hyper_conn_sinkhorn_iters: 2"),
        ("bs_lucid_freq_range", "freq_range:\n  - 2\n  - 11", "freq_range:\n  - 3\n  - 12"),
    ] {
        let case = fixture(name);
        let yaml = case.yaml();
        let changed = yaml.replace(from, to);
        assert_ne!(yaml, changed, "{name}: {from}");
        let mut separator = case.load(&changed);
        let db = case.output_db(&mut separator);
        assert!(db < 60.0, "{name}: {to} still gives {db:.1} dB");
    }
}

/// The band split's norm takes the scale of the spectrum out again, so only the spectrum tells.
#[test]
fn normalized_stft_changes_results() {
    let case = fixture("bs_seed_normalized");
    let plain = case.yaml().replace("stft_normalized: true", "stft_normalized: false");
    assert!(case.spec_db(&case.load(&case.yaml())) > 90.0);
    assert!(case.spec_db(&case.load(&plain)) < 20.0);
}

#[test]
fn songs_at_overlap_1_are_among_the_fixtures() {
    let songs = cases(&fixtures()).iter().flat_map(Case::songs).filter(|song| song["overlap"] == 1).count();
    assert!(songs > 0);
}

/// Weights that only differ a little must not pass for the same.
#[test]
fn wrong_weights_fail_comparison() {
    let case = fixture("bs_seed_mono");
    let mut separator = case.load(&case.yaml());
    let info = separator.info().clone();
    assert!(case.output_db(&mut separator) > 90.0);
    let mut other = Separator::random(info, 1, DeviceChoice::Cpu).unwrap();
    assert!(case.output_db(&mut other) < 20.0);
}
