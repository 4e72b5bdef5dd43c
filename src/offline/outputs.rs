//! The output files of a song: stems on the exact grid, the instrumental and the remix.

use std::path::{Path, PathBuf};

use super::error::OfflineError;
use super::exact_stems::{ExactStems, stem_names};
use super::mix::remix;
use super::options::RenderOptions;
use super::reader::{clean, skip_samples};
use super::stem_file::stem_tracks;
use super::template::{OutputTemplate, TemplateValues};
use crate::audio::{
    AudioError, AudioWriter, Container, Damage, Decoder, Metadata, Origin, Planar, Resampler,
    STEM_FILE_CHANNELS, SampleFormat, SourceFormat, SourceInfo, WriterSpec,
};
use crate::lossless::grid::NullMeter;
use crate::separator::{ModelSpec, stem_position};

/// Content of one output file.
enum OutputContent {
    /// The stem of that index.
    Stem(usize),
    /// The mixture without the stem of that index.
    Without(usize),
    /// The mixture with a gain for each stem.
    Remix(Vec<f32>),
    /// The mixture and four stems in stereo, each with its index; none for silence.
    StemFile(Vec<(String, Option<usize>)>),
}

/// What stands for `{stem}` in the name of a stem file.
const STEM_FILE_NAME: &str = "stems";

/// The output files of one song, at the source's rate.
pub(super) struct StemFiles {
    /// A second reader of the input, for the mixture at its own rate and depth.
    decoder: Decoder,
    mixture: Planar,
    channels: usize,
    /// Stems of the network, plus the complement of a single-stem model.
    stems: usize,
    complement: bool,
    exact: ExactStems,
    files: Vec<(OutputContent, AudioWriter)>,
    /// Samples of the stems before the range that is written.
    skip: u64,
    /// Samples still to be written; `None` to the end of the song.
    left: Option<u64>,
    samples: u64,
}

/// Result of [`StemFiles::finish`].
pub(super) struct WrittenSong {
    pub files: Vec<PathBuf>,
    pub samples: u64,
    pub null: NullMeter,
    pub damage: Damage,
    pub warnings: Vec<String>,
}

