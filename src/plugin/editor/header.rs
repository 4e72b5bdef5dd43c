//! The header: model button, A/B, undo, theme, zoom, and the row of latency tiers.

use egui::{
    Align, Align2, Color32, Layout, Pos2, Rect, Response, Role, Sense, Shape, Stroke, Ui, Vec2, WidgetInfo,
    vec2,
};
use nice_plug::prelude::Param;

use super::custom_window::WindowChange;
use super::overload;
use super::param_edits::ParamEdits;
use super::param_id::ParamId;
use super::text;
use super::theme::{Palette, font};
use super::widgets;
use crate::live::plan::SUSTAINABLE_LOAD;
use crate::plugin::device::DeviceSetting;
use crate::plugin::instance_shared::{TierView, View};
use crate::plugin::params::{AutomationTiming, TierChoice};
use crate::plugin::presets::Preset;

const ZOOMS: [f32; 6] = [0.75, 0.9, 1.0, 1.25, 1.5, 2.0];

#[derive(Clone, Debug, PartialEq)]
pub enum HeaderAction {
    ChooseModel,
    SetLightTheme(bool),
    SetZoom(f32),
    MeasureAgain,
    UseCustomWindow,
    CopyDiagnostics,
    TogglePrepareRow,
    ApplyPreset(&'static Preset),
    SetAutomationTiming(AutomationTiming),
    /// `None`: the default.
    SetThreads(Option<usize>),
    SetDevice(DeviceSetting),
    ChangeWindow(WindowChange),
}

pub struct ModelButton<'a> {
    pub title: &'a str,
    pub detail: &'a str,
    pub healthy: bool,
}

pub fn show_toolbar(
    ui: &mut Ui,
    edits: &mut ParamEdits,
    model: &ModelButton,
    zoom: f32,
) -> Option<HeaderAction> {
    let palette = Palette::of(ui.visuals());
    let mut action = None;
    ui.horizontal(|ui| {
        ui.set_height(32.0);
        let wide = ui.available_width() > 560.0;
        if wide {
            draw_logo(ui);
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.spacing_mut().item_spacing.x = 4.0;
            action = super::menu::show(ui, edits.params.automation.get(), &edits.params.device.get());
            let button = egui::Button::new(text::percent(f64::from(zoom))).min_size(vec2(52.0, 26.0));
            let menu = egui::containers::menu::MenuButton::from_button(button).ui(ui, |ui| {
                for factor in ZOOMS {
                    if ui
                        .selectable_label((zoom - factor).abs() < 0.01, text::percent(f64::from(factor)))
                        .clicked()
                    {
                        action = Some(HeaderAction::SetZoom(factor));
                        ui.close();
                    }
                }
            });
            menu.0.on_hover_text("Zoom");
            let dark = palette.dark;
            let hint = if dark { "Light theme" } else { "Dark theme" };
            if icon_button(ui, true, hint, draw_theme_icon).clicked() {
                action = Some(HeaderAction::SetLightTheme(dark));
            }
            ui.add_space(8.0);
            let can_redo = edits.history.can_redo();
            if icon_button(ui, can_redo, "Redo", |ui, rect, ink| draw_arrow(ui, rect, ink, false)).clicked() {
                edits.redo();
            }
            let can_undo = edits.history.can_undo();
            if icon_button(ui, can_undo, "Undo", |ui, rect, ink| draw_arrow(ui, rect, ink, true)).clicked() {
                edits.undo();
            }
            ui.add_space(8.0);
            ab_buttons(ui, edits);
            ui.add_space(8.0);
            // The model button takes the remaining width.
            let width = ui.available_width().clamp(40.0, 420.0);
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                if model_button(ui, width, model).clicked() {
                    action = Some(HeaderAction::ChooseModel);
                }
            });
        });
    });
    action
}

fn draw_logo(ui: &mut Ui) {
    let palette = Palette::of(ui.visuals());
    let galley = ui.painter().layout_no_wrap("Nullsum".into(), font(20.0), palette.text);
    let (rect, response) = ui.allocate_exact_size(vec2(galley.size().x + 30.0, 32.0), Sense::hover());
    // Two waves that cancel each other.
    let wave = |sign: f32| -> Vec<Pos2> {
        let point = |at: u8| {
            let x = f32::from(at) / 16.0;
            Pos2::new(
                rect.left() + 20.0 * x,
                rect.center().y - sign * 6.5 * (std::f32::consts::TAU * x).sin(),
            )
        };
        (0..=16).map(point).collect()
    };
    ui.painter().line(wave(1.0), Stroke::new(2.0, palette.strip_color(0)));
    ui.painter().line(wave(-1.0), Stroke::new(2.0, palette.strip_color(1)));
    ui.painter().galley(
        Pos2::new(rect.left() + 28.0, rect.center().y - galley.size().y / 2.0),
        galley,
        palette.text,
    );
    response.on_hover_text(concat!(
        "Nullsum ",
        env!("CARGO_PKG_VERSION"),
        ": music source separation that loses nothing"
    ));
}

