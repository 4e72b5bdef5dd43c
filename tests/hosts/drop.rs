//! Files dropped on the editor, on a virtual screen. Run like the tests of `editor`.

use std::path::Path;

use serde_json::json;

use crate::drag_source::{Offer, Source, Target, list_of};
use crate::editor::serve_until;
use crate::host::{Layout, Run, steady};
use crate::host_window::{WithEditor, both_with_editor};
use crate::leaks::{is_gone, threads};
use crate::models::{Kind, Models, chosen, is_loaded};
use crate::stress::in_own_process;
use crate::virtual_screen::{Frame, Screen};

/// A host with an open editor at the corner of the screen.
fn open<'a, H: WithEditor>(screen: &'a Screen) -> (H, Frame<'a>) {
    let mut host: H = steady(Layout::Stereo);
    host.activate(Run::live(44100, 441));
    let frame = screen.frame(1000, 700);
    host.open_editor(frame.id());
    serve_until(&mut host, "no window", |_| frame.children().len() == 1);
    serve_until(&mut host, "no picture", |_| frame.colors() > 8);
    (host, frame)
}

fn target(source: &Source) -> Target {
    let target = source.target(300, 300).expect("no window takes drops");
    assert!(target.proxy.is_some(), "{target:?}");
    target
}

/// Whether the drop overlay is visible: its border has one colour where the editor has many.
fn shows_overlay(frame: &Frame<'_>) -> bool {
    let edge = frame.picture(11, 100, 1, 400);
    // In the dark and the light theme.
    edge.len() == 400
        && [[0xff, 0xb2, 0x7f], [0xd1, 0x66, 0x1f]]
            .iter()
            .any(|accent| edge.iter().all(|at| at[..3] == *accent))
}

/// Whether the header has a line in this colour, as large as a banner.
fn has_banner(frame: &Frame<'_>, tint: fn([i32; 3]) -> bool) -> bool {
    let header = frame.picture(0, 0, 900, 300);
    header.iter().filter(|[b, g, r, _]| tint([*r, *g, *b].map(i32::from))).count() > 9_000
}

fn red([r, g, b]: [i32; 3]) -> bool {
    r > g + 16 && r > b + 14
}

fn yellow([r, g, b]: [i32; 3]) -> bool {
    r > b + 20 && g > b + 12
}

both_with_editor! {
    #[ignore = "needs Xvfb; scripts/test-hosts runs it"]
    fn files_dropped_on_the_window_are_loaded<H>() {
        in_own_process(|| {
            let screen = Screen::start();
            let models = Models::new();
            let (mut host, frame) = open::<H>(&screen);
            let (good, other, bad) =
                (models.write(Kind::Good(1)), models.write(Kind::Good(2)), models.write(Kind::Missing));
            let spaced = good.with_file_name("my model, 100 %.safetensors");
            std::fs::rename(&good, &spaced).unwrap();

            // Hovering shows the overlay; leaving hides it.
            let source = Source::new(list_of(&[&spaced]));
            let editor = target(&source);
            source.enter(editor, Offer::Files);
            assert!(source.move_over(editor, 300, 300));
            serve_until(&mut host, "no overlay", |_| shows_overlay(&frame));
            source.leave(editor);
            serve_until(&mut host, "the overlay stays", |_| !shows_overlay(&frame));

            assert!(host.dirty_count().is_none_or(|times| times == 0));
            assert!(source.drag(editor, Offer::Files));
            serve_until(&mut host, "not loaded", |host| is_loaded(host, &spaced));
            assert!(host.dirty_count().is_none_or(|times| times == 1));
            assert!(Source::new(list_of(&[&other])).drag(editor, Offer::FilesAmongMany));
            serve_until(&mut host, "not loaded", |host| is_loaded(host, &other));

            // A damaged checkpoint with its YAML is selected and fails to load; the banner says so.
            let config = bad.with_extension("yaml");
            std::fs::write(&config, "audio: {}\n").unwrap();
            assert!(!has_banner(&frame, red) && !has_banner(&frame, yellow));
            assert!(Source::new(list_of(&[&config, &bad])).drag(editor, Offer::Files));
            let both = json!({ "from": "file", "checkpoint": bad, "config": config });
            serve_until(&mut host, "not chosen", |host| chosen(host)["source"] == both);
            serve_until(&mut host, "no report", |_| has_banner(&frame, red));
            assert!(!is_loaded(&mut host, &bad));

            // A file that is not a model changes nothing; the editor says why.
            assert!(!has_banner(&frame, yellow));
            let letter = Path::new("/letter.odt");
            assert!(Source::new(list_of(&[letter])).drag(editor, Offer::Files));
            serve_until(&mut host, "no words", |_| has_banner(&frame, yellow));
            assert_eq!(chosen(&mut host)["source"], both);
            host.close_editor();
            assert!(is_gone("nullsum-drop"), "{:?}", threads());
        });
    }

    #[ignore = "needs Xvfb; scripts/test-hosts runs it"]
    fn programs_that_vanish_or_talk_nonsense_in_a_drag_harm_nothing<H>() {
        in_own_process(|| {
            let screen = Screen::start();
            let models = Models::new();
            let (mut host, frame) = open::<H>(&screen);
            let good = models.write(Kind::Good(1));
            let new = || Source::new(list_of(&[&good]));
            let editor = target(&new());

            // The source vanishes while hovering.
            let source = new();
            source.enter(editor, Offer::Files);
            assert!(source.move_over(editor, 300, 300));
            serve_until(&mut host, "no overlay", |_| shows_overlay(&frame));
            drop(source);
            serve_until(&mut host, "the overlay stays", |_| !shows_overlay(&frame));
            // The source vanishes before it names the dropped files.
            let source = new();
            source.enter(editor, Offer::Files);
            assert!(source.move_over(editor, 300, 300));
            source.drop_and_ignore(editor);
            drop(source);

            new().send_nonsense(editor);
            assert!(!new().drag(editor, Offer::Text), "text was taken");
            let endless = list_of(&[&good]).repeat(40_000);
            assert!(endless.len() > 1 << 20);
            assert!(!Source::new(endless).drag(editor, Offer::Files), "a list without end was taken");
            assert!(Source::new(vec![0xff; 1000]).drag(editor, Offer::Files));
            assert!(Source::new(Vec::new()).drag(editor, Offer::Files));
            assert_eq!(chosen(&mut host)["source"]["from"], "embedded");

            // A drag interrupted by another one is not accepted; the other one is.
            let (first, second) = (new(), new());
            first.enter(editor, Offer::Files);
            second.enter(editor, Offer::Files);
            assert!(!first.move_over(editor, 300, 300) && second.move_over(editor, 300, 300));
            assert!(!first.drop_and_serve(editor));
            drop(first);
            assert!(second.move_over(editor, 300, 300));
            // The selection belongs to the newest source.
            assert!(second.drop_and_serve(editor));
            serve_until(&mut host, "not loaded", |host| is_loaded(host, &good));

            // Nothing waits for a source that hangs.
            let source = new();
            source.enter(editor, Offer::Files);
            source.drop_and_ignore(editor);
            host.close_editor();
            assert!(is_gone("nullsum-drop"), "{:?}", threads());
        });
    }
}
