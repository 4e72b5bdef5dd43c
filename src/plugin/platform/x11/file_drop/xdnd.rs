//! The target side of XDND version 5: the messages between a drag source and the editor.

pub mod atoms {
    //! Atoms of the protocol.
    #![allow(missing_docs, reason = "the names are those of the protocol")]

    x11rb::atom_manager! {
        pub Atoms: AtomsCookie {
            XdndAware,
            XdndProxy,
            XdndEnter,
            XdndPosition,
            XdndStatus,
            XdndLeave,
            XdndDrop,
            XdndFinished,
            XdndSelection,
            XdndTypeList,
            XdndActionCopy,
            INCR,
            UriList: b"text/uri-list",
        }
    }
}

use std::path::PathBuf;
use std::sync::Arc;

use x11rb::errors::ReplyError;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    Atom, AtomEnum, ChangeWindowAttributesAux, ClientMessageEvent, ConnectionExt, EventMask, Timestamp,
    Window,
};
use x11rb::rust_connection::RustConnection;

use self::atoms::Atoms;
use crate::plugin::editor::file_drop::{DropError, DropQueue, uri_list};

/// Supported versions. Older ones use other messages.
const VERSIONS: std::ops::RangeInclusive<u32> = 3..=super::VERSION;
/// Maximum number of offered types to examine.
const MAX_TYPES: u32 = 1024;
/// Maximum length of a file list, in words of four bytes. Any program may send one.
const MAX_LIST_WORDS: u32 = 1 << 18;

#[derive(Clone, Copy, Debug)]
struct Drag {
    /// Window of the program that is the drag source.
    source: Window,
    /// Whether the source offers a list of files.
    files: bool,
    /// Whether the files were dropped and the list is still to come.
    dropped: bool,
}

pub struct XdndTarget {
    connection: Arc<RustConnection>,
    atoms: Atoms,
    /// The editor's window.
    window: Window,
    /// Our invisible window, which receives the messages.
    proxy: Window,
    drop_queue: Arc<DropQueue>,
    drag: Option<Drag>,
}

impl XdndTarget {
    pub fn new(
        connection: Arc<RustConnection>,
        atoms: Atoms,
        window: Window,
        proxy: Window,
        drop_queue: Arc<DropQueue>,
    ) -> Self {
        Self { connection, atoms, window, proxy, drop_queue, drag: None }
    }

    pub fn connection(&self) -> Arc<RustConnection> {
        self.connection.clone()
    }

    /// Whether the editor's window or ours was destroyed.
    pub fn is_window_destroyed(&self, event: &Event) -> bool {
        matches!(event, Event::DestroyNotify(gone) if [self.window, self.proxy].contains(&gone.window))
    }

    /// Handles an event.
    ///
    /// # Errors
    /// Any error of the server. Only a broken connection is permanent.
    pub fn handle_event(&mut self, event: &Event) -> Result<(), ReplyError> {
        match event {
            Event::ClientMessage(message) if message.format == 32 => self.handle_message(message)?,
            Event::SelectionNotify(answer) if answer.selection == self.atoms.XdndSelection => {
                self.receive_files(answer.property)?;
            }
            Event::DestroyNotify(gone) if self.drag.is_some_and(|drag| drag.source == gone.window) => {
                self.cancel_drag();
            }
            _ => {}
        }
        Ok(())
    }

    pub fn cancel_drag(&mut self) {
        self.drop_queue.set_hovering(false);
        if let Some(drag) = self.drag.take() {
            let _ = self.select_events(drag.source, EventMask::NO_EVENT);
        }
    }

