//! GGUF files of BSRoformer.cpp, built by hand after its converter.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests; a failure is a failed test")]

use half::f16;
use nullsum::model::architecture::{Architecture, Family};
use nullsum::model::checkpoint::{Checkpoint, Dtype, Format};
use nullsum::model::sidecar_config;

/// A file under construction.
struct Gguf {
    version: u32,
    values: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<Stored>,
}

struct Stored {
    name: String,
    /// Outermost dimension first, as in PyTorch.
    shape: Vec<usize>,
    kind: u32,
    bytes: Vec<u8>,
}

const F32: u32 = 0;
const F16: u32 = 1;
const Q8_0: u32 = 8;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// The numbers in a type of ggml. For `q8_0`: blocks of 32, the largest of which is 127 steps.
fn stored(values: &[f32], kind: u32) -> Vec<u8> {
    match kind {
        F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        Q8_0 => values
            .chunks(32)
            .flat_map(|block| {
                let largest = block.iter().fold(0f32, |most, x| most.max(x.abs()));
                let scale = f16::from_f32(largest / 127.0);
                let step = scale.to_f32().max(f32::MIN_POSITIVE);
                let steps: Vec<u8> = block.iter().map(|x| (x / step).round() as i8 as u8).collect();
                [&scale.to_le_bytes()[..], &steps].concat()
            })
            .collect(),
        _ => vec![0; values.len()],
    }
}

impl Gguf {
    fn new(architecture: &str) -> Self {
        let values = vec![("general.architecture".into(), 8, text(architecture))];
        Self { version: 3, values, tensors: Vec::new() }
    }

    fn number(mut self, key: &str, value: u32) -> Self {
        self.values.push((key.into(), 4, value.to_le_bytes().to_vec()));
        self
    }

