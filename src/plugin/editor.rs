//! The plugin's editor window. It draws the instance's [`View`] and sends it [`ControlCommand`]s; it never touches the live engine.

mod banner;
mod custom_window;
mod diagnostics;
pub(super) mod file_drop;
mod files;
mod footer;
mod header;
mod history;
mod io_thread;
mod master;
mod menu;
mod meter;
mod overload;
mod param_edits;
mod param_id;
mod picker;
mod prepare;
mod strip;
#[cfg(test)]
mod tests;
mod text;
mod theme;
mod transport;
mod waveform;
mod widgets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use egui::{Frame as Border, Margin, Panel, Rect, Ui, ViewportCommand, vec2};
use nice_plug::context::gui::GuiContext;
use nice_plug::editor::dpi::{LogicalSize, Size};
use nice_plug::editor::{ResizeHint, SizeConstraints};
use nice_plug::plugin::TrackInfo;
use nice_plug_egui::baseview::{HandlerError, WindowSize};
use nice_plug_egui::{EguiEditor, EguiEditorState, EguiNiceSettings, Frame, NiceEguiApp, create_egui_editor};

use self::banner::BannerAction;
use self::custom_window::{CustomWindowRow, WindowChange};
use self::file_drop::{DropAction, DropQueue};
use self::header::{HeaderAction, ModelButton};
use self::master::Null;
use self::meter::{Meter, PeakHold};
use self::overload::{LateWindowMonitor, Overload};
use self::param_edits::ParamEdits;
use self::param_id::{ParamId, StripParam};
use self::picker::{Picker, PickerAction, Tab};
use self::prepare::PrepareRow;
use self::strip::Strip;
use self::theme::Palette;
use self::waveform::WaveformRow;
use super::instance_shared::{ControlCommand, InstanceShared, ModelView, View};
use super::instances;
use super::model_loader::ModelLoadError;
use super::platform::window_threads::WindowThreads;
use super::platform::x11;
use super::prepared::{self, PrepareCommand};
use super::routing::{Routing, STRIP_COUNT, STRIP_NAMES};
use super::selection::{ModelSource, Selection};
use super::thread_setting;
use crate::live::Tier;
use crate::live::plan::WindowSpec;

/// Smallest editor size, in points.
const MIN_SIZE: (f32, f32) = (600.0, 400.0);
/// Time between frames while something moves.
const ACTIVE_REFRESH: Duration = Duration::from_millis(33);
/// Time between frames while nothing moves.
const IDLE_REFRESH: Duration = Duration::from_millis(250);
/// Minimum and maximum height of the mixer strips, in points.
const STRIP_HEIGHT: (f32, f32) = (262.0, 420.0);
/// Maximum width of a strip, in points.
const MAX_STRIP_WIDTH: f32 = 150.0;

/// State of one editor window.
pub struct EditorApp {
    shared: Arc<InstanceShared>,
    edits: ParamEdits,
    picker: Picker,
    /// Files dropped on the editor. Each window gets a new queue.
    drop_queue: Arc<DropQueue>,
    custom_window: CustomWindowRow,
    prepare_row: PrepareRow,
    meters: [[Meter; 2]; STRIP_COUNT],
    output_meters: [Meter; 2],
    null_peak: PeakHold,
    late_windows: LateWindowMonitor,
    /// Newest scope column that was drawn.
    scope_head: u64,
    /// Whether the last frame drew anything but silence in the scope.
    scope_active: bool,
    /// Width, height and zoom from the project, until the window has taken them.
    pending_size: Option<(f32, f32, f32)>,
    /// The selection before a download, restored when the user cancels it.
    previous_selection: Option<Selection>,
    /// Whether a model was loading in the last frame.
    was_loading: bool,
    /// Whether this window has drawn a frame.
    has_drawn: bool,
}

/// Creates the editor of an instance. Returns `None` where the platform offers no window.
pub fn create(shared: Arc<InstanceShared>) -> Option<EguiEditor<EditorApp>> {
    let memory = shared.params.editor.lock().clone();
    // Hosts ask for the size before there is a window, and the wrapper ignores the zoom. So the zoom is applied with the first frame.
    let size =
        LogicalSize::new(clamp_length(memory.width, MIN_SIZE.0), clamp_length(memory.height, MIN_SIZE.1));
    let state = EguiEditorState::from_size(Size::Logical(size.cast()), 1.0);
    let state = shared.window().get_or_init(|| state).clone();
    let hint = ResizeHint {
        can_resize: true,
        can_resize_horizontally: true,
        can_resize_vertically: true,
        size_constraints: SizeConstraints::min_logical_size(LogicalSize::new(MIN_SIZE.0, MIN_SIZE.1)),
        ..ResizeHint::NON_RESIZABLE
    };
    let settings = EguiNiceSettings::new().with_tile("Nullsum").with_resize_hint(hint);
    create_egui_editor(state, shared.repaint.clone(), settings, EditorApp::new(shared))
}