fn model_button(ui: &mut Ui, width: f32, model: &ModelButton) -> Response {
    let palette = Palette::of(ui.visuals());
    let (rect, response) = ui.allocate_exact_size(vec2(width, 32.0), Sense::click());
    let fill = if response.hovered() { palette.lifted } else { palette.raised };
    ui.painter().rect_filled(rect, 5.0, fill);
    let painter = ui.painter_at(rect.shrink2(vec2(8.0, 0.0)).with_max_x(rect.right() - 24.0));
    let left = rect.left() + 10.0;
    painter.text(
        Pos2::new(left, rect.top() + 10.0),
        Align2::LEFT_CENTER,
        model.title,
        font(13.0),
        palette.text,
    );
    let ink = if model.healthy { palette.weak } else { palette.warn };
    painter.text(Pos2::new(left, rect.bottom() - 8.5), Align2::LEFT_CENTER, model.detail, font(10.5), ink);
    let at = Pos2::new(rect.right() - 14.0, rect.center().y);
    let points = vec![at + vec2(-4.0, -2.0), at + vec2(0.0, 2.5), at + vec2(4.0, -2.0)];
    ui.painter().line(points, Stroke::new(1.5, palette.weak));
    let enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, format!("Model: {}", model.title)));
    widgets::focus_ring(ui, &response, rect);
    response.on_hover_text("Choose a model")
}

fn ab_buttons(ui: &mut Ui, edits: &mut ParamEdits) {
    let palette = Palette::of(ui.visuals());
    let active = edits.history.active();
    let hint = if active == 0 { "Copy A to B" } else { "Copy B to A" };
    if icon_button(ui, true, hint, draw_copy_icon).clicked() {
        edits.copy_to_other();
    }
    let (rect, _) = ui.allocate_exact_size(vec2(62.0, 26.0), Sense::hover());
    ui.painter().rect_filled(rect, 5.0, palette.raised);
    for (at, (cell, name)) in
        super::strip::row(rect.shrink(2.0), 2, 2.0).into_iter().zip(["A", "B"]).enumerate()
    {
        if widgets::radio_button(
            ui,
            cell,
            ("compare", name),
            active == at,
            name,
            "Compare two mixer settings",
        ) {
            edits.toggle_ab();
        }
    }
}

/// The row of latency tiers, with the current latency at its end.
pub fn show_tiers(
    ui: &mut Ui,
    edits: &mut ParamEdits,
    view: &View,
    custom_window: bool,
) -> Option<HeaderAction> {
    let palette = Palette::of(ui.visuals());
    let mut action = None;
    ui.horizontal(|ui| {
        ui.set_height(38.0);
        let full = ui.available_width();
        let width = ((full - 190.0) / 6.0 - 2.0).clamp(46.0, 118.0);
        ui.spacing_mut().item_spacing.x = 2.0;
        let chosen = edits.params.tier.value();
        for choice in [TierChoice::Auto, TierChoice::Live, TierChoice::Low, TierChoice::Balanced, TierChoice::High] {
            let (name, _) = name_and_hint(choice);
            let chosen = choice == chosen && !custom_window;
            let known = choice.named().or(if chosen { view.tier } else { None });
            let found = known.and_then(|tier| view.tiers.iter().find(|view| view.tier == tier));
            let line = tier_line(choice, found, palette, width > 96.0);
            if tier_button(ui, width, chosen, name, line, &tier_hint(choice, found, view, custom_window)) {
                let normalized = edits.params.tier.preview_normalized(choice);
                edits.set_value(ParamId::Tier, normalized);
                action = Some(HeaderAction::ChangeWindow(WindowChange::UseTier));
            }
        }
        let line = if custom_window { text::time(view.latency_ms) } else { "…".into() };
        let hint = "Sets window, hop and lookahead yourself. They are saved with the project. While Custom is on, the parameter Latency Tier has no effect.";
        if tier_button(ui, width, custom_window, "Custom", (line, palette.weak), hint) {
            action = Some(HeaderAction::UseCustomWindow);
        }
        ui.add_space(10.0);
        let (rect, response) =
            ui.allocate_exact_size(vec2((ui.available_width()).max(10.0), 38.0), Sense::click());
        let painter = ui.painter_at(rect);
        let (big, small, ink) = latency_text(view, palette);
        painter.text(
            rect.right_top() + vec2(-2.0, 11.0),
            Align2::RIGHT_CENTER,
            &big,
            font(14.0),
            palette.text,
        );
        painter.text(
            rect.right_bottom() + vec2(-2.0, -10.0),
            Align2::RIGHT_CENTER,
            &small,
            font(11.0),
            ink,
        );
        let enabled = ui.is_enabled();
        response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, format!("{big}, {small}")));
        if response.clicked() {
            action = Some(HeaderAction::MeasureAgain);
        }
        widgets::focus_ring(ui, &response, rect);
        response
            .on_hover_text("Latency that the host compensates. Click to measure the speed of this computer again.");
    });
    action
}

