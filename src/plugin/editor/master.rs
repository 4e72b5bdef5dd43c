//! The master strip: bypass, mix, output and its level, the null meter, and how stems and renders are made.

use egui::{Align2, Rect, Sense, Ui, vec2};
use nice_plug::prelude::Param;

use super::control;
use super::desk::Desk;
use super::key::Key;
use super::meter::{HOT, Meter};
use super::strip::{row, split_top};
use super::text;
use super::theme::{Palette, font};
use crate::plugin::params::{Lossless, RenderMode};

/// Lowest and highest level of the output's meter, in dB away from full scale.
const SPAN: f32 = 60.0;
const LOUDEST: f32 = 6.0;

/// What the null meter shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Null {
    /// No stems, nothing to compare.
    None,
    /// Peak of input − Σ stems.
    Peak(f32),
}

/// Draws it into `rect`. `output_meters`: one a channel of the main output.
pub fn show(ui: &mut Ui, rect: Rect, desk: &mut Desk, null: Null, output_meters: &mut [Meter]) {
    let palette = Palette::of(ui.visuals());
    ui.painter().rect_filled(rect, 6.0, palette.panel);
    let inner = rect.shrink2(vec2(10.0, 8.0));
    if inner.width() < 60.0 || inner.height() < 40.0 {
        return;
    }
    // Rows share what height there is.
    let height = ((inner.height() - 6.0 * 5.0) / 7.0).clamp(14.0, 34.0);
    let mut rest = inner;
    let mut next = || {
        let (line, below) = split_top(rest, height);
        rest = below.with_min_y((below.top() + 5.0).min(below.bottom()));
        line
    };
    let (title, bypass) = halves(next(), 0.5);
    let at = title.left_center();
    ui.painter().text(at, Align2::LEFT_CENTER, "Master", font(14.0), palette.text);
    let hint = "Bypass: the input, delayed by the same latency, so nothing jumps. The stem outputs of Nullsum Multi go on.";
    control::switch(
        ui,
        bypass.shrink2(vec2(0.0, (height - 24.0).max(0.0) / 2.0)),
        desk,
        Key::Bypass,
        "Bypass",
        palette.warn,
        hint,
    );

    let mix = text::percent(f64::from(desk.plain(Key::Mix)));
    let hint = "From the delayed input (0 %) to the mix of stems (100 %). The stem outputs of Nullsum Multi stay as they are.";
    slider(ui, next(), desk, Slider { label: "Mix", key: Key::Mix, origin: 0.0, value: mix, hint });
    let origin = desk.params.output.preview_normalized(0.0);
    let output = format!("{} dB", text::fader_db(desk.plain(Key::Output)));
    let hint = "Gain of the main output; at 0 dB it changes no bit. The stem outputs of Nullsum Multi stay as they are.";
    slider(ui, next(), desk, Slider { label: "Output", key: Key::Output, origin, value: output, hint });
    output_meter(ui, next(), output_meters);
    null_meter(ui, next(), null);

    let lossless = [
        (
            Lossless::Spectral,
            "Spectral",
            "What no stem took is given to the stems where the model heard them: they sum to the input exactly",
        ),
        (
            Lossless::Off,
            "Off",
            "Stems as the model makes them; what they leave of the input is left out when they are summed in the host",
        ),
    ];
    if let Some(chosen) = choices(ui, next(), "Lossless", desk.params.lossless.value(), &lossless) {
        let normalized = desk.params.lossless.preview_normalized(chosen);
        desk.set(Key::Lossless, normalized);
    }
    let render = [
        (
            RenderMode::Auto,
            "Auto",
            "Waits for the model while the host renders, as it says and its pace shows",
        ),
        (RenderMode::Realtime, "Live", "Never waits for the model: late windows are the input"),
        (
            RenderMode::Offline,
            "Offline",
            "Always waits for the model: for hosts that render without saying so",
        ),
    ];
    if let Some(chosen) = choices(ui, next(), "Render", desk.params.render.value(), &render) {
        let normalized = desk.params.render.preview_normalized(chosen);
        desk.set(Key::Render, normalized);
    }
}

/// A row of choices, one of which holds. The one that was chosen now.
fn choices<T: Copy + PartialEq>(
    ui: &mut Ui,
    rect: Rect,
    label: &str,
    holds: T,
    choices: &[(T, &str, &str)],
) -> Option<T> {
    let (name, cells) = captioned(rect);
    caption(ui, name, label);
    let cells = row(group(ui, cells), choices.len(), 2.0);
    let mut chosen = None;
    for (cell, (value, name, hint)) in cells.into_iter().zip(choices) {
        if control::choice(ui, cell, (label, name), holds == *value, name, hint) {
            chosen = Some(*value);
        }
    }
    chosen
}

/// What holds a row of choices together.
fn group(ui: &Ui, rect: Rect) -> Rect {
    let palette = Palette::of(ui.visuals());
    let rect = Rect::from_center_size(rect.center(), vec2(rect.width(), rect.height().min(26.0)));
    ui.painter().rect_filled(rect, 5.0, palette.raised);
    rect.shrink(2.0)
}

