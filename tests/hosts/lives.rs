//! Many lives, and what they leave behind. Threads and memory are counted in processes of their own, so that tests beside them don't count.

use std::time::{Duration, Instant};

use crate::host::{Host, Layout, OFFLINE, RENDER, Run, both, steady};
use crate::play::{Blocks, play};
use crate::signal::{Random, floats};
use crate::torture::alone;

/// Names of the threads of this process.
pub fn threads() -> Vec<String> {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

/// Whether a thread of this name has gone, within a moment: one that was joined is listed a little longer.
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

/// Threads after those that are on their way out have gone, or after `patience`.
pub fn settled_threads(expected: usize, patience: Duration) -> Vec<String> {
    let start = Instant::now();
    while threads().len() > expected && start.elapsed() < patience {
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

/// Creates, plays and drops an instance `count` times; layouts, rates and lengths differ.
fn live_and_die<H: Host>(count: usize) {
    let mut random = Random::new(count as u64);
    for _ in 0..count {
        let layout = [Layout::Stereo, Layout::Mono, Layout::Multi][random.below(3)];
        let mut host: H = steady(layout);
        host.activate(Run::live([44100, 48000][random.below(2)], 256));
        let input = floats(layout.channels(), 1 + random.below(2000));
        play(&mut host, &input, Blocks::Fixed(256));
    }
}

/// Leaves no thread, and at most 24 MiB however many lives there were after the first ones: a
/// life may find the model of the one before it still in memory.
fn leaves_nothing_behind<H: Host>(lives: usize) {
    let before = threads();
    // One life in which the model arrives: most of the others are too short for it.
    let mut host: H = steady(Layout::Stereo);
    host.set(RENDER, OFFLINE);
    host.activate(Run::offline(44100, 4096));
    let input = floats(2, host.latency() + 44100);
    play(&mut host, &input, Blocks::Fixed(4096));
    drop(host);
    live_and_die::<H>(40);
    let warm = memory_mib();
    live_and_die::<H>(lives);
    let end = memory_mib();
    let after = settled_threads(before.len(), Duration::from_secs(5));
    println!(
        "{}: {warm:.1} MiB after 40 lives, {end:.1} MiB after {lives} more; threads {after:?}",
        H::FORMAT
    );
    assert_eq!(after.len(), before.len(), "{}: threads {before:?} before, {after:?} after", H::FORMAT);
    assert!(end < warm + 24.0, "{}: {warm:.1} MiB grew to {end:.1} MiB in {lives} lives", H::FORMAT);
}

both! {
    fn lives_leave_no_thread_and_no_memory<H>() {
        alone(|| leaves_nothing_behind::<H>(160));
    }

    // cargo test --features plugin --test hosts thousand -- --ignored --nocapture
    #[ignore = "a minute or more"]
    fn a_thousand_lives_leave_no_thread_and_no_memory<H>() {
        alone(|| leaves_nothing_behind::<H>(1000));
    }
}
