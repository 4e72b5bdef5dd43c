//! Control of long computations from outside: cancellation, and points at which other work may run.

use std::ops::ControlFlow;

/// Passed down through a pass of the network, and asked between layers.
pub trait JobControl: Sync {
    /// Called between layers, on the thread that runs the pass. It may run other work before it returns. `Break` cancels the pass,
    /// whose result is then undefined.
    fn checkpoint(&self) -> ControlFlow<()>;
}

/// Never cancels.
impl JobControl for () {
    fn checkpoint(&self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<F: Fn() -> ControlFlow<()> + Sync> JobControl for F {
    fn checkpoint(&self) -> ControlFlow<()> {
        self()
    }
}
