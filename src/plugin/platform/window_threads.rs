//! Waiting for the threads of a closed editor window, on Linux.
//!
//! `baseview` runs each window and its clipboard on threads of their own. Closing a window asks these threads to end but may return before they do.
//! Unloading the plugin would then take their code away. So the code that closes a window waits here, but not for long, since it is the host's
//! main thread. After that the threads end by themselves, and the library stays loaded.

#[cfg(target_os = "linux")]
pub use linux::WindowThreads;

/// On other systems, windows run on the main thread.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Default)]
pub struct WindowThreads;

#[cfg(not(target_os = "linux"))]
impl WindowThreads {
    /// Does nothing on this system.
    pub fn name_current_thread() -> Self {
        Self
    }

    pub fn record(&mut self) {}

    pub fn wait_until_gone(self, _deadline: std::time::Instant) {}
}

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::{Duration, Instant};

    use crate::kernels::os::pin_library;

    static COUNT: AtomicU32 = AtomicU32::new(0);

    /// The threads of one window, found by a name that is unique to the window.
    #[derive(Debug)]
    pub struct WindowThreads {
        name: String,
        /// Thread ids; empty until [`record`](Self::record).
        recorded: Vec<u32>,
    }

    impl WindowThreads {
        /// Gives the current thread a unique name. Threads inherit it, so every thread started from now on has it too.
        pub fn name_current_thread() -> Self {
            // Linux limits thread names to 15 bytes.
            let name = format!("nullsum-w{:x}", COUNT.fetch_add(1, Relaxed) & 0x00ff_ffff);
            if let Ok(text) = std::ffi::CString::new(name.as_str()) {
                // SAFETY: the string is null-terminated and prctl copies it.
                unsafe { libc::prctl(libc::PR_SET_NAME, text.as_ptr()) };
            }
            Self { name, recorded: Vec::new() }
        }

        /// Records the threads that run now. Call it before the first frame: threads that the graphics driver starts while drawing may outlive
        /// the window.
        pub fn record(&mut self) {
            if self.recorded.is_empty() {
                self.recorded = self.running();
            }
        }

        fn running(&self) -> Vec<u32> {
            let numbers = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
            numbers
                .filter_map(|task| task.file_name().to_str()?.parse().ok())
                .filter(|task| self.is_running(*task))
                .collect()
        }

        fn is_running(&self, task: u32) -> bool {
            let name = std::fs::read_to_string(format!("/proc/self/task/{task}/comm"));
            name.is_ok_and(|name| name.trim_end() == self.name)
        }

        /// Waits until the threads have ended, but not beyond `deadline`. If they have not, the library stays loaded for ever.
        pub fn wait_until_gone(mut self, deadline: Instant) {
            self.record();
            while self.recorded.iter().any(|task| self.is_running(*task)) {
                if Instant::now() >= deadline {
                    log::info!("threads of the editor's window are still ending");
                    pin_library();
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const PATIENCE: Duration = Duration::from_secs(5);

        #[test]
        fn waiting_outlasts_the_window_and_what_it_has_started_before_its_picture() {
            let (ready_sender, ready) = std::sync::mpsc::channel();
            let window = std::thread::spawn(move || {
                let mut threads = WindowThreads::name_current_thread();
                let (recorded, wait) = std::sync::mpsc::channel();
                let early = std::thread::spawn(move || {
                    let _ = wait.recv();
                    std::thread::sleep(Duration::from_millis(300));
                });
                while threads.running().len() < 2 {
                    std::thread::yield_now();
                }
                threads.record();
                recorded.send(()).unwrap();
                let late = std::thread::spawn(|| std::thread::sleep(Duration::from_secs(20)));
                while threads.running().len() < 3 {
                    std::thread::yield_now();
                }
                ready_sender.send(threads).unwrap();
                (early, late)
            });
            let threads = ready.recv().unwrap();
            let name = threads.name.clone();
            let start = Instant::now();
            threads.wait_until_gone(start + PATIENCE);
            assert!(start.elapsed() < PATIENCE, "{name}");
            let (early, late) = window.join().unwrap();
            assert!(early.is_finished() && !late.is_finished());
        }

        #[test]
        fn a_window_that_hangs_is_left_after_the_deadline() {
            let (release, wait) = std::sync::mpsc::channel::<()>();
            let (sender, receiver) = std::sync::mpsc::channel();
            let window = std::thread::spawn(move || {
                let mut threads = WindowThreads::name_current_thread();
                threads.record();
                sender.send(threads).unwrap();
                let _ = wait.recv();
            });
            let threads = receiver.recv().unwrap();
            let start = Instant::now();
            threads.wait_until_gone(start + Duration::from_millis(20));
            assert!(start.elapsed() >= Duration::from_millis(20) && !window.is_finished());
            drop(release);
            window.join().unwrap();
        }

        #[test]
        fn a_window_that_has_gone_is_not_waited_for() {
            let threads = std::thread::spawn(WindowThreads::name_current_thread).join().unwrap();
            let start = Instant::now();
            threads.wait_until_gone(start + PATIENCE);
            assert!(start.elapsed() < PATIENCE);
        }
    }
}