/// Makes a length from a saved project safe: it may be any number, or none.
fn clamp_length(length: f32, min: f32) -> f32 {
    if length.is_finite() { length.clamp(min, 8_000.0) } else { min }
}

impl EditorApp {
    fn new(shared: Arc<InstanceShared>) -> Self {
        Self {
            edits: ParamEdits::new(shared.params.clone()),
            drop_queue: Arc::new(DropQueue::new(shared.repaint.clone())),
            shared,
            picker: Picker::default(),
            custom_window: CustomWindowRow::default(),
            prepare_row: PrepareRow::default(),
            meters: Default::default(),
            output_meters: Default::default(),
            null_peak: PeakHold::default(),
            late_windows: LateWindowMonitor::default(),
            scope_head: 0,
            scope_active: false,
            pending_size: None,
            previous_selection: None,
            was_loading: false,
            has_drawn: false,
        }
    }

    /// Called whenever a window opens, including a reopened one.
    fn on_window_opened(&mut self, ctx: &egui::Context, gui: Option<GuiContext>) {
        theme::install(ctx);
        let memory = self.shared.params.editor.lock().clone();
        theme::choose(ctx, memory.light);
        let zoom = if memory.zoom.is_finite() { memory.zoom.clamp(0.5, 3.0) } else { 1.0 };
        ctx.set_zoom_factor(zoom);
        self.pending_size =
            Some((clamp_length(memory.width, MIN_SIZE.0), clamp_length(memory.height, MIN_SIZE.1), zoom));
        self.edits.attach_window(gui);
        self.picker.close();
        self.shared.send(ControlCommand::Reconcile);
    }

    fn draw_frame(&mut self, ui: &mut Ui) {
        self.edits.now = ui.input(|input| input.time);
        self.restore_size(ui);
        let view = self.shared.view();
        let selected = self.shared.params.model.get();
        self.feed_meters(&view);
        self.handle_shortcuts(ui);
        self.handle_dropped_files(&selected);
        let palette = Palette::of(ui.visuals());
        let edge = |top, bottom| {
            Border::NONE.fill(palette.back).inner_margin(Margin { left: 10, right: 10, top, bottom })
        };
        let window = self.shared.params.window.lock().map(WindowSpec::clamped);
        let overload = Overload::detect(&view, window, self.late_windows.is_persistent(self.edits.now));
        let mut header_action = None;
        let mut banner_action = None;
        Panel::top("header").frame(edge(8, 4)).show_separator_line(false).show(ui, |ui| {
            let (status, severity, _) = footer::model_status(&view, selected.source == ModelSource::Embedded);
            let mut detail = model_detail(&view, &selected, &status);
            if let Some(track) = self.shared.track_name() {
                detail = format!("{detail} · {track}");
            }
            let title = selected.shown_title();
            let healthy = severity != footer::Severity::Problem && selected.source != ModelSource::Embedded;
            let zoom = ui.ctx().zoom_factor();
            header_action = header::show_toolbar(
                ui,
                &mut self.edits,
                &ModelButton { title, detail: &detail, healthy },
                zoom,
            );
            header_action =
                header::show_tiers(ui, &mut self.edits, &view, window.is_some()).or(header_action.take());
            if let Some(set) = window {
                let change = self.custom_window.show(ui, set, view.plan_inputs.as_ref());
                header_action = change.map(HeaderAction::ChangeWindow).or(header_action.take());
            }
            banner_action = banner::show(ui, &view.model, &selected);
            if let Some(text) = overload.and_then(|overload| overload.banner_text(&view)) {
                banner_action = banner::show_overload(ui, &text).or(banner_action.take());
            }
            if let Some(pending) = view.pending
                && banner::show_pending(ui, &pending)
            {
                self.shared.send(ControlCommand::ApplyPending);
            }
            if view.render_failure.is_some_and(|failure| banner::show_notice(ui, &failure.to_string())) {
                self.shared.send(ControlCommand::DismissRenderFailure);
            }
            if self.picker.error().is_some_and(|text| banner::show_notice(ui, text)) {
                self.picker.clear_error();
            }
            if let Some(player) = self.shared.player() {
                transport::show(ui, player, view.host_rate);
            }
            self.show_prepare_row(ui, view.host_rate);
        });
        Panel::bottom("footer").frame(edge(2, 4)).show_separator_line(false).show(ui, |ui| {
            footer::show(ui, &view, selected.source == ModelSource::Embedded, overload);
        });
        let strips = self.strips(&view, &selected);
        let room = ui.available_height();
        let height = (0.45 * room).clamp(STRIP_HEIGHT.0, STRIP_HEIGHT.1).min(room - 30.0).max(20.0);
        Panel::bottom("strips").exact_size(height).frame(edge(4, 4)).show_separator_line(false).show(
            ui,
            |ui| {
                let rect = ui.available_rect_before_wrap();
                self.mixer(ui, rect, &strips, &view);
            },
        );
        egui::CentralPanel::default().frame(edge(2, 2)).show(ui, |ui| {
            let rect = ui.available_rect_before_wrap();
            let waveform_rows = waveform_rows(&strips, palette);
            let scope = view.status.as_ref().map(|status| status.scope());
            self.scope_active = waveform::show(ui, rect, scope, &waveform_rows);
        });
        let picker_action = self.picker.show(ui, &selected, &view);
        self.handle_picker_action(picker_action, selected);
        // During a drag the source program grabs the pointer. If the pointer moves here, a source ended without saying so.
        if ui.input(|input| input.events.iter().any(|event| matches!(event, egui::Event::PointerMoved(_)))) {
            self.drop_queue.set_hovering(false);
        }
        if self.drop_queue.is_hovering() {
            file_drop::overlay(ui, self.shared.player().is_some());
        }
        self.handle_header_action(ui, header_action, &view);
        self.handle_banner_action(banner_action, &view);
        self.schedule_repaint(ui, &view);
    }

