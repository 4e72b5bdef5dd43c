//! Options of a separation.

use super::mix::Mix;
use crate::audio::{Container, SampleFormat};
use crate::lossless::LosslessMode;
use crate::separator::{ModelSpec, stem_position};

/// How a song is separated and which files are written. The defaults follow the model's configuration and the source's bit depth.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// How the residual is distributed.
    pub lossless: LosslessMode,
    /// Samples of a chunk at the model's rate, instead of the model's own.
    pub chunk: Option<usize>,
    /// Chunks that cover a sample, instead of the model's own.
    pub overlap: Option<usize>,
    /// Chunks per pass, instead of the model's own.
    pub batch: Option<usize>,
    /// Test-time augmentation: the mean over three variants of the mixture.
    pub tta: bool,
    /// The mean over this many circular shifts of the song; 0 and 1 mean none.
    pub big_shifts: usize,
    /// Whether the mixture is standardised first, instead of what the model's configuration says.
    pub normalize: Option<bool>,
    /// File type of the outputs.
    pub container: Option<Container>,
    /// Sample type of the outputs; none keeps the source's depth.
    pub format: Option<SampleFormat>,
    /// Stems to write; none writes all.
    pub stems: Option<Vec<String>>,
    /// Whether the mixture without vocals (without the first stem where there are none) is written too.
    pub extract_instrumental: bool,
    /// A remix to write.
    pub mix: Option<Mix>,
    /// Whether values that are not finite are an error; otherwise they are set to 0 and reported.
    pub refuse_non_finite: bool,
    /// Template of the file names without extension: `{name}` and `{stem}` are replaced; it may contain folders.
    pub template: Option<String>,
}

impl RenderOptions {
    /// Whether the hybrid rule distributes the residual. With a single-stem model the residual is a stem of its own instead.
    pub(super) fn is_hybrid(&self, model: &ModelSpec) -> bool {
        self.lossless == LosslessMode::Hybrid && model.complement.is_none()
    }

    /// Number of passes of the network over the song.
    pub fn passes(&self, model: &ModelSpec) -> usize {
        // The second pass divides the residual between these two stems.
        let second = self.is_hybrid(model) && hybrid_stems(model).is_some();
        self.big_shifts.max(1) + usize::from(second)
    }
}

/// The stems between which the hybrid rule divides the residual: drums and other.
pub(super) fn hybrid_stems(model: &ModelSpec) -> Option<(usize, usize)> {
    let position = |name: &str| stem_position(&model.stems, name);
    Some((position("drums")?, position("other")?))
}
