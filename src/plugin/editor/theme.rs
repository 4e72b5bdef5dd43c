//! Colours, sizes and fonts of the dark and the light theme.

use egui::{Color32, CornerRadius, FontFamily, FontId, Margin, Stroke, Style, TextStyle, Theme, Visuals};

use crate::live::plan::SUSTAINABLE_LOAD;
use crate::plugin::routing::STRIP_COUNT;

/// Space between widgets, in points.
pub const GAP: f32 = 8.0;
/// Corner radius, in points.
pub const RADIUS: u8 = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Palette {
    pub dark: bool,
    /// Background.
    pub back: Color32,
    pub panel: Color32,
    pub raised: Color32,
    /// A hovered or chosen button.
    pub lifted: Color32,
    pub line: Color32,
    /// Grooves of faders and meters.
    pub groove: Color32,
    pub text: Color32,
    /// Less important text.
    pub weak: Color32,
    /// Keyboard focus, progress and selection.
    pub accent: Color32,
    pub good: Color32,
    pub warn: Color32,
    pub bad: Color32,
    pub solo: Color32,
    pub dry: Color32,
    /// One colour per strip. They differ in hue and lightness, so they stay distinct with colour vision deficiencies (after Okabe and Ito).
    pub strip_colors: [Color32; STRIP_COUNT],
}

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

pub const DARK: Palette = Palette {
    dark: true,
    back: rgb(0x14161a),
    panel: rgb(0x1c1f25),
    raised: rgb(0x2a2e37),
    lifted: rgb(0x3b414d),
    line: rgb(0x31363f),
    groove: rgb(0x0c0e11),
    text: rgb(0xeceef2),
    weak: rgb(0xa3abb8),
    accent: rgb(0x7fb2ff),
    good: rgb(0x4cc38a),
    warn: rgb(0xf0b429),
    bad: rgb(0xff6b5e),
    solo: rgb(0xf2d043),
    dry: rgb(0x59616e),
    strip_colors: [rgb(0x56b4e9), rgb(0xe69f00), rgb(0xd484b0), rgb(0x1fbf93), rgb(0xe8633a), rgb(0xf0e442)],
};

pub const LIGHT: Palette = Palette {
    dark: false,
    back: rgb(0xe9ebef),
    panel: rgb(0xf8f9fb),
    raised: rgb(0xe4e7ec),
    lifted: rgb(0xcdd3dc),
    line: rgb(0xcfd4dc),
    groove: rgb(0xd9dde4),
    text: rgb(0x1a1d22),
    weak: rgb(0x565e6b),
    accent: rgb(0x1f66d1),
    good: rgb(0x137a4b),
    warn: rgb(0x9a6200),
    bad: rgb(0xc3281c),
    solo: rgb(0xe0b400),
    dry: rgb(0xb3bac5),
    strip_colors: [rgb(0x0072b2), rgb(0xc27c00), rgb(0xa8417f), rgb(0x008060), rgb(0xc44a10), rgb(0x8a7d00)],
};

impl Palette {
    /// The palette of the current theme.
    pub fn of(visuals: &Visuals) -> &'static Self {
        if visuals.dark_mode { &DARK } else { &LIGHT }
    }

    pub fn strip_color(&self, strip_index: usize) -> Color32 {
        self.strip_colors.get(strip_index).copied().unwrap_or(self.weak)
    }

    /// Text colour that is readable on `fill`.
    pub fn on(fill: Color32) -> Color32 {
        let [r, g, b, _] = fill.to_array().map(f32::from);
        if 0.299 * r + 0.587 * g + 0.114 * b > 112.0 { Color32::from_gray(0x14) } else { Color32::WHITE }
    }

    /// Text colour for a real-time factor.
    pub fn load(&self, share: f64) -> Color32 {
        if share > 0.9 {
            self.bad
        } else if share > SUSTAINABLE_LOAD {
            self.warn
        } else {
            self.text
        }
    }
}

pub fn install(ctx: &egui::Context) {
    for (theme, palette) in [(Theme::Dark, &DARK), (Theme::Light, &LIGHT)] {
        ctx.set_visuals_of(theme, visuals(palette));
        ctx.style_mut_of(theme, style);
    }
}

