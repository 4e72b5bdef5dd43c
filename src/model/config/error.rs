//! Errors of configurations, with their position in the file.

/// A configuration that cannot be read. Every message names the file first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The operating system reported an error.
    #[error("{file}: cannot read the configuration: {source}")]
    Io {
        /// Path of the file.
        file: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The path is a folder.
    #[error("{file}: is a folder; name the YAML file inside it")]
    Folder {
        /// Path of the folder.
        file: String,
    },
    /// The file is not UTF-8 text.
    #[error(
        "{file}: not a text file; expected the checkpoint's YAML configuration (is this the checkpoint itself?)"
    )]
    NotText {
        /// Path of the file.
        file: String,
    },
    /// The file is larger than any configuration.
    #[error(
        "{file}: larger than {limit} bytes, too large for a configuration; expected the checkpoint's YAML file"
    )]
    TooLarge {
        /// Path of the file.
        file: String,
        /// The size limit.
        limit: usize,
    },
    /// The file holds only white space and comments.
    #[error("{file}: the configuration is empty; use the YAML file that came with the checkpoint")]
    Empty {
        /// Path of the file.
        file: String,
    },
    /// Invalid YAML, or YAML that exceeds the limits for untrusted files.
    #[error("{file}:{line}:{column}: {reason}")]
    Syntax {
        /// Path of the file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The parser's message.
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
        /// The expected value, in words.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A required section is missing.
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
