//! A training run: batches, steps, validation, and state files from which a run goes on exactly.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::batches::{Batches, Confidence, MixConfig};
use super::data::SongSet;
use super::error::TrainError;
use super::export;
use super::model::RoformerForTraining;
use super::optimizer::{Optimizer, OptimizerConfig};
use super::validate::{StemScore, validate};
use crate::model::checkpoint::Checkpoint;

/// Version of the state files written here.
const STATE_VERSION: u32 = 1;

/// When a run warms up, ends and reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Steps of the whole run, those before it was resumed included.
    pub steps: u64,
    /// Steps over which the learning rate rises from 0. By default 100.
    pub warmup: u64,
    /// Share of the steps at the end over which the learning rate falls to 0. By default 0.5.
    pub decay: f64,
    /// Batches whose gradients make one step. By default 1.
    pub accumulate: u64,
    /// Steps between two validations; 0 validates only at the end. By default 500.
    pub validate_every: u64,
    /// Time between two state files. By default 5 minutes.
    pub save_every: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            steps: 1000,
            warmup: 100,
            decay: 0.5,
            accumulate: 1,
            validate_every: 500,
            save_every: Duration::from_secs(300),
        }
    }
}

impl Schedule {
    /// Factor of the learning rate in step `step`, from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let rise = if self.warmup > 0 { (step + 1) as f64 / self.warmup as f64 } else { 1.0 };
        let left = self.steps.saturating_sub(step) as f64 / self.steps.max(1) as f64;
        let fall = if self.decay > 0.0 { left / self.decay } else { 1.0 };
        rise.min(fall).min(1.0)
    }
}

/// What a run tells while it goes on.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrainEvent<'a> {
    /// A step is done.
    Step {
        /// Number of the step, from 1.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Mean loss of the step's batches.
        loss: f64,
        /// Its part on the waveform.
        waveform: f64,
        /// Its part on spectra, without its weight.
        stft: f64,
        /// Norm of the gradient before clipping.
        gradient_norm: f64,
        /// Factor of the learning rates.
        rate: f64,
        /// Seconds that the step took.
        seconds: f64,
    },
    /// The averaged parameters were measured on the validation songs.
    Validation {
        /// Steps so far.
        step: u64,
        /// A score for each stem.
        stems: &'a [StemScore],
    },
    /// A state file was written.
    Saved {
        /// Steps so far.
        step: u64,
        /// The state file.
        state: &'a Path,
    },
}

/// What a run reads and writes.
pub struct TrainData<'a> {
    /// Songs to train on.
    pub songs: &'a SongSet,
    /// Songs to validate on, if any.
    pub validation: Option<&'a SongSet>,
    /// Names of the model's stems.
    pub stems: Vec<String>,
    /// Indices of the model's stems among the instruments of the songs.
    pub targets: Vec<usize>,
}

/// Facts of a run in its state file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StateFacts {
    version: u32,
    steps: u64,
    batches: u64,
    seed: u64,
    batch: usize,
    samples: usize,
    accumulate: u64,
    muon: bool,
    average: bool,
}

/// A run under way.
pub struct Trainer {
    model: RoformerForTraining,
    optimizer: Optimizer,
    schedule: Schedule,
    mix: MixConfig,
    state: PathBuf,
    batches: u64,
}

impl Trainer {
    /// A new run of `model`, whose state goes to the file `state`.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for settings out of range.
    pub fn new(
        model: RoformerForTraining,
        optimizer: OptimizerConfig,
        schedule: Schedule,
        mix: MixConfig,
        state: &Path,
    ) -> Result<Self, TrainError> {
        mix.check()?;
        if schedule.steps == 0 || schedule.accumulate == 0 {
            return Err(TrainError::setting("steps", "at least 1 step of at least 1 batch", 0));
        }
        if !(0.0..=1.0).contains(&schedule.decay) {
            return Err(TrainError::setting("decay", "a share from 0 to 1", schedule.decay));
        }
        if mix.samples < model.min_samples() {
            let least = model.min_samples();
            return Err(TrainError::setting("crop", format!("at least {least} samples"), mix.samples));
        }
        let optimizer = Optimizer::new(model.parameters(), optimizer)?;
        Ok(Self { model, optimizer, schedule, mix, state: state.into(), batches: 0 })
    }

