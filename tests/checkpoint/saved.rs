//! The ways in which trainers and users save one network: files of PyTorch, written by `tests/fixtures/saved_checkpoints.py`.
#![allow(clippy::type_complexity, reason = "tables of cases")]

use std::path::PathBuf;

use nullsum::model::checkpoint::{Checkpoint, CheckpointError, Dtype, Format, OpenOptions};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/saved").join(format!("{name}.pt"))
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&path(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// The network of the generator, in its order: names and numbers of elements.
const NETWORK: [(&str, usize); 7] = [
    ("band_split.to_features.0.0.gamma", 4),
    ("band_split.to_features.0.1.weight", 8),
    ("band_split.to_features.0.1.bias", 2),
    ("layers.0.0.layers.0.0.rotary_embed.freqs", 1),
    ("layers.0.0.layers.0.0.norm.gamma", 2),
    ("layers.0.0.layers.0.0.to_qkv.weight", 12),
    ("mask_estimators.0.to_freqs.0.0.0.weight", 16),
];

/// Values of tensor `i`: start + i, start + i + 1/8, …
fn values(i: usize, count: usize, start: f32) -> Vec<f32> {
    (0..count).map(|k| start + i as f32 + k as f32 / 8.0).collect()
}

/// Checks that `checkpoint` holds the network that starts at `start`, but for the tensors named in `absent`.
fn assert_network(file: &str, checkpoint: &Checkpoint, start: f32, absent: &[&str]) {
    let mut names: Vec<&str> =
        NETWORK.iter().map(|(name, _)| *name).filter(|n| !absent.contains(n)).collect();
    names.sort_unstable();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), names, "{file}");
    for (i, (name, count)) in NETWORK.iter().enumerate().filter(|(_, (name, _))| !absent.contains(name)) {
        assert_eq!(
            checkpoint.get(name).unwrap().to_f32().unwrap(),
            values(i, *count, start),
            "{file}: {name}"
        );
    }
}

#[test]
fn every_way_of_saving_is_read() {
    let none: [&str; 0] = [];
    // File, dict keys that lead to the weights, prefix, leftovers, other networks.
    let cases: [(&str, Option<&str>, &str, &[&str], &[&str]); 26] = [
        ("prefix_net", None, "net.", &none, &none),
        ("prefix_roformer", None, "roformer.", &none, &none),
        ("prefix_two_levels", Some("state_dict"), "system.model.", &none, &none),
        ("compiled_whole", None, "", &none, &none),
        ("compiled_layers", None, "", &none, &none),
        ("compiled_ddp", None, "module.", &none, &none),
        ("lightning", Some("state_dict"), "model.", &["criterion.stft.window", "ema.updates"], &none),
        ("ema_beside_raw", Some("ema"), "", &none, &["model"]),
        ("ema_decay_shadow", Some("ema.shadow"), "", &none, &["model"]),
        ("deep", Some("trainer.states.0.modules.generator.weights"), "", &none, &none),
        ("list", Some("1.0"), "", &none, &none),
        ("pairs", Some("model"), "", &none, &none),
        ("number_keys", Some("0"), "", &none, &none),
        ("object_arrays", Some("state_dict"), "", &none, &none),
        ("object_arrays_inside", None, "", &none, &none),
        ("student_in_ddp", None, "student.module.", &["teacher_head.weight"], &none),
        (
            "shadow_params_of_another",
            Some("state_dict"),
            "",
            &["ema.shadow_params (matches no weights by order and shape)"],
            &none,
        ),
        ("numpy", Some("state_dict"), "", &none, &none),
        ("numpy_fortran", Some("state_dict"), "", &none, &none),
        ("numpy_protocol_5", None, "", &none, &none),
        ("protocol_4", None, "", &none, &none),
        ("without_crc32", None, "", &none, &none),
        ("double", None, "", &none, &none),
        ("half", None, "", &none, &none),
        ("bfloat", None, "", &none, &none),
        ("legacy", Some("state_dict"), "module.", &none, &none),
    ];
    for (file, wrapper, prefix, leftovers, alternatives) in cases {
        let checkpoint = open(file);
        assert_network(file, &checkpoint, 1.0, &[]);
        assert_eq!(checkpoint.wrapper(), wrapper, "{file}");
        assert_eq!(checkpoint.prefix(), prefix, "{file}");
        assert_eq!(checkpoint.leftovers(), leftovers, "{file}");
        assert_eq!(checkpoint.alternatives(), alternatives, "{file}");
        let format = if file == "legacy" { Format::LegacyTorch } else { Format::Torch };
        assert_eq!(checkpoint.format(), format, "{file}");
    }
}

#[test]
fn averages_lack_only_constants() {
    let freqs = [NETWORK[3].0];
    for (file, wrapper) in
        [("ema_without_constants", "ema_state_dict"), ("shadow_params", "ema.shadow_params")]
    {
        let checkpoint = open(file);
        assert_eq!(checkpoint.wrapper(), Some(wrapper));
        assert_network(file, &checkpoint, 1.0, &freqs);
        assert_eq!(checkpoint.alternatives(), ["state_dict"]);
    }
    let checkpoint = open("ema_model_prefix");
    assert_eq!((checkpoint.wrapper(), checkpoint.prefix()), (Some("model"), "ema_model."));
    assert_network("ema_model_prefix", &checkpoint, 1.0, &[]);
}

