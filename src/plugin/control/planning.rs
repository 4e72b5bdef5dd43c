//! Plans and streams of an instance: what the control thread does under the lock of the stream state, and the main thread during activation.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::super::calibration;
use super::super::instance_shared::{
    HostConfig, InstanceShared, ModelView, PlanBasis, PlanInputs, StandIn, StreamClient, StreamState, Wanted,
};
use super::super::model_loader::{LoadedModel, ModelLoadError};
use super::super::params::{LosslessChoice, TierChoice};
use super::super::routing::{Routing, STRIP_COUNT};
use super::super::selection::{ModelSource, SavedModelSpec, Selection};
use crate::embedded;
use crate::live::plan::{MeasuredCost, SUSTAINABLE_LOAD};
use crate::live::{HostSamples, ModelTiming, Plan, PlanError, Scheduler, Stream, Tier, plan};
use crate::live_cost;
use crate::separator::MaskRule;

/// A plan with its tier. The tier is `None` for a custom window.
pub(super) type TierPlan = (Option<Tier>, Plan);

/// Held while an instance chooses by what the others leave, so that two of them do not take the same room. Locked before a stream state.
static CHOOSING: Mutex<()> = Mutex::new(());

/// Opens the stream of an instance that is being activated, from what is known now.
///
/// # Errors
/// [`PlanError`]: no plan exists for the host's sample rate or block size.
pub(in crate::plugin) fn activate(
    shared: &Arc<InstanceShared>,
    host: HostConfig,
) -> Result<Option<StreamClient>, PlanError> {
    let _choosing = CHOOSING.lock();
    let mut state = shared.stream_state.lock();
    // Discard streams that the control thread opened before. It opens none while the lock is held.
    while shared.handoff.pop().is_some() {}
    shared.set_in_transition(false);
    // Keep the old streams until the new one is open: dropping the last stream ends the worker thread.
    let (old, _before) = (state.stream.take(), state.before.take());
    state.host = Some(host);
    shared.request_restart(false);
    let runs_on = active_model(shared, &state).map(|loaded| loaded.model.runs_on().to_owned());
    let prefix = shared.params.device.get().runs_on_prefix().unwrap_or_default();
    let measured = known_sha256(shared, &state).and_then(|sha256| match runs_on.as_deref() {
        Some(runs_on) => calibration::stored_measurement(&sha256, Some(runs_on), host.channels),
        None => calibration::stored_measurement_on(&sha256, &prefix, host.channels),
    });
    state.basis = PlanBasis { measured, available: available_load(old.as_ref()) };
    state.planned_for = Some(shared.params.model.generation());
    let (tier, plan) = match wanted_plan(shared, &shared.wanted(), &state, host, state.basis) {
        Ok(found) => found,
        Err(error) => {
            state.plan = None;
            return Err(error);
        }
    };
    Ok(open_stream(shared, &mut state, host, tier, plan))
}

/// Load that the Auto tier may use beside all streams of the process but `own`.
pub(super) fn available_load(own: Option<&Stream>) -> f64 {
    let others = Scheduler::of_process().map_or(0.0, |scheduler| scheduler.load_of_others(own));
    (SUSTAINABLE_LOAD - others).max(0.0)
}

/// Plans with the latest cost from now on, and takes the load that this needs before another instance chooses.
pub(super) fn adopt_cost(shared: &InstanceShared, wanted: &Wanted, latest: Option<MeasuredCost>) {
    let _choosing = CHOOSING.lock();
    let mut state = shared.stream_state.lock();
    state.basis = latest_basis(&state, latest);
    let Some(host) = state.host else { return };
    if let Ok((_, plan)) = wanted_plan(shared, wanted, &state, host, state.basis) {
        expect_load(&state, &plan, state.basis.measured);
    }
}

/// What plans would be made from if the latency were set now. `latest`: the latest cost, if there is one.
pub(super) fn latest_basis(state: &StreamState, latest: Option<MeasuredCost>) -> PlanBasis {
    PlanBasis { measured: latest.or(state.basis.measured), available: available_load(state.stream.as_ref()) }
}

/// Tells the other instances the load of this one.
pub(super) fn expect_load(state: &StreamState, plan: &Plan, cost: Option<MeasuredCost>) {
    if let (Some(stream), Some(cost)) = (&state.stream, cost) {
        stream.set_expected_load(cost.load(plan.request()));
    }
}

