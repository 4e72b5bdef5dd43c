//! The picker's list of folders and files.

use std::path::PathBuf;

use egui::{Align, Layout, RichText, ScrollArea, Ui};

use super::PickerAction;
use crate::plugin::editor::files::{Kind, Listing};
use crate::plugin::editor::io_thread::{IoRequest, IoResponse, IoThread};
use crate::plugin::editor::text;
use crate::plugin::editor::theme::Palette;
use crate::plugin::selection::Selection;
use crate::registry::human_size;

/// A folder listing, and the files chosen in it.
#[derive(Default)]
pub struct FileBrowser {
    pub listing: Listing,
    checkpoint: Option<PathBuf>,
    /// The YAML file that the user clicked.
    config: Option<PathBuf>,
    /// The YAML file that was found automatically.
    found: Option<PathBuf>,
}

impl FileBrowser {
    pub fn refresh(&mut self, io_thread: &mut IoThread) {
        io_thread.send(IoRequest::ListFolder(self.listing.folder.clone()));
    }

    pub fn receive(&mut self, found: IoResponse) {
        match found {
            IoResponse::Listing(listing) => {
                if listing.folder != self.listing.folder {
                    self.clear_choice();
                }
                self.listing = listing;
            }
            // The user may have chosen another checkpoint meanwhile.
            IoResponse::SidecarConfig(checkpoint, config)
                if self.checkpoint.as_ref() == Some(&checkpoint) =>
            {
                self.found = config;
            }
            IoResponse::SidecarConfig(..) | IoResponse::Catalog(..) | IoResponse::LiveCosts(..) => {}
        }
    }

    pub fn clear_choice(&mut self) {
        (self.checkpoint, self.config, self.found) = (None, None, None);
    }

    pub fn checkpoint(&self) -> Option<&PathBuf> {
        self.checkpoint.as_ref()
    }

    fn choose(&mut self, checkpoint: PathBuf, io_thread: &mut IoThread) {
        self.found = None;
        io_thread.send(IoRequest::FindSidecarConfig(checkpoint.clone()));
        self.checkpoint = Some(checkpoint);
    }

    pub fn show(&mut self, ui: &mut Ui, height: f32, io_thread: &mut IoThread) -> Option<PickerAction> {
        let palette = Palette::of(ui.visuals());
        let mut action = None;
        let mut next_request = None;
        let before = ui.cursor().top();
        ui.horizontal(|ui| {
            if ui.button("Up").on_hover_text("Parent folder").clicked() {
                next_request =
                    self.listing.folder.parent().map(|folder| IoRequest::ListFolder(folder.into()));
            }
            if ui.button("Home").clicked() {
                next_request = Some(IoRequest::ListNearestFolder(None));
            }
            if ui.button("Refresh").clicked() {
                self.refresh(io_thread);
            }
            ui.add(
                egui::Label::new(RichText::new(text::short_path(&self.listing.folder, 80)).monospace())
                    .truncate(),
            );
        });
        let list = (height - (ui.cursor().top() - before) - 40.0).max(20.0);
        let row = 24.0;
        ScrollArea::vertical().id_salt("files").max_height(list).auto_shrink(false).show_rows(
            ui,
            row,
            self.listing.items.len(),
            |ui, rows| {
                ui.spacing_mut().item_spacing.y = 0.0;
                for at in rows {
                    let Some(item) = self.listing.items.get(at).cloned() else { continue };
                    let chosen = self.checkpoint.as_ref() == Some(&item.path)
                        || self.config.as_ref() == Some(&item.path);
                    let response = line(ui, row, &item.name, item.kind, item.size, chosen);
                    if response.clicked() {
                        match item.kind {
                            Kind::Folder => next_request = Some(IoRequest::ListFolder(item.path.clone())),
                            Kind::Checkpoint => self.choose(item.path.clone(), io_thread),
                            Kind::Yaml => self.config = if chosen { None } else { Some(item.path.clone()) },
                        }
                    }
                    if response.double_clicked() && item.kind == Kind::Checkpoint {
                        action = Some(PickerAction::Load(Selection::file(item.path, self.config.clone())));
                    }
                }
            },
        );
        if let Some(error) = &self.listing.error {
            ui.label(RichText::new(error).color(palette.bad));
        } else if io_thread.is_busy() && self.listing.items.is_empty() {
            ui.label(RichText::new("Reading the folder…").color(palette.weak));
        } else if self.listing.items.is_empty() {
            ui.label(RichText::new("No folders or checkpoints here").color(palette.weak));
        }
        ui.horizontal(|ui| {
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let ready = self.checkpoint.is_some();
                if ui.add_enabled(ready, egui::Button::new("Load")).clicked()
                    && let Some(checkpoint) = &self.checkpoint
                {
                    action =
                        Some(PickerAction::Load(Selection::file(checkpoint.clone(), self.config.clone())));
                }
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    ui.add(
                        egui::Label::new(
                            RichText::new(self.load_description()).size(12.0).color(palette.weak),
                        )
                        .truncate(),
                    );
                });
            });
        });
        if let Some(folder) = next_request {
            io_thread.send(folder);
        }
        action
    }

    fn load_description(&self) -> String {
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match (&self.checkpoint, &self.config, &self.found) {
            (None, ..) => "Choose a checkpoint (.ckpt, .pt, .safetensors, …)".into(),
            (Some(checkpoint), Some(config), _) => format!("{} with {}", name(checkpoint), name(config)),
            (Some(checkpoint), None, Some(found)) => {
                format!("{} with {}, found beside it", name(checkpoint), name(found))
            }
            (Some(checkpoint), None, None) => format!(
                "{}: no .yaml beside it. Click its .yaml, or load the checkpoint if it contains its configuration.",
                name(checkpoint)
            ),
        }
    }
}

