//! When the control thread wakes: it sleeps until it is notified.

use nice_plug::params::persist::PersistentField;

use super::*;

fn passes(bench: &Bench) -> u64 {
    bench.control_passes.load(Relaxed)
}

/// Waits until the control thread has slept for three seconds.
fn wait_until_asleep(bench: &Bench) {
    let start = Instant::now();
    loop {
        let before = passes(bench);
        std::thread::sleep(Duration::from_secs(3));
        if passes(bench) == before {
            return;
        }
        assert!(start.elapsed() < LOAD_TIMEOUT, "{before} passes, then {}", passes(bench));
    }
}

#[test]
fn an_idle_instance_sleeps_until_something_changes() {
    let mut bench = Bench::new();
    bench.play_until_ready();
    wait_until_asleep(&bench);
    let mut expect_wake = |what: &str, change: &mut dyn FnMut(&mut Bench)| {
        let before = passes(&bench);
        change(&mut bench);
        let start = Instant::now();
        while passes(&bench) == before {
            assert!(start.elapsed() < Duration::from_secs(20), "{what} wakes nobody");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    expect_wake("a tier", &mut |bench| set(&bench.params.tier, TierChoice::Balanced));
    expect_wake("a restored window", &mut |bench| bench.params.window.set(None));
    expect_wake("a restored model", &mut |bench| bench.params.model.set(bench.params.model.get()));
    expect_wake("a reset", &mut |bench| bench.processor.reset());
    wait_until_asleep(&bench);
    // The host goes on as it was, so the block changes nothing but the fact that there is one.
    let before = passes(&bench);
    bench.block();
    let start = Instant::now();
    while passes(&bench) == before {
        assert!(start.elapsed() < Duration::from_secs(20), "a block wakes nobody");
        std::thread::sleep(Duration::from_millis(1));
    }
    // While a host plays it is woken about once a second.
    let (before, start) = (passes(&bench), Instant::now());
    while start.elapsed() < Duration::from_secs(3) {
        bench.block();
        std::thread::sleep(Duration::from_millis(11));
    }
    let woken = passes(&bench) - before;
    assert!(woken <= 10, "{woken} times in three seconds");
}
