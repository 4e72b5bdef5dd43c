//! `cargo xtask dist`: the archive and the Debian package that users install.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::{WORKER, build_program, bundle, copy_all, notices, remove, root_folder, target_folder};

/// Shells that `nullsum-cli completions` supports, with the file name that each expects.
const COMPLETIONS: [(&str, &str); 4] = [
    ("bash", "nullsum-cli.bash"),
    ("zsh", "_nullsum-cli"),
    ("fish", "nullsum-cli.fish"),
    ("powershell", "nullsum-cli.ps1"),
];

/// Documents of the archive, at the paths that the README links to.
const DOCUMENTS: [&str; 9] = [
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "assets/MODEL_CARD.md",
    "assets/screenshots/main.png",
    "docs",
];

/// Builds plugins, app and command line, and packs them with licences, documents, completions and man page. Options: `--debug`, and those of `cargo
/// build`.
pub fn dist(mut options: Vec<String>) -> Result<()> {
    let debug = options.iter().any(|option| option == "--debug");
    options.retain(|option| option != "--debug");
    if !debug {
        options.push("--release".into());
    }
    let has_features = options.iter().any(|option| option.starts_with("--features"));
    if !has_features {
        options.extend(["--features".into(), "plugin,standalone".into()]);
    }
    bundle("bundle", options.clone())?;
    let (root, target) = (root_folder()?, target_folder()?);
    let cli = build_program(root, &target, &options, "nullsum-cli")?;

    let dist = target.join("dist");
    remove(&dist)?;
    let name = format!("nullsum-{}-{}-{}", version(root)?, env::consts::OS, env::consts::ARCH);
    let folder = dist.join(&name);
    collect(root, &target, &cli, &folder, &options)?;
    let mut files = vec![pack(&dist, &name)?];
    if cfg!(target_os = "linux") && Command::new("dpkg-deb").arg("--version").output().is_ok() {
        files.push(debian_package(root, &dist, &folder)?);
    }
    write_checksums(&dist, &files)?;
    for file in files {
        println!("{}", file.display());
    }
    Ok(())
}

/// The version in the project's `Cargo.toml`.
fn version(root: &Path) -> Result<String> {
    let manifest = root.join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest).with_context(|| format!("could not read {}", manifest.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("version = "));
    Ok(line.context("Cargo.toml states no version")?.trim_matches('"').to_owned())
}

/// Lays out what a user gets.
fn collect(root: &Path, target: &Path, cli: &Path, folder: &Path, options: &[String]) -> Result<()> {
    let bundled = target.join("bundled");
    create_folder(folder)?;
    copy_all(cli, &folder.join(cli.file_name().unwrap_or_default()))?;
    for file in ["Nullsum.vst3", "Nullsum.clap", "Nullsum.app", "Nullsum.exe", "Nullsum", WORKER] {
        if bundled.join(file).exists() {
            copy_all(&bundled.join(file), &folder.join(file))?;
        }
    }
    for document in DOCUMENTS {
        let to = folder.join(document);
        create_folder(to.parent().unwrap_or(folder))?;
        copy_all(&root.join(document), &to)?;
    }
    notices::write(&folder.join("THIRD_PARTY.txt"), root, options)?;
    create_folder(&folder.join("completions"))?;
    for (shell, file) in COMPLETIONS {
        fs::write(folder.join("completions").join(file), output_of(cli, &["completions", shell])?)?;
    }
    create_folder(&folder.join("man"))?;
    fs::write(folder.join("man/nullsum-cli.1"), output_of(cli, &["man"])?)?;
    Ok(())
}

/// Standard output of the command line.
fn output_of(cli: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(cli)
        .args(arguments)
        .output()
        .with_context(|| format!("could not run {}", cli.display()))?;
    ensure!(output.status.success(), "nullsum-cli {} failed", arguments.join(" "));
    Ok(output.stdout)
}

/// Packs the folder `name` in `dist` as `.tar.gz`, or `.zip` on Windows. Windows 10 and later have bsdtar, which writes both.
fn pack(dist: &Path, name: &str) -> Result<PathBuf> {
    let (file, options) =
        if cfg!(windows) { (format!("{name}.zip"), "-acf") } else { (format!("{name}.tar.gz"), "-czf") };
    run(Command::new("tar").current_dir(dist).args([options, file.as_str(), name]))?;
    Ok(dist.join(file))
}