    fn handle_message(&mut self, message: &ClientMessageEvent) -> Result<(), ReplyError> {
        let data = message.data.as_data32();
        let [source, ..] = data;
        let ours = self.drag.filter(|drag| drag.source == source);
        let atoms = self.atoms;
        match message.type_ {
            kind if kind == atoms.XdndEnter => {
                self.cancel_drag();
                // Watch for the source's end: a source that crashes sends no leave message. Fails if it has ended already.
                self.select_events(source, EventMask::STRUCTURE_NOTIFY)?;
                let files = VERSIONS.contains(&(data[1] >> 24)) && self.offers_files(&data)?;
                self.drag = Some(Drag { source, files, dropped: false });
                self.drop_queue.set_hovering(files);
            }
            kind if kind == atoms.XdndPosition => {
                let welcome = ours.is_some_and(|drag| drag.files && !drag.dropped);
                if welcome {
                    self.drop_queue.set_hovering(true);
                }
                // No rectangle, so the source reports every position.
                let action = if welcome { atoms.XdndActionCopy } else { 0 };
                self.send_message(source, atoms.XdndStatus, [u32::from(welcome), 0, 0, action])?;
            }
            kind if kind == atoms.XdndLeave && ours.is_some_and(|drag| !drag.dropped) => self.cancel_drag(),
            kind if kind == atoms.XdndDrop => match (&mut self.drag, ours) {
                (Some(drag), Some(Drag { files: true, dropped: false, .. })) => {
                    drag.dropped = true;
                    self.drop_queue.set_hovering(false);
                    self.request_files(data[2])?;
                }
                (_, Some(Drag { dropped: true, .. })) => {}
                (_, ours) => {
                    if ours.is_some() {
                        self.cancel_drag();
                    }
                    self.send_message(source, atoms.XdndFinished, [0, 0, 0, 0])?;
                }
            },
            _ => {}
        }
        Ok(())
    }

    /// Whether the source offers files. Up to three types are in the message, longer lists in a property of its window.
    fn offers_files(&self, data: &[u32; 5]) -> Result<bool, ReplyError> {
        let [source, flags, types @ ..] = data;
        if flags & 1 == 0 {
            return Ok(types.contains(&self.atoms.UriList));
        }
        let list = self.atoms.XdndTypeList;
        let types = self.connection.get_property(false, *source, list, AtomEnum::ATOM, 0, MAX_TYPES)?;
        match types.reply() {
            Ok(types) => {
                Ok(types.value32().is_some_and(|mut types| types.any(|it| it == self.atoms.UriList)))
            }
            Err(ReplyError::X11Error(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn select_events(&self, source: Window, what: EventMask) -> Result<(), ReplyError> {
        // Our own event masks on these two must not change.
        if source == self.window || source == self.proxy {
            return Ok(());
        }
        let what = ChangeWindowAttributesAux::new().event_mask(what);
        self.connection.change_window_attributes(source, &what)?.check()
    }

    fn request_files(&self, time: Timestamp) -> Result<(), ReplyError> {
        let Atoms { XdndSelection: selection, UriList: list, .. } = self.atoms;
        self.connection.convert_selection(self.proxy, selection, list, selection, time)?.check()
    }

    /// Reads the file list from `property`; 0 means that the source failed to provide it.
    fn receive_files(&mut self, property: Atom) -> Result<(), ReplyError> {
        let Some(drag) = self.drag.filter(|drag| drag.dropped) else { return Ok(()) };
        let files = match property {
            0 => Err("The other program did not provide the names of the dropped files"),
            _ => self.read_files()?,
        };
        let (done, action) = if files.is_ok() { (1, self.atoms.XdndActionCopy) } else { (0, 0) };
        self.drop_queue.push(files);
        self.cancel_drag();
        self.send_message(drag.source, self.atoms.XdndFinished, [done, action, 0, 0])
    }

    fn read_files(&self) -> Result<Result<Vec<PathBuf>, DropError>, ReplyError> {
        let property = self.atoms.XdndSelection;
        let any = AtomEnum::ANY;
        let list =
            self.connection.get_property(true, self.proxy, property, any, 0, MAX_LIST_WORDS)?.reply()?;
        // Longer lists arrive in several parts (INCR), which we do not support.
        if list.type_ == self.atoms.INCR || list.bytes_after > 0 {
            self.connection.delete_property(self.proxy, property)?.ignore_error();
            return Ok(Err("Too many files at once. Drop one checkpoint with its YAML file."));
        }
        let host = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
        let list: Vec<u8> = list.value8().map(Iterator::collect).unwrap_or_default();
        Ok(Ok(uri_list::parse(&list, host.trim_ascii())))
    }

    /// Sends a message to the source on behalf of the editor's window.
    fn send_message(&self, source: Window, what: Atom, [flags, a, b, c]: [u32; 4]) -> Result<(), ReplyError> {
        let message = ClientMessageEvent::new(32, source, what, [self.window, flags, a, b, c]);
        self.connection.send_event(false, source, EventMask::NO_EVENT, message)?.check()
    }
}
