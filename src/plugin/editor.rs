//! The editor. It reads what the session shows and sends it commands; it never touches the engine.

mod banner;
mod control;
mod desk;
mod disk;
pub(super) mod drop;
mod files;
mod footer;
mod header;
mod history;
mod key;
mod master;
mod meter;
mod picker;
mod strain;
mod strip;
#[cfg(test)]
mod tests;
mod text;
mod theme;
pub(super) mod threads;
mod transport;
mod waveform;
mod window;
mod x11;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use egui::{Frame as Border, Margin, Panel, Rect, Ui, ViewportCommand, vec2};
use nice_plug::context::gui::GuiContext;
use nice_plug::editor::dpi::{LogicalSize, Size};
use nice_plug::editor::{ResizeHint, SizeConstraints};
use nice_plug_egui::baseview::{HandlerError, WindowSize};
use nice_plug_egui::{EguiEditor, EguiEditorState, EguiNiceSettings, Frame, NiceEguiApp, create_egui_editor};

use self::banner::Answer;
use self::desk::Desk;
use self::drop::{Inbox, Use};
use self::header::{Title, Wish};
use self::key::{Field, Key};
use self::master::Null;
use self::meter::{Held, Meter};
use self::picker::{Pick, Picker, Tab};
use self::strain::{Lates, Strain};
use self::strip::Strip;
use self::theme::Palette;
use self::threads::Threads;
use self::waveform::Lane;
use self::window::{ByHand, Change};
use super::library::OpenError;
use super::selection::{Selection, Source};
use super::session::{Command, ModelView, Session, View};
use super::slot::{NAMES, Routing, SLOTS};
use crate::stream::Tier;
use crate::stream::plan::Shape;

/// Smallest window, in points.
const SMALLEST: (f32, f32) = (600.0, 400.0);
/// Between two pictures while something moves.
const FRAME: Duration = Duration::from_millis(33);
/// Between two looks while nothing does.
const LOOK: Duration = Duration::from_millis(250);
/// Least and greatest height of the strips, in points.
const STRIPS: (f32, f32) = (262.0, 420.0);
/// Widest strip, in points.
const WIDEST: f32 = 150.0;

/// The editor's window.
pub struct EditorApp {
    session: Arc<Session>,
    desk: Desk,
    picker: Picker,
    /// Files that are dropped on the window, a new one for each.
    inbox: Arc<Inbox>,
    by_hand: ByHand,
    meters: [[Meter; 2]; SLOTS],
    /// Of the main output.
    output: [Meter; 2],
    null: Held,
    lates: Lates,
    /// Newest column of the scope that was drawn.
    head: u64,
    /// Whether anything but silence was drawn.
    loud: bool,
    /// Size and zoom that the session remembers, until the window has them.
    restore: Option<(f32, f32, f32)>,
    /// What was chosen before a download, to go back to.
    before: Option<Selection>,
    /// Whether something was being loaded a frame ago.
    busy: bool,
    /// Whether the window has had a picture.
    drawn: bool,
}

/// Makes the editor of an instance.
pub fn create(session: Arc<Session>) -> Option<EguiEditor<EditorApp>> {
    let memory = session.params.editor.lock().clone();
    // Hosts ask for the size before there is a window, and the wrapper would leave the zoom out; so it comes with the first picture.
    let size = LogicalSize::new(sane(memory.width, SMALLEST.0), sane(memory.height, SMALLEST.1));
    let state = EguiEditorState::from_size(Size::Logical(size.cast()), 1.0);
    let state = session.window().get_or_init(|| state).clone();
    let hint = ResizeHint {
        can_resize: true,
        can_resize_horizontally: true,
        can_resize_vertically: true,
        size_constraints: SizeConstraints::min_logical_size(LogicalSize::new(SMALLEST.0, SMALLEST.1)),
        ..ResizeHint::NON_RESIZABLE
    };
    let settings = EguiNiceSettings::new().with_tile("Nullsum").with_resize_hint(hint);
    create_egui_editor(state, session.repaint.clone(), settings, EditorApp::new(session))
}

/// A length out of a session, which may say anything.
fn sane(length: f32, least: f32) -> f32 {
    if length.is_finite() { length.clamp(least, 8_000.0) } else { least }
}