    fn show_prepare_row(&mut self, ui: &mut Ui, rate: u32) {
        let learn = self.shared.params.prepared.lock().learn;
        let view = self.shared.prepared.view();
        if self.prepare_row.is_visible(&view, learn)
            && let Some(command) = self.prepare_row.show(ui, &view, learn, rate)
        {
            prepared::send(&self.shared, command);
        }
    }

    /// Applies the project's size and zoom. Hosts restore the state after they create the editor, so both are known only now.
    fn restore_size(&mut self, ui: &Ui) {
        let Some((width, height, zoom)) = self.pending_size else { return };
        // egui applies the zoom from the second pass on.
        if (ui.ctx().zoom_factor() - zoom).abs() < 1e-3 {
            self.pending_size = None;
            let now = ui.ctx().content_rect().size();
            if (now.x - width).abs() > 1.0 || (now.y - height).abs() > 1.0 {
                ui.ctx().send_viewport_cmd(ViewportCommand::InnerSize(vec2(width, height)));
            }
        }
    }

    /// Reads the peaks since the last frame.
    fn feed_meters(&mut self, view: &View) {
        let now = self.edits.now;
        let is_loading = matches!(view.model, ModelView::Loading(_) | ModelView::Measuring);
        if self.was_loading && !is_loading && self.picker.is_open() {
            self.picker.refresh();
            if matches!(view.model, ModelView::Ready { .. }) {
                self.picker.close();
            }
        }
        self.was_loading = is_loading;
        let Some(status) = &view.status else { return };
        let channels = status.channels().min(2);
        self.null_peak.feed(status.take_null_peak(), now);
        self.late_windows.update(status.late_windows(), now);
        for (channel, meter) in self.output_meters.iter_mut().enumerate().take(channels) {
            meter.feed(self.shared.take_output_peak(channel), now);
        }
        for (strip_index, meters) in self.meters.iter_mut().enumerate() {
            for (channel, meter) in meters.iter_mut().enumerate().take(channels) {
                let peak = status.take_stem_peak(strip_index * status.channels() + channel);
                meter.feed(peak, now);
            }
        }
    }

