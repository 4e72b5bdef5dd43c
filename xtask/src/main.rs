//! Build and packaging tasks, run as `cargo xtask <task>`.

mod dist;
mod notices;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "\
cargo xtask <task>

  bundle [nullsum] [--release] [cargo build options]
          build the plugins and the app into target/bundled: Nullsum.vst3, Nullsum.clap, Nullsum
  install [cargo build options]
          bundle in release mode and copy both plugins to the user's plugin folders
  dist [--debug] [cargo build options]
          build plugins, app and command line in release mode and pack them with licences, documents, completions and
          man page into target/dist: an archive, on Debian also a package, and SHA256SUMS";

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let task = arguments.next().with_context(|| format!("no task given\n\n{USAGE}"))?;
    let options: Vec<String> = arguments.collect();
    if options.iter().chain([&task]).any(|word| matches!(word.as_str(), "help" | "--help" | "-h")) {
        println!("{USAGE}");
        return Ok(());
    }
    match task.as_str() {
        "bundle" | "bundle-universal" => bundle(&task, options),
        "install" => install(options),
        "dist" => dist::dist(options),
        other => bail!("unknown task `{other}`\n\n{USAGE}"),
    }
}

/// Builds plugins and app with the framework's bundler.
fn bundle(task: &str, options: Vec<String>) -> Result<()> {
    let mut options = without_package(options)?;
    let wants_plugin = |option: &String| option.split([',', '=', ' ']).any(|feature| feature == "plugin");
    if !options.iter().any(wants_plugin) {
        // On Linux the app needs the system's audio headers. `--features plugin` builds only the plugins, which do not.
        options.extend(["--features".into(), "plugin,standalone".into()]);
    }
    let (root, target) = (root_folder()?, target_folder()?);
    let bundled = target.join("bundled");
    // Remove older builds first: the bundler would take them if this build did not produce a file.
    for file in build_outputs(task, &options) {
        remove(&target.join(file))?;
    }
    for file in ["Nullsum.vst3", "Nullsum.clap", "Nullsum.app", "Nullsum.exe", "Nullsum"] {
        remove(&bundled.join(file))?;
    }
    // The bundler expects the package as its first argument.
    let arguments = [task, "nullsum"].map(String::from).into_iter().chain(options.iter().cloned());
    nice_plug_xtask::main_with_args("cargo xtask", arguments)?;
    if task == "bundle" {
        add_worker(root, &target, &options)?;
    }
    for document in ["LICENSE", "assets/MODEL_CARD.md"] {
        copy_all(&root.join(document), &bundled.join(Path::new(document).file_name().unwrap_or_default()))?;
    }
    notices::write(&bundled.join("THIRD_PARTY.txt"), root, &options)
}

/// Name of the worker's program.
pub const WORKER: &str = "nullsum-worker";

/// Builds the worker's program with the features of the bundle, and puts it beside the libraries of both plugins and the app: that is where they look
/// for it. Windows has no worker yet.
fn add_worker(root: &Path, target: &Path, options: &[String]) -> Result<()> {
    if cfg!(windows) || options.iter().any(|option| option.contains("windows")) {
        return Ok(());
    }
    let bundled = target.join("bundled");
    let program = build_program(root, target, options, WORKER)?;
    let mut folders = vec![bundled.clone(), bundled.join("Nullsum.app/Contents/MacOS")];
    for plugin in ["Nullsum.vst3", "Nullsum.clap"] {
        let contents = fs::read_dir(bundled.join(plugin).join("Contents")).into_iter().flatten().flatten();
        // The folders of libraries, such as `x86_64-linux` and `MacOS`.
        let has_library = |folder: &PathBuf| folder.is_dir() && !folder.ends_with("Resources");
        folders.extend(contents.map(|entry| entry.path()).filter(has_library));
    }
    for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
        copy_all(&program, &folder.join(WORKER))?;
    }
    Ok(())
}

/// Builds a program of the package with the features of the bundle, so that the library is built once. Returns its path.
pub fn build_program(root: &Path, target: &Path, options: &[String], name: &str) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = process::Command::new(cargo)
        .current_dir(root)
        .args(["build", "--bin", name])
        .args(options)
        .status()
        .context("could not run cargo")?;
    ensure!(status.success(), "building {name} failed");
    let first = |option| notices::option_values(options, &[option]).into_iter().next();
    let default = if options.iter().any(|option| option == "--release") { "release" } else { "debug" };
    let profile = first("--profile").unwrap_or_else(|| default.into());
    let folder = target.join(first("--target").unwrap_or_default()).join(profile);
    Ok(folder.join(format!("{name}{}", env::consts::EXE_SUFFIX)))
}

