//! Live separation: a stream of audio in, the same stream with its stems rebalanced out, a known number of samples later.
//!
//! ```text
//! host block → client ─ input ring ─→ worker: resample → window → model → crossfade → resample ─ stem rings ─→ client → host block
//!                 └──── the same ring, L samples back: the dry signal, exact ───────────────────────────────────┘
//! ```
//!
//! [`plan`] computes the latency. The audio thread calls [`client`]. The [`engine`] cuts hops out of the input and publishes their stems, on
//! the thread of the [`scheduler`]; an executor runs the model in between. A user interface reads [`status`]. [`Stream`] ties them together. Nothing here depends on plugins.

pub mod client;
mod cost;
pub mod engine;
mod executor;
mod measure;
pub mod model;
pub mod plan;
pub mod reference;
pub(crate) mod ring;
pub mod scheduler;
pub mod scope;
mod shared;
mod sinc;
pub mod smooth;
mod speed;
pub mod status;
mod threads;
mod units;
pub(crate) mod work;

use std::sync::Arc;

pub use client::{BlockingError, Client, NoStems, StemOutputs, StemOverlay, StemPlanes};
pub use engine::{Engine, Step, SwapError};
pub use executor::RemoteUrgency;
pub use measure::{measure, measure_hop, measure_hop_undisturbed, measure_undisturbed};
pub use model::{SharedModel, WindowError, WindowSeparator, load_shared};
pub use plan::{
    HostSamples, KeptContext, LiveForecast, MeasuredCost, ModelSamples, ModelTiming, Plan, PlanError,
    PlanRequest, Tier, WindowSpec,
};
pub use reference::offline_reference;
pub use scheduler::{Forward, LOAD_BUDGET, Scheduler};
pub use scope::Scope;
pub use speed::measure_speed;
pub use status::{State, Status};
pub use threads::{THREADS_ENV, default_threads, default_threads_with_reason};

use crate::separator::MaskRule;
use scheduler::Message;
use shared::Shared;

/// The control side of a stream, for the thread that opens it and swaps its model. Dropping it stops the worker's half; the client then
/// outputs the delayed input.
pub struct Stream {
    id: u64,
    plan: Plan,
    stems: usize,
    shared: Arc<Shared>,
    scheduler: Scheduler,
}

impl Stream {
    /// Opens a stream without a model, with room for `stems` stems of `channels` channels each. Allocates everything that the client needs.
    pub fn open(plan: &Plan, stems: usize, channels: usize, scheduler: &Scheduler) -> (Client, Self) {
        let shared = Arc::new(Shared::new(plan, stems, channels.max(1)));
        let client = Client::new(plan, shared.clone(), Some(scheduler.worker()));
        let engine = Engine::new(plan.clone(), shared.clone());
        let id = scheduler.new_id();
        log::info!(
            "live stream {id}: host {} Hz, model {} Hz, hop {} samples, latency {} samples ({:.0} ms)",
            plan.host_rate(),
            plan.model_rate(),
            plan.hop().0,
            plan.latency().0,
            plan.latency_ms()
        );
        scheduler.send(Message::Add(id, Box::new(engine)));
        (client, Self { id, plan: plan.clone(), stems, shared, scheduler: scheduler.clone() })
    }

    /// Locks the tables that all streams share, for tests.
    #[cfg(all(test, feature = "plugin"))]
    pub(crate) fn lock_tables() -> impl Sized {
        sinc::Sinc::lock_tables()
    }

    /// A stream without a worker thread: the caller steps the engine.
    pub fn manual(plan: &Plan, stems: usize, channels: usize) -> (Client, Engine) {
        let shared = Arc::new(Shared::new(plan, stems, channels.max(1)));
        (Client::new(plan, shared.clone(), None), Engine::new(plan.clone(), shared))
    }

    /// Replaces the model, or removes it. The new model fades in within a hop; the dry signal is unaffected. The old model is dropped on the
    /// worker thread unless another owner holds it.
    ///
    /// # Errors
    /// [`SwapError`]; the old model then stays.
    pub fn swap(&self, model: Option<SharedModel>) -> Result<(), SwapError> {
        if let Some(model) = &model {
            engine::check(&self.plan, self.stems, model)?;
        }
        let sent = !self.shared.is_closed() && self.scheduler.send(Message::Swap(self.id, model));
        if sent { Ok(()) } else { Err(SwapError::Stopped) }
    }

    /// Sets how the masks treat the part of the input that no stem claims.
    pub fn set_rule(&self, rule: MaskRule) {
        self.shared.set_rule(rule);
    }

    /// Tells the scheduler the load that this stream is expected to need, as a share of the worker's time, for
    /// [`Scheduler::load_of_others`]. Without it, the load that is observed counts, which is 0 until a window has run.
    pub fn set_expected_load(&self, load: f64) {
        self.scheduler.set_expected_load(self.id, Some(load));
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Counters and meters, for any thread.
    pub fn status(&self) -> Arc<Status> {
        self.shared.status.clone()
    }

    /// The plan that the stream was opened with.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.scheduler.set_expected_load(self.id, None);
        self.scheduler.send(Message::Remove(self.id));
    }
}
