//! From an audio file to stem files.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::demix::{DemixOptions, Moments, Standardise, demix};
use super::error::OfflineError;
use super::mix::Mix;
use super::outputs::{Finisher, Outputs};
use super::plan::ChunkPlan;
use super::source::{FileSource, ShiftedSource, Source};
use super::spool::Spool;
use crate::audio::{Container, Decoder, Planar, SampleFormat, SourceInfo};
use crate::lossless::LosslessMode;
use crate::lossless::grid::NullMeter;
use crate::lossless::hybrid::{Energies, distribute};
use crate::separator::{MaskRule, ModelInfo, SeparateError, Separator, Stages, check_chunk, stem_position};

/// How a file is separated and what is written. The default follows the model's configuration and the source's bit depth.
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
    /// Names of the outputs without extension, `{name}` and `{stem}` replaced; may hold folders.
    pub template: Option<String>,
}

impl RenderOptions {
    /// Whether the model's residual is handed out by the hybrid rule. What the only stem of a model leaves is a stem of its own.
    fn is_hybrid(&self, model: &ModelInfo) -> bool {
        self.lossless == LosslessMode::Hybrid && model.complement.is_none()
    }

    /// How often the song goes through the network.
    pub fn passes(&self, model: &ModelInfo) -> usize {
        // The second pass hears how much of the residual belongs to which of these two.
        let second = self.is_hybrid(model) && places(model).is_some();
        self.big_shifts.max(1) + usize::from(second)
    }
}

/// The stems between which the hybrid rule divides the residual: drums and other.
fn places(model: &ModelInfo) -> Option<(usize, usize)> {
    let place = |name: &str| stem_position(&model.stems, name);
    Some((place("drums")?, place("other")?))
}

/// How far a file has come.
#[derive(Clone, Copy, Debug)]
pub struct RenderProgress {
    /// Share of the work done, 0 to 1, where the length of the input is known.
    pub fraction: Option<f64>,
    /// Seconds of audio through the network so far, all passes counted.
    pub seconds: f64,
}

/// What was done with a file.
#[derive(Debug)]
pub struct RenderReport {
    /// The input.
    pub input: PathBuf,
    /// What it held.
    pub source: SourceInfo,
    /// Files written.
    pub outputs: Vec<PathBuf>,
    /// Length in seconds.
    pub audio_seconds: f64,
    /// Time it took.
    pub elapsed: Duration,
    /// Time in the separator, by stage.
    pub stages: Stages,
    /// What the stems leave of the mixture.
    pub null: NullMeter,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Separates `input` into files in `folder`. Outputs appear only when all is done; an error or a `Break` from `on_progress`
/// leaves none. Where a GPU has no room for a chunk, the song is begun again with half the chunk, and the report says so.
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
    separator.take_stages();
    let wanted = options.chunk.unwrap_or(separator.info().chunk);
    let mut chunk = wanted;
    loop {
        let fits = separator.chunk_that_fits(chunk);
        chunk = fits.unwrap_or(chunk);
        let options = RenderOptions { chunk: Some(chunk), ..options.clone() };
        match attempt(separator, input, folder, &options, started, on_progress) {
            Err(OfflineError::Separate(SeparateError::OutOfMemory { .. }))
                if separator.chunk_that_fits(chunk).is_some_and(|fits| fits < chunk) => {}
            Ok(mut report) => {
                if chunk < wanted {
                    let seconds = |samples: usize| samples as f64 / f64::from(separator.info().sample_rate);
                    report.warnings.push(format!(
                        "{} has too little memory for chunks of {:.1} s; chunks of {:.1} s were used instead",
                        separator.device(),
                        seconds(wanted),
                        seconds(chunk)
                    ));
                }
                return Ok(report);
            }
            Err(error) => return Err(error),
        }
    }
}