    /// Keyboard shortcuts. A focused text field takes precedence.
    fn handle_shortcuts(&mut self, ui: &Ui) {
        if ui.ctx().text_edit_focused() {
            return;
        }
        use egui::{Key, Modifiers};
        let pressed = |modifiers, key| ui.input_mut(|input| input.consume_key(modifiers, key));
        if pressed(Modifiers::COMMAND | Modifiers::SHIFT, Key::Z) || pressed(Modifiers::COMMAND, Key::Y) {
            self.edits.redo();
        } else if pressed(Modifiers::COMMAND, Key::Z) {
            self.edits.undo();
        }
        if let Some(player) = self.shared.player()
            && player.has_song()
            && ui.memory(|memory| memory.focused().is_none())
            && pressed(Modifiers::NONE, Key::Space)
        {
            player.set_playing(!player.is_playing());
        }
        // A path pasted anywhere in the editor loads that file.
        let pasted = ui.input(|input| {
            input.events.iter().find_map(|event| match event {
                egui::Event::Text(text) | egui::Event::Paste(text) if text.len() > 4 => Some(text.clone()),
                _ => None,
            })
        });
        if let Some(pasted) = pasted
            && text::pasted_paths(&pasted, None).0.is_some()
        {
            let picker_action = self.picker.load_pasted_paths(&pasted);
            let selected = self.shared.params.model.get();
            self.handle_picker_action(picker_action, selected);
        }
    }

    /// Dropped files are loaded exactly like files chosen in the picker.
    fn handle_dropped_files(&mut self, selected: &Selection) {
        let Some(files) = self.drop_queue.pop() else { return };
        let picker_action = match files.map_err(Into::into).and_then(file_drop::classify) {
            Ok(DropAction::LoadModel(checkpoint, config)) => self.picker.load_files(checkpoint, config),
            Ok(DropAction::LoadConfig(config)) => self.picker.load_config(config, selected),
            Ok(DropAction::PlaySong(song)) => {
                self.picker.clear_error();
                match self.shared.player() {
                    Some(player) => player.open(song),
                    None => {
                        self.prepare_row.is_open = Some(true);
                        prepared::send(&self.shared, PrepareCommand::PrepareFile(song));
                    }
                }
                None
            }
            Err(message) => {
                self.picker.show_error(message);
                None
            }
        };
        self.handle_picker_action(picker_action, selected.clone());
    }

    fn strips(&self, view: &View, selected: &Selection) -> Vec<Strip> {
        let Some(routing) = view.routing else { return Vec::new() };
        // While a new model loads, the previous one still plays. So a strip shows the name of the stem that it controls now, or its default.
        let stand_in = view.stand_in.as_ref().map(|stand_in| stand_in.stems.as_slice());
        let saved = selected.spec.as_ref().map(|spec| spec.stems.as_slice());
        let names =
            [view.stems(), stand_in, saved].into_iter().flatten().find(|stems| Routing::of(stems) == routing);
        let on = |strip_index, field| self.edits.value(ParamId::Strip(strip_index, field)) >= 0.5;
        let strip_indices =
            || (0..STRIP_COUNT).filter_map(|strip_index| Some((strip_index, routing.stem(strip_index)?)));
        let any_solo = strip_indices().any(|(strip_index, _)| on(strip_index, StripParam::Solo));
        strip_indices()
            .map(|(strip_index, stem)| {
                let host_name = STRIP_NAMES.get(strip_index).copied().unwrap_or("Stem");
                let name = names.and_then(|names| names.get(stem)).map_or(host_name, String::as_str);
                let audible =
                    !on(strip_index, StripParam::Mute) && (!any_solo || on(strip_index, StripParam::Solo));
                Strip { strip_index, name: text::stem_name(name), host_name, audible }
            })
            .collect()
    }

    fn mixer(&mut self, ui: &mut Ui, rect: Rect, strips: &[Strip], view: &View) {
        let palette = Palette::of(ui.visuals());
        let min_width = 76.0 * strips.len() as f32;
        let master = (rect.width() - min_width).clamp(150.0, 260.0).min(rect.width());
        let (left, right) = rect.split_left_right_at_x(rect.right() - master);
        let left = left.with_max_x((left.right() - theme::GAP).max(left.left()));
        if strips.is_empty() {
            ui.painter().rect_filled(left, 6.0, palette.panel);
            let hint = "Stems appear here when a model is loaded and audio is running";
            ui.painter().text(
                left.center(),
                egui::Align2::CENTER_CENTER,
                hint,
                theme::font(13.0),
                palette.weak,
            );
        }
        let widest =
            MAX_STRIP_WIDTH * strips.len() as f32 + theme::GAP * strips.len().saturating_sub(1) as f32;
        let left = if strips.len() < 3 {
            left.with_max_x(left.right().min(left.left() + widest * 1.6))
        } else {
            left
        };
        let channels = view.status.as_ref().map_or(2, |status| status.channels()).clamp(1, 2);
        for (strip, cell) in strips.iter().zip(strip::row(left, strips.len(), theme::GAP)) {
            if let Some(meters) = self.meters.get_mut(strip.strip_index) {
                let shown = meters.len().min(channels);
                strip::show(ui, cell, &mut self.edits, strip, &mut meters[..shown]);
            }
        }
        let played = view.status.as_ref().is_some_and(|status| status.windows() > 0);
        let null_peak = if played && !strips.is_empty() && view.stems().is_some() {
            Null::Peak(self.null_peak.get())
        } else {
            Null::None
        };
        master::show(ui, right, &mut self.edits, null_peak, &mut self.output_meters[..channels]);
    }

