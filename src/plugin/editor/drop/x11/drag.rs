//! What is said between a program that files are dragged from and the editor (XDND, version 5).

pub mod atoms {
    //! Names that the server knows by number.
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
use crate::plugin::editor::drop::{Inbox, Refusal, uris};

/// Versions that are understood. Older ones have other messages.
const VERSIONS: std::ops::RangeInclusive<u32> = 3..=super::VERSION;
/// Types that are looked at, of what a program offers.
const MOST_TYPES: u32 = 1024;
/// Longest list of files, in words of four bytes: the program's, which may say anything.
const LONGEST: u32 = 1 << 18;

/// A drag that is under way.
#[derive(Clone, Copy, Debug)]
struct Drag {
    /// The window of the program.
    source: Window,
    /// Whether it offers files.
    files: bool,
    /// Whether it was dropped, and the list of files is to come.
    dropped: bool,
}

/// The editor's side.
pub struct Conversation {
    connection: Arc<RustConnection>,
    atoms: Atoms,
    /// The editor's.
    window: Window,
    /// Ours, that gets the messages.
    proxy: Window,
    inbox: Arc<Inbox>,
    drag: Option<Drag>,
}

impl Conversation {
    /// Nothing is said yet.
    pub fn new(
        connection: Arc<RustConnection>,
        atoms: Atoms,
        window: Window,
        proxy: Window,
        inbox: Arc<Inbox>,
    ) -> Self {
        Self { connection, atoms, window, proxy, inbox, drag: None }
    }

    /// Where it is heard.
    pub fn connection(&self) -> Arc<RustConnection> {
        self.connection.clone()
    }

    /// Whether the editor's window has gone, or ours.
    pub fn ends_with(&self, event: &Event) -> bool {
        matches!(event, Event::DestroyNotify(gone) if [self.window, self.proxy].contains(&gone.window))
    }

    /// Takes an event.
    ///
    /// # Errors
    /// What the server says; only a broken connection is the end of it.
    pub fn hear(&mut self, event: &Event) -> Result<(), ReplyError> {
        match event {
            Event::ClientMessage(message) if message.format == 32 => self.message(message)?,
            Event::SelectionNotify(answer) if answer.selection == self.atoms.XdndSelection => {
                self.answer(answer.property)?;
            }
            Event::DestroyNotify(gone) if self.drag.is_some_and(|drag| drag.source == gone.window) => {
                self.forget();
            }
            _ => {}
        }
        Ok(())
    }

    /// Forgets the drag.
    pub fn forget(&mut self) {
        self.inbox.set_hovers(false);
        if let Some(drag) = self.drag.take() {
            let _ = self.watch(drag.source, EventMask::NO_EVENT);
        }
    }

    fn message(&mut self, message: &ClientMessageEvent) -> Result<(), ReplyError> {
        let said = message.data.as_data32();
        let [source, ..] = said;
        let ours = self.drag.filter(|drag| drag.source == source);
        let atoms = self.atoms;
        match message.type_ {
            kind if kind == atoms.XdndEnter => {
                self.forget();
                // A program that ends in the middle says nothing; one that has ended already is an error.
                self.watch(source, EventMask::STRUCTURE_NOTIFY)?;
                let files = VERSIONS.contains(&(said[1] >> 24)) && self.offers_files(&said)?;
                self.drag = Some(Drag { source, files, dropped: false });
                self.inbox.set_hovers(files);
            }
            kind if kind == atoms.XdndPosition => {
                let welcome = ours.is_some_and(|drag| drag.files && !drag.dropped);
                if welcome {
                    self.inbox.set_hovers(true);
                }
                // No rectangle: it may tell every position.
                let action = if welcome { atoms.XdndActionCopy } else { 0 };
                self.say(source, atoms.XdndStatus, [u32::from(welcome), 0, 0, action])?;
            }
            kind if kind == atoms.XdndLeave && ours.is_some_and(|drag| !drag.dropped) => self.forget(),
            kind if kind == atoms.XdndDrop => match (&mut self.drag, ours) {
                (Some(drag), Some(Drag { files: true, dropped: false, .. })) => {
                    drag.dropped = true;
                    self.inbox.set_hovers(false);
                    self.ask_for_files(said[2])?;
                }
                (_, Some(Drag { dropped: true, .. })) => {}
                (_, ours) => {
                    if ours.is_some() {
                        self.forget();
                    }
                    self.say(source, atoms.XdndFinished, [0, 0, 0, 0])?;
                }
            },
            _ => {}
        }
        Ok(())
    }

    /// Whether files are among the types that a program offers: three in the message, or a list at its window.
    fn offers_files(&self, said: &[u32; 5]) -> Result<bool, ReplyError> {
        let [source, flags, types @ ..] = said;
        if flags & 1 == 0 {
            return Ok(types.contains(&self.atoms.UriList));
        }
        let list = self.atoms.XdndTypeList;
        let types = self.connection.get_property(false, *source, list, AtomEnum::ATOM, 0, MOST_TYPES)?;
        match types.reply() {
            Ok(types) => {
                Ok(types.value32().is_some_and(|mut types| types.any(|it| it == self.atoms.UriList)))
            }
            Err(ReplyError::X11Error(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn watch(&self, source: Window, what: EventMask) -> Result<(), ReplyError> {
        // What is heard of these two must stay.
        if source == self.window || source == self.proxy {
            return Ok(());
        }
        let what = ChangeWindowAttributesAux::new().event_mask(what);
        self.connection.change_window_attributes(source, &what)?.check()
    }

    fn ask_for_files(&self, time: Timestamp) -> Result<(), ReplyError> {
        let Atoms { XdndSelection: selection, UriList: list, .. } = self.atoms;
        self.connection.convert_selection(self.proxy, selection, list, selection, time)?.check()
    }

    /// The list of files is there; without a property, there is none.
    fn answer(&mut self, property: Atom) -> Result<(), ReplyError> {
        let Some(drag) = self.drag.filter(|drag| drag.dropped) else { return Ok(()) };
        let files = match property {
            0 => Err("The program that the files are from did not give their names"),
            _ => self.read_files()?,
        };
        let (done, action) = if files.is_ok() { (1, self.atoms.XdndActionCopy) } else { (0, 0) };
        self.inbox.put(files);
        self.forget();
        self.say(drag.source, self.atoms.XdndFinished, [done, action, 0, 0])
    }

    fn read_files(&self) -> Result<Result<Vec<PathBuf>, Refusal>, ReplyError> {
        let property = self.atoms.XdndSelection;
        let any = AtomEnum::ANY;
        let list = self.connection.get_property(true, self.proxy, property, any, 0, LONGEST)?.reply()?;
        // Longer than a message of the server can be, it would come in parts.
        if list.type_ == self.atoms.INCR || list.bytes_after > 0 {
            self.connection.delete_property(self.proxy, property)?.ignore_error();
            return Ok(Err("Too many files were dropped at once: drop a checkpoint, with its YAML"));
        }
        let host = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
        let list: Vec<u8> = list.value8().map(Iterator::collect).unwrap_or_default();
        Ok(Ok(uris::files(&list, host.trim_ascii())))
    }

    /// Answers a program, in the name of the editor's window.
    fn say(&self, source: Window, what: Atom, [flags, a, b, c]: [u32; 4]) -> Result<(), ReplyError> {
        let message = ClientMessageEvent::new(32, source, what, [self.window, flags, a, b, c]);
        self.connection.send_event(false, source, EventMask::NO_EVENT, message)?.check()
    }
}
