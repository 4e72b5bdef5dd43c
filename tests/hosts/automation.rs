//! Parameters as hosts read and automate them.

use crate::host::{Layout, OFFLINE, REALTIME, RENDER, Run, TIER, both, steady};
use crate::play::{Blocks, assert_finite, assert_unity, play_with};
use crate::signal::{Random, grid};

const STEMS: [&str; 6] = ["Vocals", "Drums", "Bass", "Other", "Guitar", "Piano"];
const GLOBAL: [&str; 6] = ["Bypass", "Mix", "Output", "Lossless", TIER, RENDER];

both! {
    fn classes_are_in_order<H>() {
        assert_eq!(H::classes(), ["Nullsum", "Nullsum Multi"]);
    }

    fn every_parameter_is_named<H>() {
        for layout in [Layout::Stereo, Layout::Multi] {
            let mut host = H::create(layout);
            let names = host.parameters();
            for stem in STEMS {
                for what in ["Gain", "Solo", "Mute", "Pan", "Phase"] {
                    let name = format!("{stem} {what}");
                    assert_eq!(names.iter().filter(|n| **n == name).count(), 1, "{name} in {names:?}");
                }
            }
            for name in GLOBAL {
                assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
            }
        }
    }

    fn buses_are_named_after_the_stems<H>() {
        let mut host = H::create(Layout::Multi);
        host.activate(Run::live(44100, 512));
        let buses = host.output_buses();
        assert_eq!(buses.len(), 7);
        assert!(buses.iter().all(|(_, channels)| *channels == 2), "{buses:?}");
        for ((name, _), stem) in buses.iter().skip(1).zip(STEMS) {
            assert!(name.as_ref().is_none_or(|name| name == stem), "{stem} is named {name:?}");
        }
        let mut mono = H::create(Layout::Mono);
        mono.activate(Run::live(44100, 512));
        assert_eq!(mono.output_buses()[0].1, 1);
    }

    fn every_parameter_may_change_at_every_block<H>() {
        for layout in [Layout::Stereo, Layout::Mono, Layout::Multi] {
            let mut host = H::create(layout);
            let names = host.parameters();
            host.activate(Run::live(48000, 777));
            let input = grid(layout.channels(), 2 * host.latency() + 48000);
            let mut random = Random::new(11);
            let output = play_with(&mut host, &input, Blocks::random(13, 777), |host, _| {
                for name in &names {
                    // Offline rendering waits for the model. Other tests cover it.
                    if name != RENDER {
                        host.set(name, random.below(11) as f64 / 10.0);
                    }
                }
                host.set(RENDER, REALTIME);
            });
            assert_finite(&format!("{} {layout:?}", H::FORMAT), &output);
        }
    }

    fn what_changes_in_a_bounce_is_heard_with_the_input_that_it_came_with<H>() {
        for layout in [Layout::Stereo, Layout::Mono] {
            let mut host: H = steady(layout);
            host.set(RENDER, OFFLINE);
            host.activate(Run::offline(44100, 512));
            let (latency, change) = (host.latency(), 40 * 512);
            let due = change + latency;
            let input = grid(layout.channels(), due + 4096);
            let output = play_with(&mut host, &input, Blocks::Fixed(512), |host, position| {
                if position == change {
                    host.set("Output", 0.0);
                }
            });
            // Within one block, plus 20 ms of gain smoothing.
            for (heard, put_in) in output[0].iter().zip(&input) {
                assert_eq!(heard[latency..due - 512], put_in[..change - 512], "{} {layout:?}", H::FORMAT);
                assert!(heard[due + 512 + 882..].iter().all(|x| *x == 0.0), "{} {layout:?}", H::FORMAT);
            }
        }
    }

    fn a_pan_turns_nothing_down_where_there_is_no_side<H>() {
        let mut host: H = steady(Layout::Mono);
        for (stem, pan) in STEMS.iter().zip([0.0, 1.0, 0.25, 0.75, 0.0, 1.0]) {
            host.set(&format!("{stem} Pan"), pan);
        }
        host.set(RENDER, OFFLINE);
        host.activate(Run::offline(44100, 512));
        assert_unity(H::FORMAT, &mut host, grid, (1, 30_000), Blocks::Fixed(512));
    }

    fn a_value_set_is_the_value_read<H>() {
        let mut host = H::create(Layout::Stereo);
        host.activate(Run::live(44100, 64));
        let silence = [0.0; 64];
        for (name, value) in [("Vocals Gain", 0.0), ("Bass Solo", 1.0), ("Drums Pan", 0.25), ("Mix", 0.5), (TIER, 1.0)] {
            host.set(name, value);
            host.process(&[&silence, &silence]).unwrap();
            host.service();
            let read = host.get(name);
            assert!((read - value).abs() < 1e-6, "{}: {name} set to {value}, reads {read}", H::FORMAT);
        }
    }
}
