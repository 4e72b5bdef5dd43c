//! Checks the names of all outputs before work begins, as the file system of the output folder sees them: names that it
//! refuses, and names that it takes for the same.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nullsum::offline::template::portable_name;

use crate::exit::ExitStatus;

/// Names longer than this, in bytes, are tried out.
const LONG_NAME: usize = 200;

/// The outputs of one song.
pub struct NamePlan<'a> {
    pub input: &'a Path,
    /// Files that will be written.
    pub outputs: Vec<PathBuf>,
    /// The same with portable names, for a file system that refuses the others.
    pub portable_outputs: Vec<PathBuf>,
    /// Whether `outputs` are the portable ones.
    pub is_portable: bool,
    /// Why the song cannot be separated.
    pub rejected: Option<(ExitStatus, String)>,
}

/// What a file system makes of names.
pub trait FileSystem {
    /// Begins to try names as if they were below `folder`.
    fn probe(&self, folder: &Path) -> io::Result<Box<dyn Probe>>;
}

/// Names that are being tried. Whatever was created is removed in the end.
pub trait Probe {
    /// Creates a file exclusively, with the folders that lead to it.
    fn create(&mut self, relative: &Path) -> io::Result<()>;
}

/// The file system that there is: names are tried in a hidden folder.
pub struct RealFileSystem;

impl FileSystem for RealFileSystem {
    fn probe(&self, folder: &Path) -> io::Result<Box<dyn Probe>> {
        Ok(Box::new(tempfile::Builder::new().prefix(".nullsum-probe-").tempdir_in(folder)?))
    }
}

impl Probe for tempfile::TempDir {
    fn create(&mut self, relative: &Path) -> io::Result<()> {
        let path = self.path().join(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::File::create_new(path).map(drop)
    }
}

/// Chooses names that the file system accepts, and rejects songs of which two would write one file. Songs that are rejected
/// for each other name each other.
pub fn check_names(plans: &mut [NamePlan], files: &dyn FileSystem) {
    let mut probes = Probes { files, open: HashMap::new() };
    for plan in plans.iter_mut() {
        choose_accepted_names(plan, &mut probes);
    }
    drop(probes);
    reject_collisions(plans, files);
}

/// One probe for each existing folder; none where a folder cannot be probed.
struct Probes<'a> {
    files: &'a dyn FileSystem,
    open: HashMap<PathBuf, Option<Box<dyn Probe>>>,
}

impl Probes<'_> {
    fn create(&mut self, output: &Path) -> io::Result<()> {
        let folder = existing_ancestor(output);
        let relative = output.strip_prefix(&folder).unwrap_or(output).to_path_buf();
        let files = self.files;
        match self.open.entry(folder).or_insert_with_key(|folder| files.probe(folder).ok()) {
            Some(probe) => probe.create(&relative),
            None => Ok(()),
        }
    }
}

/// Takes the portable names if the file system refuses the wanted ones, or rejects the song if it refuses those too.
fn choose_accepted_names(plan: &mut NamePlan, probes: &mut Probes) {
    let refused = |outputs: &[PathBuf], probes: &mut Probes| {
        outputs.iter().filter(|output| is_unusual(output)).find_map(|output| {
            probes.create(output).err().filter(is_refusal).map(|error| (output.clone(), error))
        })
    };
    let Some((output, error)) = refused(&plan.outputs, probes) else { return };
    if plan.portable_outputs != plan.outputs && refused(&plan.portable_outputs, probes).is_none() {
        plan.outputs = plan.portable_outputs.clone();
        plan.is_portable = true;
        return;
    }
    let what = format!(
        "the file system refuses the name {} ({error}); choose another --template or --output",
        output.display()
    );
    plan.rejected = Some((ExitStatus::Io, what));
}

/// Whether an error says that a name cannot be, and not that it is taken or that the folder may not be written.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind;
    !matches!(
        error.kind(),
        ErrorKind::AlreadyExists
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
    )
}

/// Rejects songs whose outputs have the same name, exactly or as the file system sees it.
fn reject_collisions(plans: &mut [NamePlan], files: &dyn FileSystem) {
    let mut exact: HashMap<PathBuf, usize> = HashMap::new();
    let mut alike: HashMap<(PathBuf, String), Vec<(usize, PathBuf)>> = HashMap::new();
    let mut pairs: Vec<(usize, usize, PathBuf)> = Vec::new();
    for (n, plan) in plans.iter().enumerate() {
        for output in &plan.outputs {
            match exact.insert(output.clone(), n) {
                Some(other) if other != n => pairs.push((other, n, output.clone())),
                Some(_) => {}
                None => {
                    let folder = existing_ancestor(output);
                    alike.entry((folder, fold(output))).or_default().push((n, output.clone()));
                }
            }
        }
    }
    for ((folder, _), outputs) in alike.into_iter().filter(|(_, outputs)| outputs.len() > 1) {
        let Ok(mut probe) = files.probe(&folder) else { continue };
        for (place, (n, output)) in outputs.iter().enumerate() {
            let relative = output.strip_prefix(&folder).unwrap_or(output);
            let taken =
                probe.create(relative).is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists);
            if taken {
                let other = outputs[..place].iter().find(|(other, _)| other != n);
                pairs.extend(other.map(|(other, _)| (*other, *n, output.clone())));
            }
        }
    }
    pairs.sort();
    pairs.dedup_by_key(|(a, b, _)| (*a, *b));
    for (a, b, output) in pairs {
        let what = format!(
            "{} and {} would both write {}; separate them into two folders, or tell them apart in --template, for \
             instance with {{ext}}",
            plans[a].input.display(),
            plans[b].input.display(),
            output.display()
        );
        for n in [a, b] {
            match &mut plans[n].rejected {
                Some((_, all)) if all.contains(&what) => {}
                Some((_, all)) => {
                    all.push_str("; ");
                    all.push_str(&what);
                }
                none => *none = Some((ExitStatus::Usage, what.clone())),
            }
        }
    }
}

