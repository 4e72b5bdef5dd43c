//! What the editor shows of an instance, written by the control thread.

use std::sync::Arc;

use super::model_loader::{LoadStep, ModelLoadError};
use super::routing::Routing;
use crate::live::plan::{MeasuredCost, WindowSpec};
use crate::live::{HostSamples, ModelTiming, Plan, PlanRequest, Status, Tier};

/// State of the model, as shown in the editor.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ModelView {
    /// Nothing was requested yet.
    #[default]
    Idle,
    /// Downloading or loading.
    Loading(Option<LoadStep>),
    /// Measuring the computer.
    Measuring,
    /// Running.
    Ready {
        /// Device, kernel and threads.
        runs_on: String,
        /// Names of the stems.
        stems: Vec<String>,
        /// Licence of the weights, if known.
        licence: Option<String>,
    },
    /// Loading failed.
    Failed(ModelLoadError),
    /// The model loaded, but no stream exists for it. Gives the reason.
    Unplanned(String),
}

/// A tier, as shown in the editor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierView {
    pub tier: Tier,
    pub latency_ms: f64,
    /// Expected share of real time. `None` before the first measurement.
    pub load: Option<f64>,
}

/// What the editor shows, written by the control thread.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub model: ModelView,
    /// The model that plays instead of one that could not be loaded.
    pub stand_in: Option<StandIn>,
    /// The tier in use. `None` for a custom window.
    pub tier: Option<Tier>,
    pub tiers: Vec<TierView>,
    /// Inputs for the cost of other windows.
    pub plan_inputs: Option<PlanInputs>,
    /// Current latency in milliseconds.
    pub latency_ms: f64,
    /// The host's sample rate in Hz.
    pub host_rate: u32,
    /// Whether the audio thread waits for the model.
    pub offline: bool,
    /// Whether the host was asked to restart the plugin, to change the latency.
    pub restart_pending: bool,
    /// A better plan that the Auto tier applies once the transport stops.
    pub pending: Option<PendingPlan>,
    /// Why the last offline render is incomplete.
    pub render_failure: Option<RenderFailure>,
    pub routing: Option<Routing>,
    /// Why the model does not run on the device that was asked for.
    pub device_note: Option<String>,
    /// Counters, meters and scope of the stream.
    pub status: Option<Arc<Status>>,
}

impl View {
    /// Names of the current stems. `None` if no model runs.
    pub fn stems(&self) -> Option<&[String]> {
        match (&self.model, &self.stand_in) {
            (ModelView::Ready { stems, .. }, _) | (ModelView::Failed(_), Some(StandIn { stems, .. })) => {
                Some(stems)
            }
            _ => None,
        }
    }
}

/// A model that plays instead of another.
#[derive(Clone, Debug, PartialEq)]
pub struct StandIn {
    pub title: String,
    pub stems: Vec<String>,
}

/// A plan that waits for the transport to stop, because it changes the latency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PendingPlan {
    /// `None` for a custom window.
    pub tier: Option<Tier>,
    pub latency_ms: f64,
}

/// Why an offline render is incomplete. The missing stems were replaced by the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum RenderFailure {
    #[error("The last render is incomplete: the model did not load in time.")]
    NotLoaded = 1,
    #[error("The last render is incomplete: the model made no progress for a minute.")]
    Timeout = 2,
    #[error("The last render is incomplete: the model failed.")]
    Model = 3,
    #[error(
        "The last render is incomplete: the worker has stopped. Deactivate the plugin and activate it again."
    )]
    Stopped = 4,
    #[error(
        "The host may be rendering without announcing it, and the model is too slow to tell. For a complete render, set Render Mode to Offline."
    )]
    Unannounced = 5,
}

impl RenderFailure {
    /// Reverses `as u8`; `None` for 0.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::NotLoaded, Self::Timeout, Self::Model, Self::Stopped, Self::Unannounced]
            .into_iter()
            .find(|failure| *failure as u8 == code)
    }
}

/// Inputs that determine latency and load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanInputs {
    pub timing: ModelTiming,
    /// The host's sample rate in Hz.
    pub host_rate: u32,
    /// The host's largest block.
    pub block: HostSamples,
    /// Measured cost on this computer. `None` before the first measurement.
    pub measured: Option<MeasuredCost>,
}

impl PlanInputs {
    /// The plan request of a tier. Its deadline follows from the measured cost; without one it is a whole hop.
    pub(super) fn tier_request(&self, tier: Tier) -> PlanRequest {
        self.with_deadline(tier.request(&self.timing, self.host_rate, self.block))
    }

    /// As [`tier_request`](Self::tier_request), for a custom window.
    pub(super) fn window_request(&self, window: WindowSpec) -> PlanRequest {
        self.with_deadline(window.request(&self.timing, self.host_rate, self.block))
    }

    fn with_deadline(&self, request: PlanRequest) -> PlanRequest {
        self.measured.map_or(request, |cost| request.with_measured_deadline(cost))
    }

    /// Latency in milliseconds, and load, of a request. `None` if no plan exists for it.
    fn weigh(&self, request: PlanRequest, load: impl Fn(MeasuredCost) -> f64) -> Option<(f64, Option<f64>)> {
        Some((Plan::new(request).ok()?.latency_ms(), self.measured.map(load)))
    }

    /// Latency in milliseconds, and load, of a custom window.
    pub fn of_window(&self, shape: WindowSpec) -> Option<(f64, Option<f64>)> {
        self.weigh(self.window_request(shape), |measured| shape.load(&self.timing, measured))
    }

    /// Latency and load of all tiers.
    pub(super) fn of_tiers(&self) -> Vec<TierView> {
        let view = |tier: Tier| {
            let (latency_ms, load) =
                self.weigh(self.tier_request(tier), |measured| tier.load(&self.timing, measured))?;
            Some(TierView { tier, latency_ms, load })
        };
        Tier::all_for(&self.timing).filter_map(view).collect()
    }
}
