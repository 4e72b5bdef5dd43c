//! The crate's own thread pool. All separators of a process share it; it is joined when the last clone is dropped.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Weak};
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
    /// `None` only while dropping.
    rayon: Option<rayon::ThreadPool>,
    handles: Vec<JoinHandle<()>>,
    threads: usize,
    /// Called before each task of [`Pool::run`].
    interrupt: RwLock<Option<Interrupt>>,
    /// Priority of the threads. Written by whoever starts work of another kind.
    priority: AtomicU8,
}

/// Runs urgent work of others, on a worker, between two tasks.
pub type Interrupt = Arc<dyn Fn() + Send + Sync>;

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
        if let Some(inner) = alive.iter().find(|pool| pool.threads == threads) {
            return Ok(Self { inner: Arc::clone(inner) });
        }
        let inner = Arc::new(Inner::new(threads)?);
        shared.push(Arc::downgrade(&inner));
        Ok(Self { inner })
    }

    /// Sets what is called before each task of [`Self::run`]. It may run other work on this pool, so that light work need not wait for the
    /// end of a heavy layer. It is called on every worker, and must be cheap when there is nothing to do.
    pub fn set_interrupt(&self, interrupt: Option<Interrupt>) {
        *self.inner.interrupt.write() = interrupt;
    }

    /// Sets the priority of all threads, if it is not what it was. Call it between pieces of work.
    pub fn set_priority(&self, priority: Priority) {
        if self.inner.priority.swap(priority as u8, Relaxed) != priority as u8
            && let Some(rayon) = &self.inner.rayon
        {
            rayon.broadcast(|_| os::set_priority(priority));
        }
    }

    /// Number of worker threads.
    pub fn threads(&self) -> usize {
        self.inner.threads
    }

    /// Runs `f` on a worker, so that rayon's parallel iterators inside it use this pool.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.inner.rayon {
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
                let interrupt = self.inner.interrupt.read().clone();
                self.install(|| {
                    (0..tasks).into_par_iter().with_max_len(1).for_each(|i| {
                        if let Some(interrupt) = &interrupt {
                            interrupt();
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
        if let Some(rayon) = &self.inner.rayon {
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
    fn new(threads: usize) -> Result<Self, KernelError> {
        let mut handles = Vec::with_capacity(threads.min(1024));
        let rayon = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .spawn_handler(|worker| {
                let name = format!("nullsum-{}", worker.index());
                handles.push(thread::Builder::new().name(name).spawn(|| worker.run())?);
                Ok(())
            })
            .build();
        match rayon {
            Ok(rayon) => Ok(Self {
                rayon: Some(rayon),
                handles,
                threads,
                interrupt: RwLock::default(),
                priority: AtomicU8::new(Priority::Normal as u8),
            }),
            Err(error) => Err(KernelError::Threads { threads, reason: error.to_string() }),
        }
    }
}

impl Drop for Inner {
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