/// Names that any file system could take for the same have one fold: letters without case, nothing but ASCII, since
/// accents may be stored in two ways, and no dots and spaces at the end, which FAT and Windows leave out.
fn fold(path: &Path) -> String {
    let part = |part: &OsStr| -> String {
        let lower = part.to_string_lossy().to_lowercase();
        let ascii: String = lower.chars().filter(char::is_ascii).collect();
        ascii.trim_end_matches(['.', ' ']).to_owned()
    };
    path.iter().map(part).collect::<Vec<_>>().join("/")
}

/// Whether a file system could refuse a part of the path.
fn is_unusual(path: &Path) -> bool {
    let unusual = |part: &OsStr| {
        let text = part.to_string_lossy();
        part.len() > LONG_NAME
            // Dots and spaces at the end, and names of devices.
            || portable_name(part) != part
            || text.chars().any(|c| !(c.is_ascii_alphanumeric() || " ._-()&',+!".contains(c)))
    };
    path.iter().any(unusual)
}

/// The nearest folder above a path that exists.
fn existing_ancestor(path: &Path) -> PathBuf {
    let found = path.ancestors().skip(1).find(|folder| folder.is_dir());
    found.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;
    use std::rc::Rc;

    use super::*;

    /// A file system like exFAT: it refuses some characters, leaves out dots and spaces at the end, and does not tell case
    /// apart.
    #[derive(Default)]
    struct Exfat {
        removed: Rc<RefCell<usize>>,
    }

    struct ExfatProbe {
        names: HashSet<String>,
        removed: Rc<RefCell<usize>>,
    }

    impl FileSystem for Exfat {
        fn probe(&self, _: &Path) -> io::Result<Box<dyn Probe>> {
            Ok(Box::new(ExfatProbe { names: HashSet::new(), removed: self.removed.clone() }))
        }
    }

    impl Probe for ExfatProbe {
        fn create(&mut self, relative: &Path) -> io::Result<()> {
            let name = relative.to_string_lossy().to_lowercase();
            let name: Vec<&str> = name.split('/').map(|part| part.trim_end_matches(['.', ' '])).collect();
            let name = name.join("/");
            if name.contains(['?', ':', '"', '*']) || name.len() > 255 {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            if self.names.insert(name) { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) }
        }
    }

    impl Drop for ExfatProbe {
        fn drop(&mut self) {
            *self.removed.borrow_mut() += 1;
        }
    }

    fn plan<'a>(input: &'a str, name: &str) -> NamePlan<'a> {
        let portable = name.replace(['?', ':', '"', '*'], "_");
        NamePlan {
            input: Path::new(input),
            outputs: vec![PathBuf::from(format!("nowhere/{name}"))],
            portable_outputs: vec![PathBuf::from(format!("nowhere/{portable}"))],
            is_portable: false,
            rejected: None,
        }
    }

    #[test]
    fn refused_characters_are_replaced_before_work_begins() {
        let long = "n".repeat(256);
        let mut plans = [plan("a", "Why?_bass.wav"), plan("b", "plain_bass.wav"), plan("c", &long)];
        check_names(&mut plans, &Exfat::default());
        assert_eq!(plans[0].outputs, [PathBuf::from("nowhere/Why__bass.wav")]);
        assert!(plans[0].is_portable && plans[0].rejected.is_none());
        assert!(!plans[1].is_portable && plans[1].rejected.is_none());
        assert!(matches!(&plans[2].rejected, Some((ExitStatus::Io, what)) if what.contains("nnnn")));
    }

    #[test]
    fn all_songs_that_collide_are_named_and_the_others_stay() {
        let table = [
            ("a/Song.wav", "Song_bass.wav", true),
            ("b/song.wav", "song_bass.wav", true),
            ("c/one.wav", "one_bass.wav", true),
            ("c/one.flac", "one_bass.wav", true),
            ("d/What?.wav", "What?_bass.wav", true),
            ("d/What:.wav", "What:_bass.wav", true),
            ("e/other.wav", "other_bass.wav", false),
            ("f/End..wav", "End./bass.wav", true),
            ("f/end.wav", "end/bass.wav", true),
        ];
        let mut plans: Vec<NamePlan> = table.iter().map(|(input, name, _)| plan(input, name)).collect();
        let files = Exfat::default();
        check_names(&mut plans, &files);
        for (plan, (input, _, rejected)) in plans.iter().zip(table) {
            assert_eq!(plan.rejected.is_some(), rejected, "{input}");
        }
        let text = |n: usize| plans[n].rejected.clone().unwrap().1;
        for (n, other) in
            [(0, "b/song.wav"), (1, "a/Song.wav"), (3, "c/one.wav"), (4, "d/What:.wav"), (7, "f/end.wav")]
        {
            assert!(text(n).contains(other), "{}", text(n));
        }
        // One folder in which unusual names are tried, one for each pair of names that differ in case
        // or in a dot at the end. Names that are equal as they are need no trial. All folders are removed.
        assert_eq!(*files.removed.borrow(), 3);
    }

    #[test]
    fn the_real_file_system_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let outputs = ["Straße?.wav", "a/STRASSE.wav", "a/strasse.wav"].map(|name| folder.path().join(name));
        let mut plans = [NamePlan {
            input: Path::new("x"),
            outputs: outputs.to_vec(),
            portable_outputs: outputs.to_vec(),
            is_portable: false,
            rejected: None,
        }];
        check_names(&mut plans, &RealFileSystem);
        assert!(cfg!(windows) || plans[0].rejected.is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