/// One go at [`render`], with the chunk that `options` state; its time counts from `started`.
fn attempt(
    separator: &mut Separator,
    input: &Path,
    folder: &Path,
    options: &RenderOptions,
    started: Instant,
    on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
) -> Result<RenderReport, OfflineError> {
    let info = separator.info().clone();
    let source = FileSource::open(input, info.sample_rate)?;
    let source_info = source.decoder().info().clone();
    let outputs = Outputs::create(Decoder::open(input)?, input, folder, &info, options)?;
    let finisher = Finisher::new(outputs, info.sample_rate, info.architecture.num_stems)?;
    let job = Job::new(separator, &info, options, &source_info)?;
    let (cleaned, finisher) = job.run(source, finisher, on_progress)?;
    if options.refuse_non_finite && cleaned > 0 {
        return Err(OfflineError::NonFinite { input: input.display().to_string(), count: cleaned });
    }
    let finished = finisher.finish()?;
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
        stages: separator.take_stages(),
        null: finished.null,
        warnings,
    })
}

/// The passes over one file.
struct Job<'a> {
    separator: &'a mut Separator,
    info: &'a ModelInfo,
    options: DemixOptions,
    hybrid: bool,
    passes: usize,
    shifts: usize,
    normalize: bool,
    /// Samples of the song at the model's rate, where the header says.
    expected: Option<u64>,
}

impl<'a> Job<'a> {
    fn new(
        separator: &'a mut Separator,
        info: &'a ModelInfo,
        options: &RenderOptions,
        source: &SourceInfo,
    ) -> Result<Self, OfflineError> {
        let chunk = options.chunk.unwrap_or(info.chunk);
        check_chunk(chunk, &info.architecture)
            .map_err(|error| OfflineError::Options { what: error.to_string() })?;
        let overlap = options.overlap.unwrap_or(info.overlap);
        if !(1..=64).contains(&overlap) {
            return Err(OfflineError::Options { what: format!("overlap {overlap}: expected 1 to 64") });
        }
        let rule = info.rule(match options.lossless {
            LosslessMode::Spectral => MaskRule::Complete,
            LosslessMode::Hybrid | LosslessMode::Off => MaskRule::Plain,
        });
        Ok(Self {
            options: DemixOptions {
                plan: ChunkPlan::new(chunk, overlap),
                batch: options.batch.unwrap_or(separator.batch()).max(1),
                rule,
                tta: options.tta,
                standardise: None,
            },
            hybrid: options.is_hybrid(info),
            passes: options.passes(info),
            shifts: options.big_shifts.max(1),
            normalize: options.normalize.unwrap_or(info.normalize),
            expected: source.samples.map(|n| {
                (n as f64 * f64::from(info.sample_rate) / f64::from(source.sample_rate)).round() as u64
            }),
            separator,
            info,
        })
    }

