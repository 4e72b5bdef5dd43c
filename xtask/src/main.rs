//! Development tasks of the project, run as `cargo xtask <task>`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "\
cargo xtask <task>

  dist    build the command line for release and lay it out with licence, documents and shell completions in target/dist";

/// Shells that `nullsum-cli completions` knows, with the file name each wants.
const COMPLETIONS: [(&str, &str); 4] = [
    ("bash", "nullsum-cli.bash"),
    ("zsh", "_nullsum-cli"),
    ("fish", "nullsum-cli.fish"),
    ("powershell", "nullsum-cli.ps1"),
];

fn main() -> Result<()> {
    match env::args().nth(1).as_deref() {
        Some("dist") => dist(),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(())
        }
        Some(other) => bail!("unknown task `{other}`\n\n{USAGE}"),
        None => bail!("no task given\n\n{USAGE}"),
    }
}

/// Builds `nullsum-cli` and gathers what a user gets.
fn dist() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the project")?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
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
    for document in ["README.md", "LICENSE", "CHANGELOG.md", "assets/MODEL_CARD.md"] {
        let file = Path::new(document).file_name().unwrap_or_default();
        copy(root.join(document), folder.join(file))?;
    }
    for (shell, file) in COMPLETIONS {
        let output = Command::new(&built).args(["completions", shell]).output()?;
        ensure!(output.status.success(), "nullsum-cli completions {shell} failed");
        fs::write(completions.join(file), output.stdout)?;
    }
    println!("{}", folder.display());
    Ok(())
}