impl StemFiles {
    /// Creates all files of `input` in `folder`, none of them visible before [`StemFiles::finish`].
    ///
    /// `skip`: samples of the stems before the range that is written.
    pub fn create(
        mut decoder: Decoder,
        skip: u64,
        input: &Path,
        folder: &Path,
        model: &ModelSpec,
        options: &RenderOptions,
    ) -> Result<Self, OfflineError> {
        let source = decoder.info().clone();
        let container = options.container.unwrap_or(Container::Wav);
        let format = options.format.unwrap_or_else(|| default_format(source.sample_format, container));
        let channels = match container {
            Container::StemM4a if source.channels > 2 => {
                return Err(OfflineError::Options {
                    what: format!("a stem file is stereo, the song has {} channels", source.channels),
                });
            }
            Container::StemM4a => STEM_FILE_CHANNELS,
            Container::Wav | Container::Flac => source.channels,
        };
        let spec = WriterSpec { container, format, channels, sample_rate: source.sample_rate };

        let (exact, names) = ExactStems::new(model, options, format, source.channels);
        let complement = names.len() > model.stems.len();

        let (start, end) = options.range.samples(source.sample_rate);
        skip_samples(&mut decoder, start)?;
        let metadata = metadata(input, start, options);
        let contents = contents(&names, options)?;
        let files = contents
            .into_iter()
            .map(|(stem, content)| {
                let path = file_path(input, folder, &stem, options);
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)
                        .map_err(|source| AudioError::Create { path: path.clone(), source })?;
                }
                let metadata = match &content {
                    OutputContent::StemFile(tracks) => {
                        let names = tracks.iter().map(|(name, _)| name.clone()).collect();
                        metadata.clone().with_stem_names(names)
                    }
                    _ => metadata.clone(),
                };
                Ok((content, AudioWriter::create_with(path, spec, &metadata)?))
            })
            .collect::<Result<_, OfflineError>>()?;
        Ok(Self {
            mixture: Planar::new(source.channels),
            channels: source.channels,
            stems: names.len(),
            complement,
            decoder,
            exact,
            files,
            skip,
            left: end.map(|end| end.saturating_sub(start)),
            samples: 0,
        })
    }

    /// Writes a block of stems · channels planes at the source's rate.
    fn write(&mut self, stems: &Planar) -> Result<(), OfflineError> {
        let skipped = stems.samples().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        let count = self.read_mixture(stems.samples() - skipped)?;
        self.write_quantised(stems.slice(skipped..skipped + count))
    }

    /// Reads the next samples of the mixture, at most `count`, and returns how many there were.
    fn read_mixture(&mut self, count: usize) -> Result<usize, OfflineError> {
        self.mixture.clear();
        let left = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.decoder.read(count.min(left), &mut self.mixture)?;
        self.left = self.left.map(|left| left - count as u64);
        clean(&mut self.mixture);
        Ok(count)
    }

    /// Quantises the stems against the mixture just read and writes all files.
    fn write_quantised(&mut self, stems: Planar) -> Result<(), OfflineError> {
        let (channels, samples) = (self.channels, self.mixture.samples());
        let planes = self.exact.complete(&self.mixture, stems);
        let stem = |n: usize, c: usize| planes[n * channels + c].as_slice();
        for (content, writer) in &mut self.files {
            let mixture = &self.mixture;
            let block: Vec<Vec<f32>> = match content {
                OutputContent::Stem(n) => (0..channels).map(|c| stem(*n, c).to_vec()).collect(),
                OutputContent::Without(n) => (0..channels)
                    .map(|c| mixture.channel(c).iter().zip(stem(*n, c)).map(|(m, s)| m - s).collect())
                    .collect(),
                OutputContent::Remix(gains) => (0..channels)
                    .map(|c| {
                        let stems = gains.iter().enumerate().map(|(n, gain)| (*gain, stem(n, c)));
                        remix(mixture.channel(c), stems)
                    })
                    .collect(),
                OutputContent::StemFile(tracks) => {
                    // Mono is the same on both sides.
                    let sides = [0, channels - 1];
                    let song = sides.map(|c| mixture.channel(c).to_vec());
                    let stems = tracks.iter().flat_map(|(_, index)| {
                        sides.map(|c| index.map_or(vec![0.0; samples], |n| stem(n, c).to_vec()))
                    });
                    song.into_iter().chain(stems).collect()
                }
            };
            writer.write(&Planar::from_equal(block))?;
        }
        self.samples += samples as u64;
        Ok(())
    }

    /// Writes the part of the mixture after the end of the stems, then publishes all files.
    pub fn finish(mut self) -> Result<WrittenSong, OfflineError> {
        let model_stems = self.stems - usize::from(self.complement);
        loop {
            let count = self.read_mixture(1 << 14)?;
            if count == 0 {
                break;
            }
            self.write_quantised(Planar::zeros(model_stems * self.channels, count))?;
        }
        let mut warnings = self.decoder.warnings().to_vec();
        let more = self.decoder.warning_count() - warnings.len() as u64;
        if more > 0 {
            warnings.push(format!("{more} more warnings like these"));
        }
        let damage = self.decoder.damage();
        if !damage.is_none() {
            let seconds = damage.samples as f64 / f64::from(self.decoder.info().sample_rate);
            warnings.push(format!(
                "the file is damaged: {} packets, {seconds:.2} s in all, are lost",
                damage.packets
            ));
        }
        let grid = self.exact.grid_report;
        if grid.redistributed > 0 {
            warnings.push(format!(
                "{} samples of stems passed full scale; the excess was moved to other stems (write float to avoid this)",
                grid.redistributed
            ));
        }
        if grid.out_of_range > 0 {
            warnings.push(format!(
                "{} samples of the mixture exceed full scale, so PCM stems cannot sum to them (write float)",
                grid.out_of_range
            ));
        }
        let clipped: u64 = self.files.iter().map(|(_, writer)| writer.clipped()).sum();
        if clipped > 0 {
            warnings.push(format!("{clipped} samples were clipped at full scale (write float to keep them)"));
        }
        let files = publish_all(self.files.into_iter().map(|(_, writer)| writer))?;
        Ok(WrittenSong { files, samples: self.samples, null: self.exact.null, damage, warnings })
    }
}

