//! Turns the inputs of a command line into a list of songs, each with its output folder.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

// Applies to folders and patterns. A file named outright may have any extension.
use nullsum::audio::EXTENSIONS;
use walkdir::{DirEntry, WalkDir};

use crate::args::values::Shard;
use crate::exit::{CliResult, ExitStatus, Failure};

/// One input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Song {
    pub input: PathBuf,
    /// Output folder of its stems.
    pub folder: PathBuf,
    /// Template of the file names, with `{ext}` replaced.
    pub template: String,
}

/// All songs of a command line, and the warnings from collecting them.
#[derive(Debug, Default)]
pub struct Batch {
    /// The songs of this share.
    pub songs: Vec<Song>,
    /// Songs of all shares together.
    pub total: usize,
    /// Unreadable folders, cyclic links.
    pub warnings: Vec<String>,
    /// Canonical paths of the songs of all shares.
    known: HashSet<PathBuf>,
}

impl Batch {
    /// Whether `path` is a song of any share.
    pub fn contains_input(&self, path: &Path) -> bool {
        path.canonicalize().is_ok_and(|path| self.known.contains(&path))
    }
}

/// Finds the songs. Every share fails if the whole batch would fail.
pub fn collect_songs(
    inputs: &[PathBuf],
    output: &Path,
    template: &str,
    shard: Option<Shard>,
) -> CliResult<Batch> {
    let mut found = SongCollector { output: output.canonicalize().ok(), ..SongCollector::default() };
    for input in inputs {
        found.add(input)?;
    }
    let songs: Vec<Song> = found
        .songs
        .into_iter()
        .map(|(input, below)| {
            let ext = input.extension().unwrap_or_default().to_string_lossy().into_owned();
            let template = template.replace("{ext}", &ext);
            Song { input, folder: output.join(below), template }
        })
        .collect();
    // Stem names are not known yet, but songs of the same name collide in any case.
    check_collisions(songs.iter().map(|song| {
        let name = song.input.file_stem().unwrap_or_default().to_string_lossy();
        (song.folder.join(song.template.replace("{name}", &name)), song.input.as_path())
    }))?;
    let total = songs.len();
    let songs = songs
        .into_iter()
        .enumerate()
        .filter(|(place, _)| shard.is_none_or(|shard| shard.contains(*place)))
        .map(|(_, song)| song)
        .collect();
    Ok(Batch { songs, total, warnings: found.warnings, known: found.known })
}

/// Fails if two songs would write the same file.
pub fn check_collisions<'a>(outputs: impl Iterator<Item = (PathBuf, &'a Path)>) -> CliResult {
    let mut seen: HashMap<PathBuf, &Path> = HashMap::new();
    for (output, input) in outputs {
        let key = if cfg!(any(windows, target_os = "macos")) {
            PathBuf::from(output.to_string_lossy().to_lowercase())
        } else {
            output.clone()
        };
        if let Some(other) = seen.insert(key, input) {
            return Err(Failure::new(
                ExitStatus::Usage,
                format!(
                    "{} and {} would both write {}; separate them into two folders, or tell them apart in --template, \
                     for instance with {{ext}}",
                    other.display(),
                    input.display(),
                    output.display()
                ),
            ));
        }
    }
    Ok(())
}

#[derive(Default)]
struct SongCollector {
    /// Songs, each with its folder below the output folder.
    songs: Vec<(PathBuf, PathBuf)>,
    known: HashSet<PathBuf>,
    warnings: Vec<String>,
    /// The output folder, which folder searches skip.
    output: Option<PathBuf>,
}

impl SongCollector {
    fn add(&mut self, input: &Path) -> CliResult {
        if input.is_dir() {
            return self.add_folder(input);
        }
        let pattern = input.to_str().filter(|text| text.contains(['*', '?', '[']));
        match pattern {
            Some(pattern) if !input.exists() => self.add_pattern(pattern),
            _ => {
                // A missing file fails when its turn comes, so that the others are still separated.
                self.song(input.to_path_buf(), PathBuf::new());
                Ok(())
            }
        }
    }

