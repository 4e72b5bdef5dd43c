//! The row for prepared stems: what of the song was heard, what is prepared, and how far the preparation is.

use std::path::PathBuf;
use std::time::Duration;

use egui::containers::menu::MenuButton;
use egui::{Align, Layout, Rect, RichText, Sense, Stroke, Ui, WidgetInfo, vec2};

use super::theme::Palette;
use crate::plugin::prepared::{PrepareCommand, PreparedView, SongRange};
use crate::prepared::player::MatchState;

const HEIGHT: f32 = 26.0;
const GIGABYTE: u64 = 1_000_000_000;
/// Size limits to choose from, in gigabytes.
const LIMITS: [u64; 6] = [1, 5, 10, 20, 50, 200];

/// State of the row in one window.
#[derive(Debug, Default)]
pub struct PrepareRow {
    /// Whether the user opened it, or closed it although there is something to see.
    pub is_open: Option<bool>,
    /// Path that the user types or pastes.
    path: String,
}

impl PrepareRow {
    /// Whether the row is shown.
    pub fn is_visible(&self, view: &PreparedView, learn: bool) -> bool {
        let has_content = learn || view.job.is_some() || !view.prepared.is_empty() || view.missing > 0;
        self.is_open.unwrap_or(has_content)
    }

    /// Draws the row. Returns what the user asks for.
    pub fn show(
        &mut self,
        ui: &mut Ui,
        view: &PreparedView,
        learn: bool,
        rate: u32,
    ) -> Option<PrepareCommand> {
        let palette = Palette::of(ui.visuals());
        let mut command = None;
        ui.horizontal(|ui| {
            ui.set_height(HEIGHT);
            ui.spacing_mut().item_spacing.x = 4.0;
            let hint = "Records what plays, by song position, so that it can be prepared. The recording is kept until this instance closes.";
            if ui.selectable_label(learn, "Learn").on_hover_text(hint).clicked() {
                command = Some(PrepareCommand::Learn(!learn));
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                ui.spacing_mut().item_spacing.x = 4.0;
                command = self.menu(ui, view).or(command.take());
                command = buttons(ui, view).or(command.take());
                let (text, ink) = match &view.problem {
                    Some(problem) => (problem.clone(), palette.bad),
                    None => (state_text(view, rate), palette.weak),
                };
                let room = (0.45 * ui.available_width()).max(60.0);
                ui.allocate_ui_with_layout(vec2(room, HEIGHT), Layout::right_to_left(Align::Center), |ui| {
                    let label = egui::Label::new(RichText::new(&text).size(11.5).color(ink)).truncate();
                    ui.add(label).on_hover_text(&text);
                });
                let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width().max(10.0), HEIGHT), Sense::hover());
                draw_ranges(ui, rect.shrink2(vec2(4.0, 7.0)), view, rate);
            });
        });
        command
    }

    /// The menu: a file instead of what was heard, the store's size, the eraser.
    fn menu(&mut self, ui: &mut Ui, view: &PreparedView) -> Option<PrepareCommand> {
        let mut command = None;
        let button = egui::Button::new("Stems").min_size(vec2(46.0, 22.0));
        let (response, _) = MenuButton::from_button(button).ui(ui, |ui| {
            ui.weak("Prepare the file of this track");
            ui.horizontal(|ui| {
                ui.add(egui::TextEdit::singleline(&mut self.path).hint_text("Path, or drop the file on this window"));
                if ui.add_enabled(!self.path.trim().is_empty() && view.job.is_none(), egui::Button::new("Prepare")).clicked() {
                    let path = self.path.trim().trim_matches(['"', '\'']);
                    command = Some(PrepareCommand::PrepareFile(PathBuf::from(path)));
                    ui.close();
                }
            });
            if ui.add_enabled(!view.heard.is_empty(), egui::Button::new("Forget what was heard")).clicked() {
                command = Some(PrepareCommand::ForgetHeard);
                ui.close();
            }
            ui.separator();
            if let Some((size, limit)) = view.size {
                ui.weak(format!("On this computer: {} of {}", gigabytes(size), gigabytes(limit)));
                ui.menu_button("Size limit", |ui| {
                    for choice in LIMITS {
                        if ui.radio(limit == choice * GIGABYTE, format!("{choice} GB")).clicked() {
                            command = Some(PrepareCommand::SetLimit(choice * GIGABYTE));
                            ui.close();
                        }
                    }
                });
            }
            egui::ScrollArea::vertical().max_height(180.0).show(ui, |ui| {
                for entry in &view.entries {
                    ui.horizontal(|ui| {
                        let hint = "Erases these stems from this computer. Other projects that use them prepare again.";
                        if ui.small_button("Erase").on_hover_text(hint).clicked() {
                            command = Some(PrepareCommand::Erase(entry.id.clone()));
                        }
                        ui.label(format!("{} · {} · {}", entry.title, entry.model, gigabytes(entry.bytes)));
                    });
                }
            });
        });
        if response.clicked() {
            command = Some(PrepareCommand::ListStore);
        }
        command
    }
}

/// The buttons of the preparation.
fn buttons(ui: &mut Ui, view: &PreparedView) -> Option<PrepareCommand> {
    let mut command = None;
    match &view.job {
        Some(job) => {
            if ui.button("Cancel").on_hover_text("Ends the preparation. What is done stays.").clicked() {
                command = Some(PrepareCommand::Cancel);
            }
            let paused = job.is_paused();
            if ui.button(if paused { "Continue" } else { "Pause" }).clicked() {
                command = Some(PrepareCommand::Pause(!paused));
            }
        }
        None => {
            let hint = "Separates what was heard, in the background and at full quality. The stems then play from this computer's disk.";
            let button = ui.add_enabled(!view.heard.is_empty(), egui::Button::new("Prepare"));
            if button
                .on_hover_text(hint)
                .on_disabled_hover_text(
                    "Turn on Learn and play the song first, or choose its file under Stems.",
                )
                .clicked()
            {
                command = Some(PrepareCommand::PrepareHeard);
            }
        }
    }
    command
}

