//! The model picker: a panel inside the editor, since a plugin should not open windows of its own.

mod catalog;
mod file_browser;
mod library_filter;

use std::path::PathBuf;

use egui::{Align, Frame, Layout, Margin, RichText, ScrollArea, TextEdit, Ui, vec2};

use super::io_thread::{IoRequest, IoResponse, IoThread};
use super::theme::Palette;
use super::{files, text};
use crate::live::LiveForecast;
use crate::plugin::instance_shared::{ModelView, View};
use crate::plugin::model_loader::ModelLoadError;
use crate::plugin::selection::{ModelSource, Selection};

pub use file_browser::FileBrowser;
use library_filter::LibraryFilter;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// The built-in model and the registry.
    #[default]
    Library,
    Recent,
    Files,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PickerAction {
    Load(Selection),
    /// Downloads a model of the registry, then loads it.
    Download(Selection),
    /// Cancels the current download or load.
    Cancel,
    Retry,
}

#[derive(Default)]
pub struct Picker {
    open: bool,
    tab: Tab,
    file_browser: FileBrowser,
    io_thread: IoThread,
    recent: Vec<Selection>,
    /// Whether each registry entry is downloaded.
    cached: Vec<bool>,
    /// What live use of each registry entry would cost.
    live_costs: Vec<Option<LiveForecast>>,
    path: String,
    /// Error about the entered path or about dropped files.
    error: Option<String>,
    filter: LibraryFilter,
}

impl Picker {
    pub fn open(&mut self, tab: Tab, near: Option<PathBuf>) {
        (self.open, self.tab, self.error) = (true, tab, None);
        self.file_browser.clear_choice();
        if near.is_some() || self.file_browser.listing.folder.as_os_str().is_empty() {
            let recent = self.recent.first().and_then(|selection| match &selection.source {
                ModelSource::File { checkpoint, .. } => Some(checkpoint.clone()),
                _ => None,
            });
            self.io_thread.send(IoRequest::ListNearestFolder(near.or(recent)));
        } else {
            self.file_browser.refresh(&mut self.io_thread);
        }
        self.refresh();
    }

    pub fn is_open(&self) -> bool {
        self.open
    }

    pub fn close(&mut self) {
        self.open = false;
    }

    /// Requests the current state of the disk. Not meant for every frame.
    pub fn refresh(&mut self) {
        self.io_thread.send(IoRequest::ReadCatalog);
        if self.live_costs.iter().all(Option::is_none) {
            self.io_thread.send(IoRequest::PredictLiveCosts);
        }
    }

    pub fn is_waiting(&self) -> bool {
        self.open && self.io_thread.is_busy()
    }

    fn receive_responses(&mut self) {
        for found in self.io_thread.take_responses() {
            match found {
                IoResponse::Catalog(recent, cached) => (self.recent, self.cached) = (recent, cached),
                IoResponse::LiveCosts(costs) => self.live_costs = costs,
                found => self.file_browser.receive(found),
            }
        }
    }

    /// Loads a checkpoint whose path was pasted or typed.
    pub fn load_pasted_paths(&mut self, pasted: &str) -> Option<PickerAction> {
        match text::pasted_paths(pasted, files::home().as_deref()) {
            (Some(checkpoint), config) => self.load_files(checkpoint, config),
            (None, _) => {
                self.show_error(
                    "Enter the path of a .ckpt, .pt, .pth, .th, .bin, .safetensors or .gguf file".into(),
                );
                None
            }
        }
    }

    /// Loads a checkpoint with its YAML file. Reports a file that does not exist.
    pub fn load_files(&mut self, checkpoint: PathBuf, config: Option<PathBuf>) -> Option<PickerAction> {
        let missing = std::iter::once(&checkpoint).chain(&config).find(|file| !file.is_file());
        self.error = missing.map(|file| format!("File not found: {}", file.display()));
        self.error.is_none().then(|| PickerAction::Load(Selection::file(checkpoint, config)))
    }

    /// Uses a YAML file for the checkpoint chosen in the file list, otherwise for the selected one.
    pub fn load_config(&mut self, config: PathBuf, selected: &Selection) -> Option<PickerAction> {
        let listed = self.file_browser.checkpoint().filter(|_| self.open && self.tab == Tab::Files);
        match (listed, &selected.source) {
            (Some(checkpoint), _) | (None, ModelSource::File { checkpoint, .. }) => {
                self.load_files(checkpoint.clone(), Some(config))
            }
            (None, _) => {
                self.show_error(
                    "A YAML file alone is not a model. Drop it together with its checkpoint.".into(),
                );
                None
            }
        }
    }

    pub fn show_error(&mut self, error: String) {
        self.error = Some(error);
    }