    /// Continues from the state file: parameters, moments, average and the number of the next batch.
    ///
    /// # Errors
    /// [`TrainError::State`] where the file belongs to another model or to other settings, which are named.
    pub fn resume(&mut self) -> Result<(), TrainError> {
        let file = self.state.display().to_string();
        let state = |reason: String| TrainError::State { file: file.clone(), reason };
        let saved = Checkpoint::open(&self.state)?;
        let facts = saved.metadata("training").ok_or_else(|| {
            state(
                "holds no training state; pass a file that nullsum-train wrote, or --init for a model".into(),
            )
        })?;
        let facts: StateFacts = serde_json::from_str(facts)
            .map_err(|error| state(format!("its training facts cannot be read: {error}")))?;
        let expected = self.facts();
        let expected = StateFacts { steps: facts.steps, batches: facts.batches, ..expected };
        if facts != expected {
            return Err(state(format!(
                "was written with other settings, so that the run would not be the same: {facts:?}, now {expected:?}"
            )));
        }
        if saved.metadata("config") != Some(self.model.config_yaml()) {
            return Err(state(
                "was written for another configuration; train with the YAML it began with".into(),
            ));
        }
        let read = |name: &str, like: &Tensor| -> Result<Tensor, TrainError> {
            let view = saved.get(name).ok_or_else(|| state(format!("lacks the tensor {name}")))?;
            if view.shape() != like.dims() {
                let (expected, found) = (like.dims(), view.shape());
                return Err(state(format!("{name}: expected shape {expected:?}, found {found:?}")));
            }
            Ok(Tensor::from_vec(view.to_f32()?, view.shape(), like.device())?.to_dtype(like.dtype())?)
        };
        let parameters = self.model.parameters();
        let values = parameters
            .iter()
            .map(|p| read(&format!("parameter/{}", p.name()), &p.value()))
            .collect::<Result<Vec<_>, _>>()?;
        self.optimizer.restore(parameters, facts.steps, read)?;
        for (parameter, value) in parameters.iter().zip(&values) {
            parameter.set(value)?;
        }
        self.batches = facts.batches;
        Ok(())
    }

    fn facts(&self) -> StateFacts {
        StateFacts {
            version: STATE_VERSION,
            steps: self.optimizer.steps(),
            batches: self.batches,
            seed: self.mix.seed,
            batch: self.mix.batch,
            samples: self.mix.samples,
            accumulate: self.schedule.accumulate,
            muon: self.optimizer.config().muon_lr.is_some(),
            average: self.optimizer.config().average > 0.0,
        }
    }

    /// The model, with the parameters of the last step.
    pub fn model(&self) -> &RoformerForTraining {
        &self.model
    }

    /// Steps so far, those before it was resumed included.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Writes the state file in one step.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::NotFinite`]; the file before it then stays.
    pub fn save(&self) -> Result<(), TrainError> {
        let parameters = self.model.parameters();
        let mut tensors: Vec<(String, Tensor)> =
            parameters.iter().map(|p| (format!("parameter/{}", p.name()), p.value())).collect();
        tensors.extend(self.optimizer.tensors(parameters));
        let facts = serde_json::to_string(&self.facts()).map_err(|error| TrainError::State {
            file: self.state.display().to_string(),
            reason: error.to_string(),
        })?;
        let metadata = [("training", facts), ("config", self.model.config_yaml().to_owned())];
        export::write(&self.state, &tensors, &metadata)
    }

    /// Writes the averaged parameters, or the last ones where no average is kept, as a checkpoint that any program loads.
    ///
    /// # Errors
    /// As [`RoformerForTraining::export`].
    pub fn export(&self, path: &Path) -> Result<(), TrainError> {
        if self.optimizer.average().is_empty() {
            return self.model.export(path);
        }
        self.model.export_values(self.optimizer.average(), path)
    }

