//! What was played in the last seconds: a lane a stem, the input behind each, all aligned with what is heard.

use egui::{Align2, Color32, Mesh, Pos2, Rect, Sense, Stroke, Ui};

use super::theme::{Palette, font};
use crate::stream::Scope;
use crate::stream::scope::COLUMNS_PER_SECOND;

/// Seconds that are shown.
const SECONDS: u32 = 10;
/// Bends the peaks, so that quiet passages are not a line.
const BEND: f32 = 0.5;

/// One lane.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane {
    /// Which of the stream's; none: the input alone.
    pub slot: Option<usize>,
    /// What stands in it.
    pub name: String,
    /// Its colour.
    pub color: Color32,
    /// Whether it is heard.
    pub heard: bool,
}

/// Draws it. Gives whether there was anything but silence.
pub fn show(ui: &mut Ui, rect: Rect, scope: Option<&Scope>, lanes: &[Lane]) -> bool {
    let palette = Palette::of(ui.visuals());
    let painter = ui.painter_at(rect);
    painter.rect_filled(rect, 6.0, palette.panel);
    let response = ui.interact(rect, ui.scope_id().with("waveform"), Sense::hover());
    response.on_hover_text("The last 10 seconds: each stem after its fader, before the input (grey). What is heard now is at the right edge.");
    if rect.width() < 8.0 || rect.height() < 8.0 || lanes.is_empty() {
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
    let height = rect.height() / lanes.len() as f32;
    let mut loud = false;
    for (at, lane) in lanes.iter().enumerate() {
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
                if lane.slot.is_some() { palette.dry.gamma_multiply(0.55) } else { palette.dry },
            ));
            if let Some(slot) = lane.slot {
                let wet = envelope(inside, scope.head(), shown, |column| scope.stem(column, slot));
                loud |= !wet.is_empty();
                painter.add(fill(
                    &wet,
                    inside,
                    lane.color.gamma_multiply(if lane.heard { 0.95 } else { 0.35 }),
                ));
            }
        }
        if height > 14.0 {
            let galley = painter.layout_no_wrap(
                lane.name.clone(),
                font(11.0),
                if lane.heard { palette.text } else { palette.weak },
            );
            let place = Rect::from_min_size(Pos2::new(rect.left() + 8.0, inside.top() + 1.0), galley.size());
            painter.rect_filled(place.expand2(egui::vec2(4.0, 0.0)), 3.0, palette.panel.gamma_multiply(0.8));
            painter.galley(place.min, galley, palette.text);
        }
    }
    loud
}

/// Half heights over x; empty where all is silent.
fn envelope(rect: Rect, head: u64, shown: u64, peak: impl Fn(u64) -> f32) -> Vec<(f32, f32)> {
    // The column that is being filled is left out: it would flicker.
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
    fn the_newest_whole_column_is_at_the_right_edge_and_silence_is_nothing() {
        let points = envelope(rect(), 50, 11, |column| if column == 49 { 1.0 } else { 0.0 });
        assert_eq!(points.len(), 11);
        assert_eq!((points.first(), points.last()), (Some(&(0.0, 0.0)), Some(&(100.0, 10.0))));
        assert!(envelope(rect(), 50, 11, |_| 0.0).is_empty());
        assert!(envelope(rect(), 0, 11, |_| 1.0).is_empty());
        assert_eq!(envelope(rect(), 3, 11, |_| f32::NAN).len(), 3);
    }

    #[test]
    fn an_envelope_becomes_a_band_around_the_middle() {
        let mesh = fill(&[(0.0, 5.0), (1.0, 2.0), (2.0, 0.0)], rect(), Color32::RED);
        assert_eq!((mesh.vertices.len(), mesh.indices.len()), (6, 12));
        assert!(mesh.is_valid());
        assert!(fill(&[], rect(), Color32::RED).is_valid());
    }
}
