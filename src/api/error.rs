//! Errors of the public interface.

use crate::audio::AudioError;
use crate::live::{BlockingError, PlanError, SwapError};
use crate::model::checkpoint::CheckpointError;
use crate::model::sidecar_config::SidecarConfigError;
use crate::offline::error::OfflineError;
use crate::separator::LoadError;

/// The result of a fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be opened or audio not separated.
///
/// The text names the file, what was found and expected, and the next step. Only [`Error::Cancelled`] and [`Error::Live`] may succeed when
/// the same call is repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint or its YAML cannot be read, or they do not belong together.
    #[error(transparent)]
    OpenModel(Box<dyn std::error::Error + Send + Sync>),
    /// This build contains no embedded model (feature `embedded`).
    #[error("this build contains no embedded model; enable the feature `embedded` or open a checkpoint")]
    NoEmbeddedModel,
    /// An audio file cannot be read or written, or samples in memory are not usable.
    #[error(transparent)]
    Audio(Box<dyn std::error::Error + Send + Sync>),
    /// The channels of [`Audio`](crate::Audio) differ in length, or there are none.
    #[error("expected at least one channel, and as many samples in each; found lengths {lengths:?}")]
    ChannelLengths {
        /// Samples of each channel.
        lengths: Vec<usize>,
    },
    /// The network failed, or an option does not fit the model.
    #[error(transparent)]
    Separate(Box<dyn std::error::Error + Send + Sync>),
    /// A live stream cannot be opened, or did not keep up while it was waited for.
    #[error(transparent)]
    Live(Box<dyn std::error::Error + Send + Sync>),
    /// The progress callback asked to stop.
    #[error("cancelled")]
    Cancelled,
}

macro_rules! convert {
    ($($source:ty => $variant:ident),* $(,)?) => {
        $(impl From<$source> for Error {
            fn from(error: $source) -> Self {
                Self::$variant(Box::new(error))
            }
        })*
    };
}

convert! {
    CheckpointError => OpenModel,
    SidecarConfigError => OpenModel,
    LoadError => OpenModel,
    AudioError => Audio,
    PlanError => Live,
    SwapError => Live,
    BlockingError => Live,
    std::io::Error => Live,
}

impl From<OfflineError> for Error {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::Cancelled => Self::Cancelled,
            OfflineError::Audio(error) => error.into(),
            error => Self::Separate(Box::new(error)),
        }
    }
}
