//! Tests of the editor without a window. Frames are drawn and discarded, input is synthesised, and the text on screen is read through the
//! accessibility tree.

use egui::accesskit::{Node, NodeId, Rect};
use egui::{Event, Key, Modifiers, PointerButton, Pos2, RawInput, pos2, vec2};
use nice_plug::prelude::{GuiContextInner, ParamPtr, PluginApi, PluginState};
use parking_lot::Mutex;

use super::param_id::{ParamId, StripParam};
use super::*;
use crate::audio::{AudioWriter, Container, Planar, SampleFormat, WriterSpec};
use crate::live::plan::Deadline;
use crate::live::{
    HostSamples, ModelSamples, ModelTiming, NoStems, Plan, PlanRequest, SharedModel, Stream, Tier,
    WindowError, WindowSeparator,
};
use crate::plugin::automation_delay::{MAIN, SOLO};
use crate::plugin::instance_shared::{InstanceGuard, TierView};
use crate::plugin::model_loader::LoadStep;
use crate::plugin::params::{NullsumParams, TierChoice};
use crate::plugin::player::Player;
use crate::plugin::routing::Routing;
use crate::registry::{DownloadProgress, DownloadStage, FileKind};
use crate::separator::MaskRule;

/// A host that applies every change at once and counts gestures.
#[derive(Default)]
struct FakeHost {
    begun: Mutex<u32>,
    ended: Mutex<u32>,
}

impl GuiContextInner for FakeHost {
    fn plugin_api(&self) -> PluginApi {
        PluginApi::Clap
    }

    unsafe fn raw_begin_set_parameter(&self, _: ParamPtr) {
        *self.begun.lock() += 1;
    }

    unsafe fn raw_set_parameter_normalized(&self, param: ParamPtr, normalized: f32) {
        assert_eq!(*self.begun.lock(), *self.ended.lock() + 1, "set outside of a gesture");
        // SAFETY: the parameters outlive the editor of the test.
        unsafe { param._internal_set_normalized_value(normalized) };
    }

    unsafe fn raw_end_set_parameter(&self, _: ParamPtr) {
        *self.ended.lock() += 1;
    }

    fn get_state(&self) -> PluginState {
        unreachable!("the editor does not ask for it")
    }

    fn set_state(&self, _: PluginState) {}

    fn request_restart(&self) {}
}

/// A separator whose two stems are each half of the mixture.
struct Halves;

impl WindowSeparator for Halves {
    fn stems(&self) -> usize {
        2
    }

    fn channels(&self) -> usize {
        2
    }

    fn timing(&self) -> ModelTiming {
        ModelTiming {
            rate: 48_000,
            chunk: ModelSamples(48_000),
            frame_hop: ModelSamples(480),
            frame: ModelSamples(960),
            context: None,
        }
    }

    fn separate_window(&mut self, window: &[f32], _: MaskRule, out: &mut [f32]) -> Result<(), WindowError> {
        for (out, sample) in out.iter_mut().zip(window.iter().chain(window)) {
            *out = 0.5 * sample;
        }
        Ok(())
    }
}

/// Drives an editor without a window.
struct EditorHarness {
    app: EditorApp,
    shared: InstanceGuard,
    host: Arc<FakeHost>,
    ctx: egui::Context,
    size: egui::Vec2,
    time: f64,
    nodes: Vec<(NodeId, Node)>,
    focus: Option<NodeId>,
    delay: Duration,
    /// Text that was last copied to the clipboard.
    copied: String,
}

impl EditorHarness {
    fn new(view: View) -> Self {
        Self::with_player(view, None)
    }

    fn with_player(view: View, player: Option<Player>) -> Self {
        let shared = InstanceShared::new(Arc::new(NullsumParams::new()), player, crate::plugin::control::run);
        shared.update_view(|shown| *shown = view);
        let host = Arc::new(FakeHost::default());
        let ctx = egui::Context::default();
        ctx.enable_accesskit();
        let mut app = EditorApp::new(shared.clone());
        app.on_window_opened(&ctx, Some(GuiContext::new(host.clone())));
        let size = vec2(920.0, 600.0);
        let mut harness = Self {
            app,
            shared: InstanceGuard(shared),
            host,
            ctx,
            size,
            time: 0.0,
            nodes: Vec::new(),
            focus: None,
            delay: ACTIVE_REFRESH,
            copied: String::new(),
        };
        harness.frames(3);
        harness
    }

