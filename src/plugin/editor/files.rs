//! Folder listings for choosing a checkpoint in the editor. A plugin should not open a system dialog over its host.

use std::path::{Path, PathBuf};

/// Maximum number of folder entries to read.
const LIMIT: usize = 5_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Folder,
    Checkpoint,
    Yaml,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    pub name: String,
    pub path: PathBuf,
    /// File size in bytes.
    pub size: u64,
}

pub fn is_checkpoint(path: &Path) -> bool {
    has_extension(path, &["ckpt", "pt", "pth", "th", "bin", "safetensors", "gguf"])
}

pub fn is_yaml(path: &Path) -> bool {
    has_extension(path, &["yaml", "yml"])
}

pub fn is_audio(path: &Path) -> bool {
    has_extension(path, &crate::audio::EXTENSIONS)
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| known.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

/// Kind of a list entry; `None` for hidden and for other files.
pub fn kind_of(name: &str, is_folder: bool) -> Option<Kind> {
    let path = Path::new(name);
    match () {
        () if name.starts_with('.') => None,
        () if is_folder => Some(Kind::Folder),
        () if is_checkpoint(path) => Some(Kind::Checkpoint),
        () if is_yaml(path) => Some(Kind::Yaml),
        () => None,
    }
}

/// A folder with its subfolders, checkpoints and YAML files.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub folder: PathBuf,
    /// Folders first, then files, each sorted by name.
    pub items: Vec<Item>,
    pub error: Option<String>,
}

impl Listing {
    /// Lists `folder` without its subfolders.
    pub fn read(folder: PathBuf) -> Self {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => return Self { folder, items: Vec::new(), error: Some(error.to_string()) },
        };
        let item = |entry: std::fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Follows symbolic links.
            let meta = std::fs::metadata(entry.path()).ok()?;
            let kind = kind_of(&name, meta.is_dir())?;
            Some(Item { kind, name, path: entry.path(), size: meta.len() })
        };
        let mut items: Vec<Item> = entries.take(LIMIT).flatten().filter_map(item).collect();
        items.sort_by_cached_key(|item| (item.kind != Kind::Folder, item.name.to_lowercase()));
        Self { folder, items, error: None }
    }
}

/// The nearest existing folder above `path`, else the home folder, else the root.
pub fn nearest_folder(path: Option<&Path>) -> PathBuf {
    let above = path.and_then(|path| {
        path.ancestors().skip(1).find(|folder| !folder.as_os_str().is_empty() && folder.is_dir())
    });
    above.map(Path::to_path_buf).or_else(home).unwrap_or_else(|| PathBuf::from(std::path::MAIN_SEPARATOR_STR))
}

pub fn home() -> Option<PathBuf> {
    directories::UserDirs::new().map(|dirs| dirs.home_dir().to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_holds_folders_first_then_model_files() {
        let root = tempfile::tempdir().unwrap();
        for name in ["B.CKPT", "a.safetensors", "b.gguf", "c.yaml", "song.wav", ".hidden.ckpt", "readme"] {
            std::fs::write(root.path().join(name), "xy").unwrap();
        }
        std::fs::create_dir(root.path().join("Zoo")).unwrap();
        std::fs::create_dir(root.path().join(".git")).unwrap();
        let listing = Listing::read(root.path().into());
        let names: Vec<_> = listing.items.iter().map(|item| (item.kind, item.name.as_str())).collect();
        let expected = [
            (Kind::Folder, "Zoo"),
            (Kind::Checkpoint, "a.safetensors"),
            (Kind::Checkpoint, "B.CKPT"),
            (Kind::Checkpoint, "b.gguf"),
            (Kind::Yaml, "c.yaml"),
        ];
        assert_eq!(names, expected);
        assert_eq!(listing.items[1].size, 2);
    }

    #[test]
    fn a_folder_that_cannot_be_read_says_why() {
        let root = tempfile::tempdir().unwrap();
        let listing = Listing::read(root.path().join("gone"));
        assert!(listing.items.is_empty() && listing.error.is_some());
    }

    #[test]
    fn nearest_folder_is_the_deepest_one_that_exists() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(nearest_folder(Some(&root.path().join("a/b/c.ckpt"))), root.path());
        assert!(nearest_folder(Some(Path::new("c.ckpt"))).is_absolute());
        assert!(nearest_folder(None).is_absolute());
    }
}