    /// Runs all passes. Returns how many values were cleaned.
    fn run(
        mut self,
        mut source: FileSource,
        mut finisher: Finisher,
        on_progress: &mut dyn FnMut(RenderProgress) -> ControlFlow<()>,
    ) -> Result<(u64, Finisher), OfflineError> {
        let passes = self.passes;
        let direct = self.shifts == 1 && !self.hybrid;
        let rate = f64::from(self.info.sample_rate);
        let mut expected = self.expected;
        let mut report = |pass: usize, done: u64, expected: Option<u64>| {
            let whole = expected.map(|n| (n.max(1) * passes as u64) as f64);
            let before = expected.unwrap_or(0) * pass as u64;
            on_progress(RenderProgress {
                fraction: whole.map(|whole| ((before + done) as f64 / whole).min(1.0)),
                seconds: (before + done) as f64 / rate,
            })
        };
        if direct && !self.normalize {
            let mut sink = |block: &Planar| finisher.push(block);
            demix(self.separator, &mut source, &self.options, &mut sink, &mut |done| {
                report(0, done, expected)
            })?;
            return Ok((source.cleaned(), finisher));
        }

        let (mut mixture, moments) = spool(&mut source, &mut || report(0, 0, expected))?;
        expected = Some(mixture.samples() as u64);
        if self.normalize {
            self.options.standardise = moments.standardise();
        }
        if direct {
            let mut sink = |block: &Planar| finisher.push(block);
            let mut shifted = ShiftedSource::new(&mut mixture, 0);
            demix(self.separator, &mut shifted, &self.options, &mut sink, &mut |done| {
                report(0, done, expected)
            })?;
            return Ok((source.cleaned(), finisher));
        }
        let mut stems = Spool::new(self.info.architecture.num_stems * mixture.channels())?;
        for pass in 0..self.shifts {
            let shift = pass * (mixture.samples() / self.shifts);
            let share = 1.0 / self.shifts as f32;
            let mut at = (mixture.samples() - shift) % mixture.samples().max(1);
            let total = mixture.samples();
            let mut sink = |block: &Planar| accumulate(&mut stems, block, &mut at, total, share, pass > 0);
            let mut shifted = ShiftedSource::new(&mut mixture, shift);
            demix(self.separator, &mut shifted, &self.options, &mut sink, &mut |done| {
                report(pass, done, expected)
            })?;
        }
        if self.hybrid {
            // Where there is no second pass, it is the end of the last one.
            let (pass, length) = (passes - 1, mixture.samples() as u64);
            let second = passes > self.shifts;
            self.distribute_residual(&mut mixture, &mut stems, &mut |done| {
                report(pass, if second { done } else { length }, expected)
            })?;
        }
        let mut block = Planar::new(stems.channels());
        let whole = stems.samples() as u64;
        for at in (0..stems.samples()).step_by(BLOCK) {
            go_on(report(passes - 1, whole, expected))?;
            block.clear();
            stems.read(at, BLOCK.min(stems.samples() - at), &mut block)?;
            finisher.push(&block)?;
        }
        Ok((source.cleaned(), finisher))
    }
}

/// Samples of spooled signals handled at a time.
const BLOCK: usize = 1 << 16;

/// What a `Break` of a progress means.
fn go_on(flow: ControlFlow<()>) -> Result<(), OfflineError> {
    if flow.is_break() { Err(OfflineError::Cancelled) } else { Ok(()) }
}

