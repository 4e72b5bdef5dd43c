//! Turns the inputs of a command line into a list of songs, each with its output folder.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

// Applies to folders and patterns. A file named outright may have any extension.
use nullsum::audio::{EXTENSIONS, Origin};
use walkdir::{DirEntry, WalkDir};

use crate::args::values::Shard;
use crate::exit::{CliResult, ExitStatus, Failure};
use crate::pattern::{PathPattern, is_pattern};

/// Extensions of audio that cannot be read, with the name of the format. Folder searches mention such files.
const UNREADABLE: [(&str, &str); 41] = [
    ("wma", "Windows Media Audio"),
    ("asf", "Windows Media"),
    ("wmv", "Windows Media Video"),
    ("ape", "Monkey's Audio"),
    ("wv", "WavPack"),
    ("tta", "True Audio"),
    ("tak", "TAK"),
    ("ofr", "OptimFROG"),
    ("shn", "Shorten"),
    ("la", "Lossless Audio"),
    ("dsf", "DSD"),
    ("dff", "DSD"),
    ("mpc", "Musepack"),
    ("mp+", "Musepack"),
    ("ac3", "Dolby Digital"),
    ("eac3", "Dolby Digital Plus"),
    ("ec3", "Dolby Digital Plus"),
    ("ac4", "Dolby AC-4"),
    ("thd", "Dolby TrueHD"),
    ("mlp", "Meridian Lossless"),
    ("dts", "DTS"),
    ("amr", "AMR"),
    ("spx", "Speex"),
    ("au", "Sun audio"),
    ("snd", "Sun audio"),
    ("voc", "Creative Voice"),
    ("w64", "Sony Wave64"),
    ("sd2", "Sound Designer II"),
    ("ra", "RealAudio"),
    ("rm", "RealMedia"),
    ("aax", "Audible"),
    ("aaxc", "Audible"),
    ("m4p", "protected AAC"),
    ("oma", "ATRAC"),
    ("aa3", "ATRAC"),
    ("avi", "AVI"),
    ("flv", "Flash Video"),
    ("mpg", "MPEG video"),
    ("mpeg", "MPEG video"),
    ("vob", "DVD video"),
    ("m2ts", "Blu-ray video"),
];

/// One input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Song {
    pub input: PathBuf,
    /// Output folder of its stems.
    pub folder: PathBuf,
    /// Whether the song is in the share of this run.
    pub is_in_share: bool,
}

/// All songs of a command line, and the warnings from collecting them.
#[derive(Debug, Default)]
pub struct Batch {
    /// The songs of all shares.
    pub songs: Vec<Song>,
    /// Unreadable folders, cyclic links, files that were skipped.
    pub warnings: Vec<String>,
    /// Identities of the songs of all shares.
    known: HashSet<FileId>,
    /// Holds a song that came through a pipe.
    _spool: Option<tempfile::TempDir>,
}

impl Batch {
    /// Whether `path` is a song of any share.
    pub fn contains_input(&self, path: &Path) -> bool {
        path.exists() && self.known.contains(&FileId::of(path))
    }
}

/// What tells whether two paths name one file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum FileId {
    #[cfg(unix)]
    Inode(u64, u64),
    Path(PathBuf),
}

impl FileId {
    fn of(path: &Path) -> Self {
        #[cfg(unix)]
        if let Ok(meta) = std::fs::metadata(path) {
            use std::os::unix::fs::MetadataExt;
            return Self::Inode(meta.dev(), meta.ino());
        }
        let path = path.canonicalize().unwrap_or_else(|_| without_current_dir(path));
        Self::Path(if cfg!(windows) { path.to_string_lossy().to_lowercase().into() } else { path })
    }
}

/// Finds the songs.
pub fn collect_songs(inputs: &[PathBuf], output: &Path, shard: Option<Shard>) -> CliResult<Batch> {
    let mut found = SongCollector { output: output.canonicalize().ok(), ..SongCollector::default() };
    for input in inputs {
        found.add(input)?;
    }
    if found.stems_skipped > 0 {
        found.warnings.push(format!(
            "{} files are stems of earlier runs and were skipped, for instance {}; name a file to separate it",
            found.stems_skipped,
            found.first_stem.display()
        ));
    }
    let songs = found
        .songs
        .into_iter()
        .map(|song| Song {
            is_in_share: shard.is_none_or(|shard| shard.contains(&song.below.join(song.name()))),
            folder: output.join(&song.below),
            input: song.input,
        })
        .collect();
    let known = found.known.into_keys().collect();
    Ok(Batch { songs, warnings: found.warnings, known, _spool: found.spool })
}

