//! Options of a separation.

use super::mix::Mix;
use super::template::OutputTemplate;
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
    /// Number of chunks that cover each sample on average, 1 to 64, instead of the model's own.
    pub overlap: Option<f64>,
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
    /// Names of the outputs.
    pub template: OutputTemplate,
    /// Whether characters that some file systems refuse are replaced in the names.
    pub portable_names: bool,
    /// Added to the name of the song in file names.
    pub name_suffix: String,
    /// Name of the model, for file names and the tag of the outputs.
    pub model_name: String,
    /// The part of the song that is written; the music around it is used as context.
    pub range: TimeRange,
    /// Whether tags, cover art and production chunks of the input are left out.
    pub no_metadata: bool,
}

/// A part of a song, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimeRange {
    /// Where it starts.
    pub start: f64,
    /// Where it ends; none for the end of the song.
    pub end: Option<f64>,
}

impl TimeRange {
    /// Whether this is the whole song.
    pub fn is_whole(self) -> bool {
        self == Self::default()
    }

    /// First sample, and the sample after the last, at `sample_rate` Hz.
    pub fn samples(self, sample_rate: u32) -> (u64, Option<u64>) {
        let at = |seconds: f64| (seconds * f64::from(sample_rate)).round() as u64;
        (at(self.start), self.end.map(at))
    }
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