/// Reads all of `source` to disk. `on_step` may stop it.
fn spool(
    source: &mut FileSource,
    on_step: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<(Spool, Moments), OfflineError> {
    let mut spool = Spool::new(source.channels())?;
    let mut moments = Moments::default();
    let mut block = Planar::new(source.channels());
    while source.read(BLOCK, &mut block)? > 0 {
        go_on(on_step())?;
        moments.add(&block);
        spool.append(&block)?;
        block.clear();
    }
    Ok((spool, moments))
}

/// Adds `share` of a block to what is at `at`, or puts it there when nothing is, wrapping round at `total`.
fn accumulate(
    stems: &mut Spool,
    block: &Planar,
    at: &mut usize,
    total: usize,
    share: f32,
    add: bool,
) -> Result<(), OfflineError> {
    let mut done = 0;
    while done < block.samples() {
        let count = (block.samples() - done).min(total - *at);
        let mut part = block.slice(done..done + count);
        part.iter_mut().flatten().for_each(|x| *x *= share);
        if add {
            let mut held = Planar::new(stems.channels());
            stems.read(*at, count, &mut held)?;
            for (x, h) in part.iter_mut().zip(held.iter()) {
                x.iter_mut().zip(h).for_each(|(x, h)| *x += h);
            }
        }
        stems.write(*at, &part)?;
        *at = (*at + count) % total;
        done += count;
    }
    Ok(())
}

impl Job<'_> {
    /// The second pass of the hybrid rule: `stems` gets what is left of `mixture`.
    fn distribute_residual(
        &mut self,
        mixture: &mut Spool,
        stems: &mut Spool,
        on_progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), OfflineError> {
        let channels = mixture.channels();
        let samples = mixture.samples();
        let mut residual = Spool::new(channels)?;
        for at in (0..samples).step_by(BLOCK) {
            go_on(on_progress(0))?;
            let count = BLOCK.min(samples - at);
            let (mut left, mut held) = (Planar::new(channels), Planar::new(stems.channels()));
            mixture.read(at, count, &mut left)?;
            stems.read(at, count, &mut held)?;
            for (i, stem) in held.iter().enumerate() {
                left.channel_mut(i % channels).iter_mut().zip(stem).for_each(|(x, s)| *x -= s);
            }
            residual.append(&left)?;
        }
        let Some((drums, other)) = places(self.info) else {
            // Without these two the rule gives all to the first stem.
            for at in (0..samples).step_by(BLOCK) {
                go_on(on_progress(0))?;
                let count = BLOCK.min(samples - at);
                let (mut held, mut left) = (Planar::new(stems.channels()), Planar::new(channels));
                stems.read(at, count, &mut held)?;
                residual.read(at, count, &mut left)?;
                for (c, left) in left.iter().enumerate() {
                    held.channel_mut(c).iter_mut().zip(left).for_each(|(x, r)| *x += r);
                }
                stems.write(at, &held)?;
            }
            return Ok(());
        };
        let mut energies = Energies::default();
        let mut heard = Spool::new(2 * channels)?;
        let options = DemixOptions { tta: false, standardise: None::<Standardise>, ..self.options };
        let mut sink = |block: &Planar| {
            let pick = |stem: usize| (0..channels).map(move |c| stem * channels + c);
            for (d, o) in pick(drums).zip(pick(other)) {
                energies.add(block.channel(d), block.channel(o));
            }
            let planes = pick(drums).chain(pick(other)).map(|i| block.channel(i).to_vec()).collect();
            heard.append(&Planar::from_equal(planes))
        };
        demix(self.separator, &mut ShiftedSource::new(&mut residual, 0), &options, &mut sink, on_progress)?;
        let ratio = energies.ratio();
        for at in (0..samples).step_by(BLOCK) {
            go_on(on_progress(samples as u64))?;
            let count = BLOCK.min(samples - at);
            let mut held = Planar::new(stems.channels());
            let (mut left, mut second) = (Planar::new(channels), Planar::new(2 * channels));
            stems.read(at, count, &mut held)?;
            residual.read(at, count, &mut left)?;
            heard.read(at, count, &mut second)?;
            let mut planes = held.into_planes();
            for c in 0..channels {
                let mut to_drums = std::mem::take(&mut planes[drums * channels + c]);
                distribute(
                    left.channel(c),
                    second.channel(c),
                    second.channel(channels + c),
                    ratio,
                    &mut to_drums,
                    &mut planes[other * channels + c],
                );
                planes[drums * channels + c] = to_drums;
            }
            stems.write(at, &Planar::from_equal(planes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::architecture::Architecture;
    use crate::separator::Runtime;

    /// A small model whose chunks are of four seconds, as on a GPU.
    fn separator() -> Separator {
        let mut arch = Architecture::reference_default();
        (arch.dim, arch.depth, arch.heads, arch.dim_head, arch.ff_inner) = (8, 1, 1, 4, 8);
        (arch.mask_hidden, arch.num_stems) = (8, 2);
        (arch.stft.n_fft, arch.stft.hop_length, arch.stft.win_length) = (64, 32, 64);
        arch.bands = vec![(0..10).collect(), (10..33).collect()];
        let mut info = ModelInfo::random("test", arch, 4000);
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
    fn a_song_that_does_not_fit_is_separated_in_smaller_chunks_and_the_report_says_so() {
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
        tight.run_out_of_memory_at(3000);
        let report = go(&mut tight).unwrap();
        assert!(report.null.is_exact());
        assert!(report.warnings.iter().any(|w| w.contains("4.0 s") && w.contains("2.0 s")), "{report:?}");
        // The next song begins with what fitted.
        assert!(go(&mut tight).unwrap().warnings.iter().any(|w| w.contains("2.0 s")));
        tight.run_out_of_memory_at(500);
        let error = go(&mut tight).unwrap_err().to_string();
        assert!(error.contains("out of memory") && error.contains("1000 samples"), "{error}");
    }
}
