//! What the window's library leaves undone on X11.
//!
//! **Windows that are shown late.** The window's library draws when the X server says that a frame has been presented (the Present extension), asks for that word as soon as a
//! picture is wanted, and listens for it from the moment on when the window is shown. Where a host takes its time between making an editor and
//! showing it, as CLAP has it, or the machine is busy, the first word comes before anybody listens, and the library waits for it for ever:
//! the window stays empty. So here it is listened for from the beginning.
//!
//! **The graphics driver.** Every window loads OpenGL and unloads it again, which no driver is made for: threads of it may still be ending, and
//! what it keeps for ever is lost anew each time. Here it stays once it was needed.

use nice_plug_egui::baseview::WindowContext;

/// The number of the window of this context.
#[cfg(target_os = "linux")]
pub fn id(window: &WindowContext) -> Option<u32> {
    use raw_window_handle::{HasWindowHandle, RawWindowHandle};
    match window.window_handle().ok()?.as_raw() {
        RawWindowHandle::Xlib(handle) => u32::try_from(handle.window).ok(),
        RawWindowHandle::Xcb(handle) => Some(handle.window.get()),
        _ => None,
    }
}

/// Listens for the window of this context.
#[cfg(target_os = "linux")]
pub fn listen(window: &WindowContext) {
    use raw_window_handle::{HasDisplayHandle, RawDisplayHandle};
    use x11rb::connection::Connection;
    use x11rb::protocol::present::{ConnectionExt, EventMask};
    use x11rb::xcb_ffi::XCBConnection;

    let platform = window.platform_handle();
    let Ok(display) = platform.display_handle() else { return };
    let RawDisplayHandle::Xcb(display) = display.as_raw() else { return };
    let (Some(connection), Some(id)) = (display.connection, id(window)) else { return };
    // SAFETY: the window's connection, which is not closed here, and outlives this function.
    let Ok(connection) = (unsafe { XCBConnection::from_raw_xcb_connection(connection.as_ptr(), false) })
    else {
        return;
    };
    let Ok(event) = connection.generate_id() else { return };
    // Where the server has no such extension, nobody waits for its word. The window takes the choice with it.
    if let Ok(asked) = connection.present_select_input(event, id, EventMask::COMPLETE_NOTIFY) {
        let _ = asked.check();
    }
}

/// Elsewhere there is nothing to listen for.
#[cfg(not(target_os = "linux"))]
pub fn listen(_window: &WindowContext) {}

/// Keeps OpenGL loaded from now on.
#[cfg(target_os = "linux")]
pub fn keep_driver() {
    // SAFETY: nothing is loaded; what is, by the window's library, is marked.
    unsafe {
        libc::dlopen(c"libEGL.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE)
    };
}

/// Elsewhere the system does.
#[cfg(not(target_os = "linux"))]
pub fn keep_driver() {}
