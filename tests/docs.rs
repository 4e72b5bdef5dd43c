//! Checks the documents: their links, the length of README and ARCHITECTURE, and the quick start.
#![allow(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Markdown files of the repository's top level, `docs`, `assets`, `training` and `tests`.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["docs", "assets", "training", "tests"].map(|folder| root().join(folder)).into();
    let top = std::fs::read_dir(root()).unwrap();
    found.extend(top.map(|entry| entry.unwrap().path()).filter(|path| is_markdown(path)));
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if is_markdown(&path) {
                found.push(path);
            }
        }
    }
    found
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

/// Targets of the links `[text](target)` outside fenced code.
fn link_targets(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut targets = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let pieces = line.split("](").skip(1);
            targets.extend(pieces.filter_map(|piece| piece.split_once(')')).map(|(target, _)| target.into()));
        }
    }
    targets
}

#[test]
fn relative_links_lead_to_files() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for target in link_targets(&text) {
            let path = target.split('#').next().unwrap_or_default();
            if !target.contains("://") && !path.is_empty() && !document.with_file_name(path).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn readme_and_architecture_stay_short() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.split_whitespace().count() <= 900, "{} words", readme.split_whitespace().count());
    let architecture = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(architecture.lines().count() <= 150, "{} lines", architecture.lines().count());
}

#[test]
fn readme_begins_with_the_two_commands_of_the_quick_start() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<&str> =
        readme.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert_eq!(blocks.get(..2), Some(["scripts/separate\n", "scripts/test\n"].as_slice()));
}
