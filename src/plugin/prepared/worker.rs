//! The thread that matches input with prepared songs, reads their stems and records what is new.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::{Duration, Instant};

use super::preparation::{self, Preparation};
use super::{PrepareCommand, PreparedMemory, StoredSong, store};
use crate::plugin::instance_shared::InstanceShared;
use crate::plugin::params::LosslessChoice;
use crate::plugin::routing::Routing;
use crate::prepared::exchange::Exchange;
use crate::prepared::key::Settings;
use crate::prepared::player::{MatchState, Player};
use crate::prepared::recording::Recording;
use crate::prepared::song::Song;
use crate::prepared::store::Store;

/// Longest time between two looks at the input while something plays, and otherwise.
const ACTIVE_WAIT: Duration = Duration::from_millis(2);
const IDLE_WAIT: Duration = Duration::from_millis(20);
/// Interval at which it is checked which songs apply.
const REFRESH_INTERVAL: Duration = Duration::from_millis(200);
/// Most songs of the store, beside those of the project, in which the input is looked for.
const MAX_FOREIGN_SONGS: usize = 12;
/// How long the end of a thread that has nothing left to do is waited for.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);
/// A recording takes at most this part of the store's limit.
const RECORDING_SHARE: u64 = 4;

/// What decides which songs apply.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    sha256: String,
    lossless: bool,
    memory: PreparedMemory,
}

struct Worker {
    shared: Arc<InstanceShared>,
    store: Option<Store>,
    player: Option<Player>,
    exchange: Option<Arc<Exchange>>,
    wanted: Option<Wanted>,
    refreshed: Option<Instant>,
    /// The store changed, so the songs are to be opened again.
    reload: bool,
    missing: usize,
    problem: Option<String>,
}

/// Runs the thread.
pub(super) fn run(shared: &Arc<InstanceShared>) {
    let mut worker = Worker {
        shared: Arc::clone(shared),
        store: store(),
        player: None,
        exchange: None,
        wanted: None,
        refreshed: None,
        reload: false,
        missing: 0,
        problem: None,
    };
    worker.list_store();
    while !shared.prepared.is_stopping() {
        if catch_unwind(AssertUnwindSafe(|| worker.turn())).is_err() {
            // A bug of ours. The live stems go on.
            log::error!("internal error in the thread for prepared stems; they are not used any more");
            worker.player = None;
            shared.prepared.settled.store(true, Release);
            worker.problem = Some("Internal error: prepared stems are not used any more.".into());
            worker.show();
            break;
        }
    }
}

impl Worker {
    fn turn(&mut self) {
        while let Ok(command) = self.shared.prepared.commands.1.try_recv() {
            self.accept(command);
        }
        if self.refreshed.is_none_or(|refreshed| refreshed.elapsed() >= REFRESH_INTERVAL) {
            self.refreshed = Some(Instant::now());
            self.adopt_exchange();
            self.refresh_songs();
            self.show();
        }
        match (&mut self.player, &self.exchange) {
            (Some(player), Some(exchange)) => {
                let any = player.step();
                exchange.wait_for_work(if any { ACTIVE_WAIT } else { IDLE_WAIT });
            }
            _ => std::thread::sleep(IDLE_WAIT),
        }
    }

