//! Choosing a model: a panel over the editor, never a window of its own.

mod browse;
mod shelf;

use std::path::PathBuf;

use egui::{Align, Frame, Layout, Margin, RichText, ScrollArea, TextEdit, Ui, vec2};

use super::disk::{Ask, Disk, Found};
use super::theme::Palette;
use super::{files, text};
use crate::plugin::library::OpenError;
use crate::plugin::selection::{Selection, Source};
use crate::plugin::session::{ModelView, View};

pub use browse::Browse;

/// Where in the panel one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// The built-in model and the registry.
    #[default]
    Library,
    /// Files that were used lately.
    Recent,
    /// Folders.
    Files,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Pick {
    /// This model.
    Use(Selection),
    /// This model of the registry, from the network.
    Fetch(Selection),
    /// To stop what is being fetched or loaded.
    Cancel,
    /// The selected model, once more.
    Retry,
}

/// The panel.
#[derive(Default)]
pub struct Picker {
    open: bool,
    tab: Tab,
    browse: Browse,
    disk: Disk,
    recent: Vec<Selection>,
    /// Whether each entry of the registry is on this computer.
    cached: Vec<bool>,
    path: String,
    /// What is wrong with the path, or with files that were dropped.
    complaint: Option<String>,
    filter: String,
}

impl Picker {
    /// Opens it, at a tab.
    pub fn open(&mut self, tab: Tab, near: Option<PathBuf>) {
        (self.open, self.tab, self.complaint) = (true, tab, None);
        self.browse.forget();
        if near.is_some() || self.browse.listing.folder.as_os_str().is_empty() {
            let recent = self.recent.first().and_then(|selection| match &selection.source {
                Source::File { checkpoint, .. } => Some(checkpoint.clone()),
                _ => None,
            });
            self.disk.ask(Ask::ListNear(near.or(recent)));
        } else {
            self.browse.refresh(&mut self.disk);
        }
        self.refresh();
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.open = false;
    }

    /// Looks again at what is on disk. Not for every frame.
    pub fn refresh(&mut self) {
        self.disk.ask(Ask::Catalogue);
    }

    /// Whether it waits for a disk.
    pub fn is_waiting(&self) -> bool {
        self.open && self.disk.is_busy()
    }

    /// Takes what was found on disk.
    fn take_answers(&mut self) {
        for found in self.disk.answers() {
            match found {
                Found::Catalogue(recent, cached) => (self.recent, self.cached) = (recent, cached),
                found => self.browse.take(found),
            }
        }
    }

    /// Takes paths that were pasted or typed.
    pub fn take_paths(&mut self, words: &str) -> Option<Pick> {
        match text::pasted_paths(words, files::home().as_deref()) {
            (Some(checkpoint), config) => self.take_files(checkpoint, config),
            (None, _) => {
                self.complain("A path ends in .ckpt, .pt, .pth, .th, .bin or .safetensors".into());
                None
            }
        }
    }

    /// Takes a checkpoint and its YAML, however they were named.
    pub fn take_files(&mut self, checkpoint: PathBuf, config: Option<PathBuf>) -> Option<Pick> {
        let missing = std::iter::once(&checkpoint).chain(&config).find(|file| !file.is_file());
        self.complaint = missing.map(|file| format!("There is no file {}", file.display()));
        self.complaint.is_none().then(|| Pick::Use(Selection::file(checkpoint, config)))
    }

    /// Takes a YAML for the checkpoint that is chosen in the list of files, else for the one that is selected.
    pub fn take_config(&mut self, config: PathBuf, selected: &Selection) -> Option<Pick> {
        let listed = self.browse.checkpoint().filter(|_| self.open && self.tab == Tab::Files);
        match (listed, &selected.source) {
            (Some(checkpoint), _) | (None, Source::File { checkpoint, .. }) => {
                self.take_files(checkpoint.clone(), Some(config))
            }
            (None, _) => {
                self.complain("A YAML alone is no model: drop it together with its checkpoint".into());
                None
            }
        }
    }

    /// Says what is wrong with what was given.
    pub fn complain(&mut self, complaint: String) {
        self.complaint = Some(complaint);
    }

