//! The list of known checkpoints is well formed, and names are found.

use std::collections::HashSet;

use nullsum::model::architecture::Family;
use nullsum::model::config::Config;
use nullsum::registry::{
    RegistryError, RemoteFile, Task, benchmarks, default_entry, entries, entries_for, find, recognise,
    recognise_content, sort_by_score,
};

fn remotes() -> impl Iterator<Item = (&'static str, &'static RemoteFile)> {
    entries().iter().flat_map(|e| [(e.name.as_str(), &e.checkpoint), (e.name.as_str(), &e.config)])
}

#[test]
fn names_are_unique_and_well_formed() {
    let mut seen = HashSet::new();
    for e in entries() {
        assert!(seen.insert(&e.name), "{} twice", e.name);
        assert!(
            e.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
            "{}",
            e.name
        );
        assert!((3..=40).contains(&e.name.len()), "{}", e.name);
        assert_ne!(e.name, "default");
    }
    assert!(entries().len() >= 77);
}

#[test]
fn checkpoints_are_unique() {
    let mut seen = HashSet::new();
    for e in entries() {
        assert!(seen.insert(&e.checkpoint.url), "{} has another entry's checkpoint", e.name);
        if let Some(hash) = &e.checkpoint.sha256 {
            assert!(seen.insert(hash), "{} has another entry's hash", e.name);
        }
    }
}

#[test]
fn urls_are_https_with_expected_extensions() {
    for (name, remote) in remotes() {
        assert!(remote.url.starts_with("https://"), "{name}: {}", remote.url);
        assert!(
            remote.url.is_ascii() && !remote.url.contains([' ', '?', '#', '%']),
            "{name}: {}",
            remote.url
        );
        assert!(remote.url.ends_with(&remote.file_name()), "{name}: {}", remote.url);
    }
    for e in entries() {
        assert!(e.checkpoint.url.ends_with(".ckpt"), "{}", e.name);
        assert!(e.config.url.ends_with(".yaml"), "{}", e.name);
        for mirror in &e.checkpoint.mirrors {
            assert!(mirror.starts_with("https://") && mirror.ends_with(".ckpt"), "{}: {mirror}", e.name);
            assert!(*mirror != e.checkpoint.url && !mirror.contains("/blob/"), "{}: {mirror}", e.name);
        }
        assert!(e.source.starts_with("https://"), "{}", e.name);
        // A `blob` address is a web page, not the file.
        assert!(!e.checkpoint.url.contains("/blob/") && !e.config.url.contains("/blob/"), "{}", e.name);
    }
}

