//! X11: workarounds for `baseview`, and files dropped on a window.
//!
//! **Windows that are shown late.** `baseview` draws a frame when the X server reports that the previous one was presented (Present extension).
//! It requests the first report when the window is created, but selects these events only when the window is shown. If a host shows the window
//! late, as CLAP allows, or the machine is busy, the first report is lost and the window stays empty for ever. So we select the events at creation.
//!
//! **The graphics driver.** `baseview` loads OpenGL for each window and unloads it afterwards. Drivers do not expect that: their threads may still
//! be ending, and their permanent allocations leak every time. So we keep the library loaded after its first use.

#[cfg(target_os = "linux")]
pub mod file_drop;

use nice_plug_egui::baseview::WindowContext;

/// The X11 id of a window.
#[cfg(target_os = "linux")]
pub fn window_id(window: &WindowContext) -> Option<u32> {
    use raw_window_handle::{HasWindowHandle, RawWindowHandle};
    match window.window_handle().ok()?.as_raw() {
        RawWindowHandle::Xlib(handle) => u32::try_from(handle.window).ok(),
        RawWindowHandle::Xcb(handle) => Some(handle.window.get()),
        _ => None,
    }
}

/// Selects Present events for a window that was just created.
#[cfg(target_os = "linux")]
pub fn subscribe_present_events(window: &WindowContext) {
    use raw_window_handle::{HasDisplayHandle, RawDisplayHandle};
    use x11rb::connection::Connection;
    use x11rb::protocol::present::{ConnectionExt, EventMask};
    use x11rb::xcb_ffi::XCBConnection;

    let platform = window.platform_handle();
    let Ok(display) = platform.display_handle() else { return };
    let RawDisplayHandle::Xcb(display) = display.as_raw() else { return };
    let (Some(connection), Some(id)) = (display.connection, window_id(window)) else { return };
    // SAFETY: `connection` belongs to the window and outlives this function. `false` means that dropping our wrapper does not close it.
    let Ok(connection) = (unsafe { XCBConnection::from_raw_xcb_connection(connection.as_ptr(), false) })
    else {
        return;
    };
    let Ok(event) = connection.generate_id() else { return };
    // A server without the extension sends no reports, and then `baseview` does not wait for them. The selection ends with the window.
    if let Ok(cookie) = connection.present_select_input(event, id, EventMask::COMPLETE_NOTIFY) {
        let _ = cookie.check();
    }
}

#[cfg(not(target_os = "linux"))]
pub fn subscribe_present_events(_window: &WindowContext) {}

/// Keeps OpenGL loaded until the process ends, if a window has loaded it.
#[cfg(target_os = "linux")]
pub fn keep_gl_loaded() {
    // SAFETY: the string is null-terminated. RTLD_NOLOAD loads nothing; it only marks a library that is loaded already.
    unsafe {
        libc::dlopen(c"libEGL.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE)
    };
}

#[cfg(not(target_os = "linux"))]
pub fn keep_gl_loaded() {}
