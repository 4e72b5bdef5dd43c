//! Why a configuration cannot be used, and where in the file.

/// A configuration that cannot be read. Every message names the file first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The operating system refused.
    #[error("{file}: cannot read the configuration: {source}")]
    Io {
        /// Path of the file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder stands where a file should.
    #[error("{file}: is a folder; name the YAML file inside it")]
    Folder {
        /// Path of the folder.
        file: String,
    },
    /// No text.
    #[error(
        "{file}: not a text file; expected the checkpoint's YAML configuration (is this the checkpoint itself?)"
    )]
    NotText {
        /// Path of the file.
        file: String,
    },
    /// Far larger than any configuration.
    #[error(
        "{file}: more than {limit} bytes are too many for a configuration; expected the checkpoint's YAML file"
    )]
    TooLarge {
        /// Path of the file.
        file: String,
        /// Most bytes that are read.
        limit: usize,
    },
    /// Nothing but space and comments.
    #[error("{file}: the configuration is empty; use the YAML file that came with the checkpoint")]
    Empty {
        /// Path of the file.
        file: String,
    },
    /// No YAML, or YAML beyond the limits for untrusted files.
    #[error("{file}:{line}:{column}: {reason}")]
    Syntax {
        /// Path of the file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser met.
        reason: String,
    },
    /// A value of the wrong type or outside its range.
    #[error("{file}:{line}:{column}: {key}: expected {expected}, found {found}")]
    Value {
        /// Path of the file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// Dotted name, such as `model.dim`.
        key: String,
        /// What would do.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A section that has to be there is not.
    #[error(
        "{file}: no `{key}` section; use the YAML file that came with the checkpoint (it has `audio`, `model`, `training` and `inference`)"
    )]
    Missing {
        /// Path of the file.
        file: String,
        /// Name of the section.
        key: String,
    },
}