    fn params(&self) -> &NullsumParams {
        &self.shared.0.params
    }

    fn frame(&mut self, events: Vec<Event>) {
        self.time += 0.1;
        let input = RawInput {
            screen_rect: Some(egui::Rect::from_min_size(Pos2::ZERO, self.size)),
            time: Some(self.time),
            events,
            ..RawInput::default()
        };
        let app = &mut self.app;
        let mut output = self.ctx.run_ui(input, |ui| app.draw_frame(ui));
        if let Some(update) = output.platform_output.accesskit_update.take() {
            (self.nodes, self.focus) = (update.nodes, Some(update.focus));
        }
        for command in &output.platform_output.commands {
            if let egui::OutputCommand::CopyText(text) = command {
                self.copied.clone_from(text);
            }
        }
        self.delay = output
            .viewport_output
            .values()
            .map(|viewport| viewport.repaint_delay)
            .min()
            .unwrap_or(Duration::MAX);
        let shapes = std::mem::take(&mut output.shapes);
        for primitive in self.ctx.tessellate(shapes, output.pixels_per_point) {
            if let egui::epaint::Primitive::Mesh(mesh) = primitive.primitive {
                assert!(
                    mesh.vertices.iter().all(|vertex| vertex.pos.x.is_finite() && vertex.pos.y.is_finite())
                );
            }
        }
        output.drop_without_applying_deltas();
    }

    fn frames(&mut self, count: usize) {
        for _ in 0..count {
            self.frame(Vec::new());
        }
    }

    /// All text on screen, one widget per line.
    fn visible_text(&self) -> String {
        let words = |node: &Node| {
            format!("{} {}\n", node.label().unwrap_or_default(), node.value().unwrap_or_default())
        };
        self.nodes.iter().map(|(_, node)| words(node)).collect()
    }

    fn find(&self, label: &str) -> (NodeId, Pos2) {
        let says = |node: &Node, is: &dyn Fn(&str) -> bool| {
            node.label().is_some_and(is) || node.value().is_some_and(is)
        };
        let exactly = self.nodes.iter().find(|(_, node)| says(node, &|text| text == label));
        let (id, node) = exactly
            .or_else(|| self.nodes.iter().find(|(_, node)| says(node, &|text| text.starts_with(label))))
            .unwrap_or_else(|| panic!("no {label:?} in\n{}", self.visible_text()));
        let Rect { x0, y0, x1, y1 } = node.bounds().unwrap();
        (*id, pos2(((x0 + x1) / 2.0) as f32, ((y0 + y1) / 2.0) as f32))
    }

    fn press(&mut self, key: Key, modifiers: Modifiers) {
        for pressed in [true, false] {
            let event = Event::Key { key, physical_key: None, pressed, repeat: false, modifiers };
            self.frame(vec![Event::ModifiersChanged(modifiers), event]);
        }
        self.frame(vec![Event::ModifiersChanged(Modifiers::NONE)]);
    }

    fn button(&mut self, pos: Pos2, pressed: bool, modifiers: Modifiers) {
        let event = Event::PointerButton { pos, button: PointerButton::Primary, pressed, modifiers };
        self.frame(vec![Event::ModifiersChanged(modifiers), Event::PointerMoved(pos), event]);
    }

    fn click(&mut self, label: &str) {
        self.click_with(label, Modifiers::NONE);
    }

    fn click_with(&mut self, label: &str, modifiers: Modifiers) {
        let (_, at) = self.find(label);
        self.frame(vec![Event::PointerMoved(at)]);
        self.button(at, true, modifiers);
        self.button(at, false, modifiers);
        self.frame(vec![Event::ModifiersChanged(Modifiers::NONE)]);
        self.frames(2);
    }

    /// Presses Tab until `label` has the keyboard focus.
    fn tab_to(&mut self, label: &str) {
        for _ in 0..120 {
            if self.focus == Some(self.find(label).0) {
                return;
            }
            self.press(Key::Tab, Modifiers::NONE);
        }
        panic!("Tab does not lead to {label}");
    }
}

fn plan() -> Plan {
    Plan::new(PlanRequest {
        host_rate: 48_000,
        model_rate: 48_000,
        window: ModelSamples(24_000),
        hop: ModelSamples(4_800),
        lookahead: ModelSamples(960),
        fade: ModelSamples(480),
        deadline: Deadline::WholeHop,
        max_block: HostSamples(480),
        context: None,
    })
    .unwrap()
}

