//! Finds the worker's program and starts it.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::error::WorkerError;
use super::protocol::shorten;

/// Environment variable with the path of the program.
pub const ENV: &str = "NULLSUM_WORKER";
/// Name of the program, and of its optional build for NVIDIA's GPUs.
const NAMES: [&str; 2] = ["nullsum-worker", "nullsum-worker-cuda"];
/// What it prints when clients can connect.
pub const READY: &str = "ready";
/// Longest time to start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Longest time to list devices: drivers take a while to start.
const LIST_LIMIT: Duration = Duration::from_secs(20);
/// Most bytes that the program prints.
const MAX_OUTPUT: u64 = 64 << 10;
/// Attempts to connect to a worker that may end or start at the same time.
const ATTEMPTS: usize = 4;

/// A device of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerDevice {
    /// Name, such as `cuda:0`.
    pub name: String,
    /// Name and memory, for display; or why it cannot be used.
    pub description: String,
    /// Whether it can be used.
    pub works: bool,
}

/// Where workers are started, and from which program.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
    /// Folder of the sockets; none for the user's runtime folder.
    folder: Option<PathBuf>,
}

impl Launcher {
    /// Starts `program`. `folder`: where its sockets are, by default the user's runtime folder.
    pub fn new(program: PathBuf, folder: Option<PathBuf>) -> Self {
        Self { program, folder }
    }

    /// The place of the worker of `device`.
    ///
    /// # Errors
    /// If the folder cannot be used.
    pub fn endpoint(&self, device: &str) -> Result<Endpoint, WorkerError> {
        let endpoint = match &self.folder {
            Some(folder) => Endpoint::in_folder(folder, device),
            None => Endpoint::of(device),
        };
        Ok(endpoint?)
    }

    /// Connects to the worker of `device`, which is started if none runs.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn connect(&self, device: &str) -> Result<Connection, WorkerError> {
        let endpoint = self.endpoint(device)?;
        let mut last = WorkerError::NotRunning { device: device.to_owned() };
        for attempt in 0..ATTEMPTS {
            match Connection::open(&endpoint, device) {
                Ok(connection) => return Ok(connection),
                // None runs, or one is just ending.
                Err(error) if error.is_crash() => last = error,
                Err(error) => return Err(error),
            }
            if attempt + 1 < ATTEMPTS {
                self.start(device)?;
            }
        }
        Err(last)
    }

    /// Starts a worker for `device`. It leaves this process's family at once, so that a host neither waits for it nor ends it. If another
    /// one runs already, it ends again.
    ///
    /// # Errors
    /// [`WorkerError::Start`].
    pub fn start(&self, device: &str) -> Result<(), WorkerError> {
        let mut arguments: Vec<OsString> = vec!["serve".into(), "--device".into(), device.into()];
        if let Some(folder) = &self.folder {
            arguments.extend(["--folder".into(), folder.clone().into()]);
        }
        let said = self.output(&arguments, START_LIMIT)?;
        match said.lines().next() {
            Some(READY) => Ok(()),
            reason => Err(self.start_error(reason.unwrap_or("it ended without a word"))),
        }
    }

    /// The devices of this program.
    ///
    /// # Errors
    /// [`WorkerError::Start`].
    pub fn devices(&self) -> Result<Vec<WorkerDevice>, WorkerError> {
        let said = self.output(&["devices".into()], LIST_LIMIT)?;
        serde_json::from_str(&said)
            .map_err(|error| self.start_error(&format!("it lists no devices: {error}")))
    }

    fn start_error(&self, reason: &str) -> WorkerError {
        WorkerError::Start { program: self.program.display().to_string(), reason: shorten(reason) }
    }

    /// Runs the program, and returns its first line, or all that it prints until it closes its output.
    fn output(&self, arguments: &[OsString], limit: Duration) -> Result<String, WorkerError> {
        let mut command = Command::new(&self.program);
        // Its folder stays free to be unmounted.
        command.args(arguments).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| self.start_error(&error.to_string()))?;
        let Some(output) = child.stdout.take() else { return Err(self.start_error("it has no output")) };
        let (sender, said) = std::sync::mpsc::channel();
        let read = move || {
            let mut bytes = Vec::new();
            let done = output.take(MAX_OUTPUT).read_to_end(&mut bytes);
            let _ = sender.send(done.map(|_| String::from_utf8_lossy(&bytes).into_owned()));
        };
        // It ends when the program closes its output, at the latest when the program is ended below.
        let reader = std::thread::Builder::new().name("nullsum-worker-start".into()).spawn(read);
        let said = reader.map_err(|error| error.to_string()).and_then(|reader| {
            let said = said.recv_timeout(limit);
            if said.is_err() {
                let _ = child.kill();
            }
            let joined = said.is_ok().then(|| reader.join());
            match (said, joined) {
                (Ok(said), _) => said.map_err(|error| error.to_string()),
                (Err(_), _) => Err(format!("it did not start within {} s", limit.as_secs())),
            }
        });
        reap(child);
        said.map_err(|reason| self.start_error(&reason))
    }
}