/// Publishes all files once all are complete. If one cannot be published, none of them stays.
fn publish_all(writers: impl Iterator<Item = AudioWriter>) -> Result<Vec<PathBuf>, AudioError> {
    let complete = writers.map(AudioWriter::complete).collect::<Result<Vec<_>, _>>()?;
    let mut published: Vec<PathBuf> = Vec::with_capacity(complete.len());
    for file in complete {
        match file.publish() {
            Ok(path) => published.push(path),
            Err(error) => {
                for path in published {
                    // Only the first error is reported.
                    let _ = std::fs::remove_file(path);
                }
                return Err(error);
            }
        }
    }
    Ok(published)
}

/// The files that [`render`](super::render::render) would write for `input`, so that a caller can find collisions and
/// existing files before any work. Opens nothing.
///
/// # Errors
/// [`OfflineError::UnknownStem`] and [`OfflineError::Options`], as `render` returns them.
pub fn output_paths(
    input: &Path,
    folder: &Path,
    model: &ModelSpec,
    options: &RenderOptions,
) -> Result<Vec<PathBuf>, OfflineError> {
    let contents = contents(&stem_names(model, options).0, options)?;
    Ok(contents.iter().map(|(stem, _)| file_path(input, folder, stem, options)).collect())
}

/// What stands for `{stem}` in the names of [`output_paths`], in the same order.
///
/// # Errors
/// As [`output_paths`].
pub fn output_names(model: &ModelSpec, options: &RenderOptions) -> Result<Vec<String>, OfflineError> {
    let contents = contents(&stem_names(model, options).0, options)?;
    Ok(contents.into_iter().map(|(name, _)| name).collect())
}

/// The output files to write, each with its value of `{stem}`.
fn contents(names: &[String], options: &RenderOptions) -> Result<Vec<(String, OutputContent)>, OfflineError> {
    if options.container == Some(Container::StemM4a) {
        if options.stems.is_some() || options.mix.is_some() || options.extract_instrumental {
            return Err(OfflineError::Options {
                what: "a stem file always has the song and all stems; a choice of stems, a remix or the instrumental \
                       need WAV or FLAC"
                    .into(),
            });
        }
        return Ok(vec![(STEM_FILE_NAME.into(), OutputContent::StemFile(stem_tracks(names)?))]);
    }
    let mut contents: Vec<(String, OutputContent)> = Vec::new();
    let wanted = options.stems.clone().unwrap_or_else(|| names.to_vec());
    for name in &wanted {
        let found = stem_position(names, name).and_then(|i| Some((i, names.get(i)?)));
        // A model without such a stem still gives what people mean by it.
        if let (None, Some(vocals)) = (found, stem_position(names, "vocals"))
            && name.eq_ignore_ascii_case("instrumental")
        {
            contents.push(("instrumental".into(), OutputContent::Without(vocals)));
            continue;
        }
        let Some((i, stem)) = found else {
            return Err(OfflineError::UnknownStem { name: name.clone(), known: names.join(", ") });
        };
        // Files carry the model's own spelling of the stem, so each stem is written once.
        if !contents.iter().any(|(name, _)| name == stem) {
            contents.push((stem.clone(), OutputContent::Stem(i)));
        }
    }
    let named = |(name, _): &(String, OutputContent)| name.eq_ignore_ascii_case("instrumental");
    if options.extract_instrumental && !contents.iter().any(named) {
        let vocals = stem_position(names, "vocals").unwrap_or(0);
        contents.push(("instrumental".into(), OutputContent::Without(vocals)));
    }
    if let Some(mix) = &options.mix {
        contents.push(("mix".into(), OutputContent::Remix(mix.gains(names)?)));
    }

    if contents.is_empty() {
        return Err(OfflineError::Options {
            what: "no output is left: without stems, ask for a remix or the instrumental".into(),
        });
    }
    if !options.template.has_stem() && contents.len() > 1 {
        return Err(OfflineError::Options {
            what: format!(
                "the name template `{}` gives every stem the same name; put {{stem}} in it",
                options.template.as_str()
            ),
        });
    }
    Ok(contents)
}

/// Path of the file of `stem`.
fn file_path(input: &Path, folder: &Path, stem: &str, options: &RenderOptions) -> PathBuf {
    let mut name = input.file_stem().unwrap_or_default().to_owned();
    name.push(&options.name_suffix);
    let values = TemplateValues {
        name: &name,
        extension: input.extension().unwrap_or_default(),
        stem,
        model: &options.model_name,
    };
    let container = options.container.unwrap_or(Container::Wav);
    // A stem file is the only output of its song, and is named after it.
    let whole_song = (container == Container::StemM4a && options.template == OutputTemplate::default())
        .then(OutputTemplate::name_only);
    let template = whole_song.as_ref().unwrap_or(&options.template);
    folder.join(template.path(&values, container.extension(), options.portable_names))
}

