//! Errors of checkpoint files.

/// Shortens and escapes a name from an untrusted file for use in messages.
pub(crate) fn printable(name: &str) -> String {
    name.chars().take(100).flat_map(char::escape_debug).collect()
}

/// A checkpoint that cannot be read. Every message names the file first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system reported an error.
    #[error("{file}: cannot read the checkpoint: {source}")]
    Io {
        /// Path of the file.
        file: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The path is a folder.
    #[error("{file}: is a folder; name the checkpoint file inside it")]
    Folder {
        /// Path of the folder.
        file: String,
    },
    /// The file is empty.
    #[error("{file}: the file is empty; download or copy it again")]
    Empty {
        /// Path of the file.
        file: String,
    },
    /// The file has another format.
    #[error(
        "{file}: not a checkpoint but {found}; expected a PyTorch archive (.ckpt, .pt, .pth), .safetensors or .gguf"
    )]
    NotACheckpoint {
        /// Path of the file.
        file: String,
        /// The format that its first bytes suggest.
        found: String,
    },
    /// The file ends early.
    #[error(
        "{file}: {what} needs {needed} bytes, but only {available} are present; the file is incomplete, download or copy it again"
    )]
    Truncated {
        /// Path of the file.
        file: String,
        /// The incomplete part.
        what: String,
        /// Bytes expected.
        needed: u64,
        /// Bytes present.
        available: u64,
    },
    /// A PyTorch format that is recognised but not supported.
    #[error("{file}: {found}; {advice}")]
    Unsupported {
        /// Path of the file.
        file: String,
        /// The format.
        found: String,
        /// How to create a supported file.
        advice: &'static str,
    },
    /// The container is damaged or exceeds the limits for untrusted files.
    #[error("{file}: damaged {container}: {reason}")]
    Damaged {
        /// Path of the file.
        file: String,
        /// Zip archive, safetensors header or another part.
        container: &'static str,
        /// The reason.
        reason: String,
    },
    /// The pickle inside the archive is invalid.
    #[error("{file}: damaged pickle at byte {offset}: {reason}")]
    Pickle {
        /// Path of the file.
        file: String,
        /// Offset in `data.pkl`.
        offset: usize,
        /// The reason.
        reason: String,
    },
    /// The pickle imports a function that weights never need and malware uses.
    #[error(
        "{file}: the checkpoint asks Python to call `{global}`, which can run programs; nothing was executed. \
         Do not open this file with other software, and get the weights from a source you trust"
    )]
    Hostile {
        /// Path of the file.
        file: String,
        /// Module and name of the function.
        global: String,
    },
    /// The file holds no weights.
    #[error(
        "{file}: no weights found: {found}; save the model's `state_dict()` with torch.save, or as safetensors"
    )]
    NoWeights {
        /// Path of the file.
        file: String,
        /// A description of the content.
        found: String,
    },
    /// The file holds several networks, and nothing says which one is meant.
    #[error("{file}: holds {} networks, and none is preferred: {}; choose one by its name", networks.len(), networks.join(", "))]
    SeveralNetworks {
        /// Path of the file.
        file: String,
        /// Names of the networks, for [`OpenOptions::weights`](super::OpenOptions::weights).
        networks: Vec<String>,
    },
    /// The requested network does not exist.
    #[error("{file}: holds no network of this name; there are: {}", if networks.is_empty() { "none".to_owned() } else { networks.join(", ") })]
    UnknownNetwork {
        /// Path of the file.
        file: String,
        /// Names of the networks in the file.
        networks: Vec<String>,
    },
    /// A tensor cannot be read.
    #[error("{file}: tensor `{name}`: {reason}")]
    Tensor {
        /// Path of the file.
        file: String,
        /// Name of the tensor in the file.
        name: String,
        /// The reason.
        reason: String,
    },
}
