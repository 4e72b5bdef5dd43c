//! Expands patterns such as `music/**/*.flac`. Unlike the crate `glob`, which matches the single names here, it takes names
//! that are not Unicode, and names with brackets that exist as they are written.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};

/// A pattern, component by component.
pub struct PathPattern {
    parts: Vec<Part>,
}

enum Part {
    /// A root, `.` or `..`.
    Fixed(OsString),
    /// `**`: any number of folders.
    Folders,
    /// A name; with a pattern if it has wildcards.
    Name(OsString, Option<Pattern>),
}

/// What a pattern matches, in alphabetical order, and the folders that could not be read.
#[derive(Default)]
pub struct Matches {
    pub paths: Vec<PathBuf>,
    pub warnings: Vec<String>,
}

/// Whether a path has wildcards.
pub fn is_pattern(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte))
}

impl PathPattern {
    /// Reads a pattern. With `literal_brackets`, `[` stands for itself.
    pub fn new(path: &Path, literal_brackets: bool) -> Result<Self, PatternError> {
        let part = |part: Component<'_>| match part {
            Component::Normal(name) if name == "**" => Ok(Part::Folders),
            Component::Normal(name) if is_pattern(Path::new(name)) => {
                let text = name.to_string_lossy();
                let text = if literal_brackets { text.replace('[', "[[]") } else { text.into_owned() };
                Ok(Part::Name(name.to_owned(), Some(Pattern::new(&text)?)))
            }
            Component::Normal(name) => Ok(Part::Name(name.to_owned(), None)),
            fixed => Ok(Part::Fixed(fixed.as_os_str().to_owned())),
        };
        Ok(Self { parts: path.components().map(part).collect::<Result<_, _>>()? })
    }

    /// The folder that contains all matches.
    pub fn literal_prefix(&self) -> PathBuf {
        let mut prefix = PathBuf::from(".");
        for part in &self.parts {
            match part {
                Part::Fixed(name) => prefix.push(name),
                Part::Name(name, pattern) => {
                    let path = prefix.join(name);
                    if pattern.is_some() && !exists(&path) {
                        break;
                    }
                    prefix = path;
                }
                Part::Folders => break,
            }
        }
        prefix
    }

    /// Finds everything that matches.
    pub fn expand(&self) -> Matches {
        let mut matches = Matches::default();
        expand(Path::new(""), &self.parts, &mut matches);
        matches
    }
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Adds what `parts` match below `base`.
fn expand(base: &Path, parts: &[Part], matches: &mut Matches) {
    let Some((part, rest)) = parts.split_first() else {
        matches.paths.push(base.to_path_buf());
        return;
    };
    match part {
        Part::Fixed(name) => expand(&base.join(name), rest, matches),
        // A name that exists as it is written is meant as it is written.
        Part::Name(name, pattern) if pattern.is_none() || exists(&base.join(name)) => {
            let path = base.join(name);
            if exists(&path) {
                expand(&path, rest, matches);
            }
        }
        Part::Name(_, pattern) => {
            for name in names_in(base, matches) {
                if pattern.as_ref().is_some_and(|pattern| matches_name(pattern, &name)) {
                    expand(&base.join(name), rest, matches);
                }
            }
        }
        Part::Folders => {
            // Behind a last `**` stand all files, as shells have it.
            match rest {
                [] => {}
                rest => expand(base, rest, matches),
            }
            for name in names_in(base, matches) {
                let path = base.join(&name);
                // Links to folders could lead round in circles.
                let is_folder = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
                match (is_hidden(&name), is_folder, rest) {
                    (true, ..) => {}
                    (_, true, _) => expand(&path, parts, matches),
                    (_, false, []) => matches.paths.push(path),
                    _ => {}
                }
            }
        }
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether a name matches. Hidden files do only if the pattern begins with a dot.
fn matches_name(pattern: &Pattern, name: &OsStr) -> bool {
    let options = MatchOptions {
        case_sensitive: !cfg!(windows),
        require_literal_leading_dot: true,
        ..MatchOptions::new()
    };
    pattern.matches_with(&name.to_string_lossy(), options)
}

/// The names in a folder, in alphabetical order; none if it is no folder.
fn names_in(folder: &Path, matches: &mut Matches) -> Vec<OsString> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let read = || -> io::Result<Vec<OsString>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    match read() {
        Ok(mut names) => {
            names.sort();
            names
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory || !folder.is_dir() => Vec::new(),
        Err(error) => {
            matches.warnings.push(format!("not searched: {}: {error}", folder.display()));
            Vec::new()
        }
    }
}
