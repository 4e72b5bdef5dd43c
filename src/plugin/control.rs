//! The control thread of an instance. It loads models, measures the computer and opens streams; the audio thread and the host's threads never do.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nice_plug::prelude::PluginApi;

use super::calibration;
use super::instance_shared::{
    ActiveModel, ControlCommand, HostConfig, InstanceShared, ModelView, PlanInputs, StandIn, StreamClient,
    StreamState, TierView, changes_in_place,
};
use super::model_loader::{self, LoadedModel, ModelLoadError};
use super::params::{LosslessChoice, TierChoice};
use super::routing::{Routing, STRIP_COUNT};
use super::selection::{ModelSource, SavedModelSpec, Selection};
use super::stream_log::StreamLog;
use crate::embedded;
use crate::live::plan::WindowSpec;
use crate::live::{HostSamples, ModelTiming, Plan, PlanError, Scheduler, Stream, Tier, plan};
use crate::model::config::Config;
use crate::registry;
use crate::separator::{MaskRule, ModelSpec};

/// Interval at which parameters are checked: the audio thread cannot notify this thread.
const POLL: Duration = Duration::from_millis(100);

/// State of the control thread.
#[derive(Default)]
struct ControlState {
    /// Tier and window that were last wanted.
    size: Option<(TierChoice, Option<WindowSpec>)>,
    /// Generation of the selection that was last loaded, or failed to load.
    loaded: Option<u64>,
    measured: Option<plan::MeasuredCost>,
    /// Plan of the last restart request. A host that ignores it is not asked again ten times a second.
    restart_requested_for: Option<Plan>,
    /// The model view from before a plan failed.
    view_before_plan_error: Option<ModelView>,
    /// The tiers as shown, with the inputs they were computed from.
    tiers: Option<(PlanInputs, Vec<TierView>)>,
}

/// Runs the control thread.
pub(super) fn run(shared: &Arc<InstanceShared>) {
    let mut control = ControlState::default();
    let mut may_fetch = false;
    let mut stream_log = StreamLog::default();
    while !shared.is_stopping() {
        let command = shared.commands().recv_timeout(POLL);
        while shared.retired.pop().is_some() {}
        shared.notify_latency();
        let step = catch_unwind(AssertUnwindSafe(|| {
            match command {
                Ok(ControlCommand::Fetch) => {
                    may_fetch = true;
                    control.reload_model(shared);
                }
                Ok(ControlCommand::Retry) => control.reload_model(shared),
                Ok(ControlCommand::Calibrate) => {
                    control.calibrate(shared, true);
                    shared.stream_state.lock().measured = control.measured;
                }
                Ok(ControlCommand::Reconcile) | Err(_) => control.recheck_download(shared),
            }
            control.reconcile(shared, may_fetch);
        }));
        if step.is_err() {
            // A bug of ours. Audio continues, and the user may choose another model.
            let generation = shared.params.model.generation();
            control.loaded = Some(generation);
            let reason = "the model could not be loaded: internal error".into();
            report_load_failure(shared, generation, ModelLoadError::Broken { reason, report: None });
        }
        may_fetch = false;
        if let Some(status) = &shared.view().status {
            stream_log.update(status);
        }
        shared.notify_restart();
    }
}

impl ControlState {
    /// Reloads a model that another instance has downloaded meanwhile.
    fn recheck_download(&mut self, shared: &InstanceShared) {
        if let ModelView::Failed(ModelLoadError::NotFetched { name, .. }) = shared.view().model
            && registry::find(&name).is_ok_and(|entry| registry::cached_files(entry).is_some())
        {
            self.reload_model(shared);
        }
    }

    /// Makes the next pass load the selected model again. Rendering waits for it.
    fn reload_model(&mut self, shared: &InstanceShared) {
        self.loaded = None;
        shared.clear_ready();
    }

    fn reconcile(&mut self, shared: &Arc<InstanceShared>, may_fetch: bool) {
        let wanted = shared.wanted();
        // Before the first activation there is nothing to plan, but a model may be downloaded.
        let active = shared.stream_state.lock().host.is_some();
        if self.loaded != Some(wanted.model) && (active || may_fetch) {
            self.load(shared, wanted.model, may_fetch);
        }
        if active {
            let size = (wanted.tier, wanted.window);
            if self.size.replace(size).is_some_and(|before| before != size) {
                // The user chose by the costs shown now, so plan with them.
                shared.stream_state.lock().measured = self.measured;
            }
            self.plan(shared);
        }
        self.show(shared);
        // Ready for what was wanted at the start of this pass; newer changes come next.
        if active && self.loaded == Some(wanted.model) {
            shared.set_ready(wanted);
        }
    }

