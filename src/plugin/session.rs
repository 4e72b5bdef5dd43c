//! What the halves of an instance share: the audio thread's side in atomics and queues, the editor's view behind a lock of its own.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use atomic_float::AtomicF32;
use crossbeam::channel::{Receiver, Sender, unbounded};
use crossbeam::queue::ArrayQueue;
use nice_plug::prelude::{PluginApi, nice_error};
use nice_plug_egui::{EguiEditorState, RepaintNotifier};
use parking_lot::{Condvar, Mutex};

use super::control;
use super::editor::drop::Listener;
use super::editor::threads::Threads;
use super::library::{Loaded, OpenError, Step};
use super::params::{NullsumParams, TierChoice};
use super::player::Player;
use super::selection::Selection;
use super::slot::Routing;
#[cfg(test)]
use crate::stream::Scheduler;
use crate::stream::plan::{Measured, Shape};
use crate::stream::{Client, HostSamples, ModelTiming, Plan, PlanRequest, Status, Stream, Tier};

/// Name of the control thread.
pub const THREAD_NAME: &str = "nullsum-control";

/// How the host runs an instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host {
    /// Sample rate in Hz.
    pub rate: u32,
    /// Largest block.
    pub max_block: u32,
    /// Channels of the main input and output.
    pub channels: usize,
    /// The plugin format.
    pub api: PluginApi,
    /// Whether it has said that it renders.
    pub offline: bool,
}

/// A stream's audio half on its way to the audio thread.
pub struct Live {
    /// The client.
    pub client: Client,
    /// Latency in host samples.
    pub latency: u32,
}

/// What the control thread is told.
#[derive(Debug)]
pub enum Command {
    /// Look whether what is wanted is what there is.
    Look,
    /// Fetch the selected model of the registry.
    Fetch,
    /// Try the selected model again.
    Retry,
    /// Measure the device anew.
    Calibrate,
}

/// What the editor shows of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ModelView {
    /// Nothing was asked for yet.
    #[default]
    Idle,
    /// It is being fetched or loaded.
    Loading(Option<Step>),
    /// The device is being measured.
    Measuring,
    /// It runs.
    Ready {
        /// Device, kernel, threads.
        runs_on: String,
        /// Names of its stems.
        stems: Vec<String>,
        /// Licence of the weights, where it is known.
        licence: Option<String>,
    },
    /// There is none, and why.
    Failed(OpenError),
    /// It is fine, but there is no stream for it.
    Unplanned(String),
}

/// What the editor shows of a tier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierView {
    /// The tier.
    pub tier: Tier,
    /// Its latency in milliseconds.
    pub latency_ms: f64,
    /// Share of real time it is expected to take; none before the device was measured.
    pub load: Option<f64>,
}

/// What an editor may know, made by the control thread.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The model.
    pub model: ModelView,
    /// What plays in place of a model that could not be loaded.
    pub stand_in: Option<StandIn>,
    /// The tier that runs.
    pub tier: Option<Tier>,
    /// All tiers.
    pub tiers: Vec<TierView>,
    /// What other windows would cost.
    pub facts: Option<Facts>,
    /// Latency that runs, in milliseconds.
    pub latency_ms: f64,
    /// The host's sample rate.
    pub host_rate: u32,
    /// Whether the audio thread waits for the model.
    pub renders: bool,
    /// Whether the host was asked to start anew, to change the latency.
    pub restart_pending: bool,
    /// Which stem is in which slot.
    pub routing: Option<Routing>,
    /// Counters, meters and scope of the stream.
    pub status: Option<Arc<Status>>,
}

impl View {
    /// Names of the stems that are made now; none where no model runs.
    pub fn stems(&self) -> Option<&[String]> {
        match (&self.model, &self.stand_in) {
            (ModelView::Ready { stems, .. }, _) | (ModelView::Failed(_), Some(StandIn { stems, .. })) => {
                Some(stems)
            }
            _ => None,
        }
    }
}

/// A model that plays in place of another.
#[derive(Clone, Debug, PartialEq)]
pub struct StandIn {
    /// Its title.
    pub title: String,
    /// Names of its stems.
    pub stems: Vec<String>,
}

