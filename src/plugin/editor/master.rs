//! The master strip: bypass, mix, output, the null meter, and how stems and renders are made.

use egui::{Align2, Rect, Sense, Ui, vec2};
use nice_plug::prelude::Param;

use super::control;
use super::desk::Desk;
use super::key::Key;
use super::strip::{row, split_top};
use super::text;
use super::theme::{Palette, font};
use crate::plugin::params::{Lossless, RenderMode};

/// What the null meter shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Null {
    /// No stems, nothing to compare.
    None,
    /// Peak of input − Σ stems.
    Peak(f32),
}

/// Draws it into `rect`.
pub fn show(ui: &mut Ui, rect: Rect, desk: &mut Desk, null: Null) {
    let palette = Palette::of(ui.visuals());
    ui.painter().rect_filled(rect, 6.0, palette.panel);
    let inner = rect.shrink2(vec2(10.0, 8.0));
    if inner.width() < 60.0 || inner.height() < 40.0 {
        return;
    }
    // Rows share what height there is.
    let height = ((inner.height() - 5.0 * 6.0) / 6.0).clamp(16.0, 34.0);
    let mut rest = inner;
    let mut next = || {
        let (line, below) = split_top(rest, height);
        rest = below.with_min_y((below.top() + 6.0).min(below.bottom()));
        line
    };
    let (title, bypass) = halves(next(), 0.5);
    let at = title.left_center();
    ui.painter().text(at, Align2::LEFT_CENTER, "Master", font(14.0), palette.text);
    let hint = "Bypass: the input, delayed by the same latency, so nothing jumps";
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
    labelled_slide(
        ui,
        next(),
        desk,
        "Mix",
        Key::Mix,
        0.0,
        &mix,
        "From the delayed input (0 %) to the mix of stems (100 %)",
    );
    let origin = desk.params.output.preview_normalized(0.0);
    let output = format!("{} dB", text::fader_db(desk.plain(Key::Output)));
    labelled_slide(
        ui,
        next(),
        desk,
        "Output",
        Key::Output,
        origin,
        &output,
        "Gain of the main output; at 0 dB it changes no bit",
    );

    null_meter(ui, next(), null);

    let (label, cells) = captioned(next());
    caption(ui, label, "Lossless");
    let lossless = desk.params.lossless.value();
    let choices = [
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
    for (cell, (value, name, hint)) in row(group(ui, cells), 2, 2.0).into_iter().zip(choices) {
        if control::choice(ui, cell, ("lossless", name), lossless == value, name, hint) {
            let normalized = desk.params.lossless.preview_normalized(value);
            desk.set(Key::Lossless, normalized);
        }
    }
    let (label, cells) = captioned(next());
    caption(ui, label, "Render");
    let render = desk.params.render.value();
    let choices = [
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
    for (cell, (value, name, hint)) in row(group(ui, cells), 3, 2.0).into_iter().zip(choices) {
        if control::choice(ui, cell, ("render", name), render == value, name, hint) {
            let normalized = desk.params.render.preview_normalized(value);
            desk.set(Key::Render, normalized);
        }
    }
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

#[expect(clippy::too_many_arguments, reason = "a line of the strip is all of these")]
fn labelled_slide(
    ui: &mut Ui,
    rect: Rect,
    desk: &mut Desk,
    label: &str,
    key: Key,
    origin: f32,
    value: &str,
    hint: &str,
) {
    let palette = Palette::of(ui.visuals());
    let (name, rest) = captioned(rect);
    let (slide, number) = halves(rest, 0.62);
    caption(ui, name, label);
    control::slide(ui, slide, desk, key, origin, palette.accent, hint);
    control::number(ui, number.shrink2(vec2(0.0, 2.0)), desk, key, value);
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
