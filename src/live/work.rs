//! One hop of one stream, cut out of it so that it can run on any executor.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::model::SharedModel;
use crate::kernels::JobControl;
use crate::separator::MaskRule;

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
}

/// A group of channels.
#[derive(Default)]
pub(super) struct Group {
    /// [channels, window], flat.
    pub(super) input: Vec<f32>,
    /// [stems, channels, window], flat.
    pub(super) stems: Vec<f32>,
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
    /// Another caller has the model; nothing was done.
    Busy,
}

impl Work {
    /// Runs the model, on the calling thread and the model's pool. `may_wait` for another caller that has the model; otherwise the work is then
    /// [`Outcome::Busy`].
    pub(super) fn run(&mut self, control: &dyn JobControl, may_wait: bool) -> Outcome {
        let Some(mut model) = self.model.lock(may_wait) else { return Outcome::Busy };
        let control = Recorded { control, cancelled: AtomicBool::new(false) };
        let started = Instant::now();
        let mut silent = true;
        self.cleaned = 0;
        for Group { input, stems } in &mut self.groups {
            let length = input.len() / self.model.channels() * self.model.channels() * self.model.own_stems();
            stems.clear();
            stems.resize(length, 0.0);
            if input.iter().all(|x| *x == 0.0) {
                continue;
            }
            silent = false;
            let run = || model.separate_controlled(input, self.rule, stems, &control);
            match catch_unwind(AssertUnwindSafe(run)) {
                Err(panic) => return Outcome::Panicked(panic_text(&*panic)),
                Ok(Err(_)) if control.cancelled.load(Relaxed) => {
                    return Outcome::Cancelled { seconds: started.elapsed().as_secs_f64() };
                }
                Ok(Err(error)) => return Outcome::Failed(error.to_string()),
                Ok(Ok(())) => {}
            }
            for x in stems.iter_mut() {
                self.cleaned += u64::from(!x.is_finite());
                *x = if x.is_finite() { x.clamp(-MAX_STEM_AMPLITUDE, MAX_STEM_AMPLITUDE) } else { 0.0 };
            }
        }
        Outcome::Done { seconds: (!silent).then(|| started.elapsed().as_secs_f64()) }
    }
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
