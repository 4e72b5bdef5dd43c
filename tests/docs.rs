//! Checks the documents: the length of README and ARCHITECTURE, and the quick start.
#![allow(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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
