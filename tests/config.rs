//! What configurations are read as, and how wrong ones are refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in helpers as well")]

use std::time::{Duration, Instant};

use nullsum::model::config::{Config, ConfigError};

/// With every trait of the files people share: tagged and flow lists, comments, capital truth values,
/// sections of training.
const TYPICAL: &str = "\
audio:
  chunk_size: 352800
  dim_f: 1024
  num_channels: 2
  sample_rate: 44100
  min_mean_abs: 0.000

model:
  dim: 384
  depth: 6
  stereo: true
  num_stems: 2
  time_transformer_depth: 1
  freq_transformer_depth: 1
  # linear_transformer_depth: 0
  freqs_per_bands: !!python/tuple
    - 2
    - 4
    - 1_019
  attn_dropout: 0.1
  ff_dropout: 0
  flash_attn: True
  linear_flash_attn: null
  stft_normalized: False
  multi_stft_resolutions_window_sizes: !!python/tuple [4096, 2048, 256]
  num_residual_streams: 1. # off
  freq_range: [-1, 500]
  mlp_expansion_factor: 4 # large
  sage_attention: yes
  stft_hop_lenght: 512

training:
  batch_size: 1
  instruments: ['drums', \"vocals\"]
  target_instrument: null
  lr: 5.0e-05
  use_amp: on

augmentations:
  mixup_probs: !!python/tuple # two
    - 0.2
    - 0.02
  weird: !!python/object/apply:os.system ['true']

inference:
  num_overlap: 4
  dim_t: 801
  batch_size: 2";

fn parse(text: &str) -> Config {
    Config::from_yaml(text, "test.yaml").unwrap()
}

fn refusal(text: &str) -> String {
    Config::from_yaml(text, "test.yaml").unwrap_err().to_string()
}

#[test]
fn typical_file_is_read_completely() {
    let config = parse(TYPICAL);
    assert_eq!(config.audio.sample_rate, Some(44100));
    assert_eq!(config.audio.num_channels, Some(2));
    let model = &config.model;
    assert_eq!((model.dim, model.depth, model.num_stems), (Some(384), Some(6), Some(2)));
    assert_eq!(model.stereo, Some(true));
    assert_eq!(model.linear_transformer_depth, None);
    assert_eq!(model.freqs_per_bands.as_deref(), Some(&[2, 4, 1019][..]));
    assert_eq!((model.attn_dropout, model.ff_dropout), (Some(0.1), Some(0.0)));
    assert_eq!((model.flash_attn, model.linear_flash_attn), (Some(true), None));
    assert_eq!(model.stft_normalized, Some(false));
    assert_eq!(model.multi_stft_resolutions_window_sizes.as_deref(), Some(&[4096, 2048, 256][..]));
    assert_eq!(model.num_residual_streams, Some(1));
    assert_eq!(model.freq_range, Some((-1, 500)));
    assert_eq!(model.mlp_expansion_factor, Some(4));
    assert_eq!(model.sage_attention, Some(true));
    assert_eq!(model.unknown, ["stft_hop_lenght"]);
    assert_eq!(config.training.use_amp, Some(true));
    assert_eq!(config.inference.num_overlap, Some(4));
    assert_eq!(config.inference.batch_size, Some(2));
    assert_eq!(config.stems(), ["drums", "vocals"]);
    assert_eq!(config.chunk_size(), Some(352_800));
    assert_eq!(
        config.unknown,
        [
            "augmentations",
            "audio.dim_f",
            "audio.min_mean_abs",
            "training.batch_size",
            "training.lr",
            "inference.dim_t"
        ]
    );
    assert_eq!(config.text(), TYPICAL);
}

#[test]
fn target_is_only_stem_and_inference_chunk_wins() {
    let config = parse(
        "audio: {chunk_size: 1000}\nmodel: {dim: 8}\ninference: {chunk_size: 500}\n\
         training: {instruments: [vocals, other], target_instrument: vocals}",
    );
    assert_eq!(config.stems(), ["vocals"]);
    assert_eq!(config.chunk_size(), Some(500));
}

#[test]
fn missing_keys_are_none() {
    for text in [
        "model: {}",
        "model:\n  dim: ~\ntraining:\n",
        "\u{feff}model: {}\r\n",
        "--- \nmodel: {}\n...\nrest: [",
        "{\"model\": {}}",
    ] {
        let config = parse(text);
        assert_eq!(config.model.dim, None, "{text:?}");
        assert!(config.stems().is_empty());
        assert_eq!(config.chunk_size(), None);
    }
}

#[test]
fn anchors_and_merge_keys_are_resolved() {
    let config = parse("base: &base {dim: 8, depth: 2}\nmodel:\n  <<: *base\n  depth: &d 3\n  heads: *d\n");
    assert_eq!((config.model.dim, config.model.depth, config.model.heads), (Some(8), Some(3), Some(3)));
    assert!(config.model.unknown.is_empty());

    let several = "a: &a {dim: 8, depth: 2}\nb: &b {depth: 5, heads: 4}\nmodel: {<<: [*a, *b], dim: 16}\n";
    let config = parse(several);
    assert_eq!((config.model.dim, config.model.depth, config.model.heads), (Some(16), Some(2), Some(4)));
}

#[test]
fn number_spellings_of_python_are_understood() {
    for (text, value) in [
        ("16", 16),
        ("+16", 16),
        ("0x10", 16),
        ("1_6", 16),
        ("16.0", 16),
        ("1.6e1", 16),
        ("!!int \"16\"", 16),
    ] {
        assert_eq!(parse(&format!("model: {{dim: {text}}}")).model.dim, Some(value), "{text}");
    }
}

#[test]
fn invalid_value_error_names_position_and_expectation() {
    let cases: [(&str, &[&str]); 25] = [
        ("dim: large", &["test.yaml:2:8: model.dim: expected a positive whole number, found \"large\""]),
        ("dim: \"384\"", &["positive whole number", "found \"384\""]),
        ("dim: 0", &["from 1 to 65536", "found 0"]),
        ("dim: -5", &["found -5"]),
        ("dim: 1.5", &["positive whole number, found 1.5"]),
        ("dim: 65537", &["from 1 to 65536", "found 65537"]),
        ("dim: 99999999999999999999999", &["model.dim"]),
        ("dim: .inf", &["model.dim"]),
        ("dim: nan", &["model.dim"]),
        ("dim: --5", &["model.dim"]),
        ("dim: [1, 2]", &["found a list of 2"]),
        ("dim: {a: 1}", &["found a section of 1 keys"]),
        ("dim: true", &["found \"true\""]),
        ("dim: !!python/object/apply:os.system [ls]", &["model.dim", "os.system a list of 1"]),
        ("dim: !!python/name:os.system x", &["python/name:os.system"]),
        ("depth: 4000", &["model.depth", "from 1 to 1024"]),
        ("stft_n_fft: 2097152", &["model.stft_n_fft", "1048576"]),
        ("stereo: 2", &["model.stereo: expected true or false, found 2"]),
        ("stereo: \"true\"", &["expected true or false, found \"true\""]),
        ("experimental_residuals: 2", &["true or false", "found 2"]),
        ("freqs_per_bands: 62", &["a list of whole numbers, found 62"]),
        ("freqs_per_bands: []", &["model.freqs_per_bands", "found a list of 0"]),
        ("freqs_per_bands: [2, x, 4]", &["test.yaml:2:24", "found \"x\""]),
        (
            "freqs_per_bands: !!python/object/apply:os.system [1]",
            &["found !!python/object/apply:os.system a list of 1"],
        ),
        ("freq_range: [1, 2, 3]", &["two whole numbers, found a list of 3"]),
    ];
    for (line, parts) in cases {
        let message = refusal(&format!("model:\n  {line}\n"));
        for part in parts {
            assert!(message.contains(part), "{line}: {part:?} is not in: {message}");
        }
    }
}

#[test]
fn invalid_sections_and_stems_are_refused() {
    let cases: [(&str, &str); 12] = [
        ("model: 5", "model: expected a section"),
        ("- a\n- b", "found a list of 2"),
        ("hello", "found \"hello\""),
        ("audio: {}\n", "no `model` section"),
        ("model:\naudio: {}\n", "no `model` section"),
        ("model: {}\ntraining: {instruments: vocals}", "training.instruments: expected a list of names"),
        ("model: {}\ntraining: {instruments: [a, a]}", "each name once"),
        ("model: {}\ntraining: {instruments: []}", "training.instruments"),
        ("model: {}\ntraining: {instruments: [[a]]}", "a name of 1 to"),
        ("model: {}\ntraining: {target_instrument: \"\"}", "training.target_instrument"),
        ("model: {}\ntraining: {target_instrument: \"a\\0b\"}", "training.target_instrument"),
        ("model: {}\naudio: {sample_rate: 44.1}", "audio.sample_rate: expected a positive whole number"),
    ];
    for (text, part) in cases {
        let message = refusal(text);
        assert!(message.starts_with("test.yaml:"), "{message}");
        assert!(message.contains(part), "{text:?}: {part:?} is not in: {message}");
    }
}

#[test]
fn invalid_yaml_is_refused_with_position() {
    for text in [
        "model: [1, 2",
        "model: {a: b",
        "a: b: c",
        "model:\n\tdim: 1",
        "\"model",
        "%YAML 9\nx",
        "model: *nothing",
        "@",
    ] {
        let error = Config::from_yaml(text, "test.yaml").unwrap_err();
        assert!(matches!(error, ConfigError::Syntax { line: 1.., column: 1.., .. }), "{text:?}: {error}");
    }
    for text in ["", "\n\n", "# only a comment\n", "---\n...\n"] {
        let message = refusal(text);
        assert!(message.contains("empty") || message.contains("found nothing"), "{text:?}: {message}");
    }
    assert!(refusal("model: \0").contains("not a text file"));
}

#[test]
fn yaml_bombs_are_refused() {
    // Nine levels of nine aliases: 400 million leaves for whoever copies.
    let mut laughs = "a0: &a0 [x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        laughs += &format!("a{level}: &a{level} [{below}]\n");
    }
    assert_eq!(parse(&format!("{laughs}model: {{dim: 8}}")).model.dim, Some(8));
    assert!(refusal(&format!("{laughs}model: {{freqs_per_bands: *a9}}")).contains("freqs_per_bands"));

    for unit in ["[", "{a: ", "- ", "? "] {
        let message = refusal(&format!("model: {{dim: 8}}\nx:\n  {}", unit.repeat(100_000)));
        assert!(message.starts_with("test.yaml:2") || message.starts_with("test.yaml:3"), "{message}");
    }
    assert!(refusal(&format!("x: [{}]", "a,".repeat(300_000))).contains("values"));
    assert!(refusal(&"#".repeat(5 << 20)).contains("too large"));
    // Whatever fills the largest text is read or refused in little time.
    for unit in [
        "a",
        "a\n",
        " a:\n",
        "- a\n",
        "a: &b c\n",
        "? a\n",
        "'a\n",
        "\"\\\n",
        "# a\n",
        "!a ",
        "%TAG !a! b\n",
        "*a ",
        "a: |\n a\n",
        "[a,",
        "{",
        "\t",
        "---\n",
    ] {
        let start = Instant::now();
        let _ = Config::from_yaml(&unit.repeat((1 << 20) / unit.len()), "long.yaml");
        assert!(start.elapsed() < Duration::from_secs(10), "{unit:?}: {:?}", start.elapsed());
    }
    let merged = "m: &m {<<: *m}\nmodel: {<<: *m}";
    assert!(
        Config::from_yaml(merged, "test.yaml").is_ok_and(|config| config.model.dim.is_none())
            || refusal(merged).contains(':')
    );
}

