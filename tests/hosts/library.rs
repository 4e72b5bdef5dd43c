//! Finds the plugin under test, and gives it a cache folder.
//!
//! `NULLSUM_LIBRARY` names another library than the one that cargo built, such as `target/bundled/Nullsum.clap`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The library as cargo built it, and a VST3 bundle around it.
pub struct Plugin {
    /// The shared library, which is also a complete CLAP plugin.
    pub library: PathBuf,
    /// The bundle `Nullsum.vst3`.
    pub bundle: PathBuf,
}

/// Initialised once. Also points the plugin's cache to a folder of this run, so that earlier runs do not influence the tier.
pub static PLUGIN: LazyLock<Plugin> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("nullsum-hosts-{}", std::process::id()));
    // An earlier process with the same id may have left its folder.
    let _ = std::fs::remove_dir_all(&folder);
    let library = find();
    let bundle = folder.join("Nullsum.vst3");
    let inside = bundle.join("Contents").join(inside());
    std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&library, inside).unwrap();
    #[cfg(not(unix))]
    std::fs::copy(&library, inside).unwrap();
    // SAFETY: the only reader is the plugin, which is loaded after this lock is initialised.
    unsafe { std::env::set_var("NULLSUM_CACHE", folder.join("cache")) };
    Plugin { library, bundle }
});

/// Path of the library inside a bundle, below `Contents`.
fn inside() -> String {
    let architecture = std::env::consts::ARCH;
    match std::env::consts::OS {
        "macos" => "MacOS/Nullsum".into(),
        "windows" => format!("{architecture}-win/Nullsum.vst3"),
        system => format!("{architecture}-{system}/Nullsum.so"),
    }
}

/// Looks beside this executable (`deps/`) and one folder up, and takes the newer file: cargo copies the library only when it builds it as a target of
/// its own.
fn find() -> PathBuf {
    if let Some(library) = std::env::var_os("NULLSUM_LIBRARY") {
        return std::fs::canonicalize(library).expect("NULLSUM_LIBRARY names a file");
    }
    let name = format!("{}nullsum{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let executable = std::env::current_exe().unwrap();
    let deps = executable.parent().unwrap();
    let modified = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    [deps.join(&name), deps.parent().unwrap().join(&name)]
        .into_iter()
        .filter_map(|path| Some((modified(&path)?, path)))
        .max()
        .map(|(_, path)| path)
        .unwrap_or_else(|| {
            panic!("no {name} in {}: build it with `cargo build --features plugin`", deps.display())
        })
}
