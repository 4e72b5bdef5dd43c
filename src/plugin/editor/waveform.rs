//! Scrolling waveforms of the last seconds: one row per stem with the input behind it, aligned with the audible output.

use egui::{Align2, Color32, Mesh, Pos2, Rect, Sense, Stroke, Ui};

use super::theme::{Palette, font};
use crate::live::Scope;
use crate::live::scope::COLUMNS_PER_SECOND;

const SECONDS: u32 = 10;
/// Exponent applied to the peaks, so that quiet passages stay visible.
const BEND: f32 = 0.5;

#[derive(Clone, Debug, PartialEq)]
pub struct WaveformRow {
    /// Strip index of the stem; `None` shows the input only.
    pub strip_index: Option<usize>,
    pub name: String,
    pub color: Color32,
    /// Whether the stem is audible: neither muted nor silenced by a solo.
    pub audible: bool,
}

/// Draws the rows. Returns whether anything but silence is visible.
pub fn show(ui: &mut Ui, rect: Rect, scope: Option<&Scope>, rows: &[WaveformRow]) -> bool {
    let palette = Palette::of(ui.visuals());
    let painter = ui.painter_at(rect);
    painter.rect_filled(rect, 6.0, palette.panel);
    let response = ui.interact(rect, ui.scope_id().with("waveform"), Sense::hover());
    response.on_hover_text("The last 10 seconds: each stem after its fader, with the input in grey behind it. The right edge is what you hear now.");
    if rect.width() < 8.0 || rect.height() < 8.0 || rows.is_empty() {
        return false;
    }
    let shown = u64::from(SECONDS * COLUMNS_PER_SECOND);
    for second in 1..SECONDS {
        let x = egui::lerp(rect.right()..=rect.left(), second as f32 / SECONDS as f32);
        painter.vline(x, rect.y_range(), Stroke::new(1.0, palette.line.gamma_multiply(0.6)));
        if second % 2 == 0 && rect.height() > 60.0 {
            let at = Pos2::new(x + 3.0, rect.bottom() - 2.0);
            painter.text(at, Align2::LEFT_BOTTOM, format!("−{second} s"), font(10.0), palette.weak);
        }
    }
    let height = rect.height() / rows.len() as f32;
    let mut loud = false;
    for (at, row) in rows.iter().enumerate() {
        let top = rect.top() + at as f32 * height;
        let inside = Rect::from_min_max(Pos2::new(rect.left(), top), Pos2::new(rect.right(), top + height))
            .shrink2(egui::vec2(0.0, 2.0));
        if at > 0 {
            painter.hline(rect.x_range(), top, Stroke::new(1.0, palette.line));
        }
        painter.hline(rect.x_range(), inside.center().y, Stroke::new(1.0, palette.line));
        if let Some(scope) = scope {
            let dry = envelope(inside, scope.head(), shown, |column| scope.input(column));
            loud |= !dry.is_empty();
            painter.add(fill(
                &dry,
                inside,
                if row.strip_index.is_some() { palette.dry.gamma_multiply(0.55) } else { palette.dry },
            ));
            if let Some(strip_index) = row.strip_index {
                let wet = envelope(inside, scope.head(), shown, |column| scope.stem(column, strip_index));
                loud |= !wet.is_empty();
                painter.add(fill(
                    &wet,
                    inside,
                    row.color.gamma_multiply(if row.audible { 0.95 } else { 0.35 }),
                ));
            }
        }
        if height > 14.0 {
            let galley = painter.layout_no_wrap(
                row.name.clone(),
                font(11.0),
                if row.audible { palette.text } else { palette.weak },
            );
            let place = Rect::from_min_size(Pos2::new(rect.left() + 8.0, inside.top() + 1.0), galley.size());
            painter.rect_filled(place.expand2(egui::vec2(4.0, 0.0)), 3.0, palette.panel.gamma_multiply(0.8));
            painter.galley(place.min, galley, palette.text);
        }
    }
    loud
}

/// Points of the envelope: x and half the height there. Empty if all is silent.
fn envelope(rect: Rect, head: u64, shown: u64, peak: impl Fn(u64) -> f32) -> Vec<(f32, f32)> {
    // Leaves out the column that is still being filled, since it would flicker.
    let columns = shown.min(head);
    let mut loud = false;
    let point = |back: u64| {
        let peak = peak(head - back);
        let peak = if peak.is_finite() { peak.clamp(0.0, 1.0) } else { 1.0 };
        loud |= peak > 0.0;
        (
            rect.right() - rect.width() * (back - 1) as f32 / (shown - 1).max(1) as f32,
            0.5 * rect.height() * peak.powf(BEND),
        )
    };
    let points: Vec<_> = (1..=columns).rev().map(point).collect();
    if loud { points } else { Vec::new() }
}

fn fill(points: &[(f32, f32)], rect: Rect, color: Color32) -> Mesh {
    let mut mesh = Mesh::default();
    let middle = rect.center().y;
    for (at, (x, half)) in points.iter().enumerate() {
        mesh.colored_vertex(Pos2::new(*x, middle - half), color);
        mesh.colored_vertex(Pos2::new(*x, middle + half), color);
        if let Some(before) = (2 * at as u32).checked_sub(2) {
            mesh.add_triangle(before, before + 1, before + 2);
            mesh.add_triangle(before + 2, before + 1, before + 3);
        }
    }
    mesh
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect() -> Rect {
        Rect::from_min_size(Pos2::ZERO, egui::vec2(100.0, 20.0))
    }

    #[test]
    fn the_newest_complete_column_is_at_the_right_edge_and_silence_has_no_points() {
        let points = envelope(rect(), 50, 11, |column| if column == 49 { 1.0 } else { 0.0 });
        assert_eq!(points.len(), 11);
        assert_eq!((points.first(), points.last()), (Some(&(0.0, 0.0)), Some(&(100.0, 10.0))));
        assert!(envelope(rect(), 50, 11, |_| 0.0).is_empty());
        assert!(envelope(rect(), 0, 11, |_| 1.0).is_empty());
        assert_eq!(envelope(rect(), 3, 11, |_| f32::NAN).len(), 3);
    }

    #[test]
    fn an_envelope_fills_a_band_around_the_center_line() {
        let mesh = fill(&[(0.0, 5.0), (1.0, 2.0), (2.0, 0.0)], rect(), Color32::RED);
        assert_eq!((mesh.vertices.len(), mesh.indices.len()), (6, 12));
        assert!(mesh.is_valid());
        assert!(fill(&[], rect(), Color32::RED).is_valid());
    }
}
