//! During real-time playback, the audio thread makes no system call: it never waits and wakes no thread.

use std::time::{Duration, Instant};

use crate::host::{
    Buses, HIGH, Host, Layout, OFFLINE, REALTIME, RENDER, Run, TIER, both, on_new_thread, steady,
};
use crate::models::{Kind, Models, choose};
use crate::play::{Blocks, Song, assert_finite, play, play_with};
use crate::signal::grid;
use crate::stress::in_own_process;
use crate::syscall_watch::{self, Call};

/// Runs `body` on a new audio thread, and returns its system calls during processing.
pub fn on_an_audio_thread<H: Host, T: Send>(
    host: &mut H,
    body: impl FnOnce(&mut H) -> T + Send,
) -> Option<(T, Vec<Call>)> {
    on_new_thread(host, |host| syscall_watch::of(|| body(host)))
}

/// Waits until the block is due, as a sound card would.
fn paced<H: Host>(
    host: &mut H,
    input: &[Vec<f32>],
    block: usize,
    mut before: impl FnMut(&mut H, usize),
) -> Buses {
    let start = Instant::now();
    play_with(host, input, Blocks::Fixed(block), |host, position| {
        let due = start + Duration::from_micros(position as u64 * 1_000_000 / 44100);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        before(host, position);
    })
}

/// If the system cannot watch a thread, the test is skipped. In CI it must not be.
pub fn watched<T>(outcome: Option<T>) -> Option<T> {
    if outcome.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must run on Linux 5.11 or later on x86-64, to watch the audio thread"
        );
        println!("not watched: needs Linux 5.11 or later on x86-64");
    }
    outcome
}

/// Plays with changing models, and with changing parameters in the second half of every phase.
fn play_without_system_calls<H: Host>() {
    let models = Models::new();
    let swaps = [Kind::Good(1), Kind::Garbage, Kind::Nan, Kind::Good(2)].map(|kind| models.write(kind));
    for layout in [Layout::Stereo, Layout::Multi] {
        let mut host: H = steady(layout);
        host.set("Drums Mute", 1.0);
        host.activate(Run::live(44100, 512));
        // Once an offline render has stems, the model is running.
        host.set(RENDER, OFFLINE);
        let heard = Song::new(grid(layout.channels(), 1 << 17)).play(&mut host, 512, 2.0);
        assert!(heard.changed > 0, "{} {layout:?}: no model", H::FORMAT);
        host.set(RENDER, REALTIME);
        let input = grid(layout.channels(), 66_150);
        let half = input[0].len() / 2;
        for swap in std::iter::once(None).chain(swaps.iter().map(Some)) {
            if let Some(checkpoint) = swap {
                choose(&mut host, checkpoint);
            }
            let outcome = on_an_audio_thread(&mut host, |host| {
                let output = paced(host, &input, 512, |host, position| {
                    if position >= half {
                        let value = f64::from(position as u32 % 7) / 7.0;
                        for name in ["Vocals Gain", "Bass Pan", "Mix", "Output", "Other Solo"] {
                            host.set(name, value);
                        }
                    }
                });
                assert_finite(H::FORMAT, &output);
            });
            let Some(((), calls)) = watched(outcome) else { return };
            assert!(calls.is_empty(), "{} {layout:?}, {swap:?}: system calls {calls:#?}", H::FORMAT);
        }
    }
}

both! {
    fn the_audio_thread_makes_no_system_call<H>() {
        in_own_process(play_without_system_calls::<H>);
    }

    fn a_new_latency_makes_no_system_call_and_the_host_is_told<H>() {
        in_own_process(|| {
            let mut host: H = steady(Layout::Stereo);
            host.set("Drums Mute", 1.0);
            host.activate(Run::live(44100, 512));
            // Once an offline render has stems, the control thread is idle.
            host.set(RENDER, OFFLINE);
            let heard = Song::new(grid(2, 1 << 17)).play(&mut host, 512, 2.0);
            assert!(heard.changed > 0, "{}: no model", H::FORMAT);
            host.set(RENDER, REALTIME);
            host.service();
            let silence = [0f32; 512];
            let outcome = on_an_audio_thread(&mut host, |host| {
                let start = Instant::now();
                let mut told = false;
                // The new stream is heard when it has a whole latency of input; before that, the model may be measured.
                for block in 0..2_000u32 {
                    if block == 40 {
                        host.set(TIER, HIGH);
                    }
                    std::thread::sleep((start + Duration::from_millis(12) * block).saturating_duration_since(Instant::now()));
                    host.process(&[&silence, &silence]).unwrap();
                    told |= host.service();
                    if told {
                        break;
                    }
                }
                told
            });
            let Some((mut told, calls)) = watched(outcome) else { return };
            assert!(calls.is_empty(), "{}: system calls {calls:#?}", H::FORMAT);
            let start = Instant::now();
            while !told {
                assert!(start.elapsed() < Duration::from_secs(20), "{}: the host is not notified of the latency", H::FORMAT);
                std::thread::sleep(Duration::from_millis(5));
                told = host.service();
            }
        });
    }

    /// Proves that the watch works: an offline render waits, and the watch sees it.
    fn a_wait_of_the_audio_thread_is_detected<H>() {
        in_own_process(|| {
            let mut host = H::create(Layout::Stereo);
            host.set(RENDER, OFFLINE);
            host.activate(Run::offline(44100, 4096));
            let input = grid(2, 4 * 44_100);
            let outcome = on_an_audio_thread(&mut host, |host| play(host, &input, Blocks::Fixed(4096)));
            let Some((_, calls)) = watched(outcome) else { return };
            let waits = calls.iter().filter(|call| call.number == libc::SYS_futex && [0, 128, 9, 137].contains(&(call.arguments[1] & 0xff)));
            assert!(waits.count() > 0, "{}: seen only {calls:#?}", H::FORMAT);
        });
    }
}