/// View of a stream with two stems that has played one second.
fn played() -> View {
    let (mut client, mut engine) = Stream::manual(&plan(), STRIP_COUNT, 2);
    engine.swap(Some(SharedModel::new(Box::new(Halves)).with_stems_at(&[0, 3], STRIP_COUNT))).unwrap();
    for block in 0..100 {
        let mut planes = [0, 1].map(|channel| -> Vec<f32> {
            (0..480).map(|at| ((block * 480 + at + channel) as f32 * 0.05).sin() * 0.8).collect()
        });
        client.process(&mut planes.each_mut().map(Vec::as_mut_slice), &mut NoStems);
        engine.run_until_idle();
    }
    let status = engine.status();
    // Dropping the engine would change the status to stopped.
    std::mem::forget(engine);
    let tiers = Tier::ALL.map(|tier| TierView { tier, latency_ms: 612.0, load: Some(0.34) });
    View {
        model: ready(),
        tier: Some(Tier::Low),
        tiers: tiers.to_vec(),
        latency_ms: plan().latency_ms(),
        host_rate: 48_000,
        routing: Some(Routing::of(&["vocals".into(), "instrumental".into()])),
        status: Some(status),
        ..View::default()
    }
}

fn ready() -> ModelView {
    ModelView::Ready {
        runs_on: "CPU, AVX2, 2 threads".into(),
        stems: vec!["vocals".into(), "instrumental".into()],
        licence: Some("MIT".into()),
    }
}

fn with(model: ModelView) -> View {
    View { model, ..played() }
}

fn all_states() -> Vec<(View, &'static [&'static str])> {
    let fetching = DownloadProgress {
        file: FileKind::Checkpoint,
        stage: DownloadStage::Downloading,
        done_bytes: 100_000_000,
        total_bytes: Some(527_000_000),
    };
    let not_fetched =
        ModelLoadError::NotFetched { name: "x".into(), size: "527 MB".into(), licence: "MIT".into() };
    let broken = ModelLoadError::Broken {
        reason: "tensor `a.b` is missing".into(),
        report: Some("a long report\n".repeat(400)),
    };
    vec![
        (View::default(), &["No model loaded yet"]),
        (with(ModelView::Loading(None)), &["Loading"]),
        (
            with(ModelView::Loading(Some(LoadStep::Fetching(fetching)))),
            &["Downloading the weights: 100 MB of 527 MB"],
        ),
        (
            with(ModelView::Loading(Some(LoadStep::Hashing { done: 5_000_000 }))),
            &["Reading the model file: 5.00 MB"],
        ),
        (with(ModelView::Measuring), &["Measuring"]),
        (
            played(),
            &[
                "Preview model on CPU, AVX2",
                "Vocals",
                "Instrumental",
                "Low: 612 ms · 34 %",
                "232 ms latency, 11\u{2009}136 samples",
                "Auto: Low · 34 %",
                "0 late",
                "Null",
                "Other Gain",
            ],
        ),
        (with(ModelView::Failed(not_fetched)), &["is not downloaded yet (527 MB", "Download"]),
        (
            with(ModelView::Failed(ModelLoadError::Missing { path: "/gone/x.ckpt".into() })),
            &["/gone/x.ckpt", "Locate file"],
        ),
        (with(ModelView::Failed(ModelLoadError::Cancelled)), &["Loading was cancelled", "Try again"]),
        (with(ModelView::Failed(broken)), &["tensor `a.b` is missing", "Details"]),
        (with(ModelView::Unplanned("no plan at 7 Hz".into())), &["no plan at 7 Hz"]),
    ]
}

#[test]
fn every_state_is_drawn_in_both_themes_with_its_text() {
    for (view, expected) in all_states() {
        let mut harness = EditorHarness::new(view);
        for light in [false, true] {
            theme::choose(&harness.ctx, Some(light));
            harness.frames(2);
            for text in expected {
                assert!(
                    harness.visible_text().contains(text),
                    "{text:?} is not in\n{}",
                    harness.visible_text()
                );
            }
        }
    }
}