/// Opens a stream. The previous one continues until the audio thread has taken the new one, which it may never do during a render.
pub(super) fn open_stream(
    shared: &InstanceShared,
    state: &mut StreamState,
    host: HostConfig,
    tier: Option<Tier>,
    plan: Plan,
) -> Option<StreamClient> {
    let scheduler = Scheduler::of_process().ok()?;
    let (mut client, stream) = Stream::open(&plan, STRIP_COUNT, host.channels, &scheduler);
    client.set_overlay(Some(shared.prepared.overlay(host)));
    stream.set_rule(mask_rule(shared));
    let latency = u32::try_from(plan.latency().0).unwrap_or(u32::MAX);
    let fade_in = fade_in(&plan);
    let last = state.stream.replace(stream);
    if let Some(last) = &last {
        last.set_expected_load(0.0);
    }
    expect_load(state, &plan, state.basis.measured);
    // Take an untaken stream back, so that the audio thread cannot take it later. Then the stream before it still plays.
    if shared.handoff.pop().is_none() {
        state.before = last;
    }
    state.plan = Some(plan);
    state.tier = tier;
    attach_model(shared, state);
    Some(StreamClient { client, latency, fade_in })
}

/// Samples at the host's rate in which the first stems of a stream fade in.
pub(in crate::plugin) fn fade_in(plan: &Plan) -> u32 {
    (plan.fade().seconds(plan.model_rate()) * f64::from(plan.host_rate())).ceil() as u32
}

pub(super) fn ready_view(loaded: &LoadedModel) -> ModelView {
    ModelView::Ready {
        runs_on: loaded.model.runs_on().into(),
        stems: loaded.spec.stems.clone(),
        licence: loaded.licence.clone(),
    }
}

pub(super) fn mask_rule(shared: &InstanceShared) -> MaskRule {
    match shared.params.lossless.value() {
        LosslessChoice::Spectral => MaskRule::Complete,
        LosslessChoice::Off => MaskRule::Plain,
    }
}

/// Reports why a selection could not be loaded. The previous model continues, so that a damaged file does not silence a song's stems.
pub(super) fn report_load_failure(shared: &InstanceShared, generation: u64, error: ModelLoadError) {
    log::warn!("the model did not load: {error}");
    let mut state = shared.stream_state.lock();
    let stand_in = state.model.as_mut().map(|active| {
        active.serves_generation = generation;
        StandIn { title: active.title.clone(), stems: active.loaded.spec.stems.clone() }
    });
    shared.update_view(|view| (view.model, view.stand_in) = (ModelView::Failed(error), stand_in));
    if state.model.is_none() {
        attach_model(shared, &mut state);
    }
}

/// Attaches the model to the stream, or detaches it. Its stems use the channels of their strips. So the remaining output of a model with other stems
/// stays under its own faders.
pub(super) fn attach_model(shared: &InstanceShared, state: &mut StreamState) {
    let Some(stream) = &state.stream else { return };
    let model = state.model.as_ref().map(|active| &active.loaded);
    let put = |stream: &Stream| {
        let model = model.filter(|loaded| loaded.model.timing().rate == stream.plan().model_rate());
        let with_stems_at = |loaded: &LoadedModel| {
            loaded.model.with_stems_at(&Routing::of(&loaded.spec.stems).strips(), STRIP_COUNT)
        };
        (stream.swap(model.map(with_stems_at)), model)
    };
    let (swapped, model) = put(stream);
    if let Some(before) = &state.before {
        // The old stream continues without a model of another sample rate, and with its own model if its window is too short for the new one.
        let _ = put(before);
    }
    // Before a model is loaded, show the expected stems.
    let routing = match (swapped, model) {
        (Ok(()), Some(loaded)) => Routing::of(&loaded.spec.stems),
        (Err(error), _) => {
            shared.update_view(|view| view.model = ModelView::Unplanned(error.to_string()));
            Routing::NONE
        }
        (Ok(()), None) => Routing::of(&model_spec(shared, state).stems),
    };
    shared.set_routing(routing);
}

/// Inputs of all plans for the wanted model.
pub(super) fn plan_inputs(
    shared: &InstanceShared,
    state: &StreamState,
    host: HostConfig,
    measured: Option<MeasuredCost>,
) -> PlanInputs {
    let timing = model_spec(shared, state).timing();
    PlanInputs { timing, host_rate: host.rate, block: block_size(host), measured }
}

