//! Signal-to-distortion ratios on whole songs.

use candle_core::{Device, Tensor};
use serde::Serialize;

use super::data::SongSet;
use super::error::TrainError;
use super::model::RoformerForTraining;

/// How well one stem is separated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StemScore {
    /// Name of the stem.
    pub stem: String,
    /// Mean over songs of 10·log₁₀(Σ s² / Σ (s − ŝ)²) in dB; none where no song has the stem.
    pub sdr_db: Option<f64>,
    /// The same of the mixture as the estimate.
    pub mixture_db: Option<f64>,
}

/// Separates every song in crops of `samples` samples that follow each other without overlap, which costs a little quality at their
/// edges, and measures each stem.
///
/// # Errors
/// [`TrainError`] where a song cannot be read or the network fails.
pub(super) fn validate(
    model: &RoformerForTraining,
    songs: &SongSet,
    stems: &[String],
    targets: &[usize],
    samples: usize,
) -> Result<Vec<StemScore>, TrainError> {
    let channels = songs.channels();
    let len = channels * samples;
    // [stem]: ratios of all songs
    let mut ratios = vec![Vec::new(); stems.len()];
    for song in songs.songs() {
        // [stem]: energies of the stem, of the error, and of what else is in the mixture
        let mut energy = vec![[0.0f64; 3]; stems.len()];
        for start in (0..song.samples()).step_by(samples) {
            let mut all = vec![0.0; songs.instruments() * len];
            for (instrument, out) in all.chunks_exact_mut(len).enumerate() {
                song.read(instrument, start, channels, out)?;
            }
            let mut mixture = vec![0.0f32; len];
            for stem in all.chunks_exact(len) {
                mixture.iter_mut().zip(stem).for_each(|(sum, x)| *sum += x);
            }
            let x = Tensor::from_slice(&mixture, (1, channels, samples), &Device::Cpu)?;
            let estimates: Vec<f32> = model.forward(&x)?.flatten_all()?.to_vec1()?;
            for ((estimate, &target), energy) in estimates.chunks_exact(len).zip(targets).zip(&mut energy) {
                let stem = &all[target * len..][..len];
                for ((s, e), m) in stem.iter().zip(estimate).zip(&mixture) {
                    energy[0] += f64::from(*s).powi(2);
                    energy[1] += f64::from(s - e).powi(2);
                    energy[2] += f64::from(s - m).powi(2);
                }
            }
        }
        for (ratios, [stem, error, rest]) in ratios.iter_mut().zip(energy) {
            if stem > 1e-6 {
                let db = |noise: f64| 10.0 * (stem / noise.max(1e-12)).log10();
                ratios.push([db(error), db(rest)]);
            }
        }
    }
    let mean = |ratios: &[[f64; 2]], i: usize| {
        (!ratios.is_empty()).then(|| ratios.iter().map(|r| r[i]).sum::<f64>() / ratios.len() as f64)
    };
    Ok(stems
        .iter()
        .zip(&ratios)
        .map(|(stem, ratios)| StemScore {
            stem: stem.clone(),
            sdr_db: mean(ratios, 0),
            mixture_db: mean(ratios, 1),
        })
        .collect())
}
