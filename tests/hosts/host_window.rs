//! The editor in a host's window, on X11.

use std::time::Duration;

use clack_extensions::gui::{GuiApiType, GuiConfiguration, GuiSize, PluginGui, Window};
use vst3_host::plugin::WindowHandle;

use crate::clap::Clap;
use crate::host::Host;
use crate::vst3::Vst3;

/// A host that shows the editor in a window of its own.
pub trait WithEditor: Host {
    /// Opens the editor in the X11 window with this id.
    fn open_editor(&mut self, window: u32);

    /// Requests another size, in pixels.
    fn resize_editor(&mut self, width: u16, height: u16);

    /// Runs the main thread's work for the editor between events. Returns the editor's size, if known.
    fn serve_editor(&mut self) -> Option<(u16, u16)>;

    /// Closes the editor.
    fn close_editor(&mut self);

    /// How often the plugin reported unsaved changes. `None` if the host does not listen.
    fn dirty_count(&mut self) -> Option<usize> {
        None
    }
}

/// Like [`both`], for hosts with an editor.
macro_rules! both_with_editor {
    ($($tests:tt)+) => { crate::host::tests_of! { crate::host_window::WithEditor, $($tests)+ } };
}
pub(crate) use both_with_editor;

impl WithEditor for Vst3 {
    fn open_editor(&mut self, window: u32) {
        self.plugin.open_editor(WindowHandle::from_x11(window)).unwrap();
    }

    fn resize_editor(&mut self, width: u16, height: u16) {
        self.plugin.resize_editor(width.into(), height.into()).unwrap();
    }

    fn serve_editor(&mut self) -> Option<(u16, u16)> {
        self.plugin.service_run_loop();
        let (width, height) = self.plugin.attached_editor_size().unwrap()?;
        Some((width as u16, height as u16))
    }

    fn close_editor(&mut self) {
        self.plugin.close_editor().unwrap();
    }
}

impl Clap {
    /// Like [`open_editor`](WithEditor::open_editor), with a pause before the window is shown.
    pub fn open_editor_late(&mut self, window: u32, pause: Duration) {
        let gui: PluginGui = self.extension();
        let handle = self.instance.plugin_handle();
        let configuration = GuiConfiguration { api_type: GuiApiType::X11, is_floating: false };
        gui.create(&handle, configuration).unwrap();
        // SAFETY: the window outlives the editor.
        unsafe { gui.set_parent(&handle, Window::from_x11_handle(window.into())) }.unwrap();
        std::thread::sleep(pause);
        gui.show(&handle).unwrap();
    }
}

impl WithEditor for Clap {
    fn open_editor(&mut self, window: u32) {
        self.open_editor_late(window, Duration::ZERO);
    }

    fn resize_editor(&mut self, width: u16, height: u16) {
        let gui: PluginGui = self.extension();
        let size = GuiSize { width: width.into(), height: height.into() };
        let handle = self.instance.plugin_handle();
        assert!(gui.can_resize(&handle));
        let size = gui.adjust_size(&handle, size).unwrap();
        gui.set_size(&handle, size).unwrap();
    }

    fn serve_editor(&mut self) -> Option<(u16, u16)> {
        let gui: PluginGui = self.extension();
        let size = gui.get_size(&self.instance.plugin_handle())?;
        Some((size.width as u16, size.height as u16))
    }

    fn close_editor(&mut self) {
        let gui: PluginGui = self.extension();
        gui.destroy(&self.instance.plugin_handle());
    }

    fn dirty_count(&mut self) -> Option<usize> {
        Some(Self::dirty_count(self))
    }
}
