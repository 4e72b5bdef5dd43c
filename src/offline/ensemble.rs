//! Ensembles: the mean of the stems of several models, at the rate of the song.

use super::error::OfflineError;
use super::outputs::{StemFiles, StemSink};
use super::spool::Spool;
use crate::audio::Planar;
use crate::separator::{ModelSpec, stem_position};

/// Samples handled at a time.
const BLOCK: usize = 1 << 16;

/// The mean of the stems of several models, in a temporary file.
pub(super) struct StemMean {
    stems: Vec<String>,
    channels: usize,
    share: f32,
    spool: Spool,
    /// For each stem of the model that runs, its index in `stems`.
    order: Vec<usize>,
    /// Position of the next block, and whether a model has been there before.
    at: usize,
    adds: bool,
}

impl StemMean {
    pub fn new(info: &ModelSpec, channels: usize, models: usize) -> Result<Self, OfflineError> {
        Ok(Self {
            stems: info.stems.clone(),
            channels,
            share: 1.0 / models as f32,
            spool: Spool::new(info.stems.len() * channels)?,
            order: Vec::new(),
            at: 0,
            adds: false,
        })
    }

    /// Takes the stems of another model from the start of the song on.
    pub fn begin(&mut self, info: &ModelSpec) -> Result<(), OfflineError> {
        let order: Option<Vec<usize>> =
            info.stems.iter().map(|stem| stem_position(&self.stems, stem)).collect();
        let order = order.filter(|order| order.len() == self.stems.len());
        self.order = order.ok_or_else(|| OfflineError::Options {
            what: format!(
                "the models of an ensemble must have the same stems; they have {} and {}",
                self.stems.join(", "),
                info.stems.join(", ")
            ),
        })?;
        (self.adds, self.at) = (self.spool.samples() > 0, 0);
        Ok(())
    }

    pub fn write_to(mut self, outputs: &mut StemFiles) -> Result<(), OfflineError> {
        let mut block = Planar::new(self.spool.channels());
        for at in (0..self.spool.samples()).step_by(BLOCK) {
            block.clear();
            self.spool.read(at, BLOCK.min(self.spool.samples() - at), &mut block)?;
            outputs.push(&block)?;
        }
        Ok(())
    }
}

impl StemSink for StemMean {
    fn push(&mut self, stems: &Planar) -> Result<(), OfflineError> {
        let samples = stems.samples();
        let mut sum = Planar::zeros(self.spool.channels(), samples);
        if self.adds {
            // Rates may differ, and with them the last samples.
            let there = samples.min(self.spool.samples().saturating_sub(self.at));
            let mut before = Planar::new(self.spool.channels());
            self.spool.read(self.at, there, &mut before)?;
            before.resize(samples);
            sum = before;
        }
        for (n, place) in self.order.iter().enumerate() {
            for c in 0..self.channels {
                let stem = stems.channel(n * self.channels + c);
                let to = sum.channel_mut(place * self.channels + c);
                to.iter_mut().zip(stem).for_each(|(x, s)| *x += self.share * s);
            }
        }
        self.spool.write(self.at, &sum)?;
        self.at += samples;
        Ok(())
    }
}
