//! State shared by the threads of an instance. The audio thread uses atomics and queues only; the editor's view has a lock of its own.

use std::any::Any;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use atomic_float::AtomicF32;
use crossbeam::channel::{Receiver, Sender, unbounded};
use crossbeam::queue::ArrayQueue;
use nice_plug::prelude::PluginApi;
use nice_plug_egui::{EguiEditorState, RepaintNotifier};
use parking_lot::{Condvar, Mutex};

use super::model_loader::{LoadStep, LoadedModel, ModelLoadError};
use super::params::{NullsumParams, TierChoice};
use super::platform::window_threads::WindowThreads;
use super::player::Player;
use super::routing::Routing;
use super::selection::Selection;
#[cfg(test)]
use crate::live::Scheduler;
use crate::live::plan::{MeasuredCost, WindowSpec};
use crate::live::{Client, HostSamples, ModelTiming, Plan, PlanRequest, Status, Stream, Tier};

/// Name of the control thread.
pub const THREAD_NAME: &str = "nullsum-control";

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
}

/// A request to the control thread.
#[derive(Debug)]
pub enum ControlCommand {
    /// Compare the wanted state with the actual one.
    Reconcile,
    /// Download the selected model of the registry.
    Fetch,
    /// Load the selected model again.
    Retry,
    /// Measure the computer again.
    Calibrate,
}

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
    pub routing: Option<Routing>,
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

/// What the user and the host want.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wanted {
    pub tier: TierChoice,
    /// Custom window instead of the tier's.
    pub window: Option<WindowSpec>,
    /// Generation of the selection.
    pub model: u64,
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
    /// Latency in milliseconds, and load, of a request. `None` if no plan exists for it.
    fn weigh(&self, request: PlanRequest, load: impl Fn(MeasuredCost) -> f64) -> Option<(f64, Option<f64>)> {
        Some((Plan::new(request).ok()?.latency_ms(), self.measured.map(load)))
    }

    /// Latency in milliseconds, and load, of a custom window.
    pub fn of_window(&self, shape: WindowSpec) -> Option<(f64, Option<f64>)> {
        let request = shape.request(&self.timing, self.host_rate, self.block);
        self.weigh(request, |measured| shape.load(&self.timing, measured))
    }

    /// Latency and load of all tiers.
    pub(super) fn of_tiers(&self) -> Vec<TierView> {
        let view = |tier: Tier| {
            let request = tier.request(&self.timing, self.host_rate, self.block);
            let (latency_ms, load) = self.weigh(request, |measured| tier.load(&self.timing, measured))?;
            Some(TierView { tier, latency_ms, load })
        };
        Tier::ALL.into_iter().filter_map(view).collect()
    }
}

/// The loaded model.
#[derive(Debug)]
pub(super) struct ActiveModel {
    pub loaded: LoadedModel,
    pub title: String,
    /// Generation of the selection that it serves: its own, or a later one that could not be loaded.
    pub serves_generation: u64,
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
    /// Measurement that the Auto tier uses.
    pub measured: Option<MeasuredCost>,
    /// Generation of the selection at the last activation.
    pub planned_for: Option<u64>,
}

/// Receives dropped files as long as it lives. The shared state only keeps and drops it.
pub(super) type FileDropListener = Option<Box<dyn Any + Send>>;

/// A notification to the host.
pub(super) type HostCallback = Arc<dyn Fn() + Send + Sync>;

/// The state of one instance, shared by its threads and the editor.
pub struct InstanceShared {
    /// Parameters and other saved state.
    pub params: Arc<NullsumParams>,
    /// Realtime-safe: requests an immediate repaint of the editor.
    pub(super) repaint: RepaintNotifier,
    /// New streams, for the audio thread to take where the format allows latency changes in place.
    pub(super) handoff: ArrayQueue<Box<StreamClient>>,
    /// Streams that the audio thread no longer uses. The control thread drops them.
    pub(super) retired: ArrayQueue<Box<StreamClient>>,
    pub(super) stream_state: Mutex<StreamState>,
    view: Mutex<View>,
    player: Option<Player>,
    /// Body of the control thread.
    run_control: fn(&Arc<Self>),
    commands: (Sender<ControlCommand>, Receiver<ControlCommand>),
    thread: Mutex<Option<JoinHandle<()>>>,
    stopping: AtomicBool,
    routing: AtomicU64,
    /// A restart request that the control thread has yet to send.
    restart: AtomicBool,
    restart_callback: Mutex<Option<HostCallback>>,
    /// Latency of the playing stream, in samples.
    latency: AtomicU32,
    /// Set by the audio thread; the control thread then notifies the host.
    latency_notify_pending: AtomicBool,
    announce: Mutex<Option<HostCallback>>,
    /// Tells the host that there is something to save.
    dirty_callback: Mutex<Option<HostCallback>>,
    /// Size and scale of the editor.
    window: OnceLock<Arc<EguiEditorState>>,
    /// Threads of opened editors, with their listeners for dropped files.
    editor_threads: Mutex<Vec<(WindowThreads, FileDropListener)>>,
    /// Written by the audio thread: whether it waits for the model.
    pub(super) offline: AtomicBool,
    /// Written by the audio thread: whether no block came since the last reset.
    pub(super) before_first_block: AtomicBool,
    /// Peak of each channel of the main output since the editor's last frame. Written by the audio thread.
    output_peaks: [AtomicF32; 2],
    /// The wanted state that the control thread has completed.
    ready_for: (Mutex<Option<Wanted>>, Condvar),
}

