//! Random examples: crops of songs, their stems mixed anew.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::data::{Song, SongSet};
use super::error::TrainError;
use crate::dsp::Random;

/// How examples are mixed.
#[derive(Clone, Debug, PartialEq)]
pub struct MixConfig {
    /// Examples a batch. By default 1.
    pub batch: usize,
    /// Samples of a crop.
    pub samples: usize,
    /// Seed of all draws. By default 0.
    pub seed: u64,
    /// Share of examples whose stems come from different songs and places. By default 0.5.
    pub remix: f32,
    /// Largest change of a stem's level in dB, either way. By default 6.
    pub gain_db: f32,
    /// Share of stems whose polarity is inverted. By default 0.5.
    pub invert: f32,
    /// Share of stems whose channels are swapped. By default 0.5.
    pub swap: f32,
    /// Share of stems that are left out. By default 0.05.
    pub drop: f32,
}

impl Default for MixConfig {
    fn default() -> Self {
        Self {
            batch: 1,
            samples: 88_200,
            seed: 0,
            remix: 0.5,
            gain_db: 6.0,
            invert: 0.5,
            swap: 0.5,
            drop: 0.05,
        }
    }
}

impl MixConfig {
    /// Examples as they are in the songs: no remixing, no other change.
    pub fn plain(batch: usize, samples: usize, seed: u64) -> Self {
        Self { batch, samples, seed, remix: 0.0, gain_db: 0.0, invert: 0.0, swap: 0.0, drop: 0.0 }
    }

    /// Refuses numbers that mean nothing.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(&self) -> Result<(), TrainError> {
        if self.batch == 0 || self.batch > 4096 {
            return Err(TrainError::setting("batch", "1 to 4096", self.batch));
        }
        for (name, share) in
            [("remix", self.remix), ("invert", self.invert), ("swap", self.swap), ("drop", self.drop)]
        {
            if !(0.0..=1.0).contains(&share) {
                return Err(TrainError::setting(name, "a share from 0 to 1", share));
            }
        }
        if !(0.0..=60.0).contains(&self.gain_db) {
            return Err(TrainError::setting("gain-db", "0 to 60", self.gain_db));
        }
        Ok(())
    }
}

/// A batch: mixtures [batch, channels, samples] and targets [batch, stems, channels, samples], with a weight for each stem.
pub struct Batch {
    /// The mixtures.
    pub mixture: Tensor,
    /// Their stems.
    pub target: Tensor,
    /// Weights [batch, stems], row by row; none where all are 1.
    pub weights: Option<Vec<f32>>,
}

/// The weight of each instrument of a song at a sample.
pub type Confidence = dyn Fn(&Song, usize) -> Vec<f32> + Sync;

/// Makes batches. Batch `i` depends on the seed, `i` and the songs alone, so that a run that goes on sees the same as one that never stopped.
pub struct Batches<'a> {
    songs: &'a SongSet,
    config: MixConfig,
    /// Instruments that are targets.
    targets: Vec<usize>,
    /// Weight of the loss at a place of a song, where the stems differ in their worth.
    confidence: Option<&'a Confidence>,
}

