//! The output files of a song: stems on the exact grid, the instrumental and the remix.

use std::path::{Path, PathBuf};

use super::error::OfflineError;
use super::exact_stems::{ExactStems, stem_names};
use super::mix::remix;
use super::options::RenderOptions;
use super::reader::clean;
use crate::audio::{
    AudioError, AudioWriter, Container, Decoder, Planar, Resampler, SampleFormat, SourceFormat, WriterSpec,
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
}

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
    samples: u64,
}

/// Result of [`OutputResampler::finish`].
pub(super) struct WrittenSong {
    pub files: Vec<PathBuf>,
    pub samples: u64,
    pub null: NullMeter,
    pub warnings: Vec<String>,
}

impl StemFiles {
    /// Creates all files of `input` in `folder`, none of them visible before [`StemFiles::finish`].
    pub fn create(
        decoder: Decoder,
        input: &Path,
        folder: &Path,
        model: &ModelSpec,
        options: &RenderOptions,
    ) -> Result<Self, OfflineError> {
        let source = decoder.info().clone();
        let container = options.container.unwrap_or(Container::Wav);
        let format = options.format.unwrap_or_else(|| default_format(source.sample_format, container));
        let spec =
            WriterSpec { container, format, channels: source.channels, sample_rate: source.sample_rate };

        let (exact, names) = ExactStems::new(model, options, format, source.channels);
        let complement = names.len() > model.stems.len();

        let contents = contents(&names, options)?;
        let files = contents
            .into_iter()
            .map(|(stem, content)| {
                let path = file_path(input, folder, &stem, options);
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)
                        .map_err(|source| AudioError::Create { path: path.clone(), source })?;
                }
                Ok((content, AudioWriter::create(path, spec)?))
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
            samples: 0,
        })
    }

    /// Writes a block of stems · channels planes at the source's rate.
    fn push(&mut self, stems: &Planar) -> Result<(), OfflineError> {
        let count = self.read_mixture(stems.samples())?;
        self.write_quantised(stems.slice(0..count))
    }

    /// Reads the next samples of the mixture, at most `count`, and returns how many there were.
    fn read_mixture(&mut self, count: usize) -> Result<usize, OfflineError> {
        self.mixture.clear();
        let count = self.decoder.read(count, &mut self.mixture)?;
        clean(&mut self.mixture);
        Ok(count)
    }

    /// Quantises the stems against the mixture just read and writes all files.
    fn write_quantised(&mut self, stems: Planar) -> Result<(), OfflineError> {
        let (channels, samples) = (self.channels, self.mixture.samples());
        let planes = self.exact.complete(&self.mixture, stems);
        let stem = |n: usize, c: usize| planes[n * channels + c].as_slice();
        for (content, writer) in &mut self.files {
            let block: Vec<Vec<f32>> = (0..channels)
                .map(|c| match content {
                    OutputContent::Stem(n) => stem(*n, c).to_vec(),
                    OutputContent::Without(n) => {
                        self.mixture.channel(c).iter().zip(stem(*n, c)).map(|(m, s)| m - s).collect()
                    }
                    OutputContent::Remix(gains) => {
                        let stems = gains.iter().enumerate().map(|(n, gain)| (*gain, stem(n, c)));
                        remix(self.mixture.channel(c), stems)
                    }
                })
                .collect();
            writer.write(&Planar::from_equal(block))?;
        }
        self.samples += samples as u64;
        Ok(())
    }

    /// Writes the part of the mixture after the end of the stems, then publishes all files.
    fn finish(mut self) -> Result<WrittenSong, OfflineError> {
        let model_stems = self.stems - usize::from(self.complement);
        loop {
            let count = self.read_mixture(1 << 14)?;
            if count == 0 {
                break;
            }
            self.write_quantised(Planar::zeros(model_stems * self.channels, count))?;
        }
        let mut warnings = self.decoder.warnings().to_vec();
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
        Ok(WrittenSong { files, samples: self.samples, null: self.exact.null, warnings })
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

/// The output files to write, each with its value of `{stem}`.
fn contents(names: &[String], options: &RenderOptions) -> Result<Vec<(String, OutputContent)>, OfflineError> {
    let mut contents: Vec<(String, OutputContent)> = Vec::new();
    let wanted = options.stems.clone().unwrap_or_else(|| names.to_vec());
    for name in &wanted {
        let found = stem_position(names, name).and_then(|i| Some((i, names.get(i)?)));
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

    let template = options.template.as_deref().unwrap_or("{name}_{stem}");
    if !template.contains("{stem}") && contents.len() > 1 {
        return Err(OfflineError::Options {
            what: format!(
                "the name template `{template}` gives every stem the same name; put {{stem}} in it"
            ),
        });
    }
    Ok(contents)
}

/// Path of the file of `stem`. A stem's name comes from a YAML file, so it must not lead out of the folder.
fn file_path(input: &Path, folder: &Path, stem: &str, options: &RenderOptions) -> PathBuf {
    let template = options.template.as_deref().unwrap_or("{name}_{stem}");
    let name = input.file_stem().unwrap_or_default().to_string_lossy();
    let stem: String =
        stem.chars().map(|c| if c.is_control() || r#"/\:*?"<>|"#.contains(c) { '_' } else { c }).collect();
    let file = template.replace("{stem}", &stem).replace("{name}", &name);
    let container = options.container.unwrap_or(Container::Wav);
    folder.join(format!("{file}.{}", container.extension()))
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

/// Resamples stems from the model's rate to the source's and passes them to [`StemFiles`].
pub(super) struct OutputResampler {
    /// One per stem.
    resamplers: Vec<Resampler>,
    outputs: StemFiles,
}

impl OutputResampler {
    /// `stems` of the network at `model_rate`.
    pub fn new(outputs: StemFiles, model_rate: u32, stems: usize) -> Result<Self, OfflineError> {
        let rate = outputs.decoder.info().sample_rate;
        let resamplers = (0..stems)
            .map(|_| Resampler::new(model_rate, rate, outputs.channels))
            .collect::<Result<_, _>>()?;
        Ok(Self { resamplers, outputs })
    }

    /// Converts a block of stems · channels planes at the model's rate.
    pub fn push(&mut self, stems: &Planar) -> Result<(), OfflineError> {
        let channels = self.outputs.channels;
        self.resample_each(|n, resampler, out| {
            let planes = stems.planes()[n * channels..(n + 1) * channels].to_vec();
            resampler.push(&Planar::from_equal(planes), out)
        })
    }

    /// Flushes the resamplers and publishes all files.
    pub fn finish(mut self) -> Result<WrittenSong, OfflineError> {
        self.resample_each(|_, resampler, out| resampler.finish(out))?;
        self.outputs.finish()
    }

    /// Runs `each` on every resampler and writes the results as one block.
    fn resample_each(
        &mut self,
        each: impl Fn(usize, &mut Resampler, &mut Planar) -> Result<(), AudioError>,
    ) -> Result<(), OfflineError> {
        let mut planes = Vec::with_capacity(self.resamplers.len() * self.outputs.channels);
        for (n, resampler) in self.resamplers.iter_mut().enumerate() {
            let mut out = Planar::new(self.outputs.channels);
            each(n, resampler, &mut out)?;
            planes.extend(out.into_planes());
        }
        self.outputs.push(&Planar::from_equal(planes))
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
