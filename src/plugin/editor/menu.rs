//! The header's menu: log file, diagnostics.

use egui::Ui;
use egui::containers::menu::MenuButton;

use super::header::HeaderAction;
use crate::plugin::logger;

/// Draws the button and, while it is open, the menu.
pub fn show(ui: &mut Ui) -> Option<HeaderAction> {
    let mut action = None;
    let button = egui::Button::new("Menu").min_size(egui::vec2(46.0, 26.0));
    MenuButton::from_button(button).ui(ui, |ui| {
        if ui
            .button("Copy diagnostics")
            .on_hover_text("Copies versions, host, model, latency, load and the latest warnings, for a bug report. It contains no paths of your home folder.")
            .clicked()
        {
            action = Some(HeaderAction::CopyDiagnostics);
            ui.close();
        }
        let mut enabled = logger::is_file_enabled();
        let hint = "Writes what the plugin loads, plans and misses to nullsum.log in the cache folder, at most 1 MB.";
        if ui.checkbox(&mut enabled, "Write a log file").on_hover_text(hint).changed() {
            logger::set_file_enabled(enabled);
        }
    });
    action
}