#[test]
fn damaged_bytes_never_panic() {
    for at in 0..TYPICAL.len() {
        for byte in *b" \t\n:[]{}&*!|>'\"%@-?#,0" {
            let mut damaged = TYPICAL.as_bytes().to_vec();
            damaged[at] = byte;
            let _ = Config::from_yaml(&String::from_utf8(damaged).unwrap(), "damaged.yaml");
        }
        let _ = Config::from_yaml(&TYPICAL[..at], "cut.yaml");
    }
}

#[test]
fn error_names_paths_that_are_not_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("конфиг 音.yaml");
    std::fs::write(&path, TYPICAL).unwrap();
    let without_warnings = |mut config: Config| {
        config.warnings.clear();
        config
    };
    assert_eq!(without_warnings(Config::from_file(&path).unwrap()), without_warnings(parse(TYPICAL)));
    assert!(matches!(Config::from_file(folder.path()), Err(ConfigError::Folder { .. })));
    let missing = Config::from_file(&folder.path().join("missing.yaml")).unwrap_err();
    assert!(missing.to_string().contains("missing.yaml"));
    std::fs::write(&path, [0x80, 0x02, 0xff]).unwrap();
    let message = Config::from_file(&path).unwrap_err().to_string();
    assert!(message.contains("is this the checkpoint itself?"), "{message}");
}

