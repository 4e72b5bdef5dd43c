//! Weights from untrusted files, as named arrays of plain numbers.
//!
//! People share checkpoints as PyTorch archives: zip files whose index is a Python pickle, a program that may
//! call anything. It is read here by a reader which knows the few constructors of tensors and *calls
//! nothing*; any other object it meets stays an opaque value, and only matters when it stands where a weight
//! should be. `.safetensors` is read as well, and is what [`convert`](crate::model::convert) writes.
//!
//! Which of the two a file is, is told by its content: extensions are often wrong. Files are memory-mapped,
//! and tensors are views into the map until they are converted.
//!
//! Training checkpoints wrap their weights. The dict that holds them is looked for at the top and under
//! `state_dict`, `model_state_dict`, `state`, `model`, `params`, `module`, nested up to four deep, and under any other
//! key at the top when none of these holds a RoFormer's; of those that do the one with most tensors is taken, the
//! earlier in this list when several have as many. The averaged weights (`ema_state_dict`, `ema_model`, `ema`) are
//! taken only when nothing else holds at least half as many, since few trainers evaluate them;
//! [`Checkpoint::wrapper`] says which it was. A prefix that all names share (`module.`) is taken off, and with it the
//! counters that wrappers of an average add; of an average and the weights in one dict (`ema_model.`, `online_model.`) the
//! weights are taken.

mod error;
mod layout;
mod pickle;
mod safetensors;
mod source;
mod tensor;
mod torch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

pub use error::CheckpointError;
pub(super) use error::printable;
use source::{Content, Source};
use tensor::Entry;
pub use tensor::{Dtype, TensorView};

/// Longest name of a tensor.
const MAX_NAME_BYTES: usize = 1024;

/// The container a checkpoint came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// A zip archive of `torch.save`, PyTorch 1.6 and later.
    Torch,
    /// A safetensors file.
    SafeTensors,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Torch => "PyTorch archive",
            Self::SafeTensors => "safetensors",
        })
    }
}

/// An open checkpoint: names, shapes and views of its tensors.
pub struct Checkpoint {
    origin: String,
    format: Format,
    wrapper: Option<String>,
    prefix: String,
    metadata: BTreeMap<String, String>,
    skipped: Vec<String>,
    source: Source,
    /// Storages of a compressed archive, unpacked; the others are read from the map.
    inflated: Vec<Vec<u8>>,
    tensors: BTreeMap<String, Entry>,
}

impl Checkpoint {
    /// Opens `.ckpt`, `.pt`, `.pth` or `.safetensors`, told apart by content. The file is memory-mapped: it
    /// must not be truncated while it is open.
    ///
    /// # Errors
    /// When the file cannot be read, is no checkpoint, is damaged, or holds what cannot be taken over
    /// faithfully. The message names the file, what was found and what to do.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let origin = path.display().to_string();
        Self::from_source(Source::open(path, &origin)?, origin)
    }

    /// Reads a checkpoint from memory, such as the embedded model. `origin` names it in errors and reports.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>, origin: &str) -> Result<Self, CheckpointError> {
        Self::from_source(Source::Memory(bytes.into()), origin.to_owned())
    }

    fn from_source(source: Source, origin: String) -> Result<Self, CheckpointError> {
        let (format, contents) = match source::sniff(&source, &origin)? {
            Content::Zip => (Format::Torch, torch::read(&source, &origin)?),
            Content::SafeTensors => (Format::SafeTensors, safetensors::read(&source, &origin)?),
        };
        if let Some(name) = contents.tensors.keys().find(|name| !is_sane(name)) {
            return Err(CheckpointError::Tensor {
                file: origin,
                name: printable(name),
                reason: format!(
                    "its name is empty, longer than {MAX_NAME_BYTES} bytes or has control characters"
                ),
            });
        }
        let (prefix, tensors) = layout::strip_prefixes(contents.tensors);
        Ok(Self {
            origin,
            format,
            wrapper: contents.wrapper,
            prefix,
            metadata: contents.metadata,
            skipped: contents.skipped,
            source,
            inflated: contents.inflated,
            tensors,
        })
    }

    /// The names of all tensors, sorted, without the prefix they share.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Never true: a file without tensors is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensor of that name, as [`Checkpoint::names`] spells it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, entry) = self.tensors.get_key_value(name)?;
        TensorView::new(&self.origin, name, entry, &self.source, &self.inflated)
    }

    /// All tensors in the order of [`Checkpoint::names`].
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.names().filter_map(|name| self.get(name))
    }

    /// The YAML configuration a converted safetensors file carries (metadata key `config`).
    #[must_use]
    pub fn config_yaml(&self) -> Option<&str> {
        self.metadata("config")
    }

    /// A text of the safetensors metadata; PyTorch archives have none.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The path, or the name given to [`Checkpoint::from_bytes`].
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The container.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The keys that led to the weights, such as `state_dict` or `ema.model`; none when they stood at the
    /// top.
    #[must_use]
    pub fn wrapper(&self) -> Option<&str> {
        self.wrapper.as_deref()
    }

    /// What was cut from every name, such as `module.` or `module.model.`; empty when nothing was.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The entries next to the weights that are no tensors, by name; they play no part.
    #[must_use]
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Size of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.source.len() as u64
    }

    /// The whole file, as it was read.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.source
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("origin", &self.origin)
            .field("format", &self.format)
            .field("wrapper", &self.wrapper)
            .field("prefix", &self.prefix)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// Names go to terminals, reports and JSON: no real one would trouble them.
fn is_sane(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control)
}

/// What a container held, before names are tidied.
struct Contents {
    wrapper: Option<String>,
    metadata: BTreeMap<String, String>,
    skipped: Vec<String>,
    inflated: Vec<Vec<u8>>,
    tensors: BTreeMap<String, Entry>,
}
