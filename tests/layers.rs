//! Which top-level module of the library imports which: the picture in `ARCHITECTURE.md`, held.
#![allow(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every module with all that it imports. A module may import those above it.
const LAYERS: &[(&str, &[&str])] = &[
    ("dsp", &[]),
    ("hash", &[]),
    ("kernels", &[]),
    ("lossless", &[]),
    ("partial", &[]),
    ("audio", &["dsp", "partial"]),
    ("demo", &["dsp"]),
    ("model", &["dsp", "hash", "kernels", "partial"]),
    ("embedded", &["hash", "model"]),
    ("registry", &["hash", "model", "partial"]),
    ("separator", &["dsp", "kernels", "model"]),
    ("offline", &["audio", "dsp", "lossless", "separator"]),
    ("stream", &["dsp", "separator"]),
    ("plugin", &["audio", "embedded", "hash", "model", "partial", "registry", "separator", "stream"]),
];

/// The modules that each module's files name as `crate::…`, but for comments, its tests and itself.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name != "lib" && name != "bin" {
            add(&path, &name, imports.entry(name.clone()).or_default());
        }
    }
    imports
}

fn add(path: &Path, module: &str, found: &mut BTreeSet<String>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| add(&entry.unwrap().path(), module, found));
    } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
        let text = fs::read_to_string(path).unwrap();
        // Tests are the last in their file.
        let code = text.lines().take_while(|line| *line != "mod tests {");
        found.extend(code.filter(|line| !line.trim_start().starts_with("//")).flat_map(named));
        found.remove(module);
    }
}

/// What follows each `crate::` of a line.
fn named(line: &str) -> impl Iterator<Item = String> {
    let paths = line.split("crate::").skip(1);
    paths.map(|path| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

#[test]
fn modules_import_what_the_table_says() {
    let table: BTreeMap<String, BTreeSet<String>> = LAYERS
        .iter()
        .map(|(module, below)| ((*module).into(), below.iter().map(|name| (*name).into()).collect()))
        .collect();
    assert_eq!(imports(), table);
}

#[test]
fn the_table_goes_one_way() {
    let mut above = BTreeSet::new();
    for (module, imports) in LAYERS {
        let up: Vec<_> = imports.iter().filter(|name| !above.contains(*name)).collect();
        assert!(up.is_empty(), "{module} imports {up:?}, which do not stand above it in the table");
        above.insert(*module);
    }
}
