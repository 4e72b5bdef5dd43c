//! Why no network can be built.

use super::Mismatch;

/// Why no network can be built from a configuration and a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ArchitectureError {
    /// The file holds the weights of another kind of network.
    #[error(
        "these are not the weights of a BS-RoFormer or Mel-Band RoFormer: no tensor `band_split.to_features.0.1.weight` among {count} (the first: {first})"
    )]
    NotARoformer {
        /// Number of tensors in the file.
        count: usize,
        /// Some of their names.
        first: String,
    },
    /// The file holds a LoRA adapter.
    #[error(
        "the file holds a LoRA adapter that is not merged (found tensor `{tensor}`); merge it into its base model first, then open the result"
    )]
    Adapter {
        /// A tensor that identifies it.
        tensor: String,
    },
    /// A known variant that is not supported.
    #[error("{what} is not supported (found tensor `{tensor}`)")]
    Unsupported {
        /// The usual name of the variant.
        what: &'static str,
        /// A tensor that identifies it.
        tensor: String,
    },
    /// An invalid value.
    #[error("model.{key}: expected {expected}, found {found}")]
    Invalid {
        /// Key under `model` in the YAML.
        key: &'static str,
        /// The expected value, in words.
        expected: String,
        /// The value found.
        found: String,
    },
    /// One chunk would take more work or memory than any computer has.
    #[error(
        "chunk_size {chunk} with stft_n_fft {n_fft} and stft_hop_length {hop} takes {teraflops:.0} TFLOP per second of audio and \
         {gigabytes:.0} GB; expected far less: correct these keys in the YAML"
    )]
    TooCostly {
        /// Samples per chunk.
        chunk: usize,
        /// Length of the Fourier transform.
        n_fft: usize,
        /// Samples between frames.
        hop: usize,
        /// Work per second of audio, in TFLOP.
        teraflops: f64,
        /// Memory of one pass, in GB.
        gigabytes: f64,
    },
    /// Tensors and configuration disagree.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
}