/// What the user and the host want.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wanted {
    pub tier: TierChoice,
    /// Set by hand, in place of the tier's.
    pub window: Option<Shape>,
    /// Generation of the selection.
    pub model: u64,
}

/// What latencies and loads follow from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// Of the model.
    pub timing: ModelTiming,
    /// The host's sample rate in Hz.
    pub host_rate: u32,
    /// The host's largest block.
    pub block: HostSamples,
    /// What was measured on this computer; none before.
    pub measured: Option<Measured>,
}

impl Facts {
    /// Latency in milliseconds and load of a request; none where it has no plan.
    fn weigh(&self, request: PlanRequest, load: impl Fn(Measured) -> f64) -> Option<(f64, Option<f64>)> {
        Some((Plan::new(request).ok()?.latency_ms(), self.measured.map(load)))
    }

    /// Of a window set by hand.
    pub fn of_window(&self, shape: Shape) -> Option<(f64, Option<f64>)> {
        let request = shape.request(&self.timing, self.host_rate, self.block);
        self.weigh(request, |measured| shape.load(&self.timing, measured))
    }

    /// Of all tiers.
    pub(super) fn of_tiers(&self) -> Vec<TierView> {
        let view = |tier: Tier| {
            let request = tier.request(&self.timing, self.host_rate, self.block);
            let (latency_ms, load) = self.weigh(request, |measured| tier.load(&self.timing, measured))?;
            Some(TierView { tier, latency_ms, load })
        };
        Tier::ALL.into_iter().filter_map(view).collect()
    }
}

/// A model, and what it plays for.
#[derive(Debug)]
pub(super) struct Held {
    /// The model.
    pub loaded: Loaded,
    /// Its title.
    pub title: String,
    /// Generation of the selection that it plays for: its own, or a later one that could not be loaded.
    pub plays_for: u64,
}

/// What belongs to the stream's owner: the main thread while it activates, else the control thread.
#[derive(Default)]
pub(super) struct Owner {
    pub host: Option<Host>,
    pub stream: Option<Stream>,
    /// The one that still plays, while the audio thread has not taken the new one.
    pub before: Option<Stream>,
    pub plan: Option<Plan>,
    pub tier: Option<Tier>,
    pub model: Option<Held>,
    /// What the tier Auto goes by.
    pub measured: Option<Measured>,
    /// Generation of the selection at the last activation.
    pub planned_for: Option<u64>,
}

/// Tells the host something.
pub(super) type Announce = Arc<dyn Fn() + Send + Sync>;

/// One instance.
pub struct Session {
    /// Parameters and state.
    pub params: Arc<NullsumParams>,
    /// Makes the editor draw at once. Realtime-safe.
    pub(super) repaint: RepaintNotifier,
    /// Audio halves of new streams; the audio thread takes them where the format lets the latency change in place.
    pub(super) handoff: ArrayQueue<Box<Live>>,
    /// Audio halves that the audio thread has done with: dropping them is not its work.
    pub(super) retired: ArrayQueue<Box<Live>>,
    pub(super) owner: Mutex<Owner>,
    view: Mutex<View>,
    player: Option<Player>,
    commands: (Sender<Command>, Receiver<Command>),
    thread: Mutex<Option<JoinHandle<()>>>,
    stopping: AtomicBool,
    routing: AtomicU64,
    /// Whether the host is to be asked to start the plugin anew, and how.
    restart: AtomicBool,
    restarter: Mutex<Option<Announce>>,
    /// Samples of latency that the stream has which plays now.
    latency: AtomicU32,
    /// Whether the host is to be told of them, and how: by the control thread, since the audio thread must not.
    latency_untold: AtomicBool,
    announce: Mutex<Option<Announce>>,
    /// How the host is told that there is something to save.
    unsaved: Mutex<Option<Announce>>,
    /// Size and scale of the editor's window.
    window: OnceLock<Arc<EguiEditorState>>,
    /// Threads of windows that were opened, and who listens for files dropped on them.
    window_threads: Mutex<Vec<(Threads, Option<Listener>)>>,
    /// Audio thread: it waits for the model.
    pub(super) renders: AtomicBool,
    /// Audio thread: nothing was processed since the last reset.
    pub(super) fresh: AtomicBool,
    /// Peak of each channel of the main output since the editor looked. Audio thread.
    output_peaks: [AtomicF32; 2],
    /// Tier and selection that the control thread has seen to.
    settled: (Mutex<Option<Wanted>>, Condvar),
}