impl InstanceShared {
    /// Creates an instance without threads or model.
    pub(super) fn new(
        params: Arc<NullsumParams>,
        player: Option<Player>,
        run_control: fn(&Arc<Self>),
    ) -> Arc<Self> {
        super::logger::install();
        Arc::new(Self {
            params,
            repaint: RepaintNotifier::new(),
            handoff: ArrayQueue::new(1),
            retired: ArrayQueue::new(8),
            stream_state: Mutex::default(),
            view: Mutex::default(),
            player,
            run_control,
            commands: unbounded(),
            thread: Mutex::new(None),
            stopping: AtomicBool::new(false),
            routing: AtomicU64::new(Routing::NONE.pack()),
            restart: AtomicBool::new(false),
            restart_callback: Mutex::default(),
            latency: AtomicU32::new(0),
            latency_notify_pending: AtomicBool::new(false),
            announce: Mutex::default(),
            dirty_callback: Mutex::default(),
            window: OnceLock::new(),
            editor_threads: Mutex::default(),
            offline: AtomicBool::new(false),
            before_first_block: AtomicBool::new(true),
            output_peaks: Default::default(),
            ready_for: (Mutex::new(None), Condvar::new()),
        })
    }

    /// The file player of the app.
    pub fn player(&self) -> Option<&Player> {
        self.player.as_ref()
    }

    /// A copy of what the editor shows.
    pub fn view(&self) -> View {
        self.view.lock().clone()
    }