    /// What is wrong with what was given, where the panel does not say it itself.
    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref().filter(|_| !self.open)
    }

    /// Says no more of it.
    pub fn forget_complaint(&mut self) {
        self.complaint = None;
    }

    /// Draws it over everything.
    pub fn show(&mut self, ui: &Ui, selected: &Selection, view: &View) -> Option<Pick> {
        self.take_answers();
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

    fn content(&mut self, ui: &mut Ui, selected: &Selection, view: &View) -> Option<Pick> {
        let palette = Palette::of(ui.visuals());
        let mut pick = None;
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
                        TextEdit::singleline(&mut self.filter)
                            .desired_width(150.0)
                            .hint_text("Search: vocals, Kim …")
                            .char_limit(60),
                    );
                });
            }
        });
        ui.separator();
        if let ModelView::Failed(error) = &view.model {
            pick = failure(ui, error, selected).or(pick);
        }
        let foot = if self.complaint.is_some() { 56.0 } else { 34.0 };
        let body = (ui.available_height() - foot).max(20.0);
        let scrolled = match self.tab {
            Tab::Library => self.scroll(ui, body, |picker, ui| shelf::library(picker, ui, selected, view)),
            Tab::Recent => self.scroll(ui, body, |picker, ui| shelf::recent(picker, ui, selected, view)),
            Tab::Files => self.browse.show(ui, body, &mut self.disk),
        };
        pick = scrolled.or(pick);
        ui.separator();
        ui.horizontal(|ui| {
            let wide = (ui.available_width() - 70.0).max(40.0);
            let edit = TextEdit::singleline(&mut self.path)
                .desired_width(wide)
                .char_limit(8_000)
                .hint_text("Or paste the path of a checkpoint here; its .yaml may follow");
            let response = ui.add(edit);
            let entered = response.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            if (ui.button("Open").clicked() || entered) && !self.path.trim().is_empty() {
                let words = self.path.clone();
                pick = self.take_paths(&words).or(pick.take());
            }
        });
        if let Some(complaint) = &self.complaint {
            ui.label(RichText::new(complaint).color(palette.bad).size(12.0));
        }
        pick
    }

    fn scroll(
        &mut self,
        ui: &mut Ui,
        height: f32,
        content: impl FnOnce(&mut Self, &mut Ui) -> Option<Pick>,
    ) -> Option<Pick> {
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

/// Why there is no model, with what can be done about it.
fn failure(ui: &mut Ui, error: &OpenError, selected: &Selection) -> Option<Pick> {
    let palette = Palette::of(ui.visuals());
    let mut pick = None;
    let frame =
        Frame::NONE.fill(palette.bad.gamma_multiply(0.12)).corner_radius(5).inner_margin(Margin::same(8));
    frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        match error {
            OpenError::NotFetched { name, size, licence } => {
                ui.label(format!("{name} is chosen, but not on this computer yet ({size}, licence: {licence})."));
            }
            OpenError::Missing { path } => {
                ui.label(RichText::new("The session's checkpoint is not where it was:").color(palette.bad));
                ui.label(RichText::new(path).monospace());
                ui.label("Find it in the files below; wherever it was loaded once before, it is found by its content.");
            }
            OpenError::Cancelled => {
                ui.label("Loading was stopped.");
            }
            OpenError::Broken { reason, report } => {
                ui.label(RichText::new(format!("{} could not be loaded.", selected.title)).color(palette.bad));
                let all = report.as_ref().map_or_else(|| reason.clone(), |report| format!("{reason}\n\n{report}"));
                ScrollArea::vertical().id_salt("report").max_height(150.0).show(ui, |ui| {
                    ui.set_width(ui.available_width());
                    ui.add(egui::Label::new(RichText::new(&all).monospace()).wrap().selectable(true));
                });
                ui.horizontal(|ui| {
                    if ui.button("Copy the report").clicked() {
                        ui.ctx().copy_text(all.clone());
                    }
                    if ui.button("Try again").clicked() {
                        pick = Some(Pick::Retry);
                    }
                });
            }
        }
    });
    pick
}
