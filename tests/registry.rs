//! The list of known checkpoints is well formed, and names are found.

use std::collections::HashSet;

use nullsum::model::architecture::Family;
use nullsum::registry::{RegistryError, RemoteFile, default_entry, entries, find};

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
    assert!(entries().len() >= 15);
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
        ("mel-band-dereverb-eco", "mel-band-dereverb-echo-v2"),
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