#[test]
fn every_window_size_draws_with_and_without_the_picker() {
    for (view, _) in all_states() {
        let mut harness = EditorHarness::new(view);
        for tab in [None, Some(Tab::Library), Some(Tab::Recent), Some(Tab::Files)] {
            if let Some(tab) = tab {
                harness.app.picker.open(tab, None);
            }
            for size in [
                vec2(0.0, 0.0),
                vec2(40.0, 30.0),
                vec2(250.0, 900.0),
                vec2(600.0, 400.0),
                vec2(3_000.0, 1_600.0),
            ] {
                harness.size = size;
                for is_hovering in [true, false] {
                    harness.app.drop_queue.set_hovering(is_hovering);
                    harness.frames(2);
                }
            }
        }
    }
}

#[test]
fn invalid_window_sizes_in_the_state_are_corrected() {
    let harness = EditorHarness::new(View::default());
    for (width, zoom) in [(f32::NAN, 0.0), (-5.0, f32::INFINITY), (1e30, -1.0)] {
        let shared = InstanceShared::new(Arc::new(NullsumParams::new()), None, crate::plugin::control::run);
        *shared.params.editor.lock() =
            crate::plugin::params::EditorMemory { width, height: width, zoom, ..Default::default() };
        assert!(create(shared.clone()).is_some());
        let mut app = EditorApp::new(shared.clone());
        app.on_window_opened(&harness.ctx, None);
        assert!((0.5..=3.0).contains(&app.pending_size.unwrap().2));
        InstanceGuard(shared);
    }
}

#[test]
fn what_the_host_tells_of_a_parameter_is_shown() {
    let mut harness = EditorHarness::new(played());
    let (_, at) = harness.find("Vocals Gain");
    let hovers = |harness: &mut EditorHarness| {
        harness.frame(vec![Event::PointerMoved(at)]);
        harness.frames(60);
        harness.visible_text().contains("Mapped to Knob 1.")
    };
    assert!(!hovers(&mut harness));
    let gain = nice_plug::prelude::Param::as_ptr(&harness.params().vocals.gain);
    harness.params().indications.update(gain, |indication| {
        indication.mapping = Some(("Knob 1".into(), Some([200, 100, 0])));
    });
    assert!(hovers(&mut harness));
}

#[test]
fn a_fader_drag_is_one_host_gesture_and_one_undo_step() {
    let mut harness = EditorHarness::new(played());
    let (_, at) = harness.find("Vocals Gain");
    harness.frame(vec![Event::PointerMoved(at)]);
    harness.button(at, true, Modifiers::NONE);
    for step in 1..=6 {
        harness.frame(vec![Event::PointerMoved(at + vec2(0.0, 5.0 * step as f32))]);
    }
    harness.button(at + vec2(0.0, 30.0), false, Modifiers::NONE);
    harness.frames(2);
    let moved = harness.params().vocals.gain.value();
    assert!((-20.0..-2.0).contains(&moved), "{moved}");
    assert_eq!((*harness.host.begun.lock(), *harness.host.ended.lock()), (1, 1));
    harness.press(Key::Z, Modifiers::COMMAND);
    assert_eq!(harness.params().vocals.gain.value(), 0.0);
    harness.press(Key::Y, Modifiers::COMMAND);
    assert_eq!(harness.params().vocals.gain.value(), moved);
    harness.button(at, true, Modifiers::ALT);
    harness.button(at, false, Modifiers::ALT);
    harness.frames(1);
    assert_eq!(harness.params().vocals.gain.value(), 0.0);
}

#[test]
fn parameters_can_be_edited_by_keyboard() {
    let mut harness = EditorHarness::new(played());
    harness.tab_to("Other Gain");
    for _ in 0..4 {
        harness.press(Key::ArrowDown, Modifiers::NONE);
    }
    assert!(
        (harness.params().other.gain.value() + 2.0).abs() < 0.03,
        "{}",
        harness.params().other.gain.value()
    );
    harness.press(Key::Enter, Modifiers::NONE);
    let present: f32 = harness.app.edits.value_entry.as_ref().unwrap().text.parse().unwrap();
    assert!((present + 2.0).abs() < 0.03, "{present}");
    // The present value is selected, so typing replaces it.
    harness.frame(vec![Event::Text("−6,5 dB".into())]);
    harness.press(Key::Enter, Modifiers::NONE);
    assert!(
        (harness.params().other.gain.value() + 6.5).abs() < 0.01,
        "{}",
        harness.params().other.gain.value()
    );
    harness.tab_to("Other Solo");
    harness.press(Key::Space, Modifiers::NONE);
    assert!(harness.params().other.solo.value());
    harness.tab_to("Bypass");
    harness.tab_to("Mix");
    harness.press(Key::ArrowLeft, Modifiers::NONE);
    assert!(harness.params().mix.value() < 1.0);
}