    fn song(&mut self, input: PathBuf, below: PathBuf) {
        if self.known.insert(input.canonicalize().unwrap_or_else(|_| input.clone())) {
            self.songs.push((input, below));
        }
    }

    fn add_folder(&mut self, folder: &Path) -> CliResult {
        let mut any = false;
        let output = self.output.clone();
        // A folder named outright is searched even if it is hidden or the output folder.
        let wanted = |entry: &DirEntry| {
            entry.depth() == 0
                || !(is_hidden(entry)
                    || entry.file_type().is_dir()
                        && output.is_some()
                        && entry.path().canonicalize().ok() == output)
        };
        for entry in
            WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter().filter_entry(wanted)
        {
            match entry {
                Ok(entry) if entry.file_type().is_file() && is_audio(entry.path()) => {
                    any = true;
                    let below = entry.path().parent().and_then(|parent| parent.strip_prefix(folder).ok());
                    let below = below.unwrap_or(Path::new("")).to_path_buf();
                    self.song(entry.into_path(), below);
                }
                Ok(_) => {}
                Err(error) if error.loop_ancestor().is_some() => {
                    self.warnings.push(format!("{error}; not followed"));
                }
                Err(error) => self.warnings.push(format!("not searched: {error}")),
            }
        }
        if !any {
            self.warnings.push(format!(
                "{}: no audio files in it ({})",
                folder.display(),
                EXTENSIONS.join(", ")
            ));
        }
        Ok(())
    }

    fn add_pattern(&mut self, pattern: &str) -> CliResult {
        // As in folder searches, hidden files and the output folder are skipped, unless the pattern names them.
        let options = glob::MatchOptions {
            case_sensitive: !cfg!(windows),
            require_literal_leading_dot: true,
            ..glob::MatchOptions::new()
        };
        let matches = glob::glob_with(pattern, options)
            .map_err(|error| Failure::new(ExitStatus::Usage, format!("{pattern}: not a pattern: {error}")))?;
        let begin = literal_prefix(pattern).canonicalize().ok();
        let output =
            self.output.clone().filter(|output| !begin.is_some_and(|begin| begin.starts_with(output)));
        let is_output = |path: &Path| {
            output
                .as_ref()
                .is_some_and(|output| path.canonicalize().is_ok_and(|path| path.starts_with(output)))
        };
        let mut any = false;
        for path in matches {
            match path {
                Ok(path) if is_output(&path) => {}
                Ok(path) if path.is_dir() => {
                    any = true;
                    self.add_folder(&path)?;
                }
                Ok(path) if is_audio(&path) => {
                    any = true;
                    self.song(path, PathBuf::new());
                }
                Ok(_) => {}
                Err(error) => self.warnings.push(format!("not searched: {error}")),
            }
        }
        if any {
            Ok(())
        } else {
            Err(Failure::new(ExitStatus::Io, format!("{pattern}: no audio file matches")))
        }
    }
}

/// The folder that contains all matches of a pattern: its components before the first wildcard.
fn literal_prefix(pattern: &str) -> PathBuf {
    let literal = Path::new(pattern)
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']));
    Path::new(".").join(literal.collect::<PathBuf>())
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}

/// Whether the extension is one of audio.
pub fn is_audio(path: &Path) -> bool {
    let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else { return false };
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Whether two paths name the same file, as far as can be determined.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => without_current_dir(a) == without_current_dir(b),
    }
}

