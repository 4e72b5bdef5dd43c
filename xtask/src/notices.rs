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

/// Writes to `file` name, licence and licence texts of every crate that goes into the program that cargo builds of the project at `root` when it gets
/// these arguments.
pub fn write(file: &Path, root: &Path, arguments: &[String]) -> Result<()> {
    let features = chosen(arguments, &["--features", "-F"]).join(",");
    let target = match chosen(arguments, &["--target"]).pop() {
        Some(target) => target,
        None => host()?,
    };
    let folders = folders(root, &features, &target)?;
    let mut text = String::from("Nullsum is built from these crates, with thanks to their authors.\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, licence, address) in crates(root, &features, &target)? {
        writeln!(text, "\n{name}: {licence}\n    {address}")?;
        for licence in folders.get(&name).map(|folder| licences(folder)).transpose()?.unwrap_or_default() {
            let names = texts.entry(licence).or_default();
            if !names.contains(&name) {
                names.push(name.clone());
            }
        }
    }
    for (licence, names) in texts {
        write!(text, "\n{}\n{}\n\n{}\n", "=".repeat(78), names.join(", "), licence.trim())?;
    }
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

/// The values of an option, written `--option value` or `--option=value`.
pub fn chosen(arguments: &[String], options: &[&str]) -> Vec<String> {
    let mut values = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.split_once('=') {
            Some((option, value)) if options.contains(&option) => values.push(value.to_owned()),
            None if options.contains(&argument.as_str()) => values.extend(rest.next().cloned()),
            _ => {}
        }
    }
    values
}

/// The system that programs are built for where none is named.
fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("rustc does not start")?;
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc names no host")
}

/// What cargo prints.
pub fn cargo(root: &Path, arguments: &[&str]) -> Result<String> {
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
fn crates(root: &Path, features: &str, target: &str) -> Result<Vec<(String, String, String)>> {
    let format = "{p}\t{l}\t{r}";
    let tree = cargo(
        root,
        &[
            "tree",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--features",
            features,
            "--target",
            target,
            "-f",
            format,
        ],
    )?;
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
fn folders(root: &Path, features: &str, target: &str) -> Result<BTreeMap<String, PathBuf>> {
    let metadata = cargo(
        root,
        &["metadata", "--format-version", "1", "--features", features, "--filter-platform", target],
    )?;
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

/// Texts of the licence files of a crate; those of fonts lie beside them.
fn licences(folder: &Path) -> Result<Vec<String>> {
    let in_folder = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
        Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|file| file.is_file()).collect())
    };
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    let mut files = in_folder(folder)?;
    files.retain(|file| NAMES.iter().any(|known| name(file).starts_with(known)));
    let fonts = folder.join("fonts");
    if fonts.is_dir() {
        files.extend(in_folder(&fonts)?.into_iter().filter(|file| name(file).ends_with(".TXT")));
    }
    files.sort();
    Ok(files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .map(|text| text.replace("\r\n", "\n"))
        .collect())
}