#[test]
fn an_invalid_value_stays_in_its_field_for_correction() {
    let mut harness = EditorHarness::new(played());
    harness.tab_to("Vocals Pan");
    harness.press(Key::Enter, Modifiers::NONE);
    harness.frame(vec![Event::Text("5x".into())]);
    harness.press(Key::Enter, Modifiers::NONE);
    assert!(harness.app.edits.value_entry.as_ref().is_some_and(|value_entry| value_entry.is_invalid));
    assert_eq!(harness.params().vocals.pan.value(), 0.0);
    harness.press(Key::Backspace, Modifiers::NONE);
    assert!(
        harness
            .app
            .edits
            .value_entry
            .as_ref()
            .is_some_and(|value_entry| value_entry.text == "5" && !value_entry.is_invalid)
    );
    harness.press(Key::Enter, Modifiers::NONE);
    assert!(harness.app.edits.value_entry.is_none());
    assert!((harness.params().vocals.pan.value() - 0.05).abs() < 1e-6);
    harness.tab_to("Vocals Gain");
    harness.press(Key::Enter, Modifiers::NONE);
    harness.frame(vec![Event::Text("loud".into())]);
    harness.press(Key::Tab, Modifiers::NONE);
    assert!(harness.app.edits.value_entry.as_ref().is_some_and(|value_entry| value_entry.is_invalid));
    harness.press(Key::Escape, Modifiers::NONE);
    assert!(harness.app.edits.value_entry.is_none());
    assert_eq!(harness.params().vocals.gain.value(), 0.0);
}

#[test]
fn double_click_opens_a_field_with_the_present_value_and_escape_keeps_it() {
    let mut harness = EditorHarness::new(played());
    harness.app.edits.set_value(ParamId::Strip(0, StripParam::Pan), 0.65);
    let (_, at) = harness.find("Vocals Pan");
    for pressed in [true, false, true, false] {
        harness.button(at, pressed, Modifiers::NONE);
    }
    harness.frames(1);
    assert!(harness.app.edits.value_entry.as_ref().is_some_and(|entry| !entry.text.is_empty()));
    harness.press(Key::Enter, Modifiers::NONE);
    assert!(harness.app.edits.value_entry.is_none(), "the text that was offered is a value");
    assert!((harness.params().vocals.pan.value() - 0.3).abs() < 0.006);
}

#[test]
fn diagnostics_are_copied_from_the_menu() {
    let mut harness = EditorHarness::new(played());
    harness.click("Menu");
    harness.click("Copy diagnostics");
    assert!(harness.copied.contains("Preview") || harness.copied.contains("embedded"), "{}", harness.copied);
    assert!(harness.copied.contains("Audio: 48000 Hz"), "{}", harness.copied);
}

#[test]
fn alt_click_solos_exclusively_in_one_undo_step() {
    let mut harness = EditorHarness::new(played());
    harness.click("Vocals Solo");
    harness.click_with("Other Solo", Modifiers::ALT);
    let solos =
        |harness: &EditorHarness| [harness.params().vocals.solo.value(), harness.params().other.solo.value()];
    assert_eq!(solos(&harness), [false, true]);
    harness.click("Undo");
    assert_eq!(solos(&harness), [true, false]);
    harness.click_with("Vocals Mute", Modifiers::ALT);
    assert!(harness.params().vocals.mute.value());
}

#[test]
fn mono_instances_have_no_balance_control() {
    assert!(EditorHarness::new(played()).visible_text().contains("Vocals Pan"));
    let (_client, engine) = Stream::manual(&plan(), STRIP_COUNT, 1);
    let status = Some(engine.status());
    std::mem::forget(engine);
    let text = EditorHarness::new(View { status, ..played() }).visible_text();
    assert!(text.contains("Vocals Gain") && !text.contains("Vocals Pan"), "{text}");
}

#[test]
fn a_pending_latency_is_shown_beside_the_current_one() {
    let text = EditorHarness::new(View { latency_ms: 612.0, ..played() }).visible_text();
    assert!(text.contains("232 ms latency, 612 ms after playback starts"), "{text}");
}

