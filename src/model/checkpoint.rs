//! Reading weights from untrusted files as named arrays of numbers.
//!
//! Most checkpoints are PyTorch archives: zip files whose index is a Python pickle, which is a program that may call
//! any function. The reader here recognises the few functions that build tensors and *executes nothing*. Every other
//! object becomes an opaque value, which is an error only where a weight is expected. `.safetensors` files and the GGUF files
//! of BSRoformer.cpp are read as well; [`convert`](crate::model::convert) writes safetensors.
//!
//! The content of a file decides its format, because extensions are often wrong. A tensor is read from the file when it is
//! converted, so that a truncated file or a lost network drive is an error and not a crash.
//!
//! Training checkpoints wrap their weights in dicts and lists, which are searched up to eight levels deep. A network is found
//! by the tensor `band_split.to_features.0.1.weight`. Whatever precedes that name is the prefix of the network, and is
//! removed, and so are modules that `torch.compile` or FSDP insert (`_orig_mod`). Tensors without the prefix are left over
//! ([`Checkpoint::leftovers`]).
//!
//! A file may hold several networks. An average of the weights (a key or prefix with `ema`, `swa` or `shadow`) wins over the
//! weights themselves. Networks that are otherwise equal are an error that lists them;
//! [`OpenOptions::weights`] chooses one. [`Checkpoint::wrapper`], [`Checkpoint::prefix`] and [`Checkpoint::alternatives`]
//! describe the choice.

mod archive;
mod bytes;
mod container;
mod dtype;
mod error;
mod gguf;
mod layout;
mod legacy;
mod mlx;
mod networks;
mod pickle;
mod pickled;
mod row_scales;
mod safetensors;
mod storage;
mod tensor;
mod torch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use bytes::CheckpointBytes;
use container::ContainerKind;
pub use dtype::Dtype;
pub use error::CheckpointError;
pub(in crate::model) use error::printable;
pub(in crate::model) use row_scales::ROW_SCALES;
use sha2::Digest as _;
use storage::{Storages, StoredMember};
use tensor::TensorEntry;
pub use tensor::TensorView;

/// Longest accepted tensor name.
const MAX_NAME_BYTES: usize = 1024;

/// File format of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// A zip archive of `torch.save`, PyTorch 1.6 and later.
    Torch,
    /// A file of `torch.save` from before PyTorch 1.6.
    LegacyTorch,
    /// A safetensors file.
    SafeTensors,
    /// A GGUF file of BSRoformer.cpp.
    Gguf,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Torch => "PyTorch archive",
            Self::LegacyTorch => "PyTorch file from before 1.6",
            Self::SafeTensors => "safetensors",
            Self::Gguf => "GGUF",
        })
    }
}

/// How to open a checkpoint.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Which network of a file to use: dict keys and prefix that lead to it, such as `ema` or `state_dict.student`. By default
    /// this is chosen; see the docs of this module.
    pub weights: Option<String>,
}

/// An open checkpoint: names, shapes and views of its tensors.
pub struct Checkpoint {
    origin: String,
    format: Format,
    wrapper: Option<String>,
    prefix: String,
    metadata: BTreeMap<String, String>,
    derived_config: Option<String>,
    skipped: Vec<String>,
    leftovers: Vec<String>,
    alternatives: Vec<String>,
    storages: Storages,
    tensors: BTreeMap<String, TensorEntry>,
    /// Scales of the rows of tensors of scaled integers, by the name of the tensor.
    scales: BTreeMap<String, TensorEntry>,
}

impl Checkpoint {
    /// Opens a `.ckpt`, `.pt`, `.pth`, `.safetensors` or `.gguf` file; the content decides which. The file must not be modified while it
    /// is open; one that becomes shorter is an error when a tensor is read.
    ///
    /// # Errors
    /// [`CheckpointError`] when the file cannot be read, is no checkpoint, is damaged, holds several equal networks, or holds a
    /// tensor that cannot be read exactly. The message names the file, what was found and what to do.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// As [`Checkpoint::open`], with options.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], and [`CheckpointError::UnknownNetwork`].
    pub fn open_with(path: &Path, options: &OpenOptions) -> Result<Self, CheckpointError> {
        Self::read(CheckpointBytes::open(path, &path.display().to_string())?, options)
    }

