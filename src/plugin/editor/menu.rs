//! The header's menu: presets, automation, prepared stems, threads, log file, diagnostics.

use egui::Ui;
use egui::containers::menu::MenuButton;

use super::header::HeaderAction;
use crate::plugin::device::DeviceSetting;
use crate::plugin::params::AutomationTiming;
use crate::plugin::presets::{DEFAULTS, FACTORY};
use crate::plugin::{logger, thread_setting};

/// Draws the button and, while it is open, the menu.
pub fn show(ui: &mut Ui, automation: AutomationTiming, device: &DeviceSetting) -> Option<HeaderAction> {
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
        let hint = "Separates the song once, in the background and at full quality, and plays the stems from disk from then on.";
        if ui.button("Prepared stems").on_hover_text(hint).clicked() {
            action = Some(HeaderAction::TogglePrepareRow);
            ui.close();
        }
        ui.separator();
        if let Some(threads) = show_threads(ui) {
            action = Some(HeaderAction::SetThreads(threads));
            ui.close();
        }
        if let Some(device) = show_device(ui, device) {
            action = Some(HeaderAction::SetDevice(device));
            ui.close();
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

/// Draws the choice of threads. Returns the new choice, `None` inside for the default.
fn show_threads(ui: &mut Ui) -> Option<Option<usize>> {
    let (chosen, mut choice) = (thread_setting::chosen(), None);
    let menu = ui.menu_button("Threads", |ui| {
        if ui.radio(chosen.is_none(), "Default").on_hover_text(thread_setting::describe_default()).clicked() {
            choice = Some(None);
        }
        for threads in thread_counts(thread_setting::processors()) {
            if ui.radio(chosen == Some(threads), threads.to_string()).clicked() {
                choice = Some(Some(threads));
            }
        }
    });
    menu.response.on_hover_text(
        "Threads for live separation, for all instances on this computer. A change loads the model again.",
    );
    choice
}

/// Draws the choice of the device. Returns the new choice.
fn show_device(ui: &mut Ui, current: &DeviceSetting) -> Option<DeviceSetting> {
    let mut choice = None;
    let menu = ui.menu_button("Device", |ui| {
        for (device, hint) in DeviceSetting::choices(current) {
            if ui.radio(device == *current, device.to_string()).on_hover_text(hint).clicked() {
                choice = Some(device);
            }
        }
    });
    menu.response.on_hover_text(
        "Where the model of this instance runs; saved with the project. The latency stays until the transport stops.",
    );
    choice
}

/// Numbers of threads to offer: all up to eight, then steps, and always the number of processors.
fn thread_counts(processors: usize) -> Vec<usize> {
    let steps = [12, 16, 24, 32, 48, 64, 96, 128];
    (1..=8).chain(steps).filter(|threads| *threads < processors).chain([processors]).collect()
}

#[cfg(test)]
mod tests {
    use super::thread_counts;

    #[test]
    fn every_computer_is_offered_one_thread_and_all() {
        assert_eq!(thread_counts(1), [1]);
        assert_eq!(thread_counts(2), [1, 2]);
        assert_eq!(thread_counts(20), [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20]);
        assert_eq!(thread_counts(256).last(), Some(&256));
    }
}
