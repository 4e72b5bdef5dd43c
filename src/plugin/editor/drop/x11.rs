//! Drops on X11, by a connection of our own.
//!
//! XDND lets a window name another that receives the messages of a drag in its place (`XdndProxy`). So the editor's window names one of ours:
//! it is never shown, and belongs to a connection that a thread of ours reads. Every error of that connection is a value; the window's own
//! connection is left alone.
//!
//! Programs look for a window that takes drops from the top (Qt: the first that they meet on the way down; GTK: the host's alone), so a host
//! whose own window takes drops gets those over the editor as well. To change that, its window would have to be changed, which is not ours.

mod drag;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use nice_plug::prelude::nice_error;
use nice_plug_egui::baseview::WindowContext;
use x11rb::connection::Connection;
use x11rb::errors::{ConnectError, ConnectionError, ReplyError, ReplyOrIdError};
use x11rb::protocol::xproto::{
    AtomEnum, ChangeWindowAttributesAux, ConnectionExt as _, CreateWindowAux, EventMask, PropMode, Window,
    WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use super::Inbox;
use drag::{Conversation, atoms::Atoms};

/// Name of the thread.
pub const THREAD_NAME: &str = "nullsum-drop";
/// Version of the protocol: the last there is.
const VERSION: u32 = 5;

/// Listens for files that are dropped on a window; none where that is impossible.
pub fn listen(window: &WindowContext, inbox: Arc<Inbox>) -> Option<Listener> {
    let window = crate::plugin::editor::x11::id(window)?;
    match Listener::start(window, inbox) {
        Ok(listener) => Some(listener),
        Err(error) => {
            nice_error!("files cannot be dropped on the editor: {error}");
            None
        }
    }
}

/// Why nobody listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// There is no connection.
    #[error("no second connection to the X server: {0}")]
    Connect(#[from] ConnectError),
    /// It failed.
    #[error("the X server: {0}")]
    Connection(#[from] ConnectionError),
    /// The server refused something.
    #[error("the X server refused: {0}")]
    Reply(#[from] ReplyError),
    /// The server refused something.
    #[error("the X server refused: {0}")]
    Id(#[from] ReplyOrIdError),
    /// The server has no screen of this number.
    #[error("the X server has no screen {0}")]
    Screen(usize),
    /// There is no thread.
    #[error("no thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The thread, until it is dropped or the window goes.
#[derive(Debug)]
pub struct Listener {
    connection: Arc<RustConnection>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens for `window`.
    pub(super) fn start(window: Window, inbox: Arc<Inbox>) -> Result<Self, ListenError> {
        let (connection, screen) = RustConnection::connect(None)?;
        let atoms = Atoms::new(&connection)?.reply()?;
        let root = connection.setup().roots.get(screen).ok_or(ListenError::Screen(screen))?.root;
        let proxy = connection.generate_id()?;
        let ends = EventMask::STRUCTURE_NOTIFY;
        let settings = CreateWindowAux::new().override_redirect(1).event_mask(ends);
        connection
            .create_window(0, proxy, root, -1, -1, 1, 1, 0, WindowClass::INPUT_ONLY, 0, &settings)?
            .check()?;
        // A proxy names itself, so that one that was left over from a program that is gone is known.
        let (replace, a_window) = (PropMode::REPLACE, AtomEnum::WINDOW);
        connection.change_property32(replace, proxy, atoms.XdndProxy, a_window, &[proxy])?.check()?;
        connection.change_property32(replace, proxy, atoms.XdndAware, AtomEnum::ATOM, &[VERSION])?.check()?;
        // Heard of before the window is changed, so that its end cannot be missed.
        connection
            .change_window_attributes(window, &ChangeWindowAttributesAux::new().event_mask(ends))?
            .check()?;
        connection.change_property32(replace, window, atoms.XdndProxy, a_window, &[proxy])?.check()?;
        let connection = Arc::new(connection);
        let conversation = Conversation::new(connection.clone(), atoms, window, proxy, inbox);
        let thread = std::thread::Builder::new().name(THREAD_NAME.into()).spawn(move || run(conversation))?;
        Ok(Self { connection, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Wakes the thread also where the server hangs; the server then takes our window away.
        // SAFETY: the connection's socket, open as long as the connection.
        unsafe { libc::shutdown(self.connection.stream().as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut conversation: Conversation) {
    keep_from_broken_pipes();
    let connection = conversation.connection();
    loop {
        let outcome = match connection.wait_for_event() {
            Ok(event) if conversation.ends_with(&event) => break,
            Ok(event) => conversation.hear(&event),
            Err(error) => Err(error.into()),
        };
        match outcome {
            // Programs vanish in the middle of a drag, and may send anything.
            Ok(())
            | Err(ReplyError::X11Error(_) | ReplyError::ConnectionError(ConnectionError::ParseError(_))) => {}
            Err(ReplyError::ConnectionError(_)) => break,
        }
    }
    conversation.forget();
}

/// Writing to a socket that was shut down must be an error here, not a signal that ends the host. Such a signal is meant for the thread that
/// writes.
fn keep_from_broken_pipes() {
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
    }
}