impl Session {
    /// An instance with nothing running: no thread, no model.
    pub(super) fn new(params: Arc<NullsumParams>, player: Option<Player>) -> Arc<Self> {
        Arc::new(Self {
            params,
            repaint: RepaintNotifier::new(),
            handoff: ArrayQueue::new(1),
            retired: ArrayQueue::new(8),
            owner: Mutex::default(),
            view: Mutex::default(),
            player,
            commands: unbounded(),
            thread: Mutex::new(None),
            stopping: AtomicBool::new(false),
            routing: AtomicU64::new(Routing::NONE.pack()),
            restart: AtomicBool::new(false),
            restarter: Mutex::default(),
            latency: AtomicU32::new(0),
            latency_untold: AtomicBool::new(false),
            announce: Mutex::default(),
            unsaved: Mutex::default(),
            window: OnceLock::new(),
            window_threads: Mutex::default(),
            renders: AtomicBool::new(false),
            fresh: AtomicBool::new(true),
            output_peaks: Default::default(),
            settled: (Mutex::new(None), Condvar::new()),
        })
    }

    /// The file player of the app.
    pub fn player(&self) -> Option<&Player> {
        self.player.as_ref()
    }

    /// What to show now.
    pub fn view(&self) -> View {
        self.view.lock().clone()
    }