/// The wanted plan with its tier. The tier is `None` for a custom window.
pub(super) fn wanted_plan(
    shared: &InstanceShared,
    wanted: &Wanted,
    state: &StreamState,
    host: HostConfig,
    basis: PlanBasis,
) -> Result<TierPlan, PlanError> {
    let inputs = plan_inputs(shared, state, host, basis.measured);
    if let Some(window) = wanted.window {
        return Ok((None, Plan::new(inputs.window_request(window))?));
    }
    let tier = match (wanted.tier, basis.measured) {
        (TierChoice::Auto, Some(measured)) => {
            Tier::auto_within(&inputs.timing, measured, basis.available).tier
        }
        // The built-in model is small enough for every computer. Other models are unknown until measured.
        (TierChoice::Auto, None) if shared.params.model.get().source == ModelSource::Embedded => Tier::Live,
        (choice, _) => choice.named().unwrap_or(Tier::Balanced).for_model(&inputs.timing),
    };
    Ok((Some(tier), Plan::new(inputs.tier_request(tier))?))
}

fn block_size(host: HostConfig) -> HostSamples {
    HostSamples(u64::from(host.max_block).clamp(1, plan::MAX_BLOCK.0))
}

/// The loaded model, if it is the wanted one or a stand-in for it.
fn active_model<'a>(shared: &InstanceShared, state: &'a StreamState) -> Option<&'a LoadedModel> {
    let active =
        state.model.as_ref().filter(|active| active.serves_generation == shared.params.model.generation())?;
    Some(&active.loaded)
}

/// SHA-256 of the wanted model, if known.
fn known_sha256(shared: &InstanceShared, state: &StreamState) -> Option<String> {
    if let Some(loaded) = active_model(shared, state) {
        return Some(loaded.sha256.clone());
    }
    let selection = shared.params.model.get();
    if selection.source == ModelSource::Embedded { Some(embedded::sha256().into()) } else { selection.sha256 }
}

/// Properties of the wanted model: from the model itself, from the saved state, or those of the built-in model.
pub(super) fn model_spec(shared: &InstanceShared, state: &StreamState) -> SavedModelSpec {
    if let Some(loaded) = active_model(shared, state) {
        return loaded.spec.clone();
    }
    let selection = shared.params.model.get();
    let embedded = selection.source == ModelSource::Embedded;
    // A file that was never loaded may be anything. Assume that it resembles the current model.
    let before = || state.model.as_ref().filter(|_| !embedded).map(|active| active.loaded.spec.clone());
    selection.spec.or_else(before).or_else(built_in_spec).unwrap_or(SavedModelSpec {
        rate: 44_100,
        chunk: 4 * 44_100,
        frame_hop: 441,
        frame: 2_048,
        context_window: None,
        stems: Vec::new(),
    })
}

/// Properties of the built-in model, without loading it.
fn built_in_spec() -> Option<SavedModelSpec> {
    static KNOWN: OnceLock<Option<SavedModelSpec>> = OnceLock::new();
    KNOWN.get_or_init(read_built_in_spec).clone()
}

fn read_built_in_spec() -> Option<SavedModelSpec> {
    let info = live_cost::embedded_spec()?;
    Some(SavedModelSpec::new(ModelTiming::of(&info), info.stem_names()))
}

pub(super) fn record_identity(selection: &mut Selection, loaded: &LoadedModel) {
    selection.sha256 = Some(loaded.sha256.clone());
    selection.spec = Some(loaded.spec.clone());
    if let (ModelSource::File { checkpoint, config }, Some(path)) = (&mut selection.source, &loaded.path) {
        checkpoint.clone_from(path);
        // A configuration that is unavailable now may return, as a removable drive does.
        if loaded.config.is_some() {
            config.clone_from(&loaded.config);
        }
    }
}

/// Refuses a model with more stems than strips.
pub(super) fn check_stem_count(loaded: LoadedModel) -> Result<LoadedModel, ModelLoadError> {
    match loaded.spec.stems.len() {
        0..=STRIP_COUNT => Ok(loaded),
        stems => Err(ModelLoadError::Broken {
            reason: format!(
                "the model has {stems} stems, but the mixer has {STRIP_COUNT} strips; the command line can separate into all of them"
            ),
            report: None,
        }),
    }
}
