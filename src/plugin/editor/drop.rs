//! Files that are dropped on the window.
//!
//! The window's library hears of them, and the layer above it forgets them. On X11 a connection of our own listens instead (`x11`); elsewhere
//! nothing comes. What was dropped waits in an [`Inbox`] until the editor draws.

mod overlay;
#[cfg(any(target_os = "linux", test))]
mod uris;
#[cfg(target_os = "linux")]
mod x11;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::queue::ArrayQueue;
use nice_plug_egui::RepaintNotifier;

use super::files::{is_audio, is_checkpoint, is_yaml};

pub use overlay::show as overlay;
#[cfg(target_os = "linux")]
pub use x11::{Listener, listen};

/// Elsewhere nobody listens.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub enum Listener {}

/// Listens for files that are dropped on a window.
#[cfg(not(target_os = "linux"))]
pub fn listen(
    _window: &nice_plug_egui::baseview::WindowContext,
    _inbox: std::sync::Arc<Inbox>,
) -> Option<Listener> {
    None
}

/// Why there are no files.
pub type Refusal = &'static str;

/// What comes to a window, from the thread that listens to the editor. It holds one drop: a flood of them takes no memory.
pub struct Inbox {
    hovers: AtomicBool,
    dropped: ArrayQueue<Result<Vec<PathBuf>, Refusal>>,
    repaint: RepaintNotifier,
}

impl Inbox {
    /// An empty one; `repaint` wakes an editor that rests.
    pub fn new(repaint: RepaintNotifier) -> Self {
        Self { hovers: AtomicBool::new(false), dropped: ArrayQueue::new(1), repaint }
    }

    /// Whether files are over the window.
    pub fn hovers(&self) -> bool {
        self.hovers.load(Relaxed)
    }

    /// Files come over the window, or leave it.
    pub fn set_hovers(&self, hovers: bool) {
        if self.hovers.swap(hovers, Relaxed) != hovers {
            self.repaint.request_repaint();
        }
    }

    /// Files are dropped; those that nobody has looked at yet are forgotten.
    #[cfg(any(target_os = "linux", test))]
    pub fn put(&self, files: Result<Vec<PathBuf>, Refusal>) {
        self.dropped.force_push(files);
        self.repaint.request_repaint();
    }

    /// What was dropped since the last call.
    pub fn take(&self) -> Option<Result<Vec<PathBuf>, Refusal>> {
        self.dropped.pop()
    }
}

/// What files are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// A checkpoint, and its YAML where one came along.
    Model(PathBuf, Option<PathBuf>),
    /// The YAML of a checkpoint that is named elsewhere.
    Config(PathBuf),
    /// Something to play.
    Song(PathBuf),
}

/// Finds out what files are for, by their names.
///
/// # Errors
/// Words for the user where that is not clear.
pub fn sort(files: Vec<PathBuf>) -> Result<Use, String> {
    let (mut checkpoints, rest): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| is_checkpoint(file));
    let (mut configs, mut others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|file| is_yaml(file));
    match (checkpoints.len(), configs.len(), others.len()) {
        (0, 0, 0) => Err("Nothing that was dropped is a file of this computer".into()),
        (2.., ..) => Err(format!("{} checkpoints were dropped: drop one, with its YAML", checkpoints.len())),
        (_, 2.., _) => {
            Err(format!("{} YAML files were dropped: drop the one of the checkpoint", configs.len()))
        }
        (1, ..) => Ok(Use::Model(checkpoints.remove(0), configs.pop())),
        (0, 1, _) => Ok(Use::Config(configs.remove(0))),
        (0, 0, 1) if others.first().is_some_and(|file| is_audio(file)) => Ok(Use::Song(others.remove(0))),
        (0, 0, more) => {
            let name = others.first().and_then(|file| file.file_name()).unwrap_or_default();
            let name: String = name.to_string_lossy().chars().take(60).collect();
            let (who, are) =
                if more == 1 { (name, "is") } else { (format!("{name} and {} more", more - 1), "are") };
            Err(format!("{who} {are} no checkpoint (.ckpt, .pt, .pth, .th, .bin, .safetensors) and no YAML"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str]) -> Result<Use, String> {
        sort(names.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn a_checkpoint_and_its_yaml_find_each_other_in_either_order() {
        let both = Ok(Use::Model("/a/m.CKPT".into(), Some("/b/c.yml".into())));
        assert_eq!(sorted(&["/a/m.CKPT", "/b/c.yml"]), both);
        assert_eq!(sorted(&["/b/c.yml", "/a/m.CKPT"]), both);
        assert_eq!(sorted(&["/b/c.yml", "/a/readme.txt", "/a/m.CKPT"]), both);
        assert_eq!(sorted(&["/m.safetensors"]), Ok(Use::Model("/m.safetensors".into(), None)));
        assert_eq!(sorted(&["/c.yaml"]), Ok(Use::Config("/c.yaml".into())));
        assert_eq!(sorted(&["/song.flac"]), Ok(Use::Song("/song.flac".into())));
    }

    #[test]
    fn what_cannot_be_meant_is_said_in_words() {
        for (files, words) in [
            (&[][..], "Nothing"),
            (&["/a.ckpt", "/b.pt", "/c.yaml"], "2 checkpoints"),
            (&["/a.ckpt", "/b.yaml", "/c.yaml"], "2 YAML files"),
            (&["/a.yaml", "/b.yml"], "2 YAML files"),
            (&["/letter.odt"], "letter.odt is no checkpoint"),
            (&["/a.wav", "/b.wav", "/c"], "a.wav and 2 more are no checkpoint"),
            (&["/"], "is no checkpoint"),
        ] {
            let said = sorted(files).unwrap_err();
            assert!(said.contains(words), "{files:?}: {said}");
        }
    }

    #[test]
    fn the_last_drop_counts_and_wakes_the_editor() {
        let inbox = Inbox::new(RepaintNotifier::new());
        assert!(inbox.take().is_none() && !inbox.hovers());
        inbox.set_hovers(true);
        assert!(inbox.hovers());
        inbox.put(Ok(vec!["/a".into()]));
        inbox.put(Ok(vec!["/b".into()]));
        assert_eq!(inbox.take(), Some(Ok(vec!["/b".into()])));
        assert_eq!(inbox.take(), None);
    }
}