    fn accept(&mut self, command: PrepareCommand) {
        match command {
            PrepareCommand::Learn(learn) => {
                self.change_memory(|memory| memory.learn = learn);
                self.set_recording();
            }
            PrepareCommand::ForgetHeard => {
                if let Some(player) = &mut self.player {
                    player.set_recording(None);
                }
                self.set_recording();
            }
            PrepareCommand::PrepareHeard => self.prepare(None),
            PrepareCommand::PrepareFile(path) => self.prepare(Some(path)),
            PrepareCommand::Pause(paused) => {
                if let Some((handle, _)) = &*self.shared.prepared.job.lock() {
                    handle.set_paused(paused);
                }
            }
            PrepareCommand::Cancel => {
                if let Some((handle, _)) = &*self.shared.prepared.job.lock() {
                    handle.cancel();
                }
            }
            PrepareCommand::Erase(id) => self.erase(&id),
            PrepareCommand::SetLimit(bytes) => {
                let result = self.store.as_ref().map(|store| store.set_limit(bytes));
                self.problem = result.and_then(Result::err).map(|error| error.to_string());
                (self.reload, self.refreshed) = (true, None);
                self.list_store();
            }
            PrepareCommand::ListStore => self.list_store(),
            PrepareCommand::Prepared { id, at } => {
                self.change_memory(|memory| {
                    memory.songs.insert(id, at);
                });
                (self.reload, self.refreshed) = (true, None);
            }
            PrepareCommand::Ended(problem) => {
                let job = self.shared.prepared.job.lock().take();
                // The thread ends right after it has sent this.
                if let Some((_, thread)) = job {
                    thread.end_by(Instant::now() + JOIN_TIMEOUT);
                }
                self.problem = problem;
                self.list_store();
                (self.reload, self.refreshed) = (true, None);
            }
        }
        self.shared.repaint.request_repaint();
    }

    fn change_memory(&mut self, change: impl FnOnce(&mut PreparedMemory)) {
        let changed = {
            let mut memory = self.shared.params.prepared.lock();
            let before = memory.clone();
            change(&mut memory);
            *memory != before
        };
        if changed {
            self.shared.mark_dirty();
        }
    }

