//! What the worker runs over a window, and how instances share it.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::plan::{Measured, ModelSamples, ModelTiming};
use crate::dsp::Random;
use crate::separator::{MaskRule, SeparateError, Separator};

/// Why a window has no stems.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WindowError(pub String);

impl From<SeparateError> for WindowError {
    fn from(error: SeparateError) -> Self {
        Self(error.to_string())
    }
}

/// A window in, stems out. Has no memory of windows before, so that instances can share it.
pub trait WindowSeparator: Send {
    /// Number of stems.
    fn stems(&self) -> usize;

    /// Channels that it separates together.
    fn channels(&self) -> usize;

    /// Rate, chunk and transform.
    fn timing(&self) -> ModelTiming;

    /// Their names, as many.
    fn stem_names(&self) -> Vec<String> {
        (0..self.stems()).map(|stem| format!("stem{stem}")).collect()
    }

    /// What it runs on, for people.
    fn runs_on(&self) -> String {
        String::new()
    }

    /// Separates `window` `[channels, samples]`, flat, into `out` `[stems, channels, samples]`, flat. A window of zeros is never asked for.
    ///
    /// # Errors
    /// [`WindowError`]. Panics are caught too.
    fn separate_window(&mut self, window: &[f32], rule: MaskRule, out: &mut [f32])
    -> Result<(), WindowError>;
}

impl WindowSeparator for Separator {
    /// Those of the network, and the complement of a single one.
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
            self.arithmetic().precision,
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

/// A model that any number of streams run, one window at a time.
///
/// Clones are cheap; the last one to go drops the weights. A client never holds one, so this is never the audio thread.
#[derive(Clone)]
pub struct SharedModel(Arc<Slot>);

struct Slot {
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
        Self(Arc::new(Slot { stems, channels, timing, names, runs_on, model: Mutex::new(model) }))
    }

    /// Number of stems.
    pub fn stems(&self) -> usize {
        self.0.stems
    }

    /// Channels that it separates together.
    pub fn channels(&self) -> usize {
        self.0.channels
    }

    /// Rate, chunk and transform.
    pub fn timing(&self) -> ModelTiming {
        self.0.timing
    }

    /// Names of the stems.
    pub fn stem_names(&self) -> &[String] {
        &self.0.names
    }

    /// What it runs on, for people.
    pub fn runs_on(&self) -> &str {
        &self.0.runs_on
    }

    /// The same model with each stem in the lane that `lane_of` says, of `lanes`, and silence in the others: a stem keeps its lane when
    /// a model with other stems takes over. A model that does not fit comes back as it is.
    pub fn in_lanes(&self, lane_of: &[usize], lanes: usize) -> Self {
        let mut taken = vec![false; lanes];
        let fits = lane_of.len() == self.stems()
            && lane_of
                .iter()
                .all(|lane| taken.get_mut(*lane).is_some_and(|taken| !std::mem::replace(taken, true)));
        if !fits {
            return self.clone();
        }
        Self::new(Box::new(InLanes { model: self.clone(), lane_of: lane_of.into(), lanes }))
    }

