//! The control thread of an instance. It loads models, measures the computer and opens streams; the audio thread and the host's threads never do.
//!
//! [`decide`] says what to do next, from what is wanted, what exists and what is possible. This file collects that, carries actions out, and shows
//! the result. Files are read by a thread of their own ([`LoadJob`]), so that a hanging drive blocks neither this thread nor the host.
//!
//! The thread sleeps until it is notified: by a command, by the flag that the audio thread, parameters and restored states set, or by the end
//! of a step of loading. [`Control::next_look`] lists what nobody can notify it of.

mod cost;
mod decide;
mod device;
mod planning;
mod transport;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nice_plug::prelude::PluginApi;

use self::cost::CostEstimate;
use self::decide::{Action, Actual, Facts, MeasureState, ModelState, Request, Transport, decide};
use self::device::DeviceWatch;
pub(super) use self::planning::activate;
#[cfg(test)]
pub(super) use self::planning::fade_in;
use self::planning::{
    TierPlan, adopt_cost, attach_model, check_stem_count, expect_load, latest_basis, mask_rule, open_stream,
    plan_inputs, ready_view, record_identity, report_load_failure, wanted_plan,
};
use self::transport::TransportWatch;
use super::calibration::{self, Calibration};
use super::instance_shared::{
    ActiveModel, ControlCommand, HostConfig, InstanceShared, ModelView, PendingPlan, PlanBasis, PlanInputs,
    StreamState, TierView, WakingBlocks, Wanted, changes_in_place,
};
use super::instances;
use super::load_job::LoadJob;
use super::model_loader::{LoadedModel, ModelLoadError};
use super::owned_thread::{END_TIMEOUT, OwnedThread};
use super::params::TierChoice;
use super::prepared;
use super::stream_log::StreamLog;
use super::thread_setting;
use crate::live::plan::{MeasuredCost, WindowSpec};
use crate::live::{Forward, Plan, Scheduler, State, Stream, Tier};
use crate::registry;

/// Interval at which it is checked whether another process has downloaded the model.
const DOWNLOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Actions in one pass. More would be a defect of [`decide`].
const MAX_ACTIONS: usize = 16;

/// State of the control thread.
struct Control {
    shared: Arc<InstanceShared>,
    model: ModelState,
    job: Option<LoadJob>,
    /// The job may download.
    fetches: bool,
    /// Cancelled loader threads that have not ended yet.
    cancelled: Vec<OwnedThread>,
    cost: CostEstimate,
    device: DeviceWatch,
    /// Windows that the stream had run before the model was attached.
    windows_before_model: u64,
    request: PendingRequest,
    /// Tier and window that were last wanted.
    size: Option<(TierChoice, Option<WindowSpec>)>,
    /// A host that ignores a restart request is not asked again for the same plan.
    restart_requested: Option<Plan>,
    transport: TransportWatch,
    panic_logged: bool,
    /// The model view from before a plan failed.
    view_before_plan_error: Option<ModelView>,
    /// The tiers as shown, with the inputs they were computed from.
    tiers: Option<(PlanInputs, Vec<TierView>)>,
    /// Forwards the flag of the audio thread. Before the scheduler, which it needs.
    forward: Option<Forward>,
    /// Held so that dropping the last stream on the host's main thread does not end the scheduler there.
    scheduler: Option<Scheduler>,
}

/// Requests that have not been carried out yet.
#[derive(Clone, Copy, Debug, Default)]
struct PendingRequest {
    fetch: bool,
    reload: bool,
    measure: bool,
    adopt_cost: bool,
}

/// Runs the control thread.
pub(super) fn run(shared: &Arc<InstanceShared>) {
    let _registration = instances::Registration::new(shared.command_sender());
    DeviceWatch::observe_workers();
    let mut control = Control::new(shared.clone());
    let mut stream_log = StreamLog::default();
    while !shared.is_stopping() {
        control.sleep();
        while shared.retired.pop().is_some() {}
        shared.notify_latency();
        #[cfg(test)]
        shared.control_passes.fetch_add(1, Relaxed);
        let step = catch_unwind(AssertUnwindSafe(|| control.reconcile()));
        if step.is_err() {
            // A bug of ours. Audio continues, and the user may choose another model.
            let generation = shared.params.model.generation();
            control.model = ModelState::Failed { generation };
            control.request = PendingRequest::default();
            let reason = "the model could not be loaded: internal error".into();
            report_load_failure(shared, generation, ModelLoadError::Broken { reason, report: None });
        }
        if let Some(status) = &shared.view().status {
            stream_log.update(status);
        }
        control.report_failures();
        shared.notify_restart();
    }
    control.end();
}