/// One line: the preparation, else what plays.
fn state_text(view: &PreparedView, rate: u32) -> String {
    if let Some(job) = &view.job {
        let percent = format!("{:.0} %", 100.0 * job.fraction());
        return match (job.is_running(), job.is_paused(), job.time_left()) {
            (false, ..) => "Waits for another preparation".into(),
            (_, true, _) => format!("Paused at {percent}"),
            (_, _, Some(left)) => format!("Prepared {percent}, {} left", duration(left)),
            (_, _, None) => format!("Prepared {percent}"),
        };
    }
    match view.state {
        MatchState::Matched { gain: 1.0 } => "Prepared stems play".into(),
        MatchState::Matched { gain } => {
            format!("Prepared stems play, at {:+.1} dB", 20.0 * gain.abs().log10())
        }
        MatchState::Missed => "Not prepared here: live stems".into(),
        MatchState::Idle if view.missing > 0 => format!(
            "The stems of {} song{} are not on this computer: prepare again",
            view.missing,
            if view.missing == 1 { "" } else { "s" }
        ),
        MatchState::Idle => {
            let heard: i64 = view.heard.iter().map(|range| range.end - range.start).sum();
            let heard = Duration::from_secs(heard.unsigned_abs() / u64::from(rate.max(1)));
            if heard.is_zero() { String::new() } else { format!("Heard {}", duration(heard)) }
        }
    }
}

fn duration(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=59 => format!("{seconds} s"),
        seconds @ 60..=3599 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        seconds => format!("{}:{:02} h", seconds / 3600, seconds / 60 % 60),
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / GIGABYTE as f64)
}

/// The song as a bar: heard ranges grey, prepared ones coloured, and the position.
fn draw_ranges(ui: &Ui, rect: Rect, view: &PreparedView, rate: u32) {
    let palette = Palette::of(ui.visuals());
    let painter = ui.painter_at(rect.expand(2.0));
    painter.rect_filled(rect, 3.0, palette.raised);
    let Some((first, last)) = bounds(view, rate) else { return };
    let x = |at: i64| {
        rect.left() + rect.width() * ((at - first) as f64 / (last - first) as f64).clamp(0.0, 1.0) as f32
    };
    for (ranges, color, inset) in [(&view.heard, palette.dry, 0.0), (&view.prepared, palette.accent, 2.5)] {
        for range in ranges {
            let bar = Rect::from_x_y_ranges(
                x(range.start)..=x(range.end).max(x(range.start) + 1.0),
                rect.y_range(),
            );
            painter.rect_filled(bar.shrink2(vec2(0.0, inset)), 2.0, color);
        }
    }
    if let Some(position) = view.position {
        painter.vline(x(position), rect.expand(2.0).y_range(), Stroke::new(1.5, palette.text));
    }
    let seconds = |ranges: &[SongRange]| {
        ranges.iter().map(|range| range.end - range.start).sum::<i64>() / i64::from(rate.max(1))
    };
    let text =
        format!("Heard {} s, prepared {} s of the song", seconds(&view.heard), seconds(&view.prepared));
    let response = ui.interact(rect, ui.scope_id().with("prepared"), Sense::hover());
    let enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::labeled(egui::Role::Label, enabled, &text));
    response.on_hover_text(format!("{text}. Grey: heard. Coloured: prepared."));
}

/// First and last position that is drawn; none if there is nothing to draw.
fn bounds(view: &PreparedView, rate: u32) -> Option<(i64, i64)> {
    let ranges = || view.heard.iter().chain(&view.prepared);
    let first = ranges().map(|range| range.start).min()?.min(0);
    let last = ranges().map(|range| range.end).max()?;
    Some((first, last.max(first + i64::from(rate.max(1)))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::prepared::job::JobHandle;

    #[test]
    fn the_line_says_what_happens() {
        let mut view = PreparedView::default();
        view.heard.push(0..44_100 * 75);
        assert_eq!(state_text(&view, 44_100), "Heard 1:15 min");
        view.missing = 2;
        assert!(state_text(&view, 44_100).contains("2 songs are not on this computer"));
        view.state = MatchState::Matched { gain: 1.0 };
        assert_eq!(state_text(&view, 44_100), "Prepared stems play");
        view.state = MatchState::Matched { gain: 0.5 };
        assert_eq!(state_text(&view, 44_100), "Prepared stems play, at -6.0 dB");
        view.job = Some(Arc::<JobHandle>::default());
        assert_eq!(state_text(&view, 44_100), "Waits for another preparation");
    }

    #[test]
    fn the_bar_holds_all_ranges_and_is_never_empty() {
        let mut view = PreparedView::default();
        assert_eq!(bounds(&view, 48_000), None);
        view.heard.push(100..200);
        assert_eq!(bounds(&view, 48_000), Some((0, 48_000)));
        view.prepared.push(-500..96_000);
        assert_eq!(bounds(&view, 48_000), Some((-500, 96_000)));
    }

    #[test]
    fn the_row_opens_when_there_is_something_to_see() {
        let mut row = PrepareRow::default();
        let view = PreparedView::default();
        assert!(!row.is_visible(&view, false) && row.is_visible(&view, true));
        row.is_open = Some(true);
        assert!(row.is_visible(&view, false));
    }
}
