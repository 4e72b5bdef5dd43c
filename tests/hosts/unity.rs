//! At unity the output is the input, delayed by the reported latency: for every rate, block size, layout and mode.

use std::time::{Duration, Instant};

use crate::host::{HIGH, Host, LOW, Layout, OFFLINE, RENDER, Run, TIER, both, steady};
use crate::play::{Blocks, assert_delayed, assert_finite, assert_unity, play, play_until_restart, play_with};
use crate::signal::{Random, floats, grid, impulse};

const LAYOUTS: [Layout; 3] = [Layout::Stereo, Layout::Mono, Layout::Multi];

/// One instance for each layout, activated again for every block size.
fn unity<H: Host>(rate: u32) {
    for layout in LAYOUTS {
        let mut host: H = steady(layout);
        for block in [1, 32, 441, 512, 1024, 4096, 0] {
            let (maximum, blocks) = match block {
                0 => (4096, Blocks::random(rate.into(), 4096)),
                block => (block, Blocks::Fixed(block)),
            };
            host.activate(Run::live(rate, maximum));
            let what = format!("{} {layout:?}, {rate} Hz, blocks of {block}", H::FORMAT);
            let size = (layout.channels(), 3 * block.max(1000) + 17);
            assert_unity(&what, &mut host, floats, size, blocks);
        }
    }
}

