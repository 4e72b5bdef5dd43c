//! Files dropped on the editor's window, on a screen in memory. Run as the tests of `editor` are.

use std::path::Path;

use serde_json::json;

use crate::editor::serve_until;
use crate::host::{Layout, Run, WithEditor, both_with_editor, steady};
use crate::models::{Kind, Models, chosen, is_loaded};
use crate::screen::{Frame, Screen};
use crate::source::{Offer, Source, Target, list_of};
use crate::torture::{alone, threads};

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

/// A part of the left edge, which only the overlay paints.
fn edge(frame: &Frame<'_>) -> Vec<[u8; 4]> {
    frame.picture(11, 100, 1, 200)
}

both_with_editor! {
    #[ignore = "needs Xvfb; scripts/test-hosts runs it"]
    fn files_dropped_on_the_window_are_loaded<H>() {
        alone(|| {
            let screen = Screen::start();
            let models = Models::new();
            let (mut host, frame) = open::<H>(&screen);
            let bare = edge(&frame);
            let (good, other, bad) =
                (models.make(Kind::Good(1)), models.make(Kind::Good(2)), models.make(Kind::Missing));
            let spaced = good.with_file_name("my model, 100 %.safetensors");
            std::fs::rename(&good, &spaced).unwrap();

            // What hovers shows, and goes.
            let source = Source::new(list_of(&[&spaced]));
            let editor = target(&source);
            source.enter(editor, Offer::Files);
            assert!(source.moves(editor, 300, 300));
            serve_until(&mut host, "no overlay", |_| edge(&frame) != bare);
            source.leave(editor);
            serve_until(&mut host, "the overlay stays", |_| edge(&frame) == bare);

            assert!(source.drag(editor, Offer::Files));
            serve_until(&mut host, "not loaded", |host| is_loaded(host, &spaced));
            assert!(Source::new(list_of(&[&other])).drag(editor, Offer::FilesAmongMany));
            serve_until(&mut host, "not loaded", |host| is_loaded(host, &other));

            // One that is broken, with its YAML: chosen, and not loaded; the picture says so.
            let config = bad.with_extension("yaml");
            std::fs::write(&config, "audio: {}\n").unwrap();
            serve_until(&mut host, "the overlay stays", |_| edge(&frame) == bare);
            let before = frame.picture(0, 0, 900, 300);
            assert!(Source::new(list_of(&[&config, &bad])).drag(editor, Offer::Files));
            let both = json!({ "from": "file", "checkpoint": bad, "config": config });
            serve_until(&mut host, "not chosen", |host| chosen(host)["source"] == both);
            serve_until(&mut host, "nothing to see", |_| frame.picture(0, 0, 900, 300) != before);
            assert!(!is_loaded(&mut host, &bad));

            // What is no model changes nothing but the picture.
            let letter = Path::new("/letter.odt");
            assert!(Source::new(list_of(&[letter])).drag(editor, Offer::Files));
            assert_eq!(chosen(&mut host)["source"], both);
            host.close_editor();
            assert!(!threads().contains(&"nullsum-drop".to_owned()), "{:?}", threads());
        });
    }

    #[ignore = "needs Xvfb; scripts/test-hosts runs it"]
    fn programs_that_vanish_or_talk_nonsense_in_a_drag_harm_nothing<H>() {
        alone(|| {
            let screen = Screen::start();
            let models = Models::new();
            let (mut host, frame) = open::<H>(&screen);
            let bare = edge(&frame);
            let good = models.make(Kind::Good(1));
            let new = || Source::new(list_of(&[&good]));
            let editor = target(&new());

            // It vanishes while it hovers.
            let source = new();
            source.enter(editor, Offer::Files);
            assert!(source.moves(editor, 300, 300));
            serve_until(&mut host, "no overlay", |_| edge(&frame) != bare);
            drop(source);
            serve_until(&mut host, "the overlay stays", |_| edge(&frame) == bare);
            // It vanishes before it says what was dropped.
            let source = new();
            source.enter(editor, Offer::Files);
            assert!(source.moves(editor, 300, 300));
            source.lets_go(editor);
            drop(source);

            new().babbles(editor);
            assert!(!new().drag(editor, Offer::Text), "text was taken");
            let endless = list_of(&[&good]).repeat(40_000);
            assert!(endless.len() > 1 << 20);
            assert!(!Source::new(endless).drag(editor, Offer::Files), "a list without end was taken");
            assert!(Source::new(vec![0xff; 1000]).drag(editor, Offer::Files));
            assert!(Source::new(Vec::new()).drag(editor, Offer::Files));
            assert_eq!(chosen(&mut host)["source"]["from"], "embedded");

            // A drag that another one interrupts is not taken; the other one is.
            let (first, second) = (new(), new());
            first.enter(editor, Offer::Files);
            second.enter(editor, Offer::Files);
            assert!(!first.moves(editor, 300, 300) && second.moves(editor, 300, 300));
            assert!(!first.drops(editor));
            drop(first);
            assert!(second.moves(editor, 300, 300));
            // The selection is the newest program's.
            assert!(second.drops(editor));
            serve_until(&mut host, "not loaded", |host| is_loaded(host, &good));

            // Nobody waits for a program that hangs.
            let source = new();
            source.enter(editor, Offer::Files);
            source.lets_go(editor);
            host.close_editor();
            assert!(!threads().contains(&"nullsum-drop".to_owned()), "{:?}", threads());
        });
    }
}
