//! Many instances and long songs. Tests that may crash, or count resources of their process, run in a separate process.

use std::process::Command;

use crate::host::{Host, Layout, Run, both, steady};
use crate::play::{Blocks, Song, assert_delayed, play};
use crate::signal::floats;

/// Set in a process that a test has started for itself.
const ALONE: &str = "NULLSUM_HOSTS_ALONE";

/// Runs `body` in a separate process: this executable again, with this test only.
pub fn in_own_process(body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        body();
        return;
    }
    let name = std::thread::current().name().expect("a test's thread bears its name").to_owned();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        // With one arena for each core, glibc's heap grows for a while, because threads start and end here.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{name} in its own process: {}", output.status);
    assert!(said.contains("1 passed"), "{name}: did not run");
}

/// Plays a song of random floats in random blocks, and checks it on the way.
fn long_song<H: Host>(seconds: usize, run: Run) {
    let mut host: H = steady(Layout::Stereo);
    host.activate(run);
    let mut song = Song::new(floats(2, 1 << 18));
    let total = seconds * run.rate as usize;
    let mut blocks = Blocks::random(1, run.block);
    let mut restarts = 0;
    while song.position() < total {
        let size = blocks.next();
        let exact = song.block(&mut host, size);
        // The transport stands still, so the plugin may tell of the latency that it has measured meanwhile: once.
        if host.service() {
            restarts += 1;
            assert!(restarts <= 1, "{}: another latency before {}", H::FORMAT, song.position());
            host.deactivate();
            host.activate(run);
            song.restart();
        } else {
            assert!(exact, "{}: block of {size} before {}", H::FORMAT, song.position());
        }
    }
}

both! {
    fn sixteen_instances_stay_exact<H>() {
        let mut hosts: Vec<H> = (0..16).map(|n| steady(if n % 4 == 3 { Layout::Multi } else { Layout::Stereo })).collect();
        for host in &mut hosts {
            host.activate(Run::live(44100, 512));
        }
        let latencies: Vec<usize> = hosts.iter_mut().map(H::latency).collect();
        let total = latencies.iter().max().unwrap() + 22_050;
        let input = floats(2, total);
        let mut outputs = vec![vec![Vec::new(); 2]; hosts.len()];
        for start in (0..total).step_by(512) {
            let end = (start + 512).min(total);
            for (host, output) in hosts.iter_mut().zip(&mut outputs) {
                let block = host.process(&[&input[0][start..end], &input[1][start..end]]).unwrap();
                for (channel, new) in output.iter_mut().zip(&block[0]) {
                    channel.extend_from_slice(new);
                }
                host.service();
            }
        }
        for (n, (output, latency)) in outputs.iter().zip(latencies).enumerate() {
            assert_delayed(&format!("{} instance {n}", H::FORMAT), &input, output, latency);
        }
    }

    fn ten_minutes_in_random_blocks_stay_exact<H>() {
        long_song::<H>(600, Run::live(44100, 4096));
    }
}

/// Hosts may leave stem buses inactive; VST3 then passes null pointers. The main output must continue. In a separate process, because a failure may
/// crash.
#[test]
fn inactive_stem_buses_leave_the_main_output_exact() {
    in_own_process(|| {
        let mut host: crate::vst3::Vst3 = steady(Layout::Multi);
        host.activate(Run::live(44100, 512));
        host.deactivate();
        host.set_stem_buses_active(false);
        host.activate(Run::live(44100, 512));
        let latency = host.latency();
        let input = floats(2, latency + 4096);
        let output = play(&mut host, &input, Blocks::Fixed(512));
        assert_delayed("VST3", &input, &output[0], latency);
    });
}
