//! A thread that lists folders for the editor. A sleeping disk or a hanging network drive must not block the window.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::files::{Listing, nearest_folder};
use crate::live::{LiveForecast, Scheduler};
use crate::live_cost;
use crate::model::sidecar_config;
use crate::plugin::model_loader::ModelLocations;
use crate::plugin::owned_thread::OwnedThread;
use crate::plugin::selection::Selection;
use crate::registry;

pub const THREAD_NAME: &str = "nullsum-io";
/// How long closing the editor waits for the thread. A sleeping disk may need longer.
const END_TIMEOUT: Duration = Duration::from_millis(20);
/// Time without work of any stream before the computer's speed is measured.
const IDLE_TIME: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, PartialEq)]
pub enum IoRequest {
    ListFolder(PathBuf),
    /// Lists the nearest existing folder above a path, or the home folder.
    ListNearestFolder(Option<PathBuf>),
    /// Finds the YAML file that belongs to a checkpoint.
    FindSidecarConfig(PathBuf),
    /// Reads the recent files, and which registry entries are downloaded.
    ReadCatalog,
    /// Predicts what live use of each registry entry would cost on this computer.
    PredictLiveCosts,
}

#[derive(Clone, Debug)]
pub enum IoResponse {
    Listing(Listing),
    SidecarConfig(PathBuf, Option<PathBuf>),
    /// Recent files that still exist, and a "downloaded" flag per registry entry.
    Catalog(Vec<Selection>, Vec<bool>),
    /// One forecast for each registry entry; none where the sizes of its network or the speed of the computer are not known.
    LiveCosts(Vec<Option<LiveForecast>>),
}

fn handle_request(request: IoRequest) -> IoResponse {
    match request {
        IoRequest::ListFolder(folder) => {
            #[cfg(test)]
            crate::plugin::model_loader::hung_files::wait_if_hung(&folder);
            IoResponse::Listing(Listing::read(folder))
        }
        IoRequest::ListNearestFolder(near) => {
            IoResponse::Listing(Listing::read(nearest_folder(near.as_deref())))
        }
        IoRequest::FindSidecarConfig(checkpoint) => {
            let found = sidecar_config::find_beside(&checkpoint).ok();
            IoResponse::SidecarConfig(checkpoint, found)
        }
        IoRequest::ReadCatalog => {
            let cached =
                registry::entries().iter().map(|entry| registry::cached_files(entry).is_some()).collect();
            IoResponse::Catalog(ModelLocations::read().recent(), cached)
        }
        IoRequest::PredictLiveCosts => {
            let speed = machine_speed();
            let forecast = |entry| speed.and_then(|speed| live_cost::of_entry(entry, speed));
            IoResponse::LiveCosts(registry::entries().iter().map(forecast).collect())
        }
    }
}

/// The speed of this computer. It is measured if nothing plays: a stream that starts ends the measurement, and a later request tries again.
fn machine_speed() -> Option<f64> {
    let known = live_cost::known_speed();
    if known.is_some() || cfg!(test) {
        return known;
    }
    let scheduler = Scheduler::of_process().ok()?;
    let before = scheduler.progress();
    std::thread::sleep(IDLE_TIME);
    live_cost::speed(&|| scheduler.progress() != before).ok()
}

/// Owns the thread, which starts with the first request and ends on drop.
#[derive(Default)]
pub struct IoThread {
    running: Option<Running>,
    /// Requests that have no response yet.
    pending: usize,
}

struct Running {
    request_sender: Sender<IoRequest>,
    responses: Receiver<IoResponse>,
    thread: OwnedThread,
}

impl IoThread {
    pub fn send(&mut self, request: IoRequest) {
        if self.running.is_none() {
            self.running = Running::start().ok();
        }
        if self.running.as_ref().is_some_and(|running| running.request_sender.send(request).is_ok()) {
            self.pending += 1;
        }
    }

    pub fn is_busy(&self) -> bool {
        self.pending > 0
    }

    /// Takes the responses since the last call.
    pub fn take_responses(&mut self) -> Vec<IoResponse> {
        let responses: Vec<IoResponse> =
            self.running.as_ref().map(|running| running.responses.try_iter().collect()).unwrap_or_default();
        self.pending = self.pending.saturating_sub(responses.len());
        responses
    }
}

impl Running {
    fn start() -> std::io::Result<Self> {
        let (request_sender, requests) = unbounded();
        let (response_sender, responses) = unbounded();
        let run = move || {
            while let Ok(request) = requests.recv() {
                let _ = response_sender.send(handle_request(request));
            }
        };
        let thread = OwnedThread::spawn(THREAD_NAME, run)?;
        Ok(Self { request_sender, responses, thread })
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        let Some(Running { request_sender, thread, .. }) = self.running.take() else { return };
        drop(request_sender);
        thread.end_by(Instant::now() + END_TIMEOUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::model_loader::hung_files;

    #[test]
    fn closing_does_not_wait_for_a_hanging_drive() {
        let root = tempfile::tempdir().unwrap();
        hung_files::hang(root.path());
        // Repeated, because a busy computer may suspend this thread at any time.
        let fastest = (0..5).map(|_| {
            let mut io_thread = IoThread::default();
            io_thread.send(IoRequest::ListFolder(root.path().into()));
            std::thread::sleep(Duration::from_millis(20));
            let start = Instant::now();
            drop(io_thread);
            start.elapsed()
        });
        let fastest = fastest.min().unwrap();
        hung_files::release(root.path());
        assert!(fastest < Duration::from_millis(100), "{fastest:?}");
    }

    #[test]
    fn requests_are_answered_in_order_and_drop_ends_the_thread() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.ckpt"), "xy").unwrap();
        let mut io_thread = IoThread::default();
        assert!(!io_thread.is_busy() && io_thread.take_responses().is_empty());
        io_thread.send(IoRequest::ListFolder(root.path().into()));
        io_thread.send(IoRequest::FindSidecarConfig(root.path().join("a.ckpt")));
        let start = Instant::now();
        let mut responses = Vec::new();
        while io_thread.is_busy() && start.elapsed() < Duration::from_secs(20) {
            responses.extend(io_thread.take_responses());
            std::thread::sleep(Duration::from_millis(1));
        }
        let [IoResponse::Listing(listing), IoResponse::SidecarConfig(_, None)] = responses.as_slice() else {
            panic!("{responses:?}")
        };
        assert_eq!((listing.folder.as_path(), listing.items.len()), (root.path(), 1));
    }
}
