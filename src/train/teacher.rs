//! Distillation: the stems that teachers find in a folder of music, kept as songs that training reads.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use crate::atomic_file::AtomicFile;
use crate::audio::{AudioWriter, Container, EXTENSIONS, Planar, SampleFormat, WriterSpec};
use crate::hash;
use crate::offline::demix::{DemixOptions, demix};
use crate::offline::plan::ChunkPlan;
use crate::offline::reader::{FileReader, MemoryReader, SongReader};
use crate::separator::{MaskRule, Separator};

/// Name of the file that says what a folder of stems was made from. It is written last, so that its presence means that all is there.
const FACTS: &str = "teacher.json";
/// Disagreement of two passes, in power, at which a second of a stem counts half.
const HALF_WEIGHT: f64 = 0.1;

/// A model that teaches.
pub struct Teacher {
    /// The model.
    pub separator: Separator,
    /// What tells it from others: the SHA-256 of its file.
    pub identity: String,
}

/// What a folder of stems was made from, and how far its stems can be trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherFacts {
    /// SHA-256 of the music file.
    pub source_sha256: String,
    /// Identities of the teachers, in order.
    pub teachers: Vec<String>,
    /// Names of the stems.
    pub stems: Vec<String>,
    /// Sample rate of the stems in Hz.
    pub sample_rate: u32,
    /// Weight of each stem in each second, 0 to 1: [stems][seconds]
    pub weights: Vec<Vec<f32>>,
}

impl TeacherFacts {
    /// Those of a folder; none where it holds no whole set of stems.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(FACTS)).ok()?).ok()
    }

    /// The weight of each stem at a sample.
    pub fn weights_at(&self, sample: usize) -> Vec<f32> {
        let second = sample / self.sample_rate.max(1) as usize;
        self.weights.iter().map(|w| w.get(second).or(w.last()).copied().unwrap_or(1.0)).collect()
    }
}

/// Names of the stems of several teachers.
///
/// # Errors
/// [`TrainError::Setting`] where teachers differ in rate or channels, or two have a stem of the same name.
pub fn teacher_stems(teachers: &[Teacher]) -> Result<Vec<String>, TrainError> {
    let Some(first) = teachers.first() else {
        return Err(TrainError::setting("teacher", "at least one model", "none"));
    };
    let mut stems: Vec<String> = Vec::new();
    for teacher in teachers {
        let info = teacher.separator.info();
        let format = |t: &Teacher| (t.separator.info().sample_rate, t.separator.info().architecture.channels);
        if format(teacher) != format(first) {
            return Err(TrainError::setting(
                "teacher",
                "models of one sample rate and number of channels",
                format!("{:?} and {:?}", format(first), format(teacher)),
            ));
        }
        for stem in &info.stems {
            if stems.contains(stem) {
                return Err(TrainError::setting(
                    "teacher",
                    "models of different stems",
                    format!("two of `{stem}`"),
                ));
            }
            stems.push(stem.clone());
        }
    }
    Ok(stems)
}

/// What tells a checkpoint file from others.
///
/// # Errors
/// [`TrainError::Io`].
pub fn file_identity(path: &Path) -> Result<String, TrainError> {
    Ok(hash::sha256(&std::fs::read(path).map_err(TrainError::io(path, "cannot be read"))?))
}

/// The audio files below a folder, by their path from it.
///
/// # Errors
/// [`TrainError::Io`], and [`TrainError::Data`] where there is none.
pub fn find_music(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).map_err(TrainError::io(&next, "cannot be read"))? {
            let path = entry.map_err(TrainError::io(&next, "cannot be read"))?.path();
            let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
            if path.is_dir() {
                folders.push(path);
            } else if extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str())) {
                found.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(TrainError::data(folder, "no audio file found"));
    }
    Ok(found)
}

