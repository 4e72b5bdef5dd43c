//! Prepared stems in an instance: what the project remembers of them, the threads, and what the editor shows.
//!
//! The audio thread leaves its input in an [`Exchange`], and the stream's client takes stems from there. A thread of the instance matches the input
//! with what was prepared, reads stems ahead and records what is new; another one separates. Neither exists before it is needed.

mod preparation;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use nice_plug::params::persist::PersistentField;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::instance_shared::{HostConfig, InstanceShared};
use super::owned_thread::OwnedThread;
use super::routing::STRIP_COUNT;
use super::wake_flag::WakeFlag;
use crate::cache_file;
use crate::live::StemOverlay;
use crate::prepared::exchange::Exchange;
use crate::prepared::job::JobHandle;
use crate::prepared::player::MatchState;
use crate::prepared::store::{Listed, Store};

/// Name of the thread that matches and reads stems.
pub const THREAD_NAME: &str = "nullsum-stems";
/// Name of the thread that separates.
pub const JOB_THREAD_NAME: &str = "nullsum-prepare";

/// How long a render waits for the songs of the project to be opened.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a project remembers: keys, no audio.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreparedMemory {
    /// Whether what is played is recorded, to be prepared.
    pub learn: bool,
    /// Prepared songs: the name of the entry, and the song position of its first sample, if the host tells positions.
    pub songs: BTreeMap<String, Option<i64>>,
    /// Settings of later versions, kept as they are.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// [`PreparedMemory`], shared by the host's state, the editor and the threads.
#[derive(Debug, Default)]
pub struct SharedPreparedMemory {
    memory: Mutex<PreparedMemory>,
    /// Set when a host restores a state.
    wake: WakeFlag,
}

impl SharedPreparedMemory {
    pub fn new(wake: WakeFlag) -> Self {
        Self { memory: Mutex::default(), wake }
    }

    pub fn lock(&self) -> MutexGuard<'_, PreparedMemory> {
        self.memory.lock()
    }
}

impl<'a> PersistentField<'a, PreparedMemory> for SharedPreparedMemory {
    fn set(&self, memory: PreparedMemory) {
        *self.lock() = memory;
        self.wake.set();
    }

    fn map<F, R>(&self, f: F) -> R
    where
        F: Fn(&PreparedMemory) -> R,
    {
        f(&self.lock())
    }
}

/// A request to the thread of an instance.
#[derive(Debug)]
pub enum PrepareCommand {
    /// Begins or ends recording.
    Learn(bool),
    /// Forgets what was recorded.
    ForgetHeard,
    /// Prepares what was heard.
    PrepareHeard,
    /// Prepares the file of the track.
    PrepareFile(PathBuf),
    /// Pauses the preparation, or lets it go on.
    Pause(bool),
    /// Ends the preparation. What is done stays.
    Cancel,
    /// Erases stems from the store.
    Erase(String),
    /// Sets the size limit of the store, in bytes.
    SetLimit(u64),
    /// Reads the list of the store again.
    ListStore,
    /// More of a song can be played. From the thread that separates.
    Prepared { id: String, at: Option<i64> },
    /// The preparation has ended, with an error if there was one. From the thread that separates.
    Ended(Option<String>),
}

/// A part of the song, in samples at the host's rate.
pub type SongRange = std::ops::Range<i64>;

/// What the editor shows.
#[derive(Clone, Debug, Default)]
pub struct PreparedView {
    pub state: MatchState,
    /// What was recorded.
    pub heard: Vec<SongRange>,
    /// What is prepared, where song positions are known.
    pub prepared: Vec<SongRange>,
    /// Song position of the input.
    pub position: Option<i64>,
    /// Songs of the project whose stems are not on this computer.
    pub missing: usize,
    /// The preparation that runs.
    pub job: Option<Arc<JobHandle>>,
    /// The last problem.
    pub problem: Option<String>,
    /// Bytes in the store, and its limit.
    pub size: Option<(u64, u64)>,
    /// Entries of the store: name, title, model, bytes.
    pub entries: Vec<StoredSong>,
}

/// An entry of the store, for the eraser.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSong {
    pub id: String,
    pub title: String,
    pub model: String,
    pub bytes: u64,
}

