use std::time::Duration;

use super::*;
use crate::audio::Planar;
use crate::prepared::block::BLOCK;
use crate::prepared::entry::Part;
use crate::prepared::key::{Key, Settings};

const SAMPLES: usize = 2 * BLOCK + 1000;

fn new_entry(audio: &str) -> NewEntry {
    let settings = Settings {
        rate: 44_100,
        chunk: 1000,
        overlap: 2.0,
        lossless: "spectral".into(),
        precision: "f32".into(),
        tta: false,
        shifts: 1,
        normalize: false,
    };
    NewEntry {
        key: Key { audio: audio.into(), model: "m".into(), settings },
        title: "Song".into(),
        model: "Model".into(),
        stems: vec!["vocals".into(), "other".into()],
        channels: 1,
        samples: SAMPLES as u64,
        at: Some(-5),
    }
}

fn ramp(planes: usize, from: usize, count: usize) -> Planar {
    Planar::from_equal(
        (0..planes)
            .map(|p| (from..from + count).map(|i| ((i + 7 * p) % 1000) as f32 / 1024.0).collect())
            .collect(),
    )
}

/// Writes a whole entry, in pieces, and returns its id.
fn fill(store: &Store, audio: &str) -> String {
    let mut writer = store.write(new_entry(audio)).unwrap();
    for (part, planes) in [(Part::Audio, 1), (Part::Stems, 2)] {
        writer.keep_blocks(part, 0).unwrap();
        for from in (0..SAMPLES).step_by(700) {
            writer.append(part, &ramp(planes, from, 700.min(SAMPLES - from))).unwrap();
        }
        writer.finish(part).unwrap();
    }
    writer.commit().unwrap();
    assert!(writer.index().is_complete());
    writer.id().to_owned()
}

fn temp() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_cache(folder.path());
    (folder, store)
}

#[test]
fn stems_come_back_as_they_were_written() {
    let (_folder, store) = temp();
    let id = fill(&store, "a");
    let mut entry = store.open(&id).unwrap();
    assert!(entry.index().is_complete() && entry.index().at == Some(-5));
    for number in 0..3 {
        let (from, count) = (number * BLOCK, BLOCK.min(SAMPLES - number * BLOCK));
        assert_eq!(entry.read(Part::Stems, number as u64).unwrap().planes(), ramp(2, from, count).planes());
        assert_eq!(entry.read(Part::Audio, number as u64).unwrap().planes(), ramp(1, from, count).planes());
    }
    assert!(matches!(entry.read(Part::Stems, 3), Err(StoreError::NotPrepared)));
    assert!(matches!(entry.read(Part::Stems, u64::MAX), Err(StoreError::NotPrepared)));
}

#[test]
fn an_interrupted_entry_is_continued_where_it_was_committed() {
    let (_folder, store) = temp();
    let mut writer = store.write(new_entry("a")).unwrap();
    writer.append(Part::Stems, &ramp(2, 0, BLOCK)).unwrap();
    writer.commit().unwrap();
    // Written, but not committed: lost with the crash.
    writer.append(Part::Stems, &ramp(2, BLOCK, BLOCK)).unwrap();
    assert!(matches!(store.write(new_entry("a")), Err(StoreError::Busy { .. })));
    let id = writer.id().to_owned();
    drop(writer);
    assert_eq!(store.open(&id).unwrap().index().prepared(), BLOCK as u64);
    let mut writer = store.write(new_entry("a")).unwrap();
    assert_eq!(writer.index().prepared(), BLOCK as u64);
    writer.append(Part::Stems, &ramp(2, BLOCK, BLOCK + 1000)).unwrap();
    writer.finish(Part::Stems).unwrap();
    writer.commit().unwrap();
    let mut entry = store.open(&id).unwrap();
    assert_eq!(entry.read(Part::Stems, 1).unwrap().planes(), ramp(2, BLOCK, BLOCK).planes());
    assert_eq!(entry.read(Part::Stems, 2).unwrap().samples(), 1000);
}

