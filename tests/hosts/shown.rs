//! The editor in a window of a host's, on X11.

use std::time::Duration;

use clack_extensions::gui::{GuiApiType, GuiConfiguration, GuiSize, PluginGui, Window};
use vst3_host::plugin::WindowHandle;

use crate::clap::Clap;
use crate::host::Host;
use crate::vst3::Vst3;

/// A host that shows the editor in a window of its own.
pub trait WithEditor: Host {
    /// Opens it in the X11 window of this number.
    fn open_editor(&mut self, window: u32);

    /// Asks it for another size, in pixels.
    fn resize_editor(&mut self, width: u16, height: u16);

    /// What the main thread does for it between events; its size, where it is known.
    fn serve_editor(&mut self) -> Option<(u16, u16)>;

    /// Closes it.
    fn close_editor(&mut self);

    /// How often the plugin has said that there is something to save; none where the host does not listen.
    fn told_unsaved(&mut self) -> Option<usize> {
        None
    }
}

/// As [`both`], for hosts with an editor.
macro_rules! both_with_editor {
    ($($tests:tt)+) => { crate::host::tests_of! { crate::shown::WithEditor, $($tests)+ } };
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
    /// As [`open_editor`](WithEditor::open_editor), with a pause before it is shown.
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

    fn told_unsaved(&mut self) -> Option<usize> {
        Some(Self::told_unsaved(self))
    }
}
