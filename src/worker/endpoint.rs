//! Where a worker is found: a folder of the user, in it one lock and one socket for each device.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path of a socket: what all systems allow.
const MAX_SOCKET_PATH: usize = 100;

/// The place of the worker of one device.
#[derive(Clone, Debug)]
pub struct Endpoint {
    socket: PathBuf,
    lock: PathBuf,
}

/// The right to be the worker of a device. Dropping it removes the socket.
#[derive(Debug)]
pub struct WorkerLock {
    socket: PathBuf,
    // Declared last: the lock is held until the socket is gone.
    _lock: File,
}

impl Endpoint {
    /// The place of the worker of `device`, in the user's runtime folder, which is created if necessary.
    ///
    /// # Errors
    /// If the folder cannot be created, or belongs to somebody else.
    pub fn of(device: &str) -> io::Result<Self> {
        Self::in_folder(&runtime_folder(), device)
    }

    /// As [`of`](Self::of), in another folder.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn in_folder(folder: &Path, device: &str) -> io::Result<Self> {
        make_private(folder)?;
        let name: String = device.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let socket = folder.join(format!("worker-{name}.sock"));
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            let text = format!("{}: the path is too long for a socket", socket.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(Self { socket, lock: folder.join(format!("worker-{name}.lock")) })
    }

    /// Connects to the worker. The other side runs as the same user.
    ///
    /// # Errors
    /// If no worker listens, or somebody else does.
    pub fn connect(&self) -> io::Result<OwnedFd> {
        let stream = UnixStream::connect(&self.socket)?;
        check_peer(&stream)?;
        Ok(stream.into())
    }

    /// Becomes the worker of this device. None if another process is.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn lock(&self) -> io::Result<Option<WorkerLock>> {
        let options = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).clone();
        let lock = options.open(&self.lock)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(WorkerLock { socket: self.socket.clone(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl WorkerLock {
    /// Listens for clients.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn listen(&self) -> io::Result<UnixListener> {
        // Of a worker that was killed: we hold its lock.
        match std::fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(&self.socket)
    }
}

impl Drop for WorkerLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Checks that the process at the other end runs as the same user.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] if it does not.
pub fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let (ours, theirs) = (rustix::process::geteuid().as_raw(), peer_user(stream)?);
    if ours == theirs {
        return Ok(());
    }
    let text =
        format!("the process at the other end of the worker's socket is user {theirs}: expected {ours}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[cfg(target_os = "linux")]
fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

#[cfg(not(target_os = "linux"))]
fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    use std::os::fd::AsRawFd;
    let (mut user, mut group) = (0, 0);
    // SAFETY: the descriptor is open, and the call writes two numbers.
    match unsafe { libc::getpeereid(stream.as_raw_fd(), &raw mut user, &raw mut group) } {
        0 => Ok(user),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The process at the other end, if the system tells.
#[cfg(target_os = "linux")]
pub fn peer_process(socket: impl AsFd) -> Option<rustix::process::Pid> {
    Some(rustix::net::sockopt::socket_peercred(socket).ok()?.pid)
}

/// The process at the other end, if the system tells.
#[cfg(not(target_os = "linux"))]
pub fn peer_process(_: impl AsFd) -> Option<rustix::process::Pid> {
    None
}

/// `nullsum` in the user's runtime folder, or a folder in the temporary folder with the user's number.
fn runtime_folder() -> PathBuf {
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let user = rustix::process::geteuid().as_raw();
    let usable = given
        .filter(|folder| std::fs::metadata(folder).is_ok_and(|found| found.is_dir() && found.uid() == user));
    match usable {
        Some(folder) => folder.join("nullsum"),
        None => std::env::temp_dir().join(format!("nullsum-{user}")),
    }
}

/// Creates a folder that only the user can enter. One that exists must be such a folder.
fn make_private(folder: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(folder)?;
    let user = rustix::process::geteuid().as_raw();
    if found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let text = format!(
        "{}: expected a folder of user {user} that nobody else can enter, found mode {:o} of user {}; remove it",
        folder.display(),
        found.mode() & 0o777,
        found.uid()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_worker_a_device_and_its_socket_goes_with_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("run");
        let endpoint = Endpoint::in_folder(&folder, "cuda:0").unwrap();
        let first = endpoint.lock().unwrap().unwrap();
        assert!(endpoint.lock().unwrap().is_none());
        assert!(Endpoint::in_folder(&folder, "cuda:1").unwrap().lock().unwrap().is_some());
        assert!(endpoint.connect().is_err());
        let listener = first.listen().unwrap();
        let stream = UnixStream::from(endpoint.connect().unwrap());
        check_peer(&stream).unwrap();
        #[cfg(target_os = "linux")]
        assert_eq!(peer_process(&stream).unwrap(), rustix::process::getpid());
        drop((first, listener));
        assert!(!endpoint.socket.exists());
        let again = endpoint.lock().unwrap().unwrap();
        // The socket of a worker that was killed.
        std::mem::forget(again.listen().unwrap());
        again.listen().unwrap();
    }

    #[test]
    fn folders_that_others_can_enter_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let open = root.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = Endpoint::in_folder(&open, "cpu").unwrap_err();
        assert!(error.to_string().contains("755"), "{error}");
        let (target, link) = (root.path().join("target"), root.path().join("link"));
        Endpoint::in_folder(&target, "cpu").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(Endpoint::in_folder(&link, "cpu").is_err(), "a link");
        let deep = root.path().join("x".repeat(120));
        assert!(Endpoint::in_folder(&deep, "cpu").unwrap_err().to_string().contains("too long"));
    }
}
