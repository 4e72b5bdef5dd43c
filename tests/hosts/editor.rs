//! The editor in a window of a host, on a virtual screen.
//!
//! These tests need Xvfb and a software OpenGL. Run them with `scripts/test-hosts`, or after `scripts/setup screen` with
//!
//! ```text
//! cargo test --features plugin --test hosts editor -- --ignored
//! ```

use std::time::{Duration, Instant};

use crate::host::{Layout, Run, steady};
use crate::host_window::{WithEditor, both_with_editor};
use crate::leaks::{is_gone, memory_mib, remaining_threads, threads};
use crate::play::Song;
use crate::signal::grid;
use crate::stress::in_own_process;
use crate::syscalls::{on_an_audio_thread, watched};
use crate::virtual_screen::Screen;

const BLOCK: usize = 441;

/// Runs the host's main thread until `done`. Returns whether the plugin told of a new latency meanwhile.
pub fn serve_until<H: WithEditor>(host: &mut H, what: &str, mut done: impl FnMut(&mut H) -> bool) -> bool {
    let (start, mut told) = (Instant::now(), false);
    while !done(host) {
        assert!(start.elapsed() < Duration::from_secs(120), "{}: {what}", H::FORMAT);
        told |= host.service();
        host.serve_editor();
        std::thread::sleep(Duration::from_millis(5));
    }
    told
}

/// Opens, resizes and closes the editor `count` times during playback. `told`: whether the plugin has told of a new latency, as it does once
/// when the model has been measured. `vst3-host` reads the latency at activations only, so from then on the output is not compared.
fn opens<H: WithEditor>(host: &mut H, song: &mut Song, screen: &Screen, told: &mut bool, count: usize) {
    for round in 0..count {
        let frame = screen.frame(1000, 700);
        host.open_editor(frame.id());
        *told |= serve_until(host, "no window", |_| frame.children().len() == 1);
        if round % 10 == 0 {
            *told |= serve_until(host, "no picture", |_| frame.colors() > 8);
        }
        for (width, height) in [(760, 520), (980, 690)] {
            let outcome = on_an_audio_thread(host, |host| {
                song.keep_time();
                (0..5).filter(|_| !song.block(host, BLOCK)).count()
            });
            if let Some((changed, calls)) = watched(outcome) {
                if changed > 0 && !*told {
                    serve_until(host, "blocks are not the input", |host| {
                        *told |= host.service();
                        *told
                    });
                }
                assert!(calls.is_empty(), "{}, round {round}: system calls {calls:#?}", H::FORMAT);
            }
            host.resize_editor(width, height);
            let arrived = |host: &mut H| host.serve_editor() == Some(frame.children()[0]);
            *told |= serve_until(host, "not resized", arrived);
        }
        host.close_editor();
        let of_a_window = |name: &String| name.starts_with("nullsum-w") && name != "nullsum-worker";
        let left: Vec<_> = threads().into_iter().filter(of_a_window).collect();
        assert!(left.is_empty(), "{}, round {round}: {left:?} after the window was closed", H::FORMAT);
        assert!(is_gone("nullsum-drop"), "{}, round {round}", H::FORMAT);
        *told |= serve_until(host, "the window stays", |_| frame.children().is_empty());
        drop(frame);
        *told |= serve_until(host, "windows stay", |_| screen.whole().children().is_empty());
    }
}

/// Some hosts create an editor first and show it later. Busy computers do the same.
#[test]
#[ignore = "needs Xvfb; scripts/test-hosts runs it"]
fn a_window_shown_late_is_drawn() {
    in_own_process(|| {
        let screen = Screen::start();
        for pause in [400, 20, 0] {
            // A new instance, whose first frame is needed at once.
            let mut host: crate::clap::Clap = steady(Layout::Stereo);
            let frame = screen.frame(1000, 700);
            host.open_editor_late(frame.id(), Duration::from_millis(pause));
            serve_until(&mut host, "no window", |_| frame.children().len() == 1);
            serve_until(&mut host, "no picture", |_| frame.colors() > 8);
            host.close_editor();
        }
    });
}

both_with_editor! {
    #[ignore = "needs Xvfb; scripts/test-hosts runs it"]
    fn a_hundred_windows_leave_no_thread_and_little_memory<H>() {
        in_own_process(|| {
            let screen = Screen::start();
            let mut host: H = steady(Layout::Stereo);
            host.activate(Run::live(44100, BLOCK));
            let mut song = Song::new(grid(2, 1 << 17));
            song.keep_time();
            // Until the model has touched all its working memory.
            let heard = song.play(&mut host, BLOCK, 5.0);
            let mut told = heard.changed > 0;
            // The first windows load system libraries and fill their caches.
            opens(&mut host, &mut song, &screen, &mut told, 30);
            let before = remaining_threads(0, Duration::from_secs(2));
            let warm = memory_mib();
            opens(&mut host, &mut song, &screen, &mut told, 70);
            let after = remaining_threads(before.len(), Duration::from_secs(10));
            let end = memory_mib();
            println!("{}: {warm:.1} MiB after 30 windows, {end:.1} MiB after 70 more; threads {after:?}", H::FORMAT);
            assert_eq!(after.len(), before.len(), "{}: threads {before:?} before, {after:?} after", H::FORMAT);
            // Opening the editor leaks 0.1 to 0.15 MiB: a keyboard layout in the window library, and the rest in Mesa's software driver.
            // The ring of the input fills with up to 16 s.
            assert!(end < warm + 32.0, "{}: {warm:.1} MiB grew to {end:.1} MiB", H::FORMAT);
            drop(host);
            let ours = || threads().into_iter().filter(|name| name.starts_with("nullsum-")).collect::<Vec<_>>();
            assert!(ours().iter().all(|name| is_gone(name)), "{:?}", threads());
        });
    }
}
