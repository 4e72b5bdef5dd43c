//! One hop of one stream, cut out of it so that it can run on any executor.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use super::model::{SharedModel, WindowError, WindowSeparator};
use crate::kernels::JobControl;
use crate::separator::{ContextPlan, MaskRule, StreamState};

/// Stems are clamped to this magnitude: far above any music, and far below values that could overflow in a mix.
const MAX_STEM_AMPLITUDE: f32 = (1u32 << 20) as f32;

/// The input of a hop, and memory for its stems.
pub(super) struct Work {
    pub(super) model: SharedModel,
    pub(super) rule: MaskRule,
    /// Groups of channels that the model separates jointly.
    pub(super) groups: Vec<Group>,
    /// Samples that were not finite and were replaced by 0.
    pub(super) cleaned: u64,
    /// What to do with kept context; none for a whole window.
    pub(super) frames: Option<FrameWork>,
}

/// Work on frames with kept context.
#[derive(Clone, Copy)]
pub(super) struct FrameWork {
    pub(super) plan: ContextPlan,
    /// Frames that are final after it, from the start of the groups' states on.
    pub(super) target: u64,
    /// Frames that it runs, as a multiple of those of a usual hop: more to catch up.
    pub(super) size: f64,
}

/// A group of channels.
#[derive(Default)]
pub(super) struct Group {
    /// The window, or the input since the last hop: [channels, samples], flat.
    pub(super) input: Vec<f32>,
    /// The stems of a window: [stems, channels, samples], flat.
    pub(super) stems: Vec<f32>,
    /// The kept context; opened by the first hop.
    pub(super) state: Option<Box<StreamState>>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// The stems are there. None for a hop of silence, which was not run.
    Done {
        seconds: Option<f64>,
    },
    /// Stopped between layers, because its result is not needed or took too long.
    Cancelled {
        seconds: f64,
    },
    Failed(String),
    Panicked(String),
}

/// Work of streams that runs now, in this process.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Whether work of a stream runs now. Background work then waits.
pub(crate) fn is_running() -> bool {
    RUNNING.load(Relaxed) > 0
}

struct RunningWork;

impl RunningWork {
    fn begin() -> Self {
        RUNNING.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for RunningWork {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Relaxed);
    }
}

impl Work {
    /// Runs the model, on the calling thread and the model's pool. Waits for another caller that has the model, then calls `begin`.
    pub(super) fn run(&mut self, control: &dyn JobControl, begin: impl FnOnce()) -> Outcome {
        let mut model = self.model.lock();
        begin();
        let _running = RunningWork::begin();
        let control = Recorded { control, cancelled: AtomicBool::new(false) };
        let started = Instant::now();
        let mut silent = true;
        self.cleaned = 0;
        for group in &mut self.groups {
            let run = || match self.frames {
                Some(frames) => run_frames(&mut **model, group, self.rule, frames, &control),
                None => run_window(&mut **model, group, self.rule, &control),
            };
            match catch_unwind(AssertUnwindSafe(run)) {
                Err(panic) => return Outcome::Panicked(panic_text(&*panic)),
                Ok(Err(_)) if control.cancelled.load(Relaxed) => {
                    return Outcome::Cancelled { seconds: started.elapsed().as_secs_f64() };
                }
                Ok(Err(error)) => return Outcome::Failed(error.to_string()),
                Ok(Ok(ran)) => silent &= !ran,
            }
            for x in &mut group.stems {
                self.cleaned += u64::from(!x.is_finite());
                *x = playable(*x);
            }
        }
        Outcome::Done { seconds: (!silent).then(|| started.elapsed().as_secs_f64()) }
    }
}

/// A stem sample that is finite and far from overflow.
pub(super) fn playable(x: f32) -> f32 {
    if x.is_finite() { x.clamp(-MAX_STEM_AMPLITUDE, MAX_STEM_AMPLITUDE) } else { 0.0 }
}

/// Separates a whole window. False for silence, for which no model is needed.
fn run_window(
    model: &mut dyn WindowSeparator,
    Group { input, stems, .. }: &mut Group,
    rule: MaskRule,
    control: &dyn JobControl,
) -> Result<bool, WindowError> {
    let length = input.len() / model.channels() * model.channels() * model.stems();
    stems.clear();
    stems.resize(length, 0.0);
    if input.iter().all(|x| *x == 0.0) {
        return Ok(false);
    }
    model.separate_controlled(input, rule, stems, control)?;
    Ok(true)
}

/// Pushes the new input into the group's state, and makes frames final. False for silence.
fn run_frames(
    model: &mut dyn WindowSeparator,
    group: &mut Group,
    rule: MaskRule,
    work: FrameWork,
    control: &dyn JobControl,
) -> Result<bool, WindowError> {
    // A state that fails is dropped here. The stream then fills a new one.
    let mut state = match group.state.take() {
        Some(state) => state,
        None => Box::new(model.new_stream(&work.plan)?),
    };
    state.push(&group.input)?;
    group.input.clear();
    let frames = work.target.saturating_sub(state.final_frames()).min(state.ready_frames());
    let mut ran = false;
    if frames > 0 {
        model.separate_hop(&mut state, frames as usize, rule, control)?;
        ran = !state.output().is_silent();
    }
    group.state = Some(state);
    Ok(ran)
}

/// Notes whether the work was cancelled.
struct Recorded<'a> {
    control: &'a dyn JobControl,
    cancelled: AtomicBool,
}

impl JobControl for Recorded<'_> {
    fn checkpoint(&self) -> ControlFlow<()> {
        let flow = self.control.checkpoint();
        if flow.is_break() {
            self.cancelled.store(true, Relaxed);
        }
        flow
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the model panicked: {}", text.unwrap_or("no reason given"))
}
