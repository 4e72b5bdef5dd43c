//! The model that the worker runs over each window, and how streams share it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use super::plan::ModelTiming;
use crate::kernels::{JobControl, Pool};
use crate::separator::{ContextPlan, Hop, MaskRule, SeparateError, Separator, StreamState};

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

    /// As [`separate_window`](Self::separate_window); asks `control` between layers whether to go on.
    ///
    /// # Errors
    /// [`WindowError`], also when `control` cancels the run.
    fn separate_controlled(
        &mut self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
        control: &dyn JobControl,
    ) -> Result<(), WindowError> {
        if control.checkpoint().is_break() {
            return Err(WindowError("the window was cancelled".into()));
        }
        self.separate_window(window, rule, out)
    }

    /// Opens a stream that keeps context between hops, for models whose [`timing`](Self::timing) has one.
    ///
    /// # Errors
    /// [`WindowError`] if the model needs whole windows, or the context is too large.
    fn new_stream(&self, _plan: &ContextPlan) -> Result<StreamState, WindowError> {
        Err(WindowError("this model keeps no context; run whole windows".into()))
    }

    /// Makes the next `frames` frames of a stream final. Its input must have been pushed.
    ///
    /// # Errors
    /// [`WindowError`], also when `control` cancels the run.
    fn separate_hop(
        &mut self,
        _state: &mut StreamState,
        _frames: usize,
        _rule: MaskRule,
        _control: &dyn JobControl,
    ) -> Result<(), WindowError> {
        Err(WindowError("this model keeps no context; run whole windows".into()))
    }

    /// The pool that it runs on, if it is one of ours.
    fn pool(&self) -> Option<Pool> {
        None
    }

    /// Name of the device, such as `cuda:0`, if another process runs it. Its jobs then only wait here.
    fn remote_device(&self) -> Option<String> {
        None
    }
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
        WindowSeparator::separate_controlled(self, window, rule, out, &())
    }

    fn separate_controlled(
        &mut self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
        control: &dyn JobControl,
    ) -> Result<(), WindowError> {
        let rule = self.info().rule(rule);
        let stems = Separator::separate_controlled(self, &[window], rule, control)?.pop().unwrap_or_default();
        let (network, rest) = out.split_at_mut(stems.len().min(out.len()));
        network.copy_from_slice(&stems[..network.len()]);
        for ((rest, mixture), stem) in rest.iter_mut().zip(window).zip(&*network) {
            *rest = mixture - stem;
        }
        Ok(())
    }

    fn new_stream(&self, plan: &ContextPlan) -> Result<StreamState, WindowError> {
        Separator::new_stream(self, plan).map_err(|error| WindowError(error.to_string()))
    }

    fn separate_hop(
        &mut self,
        state: &mut StreamState,
        frames: usize,
        rule: MaskRule,
        control: &dyn JobControl,
    ) -> Result<(), WindowError> {
        Ok(self.separate_hops(&mut [Hop { state, frames, rule }], control)?)
    }

    fn pool(&self) -> Option<Pool> {
        Some(Separator::pool(self).clone())
    }
}

/// A model shared by any number of streams, which run it one window at a time.
///
/// Clones are cheap; dropping the last one frees the weights. A client never holds one, so the audio thread never frees a model.
#[derive(Clone)]
pub struct SharedModel {
    cell: Arc<ModelCell>,
    /// Output of each stem.
    positions: Arc<[usize]>,
    /// Outputs, silent ones included.
    outputs: usize,
}

struct ModelCell {
    stems: usize,
    channels: usize,
    timing: ModelTiming,
    names: Vec<String>,
    runs_on: String,
    pool: Option<Pool>,
    remote_device: Option<String>,
    model: Mutex<Box<dyn WindowSeparator>>,
    /// Set by whoever finds the model in use, so that a measurement gives way.
    contended: AtomicBool,
}

impl SharedModel {
    /// Makes a model shareable.
    pub fn new(model: Box<dyn WindowSeparator>) -> Self {
        let (stems, channels, timing) = (model.stems(), model.channels().max(1), model.timing());
        let (names, runs_on, pool) = (model.stem_names(), model.runs_on(), model.pool());
        let remote_device = model.remote_device();
        let (model, contended) = (Mutex::new(model), AtomicBool::new(false));
        Self::of_cell(Arc::new(ModelCell {
            stems,
            channels,
            timing,
            names,
            runs_on,
            pool,
            remote_device,
            model,
            contended,
        }))
    }