impl EditorApp {
    fn new(session: Arc<Session>) -> Self {
        Self {
            desk: Desk::new(session.params.clone()),
            inbox: Arc::new(Inbox::new(session.repaint.clone())),
            session,
            picker: Picker::default(),
            by_hand: ByHand::default(),
            meters: Default::default(),
            output: Default::default(),
            null: Held::default(),
            lates: Lates::default(),
            head: 0,
            loud: false,
            restore: None,
            before: None,
            busy: false,
            drawn: false,
        }
    }

    /// A window opens, for the first time or again.
    fn open(&mut self, ctx: &egui::Context, gui: Option<GuiContext>) {
        theme::install(ctx);
        let memory = self.session.params.editor.lock().clone();
        theme::choose(ctx, memory.light);
        let zoom = if memory.zoom.is_finite() { memory.zoom.clamp(0.5, 3.0) } else { 1.0 };
        ctx.set_zoom_factor(zoom);
        self.restore = Some((sane(memory.width, SMALLEST.0), sane(memory.height, SMALLEST.1), zoom));
        self.desk.open(gui);
        self.picker.close();
        self.session.send(Command::Look);
    }

    /// Draws a picture.
    fn draw(&mut self, ui: &mut Ui) {
        self.desk.now = ui.input(|input| input.time);
        self.restore_size(ui);
        let view = self.session.view();
        let selected = self.session.params.model.get();
        self.follow(&view);
        self.shortcuts(ui);
        self.dropped(&selected);
        let palette = Palette::of(ui.visuals());
        let edge = |top, bottom| {
            Border::NONE.fill(palette.back).inner_margin(Margin { left: 10, right: 10, top, bottom })
        };
        let window = self.session.params.window.lock().map(Shape::sane);
        let strain = Strain::of(&view, window, self.lates.keep_coming(self.desk.now));
        let mut wish = None;
        let mut answer = None;
        Panel::top("header").frame(edge(8, 4)).show_separator_line(false).show(ui, |ui| {
            let (words, tone, _) = footer::model_line(&view, selected.source == Source::Embedded);
            let detail = detail(&view, &selected, &words);
            let title = selected.shown_title();
            let fine = tone != footer::Tone::Bad && selected.source != Source::Embedded;
            let zoom = ui.ctx().zoom_factor();
            wish = header::bar(ui, &mut self.desk, &Title { title, detail: &detail, fine }, zoom);
            wish = header::tiers(ui, &mut self.desk, &view, window.is_some()).or(wish);
            if let Some(set) = window {
                let change = self.by_hand.show(ui, set, view.facts.as_ref());
                wish = change.map(Wish::Window).or(wish);
            }
            answer = banner::show(ui, &view.model, &selected);
            if let Some(words) = strain.and_then(|strain| strain.banner(&view)) {
                answer = banner::strain(ui, &words).or(answer.take());
            }
            if self.picker.complaint().is_some_and(|words| banner::note(ui, words)) {
                self.picker.forget_complaint();
            }
            if let Some(player) = self.session.player() {
                transport::show(ui, player, view.host_rate);
            }
        });
        Panel::bottom("footer").frame(edge(2, 4)).show_separator_line(false).show(ui, |ui| {
            footer::show(ui, &view, selected.source == Source::Embedded, strain);
        });
        let strips = self.strips(&view, &selected);
        let room = ui.available_height();
        let height = (0.45 * room).clamp(STRIPS.0, STRIPS.1).min(room - 30.0).max(20.0);
        Panel::bottom("strips").exact_size(height).frame(edge(4, 4)).show_separator_line(false).show(
            ui,
            |ui| {
                let rect = ui.available_rect_before_wrap();
                self.mixer(ui, rect, &strips, &view);
            },
        );
        egui::CentralPanel::default().frame(edge(2, 2)).show(ui, |ui| {
            let rect = ui.available_rect_before_wrap();
            let lanes = lanes(&strips, palette);
            let scope = view.status.as_ref().map(|status| status.scope());
            self.loud = waveform::show(ui, rect, scope, &lanes);
        });
        let pick = self.picker.show(ui, &selected, &view);
        self.pick(pick, selected);
        // Programs that drag hold the pointer: where it moves here, one has forgotten to say that it is done.
        if ui.input(|input| input.events.iter().any(|event| matches!(event, egui::Event::PointerMoved(_)))) {
            self.inbox.set_hovers(false);
        }
        if self.inbox.hovers() {
            drop::overlay(ui, self.session.player().is_some());
        }
        self.wish(ui, wish, &view);
        self.answer(answer, &view);
        self.repaint(ui, &view);
    }

