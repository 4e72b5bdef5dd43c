//! State shared by the threads of an instance. The audio thread uses atomics and queues only; the editor's view has a lock of its own.

use std::any::Any;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use atomic_float::AtomicF32;
use crossbeam::channel::{Receiver, Sender, unbounded};
use crossbeam::queue::ArrayQueue;
use nice_plug::prelude::PluginApi;
use nice_plug_egui::{EguiEditorState, RepaintNotifier};
use parking_lot::{Condvar, Mutex};

use super::host_call::HostCall;
use super::owned_thread::{END_TIMEOUT, OwnedThread};
use super::params::{NullsumParams, TierChoice};
use super::platform::window_threads::WindowThreads;
use super::player::Player;
use super::prepared::PreparedShared;
use super::presets::Preset;
use super::routing::Routing;
use super::selection::Selection;
pub(super) use super::stream_state::{ActiveModel, HostConfig, PlanBasis, StreamClient, StreamState};
pub use super::view::{ModelView, PendingPlan, PlanInputs, RenderFailure, StandIn, TierView, View};
#[cfg(test)]
use crate::live::Scheduler;
#[cfg(test)]
use crate::live::Stream;
use crate::live::plan::WindowSpec;

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
    /// Apply the pending plan now, although the latency changes.
    ApplyPending,
    /// Hide the report of an incomplete render.
    DismissRenderFailure,
}

/// The blocks that wake the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum WakingBlocks {
    None = 0,
    /// One while the transport runs.
    Playing = 1,
    /// Any, for a host that has never reported a running transport.
    Any = 2,
}

/// What the user and the host want.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wanted {
    pub tier: TierChoice,
    /// Custom window instead of the tier's.
    pub window: Option<WindowSpec>,
    /// Generation of the selection.
    pub model: u64,
    /// Generation of the device.
    pub device: u64,
}

/// Name of the control thread.
pub const THREAD_NAME: &str = "nullsum-control";

/// Receives dropped files as long as it lives. The shared state only keeps and drops it.
pub(super) type FileDropListener = Option<Box<dyn Any + Send>>;

/// A notification to the host.
pub(super) type HostCallback = Arc<dyn Fn() + Send + Sync>;

/// The state of one instance, shared by its threads and the editor.
pub struct InstanceShared {
    /// Parameters and other saved state.
    pub params: Arc<NullsumParams>,
    /// Stems that were separated before.
    pub(super) prepared: PreparedShared,
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
    thread: Mutex<Option<OwnedThread>>,
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
    /// The host's call, for the audio thread.
    pub(super) host_call: HostCall,
    /// Written by the audio thread: whether the transport runs, and the number of blocks so far.
    transport_playing: AtomicBool,
    blocks: AtomicU64,
    /// Written by the audio thread: the last [`RenderFailure`], 0 for none.
    render_failure: AtomicU8,
    host_announces_offline: AtomicBool,
    /// Written by the audio thread: it has panicked.
    audio_panicked: AtomicBool,
    /// Which blocks wake the control thread, a [`WakingBlocks`]. Written by both threads.
    waking_blocks: AtomicU8,
    /// Written by the audio thread: whether a replaced stream is still heard.
    in_transition: AtomicBool,
    /// How often the control thread has looked.
    #[cfg(test)]
    pub(super) control_passes: AtomicU64,
    /// Name of the track, if the host provides it.
    track_name: Mutex<Option<String>>,
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
            prepared: PreparedShared::default(),
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
            host_call: HostCall::default(),
            transport_playing: AtomicBool::new(false),
            blocks: AtomicU64::new(0),
            render_failure: AtomicU8::new(0),
            host_announces_offline: AtomicBool::new(false),
            audio_panicked: AtomicBool::new(false),
            waking_blocks: AtomicU8::new(0),
            in_transition: AtomicBool::new(false),
            #[cfg(test)]
            control_passes: AtomicU64::new(0),
            track_name: Mutex::default(),
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

