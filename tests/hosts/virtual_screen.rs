//! A virtual screen (Xvfb) with windows for the editor.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use xcb::{Xid, x};

/// An X server, ended on drop.
pub struct Screen {
    server: Child,
    connection: xcb::Connection,
}

/// A window, as a host creates one for an editor.
pub struct Frame<'a> {
    screen: &'a Screen,
    window: x::Window,
}

/// Creates a window on the first screen, not shown yet.
pub fn window(connection: &xcb::Connection, width: u16, height: u16) -> x::Window {
    let root = connection.get_setup().roots().next().unwrap();
    let window: x::Window = connection.generate_id();
    let make = x::CreateWindow {
        depth: x::COPY_FROM_PARENT as u8,
        wid: window,
        parent: root.root(),
        x: 0,
        y: 0,
        width,
        height,
        border_width: 0,
        class: x::WindowClass::InputOutput,
        visual: root.root_visual(),
        value_list: &[],
    };
    connection.check_request(connection.send_request_checked(&make)).unwrap();
    window
}

impl Screen {
    /// Starts Xvfb and points this process to it, so no other thread may run yet. OpenGL is rendered in software.
    pub fn start() -> Self {
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1400x1000x24", "-nolisten", "tcp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb; `scripts/setup screen` installs it");
        let mut number = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        let display = format!(":{}", number.trim());
        // SAFETY: no other thread reads the environment now.
        unsafe {
            std::env::set_var("DISPLAY", &display);
            std::env::set_var("LIBGL_ALWAYS_SOFTWARE", "1");
        }
        let (connection, _) = xcb::Connection::connect(Some(&display)).unwrap();
        Self { server, connection }
    }

    /// The root window.
    pub fn whole(&self) -> Frame<'_> {
        Frame { screen: self, window: self.connection.get_setup().roots().next().unwrap().root() }
    }

    /// Creates and shows a window.
    pub fn frame(&self, width: u16, height: u16) -> Frame<'_> {
        let window = window(&self.connection, width, height);
        self.connection
            .check_request(self.connection.send_request_checked(&x::MapWindow { window }))
            .unwrap();
        Frame { screen: self, window }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Frame<'_> {
    /// The window's id.
    pub fn id(&self) -> u32 {
        self.window.resource_id()
    }

    /// Sizes of the windows inside: the editor's.
    pub fn children(&self) -> Vec<(u16, u16)> {
        let connection = &self.screen.connection;
        let query = connection.send_request(&x::QueryTree { window: self.window });
        let tree = connection.wait_for_reply(query).unwrap();
        let size = |child: &x::Window| {
            let query = connection.send_request(&x::GetGeometry { drawable: x::Drawable::Window(*child) });
            connection.wait_for_reply(query).map(|geometry| (geometry.width(), geometry.height())).ok()
        };
        tree.children().iter().filter_map(size).collect()
    }

    /// Clicks into the editor.
    pub fn click(&self, x: i16, y: i16) {
        let connection = &self.screen.connection;
        let tree = connection
            .wait_for_reply(connection.send_request(&x::QueryTree { window: self.window }))
            .unwrap();
        let [child] = tree.children() else { return };
        let root = connection.get_setup().roots().next().unwrap().root();
        let none = x::KeyButMask::empty();
        macro_rules! event {
            ($kind:ident, $detail:expr) => {{
                let at = (x, y);
                x::$kind::new(
                    $detail,
                    x::CURRENT_TIME,
                    root,
                    *child,
                    x::Window::none(),
                    at.0,
                    at.1,
                    at.0,
                    at.1,
                    none,
                    true,
                )
            }};
        }
        macro_rules! send {
            ($event:expr) => {
                connection.send_request(&x::SendEvent {
                    propagate: false,
                    destination: x::SendEventDest::Window(*child),
                    event_mask: x::EventMask::empty(),
                    event: &$event,
                })
            };
        }
        send!(event!(MotionNotifyEvent, x::Motion::Normal));
        send!(event!(ButtonPressEvent, 1));
        send!(event!(ButtonReleaseEvent, 1));
        connection.flush().unwrap();
    }

    /// Distinct colours in the editor. One before the first frame.
    pub fn colors(&self) -> usize {
        self.picture(0, 0, 300, 60).into_iter().collect::<std::collections::BTreeSet<_>>().len()
    }

    /// A part of the editor's picture, row by row. Empty if there is no editor.
    pub fn picture(&self, x: i16, y: i16, width: u16, height: u16) -> Vec<[u8; 4]> {
        let connection = &self.screen.connection;
        let tree = connection
            .wait_for_reply(connection.send_request(&x::QueryTree { window: self.window }))
            .unwrap();
        let Some(child) = tree.children().first() else { return Vec::new() };
        let image = x::GetImage {
            format: x::ImageFormat::ZPixmap,
            drawable: x::Drawable::Window(*child),
            x,
            y,
            width,
            height,
            plane_mask: u32::MAX,
        };
        let Ok(image) = connection.wait_for_reply(connection.send_request(&image)) else {
            return Vec::new();
        };
        image.data().chunks_exact(4).filter_map(|pixel| pixel.try_into().ok()).collect()
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        let connection = &self.screen.connection;
        let _ = connection
            .check_request(connection.send_request_checked(&x::DestroyWindow { window: self.window }));
    }
}