#[test]
fn values_that_change_nothing_are_warnings() {
    for (line, warned) in [
        ("flash_attn: \"True\"", true),
        ("flash_attn: 'yes'", true),
        ("flash_attn: 1", false),
        ("flash_attn: maybe", true),
        ("dim_freqs_in: \"1025\"", true),
        ("attn_dropout: \"0.1\"", true),
        ("multi_stft_resolutions_window_sizes: none", true),
        ("flash_attn: true", false),
    ] {
        let config = parse(&format!("model: {{{line}}}"));
        assert_eq!(!config.warnings.is_empty(), warned, "{line}: {:?}", config.warnings);
        let key = line.split(':').next().unwrap();
        assert!(config.warnings.iter().all(|warning| warning.contains(key)), "{:?}", config.warnings);
    }
    let taken = parse("model: {flash_attn: \"True\", dim_freqs_in: \"1025\", attn_dropout: \"0.1\"}").model;
    assert_eq!(
        (taken.flash_attn, taken.dim_freqs_in, taken.attn_dropout),
        (Some(true), Some(1025), Some(0.1))
    );
    // Where the value changes the result, a text stays an error.
    assert!(refusal("model: {num_stems: \"4\"}").contains("num_stems"));
}

#[test]
fn misspelt_keys_get_a_suggestion() {
    for (yaml, meant) in [
        ("model: {dim: 8}\ntraining: {instrments: [a]}", "training.instruments"),
        ("model: {dim: 8}\ntraining: {Instruments: [a]}", "training.instruments"),
        ("model: {dim: 8}\ntraining: {stems: [a]}", "training.instruments"),
        ("model: {dim: 8}\ntraining: {Sources: [a]}", "training.instruments"),
        ("model: {dim: 8}\ntraining: {target-instrument: a}", "training.target_instrument"),
        ("model: {stft_hop_lenght: 512}", "model.stft_hop_length"),
        ("model: {dim: 8}\ninference: {num_overlaps: 2}", "inference.num_overlap"),
    ] {
        let config = parse(yaml);
        let warning = config.warnings.iter().find(|warning| warning.contains("did you mean"));
        assert!(warning.is_some_and(|warning| warning.contains(meant)), "{yaml}: {:?}", config.warnings);
    }
    // Settings of a trainer are no misspellings.
    assert_eq!(parse(TYPICAL).warnings.len(), 1, "{:?}", parse(TYPICAL).warnings);
}