    fn load(&mut self, shared: &Arc<InstanceShared>, generation: u64, may_fetch: bool) {
        shared.update_view(|view| view.model = ModelView::Loading(None));
        let selection = shared.params.model.get();
        let mut on_step = |step| {
            shared.update_view(|view| view.model = ModelView::Loading(Some(step)));
            let stale = shared.is_stopping() || shared.params.model.generation() != generation;
            if stale { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let opened = model_loader::open(&selection, may_fetch, &mut on_step).and_then(check_stem_count);
        if shared.is_stopping() {
            return;
        }
        self.loaded = Some(generation);
        let view = match opened {
            Ok(loaded) => {
                shared
                    .params
                    .model
                    .update_if_current(generation, |selection| record_identity(selection, &loaded));
                self.measured = calibration::stored_measurement(&loaded.sha256);
                let view = ready_view(&loaded);
                let offline = is_offline(shared);
                shared.stream_state.lock().model = Some(ActiveModel {
                    loaded,
                    title: selection.shown_title().into(),
                    serves_generation: generation,
                });
                shared.update_view(|view| view.stand_in = None);
                // While rendering, the latency must not change, and a measurement would be wrong.
                if self.measured.is_none() && !offline {
                    self.calibrate(shared, false);
                }
                view
            }
            // Another model was chosen meanwhile. It comes next.
            Err(ModelLoadError::Cancelled) if shared.params.model.generation() != generation => return,
            Err(error) => {
                report_load_failure(shared, generation, error);
                return;
            }
        };
        shared.update_view(|shown| shown.model = view);
        let mut state = shared.stream_state.lock();
        // A measurement made since the activation counts from the next one. The latency changes during playback only if the user chose another model,
        // or in the app, where nothing must stay in time.
        if state.planned_for != Some(generation)
            || state.host.is_some_and(|host| host.api == PluginApi::Standalone)
        {
            state.measured = self.measured;
        }
        attach_model(shared, &mut state);
    }

    /// Measures the computer. `force` ignores a stored measurement.
    fn calibrate(&mut self, shared: &InstanceShared, force: bool) {
        let Some(model) = shared.stream_state.lock().model.as_ref().map(|active| active.loaded.clone())
        else {
            return;
        };
        let before = shared.view().model;
        shared.update_view(|view| view.model = ModelView::Measuring);
        self.measured = calibration::calibrate(&model, force, &|| shared.is_stopping()).ok();
        shared.update_view(|view| view.model = before);
    }

    /// Opens a new stream if the plan changed.
    fn plan(&mut self, shared: &Arc<InstanceShared>) {
        let offline = is_offline(shared);
        let mut state = shared.stream_state.lock();
        let Some(host) = state.host else { return };
        let (tier, plan) = match wanted_plan(shared, &state, host) {
            Ok(found) => found,
            Err(error) => {
                shared.update_view(|view| {
                    let shown = std::mem::replace(&mut view.model, ModelView::Unplanned(error.to_string()));
                    if !matches!(shown, ModelView::Unplanned(_)) {
                        self.view_before_plan_error = Some(shown);
                    }
                });
                return;
            }
        };
        if let Some(shown) = self.view_before_plan_error.take() {
            shared.update_view(|view| {
                if matches!(view.model, ModelView::Unplanned(_)) {
                    view.model = shown;
                }
            });
        }
        if state.plan.as_ref() == Some(&plan) {
            state.tier = tier;
            self.restart_requested_for = None;
            shared.update_view(|view| view.restart_pending = false);
            return;
        }
        // The latency must not change during a render.
        if offline && !shared.before_first_block.load(Relaxed) {
            return;
        }
        if changes_in_place(host.api) {
            if let Some(stream_client) = open_stream(shared, &mut state, host, tier, plan) {
                let _ = shared.handoff.force_push(Box::new(stream_client));
            }
        } else {
            if self.restart_requested_for.as_ref() != Some(&plan) {
                shared.request_restart(true);
                self.restart_requested_for = Some(plan);
            }
            shared.update_view(|view| view.restart_pending = true);
        }
    }

    fn show(&mut self, shared: &InstanceShared) {
        let mut state = shared.stream_state.lock();
        if shared.handoff.is_empty() {
            state.before = None;
        }
        let Some(host) = state.host else { return };
        let plan_inputs = PlanInputs {
            timing: model_spec(shared, &state).timing(),
            host_rate: host.rate,
            block: block_size(host),
            measured: self.measured,
        };
        if self.tiers.as_ref().is_none_or(|(made_from, _)| *made_from != plan_inputs) {
            self.tiers = Some((plan_inputs, plan_inputs.of_tiers()));
        }
        let tiers = self.tiers.as_ref().map(|(_, tiers)| tiers.clone()).unwrap_or_default();
        for stream in state.stream.iter().chain(&state.before) {
            stream.set_rule(mask_rule(shared));
        }
        shared.update_view(|view| {
            view.tiers = tiers;
            view.plan_inputs = Some(plan_inputs);
            view.tier = state.tier;
            view.host_rate = host.rate;
            view.latency_ms = state.plan.as_ref().map_or(0.0, Plan::latency_ms);
            view.offline = shared.offline.load(Relaxed);
            view.routing = Some(shared.routing());
            view.status = state.before.as_ref().or(state.stream.as_ref()).map(Stream::status);
        });
    }
}

/// Opens the stream of an instance that is being activated, from what is known now.
///
/// # Errors
/// [`PlanError`]: no plan exists for the host's sample rate or block size.
pub(super) fn activate(
    shared: &Arc<InstanceShared>,
    host: HostConfig,
) -> Result<Option<StreamClient>, PlanError> {
    let mut state = shared.stream_state.lock();
    // Discard streams that the control thread opened before. It opens none while the lock is held.
    while shared.handoff.pop().is_some() {}
    // Keep the old streams until the new one is open: dropping the last stream ends the worker thread.
    let _void = (state.stream.take(), state.before.take());
    state.host = Some(host);
    shared.request_restart(false);
    state.measured = known_sha256(shared, &state).and_then(|sha256| calibration::stored_measurement(&sha256));
    state.planned_for = Some(shared.params.model.generation());
    let (tier, plan) = match wanted_plan(shared, &state, host) {
        Ok(found) => found,
        Err(error) => {
            state.plan = None;
            return Err(error);
        }
    };
    Ok(open_stream(shared, &mut state, host, tier, plan))
}

/// Opens a stream. The previous one continues until the audio thread has taken the new one, which it may never do during a render.
fn open_stream(
    shared: &InstanceShared,
    state: &mut StreamState,
    host: HostConfig,
    tier: Option<Tier>,
    plan: Plan,
) -> Option<StreamClient> {
    let scheduler = Scheduler::of_process().ok()?;
    let (client, stream) = Stream::open(&plan, STRIP_COUNT, host.channels, &scheduler);
    stream.set_rule(mask_rule(shared));
    let latency = u32::try_from(plan.latency().0).unwrap_or(u32::MAX);
    let last = state.stream.replace(stream);
    // Take an untaken stream back, so that the audio thread cannot take it later. Then the stream before it still plays.
    if shared.handoff.pop().is_none() {
        state.before = last;
    }
    state.plan = Some(plan);
    state.tier = tier;
    attach_model(shared, state);
    Some(StreamClient { client, latency })
}

fn ready_view(loaded: &LoadedModel) -> ModelView {
    ModelView::Ready {
        runs_on: loaded.model.runs_on().into(),
        stems: loaded.spec.stems.clone(),
        licence: loaded.licence.clone(),
    }
}

fn mask_rule(shared: &InstanceShared) -> MaskRule {
    match shared.params.lossless.value() {
        LosslessChoice::Spectral => MaskRule::Complete,
        LosslessChoice::Off => MaskRule::Plain,
    }
}

/// Reports why a selection could not be loaded. The previous model continues, so that a damaged file does not silence a song's stems.
fn report_load_failure(shared: &InstanceShared, generation: u64, error: ModelLoadError) {
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
fn attach_model(shared: &InstanceShared, state: &mut StreamState) {
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

/// The wanted plan with its tier. The tier is `None` for a custom window.
fn wanted_plan(
    shared: &InstanceShared,
    state: &StreamState,
    host: HostConfig,
) -> Result<(Option<Tier>, Plan), PlanError> {
    let timing = model_spec(shared, state).timing();
    if let Some(shape) = shared.wanted().window {
        return Ok((None, Plan::new(shape.request(&timing, host.rate, block_size(host)))?));
    }
    let tier = match (shared.params.tier.value(), state.measured) {
        (TierChoice::Auto, Some(measured)) => Tier::auto(&timing, measured).tier,
        // The built-in model is small enough for every computer. Other models are unknown until measured.
        (TierChoice::Auto, None) if shared.params.model.get().source == ModelSource::Embedded => Tier::Low,
        (choice, _) => choice.named().unwrap_or(Tier::Balanced),
    };
    Ok((Some(tier), Plan::new(tier.request(&timing, host.rate, block_size(host)))?))
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
fn model_spec(shared: &InstanceShared, state: &StreamState) -> SavedModelSpec {
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
        stems: Vec::new(),
    })
}

/// Properties of the built-in model, without loading it.
fn built_in_spec() -> Option<SavedModelSpec> {
    static KNOWN: OnceLock<Option<SavedModelSpec>> = OnceLock::new();
    KNOWN.get_or_init(read_built_in_spec).clone()
}

fn read_built_in_spec() -> Option<SavedModelSpec> {
    let checkpoint = embedded::checkpoint()?;
    let config = Config::from_yaml(checkpoint.config_yaml()?, embedded::NAME).ok()?;
    let info = ModelSpec::resolve(&checkpoint, &config, None).ok()?;
    Some(SavedModelSpec::new(ModelTiming::of(&info), info.stem_names()))
}

fn record_identity(selection: &mut Selection, loaded: &LoadedModel) {
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
fn check_stem_count(loaded: LoadedModel) -> Result<LoadedModel, ModelLoadError> {
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

fn is_offline(shared: &InstanceShared) -> bool {
    shared.offline.load(Relaxed) || shared.stream_state.lock().host.is_some_and(|host| host.offline)
}