/// What the outputs keep of the input, which starts at sample `start`.
fn metadata(input: &Path, start: u64, options: &RenderOptions) -> Metadata {
    if options.no_metadata {
        return Metadata::default();
    }
    let metadata = Metadata::read(input).with_origin(Origin {
        model: options.model_name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        mode: options.lossless.to_string(),
    });
    if options.range.is_whole() { metadata } else { metadata.from_sample(start) }
}

/// The sample format that keeps the source's bit depth.
fn default_format(source: SourceFormat, container: Container) -> SampleFormat {
    let float_container = container == Container::Wav;
    match source {
        SourceFormat::Int8 | SourceFormat::Int16 => SampleFormat::Pcm16,
        SourceFormat::Int24 | SourceFormat::Lossy => SampleFormat::Pcm24,
        _ if float_container => SampleFormat::Float32,
        _ => SampleFormat::Pcm24,
    }
}

/// Takes stems at the rate of the song.
pub(super) trait StemSink {
    /// Takes a block of stems · channels planes.
    fn push(&mut self, stems: &Planar) -> Result<(), OfflineError>;
}

impl StemSink for StemFiles {
    fn push(&mut self, stems: &Planar) -> Result<(), OfflineError> {
        self.write(stems)
    }
}

/// Resamples stems from the model's rate to the song's and passes them to a sink.
pub(super) struct OutputResampler<S> {
    /// One per stem.
    resamplers: Vec<Resampler>,
    channels: usize,
    /// Undoes the gain with which the network heard the song.
    gain: f32,
    sink: S,
}

impl<S: StemSink> OutputResampler<S> {
    /// For the stems of `model`, to be multiplied by `gain`.
    pub fn new(sink: S, model: &ModelSpec, source: &SourceInfo, gain: f32) -> Result<Self, OfflineError> {
        let resamplers = (0..model.architecture.num_stems)
            .map(|_| Resampler::new(model.sample_rate, source.sample_rate, source.channels))
            .collect::<Result<_, _>>()?;
        Ok(Self { resamplers, channels: source.channels, gain, sink })
    }

    /// Converts a block of stems · channels planes at the model's rate.
    pub fn push(&mut self, stems: &Planar) -> Result<(), OfflineError> {
        let channels = self.channels;
        self.resample_each(|n, resampler, out| {
            let planes = stems.planes()[n * channels..(n + 1) * channels].to_vec();
            resampler.push(&Planar::from_equal(planes), out)
        })
    }

    /// Flushes the resamplers and returns the sink.
    pub fn finish(mut self) -> Result<S, OfflineError> {
        self.resample_each(|_, resampler, out| resampler.finish(out))?;
        Ok(self.sink)
    }

    /// Runs `each` on every resampler and writes the results as one block.
    fn resample_each(
        &mut self,
        each: impl Fn(usize, &mut Resampler, &mut Planar) -> Result<(), AudioError>,
    ) -> Result<(), OfflineError> {
        let mut planes = Vec::with_capacity(self.resamplers.len() * self.channels);
        for (n, resampler) in self.resamplers.iter_mut().enumerate() {
            let mut out = Planar::new(self.channels);
            each(n, resampler, &mut out)?;
            if self.gain != 1.0 {
                out.iter_mut().flatten().for_each(|x| *x *= self.gain);
            }
            planes.extend(out.into_planes());
        }
        self.sink.push(&Planar::from_equal(planes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_one_file_cannot_be_published_none_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["a.wav", "b.wav"].map(|name| folder.path().join(name));
        let spec = WriterSpec {
            container: Container::Wav,
            format: SampleFormat::Pcm16,
            channels: 1,
            sample_rate: 44_100,
        };
        let writers = || [&one, &other].map(|path| AudioWriter::create(path, spec).unwrap()).into_iter();
        assert_eq!(publish_all(writers()).unwrap(), [one.clone(), other.clone()]);
        std::fs::remove_file(&one).unwrap();
        std::fs::remove_file(&other).unwrap();
        let again = writers();
        std::fs::create_dir_all(other.join("in the way")).unwrap();
        assert!(publish_all(again).is_err());
        assert!(!one.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
