//! The header's menu: presets, automation, log file, diagnostics.

use egui::Ui;
use egui::containers::menu::MenuButton;

use super::header::HeaderAction;
use crate::plugin::logger;
use crate::plugin::params::AutomationTiming;
use crate::plugin::presets::{DEFAULTS, FACTORY};

/// Draws the button and, while it is open, the menu.
pub fn show(ui: &mut Ui, automation: AutomationTiming) -> Option<HeaderAction> {
    let mut action = None;
    let button = egui::Button::new("Menu").min_size(egui::vec2(46.0, 26.0));
    MenuButton::from_button(button).ui(ui, |ui| {
        ui.weak("Presets");
        for preset in &FACTORY {
            if ui.button(preset.name).on_hover_text(preset.description).clicked() {
                action = Some(HeaderAction::ApplyPreset(preset));
                ui.close();
            }
        }
        if ui.button("Reset to defaults").on_hover_text(DEFAULTS.description).clicked() {
            action = Some(HeaderAction::ApplyPreset(&DEFAULTS));
            ui.close();
        }
        ui.separator();
        ui.weak("Automation");
        for (timing, name, hint) in [
            (AutomationTiming::InTime, "In time with the music", "Automated values apply to the input that they were drawn over. A fader moved in the host acts one latency late."),
            (AutomationTiming::AtOnce, "At once", "For faders that you move live, with a controller or in the host. Drawn automation then acts one latency early."),
        ] {
            if ui.radio(automation == timing, name).on_hover_text(hint).clicked() {
                action = Some(HeaderAction::SetAutomationTiming(timing));
            }
        }
        ui.separator();
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
