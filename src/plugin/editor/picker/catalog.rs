//! Cards for the built-in model, the registry's models and recent files.

use egui::{Align, Frame, Layout, Margin, RichText, Stroke, Ui};

use super::{Picker, PickerAction};
use crate::plugin::editor::text;
use crate::plugin::editor::theme::Palette;
use crate::plugin::instance_shared::{ModelView, View};
use crate::plugin::model_loader::LoadStep;
use crate::plugin::routing::STRIP_COUNT;
use crate::plugin::selection::{ModelSource, Selection};
use crate::registry::{self, RegistryEntry};

struct Card<'a> {
    title: &'a str,
    lines: Vec<String>,
    hint: String,
    chosen: bool,
}

/// Draws a card; `side` draws its buttons.
fn card(
    ui: &mut Ui,
    card: &Card,
    side: impl FnOnce(&mut Ui) -> Option<PickerAction>,
) -> Option<PickerAction> {
    let palette = Palette::of(ui.visuals());
    let edge = if card.chosen { palette.accent } else { palette.line };
    let frame = Frame::NONE
        .fill(palette.back)
        .stroke(Stroke::new(1.0, edge))
        .corner_radius(6)
        .inner_margin(Margin::symmetric(10, 7));
    let inner = frame.show(ui, |ui| {
        ui.set_width(ui.available_width().max(40.0));
        ui.horizontal(|ui| {
            let text_width = (ui.available_width() - 150.0).max(60.0);
            ui.allocate_ui_with_layout(egui::vec2(text_width, 20.0), Layout::top_down(Align::Min), |ui| {
                ui.set_width(text_width);
                ui.spacing_mut().item_spacing.y = 2.0;
                ui.label(RichText::new(card.title).size(13.5).color(palette.text));
                for line in &card.lines {
                    ui.label(RichText::new(line).size(11.5).color(palette.weak));
                }
            });
            ui.with_layout(Layout::right_to_left(Align::Center), side).inner
        })
        .inner
    });
    if !card.hint.is_empty() {
        inner.response.on_hover_text(&card.hint);
    }
    ui.add_space(2.0);
    inner.inner
}

pub fn library(picker: &Picker, ui: &mut Ui, selected: &Selection, view: &View) -> Option<PickerAction> {
    let mut action = None;
    if picker.filter.shows_built_in() {
        let built_in = Card {
            title: "Nullsum preview (built in)",
            lines: vec![
                "Preview quality: a small model to try Nullsum at once. For real work, use one of the models below.".into(),
                format!("SDR in dB on two songs it was not trained on: {}", text::embedded_model_scores()),
                "drums, bass, other, vocals · works offline · CC0 1.0".into(),
            ],
            hint: String::new(),
            chosen: selected.source == ModelSource::Embedded,
        };
        action =
            card(ui, &built_in, |ui| use_button(ui, built_in.chosen, view, Selection::default())).or(action);
    }
    let entries = picker.filter.entries();
    if entries.is_empty() {
        let palette = Palette::of(ui.visuals());
        ui.label(RichText::new("No model matches the search and the task.").color(palette.weak));
    }
    for (index, entry) in entries {
        let cached = picker.cached.get(index).copied().unwrap_or(false);
        let live = text::live_cost(picker.live_costs.get(index).and_then(Option::as_ref));
        let sdr = picker.filter.score_text(entry);
        action = of_registry(ui, entry, (cached, &live, &sdr), selected, view).or(action);
    }
    action
}

fn of_registry(
    ui: &mut Ui,
    entry: &RegistryEntry,
    (cached, live, sdr): (bool, &str, &str),
    selected: &Selection,
    view: &View,
) -> Option<PickerAction> {
    let chosen = matches!(&selected.source, ModelSource::Registry { name } if *name == entry.name);
    let mut hint = format!("{} by {}\n{}", entry.architecture, entry.author, entry.source);
    for line in entry.sdr_lines().into_iter().chain(entry.licence_note.clone()) {
        hint.push('\n');
        hint.push_str(&line);
    }
    let shown = Card {
        title: &entry.title,
        lines: vec![
            format!("{} · {} · {sdr}", entry.stems_text(), entry.size_text()),
            format!("{live} · {} · licence of the weights: {}", entry.author, entry.licence_text()),
        ],
        hint,
        chosen,
    };
    let selection = Selection::new(ModelSource::Registry { name: entry.name.clone() }, &entry.title);
    card(ui, &shown, |ui| {
        let palette = Palette::of(ui.visuals());
        match &view.model {
            ModelView::Loading(Some(LoadStep::Fetching(progress))) if chosen => {
                let (label, share) = text::progress(progress);
                let action = ui.button("Cancel").clicked().then_some(PickerAction::Cancel);
                let bar =
                    egui::ProgressBar::new(share.unwrap_or(0.0)).desired_width(76.0).desired_height(8.0);
                ui.add(bar.fill(palette.accent)).on_hover_text(label);
                action
            }
            _ if entry.stems.len() > STRIP_COUNT => {
                let label = format!("{} stems", entry.stems.len());
                let hint =
                    format!("The plugin's mixer has {STRIP_COUNT} strips. Use nullsum-cli to get all stems.");
                ui.label(RichText::new(label).color(palette.weak)).on_hover_text(hint);
                None
            }
            _ if cached => use_button(ui, chosen, view, selection),
            _ => {
                let label = entry.checkpoint.size.map_or_else(
                    || "Download".into(),
                    |size| format!("Download {}", registry::human_size(size)),
                );
                ui.button(label)
                    .on_hover_text(format!("From {}", entry.checkpoint.url))
                    .clicked()
                    .then_some(PickerAction::Download(selection))
            }
        }
    })
}

pub fn recent(picker: &Picker, ui: &mut Ui, selected: &Selection, view: &View) -> Option<PickerAction> {
    let mut action = None;
    if picker.recent.is_empty() {
        let palette = Palette::of(ui.visuals());
        ui.add_space(12.0);
        ui.label(
            RichText::new("You have not loaded a checkpoint file yet. Choose one in “Browse files”.")
                .color(palette.weak),
        );
    }
    for selection in &picker.recent {
        let ModelSource::File { checkpoint, config } = &selection.source else { continue };
        let config = config.as_ref().map_or_else(
            || "configuration in the checkpoint or beside it".into(),
            |config| format!("with {}", text::short_path(config, 60)),
        );
        let shown = Card {
            title: &selection.title,
            lines: vec![text::short_path(checkpoint, 80), config],
            hint: checkpoint.display().to_string(),
            chosen: selection.source == selected.source,
        };
        action = card(ui, &shown, |ui| use_button(ui, shown.chosen, view, selection.clone())).or(action);
    }
    action
}

/// A selected model that failed can be loaded again.
fn use_button(ui: &mut Ui, chosen: bool, view: &View, selection: Selection) -> Option<PickerAction> {
    if chosen && !matches!(view.model, ModelView::Failed(_)) {
        let palette = Palette::of(ui.visuals());
        ui.label(RichText::new("In use").color(palette.good));
        return None;
    }
    ui.button("Use").clicked().then_some(PickerAction::Load(selection))
}