    fn of_cell(cell: Arc<ModelCell>) -> Self {
        Self { positions: (0..cell.stems).collect(), outputs: cell.stems, cell }
    }

    /// Number of outputs: its stems, and the silent ones between them.
    pub fn stems(&self) -> usize {
        self.outputs
    }

    /// Channels that it separates jointly.
    pub fn channels(&self) -> usize {
        self.cell.channels
    }

    /// Sample rate, chunk and transform.
    pub fn timing(&self) -> ModelTiming {
        self.cell.timing
    }

    /// Names of the stems.
    pub fn stem_names(&self) -> &[String] {
        &self.cell.names
    }

    /// Device, kernel, precision and threads, for display.
    pub fn runs_on(&self) -> &str {
        &self.cell.runs_on
    }

    /// The same model with `count` outputs: stem n is output `positions[n]`, the other outputs are silent. So a stem keeps its place when
    /// a model with other stems replaces this one. If `positions` does not fit, the result is the unchanged model.
    pub fn with_stems_at(&self, positions: &[usize], count: usize) -> Self {
        let mut taken = vec![false; count];
        let fits = positions.len() == self.cell.stems
            && positions.iter().all(|position| {
                taken.get_mut(*position).is_some_and(|taken| !std::mem::replace(taken, true))
            });
        if !fits {
            return self.clone();
        }
        Self { cell: self.cell.clone(), positions: positions.into(), outputs: count }
    }

    /// Whether both share the same weights.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cell, &other.cell)
    }

    /// Separates a window into its own stems, in the model's order, whatever their positions; waits while another stream runs it. See
    /// [`WindowSeparator::separate_window`].
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn separate_window(
        &self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
    ) -> Result<(), WindowError> {
        self.cell.model.lock().separate_window(window, rule, out)
    }

    /// Lets `run` have the model itself. Waits while another caller has it.
    pub fn with<T>(&self, run: impl FnOnce(&mut dyn WindowSeparator) -> T) -> T {
        run(&mut **self.lock())
    }

    /// The model itself, for one caller at a time. A measurement that has it gives way.
    pub(super) fn lock(&self) -> MutexGuard<'_, Box<dyn WindowSeparator>> {
        self.cell.model.try_lock().unwrap_or_else(|| {
            self.cell.contended.store(true, Relaxed);
            self.cell.model.lock()
        })
    }

    /// Lets `run` have the model beside streams that play, if nobody has it. The control that it gets cancels as soon as another caller wants
    /// the model, or when `is_disturbed` returns true. None if the model was in use or the run was disturbed.
    pub(super) fn run_undisturbed<T>(
        &self,
        is_disturbed: &(dyn Fn() -> bool + Sync),
        run: impl FnOnce(&mut dyn WindowSeparator, &dyn JobControl) -> Result<T, WindowError>,
    ) -> Result<Option<T>, WindowError> {
        let Some(mut separator) = self.cell.model.try_lock() else { return Ok(None) };
        self.cell.contended.store(false, Relaxed);
        let gave_way = AtomicBool::new(false);
        let control = || {
            if self.cell.contended.load(Relaxed) || is_disturbed() {
                gave_way.store(true, Relaxed);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let outcome = run(&mut **separator, &control);
        // The last checkpoint may lie before the disturbance.
        if control().is_break() || gave_way.load(Relaxed) {
            return Ok(None);
        }
        outcome.map(Some)
    }

    /// Opens a stream that keeps context. Waits while the model runs.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn new_stream(&self, plan: &ContextPlan) -> Result<StreamState, WindowError> {
        self.cell.model.lock().new_stream(plan)
    }

    /// Makes the next frames of a stream final; waits while another stream runs the model.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn separate_hop(
        &self,
        state: &mut StreamState,
        frames: usize,
        rule: MaskRule,
        control: &dyn JobControl,
    ) -> Result<(), WindowError> {
        self.cell.model.lock().separate_hop(state, frames, rule, control)
    }

    /// Name of the device, such as `cuda:0`, if another process runs it.
    pub fn remote_device(&self) -> Option<&str> {
        self.cell.remote_device.as_deref()
    }

    /// As [`separate_window`](Self::separate_window); asks `control` between layers whether to go on.
    ///
    /// # Errors
    /// [`WindowError`], also when `control` cancels the run.
    pub fn separate_controlled(
        &self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
        control: &dyn JobControl,
    ) -> Result<(), WindowError> {
        self.cell.model.lock().separate_controlled(window, rule, out, control)
    }

    /// The pool that it runs on, if it is one of ours.
    pub(super) fn pool(&self) -> Option<&Pool> {
        self.cell.pool.as_ref()
    }

    /// Number of its own stems.
    pub(super) fn own_stems(&self) -> usize {
        self.cell.stems
    }

    /// Output of each of its own stems.
    pub(super) fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// Its own stem at an output; none if that output is silent.
    pub(super) fn stem_at(&self, position: usize) -> Option<usize> {
        self.positions.iter().position(|at| *at == position)
    }
}