    /// Reads a checkpoint from memory, such as the embedded model. `origin` names it in errors and reports.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>, origin: &str) -> Result<Self, CheckpointError> {
        Self::from_bytes_with(bytes, origin, &OpenOptions::default())
    }

    /// As [`Checkpoint::from_bytes`], with options.
    ///
    /// # Errors
    /// As [`Checkpoint::open_with`].
    pub fn from_bytes_with(
        bytes: impl Into<Cow<'static, [u8]>>,
        origin: &str,
        options: &OpenOptions,
    ) -> Result<Self, CheckpointError> {
        Self::read(CheckpointBytes::from_memory(bytes.into(), origin), options)
    }

    fn read(bytes: CheckpointBytes, options: &OpenOptions) -> Result<Self, CheckpointError> {
        let wanted = options.weights.as_deref();
        let (format, contents) = match container::detect_container(&bytes)? {
            ContainerKind::Zip => (Format::Torch, torch::read(&bytes, wanted)?),
            ContainerKind::Legacy => (Format::LegacyTorch, legacy::read(&bytes, wanted)?),
            ContainerKind::SafeTensors => (Format::SafeTensors, safetensors::read(&bytes, wanted)?),
            ContainerKind::Gguf => (Format::Gguf, gguf::read(&bytes, wanted)?),
        };
        let origin = bytes.origin().to_owned();
        if let Some(name) = contents.tensors.keys().find(|name| !is_printable_name(name)) {
            return Err(CheckpointError::Tensor {
                file: origin,
                name: printable(name),
                reason: format!(
                    "its name is empty, longer than {MAX_NAME_BYTES} bytes or has control characters"
                ),
            });
        }
        let mut tensors = contents.tensors;
        let scales = row_scales::take(&mut tensors, &origin)?;
        let shortened = |names: Vec<String>| names.iter().map(|name| printable(name)).collect();
        Ok(Self {
            origin,
            format,
            wrapper: contents.wrapper,
            prefix: contents.prefix,
            metadata: contents.metadata,
            derived_config: contents.derived_config,
            skipped: contents.skipped,
            leftovers: shortened(contents.leftovers),
            alternatives: contents.alternatives,
            storages: Storages::new(bytes, contents.buffers, contents.members),
            tensors,
            scales,
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
        Some(TensorView::new(name, entry, self.scales.get(name), &self.storages))
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

    /// A YAML made of the hyperparameters of a GGUF file. It lacks the names of the stems, so any other YAML is better.
    #[must_use]
    pub fn derived_config_yaml(&self) -> Option<&str> {
        self.derived_config.as_deref()
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

    /// Names of the tensors beside the network that do not belong to it, such as those of a loss. They are ignored.
    #[must_use]
    pub fn leftovers(&self) -> &[String] {
        &self.leftovers
    }

    /// Names of the other complete networks in the file, for [`OpenOptions::weights`].
    #[must_use]
    pub fn alternatives(&self) -> &[String] {
        &self.alternatives
    }

    /// Size of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.storages.bytes().len()
    }

    /// SHA-256 of the whole file, in lower-case hexadecimal.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sha256(&self) -> Result<String, CheckpointError> {
        let mut hasher = sha2::Sha256::new();
        let bytes = self.storages.bytes();
        bytes.for_each_piece(0..bytes.len(), &mut |piece| hasher.update(piece))?;
        Ok(crate::hash::hex(&hasher.finalize()))
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

/// Tensors and metadata of a file.
#[derive(Default)]
struct ContainerContents {
    wrapper: Option<String>,
    prefix: String,
    metadata: BTreeMap<String, String>,
    derived_config: Option<String>,
    skipped: Vec<String>,
    leftovers: Vec<String>,
    alternatives: Vec<String>,
    buffers: Vec<Vec<u8>>,
    members: Vec<StoredMember>,
    tensors: BTreeMap<String, TensorEntry>,
}
