//! Overlay that the editor shows while files are dragged over it.

use egui::{Align2, Area, Id, Order, RichText, Sense, Stroke, StrokeKind, Ui, vec2};

use crate::plugin::editor::theme::Palette;

/// Draws the overlay above everything else. It does not intercept clicks.
pub fn show(ui: &Ui, song_too: bool) {
    let palette = Palette::of(ui.visuals());
    let screen = ui.ctx().content_rect();
    let label = if song_too {
        "Drop a checkpoint with its YAML file, or a song"
    } else {
        "Drop a checkpoint with its YAML file"
    };
    let area = Area::new(Id::unique("nullsum drop"))
        .order(Order::Foreground)
        .interactable(false)
        .anchor(Align2::CENTER_CENTER, vec2(0.0, 0.0))
        .constrain(false);
    area.show(ui.ctx(), |ui| {
        let painter = ui.painter().with_clip_rect(screen);
        painter.rect_filled(screen, 0.0, palette.back.gamma_multiply(0.85));
        let edge = Stroke::new(2.0, palette.accent);
        painter.rect_stroke(screen.shrink(10.0), 8.0, edge, StrokeKind::Inside);
        ui.set_max_width((screen.width() - 40.0).max(10.0));
        let label = RichText::new(label).size(18.0).color(palette.text);
        ui.add(egui::Label::new(label).sense(Sense::empty()).selectable(false));
    });
}