/// The latency that the host compensates, in two lines. A new latency takes effect when the host processes the next block.
fn latency_text(view: &View, palette: &Palette) -> (String, String, Color32) {
    let rate = f64::from(view.host_rate.max(1));
    let planned = (1e-3 * view.latency_ms * rate).round() as u64;
    let current = view.status.as_ref().map_or(planned, |status| status.latency_samples());
    let big = format!("{} latency", text::time(1e3 * current as f64 / rate));
    if current == planned {
        return (big, format!("{} samples", text::samples(current)), palette.weak);
    }
    (big, format!("{} after playback starts", text::time(view.latency_ms)), palette.warn)
}

/// A button of the tier row. Returns true when the user chose it in this frame.
fn tier_button(
    ui: &mut Ui,
    width: f32,
    chosen: bool,
    name: &str,
    (line, ink): (String, Color32),
    hint: &str,
) -> bool {
    let palette = Palette::of(ui.visuals());
    let (rect, response) = ui.allocate_exact_size(vec2(width, 38.0), Sense::click());
    let fill = match (chosen, response.hovered()) {
        (true, _) => palette.lifted,
        (false, true) => palette.raised,
        (false, false) => palette.panel,
    };
    ui.painter().rect_filled(rect, 5.0, fill);
    if chosen {
        ui.painter().rect_filled(
            Rect::from_min_max(
                Pos2::new(rect.left() + 6.0, rect.bottom() - 2.0),
                rect.right_bottom() - vec2(6.0, 0.0),
            ),
            1.0,
            palette.accent,
        );
    }
    let painter = ui.painter_at(rect.shrink2(vec2(4.0, 0.0)));
    let ink_name = if chosen { palette.text } else { palette.weak };
    painter.text(rect.center() - vec2(0.0, 8.0), Align2::CENTER_CENTER, name, font(13.0), ink_name);
    painter.text(rect.center() + vec2(0.0, 8.0), Align2::CENTER_CENTER, &line, font(10.5), ink);
    let enabled = ui.is_enabled();
    response
        .widget_info(|| WidgetInfo::selected(Role::RadioButton, enabled, chosen, format!("{name}: {line}")));
    widgets::focus_ring(ui, &response, rect);
    let clicked = response.clicked();
    response.on_hover_text(hint);
    clicked && !chosen
}

fn name_and_hint(choice: TierChoice) -> (&'static str, &'static str) {
    match choice {
        TierChoice::Auto => {
            ("Auto", "The lowest latency at which the model runs in real time on this computer")
        }
        TierChoice::Live => ("Live", "Lowest latency, highest load"),
        TierChoice::Low => ("Low", "Low latency"),
        TierChoice::Balanced => ("Balanced", "Medium latency and load"),
        TierChoice::High => ("High", "Highest latency, lowest load, most context for the model"),
    }
}

fn tier_line(
    choice: TierChoice,
    found: Option<&TierView>,
    palette: &Palette,
    wide: bool,
) -> (String, Color32) {
    let Some(found) = found else {
        return (if choice == TierChoice::Auto { "measuring" } else { "–" }.into(), palette.weak);
    };
    let ink =
        found.load.filter(|load| *load > SUSTAINABLE_LOAD).map_or(palette.weak, |load| palette.load(load));
    let (time, share) = (text::time(found.latency_ms), found.load.map(text::percent));
    let line = match (choice, share) {
        // The latency itself stands at the end of the row.
        (TierChoice::Auto, share) if wide => {
            format!("{} · {}", text::tier(found.tier), share.unwrap_or(time))
        }
        (TierChoice::Auto, Some(share)) => share,
        (_, Some(share)) if wide => format!("{time} · {share}"),
        _ => time,
    };
    (line, ink)
}

