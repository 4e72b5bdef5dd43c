//! Workers of this build in folders of their own, and their processes.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nullsum::dsp::Random;
use nullsum::live::SharedModel;
use nullsum::separator::{Runtime, Separator};
use nullsum::worker::protocol::LoadRequest;
use nullsum::worker::{Launcher, RemoteModel, RestartPolicy, Supervisor, WorkerError};
use nullsum::{DeviceChoice, embedded};

pub const LONG: Duration = Duration::from_secs(60);

/// A folder for the sockets of a test. Its workers end when it is dropped.
pub struct Workers {
    folder: tempfile::TempDir,
}

impl Workers {
    pub fn new() -> Self {
        // A short path, for the socket.
        Self { folder: tempfile::Builder::new().prefix("ns").tempdir_in("/tmp").unwrap() }
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn launcher(&self) -> Launcher {
        launcher_in(&self.folder())
    }

    /// Processes that serve in this folder.
    pub fn processes(&self) -> Vec<u32> {
        processes_in(&self.folder())
    }

    /// Ends all workers at once.
    pub fn kill(&self) -> usize {
        let processes = self.processes();
        processes.iter().for_each(|process| signal(*process, libc::SIGKILL));
        processes.len()
    }

    pub fn load(&self) -> Result<RemoteModel, WorkerError> {
        self.load_with(RestartPolicy { crashes: 1_000, ..RestartPolicy::default() })
    }

    pub fn load_with(&self, policy: RestartPolicy) -> Result<RemoteModel, WorkerError> {
        RemoteModel::load(self.launcher(), "cpu", request(), policy, &mut go_on())
    }

    pub fn shared(&self, policy: RestartPolicy) -> (SharedModel, std::sync::Arc<Supervisor>) {
        let model = self.load_with(policy).unwrap();
        let supervisor = model.supervisor();
        (SharedModel::new(Box::new(model)), supervisor)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn launcher_in(folder: &Path) -> Launcher {
    Launcher::new(env!("CARGO_BIN_EXE_nullsum-worker").into(), Some(folder.to_path_buf()))
}

fn processes_in(folder: &Path) -> Vec<u32> {
    let folder = folder.to_str().unwrap();
    let of_folder = |process: &u32| {
        let text = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = text.split(|byte| *byte == 0).collect();
        arguments.contains(&b"serve".as_slice())
            && arguments.contains(&b"--foreground".as_slice())
            && arguments.contains(&folder.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(of_folder).collect()
}

pub fn signal(process: u32, signal: i32) {
    // SAFETY: the process is a worker that this test has started.
    unsafe { libc::kill(process as i32, signal) };
}

/// The embedded model on one thread.
pub fn request() -> LoadRequest {
    LoadRequest { checkpoint: None, sha256: embedded::sha256().into(), config: None, threads: 1 }
}

/// The same model in this process.
pub fn local() -> Separator {
    let checkpoint = embedded::checkpoint().unwrap();
    let config = nullsum::registry::load_config(&checkpoint, None, None, &mut |_| None).unwrap();
    let runtime =
        Runtime { device: DeviceChoice::Cpu, threads: 1, auto_may_use_int8: true, ..Runtime::default() };
    Separator::load(&checkpoint, &config, None, runtime).unwrap()
}

pub fn noise(seed: u64, samples: usize) -> Vec<f32> {
    Random::new(seed).noise(samples, 0.5)
}

pub fn bits(samples: &[f32]) -> Vec<u32> {
    samples.iter().map(|x| x.to_bits()).collect()
}

pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Descriptors that a process has open.
pub fn open_files(process: &str) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// Mappings of shared memory in a process.
pub fn shared_mappings(process: &str) -> usize {
    std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap().matches("nullsum-samples").count()
}

/// Waits as long as it takes.
pub fn go_on() -> impl FnMut() -> ControlFlow<()> {
    || ControlFlow::Continue(())
}

/// Cancels when it is asked for the n-th time.
pub fn cancels_after(count: usize) -> impl Fn() -> ControlFlow<()> + Sync {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    move || {
        let before = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if before >= count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