    fn handle_picker_action(&mut self, action: Option<PickerAction>, selected: Selection) {
        let changes_state =
            matches!(action, Some(PickerAction::Load(_) | PickerAction::Download(_) | PickerAction::Cancel));
        match action {
            None => {}
            Some(PickerAction::Load(selection)) => {
                self.previous_selection = Some(selected);
                self.shared.select(selection);
            }
            Some(PickerAction::Download(selection)) => {
                self.previous_selection = Some(selected);
                self.shared.params.model.choose(selection);
                self.shared.send(ControlCommand::Fetch);
            }
            Some(PickerAction::Cancel) => {
                self.shared.select(self.previous_selection.take().unwrap_or_default())
            }
            Some(PickerAction::Retry) => self.retry(),
        }
        if changes_state {
            self.shared.mark_dirty();
        }
    }

    /// Loads the selected model again, and downloads it first if it comes from the registry.
    fn retry(&mut self) {
        let selected = self.shared.params.model.get();
        match selected.source {
            ModelSource::Registry { .. } => {
                self.previous_selection.get_or_insert(selected);
                self.shared.send(ControlCommand::Fetch);
            }
            _ => self.shared.send(ControlCommand::Retry),
        }
    }

    fn set_window(&mut self, window: Option<WindowSpec>) {
        *self.shared.params.window.lock() = window;
        self.shared.mark_dirty();
        self.shared.send(ControlCommand::Reconcile);
    }

    fn handle_header_action(&mut self, ui: &Ui, action: Option<HeaderAction>, view: &View) {
        match action {
            None => {}
            Some(HeaderAction::ChooseModel) => self.picker.open(Tab::Library, None),
            Some(HeaderAction::SetLightTheme(light)) => {
                self.shared.params.editor.lock().light = Some(light);
                theme::choose(ui.ctx(), Some(light));
            }
            Some(HeaderAction::SetZoom(zoom)) => {
                self.shared.params.editor.lock().zoom = zoom;
                ui.ctx().set_zoom_factor(zoom);
            }
            Some(HeaderAction::ApplyPreset(preset)) => self.edits.apply_preset(preset),
            Some(HeaderAction::SetAutomationTiming(timing)) => {
                self.shared.params.automation.set(timing);
                self.shared.mark_dirty();
            }
            Some(HeaderAction::SetThreads(threads)) => {
                thread_setting::choose(threads);
                instances::notify_all();
            }
            Some(HeaderAction::SetDevice(device)) => {
                self.shared.params.device.choose(device);
                self.shared.mark_dirty();
                self.shared.send(ControlCommand::Reconcile);
            }
            Some(HeaderAction::CopyDiagnostics) => {
                ui.ctx().copy_text(diagnostics::report(&self.shared, view));
            }
            Some(HeaderAction::MeasureAgain) => self.shared.send(ControlCommand::Calibrate),
            Some(HeaderAction::UseCustomWindow) => {
                let tier = self.edits.params.tier.value().named().or(view.tier).unwrap_or(Tier::Balanced);
                let shape = view
                    .plan_inputs
                    .map_or_else(WindowSpec::default, |inputs| tier.window_spec(&inputs.timing));
                self.set_window(Some(shape));
            }
            Some(HeaderAction::TogglePrepareRow) => {
                let learn = self.shared.params.prepared.lock().learn;
                let is_visible = self.prepare_row.is_visible(&self.shared.prepared.view(), learn);
                self.prepare_row.is_open = Some(!is_visible);
            }
            Some(HeaderAction::ChangeWindow(WindowChange::Set(shape))) => self.set_window(Some(shape)),
            Some(HeaderAction::ChangeWindow(WindowChange::UseTier)) => self.set_window(None),
        }
    }

