//! A temporary folder with a tiny random model and songs of noise, in which the program runs.
#![allow(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nullsum::audio::{AudioWriter, Container, Decoder, Planar, SampleFormat, WriterSpec};
use nullsum::dsp::Random;
use nullsum::model::architecture::Architecture;
use safetensors::tensor::{Dtype, TensorView};

pub struct Studio {
    root: tempfile::TempDir,
}

impl Studio {
    /// With `model.safetensors`, four stems, and `model.yaml`.
    pub fn new() -> Self {
        let studio = Self { root: tempfile::tempdir().unwrap() };
        studio.model("model", &["drums", "bass", "other", "vocals"]);
        studio
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A network of `stems`, with its YAML beside it.
    pub fn model(&self, name: &str, stems: &[&str]) {
        let mut arch = Architecture::reference_default();
        (arch.dim, arch.depth, arch.heads, arch.dim_head, arch.ff_inner, arch.mask_hidden) =
            (8, 1, 2, 4, 32, 16);
        (arch.stft.n_fft, arch.stft.hop_length, arch.stft.win_length) = (128, 64, 128);
        arch.bands = vec![(0..9).collect(), (9..30).collect(), (30..65).collect()];
        arch.num_stems = stems.len();
        let mut random = Random::new(5);
        let tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = arch
            .tensors()
            .into_iter()
            .filter(|tensor| !tensor.optional)
            .map(|tensor| {
                let gain = tensor.name.ends_with("gamma");
                let count = tensor.shape.iter().product();
                let values =
                    (0..count).flat_map(|_| (if gain { 1.0 } else { 0.6 * random.bipolar() }).to_le_bytes());
                (tensor.name, (tensor.shape, values.collect()))
            })
            .collect();
        let views = tensors.iter().map(|(name, (shape, bytes))| {
            (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        let path = self.path(&format!("{name}.safetensors"));
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
        let yaml = format!(
            "audio: {{chunk_size: 8000, sample_rate: 44100, num_channels: 2}}\n\
             model:\n  dim: 8\n  depth: 1\n  stereo: true\n  num_stems: {}\n  time_transformer_depth: 1\n  \
             freq_transformer_depth: 1\n  freqs_per_bands: !!python/tuple [9, 21, 35]\n  dim_head: 4\n  heads: 2\n  \
             stft_n_fft: 128\n  stft_hop_length: 64\n  stft_win_length: 128\n  mask_estimator_depth: 2\n  \
             mlp_expansion_factor: 2\n\
             training: {{instruments: [{}]}}\n\
             inference: {{num_overlap: 2, batch_size: 2}}\n",
            stems.len(),
            stems.join(", ")
        );
        std::fs::write(self.path(&format!("{name}.yaml")), yaml).unwrap();
    }

    /// The program, with a cache of its own and no way out to the network.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nullsum-cli"));
        command
            .args(args)
            .current_dir(self.root.path())
            .env("NULLSUM_CACHE", self.path("cache"))
            .env("NULLSUM_MIRROR", "http://127.0.0.1:9");
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// Separates with the tiny model.
    pub fn separate(&self, args: &[&str]) -> Run {
        self.run(&[&["--model", "model.safetensors"], args].concat())
    }

    /// A song of noise.
    pub fn song(&self, name: &str, seconds: f32) -> PathBuf {
        self.noise(name, Spec { samples: (seconds * 44_100.0) as usize, ..Spec::default() })
    }

    pub fn noise(&self, name: &str, spec: Spec) -> PathBuf {
        let mut random = Random::new(spec.samples as u64);
        let steps = match spec.format {
            SampleFormat::Pcm16 => 32_768.0,
            _ => 8_388_608.0,
        };
        let mut sample = || (random.bipolar() * spec.level * steps).round() / steps;
        let planes = (0..spec.channels).map(|_| (0..spec.samples).map(|_| sample()).collect()).collect();
        self.write(name, planes, spec)
    }

    pub fn write(&self, name: &str, planes: Vec<Vec<f32>>, spec: Spec) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let container = if name.ends_with("flac") { Container::Flac } else { Container::Wav };
        let writer = WriterSpec {
            container,
            format: spec.format,
            channels: spec.channels,
            sample_rate: spec.sample_rate,
        };
        let mut writer = AudioWriter::create(&path, writer).unwrap();
        writer.write(&Planar::from_planes(planes).unwrap()).unwrap();
        writer.finish().unwrap()
    }

    /// All files below a folder, by name relative to it, sorted.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let root = self.path(folder);
        let mut files: Vec<String> = walkdir::WalkDir::new(&root)
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.path().strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/"))
            .collect();
        files.sort();
        files
    }
}

#[derive(Clone, Copy)]
pub struct Spec {
    pub samples: usize,
    pub channels: usize,
    pub sample_rate: u32,
    pub format: SampleFormat,
    pub level: f32,
}

impl Default for Spec {
    fn default() -> Self {
        Self { samples: 20_000, channels: 2, sample_rate: 44_100, format: SampleFormat::Pcm16, level: 0.3 }
    }
}

/// A finished run.
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Ends the test unless all went well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Ends the test unless it failed with `code`, saying all of `words`.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        for word in words {
            assert!(
                self.err.contains(word) || self.out.contains(word),
                "no `{word}` in:\n{}\n{}",
                self.out,
                self.err
            );
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    /// Every line of standard output as JSON.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// All samples of a file.
pub fn read(path: &Path) -> Planar {
    let mut decoder = Decoder::open(path).unwrap();
    let mut all = Planar::default();
    while decoder.read(1 << 16, &mut all).unwrap() > 0 {}
    all
}

/// Whether the files sum to `song`, bit for bit, whatever the order of addition.
pub fn sum_to(song: &Planar, files: &[PathBuf]) -> bool {
    let stems: Vec<Planar> = files.iter().map(|path| read(path)).collect();
    let same_shape = stems.iter().all(|s| s.channels() == song.channels() && s.samples() == song.samples());
    same_shape
        && orders(stems.len()).iter().all(|order| {
            (0..song.channels()).all(|c| {
                (0..song.samples()).all(|i| {
                    let sum = order.iter().fold(0.0f32, |sum, &n| sum + stems[n].channel(c)[i]);
                    sum == song.channel(c)[i]
                })
            })
        })
}

/// All orders of `count` things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let insert = |order: Vec<usize>| {
        (0..count).map(move |place| {
            let mut longer = order.clone();
            longer.insert(place, count - 1);
            longer
        })
    };
    orders(count - 1).into_iter().flat_map(insert).collect()
}
