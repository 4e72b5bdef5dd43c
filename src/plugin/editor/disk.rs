//! Looks at folders for the editor, on a thread of its own: a disk may sleep and a network may hang, and the window must not.

use std::path::PathBuf;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::files::{Listing, nearest_folder};
use crate::model::companion;
use crate::plugin::library::Places;
use crate::plugin::selection::Selection;
use crate::registry;

/// Name of the thread.
pub const THREAD_NAME: &str = "nullsum-disk";

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// A folder.
    List(PathBuf),
    /// The folder nearest to a path, or the user's.
    ListNear(Option<PathBuf>),
    /// The YAML that belongs to a checkpoint.
    Companion(PathBuf),
    /// Recent files, and which entries of the registry are on this computer.
    Catalogue,
}

/// What was found.
#[derive(Clone, Debug)]
pub enum Found {
    /// A folder's items.
    Listing(Listing),
    /// The YAML of this checkpoint.
    Companion(PathBuf, Option<PathBuf>),
    /// Recent files that are still there, and a flag for each entry of the registry.
    Catalogue(Vec<Selection>, Vec<bool>),
}

/// Answers one question.
fn look(ask: Ask) -> Found {
    match ask {
        Ask::List(folder) => Found::Listing(Listing::read(folder)),
        Ask::ListNear(near) => Found::Listing(Listing::read(nearest_folder(near.as_deref()))),
        Ask::Companion(checkpoint) => {
            let found = companion::find(&checkpoint).ok();
            Found::Companion(checkpoint, found)
        }
        Ask::Catalogue => {
            let cached = registry::entries().iter().map(|entry| registry::cached(entry).is_some()).collect();
            Found::Catalogue(Places::read().recent(), cached)
        }
    }
}

/// The thread, from the first question until it is dropped.
#[derive(Default)]
pub struct Disk {
    running: Option<Running>,
    /// Questions without an answer yet.
    waiting: usize,
}

struct Running {
    questions: Sender<Ask>,
    answers: Receiver<Found>,
    thread: JoinHandle<()>,
}

impl Disk {
    /// Asks; the answer comes later.
    pub fn ask(&mut self, ask: Ask) {
        if self.running.is_none() {
            self.running = Running::start().ok();
        }
        if self.running.as_ref().is_some_and(|running| running.questions.send(ask).is_ok()) {
            self.waiting += 1;
        }
    }

    /// Whether an answer is to come.
    pub fn is_busy(&self) -> bool {
        self.waiting > 0
    }

    /// What was found since the last call.
    pub fn answers(&mut self) -> Vec<Found> {
        let answers: Vec<Found> =
            self.running.as_ref().map(|running| running.answers.try_iter().collect()).unwrap_or_default();
        self.waiting = self.waiting.saturating_sub(answers.len());
        answers
    }
}

impl Running {
    fn start() -> std::io::Result<Self> {
        let (questions, asked) = unbounded();
        let (answer, answers) = unbounded();
        let run = move || {
            while let Ok(ask) = asked.recv() {
                let _ = answer.send(look(ask));
            }
        };
        let thread = std::thread::Builder::new().name(THREAD_NAME.into()).spawn(run)?;
        Ok(Self { questions, answers, thread })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let Some(Running { questions, thread, .. }) = self.running.take() else { return };
        drop(questions);
        // A library must not be unloaded under a thread, so this waits even for a disk that sleeps.
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_folder_is_read_elsewhere_and_the_thread_ends_with_its_owner() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.ckpt"), "xy").unwrap();
        let mut disk = Disk::default();
        assert!(!disk.is_busy() && disk.answers().is_empty());
        disk.ask(Ask::List(root.path().into()));
        disk.ask(Ask::Companion(root.path().join("a.ckpt")));
        let start = Instant::now();
        let mut answers = Vec::new();
        while disk.is_busy() && start.elapsed() < Duration::from_secs(20) {
            answers.extend(disk.answers());
            std::thread::sleep(Duration::from_millis(1));
        }
        let [Found::Listing(listing), Found::Companion(_, None)] = answers.as_slice() else {
            panic!("{answers:?}")
        };
        assert_eq!((listing.folder.as_path(), listing.items.len()), (root.path(), 1));
    }
}
