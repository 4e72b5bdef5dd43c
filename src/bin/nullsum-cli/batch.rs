//! From what the user names to a list of songs, each with its folder.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

// Looked for in folders and patterns. A file named by itself may have any.
use nullsum::audio::EXTENSIONS;
use walkdir::{DirEntry, WalkDir};

use crate::args::values::Shard;
use crate::exit::{Code, Failure, Outcome};

/// One song.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Song {
    /// The file.
    pub input: PathBuf,
    /// Where its stems go.
    pub folder: PathBuf,
    /// The template of their names, with the song's `{ext}` replaced.
    pub template: String,
}

/// All songs that the user means, and what was noticed on the way.
#[derive(Debug, Default)]
pub struct Batch {
    /// The songs of this share.
    pub songs: Vec<Song>,
    /// Songs of all shares together.
    pub total: usize,
    /// Folders that could not be read, links that go round.
    pub warnings: Vec<String>,
    /// The songs of all shares, as the file system calls them.
    known: HashSet<PathBuf>,
}

impl Batch {
    /// Whether `path` is a song of any share.
    pub fn has(&self, path: &Path) -> bool {
        path.canonicalize().is_ok_and(|path| self.known.contains(&path))
    }
}

/// Finds the songs. Every share fails alike where the whole would.
pub fn gather(inputs: &[PathBuf], output: &Path, template: &str, shard: Option<Shard>) -> Outcome<Batch> {
    let mut found = Found { output: output.canonicalize().ok(), ..Found::default() };
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
    // The stems' names are not known yet; songs of one name collide whatever they are.
    check_collisions(songs.iter().map(|song| {
        let name = song.input.file_stem().unwrap_or_default().to_string_lossy();
        (song.folder.join(song.template.replace("{name}", &name)), song.input.as_path())
    }))?;
    let total = songs.len();
    let songs = songs
        .into_iter()
        .enumerate()
        .filter(|(place, _)| shard.is_none_or(|shard| shard.holds(*place)))
        .map(|(_, song)| song)
        .collect();
    Ok(Batch { songs, total, warnings: found.warnings, known: found.known })
}

/// Fails where two songs would write one file, or one its own input.
pub fn check_collisions<'a>(outputs: impl Iterator<Item = (PathBuf, &'a Path)>) -> Outcome {
    let mut seen: HashMap<PathBuf, &Path> = HashMap::new();
    for (output, input) in outputs {
        let key = if cfg!(any(windows, target_os = "macos")) {
            PathBuf::from(output.to_string_lossy().to_lowercase())
        } else {
            output.clone()
        };
        if let Some(other) = seen.insert(key, input) {
            return Err(Failure::new(
                Code::Usage,
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
struct Found {
    /// Songs with the folder below the output that they belong in.
    songs: Vec<(PathBuf, PathBuf)>,
    known: HashSet<PathBuf>,
    warnings: Vec<String>,
    /// The output folder, which is not searched.
    output: Option<PathBuf>,
}

impl Found {
    fn add(&mut self, input: &Path) -> Outcome {
        if input.is_dir() {
            return self.add_folder(input);
        }
        let pattern = input.to_str().filter(|text| text.contains(['*', '?', '[']));
        match pattern {
            Some(pattern) if !input.exists() => self.add_pattern(pattern),
            _ => {
                // A file that is not there fails when its turn comes, beside the others.
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

    fn add_folder(&mut self, folder: &Path) -> Outcome {
        let mut any = false;
        let output = self.output.clone();
        // What the user names is searched, hidden or not, and even if it is the output folder.
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

    fn add_pattern(&mut self, pattern: &str) -> Outcome {
        // As in folders, what is hidden is not meant, nor are the stems of an earlier run, unless the pattern begins there.
        let options = glob::MatchOptions {
            case_sensitive: !cfg!(windows),
            require_literal_leading_dot: true,
            ..glob::MatchOptions::new()
        };
        let matches = glob::glob_with(pattern, options)
            .map_err(|error| Failure::new(Code::Usage, format!("{pattern}: not a pattern: {error}")))?;
        let begin = beginning(pattern).canonicalize().ok();
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
        if any { Ok(()) } else { Err(Failure::new(Code::Io, format!("{pattern}: no audio file matches"))) }
    }
}

/// The folder that the matches of a pattern lie in: its components before the first with a wildcard.
fn beginning(pattern: &str) -> PathBuf {
    let literal = Path::new(pattern)
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']));
    Path::new(".").join(literal.collect::<PathBuf>())
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}

/// Whether a file's name is one of audio.
pub fn is_audio(path: &Path) -> bool {
    let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else { return false };
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Whether two paths are one file, as far as can be told.
pub fn is_same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => plain(a) == plain(b),
    }
}

fn plain(path: &Path) -> PathBuf {
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
    ) -> Outcome<Vec<(String, String)>> {
        let inputs: Vec<PathBuf> = inputs.iter().map(|input| root.join(input)).collect();
        let batch = gather(&inputs, &root.join("out"), template, shard.map(|s| s.parse().unwrap()))?;
        let name = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        Ok(batch.songs.iter().map(|song| (name(&song.input), name(&song.folder))).collect())
    }

    #[test]
    fn folders_are_searched_to_the_bottom_and_keep_their_tree() {
        let root = tree(&["m/b.FLAC", "m/x/y/a.mp3", "m/cover.jpg", "m/.hidden/c.wav", "m/.d.wav"]);
        let found = songs(root.path(), &["m"], "{name}_{stem}", None).unwrap();
        let expected = [("m/b.FLAC", "out"), ("m/x/y/a.mp3", "out/x/y")];
        assert_eq!(found, expected.map(|(a, b)| (a.into(), b.into())));
    }

    #[test]
    fn the_output_folder_is_not_searched_and_nothing_comes_twice() {
        let root = tree(&["a.wav", "out/a_vocals.wav"]);
        let found = songs(root.path(), &["", "a.wav", "./a.wav", "*.wav"], "{name}_{stem}", None).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn patterns_leave_out_what_folders_do_unless_they_begin_there() {
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
        let batch = gather(&[root.path().join("m")], Path::new("out"), "{name}_{stem}", shard).unwrap();
        assert_eq!(batch.songs.len(), 1);
        assert!(["m/a.wav", "m/../m/b.wav"].iter().all(|name| batch.has(&root.path().join(name))));
        assert!(!batch.has(&root.path().join("m/c.wav")));
    }

    #[cfg(unix)]
    #[test]
    fn links_that_go_round_end() {
        let root = tree(&["m/a.wav"]);
        std::os::unix::fs::symlink(root.path().join("m"), root.path().join("m/loop")).unwrap();
        let batch = gather(&[root.path().join("m")], Path::new("out"), "{name}", None).unwrap();
        assert_eq!((batch.songs.len(), batch.warnings.len()), (1, 1), "{batch:?}");
    }

    #[test]
    fn songs_that_would_share_a_name_are_named() {
        let root = tree(&["m/a.wav", "m/a.flac"]);
        let error = songs(root.path(), &["m"], "{name}_{stem}", None).unwrap_err();
        let text = error.error.to_string();
        assert!(text.contains("a.wav") && text.contains("a.flac") && error.code == Code::Usage, "{text}");
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
    fn a_pattern_without_a_match_says_so() {
        let root = tree(&["a.txt"]);
        let error = songs(root.path(), &["*.wav"], "{name}_{stem}", None).unwrap_err();
        assert!(error.error.to_string().contains("no audio file matches"));
    }
}
