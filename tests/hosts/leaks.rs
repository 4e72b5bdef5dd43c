//! Many instances after one another, and what they leave behind. Threads and memory are counted in separate processes, so that other tests do not
//! count.

use std::time::{Duration, Instant};

use crate::host::{Host, Layout, OFFLINE, RENDER, Run, both, steady};
use crate::play::{Blocks, play};
use crate::signal::{Random, floats};
use crate::stress::in_own_process;

/// Names of the threads of this process.
pub fn threads() -> Vec<String> {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

/// Whether no thread has this name. Waits a moment, because a joined thread is listed a little longer.
pub fn is_gone(name: &str) -> bool {
    let start = Instant::now();
    while threads().iter().any(|thread| thread == name) {
        if start.elapsed() > Duration::from_secs(5) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The threads once only `expected` are left, or after `timeout`.
pub fn remaining_threads(expected: usize, timeout: Duration) -> Vec<String> {
    let start = Instant::now();
    while threads().len() > expected && start.elapsed() < timeout {
        std::thread::sleep(Duration::from_millis(50));
    }
    threads()
}

/// Resident memory in MiB.
pub fn memory_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / 1024.0 / 1024.0
}

/// Creates, plays and drops `count` instances with different layouts, rates and durations.
fn create_and_drop_instances<H: Host>(count: usize) {
    let mut random = Random::new(count as u64);
    for _ in 0..count {
        let layout = [Layout::Stereo, Layout::Mono, Layout::Multi][random.below(3)];
        let mut host: H = steady(layout);
        host.activate(Run::live([44100, 48000][random.below(2)], 256));
        let input = floats(layout.channels(), 1 + random.below(2000));
        play(&mut host, &input, Blocks::Fixed(256));
    }
}

/// Checks that no thread and at most 24 MiB remain, however many instances followed the first. An instance may find the previous one's model still in
/// memory.
fn check_no_leaks<H: Host>(lives: usize) {
    let before = threads();
    // One instance that lives until the model is loaded. Most others are too short for that.
    let mut host: H = steady(Layout::Stereo);
    host.set(RENDER, OFFLINE);
    host.activate(Run::offline(44100, 4096));
    let input = floats(2, host.latency() + 44100);
    play(&mut host, &input, Blocks::Fixed(4096));
    drop(host);
    create_and_drop_instances::<H>(40);
    let warm = memory_mib();
    create_and_drop_instances::<H>(lives);
    let end = memory_mib();
    let after = remaining_threads(before.len(), Duration::from_secs(5));
    println!(
        "{}: {warm:.1} MiB after 40 lives, {end:.1} MiB after {lives} more; threads {after:?}",
        H::FORMAT
    );
    assert_eq!(after.len(), before.len(), "{}: threads {before:?} before, {after:?} after", H::FORMAT);
    assert!(end < warm + 24.0, "{}: {warm:.1} MiB grew to {end:.1} MiB in {lives} lives", H::FORMAT);
}

both! {
    fn lives_leave_no_thread_and_no_memory<H>() {
        in_own_process(|| check_no_leaks::<H>(160));
    }

    // cargo test --features plugin --test hosts thousand -- --ignored --nocapture
    #[ignore = "a minute or more"]
    fn a_thousand_lives_leave_no_thread_and_no_memory<H>() {
        in_own_process(|| check_no_leaks::<H>(1000));
    }
}