    /// Trains to the last step of the schedule, or until `on_event` breaks; the state is written in either case, and every
    /// [`Schedule::save_every`] before.
    ///
    /// # Errors
    /// [`TrainError`] where a song cannot be read, the gradient is not finite or the disk refuses. The last state file stays.
    pub fn run(
        &mut self,
        data: &TrainData,
        confidence: Option<&Confidence>,
        on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        let mut batches = Batches::new(data.songs, self.mix.clone(), data.targets.clone())?;
        if let Some(confidence) = confidence {
            batches = batches.with_confidence(confidence);
        }
        let mut last_save = Instant::now();
        while self.steps() < self.schedule.steps {
            let event = self.step(&batches)?;
            let mut flow = on_event(event);
            let (step, ended) = (self.steps(), self.steps() == self.schedule.steps);
            if ended || flow.is_break() || last_save.elapsed() >= self.schedule.save_every {
                self.save()?;
                last_save = Instant::now();
                let told = on_event(TrainEvent::Saved { step, state: &self.state });
                flow = if told.is_break() { told } else { flow };
            }
            if flow.is_break() {
                break;
            }
            let due = self.schedule.validate_every > 0 && step.is_multiple_of(self.schedule.validate_every);
            if (due || ended)
                && let Some(songs) = data.validation
            {
                let stems = self.validate(songs, data)?;
                if on_event(TrainEvent::Validation { step, stems: &stems }).is_break() {
                    self.save()?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Scores of the averaged parameters on `songs`.
    ///
    /// # Errors
    /// [`TrainError`] where a song cannot be read.
    pub fn validate(&self, songs: &SongSet, data: &TrainData) -> Result<Vec<StemScore>, TrainError> {
        let parameters = self.model.parameters();
        let now: Vec<Tensor> = parameters.iter().map(|p| p.value().copy()).collect::<Result<_, _>>()?;
        let put = |values: &[Tensor]| -> Result<(), TrainError> {
            for (parameter, value) in parameters.iter().zip(values) {
                parameter.set(value)?;
            }
            Ok(())
        };
        put(self.optimizer.average())?;
        let scores = validate(&self.model, songs, &data.stems, &data.targets, self.mix.samples);
        put(&now)?;
        scores
    }

    fn step(&mut self, batches: &Batches) -> Result<TrainEvent<'static>, TrainError> {
        let started = Instant::now();
        let rate = self.schedule.rate(self.steps());
        let count = self.schedule.accumulate;
        let (mut loss, mut waveform, mut stft) = (0.0, 0.0, 0.0);
        let mut sum: Option<super::Gradients> = None;
        for i in 0..count {
            let batch = batches.make(self.batches + i)?;
            let found = self.model.weighted_loss(&batch.mixture, &batch.target, batch.weights.as_deref())?;
            loss += found.value() / count as f64;
            waveform += found.parts().waveform / count as f64;
            stft += found.parts().stft / count as f64;
            let gradients = found.backward()?;
            match &mut sum {
                Some(sum) => sum.accumulate(&gradients)?,
                None => sum = Some(gradients),
            }
        }
        let mut gradient_norm = 0.0;
        if let Some(mut gradients) = sum {
            if count > 1 {
                gradients.scale(1.0 / count as f64)?;
            }
            gradient_norm = self.optimizer.step(self.model.parameters(), &gradients, rate)?;
        }
        self.batches += count;
        Ok(TrainEvent::Step {
            step: self.steps(),
            steps: self.schedule.steps,
            loss,
            waveform,
            stft,
            gradient_norm,
            rate,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_rises_stays_and_falls() {
        let schedule = Schedule { steps: 1000, warmup: 100, decay: 0.5, ..Schedule::default() };
        let rates = [0, 99, 300, 500, 750, 999].map(|step| (schedule.rate(step) * 1000.0).round() / 1000.0);
        assert_eq!(rates, [0.01, 1.0, 1.0, 1.0, 0.5, 0.002]);
        let flat = Schedule { warmup: 0, decay: 0.0, ..schedule };
        assert_eq!([0, 999].map(|step| flat.rate(step)), [1.0, 1.0]);
    }
}