    /// Follows the host to another rate or number of channels.
    fn adopt_exchange(&mut self) {
        let exchange = self.shared.prepared.exchange();
        let is_same = match (&exchange, &self.exchange) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return;
        }
        self.player = exchange.clone().map(Player::new);
        self.exchange = exchange;
        self.wanted = None;
        self.shared.prepared.settled.store(false, Release);
        self.set_recording();
    }

    fn set_recording(&mut self) {
        let learn = self.shared.params.prepared.lock().learn;
        let (Some(player), Some(exchange), Some(store)) = (&mut self.player, &self.exchange, &self.store)
        else {
            return;
        };
        if !learn || player.recording().is_some() {
            return;
        }
        let limit = store.limit() / RECORDING_SHARE;
        match Recording::new(store.folder(), exchange.rate(), exchange.channels(), limit) {
            Ok(recording) => player.set_recording(Some(recording)),
            Err(error) => {
                self.problem =
                    Some(format!("{}: cannot record what is heard: {error}", store.folder().display()));
            }
        }
    }

    /// Opens the songs that apply to the model that plays.
    fn refresh_songs(&mut self) {
        let Some(store) = self.store.clone() else { return };
        let Some(sha256) = self.model_sha256() else { return };
        let lossless = self.shared.params.lossless.value() == LosslessChoice::Spectral;
        let memory = self.shared.params.prepared.lock().clone();
        let wanted = Wanted { sha256, lossless, memory };
        let reload = std::mem::take(&mut self.reload);
        if self.wanted.as_ref() == Some(&wanted) && !reload {
            return;
        }
        let fits = |settings: &Settings, model: &str| {
            model == wanted.sha256 && (settings.lossless != "off") == wanted.lossless
        };
        let mut songs: Vec<Song> = Vec::new();
        self.missing = 0;
        for (id, at) in &wanted.memory.songs {
            match store.open(id) {
                Ok(entry) if fits(&entry.index().key.settings, &entry.index().key.model) => {
                    let strips = strips(&entry.index().stems);
                    songs.push(Song::new(entry, strips, *at));
                }
                Ok(_) => {}
                Err(error) => {
                    log::warn!("prepared stems {id}: {error}");
                    self.missing += 1;
                }
            }
        }
        // Those that other instances and the command line have left.
        let others = store.list().unwrap_or_default().into_iter().filter(|listed| {
            !wanted.memory.songs.contains_key(&listed.id)
                && listed.index.as_ref().is_ok_and(|index| fits(&index.key.settings, &index.key.model))
        });
        for listed in others.take(MAX_FOREIGN_SONGS) {
            if let Ok(entry) = store.open(&listed.id) {
                let strips = strips(&entry.index().stems);
                songs.push(Song::new(entry, strips, None));
            }
        }
        if let Some(player) = &mut self.player {
            player.set_songs(songs);
            self.shared.prepared.settled.store(true, Release);
        }
        self.wanted = Some(wanted);
    }

    /// SHA-256 of the model that plays.
    fn model_sha256(&self) -> Option<String> {
        let state = self.shared.stream_state.lock();
        state.model.as_ref().map(|active| active.loaded.sha256.clone())
    }

    /// Starts to prepare a file, or what was heard.
    fn prepare(&mut self, file: Option<PathBuf>) {
        if self.shared.prepared.job.lock().is_some() {
            self.problem = Some("A preparation runs already. Cancel it first.".into());
            return;
        }
        let model = self
            .shared
            .stream_state
            .lock()
            .model
            .as_ref()
            .map(|active| (active.loaded.clone(), active.title.clone()));
        let (Some((model, model_title)), Some(store), Some(exchange), Some(player)) =
            (model, self.store.clone(), &self.exchange, &mut self.player)
        else {
            self.problem =
                Some("Nothing can be prepared before a model is loaded and the host is running.".into());
            return;
        };
        let preparation = Preparation {
            store,
            model,
            model_title,
            title: self.shared.track_name(),
            lossless: self.shared.params.lossless.value() == LosslessChoice::Spectral,
            rate: exchange.rate(),
            channels: exchange.channels(),
            heard: player.recording().map(|recording| (recording.whole(), recording.heard().clone())),
            file,
        };
        self.problem = None;
        match preparation::start(preparation, self.shared.prepared.commands.0.clone()) {
            Ok(job) => *self.shared.prepared.job.lock() = Some(job),
            Err(error) => self.problem = Some(format!("the preparation cannot start: {error}")),
        }
        self.show();
    }

    fn erase(&mut self, id: &str) {
        // Nothing of it may be open here.
        if let Some(player) = &mut self.player {
            player.set_songs(Vec::new());
        }
        self.change_memory(|memory| {
            memory.songs.remove(id);
        });
        let result = self.store.as_ref().map(|store| store.erase(id));
        self.problem = result.and_then(Result::err).map(|error| error.to_string());
        (self.reload, self.refreshed) = (true, None);
        self.list_store();
    }

    fn list_store(&mut self) {
        let Some(store) = &self.store else { return };
        let listed = store.list().unwrap_or_default();
        let size = listed.iter().map(|entry| entry.bytes).sum();
        let entries = listed.iter().map(StoredSong::of).collect();
        let mut view = self.shared.prepared.view.lock();
        (view.size, view.entries) = (Some((size, store.limit())), entries);
    }

    /// Updates what the editor shows.
    fn show(&mut self) {
        let job = self.shared.prepared.job.lock().as_ref().map(|(handle, _)| Arc::clone(handle));
        let (mut heard, mut prepared, mut state, mut position) =
            (Vec::new(), Vec::new(), MatchState::Idle, None);
        let mut problem = self.problem.clone();
        if let Some(player) = &mut self.player {
            heard = player
                .recording()
                .map(|recording| recording.heard().iter().cloned().collect())
                .unwrap_or_default();
            (state, position) = (player.state(), player.song_position());
            if let Some(error) = player.record_error() {
                problem = Some(format!("recording has ended: {error}"));
            }
            for song in player.songs() {
                let length = i64::try_from(song.entry().index().prepared()).unwrap_or(0);
                if let Some(at) = song.offsets().first().filter(|_| length > 0 && song.problem().is_none()) {
                    prepared.push(*at..*at + length);
                }
                problem = problem.or_else(|| song.problem().map(str::to_owned));
            }
        }
        let mut view = self.shared.prepared.view.lock();
        (view.heard, view.prepared, view.state, view.position) = (heard, prepared, state, position);
        (view.missing, view.job, view.problem) = (self.missing, job, problem);
    }
}

fn strips(stems: &[String]) -> Vec<Option<usize>> {
    let routing = Routing::of(stems);
    (0..stems.len()).map(|stem| routing.strip(stem)).collect()
}
