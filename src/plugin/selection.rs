//! Which model a session uses, in a form that survives moving the session, the file, or the program's version.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use nice_plug::params::persist::PersistentField;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::path;
use crate::embedded;
use crate::stream::{ModelSamples, ModelTiming};

/// Version of the form; later ones may add fields, which are kept as they are.
const FORMAT: u32 = 1;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Source {
    /// The one that is built in.
    Embedded,
    /// The registry's, by its name there.
    Registry {
        /// Name of the entry.
        name: String,
    },
    /// A file of the user's.
    File {
        /// The checkpoint.
        #[serde(with = "path")]
        checkpoint: PathBuf,
        /// Its YAML; none: inside it or beside it.
        #[serde(with = "path::optional", default)]
        config: Option<PathBuf>,
    },
}

/// What a plan must know of a model before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Sample rate in Hz.
    pub rate: u32,
    /// Samples of a chunk.
    pub chunk: u64,
    /// Samples between frames.
    pub frame_hop: u64,
    /// Samples of a frame.
    pub frame: u64,
    /// Names of the stems.
    pub stems: Vec<String>,
}

impl Known {
    /// What planning needs.
    pub fn timing(&self) -> ModelTiming {
        ModelTiming {
            rate: self.rate,
            chunk: ModelSamples(self.chunk),
            frame_hop: ModelSamples(self.frame_hop),
            frame: ModelSamples(self.frame),
        }
    }

    /// Of a model that is there.
    pub fn of(timing: ModelTiming, stems: Vec<String>) -> Self {
        Self {
            rate: timing.rate,
            chunk: timing.chunk.0,
            frame_hop: timing.frame_hop.0,
            frame: timing.frame.0,
            stems,
        }
    }

    /// Whether any of it is out of the question; a session file may say anything.
    fn is_sane(&self) -> bool {
        (8_000..=192_000).contains(&self.rate)
            && (1..=60 * u64::from(self.rate)).contains(&self.chunk)
            && (1..=1 << 16).contains(&self.frame_hop)
            && (1..=1 << 17).contains(&self.frame)
            && self.stems.len() <= 64
    }
}

/// A model, as a session names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// Version of the form.
    pub format: u32,
    /// Where it is.
    pub source: Source,
    /// A title for people.
    pub title: String,
    /// SHA-256 of the checkpoint, once it was loaded: finds it again when it moves.
    pub sha256: Option<String>,
    /// What it was when it was loaded last.
    pub known: Option<Known>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub later: serde_json::Map<String, serde_json::Value>,
}

impl Default for Selection {
    fn default() -> Self {
        Self::new(Source::Embedded, embedded::NAME)
    }
}

impl Selection {
    /// A model that was never loaded.
    pub fn new(source: Source, title: &str) -> Self {
        Self {
            format: FORMAT,
            source,
            title: title.into(),
            sha256: None,
            known: None,
            later: Default::default(),
        }
    }

    /// A file of the user's.
    pub fn file(checkpoint: PathBuf, config: Option<PathBuf>) -> Self {
        let title = checkpoint.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::new(Source::File { checkpoint, config }, &title)
    }

    /// The title as people see it.
    pub fn shown_title(&self) -> &str {
        match &self.source {
            Source::Embedded => "Nullsum preview",
            _ if self.title.trim().is_empty() => "Unnamed model",
            _ => &self.title,
        }
    }

    fn checked(mut self) -> Self {
        self.known = self.known.filter(Known::is_sane);
        self.title.truncate(self.title.char_indices().nth(200).map_or(self.title.len(), |(at, _)| at));
        self
    }
}

/// The selection of an instance, shared by the host's state, the editor and the control thread.
#[derive(Debug, Default)]
pub struct Selected {
    selection: Mutex<Selection>,
    /// Grows whenever another model is wanted.
    generation: AtomicU64,
}

impl Selected {
    /// Chooses another model.
    pub fn choose(&self, selection: Selection) {
        *self.selection.lock() = selection.checked();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Notes what was found out about the one that is chosen, unless another was chosen since `generation`.
    pub fn learn(&self, generation: u64, learn: impl FnOnce(&mut Selection)) {
        let mut selection = self.selection.lock();
        if self.generation() == generation {
            learn(&mut selection);
        }
    }

    /// The model that is wanted.
    pub fn get(&self) -> Selection {
        self.selection.lock().clone()
    }

    /// Keeps everybody else from it.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Sized {
        self.selection.lock()
    }

    /// Number of times that another one was wanted.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl<'a> PersistentField<'a, Selection> for Selected {
    /// A host restores a state: on any thread, while it plays, without activating again.
    fn set(&self, selection: Selection) {
        self.choose(selection);
    }

    fn map<F, R>(&self, f: F) -> R
    where
        F: Fn(&Selection) -> R,
    {
        f(&self.selection.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_later_versions_are_kept_and_missing_ones_have_defaults() {
        let text = r#"{"format":7,"source":{"from":"registry","name":"x"},"flavour":"sweet"}"#;
        let selection: Selection = serde_json::from_str(text).unwrap();
        assert_eq!(selection.source, Source::Registry { name: "x".into() });
        let again = serde_json::to_value(&selection).unwrap();
        assert_eq!(again["flavour"], "sweet");
        assert_eq!(again["format"], 7);
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_no_text_survives_the_session() {
        use std::os::unix::ffi::OsStrExt;

        let odd = PathBuf::from(std::ffi::OsStr::from_bytes(b"/m/M\xfcller.ckpt"));
        for (checkpoint, config) in
            [(odd.clone(), None), (odd.clone(), Some(odd)), ("/m/ü.ckpt".into(), Some("/m/ü.yaml".into()))]
        {
            let selection = Selection::file(checkpoint, config);
            let text = serde_json::to_string(&selection).unwrap();
            assert_eq!(serde_json::from_str::<Selection>(&text).unwrap(), selection, "{text}");
        }
        let text = r#"{"source":{"from":"file","checkpoint":"/m/a.ckpt","config":null}}"#;
        let selection: Selection = serde_json::from_str(text).unwrap();
        assert_eq!(selection.source, Source::File { checkpoint: "/m/a.ckpt".into(), config: None });
    }

    #[test]
    fn nonsense_in_a_session_is_not_believed() {
        let selected = Selected::default();
        let known = Known { rate: 1, chunk: u64::MAX, frame_hop: 0, frame: 0, stems: vec![] };
        selected.set(Selection { known: Some(known), title: "ä".repeat(9_999), ..Selection::default() });
        assert_eq!(selected.get().known, None);
        assert_eq!(selected.get().title.chars().count(), 200);
        assert_eq!(selected.generation(), 1);
    }

    #[test]
    fn what_is_learnt_of_an_old_choice_does_not_touch_the_new_one() {
        let selected = Selected::default();
        selected.choose(Selection::file("b.ckpt".into(), None));
        selected.learn(0, |selection| selection.sha256 = Some("a".into()));
        assert_eq!(selected.get().sha256, None);
    }
}
