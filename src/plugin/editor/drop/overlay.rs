//! What is shown over the editor while files hover.

use egui::{Align2, Area, Id, Order, RichText, Sense, Stroke, StrokeKind, Ui, vec2};

use crate::plugin::editor::theme::Palette;

/// Draws it over everything, where it stops no click.
pub fn show(ui: &Ui, song_too: bool) {
    let palette = Palette::of(ui.visuals());
    let screen = ui.ctx().content_rect();
    let words = if song_too {
        "Drop a checkpoint with its YAML, or a song"
    } else {
        "Drop a checkpoint, with its YAML"
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
        let words = RichText::new(words).size(18.0).color(palette.text);
        ui.add(egui::Label::new(words).sense(Sense::empty()).selectable(false));
    });
}