    fn tensor(mut self, name: &str, shape: &[usize], values: &[f32], kind: u32) -> Self {
        let bytes = stored(values, kind);
        self.tensors.push(Stored { name: name.into(), shape: shape.to_vec(), kind, bytes });
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.values.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.values {
            bytes.extend([text(key), kind.to_le_bytes().to_vec(), value.clone()].concat());
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            bytes.extend(text(&tensor.name));
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|dim| bytes.extend((*dim as u64).to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        [bytes, data].concat()
    }
}

fn open(file: &Gguf) -> Result<Checkpoint, String> {
    Checkpoint::from_bytes(file.bytes(), "model.gguf").map_err(|error| error.to_string())
}

/// The name that the converter gives a tensor.
fn converted_name(name: &str) -> String {
    let name = name.replace("gamma", "weight");
    let table = [
        ("layers.0.0.layers.0.0.norm", "blk.0.time_attn_norm"),
        ("layers.0.0.layers.0.0.to_qkv", "blk.0.time_attn_qkv"),
        ("layers.0.0.layers.0.0.to_gates", "blk.0.time_attn_gate"),
        ("layers.0.0.layers.0.0.to_out.0", "blk.0.time_attn_out"),
        ("layers.0.0.layers.0.1.net.0", "blk.0.time_ff_norm"),
        ("layers.0.0.layers.0.1.net.1", "blk.0.time_ff_in"),
        ("layers.0.0.layers.0.1.net.4", "blk.0.time_ff_out"),
        ("layers.0.1.layers.0.0.norm", "blk.0.freq_attn_norm"),
        ("layers.0.1.layers.0.0.to_qkv", "blk.0.freq_attn_qkv"),
        ("layers.0.1.layers.0.0.to_gates", "blk.0.freq_attn_gate"),
        ("layers.0.1.layers.0.0.to_out.0", "blk.0.freq_attn_out"),
        ("layers.0.1.layers.0.1.net.0", "blk.0.freq_ff_norm"),
        ("layers.0.1.layers.0.1.net.1", "blk.0.freq_ff_in"),
        ("layers.0.1.layers.0.1.net.4", "blk.0.freq_ff_out"),
    ];
    if let Some((from, to)) = table.iter().find(|(from, _)| name.starts_with(*from)) {
        return name.replace(from, to);
    }
    if name.ends_with("rotary_embed.freqs") {
        return name.replace('.', "_");
    }
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        ["band_split", _, band, "0", suffix] => format!("band_split.{band}.norm.{suffix}"),
        ["band_split", _, band, _, suffix] => format!("band_split.{band}.linear.{suffix}"),
        ["mask_estimators", stem, _, band, _, layer, suffix] => {
            format!("mask_est.{stem}.freq.{band}.mlp.{layer}.{suffix}")
        }
        _ => name,
    }
}

/// Name, shape and values.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// A small network whose rows are multiples of 32 where they can be, with its numbers.
pub fn network() -> (Architecture, Vec<NamedTensor>) {
    let mut arch = Architecture::reference_default();
    (arch.dim, arch.depth, arch.heads, arch.dim_head, arch.ff_inner, arch.mask_hidden) =
        (32, 1, 2, 16, 64, 32);
    (arch.stft.n_fft, arch.stft.hop_length, arch.stft.win_length) = (128, 64, 128);
    arch.bands = vec![(0..8).collect(), (8..32).collect(), (32..65).collect()];
    arch.num_stems = 2;
    let mut state = 7_u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let tensors = arch
        .tensors()
        .into_iter()
        .map(|tensor| {
            let count = tensor.shape.iter().product();
            let values = (0..count).map(|_| number()).collect();
            (tensor.name, tensor.shape, values)
        })
        .collect();
    (arch, tensors)
}

#[test]
fn networks_of_bsroformer_cpp_are_read() {
    let (arch, tensors) = network();
    for (kind, dtype) in [(F32, Dtype::F32), (F16, Dtype::F16), (Q8_0, Dtype::Q8_0)] {
        let mut file = Gguf::new("bs_roformer")
            .number("bs_roformer.dim", 32)
            .number("bs_roformer.depth", 1)
            .number("bs_roformer.heads", 2)
            .number("bs_roformer.stft_n_fft", 128)
            .number("bs_roformer.stft_hop_length", 64)
            .number("bs_roformer.stft_win_length", 128)
            .number("bs_roformer.num_stems", 2)
            .number("bs_roformer.default_chunk_size", 8000)
            .tensor("buffer_freq_indices", &[3], &[0.0, 1.0, 2.0], F32);
        // As the converter does: matrices are quantised, vectors are not.
        let kind_of = |name: &str, shape: &[usize]| {
            let is_matrix = shape.len() == 2 && name.ends_with("weight");
            let fits = kind != Q8_0 || shape.last().is_some_and(|row| row % 32 == 0);
            if is_matrix && fits { kind } else { F32 }
        };
        for (name, shape, values) in &tensors {
            file = file.tensor(&converted_name(name), shape, values, kind_of(name, shape));
        }
        let checkpoint = open(&file).unwrap();
        assert_eq!(
            (checkpoint.format(), checkpoint.skipped()),
            (Format::Gguf, &["buffer_freq_indices".to_owned()][..])
        );
        let mut names: Vec<&str> = tensors.iter().map(|(name, _, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), names);
        for (name, shape, values) in &tensors {
            let view = checkpoint.get(name).unwrap();
            assert_eq!(view.shape(), shape, "{name}");
            let found = view.to_f32().unwrap();
            let step = match kind_of(name, shape) {
                F32 => 0.0,
                F16 => 2f32.powi(-11),
                _ => 1.01 / 254.0,
            };
            let far = found.iter().zip(values).position(|(a, b)| (a - b).abs() > step);
            assert_eq!((far, found.len()), (None, values.len()), "{name}");
        }
        assert_eq!(checkpoint.get("layers.0.0.layers.0.0.to_qkv.weight").unwrap().dtype(), dtype);
        // The hyperparameters suffice to resolve the network.
        let config = sidecar_config::load(&checkpoint, None, None).unwrap();
        assert_eq!(config.chunk_size(), Some(8000));
        let resolved = Architecture::resolve(&config, &checkpoint, None).unwrap();
        assert_eq!(
            (resolved.family, &resolved.bands, resolved.num_stems),
            (Family::BsRoformer, &arch.bands, 2)
        );
    }
}

#[test]
fn gguf_files_that_cannot_be_read_say_why() {
    let band = |file: Gguf, kind: u32| {
        file.tensor("band_split.0.norm.weight", &[32], &[1.0; 32], F32).tensor(
            "band_split.0.linear.weight",
            &[4, 32],
            &[0.5; 128],
            kind,
        )
    };
    let whole = || band(Gguf::new("mel_band_roformer"), F32);
    assert!(open(&whole()).is_ok());
    let with = |change: &dyn Fn(&mut Gguf)| {
        let mut file = whole();
        change(&mut file);
        open(&file).unwrap_err()
    };
    let nested = [9_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat();
    let table: Vec<(&str, String, &[&str])> = vec![
        ("version 1", with(&|file| file.version = 1), &["version 1", "convert"]),
        ("big endian", with(&|file| file.version = 3 << 24), &["big-endian"]),
        ("another network", open(&band(Gguf::new("llama"), F32)).unwrap_err(), &["llama", "not a RoFormer"]),
        ("no weights", with(&|file| file.tensors.clear()), &["lists no weights"]),
        ("unknown type", with(&|file| file.values[0].1 = 99), &["unknown type 99"]),
        (
            "a huge text",
            with(&|file| file.values[0].2 = u64::MAX.to_le_bytes().to_vec()),
            &["claims 18446744073709551615 bytes"],
        ),
        (
            "deep arrays",
            with(&|file| {
                let levels: Vec<u8> =
                    (0..200).flat_map(|_| [&nested[..4], &1_u64.to_le_bytes()].concat()).collect();
                file.values.push(("x".into(), 9, levels));
            }),
            &["nested deeper"],
        ),
        (
            "a huge array",
            with(&|file| {
                let array = [&0_u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
                file.values.push(("x".into(), 9, array));
            }),
            &["ends at byte"],
        ),
        (
            "a wild alignment",
            with(&|file| file.values.push(("general.alignment".into(), 4, vec![3, 0, 0, 0]))),
            &["aligned to 3"],
        ),
        ("a huge shape", with(&|file| file.tensors[1].shape = vec![1 << 40, 1 << 40]), &["overflows"]),
        ("a long tensor", with(&|file| file.tensors[1].shape = vec![1 << 30, 32]), &["incomplete"]),
        ("many dimensions", with(&|file| file.tensors[1].shape = vec![1; 9]), &["9 dimensions"]),
        (
            "a name twice",
            with(&|file| file.tensors[1].name = "band_split.0.norm.weight".into()),
            &["two tensors"],
        ),
        (
            "rows that are no whole blocks",
            with(&|file| (file.tensors[1].kind, file.tensors[1].shape) = (Q8_0, vec![4, 33])),
            &["multiple of 32"],
        ),
    ];
    for (name, message, words) in table {
        for word in words {
            assert!(message.contains(word), "{name}: {message}");
        }
        assert!(message.starts_with("model.gguf"), "{name}: {message}");
    }
    // Fewer bits are refused when the weight is read, with its name.
    let few = open(&band(Gguf::new("bs_roformer"), 2)).unwrap();
    let error = few.get("band_split.to_features.0.1.weight").unwrap().to_f32().unwrap_err().to_string();
    assert!(error.contains("q4_0") && error.contains("band_split.to_features.0.1.weight"), "{error}");
    // Every shorter file is an error or lacks its last weights, and none ends the process.
    let bytes = whole().bytes();
    for length in 0..bytes.len() - 32 {
        assert!(Checkpoint::from_bytes(bytes[..length].to_vec(), "cut").is_err(), "{length} bytes");
    }
}
