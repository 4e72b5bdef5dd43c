//! A program from which files are dragged, as XDND (version 5) specifies: it finds the window under the pointer, reports the pointer's position, and
//! sends the list of files on request.

use std::path::Path;
use std::time::{Duration, Instant};

use xcb::{Xid, XidNew, x};

use crate::virtual_screen;

xcb::atoms_struct! {
    #[derive(Debug)]
    struct Atoms {
        aware => b"XdndAware",
        proxy => b"XdndProxy",
        enter => b"XdndEnter",
        position => b"XdndPosition",
        status => b"XdndStatus",
        leave => b"XdndLeave",
        dropped => b"XdndDrop",
        finished => b"XdndFinished",
        selection => b"XdndSelection",
        type_list => b"XdndTypeList",
        copy => b"XdndActionCopy",
        uri_list => b"text/uri-list",
        plain => b"text/plain",
    }
}

/// The program, with its own window and connection. It vanishes on drop.
pub struct Source {
    connection: xcb::Connection,
    window: x::Window,
    atoms: Atoms,
    list: Vec<u8>,
}

/// What a drag is over.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The window under the pointer.
    pub window: x::Window,
    /// The window that receives the messages instead.
    pub proxy: Option<x::Window>,
}

/// The types offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// A list of files.
    Files,
    /// A list of files, as the last of many types.
    FilesAmongMany,
    /// Text only.
    Text,
}

/// A list of files, as file managers write it.
pub fn list_of(files: &[&Path]) -> Vec<u8> {
    let uri = |file: &&Path| {
        let escape = |byte: u8| match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        };
        let path: String = file.to_str().unwrap().bytes().map(escape).collect();
        format!("file://{path}\r\n")
    };
    files.iter().map(uri).collect::<String>().into_bytes()
}

impl Source {
    /// A program that drags the files in `list`.
    pub fn new(list: Vec<u8>) -> Self {
        let (connection, _) = xcb::Connection::connect(None).unwrap();
        let atoms = Atoms::intern_all(&connection).unwrap();
        let window = virtual_screen::window(&connection, 1, 1);
        connection
            .check_request(connection.send_request_checked(&x::SetSelectionOwner {
                owner: window,
                selection: atoms.selection,
                time: x::CURRENT_TIME,
            }))
            .unwrap();
        Self { connection, window, atoms, list }
    }

