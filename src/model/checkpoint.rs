//! Reading weights from untrusted files as named arrays of numbers.
//!
//! Most checkpoints are PyTorch archives: zip files whose index is a Python pickle, which is a program that may call
//! any function. The reader here recognises the few functions that build tensors and *executes nothing*. Every other
//! object becomes an opaque value, which is an error only where a weight is expected. `.safetensors` files are read as
//! well; [`convert`](crate::model::convert) writes them.
//!
//! The content of a file decides its format, because extensions are often wrong. Files are memory-mapped, and tensors
//! are views into the map until they are converted.
//!
//! Training checkpoints wrap their weights in dicts. The search covers the top level and the keys `state_dict`,
//! `model_state_dict`, `state`, `model`, `params` and `module`, up to four levels deep. Where none of these holds a
//! RoFormer, every other key of the top level is searched. The dict with the most tensors wins; among equals, the first
//! in the order above. Averaged weights (`ema_state_dict`, `ema_model`, `ema`) are used only when no other dict holds at
//! least half as many tensors, because few trainers evaluate them. [`Checkpoint::wrapper`] names the choice. A prefix
//! shared by all names (`module.`) is removed, and so are the counters of averaging wrappers. Where one dict holds both
//! the weights and their average (`online_model.`, `ema_model.`), the weights are used.

mod bytes;
mod error;
mod layout;
mod pickle;
mod safetensors;
mod tensor;
mod torch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use bytes::{CheckpointBytes, ContainerKind};
pub use error::CheckpointError;
pub(super) use error::printable;
use tensor::TensorEntry;
pub use tensor::{Dtype, TensorView};

/// Longest accepted tensor name.
const MAX_NAME_BYTES: usize = 1024;

/// File format of a checkpoint.
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
    bytes: CheckpointBytes,
    /// Decompressed storages of a compressed archive. Stored ones are read from `bytes`.
    inflated: Vec<Vec<u8>>,
    tensors: BTreeMap<String, TensorEntry>,
}

impl Checkpoint {
    /// Opens a `.ckpt`, `.pt`, `.pth` or `.safetensors` file; the content decides which. The file is memory-mapped
    /// and must not be truncated while it is open.
    ///
    /// # Errors
    /// [`CheckpointError`] when the file cannot be read, is no checkpoint, is damaged, or holds a tensor that cannot be
    /// read exactly. The message names the file, what was found and what to do.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let origin = path.display().to_string();
        Self::from_checkpoint_bytes(CheckpointBytes::open(path, &origin)?, origin)
    }

    /// Reads a checkpoint from memory, such as the embedded model. `origin` names it in errors and reports.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>, origin: &str) -> Result<Self, CheckpointError> {
        Self::from_checkpoint_bytes(CheckpointBytes::Memory(bytes.into()), origin.to_owned())
    }

    fn from_checkpoint_bytes(bytes: CheckpointBytes, origin: String) -> Result<Self, CheckpointError> {
        let (format, contents) = match bytes::detect_container(&bytes, &origin)? {
            ContainerKind::Zip => (Format::Torch, torch::read(&bytes, &origin)?),
            ContainerKind::SafeTensors => (Format::SafeTensors, safetensors::read(&bytes, &origin)?),
        };
        if let Some(name) = contents.tensors.keys().find(|name| !is_printable_name(name)) {
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
            bytes,
            inflated: contents.inflated,
            tensors,
        })
    }

    /// The names of all tensors, sorted, without the prefix they share.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Always false, because a file without tensors is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensor of that name, as [`Checkpoint::names`] spells it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, entry) = self.tensors.get_key_value(name)?;
        TensorView::new(&self.origin, name, entry, &self.bytes, &self.inflated)
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

    /// The dict keys that lead to the weights, such as `state_dict` or `ema.model`; `None` at the top level.
    #[must_use]
    pub fn wrapper(&self) -> Option<&str> {
        self.wrapper.as_deref()
    }

    /// The prefix removed from every name, such as `module.` or `module.model.`; empty when there was none.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Names of the entries beside the weights that are not tensors. They are ignored.
    #[must_use]
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Size of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The raw bytes of the file.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.bytes
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

/// Whether a name is safe to print in terminals, reports and JSON.
fn is_printable_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control)
}

/// Tensors and metadata of a file, before prefixes are removed.
struct ContainerContents {
    wrapper: Option<String>,
    metadata: BTreeMap<String, String>,
    skipped: Vec<String>,
    inflated: Vec<Vec<u8>>,
    tensors: BTreeMap<String, TensorEntry>,
}
