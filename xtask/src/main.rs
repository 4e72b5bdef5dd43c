//! Development tasks of the project, run as `cargo xtask <task>`.

mod notices;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "\
cargo xtask <task>

  bundle [nullsum] [--release] [cargo build options]
          build plugin and app into target/bundled: Nullsum.vst3, Nullsum.clap, Nullsum
  install [cargo build options]
          bundle for release and put both plugins where hosts look for a user's own
  dist    build the command line for release and lay it out with licences, documents and shell completions in target/dist";

/// Shells that `nullsum-cli completions` knows, with the file name each wants.
const COMPLETIONS: [(&str, &str); 4] = [
    ("bash", "nullsum-cli.bash"),
    ("zsh", "_nullsum-cli"),
    ("fish", "nullsum-cli.fish"),
    ("powershell", "nullsum-cli.ps1"),
];

fn main() -> Result<()> {
    match env::args().nth(1).as_deref() {
        Some("bundle" | "bundle-universal") => bundle(env::args().skip(1).collect()),
        Some("install") => install(env::args().skip(2).collect()),
        Some("dist") => dist(),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(())
        }
        Some(other) => bail!("unknown task `{other}`\n\n{USAGE}"),
        None => bail!("no task given\n\n{USAGE}"),
    }
}

/// Builds the plugin's formats with the framework's own bundler, with the features that make it a plugin.
fn bundle(mut arguments: Vec<String>) -> Result<()> {
    if !arguments.iter().any(|argument| argument == "nullsum" || argument == "-p" || argument == "--package")
    {
        arguments.insert(1, "nullsum".into());
    }
    let wants_plugin = |argument: &String| argument.split([',', '=', ' ']).any(|feature| feature == "plugin");
    if !arguments.iter().any(wants_plugin) {
        // The app needs the system's audio headers on Linux; a plugin alone can be had with `--features plugin`.
        arguments.extend(["--features".into(), "plugin,standalone".into()]);
    }
    let asked = arguments.clone();
    nice_plug_xtask::main_with_args("cargo xtask", arguments)?;
    let (root, bundled) = (root_folder()?, target_folder()?.join("bundled"));
    for document in ["LICENSE", "assets/MODEL_CARD.md"] {
        copy_all(&root.join(document), &bundled.join(Path::new(document).file_name().unwrap_or_default()))?;
    }
    notices::write(&bundled.join("THIRD_PARTY.txt"), root, &asked)
}

/// Bundles for release and copies the plugins to the user's folders.
fn install(options: Vec<String>) -> Result<()> {
    let plugins = [("Nullsum.vst3", folders::VST3), ("Nullsum.clap", folders::CLAP)];
    let bundled = target_folder()?.join("bundled");
    // What is installed is what is built now, or nothing.
    for (plugin, _) in plugins {
        remove(&bundled.join(plugin))?;
    }
    let mut arguments = vec!["bundle".to_string(), "nullsum".into(), "--release".into()];
    arguments.extend(options);
    bundle(arguments)?;
    for (plugin, folder) in plugins {
        let folder = folders::of_user(folder)?;
        let (from, to) = (bundled.join(plugin), folder.join(plugin));
        let aside = folder.join(format!(".{plugin}.old"));
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        remove(&aside)?;
        if to.exists() {
            // A host may have it open: the old one is moved, not written over.
            fs::rename(&to, &aside).with_context(|| format!("{} cannot be replaced", to.display()))?;
        }
        copy_all(&from, &to)?;
        remove(&aside)?;
        println!("{}", to.display());
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("{} cannot be removed", path.display()))
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to).with_context(|| format!("{} cannot be made", to.display()))?;
        for entry in fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
            let entry = entry?;
            copy_all(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::copy(from, to)
        .map(|_| ())
        .with_context(|| format!("{} cannot be copied to {}", from.display(), to.display()))
}

/// Where hosts look for the plugins of one user.
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
        let root = env::var_os(variable).with_context(|| format!("the variable {variable} is not set"))?;
        Ok(PathBuf::from(root).join(below))
    }
}

fn root_folder() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the project")
}

/// Where cargo builds, whatever says so.
fn target_folder() -> Result<PathBuf> {
    let metadata = notices::cargo(root_folder()?, &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    metadata["target_directory"].as_str().map(PathBuf::from).context("cargo names no target folder")
}

/// Builds `nullsum-cli` and gathers what a user gets.
fn dist() -> Result<()> {
    let (root, target) = (root_folder()?, target_folder()?);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--release", "--bin", "nullsum-cli"])
        .status()
        .context("cargo does not start")?;
    ensure!(status.success(), "the release build failed");

    let name = format!("nullsum-cli{}", env::consts::EXE_SUFFIX);
    let built = target.join("release").join(&name);
    let folder = target.join("dist").join(format!("nullsum-{}-{}", env::consts::OS, env::consts::ARCH));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    let completions = folder.join("completions");
    fs::create_dir_all(&completions).with_context(|| format!("{} cannot be made", completions.display()))?;
    let copy = |from: PathBuf, to: PathBuf| {
        fs::copy(&from, &to)
            .with_context(|| format!("{} cannot be copied to {}", from.display(), to.display()))
    };
    copy(built.clone(), folder.join(&name))?;
    fs::create_dir_all(folder.join("assets/screenshots"))?;
    // Where the README looks for them.
    for document in [
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "ARCHITECTURE.md",
        "assets/MODEL_CARD.md",
        "assets/screenshots/main.png",
    ] {
        copy(root.join(document), folder.join(document))?;
    }
    notices::write(&folder.join("THIRD_PARTY.txt"), root, &[])?;
    for (shell, file) in COMPLETIONS {
        let output = Command::new(&built).args(["completions", shell]).output()?;
        ensure!(output.status.success(), "nullsum-cli completions {shell} failed");
        fs::write(completions.join(file), output.stdout)?;
    }
    println!("{}", folder.display());
    Ok(())
}