fn line(ui: &mut Ui, height: f32, name: &str, kind: Kind, size: u64, chosen: bool) -> egui::Response {
    let palette = Palette::of(ui.visuals());
    let (rect, response) =
        ui.allocate_exact_size(egui::vec2(ui.available_width(), height), egui::Sense::click());
    let fill = match (chosen, response.hovered()) {
        (true, _) => palette.accent.gamma_multiply(0.3),
        (false, true) => palette.raised,
        (false, false) => egui::Color32::TRANSPARENT,
    };
    ui.painter().rect_filled(rect, 4.0, fill);
    let ink = if kind == Kind::Yaml { palette.weak } else { palette.text };
    let mark =
        egui::Rect::from_center_size(rect.left_center() + egui::vec2(14.0, 0.0), egui::vec2(12.0, 10.0));
    match kind {
        Kind::Folder => {
            ui.painter().rect_filled(mark, 2.0, palette.warn);
            let tab = egui::Rect::from_min_size(mark.min - egui::vec2(0.0, 2.0), egui::vec2(5.0, 4.0));
            ui.painter().rect_filled(tab, 1.0, palette.warn);
        }
        Kind::Checkpoint => {
            ui.painter().rect_filled(mark.shrink2(egui::vec2(1.0, 0.0)), 2.0, palette.accent);
        }
        Kind::Yaml => {
            ui.painter().rect_stroke(
                mark.shrink2(egui::vec2(1.0, 0.0)),
                2.0,
                egui::Stroke::new(1.0, palette.weak),
                egui::StrokeKind::Inside,
            );
        }
    }
    let painter = ui.painter_at(rect.with_max_x(rect.right() - 80.0));
    let at = rect.left_center() + egui::vec2(30.0, 0.0);
    painter.text(at, egui::Align2::LEFT_CENTER, name, super::super::theme::font(13.0), ink);
    if kind != Kind::Folder {
        let at = rect.right_center() - egui::vec2(8.0, 0.0);
        ui.painter().text(
            at,
            egui::Align2::RIGHT_CENTER,
            human_size(size),
            super::super::theme::font(11.5),
            palette.weak,
        );
    }
    let enabled = ui.is_enabled();
    response.widget_info(|| egui::WidgetInfo::selected(egui::Role::Button, enabled, chosen, name));
    super::super::widgets::focus_ring(ui, &response, rect.shrink(2.0));
    response
}