/// Waits for a child that has closed its output. The host may have reaped it, which is not an error.
fn reap(mut child: Child) {
    let until = Instant::now() + Duration::from_secs(2);
    while let Ok(None) = child.try_wait() {
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A program with the devices that it lists.
#[derive(Clone, Debug)]
struct KnownProgram {
    program: PathBuf,
    devices: Vec<WorkerDevice>,
}

static KNOWN: Mutex<Option<Vec<KnownProgram>>> = Mutex::new(None);

/// All devices of all programs that were found. Asks the programs the first time, which may take seconds; `again` asks them anew.
pub fn devices(again: bool) -> Vec<WorkerDevice> {
    let mut known = KNOWN.lock();
    if again {
        *known = None;
    }
    let known = known.get_or_insert_with(|| programs().into_iter().map(ask).collect());
    let mut devices: Vec<WorkerDevice> = Vec::new();
    for device in known.iter().flat_map(|program| &program.devices) {
        match devices.iter_mut().find(|known| known.name == device.name) {
            Some(before) if device.works && !before.works => *before = device.clone(),
            Some(_) => {}
            None => devices.push(device.clone()),
        }
    }
    devices
}

/// All devices, if they are known without asking.
pub fn known_devices() -> Option<Vec<WorkerDevice>> {
    let are_known = KNOWN.try_lock()?.is_some();
    are_known.then(|| devices(false))
}

/// The program that runs `device`.
///
/// # Errors
/// [`WorkerError::NotFound`] if there is no program, [`WorkerError::Device`] if none has this device.
pub fn launcher_for(device: &str) -> Result<Launcher, WorkerError> {
    devices(false);
    let known = KNOWN.lock();
    let known = known.as_deref().unwrap_or_default();
    if known.is_empty() {
        let folder =
            package_folder().map_or_else(|| "the package's folder".into(), |at| at.display().to_string());
        return Err(WorkerError::NotFound { folder });
    }
    let of_program =
        |known: &&KnownProgram| known.devices.iter().any(|found| found.name == device && found.works);
    match known.iter().find(of_program) {
        Some(found) => Ok(Launcher::new(found.program.clone(), None)),
        None => {
            let mut all = known.iter().flat_map(|program| &program.devices);
            let reason = all.find(|found| found.name == device).map(|found| found.description.clone());
            Err(WorkerError::Device(
                reason.unwrap_or_else(|| format!("{device} was not found on this computer")),
            ))
        }
    }
}

fn ask(program: PathBuf) -> KnownProgram {
    let devices = Launcher::new(program.clone(), None).devices();
    let devices = devices.unwrap_or_else(|error| {
        log::warn!("{error}");
        Vec::new()
    });
    KnownProgram { program, devices }
}

/// All programs that exist, each once: named by the environment, beside this library or program, in the package's folder, on PATH.
fn programs() -> Vec<PathBuf> {
    let named = std::env::var_os(ENV).filter(|path| !path.is_empty()).map(PathBuf::from);
    let beside = own_file().and_then(|file| file.parent().map(Path::to_path_buf));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(package_folder()).chain(std::env::split_paths(&path));
    let in_folders = folders
        .filter(|folder| folder.is_absolute())
        .flat_map(|folder| NAMES.map(|name| folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))));
    let mut found: Vec<PathBuf> = Vec::new();
    for program in named.into_iter().chain(in_folders) {
        let Ok(program) = program.canonicalize() else { continue };
        if program.is_file() && !found.contains(&program) {
            found.push(program);
        }
    }
    found
}

/// The folder for programs of the user's packages: `nullsum` in the system's folder for data.
pub fn package_folder() -> Option<PathBuf> {
    Some(directories::BaseDirs::new()?.data_local_dir().join("nullsum"))
}

/// The file that contains this code: the plugin's library, or the program.
fn own_file() -> Option<PathBuf> {
    use std::ffi::{CStr, OsStr};
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: all fields of `Dl_info` are pointers, for which zero is a valid value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: the address lies in this program; the call writes one `Dl_info`.
    let found = unsafe { libc::dladdr(own_file as *const () as *const _, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: `dladdr` gave a valid string, which lives as long as this code is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let path = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
    // For a program it may be the name that it was called by.
    if path.is_absolute() { Some(path) } else { std::env::current_exe().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(folder: &Path, name: &str, text: &str) -> Launcher {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Launcher::new(path, Some(folder.join("run")))
    }

    #[test]
    fn a_program_that_does_not_start_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let ready = script(folder.path(), "ready", "echo ready");
        ready.start("cpu").unwrap();
        let broken = script(folder.path(), "broken", "echo 'no driver'; exit 1");
        let error = broken.start("cpu").unwrap_err().to_string();
        assert!(error.contains("no driver") && error.contains("broken"), "{error}");
        let silent = script(folder.path(), "silent", "exit 3").start("cpu").unwrap_err().to_string();
        assert!(silent.contains("without a word"), "{silent}");
        let missing =
            Launcher::new(folder.path().join("missing"), None).start("cpu").unwrap_err().to_string();
        assert!(missing.contains("missing"), "{missing}");
        assert!(matches!(ready.devices(), Err(WorkerError::Start { .. })));
    }

    #[test]
    fn devices_are_read_from_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"echo '[{"name":"cuda:0","description":"a card","works":true}]'"#;
        let devices = script(folder.path(), "lists", text).devices().unwrap();
        assert_eq!((devices[0].name.as_str(), devices[0].works), ("cuda:0", true));
    }

    #[test]
    fn a_worker_that_dies_at_once_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let liar = script(folder.path(), "liar", "echo ready");
        assert!(matches!(liar.connect("cpu"), Err(WorkerError::NotRunning { .. })));
    }
}
