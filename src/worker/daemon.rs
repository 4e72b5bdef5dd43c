//! The program `nullsum-worker`: leaves the family of the process that started it, and serves.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::device_models::DeviceModels;
use super::endpoint::Endpoint;
use super::launch::{READY, WorkerDevice};
use super::server::{self, Ended};
use crate::model::device::DeviceChoice;

/// Most CUDA devices that are looked for.
const MAX_DEVICES: usize = 16;

/// Closes everything that a host has left open by mistake, so that it does not stay open as long as the worker lives. Call it before anything
/// else in the program.
pub fn close_inherited_files() {
    let open: Vec<i32> = std::fs::read_dir("/dev/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // SAFETY: the program has opened nothing yet, so nobody owns the descriptor. Closing one that is not open only returns an error.
        unsafe { libc::close(descriptor) };
    }
}

/// Starts this program again as a process of its own session, and returns. The new one has this one's output, on which it says whether it is
/// ready; since this one ends at once, the host neither waits for it nor reaps it.
///
/// # Errors
/// Those of starting a process.
pub fn start_detached(arguments: &[std::ffi::OsString]) -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    // SAFETY: setsid is async-signal-safe, and the closure touches no memory.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into));
    }
    command.spawn().map(drop)
}

/// Serves until the last client has gone. Prints whether that works, and then closes its output.
///
/// # Errors
/// Those of the socket, or an unknown device.
pub fn serve(device: &str, folder: Option<&Path>, linger: Duration) -> io::Result<()> {
    let choice: DeviceChoice = device.parse().map_err(io::Error::other)?;
    if choice == DeviceChoice::Auto {
        return Err(io::Error::other("device `auto`: expected cpu, cuda:N or metal; clients choose"));
    }
    let endpoint = match folder {
        Some(folder) => Endpoint::in_folder(folder, device)?,
        None => Endpoint::of(device)?,
    };
    let ended = server::serve(&endpoint, device, DeviceModels::new(choice), linger, || {
        log::info!("the worker of {device} is ready");
        say_ready();
    })?;
    if ended == Ended::AlreadyRunning {
        say_ready();
    }
    Ok(())
}

/// Tells the process that waits for it, and lets go of its pipe.
fn say_ready() {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{READY}").and_then(|()| output.flush());
    if let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        use std::os::fd::AsRawFd;
        // SAFETY: both descriptors are open. Whoever writes to the standard output later writes to nowhere.
        unsafe { libc::dup2(nowhere.as_raw_fd(), 1) };
    }
}

/// The devices of this build, and whether they work.
pub fn devices() -> Vec<WorkerDevice> {
    let of = |choice: DeviceChoice| {
        let described = choice.describe();
        let works = described.is_ok();
        let description = described.unwrap_or_else(|error| error.to_string());
        WorkerDevice { name: choice.to_string(), description, works }
    };
    let mut devices = vec![of(DeviceChoice::Cpu)];
    if cfg!(feature = "cuda") {
        for number in 0..MAX_DEVICES {
            let device = of(DeviceChoice::Cuda(number));
            // The first says why there is none.
            let is_last = !device.works;
            if number == 0 || device.works {
                devices.push(device);
            }
            if is_last {
                break;
            }
        }
    }
    devices
}
