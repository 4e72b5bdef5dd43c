//! Songs with their stems, decoded once, from which crops are read at any place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytemuck::cast_slice_mut;
use parking_lot::Mutex;

use super::error::TrainError;
use crate::audio::{Decoder, EXTENSIONS, Planar, Resampler};

/// Samples decoded at a time.
const BLOCK: usize = 1 << 16;
/// Deepest folder below the data's that may be a song: MUSDB has `train/song/stem.wav`.
const MAX_DEPTH: usize = 3;
/// Largest difference of the lengths of a song's stems, in seconds, that is taken for a codec's padding.
const MAX_LENGTH_DIFFERENCE: f64 = 0.1;

/// What is done about a stem that a song lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingStems {
    /// It is an error.
    #[default]
    Refuse,
    /// It is silent.
    Silent,
}

/// How songs are read.
#[derive(Clone, Debug)]
pub struct DataOptions {
    /// Names of the stems, as in the YAML's `training.instruments`.
    pub instruments: Vec<String>,
    /// Sample rate of the model in Hz. Files of other rates are converted.
    pub sample_rate: u32,
    /// Channels of the model, 1 or 2. Mono files play on both; stereo files are mixed down for mono models.
    pub channels: usize,
    /// What is done about a stem that a song lacks.
    pub missing: MissingStems,
}

/// A song: one stem for each instrument.
pub struct Song {
    name: String,
    samples: usize,
    /// None where the song lacks the stem.
    stems: Vec<Option<StemFile>>,
}

/// A decoded stem in a temporary file that the system removes: f32, channel after channel.
struct StemFile {
    file: Mutex<File>,
    samples: usize,
}

/// Songs of one folder.
pub struct SongSet {
    songs: Vec<Song>,
    channels: usize,
    instruments: usize,
}

impl SongSet {
    /// Decodes every song below `folder`: a folder that holds files named after instruments, such as `vocals.wav`. `keep` chooses songs
    /// by name; `on_song` is told each before it is read and may stop the work.
    ///
    /// # Errors
    /// [`TrainError::Data`] where there is no song, a stem is missing or stems of a song differ in length; [`TrainError::Audio`] and
    /// [`TrainError::Io`] where a file cannot be read.
    pub fn open(
        folder: &Path,
        options: &DataOptions,
        keep: impl Fn(&str) -> bool,
        mut on_song: impl FnMut(&str),
    ) -> Result<Self, TrainError> {
        let mut found = BTreeMap::new();
        find_songs(folder, folder, &options.instruments, 0, &mut found)?;
        if found.is_empty() {
            let names: Vec<String> = options.instruments.iter().map(|name| format!("{name}.wav")).collect();
            return Err(TrainError::data(
                folder,
                format!("no song found; expected folders that hold {}", names.join(", ")),
            ));
        }
        let mut songs = Vec::new();
        for (name, files) in found {
            if keep(&name) {
                on_song(&name);
                songs.push(Song::open(&folder.join(&name), name, &files, options)?);
            }
        }
        if songs.is_empty() {
            return Err(TrainError::data(folder, "every song is left out, so that none remains"));
        }
        Ok(Self { songs, channels: options.channels, instruments: options.instruments.len() })
    }

    /// The songs, by name.
    pub fn songs(&self) -> &[Song] {
        &self.songs
    }

    /// Samples of all songs.
    pub fn samples(&self) -> usize {
        self.songs.iter().map(|song| song.samples).sum()
    }

    /// Channels of a stem.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Stems of a song.
    pub fn instruments(&self) -> usize {
        self.instruments
    }
}

/// The folders below `folder` that hold a file named after an instrument, by their path from `root`.
fn find_songs(
    root: &Path,
    folder: &Path,
    instruments: &[String],
    depth: usize,
    found: &mut BTreeMap<String, Vec<Option<PathBuf>>>,
) -> Result<(), TrainError> {
    let entries = std::fs::read_dir(folder).map_err(TrainError::io(folder, "cannot be read"))?;
    let mut files = vec![None; instruments.len()];
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.map_err(TrainError::io(folder, "cannot be read"))?.path();
        if path.is_dir() {
            folders.push(path);
            continue;
        }
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let is_audio = extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()));
        let stem = path.file_stem().and_then(|s| s.to_str());
        let instrument = stem.and_then(|stem| instruments.iter().position(|i| i.eq_ignore_ascii_case(stem)));
        let Some(instrument) = instrument.filter(|_| is_audio) else { continue };
        if let Some(other) = &files[instrument] {
            let other: &PathBuf = other;
            let reason = format!("two files of one stem: {} and {}", other.display(), path.display());
            return Err(TrainError::data(folder, reason));
        }
        files[instrument] = Some(path);
    }
    if files.iter().any(Option::is_some) {
        let name = folder.strip_prefix(root).unwrap_or(folder).to_string_lossy().replace('\\', "/");
        found.insert(name, files);
    } else if depth < MAX_DEPTH {
        for folder in folders {
            find_songs(root, &folder, instruments, depth + 1, found)?;
        }
    }
    Ok(())
}

