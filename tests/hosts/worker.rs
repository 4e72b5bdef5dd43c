//! Models in worker processes, as a host sees them. Each test runs in a process of its own, with a runtime folder of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::host::{Host, Layout, OFFLINE, RENDER, Run, both, steady};
use crate::play::{Heard, Song};
use crate::signal::grid;
use crate::stress::in_own_process;

const BLOCK: usize = 441;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` with an empty runtime folder, whose workers end with it.
fn with_runtime_folder(body: impl FnOnce(&Path)) {
    in_own_process(|| {
        let folder = tempfile::Builder::new().prefix("ns").tempdir_in("/tmp").unwrap();
        // SAFETY: the process runs this test only, and the plugin is not loaded yet.
        unsafe {
            std::env::set_var("XDG_RUNTIME_DIR", folder.path());
            std::env::set_var("NULLSUM_WORKER", env!("CARGO_BIN_EXE_nullsum-worker"));
        }
        body(folder.path());
        end_workers(folder.path());
    });
}

/// Processes whose runtime folder this is, without this one.
fn workers(folder: &Path) -> Vec<i32> {
    let wanted = format!("XDG_RUNTIME_DIR={}", folder.display());
    let is_worker = |process: &i32| {
        let read = |name: &str| std::fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
        let (arguments, environment) = (read("cmdline"), read("environ"));
        // Not the process that starts it and ends at once.
        arguments.split(|byte| *byte == 0).any(|argument| argument == b"--foreground")
            && environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_worker).collect()
}

fn end_workers(folder: &Path) -> usize {
    let workers = workers(folder);
    for process in &workers {
        // SAFETY: the process is a worker of this test.
        unsafe { libc::kill(*process, libc::SIGKILL) };
    }
    workers.len()
}

/// Sets the saved device of an instance. Nothing else of the state changes.
fn choose_device<H: Host>(host: &mut H, device: &Value) {
    let mut state: Value = serde_json::from_slice(&host.save()).unwrap();
    state["fields"]["device"] = json!(device.to_string());
    assert!(host.load(state.to_string().as_bytes()), "{}: the state is refused", H::FORMAT);
}

fn saved_device<H: Host>(host: &mut H) -> Value {
    let state: Value = serde_json::from_slice(&host.save()).unwrap();
    serde_json::from_str(state["fields"]["device"].as_str().unwrap()).unwrap()
}

/// Renders a song with the drums muted, without the latency.
fn bounce<H: Host>(device: &str) -> Vec<Vec<f32>> {
    let mut host: H = steady(Layout::Stereo);
    choose_device(&mut host, &json!(device));
    host.set(RENDER, OFFLINE);
    host.set("Drums Mute", 1.0);
    host.activate(Run::offline(44100, BLOCK));
    let input = grid(2, 100 * BLOCK);
    let mut output = vec![Vec::new(); 2];
    for start in (0..100 * BLOCK).step_by(BLOCK) {
        let block =
            host.process(&[&input[0][start..start + BLOCK], &input[1][start..start + BLOCK]]).unwrap();
        output.iter_mut().zip(&block[0]).for_each(|(channel, new)| channel.extend_from_slice(new));
        host.service();
    }
    let latency = host.latency();
    output.iter().map(|channel| channel[latency..].to_vec()).collect()
}

both! {
    fn a_bounce_through_a_worker_has_the_bits_of_one_in_the_plugin<H>() {
        with_runtime_folder(|folder| {
            let here = bounce::<H>("cpu");
            assert!(workers(folder).is_empty());
            let there = bounce::<H>("worker:cpu");
            assert!(folder.join("nullsum/worker-cpu.lock").exists(), "no worker was started");
            let length = here[0].len().min(there[0].len());
            assert!(length > 20 * BLOCK && here[0].iter().any(|x| *x != 0.0));
            for (here, there) in here.iter().zip(&there) {
                assert!(here[..length] == there[..length], "{}", H::FORMAT);
            }
        });
    }

    fn a_worker_that_is_killed_again_and_again_costs_no_sample_and_the_processor_takes_over<H>() {
        with_runtime_folder(|folder| {
            let mut host: H = steady(Layout::Stereo);
            choose_device(&mut host, &json!("worker:cpu"));
            host.activate(Run::live(44100, BLOCK));
            let mut song = Song::new(grid(2, 1 << 17));
            song.keep_time();
            let latency = host.latency();
            let (started, mut heard, mut killed) = (Instant::now(), Heard::default(), 0);
            while killed < 3 {
                assert!(started.elapsed() < PATIENCE, "{killed} workers were killed");
                let now = song.play(&mut host, BLOCK, 0.3);
                heard.changed += now.changed;
                killed += end_workers(folder);
            }
            // Long enough for the model to load in the plugin.
            heard.changed += song.play(&mut host, BLOCK, 2.0).changed;
            assert_eq!(heard.changed, 0, "{}", H::FORMAT);
            assert_eq!(host.latency(), latency, "{}: the latency changed during playback", H::FORMAT);
            assert!(workers(folder).is_empty(), "it was started again");
            assert_eq!(saved_device(&mut host), json!("worker:cpu"), "the choice stays");
            host.set("Drums Mute", 1.0);
            host.set(RENDER, OFFLINE);
            song.hurry();
            song.play(&mut host, BLOCK, 1.0);
            let heard = song.play(&mut host, BLOCK, 0.5);
            assert_eq!(heard.exact, 0, "{}: no stems: {heard:?}", H::FORMAT);
        });
    }

    fn a_device_that_is_not_there_is_kept_and_the_model_plays_on_the_processor<H>() {
        with_runtime_folder(|_| {
            for device in [json!("cuda:7"), json!("npu:0"), json!({ "vendor": "x" })] {
                let mut host: H = steady(Layout::Stereo);
                choose_device(&mut host, &device);
                host.set("Drums Mute", 1.0);
                host.set(RENDER, OFFLINE);
                host.activate(Run::offline(44100, BLOCK));
                let mut song = Song::new(grid(2, 1 << 17));
                song.play(&mut host, BLOCK, 1.0);
                let heard = song.play(&mut host, BLOCK, 0.5);
                assert_eq!(heard.exact, 0, "{} {device}: {heard:?}", H::FORMAT);
                assert_eq!(saved_device(&mut host), device, "{}", H::FORMAT);
            }
        });
    }
}
