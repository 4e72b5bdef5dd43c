//! Completes the stems of one song: adds the complement of a single-stem model, and makes the sum exact on the grid.

use super::options::RenderOptions;
use crate::audio::{Planar, SampleFormat};
use crate::lossless::LosslessMode;
use crate::lossless::grid::{COARSE_BITS, ExactGrid, ExactGridReport, FINE_BITS, NullMeter};
use crate::separator::{ModelSpec, stem_position};

/// The last step of a separation, at the source's rate, for files and for memory.
pub(super) struct ExactStems {
    channels: usize,
    /// Whether the last stem is the complement of a single-stem model.
    complement: bool,
    grid: Option<ExactGrid>,
    /// Difference between the mixture and the sum of the stems.
    pub null: NullMeter,
    pub grid_report: ExactGridReport,
}

impl ExactStems {
    /// For `channels` channels of output in `format`. Also returns the names of all stems.
    pub fn new(
        model: &ModelSpec,
        options: &RenderOptions,
        format: SampleFormat,
        channels: usize,
    ) -> (Self, Vec<String>) {
        let (names, complement) = stem_names(model, options);
        // Rounding and resampling errors go to the stem where they are least audible.
        let remainder_stem = match complement {
            true => names.len() - 1,
            false => stem_position(&names, "other").unwrap_or(names.len() - 1),
        };
        let grid = (options.lossless != LosslessMode::Off).then(|| match format {
            SampleFormat::Pcm16 => ExactGrid::integer(COARSE_BITS, remainder_stem),
            SampleFormat::Pcm24 => ExactGrid::integer(FINE_BITS, remainder_stem),
            SampleFormat::Float32 => ExactGrid::float(remainder_stem),
        });
        let exact = Self {
            channels,
            complement,
            grid,
            null: NullMeter::default(),
            grid_report: ExactGridReport::default(),
        };
        (exact, names)
    }

    /// Completes a block. `stems`: stems · channels planes of the network, as long as `mixture`. Returns stems · channels planes, with the
    /// complement last.
    pub fn complete(&mut self, mixture: &Planar, stems: Planar) -> Vec<Vec<f32>> {
        let channels = self.channels;
        let mut planes = stems.into_planes();
        if self.complement {
            planes.extend(std::iter::repeat_n(vec![0.0; mixture.samples()], channels));
        }
        for c in 0..channels {
            if let Some(grid) = self.grid {
                let mut views: Vec<&mut [f32]> =
                    planes.iter_mut().skip(c).step_by(channels).map(Vec::as_mut_slice).collect();
                self.grid_report.add(grid.quantise(mixture.channel(c), &mut views));
            }
            let stems = planes.iter().skip(c).step_by(channels).map(Vec::as_slice);
            self.null.add(mixture.channel(c), stems);
        }
        planes
    }
}

/// Names of all stems, and whether the last is a complement.
pub(super) fn stem_names(model: &ModelSpec, options: &RenderOptions) -> (Vec<String>, bool) {
    let complement = model.complement.as_ref().filter(|_| options.lossless != LosslessMode::Off);
    let names = model.stems.iter().chain(complement).cloned().collect();
    (names, complement.is_some())
}
