//! The worker: accepts clients of the same user, and runs their jobs on its device.
//!
//! Each client has a thread, which reads its requests and runs them. The thread that accepts clients also counts up their heartbeats, so that
//! they notice when this process hangs. The worker ends when its last client has gone.

mod session;

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::channel::Channel;
use super::endpoint::{self, Endpoint};
use super::memory::SharedMemory;
use super::protocol::LoadRequest;
use super::turns::Turns;
use crate::live::SharedModel;
use session::Session;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(50);
/// Most clients at a time.
const MAX_CLIENTS: usize = 128;
/// How long a worker waits for its first client.
const FIRST_CLIENT: Duration = Duration::from_secs(20);
/// How long it waits for another client after the last has gone, so that closing and opening a project does not load everything again.
pub const LINGER: Duration = Duration::from_secs(2);

/// Why a worker cannot load a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelFailure {
    /// The checkpoint cannot be used, on any device.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
        /// What the checkpoint contains.
        report: Option<String>,
    },
    /// The device does not work.
    #[error("{0}")]
    Device(String),
}

/// Loads models for the clients of a worker.
pub trait ModelSource: Send + Sync + 'static {
    /// Loads a model, or returns it if it is loaded.
    ///
    /// # Errors
    /// [`ModelFailure`].
    fn load(&self, request: &LoadRequest) -> Result<SharedModel, ModelFailure>;
}

/// How [`serve`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Another process is the worker of this device.
    AlreadyRunning,
    /// The last client has gone.
    NoClients,
}

/// What all sessions share.
pub(super) struct ServerState {
    pub device: String,
    pub models: Box<dyn ModelSource>,
    pub turns: Turns,
    clients: AtomicUsize,
    memories: Mutex<Vec<Weak<SharedMemory>>>,
}

impl ServerState {
    /// Counts up the heartbeat in this memory from now on.
    pub fn keep_alive(&self, memory: &Arc<SharedMemory>) {
        memory.heartbeat().fetch_add(1, Relaxed);
        let mut memories = self.memories.lock();
        memories.retain(|memory| memory.strong_count() > 0);
        memories.push(Arc::downgrade(memory));
    }

    fn beat(&self) {
        for memory in self.memories.lock().iter().filter_map(Weak::upgrade) {
            memory.heartbeat().fetch_add(1, Relaxed);
        }
    }
}

/// Is the worker of `device` until it has had no client for `linger`. Calls `on_ready` when clients can connect.
///
/// # Errors
/// Those of the socket.
pub fn serve(
    endpoint: &Endpoint,
    device: &str,
    models: impl ModelSource,
    linger: Duration,
    on_ready: impl FnOnce(),
) -> io::Result<Ended> {
    let Some(lock) = endpoint.lock()? else { return Ok(Ended::AlreadyRunning) };
    let listener = lock.listen()?;
    listener.set_nonblocking(true)?;
    let state = Arc::new(ServerState {
        device: device.to_owned(),
        models: Box::new(models),
        turns: Turns::default(),
        clients: AtomicUsize::new(0),
        memories: Mutex::default(),
    });
    on_ready();
    let (mut idle_since, mut wait) = (Instant::now(), FIRST_CLIENT.max(linger));
    loop {
        accept_clients(&listener, &state)?;
        state.beat();
        if state.clients.load(Relaxed) > 0 {
            (idle_since, wait) = (Instant::now(), linger);
        } else if idle_since.elapsed() >= wait {
            return Ok(Ended::NoClients);
        }
    }
}

/// Accepts all clients that come until the next heartbeat.
fn accept_clients(listener: &UnixListener, state: &Arc<ServerState>) -> io::Result<()> {
    let until = Instant::now() + HEARTBEAT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = start_session(stream, state) {
                    log::warn!("a client was refused: {error}");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The client has gone, or there are too many open files just now.
            Err(error) => log::warn!("no client could be accepted: {error}"),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn start_session(stream: std::os::unix::net::UnixStream, state: &Arc<ServerState>) -> io::Result<()> {
    endpoint::check_peer(&stream)?;
    let guard = ClientGuard::new(state)?;
    let channel = Channel::new(stream.into())?;
    let shared = state.clone();
    std::thread::Builder::new().name("nullsum-client".into()).spawn(move || {
        let _guard = guard;
        Session::new(channel, shared).run();
    })?;
    Ok(())
}

/// Counts a client as long as it lives.
struct ClientGuard(Arc<ServerState>);

impl ClientGuard {
    fn new(state: &Arc<ServerState>) -> io::Result<Self> {
        let guard = Self(state.clone());
        match state.clients.fetch_add(1, Relaxed) {
            0..MAX_CLIENTS => Ok(guard),
            clients => Err(io::Error::other(format!(
                "{clients} clients are connected: expected fewer than {MAX_CLIENTS}"
            ))),
        }
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Relaxed);
    }
}
