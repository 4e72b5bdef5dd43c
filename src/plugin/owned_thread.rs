//! A named thread that its owner ends within a deadline.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::kernels::os::pin_library;

/// How long the host's main thread waits for our threads when it closes an instance, and again when it closes an editor. A thread that needs
/// longer is left to end by itself. Both together stay below 100 ms.
pub(super) const END_TIMEOUT: Duration = Duration::from_millis(40);

/// Interval at which the end of a thread is checked.
const POLL: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct OwnedThread(JoinHandle<()>);

impl OwnedThread {
    /// Starts a thread.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        std::thread::Builder::new().name(name.into()).spawn(body).map(Self)
    }

    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits until `deadline` for the thread to end, after it was told to. If it does not, it is detached, and the library stays loaded for ever,
    /// because the thread still runs its code.
    pub fn end_by(self, deadline: Instant) {
        while !self.0.is_finished() {
            if Instant::now() >= deadline {
                pin_library();
                return;
            }
            std::thread::sleep(POLL);
        }
        // It has ended, so this does not wait. Its panic was reported when it happened.
        let _ = self.0.join();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_does_not_end_is_left_after_the_deadline() {
        let (release, wait) = mpsc::channel::<()>();
        let stuck = OwnedThread::spawn("stuck", move || _ = wait.recv()).unwrap();
        let start = Instant::now();
        stuck.end_by(start + END_TIMEOUT);
        assert!(start.elapsed() >= END_TIMEOUT);
        drop(release);
        let quick = OwnedThread::spawn("quick", || {}).unwrap();
        quick.end_by(Instant::now() + Duration::from_secs(60));
    }
}