#[test]
fn stems_that_differ_only_in_case_get_files_of_their_own() {
    let config = parse("model: {dim: 8}\ntraining: {instruments: [Vocals, vocals, VOCALS, vocals 2]}");
    let lower: Vec<String> = config.stems().iter().map(|name| name.to_lowercase()).collect();
    let distinct: std::collections::BTreeSet<_> = lower.iter().collect();
    assert_eq!(distinct.len(), 4, "{lower:?}");
    assert_eq!(config.stems()[0], "Vocals");
    assert!(!config.warnings.is_empty());
}

#[test]
fn experimental_training_code_is_warned_about() {
    for yaml in [
        "model: {dim: 8}\ntraining: {model_type: bs_roformer_experimental}",
        "model_type: mel_band_roformer_experimental\nmodel: {dim: 8}",
        "model: {dim: 8}\ntraining: {model_type: Mel_Band_Roformer_Experimental}",
    ] {
        assert!(parse(yaml).warnings.iter().any(|warning| warning.contains("27 March 2025")), "{yaml}");
    }
    let chosen = "model: {experimental_residuals: true}\ntraining: {model_type: bs_roformer_experimental}";
    assert_eq!((parse(chosen).warnings.len(), parse(chosen).model.experimental_residuals), (0, Some(true)));
    assert!(parse("model: {dim: 8}\ntraining: {model_type: bs_roformer}").warnings.is_empty());
}