    /// The session's size and zoom are known only now: hosts restore them after the editor was made.
    fn restore_size(&mut self, ui: &Ui) {
        let Some((width, height, zoom)) = self.restore else { return };
        // The zoom is in force from the second pass on.
        if (ui.ctx().zoom_factor() - zoom).abs() < 1e-3 {
            self.restore = None;
            let now = ui.ctx().content_rect().size();
            if (now.x - width).abs() > 1.0 || (now.y - height).abs() > 1.0 {
                ui.ctx().send_viewport_cmd(ViewportCommand::InnerSize(vec2(width, height)));
            }
        }
    }

    /// Feeds the meters, once a picture.
    fn follow(&mut self, view: &View) {
        let now = self.desk.now;
        let busy = matches!(view.model, ModelView::Loading(_) | ModelView::Measuring);
        if self.busy && !busy && self.picker.is_open() {
            self.picker.refresh();
            if matches!(view.model, ModelView::Ready { .. }) {
                self.picker.close();
            }
        }
        self.busy = busy;
        let Some(status) = &view.status else { return };
        let channels = status.channels().min(2);
        self.null.feed(status.take_null_peak(), now);
        self.lates.feed(status.late_windows(), now);
        for (channel, meter) in self.output.iter_mut().enumerate().take(channels) {
            meter.feed(self.session.take_output_peak(channel), now);
        }
        for (slot, meters) in self.meters.iter_mut().enumerate() {
            for (channel, meter) in meters.iter_mut().enumerate().take(channels) {
                let peak = status.take_stem_peak(slot * status.channels() + channel);
                meter.feed(peak, now);
            }
        }
    }

    /// Keys that work everywhere but where text is typed.
    fn shortcuts(&mut self, ui: &Ui) {
        if ui.ctx().text_edit_focused() {
            return;
        }
        use egui::{Key as Press, Modifiers};
        let pressed = |modifiers, key| ui.input_mut(|input| input.consume_key(modifiers, key));
        if pressed(Modifiers::COMMAND | Modifiers::SHIFT, Press::Z) || pressed(Modifiers::COMMAND, Press::Y) {
            self.desk.redo();
        } else if pressed(Modifiers::COMMAND, Press::Z) {
            self.desk.undo();
        }
        if let Some(player) = self.session.player()
            && player.has_song()
            && ui.memory(|memory| memory.focused().is_none())
            && pressed(Modifiers::NONE, Press::Space)
        {
            player.set_playing(!player.is_playing());
        }
        // A path that is pasted anywhere opens.
        let pasted = ui.input(|input| {
            input.events.iter().find_map(|event| match event {
                egui::Event::Text(text) | egui::Event::Paste(text) if text.len() > 4 => Some(text.clone()),
                _ => None,
            })
        });
        if let Some(pasted) = pasted
            && text::pasted_paths(&pasted, None).0.is_some()
        {
            let pick = self.picker.take_paths(&pasted);
            let selected = self.session.params.model.get();
            self.pick(pick, selected);
        }
    }

    /// Files that were dropped go the way of those that are chosen.
    fn dropped(&mut self, selected: &Selection) {
        let Some(files) = self.inbox.take() else { return };
        let pick = match files.map_err(Into::into).and_then(drop::sort) {
            Ok(Use::Model(checkpoint, config)) => self.picker.take_files(checkpoint, config),
            Ok(Use::Config(config)) => self.picker.take_config(config, selected),
            Ok(Use::Song(song)) => {
                self.picker.forget_complaint();
                match self.session.player() {
                    Some(player) => player.open(song),
                    None => self.picker.complain(
                        "Songs are played by the app; here a checkpoint is dropped, with its YAML".into(),
                    ),
                }
                None
            }
            Err(words) => {
                self.picker.complain(words);
                None
            }
        };
        self.pick(pick, selected.clone());
    }