    /// The error to show in the banner; an open picker shows it itself.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref().filter(|_| !self.open)
    }

    pub fn clear_error(&mut self) {
        self.error = None;
    }

    pub fn show(&mut self, ui: &Ui, selected: &Selection, view: &View) -> Option<PickerAction> {
        self.receive_responses();
        if !self.open {
            return None;
        }
        let screen = ui.ctx().content_rect();
        let size =
            vec2((screen.width() - 48.0).clamp(80.0, 760.0), (screen.height() - 48.0).clamp(60.0, 620.0));
        let palette = Palette::of(ui.visuals());
        let frame = Frame::NONE
            .fill(palette.panel)
            .stroke(egui::Stroke::new(1.0, palette.line))
            .corner_radius(8)
            .inner_margin(Margin::same(14));
        let modal = egui::Modal::new(egui::Id::unique("nullsum picker")).frame(frame).show(ui.ctx(), |ui| {
            ui.set_width((size.x - 28.0).max(40.0));
            ui.set_height((size.y - 28.0).max(30.0));
            self.content(ui, selected, view)
        });
        if modal.should_close() {
            self.open = false;
        }
        modal.inner
    }

    fn content(&mut self, ui: &mut Ui, selected: &Selection, view: &View) -> Option<PickerAction> {
        let palette = Palette::of(ui.visuals());
        let mut action = None;
        ui.horizontal(|ui| {
            ui.label(RichText::new("Choose a model").size(17.0));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                if ui.button("Close").on_hover_text("Escape").clicked() {
                    self.open = false;
                }
            });
        });
        ui.horizontal(|ui| {
            for (tab, name) in
                [(Tab::Library, "Library"), (Tab::Recent, "Recent files"), (Tab::Files, "Browse files")]
            {
                if ui.selectable_label(self.tab == tab, RichText::new(name).size(13.5)).clicked() {
                    self.tab = tab;
                    self.refresh();
                }
            }
            if self.tab == Tab::Library {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    ui.add(
                        TextEdit::singleline(&mut self.filter.text)
                            .desired_width(150.0)
                            .hint_text("Search: vocals, Kim …")
                            .char_limit(60),
                    );
                });
            }
        });
        if self.tab == Tab::Library {
            self.filter.show(ui);
        }
        ui.separator();
        if let ModelView::Failed(error) = &view.model {
            action = failure(ui, error, selected).or(action);
        }
        let foot = if self.error.is_some() { 56.0 } else { 34.0 };
        let body = (ui.available_height() - foot).max(20.0);
        let scrolled = match self.tab {
            Tab::Library => self.scroll(ui, body, |picker, ui| catalog::library(picker, ui, selected, view)),
            Tab::Recent => self.scroll(ui, body, |picker, ui| catalog::recent(picker, ui, selected, view)),
            Tab::Files => self.file_browser.show(ui, body, &mut self.io_thread),
        };
        action = scrolled.or(action);
        ui.separator();
        ui.horizontal(|ui| {
            let wide = (ui.available_width() - 70.0).max(40.0);
            let edit = TextEdit::singleline(&mut self.path)
                .desired_width(wide)
                .char_limit(8_000)
                .hint_text("Or paste the path of a checkpoint, optionally followed by its .yaml");
            let response = ui.add(edit);
            let entered = response.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            if (ui.button("Open").clicked() || entered) && !self.path.trim().is_empty() {
                let pasted = self.path.clone();
                action = self.load_pasted_paths(&pasted).or(action.take());
            }
        });
        if let Some(error) = &self.error {
            ui.label(RichText::new(error).color(palette.bad).size(12.0));
        }
        action
    }

    fn scroll(
        &mut self,
        ui: &mut Ui,
        height: f32,
        content: impl FnOnce(&mut Self, &mut Ui) -> Option<PickerAction>,
    ) -> Option<PickerAction> {
        ScrollArea::vertical()
            .id_salt(("picker", self.tab as u8))
            .max_height(height)
            .auto_shrink(false)
            .show(ui, |ui| {
                ui.set_max_width((ui.available_width() - 4.0).max(40.0));
                content(self, ui)
            })
            .inner
    }
}

/// Explains why the model did not load and offers remedies.
fn failure(ui: &mut Ui, error: &ModelLoadError, selected: &Selection) -> Option<PickerAction> {
    let palette = Palette::of(ui.visuals());
    let mut action = None;
    let frame =
        Frame::NONE.fill(palette.bad.gamma_multiply(0.12)).corner_radius(5).inner_margin(Margin::same(8));
    frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        match error {
            ModelLoadError::NotFetched { name, size, licence } => {
                ui.label(format!("{name} is selected but not downloaded yet ({size}, licence: {licence})."));
            }
            ModelLoadError::Missing { path } => {
                ui.label(RichText::new("This project's model file has moved:").color(palette.bad));
                ui.label(RichText::new(path).monospace());
                ui.label("Locate it below. A file that was loaded before is recognised by its content, wherever it is now.");
            }
            ModelLoadError::Cancelled => {
                ui.label("Loading was cancelled.");
            }
            ModelLoadError::Broken { reason, report } => {
                ui.label(RichText::new(format!("{} could not be loaded.", selected.title)).color(palette.bad));
                let all = report.as_ref().map_or_else(|| reason.clone(), |report| format!("{reason}\n\n{report}"));
                ScrollArea::vertical().id_salt("report").max_height(150.0).show(ui, |ui| {
                    ui.set_width(ui.available_width());
                    ui.add(egui::Label::new(RichText::new(&all).monospace()).wrap().selectable(true));
                });
                ui.horizontal(|ui| {
                    if ui.button("Copy report").clicked() {
                        ui.ctx().copy_text(all.clone());
                    }
                    if ui.button("Try again").clicked() {
                        action = Some(PickerAction::Retry);
                    }
                });
            }
        }
    });
    action
}