    /// Whether both are the same weights.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Runs the model, after whoever runs it now. See [`WindowSeparator::separate_window`].
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

/// A model whose stems are moved to other lanes.
struct InLanes {
    model: SharedModel,
    /// Different ones, one a stem.
    lane_of: Vec<usize>,
    lanes: usize,
}

impl WindowSeparator for InLanes {
    fn stems(&self) -> usize {
        self.lanes
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
        let stems = self.lane_of.len();
        let (used, silent) = out.split_at_mut((stems * window.len()).min(out.len()));
        self.model.separate_window(window, rule, used)?;
        silent.fill(0.0);
        let mut lanes: Vec<&mut [f32]> = out.chunks_exact_mut(window.len().max(1)).collect();
        // The stem that a lane holds; silence from `stems` on.
        let mut held: Vec<usize> = (0..lanes.len()).collect();
        for (stem, &lane) in self.lane_of.iter().enumerate() {
            let Some(at) = held.iter().position(|held| *held == stem).filter(|at| *at != lane) else {
                continue;
            };
            held.swap(at, lane);
            let (low, high) = (at.min(lane), at.max(lane));
            if let Some((left, right)) = lanes.split_at_mut_checked(high)
                && let (Some(one), Some(other)) = (left.get_mut(low), right.first_mut())
            {
                one.swap_with_slice(other);
            }
        }
        Ok(())
    }
}

/// Times a window of `window` samples of noise on this device: the shortest of `rounds` runs after one that warms up. For
/// [`Tier::auto`](super::plan::Tier::auto).
///
/// # Errors
/// Those of the model; and when `stop`, asked before each run, says so.
pub fn measure(
    model: &SharedModel,
    window: ModelSamples,
    rounds: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Measured, WindowError> {
    let samples = window.len() * model.channels();
    let noise = Random::new(1).noise(samples, 0.5);
    let mut out = vec![0.0; samples * model.stems()];
    let mut run = || {
        if stop() {
            return Err(WindowError("the measurement was stopped".into()));
        }
        // The wait for others that run it is not the model's time.
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
    Ok(Measured { window, seconds })
}

impl std::fmt::Debug for SharedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedModel")
            .field("stems", &self.0.stems)
            .field("timing", &self.0.timing)
            .finish_non_exhaustive()
    }
}

/// One entry of the pool: locked while it is loaded, so that a second asker waits instead of loading again.
type Entry = Arc<Mutex<Weak<Slot>>>;

static POOL: Mutex<Vec<(String, Entry)>> = Mutex::new(Vec::new());

/// The model of this content, from whoever in the process has it, or loaded now. `key` is all that tells apart what `load` may give: a hash of
/// the checkpoint, its configuration, and device and precision where they are not the same for all.
///
/// # Errors
/// Whatever `load` says.
pub fn pooled<E>(
    key: &str,
    load: impl FnOnce() -> Result<Box<dyn WindowSeparator>, E>,
) -> Result<SharedModel, E> {
    let entry = {
        let mut pool = POOL.lock();
        pool.retain(|(_, entry)| {
            // An entry that is locked is being loaded.
            Arc::strong_count(entry) > 1 || entry.try_lock().is_none_or(|slot| slot.strong_count() > 0)
        });
        match pool.iter().find(|(known, _)| known == key) {
            Some((_, entry)) => entry.clone(),
            None => {
                let entry = Entry::default();
                pool.push((key.into(), entry.clone()));
                entry
            }
        }
    };
    let mut slot = entry.lock();
    if let Some(known) = slot.upgrade() {
        return Ok(SharedModel(known));
    }
    let model = SharedModel::new(load()?);
    *slot = Arc::downgrade(&model.0);
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
    fn stems_go_to_their_lanes_and_the_rest_is_silent() {
        let window = [1.0, -2.0];
        for lane_of in [&[0, 1, 2][..], &[1, 2, 3], &[4, 0, 2], &[2, 1, 0], &[3, 4, 0], &[1, 0, 4]] {
            let model = SharedModel::new(Box::new(Multiples(3))).in_lanes(lane_of, 5);
            let mut out = [9.0; 10];
            model.separate_window(&window, MaskRule::Plain, &mut out).unwrap();
            let mut expected = [0.0; 10];
            for (stem, lane) in lane_of.iter().enumerate() {
                let gain = (stem + 1) as f32;
                expected[2 * lane..2 * lane + 2].copy_from_slice(&window.map(|x| x * gain));
            }
            assert_eq!((model.stems(), out), (5, expected), "{lane_of:?}");
        }
    }

    #[test]
    fn a_model_that_does_not_fit_its_lanes_is_left_alone() {
        let model = SharedModel::new(Box::new(Multiples(3)));
        for lane_of in [&[0, 1][..], &[0, 1, 5], &[0, 1, 1]] {
            assert!(model.in_lanes(lane_of, 5).is(&model), "{lane_of:?}");
        }
    }
}