#[test]
fn damage_of_every_kind_is_an_error_that_names_the_file() {
    type Damage = fn(&Path);
    let table: [(&str, Damage, &str); 7] = [
        (
            "truncated",
            |folder| {
                File::options().write(true).open(folder.join("stems.bin")).unwrap().set_len(100).unwrap()
            },
            "stems.bin",
        ),
        ("deleted", |folder| fs::remove_file(folder.join("stems.bin")).unwrap(), "stems.bin"),
        (
            "a changed byte",
            |folder| {
                let path = folder.join("stems.bin");
                let mut bytes = fs::read(&path).unwrap();
                bytes[1000] ^= 1;
                fs::write(path, bytes).unwrap();
            },
            "checksum",
        ),
        ("index deleted", |folder| fs::remove_file(folder.join("index.json")).unwrap(), "index.json"),
        (
            "index cut",
            |folder| {
                File::options().write(true).open(folder.join("index.json")).unwrap().set_len(50).unwrap()
            },
            "no index",
        ),
        (
            "index of another version",
            |folder| {
                let path = folder.join("index.json");
                let text = fs::read_to_string(&path).unwrap().replace("\"version\":1", "\"version\":9");
                fs::write(path, text).unwrap();
            },
            "version 9",
        ),
        (
            "index with a huge block",
            |folder| {
                let path = folder.join("index.json");
                let text = fs::read_to_string(&path).unwrap();
                let mut index: serde_json::Value = serde_json::from_str(&text).unwrap();
                index["stem_blocks"][0][1] = u32::MAX.into();
                fs::write(path, index.to_string()).unwrap();
            },
            "stems blocks",
        ),
    ];
    for (name, damage, says) in table {
        let (_folder, store) = temp();
        let id = fill(&store, "a");
        damage(&store.folder().join(&id));
        let error = match store.open(&id) {
            Ok(mut entry) => entry.read(Part::Stems, 0).unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(says) && error.is_damage(), "{name}: {error}");
        assert_eq!(store.list().unwrap().len(), 1, "{name}: it is still listed");
        // And it can be prepared again.
        fill(&store, "a");
        assert!(store.open(&id).unwrap().read(Part::Stems, 0).is_ok(), "{name}");
        store.erase(&id).unwrap();
    }
}

#[test]
fn the_oldest_go_first_and_those_in_use_stay() {
    let (_folder, store) = temp();
    let ids: Vec<String> = ["a", "b", "c"].iter().map(|audio| fill(&store, audio)).collect();
    for (age, id) in ids.iter().enumerate() {
        let lock = store.folder().join(id).join("use.lock");
        let time = SystemTime::now() - Duration::from_secs(1000 - 100 * age as u64);
        File::options().write(true).open(lock).unwrap().set_modified(time).unwrap();
    }
    let mut in_use = store.open(&ids[0]).unwrap();
    in_use.hold();
    let lock = store.folder().join(&ids[0]).join("use.lock");
    File::options()
        .write(true)
        .open(lock)
        .unwrap()
        .set_modified(SystemTime::now() - Duration::from_secs(1000))
        .unwrap();
    let one = store.list().unwrap()[0].bytes;
    assert_eq!(store.limit(), DEFAULT_LIMIT);
    assert_eq!(store.set_limit(2 * one + one / 2).unwrap(), 1);
    let left = |store: &Store| store.list().unwrap().into_iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(left(&store), [ids[2].clone(), ids[0].clone()], "the second is the oldest that is not used");
    assert!(matches!(store.erase(&ids[0]), Err(StoreError::InUse { .. })));
    drop(in_use);
    store.erase(&ids[0]).unwrap();
    assert_eq!(store.limit(), 2 * one + one / 2);
    store.set_limit(1000).unwrap();
    assert!(left(&store).is_empty());
    assert!(matches!(store.write(new_entry("a")), Err(StoreError::Limit { .. })));
}

#[test]
fn names_that_are_no_ids_never_become_paths() {
    let (folder, store) = temp();
    fs::create_dir_all(folder.path().join("other")).unwrap();
    for id in ["../other", "", ".", "/", "other"] {
        assert!(matches!(store.open(id), Err(StoreError::Unknown { .. })), "{id}");
        assert!(matches!(store.erase(id), Err(StoreError::Unknown { .. })), "{id}");
    }
    assert!(folder.path().join("other").is_dir());
    assert!(store.list().unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn a_read_only_store_is_read_and_not_written() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, store) = temp();
    let id = fill(&store, "a");
    let folder = store.folder().join(&id);
    let allow = |mode: u32| {
        for file in fs::read_dir(&folder).unwrap().flatten() {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode | 0o111)).unwrap();
    };
    allow(0o444);
    assert!(store.open(&id).unwrap().read(Part::Stems, 0).is_ok());
    // The administrator may write everywhere.
    if File::options().write(true).open(folder.join("index.json")).is_err() {
        let error = store.write(new_entry("a")).unwrap_err();
        assert!(matches!(error, StoreError::Write { .. }), "{error}");
    }
    allow(0o644);
}