#[test]
fn hashes_are_sha256_and_sizes_are_plausible() {
    for (name, remote) in remotes() {
        if let Some(hash) = &remote.sha256 {
            assert_eq!(hash.len(), 64, "{name}");
            assert!(hash.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{name}: {hash}");
        }
    }
    for e in entries() {
        assert!(e.checkpoint.size.is_none_or(|n| (10_000_000..10_000_000_000).contains(&n)), "{}", e.name);
        assert!(e.config.size.is_none_or(|n| (200..20_000).contains(&n)), "{}", e.name);
    }
}

#[test]
fn every_entry_has_stems_title_and_author() {
    for e in entries() {
        assert!(!e.stems.is_empty(), "{}", e.name);
        let unique: HashSet<_> = e.stems.iter().collect();
        assert_eq!(unique.len(), e.stems.len(), "{}", e.name);
        assert!(e.stems.iter().all(|s| !s.is_empty() && *s == s.to_lowercase()), "{}", e.name);
        assert!(!e.title.is_empty() && !e.author.is_empty(), "{}", e.name);
        assert!(e.licence.as_deref() != Some(""), "{}", e.name);
        assert!(
            e.licence.is_none() || e.code_licence.is_none(),
            "{}: the code's licence says nothing more",
            e.name
        );
        assert!(!e.tasks.is_empty(), "{}", e.name);
        assert_eq!(e.instruments.is_empty(), e.target.is_none(), "{}", e.name);
        let prefix = match e.architecture {
            Family::BsRoformer => "bs-",
            Family::MelBandRoformer => "mel-band-",
        };
        assert!(e.name.starts_with(prefix), "{} is a {}", e.name, e.architecture);
    }
}

#[test]
fn published_scores_name_benchmark_and_are_plausible() {
    for e in entries() {
        for sdr in &e.sdr {
            assert!(!sdr.benchmark.is_empty(), "{}", e.name);
            assert!(sdr.average_db.is_some() || !sdr.stems.is_empty(), "{}: no figure", e.name);
            for db in sdr.stems.iter().map(|s| s.db).chain(sdr.average_db) {
                assert!((1.0..35.0).contains(&db), "{}: {db}", e.name);
            }
        }
        assert_eq!(e.sdr_lines().len(), e.sdr.len());
    }
}

#[test]
fn default_is_four_stem_checkpoint() {
    let e = default_entry();
    assert_eq!(e, &entries()[0]);
    assert_eq!(e.stems_text(), "drums, bass, other, vocals");
    assert_eq!(e.checkpoint.file_name(), "model_bs_roformer_ep_17_sdr_9.6568.ckpt");
    assert!(e.checkpoint.sha256.is_some() && e.config.sha256.is_some());
    assert_eq!(e.size_text(), "527 MB");
    assert_eq!(e.sdr_text(), "9.65 dB (MUSDB18-HQ)");
    assert_eq!(
        e.sdr_lines()[0],
        "MUSDB18-HQ: bass 8.48 dB, drums 11.61 dB, vocals 11.08 dB, other 7.44 dB, mean 9.65 dB"
    );
}

#[test]
fn unknown_values_read_not_stated() {
    let e = find("bs-viperx-1297").unwrap();
    assert_eq!(e.licence_text(), "not stated");
    let e = find("bs-polarformer").unwrap();
    assert_eq!(e.size_text(), "size not stated");
    assert!(entries().iter().any(|e| e.sdr_text() == "-"));
}

#[test]
fn lookup_ignores_case() {
    let default = default_entry();
    for name in [
        "bs-roformer-musdb18hq",
        "BS-RoFormer-MUSDB18HQ",
        " default ",
        "model_bs_roformer_ep_17_sdr_9.6568.ckpt",
        "model_bs_roformer_ep_17_sdr_9.6568",
    ] {
        assert_eq!(find(name).unwrap(), default, "{name:?}");
    }
}

#[test]
fn misspelt_name_gets_suggestion() {
    for (typed, meant) in [
        ("mel-band-kimm", "mel-band-kim"),
        ("viperx", "bs-viperx-1297"),
        ("bs-polarfomer", "bs-polarformer"),
        ("deux", "mel-band-becruily-deux"),
        ("mel-band-dereverb-eco", "mel-band-dereverb-echo"),
    ] {
        let Err(RegistryError::UnknownModel { similar, .. }) = find(typed) else { panic!("{typed} found") };
        assert!(similar.iter().any(|n| n == meant), "{typed}: {similar:?}");
        assert!(similar.len() <= 3);
    }
    let e = find("mel-band-kimm").unwrap_err().to_string();
    assert!(e.contains("\"mel-band-kimm\"") && e.contains("did you mean mel-band-kim"), "{e}");
    let e = find("xyzzy").unwrap_err().to_string();
    assert!(!e.contains("did you mean"), "{e}");
    // Must not take for ever, nor panic on what isn't ASCII.
    assert!(find(&"ä".repeat(1_000_000)).is_err());
    assert!(find("").is_err());
}

#[test]
fn every_file_name_finds_its_entry() {
    let mut owners = std::collections::HashMap::new();
    for e in entries() {
        for file in e.file_names() {
            let other = owners.insert(file.to_ascii_lowercase(), &e.name);
            assert!(other.is_none(), "{file} is of {} and of {other:?}", e.name);
            assert_eq!(find(&file).unwrap().name, e.name);
            assert_eq!(find(file.trim_end_matches(".ckpt")).unwrap().name, e.name, "without extension");
        }
    }
    // Names that the author, UVR and audio-separator use for one file.
    for name in ["inst_v1e", "melband_roformer_inst_v1e.ckpt", "mel-band-inst-v1e"] {
        assert_eq!(find(name).unwrap().name, "mel-band-inst-v1e");
    }
}

#[test]
fn licences_of_code_are_not_those_of_weights() {
    for name in [
        "bs-roformer-musdb18hq",
        "bs-polarformer",
        "mel-band-musdb18hq-128",
        "mel-band-musdb18hq-256",
        "mel-band-musdb18hq-256-skip",
        "bs-mega-53",
    ] {
        let e = find(name).unwrap();
        assert_eq!(e.licence_text(), "not stated (code: MIT)", "{name}");
        assert!(
            e.licence_note.as_deref().unwrap_or_default().contains("No licence is stated for the weights")
        );
    }
    assert_eq!(find("bs-anvuew-vocals").unwrap().licence_text(), "GPL-3.0");
}

#[test]
fn wrong_stem_names_of_a_yaml_are_corrected() {
    let mut config = Config::from_yaml(
        "model: {dim: 384}\ntraining: {instruments: [vocals, other], target_instrument: other}",
        "model.yaml",
    )
    .unwrap();
    find("bs-viperx-1053").unwrap().correct(&mut config);
    assert_eq!(config.stems(), ["No Drum-Bass"]);
    assert_eq!(config.training.instruments, ["No Drum-Bass", "Drum-Bass"]);
    let before = config.clone();
    default_entry().correct(&mut config);
    assert_eq!(config, before);
}

#[test]
fn entries_are_filtered_by_task_and_sorted_within_one_benchmark() {
    for task in Task::ALL {
        let found = entries_for(Some(task));
        assert!(!found.is_empty() && found.iter().all(|e| e.tasks.contains(&task)), "{task}");
        assert_eq!(task.key().parse::<Task>().unwrap(), task);
    }
    assert_eq!(entries_for(None).len(), entries().len());
    assert!("voices".parse::<Task>().unwrap_err().to_string().contains("singers"));
    for benchmark in benchmarks() {
        let mut vocals = entries_for(Some(Task::Vocals));
        sort_by_score(&mut vocals, benchmark, Some("vocals"));
        let scores: Vec<Option<f32>> = vocals.iter().map(|e| e.score(benchmark, Some("vocals"))).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{benchmark}: {scores:?}");
    }
    assert!(benchmarks().contains(&"Multisong"));
}

#[test]
fn network_sizes_are_plausible() {
    let known: Vec<_> = entries().iter().filter_map(|e| Some((e, e.network?))).collect();
    assert!(known.len() >= 60, "{}", known.len());
    for (e, size) in known {
        assert!((16..=1024).contains(&size.dim) && (1..=24).contains(&size.depth), "{}", e.name);
        assert!((1..=4).contains(&size.time_depth) && (1..=4).contains(&size.freq_depth), "{}", e.name);
        assert!((1..=16).contains(&size.heads) && (16..=256).contains(&size.bands), "{}", e.name);
        assert!(size.hop < size.n_fft && size.chunk > size.n_fft, "{}", e.name);
    }
    let default = default_entry().network.unwrap();
    assert_eq!((default.dim, default.depth, default.bands, default.hop), (384, 8, 62, 441));
}

#[test]
fn files_are_recognised_by_name_and_size_or_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let e = find("bs-dereverb-room").unwrap();
    let size = e.checkpoint.size.unwrap();
    let sparse = |name: &str, size: u64| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        path
    };
    assert_eq!(recognise(&sparse(&e.checkpoint.file_name(), size)), Some(e));
    assert_eq!(recognise(&sparse("renamed.ckpt", size)), None, "the same size is no proof");
    assert_eq!(recognise(&sparse(&e.checkpoint.file_name(), size - 1)), None);
    assert_eq!(recognise(&folder.path().join("missing.ckpt")), None);
    assert_eq!(recognise_content(e.checkpoint.sha256.as_deref().unwrap()), Some(e));
}