impl Control {
    fn new(shared: Arc<InstanceShared>) -> Self {
        let scheduler = Scheduler::of_process();
        let forward = scheduler.as_ref().ok().map(|scheduler| {
            let commands = shared.command_sender();
            scheduler.forward(shared.params.wake.flag(), move || _ = commands.send(ControlCommand::Reconcile))
        });
        if let Err(error) = &scheduler {
            log::error!("the live engine cannot start: {error}");
        }
        Self {
            shared,
            forward,
            scheduler: scheduler.ok(),
            model: ModelState::Absent,
            job: None,
            fetches: false,
            cancelled: Vec::new(),
            cost: CostEstimate::default(),
            device: DeviceWatch::default(),
            windows_before_model: 0,
            request: PendingRequest::default(),
            size: None,
            restart_requested: None,
            transport: TransportWatch::new(Instant::now()),
            panic_logged: false,
            view_before_plan_error: None,
            tiers: None,
        }
    }

    /// Sleeps until there is something to do, and accepts all commands.
    fn sleep(&mut self) {
        let (now, commands) = (Instant::now(), self.shared.commands());
        let is_idle = self.transport.next_change(now).is_none();
        let mut command = match self.next_look(now) {
            _ if is_idle && self.has_missed_block() => commands.try_recv().ok(),
            Some(next) => commands.recv_deadline(next).ok(),
            // This instance holds a sender, so the channel stays open.
            None => commands.recv().ok(),
        };
        self.shared.wake_at_blocks(WakingBlocks::None);
        while let Some(next) = command {
            self.accept(next);
            command = self.shared.commands().try_recv().ok();
        }
    }