/// A song with its folder below the output folder.
struct FoundSong {
    input: PathBuf,
    below: PathBuf,
}

impl FoundSong {
    fn name(&self) -> &OsStr {
        self.input.file_name().unwrap_or_default()
    }
}

#[derive(Default)]
struct SongCollector {
    songs: Vec<FoundSong>,
    /// Every song with the path under which it was found first.
    known: HashMap<FileId, PathBuf>,
    warnings: Vec<String>,
    /// The output folder, which folder searches skip.
    output: Option<PathBuf>,
    /// Stems of earlier runs that searches have met, and the first of them.
    stems_skipped: usize,
    first_stem: PathBuf,
    spool: Option<tempfile::TempDir>,
}

impl SongCollector {
    fn add(&mut self, input: &Path) -> CliResult {
        if input == Path::new("-") {
            return self.add_pipe();
        }
        if input.is_dir() {
            return self.add_folder(input);
        }
        match is_pattern(input) {
            true if !input.exists() => self.add_pattern(input),
            _ => {
                // A missing file fails when its turn comes, so that the others are still separated.
                self.add_song(input.to_path_buf(), PathBuf::new());
                Ok(())
            }
        }
    }

    /// Copies standard input to a temporary file, since its header may only make sense with its end.
    fn add_pipe(&mut self) -> CliResult {
        let failed = |error: io::Error| Failure::new(ExitStatus::Io, format!("standard input: {error}"));
        if self.spool.is_some() {
            return Err(Failure::new(ExitStatus::Usage, "standard input (-) is named twice"));
        }
        let folder = tempfile::tempdir().map_err(failed)?;
        let path = folder.path().join("stdin");
        let mut file = std::fs::File::create(&path).map_err(failed)?;
        if io::copy(&mut io::stdin().lock(), &mut file).map_err(failed)? == 0 {
            return Err(Failure::new(ExitStatus::Io, "standard input (-) is empty"));
        }
        self.add_song(path, PathBuf::new());
        self.spool = Some(folder);
        Ok(())
    }

    fn add_song(&mut self, input: PathBuf, below: PathBuf) {
        let id = FileId::of(&input);
        if let Some(first) = self.known.get(&id) {
            // A link with a name of its own may be meant as another song.
            if input.file_name() != first.file_name() {
                self.warnings.push(format!(
                    "{}: the same file as {}, which is separated once",
                    input.display(),
                    first.display()
                ));
            }
            return;
        }
        self.known.insert(id, input.clone());
        self.songs.push(FoundSong { input, below });
    }