/// Removes the package from the options, in any position and form, since only one package can be bundled.
fn without_package(options: Vec<String>) -> Result<Vec<String>> {
    let mut rest = options.into_iter().peekable();
    let mut packages: Vec<String> = rest.next_if(|word| !word.starts_with('-')).into_iter().collect();
    let mut others = Vec::new();
    while let Some(option) = rest.next() {
        if option == "-p" || option == "--package" {
            packages.push(rest.next().with_context(|| format!("`{option}` names no package"))?);
        } else if let Some(name) = option.strip_prefix("--package=") {
            packages.push(name.to_owned());
        } else {
            // The bundler does not know the short form.
            others.push(if option == "-r" { "--release".to_owned() } else { option });
        }
    }
    match packages.iter().find(|name| *name != "nullsum") {
        Some(other) => bail!("`{other}` cannot be bundled: only `nullsum` can"),
        None => Ok(others),
    }
}

/// Files below the target folder that the bundler takes, relative to it.
fn build_outputs(task: &str, options: &[String]) -> Vec<PathBuf> {
    let first = |option| notices::option_values(options, &[option]).into_iter().next();
    let targets = match task {
        "bundle-universal" => ["x86_64-apple-darwin", "aarch64-apple-darwin"].map(String::from).to_vec(),
        _ => vec![first("--target").unwrap_or_default()],
    };
    let default = if options.iter().any(|option| option == "--release") { "release" } else { "debug" };
    let profile = first("--profile").unwrap_or_else(|| default.into());
    let names = ["nullsum", "nullsum.exe", "libnullsum.so", "libnullsum.dylib", "nullsum.dll"];
    let in_folder = |target: &String| names.map(|name| Path::new(target).join(&profile).join(name));
    targets.iter().flat_map(in_folder).collect()
}

/// Bundles for release and copies the plugins to the user's folders.
fn install(mut options: Vec<String>) -> Result<()> {
    let profile = |option: &String| {
        ["-r", "--release", "--profile"].contains(&option.as_str()) || option.starts_with("--profile=")
    };
    if !options.iter().any(profile) {
        options.push("--release".into());
    }
    bundle("bundle", options)?;
    let bundled = target_folder()?.join("bundled");
    for (plugin, folder) in [("Nullsum.vst3", folders::VST3), ("Nullsum.clap", folders::CLAP)] {
        let folder = folders::of_user(folder)?;
        replace(&bundled.join(plugin), &folder, plugin)?;
        println!("{}", folder.join(plugin).display());
    }
    // The CLAP plugin is a single file on Linux, so its folder holds the program.
    if bundled.join("Nullsum.clap").is_file() && bundled.join(WORKER).exists() {
        replace(&bundled.join(WORKER), &folders::of_user(folders::CLAP)?, WORKER)?;
    }
    Ok(())
}

/// Replaces a plugin in the user's folder completely or not at all. The old one is moved away rather than overwritten, since a host may have it open.
fn replace(from: &Path, folder: &Path, plugin: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    let to = folder.join(plugin);
    let new = folder.join(format!(".{plugin}.new"));
    let old = folder.join(format!(".{plugin}.{}.old", process::id()));
    remove(&new)?;
    let swapped = copy_all(from, &new).and_then(|()| swap(&new, &to, &old));
    if swapped.is_err() {
        // Report the first error, not a failure to clean up.
        let _ = remove(&new);
    }
    swapped?;
    // Also removes leftovers of earlier installations, which a host may have kept open until now.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!(".{plugin}."))
            && name.ends_with("old")
            && let Err(error) = remove(&entry.path())
        {
            eprintln!("warning: {error:#}");
        }
    }
    Ok(())
}

