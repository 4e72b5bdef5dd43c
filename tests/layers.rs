//! Checks the imports between the library's top-level modules against the layers in `ARCHITECTURE.md`.
#![allow(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every module with all of its imports. A module may import those above it.
const LAYERS: &[(&str, &[&str])] = &[
    ("dsp", &[]),
    ("environment", &[]),
    ("hash", &[]),
    ("kernels", &[]),
    ("lossless", &[]),
    ("atomic_file", &[]),
    ("audio", &["dsp", "atomic_file"]),
    ("demo", &["dsp"]),
    ("model", &["dsp", "hash", "kernels", "atomic_file"]),
    ("embedded", &["hash", "model"]),
    ("registry", &["hash", "model", "atomic_file"]),
    ("separator", &["dsp", "kernels", "model"]),
    ("offline", &["audio", "dsp", "kernels", "lossless", "separator"]),
    ("live", &["dsp", "kernels", "model", "separator"]),
    ("prepared", &["atomic_file", "audio", "hash", "kernels", "live", "lossless", "offline", "separator"]),
    ("cache_file", &["atomic_file", "registry"]),
    ("live_cost", &["cache_file", "dsp", "embedded", "live", "model", "registry", "separator"]),
    ("worker", &["embedded", "kernels", "live", "model", "registry", "separator"]),
    ("api", &["audio", "embedded", "live", "model", "offline", "separator"]),
    ("train", &["atomic_file", "audio", "dsp", "hash", "kernels", "model", "offline", "separator"]),
    (
        "plugin",
        &[
            "audio",
            "cache_file",
            "embedded",
            "hash",
            "kernels",
            "live",
            "live_cost",
            "model",
            "offline",
            "prepared",
            "registry",
            "separator",
            "worker",
        ],
    ),
];

/// The modules that each module imports as `crate::…`, without comments, tests and itself.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name != "lib" && name != "bin" {
            collect_imports(&path, &name, imports.entry(name.clone()).or_default());
        }
    }
    imports
}

fn collect_imports(path: &Path, module: &str, found: &mut BTreeSet<String>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| collect_imports(&entry.unwrap().path(), module, found));
    } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
        let text = fs::read_to_string(path).unwrap();
        // Test modules are last in their file.
        let code = text.lines().take_while(|line| *line != "mod tests {");
        found.extend(code.filter(|line| !line.trim_start().starts_with("//")).flat_map(imported_modules));
        found.remove(module);
    }
}

/// The identifier after each `crate::` in a line.
fn imported_modules(line: &str) -> impl Iterator<Item = String> {
    let paths = line.split("crate::").skip(1);
    paths.map(|path| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

#[test]
fn imports_match_the_table() {
    let table: BTreeMap<String, BTreeSet<String>> = LAYERS
        .iter()
        .map(|(module, below)| ((*module).into(), below.iter().map(|name| (*name).into()).collect()))
        .collect();
    assert_eq!(imports(), table);
}

#[test]
fn layers_import_one_way() {
    let mut above = BTreeSet::new();
    for (module, imports) in LAYERS {
        let up: Vec<_> = imports.iter().filter(|name| !above.contains(*name)).collect();
        assert!(up.is_empty(), "{module} imports {up:?}, which are not above it in the table");
        above.insert(*module);
    }
}
