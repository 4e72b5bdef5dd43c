//! The song to measure on, with its true stems if given.

use std::path::{Path, PathBuf};

use nullsum::audio::{Planar, Resampler};
use nullsum::demo::{SAMPLE_RATE, Stereo, compose, sdr};
use nullsum::offline::error::OfflineError;
use nullsum::offline::reader::{FileReader, SongReader as _};

use super::pair;
use crate::args::TiersArgs;
use crate::batch::is_audio;
use crate::exit::{CliResult, ExitStatus, Failure, OrFail};
use crate::interrupt;

/// Name of the file that holds the song beside its stems.
const MIXTURE: &str = "mixture";
/// Mean square (−70 dB) below which a true stem counts as absent: there is no ratio to nothing, or to what a codec left.
const ABSENT: f64 = 1e-7;

/// A song at the model's rate, with its true stems if known.
pub struct Material {
    pub song: Planar,
    /// One per stem of the model, `None` if the song lacks it; empty if no true stems are given.
    truth: Vec<Option<Stereo>>,
}

impl Material {
    pub fn has_truth(&self) -> bool {
        !self.truth.is_empty()
    }

    /// SDR of each stem against the true one.
    pub fn to_truth(&self, stems: &[Stereo]) -> Vec<Option<f64>> {
        let one = |(truth, stem): (&Option<Stereo>, &Stereo)| truth.as_ref().map(|truth| sdr(truth, stem));
        self.truth.iter().zip(stems).map(one).collect()
    }

    /// Applies `figure` to each true stem.
    pub fn of_truth(&self, figure: impl Fn(&Stereo) -> f64) -> Vec<Option<f64>> {
        self.truth.iter().map(|truth| truth.as_ref().map(&figure)).collect()
    }
}

/// The song that the arguments name, with its true stems when they do; `names`: the model's stems.
pub fn material(args: &TiersArgs, rate: u32, names: &[String]) -> CliResult<Material> {
    let Some(folder) = &args.stems else {
        let song = match &args.song {
            Some(path) => read(path, rate, args.start, args.seconds)?,
            None => composed(rate)?,
        };
        return Ok(Material { song, truth: Vec::new() });
    };
    let (mut mixture, mut stems) = (args.song.clone(), Vec::new());
    for path in audio_files(folder)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        if name == MIXTURE {
            mixture.get_or_insert(path);
        } else {
            stems.push((name, read(&path, rate, args.start, args.seconds)?));
        }
    }
    if !stems.iter().any(|(stem, _)| names.iter().any(|name| name.to_lowercase() == *stem)) {
        return Err(Failure::new(
            ExitStatus::Io,
            format!(
                "{}: no file is named as a stem of the model; expected for instance {}.wav",
                folder.display(),
                names.join(".wav, ")
            ),
        ));
    }
    let song = match &mixture {
        Some(path) => read(path, rate, args.start, args.seconds)?,
        None => sum(stems.iter().map(|(_, stem)| stem)),
    };
    let length = stems.iter().map(|(_, stem)| stem.samples()).chain([song.samples()]).min().unwrap_or(0);
    let cut = |audio: &Planar| -> Stereo {
        pair(&audio.planes().iter().map(|plane| plane[..length].to_vec()).collect::<Vec<_>>())
    };
    let truth = names
        .iter()
        .map(|name| {
            let (_, stem) = stems.iter().find(|(stem, _)| name.to_lowercase() == *stem)?;
            let stem = cut(stem);
            let energy: f64 = stem.iter().flatten().map(|x| f64::from(*x).powi(2)).sum();
            (energy > ABSENT * 2.0 * length as f64).then_some(stem)
        })
        .collect();
    let song = Planar::from_equal(cut(&song).into());
    Ok(Material { song, truth })
}

fn audio_files(folder: &Path) -> CliResult<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| Failure::new(ExitStatus::Io, format!("{}: {error}", folder.display())))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| is_audio(path))
        .collect();
    files.sort();
    Ok(files)
}

/// The sum of stems, as long as the shortest.
fn sum<'a>(stems: impl Iterator<Item = &'a Planar> + Clone) -> Planar {
    let length = stems.clone().map(Planar::samples).min().unwrap_or(0);
    let plane = |c: usize| {
        let mut out = vec![0f32; length];
        for stem in stems.clone() {
            out.iter_mut().zip(stem.channel(c)).for_each(|(sum, x)| *sum += x);
        }
        out
    };
    Planar::from_equal(vec![plane(0), plane(1)])
}

/// A part of a song in stereo, at the model's rate.
fn read(path: &Path, rate: u32, start: f64, seconds: f64) -> CliResult<Planar> {
    let mut source = FileReader::open(path, rate).map_err(|error| failure(path, error))?;
    let first = (start * f64::from(rate)) as usize;
    let wanted = first + (seconds * f64::from(rate)) as usize;
    let mut song = Planar::new(source.channels());
    while song.samples() < wanted {
        interrupt::check_stop()?;
        if source.read(wanted - song.samples(), &mut song).map_err(|error| failure(path, error))? == 0 {
            break;
        }
    }
    song.drop_front(first);
    let mut planes = song.into_planes();
    planes.truncate(2);
    if let [mono] = &planes[..] {
        planes.push(mono.clone());
    }
    match Planar::from_planes(planes).filter(|song| song.samples() >= rate as usize) {
        Some(song) => Ok(song),
        None => Err(Failure::new(
            ExitStatus::Io,
            format!("{}: less than a second of audio from {start} s on", path.display()),
        )),
    }
}

fn failure(path: &Path, error: OfflineError) -> Failure {
    let failure = Failure::from(error);
    Failure { error: failure.error.context(path.display().to_string()), ..failure }
}

/// The demo piece, when no song is named.
fn composed(rate: u32) -> CliResult<Planar> {
    let [left, right] = compose(0).mixture;
    let mut out = Planar::new(2);
    let piece = Planar::from_equal(vec![left, right]);
    let mut resampler = Resampler::new(SAMPLE_RATE, rate, 2).or_fail(ExitStatus::Failed)?;
    resampler.push(&piece, &mut out).or_fail(ExitStatus::Failed)?;
    resampler.finish(&mut out).or_fail(ExitStatus::Failed)?;
    Ok(out)
}