impl<'a> Batches<'a> {
    /// `targets`: which instruments the model has as stems.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn new(songs: &'a SongSet, config: MixConfig, targets: Vec<usize>) -> Result<Self, TrainError> {
        config.check()?;
        Ok(Self { songs, config, targets, confidence: None })
    }

    /// Weights each stem of an example by `confidence(song, sample)`, a weight for each instrument.
    #[must_use]
    pub fn with_confidence(mut self, confidence: &'a Confidence) -> Self {
        self.confidence = Some(confidence);
        self
    }

    /// Batch `index`.
    ///
    /// # Errors
    /// [`TrainError::Io`] where the decoded songs cannot be read.
    pub fn make(&self, index: u64) -> Result<Batch, TrainError> {
        let (batch, samples) = (self.config.batch, self.config.samples);
        let channels = self.songs.channels();
        let examples = (0..batch)
            .into_par_iter()
            .map(|i| self.example(Random::new(mix(self.config.seed, index, i as u64))))
            .collect::<Result<Vec<_>, _>>()?;
        let stems = self.targets.len();
        let mut mixture = Vec::with_capacity(batch * channels * samples);
        let mut target = Vec::with_capacity(batch * stems * channels * samples);
        let mut weights = Vec::new();
        for example in examples {
            let len = channels * samples;
            let mut sum = vec![0.0f32; len];
            for stem in example.stems.chunks_exact(len) {
                sum.iter_mut().zip(stem).for_each(|(sum, x)| *sum += x);
            }
            mixture.extend(sum);
            for &i in &self.targets {
                target.extend_from_slice(&example.stems[i * len..][..len]);
                weights.push(example.weights.get(i).copied().unwrap_or(1.0));
            }
        }
        Ok(Batch {
            mixture: Tensor::from_vec(mixture, (batch, channels, samples), &Device::Cpu)?,
            target: Tensor::from_vec(target, (batch, stems, channels, samples), &Device::Cpu)?,
            weights: self.confidence.map(|_| weights),
        })
    }

    fn example(&self, mut random: Random) -> Result<Example, TrainError> {
        let (channels, samples) = (self.songs.channels(), self.config.samples);
        let len = channels * samples;
        let instruments = self.songs.instruments();
        let mut stems = vec![0.0; instruments * len];
        let mut weights = Vec::new();
        let remix = random.unit() < self.config.remix;
        let (mut song, mut start) = self.place(&mut random, None);
        if let Some(confidence) = self.confidence {
            weights = confidence(song, start + samples / 2);
        }
        // One stem at least is there.
        let kept = (random.bits() % instruments as u64) as usize;
        for (instrument, out) in stems.chunks_exact_mut(len).enumerate() {
            if remix {
                (song, start) = self.place(&mut random, Some(instrument));
                if let (Some(confidence), Some(weight)) = (self.confidence, weights.get_mut(instrument)) {
                    *weight = confidence(song, start + samples / 2).get(instrument).copied().unwrap_or(1.0);
                }
            }
            let gain = 10f32.powf(self.config.gain_db * random.bipolar() / 20.0);
            let inverted = random.unit() < self.config.invert;
            let swapped = random.unit() < self.config.swap;
            let dropped = random.unit() < self.config.drop;
            if dropped && instrument != kept {
                continue;
            }
            song.read(instrument, start, channels, out)?;
            let gain = if inverted { -gain } else { gain };
            out.iter_mut().for_each(|x| *x *= gain);
            if swapped && channels == 2 {
                out.rotate_left(samples);
            }
        }
        Ok(Example { stems, weights })
    }

    /// A song, longer ones more often, and where a crop begins; with a stem of `instrument` where any song has one.
    fn place(&self, random: &mut Random, instrument: Option<usize>) -> (&'a Song, usize) {
        let songs = self.songs.songs();
        let fits = |song: &Song| instrument.is_none_or(|i| song.has_stem(i));
        let any = songs.iter().any(fits);
        let usable = || songs.iter().filter(move |song| !any || fits(song));
        let total: usize = usable().map(Song::samples).sum();
        let mut at = (random.bits() % total.max(1) as u64) as usize;
        let mut chosen = &songs[0];
        for song in usable() {
            chosen = song;
            if at < song.samples() {
                break;
            }
            at -= song.samples();
        }
        let places = chosen.samples().saturating_sub(self.config.samples) + 1;
        (chosen, (random.bits() % places as u64) as usize)
    }
}

struct Example {
    /// [instruments, channels, samples]
    stems: Vec<f32>,
    /// [instruments], or none
    weights: Vec<f32>,
}

/// A seed of its own for each example.
fn mix(seed: u64, index: u64, example: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut random = Random::new(random.bits() ^ index);
    random.bits() ^ Random::new(example.wrapping_add(0x51_7c_c1_b7)).bits()
}
