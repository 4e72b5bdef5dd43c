//! From an audio file to stem files.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::OfflineError;
use super::options::RenderOptions;
use super::outputs::{OutputResampler, StemFiles};
use super::passes::SongPasses;
use super::reader::FileReader;
use crate::audio::{Decoder, SourceInfo};
use crate::lossless::grid::NullMeter;
use crate::separator::{SeparateError, Separator, StageTimes};

/// Progress of one song.
#[derive(Clone, Copy, Debug)]
pub struct RenderProgress {
    /// Share of the work done, 0 to 1, where the length of the input is known.
    pub fraction: Option<f64>,
    /// Seconds of audio through the network so far, all passes counted.
    pub seconds: f64,
}

/// Result of separating one song.
#[derive(Debug)]
pub struct RenderReport {
    /// The input.
    pub input: PathBuf,
    /// Properties of the input.
    pub source: SourceInfo,
    /// Files written.
    pub outputs: Vec<PathBuf>,
    /// Length in seconds.
    pub audio_seconds: f64,
    /// Time taken.
    pub elapsed: Duration,
    /// Time in the separator, by stage.
    pub stages: StageTimes,
    /// Difference between the mixture and the sum of the stems.
    pub null: NullMeter,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Separates `input` into files in `folder`. Outputs appear only when all is done; an error or a `Break` from `on_progress`
/// leaves none. Where a GPU has no room for a chunk, the song is started again with half the chunk, and the report says so.
///
/// # Errors
/// [`OfflineError`].
pub fn render(
    separator: &mut Separator,
    input: &Path,
    folder: &Path,
    options: &RenderOptions,
    on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
) -> Result<RenderReport, OfflineError> {
    let started = Instant::now();
    separator.take_stage_times();
    let (mut report, warning) = with_fitting_chunk(separator, options, &mut |separator, options| {
        render_once(separator, input, folder, options, started, on_progress)
    })?;
    report.warnings.extend(warning);
    Ok(report)
}

/// Calls `run` with the chunk of `options`, and again with half of it while the device has too little memory. Returns a warning if
/// the chunk became smaller.
pub(super) fn with_fitting_chunk<T>(
    separator: &mut Separator,
    options: &RenderOptions,
    run: &mut dyn FnMut(&mut Separator, &RenderOptions) -> Result<T, OfflineError>,
) -> Result<(T, Option<String>), OfflineError> {
    let wanted = options.chunk.unwrap_or(separator.info().chunk);
    let mut chunk = wanted;
    loop {
        let fits = separator.chunk_that_fits(chunk);
        chunk = fits.unwrap_or(chunk);
        let options = RenderOptions { chunk: Some(chunk), ..options.clone() };
        match run(separator, &options) {
            Err(OfflineError::Separate(SeparateError::OutOfMemory { .. }))
                if separator.chunk_that_fits(chunk).is_some_and(|fits| fits < chunk) => {}
            Ok(result) => {
                let seconds = |samples: usize| samples as f64 / f64::from(separator.info().sample_rate);
                let warning = (chunk < wanted).then(|| {
                    format!(
                        "{} has too little memory for chunks of {:.1} s; chunks of {:.1} s were used instead",
                        separator.device(),
                        seconds(wanted),
                        seconds(chunk)
                    )
                });
                return Ok((result, warning));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Renders once with the chunk size in `options`; the elapsed time counts from `started`.
fn render_once(
    separator: &mut Separator,
    input: &Path,
    folder: &Path,
    options: &RenderOptions,
    started: Instant,
    on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
) -> Result<RenderReport, OfflineError> {
    let info = separator.info().clone();
    let mut source = FileReader::open(input, info.sample_rate)?;
    let source_info = source.decoder().info().clone();
    let outputs = StemFiles::create(Decoder::open(input)?, input, folder, &info, options)?;
    let mut resampler = OutputResampler::new(outputs, info.sample_rate, info.architecture.num_stems)?;
    let passes = SongPasses::new(separator, &info, options, source_info.samples, source_info.sample_rate)?;
    passes.run(&mut source, &mut |block| resampler.push(block), on_progress)?;
    let cleaned = source.cleaned();
    if options.refuse_non_finite && cleaned > 0 {
        return Err(OfflineError::NonFinite { input: input.display().to_string(), count: cleaned });
    }
    let finished = resampler.finish()?;
    let mut warnings = finished.warnings;
    if cleaned > 0 {
        warnings.insert(0, format!("{cleaned} samples were NaN or infinite and were set to 0"));
    }
    Ok(RenderReport {
        input: input.into(),
        outputs: finished.files,
        audio_seconds: finished.samples as f64 / f64::from(source_info.sample_rate),
        source: source_info,
        elapsed: started.elapsed(),
        stages: separator.take_stage_times(),
        null: finished.null,
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::architecture::Architecture;
    use crate::separator::ModelSpec;
    use crate::separator::Runtime;

    /// A small model whose chunks are of four seconds, as on a GPU.
    fn separator() -> Separator {
        let mut arch = Architecture::reference_default();
        (arch.dim, arch.depth, arch.heads, arch.dim_head, arch.ff_inner) = (8, 1, 1, 4, 8);
        (arch.mask_hidden, arch.num_stems) = (8, 2);
        (arch.stft.n_fft, arch.stft.hop_length, arch.stft.win_length) = (64, 32, 64);
        arch.bands = vec![(0..10).collect(), (10..33).collect()];
        let mut info = ModelSpec::random("test", arch, 4000);
        info.sample_rate = 1000;
        let runtime = Runtime {
            device: crate::model::device::DeviceChoice::Cpu,
            threads: 1,
            as_on_gpu: true,
            ..Runtime::default()
        };
        Separator::random(info, 3, runtime).unwrap()
    }

    #[test]
    fn out_of_memory_halves_the_chunk_and_the_report_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let song = folder.path().join("song.wav");
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 1000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(&song, spec).unwrap();
        (0..2 * 9000).for_each(|i| writer.write_sample((i * 7919 % 20011 - 10000) as i16).unwrap());
        writer.finalize().unwrap();
        let go = |separator: &mut Separator| {
            render(separator, &song, folder.path(), &RenderOptions::default(), &mut |_| {
                ControlFlow::Continue(())
            })
        };
        let mut tight = separator();
        assert!(go(&mut tight).unwrap().warnings.is_empty());
        tight.simulate_out_of_memory_at(3000);
        let report = go(&mut tight).unwrap();
        assert!(report.null.is_exact());
        assert!(report.warnings.iter().any(|w| w.contains("4.0 s") && w.contains("2.0 s")), "{report:?}");
        // The next song begins with what fitted.
        assert!(go(&mut tight).unwrap().warnings.iter().any(|w| w.contains("2.0 s")));
        tight.simulate_out_of_memory_at(500);
        let error = go(&mut tight).unwrap_err().to_string();
        assert!(error.contains("out of memory") && error.contains("1000 samples"), "{error}");
    }
}
