//! The crate's own thread pool. All separators of a process share it; it is joined when the last clone is dropped.
//!
//! A pool has a set of threads for each [`lane`](enter_lane), so that light work runs beside heavy work. The sets of all lanes but the first are
//! started when they are needed.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, JoinHandle};

use parking_lot::{Mutex, RwLock};
use rayon::prelude::*;

use super::error::KernelError;
use super::os::{self, Priority};
use super::scratch;

/// Worker threads named `nullsum-0`, `nullsum-1`, …. Clones share the threads; dropping the last clone joins them.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    /// Threads of the first lane.
    first: Threads,
    /// Threads of the other lanes. None if the system could not start them.
    others: [OnceLock<Option<Threads>>; LANES - 1],
    count: usize,
    /// Called before each task of [`Pool::run`].
    pause: RwLock<Option<Pause>>,
}

/// Running threads.
struct Threads {
    /// `None` only while dropping.
    rayon: Option<rayon::ThreadPool>,
    handles: Vec<JoinHandle<()>>,
    /// Priority of the threads. Written by whoever starts work of another kind.
    priority: AtomicU8,
}

/// Number of lanes.
pub const LANES: usize = 3;

/// Called with the lane of the calling thread. Waits while work on another lane needs the processor.
pub type Pause = Arc<dyn Fn(usize) + Send + Sync>;

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// From now on the calling thread's work runs on the threads that pools have for `lane`, below [`LANES`]. Threads are on lane 0 before.
pub fn enter_lane(lane: usize) {
    LANE.set(lane);
}

/// Pools created by [`Pool::shared`], one for each size.
static SHARED: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

impl Pool {
    /// A new pool; 0 threads means one for each available processor.
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        Ok(Self { inner: Arc::new(Inner::new(resolve(threads))?) })
    }

    /// The process-wide pool of that size, started if none is alive.
    pub fn shared(threads: usize) -> Result<Self, KernelError> {
        let threads = resolve(threads);
        // Declared before the lock: if this holds the last clone of a pool, the pool is joined after the lock is released.
        let alive: Vec<Arc<Inner>>;
        let mut shared = SHARED.lock();
        shared.retain(|pool| pool.strong_count() > 0);
        alive = shared.iter().filter_map(Weak::upgrade).collect();
        if let Some(inner) = alive.iter().find(|pool| pool.count == threads) {
            return Ok(Self { inner: Arc::clone(inner) });
        }
        let inner = Arc::new(Inner::new(threads)?);
        shared.push(Arc::downgrade(&inner));
        Ok(Self { inner })
    }

    /// Sets what is called before each task of [`Self::run`], on every thread. It may wait for work on other lanes, and must be cheap when there
    /// is none.
    pub fn set_pause(&self, pause: Option<Pause>) {
        *self.inner.pause.write() = pause;
    }

    /// Whether the calling thread's lane has threads of its own; starts them. Without them its work runs on those of the first lane, which must
    /// then not pause for it.
    pub fn has_own_threads(&self) -> bool {
        self.inner.of_lane(LANE.get()).is_some()
    }

    /// Sets the priority of the threads that work for the caller, if it is not what it was. Call it between pieces of work.
    pub fn set_priority(&self, priority: Priority) {
        let threads = self.inner.threads();
        if threads.priority.swap(priority as u8, Relaxed) != priority as u8
            && let Some(rayon) = &threads.rayon
        {
            rayon.broadcast(|_| os::set_priority(priority));
        }
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        self.inner.count
    }

    /// Runs `f` on a worker, so that rayon's parallel iterators inside it use this pool.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.inner.threads().rayon {
            Some(rayon) => rayon.install(f),
            None => f(),
        }
    }

    /// Runs tasks 0..n, each once and in any order, and waits for all of them.
    pub fn run(&self, tasks: usize, f: impl Fn(usize) + Send + Sync) {
        match tasks {
            0 => {}
            1 => self.install(|| f(0)),
            _ => {
                let (pause, lane) = (self.inner.pause.read().clone(), LANE.get());
                self.install(|| {
                    (0..tasks).into_par_iter().with_max_len(1).for_each(|i| {
                        if let Some(pause) = &pause {
                            pause(lane);
                        }
                        f(i);
                    });
                });
            }
        }
    }

    /// Fills the scratch memory of every worker with NaN, so that a test notices reads of memory that was not written.
    #[doc(hidden)]
    pub fn poison_scratch(&self) {
        if let Some(rayon) = &self.inner.threads().rayon {
            rayon.broadcast(|_| scratch::poison());
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

fn resolve(threads: usize) -> usize {
    if threads == 0 { thread::available_parallelism().map_or(1, usize::from) } else { threads }
}

impl Inner {
    fn new(count: usize) -> Result<Self, KernelError> {
        let first = Threads::start(count, 0)?;
        Ok(Self { first, others: Default::default(), count, pause: RwLock::default() })
    }

    /// The threads that work for the calling thread.
    fn threads(&self) -> &Threads {
        self.of_lane(LANE.get()).unwrap_or(&self.first)
    }

    fn of_lane(&self, lane: usize) -> Option<&Threads> {
        match lane.checked_sub(1) {
            None => Some(&self.first),
            Some(other) => {
                self.others.get(other)?.get_or_init(|| Threads::start(self.count, lane).ok()).as_ref()
            }
        }
    }
}

impl Threads {
    fn start(count: usize, lane: usize) -> Result<Self, KernelError> {
        let mut handles = Vec::with_capacity(count.min(1024));
        let rayon = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .spawn_handler(|worker| {
                // At most 15 characters of a name are shown on Linux.
                let name = match lane {
                    0 => format!("nullsum-{}", worker.index()),
                    _ => format!("nullsum-{}.{lane}", worker.index()),
                };
                let run = move || {
                    enter_lane(lane);
                    worker.run();
                };
                handles.push(thread::Builder::new().name(name).spawn(run)?);
                Ok(())
            })
            .build();
        match rayon {
            Ok(rayon) => {
                Ok(Self { rayon: Some(rayon), handles, priority: AtomicU8::new(Priority::Normal as u8) })
            }
            Err(error) => Err(KernelError::Threads { threads: count, reason: error.to_string() }),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.rayon = None;
        let me = thread::current().id();
        for handle in self.handles.drain(..) {
            // A worker may hold the last clone; it cannot wait for itself.
            if handle.thread().id() != me {
                // A panic of a worker has already surfaced where the task was started.
                drop(handle.join());
            }
        }
    }
}