    fn property(&self, window: x::Window, property: x::Atom, r#type: x::Atom) -> Option<u32> {
        let get = x::GetProperty { delete: false, window, property, r#type, long_offset: 0, long_length: 1 };
        let reply = self.connection.wait_for_reply(self.connection.send_request(&get)).ok()?;
        (reply.r#type() == r#type).then(|| reply.value::<u32>().first().copied()).flatten()
    }

    /// The innermost window at a point of the screen that accepts drops.
    pub fn target(&self, x: i16, y: i16) -> Option<Target> {
        let root = self.connection.get_setup().roots().next().unwrap().root();
        let (mut window, mut found) = (root, None);
        while !window.is_none() {
            if self.property(window, self.atoms.aware, x::ATOM_ATOM).is_some() {
                found = Some(window);
            }
            let down = x::TranslateCoordinates { src_window: root, dst_window: window, src_x: x, src_y: y };
            window = self.connection.wait_for_reply(self.connection.send_request(&down)).unwrap().child();
        }
        let proxy_of = |window| self.property(window, self.atoms.proxy, x::ATOM_WINDOW);
        let proxy = found.and_then(proxy_of).filter(|proxy| {
            let window = x::Window::new(*proxy);
            proxy_of(window) == Some(*proxy)
                && self.property(window, self.atoms.aware, x::ATOM_ATOM).is_some()
        });
        found.map(|window| Target { window, proxy: proxy.map(x::Window::new) })
    }

    /// Sends a message, and waits until the server has it. Messages of other programs sent afterwards arrive afterwards.
    pub fn send(&self, target: Target, kind: x::Atom, data: x::ClientMessageData) {
        let event = x::ClientMessageEvent::new(target.window, kind, data);
        self.connection.send_request(&x::SendEvent {
            propagate: false,
            destination: x::SendEventDest::Window(target.proxy.unwrap_or(target.window)),
            event_mask: x::EventMask::empty(),
            event: &event,
        });
        let focus = self.connection.send_request(&x::GetInputFocus {});
        self.connection.wait_for_reply(focus).unwrap();
    }

    fn say_words(&self, target: Target, kind: x::Atom, [a, b, c, d]: [u32; 4]) {
        let data = [self.window.resource_id(), a, b, c, d];
        self.send(target, kind, x::ClientMessageData::Data32(data));
    }

    /// Enters the target.
    pub fn enter(&self, target: Target, offer: Offer) {
        let atoms = &self.atoms;
        let [files, plain] = [atoms.uri_list, atoms.plain].map(|atom| atom.resource_id());
        let (many, types) = match offer {
            Offer::Files => (0, [files, 0, 0]),
            Offer::Text => (0, [plain, 0, 0]),
            Offer::FilesAmongMany => {
                let mut list = vec![atoms.plain; 20];
                list.push(atoms.uri_list);
                self.connection.send_request(&x::ChangeProperty {
                    mode: x::PropMode::Replace,
                    window: self.window,
                    property: atoms.type_list,
                    r#type: x::ATOM_ATOM,
                    data: &list,
                });
                (1, [plain, plain, plain])
            }
        };
        self.say_words(target, atoms.enter, [5 << 24 | many, types[0], types[1], types[2]]);
    }

    /// Moves over the target. Returns whether the target would accept a drop.
    pub fn move_over(&self, target: Target, x: i16, y: i16) -> bool {
        let at = u32::from(x as u16) << 16 | u32::from(y as u16);
        self.say_words(target, self.atoms.position, [0, at, x::CURRENT_TIME, self.atoms.copy.resource_id()]);
        let [from, flags, _, _, action] = self.wait_for(self.atoms.status);
        assert_eq!(from, target.window.resource_id(), "an answer in the name of another window");
        assert_eq!(flags & 1 == 1, action == self.atoms.copy.resource_id());
        flags & 1 == 1
    }

    /// Leaves the target.
    pub fn leave(&self, target: Target) {
        self.say_words(target, self.atoms.leave, [0; 4]);
    }

    /// Drops, and answers requests. Returns whether the drop was accepted.
    pub fn drop_and_serve(&self, target: Target) -> bool {
        self.drop_and_ignore(target);
        let [from, flags, ..] = self.wait_for(self.atoms.finished);
        assert_eq!(from, target.window.resource_id(), "an answer in the name of another window");
        flags & 1 == 1
    }

    /// Drops, and ignores all requests.
    pub fn drop_and_ignore(&self, target: Target) {
        self.say_words(target, self.atoms.dropped, [0, x::CURRENT_TIME, 0, 0]);
    }

    /// Enters, moves, drops. Returns whether the drop was accepted.
    pub fn drag(&self, target: Target, offer: Offer) -> bool {
        self.enter(target, offer);
        let welcome = self.move_over(target, 300, 300);
        let taken = self.drop_and_serve(target);
        assert!(welcome || !taken);
        taken
    }

    /// Sends invalid messages.
    pub fn send_nonsense(&self, target: Target) {
        let atoms = &self.atoms;
        let kinds = [
            atoms.position,
            atoms.dropped,
            atoms.leave,
            atoms.enter,
            atoms.status,
            atoms.finished,
            atoms.plain,
        ];
        for kind in kinds.into_iter().cycle().take(21) {
            for words in [[0; 5], [u32::MAX; 5], [1, 5 << 24 | 1, 0, 0, 0], [target.window.resource_id(); 5]]
            {
                self.send(target, kind, x::ClientMessageData::Data32(words));
            }
            self.send(target, kind, x::ClientMessageData::Data8([0xff; 20]));
            self.send(target, kind, x::ClientMessageData::Data16([0xffff; 10]));
        }
        // Nobody requested these.
        for property in [x::ATOM_NONE, atoms.selection] {
            let event = x::SelectionNotifyEvent::new(
                x::CURRENT_TIME,
                target.window,
                atoms.selection,
                atoms.uri_list,
                property,
            );
            self.connection.send_request(&x::SendEvent {
                propagate: false,
                destination: x::SendEventDest::Window(target.proxy.unwrap_or(target.window)),
                event_mask: x::EventMask::empty(),
                event: &event,
            });
        }
        self.connection.flush().unwrap();
    }

    /// Waits for a message of this kind.
    fn wait_for(&self, kind: x::Atom) -> [u32; 5] {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < Duration::from_secs(60), "no {kind:?} of {:?}", self.atoms);
            match self.connection.poll_for_event() {
                Ok(Some(xcb::Event::X(x::Event::ClientMessage(event)))) if event.r#type() == kind => {
                    let x::ClientMessageData::Data32(data) = event.data() else { panic!("{event:?}") };
                    return data;
                }
                Ok(Some(xcb::Event::X(x::Event::SelectionRequest(event)))) => self.serves(&event),
                Ok(Some(_)) => {}
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn serves(&self, asked: &x::SelectionRequestEvent) {
        assert_eq!((asked.selection(), asked.target()), (self.atoms.selection, self.atoms.uri_list));
        self.connection.send_request(&x::ChangeProperty {
            mode: x::PropMode::Replace,
            window: asked.requestor(),
            property: asked.property(),
            r#type: asked.target(),
            data: self.list.as_slice(),
        });
        let event = x::SelectionNotifyEvent::new(
            asked.time(),
            asked.requestor(),
            asked.selection(),
            asked.target(),
            asked.property(),
        );
        self.connection.send_request(&x::SendEvent {
            propagate: false,
            destination: x::SendEventDest::Window(asked.requestor()),
            event_mask: x::EventMask::empty(),
            event: &event,
        });
        self.connection.flush().unwrap();
    }
}
