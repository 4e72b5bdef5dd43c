//! The licences of what a program is built from, which ask to be passed on with it.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Beginnings of the names of files with licences and notices.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];

/// Writes to `file` name, licence and licence texts of every crate that goes into the program of the project at `root` with `features`.
pub fn write(file: &Path, root: &Path, features: &str) -> Result<()> {
    let folders = folders(root, features)?;
    let mut text = String::from("Nullsum is built from these crates, with thanks to their authors.\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, licence, address) in crates(root, features)? {
        writeln!(text, "\n{name}: {licence}\n    {address}")?;
        for licence in folders.get(&name).map(|folder| licences(folder)).transpose()?.unwrap_or_default() {
            texts.entry(licence).or_default().push(name.clone());
        }
    }
    for (licence, names) in texts {
        write!(text, "\n{}\n{}\n\n{}\n", "=".repeat(78), names.join(", "), licence.trim())?;
    }
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(cargo).current_dir(root).args(arguments).output().context("cargo does not start")?;
    ensure!(
        output.status.success(),
        "cargo {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Name with version, licence and address of each crate that is linked, but for the project's own.
fn crates(root: &Path, features: &str) -> Result<Vec<(String, String, String)>> {
    let format = "{p}\t{l}\t{r}";
    let tree =
        cargo(root, &["tree", "-e", "normal", "--prefix", "none", "--features", features, "-f", format])?;
    let mut crates: Vec<_> = tree
        .lines()
        .filter_map(|line| {
            let mut parts = line.split('\t');
            let mut next = || parts.next().map(str::trim);
            // `name vVERSION`, and for the project's own its folder.
            let name = next().filter(|name| !name.contains('('))?.replacen(" v", " ", 1);
            Some((
                name,
                next()?.trim_end_matches(" (*)").to_string(),
                next()?.trim_end_matches(" (*)").to_string(),
            ))
        })
        .collect();
    crates.sort();
    crates.dedup();
    ensure!(!crates.is_empty(), "cargo tree names no crates");
    Ok(crates)
}

/// Where each crate's source lies, by name with version.
fn folders(root: &Path, features: &str) -> Result<BTreeMap<String, PathBuf>> {
    let metadata = cargo(root, &["metadata", "--format-version", "1", "--features", features])?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let folder = |package: &Value| {
        let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
        Some((
            format!("{name} {version}"),
            Path::new(package["manifest_path"].as_str()?).parent()?.to_path_buf(),
        ))
    };
    Ok(packages.iter().filter_map(folder).collect())
}

/// Texts of the licence files in a folder.
fn licences(folder: &Path) -> Result<Vec<String>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
            file.is_file() && NAMES.iter().any(|known| name.starts_with(known))
        })
        .collect();
    files.sort();
    Ok(files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .map(|text| text.replace("\r\n", "\n"))
        .collect())
}