#[test]
fn an_overloaded_computer_is_reported() {
    let loads = |loads: [f64; 3]| {
        let tiers = Tier::ALL.into_iter().skip(1).zip(loads);
        let tiers = tiers.map(|(tier, load)| TierView { tier, latency_ms: 612.0, load: Some(load) });
        View { tiers: tiers.collect(), ..played() }
    };
    let text = EditorHarness::new(loads([9.0, 5.0, 3.9])).visible_text();
    assert!(text.contains("This model needs 9.0 times real time"), "{text}");
    assert!(text.contains("Too slow to play live") && !text.contains("Preview model on"), "{text}");
    let text = EditorHarness::new(loads([0.8, 0.5, 0.2])).visible_text();
    assert!(text.contains("uses 80 % of real time") && !text.contains("needs"), "{text}");
    let text = EditorHarness::new(View { offline: true, ..loads([9.0, 5.0, 3.9]) }).visible_text();
    assert!(text.contains("Preview model on") && !text.contains("needs"), "{text}");
}

#[test]
fn the_app_explains_how_to_load_a_song_and_seeks_by_click_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let song = folder.path().join("song.wav");
    let spec = WriterSpec {
        container: Container::Wav,
        sample_rate: 48_000,
        channels: 1,
        format: SampleFormat::Pcm16,
    };
    let mut writer = AudioWriter::create(&song, spec).unwrap();
    writer.write(&Planar::from_planes(vec![vec![0.0; 96_000]]).unwrap()).unwrap();
    writer.finish().unwrap();

    let mut harness = EditorHarness::with_player(played(), Some(Player::new(None, false)));
    let shared = harness.shared.0.clone();
    let player = shared.player().unwrap();
    assert!(harness.visible_text().contains("--input-device"), "{}", harness.visible_text());
    // No audio thread consumes the song, so its position stays put.
    let _feed = player.start(48_000);
    harness.app.drop_queue.push(Ok(vec![song]));
    let start = std::time::Instant::now();
    while player.position() != (0, 96_000) {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", player.position());
        harness.frames(1);
        std::thread::sleep(Duration::from_millis(1));
    }
    harness.frames(2);
    assert!(harness.visible_text().contains("song.wav 0:00 / 0:02"), "{}", harness.visible_text());
    harness.click("Position in seconds");
    let (position, _) = player.position();
    assert!((46_000..50_000).contains(&position), "{position}");
    harness.tab_to("Position in seconds");
    harness.press(Key::ArrowRight, Modifiers::NONE);
    assert_eq!(player.position().0, 96_000);
    harness.click("Back to the start");
    assert_eq!(player.position().0, 0);
    harness.click("Close the song");
    assert!(
        !player.has_song() && harness.visible_text().contains("--input-device"),
        "{}",
        harness.visible_text()
    );
}

#[test]
fn the_wheel_changes_the_hovered_parameter() {
    let mut harness = EditorHarness::new(played());
    let (_, at) = harness.find("Vocals Gain");
    harness.frame(vec![Event::PointerMoved(at)]);
    let wheel = Event::MouseWheel {
        unit: egui::MouseWheelUnit::Line,
        delta: vec2(0.0, -2.0),
        phase: egui::TouchPhase::Move,
        modifiers: Modifiers::NONE,
        source: egui::MouseWheelSource::Unknown,
    };
    harness.frame(vec![wheel]);
    harness.frames(20);
    let moved = harness.params().vocals.gain.value();
    assert!((-3.0..-0.2).contains(&moved), "{moved}");
    harness.press(Key::Z, Modifiers::COMMAND);
    assert_eq!(harness.params().vocals.gain.value(), 0.0);
}

#[test]
fn tiers_and_settings_a_and_b_are_chosen_by_click() {
    let mut harness = EditorHarness::new(played());
    harness.click("High");
    assert_eq!(harness.params().tier.value(), TierChoice::High);
    harness.click("Vocals Mute");
    harness.click("B");
    assert!(harness.params().vocals.mute.value());
    harness.click("Vocals Mute");
    harness.click("A");
    assert!(harness.params().vocals.mute.value());
    harness.click("Undo");
    assert!(!harness.params().vocals.mute.value());
}

