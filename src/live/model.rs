//! The model that the worker runs over each window, and how streams share it.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::plan::{MeasuredCost, ModelSamples, ModelTiming};
use crate::dsp::Random;
use crate::separator::{MaskRule, SeparateError, Separator};

/// Why a window could not be separated.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WindowError(pub String);

impl From<SeparateError> for WindowError {
    fn from(error: SeparateError) -> Self {
        Self(error.to_string())
    }
}

/// Separates one window into stems. Keeps no state between windows, so streams can share it.
pub trait WindowSeparator: Send {
    /// Number of stems.
    fn stems(&self) -> usize;

    /// Channels that it separates jointly.
    fn channels(&self) -> usize;

    /// Sample rate, chunk and transform.
    fn timing(&self) -> ModelTiming;

    /// Names of the stems.
    fn stem_names(&self) -> Vec<String> {
        (0..self.stems()).map(|stem| format!("stem{stem}")).collect()
    }

    /// Device, kernel, precision and threads, for display.
    fn runs_on(&self) -> String {
        String::new()
    }

    /// Separates `window` `[channels, samples]`, flat, into `out` `[stems, channels, samples]`, flat. Never called with a window of zeros.
    ///
    /// # Errors
    /// [`WindowError`]. The caller also catches panics.
    fn separate_window(&mut self, window: &[f32], rule: MaskRule, out: &mut [f32])
    -> Result<(), WindowError>;
}

impl WindowSeparator for Separator {
    /// The network's stems, plus the complement if the network has a single stem.
    fn stems(&self) -> usize {
        self.info().stems.len() + usize::from(self.info().complement.is_some())
    }

    fn channels(&self) -> usize {
        self.info().architecture.channels
    }

    fn timing(&self) -> ModelTiming {
        ModelTiming::of(self.info())
    }

    fn stem_names(&self) -> Vec<String> {
        self.info().stem_names()
    }

    fn runs_on(&self) -> String {
        format!(
            "{}, {}, {}, {} threads",
            self.device(),
            self.kernel(),
            self.precision().precision,
            self.threads()
        )
    }

    fn separate_window(
        &mut self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
    ) -> Result<(), WindowError> {
        let rule = self.info().rule(rule);
        let stems = self.separate(&[window], rule)?.pop().unwrap_or_default();
        let (network, rest) = out.split_at_mut(stems.len().min(out.len()));
        network.copy_from_slice(&stems[..network.len()]);
        for ((rest, mixture), stem) in rest.iter_mut().zip(window).zip(&*network) {
            *rest = mixture - stem;
        }
        Ok(())
    }
}

/// A model shared by any number of streams, which run it one window at a time.
///
/// Clones are cheap; dropping the last one frees the weights. A client never holds one, so the audio thread never frees a model.
#[derive(Clone)]
pub struct SharedModel(Arc<ModelCell>);

struct ModelCell {
    stems: usize,
    channels: usize,
    timing: ModelTiming,
    names: Vec<String>,
    runs_on: String,
    model: Mutex<Box<dyn WindowSeparator>>,
}

impl SharedModel {
    /// Makes a model shareable.
    pub fn new(model: Box<dyn WindowSeparator>) -> Self {
        let (stems, channels, timing) = (model.stems(), model.channels().max(1), model.timing());
        let (names, runs_on) = (model.stem_names(), model.runs_on());
        Self(Arc::new(ModelCell { stems, channels, timing, names, runs_on, model: Mutex::new(model) }))
    }

    /// Number of stems.
    pub fn stems(&self) -> usize {
        self.0.stems
    }

    /// Channels that it separates jointly.
    pub fn channels(&self) -> usize {
        self.0.channels
    }

    /// Sample rate, chunk and transform.
    pub fn timing(&self) -> ModelTiming {
        self.0.timing
    }

    /// Names of the stems.
    pub fn stem_names(&self) -> &[String] {
        &self.0.names
    }

    /// Device, kernel, precision and threads, for display.
    pub fn runs_on(&self) -> &str {
        &self.0.runs_on
    }

    /// The same model with `count` outputs: stem n is output `positions[n]`, the other outputs are silent. So a stem keeps its place when
    /// a model with other stems replaces this one. If `positions` does not fit, the result is the unchanged model.
    pub fn with_stems_at(&self, positions: &[usize], count: usize) -> Self {
        let mut taken = vec![false; count];
        let fits = positions.len() == self.stems()
            && positions.iter().all(|position| {
                taken.get_mut(*position).is_some_and(|taken| !std::mem::replace(taken, true))
            });
        if !fits {
            return self.clone();
        }
        Self::new(Box::new(RemappedStems { model: self.clone(), positions: positions.into(), count }))
    }

    /// Whether both share the same weights.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Runs the model; waits while another stream runs it. See [`WindowSeparator::separate_window`].
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn separate_window(
        &self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
    ) -> Result<(), WindowError> {
        self.0.model.lock().separate_window(window, rule, out)
    }
}

/// A model whose stems are moved to other output positions.
struct RemappedStems {
    model: SharedModel,
    /// Output position of each stem; all different.
    positions: Vec<usize>,
    /// Outputs, silent ones included.
    count: usize,
}

impl WindowSeparator for RemappedStems {
    fn stems(&self) -> usize {
        self.count
    }

    fn channels(&self) -> usize {
        self.model.channels()
    }

    fn timing(&self) -> ModelTiming {
        self.model.timing()
    }

    fn runs_on(&self) -> String {
        self.model.runs_on().into()
    }