/// Builds the Debian package from the collected files.
fn debian_package(root: &Path, dist: &Path, folder: &Path) -> Result<PathBuf> {
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version = version(root)?;
    let tree = dist.join("deb");
    for (from, to) in [
        ("nullsum-cli", "usr/bin/nullsum-cli"),
        ("Nullsum", "usr/bin/nullsum"),
        ("Nullsum.vst3", "usr/lib/vst3/Nullsum.vst3"),
        ("Nullsum.clap", "usr/lib/clap/Nullsum.clap"),
        (WORKER, "usr/bin/nullsum-worker"),
        ("completions/nullsum-cli.bash", "usr/share/bash-completion/completions/nullsum-cli"),
        ("completions/_nullsum-cli", "usr/share/zsh/vendor-completions/_nullsum-cli"),
        ("completions/nullsum-cli.fish", "usr/share/fish/vendor_completions.d/nullsum-cli.fish"),
        ("LICENSE", "usr/share/doc/nullsum/copyright"),
        ("THIRD_PARTY.txt", "usr/share/doc/nullsum/THIRD_PARTY.txt"),
        ("README.md", "usr/share/doc/nullsum/README.md"),
        ("assets", "usr/share/doc/nullsum/assets"),
        ("docs", "usr/share/doc/nullsum/docs"),
    ] {
        let to = tree.join(to);
        create_folder(to.parent().unwrap_or(&tree))?;
        copy_all(&folder.join(from), &to)?;
    }
    for (from, to) in [
        ("assets/nullsum.desktop", "usr/share/applications/nullsum.desktop"),
        ("assets/nullsum.svg", "usr/share/icons/hicolor/scalable/apps/nullsum.svg"),
    ] {
        let to = tree.join(to);
        create_folder(to.parent().unwrap_or(&tree))?;
        copy_all(&root.join(from), &to)?;
    }
    compress(&folder.join("man/nullsum-cli.1"), &tree.join("usr/share/man/man1/nullsum-cli.1.gz"))?;
    compress(&root.join("CHANGELOG.md"), &tree.join("usr/share/doc/nullsum/changelog.gz"))?;

    create_folder(&tree.join("DEBIAN"))?;
    let control = format!(
        "Package: nullsum\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: Nullsum contributors <nullsum@users.noreply.github.com>\n\
         Installed-Size: {}\nDepends: libc6, libgcc-s1, libasound2 | libasound2t64, libjack-jackd2-0 | libjack-0.125\n\
         Recommends: libgl1, libegl1, libxcb1\nSection: sound\nPriority: optional\n\
         Description: music source separation whose stems sum to the original\n \
         Separates songs and live audio into stems with BS-RoFormer and Mel-Band\n \
         RoFormer checkpoints. Contains the VST3 and CLAP plugins, the standalone app\n \
         and the command line nullsum-cli.\n",
        size_of(&tree)?.div_ceil(1024)
    );
    fs::write(tree.join("DEBIAN/control"), control)?;
    let package = dist.join(format!("nullsum_{version}_{architecture}.deb"));
    run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&package))?;
    remove(&tree)?;
    Ok(package)
}

/// Writes a gzip file without a time stamp, as Debian's policy asks.
fn compress(from: &Path, to: &Path) -> Result<()> {
    create_folder(to.parent().unwrap_or(to))?;
    let output =
        Command::new("gzip").args(["-9", "-n", "-c"]).arg(from).output().context("could not run gzip")?;
    ensure!(output.status.success(), "gzip {} failed", from.display());
    fs::write(to, output.stdout).with_context(|| format!("could not write {}", to.display()))
}

/// Writes `SHA256SUMS` in the format of `sha256sum`.
fn write_checksums(dist: &Path, files: &[PathBuf]) -> Result<()> {
    let mut sums = fs::File::create(dist.join("SHA256SUMS"))?;
    for file in files {
        let bytes = fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
        let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(sums, "{hash}  {}", file.file_name().unwrap_or_default().to_string_lossy())?;
    }
    Ok(())
}

/// Bytes of all files below a folder.
fn size_of(path: &Path) -> Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    fs::read_dir(path)?.map(|entry| size_of(&entry?.path())).sum()
}

fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("could not run {program}"))?;
    ensure!(status.success(), "{program} failed");
    Ok(())
}