/// Renames `to` to `old` and `new` to `to`. Restores `to` on failure.
fn swap(new: &Path, to: &Path, old: &Path) -> Result<()> {
    let had = to.symlink_metadata().is_ok();
    if had {
        fs::rename(to, old).with_context(|| format!("could not replace {}", to.display()))?;
    }
    let renamed = fs::rename(new, to).with_context(|| format!("could not write {}", to.display()));
    if renamed.is_err() && had {
        fs::rename(old, to)
            .with_context(|| format!("could not restore {}; it is now at {}", to.display(), old.display()))?;
    }
    renamed
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("could not remove {}", path.display()))
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to).with_context(|| format!("could not create {}", to.display()))?;
        for entry in fs::read_dir(from).with_context(|| format!("could not read {}", from.display()))? {
            let entry = entry?;
            copy_all(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::copy(from, to)
        .map(|_| ())
        .with_context(|| format!("could not copy {} to {}", from.display(), to.display()))
}

/// Folders in which hosts look for a user's own plugins.
mod folders {
    use std::env;
    use std::path::PathBuf;

    use anyhow::{Context, Result};

    #[cfg(target_os = "macos")]
    pub const VST3: (&str, &str) = ("HOME", "Library/Audio/Plug-Ins/VST3");
    #[cfg(target_os = "macos")]
    pub const CLAP: (&str, &str) = ("HOME", "Library/Audio/Plug-Ins/CLAP");
    #[cfg(windows)]
    pub const VST3: (&str, &str) = ("LOCALAPPDATA", "Programs/Common/VST3");
    #[cfg(windows)]
    pub const CLAP: (&str, &str) = ("LOCALAPPDATA", "Programs/Common/CLAP");
    #[cfg(not(any(target_os = "macos", windows)))]
    pub const VST3: (&str, &str) = ("HOME", ".vst3");
    #[cfg(not(any(target_os = "macos", windows)))]
    pub const CLAP: (&str, &str) = ("HOME", ".clap");

    pub fn of_user((variable, below): (&str, &str)) -> Result<PathBuf> {
        let root = env::var_os(variable)
            .with_context(|| format!("the environment variable {variable} is not set"))?;
        Ok(PathBuf::from(root).join(below))
    }
}

fn root_folder() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not inside the project")
}

/// Cargo's target folder, including configured ones.
fn target_folder() -> Result<PathBuf> {
    let metadata = notices::run_cargo(root_folder()?, &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    metadata["target_directory"]
        .as_str()
        .map(PathBuf::from)
        .context("`cargo metadata` reported no target folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_option_is_removed_in_every_position() {
        let others =
            |line: &str| without_package(line.split_whitespace().map(str::to_owned).collect()).unwrap();
        for line in ["-r", "nullsum --release", "--release -p nullsum", "--package nullsum --release"] {
            assert_eq!(others(line), ["--release"], "{line}");
        }
        assert_eq!(others("--package=nullsum --bin nullsum"), ["--bin", "nullsum"]);
        assert!(without_package(vec!["--release".into(), "-p".into(), "xtask".into()]).is_err());
        assert!(without_package(vec!["-p".into()]).is_err());
    }

    #[test]
    fn a_plugin_is_replaced_completely_or_not_at_all() {
        let folder = env::temp_dir().join(format!("nullsum-xtask-{}", process::id()));
        let (from, to) = (folder.join("built"), folder.join("user").join("A.vst3"));
        fs::create_dir_all(from.join("Contents")).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join("Contents/A.so"), "new").unwrap();
        fs::write(to.join("stale"), "old").unwrap();
        // Leftovers: an old plugin of an earlier installation, and an interrupted copy.
        fs::create_dir_all(folder.join("user/.A.vst3.1.old")).unwrap();
        fs::create_dir_all(folder.join("user/.A.vst3.new/torn")).unwrap();

        replace(&folder.join("missing"), &folder.join("user"), "A.vst3").unwrap_err();
        assert_eq!(fs::read_to_string(to.join("stale")).unwrap(), "old");
        replace(&from, &folder.join("user"), "A.vst3").unwrap();
        assert_eq!(fs::read_to_string(to.join("Contents/A.so")).unwrap(), "new");
        assert!(!to.join("stale").exists());
        assert_eq!(fs::read_dir(folder.join("user")).unwrap().count(), 1);
        // If the new plugin cannot be written, the old one is restored.
        swap(&folder.join("missing"), &to, &folder.join("user/.A.vst3.1.old")).unwrap_err();
        assert!(to.join("Contents/A.so").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
