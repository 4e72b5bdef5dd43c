//! The stream of an instance with its plan and model: what the control thread owns, and the main thread during activation.

use nice_plug::prelude::PluginApi;

use super::model_loader::LoadedModel;
use crate::live::plan::{MeasuredCost, SUSTAINABLE_LOAD};
use crate::live::{Client, Plan, Stream, Tier};

/// How the host runs an instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostConfig {
    /// Sample rate in Hz.
    pub rate: u32,
    /// Largest block, in samples.
    pub max_block: u32,
    pub channels: usize,
    pub api: PluginApi,
    /// Whether the host announced offline rendering.
    pub offline: bool,
}

/// The audio thread's half of a stream.
pub struct StreamClient {
    pub client: Client,
    /// Latency in samples at the host's rate.
    pub latency: u32,
    /// Samples at the host's rate in which the first stems fade in.
    pub fade_in: u32,
}

/// The loaded model.
#[derive(Debug)]
pub(super) struct ActiveModel {
    pub loaded: LoadedModel,
    pub title: String,
    /// Generation of the selection that it serves: its own, or a later one that could not be loaded.
    pub serves_generation: u64,
}

/// What plans are made from, besides the model and the host. It stays while the transport runs, so that the latency does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PlanBasis {
    /// Cost of the model, for all channels of the host. `None`: not known when the latency was last set.
    pub measured: Option<MeasuredCost>,
    /// Load that the other streams of the process leave for the Auto tier.
    pub available: f64,
}

impl Default for PlanBasis {
    fn default() -> Self {
        Self { measured: None, available: SUSTAINABLE_LOAD }
    }
}

/// The stream's state. Used by the main thread during activation, else by the control thread.
#[derive(Default)]
pub(super) struct StreamState {
    pub host: Option<HostConfig>,
    pub stream: Option<Stream>,
    /// The previous stream, until the audio thread has taken the new one.
    pub before: Option<Stream>,
    pub plan: Option<Plan>,
    pub tier: Option<Tier>,
    pub model: Option<ActiveModel>,
    pub basis: PlanBasis,
    /// Generation of the selection at the last activation.
    pub planned_for: Option<u64>,
}