impl Song {
    fn open(
        folder: &Path,
        name: String,
        files: &[Option<PathBuf>],
        options: &DataOptions,
    ) -> Result<Self, TrainError> {
        let missing: Vec<&str> = options
            .instruments
            .iter()
            .zip(files)
            .filter(|(_, file)| file.is_none())
            .map(|(instrument, _)| instrument.as_str())
            .collect();
        if !missing.is_empty() && options.missing == MissingStems::Refuse {
            return Err(TrainError::data(
                folder,
                format!(
                    "no file for the stem {}; add it, leave the song out, or take missing stems for silence",
                    missing.join(", ")
                ),
            ));
        }
        let stems = files
            .iter()
            .map(|file| file.as_deref().map(|file| StemFile::decode(file, options)).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<(usize, &PathBuf)> = stems
            .iter()
            .zip(files)
            .filter_map(|(stem, file)| Some((stem.as_ref()?.samples, file.as_ref()?)))
            .collect();
        let shortest = lengths.iter().min_by_key(|l| l.0);
        let longest = lengths.iter().max_by_key(|l| l.0);
        let (Some(&(samples, short)), Some(&(most, long))) = (shortest, longest) else {
            return Err(TrainError::data(folder, "none of its stems has a file"));
        };
        let seconds = |samples: usize| samples as f64 / f64::from(options.sample_rate);
        if seconds(most - samples) > MAX_LENGTH_DIFFERENCE {
            return Err(TrainError::data(
                folder,
                format!(
                    "stems of different lengths: {} lasts {:.2} s, {} {:.2} s; cut them to one length",
                    short.display(),
                    seconds(samples),
                    long.display(),
                    seconds(most)
                ),
            ));
        }
        if samples == 0 {
            return Err(TrainError::data(folder, "its stems hold no samples"));
        }
        Ok(Self { name, samples, stems })
    }

    /// Path of its folder below the data's, with `/` between folders.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Samples per channel.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Whether it has the stem.
    pub fn has_stem(&self, instrument: usize) -> bool {
        self.stems[instrument].is_some()
    }

    /// `out.len() / channels` samples of a stem from `start` on: [channels, samples]. What lies beyond the song, and a stem that the song
    /// lacks, is silence.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn read(
        &self,
        instrument: usize,
        start: usize,
        channels: usize,
        out: &mut [f32],
    ) -> Result<(), TrainError> {
        out.fill(0.0);
        match &self.stems[instrument] {
            Some(stem) => stem
                .read(start, channels, self.samples, out)
                .map_err(TrainError::io(Path::new(&self.name), "its decoded stem cannot be read")),
            None => Ok(()),
        }
    }
}

impl StemFile {
    fn decode(path: &Path, options: &DataOptions) -> Result<Self, TrainError> {
        let mut decoder = Decoder::open(path)?;
        let channels = options.channels;
        let (rate, found) = (decoder.info().sample_rate, decoder.info().channels);
        if found > 2 {
            return Err(TrainError::data(path, format!("expected one or two channels, found {found}")));
        }
        let io = || TrainError::io(path, "cannot be decoded to a temporary file");
        let mut resampler = Resampler::new(rate, options.sample_rate, found)?;
        // One temporary file a channel, joined at the end: the length is known only then.
        let mut planes = (0..channels)
            .map(|_| Ok(BufWriter::new(tempfile::tempfile()?)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(io())?;
        let (mut block, mut ready, mut samples) = (Planar::new(found), Planar::new(found), 0);
        loop {
            block.clear();
            ready.clear();
            let ended = decoder.read(BLOCK, &mut block)? == 0;
            if ended {
                resampler.finish(&mut ready)?;
            } else {
                if let Some(value) = block.iter().flatten().find(|x| !x.is_finite()) {
                    return Err(TrainError::data(
                        path,
                        format!("holds the sample {value}; expected finite numbers"),
                    ));
                }
                resampler.push(&block, &mut ready)?;
            }
            samples += ready.samples();
            for (channel, plane) in planes.iter_mut().enumerate() {
                for i in 0..ready.samples() {
                    let x = match (channels, found) {
                        (1, 2) => 0.5 * (ready.channel(0)[i] + ready.channel(1)[i]),
                        (_, 1) => ready.channel(0)[i],
                        _ => ready.channel(channel)[i],
                    };
                    plane.write_all(&x.to_ne_bytes()).map_err(io())?;
                }
            }
            if ended {
                break;
            }
        }
        let mut planes = planes.into_iter();
        let first = planes.next().ok_or_else(|| TrainError::setting("channels", "1 or 2", 0))?;
        let mut file = first.into_inner().map_err(|e| io()(e.into_error()))?;
        for plane in planes {
            let mut plane = plane.into_inner().map_err(|e| io()(e.into_error()))?;
            plane.seek(SeekFrom::Start(0)).map_err(io())?;
            std::io::copy(&mut plane, &mut file).map_err(io())?;
        }
        Ok(Self { file: Mutex::new(file), samples })
    }

    fn read(&self, start: usize, channels: usize, end: usize, out: &mut [f32]) -> std::io::Result<()> {
        let samples = out.len() / channels;
        let count = end.min(self.samples).saturating_sub(start).min(samples);
        if count == 0 {
            return Ok(());
        }
        let mut file = self.file.lock();
        for (channel, out) in out.chunks_exact_mut(samples).enumerate() {
            file.seek(SeekFrom::Start(4 * (channel * self.samples + start) as u64))?;
            file.read_exact(cast_slice_mut(&mut out[..count]))?;
        }
        Ok(())
    }
}
