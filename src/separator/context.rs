//! Streams that keep their context: a hop of new frames in, the stems of the frames that become final out.
//!
//! A [`StreamState`] holds what a model keeps of a stream between hops: keys and values of the last frames in every time block, the end of
//! the input, and the overlap sums of the inverse transform. [`Separator::separate_hops`] runs the new frames, the frames of
//! lookahead after them and, with a margin, the last final frames again. The frames are those of the transform of the whole stream, mirrored at
//! its two ends, so that a stream of one hop gives what [`Separator::separate`] gives.

mod emit;
mod hops;
mod overlap;
mod remote;
mod state;
mod timing;

use crate::kernels::CacheFormat;
use crate::model::architecture::Architecture;
pub use crate::model::context::ContextMemory;
use crate::model::context::{kept_context_unsupported, kept_values_per_frame};
pub use hops::Hop;
pub use remote::{RemoteHop, RemoteInput};
pub use state::{HopOutput, StreamState};
pub use timing::FrameTiming;

use super::Separator;

pub(super) use hops::HopWorkspace;

/// Most bytes of keys and values of a stream, unless the plan says otherwise: 16 s of the default architecture.
pub const DEFAULT_CONTEXT_BUDGET: usize = 1 << 31;
/// Most frames of any part of a plan.
const MAX_FRAMES: usize = 1 << 16;

/// How a stream is cut into hops, in frames of the model's transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextPlan {
    /// New frames a hop, at least 1. A hop may have more or fewer; most are taken to be so long. By default this is 1.
    pub hop_frames: usize,
    /// Complete frames after the last final one that a hop looks at. By default this is 2.
    pub lookahead_frames: usize,
    /// Frames whose keys and values are kept. By default this is 64.
    pub context_frames: usize,
    /// Last final frames that each hop runs again, with the frames that came since behind them. By default this is 0.
    pub margin_frames: usize,
    /// Most bytes that keys and values of a stream may take. By default this is [`DEFAULT_CONTEXT_BUDGET`].
    pub memory_budget: usize,
}

impl Default for ContextPlan {
    fn default() -> Self {
        Self {
            hop_frames: 1,
            lookahead_frames: 2,
            context_frames: 64,
            margin_frames: 0,
            memory_budget: DEFAULT_CONTEXT_BUDGET,
        }
    }
}

/// Why a model cannot keep the context of a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The architecture does not allow it.
    #[error("this network cannot keep the context of a stream: {0}; run whole windows instead")]
    Unsupported(&'static str),
    /// A part of the plan is out of range.
    #[error("{part} of {found} frames: expected {least} to {MAX_FRAMES}")]
    Plan {
        /// Which part.
        part: &'static str,
        /// Fewest frames.
        least: usize,
        /// What it is.
        found: usize,
    },
    /// The context is too large.
    #[error(
        "a context of {frames} frames takes {needed} bytes, the plan allows {budget}; keep at most {fits} frames"
    )]
    Memory {
        /// Frames asked for.
        frames: usize,
        /// Bytes that they take.
        needed: usize,
        /// Bytes allowed.
        budget: usize,
        /// Frames that these hold.
        fits: usize,
    },
}

impl ContextPlan {
    /// Checks the plan for a network of `arch`.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn check(&self, arch: &Architecture) -> Result<ContextMemory, ContextError> {
        if let Some(reason) = kept_context_unsupported(arch) {
            return Err(ContextError::Unsupported(reason));
        }
        for (part, least, found) in [
            ("a hop", 1, self.hop_frames),
            ("a lookahead", 0, self.lookahead_frames),
            ("a context", 0, self.context_frames),
            ("a margin", 0, self.margin_frames),
        ] {
            if !(least..=MAX_FRAMES).contains(&found) {
                return Err(ContextError::Plan { part, least, found });
            }
        }
        let memory = ContextMemory::new(arch, self.context_frames);
        if memory.bytes > self.memory_budget {
            return Err(ContextError::Memory {
                frames: self.context_frames,
                needed: memory.bytes,
                budget: self.memory_budget,
                fits: self.memory_budget / (2 * kept_values_per_frame(arch)).max(1),
            });
        }
        Ok(memory)
    }
}

impl Separator {
    /// Opens a stream of as many channels as the model separates together.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn new_stream(&self, plan: &ContextPlan) -> Result<StreamState, ContextError> {
        let memory = plan.check(&self.info.architecture)?;
        let format = if memory.bytes_per_value == 4 { CacheFormat::F32 } else { CacheFormat::Bf16 };
        let context = self.network.new_context(plan.context_frames, format);
        Ok(StreamState::new(self.id, &self.info, *plan, context))
    }
}