    fn handle_banner_action(&mut self, action: Option<BannerAction>, view: &View) {
        match action {
            None => {}
            Some(BannerAction::Download) => {
                // A cancelled download must leave this model selected, although it is not on this computer yet.
                self.previous_selection = Some(self.shared.params.model.get());
                self.shared.send(ControlCommand::Fetch);
            }
            Some(BannerAction::Retry) => self.retry(),
            Some(BannerAction::ChooseModel | BannerAction::ShowDetails) => {
                self.picker.open(Tab::Library, None)
            }
            Some(BannerAction::LocateFile) => {
                let near = match &view.model {
                    ModelView::Failed(ModelLoadError::Missing { path }) => Some(PathBuf::from(path)),
                    _ => None,
                };
                self.picker.open(Tab::Files, near);
            }
        }
    }

    /// Schedules the next frame: soon while something moves, otherwise at the idle rate.
    fn schedule_repaint(&mut self, ui: &Ui, view: &View) {
        let scope_head = view.status.as_ref().map_or(0, |status| status.scope().head());
        let scope_moves = std::mem::replace(&mut self.scope_head, scope_head) != scope_head;
        let meters_move =
            self.meters.iter().flatten().chain(&self.output_meters).any(|meter| !meter.is_silent());
        let is_active = self.was_loading
            || self.picker.is_waiting()
            || (scope_moves && (self.scope_active || meters_move))
            || (meters_move && view.status.is_some());
        ui.ctx().request_repaint_after(if is_active { ACTIVE_REFRESH } else { IDLE_REFRESH });
    }
}

/// The second line of the model button.
fn model_detail(view: &View, selected: &Selection, status: &str) -> String {
    match &view.model {
        ModelView::Ready { stems, .. } if selected.source == ModelSource::Embedded => {
            format!("preview quality, built in · {}", stems.join(", "))
        }
        ModelView::Ready { stems, licence, .. } => {
            let licence = licence.as_ref().map_or_else(String::new, |licence| format!(" · {licence}"));
            format!("{}{licence}", stems.join(", "))
        }
        _ => status.into(),
    }
}

fn waveform_rows(strips: &[Strip], palette: &Palette) -> Vec<WaveformRow> {
    if strips.is_empty() {
        return vec![WaveformRow {
            strip_index: None,
            name: "Input".into(),
            color: palette.dry,
            audible: true,
        }];
    }
    let row = |strip: &Strip| WaveformRow {
        strip_index: Some(strip.strip_index),
        name: strip.name.clone(),
        color: palette.strip_color(strip.strip_index),
        audible: strip.audible,
    };
    strips.iter().map(row).collect()
}

impl NiceEguiApp for EditorApp {
    fn build(
        &mut self,
        egui_ctx: egui::Context,
        gui: GuiContext,
        frame: &mut Frame,
    ) -> Result<(), HandlerError> {
        let threads = WindowThreads::name_current_thread();
        self.drop_queue = Arc::new(DropQueue::new(self.shared.repaint.clone()));
        let listener = file_drop::listen(frame.baseview_window(), self.drop_queue.clone());
        self.shared.register_editor(threads, listener.map(|listener| Box::new(listener) as _));
        x11::subscribe_present_events(frame.baseview_window());
        x11::keep_gl_loaded();
        self.has_drawn = false;
        self.on_window_opened(&egui_ctx, Some(gui));
        Ok(())
    }

    fn ui(&mut self, ui: &mut Ui, frame: &mut Frame) {
        if !std::mem::replace(&mut self.has_drawn, true) {
            self.shared.record_editor_threads();
        }
        frame.set_clear_color(Palette::of(ui.visuals()).back.into());
        self.draw_frame(ui);
    }

    fn resized(&mut self, size: WindowSize) {
        // Until the window has the saved size, its initial size must not overwrite it.
        if self.pending_size.is_none() {
            let mut memory = self.shared.params.editor.lock();
            (memory.width, memory.height) = (size.logical.width as f32, size.logical.height as f32);
        }
    }

    fn track_info_changed(&mut self, info: TrackInfo) {
        self.shared.set_track_name(info.name());
    }

    fn zoom_factor_changed(&mut self, zoom_factor: f32) {
        if self.pending_size.is_none() {
            self.shared.params.editor.lock().zoom = zoom_factor;
        }
    }
}