/// Applies the user's choice of theme; `None` follows the system.
pub fn choose(ctx: &egui::Context, light: Option<bool>) {
    ctx.set_theme(match light {
        Some(true) => egui::ThemePreference::Light,
        Some(false) => egui::ThemePreference::Dark,
        None => egui::ThemePreference::System,
    });
}

fn style(style: &mut Style) {
    let size = |style: &TextStyle| match style {
        TextStyle::Heading => 17.0,
        TextStyle::Small => 11.0,
        TextStyle::Monospace => 11.5,
        _ => 13.0,
    };
    for (name, font) in &mut style.text_styles {
        font.size = size(name);
    }
    style.spacing.item_spacing = egui::vec2(GAP, 6.0);
    style.spacing.button_padding = egui::vec2(8.0, 4.0);
    style.spacing.interact_size.y = 24.0;
    style.spacing.window_margin = Margin::same(12);
    style.spacing.scroll.bar_width = 8.0;
    style.interaction.selectable_labels = false;
    style.interaction.tooltip_delay = 0.5;
}

fn visuals(palette: &Palette) -> Visuals {
    let mut visuals = if palette.dark { Visuals::dark() } else { Visuals::light() };
    let radius = CornerRadius::same(RADIUS);
    visuals.panel_fill = palette.back;
    visuals.window_fill = palette.panel;
    visuals.window_stroke = Stroke::new(1.0, palette.line);
    visuals.window_corner_radius = CornerRadius::same(8);
    visuals.menu_corner_radius = radius;
    visuals.extreme_bg_color = palette.groove;
    visuals.text_edit_bg_color = Some(if palette.dark { palette.groove } else { Color32::WHITE });
    visuals.faint_bg_color = palette.raised;
    visuals.weak_text_color = Some(palette.weak);
    visuals.warn_fg_color = palette.warn;
    visuals.error_fg_color = palette.bad;
    visuals.hyperlink_color = palette.accent;
    visuals.selection.bg_fill = palette.accent.gamma_multiply(if palette.dark { 0.45 } else { 0.3 });
    visuals.selection.stroke = Stroke::new(1.0, palette.text);
    let widgets = &mut visuals.widgets;
    for (widget, fill, edge) in [
        (&mut widgets.noninteractive, palette.panel, palette.line),
        (&mut widgets.inactive, palette.raised, Color32::TRANSPARENT),
        (&mut widgets.hovered, palette.lifted, Color32::TRANSPARENT),
        (&mut widgets.active, palette.lifted, palette.accent),
        (&mut widgets.open, palette.lifted, Color32::TRANSPARENT),
    ] {
        widget.bg_fill = fill;
        widget.weak_bg_fill = fill;
        widget.bg_stroke = Stroke::new(1.0, edge);
        widget.fg_stroke = Stroke::new(1.0, palette.text);
        widget.corner_radius = radius;
        widget.expansion = 0.0;
    }
    visuals
}

pub fn font(size: f32) -> FontId {
    FontId::new(size, FontFamily::Proportional)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrast ratio as defined by WCAG, from 1 to 21.
    fn contrast(a: Color32, b: Color32) -> f32 {
        let luminance = |color: Color32| {
            let linear = |c: u8| (f32::from(c) / 255.0).powf(2.2);
            let [r, g, b, _] = color.to_array().map(linear);
            0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05
        };
        let (a, b) = (luminance(a), luminance(b));
        a.max(b) / a.min(b)
    }

    #[test]
    fn text_contrast_is_sufficient_on_every_background() {
        for palette in [&DARK, &LIGHT] {
            for back in [palette.back, palette.panel, palette.raised] {
                assert!(contrast(palette.text, back) >= 7.0, "{palette:?}");
                for text in [palette.weak, palette.good, palette.warn, palette.bad, palette.accent] {
                    assert!(contrast(text, back) >= 4.0, "{text:?} on {back:?}: {}", contrast(text, back));
                }
            }
            for fill in palette.strip_colors.into_iter().chain([palette.solo, palette.bad]) {
                assert!(contrast(Palette::on(fill), fill) >= 4.0, "{fill:?}");
                assert!(contrast(fill, palette.panel) >= 2.2 || fill == palette.solo, "{fill:?}");
            }
        }
    }
}
