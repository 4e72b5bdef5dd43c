//! The master strip: bypass, mix, output gain and level, null meter, lossless mode and render mode.

use egui::{Align2, Rect, Sense, Ui, vec2};
use nice_plug::prelude::Param;

use super::meter::{Meter, WARN_DB};
use super::param_edits::ParamEdits;
use super::param_id::ParamId;
use super::strip::{row, split_top};
use super::text;
use super::theme::{Palette, font};
use super::widgets;
use crate::plugin::params::{LosslessChoice, RenderMode};

/// Range of the output meter: from −60 to +6 dBFS.
const MIN_DB: f32 = -60.0;
const MAX_DB: f32 = 6.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Null {
    /// No stems play, so there is nothing to compare.
    None,
    /// Peak of input − Σ stems, linear.
    Peak(f32),
}

/// `output_meters`: one per channel of the main output.
pub fn show(ui: &mut Ui, rect: Rect, edits: &mut ParamEdits, null: Null, output_meters: &mut [Meter]) {
    let palette = Palette::of(ui.visuals());
    ui.painter().rect_filled(rect, 6.0, palette.panel);
    let inner = rect.shrink2(vec2(10.0, 8.0));
    if inner.width() < 60.0 || inner.height() < 40.0 {
        return;
    }
    // The rows share the available height.
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
    let hint = "Bypass: plays the input with the same latency, so nothing jumps. The stem outputs of Nullsum Multi keep playing.";
    widgets::toggle(
        ui,
        bypass.shrink2(vec2(0.0, (height - 24.0).max(0.0) / 2.0)),
        edits,
        ParamId::Bypass,
        "Bypass",
        palette.warn,
        hint,
    );

    let mix = text::percent(f64::from(edits.plain_value(ParamId::Mix)));
    let hint = "Dry/wet: from the delayed input (0 %) to the stem mix (100 %). Does not affect the stem outputs of Nullsum Multi.";
    slider_row(
        ui,
        next(),
        edits,
        SliderRow { label: "Mix", key: ParamId::Mix, origin: 0.0, value: mix, hint },
    );
    let origin = edits.params.output.preview_normalized(0.0);
    let output = format!("{} dB", text::fader_db(edits.plain_value(ParamId::Output)));
    let hint = "Gain of the main output. At 0 dB the output is bit-exact. Does not affect the stem outputs of Nullsum Multi.";
    slider_row(
        ui,
        next(),
        edits,
        SliderRow { label: "Output", key: ParamId::Output, origin, value: output, hint },
    );
    output_meter(ui, next(), output_meters);
    null_meter(ui, next(), null);

    let lossless = [
        (
            LosslessChoice::Spectral,
            "Spectral",
            "Whatever the model assigned to no stem is distributed among the stems, so that they sum to the input exactly",
        ),
        (
            LosslessChoice::Off,
            "Off",
            "Stems exactly as the model outputs them; their sum differs from the input",
        ),
    ];
    if let Some(chosen) = choices(ui, next(), "Lossless", edits.params.lossless.value(), &lossless) {
        let normalized = edits.params.lossless.preview_normalized(chosen);
        edits.set_value(ParamId::Lossless, normalized);
    }
    let render = [
        (
            RenderMode::Auto,
            "Auto",
            "Waits for the model while the host renders offline. Hosts that don't announce offline rendering are detected by how fast they call the plugin.",
        ),
        (RenderMode::Realtime, "Live", "Never waits for the model; late windows play the dry signal"),
        (
            RenderMode::Offline,
            "Offline",
            "Always waits for the model, for hosts whose offline rendering is not detected",
        ),
    ];
    if let Some(chosen) = choices(ui, next(), "Render", edits.params.render.value(), &render) {
        let normalized = edits.params.render.preview_normalized(chosen);
        edits.set_value(ParamId::Render, normalized);
    }
}

/// A row of radio buttons. Returns the value that the user chose in this frame.
fn choices<T: Copy + PartialEq>(
    ui: &mut Ui,
    rect: Rect,
    label: &str,
    holds: T,
    choices: &[(T, &str, &str)],
) -> Option<T> {
    let (name, cells) = split_caption(rect);
    caption(ui, name, label);
    let cells = row(button_group(ui, cells), choices.len(), 2.0);
    let mut chosen = None;
    for (cell, (value, name, hint)) in cells.into_iter().zip(choices) {
        if widgets::radio_button(ui, cell, (label, name), holds == *value, name, hint) {
            chosen = Some(*value);
        }
    }
    chosen
}

/// Draws the background of a row of radio buttons and returns the space inside it.
fn button_group(ui: &Ui, rect: Rect) -> Rect {
    let palette = Palette::of(ui.visuals());
    let rect = Rect::from_center_size(rect.center(), vec2(rect.width(), rect.height().min(26.0)));
    ui.painter().rect_filled(rect, 5.0, palette.raised);
    rect.shrink(2.0)
}

