//! Which model a project uses, in a form that survives moving the project, moving the file, and other versions of the plugin.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use nice_plug::params::persist::PersistentField;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::serde_path;
use crate::embedded;
use crate::live::{ModelSamples, ModelTiming};

/// Version of the saved form. Later versions may add fields, which are kept.
const FORMAT: u32 = 1;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum ModelSource {
    /// The built-in model.
    Embedded,
    /// A model of the registry.
    Registry {
        /// Name of the registry entry.
        name: String,
    },
    /// A file chosen by the user.
    File {
        #[serde(with = "serde_path")]
        checkpoint: PathBuf,
        /// Its YAML configuration. `None`: inside the checkpoint or beside it.
        #[serde(with = "serde_path::optional", default)]
        config: Option<PathBuf>,
    },
}

/// Model properties that a plan needs before the model is loaded. Saved with the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedModelSpec {
    /// Sample rate in Hz.
    pub rate: u32,
    /// Chunk length in samples.
    pub chunk: u64,
    /// Samples between STFT frames.
    pub frame_hop: u64,
    /// STFT frame length in samples.
    pub frame: u64,
    pub stems: Vec<String>,
}

impl SavedModelSpec {
    pub fn timing(&self) -> ModelTiming {
        ModelTiming {
            rate: self.rate,
            chunk: ModelSamples(self.chunk),
            frame_hop: ModelSamples(self.frame_hop),
            frame: ModelSamples(self.frame),
        }
    }

    pub fn new(timing: ModelTiming, stems: Vec<String>) -> Self {
        Self {
            rate: timing.rate,
            chunk: timing.chunk.0,
            frame_hop: timing.frame_hop.0,
            frame: timing.frame.0,
            stems,
        }
    }

    /// Whether every value is within limits. A saved state may contain anything.
    fn is_sane(&self) -> bool {
        (8_000..=192_000).contains(&self.rate)
            && (1..=60 * u64::from(self.rate)).contains(&self.chunk)
            && (1..=1 << 16).contains(&self.frame_hop)
            && (1..=1 << 17).contains(&self.frame)
            && self.stems.len() <= 64
    }
}

/// A model as saved in a project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    pub format: u32,
    pub source: ModelSource,
    /// Title for display.
    pub title: String,
    /// SHA-256 of the checkpoint, known after the first load. Used to find a file that moved.
    pub sha256: Option<String>,
    /// Properties of the model when it was last loaded.
    #[serde(rename = "known")]
    pub spec: Option<SavedModelSpec>,
    /// Fields of later versions, kept as they are.
    #[serde(flatten)]
    pub unknown_fields: serde_json::Map<String, serde_json::Value>,
}

impl Default for Selection {
    fn default() -> Self {
        Self::new(ModelSource::Embedded, embedded::NAME)
    }
}

impl Selection {
    /// A model that was never loaded.
    pub fn new(source: ModelSource, title: &str) -> Self {
        Self {
            format: FORMAT,
            source,
            title: title.into(),
            sha256: None,
            spec: None,
            unknown_fields: Default::default(),
        }
    }

    /// A checkpoint file of the user.
    pub fn file(checkpoint: PathBuf, config: Option<PathBuf>) -> Self {
        let title = checkpoint.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::new(ModelSource::File { checkpoint, config }, &title)
    }

    /// The title to display.
    pub fn shown_title(&self) -> &str {
        match &self.source {
            ModelSource::Embedded => "Nullsum preview",
            _ if self.title.trim().is_empty() => "Unnamed model",
            _ => &self.title,
        }
    }

    fn checked(mut self) -> Self {
        self.spec = self.spec.filter(SavedModelSpec::is_sane);
        self.title.truncate(self.title.char_indices().nth(200).map_or(self.title.len(), |(at, _)| at));
        self
    }
}

/// The selection of one instance, shared by the host's state, the editor and the control thread.
#[derive(Debug, Default)]
pub struct SharedSelection {
    selection: Mutex<Selection>,
    /// Incremented whenever another model is chosen.
    generation: AtomicU64,
}

impl SharedSelection {
    /// Chooses another model.
    pub fn choose(&self, selection: Selection) {
        *self.selection.lock() = selection.checked();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Updates the selection with what loading found out, unless another model was chosen since `generation`.
    pub fn update_if_current(&self, generation: u64, update: impl FnOnce(&mut Selection)) {
        let mut selection = self.selection.lock();
        if self.generation() == generation {
            update(&mut selection);
        }
    }

    /// The chosen model.
    pub fn get(&self) -> Selection {
        self.selection.lock().clone()
    }

    /// Locks the selection, for tests.
    #[cfg(test)]
    pub(super) fn lock(&self) -> impl Sized {
        self.selection.lock()
    }

    /// How often a model was chosen.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl<'a> PersistentField<'a, Selection> for SharedSelection {
    /// Called when a host restores a state: on any thread, also while playing, without a new activation.
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
    fn unknown_fields_are_kept_and_missing_ones_default() {
        let text = r#"{"format":7,"source":{"from":"registry","name":"x"},"flavour":"sweet"}"#;
        let selection: Selection = serde_json::from_str(text).unwrap();
        assert_eq!(selection.source, ModelSource::Registry { name: "x".into() });
        let again = serde_json::to_value(&selection).unwrap();
        assert_eq!(again["flavour"], "sweet");
        assert_eq!(again["format"], 7);
    }

    #[cfg(unix)]
    #[test]
    fn non_unicode_paths_survive_saving() {
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
        assert_eq!(selection.source, ModelSource::File { checkpoint: "/m/a.ckpt".into(), config: None });
    }

    #[test]
    fn out_of_range_specs_in_a_state_are_dropped() {
        let selected = SharedSelection::default();
        let spec = SavedModelSpec { rate: 1, chunk: u64::MAX, frame_hop: 0, frame: 0, stems: vec![] };
        selected.set(Selection { spec: Some(spec), title: "ä".repeat(9_999), ..Selection::default() });
        assert_eq!(selected.get().spec, None);
        assert_eq!(selected.get().title.chars().count(), 200);
        assert_eq!(selected.generation(), 1);
    }

    #[test]
    fn an_update_for_an_old_choice_does_not_touch_the_new_one() {
        let selected = SharedSelection::default();
        selected.choose(Selection::file("b.ckpt".into(), None));
        selected.update_if_current(0, |selection| selection.sha256 = Some("a".into()));
        assert_eq!(selected.get().sha256, None);
    }
}