    pub(super) fn update_view(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock());
    }

    /// Chooses another model.
    pub fn select(self: &Arc<Self>, selection: Selection) {
        self.params.model.choose(selection);
        self.send(ControlCommand::Reconcile);
    }

    /// Sends a request to the control thread, and starts the thread if needed.
    pub fn send(self: &Arc<Self>, command: ControlCommand) {
        self.start();
        if matches!(command, ControlCommand::Fetch | ControlCommand::Retry) {
            // From now on, not only once the thread receives it.
            self.clear_ready();
        }
        // We hold a receiver, so this cannot fail.
        let _ = self.commands.0.send(command);
    }

    pub(super) fn commands(&self) -> &Receiver<ControlCommand> {
        &self.commands.1
    }

    fn start(self: &Arc<Self>) {
        let mut thread = self.thread.lock();
        if thread.is_none() && !self.is_stopping() {
            let shared = self.clone();
            match std::thread::Builder::new()
                .name(THREAD_NAME.into())
                .spawn(move || (shared.run_control)(&shared))
            {
                Ok(handle) => *thread = Some(handle),
                Err(error) => log::error!("the control thread cannot start: {error}"),
            }
        }
    }

    /// Ends the control thread and the stream. The editor may still read what is left.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Release);
        let _ = self.commands.0.send(ControlCommand::Reconcile);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        *self.stream_state.lock() = StreamState::default();
        while self.handoff.pop().is_some() || self.retired.pop().is_some() {}
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    /// Realtime-safe: the current routing.
    pub fn routing(&self) -> Routing {
        Routing::unpack(self.routing.load(Relaxed))
    }

    pub(super) fn set_routing(&self, routing: Routing) {
        self.routing.store(routing.pack(), Relaxed);
    }

    /// Realtime-safe: records the peaks of a block of the main output.
    pub(super) fn record_output_peaks(&self, main: &[&mut [f32]]) {
        for (peak, plane) in self.output_peaks.iter().zip(main) {
            let loudest = plane.iter().fold(0f32, |loudest, sample| loudest.max(sample.abs()));
            if loudest > peak.load(Relaxed) {
                peak.store(loudest, Relaxed);
            }
        }
    }

    /// Peak of a channel of the main output since the last call.
    pub fn take_output_peak(&self, channel: usize) -> f32 {
        self.output_peaks.get(channel).map_or(0.0, |peak| peak.swap(0.0, Relaxed))
    }

    /// Sets how to ask the host for a restart.
    pub(super) fn set_restart_callback(&self, announce: Option<HostCallback>) {
        *self.restart_callback.lock() = announce;
    }

    /// Requests or cancels a restart.
    pub(super) fn request_restart(&self, wanted: bool) {
        self.restart.store(wanted, Release);
    }

    /// Sends a pending restart request. Not under the lock of the stream state, which the activation takes.
    pub(super) fn notify_restart(&self) {
        if self.restart.swap(false, Acquire)
            && let Some(announce) = self.restart_callback.lock().clone()
        {
            announce();
        }
    }

    /// Realtime-safe: latency in samples.
    pub(super) fn latency(&self) -> u32 {
        self.latency.load(Relaxed)
    }

    /// Realtime-safe.
    pub(super) fn set_latency(&self, samples: u32) {
        self.latency.store(samples, Relaxed);
    }

    /// Realtime-safe: asks the control thread to notify the host of the latency.
    pub(super) fn request_latency_notify(&self) {
        self.latency_notify_pending.store(true, Release);
    }

    /// Sets how to notify the host of a new latency.
    pub(super) fn set_latency_callback(&self, announce: Option<HostCallback>) {
        *self.announce.lock() = announce;
    }

    /// Sends a pending latency notification. Not under a lock, so that the host may destroy the instance meanwhile.
    pub(super) fn notify_latency(&self) {
        if self.latency_notify_pending.swap(false, Acquire)
            && let Some(announce) = self.announce.lock().clone()
        {
            announce();
        }
    }

    /// Sets how to tell the host that there is something to save.
    pub(super) fn set_dirty_callback(&self, announce: Option<HostCallback>) {
        *self.dirty_callback.lock() = announce;
    }

    /// Tells the host that saved state other than parameters changed. Otherwise it may close the project without asking.
    pub(super) fn mark_dirty(&self) {
        let announce = self.dirty_callback.lock().clone();
        if let Some(announce) = announce {
            announce();
        }
    }

    /// Size and scale of the editor. Empty if there is no editor.
    pub(super) fn window(&self) -> &OnceLock<Arc<EguiEditorState>> {
        &self.window
    }

    /// Registers an editor that opens on this thread.
    pub(super) fn register_editor(&self, threads: WindowThreads, listener: FileDropListener) {
        self.editor_threads.lock().push((threads, listener));
    }

    /// Records the threads of the newest editor, before its first frame.
    pub(super) fn record_editor_threads(&self) {
        if let Some((threads, _)) = self.editor_threads.lock().last_mut() {
            threads.record();
        }
    }

    /// Waits until closed editors are gone. Main thread.
    pub(super) fn wait_for_editors(&self) {
        let closed = std::mem::take(&mut *self.editor_threads.lock());
        for (threads, _listener) in closed {
            threads.wait_until_gone();
        }
    }

    /// Takes every lock of an instance, except those of nice-plug.
    #[cfg(test)]
    pub(super) fn lock_everything(&self) -> impl Sized {
        let stream_state = self.stream_state.lock();
        let stream = stream_state.stream.as_ref().map(Stream::status);
        // Leaked, so that the guard can outlive this function. Test only.
        let message = stream.map(|status| Box::leak(Box::new(status)).hold());
        let process = Scheduler::lock_process();
        let shared = (
            self.view.lock(),
            self.thread.lock(),
            self.ready_for.0.lock(),
            self.announce.lock(),
            self.dirty_callback.lock(),
            self.restart_callback.lock(),
        );
        let shared = (shared, self.editor_threads.lock());
        let process = (process, Stream::lock_tables());
        let params = (self.params.model.lock(), self.params.window.lock(), self.params.editor.lock());
        (stream_state, message, process, shared, params)
    }

    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            tier: self.params.tier.value(),
            window: self.params.window.lock().map(WindowSpec::clamped),
            model: self.params.model.generation(),
        }
    }

    pub(super) fn set_ready(&self, wanted: Wanted) {
        *self.ready_for.0.lock() = Some(wanted);
        self.ready_for.1.notify_all();
    }

    /// Marks pending work that a render must wait for.
    pub(super) fn clear_ready(&self) {
        *self.ready_for.0.lock() = None;
    }

    /// Whether the control thread has completed what is wanted. Takes a lock: for offline rendering only.
    pub(super) fn is_ready(&self) -> bool {
        *self.ready_for.0.lock() == Some(self.wanted())
    }

    /// Waits at most `timeout` until the control thread has completed what is wanted. For offline rendering only.
    pub(super) fn wait_until_ready(self: &Arc<Self>, timeout: std::time::Duration) -> bool {
        if self.is_ready() {
            return true;
        }
        self.send(ControlCommand::Reconcile);
        let until = std::time::Instant::now() + timeout;
        let mut ready_for = self.ready_for.0.lock();
        while *ready_for != Some(self.wanted()) {
            if self.is_stopping() || self.ready_for.1.wait_until(&mut ready_for, until).timed_out() {
                return false;
            }
        }
        true
    }
}

/// Ends the instance when the plugin is dropped, even if the editor still holds the shared state.
pub(super) struct InstanceGuard(pub Arc<InstanceShared>);

impl Drop for InstanceGuard {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Whether the format allows latency changes while the plugin is active. CLAP does not: there the host is asked for a restart.
pub(super) fn changes_in_place(api: PluginApi) -> bool {
    api != PluginApi::Clap
}