fn halves(rect: Rect, part: f32) -> (Rect, Rect) {
    rect.split_left_right_at_fraction(part)
}

/// Splits a row into the caption's space and the rest.
fn split_caption(rect: Rect) -> (Rect, Rect) {
    rect.split_left_right_at_x((rect.left() + 60.0).min(rect.right()))
}

fn caption(ui: &Ui, rect: Rect, text: &str) {
    let palette = Palette::of(ui.visuals());
    ui.painter().text(rect.left_center(), Align2::LEFT_CENTER, text, font(12.0), palette.weak);
}

/// A row with a caption, a slider and a value.
struct SliderRow<'a> {
    label: &'a str,
    key: ParamId,
    /// Normalised position from which the slider is filled.
    origin: f32,
    value: String,
    hint: &'a str,
}

fn slider_row(ui: &mut Ui, rect: Rect, edits: &mut ParamEdits, line: SliderRow) {
    let palette = Palette::of(ui.visuals());
    let (name, rest) = split_caption(rect);
    let (slide, number) = halves(rest, 0.62);
    caption(ui, name, line.label);
    widgets::slider(ui, slide, edits, line.key, line.origin, palette.accent, line.hint);
    widgets::value_label(ui, number.shrink2(vec2(0.0, 2.0)), edits, line.key, &line.value);
}

/// Horizontal level meter of the main output: a bar per channel and the peak as a number.
fn output_meter(ui: &mut Ui, rect: Rect, meters: &mut [Meter]) {
    let palette = Palette::of(ui.visuals());
    let (name, rest) = split_caption(rect);
    caption(ui, name, "Level");
    let response = ui.interact(rect, ui.scope_id().with("output level"), Sense::CLICK);
    if response.clicked() {
        meters.iter_mut().for_each(Meter::clear);
    }
    let (bars, number) = halves(rest, 0.62);
    let bars = bars.shrink2(vec2(4.0, 0.0));
    let x = |db: f32| bars.left() + bars.width() * ((db - MIN_DB) / (MAX_DB - MIN_DB)).clamp(0.0, 1.0);
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
        part(MIN_DB, level.min(WARN_DB), palette.accent);
        part(WARN_DB, level.min(0.0), palette.warn);
        part(0.0, level, palette.bad);
        if meter.peak() > MIN_DB {
            let ink = if meter.peak() > 0.0 { palette.bad } else { palette.text };
            painter.vline(x(meter.peak()), groove.y_range(), egui::Stroke::new(1.5, ink));
        }
    }
    let peak = meters.iter().map(Meter::peak).fold(f32::MIN, f32::max);
    let clipped = meters.iter().any(Meter::clipped);
    let label = text::level_db(peak);
    let ink = if clipped { palette.bad } else { palette.text };
    ui.painter().text(number.right_center(), Align2::RIGHT_CENTER, &label, font(12.0), ink);
    let enabled = ui.is_enabled();
    response.widget_info(|| {
        egui::WidgetInfo::labeled(egui::Role::Label, enabled, format!("Output level {label}"))
    });
    response.on_hover_text("Peak of the main output in dBFS, after the output gain. Red: it exceeded full scale. Click to clear.");
}

fn null_meter(ui: &mut Ui, rect: Rect, null: Null) {
    let palette = Palette::of(ui.visuals());
    let (name, rest) = split_caption(rect);
    caption(ui, name, "Null");
    let response = ui.interact(rect, ui.scope_id().with("null"), Sense::hover());
    let bar = rest
        .with_max_x(rest.left() + rest.width() * 0.4)
        .shrink2(vec2(4.0, (rest.height() / 2.0 - 2.0).max(0.0)));
    ui.painter().rect_filled(bar, 2.0, palette.groove);
    let (label, ink) = match null {
        Null::None => ("–".into(), palette.weak),
        Null::Peak(0.0) => (text::null(0.0), palette.good),
        Null::Peak(peak) => {
            // The bar spans −140 dBFS, below 24 bits, to full scale.
            let part = (20.0 * peak.log10() / 140.0 + 1.0).clamp(0.0, 1.0);
            let ink = if part > 0.3 { palette.warn } else { palette.text };
            ui.painter().rect_filled(bar.with_max_x(bar.left() + bar.width() * part), 2.0, ink);
            (text::null(peak), ink)
        }
    };
    ui.painter().text(rest.right_center(), Align2::RIGHT_CENTER, &label, font(12.0), ink);
    let enabled = ui.is_enabled();
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, enabled, format!("Null {label}")));
    response.on_hover_text("Null meter: peak of the input minus the sum of all stems before their faders. “exact” means that not one bit is lost.");
}
