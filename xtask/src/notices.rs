//! Collects the licences of all linked crates, most of which require that they are distributed with the program.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Prefixes of the file names of licences and notices.
const LICENCE_PREFIXES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];

/// Writes name, licence and licence text of every linked crate to `file`. `arguments` are those of the `cargo build` in `root`.
pub fn write(file: &Path, root: &Path, arguments: &[String]) -> Result<()> {
    let features = option_values(arguments, &["--features", "-F"]).join(",");
    let target = match option_values(arguments, &["--target"]).pop() {
        Some(target) => target,
        None => host_triple()?,
    };
    let folders = source_folders(root, &features, &target)?;
    let mut text = String::from("Nullsum is built from these crates, with thanks to their authors.\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, licence, address) in linked_crates(root, &features, &target)? {
        writeln!(text, "\n{name}: {licence}\n    {address}")?;
        for licence in folders.get(&name).map(|folder| licence_texts(folder)).transpose()?.unwrap_or_default()
        {
            let names = texts.entry(licence).or_default();
            if !names.contains(&name) {
                names.push(name.clone());
            }
        }
    }
    for (licence, names) in texts {
        write!(text, "\n{}\n{}\n\n{}\n", "=".repeat(78), names.join(", "), licence.trim())?;
    }
    fs::write(file, text).with_context(|| format!("could not write {}", file.display()))
}

/// The values of an option, written `--option value` or `--option=value`.
pub fn option_values(arguments: &[String], options: &[&str]) -> Vec<String> {
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

/// The default target triple.
fn host_triple() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("could not run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("`rustc -vV` printed no host")
}

/// Runs cargo and returns its standard output.
pub fn run_cargo(root: &Path, arguments: &[&str]) -> Result<String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(cargo).current_dir(root).args(arguments).output().context("could not run cargo")?;
    ensure!(
        output.status.success(),
        "cargo {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Name with version, licence and repository of every linked crate outside this project.
fn linked_crates(root: &Path, features: &str, target: &str) -> Result<Vec<(String, String, String)>> {
    let format = "{p}\t{l}\t{r}";
    let tree = run_cargo(
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
            // `name vVERSION`; the project's own crates are followed by `(FOLDER)`.
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
    ensure!(!crates.is_empty(), "`cargo tree` listed no crates");
    Ok(crates)
}

/// Source folder of each crate, by name with version.
fn source_folders(root: &Path, features: &str, target: &str) -> Result<BTreeMap<String, PathBuf>> {
    let metadata = run_cargo(
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

/// Texts of a crate's licence files. Font licences are in the subfolder `fonts`.
fn licence_texts(folder: &Path) -> Result<Vec<String>> {
    let in_folder = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?;
        Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|file| file.is_file()).collect())
    };
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    let mut files = in_folder(folder)?;
    files.retain(|file| LICENCE_PREFIXES.iter().any(|known| name(file).starts_with(known)));
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