#[test]
fn the_library_is_filtered_by_task_and_sorted_by_score() {
    use crate::registry::{self, Task};
    let mut harness = EditorHarness::new(played());
    harness.size = vec2(1_000.0, 800.0);
    harness.app.picker.open(Tab::Library, None);
    harness.frames(3);
    let default = &registry::default_entry().title;
    assert!(harness.visible_text().contains(default.as_str()));
    harness.click("dereverb");
    let text = harness.visible_text();
    assert!(!text.contains(default.as_str()) && !text.contains("Preview quality"), "{text}");
    let mut expected = registry::entries_for(Some(Task::Dereverb));
    assert!(expected.iter().any(|entry| text.contains(&entry.title)), "{text}");
    // Sorted by a benchmark, the best one is drawn above all others.
    let is_scored =
        |benchmark: &&str| expected.iter().any(|e| e.score(benchmark, Some("dereverb")).is_some());
    let benchmark = registry::benchmarks().into_iter().find(is_scored).unwrap();
    registry::sort_by_score(&mut expected, benchmark, Some("dereverb"));
    harness.click(benchmark);
    let best = harness.find(&expected[0].title).1.y;
    for entry in expected.iter().skip(1).filter(|entry| harness.visible_text().contains(&entry.title)) {
        assert!(harness.find(&entry.title).1.y > best, "{}", entry.title);
    }
    harness.click("all");
    harness.click("no");
    assert!(harness.visible_text().contains(default.as_str()));
}

#[test]
fn the_model_button_opens_the_library_and_pasted_paths_load() {
    let mut harness = EditorHarness::new(played());
    harness.click("Model:");
    assert!(harness.app.picker.is_open());
    let text = harness.visible_text();
    assert!(text.contains("Preview quality") && text.contains("licence of the weights"), "{text}");
    let entry = crate::registry::default_entry();
    assert!(text.contains(&entry.title));
    harness.press(Key::Escape, Modifiers::NONE);
    assert!(!harness.app.picker.is_open());
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("m.ckpt");
    harness.frame(vec![Event::Text(file.display().to_string())]);
    assert_eq!(harness.params().model.get().source, ModelSource::Embedded, "there is no such file");
    std::fs::write(&file, "").unwrap();
    harness.frame(vec![Event::Text(file.display().to_string())]);
    assert_eq!(harness.params().model.get().source, ModelSource::File { checkpoint: file, config: None });
}

#[test]
fn dropped_files_are_loaded_like_chosen_ones() {
    let mut harness = EditorHarness::new(played());
    let root = tempfile::tempdir().unwrap();
    let [checkpoint, config, gone] = ["m.ckpt", "m 2.yaml", "gone.ckpt"].map(|name| root.path().join(name));
    for file in [&checkpoint, &config] {
        std::fs::write(file, "").unwrap();
    }
    let drop = |harness: &mut EditorHarness, files: &[&std::path::PathBuf]| {
        harness.app.drop_queue.push(Ok(files.iter().map(|file| (*file).clone()).collect()));
        harness.frames(2);
        harness.params().model.get().source
    };
    assert_eq!(drop(&mut harness, &[&config]), ModelSource::Embedded);
    assert!(harness.visible_text().contains("A YAML file alone"), "{}", harness.visible_text());
    assert_eq!(drop(&mut harness, &[&gone]), ModelSource::Embedded);
    assert!(harness.visible_text().contains("File not found"), "{}", harness.visible_text());
    harness.click("OK");
    assert!(!harness.visible_text().contains("File not found"), "{}", harness.visible_text());
    let with = |config: Option<&PathBuf>| ModelSource::File {
        checkpoint: checkpoint.clone(),
        config: config.cloned(),
    };
    assert_eq!(drop(&mut harness, &[&config, &checkpoint]), with(Some(&config)));
    assert_eq!(drop(&mut harness, &[&checkpoint]), with(None));
    assert_eq!(drop(&mut harness, &[&config]), with(Some(&config)));
    assert_eq!(drop(&mut harness, &[&checkpoint, &gone]), with(Some(&config)));
    assert!(harness.visible_text().contains("2 checkpoints were dropped"), "{}", harness.visible_text());
    harness.app.drop_queue.push(Err("no names"));
    harness.frames(2);
    assert!(harness.visible_text().contains("no names"), "{}", harness.visible_text());
    // The file of the track, to be prepared.
    assert!(!harness.visible_text().contains("Learn"), "{}", harness.visible_text());
    drop(&mut harness, &[&root.path().join("song.wav")]);
    assert!(harness.visible_text().contains("Learn"), "{}", harness.visible_text());
}