    fn strips(&self, view: &View, selected: &Selection) -> Vec<Strip> {
        let Some(routing) = view.routing else { return Vec::new() };
        // While another model is loaded, the one before is heard: a strip has the name of the stem that it moves, or its own.
        let stand_in = view.stand_in.as_ref().map(|stand_in| stand_in.stems.as_slice());
        let known = selected.known.as_ref().map(|known| known.stems.as_slice());
        let names =
            [view.stems(), stand_in, known].into_iter().flatten().find(|stems| Routing::of(stems) == routing);
        let on = |slot, field| self.desk.value(Key::Strip(slot, field)) >= 0.5;
        let slots = || (0..SLOTS).filter_map(|slot| Some((slot, routing.stem(slot)?)));
        let any_solo = slots().any(|(slot, _)| on(slot, Field::Solo));
        slots()
            .map(|(slot, stem)| {
                let slot_name = NAMES.get(slot).copied().unwrap_or("Stem");
                let name = names.and_then(|names| names.get(stem)).map_or(slot_name, String::as_str);
                let heard = !on(slot, Field::Mute) && (!any_solo || on(slot, Field::Solo));
                Strip { slot, name: text::stem_name(name), slot_name, heard }
            })
            .collect()
    }

    fn mixer(&mut self, ui: &mut Ui, rect: Rect, strips: &[Strip], view: &View) {
        let palette = Palette::of(ui.visuals());
        let least = 76.0 * strips.len() as f32;
        let master = (rect.width() - least).clamp(150.0, 260.0).min(rect.width());
        let (left, right) = rect.split_left_right_at_x(rect.right() - master);
        let left = left.with_max_x((left.right() - theme::GAP).max(left.left()));
        if strips.is_empty() {
            ui.painter().rect_filled(left, 6.0, palette.panel);
            let words = "Stems appear here once a model is chosen and the audio runs";
            ui.painter().text(
                left.center(),
                egui::Align2::CENTER_CENTER,
                words,
                theme::font(13.0),
                palette.weak,
            );
        }
        let widest = WIDEST * strips.len() as f32 + theme::GAP * strips.len().saturating_sub(1) as f32;
        let left = if strips.len() < 3 {
            left.with_max_x(left.right().min(left.left() + widest * 1.6))
        } else {
            left
        };
        let channels = view.status.as_ref().map_or(2, |status| status.channels()).clamp(1, 2);
        for (strip, cell) in strips.iter().zip(strip::row(left, strips.len(), theme::GAP)) {
            if let Some(meters) = self.meters.get_mut(strip.slot) {
                let shown = meters.len().min(channels);
                strip::show(ui, cell, &mut self.desk, strip, &mut meters[..shown]);
            }
        }
        let played = view.status.as_ref().is_some_and(|status| status.windows() > 0);
        let null = if played && !strips.is_empty() && view.stems().is_some() {
            Null::Peak(self.null.get())
        } else {
            Null::None
        };
        master::show(ui, right, &mut self.desk, null, &mut self.output[..channels]);
    }

    fn pick(&mut self, pick: Option<Pick>, selected: Selection) {
        let chooses = matches!(pick, Some(Pick::Use(_) | Pick::Fetch(_) | Pick::Cancel));
        match pick {
            None => {}
            Some(Pick::Use(selection)) => {
                self.before = Some(selected);
                self.session.select(selection);
            }
            Some(Pick::Fetch(selection)) => {
                self.before = Some(selected);
                self.session.params.model.choose(selection);
                self.session.send(Command::Fetch);
            }
            Some(Pick::Cancel) => self.session.select(self.before.take().unwrap_or_default()),
            Some(Pick::Retry) => self.retry(),
        }
        if chooses {
            self.session.tell_unsaved();
        }
    }

    /// Tries the selected model again: what was to be fetched, is.
    fn retry(&mut self) {
        let selected = self.session.params.model.get();
        match selected.source {
            Source::Registry { .. } => {
                self.before.get_or_insert(selected);
                self.session.send(Command::Fetch);
            }
            _ => self.session.send(Command::Retry),
        }
    }

    fn set_window(&mut self, window: Option<Shape>) {
        *self.session.params.window.lock() = window;
        self.session.tell_unsaved();
        self.session.send(Command::Look);
    }