#[test]
fn user_chooses_another_network() {
    let choose = |file: &str, weights: &str| {
        Checkpoint::open_with(&path(file), &OpenOptions { weights: Some(weights.into()) })
    };
    for (file, weights) in [
        ("ema_beside_raw", "model"),
        ("ema_model_prefix", "model.online_model"),
        ("shadow_params", "state_dict"),
        ("student_teacher", "teacher"),
    ] {
        assert_network(file, &choose(file, weights).unwrap(), 50.0, &[]);
    }
    assert_network("student_teacher", &choose("student_teacher", "student.").unwrap(), 1.0, &[]);
    let error = Checkpoint::open(&path("student_teacher")).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::SeveralNetworks { networks, .. } if *networks == ["student", "teacher"]),
        "{error}"
    );
    let error = choose("ema_beside_raw", "modle").unwrap_err().to_string();
    assert!(error.contains("there are: model, ema"), "{error}");
    assert_network("alias", &open("alias"), 50.0, &[]);
}

#[test]
fn float8_weights_are_read_within_their_precision() {
    for (file, dtype, precision) in [
        ("float8_e5m2", Dtype::F8E5M2, 1.0 / 8.0),
        ("float8_e4m3fn", Dtype::F8E4M3, 1.0 / 16.0),
        ("float8_e5m2fnuz", Dtype::F8E5M2Fnuz, 1.0 / 8.0),
        ("float8_e4m3fnuz", Dtype::F8E4M3Fnuz, 1.0 / 16.0),
    ] {
        let checkpoint = open(file);
        for (i, (name, count)) in NETWORK.iter().enumerate() {
            let tensor = checkpoint.get(name).unwrap();
            assert_eq!(tensor.dtype(), dtype);
            for (found, exact) in tensor.to_f32().unwrap().iter().zip(values(i, *count, 1.0)) {
                assert!((found / exact - 1.0).abs() <= precision, "{file}: {name}: {found} for {exact}");
            }
        }
    }
}

#[test]
fn types_and_lists_that_cannot_be_read_are_named() {
    let complex = open("complex_half");
    let message = complex.get("mask_estimators.0.fno.weight").unwrap().to_complex().unwrap_err().to_string();
    assert!(message.contains("complex32"), "{message}");
    let message = Checkpoint::open(&path("without_names")).unwrap_err().to_string();
    assert!(message.contains("`weights` is a list of 7 tensors without names"), "{message}");
}

#[test]
fn complex_weights_are_read_as_pairs() {
    let checkpoint = open("with_complex");
    let tensor = checkpoint.get("mask_estimators.0.fno.weight").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::Complex64, &[2, 3][..]));
    let pairs = [0., -0., 1., -1., 2., -2., 3., -3., 4., -4., 5., -5.];
    assert_eq!(tensor.to_complex().unwrap(), pairs);
    assert!(tensor.to_f32().is_err() && checkpoint.get(NETWORK[0].0).unwrap().to_complex().is_err());
}

#[test]
fn views_of_legacy_storages_are_followed() {
    let checkpoint = open("legacy_views");
    assert_eq!(checkpoint.get(NETWORK[4].0).unwrap().to_f32().unwrap(), [1.25, 1.375]);
    assert_eq!(checkpoint.get(NETWORK[0].0).unwrap().to_f32().unwrap(), values(0, 4, 1.0));
}

#[test]
fn legacy_files_are_refused_when_damaged() {
    let file = std::fs::read(path("legacy")).unwrap();
    for length in 0..file.len() {
        // A file is complete once its last storage is; what is not read cannot be missed.
        if let Ok(checkpoint) = Checkpoint::from_bytes(file[..length].to_vec(), "cut") {
            panic!("{length} of {} bytes: {checkpoint:?}", file.len());
        }
    }
    for at in 0..file.len() {
        for change in [0x00, 0xff, file[at] ^ 0x01, file[at] ^ 0x80] {
            let mut damaged = file.clone();
            damaged[at] = change;
            if let Ok(checkpoint) = Checkpoint::from_bytes(damaged, "damaged") {
                checkpoint.tensors().for_each(|tensor| _ = tensor.to_f32());
            }
        }
    }
}

#[test]
fn truncation_while_a_file_is_open_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["prefix_net", "legacy", "half"] {
        let copy = folder.path().join(name);
        std::fs::copy(path(name), &copy).unwrap();
        let checkpoint = Checkpoint::open(&copy).unwrap();
        std::fs::OpenOptions::new().write(true).open(&copy).unwrap().set_len(300).unwrap();
        let message = checkpoint.get(NETWORK[6].0).unwrap().to_f32().unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("incomplete"), "{message}");
    }
}

#[test]
fn damaged_member_fails_its_checksum() {
    let mut file = std::fs::read(path("prefix_net")).unwrap();
    // 1.0 and 1.125, the beginning of the first tensor.
    let at = file.windows(8).position(|bytes| bytes == [0, 0, 0x80, 0x3f, 0, 0, 0x90, 0x3f]).unwrap();
    file[at] ^= 0x10;
    let checkpoint = Checkpoint::from_bytes(file, "damaged.ckpt").unwrap();
    let message = checkpoint.get(NETWORK[0].0).unwrap().to_f32().unwrap_err().to_string();
    assert!(message.contains("prefix_net/data/0") && message.contains("CRC-32"), "{message}");
    assert!(checkpoint.get(NETWORK[1].0).unwrap().to_f32().is_ok(), "other members are intact");
}