    /// When to look without being notified. Nobody can notify this thread of:
    /// - the end of a host's calls while its transport runs, and what the windows of the stream cost meanwhile;
    /// - the time after which a stopped transport counts as idle;
    /// - a download by another process;
    /// - the time from which a doubtful measurement may be repeated.
    ///
    /// An idle instance has none of these and sleeps until it is notified.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let is_active = self.tiers.is_some();
        let transport = self.transport.next_change(now).filter(|_| is_active);
        let measurement = self.cost.next_retry(now).filter(|_| is_active);
        let is_missing =
            matches!(self.shared.view().model, ModelView::Failed(ModelLoadError::NotFetched { .. }));
        let download = is_missing.then(|| now + DOWNLOAD_INTERVAL);
        [transport, measurement, download].into_iter().flatten().min()
    }

    /// Asks to be woken by the next block of a host that plays. Returns whether such a block has come since the last look.
    fn has_missed_block(&self) -> bool {
        let any = !self.transport.reports_transport();
        self.shared.wake_at_blocks(if any { WakingBlocks::Any } else { WakingBlocks::Playing });
        let (playing, blocks) = self.shared.transport();
        blocks != self.transport.blocks() && (any || playing)
    }

    /// Ends loading, waits a moment for its threads, and releases what the host's main thread left because this thread used it.
    fn end(mut self) {
        let deadline = Instant::now() + END_TIMEOUT;
        self.cancelled.extend(self.job.take().and_then(LoadJob::cancel));
        for thread in self.cancelled.drain(..) {
            thread.end_by(deadline);
        }
        self.shared.release_stream(deadline);
        // Last: this may wait for the worker.
        drop((self.forward.take(), self.scheduler.take()));
    }

    fn accept(&mut self, command: ControlCommand) {
        match command {
            ControlCommand::Fetch => {
                (self.request.fetch, self.request.reload) = (true, true);
                self.shared.clear_ready();
            }
            ControlCommand::Retry => {
                self.device.retry();
                self.request.reload = true;
                self.shared.clear_ready();
            }
            ControlCommand::Calibrate => {
                (self.request.measure, self.request.adopt_cost) = (true, true);
            }
            ControlCommand::ApplyPending => self.request.adopt_cost = true,
            ControlCommand::DismissRenderFailure => {
                self.shared.update_view(|view| view.render_failure = None);
            }
            ControlCommand::Reconcile => {}
        }
    }

    /// Reloads a model that another instance has downloaded meanwhile.
    fn recheck_download(&mut self) {
        if let ModelView::Failed(ModelLoadError::NotFetched { name, .. }) = self.shared.view().model
            && registry::find(&name).is_ok_and(|entry| registry::cached_files(entry).is_some())
        {
            self.request.reload = true;
            self.shared.clear_ready();
        }
    }

    /// Carries out actions until nothing is left to do now.
    fn reconcile(&mut self) {
        let wanted = self.shared.wanted();
        let now = Instant::now();
        self.transport.update(self.shared.transport(), now);
        self.cancelled.retain(|thread| !thread.is_finished());
        self.finish_load(&wanted);
        self.recheck_download();
        prepared::start_if_wanted(&self.shared);
        self.reload_for_threads();
        self.reload_for_device();
        self.observe_cost();
        for _ in 0..MAX_ACTIONS {
            let Some(action) = self.next_action(&wanted, now) else { break };
            if self.shared.is_stopping() || !self.carry_out(action, &wanted) {
                break;
            }
        }
        let active = self.shared.stream_state.lock().host.is_some();
        self.show();
        // Ready for what was wanted at the start of this pass; newer changes come next.
        if active && self.model.settled_for() == Some(wanted.model) && !self.request.reload {
            self.shared.set_ready(wanted);
        }
        self.request.fetch &= self.request.reload;
        // The choice was planned for, with all that is known. A cost that changes later waits for the transport to stop.
        let measured = self.cost.state(now) != MeasureState::Unknown;
        if self.model.settled_for() == Some(wanted.model) && measured {
            self.request.adopt_cost = false;
        }
    }

    /// What to do next; `None` before the first activation if nothing was asked for.
    fn next_action(&mut self, wanted: &Wanted, now: Instant) -> Option<Action> {
        let size = (wanted.tier, wanted.window);
        // The user chose by the costs shown now, so plan with them.
        if self.size.replace(size).is_some_and(|before| before != size) {
            self.request.adopt_cost = true;
        }
        let state = self.shared.stream_state.lock();
        let planned =
            |host: HostConfig, basis: PlanBasis| wanted_plan(&self.shared, wanted, &state, host, basis);
        let facts = state.host.map(|host| Facts {
            transport: self.transport_state(host, now),
            before_first_block: self.shared.before_first_block.load(Relaxed),
            changes_in_place: changes_in_place(host.api),
            planned: planned(host, state.basis),
            planned_by_latest_cost: planned(host, latest_basis(&state, self.cost.current())),
        });
        // The latency changes during playback if another model was chosen and has loaded, and in the app, where nothing must stay in time.
        let is_loaded = matches!(self.model, ModelState::Loaded { .. });
        let may_change = state.host.is_some_and(|host| host.api == PluginApi::Standalone)
            || (state.host.is_some() && is_loaded && state.planned_for != Some(wanted.model));
        let request = Request {
            generation: wanted.model,
            may_fetch: self.request.fetch,
            reload: self.request.reload,
            measure: self.request.measure,
            adopt_cost: self.request.adopt_cost || may_change,
        };
        let actual = Actual {
            active: state.host.is_some(),
            model: self.model,
            measured: self.cost.state(now),
            plan: state.plan.clone(),
            restart_requested: self.restart_requested.clone(),
        };
        drop(state);
        match facts {
            Some(facts) => Some(decide(&request, &actual, &facts)),
            None => decide::decide_before_activation(&request, &actual),
        }
    }

    fn transport_state(&self, host: HostConfig, now: Instant) -> Transport {
        if self.shared.offline.load(Relaxed) || host.offline {
            Transport::Rendering
        } else {
            self.transport.state(now)
        }
    }

    /// Returns whether to decide again at once.
    fn carry_out(&mut self, action: Action, wanted: &Wanted) -> bool {
        match action {
            Action::Rest | Action::AwaitRestart => false,
            Action::CancelLoad => {
                self.cancelled.extend(self.job.take().and_then(LoadJob::cancel));
                self.model = ModelState::Absent;
                true
            }
            Action::StartLoad => {
                self.start_load(wanted.model);
                true
            }
            Action::Measure { force } => {
                self.measure(force);
                true
            }
            Action::AdoptCost => {
                adopt_cost(&self.shared, wanted, self.cost.current());
                self.request.adopt_cost = false;
                true
            }
            Action::ReportNoPlan(error) => {
                self.report_no_plan(&error.to_string());
                false
            }
            Action::KeepPlan((tier, _)) => {
                self.clear_plan_error();
                self.keep_plan(tier, None);
                false
            }
            Action::OfferPlan { kept, offered: (tier, plan) } => {
                self.clear_plan_error();
                self.keep_plan(kept.0, Some(PendingPlan { tier, latency_ms: plan.latency_ms() }));
                false
            }
            Action::OpenStream((tier, plan)) => {
                self.clear_plan_error();
                self.open_stream((tier, plan))
            }
            Action::RequestRestart(plan) => {
                self.clear_plan_error();
                self.shared.request_restart(true);
                self.restart_requested = Some(plan);
                self.shared.update_view(|view| view.restart_pending = true);
                false
            }
        }
    }

    fn start_load(&mut self, generation: u64) {
        self.shared.update_view(|view| view.model = ModelView::Loading(None));
        let commands = self.shared.command_sender();
        let wake = move || _ = commands.send(ControlCommand::Reconcile);
        let selection = self.shared.params.model.get();
        self.fetches = self.request.fetch;
        let device = self.device.device(self.shared.params.device.get());
        self.job = Some(LoadJob::start(selection, generation, device, self.request.fetch, wake));
        self.model = ModelState::Loading { generation };
        (self.request.fetch, self.request.reload) = (false, false);
    }

    /// Takes the result of loading, if it has ended.
    fn finish_load(&mut self, wanted: &Wanted) {
        let Some(job) = self.job.take_if(|job| job.is_finished()) else { return };
        let Some(result) = job.take_result() else { return };
        let generation = job.generation;
        if generation != wanted.model {
            // Another model was chosen meanwhile. It comes next.
            self.model = ModelState::Absent;
            return;
        }
        match result.and_then(check_stem_count) {
            Ok(loaded) => {
                self.use_model(loaded, &job);
                if std::mem::take(&mut self.fetches) {
                    // Other instances may wait for the same download.
                    instances::notify_all();
                }
            }
            Err(error) => {
                self.model = ModelState::Failed { generation };
                report_load_failure(&self.shared, generation, error);
            }
        }
    }

    fn use_model(&mut self, loaded: LoadedModel, job: &LoadJob) {
        let shared = &self.shared;
        let generation = job.generation;
        self.model = ModelState::Loaded { generation };
        shared.params.model.update_if_current(generation, |selection| record_identity(selection, &loaded));
        let view = ready_view(&loaded);
        let mut state = shared.stream_state.lock();
        let channels = state.host.map_or(2, |host| host.channels);
        let stored = calibration::stored_measurement(&loaded.sha256, Some(loaded.model.runs_on()), channels);
        self.cost = CostEstimate::new(stored);
        state.model = Some(ActiveModel {
            loaded,
            title: job.selection.shown_title().into(),
            serves_generation: generation,
        });
        self.windows_before_model = state.stream.as_ref().map_or(0, |stream| stream.status().windows());
        // The cost of another model says nothing of this one.
        if state.planned_for != Some(generation) {
            state.basis.measured = stored;
        }
        shared.update_view(|shown| (shown.model, shown.stand_in) = (view, None));
        attach_model(shared, &mut state);
    }

    /// Measures the model. `force` ignores a stored measurement.
    fn measure(&mut self, force: bool) {
        self.request.measure = false;
        let (model, channels) = {
            let state = self.shared.stream_state.lock();
            let Some(active) = &state.model else { return };
            (active.loaded.clone(), state.host.map_or(2, |host| host.channels))
        };
        let before = self.shared.view().model;
        self.shared.update_view(|view| view.model = ModelView::Measuring);
        let generation = self.shared.params.model.generation();
        let stop = || self.shared.is_stopping() || self.shared.params.model.generation() != generation;
        let (_, blocks_before) = self.shared.transport();
        let result = calibration::calibrate(&model, channels, force, &stop);
        let (now, (playing, blocks)) = (Instant::now(), self.shared.transport());
        self.transport.update((playing, blocks), now);
        // The host needs the processor too while it plays.
        let while_busy = blocks != blocks_before && self.transport.state(now) == Transport::Playing;
        match result {
            Ok(Calibration::Measured(cost)) if while_busy => {
                let cost = cost.for_channels(channels, model.model.channels());
                self.cost.set_measured(Some(cost), true, now);
            }
            Ok(Calibration::Measured(cost)) => {
                let cost = calibration::remember(&model, cost, channels);
                self.cost.set_measured(Some(cost), false, now);
            }
            Ok(Calibration::Remembered(cost)) => self.cost.set_measured(Some(cost), false, now),
            Ok(Calibration::Busy) => self.cost.postpone(now),
            Err(_) if stop() => {}
            Err(error) => {
                log::warn!("the model cannot be measured: {error}");
                self.cost.set_measured(None, while_busy, now);
            }
        }
        self.shared.update_view(|view| view.model = before);
    }

    /// Loads the model again if the user has chosen another number of threads. Not during a render.
    fn reload_for_threads(&mut self) {
        let state = self.shared.stream_state.lock();
        let Some(active) = &state.model else { return };
        let is_current = active.loaded.threads == thread_setting::current();
        if !is_current
            && matches!(self.model, ModelState::Loaded { .. })
            && !self.shared.offline.load(Relaxed)
        {
            self.request.reload = true;
            self.shared.clear_ready();
        }
    }

    /// Compares the measurement with what the windows of the stream take.
    fn observe_cost(&mut self) {
        let state = self.shared.stream_state.lock();
        let (Some(stream), Some(plan)) = (&state.stream, &state.plan) else { return };
        let status = stream.status();
        if status.state() == State::Running && state.before.is_none() {
            let measured = self.cost.measured();
            let of_hop = |seconds| MeasuredCost::observed(plan.request(), seconds, measured);
            let average = of_hop(f64::from(status.window_seconds()));
            let percentile = status.cost_percentile().map_or(average, of_hop);
            let windows = status.windows().saturating_sub(self.windows_before_model);
            self.cost.observe(average, percentile, windows);
        }
    }

    fn keep_plan(&mut self, tier: Option<Tier>, pending: Option<PendingPlan>) {
        let mut state = self.shared.stream_state.lock();
        state.tier = tier;
        if let Some(plan) = &state.plan {
            expect_load(&state, plan, self.cost.current());
        }
        self.note_planned(&mut state);
        drop(state);
        self.restart_requested = None;
        self.shared.request_restart(false);
        self.shared.update_view(|view| (view.restart_pending, view.pending) = (false, pending));
    }

    /// Returns whether the stream was opened.
    fn open_stream(&mut self, (tier, plan): TierPlan) -> bool {
        let mut state = self.shared.stream_state.lock();
        let Some(host) = state.host else { return false };
        let Some(client) = open_stream(&self.shared, &mut state, host, tier, plan) else { return false };
        let _ = self.shared.handoff.force_push(Box::new(client));
        self.windows_before_model = 0;
        self.note_planned(&mut state);
        true
    }

    /// The plan is the loaded model's. From now on its latency stays while the transport runs.
    fn note_planned(&self, state: &mut StreamState) {
        state.planned_for = self.model.settled_for().or(state.planned_for);
    }

    fn report_no_plan(&mut self, error: &str) {
        self.shared.update_view(|view| {
            let shown = std::mem::replace(&mut view.model, ModelView::Unplanned(error.to_owned()));
            if !matches!(shown, ModelView::Unplanned(_)) {
                self.view_before_plan_error = Some(shown);
            }
        });
    }

    fn clear_plan_error(&mut self) {
        if let Some(shown) = self.view_before_plan_error.take() {
            self.shared.update_view(|view| {
                if matches!(view.model, ModelView::Unplanned(_)) {
                    view.model = shown;
                }
            });
        }
    }

    /// Logs and shows what went wrong on the audio thread.
    fn report_failures(&mut self) {
        if self.shared.has_audio_panicked() {
            if !std::mem::replace(&mut self.panic_logged, true) {
                log::error!(
                    "internal error in the audio thread; from now on the output is the delayed input"
                );
            }
            let text = "Internal error: the output is the input. Remove the plugin and insert it again.";
            self.shared.update_view(|view| view.model = ModelView::Unplanned(text.into()));
        }
        if let Some(failure) = self.shared.take_render_failure()
            && self.shared.view().render_failure != Some(failure)
        {
            log::warn!("{failure}");
            self.shared.update_view(|view| view.render_failure = Some(failure));
        }
    }

    fn show(&mut self) {
        let device_note = self.device_note();
        let shared = &self.shared;
        shared.update_view(|view| view.device_note = device_note);
        if let Some(job) = &self.job {
            shared.update_view(|view| view.model = ModelView::Loading(job.step()));
        }
        let mut state = shared.stream_state.lock();
        if shared.handoff.is_empty() && !shared.is_in_transition() {
            state.before = None;
        }
        let Some(host) = state.host else { return };
        let plan_inputs = plan_inputs(shared, &state, host, self.cost.current());
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
