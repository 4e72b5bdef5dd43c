//! From a song in memory to stems in memory.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::error::OfflineError;
use super::exact_stems::ExactStems;
use super::level::network_gain;
use super::options::RenderOptions;
use super::passes::SongPasses;
use super::reader::{MemoryReader, clean};
use super::render::{RenderProgress, with_fitting_chunk};
use crate::audio::{Planar, Resampler, SampleFormat};
use crate::lossless::grid::NullMeter;
use crate::separator::Separator;

/// Result of [`separate`].
#[derive(Debug)]
pub struct SeparatedSong {
    /// Names and samples of the stems, at the mixture's rate and length.
    pub stems: Vec<(String, Planar)>,
    /// Difference between the mixture and the sum of the stems.
    pub null: NullMeter,
}

/// Separates `mixture`, which has `sample_rate` Hz. Options that concern files are ignored.
///
/// # Errors
/// [`OfflineError`].
pub fn separate(
    separator: &mut Separator,
    mixture: &Planar,
    sample_rate: u32,
    options: &RenderOptions,
    on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
) -> Result<SeparatedSong, OfflineError> {
    let mut mixture = mixture.clone();
    let cleaned = clean(&mut mixture);
    if options.refuse_non_finite && cleaned > 0 {
        return Err(OfflineError::NonFinite { input: "the mixture".into(), count: cleaned });
    }
    let (stems, _) = with_fitting_chunk(separator, options, &mut |separator, options| {
        separate_once(separator, &mixture, sample_rate, options, on_progress)
    })?;
    let info = separator.info();
    let channels = mixture.channels();
    let (mut exact, names) = ExactStems::new(info, options, SampleFormat::Float32, channels);
    let mut planes = exact.complete(&mixture, stems).into_iter();
    let stems = names
        .into_iter()
        .map(|name| (name, Planar::from_equal(planes.by_ref().take(channels).collect())))
        .collect();
    Ok(SeparatedSong { stems, null: exact.null })
}

/// Runs the network once over the song. Returns stems · channels planes at the mixture's rate, as long as the mixture.
fn separate_once(
    separator: &mut Separator,
    mixture: &Planar,
    sample_rate: u32,
    options: &RenderOptions,
    on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
) -> Result<Planar, OfflineError> {
    let info = separator.info().clone();
    let channels = mixture.channels();
    let gain = network_gain(mixture.iter().flatten().fold(0f32, |peak, x| peak.max(x.abs())));
    let mut heard = Cow::Borrowed(mixture);
    if gain != 1.0 {
        heard.to_mut().iter_mut().flatten().for_each(|x| *x *= gain);
    }
    let mut at_model_rate = Planar::new(channels);
    let mut to_model = Resampler::new(sample_rate, info.sample_rate, channels)?;
    to_model.push(&heard, &mut at_model_rate)?;
    to_model.finish(&mut at_model_rate)?;

    let num_stems = info.architecture.num_stems;
    let mut resamplers = (0..num_stems)
        .map(|_| Resampler::new(info.sample_rate, sample_rate, channels))
        .collect::<Result<Vec<_>, _>>()?;
    let mut stems: Vec<Planar> = (0..num_stems).map(|_| Planar::new(channels)).collect();
    let mut sink = |block: &Planar| {
        for (n, (resampler, stem)) in resamplers.iter_mut().zip(&mut stems).enumerate() {
            let planes = block.planes()[n * channels..(n + 1) * channels].to_vec();
            resampler.push(&Planar::from_equal(planes), stem)?;
        }
        Ok(())
    };
    let samples = Some(mixture.samples() as u64);
    let passes = SongPasses::new(separator, &info, options, samples, sample_rate)?;
    passes.run(&mut MemoryReader::new(&at_model_rate), &mut sink, on_progress)?;
    let mut planes = Vec::with_capacity(num_stems * channels);
    for (resampler, mut stem) in resamplers.into_iter().zip(stems) {
        let mut resampler = resampler;
        resampler.finish(&mut stem)?;
        stem.iter_mut().flatten().for_each(|x| *x *= gain.recip());
        // Conversion there and back may change the length by a sample.
        stem.resize(mixture.samples());
        planes.extend(stem.into_planes());
    }
    Ok(Planar::from_equal(planes))
}