    /// Chooses a model. The same model is loaded again: its file may have changed, or the last attempt failed.
    pub fn select(self: &Arc<Self>, selection: Selection) {
        let changed = self.params.model.choose(selection);
        self.send(if changed { ControlCommand::Reconcile } else { ControlCommand::Retry });
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

    /// For threads that must not keep the instance alive.
    pub(super) fn command_sender(&self) -> Sender<ControlCommand> {
        self.commands.0.clone()
    }

    pub(super) fn commands(&self) -> &Receiver<ControlCommand> {
        &self.commands.1
    }

    fn start(self: &Arc<Self>) {
        let mut thread = self.thread.lock();
        if thread.is_none() && !self.is_stopping() {
            let shared = self.clone();
            match OwnedThread::spawn(THREAD_NAME, move || (shared.run_control)(&shared)) {
                Ok(handle) => *thread = Some(handle),
                Err(error) => log::error!("the control thread cannot start: {error}"),
            }
        }
    }

    /// Ends the control thread and the stream, and waits a moment for them. What takes longer ends by itself: the host's main thread must not
    /// wait for a slow disk or model. The editor may still read what is left.
    pub(super) fn stop(&self) {
        let deadline = Instant::now() + END_TIMEOUT;
        self.stopping.store(true, Release);
        let _ = self.commands.0.send(ControlCommand::Reconcile);
        if let Some(thread) = self.thread.lock().take() {
            thread.end_by(deadline);
        }
        self.prepared.stop(deadline);
        self.release_stream(deadline);
    }

    /// Drops streams and model, unless another thread uses them beyond `deadline`. Called again by the control thread when it ends.
    pub(super) fn release_stream(&self, deadline: Instant) {
        if let Some(mut state) = self.stream_state.try_lock_until(deadline) {
            *state = StreamState::default();
        }
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

    /// Realtime-safe: records that a block is processed. Wakes the control thread when the transport starts or stops, or when it waits for
    /// this block.
    pub(super) fn note_block(&self, playing: bool) {
        self.blocks.fetch_add(1, Relaxed);
        let waking = self.waking_blocks.load(Relaxed);
        let is_awaited =
            waking == WakingBlocks::Any as u8 || playing && waking == WakingBlocks::Playing as u8;
        if is_awaited {
            self.waking_blocks.store(WakingBlocks::None as u8, Relaxed);
        }
        if self.transport_playing.swap(playing, Relaxed) != playing || is_awaited {
            self.wake_control();
        }
    }

    /// Sets which blocks wake the control thread, once.
    pub(super) fn wake_at_blocks(&self, waking: WakingBlocks) {
        self.waking_blocks.store(waking as u8, Relaxed);
    }

    /// Realtime-safe: records that the host has reset the plugin.
    pub(super) fn note_reset(&self) {
        if !self.before_first_block.swap(true, Relaxed) {
            self.wake_control();
        }
    }

    /// Realtime-safe: records whether the audio thread waits for the model.
    pub(super) fn note_offline(&self, offline: bool) {
        if self.offline.swap(offline, Relaxed) != offline {
            self.wake_control();
        }
    }

    /// Realtime-safe: records whether a replaced stream is still heard. Its worker's half must not end before.
    pub(super) fn set_in_transition(&self, in_transition: bool) {
        self.in_transition.store(in_transition, Release);
    }

    pub(super) fn is_in_transition(&self) -> bool {
        self.in_transition.load(Acquire)
    }

    /// Whether the transport runs in the latest block, and the number of blocks so far.
    pub(super) fn transport(&self) -> (bool, u64) {
        (self.transport_playing.load(Relaxed), self.blocks.load(Relaxed))
    }

    /// Realtime-safe: has the control thread look soon.
    pub(super) fn wake_control(&self) {
        self.params.wake.set();
    }

    /// Realtime-safe: remembers that this host announces offline rendering. From then on only its announcements count.
    pub(super) fn note_offline_announced(&self) {
        self.host_announces_offline.store(true, Relaxed);
    }

    /// Realtime-safe: whether the host has ever announced to this instance that it renders offline.
    pub(super) fn host_announces_offline(&self) -> bool {
        self.host_announces_offline.load(Relaxed)
    }

    /// Realtime-safe: reports that the current render is incomplete. The control thread logs and shows it.
    pub(super) fn report_render_failure(&self, failure: RenderFailure) {
        self.render_failure.store(failure as u8, Relaxed);
        self.wake_control();
    }

    pub(super) fn take_render_failure(&self) -> Option<RenderFailure> {
        RenderFailure::from_code(self.render_failure.swap(0, Relaxed))
    }

    /// Realtime-safe: reports that the audio thread has panicked.
    pub(super) fn report_audio_panic(&self) {
        self.audio_panicked.store(true, Relaxed);
        self.wake_control();
    }

    pub(super) fn has_audio_panicked(&self) -> bool {
        self.audio_panicked.load(Relaxed)
    }

    /// Sets the parameters of a preset, at once also while the transport runs. For a format's main thread; the editor sets them through the host.
    pub(super) fn apply_preset(&self, preset: &Preset) {
        for (param, value) in preset.values(&self.params) {
            // SAFETY: `params` keeps the parameters alive, and they are atomics.
            unsafe { param._internal_set_normalized_value(value) };
        }
        self.params.mark_user_edits(u32::MAX);
        self.repaint.request_repaint();
    }

    /// Name of the track that the plugin is on, if the host provides it.
    pub fn track_name(&self) -> Option<String> {
        self.track_name.lock().clone()
    }

    /// Sets the name of the track; an empty one is none.
    pub fn set_track_name(&self, name: &str) {
        *self.track_name.lock() = Some(name.trim()).filter(|name| !name.is_empty()).map(str::to_owned);
        self.repaint.request_repaint();
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
        self.wake_control();
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

    /// Waits a moment until closed editors are gone. Main thread.
    pub(super) fn wait_for_editors(&self) {
        let deadline = Instant::now() + END_TIMEOUT;
        let closed = std::mem::take(&mut *self.editor_threads.lock());
        for (threads, _listener) in closed {
            threads.wait_until_gone(deadline);
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
        let shared = (shared, self.editor_threads.lock(), self.track_name.lock());
        let process = (process, Stream::lock_tables());
        let params = (
            self.params.model.lock(),
            self.params.window.lock(),
            self.params.device.lock(),
            self.params.editor.lock(),
        );
        let params = (params, self.params.prepared.lock(), self.prepared.lock_everything());
        (stream_state, message, process, shared, params)
    }

    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            tier: self.params.tier.value(),
            window: self.params.window.lock().map(WindowSpec::clamped),
            model: self.params.model.generation(),
            device: self.params.device.generation(),
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
        let until = std::time::Instant::now() + timeout;
        let ready = self.is_ready() || self.wait_for_model(until);
        if ready {
            self.prepared.wait_until_settled(&self.params.prepared);
        }
        ready
    }

    fn wait_for_model(self: &Arc<Self>, until: std::time::Instant) -> bool {
        self.send(ControlCommand::Reconcile);
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