    fn separate_window(
        &mut self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
    ) -> Result<(), WindowError> {
        let stems = self.positions.len();
        let (used, silent) = out.split_at_mut((stems * window.len()).min(out.len()));
        self.model.separate_window(window, rule, used)?;
        silent.fill(0.0);
        let mut planes: Vec<&mut [f32]> = out.chunks_exact_mut(window.len().max(1)).collect();
        // The stem that each plane holds now; silence from `stems` on.
        let mut held: Vec<usize> = (0..planes.len()).collect();
        for (stem, &position) in self.positions.iter().enumerate() {
            let Some(at) = held.iter().position(|held| *held == stem).filter(|at| *at != position) else {
                continue;
            };
            held.swap(at, position);
            let (low, high) = (at.min(position), at.max(position));
            if let Some((left, right)) = planes.split_at_mut_checked(high)
                && let (Some(one), Some(other)) = (left.get_mut(low), right.first_mut())
            {
                one.swap_with_slice(other);
            }
        }
        Ok(())
    }
}

/// Times a window of `window` samples of noise on this device: the shortest of `rounds` runs after a warm-up run. For
/// [`Tier::auto`](super::plan::Tier::auto).
///
/// # Errors
/// Those of the model, and an error if `stop`, called before each run, returns true.
pub fn measure(
    model: &SharedModel,
    window: ModelSamples,
    rounds: usize,
    stop: &dyn Fn() -> bool,
) -> Result<MeasuredCost, WindowError> {
    let samples = window.len() * model.channels();
    let noise = Random::new(1).noise(samples, 0.5);
    let mut out = vec![0.0; samples * model.stems()];
    let mut run = || {
        if stop() {
            return Err(WindowError("the measurement was stopped".into()));
        }
        // Waiting for another stream that runs the model is not part of its cost.
        let mut model = model.0.model.lock();
        let started = Instant::now();
        model.separate_window(&noise, MaskRule::Complete, &mut out)?;
        Ok(started.elapsed().as_secs_f64())
    };
    run()?;
    let mut seconds = f64::INFINITY;
    for _ in 0..rounds.max(1) {
        seconds = seconds.min(run()?);
    }
    Ok(MeasuredCost { window, seconds })
}

impl std::fmt::Debug for SharedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedModel")
            .field("stems", &self.0.stems)
            .field("timing", &self.0.timing)
            .finish_non_exhaustive()
    }
}

/// One entry of the cache. It is locked while the model loads, so that a second caller waits instead of loading again.
type Entry = Arc<Mutex<Weak<ModelCell>>>;

static LOADED_MODELS: Mutex<Vec<(String, Entry)>> = Mutex::new(Vec::new());

/// Returns the process's model for `key`, or loads it. The model stays cached as long as any owner holds it. `key` must identify everything
/// that `load` depends on: hash of the checkpoint, configuration, and, where they vary, device and precision.
///
/// # Errors
/// The errors of `load`.
pub fn load_shared<E>(
    key: &str,
    load: impl FnOnce() -> Result<Box<dyn WindowSeparator>, E>,
) -> Result<SharedModel, E> {
    let entry = {
        let mut models = LOADED_MODELS.lock();
        models.retain(|(_, entry)| {
            // A locked entry is being loaded.
            Arc::strong_count(entry) > 1 || entry.try_lock().is_none_or(|cell| cell.strong_count() > 0)
        });
        match models.iter().find(|(known, _)| known == key) {
            Some((_, entry)) => entry.clone(),
            None => {
                let entry = Entry::default();
                models.push((key.into(), entry.clone()));
                entry
            }
        }
    };
    let mut cell = entry.lock();
    if let Some(known) = cell.upgrade() {
        return Ok(SharedModel(known));
    }
    let model = SharedModel::new(load()?);
    *cell = Arc::downgrade(&model.0);
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stem n is the window times n + 1.
    struct Multiples(usize);

    impl WindowSeparator for Multiples {
        fn stems(&self) -> usize {
            self.0
        }

        fn channels(&self) -> usize {
            1
        }

        fn timing(&self) -> ModelTiming {
            let some = ModelSamples(64);
            ModelTiming { rate: 44_100, chunk: some, frame_hop: some, frame: some }
        }

        fn separate_window(
            &mut self,
            window: &[f32],
            _: MaskRule,
            out: &mut [f32],
        ) -> Result<(), WindowError> {
            for (stem, out) in out.chunks_exact_mut(window.len()).enumerate() {
                out.iter_mut().zip(window).for_each(|(out, x)| *out = x * (stem + 1) as f32);
            }
            Ok(())
        }
    }

    #[test]
    fn stems_are_moved_to_their_positions_and_other_outputs_are_silent() {
        let window = [1.0, -2.0];
        for positions in [&[0, 1, 2][..], &[1, 2, 3], &[4, 0, 2], &[2, 1, 0], &[3, 4, 0], &[1, 0, 4]] {
            let model = SharedModel::new(Box::new(Multiples(3))).with_stems_at(positions, 5);
            let mut out = [9.0; 10];
            model.separate_window(&window, MaskRule::Plain, &mut out).unwrap();
            let mut expected = [0.0; 10];
            for (stem, position) in positions.iter().enumerate() {
                let gain = (stem + 1) as f32;
                expected[2 * position..2 * position + 2].copy_from_slice(&window.map(|x| x * gain));
            }
            assert_eq!((model.stems(), out), (5, expected), "{positions:?}");
        }
    }

    #[test]
    fn invalid_positions_return_the_unchanged_model() {
        let model = SharedModel::new(Box::new(Multiples(3)));
        for positions in [&[0, 1][..], &[0, 1, 5], &[0, 1, 1]] {
            assert!(model.with_stems_at(positions, 5).is(&model), "{positions:?}");
        }
    }
}
