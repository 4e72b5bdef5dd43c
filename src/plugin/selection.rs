//! Which model a project uses, in a form that survives moving the project, moving the file, and other versions of the plugin.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use nice_plug::params::persist::PersistentField;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::serde_path;
use super::wake_flag::WakeFlag;
use crate::embedded;
use crate::live::{ModelSamples, ModelTiming};
use crate::separator::FrameTiming;

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
    /// A source that this version cannot read, as it was saved.
    #[serde(untagged)]
    Unknown(Value),
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
    /// Length of the STFT's analysis window, if the model keeps context between hops. States saved by older versions have none: windows are repeated
    /// until the model is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_window: Option<u64>,
    pub stems: Vec<String>,
}

impl SavedModelSpec {
    pub fn timing(&self) -> ModelTiming {
        ModelTiming {
            rate: self.rate,
            chunk: ModelSamples(self.chunk),
            frame_hop: ModelSamples(self.frame_hop),
            frame: ModelSamples(self.frame),
            context: self.context_window.map(|window| {
                FrameTiming::of_lengths(self.frame as usize, self.frame_hop as usize, window as usize)
            }),
        }
    }

    pub fn new(timing: ModelTiming, stems: Vec<String>) -> Self {
        Self {
            rate: timing.rate,
            chunk: timing.chunk.0,
            frame_hop: timing.frame_hop.0,
            frame: timing.frame.0,
            context_window: timing.context.map(|context| context.win_length() as u64),
            stems,
        }
    }

    /// Whether every value is within limits. A saved state may contain anything.
    fn is_sane(&self) -> bool {
        (8_000..=192_000).contains(&self.rate)
            && (1..=60 * u64::from(self.rate)).contains(&self.chunk)
            && (1..=1 << 16).contains(&self.frame_hop)
            && (1..=1 << 17).contains(&self.frame)
            && self.context_window.is_none_or(|window| (1..=self.frame).contains(&window))
            && self.stems.len() <= 64
    }
}

/// A model as saved in a project.
///
/// Whatever of a saved selection this version cannot read is kept and saved again: unknown fields at any depth, and values of other types.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    pub source: ModelSource,
    /// Title for display.
    pub title: String,
    /// SHA-256 of the checkpoint, known after the first load. Used to find a file that moved.
    pub sha256: Option<String>,
    /// Properties of the model when it was last loaded.
    pub spec: Option<SavedModelSpec>,
    /// The selection as it was read; empty if it was made here.
    pub(in crate::plugin) saved: Map<String, Value>,
}

impl Default for Selection {
    fn default() -> Self {
        Self::new(ModelSource::Embedded, embedded::NAME)
    }
}

impl Selection {
    /// A model that was never loaded.
    pub fn new(source: ModelSource, title: &str) -> Self {
        Self { source, title: title.into(), sha256: None, spec: None, saved: Map::new() }
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

    /// Whether both name the same model. A checksum that one of them does not know yet makes no difference.
    pub fn is_same_model(&self, other: &Self) -> bool {
        let same_content = match (&self.sha256, &other.sha256) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.source == other.source && same_content
    }

    fn checked(mut self) -> Self {
        self.spec = self.spec.filter(SavedModelSpec::is_sane);
        self.title.truncate(self.title.char_indices().nth(200).map_or(self.title.len(), |(at, _)| at));
        self
    }
}

/// Reads a field if it is there and has the right type.
fn read_field<T: for<'de> Deserialize<'de>>(saved: &Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(saved.get(name)?.clone()).ok()
}

/// Puts `new` over `old`. Fields of objects that only `old` has stay.
fn overlay(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                overlay(old.entry(name).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new,
    }
}

impl<'de> Deserialize<'de> for Selection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let saved = Map::deserialize(deserializer)?;
        let source = match saved.get("source") {
            None => ModelSource::Embedded,
            Some(value) => {
                read_field(&saved, "source").unwrap_or_else(|| ModelSource::Unknown(value.clone()))
            }
        };
        Ok(Self {
            source,
            title: read_field(&saved, "title").unwrap_or_else(|| embedded::NAME.into()),
            sha256: read_field(&saved, "sha256"),
            spec: read_field(&saved, "known"),
            saved,
        })
    }
}

impl Serialize for Selection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut saved = self.saved.clone();
        let format = saved.get("format").and_then(Value::as_u64).unwrap_or(0).max(FORMAT.into());
        let json = |value: serde_json::Result<Value>| value.map_err(serde::ser::Error::custom);
        let fields = [
            ("format", Some(format.into())),
            ("source", Some(json(serde_json::to_value(&self.source))?)),
            ("title", Some(self.title.as_str().into())),
            ("sha256", self.sha256.as_deref().map(Value::from)),
            ("known", self.spec.as_ref().map(|spec| json(serde_json::to_value(spec))).transpose()?),
        ];
        for (name, value) in fields {
            let saved = saved.entry(name).or_insert(Value::Null);
            // Without a value of our own, keep one that we could not read.
            if let Some(value) = value {
                overlay(saved, value);
            }
        }
        saved.serialize(serializer)
    }
}

/// The selection of one instance, shared by the host's state, the editor and the control thread.
#[derive(Debug, Default)]
pub struct SharedSelection {
    selection: Mutex<Selection>,
    /// Incremented whenever another model is chosen.
    generation: AtomicU64,
    /// Set when a host restores a state.
    wake: WakeFlag,
}

