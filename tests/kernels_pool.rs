//! The thread pool: names, number and joining of its threads.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use nullsum::kernels::Pool;

/// Threads of this process by name prefix; `None` where `/proc` does not tell.
fn threads_named(prefix: &str) -> Option<usize> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    Some(tasks.flatten().filter_map(name).filter(|name| name.starts_with(prefix)).count())
}

// One test, since it counts the threads of the process.
#[test]
fn threads_are_named_shared_and_joined() {
    let names = Mutex::new(HashSet::new());
    let runs: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
    let pool = Pool::new(3).unwrap();
    assert_eq!(pool.threads(), 3);
    pool.run(runs.len(), |i| {
        runs[i].fetch_add(1, Ordering::Relaxed);
        names.lock().unwrap().insert(std::thread::current().name().map(str::to_owned));
        // Inside a task, rayon is this pool.
        assert_eq!(rayon::current_num_threads(), 3);
    });
    assert!(runs.iter().all(|n| n.load(Ordering::Relaxed) == 1), "each task once");
    let names = names.into_inner().unwrap();
    assert!(names.iter().flatten().all(|name| name.starts_with("nullsum-")), "{names:?}");
    drop(pool);

    let (a, b, c) = (Pool::shared(2).unwrap(), Pool::shared(2).unwrap(), Pool::shared(1).unwrap());
    // A thread names itself once it runs: have both run.
    let both = Barrier::new(2);
    a.run(2, |_| _ = both.wait());
    c.run(1, |_| {});
    // A joined thread leaves `/proc` a moment later.
    let end = Instant::now() + Duration::from_secs(5);
    while threads_named("nullsum-").is_some_and(|count| count > 3) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    if let Some(count) = threads_named("nullsum-") {
        assert_eq!(count, 3, "two pools of two are one");
    }
    drop((a, b, c));

    for _ in 0..100 {
        let pool = Pool::new(2).unwrap();
        let clone = pool.clone();
        pool.run(4, |_| {});
        drop(pool);
        clone.run(4, |_| {});
    }
    // The last clone may go on a worker, which cannot join itself.
    let pool = Pool::new(2).unwrap();
    let inner = pool.clone();
    pool.install(move || drop(inner));
    drop(pool);
    let end = Instant::now() + Duration::from_secs(5);
    while threads_named("nullsum-").unwrap_or(0) > 0 {
        assert!(Instant::now() < end, "threads are left");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Pool::new(0).unwrap().threads() >= 1);
}