fn without_current_dir(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        root
    }

    fn songs(
        root: &Path,
        inputs: &[&str],
        template: &str,
        shard: Option<&str>,
    ) -> CliResult<Vec<(String, String)>> {
        let inputs: Vec<PathBuf> = inputs.iter().map(|input| root.join(input)).collect();
        let batch = collect_songs(&inputs, &root.join("out"), template, shard.map(|s| s.parse().unwrap()))?;
        let name = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        Ok(batch.songs.iter().map(|song| (name(&song.input), name(&song.folder))).collect())
    }

    #[test]
    fn folders_are_searched_recursively_and_keep_their_tree() {
        let root = tree(&["m/b.FLAC", "m/x/y/a.mp3", "m/cover.jpg", "m/.hidden/c.wav", "m/.d.wav"]);
        let found = songs(root.path(), &["m"], "{name}_{stem}", None).unwrap();
        let expected = [("m/b.FLAC", "out"), ("m/x/y/a.mp3", "out/x/y")];
        assert_eq!(found, expected.map(|(a, b)| (a.into(), b.into())));
    }

    #[test]
    fn the_output_folder_is_skipped_and_no_song_is_listed_twice() {
        let root = tree(&["a.wav", "out/a_vocals.wav"]);
        let found = songs(root.path(), &["", "a.wav", "./a.wav", "*.wav"], "{name}_{stem}", None).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn patterns_skip_hidden_files_and_the_output_folder_unless_named() {
        let root = tree(&["a.wav", "._a.wav", "m/b.wav", "out/a_vocals.wav", "out/m/b_vocals.wav"]);
        let names = |pattern: &str| -> Vec<String> {
            let found = songs(root.path(), &[pattern], "{name}_{stem}", None).unwrap();
            found.into_iter().map(|(input, _)| input).collect()
        };
        assert_eq!(names("**/*.wav"), ["a.wav", "m/b.wav"]);
        assert_eq!(names("*"), ["a.wav", "m/b.wav"]);
        assert_eq!(names("*.wav"), ["a.wav"]);
        assert_eq!(songs(root.path(), &["A*.wav"], "{name}_{stem}", None).is_ok(), cfg!(windows));
        assert_eq!(names("out/*.wav"), ["out/a_vocals.wav"]);
        assert_eq!(names("out/**/b*.wav"), ["out/m/b_vocals.wav"]);
    }

    #[test]
    fn a_song_of_any_share_is_known() {
        let root = tree(&["m/a.wav", "m/b.wav"]);
        let shard = Some("1/2".parse().unwrap());
        let batch =
            collect_songs(&[root.path().join("m")], Path::new("out"), "{name}_{stem}", shard).unwrap();
        assert_eq!(batch.songs.len(), 1);
        assert!(["m/a.wav", "m/../m/b.wav"].iter().all(|name| batch.contains_input(&root.path().join(name))));
        assert!(!batch.contains_input(&root.path().join("m/c.wav")));
    }

    #[cfg(unix)]
    #[test]
    fn cyclic_links_end() {
        let root = tree(&["m/a.wav"]);
        std::os::unix::fs::symlink(root.path().join("m"), root.path().join("m/loop")).unwrap();
        let batch = collect_songs(&[root.path().join("m")], Path::new("out"), "{name}", None).unwrap();
        assert_eq!((batch.songs.len(), batch.warnings.len()), (1, 1), "{batch:?}");
    }

    #[test]
    fn songs_with_colliding_outputs_are_named() {
        let root = tree(&["m/a.wav", "m/a.flac"]);
        let error = songs(root.path(), &["m"], "{name}_{stem}", None).unwrap_err();
        let text = error.error.to_string();
        assert!(
            text.contains("a.wav") && text.contains("a.flac") && error.status == ExitStatus::Usage,
            "{text}"
        );
        assert_eq!(songs(root.path(), &["m"], "{name}.{ext}_{stem}", None).unwrap().len(), 2);
    }

    #[test]
    fn shares_cover_every_song_exactly_once() {
        let root = tree(&["m/a.wav", "m/b.wav", "m/c.wav", "m/d/e.wav", "m/d/f.wav"]);
        let mut all: Vec<_> = ["1/3", "2/3", "3/3"]
            .iter()
            .flat_map(|shard| songs(root.path(), &["m"], "{name}_{stem}", Some(shard)).unwrap())
            .collect();
        all.sort();
        assert_eq!(all, songs(root.path(), &["m"], "{name}_{stem}", None).unwrap());
    }

    #[test]
    fn a_pattern_without_a_match_is_an_error() {
        let root = tree(&["a.txt"]);
        let error = songs(root.path(), &["*.wav"], "{name}_{stem}", None).unwrap_err();
        assert!(error.error.to_string().contains("no audio file matches"));
    }
}
