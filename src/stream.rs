//! Live separation: a stream of audio in, the same stream with its stems rebalanced out, a known number of samples later.
//!
//! ```text
//! host block → client ─ input ring ─→ worker: resample → window → model → crossfade → resample ─ stem rings ─→ client → host block
//!                 └──── the same ring, L samples back: the dry signal, exact ───────────────────────────────────┘
//! ```
//!
//! [`plan`] says how long the latency is, [`client`] is what the audio thread calls, [`worker`] what runs the model, [`scheduler`] the thread it
//! runs on, [`status`] what a user interface reads. [`Stream`] ties them together. Nothing here knows of plugins.

pub mod client;
pub mod model;
pub mod plan;
pub mod reference;
mod ring;
pub mod scheduler;
pub mod scope;
mod shared;
mod sinc;
pub mod smooth;
pub mod status;
mod units;
pub mod worker;

use std::sync::Arc;

pub use client::{BlockingError, Client, NoStems, StemOutputs, StemPlanes};
pub use model::{SharedModel, WindowError, WindowSeparator, measure, pooled};
pub use plan::{HostSamples, ModelSamples, ModelTiming, Plan, PlanError, PlanRequest, Shape, Tier};
pub use reference::offline_reference;
pub use scheduler::Scheduler;
pub use scope::Scope;
pub use status::{State, Status};
pub use worker::{Engine, Step, SwapError};

use crate::separator::MaskRule;
use scheduler::Command;
use shared::Shared;

/// The owner's half of a stream, for the thread that builds and controls it. Dropping it ends the stream's work; the client goes on with
/// the delayed input.
pub struct Stream {
    id: u64,
    plan: Plan,
    stems: usize,
    shared: Arc<Shared>,
    scheduler: Scheduler,
}

impl Stream {
    /// Opens a stream with room for `stems` stems of `channels` channels each, without a model. Allocates all that the client will ever need.
    pub fn open(plan: &Plan, stems: usize, channels: usize, scheduler: &Scheduler) -> (Client, Self) {
        let shared = Arc::new(Shared::new(plan, stems, channels.max(1)));
        let client = Client::new(plan, shared.clone(), Some(scheduler.waker()));
        let engine = Engine::new(plan.clone(), shared.clone());
        let id = scheduler.new_id();
        scheduler.send(Command::Add(id, Box::new(engine)));
        (client, Self { id, plan: plan.clone(), stems, shared, scheduler: scheduler.clone() })
    }

    /// Holds what streams of a process share when they are opened.
    #[cfg(all(test, feature = "plugin"))]
    pub(crate) fn hold_tables() -> impl Sized {
        sinc::Sinc::hold_tables()
    }

    /// A stream whose worker has no thread: the caller steps it.
    pub fn manual(plan: &Plan, stems: usize, channels: usize) -> (Client, Engine) {
        let shared = Arc::new(Shared::new(plan, stems, channels.max(1)));
        (Client::new(plan, shared.clone(), None), Engine::new(plan.clone(), shared))
    }

    /// Puts a model in, or takes it out. It takes over within a hop, faded in; the dry signal does not notice. The old one is dropped on the
    /// worker, unless somebody else holds it.
    ///
    /// # Errors
    /// [`SwapError`]; then the old model stays.
    pub fn swap(&self, model: Option<SharedModel>) -> Result<(), SwapError> {
        if let Some(model) = &model {
            worker::check(&self.plan, self.stems, model)?;
        }
        let sent = !self.shared.is_closed() && self.scheduler.send(Command::Swap(self.id, model));
        if sent { Ok(()) } else { Err(SwapError::Stopped) }
    }

    /// What becomes of the part of the input that no stem takes.
    pub fn set_rule(&self, rule: MaskRule) {
        self.shared.set_rule(rule);
    }

    /// Counters and meters, for any thread.
    pub fn status(&self) -> Arc<Status> {
        self.shared.status.clone()
    }

    /// The plan it was opened with.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.scheduler.send(Command::Remove(self.id));
    }
}
