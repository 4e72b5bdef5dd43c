//! The threads of a window, on Linux.
//!
//! The window's library gives each window a thread, and its clipboard another. Closing a window asks for their end, but may return before
//! it (`baseview` waits for its thread only where that has not noticed yet): the next window, or the end of the plugin and its library, would
//! meet a thread that is still taking OpenGL apart. So whoever closes a window waits for them here.

#[cfg(target_os = "linux")]
pub use linux::Threads;

/// Elsewhere windows are the main thread's.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Default)]
pub struct Threads;

#[cfg(not(target_os = "linux"))]
impl Threads {
    /// Of the window that is being made on this thread.
    pub fn of_this_window() -> Self {
        Self
    }

    /// Notes those that there are.
    pub fn note(&mut self) {}

    /// Waits until they have gone.
    pub fn wait(self) {}
}

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::{Duration, Instant};

    /// How long a window may take to go. A graphics driver that hangs must not take the host with it.
    const PATIENCE: Duration = Duration::from_secs(5);

    static COUNT: AtomicU32 = AtomicU32::new(0);

    /// Threads that bear a name of the window's own.
    #[derive(Debug)]
    pub struct Threads {
        name: String,
        /// Their numbers; none before they were noted.
        noted: Vec<u32>,
    }

    impl Threads {
        /// Of the window that is being made on this thread. Those that it starts from now on bear its name.
        pub fn of_this_window() -> Self {
            // Names have room for 15 bytes.
            let name = format!("nullsum-w{:x}", COUNT.fetch_add(1, Relaxed) & 0x00ff_ffff);
            if let Ok(text) = std::ffi::CString::new(name.as_str()) {
                // SAFETY: a string that is copied.
                unsafe { libc::prctl(libc::PR_SET_NAME, text.as_ptr()) };
            }
            Self { name, noted: Vec::new() }
        }

        /// Notes those that there are. Before the first picture: a driver's own threads, started while it paints, may stay.
        pub fn note(&mut self) {
            if self.noted.is_empty() {
                self.noted = self.alive();
            }
        }

        fn alive(&self) -> Vec<u32> {
            let numbers = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
            numbers
                .filter_map(|task| task.file_name().to_str()?.parse().ok())
                .filter(|task| self.is_alive(*task))
                .collect()
        }

        fn is_alive(&self, task: u32) -> bool {
            let name = std::fs::read_to_string(format!("/proc/self/task/{task}/comm"));
            name.is_ok_and(|name| name.trim_end() == self.name)
        }

        /// Waits until they have gone.
        pub fn wait(mut self) {
            self.note();
            let start = Instant::now();
            while self.noted.iter().any(|task| self.is_alive(*task)) {
                if start.elapsed() > PATIENCE {
                    nice_plug::prelude::nice_error!("a window does not close");
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn waiting_outlasts_the_window_and_what_it_has_started_before_its_picture() {
            let (told, tell) = std::sync::mpsc::channel();
            let window = std::thread::spawn(move || {
                let mut threads = Threads::of_this_window();
                let (noted, wait) = std::sync::mpsc::channel();
                let early = std::thread::spawn(move || {
                    let _ = wait.recv();
                    std::thread::sleep(Duration::from_millis(300));
                });
                while threads.alive().len() < 2 {
                    std::thread::yield_now();
                }
                threads.note();
                noted.send(()).unwrap();
                let late = std::thread::spawn(|| std::thread::sleep(Duration::from_secs(20)));
                while threads.alive().len() < 3 {
                    std::thread::yield_now();
                }
                told.send(threads).unwrap();
                (early, late)
            });
            let threads = tell.recv().unwrap();
            let name = threads.name.clone();
            let start = Instant::now();
            threads.wait();
            assert!(start.elapsed() < PATIENCE, "{name}");
            let (early, late) = window.join().unwrap();
            assert!(early.is_finished() && !late.is_finished());
        }

        #[test]
        fn a_window_that_has_gone_is_not_waited_for() {
            let threads = std::thread::spawn(Threads::of_this_window).join().unwrap();
            let start = Instant::now();
            threads.wait();
            assert!(start.elapsed() < PATIENCE);
        }
    }
}