impl SharedSelection {
    pub fn new(wake: WakeFlag) -> Self {
        Self { wake, ..Self::default() }
    }

    /// Chooses a model. Returns whether it is another one; the same one keeps what loading found out, and its generation.
    pub fn choose(&self, selection: Selection) -> bool {
        let mut selection = selection.checked();
        let mut current = self.selection.lock();
        let changed = !current.is_same_model(&selection);
        if !changed {
            selection.sha256 = selection.sha256.or_else(|| current.sha256.take());
            selection.spec = selection.spec.or_else(|| current.spec.take());
        }
        *current = selection;
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
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
        self.wake.set();
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

    fn resaved(text: &str) -> (Selection, Value) {
        let selection: Selection = serde_json::from_str(text).unwrap();
        let again = serde_json::to_value(&selection).unwrap();
        (selection, again)
    }

    #[test]
    fn unknown_fields_are_kept_and_missing_ones_default() {
        let (selection, again) =
            resaved(r#"{"format":7,"source":{"from":"registry","name":"x","revision":3},"flavour":"sweet"}"#);
        assert_eq!(selection.source, ModelSource::Registry { name: "x".into() });
        assert_eq!(again["flavour"], "sweet");
        assert_eq!(again["format"], 7);
        assert_eq!(again["source"]["revision"], 3);
        assert_eq!(again["known"], Value::Null);
    }

    #[test]
    fn unreadable_parts_are_saved_again_as_they_were() {
        for source in [
            r#"{"from":"cloud","url":"https://example.org/a","token":[1,2]}"#,
            r#"{"from":"registry"}"#,
            r#"{"from":"file","checkpoint":{"volume":3}}"#,
            r#""vocals""#,
            "null",
            "17",
        ] {
            let text = format!(r#"{{"source":{source},"title":"T","sha256":"ab","known":{{"layers":3}}}}"#);
            let (selection, again) = resaved(&text);
            assert!(matches!(selection.source, ModelSource::Unknown(_)), "{source}");
            assert_eq!((selection.title.as_str(), selection.sha256.as_deref()), ("T", Some("ab")));
            assert_eq!(again["source"], serde_json::from_str::<Value>(source).unwrap());
            assert_eq!(again["known"]["layers"], 3, "{source}");
        }
        let (selection, again) = resaved(r#"{"title":7,"sha256":[],"format":"x"}"#);
        assert_eq!((selection.source, selection.sha256), (ModelSource::Embedded, None));
        assert_eq!(again["sha256"], serde_json::json!([]));
    }

    #[test]
    fn an_unknown_source_is_replaced_by_a_choice() {
        let selected = SharedSelection::default();
        selected.set(serde_json::from_str(r#"{"source":{"from":"cloud"},"extra":1}"#).unwrap());
        selected.choose(Selection::file("/m/a.ckpt".into(), None));
        let saved = serde_json::to_value(selected.get()).unwrap();
        assert_eq!(saved["source"]["from"], "file");
        assert_eq!(saved.get("extra"), None, "it belonged to the other model");
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
            let again = serde_json::from_str::<Selection>(&text).unwrap();
            assert_eq!((again.source, again.title), (selection.source, selection.title), "{text}");
        }
        let text = r#"{"source":{"from":"file","checkpoint":"/m/a.ckpt","config":null}}"#;
        let selection: Selection = serde_json::from_str(text).unwrap();
        assert_eq!(selection.source, ModelSource::File { checkpoint: "/m/a.ckpt".into(), config: None });
    }

    #[test]
    fn out_of_range_specs_in_a_state_are_dropped() {
        let selected = SharedSelection::default();
        let spec = SavedModelSpec {
            rate: 1,
            chunk: u64::MAX,
            frame_hop: 0,
            frame: 0,
            context_window: None,
            stems: vec![],
        };
        let other = ModelSource::Registry { name: "x".into() };
        selected.set(Selection { spec: Some(spec), ..Selection::new(other, &"ä".repeat(9_999)) });
        assert_eq!(selected.get().spec, None);
        assert_eq!(selected.get().title.chars().count(), 200);
        assert_eq!(selected.generation(), 1);
    }

    #[test]
    fn an_equal_selection_changes_nothing() {
        let selected = SharedSelection::default();
        let file = || Selection::file("/m/a.ckpt".into(), None);
        assert!(selected.choose(file()));
        selected.update_if_current(1, |selection| selection.sha256 = Some("a".into()));
        let restored = selected.get();
        assert!(!selected.choose(file()), "saved before it was loaded");
        assert!(!selected.choose(restored.clone()), "saved after it was loaded");
        assert_eq!(selected.get().sha256.as_deref(), Some("a"));
        assert_eq!(selected.generation(), 1);
        assert!(selected.choose(Selection { sha256: Some("b".into()), ..restored }), "other content");
        assert!(selected.choose(Selection::file("/m/b.ckpt".into(), None)));
        assert_eq!(selected.generation(), 3);
    }

    #[test]
    fn an_update_for_an_old_choice_does_not_touch_the_new_one() {
        let selected = SharedSelection::default();
        selected.choose(Selection::file("b.ckpt".into(), None));
        selected.update_if_current(0, |selection| selection.sha256 = Some("a".into()));
        assert_eq!(selected.get().sha256, None);
    }
}