#[test]
fn hovering_files_show_a_hint_until_they_leave() {
    let mut harness = EditorHarness::new(played());
    let hint = "Drop a checkpoint with its YAML file";
    harness.frames(1);
    assert!(!harness.visible_text().contains(hint));
    harness.app.drop_queue.set_hovering(true);
    harness.frames(2);
    assert!(harness.visible_text().contains(hint), "{}", harness.visible_text());
    harness.app.drop_queue.set_hovering(false);
    harness.frames(2);
    assert!(!harness.visible_text().contains(hint));
    harness.app.drop_queue.set_hovering(true);
    harness.frames(2);
    harness.frame(vec![Event::PointerMoved(pos2(100.0, 100.0))]);
    assert!(!harness.visible_text().contains(hint), "the pointer is free, and nothing hovers");
}

#[test]
fn the_editor_redraws_slowly_while_nothing_moves() {
    let mut harness = EditorHarness::new(with(ModelView::Measuring));
    harness.frames(2);
    assert!(harness.delay <= ACTIVE_REFRESH, "{:?}", harness.delay);
    let mut harness = EditorHarness::new(played());
    harness.frames(400);
    assert!(harness.delay >= IDLE_REFRESH / 2, "{:?}", harness.delay);
}

/// Counts how often the host is told that the state changed.
fn count_dirty(harness: &EditorHarness) -> Arc<std::sync::atomic::AtomicUsize> {
    let count = Arc::<std::sync::atomic::AtomicUsize>::default();
    let counter = count.clone();
    harness.shared.0.set_dirty_callback(Some(Arc::new(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    })));
    count
}

#[test]
fn a_typed_window_applies_only_when_entered() {
    let mut harness = EditorHarness::new(played());
    let dirty_count = count_dirty(&harness);
    let set = WindowSpec { window: 4.0, hop: 1.0, lookahead: 0.4 };
    *harness.params().window.lock() = Some(set);
    harness.frames(2);
    let (_, at) = harness.find(&text::time(4000.0));
    harness.frame(vec![Event::PointerMoved(at)]);
    harness.button(at, true, Modifiers::NONE);
    harness.button(at, false, Modifiers::NONE);
    harness.frames(2);
    for digit in ["1", "5", "0", "0"] {
        harness.frame(vec![Event::Text(digit.into())]);
        assert_eq!(*harness.params().window.lock(), Some(set), "at the {digit}");
    }
    harness.press(Key::Enter, Modifiers::NONE);
    let typed = harness.params().window.lock().unwrap();
    assert!((typed.window - 1.5).abs() < 1e-6 && typed.lookahead == 0.4, "{typed:?}");
    assert!((typed.hop - 0.75).abs() < 1e-6, "{typed:?}");
    assert_eq!(dirty_count.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn cancelling_a_download_keeps_the_selection() {
    let mut harness = EditorHarness::new(played());
    let dirty_count = count_dirty(&harness);
    let wanted =
        Selection { source: ModelSource::Registry { name: "no-such-model".into() }, ..Selection::default() };
    harness.params().model.choose(wanted.clone());
    let view = harness.shared.0.view();
    harness.app.handle_banner_action(Some(BannerAction::Download), &view);
    assert_eq!(dirty_count.load(std::sync::atomic::Ordering::Relaxed), 0);
    harness.app.handle_picker_action(Some(PickerAction::Cancel), wanted.clone());
    assert_eq!(harness.params().model.get().source, wanted.source);
    assert_eq!(dirty_count.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn editor_changes_are_marked_as_user_edits_for_the_audio_thread() {
    let mut harness = EditorHarness::new(View::default());
    let params = harness.shared.0.params.clone();
    params.take_user_edits();
    for (key, group) in [
        (ParamId::Strip(2, StripParam::Mute), 2),
        (ParamId::Strip(2, StripParam::Solo), SOLO),
        (ParamId::Output, MAIN),
    ] {
        harness.app.edits.set_value(key, 0.25);
        assert_eq!(params.take_user_edits(), 1 << group, "{key:?}");
    }
    harness.app.edits.begin_drag(ParamId::Strip(0, StripParam::Gain));
    harness.app.edits.drag_by(-0.1);
    assert_eq!(params.take_user_edits(), 1);
}
