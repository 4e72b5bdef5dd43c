//! The editor without a window: pictures are made and thrown away, pointer and keys are events, what is on screen is read as assistive
//! technology would.

use egui::accesskit::{Node, NodeId, Rect};
use egui::{Event, Key as Press, Modifiers, PointerButton, Pos2, RawInput, pos2, vec2};
use nice_plug::prelude::{GuiContextInner, ParamPtr, PluginApi, PluginState};
use parking_lot::Mutex;

use super::key::{Field, Key};
use super::*;
use crate::audio::{AudioWriter, Container, Planar, SampleFormat, WriterSpec};
use crate::plugin::cues::{MAIN, SOLO};
use crate::plugin::library::Step;
use crate::plugin::params::{NullsumParams, TierChoice};
use crate::plugin::player::Player;
use crate::plugin::session::{Guard, TierView};
use crate::plugin::slot::Routing;
use crate::registry::{Progress, Stage, What};
use crate::separator::MaskRule;
use crate::stream::plan::Deadline;
use crate::stream::{
    HostSamples, ModelSamples, ModelTiming, NoStems, Plan, PlanRequest, SharedModel, Stream, Tier,
    WindowError, WindowSeparator,
};

/// A host that does at once what it is asked, and counts gestures.
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

/// Each stem is half of the mixture.
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
        }
    }

    fn separate_window(&mut self, window: &[f32], _: MaskRule, out: &mut [f32]) -> Result<(), WindowError> {
        for (out, sample) in out.iter_mut().zip(window.iter().chain(window)) {
            *out = 0.5 * sample;
        }
        Ok(())
    }
}

/// An editor on a screen that nobody sees.
struct Bench {
    app: EditorApp,
    session: Guard,
    host: Arc<FakeHost>,
    ctx: egui::Context,
    size: egui::Vec2,
    time: f64,
    nodes: Vec<(NodeId, Node)>,
    focus: Option<NodeId>,
    delay: Duration,
}

impl Bench {
    fn new(view: View) -> Self {
        Self::with_player(view, None)
    }

    fn with_player(view: View, player: Option<Player>) -> Self {
        let session = Session::new(Arc::new(NullsumParams::new()), player);
        session.show(|shown| *shown = view);
        let host = Arc::new(FakeHost::default());
        let ctx = egui::Context::default();
        ctx.enable_accesskit();
        let mut app = EditorApp::new(session.clone());
        app.open(&ctx, Some(GuiContext::new(host.clone())));
        let size = vec2(920.0, 600.0);
        let mut bench = Self {
            app,
            session: Guard(session),
            host,
            ctx,
            size,
            time: 0.0,
            nodes: Vec::new(),
            focus: None,
            delay: FRAME,
        };
        bench.frames(3);
        bench
    }

