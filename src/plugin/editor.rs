//! The editor.

use std::sync::Arc;

use nice_plug_egui::{
    EguiEditor, EguiEditorState, EguiNiceSettings, Frame, NiceEguiApp, RepaintNotifier, create_egui_editor,
};

use super::session::Session;

/// The editor's window.
pub struct EditorApp {
    session: Arc<Session>,
}

/// Makes the editor of an instance.
pub fn create(session: Arc<Session>) -> Option<EguiEditor<EditorApp>> {
    let memory = session.params.editor.lock().clone();
    let size = nice_plug::editor::dpi::LogicalSize::new(memory.width, memory.height);
    let state =
        EguiEditorState::from_size(nice_plug::editor::dpi::Size::Logical(size.cast()), memory.zoom.max(0.25));
    create_egui_editor(state, RepaintNotifier::new(), EguiNiceSettings::new(), EditorApp { session })
}

impl NiceEguiApp for EditorApp {
    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut Frame) {
        ui.label(format!("{:?}", self.session.view()));
    }
}