/// Separates `file` with all teachers and writes their stems into the folder `out`, which training reads as a song. Nothing is done where
/// the folder holds the same already. The stems are the means of two passes, the second over the mixture with its channels swapped
/// and half a chunk later; where the passes differ, the stem gets less weight. Together they are the mixture: what they leave goes
/// to `other`, or in equal parts to all. The whole song is held in memory, about 1 MB a second for four stems.
///
/// # Errors
/// [`TrainError`] where the file cannot be read, a model fails or the disk refuses. `None` where `on_progress` stopped it.
pub fn teach(
    teachers: &mut [Teacher],
    file: &Path,
    out: &Path,
    on_progress: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<Option<TeacherFacts>, TrainError> {
    let stems = teacher_stems(teachers)?;
    let source_sha256 = file_identity(file)?;
    let identities: Vec<String> = teachers.iter().map(|teacher| teacher.identity.clone()).collect();
    if let Some(facts) = TeacherFacts::read(out)
        && facts.source_sha256 == source_sha256
        && facts.teachers == identities
        && facts.stems == stems
    {
        return Ok(Some(facts));
    }
    let info = teachers[0].separator.info().clone();
    let mixture = read_music(file, info.sample_rate, info.architecture.channels)?;
    let samples = mixture.samples();
    let work = (2 * teachers.len() * samples.max(1)) as f64;
    let (mut planes, mut weights, mut done) = (Vec::new(), Vec::new(), 0.0);
    for teacher in teachers.iter_mut() {
        let mut passes = Vec::new();
        for second in [false, true] {
            let mut tell = |at: u64| on_progress((done + at as f64) / work);
            match pass(&mut teacher.separator, &mixture, second, file, &mut tell)? {
                Some(found) => passes.push(found),
                None => return Ok(None),
            }
            done += samples as f64;
        }
        let channels = info.architecture.channels;
        for (first, second) in passes[0].chunks(channels).zip(passes[1].chunks(channels)) {
            weights.push(agreement(first, second, info.sample_rate as usize));
            for (a, b) in first.iter().zip(second) {
                planes.push(a.iter().zip(b).map(|(a, b)| 0.5 * (a + b)).collect::<Vec<f32>>());
            }
        }
    }
    complete(&mut planes, &mixture, &stems);
    let facts =
        TeacherFacts { source_sha256, teachers: identities, stems, sample_rate: info.sample_rate, weights };
    write_song(out, &facts, planes, info.architecture.channels)?;
    Ok(Some(facts))
}

/// All of a file at the model's rate and channels.
fn read_music(file: &Path, sample_rate: u32, channels: usize) -> Result<Planar, TrainError> {
    let failed = |error: crate::offline::error::OfflineError| TrainError::data(file, error.to_string());
    let mut reader = FileReader::open(file, sample_rate).map_err(failed)?;
    let mut all = Planar::new(reader.channels());
    while reader.read(1 << 16, &mut all).map_err(failed)? > 0 {}
    if all.is_empty() {
        return Err(TrainError::data(file, "holds no samples"));
    }
    let mut planes = all.into_planes();
    match (planes.len(), channels) {
        (1, 2) => planes.push(planes[0].clone()),
        (2, 1) => {
            let right = planes.pop().unwrap_or_default();
            planes[0].iter_mut().zip(right).for_each(|(l, r)| *l = 0.5 * (*l + r));
        }
        (found, wanted) if found != wanted => {
            return Err(TrainError::data(file, format!("expected one or two channels, found {found}")));
        }
        _ => {}
    }
    Ok(Planar::from_equal(planes))
}

/// One separation: planes of all stems, stem by stem. None where it was stopped.
fn pass(
    separator: &mut Separator,
    mixture: &Planar,
    second: bool,
    file: &Path,
    on_progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Option<Vec<Vec<f32>>>, TrainError> {
    let info = separator.info().clone();
    let channels = info.architecture.channels;
    let shift = if second { info.chunk / 2 } else { 0 };
    let mut input = Planar::zeros(channels, shift);
    let turned: Vec<Vec<f32>> =
        (0..channels).map(|c| mixture.channel(if second { channels - 1 - c } else { c }).to_vec()).collect();
    input.append(&Planar::from_equal(turned));
    let options = DemixOptions {
        plan: ChunkPlan::new(info.chunk, info.overlap as f64),
        batch: info.batch,
        rule: info.rule(MaskRule::Complete),
        tta: false,
        standardise: None,
    };
    let mut found = Planar::new(info.stems.len() * channels);
    let mut stopped = false;
    let result = demix(
        separator,
        &mut MemoryReader::new(&input),
        &options,
        &mut |block| {
            found.append(block);
            Ok(())
        },
        &mut |at| {
            let flow = on_progress(at);
            stopped = flow.is_break();
            flow
        },
    );
    if stopped {
        return Ok(None);
    }
    result.map_err(|error| TrainError::data(file, error.to_string()))?;
    let mut planes = found.into_planes();
    planes.iter_mut().for_each(|plane| _ = plane.drain(..shift.min(plane.len())));
    if second && channels == 2 {
        planes.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
    }
    Ok(Some(planes))
}

/// Weight of each second of one stem, of which two passes gave these channels.
fn agreement(first: &[Vec<f32>], second: &[Vec<f32>], sample_rate: usize) -> Vec<f32> {
    let samples = first.first().map_or(0, Vec::len);
    (0..samples.div_ceil(sample_rate))
        .map(|at| {
            let range = at * sample_rate..((at + 1) * sample_rate).min(samples);
            let (mut power, mut difference) = (1e-9, 0.0);
            for (a, b) in first.iter().zip(second) {
                for (a, b) in a[range.clone()].iter().zip(&b[range.clone()]) {
                    power += 0.5 * (f64::from(*a).powi(2) + f64::from(*b).powi(2));
                    difference += f64::from(a - b).powi(2);
                }
            }
            // Silence on which both agree counts whole: its difference is nothing against the floor.
            (1.0 / (1.0 + difference / (HALF_WEIGHT * (power + 1e-6 * sample_rate as f64)))) as f32
        })
        .collect()
}

/// Adds to the stems what they leave of the mixture.
#[allow(clippy::needless_range_loop, reason = "one sample of several planes at a time")]
fn complete(planes: &mut [Vec<f32>], mixture: &Planar, stems: &[String]) {
    let channels = mixture.channels();
    let carrier = stems.iter().position(|stem| stem == "other");
    for channel in 0..channels {
        for i in 0..mixture.samples() {
            let sum: f32 = (0..stems.len()).map(|n| planes[n * channels + channel][i]).sum();
            let rest = mixture.channel(channel)[i] - sum;
            match carrier {
                Some(n) => planes[n * channels + channel][i] += rest,
                None => {
                    let part = rest / stems.len() as f32;
                    (0..stems.len()).for_each(|n| planes[n * channels + channel][i] += part);
                }
            }
        }
    }
}

fn write_song(
    folder: &Path,
    facts: &TeacherFacts,
    planes: Vec<Vec<f32>>,
    channels: usize,
) -> Result<(), TrainError> {
    std::fs::create_dir_all(folder).map_err(TrainError::io(folder, "cannot be made"))?;
    let path = folder.join(FACTS);
    // Facts of other stems must not outlive them.
    if path.exists() {
        std::fs::remove_file(&path).map_err(TrainError::io(&path, "cannot be removed"))?;
    }
    let spec = WriterSpec {
        container: Container::Wav,
        format: SampleFormat::Float32,
        channels,
        sample_rate: facts.sample_rate,
    };
    let mut planes = planes.into_iter();
    for stem in &facts.stems {
        let block = Planar::from_equal(planes.by_ref().take(channels).collect());
        let mut writer = AudioWriter::create(folder.join(format!("{stem}.wav")), spec)?;
        writer.write(&block)?;
        writer.finish()?;
    }
    let text = serde_json::to_vec(facts).map_err(|error| TrainError::data(&path, error.to_string()))?;
    let mut file = AtomicFile::create_beside(&path).map_err(TrainError::io(&path, "cannot be written"))?;
    std::io::Write::write_all(&mut file, &text).map_err(TrainError::io(&path, "cannot be written"))?;
    file.sync().map_err(TrainError::io(&path, "cannot be written"))?;
    file.publish(&path).map_err(TrainError::io(&path, "cannot be written"))
}

/// How large a student is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StudentSize {
    /// A quarter of the embedded model's work.
    Tiny,
    /// Half of it.
    Small,
    /// The embedded model's.
    Medium,
    /// Three times its work.
    Large,
}

/// The YAML of a student with a teacher's stems, on the embedded model's transform and bands.
pub fn student_yaml(size: StudentSize, stems: &[String], sample_rate: u32, channels: usize) -> String {
    let (dim, depth, heads, dim_head) = match size {
        StudentSize::Tiny => (48, 3, 2, 24),
        StudentSize::Small => (64, 4, 2, 32),
        StudentSize::Medium => (96, 4, 3, 32),
        StudentSize::Large => (160, 5, 5, 32),
    };
    let names = serde_json::Value::from(stems.to_vec());
    format!(
        "audio: {{chunk_size: 65536, sample_rate: {sample_rate}, num_channels: {channels}}}\n\
         model:\n  dim: {dim}\n  depth: {depth}\n  stereo: {stereo}\n  num_stems: {count}\n  time_transformer_depth: 1\n  \
         freq_transformer_depth: 1\n  \
         freqs_per_bands: [6, 6, 6, 6, 8, 8, 8, 16, 16, 24, 24, 32, 32, 48, 48, 64, 64, 160, 200, 249]\n  \
         dim_head: {dim_head}\n  heads: {heads}\n  stft_n_fft: 2048\n  stft_hop_length: 1024\n  stft_win_length: 2048\n  \
         stft_normalized: false\n  mask_estimator_depth: 1\n  mlp_expansion_factor: 1\n\
         training: {{instruments: {names}, target_instrument: null}}\n\
         inference: {{batch_size: 1, num_overlap: 2}}\n",
        stereo = channels == 2,
        count = stems.len(),
    )
}

#[cfg(test)]
#[allow(clippy::needless_range_loop, reason = "one sample of several planes at a time")]
mod tests {
    use super::*;
    use crate::model::config::Config;

    #[test]
    fn weights_fall_where_two_passes_differ() {
        let tone: Vec<f32> = (0..300).map(|i| (i as f32 * 0.3).sin()).collect();
        let mut other = tone.clone();
        other[100..200].iter_mut().for_each(|x| *x = -*x);
        let weights = agreement(&[tone], &[other], 100);
        assert!(weights[0] > 0.999 && weights[2] > 0.999 && weights[1] < 0.05, "{weights:?}");
        assert_eq!(agreement(&[vec![0.0; 50]], &[vec![0.0; 50]], 100), [1.0]);
    }

    #[test]
    fn completed_stems_are_the_mixture() {
        let mixture = Planar::from_equal(vec![vec![1.0, 2.0], vec![3.0, -4.0]]);
        for names in [["a", "other"], ["a", "b"]] {
            let mut planes = vec![vec![0.25; 2]; 4];
            complete(&mut planes, &mixture, &names.map(String::from));
            for channel in 0..2 {
                for i in 0..2 {
                    assert_eq!(planes[channel][i] + planes[2 + channel][i], mixture.channel(channel)[i]);
                }
            }
        }
    }

    #[test]
    fn every_student_is_a_network() {
        let stems = ["vocals", "it's: \"odd\""].map(String::from);
        for size in [StudentSize::Tiny, StudentSize::Small, StudentSize::Medium, StudentSize::Large] {
            let yaml = student_yaml(size, &stems, 44_100, 2);
            let config = Config::from_yaml(&yaml, "student").unwrap();
            assert_eq!(config.training.instruments, stems);
            assert!(crate::train::RoformerForTraining::new(&config, 0).is_ok());
        }
    }
}
