//! Instances are created and destroyed, started and stopped.

use std::time::Instant;

use crate::host::{Layout, Run, both, on_new_thread, steady};
use crate::play::{Blocks, assert_delayed, play};
use crate::signal::{Random, floats};

both! {
    fn activation_cycles_keep_the_output_exact<H>() {
        let mut random = Random::new(21);
        let mut host: H = steady(Layout::Multi);
        for cycle in 0..24 {
            let rate = [44100, 48000, 88200, 96000][random.below(4)];
            let block = [16, 441, 1024, 8192][random.below(4)];
            host.activate(Run { rate, block, offline: false });
            if cycle % 3 == 0 {
                host.deactivate();
                continue;
            }
            let latency = host.latency();
            let input = floats(2, latency + 2000);
            let output = play(&mut host, &input, Blocks::random(cycle, block));
            assert_delayed(&format!("{} cycle {cycle}", H::FORMAT), &input, &output[0], latency);
        }
    }

    fn nothing_of_the_last_activation_is_heard_in_the_next<H>() {
        let mut host: H = steady(Layout::Stereo);
        let run = Run::live(44100, 512);
        host.activate(run);
        let loud = floats(2, 10_000);
        play(&mut host, &loud, Blocks::Fixed(512));
        host.activate(run);
        let silence = vec![vec![0.0; host.latency() + 20_000]; 2];
        let output = play(&mut host, &silence, Blocks::Fixed(512));
        assert!(output.iter().flatten().flatten().all(|&sample| sample == 0.0), "{}: an echo", H::FORMAT);
    }

    fn instances_never_activated_are_dropped_cleanly<H>() {
        for layout in [Layout::Stereo, Layout::Mono, Layout::Multi] {
            for _ in 0..5 {
                drop(H::create(layout));
            }
        }
    }

    fn instances_dropped_while_active_leave_the_others_exact<H>() {
        let mut kept: H = steady(Layout::Stereo);
        kept.activate(Run::live(44100, 512));
        let latency = kept.latency();
        let input = floats(2, latency + 512 * 40);
        let mut output = vec![Vec::new(); 2];
        for start in (0..input[0].len()).step_by(512) {
            let mut other = (start % 2048 == 0).then(|| H::create(Layout::Multi));
            if let Some(other) = &mut other {
                other.activate(Run::live(48000, 64));
                other.process(&[&[0.5; 64], &[0.5; 64]]).unwrap();
            }
            let end = (start + 512).min(input[0].len());
            let block = kept.process(&[&input[0][start..end], &input[1][start..end]]).unwrap();
            for (channel, new) in output.iter_mut().zip(&block[0]) {
                channel.extend_from_slice(new);
            }
        }
        assert_delayed(H::FORMAT, &input, &output, latency);
    }

    fn an_instance_dropped_amid_automation_leaves_the_others_at_work<H>() {
        let mut kept: H = steady(Layout::Stereo);
        kept.activate(Run::live(44100, 64));
        for round in 0..20 {
            let mut other: H = steady(Layout::Stereo);
            other.activate(Run::live(44100, 64));
            for block in 0..30 {
                // From another thread than the one that created the instance, as a host's audio thread does.
                on_new_thread(&mut other, |other| {
                    other.set("Vocals Gain", f64::from((round + block) % 10) / 10.0);
                    other.set("Bass Gain", f64::from((round + block) % 9) / 9.0);
                    other.process(&[&[0.1; 64], &[0.1; 64]]).unwrap();
                });
            }
            drop(other);
            kept.process(&[&[0.1; 64], &[0.1; 64]]).unwrap();
        }
    }

    // cargo test --features plugin --test hosts scan -- --ignored --nocapture
    #[ignore = "prints a time, claims nothing"]
    fn scan_time<H>() {
        for _ in 0..5 {
            let start = Instant::now();
            let classes = H::classes();
            let listed = start.elapsed();
            drop(H::create(Layout::Stereo));
            drop(H::create(Layout::Multi));
            println!("{}: {classes:?} listed in {listed:.1?}, both created and dropped by {:.1?}", H::FORMAT, start.elapsed());
        }
    }
}