    fn params(&self) -> &NullsumParams {
        &self.session.0.params
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
        let mut output = self.ctx.run_ui(input, |ui| app.draw(ui));
        if let Some(update) = output.platform_output.accesskit_update.take() {
            (self.nodes, self.focus) = (update.nodes, Some(update.focus));
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

    /// All that is on screen, a line a thing.
    fn words(&self) -> String {
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
            .unwrap_or_else(|| panic!("no {label:?} in\n{}", self.words()));
        let Rect { x0, y0, x1, y1 } = node.bounds().unwrap();
        (*id, pos2(((x0 + x1) / 2.0) as f32, ((y0 + y1) / 2.0) as f32))
    }

    fn press(&mut self, key: Press, modifiers: Modifiers) {
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

    /// Goes on with Tab until `label` has the keyboard.
    fn tab_to(&mut self, label: &str) {
        for _ in 0..120 {
            if self.focus == Some(self.find(label).0) {
                return;
            }
            self.press(Press::Tab, Modifiers::NONE);
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
    })
    .unwrap()
}

/// A view of a stream with two stems that has played a second.
fn played() -> View {
    let (mut client, mut engine) = Stream::manual(&plan(), SLOTS, 2);
    engine.swap(Some(SharedModel::new(Box::new(Halves)).in_lanes(&[0, 3], SLOTS))).unwrap();
    for block in 0..100 {
        let mut planes = [0, 1].map(|channel| -> Vec<f32> {
            (0..480).map(|at| ((block * 480 + at + channel) as f32 * 0.05).sin() * 0.8).collect()
        });
        client.process(&mut planes.each_mut().map(Vec::as_mut_slice), &mut NoStems);
        engine.run_until_idle();
    }
    let status = engine.status();
    // An engine that ends says so.
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
    let fetching = Progress {
        what: What::Checkpoint,
        stage: Stage::Downloading,
        done_bytes: 100_000_000,
        total_bytes: Some(527_000_000),
    };
    let not_fetched =
        OpenError::NotFetched { name: "x".into(), size: "527 MB".into(), licence: "MIT".into() };
    let broken = OpenError::Broken {
        reason: "tensor `a.b` is missing".into(),
        report: Some("a long report\n".repeat(400)),
    };
    vec![
        (View::default(), &["No model yet"]),
        (with(ModelView::Loading(None)), &["Loading"]),
        (
            with(ModelView::Loading(Some(Step::Fetching(fetching)))),
            &["Fetching the weights: 100 MB of 527 MB"],
        ),
        (with(ModelView::Loading(Some(Step::Hashing { done: 5_000_000 }))), &["Reading the file: 5.00 MB"]),
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
        (with(ModelView::Failed(not_fetched)), &["is not on this computer yet: 527 MB", "Download"]),
        (
            with(ModelView::Failed(OpenError::Missing { path: "/gone/x.ckpt".into() })),
            &["/gone/x.ckpt", "Find it"],
        ),
        (with(ModelView::Failed(OpenError::Cancelled)), &["Loading was stopped", "Try again"]),
        (with(ModelView::Failed(broken)), &["tensor `a.b` is missing", "Details"]),
        (with(ModelView::Unplanned("no plan at 7 Hz".into())), &["no plan at 7 Hz"]),
    ]
}

#[test]
fn every_state_is_drawn_in_both_themes_and_says_what_it_is() {
    for (view, expected) in all_states() {
        let mut bench = Bench::new(view);
        for light in [false, true] {
            theme::choose(&bench.ctx, Some(light));
            bench.frames(2);
            for words in expected {
                assert!(bench.words().contains(words), "{words:?} is not in\n{}", bench.words());
            }
        }
    }
}

#[test]
fn no_size_of_the_window_breaks_it_with_the_panel_open_or_not() {
    for (view, _) in all_states() {
        let mut bench = Bench::new(view);
        for tab in [None, Some(Tab::Library), Some(Tab::Recent), Some(Tab::Files)] {
            if let Some(tab) = tab {
                bench.app.picker.open(tab, None);
            }
            for size in [
                vec2(0.0, 0.0),
                vec2(40.0, 30.0),
                vec2(250.0, 900.0),
                vec2(600.0, 400.0),
                vec2(3_000.0, 1_600.0),
            ] {
                bench.size = size;
                for hovers in [true, false] {
                    bench.app.inbox.set_hovers(hovers);
                    bench.frames(2);
                }
            }
        }
    }
}

#[test]
fn a_session_that_says_nonsense_of_the_window_still_opens_one() {
    let bench = Bench::new(View::default());
    for (width, zoom) in [(f32::NAN, 0.0), (-5.0, f32::INFINITY), (1e30, -1.0)] {
        let session = Session::new(Arc::new(NullsumParams::new()), None);
        *session.params.editor.lock() =
            crate::plugin::params::EditorMemory { width, height: width, zoom, light: None };
        assert!(create(session.clone()).is_some());
        let mut app = EditorApp::new(session.clone());
        app.open(&bench.ctx, None);
        assert!((0.5..=3.0).contains(&app.restore.unwrap().2));
        Guard(session);
    }
}

#[test]
fn a_drag_of_a_fader_is_one_gesture_of_the_host_and_one_step_of_undo() {
    let mut bench = Bench::new(played());
    let (_, at) = bench.find("Vocals Gain");
    bench.frame(vec![Event::PointerMoved(at)]);
    bench.button(at, true, Modifiers::NONE);
    for step in 1..=6 {
        bench.frame(vec![Event::PointerMoved(at + vec2(0.0, 5.0 * step as f32))]);
    }
    bench.button(at + vec2(0.0, 30.0), false, Modifiers::NONE);
    bench.frames(2);
    let moved = bench.params().vocals.gain.value();
    assert!((-20.0..-2.0).contains(&moved), "{moved}");
    assert_eq!((*bench.host.begun.lock(), *bench.host.ended.lock()), (1, 1));
    bench.press(Press::Z, Modifiers::COMMAND);
    assert_eq!(bench.params().vocals.gain.value(), 0.0);
    bench.press(Press::Y, Modifiers::COMMAND);
    assert_eq!(bench.params().vocals.gain.value(), moved);
    bench.button(at, true, Modifiers::ALT);
    bench.button(at, false, Modifiers::ALT);
    bench.frames(1);
    assert_eq!(bench.params().vocals.gain.value(), 0.0);
}

#[test]
fn the_keyboard_reaches_moves_and_types_values() {
    let mut bench = Bench::new(played());
    bench.tab_to("Other Gain");
    for _ in 0..4 {
        bench.press(Press::ArrowDown, Modifiers::NONE);
    }
    assert!((bench.params().other.gain.value() + 2.0).abs() < 0.03, "{}", bench.params().other.gain.value());
    bench.press(Press::Enter, Modifiers::NONE);
    bench.frame(vec![Event::Text("−6,5 dB".into())]);
    bench.press(Press::Enter, Modifiers::NONE);
    assert!((bench.params().other.gain.value() + 6.5).abs() < 0.01, "{}", bench.params().other.gain.value());
    bench.tab_to("Other Solo");
    bench.press(Press::Space, Modifiers::NONE);
    assert!(bench.params().other.solo.value());
    bench.tab_to("Bypass");
    bench.tab_to("Mix");
    bench.press(Press::ArrowLeft, Modifiers::NONE);
    assert!(bench.params().mix.value() < 1.0);
}

#[test]
fn a_text_that_means_nothing_stays_to_be_mended() {
    let mut bench = Bench::new(played());
    bench.tab_to("Vocals Pan");
    bench.press(Press::Enter, Modifiers::NONE);
    bench.frame(vec![Event::Text("5x".into())]);
    bench.press(Press::Enter, Modifiers::NONE);
    assert!(bench.app.desk.typing.as_ref().is_some_and(|typing| typing.refused));
    assert_eq!(bench.params().vocals.pan.value(), 0.0);
    bench.press(Press::Backspace, Modifiers::NONE);
    assert!(bench.app.desk.typing.as_ref().is_some_and(|typing| typing.text == "5" && !typing.refused));
    bench.press(Press::Enter, Modifiers::NONE);
    assert!(bench.app.desk.typing.is_none());
    assert!((bench.params().vocals.pan.value() - 0.05).abs() < 1e-6);
    bench.tab_to("Vocals Gain");
    bench.press(Press::Enter, Modifiers::NONE);
    bench.frame(vec![Event::Text("loud".into())]);
    bench.press(Press::Tab, Modifiers::NONE);
    assert!(bench.app.desk.typing.as_ref().is_some_and(|typing| typing.refused));
    bench.press(Press::Escape, Modifiers::NONE);
    assert!(bench.app.desk.typing.is_none());
    assert_eq!(bench.params().vocals.gain.value(), 0.0);
}

#[test]
fn a_click_with_alt_solos_one_stem_alone_in_one_step() {
    let mut bench = Bench::new(played());
    bench.click("Vocals Solo");
    bench.click_with("Other Solo", Modifiers::ALT);
    let solos = |bench: &Bench| [bench.params().vocals.solo.value(), bench.params().other.solo.value()];
    assert_eq!(solos(&bench), [false, true]);
    bench.click("Undo");
    assert_eq!(solos(&bench), [true, false]);
    bench.click_with("Vocals Mute", Modifiers::ALT);
    assert!(bench.params().vocals.mute.value());
}

#[test]
fn where_there_is_one_channel_there_is_no_balance() {
    assert!(Bench::new(played()).words().contains("Vocals Pan"));
    let (_client, engine) = Stream::manual(&plan(), SLOTS, 1);
    let status = Some(engine.status());
    std::mem::forget(engine);
    let words = Bench::new(View { status, ..played() }).words();
    assert!(words.contains("Vocals Gain") && !words.contains("Vocals Pan"), "{words}");
}

#[test]
fn a_latency_that_waits_for_the_host_is_told_apart_from_the_one_that_runs() {
    let words = Bench::new(View { latency_ms: 612.0, ..played() }).words();
    assert!(words.contains("232 ms latency, 612 ms after playback starts"), "{words}");
}

#[test]
fn a_model_that_is_too_much_for_the_computer_is_not_shown_as_well() {
    let loads = |loads: [f64; 3]| {
        let tiers = Tier::ALL.into_iter().zip(loads);
        let tiers = tiers.map(|(tier, load)| TierView { tier, latency_ms: 612.0, load: Some(load) });
        View { tiers: tiers.collect(), ..played() }
    };
    let words = Bench::new(loads([9.0, 5.0, 3.9])).words();
    assert!(words.contains("This model needs 9.0 times real time"), "{words}");
    assert!(words.contains("Too slow to play live") && !words.contains("Preview model on"), "{words}");
    let words = Bench::new(loads([0.8, 0.5, 0.2])).words();
    assert!(words.contains("takes 80 % of real time") && !words.contains("needs"), "{words}");
    let words = Bench::new(View { renders: true, ..loads([9.0, 5.0, 3.9]) }).words();
    assert!(words.contains("Preview model on") && !words.contains("needs"), "{words}");
}

#[test]
fn the_app_without_a_song_says_what_to_do_and_with_one_goes_where_it_is_clicked() {
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

    let mut bench = Bench::with_player(played(), Some(Player::new(None, false)));
    let session = bench.session.0.clone();
    let player = session.player().unwrap();
    assert!(bench.words().contains("--input-device"), "{}", bench.words());
    // Nobody plays it, so that it stays where it is.
    let _feed = player.start(48_000);
    bench.app.inbox.put(Ok(vec![song]));
    let start = std::time::Instant::now();
    while player.position() != (0, 96_000) {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", player.position());
        bench.frames(1);
        std::thread::sleep(Duration::from_millis(1));
    }
    bench.frames(2);
    assert!(bench.words().contains("song.wav 0:00 / 0:02"), "{}", bench.words());
    bench.click("Position in seconds");
    let (position, _) = player.position();
    assert!((46_000..50_000).contains(&position), "{position}");
    bench.tab_to("Position in seconds");
    bench.press(Press::ArrowRight, Modifiers::NONE);
    assert_eq!(player.position().0, 96_000);
    bench.click("Back to the start");
    assert_eq!(player.position().0, 0);
    bench.click("Close the song");
    assert!(!player.has_song() && bench.words().contains("--input-device"), "{}", bench.words());
}

#[test]
fn a_wheel_moves_what_is_under_the_pointer() {
    let mut bench = Bench::new(played());
    let (_, at) = bench.find("Vocals Gain");
    bench.frame(vec![Event::PointerMoved(at)]);
    let wheel = Event::MouseWheel {
        unit: egui::MouseWheelUnit::Line,
        delta: vec2(0.0, -2.0),
        phase: egui::TouchPhase::Move,
        modifiers: Modifiers::NONE,
        source: egui::MouseWheelSource::Unknown,
    };
    bench.frame(vec![wheel]);
    bench.frames(20);
    let moved = bench.params().vocals.gain.value();
    assert!((-3.0..-0.2).contains(&moved), "{moved}");
    bench.press(Press::Z, Modifiers::COMMAND);
    assert_eq!(bench.params().vocals.gain.value(), 0.0);
}

#[test]
fn tiers_and_settings_are_chosen_with_a_click() {
    let mut bench = Bench::new(played());
    bench.click("High");
    assert_eq!(bench.params().tier.value(), TierChoice::High);
    bench.click("Vocals Mute");
    bench.click("B");
    assert!(bench.params().vocals.mute.value());
    bench.click("Vocals Mute");
    bench.click("A");
    assert!(bench.params().vocals.mute.value());
    bench.click("Undo");
    assert!(!bench.params().vocals.mute.value());
}

#[test]
fn the_model_s_button_opens_the_library_and_a_card_chooses_a_model() {
    let mut bench = Bench::new(played());
    bench.click("Model:");
    assert!(bench.app.picker.is_open());
    let words = bench.words();
    assert!(words.contains("Preview quality") && words.contains("licence of the weights"), "{words}");
    let entry = crate::registry::default_entry();
    assert!(words.contains(&entry.title));
    bench.press(Press::Escape, Modifiers::NONE);
    assert!(!bench.app.picker.is_open());
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("m.ckpt");
    bench.frame(vec![Event::Text(file.display().to_string())]);
    assert_eq!(bench.params().model.get().source, Source::Embedded, "there is no such file");
    std::fs::write(&file, "").unwrap();
    bench.frame(vec![Event::Text(file.display().to_string())]);
    assert_eq!(bench.params().model.get().source, Source::File { checkpoint: file, config: None });
}

#[test]
fn files_that_are_dropped_go_the_way_of_those_that_are_chosen() {
    let mut bench = Bench::new(played());
    let root = tempfile::tempdir().unwrap();
    let [checkpoint, config, gone] = ["m.ckpt", "m 2.yaml", "gone.ckpt"].map(|name| root.path().join(name));
    for file in [&checkpoint, &config] {
        std::fs::write(file, "").unwrap();
    }
    let drop = |bench: &mut Bench, files: &[&std::path::PathBuf]| {
        bench.app.inbox.put(Ok(files.iter().map(|file| (*file).clone()).collect()));
        bench.frames(2);
        bench.params().model.get().source
    };
    assert_eq!(drop(&mut bench, &[&config]), Source::Embedded);
    assert!(bench.words().contains("A YAML alone"), "{}", bench.words());
    assert_eq!(drop(&mut bench, &[&gone]), Source::Embedded);
    assert!(bench.words().contains("There is no file"), "{}", bench.words());
    bench.click("OK");
    assert!(!bench.words().contains("There is no file"), "{}", bench.words());
    let with =
        |config: Option<&PathBuf>| Source::File { checkpoint: checkpoint.clone(), config: config.cloned() };
    assert_eq!(drop(&mut bench, &[&config, &checkpoint]), with(Some(&config)));
    assert_eq!(drop(&mut bench, &[&checkpoint]), with(None));
    assert_eq!(drop(&mut bench, &[&config]), with(Some(&config)));
    assert_eq!(drop(&mut bench, &[&checkpoint, &gone]), with(Some(&config)));
    assert!(bench.words().contains("2 checkpoints were dropped"), "{}", bench.words());
    bench.app.inbox.put(Err("no names"));
    bench.frames(2);
    assert!(bench.words().contains("no names"), "{}", bench.words());
    drop(&mut bench, &[&root.path().join("song.wav")]);
    assert!(bench.words().contains("by the app"), "{}", bench.words());
}

#[test]
fn while_files_hover_the_editor_says_what_it_takes() {
    let mut bench = Bench::new(played());
    let words = "Drop a checkpoint, with its YAML";
    bench.frames(1);
    assert!(!bench.words().contains(words));
    bench.app.inbox.set_hovers(true);
    bench.frames(2);
    assert!(bench.words().contains(words), "{}", bench.words());
    bench.app.inbox.set_hovers(false);
    bench.frames(2);
    assert!(!bench.words().contains(words));
    bench.app.inbox.set_hovers(true);
    bench.frames(2);
    bench.frame(vec![Event::PointerMoved(pos2(100.0, 100.0))]);
    assert!(!bench.words().contains(words), "the pointer is free, and nothing hovers");
}

#[test]
fn nothing_is_drawn_in_haste_while_nothing_moves() {
    let mut bench = Bench::new(with(ModelView::Measuring));
    bench.frames(2);
    assert!(bench.delay <= FRAME, "{:?}", bench.delay);
    let mut bench = Bench::new(played());
    bench.frames(400);
    assert!(bench.delay >= LOOK / 2, "{:?}", bench.delay);
}

/// Counts how often the host is told that there is something to save.
fn count_unsaved(bench: &Bench) -> Arc<std::sync::atomic::AtomicUsize> {
    let count = Arc::<std::sync::atomic::AtomicUsize>::default();
    let counter = count.clone();
    bench.session.0.set_unsaved(Some(Arc::new(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    })));
    count
}

#[test]
fn a_window_typed_by_hand_counts_when_it_is_whole() {
    let mut bench = Bench::new(played());
    let told = count_unsaved(&bench);
    let set = Shape { window: 4.0, hop: 1.0, lookahead: 0.4 };
    *bench.params().window.lock() = Some(set);
    bench.frames(2);
    let (_, at) = bench.find(&text::time(4000.0));
    bench.frame(vec![Event::PointerMoved(at)]);
    bench.button(at, true, Modifiers::NONE);
    bench.button(at, false, Modifiers::NONE);
    bench.frames(2);
    for digit in ["1", "5", "0", "0"] {
        bench.frame(vec![Event::Text(digit.into())]);
        assert_eq!(*bench.params().window.lock(), Some(set), "at the {digit}");
    }
    bench.press(Press::Enter, Modifiers::NONE);
    let typed = bench.params().window.lock().unwrap();
    assert!((typed.window - 1.5).abs() < 1e-6 && typed.lookahead == 0.4, "{typed:?}");
    assert!((typed.hop - 0.75).abs() < 1e-6, "{typed:?}");
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_download_that_is_cancelled_leaves_what_was_chosen() {
    let mut bench = Bench::new(played());
    let told = count_unsaved(&bench);
    let wanted =
        Selection { source: Source::Registry { name: "no-such-model".into() }, ..Selection::default() };
    bench.params().model.choose(wanted.clone());
    let view = bench.session.0.view();
    bench.app.answer(Some(Answer::Fetch), &view);
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 0);
    bench.app.pick(Some(Pick::Cancel), wanted.clone());
    assert_eq!(bench.params().model.get().source, wanted.source);
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn what_is_moved_in_the_editor_is_told_to_the_audio_thread() {
    let mut bench = Bench::new(View::default());
    let params = bench.session.0.params.clone();
    params.take_hands();
    for (key, group) in
        [(Key::Strip(2, Field::Mute), 2), (Key::Strip(2, Field::Solo), SOLO), (Key::Output, MAIN)]
    {
        bench.app.desk.set(key, 0.25);
        assert_eq!(params.take_hands(), 1 << group, "{key:?}");
    }
    bench.app.desk.grab(Key::Strip(0, Field::Gain));
    bench.app.desk.drag(-0.1);
    assert_eq!(params.take_hands(), 1);
}