    fn wish(&mut self, ui: &Ui, wish: Option<Wish>, view: &View) {
        match wish {
            None => {}
            Some(Wish::Models) => self.picker.open(Tab::Library, None),
            Some(Wish::Light(light)) => {
                self.session.params.editor.lock().light = Some(light);
                theme::choose(ui.ctx(), Some(light));
            }
            Some(Wish::Zoom(zoom)) => {
                self.session.params.editor.lock().zoom = zoom;
                ui.ctx().set_zoom_factor(zoom);
            }
            Some(Wish::Measure) => self.session.send(Command::Calibrate),
            Some(Wish::ByHand) => {
                let tier = self.desk.params.tier.value().named().or(view.tier).unwrap_or(Tier::Balanced);
                let shape = view.facts.map_or_else(Shape::default, |facts| tier.shape(&facts.timing));
                self.set_window(Some(shape));
            }
            Some(Wish::Window(Change::Set(shape))) => self.set_window(Some(shape)),
            Some(Wish::Window(Change::Off)) => self.set_window(None),
        }
    }

    fn answer(&mut self, answer: Option<Answer>, view: &View) {
        match answer {
            None => {}
            Some(Answer::Fetch) => {
                // What is not here yet is what a cancelled download goes back to.
                self.before = Some(self.session.params.model.get());
                self.session.send(Command::Fetch);
            }
            Some(Answer::Retry) => self.retry(),
            Some(Answer::Choose | Answer::Details) => self.picker.open(Tab::Library, None),
            Some(Answer::Find) => {
                let near = match &view.model {
                    ModelView::Failed(OpenError::Missing { path }) => Some(PathBuf::from(path)),
                    _ => None,
                };
                self.picker.open(Tab::Files, near);
            }
        }
    }

    /// Asks for the next picture: soon while something moves, else for another look.
    fn repaint(&mut self, ui: &Ui, view: &View) {
        let head = view.status.as_ref().map_or(0, |status| status.scope().head());
        let flows = std::mem::replace(&mut self.head, head) != head;
        let meters = self.meters.iter().flatten().chain(&self.output).any(|meter| !meter.rests());
        let moves = self.busy
            || self.picker.is_waiting()
            || (flows && (self.loud || meters))
            || (meters && view.status.is_some());
        ui.ctx().request_repaint_after(if moves { FRAME } else { LOOK });
    }
}

/// What stands under the title.
fn detail(view: &View, selected: &Selection, line: &str) -> String {
    match &view.model {
        ModelView::Ready { stems, .. } if selected.source == Source::Embedded => {
            format!("preview quality, built in · {}", stems.join(", "))
        }
        ModelView::Ready { stems, licence, .. } => {
            let licence = licence.as_ref().map_or_else(String::new, |licence| format!(" · {licence}"));
            format!("{}{licence}", stems.join(", "))
        }
        _ => line.into(),
    }
}

fn lanes(strips: &[Strip], palette: &Palette) -> Vec<Lane> {
    if strips.is_empty() {
        return vec![Lane { slot: None, name: "Input".into(), color: palette.dry, heard: true }];
    }
    let lane = |strip: &Strip| Lane {
        slot: Some(strip.slot),
        name: strip.name.clone(),
        color: palette.slot(strip.slot),
        heard: strip.heard,
    };
    strips.iter().map(lane).collect()
}

impl NiceEguiApp for EditorApp {
    fn build(
        &mut self,
        egui_ctx: egui::Context,
        gui: GuiContext,
        frame: &mut Frame,
    ) -> Result<(), HandlerError> {
        let threads = Threads::of_this_window();
        self.inbox = Arc::new(Inbox::new(self.session.repaint.clone()));
        let listener = drop::listen(frame.baseview_window(), self.inbox.clone());
        self.session.note_window(threads, listener);
        x11::listen(frame.baseview_window());
        x11::keep_driver();
        self.drawn = false;
        self.open(&egui_ctx, Some(gui));
        Ok(())
    }

    fn ui(&mut self, ui: &mut Ui, frame: &mut Frame) {
        if !std::mem::replace(&mut self.drawn, true) {
            self.session.note_window_threads();
        }
        frame.set_clear_color(Palette::of(ui.visuals()).back.into());
        self.draw(ui);
    }

    fn resized(&mut self, size: WindowSize) {
        // Until the window has the remembered size, its own must not replace it.
        if self.restore.is_none() {
            let mut memory = self.session.params.editor.lock();
            (memory.width, memory.height) = (size.logical.width as f32, size.logical.height as f32);
        }
    }

    fn zoom_factor_changed(&mut self, zoom_factor: f32) {
        if self.restore.is_none() {
            self.session.params.editor.lock().zoom = zoom_factor;
        }
    }
}
