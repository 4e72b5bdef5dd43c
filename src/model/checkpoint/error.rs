//! Why a checkpoint cannot be used, and what to do about it.

/// A name from an untrusted file, short and without control characters, for messages.
pub(crate) fn printable(name: &str) -> String {
    name.chars().take(100).flat_map(char::escape_debug).collect()
}

/// A checkpoint that cannot be read. Every message names the file first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("{file}: cannot read the checkpoint: {source}")]
    Io {
        /// Path of the file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder stands where a file should.
    #[error("{file}: is a folder; name the checkpoint file inside it")]
    Folder {
        /// Path of the folder.
        file: String,
    },
    /// No bytes at all.
    #[error("{file}: the file is empty; download or copy it again")]
    Empty {
        /// Path of the file.
        file: String,
    },
    /// Something else altogether.
    #[error(
        "{file}: not a checkpoint but {found}; expected a PyTorch archive (.ckpt, .pt, .pth) or .safetensors"
    )]
    NotACheckpoint {
        /// Path of the file.
        file: String,
        /// What the first bytes look like.
        found: String,
    },
    /// The file ends early.
    #[error(
        "{file}: {what} needs {needed} bytes and {available} are there; the file is incomplete, download or copy it again"
    )]
    Truncated {
        /// Path of the file.
        file: String,
        /// The part that is cut.
        what: String,
        /// Bytes that should be there.
        needed: u64,
        /// Bytes that are.
        available: u64,
    },
    /// A kind of PyTorch file which is refused by name.
    #[error("{file}: {found}; {advice}")]
    Unsupported {
        /// Path of the file.
        file: String,
        /// The kind of file.
        found: String,
        /// How to make a readable one.
        advice: &'static str,
    },
    /// The container is damaged or beyond the limits set for untrusted files.
    #[error("{file}: damaged {container}: {reason}")]
    Damaged {
        /// Path of the file.
        file: String,
        /// Zip archive, safetensors header or another part.
        container: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// The pickle inside cannot be followed.
    #[error("{file}: damaged pickle at byte {offset}: {reason}")]
    Pickle {
        /// Path of the file.
        file: String,
        /// Offset in `data.pkl`.
        offset: usize,
        /// What does not fit.
        reason: String,
    },
    /// The pickle names a function that has no place among weights and is what malware uses.
    #[error(
        "{file}: the checkpoint asks Python to use `{global}`, which can run programs; nothing was run. \
         Do not open this file with other software, and get the weights from a source you trust"
    )]
    Hostile {
        /// Path of the file.
        file: String,
        /// Module and name of the function.
        global: String,
    },
    /// No weights where they should be.
    #[error(
        "{file}: no weights found: {found}; save the model's `state_dict()` with torch.save, or as safetensors"
    )]
    NoWeights {
        /// Path of the file.
        file: String,
        /// What is there instead.
        found: String,
    },
    /// One tensor cannot be taken over.
    #[error("{file}: tensor `{name}`: {reason}")]
    Tensor {
        /// Path of the file.
        file: String,
        /// Name of the tensor as it stands in the file.
        name: String,
        /// What does not fit.
        reason: String,
    },
}