fn halves(rect: Rect, part: f32) -> (Rect, Rect) {
    rect.split_left_right_at_fraction(part)
}

/// Where a caption stands, and what it is for.
fn captioned(rect: Rect) -> (Rect, Rect) {
    rect.split_left_right_at_x((rect.left() + 60.0).min(rect.right()))
}

fn caption(ui: &Ui, rect: Rect, text: &str) {
    let palette = Palette::of(ui.visuals());
    ui.painter().text(rect.left_center(), Align2::LEFT_CENTER, text, font(12.0), palette.weak);
}

/// A line with a caption, a slide and a number.
struct Slider<'a> {
    label: &'a str,
    key: Key,
    /// Where the slide is filled from, 0 to 1.
    origin: f32,
    value: String,
    hint: &'a str,
}

fn slider(ui: &mut Ui, rect: Rect, desk: &mut Desk, line: Slider) {
    let palette = Palette::of(ui.visuals());
    let (name, rest) = captioned(rect);
    let (slide, number) = halves(rest, 0.62);
    caption(ui, name, line.label);
    control::slide(ui, slide, desk, line.key, line.origin, palette.accent, line.hint);
    control::number(ui, number.shrink2(vec2(0.0, 2.0)), desk, line.key, &line.value);
}

/// What leaves the main output, lying: a bar a channel, its peak as a number.
fn output_meter(ui: &mut Ui, rect: Rect, meters: &mut [Meter]) {
    let palette = Palette::of(ui.visuals());
    let (name, rest) = captioned(rect);
    caption(ui, name, "Level");
    let response = ui.interact(rect, ui.scope_id().with("output level"), Sense::CLICK);
    if response.clicked() {
        meters.iter_mut().for_each(Meter::clear);
    }
    let (bars, number) = halves(rest, 0.62);
    let bars = bars.shrink2(vec2(4.0, 0.0));
    let x = |db: f32| bars.left() + bars.width() * ((db + SPAN) / (SPAN + LOUDEST)).clamp(0.0, 1.0);
    let first = bars.center().y - 3.5 * meters.len() as f32 + 1.0;
    for (meter, at) in meters.iter().zip(0u8..) {
        let top = first + 7.0 * f32::from(at);
        let groove = Rect::from_x_y_ranges(bars.x_range(), top..=top + 5.0);
        let painter = ui.painter();
        painter.rect_filled(groove, 1.0, palette.groove);
        let part = |from: f32, to: f32, color| {
            if to > from {
                painter.rect_filled(Rect::from_x_y_ranges(x(from)..=x(to), groove.y_range()), 0.0, color);
            }
        };
        let level = meter.level();
        part(-SPAN, level.min(HOT), palette.accent);
        part(HOT, level.min(0.0), palette.warn);
        part(0.0, level, palette.bad);
        if meter.peak() > -SPAN {
            let ink = if meter.peak() > 0.0 { palette.bad } else { palette.text };
            painter.vline(x(meter.peak()), groove.y_range(), egui::Stroke::new(1.5, ink));
        }
    }
    let peak = meters.iter().map(Meter::peak).fold(f32::MIN, f32::max);
    let clipped = meters.iter().any(Meter::clipped);
    let words = text::level_db(peak);
    let ink = if clipped { palette.bad } else { palette.text };
    ui.painter().text(number.right_center(), Align2::RIGHT_CENTER, &words, font(12.0), ink);
    let enabled = ui.is_enabled();
    response.widget_info(|| {
        egui::WidgetInfo::labeled(egui::Role::Label, enabled, format!("Output level {words}"))
    });
    response.on_hover_text("Peak of the main output in dBFS, after the output gain. Red was louder than full scale; click to clear.");
}

fn null_meter(ui: &mut Ui, rect: Rect, null: Null) {
    let palette = Palette::of(ui.visuals());
    let (name, rest) = captioned(rect);
    caption(ui, name, "Null");
    let response = ui.interact(rect, ui.scope_id().with("null"), Sense::hover());
    let bar = rest
        .with_max_x(rest.left() + rest.width() * 0.4)
        .shrink2(vec2(4.0, (rest.height() / 2.0 - 2.0).max(0.0)));
    ui.painter().rect_filled(bar, 2.0, palette.groove);
    let (words, ink) = match null {
        Null::None => ("–".into(), palette.weak),
        Null::Peak(0.0) => (text::null(0.0), palette.good),
        Null::Peak(peak) => {
            // From −140 dBFS, below 24 bits, to full scale.
            let part = (20.0 * peak.log10() / 140.0 + 1.0).clamp(0.0, 1.0);
            let ink = if part > 0.3 { palette.warn } else { palette.text };
            ui.painter().rect_filled(bar.with_max_x(bar.left() + bar.width() * part), 2.0, ink);
            (text::null(peak), ink)
        }
    };
    ui.painter().text(rest.right_center(), Align2::RIGHT_CENTER, &words, font(12.0), ink);
    let enabled = ui.is_enabled();
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, enabled, format!("Null {words}")));
    response.on_hover_text("Null meter: the peak of the input minus the sum of all stems before their faders. “exact” means not one bit is lost.");
}