    /// Adds a file that a search has found, unless it is one of our own outputs. Returns whether it is audio.
    fn add_found(&mut self, path: PathBuf, below: PathBuf) -> bool {
        if !is_audio(&path) && !link_target(&path).is_some_and(|target| is_audio(&target)) {
            if let Some(format) = unreadable_format(&path) {
                self.warnings.push(format!(
                    "{}: {format} cannot be read and was skipped; convert it to WAV or FLAC first, for instance with ffmpeg",
                    path.display()
                ));
            }
            return false;
        }
        if Origin::of_file(&path).is_some() {
            if self.stems_skipped == 0 {
                self.first_stem = path;
            }
            self.stems_skipped += 1;
        } else {
            self.add_song(path, below);
        }
        true
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
                Ok(entry) if entry.file_type().is_file() => {
                    let below = entry.path().parent().and_then(|parent| parent.strip_prefix(folder).ok());
                    let below = below.unwrap_or(Path::new("")).to_path_buf();
                    any |= self.add_found(entry.into_path(), below);
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

    fn add_pattern(&mut self, pattern: &Path) -> CliResult {
        let any = self.add_matches(pattern, false)?;
        // Brackets are more often part of a name than a set of characters.
        if any || self.add_matches(pattern, true)? {
            return Ok(());
        }
        Err(Failure::new(ExitStatus::Io, format!("{}: no audio file matches", pattern.display())))
    }

    /// Adds what matches; returns whether anything does.
    fn add_matches(&mut self, pattern: &Path, literal_brackets: bool) -> CliResult<bool> {
        let parsed = PathPattern::new(pattern, literal_brackets).map_err(|error| {
            Failure::new(ExitStatus::Usage, format!("{}: not a pattern: {error}", pattern.display()))
        })?;
        // As in folder searches, hidden files and the output folder are skipped, unless the pattern names them.
        let begin = parsed.literal_prefix().canonicalize().ok();
        let output =
            self.output.clone().filter(|output| !begin.is_some_and(|begin| begin.starts_with(output)));
        let is_output = |path: &Path| {
            output
                .as_ref()
                .is_some_and(|output| path.canonicalize().is_ok_and(|path| path.starts_with(output)))
        };
        let found = parsed.expand();
        self.warnings.extend(found.warnings);
        let mut any = false;
        for path in found.paths.into_iter().filter(|path| !is_output(path)) {
            if path.is_dir() {
                any = true;
                self.add_folder(&path)?;
            } else {
                any |= self.add_found(path, PathBuf::new());
            }
        }
        Ok(any)
    }
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}

/// The file that a link leads to.
fn link_target(path: &Path) -> Option<PathBuf> {
    std::fs::symlink_metadata(path).ok()?.is_symlink().then(|| path.canonicalize().ok())?
}

/// Whether the extension is one of audio.
pub fn is_audio(path: &Path) -> bool {
    let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else { return false };
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// The format of an audio file that cannot be read.
fn unreadable_format(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?;
    UNREADABLE.iter().find(|(known, _)| extension.eq_ignore_ascii_case(known)).map(|(_, format)| *format)
}

/// Whether two paths name the same file, as far as can be determined.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    FileId::of(a) == FileId::of(b)
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

    fn songs(root: &Path, inputs: &[&str], shard: Option<&str>) -> CliResult<Vec<(String, String)>> {
        let inputs: Vec<PathBuf> = inputs.iter().map(|input| root.join(input)).collect();
        let batch = collect_songs(&inputs, &root.join("out"), shard.map(|s| s.parse().unwrap()))?;
        let name = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        let share = batch.songs.iter().filter(|song| song.is_in_share);
        Ok(share.map(|song| (name(&song.input), name(&song.folder))).collect())
    }

    fn warnings(root: &Path, input: &str) -> Vec<String> {
        collect_songs(&[root.join(input)], &root.join("out"), None).unwrap().warnings
    }

    #[test]
    fn folders_are_searched_recursively_and_keep_their_tree() {
        let root =
            tree(&["m/b.FLAC", "m/x/y/a.mp3", "m/cover.jpg", "m/.hidden/c.wav", "m/.d.wav", "m/clip.MOV"]);
        let found = songs(root.path(), &["m"], None).unwrap();
        let expected = [("m/b.FLAC", "out"), ("m/clip.MOV", "out"), ("m/x/y/a.mp3", "out/x/y")];
        assert_eq!(found, expected.map(|(a, b)| (a.into(), b.into())));
    }

    #[test]
    fn the_output_folder_is_skipped_and_no_song_is_listed_twice() {
        let root = tree(&["a.wav", "out/a_vocals.wav"]);
        let found = songs(root.path(), &["", "a.wav", "./a.wav", "*.wav"], None).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn patterns_skip_hidden_files_and_the_output_folder_unless_named() {
        let root = tree(&["a.wav", "._a.wav", "m/b.wav", "out/a_vocals.wav", "out/m/b_vocals.wav"]);
        let names = |pattern: &str| -> Vec<String> {
            let found = songs(root.path(), &[pattern], None).unwrap();
            found.into_iter().map(|(input, _)| input).collect()
        };
        assert_eq!(names("**/*.wav"), ["a.wav", "m/b.wav"]);
        assert_eq!(names("*"), ["a.wav", "m/b.wav"]);
        assert_eq!(names("*.wav"), ["a.wav"]);
        assert_eq!(songs(root.path(), &["A*.wav"], None).is_ok(), cfg!(windows));
        assert_eq!(names("out/*.wav"), ["out/a_vocals.wav"]);
        assert_eq!(names("out/**/b*.wav"), ["out/m/b_vocals.wav"]);
    }

    #[test]
    fn names_with_brackets_are_literal_where_they_exist() {
        let root =
            tree(&["Album [2020]/a.wav", "Album [2020]/Song [live].wav", "Album 2/b.wav", "out [x]/c.wav"]);
        let names = |pattern: &str| -> Vec<String> {
            let found = songs(root.path(), &[pattern], None).unwrap();
            found.into_iter().map(|(input, _)| input).collect()
        };
        let live = "Album [2020]/Song [live].wav";
        assert_eq!(names("Album [2020]/*.wav"), [live, "Album [2020]/a.wav"]);
        assert_eq!(names("Album [2020]/Song [live]*"), [live]);
        assert_eq!(names(live), [live]);
        assert_eq!(names("Album [0-9]/*.wav"), ["Album 2/b.wav"]);
        assert_eq!(names("*/Song [live].wav"), [live]);
        assert_eq!(names("**/Song [live].wav"), [live]);
        assert_eq!(names("./Album [2020]/../Album ?/b.wav"), ["Album [2020]/../Album 2/b.wav"]);
    }

    #[cfg(unix)]
    #[test]
    fn patterns_and_what_they_match_need_not_be_unicode() {
        use std::os::unix::ffi::OsStrExt;
        let root = tree(&["m/plain.wav"]);
        let name = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let folder = root.path().join(name(b"Alb\xE9"));
        std::fs::create_dir(&folder).unwrap();
        for song in [&b"caf\xE9.wav"[..], b"caf\xE8.wav"] {
            std::fs::write(folder.join(name(song)), b"x").unwrap();
        }
        for (pattern, count) in [
            (&b"*/*.wav"[..], 3),
            (b"**/*.wav", 3),
            (b"**", 3),
            (b"Alb*/caf*.wav", 2),
            (b"Alb\xE9/*.wav", 2),
            (b"Alb?/caf\xE9.wav", 1),
        ] {
            let batch = collect_songs(&[root.path().join(name(pattern))], Path::new("out"), None).unwrap();
            assert_eq!(batch.songs.len(), count, "{}", name(pattern).display());
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_separated_under_their_own_name_or_mentioned() {
        let root = tree(&["lib/a.wav", "lib/b.wav", "list/keep.wav"]);
        for (link, target) in [("01 first", "a.wav"), ("02.wav", "b.wav"), ("03.wav", "b.wav")] {
            std::os::unix::fs::symlink(
                root.path().join("lib").join(target),
                root.path().join("list").join(link),
            )
            .unwrap();
        }
        let found: Vec<String> =
            songs(root.path(), &["list"], None).unwrap().into_iter().map(|song| song.0).collect();
        assert_eq!(found, ["list/01 first", "list/02.wav", "list/keep.wav"]);
        let warnings = warnings(root.path(), "list");
        assert!(
            warnings.iter().any(|warning| warning.contains("03.wav") && warning.contains("02.wav")),
            "{warnings:?}"
        );
    }

    #[test]
    fn audio_that_cannot_be_read_is_mentioned() {
        let root = tree(&["m/a.wav", "m/b.WMA", "m/c.ape", "m/d.mp2", "m/notes.txt"]);
        let warnings = warnings(root.path(), "m");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("b.WMA") && warnings[0].contains("Windows Media Audio"), "{warnings:?}");
    }

    #[test]
    fn a_song_of_any_share_is_known() {
        let root = tree(&["m/a.wav", "m/b.wav"]);
        let shard = Some("1/2".parse().unwrap());
        let batch = collect_songs(&[root.path().join("m")], Path::new("out"), shard).unwrap();
        assert_eq!(batch.songs.len(), 2);
        assert!(["m/a.wav", "m/../m/b.wav"].iter().all(|name| batch.contains_input(&root.path().join(name))));
        assert!(!batch.contains_input(&root.path().join("m/c.wav")));
    }

    #[cfg(unix)]
    #[test]
    fn cyclic_links_end() {
        let root = tree(&["m/a.wav"]);
        std::os::unix::fs::symlink(root.path().join("m"), root.path().join("m/loop")).unwrap();
        let batch = collect_songs(&[root.path().join("m")], Path::new("out"), None).unwrap();
        assert_eq!((batch.songs.len(), batch.warnings.len()), (1, 1), "{batch:?}");
    }

    #[test]
    fn shares_cover_every_song_once_whatever_else_arrives() {
        let names: Vec<String> = (0..40).map(|n| format!("m/{}/{n}.wav", n % 3)).collect();
        let root = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let share = |shard: &str| songs(root.path(), &["m"], Some(shard)).unwrap();
        let before = [share("1/3"), share("2/3"), share("3/3")];
        let mut all = before.concat();
        all.sort();
        assert_eq!(all, songs(root.path(), &["m"], None).unwrap());
        assert!(before.iter().all(|share| share.len() > 5), "{before:?}");
        std::fs::write(root.path().join("m/0/a new one.wav"), b"x").unwrap();
        for (n, before) in before.iter().enumerate() {
            let after = share(&format!("{}/3", n + 1));
            assert!(before.iter().all(|song| after.contains(song)));
        }
    }

    #[test]
    fn a_pattern_without_a_match_is_an_error() {
        let root = tree(&["a.txt"]);
        let error = songs(root.path(), &["*.wav"], None).unwrap_err();
        assert!(error.error.to_string().contains("no audio file matches"));
    }
}