impl std::fmt::Debug for SharedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedModel")
            .field("stems", &self.cell.stems)
            .field("timing", &self.cell.timing)
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
        return Ok(SharedModel::of_cell(known));
    }
    let model = SharedModel::new(load()?);
    *cell = Arc::downgrade(&model.cell);
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::super::measure::measure_undisturbed;
    use super::super::plan::ModelSamples;
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
            ModelTiming { rate: 44_100, chunk: some, frame_hop: some, frame: some, context: None }
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
    fn stems_have_their_positions_and_other_outputs_are_silent() {
        for positions in [&[0, 1, 2][..], &[1, 2, 3], &[4, 0, 2], &[2, 1, 0], &[3, 4, 0], &[1, 0, 4]] {
            let model = SharedModel::new(Box::new(Multiples(3))).with_stems_at(positions, 5);
            let mut expected = [None; 5];
            for (stem, position) in positions.iter().enumerate() {
                expected[*position] = Some(stem);
            }
            assert_eq!(model.stems(), 5);
            assert_eq!([0, 1, 2, 3, 4].map(|position| model.stem_at(position)), expected, "{positions:?}");
            let mut out = [0.0; 6];
            model.separate_window(&[1.0, -2.0], MaskRule::Plain, &mut out).unwrap();
            assert_eq!(out, [1.0, -2.0, 2.0, -4.0, 3.0, -6.0]);
        }
    }

    /// Runs `during` in the middle of each window.
    struct Interrupted<F>(F);

    impl<F: Fn() + Send> WindowSeparator for Interrupted<F> {
        fn stems(&self) -> usize {
            1
        }

        fn channels(&self) -> usize {
            1
        }

        fn timing(&self) -> ModelTiming {
            Multiples(1).timing()
        }

        fn separate_window(&mut self, _: &[f32], _: MaskRule, _: &mut [f32]) -> Result<(), WindowError> {
            (self.0)();
            Ok(())
        }
    }

    #[test]
    fn a_measurement_gives_way_to_a_stream() {
        let window = ModelSamples(64);
        let model = SharedModel::new(Box::new(Multiples(2)));
        assert!(measure_undisturbed(&model, window, &|| false).unwrap().is_some());
        assert_eq!(measure_undisturbed(&model, window, &|| true).unwrap(), None, "disturbed");
        let held = model.lock();
        assert_eq!(measure_undisturbed(&model, window, &|| false).unwrap(), None, "in use");
        drop(held);
        assert!(measure_undisturbed(&model, window, &|| false).unwrap().is_some());
        // A stream asks for the model while the measurement has it.
        let asking = Arc::<Mutex<Option<SharedModel>>>::default();
        let model = SharedModel::new(Box::new(Interrupted({
            let asking = asking.clone();
            move || {
                if let Some(model) = asking.lock().clone() {
                    let stream = model.clone();
                    std::thread::spawn(move || drop(stream.lock()));
                    while !model.cell.contended.load(Relaxed) {
                        std::thread::yield_now();
                    }
                }
            }
        })));
        assert!(measure_undisturbed(&model, window, &|| false).unwrap().is_some());
        *asking.lock() = Some(model.clone());
        assert_eq!(measure_undisturbed(&model, window, &|| false).unwrap(), None, "wanted by a stream");
        *asking.lock() = None;
    }

    #[test]
    fn invalid_positions_return_the_unchanged_model() {
        let model = SharedModel::new(Box::new(Multiples(3)));
        for positions in [&[0, 1][..], &[0, 1, 5], &[0, 1, 1]] {
            let same = model.with_stems_at(positions, 5);
            assert!(same.is(&model) && same.stems() == 3 && same.positions() == [0, 1, 2], "{positions:?}");
        }
    }
}