    /// Changes what is shown.
    pub(super) fn show(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock());
    }

    /// Chooses another model.
    pub fn select(self: &Arc<Self>, selection: Selection) {
        self.params.model.choose(selection);
        self.send(Command::Look);
    }

    /// Tells the control thread, which is started if need be.
    pub fn send(self: &Arc<Self>, command: Command) {
        self.start();
        if matches!(command, Command::Fetch | Command::Retry) {
            // From now on, not from when it is heard.
            self.unsettle();
        }
        // It holds a receiver itself, so this cannot fail.
        let _ = self.commands.0.send(command);
    }

    pub(super) fn commands(&self) -> &Receiver<Command> {
        &self.commands.1
    }

    fn start(self: &Arc<Self>) {
        let mut thread = self.thread.lock();
        if thread.is_none() && !self.is_stopping() {
            let session = self.clone();
            match std::thread::Builder::new().name(THREAD_NAME.into()).spawn(move || control::run(&session)) {
                Ok(handle) => *thread = Some(handle),
                Err(error) => nice_error!("the control thread does not start: {error}"),
            }
        }
    }

    /// Ends the control thread and the stream. The editor may go on to look at what is left.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Release);
        let _ = self.commands.0.send(Command::Look);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        *self.owner.lock() = Owner::default();
        while self.handoff.pop().is_some() || self.retired.pop().is_some() {}
    }

    /// Whether the instance ends.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    /// Which stem is in which slot. Realtime-safe.
    pub fn routing(&self) -> Routing {
        Routing::unpack(self.routing.load(Relaxed))
    }

    pub(super) fn set_routing(&self, routing: Routing) {
        self.routing.store(routing.pack(), Relaxed);
    }

    /// Notes the peaks of a block of the main output. Realtime-safe.
    pub(super) fn note_output(&self, main: &[&mut [f32]]) {
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

    /// Sets how the host is asked to start the plugin anew.
    pub(super) fn set_restarter(&self, announce: Option<Announce>) {
        *self.restarter.lock() = announce;
    }

    /// Whether the host is to be asked to start the plugin anew.
    pub(super) fn want_restart(&self, wanted: bool) {
        self.restart.store(wanted, Release);
    }

    /// Asks the host to start the plugin anew where that is wanted. Not under the owner's lock, which the start takes.
    pub(super) fn tell_restart(&self) {
        if self.restart.swap(false, Acquire)
            && let Some(announce) = self.restarter.lock().clone()
        {
            announce();
        }
    }

    /// Samples of latency. Realtime-safe.
    pub(super) fn latency(&self) -> u32 {
        self.latency.load(Relaxed)
    }

    /// Notes the latency. Realtime-safe.
    pub(super) fn set_latency(&self, samples: u32) {
        self.latency.store(samples, Relaxed);
    }

    /// Has the control thread tell the host of the latency, soon. Realtime-safe.
    pub(super) fn want_latency_told(&self) {
        self.latency_untold.store(true, Release);
    }

    /// Sets how the host is told of a latency.
    pub(super) fn set_announce(&self, announce: Option<Announce>) {
        *self.announce.lock() = announce;
    }

    /// Tells the host of the latency where that is wanted. Not under the lock, so that a host may end the instance meanwhile.
    pub(super) fn tell_latency(&self) {
        if self.latency_untold.swap(false, Acquire)
            && let Some(announce) = self.announce.lock().clone()
        {
            announce();
        }
    }

    /// Sets how the host is told that there is something to save.
    pub(super) fn set_unsaved(&self, announce: Option<Announce>) {
        *self.unsaved.lock() = announce;
    }

    /// Tells the host that the user has changed what is saved and is no parameter: it would close the project without a question.
    pub(super) fn tell_unsaved(&self) {
        let announce = self.unsaved.lock().clone();
        if let Some(announce) = announce {
            announce();
        }
    }

    /// Size and scale of the editor's window; none where there is no editor.
    pub(super) fn window(&self) -> &OnceLock<Arc<EguiEditorState>> {
        &self.window
    }

    /// A window opens, on this thread.
    pub(super) fn note_window(&self, threads: Threads, listener: Option<Listener>) {
        self.window_threads.lock().push((threads, listener));
    }

    /// It is about to be drawn for the first time.
    pub(super) fn note_window_threads(&self) {
        if let Some((threads, _)) = self.window_threads.lock().last_mut() {
            threads.note();
        }
    }

    /// Waits until windows that were closed have gone. On the host's main thread.
    pub(super) fn wait_for_windows(&self) {
        let closed = std::mem::take(&mut *self.window_threads.lock());
        for (threads, _listener) in closed {
            threads.wait();
        }
    }

    /// Holds every lock that there is on the way of an instance, but those of the framework.
    #[cfg(test)]
    pub(super) fn hold_every_lock(&self) -> impl Sized {
        let owner = self.owner.lock();
        let stream = owner.stream.as_ref().map(Stream::status);
        // The status outlives its guard only for the length of a test.
        let message = stream.map(|status| Box::leak(Box::new(status)).hold());
        let process = Scheduler::hold_process();
        let session = (
            self.view.lock(),
            self.thread.lock(),
            self.settled.0.lock(),
            self.announce.lock(),
            self.unsaved.lock(),
            self.restarter.lock(),
        );
        let session = (session, self.window_threads.lock());
        let process = (process, Stream::hold_tables());
        let params = (self.params.model.hold(), self.params.window.lock(), self.params.editor.lock());
        (owner, message, process, session, params)
    }

    /// What is wanted now.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            tier: self.params.tier.value(),
            window: self.params.window.lock().map(Shape::sane),
            model: self.params.model.generation(),
        }
    }

    pub(super) fn set_settled(&self, wanted: Wanted) {
        *self.settled.0.lock() = Some(wanted);
        self.settled.1.notify_all();
    }

    /// Says that something is on its way which a render waits for.
    pub(super) fn unsettle(&self) {
        *self.settled.0.lock() = None;
    }

    /// Whether the control thread has done all that is wanted. May wait for a lock: for rendering only.
    pub(super) fn is_settled(&self) -> bool {
        *self.settled.0.lock() == Some(self.wanted())
    }

    /// Waits until the control thread has done what is wanted, at most `patience`. For rendering only.
    pub(super) fn wait_until_settled(self: &Arc<Self>, patience: std::time::Duration) -> bool {
        if self.is_settled() {
            return true;
        }
        self.send(Command::Look);
        let until = std::time::Instant::now() + patience;
        let mut settled = self.settled.0.lock();
        while *settled != Some(self.wanted()) {
            if self.is_stopping() || self.settled.1.wait_until(&mut settled, until).timed_out() {
                return false;
            }
        }
        true
    }
}

/// A handle that ends the instance when the plugin is dropped, whoever else still looks at it.
pub(super) struct Guard(pub Arc<Session>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Whether latency may change while a plugin of this format is active. CLAP says no: there the host is asked to start the plugin anew.
pub(super) fn changes_in_place(api: PluginApi) -> bool {
    api != PluginApi::Clap
}