both! {
    fn unity_is_the_delayed_input_at_44100<H>() {
        unity::<H>(44100);
    }

    fn unity_is_the_delayed_input_at_48000<H>() {
        unity::<H>(48000);
    }

    fn unity_is_the_delayed_input_at_96000<H>() {
        unity::<H>(96000);
    }

    fn impulse_arrives_at_reported_latency<H>() {
        for layout in LAYOUTS {
            for (rate, block) in [(44100, 64), (48000, 480), (88200, 333), (96000, 2048), (192_000, 1000)] {
                let mut host: H = steady(layout);
                host.activate(Run::live(rate, block));
                let latency = host.latency();
                let input = impulse(layout.channels(), latency + 4000, 777, 0.9);
                let output = play(&mut host, &input, Blocks::Fixed(block));
                for channel in &output[0] {
                    let heard: Vec<usize> = (0..channel.len()).filter(|&n| channel[n] != 0.0).collect();
                    assert_eq!(heard, [777 + latency], "{} {layout:?} at {rate} Hz", H::FORMAT);
                    assert_eq!(channel[777 + latency], 0.9);
                }
            }
        }
    }

    fn a_bounce_with_every_parameter_at_its_default_is_aligned<H>() {
        for layout in LAYOUTS {
            let mut host = H::create(layout);
            host.activate(Run::offline(44100, 512));
            let what = format!("{} {layout:?}", H::FORMAT);
            assert_unity(&what, &mut host, grid, (layout.channels(), 30_000), Blocks::random(5, 512));
        }
    }

    fn unity_is_exact_while_the_model_loads_and_works<H>() {
        // In real time, as with a sound card. In the Auto tier the plugin may request restarts until it has measured the computer. Its output is
        // exact up to each restart, and after the last.
        for layout in LAYOUTS {
            let mut host = H::create(layout);
            let mut restarts = 0;
            loop {
                host.activate(Run::live(44100, 441));
                let latency = host.latency();
                let input = grid(layout.channels(), latency + 44100);
                let start = Instant::now();
                let (output, restart) = play_until_restart(&mut host, &input, Blocks::Fixed(441), |position| {
                    let due = start + Duration::from_micros(position as u64 * 1_000_000 / 44100);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                });
                let what = format!("{} {layout:?} after {restarts} restarts", H::FORMAT);
                assert_delayed(&what, &input, &output, latency);
                if !restart {
                    break;
                }
                restarts += 1;
                assert!(restarts < 4, "{}: {layout:?} never settles", H::FORMAT);
            }
        }
    }

    fn unity_is_exact_whatever_the_tier_and_the_lossless_mode<H>() {
        let mut host: H = steady(Layout::Stereo);
        for tier in [0.0, LOW, 0.5, HIGH, 1.0] {
            for lossless in [0.0, 1.0] {
                // Set while inactive, so that the values count from the activation on.
                host.deactivate();
                host.set(TIER, tier);
                host.set("Lossless", lossless);
                host.activate(Run::live(48000, 256));
                let latency = host.latency();
                let input = floats(2, latency + 5000);
                // The Auto tier may request a restart.
                let (output, restart) = play_until_restart(&mut host, &input, Blocks::Fixed(256), |_| ());
                assert!(!restart || tier == 0.0, "{}: a restart in tier {tier:.2}", H::FORMAT);
                let what = format!("{} tier {tier:.2}, lossless {lossless}", H::FORMAT);
                assert_delayed(&what, &input, &output, latency);
            }
        }
    }

    fn a_tier_changed_while_playing_keeps_the_latency_until_the_restart<H>() {
        let mut host: H = steady(Layout::Stereo);
        host.activate(Run::live(44100, 300));
        let low = host.latency();
        let input = floats(2, low + 30000);
        let output = play(&mut host, &input, Blocks::Fixed(300));
        assert_delayed(H::FORMAT, &input, &output[0], low);
        // From now on it may request a restart. Until then the output must stay exact.
        host.activate(Run::live(44100, 300));
        host.set(TIER, HIGH);
        let (output, _) = play_until_restart(&mut host, &input, Blocks::Fixed(300), |_| ());
        assert_delayed(H::FORMAT, &input, &output, low);
        host.activate(Run::live(44100, 300));
        let high = host.latency();
        assert!(high > low, "{}: latency {high} in tier High, {low} in Low", H::FORMAT);
        let input = floats(2, high + 5000);
        let output = play(&mut host, &input, Blocks::Fixed(300));
        assert_delayed(H::FORMAT, &input, &output[0], high);
    }

    fn bypass_is_the_delayed_input<H>() {
        for layout in LAYOUTS {
            let mut host: H = steady(layout);
            host.set("Bypass", 1.0);
            host.set("Vocals Mute", 1.0);
            host.set("Mix", 0.3);
            host.activate(Run::live(48000, 1024));
            let what = format!("{} {layout:?}", H::FORMAT);
            assert_unity(&what, &mut host, floats, (layout.channels(), 20_000), Blocks::random(3, 1024));
        }
    }

    fn bypass_may_toggle_at_every_block<H>() {
        let mut host: H = steady(Layout::Stereo);
        host.activate(Run::live(44100, 128));
        let latency = host.latency();
        let input = floats(2, latency + 20000);
        let output = play_with(&mut host, &input, Blocks::Fixed(128), |host, position| {
            host.set("Bypass", f64::from(position as u32 / 128 % 2));
        });
        assert_delayed(H::FORMAT, &input, &output[0], latency);
    }

    fn faders_settle_at_exactly_unity<H>() {
        let mut host: H = steady(Layout::Stereo);
        host.activate(Run::live(44100, 256));
        let latency = host.latency();
        let defaults: Vec<(String, f64)> = host
            .parameters()
            .into_iter()
            .filter(|name| name != RENDER && name != TIER)
            .map(|name| (name.clone(), host.get(&name)))
            .collect();
        let settled = latency + 90_000;
        let input = floats(2, settled + latency);
        let mut random = Random::new(9);
        let output = play_with(&mut host, &input, Blocks::Fixed(256), |host, position| {
            for (name, default) in &defaults {
                if position < 45_000 {
                    host.set(name, random.below(1001) as f64 / 1000.0);
                } else if position < 45_300 {
                    host.set(name, *default);
                }
            }
        });
        assert_finite(H::FORMAT, &output);
        let tail = |signal: &[Vec<f32>], from: usize, to: usize| -> Vec<Vec<f32>> {
            signal.iter().map(|channel| channel[from..to].to_vec()).collect()
        };
        let end = input[0].len();
        let expected = tail(&input, settled - latency, end - latency);
        assert_delayed(H::FORMAT, &expected, &tail(&output[0], settled, end), 0);
    }

    fn a_nan_of_the_input_does_not_spread<H>() {
        let mut host: H = steady(Layout::Stereo);
        host.set(RENDER, OFFLINE);
        host.activate(Run::offline(44100, 512));
        host.set("Vocals Mute", 1.0);
        let latency = host.latency();
        let mut input = grid(2, 2 * latency + 3 * 44100);
        for (n, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
            input[0][5000 + n] = bad;
        }
        let output = play(&mut host, &input, Blocks::Fixed(512));
        for (channel, samples) in output[0].iter().enumerate() {
            let bad: Vec<usize> = (0..samples.len()).filter(|&n| !samples[n].is_finite() || samples[n].abs() >= 8.0).collect();
            let allowed = 5000 + latency..5003 + latency;
            assert!(
                bad.iter().all(|n| channel == 0 && allowed.contains(n)),
                "{}: channel {channel}: {} bad samples, first {:?}",
                H::FORMAT,
                bad.len(),
                bad.first()
            );
        }
    }
}