fn tier_hint(choice: TierChoice, found: Option<&TierView>, view: &View, custom_window: bool) -> String {
    let (_, what) = name_and_hint(choice);
    let mut hint = format!("{what}.");
    if let Some(found) = found {
        let share = found.load.map(text::percent);
        let load = match (found.load, share) {
            (Some(load), Some(share)) if choice == TierChoice::Auto && load > SUSTAINABLE_LOAD => {
                hint = match overload::lowest_sustainable_tier(view) {
                    Some(tier) => {
                        format!("Chosen by an earlier measurement; {} would keep up.", text::tier(tier))
                    }
                    None => "No tier keeps up on this computer; this one has the lowest load.".into(),
                };
                format!("load {share} of real time")
            }
            (Some(load), Some(share)) if load > 0.9 => {
                format!("load {share} of real time: expect late windows on this computer")
            }
            (_, Some(share)) => format!("load {share} of real time"),
            _ => "load not measured yet".into(),
        };
        hint = format!("{hint}\nLatency {}, {load}.", text::time(found.latency_ms));
    }
    let repeats = view.plan_inputs.as_ref().is_some_and(|inputs| inputs.timing.context.is_none());
    if repeats && choice == TierChoice::Live {
        hint.push_str("\nThis model repeats whole windows, so Live is the same as Low.");
    }
    if choice != TierChoice::High {
        hint.push_str("\nA bounce sounds as this tier plays. For the best bounce choose High.");
    }
    if custom_window {
        hint.push_str(
            "\nWhile Custom is on, the parameter Latency Tier has no effect. A click here turns Custom off.",
        );
    }
    hint
}

fn icon_button(ui: &mut Ui, enabled: bool, name: &str, draw: impl FnOnce(&Ui, Rect, Color32)) -> Response {
    let palette = Palette::of(ui.visuals());
    let sense = if enabled { Sense::click() } else { Sense::hover() };
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(26.0), sense);
    if enabled && response.hovered() {
        ui.painter().rect_filled(rect, 5.0, palette.raised);
    }
    let ink = if enabled { palette.text } else { palette.weak.gamma_multiply(0.5) };
    draw(ui, rect.shrink(6.0), ink);
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, name));
    widgets::focus_ring(ui, &response, rect);
    response.on_hover_text(name)
}

fn draw_arrow(ui: &Ui, rect: Rect, ink: Color32, left: bool) {
    let flip = |x: f32| if left { x } else { 1.0 - x };
    let at = |x: f32, y: f32| Pos2::new(rect.left() + rect.width() * flip(x), rect.top() + rect.height() * y);
    let stroke = Stroke::new(1.6, ink);
    let bow: Vec<Pos2> = (0..=12)
        .map(|step| {
            let angle = std::f32::consts::PI * f32::from(step as u8) / 12.0;
            at(0.55 + 0.4 * angle.sin(), 0.6 - 0.32 * angle.cos())
        })
        .collect();
    ui.painter().line([vec![at(0.08, 0.28)], bow, vec![at(0.3, 0.92)]].concat(), stroke);
    ui.painter().line(vec![at(0.34, 0.02), at(0.06, 0.28), at(0.34, 0.54)], stroke);
}

fn draw_copy_icon(ui: &Ui, rect: Rect, ink: Color32) {
    let stroke = Stroke::new(1.4, ink);
    let back = Rect::from_min_size(rect.min + vec2(1.0, 1.0), vec2(8.5, 8.5));
    let front = back.translate(vec2(3.5, 3.5));
    let palette = Palette::of(ui.visuals());
    ui.painter().rect_stroke(back, 2.0, stroke, egui::StrokeKind::Inside);
    ui.painter().rect(front, 2.0, palette.back, stroke, egui::StrokeKind::Inside);
}

fn draw_theme_icon(ui: &Ui, rect: Rect, ink: Color32) {
    let (center, radius) = (rect.center(), rect.width() / 2.0 - 0.5);
    ui.painter().circle_stroke(center, radius, Stroke::new(1.5, ink));
    let half = (0..=16)
        .map(|step| {
            let angle = std::f32::consts::PI * (f32::from(step as u8) / 16.0 - 0.5);
            center + radius * vec2(angle.cos(), angle.sin())
        })
        .collect();
    ui.painter().add(Shape::convex_polygon(half, ink, Stroke::NONE));
}