impl StoredSong {
    fn of(listed: &Listed) -> Self {
        let (title, model) = match &listed.index {
            Ok(index) => (index.title.clone(), index.model.clone()),
            Err(error) => ("damaged".into(), error.to_string()),
        };
        Self { id: listed.id.clone(), title, model, bytes: listed.bytes }
    }
}

/// The part of [`InstanceShared`] that concerns prepared stems.
pub struct PreparedShared {
    exchange: Mutex<Option<Arc<Exchange>>>,
    commands: (Sender<PrepareCommand>, Receiver<PrepareCommand>),
    thread: Mutex<Option<OwnedThread>>,
    stopping: AtomicBool,
    /// Whether the songs of the project are open, or known to be missing.
    settled: AtomicBool,
    view: Mutex<PreparedView>,
    /// Runs separations; here so that closing the instance ends it.
    job: Mutex<Option<(Arc<JobHandle>, OwnedThread)>>,
}

impl Default for PreparedShared {
    fn default() -> Self {
        Self {
            exchange: Mutex::default(),
            commands: unbounded(),
            thread: Mutex::default(),
            stopping: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            view: Mutex::default(),
            job: Mutex::default(),
        }
    }
}

impl PreparedShared {
    /// The exchange for a host, the same one as long as rate and channels stay. For the thread that opens streams.
    pub fn overlay(&self, host: HostConfig) -> Arc<dyn StemOverlay> {
        let mut exchange = self.exchange.lock();
        let fits =
            |exchange: &&Arc<Exchange>| exchange.rate() == host.rate && exchange.channels() == host.channels;
        if let Some(exchange) = exchange.as_ref().filter(fits) {
            return exchange.clone();
        }
        let new = Arc::new(Exchange::new(host.rate, host.channels, STRIP_COUNT));
        *exchange = Some(new.clone());
        new
    }

    /// The exchange of the streams that were opened last.
    pub fn exchange(&self) -> Option<Arc<Exchange>> {
        self.exchange.lock().clone()
    }

    /// A copy of what the editor shows.
    pub fn view(&self) -> PreparedView {
        self.view.lock().clone()
    }

    /// Waits until the songs of the project are open, once and for a limited time. For offline rendering only.
    pub fn wait_until_settled(&self, memory: &SharedPreparedMemory) {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        while !self.settled.load(Acquire) && !memory.lock().songs.is_empty() && !self.is_stopping() {
            if Instant::now() >= deadline {
                log::warn!("prepared stems were not ready in time; this render uses the live model");
                // The next block must not wait again.
                self.settled.store(true, Release);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes every lock.
    #[cfg(test)]
    pub fn lock_everything(&self) -> impl Sized {
        (self.exchange.lock(), self.thread.lock(), self.view.lock(), self.job.lock())
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    /// Ends all threads, and waits for them until `deadline`.
    pub fn stop(&self, deadline: Instant) {
        self.stopping.store(true, Release);
        let job = self.job.lock().take();
        if let Some((handle, _)) = &job {
            handle.cancel();
        }
        if let Some(thread) = self.thread.lock().take() {
            thread.end_by(deadline);
        }
        if let Some((_, thread)) = job {
            thread.end_by(deadline);
        }
    }
}

/// The store on this computer.
fn store() -> Option<Store> {
    cache_file::folder().map(|cache| Store::in_cache(&cache))
}

/// Sends a request, and starts the thread if needed.
pub fn send(shared: &Arc<InstanceShared>, command: PrepareCommand) {
    start(shared);
    // We hold a receiver, so this cannot fail.
    let _ = shared.prepared.commands.0.send(command);
}

/// Starts the thread if the project has prepared songs or records. For the control thread.
pub fn start_if_wanted(shared: &Arc<InstanceShared>) {
    let is_wanted = {
        let memory = shared.params.prepared.lock();
        memory.learn || !memory.songs.is_empty()
    };
    if is_wanted {
        start(shared);
    }
}

fn start(shared: &Arc<InstanceShared>) {
    let mut thread = shared.prepared.thread.lock();
    if thread.is_none() && !shared.prepared.is_stopping() {
        let owner = Arc::clone(shared);
        match OwnedThread::spawn(THREAD_NAME, move || worker::run(&owner)) {
            Ok(handle) => *thread = Some(handle),
            Err(error) => log::error!("the thread for prepared stems cannot start: {error}"),
        }
    }
}
