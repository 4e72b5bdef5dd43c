//! Files dropped on the editor.
//!
//! `baseview` reports drops, but `nice-plug-egui` discards them. On X11 we receive them ourselves (`platform::x11::file_drop`); on other systems
//! drops are not supported. A drop waits in a [`DropQueue`] until the editor draws its next frame.

mod overlay;
#[cfg(any(target_os = "linux", test))]
pub(in crate::plugin) mod uri_list;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::queue::ArrayQueue;
use nice_plug_egui::RepaintNotifier;

use super::files::{is_audio, is_checkpoint, is_yaml};

#[cfg(target_os = "linux")]
pub use crate::plugin::platform::x11::file_drop::listen;
pub use overlay::show as overlay;

/// Never created: drops are supported on X11 only.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub enum FileDropListener {}

/// Always `None`: drops are supported on X11 only.
#[cfg(not(target_os = "linux"))]
pub fn listen(
    _window: &nice_plug_egui::baseview::WindowContext,
    _queue: std::sync::Arc<DropQueue>,
) -> Option<FileDropListener> {
    None
}

pub type DropError = &'static str;

/// Passes drops from the listening thread to the editor. It holds only the latest drop, so its size is bounded.
pub struct DropQueue {
    is_hovering: AtomicBool,
    dropped: ArrayQueue<Result<Vec<PathBuf>, DropError>>,
    repaint: RepaintNotifier,
}

impl DropQueue {
    /// `repaint` requests a frame from an idle editor.
    pub fn new(repaint: RepaintNotifier) -> Self {
        Self { is_hovering: AtomicBool::new(false), dropped: ArrayQueue::new(1), repaint }
    }

    pub fn is_hovering(&self) -> bool {
        self.is_hovering.load(Relaxed)
    }

    /// Called when dragged files enter or leave the window.
    pub fn set_hovering(&self, is_hovering: bool) {
        if self.is_hovering.swap(is_hovering, Relaxed) != is_hovering {
            self.repaint.request_repaint();
        }
    }

    /// Stores a drop, or why it failed. Replaces a drop that was not handled yet.
    #[cfg(any(target_os = "linux", test))]
    pub fn push(&self, files: Result<Vec<PathBuf>, DropError>) {
        self.dropped.force_push(files);
        self.repaint.request_repaint();
    }

    /// Takes the latest drop.
    pub fn pop(&self) -> Option<Result<Vec<PathBuf>, DropError>> {
        self.dropped.pop()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DropAction {
    /// A checkpoint, with its YAML file if that was dropped too.
    LoadModel(PathBuf, Option<PathBuf>),
    /// Only a YAML file; its checkpoint is the selected one.
    LoadConfig(PathBuf),
    PlaySong(PathBuf),
}

/// Decides from the file names what to do with a drop.
///
/// # Errors
/// A message for the user if the names do not make that clear.
pub fn classify(files: Vec<PathBuf>) -> Result<DropAction, String> {
    let (mut checkpoints, rest): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| is_checkpoint(file));
    let (mut configs, mut others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|file| is_yaml(file));
    match (checkpoints.len(), configs.len(), others.len()) {
        (0, 0, 0) => Err("None of the dropped items is a file on this computer".into()),
        (2.., ..) => {
            Err(format!("{} checkpoints were dropped. Drop one, with its YAML file.", checkpoints.len()))
        }
        (_, 2.., _) => Err(format!(
            "{} YAML files were dropped. Drop only the one that belongs to the checkpoint.",
            configs.len()
        )),
        (1, ..) => Ok(DropAction::LoadModel(checkpoints.remove(0), configs.pop())),
        (0, 1, _) => Ok(DropAction::LoadConfig(configs.remove(0))),
        (0, 0, 1) if others.first().is_some_and(|file| is_audio(file)) => {
            Ok(DropAction::PlaySong(others.remove(0)))
        }
        (0, 0, more) => {
            let name = others.first().and_then(|file| file.file_name()).unwrap_or_default();
            let name: String = name.to_string_lossy().chars().take(60).collect();
            let subject = if more == 1 {
                format!("{name} is neither a checkpoint")
            } else {
                format!("{name} and {} more are neither checkpoints", more - 1)
            };
            Err(format!("{subject} (.ckpt, .pt, .pth, .th, .bin, .safetensors) nor YAML"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str]) -> Result<DropAction, String> {
        classify(names.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn a_checkpoint_and_its_yaml_find_each_other_in_either_order() {
        let both = Ok(DropAction::LoadModel("/a/m.CKPT".into(), Some("/b/c.yml".into())));
        assert_eq!(sorted(&["/a/m.CKPT", "/b/c.yml"]), both);
        assert_eq!(sorted(&["/b/c.yml", "/a/m.CKPT"]), both);
        assert_eq!(sorted(&["/b/c.yml", "/a/readme.txt", "/a/m.CKPT"]), both);
        assert_eq!(sorted(&["/m.safetensors"]), Ok(DropAction::LoadModel("/m.safetensors".into(), None)));
        assert_eq!(sorted(&["/c.yaml"]), Ok(DropAction::LoadConfig("/c.yaml".into())));
        assert_eq!(sorted(&["/song.flac"]), Ok(DropAction::PlaySong("/song.flac".into())));
    }

    #[test]
    fn ambiguous_drops_are_rejected_with_a_reason() {
        for (files, reason) in [
            (&[][..], "None of the dropped items"),
            (&["/a.ckpt", "/b.pt", "/c.yaml"], "2 checkpoints"),
            (&["/a.ckpt", "/b.yaml", "/c.yaml"], "2 YAML files"),
            (&["/a.yaml", "/b.yml"], "2 YAML files"),
            (&["/letter.odt"], "letter.odt is neither a checkpoint"),
            (&["/a.wav", "/b.wav", "/c"], "a.wav and 2 more are neither checkpoints"),
            (&["/"], "is neither a checkpoint"),
        ] {
            let message = sorted(files).unwrap_err();
            assert!(message.contains(reason), "{files:?}: {message}");
        }
    }

    #[test]
    fn only_the_latest_drop_is_kept() {
        let drop_queue = DropQueue::new(RepaintNotifier::new());
        assert!(drop_queue.pop().is_none() && !drop_queue.is_hovering());
        drop_queue.set_hovering(true);
        assert!(drop_queue.is_hovering());
        drop_queue.push(Ok(vec!["/a".into()]));
        drop_queue.push(Ok(vec!["/b".into()]));
        assert_eq!(drop_queue.pop(), Some(Ok(vec!["/b".into()])));
        assert_eq!(drop_queue.pop(), None);
    }
}
