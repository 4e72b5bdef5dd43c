//! Adapter that gives a shared model to code that needs an owned one.

use nullsum::kernels::JobControl;
use nullsum::live::{ModelTiming, SharedModel, WindowError, WindowSeparator};
use nullsum::separator::{ContextPlan, MaskRule, StreamState};

/// A shared model.
pub struct Borrowed<'a>(pub &'a SharedModel);

impl WindowSeparator for Borrowed<'_> {
    fn stems(&self) -> usize {
        self.0.stems()
    }

    fn channels(&self) -> usize {
        self.0.channels()
    }

    fn timing(&self) -> ModelTiming {
        self.0.timing()
    }

    fn separate_window(
        &mut self,
        window: &[f32],
        rule: MaskRule,
        out: &mut [f32],
    ) -> Result<(), WindowError> {
        self.0.separate_window(window, rule, out)
    }

    fn new_stream(&self, plan: &ContextPlan) -> Result<StreamState, WindowError> {
        self.0.new_stream(plan)
    }

    fn separate_hop(
        &mut self,
        state: &mut StreamState,
        frames: usize,
        rule: MaskRule,
        control: &dyn JobControl,
    ) -> Result<(), WindowError> {
        self.0.separate_hop(state, frames, rule, control)
    }
}
