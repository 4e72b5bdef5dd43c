//! From an audio file to stem files.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::ensemble::StemMean;
use super::error::OfflineError;
use super::level::network_gain;
use super::options::{RenderOptions, TimeRange};
use super::outputs::{OutputResampler, StemFiles, StemSink};
use super::passes::SongPasses;
use super::reader::{FileReader, peak};
use crate::audio::{Damage, Decoder, SourceFormat, SourceInfo};
use crate::lossless::grid::NullMeter;
use crate::separator::{ModelSpec, SeparateError, Separator, StageTimes};

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
    /// What of the input could not be decoded and is silence in the outputs.
    pub damage: Damage,
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
        render_once(std::slice::from_mut(separator), input, folder, options, started, on_progress)
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

/// Like [`render`], with the mean of the stems of several models. Their stems must have the same names; rates, chunks and
/// architectures may differ. Out of memory is an error here.
///
/// # Errors
/// [`OfflineError`].
pub fn render_ensemble(
    separators: &mut [Separator],
    input: &Path,
    folder: &Path,
    options: &RenderOptions,
    on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
) -> Result<RenderReport, OfflineError> {
    if let [only] = separators {
        return render(only, input, folder, options, on_progress);
    }
    let started = Instant::now();
    for separator in &mut *separators {
        separator.take_stage_times();
    }
    render_once(separators, input, folder, options, started, on_progress)
}

/// The part of a song that is written, and what is read around it, in samples at the rate of the song.
struct Span {
    start: u64,
    from: u64,
    to: Option<u64>,
    gain: f32,
}

/// Renders once with the chunk size in `options`; the elapsed time counts from `started`.
fn render_once(
    separators: &mut [Separator],
    input: &Path,
    folder: &Path,
    options: &RenderOptions,
    started: Instant,
    on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
) -> Result<RenderReport, OfflineError> {
    let infos: Vec<ModelSpec> = separators.iter().map(|separator| separator.info().clone()).collect();
    let Some(info) = infos.first() else {
        return Err(OfflineError::Options { what: "there is no model to run".into() });
    };
    let source_info = Decoder::open(input)?.info().clone();
    check_range(options.range, &source_info)?;
    let span = span_of(input, &source_info, &infos, options)?;
    let skip = span.start - span.from;
    let mut outputs = StemFiles::create(Decoder::open(input)?, skip, input, folder, info, options)?;
    let mut cleaned = 0;
    match &mut *separators {
        [separator] => {
            (cleaned, outputs) =
                run_model(separator, input, options, &source_info, &span, outputs, on_progress)?;
        }
        many => {
            let count = many.len();
            let mut mean = StemMean::new(info, source_info.channels, count)?;
            for (n, separator) in many.iter_mut().enumerate() {
                mean.begin(separator.info())?;
                let mut share = |step: RenderProgress| {
                    let fraction = step.fraction.map(|fraction| (n as f64 + fraction) / count as f64);
                    on_progress(RenderProgress { fraction, ..step })
                };
                (cleaned, mean) =
                    run_model(separator, input, options, &source_info, &span, mean, &mut share)?;
            }
            mean.write_to(&mut outputs)?;
        }
    }
    if options.refuse_non_finite && cleaned > 0 {
        return Err(OfflineError::NonFinite { input: input.display().to_string(), count: cleaned });
    }
    let finished = outputs.finish()?;
    let mut warnings = finished.warnings;
    if cleaned > 0 {
        warnings.insert(0, format!("{cleaned} samples were NaN or infinite and were set to 0"));
    }
    let mut stages = StageTimes::default();
    for times in separators.iter_mut().map(Separator::take_stage_times) {
        stages.stft += times.stft;
        stages.network += times.network;
        stages.mask += times.mask;
        stages.istft += times.istft;
    }
    Ok(RenderReport {
        input: input.into(),
        outputs: finished.files,
        audio_seconds: finished.samples as f64 / f64::from(source_info.sample_rate),
        source: source_info,
        elapsed: started.elapsed(),
        stages,
        null: finished.null,
        damage: finished.damage,
        warnings,
    })
}

/// What is read for the range in `options`: as much music around it as the network can hear.
fn span_of(
    input: &Path,
    source: &SourceInfo,
    infos: &[ModelSpec],
    options: &RenderOptions,
) -> Result<Span, OfflineError> {
    let (start, end) = options.range.samples(source.sample_rate);
    let context = infos.iter().map(|info| {
        let chunk = options.chunk.unwrap_or(info.chunk) as u64;
        chunk * u64::from(source.sample_rate) / u64::from(info.sample_rate.max(1))
    });
    let context = context.max().unwrap_or(0);
    let from = start.saturating_sub(context);
    let to = end.map(|end| end.saturating_add(context));
    let gain = match source.sample_format {
        SourceFormat::Float32 | SourceFormat::Float64 => network_gain(peak(input, from, to)?),
        _ => 1.0,
    };
    Ok(Span { start, from, to, gain })
}

/// Separates the song with one model into `sink`. Returns the number of non-finite samples, and the sink.
fn run_model<S: StemSink>(
    separator: &mut Separator,
    input: &Path,
    options: &RenderOptions,
    source_info: &SourceInfo,
    span: &Span,
    sink: S,
    on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
) -> Result<(u64, S), OfflineError> {
    let info = separator.info().clone();
    let source = FileReader::open(input, info.sample_rate)?;
    let mut source = source.with_gain(span.gain).with_range(span.from, span.to)?;
    let mut resampler = OutputResampler::new(sink, &info, source_info, span.gain.recip())?;
    let end = match (source_info.samples, span.to) {
        (Some(samples), to) => Some(to.map_or(samples, |to| to.min(samples))),
        (None, to) => to,
    };
    let samples = end.map(|end| end.saturating_sub(span.from));
    let passes = SongPasses::new(separator, &info, options, samples, source_info.sample_rate)?;
    passes.run(&mut source, &mut |block| resampler.push(block), on_progress)?;
    Ok((source.cleaned(), resampler.finish()?))
}

/// Refuses a range that does not lie in the song, as far as its length is known.
fn check_range(range: TimeRange, source: &SourceInfo) -> Result<(), OfflineError> {
    let (start, end) = range.samples(source.sample_rate);
    let wrong = |what: String| Err(OfflineError::Options { what });
    if end.is_some_and(|end| end <= start) {
        return wrong(format!("the range ends before it starts ({:.3} s)", range.start));
    }
    match source.samples {
        Some(samples) if start > 0 && start >= samples => wrong(format!(
            "the range starts at {:.3} s, but the song has only {:.3} s",
            range.start,
            samples as f64 / f64::from(source.sample_rate)
        )),
        _ => Ok(()),
    }
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
