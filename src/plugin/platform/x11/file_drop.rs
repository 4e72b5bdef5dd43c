//! File drops on X11, received over a connection of our own.
//!
//! XDND lets a window name a proxy that receives its drag messages (`XdndProxy`). The editor's window names an invisible window of ours, which
//! belongs to a second connection that our thread reads. So errors stay on that connection, and `baseview`'s own connection is not touched.
//!
//! Limitation: drag sources search for a drop target from the top-level window downwards. Qt takes the first it finds, GTK only the top-level one.
//! So a host whose own window accepts drops also receives those over the editor. We cannot change that without modifying the host's window.

mod xdnd;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use nice_plug_egui::baseview::WindowContext;
use x11rb::connection::Connection;
use x11rb::errors::{ConnectError, ConnectionError, ReplyError, ReplyOrIdError};
use x11rb::protocol::xproto::{
    AtomEnum, ChangeWindowAttributesAux, ConnectionExt as _, CreateWindowAux, EventMask, PropMode, Window,
    WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use crate::plugin::editor::file_drop::DropQueue;
use xdnd::{XdndTarget, atoms::Atoms};

pub const THREAD_NAME: &str = "nullsum-drop";
/// XDND version, the latest one.
const VERSION: u32 = 5;

/// Starts to receive files dropped on a window. Returns `None`, and logs why, where that is impossible.
pub fn listen(window: &WindowContext, drop_queue: Arc<DropQueue>) -> Option<Listener> {
    let window = super::window_id(window)?;
    match Listener::start(window, drop_queue) {
        Ok(listener) => Some(listener),
        Err(error) => {
            log::error!("file drops are unavailable: {error}");
            None
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("could not open a second connection to the X server: {0}")]
    Connect(#[from] ConnectError),
    #[error("connection to the X server failed: {0}")]
    Connection(#[from] ConnectionError),
    #[error("the X server refused a request: {0}")]
    Reply(#[from] ReplyError),
    #[error("the X server refused a request: {0}")]
    Id(#[from] ReplyOrIdError),
    /// The server has no screen with this number.
    #[error("the X server has no screen {0}")]
    Screen(usize),
    #[error("could not start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Owns the thread. The thread ends when this is dropped or the window is destroyed.
#[derive(Debug)]
pub struct Listener {
    connection: Arc<RustConnection>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn start(window: Window, drop_queue: Arc<DropQueue>) -> Result<Self, ListenError> {
        let (connection, screen) = RustConnection::connect(None)?;
        let atoms = Atoms::new(&connection)?.reply()?;
        let root = connection.setup().roots.get(screen).ok_or(ListenError::Screen(screen))?.root;
        let proxy = connection.generate_id()?;
        let ends = EventMask::STRUCTURE_NOTIFY;
        let settings = CreateWindowAux::new().override_redirect(1).event_mask(ends);
        connection
            .create_window(0, proxy, root, -1, -1, 1, 1, 0, WindowClass::INPUT_ONLY, 0, &settings)?
            .check()?;
        // A valid proxy names itself, so that sources can detect a stale property left by a program that ended.
        let (replace, a_window) = (PropMode::REPLACE, AtomEnum::WINDOW);
        connection.change_property32(replace, proxy, atoms.XdndProxy, a_window, &[proxy])?.check()?;
        connection.change_property32(replace, proxy, atoms.XdndAware, AtomEnum::ATOM, &[VERSION])?.check()?;
        // Select these events before changing the window, so that its destruction cannot be missed.
        connection
            .change_window_attributes(window, &ChangeWindowAttributesAux::new().event_mask(ends))?
            .check()?;
        connection.change_property32(replace, window, atoms.XdndProxy, a_window, &[proxy])?.check()?;
        let connection = Arc::new(connection);
        let target = XdndTarget::new(connection.clone(), atoms, window, proxy, drop_queue);
        let thread = std::thread::Builder::new().name(THREAD_NAME.into()).spawn(move || run(target))?;
        Ok(Self { connection, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Shutting the socket down wakes the thread even if the server hangs. The server then destroys our window.
        // SAFETY: the socket stays open as long as the connection, which `self` holds.
        unsafe { libc::shutdown(self.connection.stream().as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut target: XdndTarget) {
    block_sigpipe();
    let connection = target.connection();
    loop {
        let outcome = match connection.wait_for_event() {
            Ok(event) if target.is_window_destroyed(&event) => break,
            Ok(event) => target.handle_event(&event),
            Err(error) => Err(error.into()),
        };
        match outcome {
            // Drag sources may disappear at any time and may send invalid messages.
            Ok(())
            | Err(ReplyError::X11Error(_) | ReplyError::ConnectionError(ConnectionError::ParseError(_))) => {}
            Err(ReplyError::ConnectionError(_)) => break,
        }
    }
    target.cancel_drag();
}

/// Blocks SIGPIPE on this thread: writing to a socket that was shut down must return an error, not end the host. The signal goes to the
/// thread that writes.
fn block_sigpipe() {
    // SAFETY: sigemptyset initialises the set before it is read.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
    }
}
