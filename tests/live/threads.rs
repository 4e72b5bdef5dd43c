//! The worker thread: shared, fair, and ended with its last owner.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;

use nullsum::live::{BlockingError, NoStems, Scheduler, State, Stream, WindowError, load_shared};
use nullsum::separator::MaskRule;

use crate::support::*;

/// Tests that start workers lock it for reading; the test that counts threads locks it for writing.
static THREADS: RwLock<()> = RwLock::new(());

pub fn in_threads() -> RwLockReadGuard<'static, ()> {
    THREADS.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether `condition` becomes true within 2 s. A thread gets its name after its start, and is listed for a moment after its join.
#[cfg(target_os = "linux")]
fn becomes_true(condition: impl Fn() -> bool) -> bool {
    (0..2_000).any(|_| {
        let holds = condition();
        if !holds {
            std::thread::sleep(Duration::from_millis(1));
        }
        holds
    })
}

/// Our threads in this process.
#[cfg(target_os = "linux")]
fn workers() -> usize {
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    names
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("nullsum-"))
        })
        .count()
}

/// Checks on which thread it is dropped.
#[cfg(target_os = "linux")]
struct DropCounter(Arc<AtomicUsize>);

#[cfg(target_os = "linux")]
impl Drop for DropCounter {
    fn drop(&mut self) {
        assert!(std::thread::current().name().is_some_and(|name| name.starts_with("nullsum-")));
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_hundred_streams_leak_no_thread_and_no_model() {
    let _alone = THREADS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    let dropped = Arc::new(AtomicUsize::new(0));
    for turn in 0..100 {
        let scheduler = Scheduler::of_process().unwrap();
        let (mut client, stream) = Stream::open(&plan(44_100, 256), 1, 1, &scheduler);
        let counter = DropCounter(dropped.clone());
        let model = Fake::new(1, 1, move |_, _| {
            let _held = &counter;
            Ok(())
        });
        stream.swap(Some(model.shared())).unwrap();
        client.process(&mut [&mut [0.5; 300][..]], &mut NoStems);
        assert!(becomes_true(|| workers() > 0));
        // In any order.
        match turn % 3 {
            0 => drop((client, stream, scheduler)),
            1 => drop((scheduler, stream, client)),
            _ => drop((stream, scheduler, client)),
        }
        assert_eq!(dropped.load(Ordering::SeqCst), turn + 1);
        assert!(becomes_true(|| workers() == 0), "{}", workers());
    }
}

#[test]
fn many_streams_share_one_worker_and_one_model() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let loads = Arc::new(AtomicUsize::new(0));
    let running = Arc::new(AtomicUsize::new(0));
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let streams: Vec<_> = (0..6)
            .map(|_| {
                let (loads, running, scheduler) = (loads.clone(), running.clone(), scheduler.clone());
                scope.spawn(move || {
                    let model = load_shared("content hash", || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        let fake = Fake::new(1, 1, move |window, out| {
                            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                            out.iter_mut().zip(window).for_each(|(y, x)| *y = 0.5 * x);
                            running.fetch_sub(1, Ordering::SeqCst);
                            Ok(())
                        });
                        Ok::<_, WindowError>(Box::new(fake) as _)
                    })
                    .unwrap();
                    let (mut client, stream) = Stream::open(&plan(44_100, 512), 1, 1, &scheduler);
                    client.set_carrier(None);
                    stream.swap(Some(model.clone())).unwrap();
                    let out = feed(&[noise(3, 20_000, 0.5)], 1, &mut || 512, &mut |main, buses| {
                        client.process_blocking(main, buses, PATIENCE).unwrap();
                    });
                    // All streams keep the model until all have it.
                    (out, model)
                })
            })
            .collect();
        streams.into_iter().map(|stream| stream.join().unwrap()).collect()
    });
    assert!(outputs.iter().all(|(out, model)| *out == outputs[0].0 && model.is(&outputs[0].1)));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert!(outputs[0].0.stems[0][0].iter().any(|x| *x != 0.0));
    drop(outputs);
    drop(scheduler);
    // The cache drops it with its last owner.
    let again = load_shared("content hash", || Err(WindowError("loaded anew".into()))).unwrap_err();
    assert_eq!(again.to_string(), "loaded anew");
}

#[test]
fn waiting_ends_when_the_worker_ends() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let (mut client, stream) = Stream::open(&plan(44_100, 256), 1, 1, &scheduler);
    drop(stream);
    let mut block = [0.5; 1_000];
    let ended = client.process_blocking(&mut [&mut block[..]], &mut NoStems, PATIENCE);
    assert_eq!(ended, Err(BlockingError::Stopped));
    assert_eq!(client.status().state(), State::Stopped);
    // The dry signal continues, offline and live.
    let latency = client.latency().len();
    let mut rest = vec![0.0; latency];
    client.process(&mut [&mut rest[..]], &mut NoStems);
    assert_eq!(rest.iter().filter(|x| **x == 0.5).count(), 1_000.min(latency));
}

#[test]
fn a_stuck_model_times_out_and_a_panicking_one_is_reported() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let (mut client, stream) = Stream::open(&plan(44_100, 256), 1, 1, &scheduler);
    stream
        .swap(Some(
            Fake::new(1, 1, |_, _| {
                std::thread::sleep(Duration::from_millis(400));
                Ok(())
            })
            .shared(),
        ))
        .unwrap();
    let mut block = [0.5; 2_000];
    let patience = Duration::from_millis(50);
    let ended = client.process_blocking(&mut [&mut block[..]], &mut NoStems, patience);
    assert_eq!(ended, Err(BlockingError::Timeout(patience)));
    stream.swap(Some(Fake::new(1, 1, |_, _| panic!("out of luck")).shared())).unwrap();
    let mut block = [0.5; 6_000];
    let ended = client.process_blocking(&mut [&mut block[..]], &mut NoStems, PATIENCE);
    assert!(matches!(&ended, Err(BlockingError::Model(text)) if text.contains("out of luck")), "{ended:?}");
    // Another model recovers the stream.
    stream.swap(Some(fixed_split(&[1.0], 1).shared())).unwrap();
    let mut block = [0.5; 6_000];
    let mut result = Ok(());
    for _ in 0..3 {
        result = client.process_blocking(&mut [&mut block[..]], &mut NoStems, PATIENCE);
    }
    assert_eq!((result, client.status().state()), (Ok(()), State::Running));
}

#[test]
fn the_worker_finds_live_input_by_itself() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let (mut client, stream) = Stream::open(&plan(44_100, 256), 1, 1, &scheduler);
    stream.swap(Some(fixed_split(&[1.0], 1).shared())).unwrap();
    let begun = std::time::Instant::now();
    while client.status().windows() < 3 && begun.elapsed() < PATIENCE {
        client.process(&mut [&mut [0.5; 256][..]], &mut NoStems);
        std::thread::sleep(Duration::from_millis(6));
    }
    assert!(client.status().windows() >= 3);
}

#[test]
fn stale_stems_are_never_played_at_any_speed() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let plan = plan(44_100, 512);
    let (mut client, stream) = Stream::open(&plan, 1, 1, &scheduler);
    client.set_carrier(None);
    stream.swap(Some(fixed_split(&[0.5], 1).shared())).unwrap();
    let input = noise(17, 400_000, 0.5);
    let (mut random, mut call) = (random_blocks(4, 512), 0);
    let out = feed(std::slice::from_ref(&input), 1, &mut random, &mut |main, buses| {
        call += 1;
        client.process(main, buses);
        // In real time until there are windows, then much faster, with some waits.
        match call % 64 {
            _ if client.status().windows() < 3 => std::thread::sleep(Duration::from_millis(4)),
            0 => std::thread::sleep(Duration::from_millis(2)),
            n if n % 7 == 0 => std::thread::yield_now(),
            _ => {}
        }
    });
    let expected = delayed(&input, plan.latency().0);
    assert_eq!(bits(&out.main[0]), bits(&expected));
    for (i, (stem, x)) in out.stems[0][0].iter().zip(&expected).enumerate() {
        let share = if *x == 0.0 { *stem } else { stem / x };
        assert!((-1e-6..=0.5 + 1e-6).contains(&share), "{i}: {stem} of {x}");
    }
    assert!(client.status().windows() >= 3);
}

#[test]
fn sixteen_live_streams_are_served_fairly() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let model = Fake::new(1, 1, |window, out| {
        out.copy_from_slice(window);
        Ok(())
    })
    .shared();
    let mut streams: Vec<_> = (0..16).map(|_| Stream::open(&plan(44_100, 256), 1, 1, &scheduler)).collect();
    for (_, stream) in &streams {
        stream.swap(Some(model.clone())).unwrap();
    }
    let mut windows = vec![0; streams.len()];
    for _ in 0..10_000 {
        for ((client, _), windows) in streams.iter_mut().zip(&mut windows) {
            let mut block = [0.5; 256];
            client.process(&mut [&mut block[..]], &mut NoStems);
            *windows = client.status().windows();
        }
        // On a stalled machine some streams skip windows. A starved stream has few windows, however long the test runs.
        if windows.iter().all(|windows| *windows >= 12) || windows.iter().any(|windows| *windows >= 96) {
            break;
        }
        std::thread::sleep(Duration::from_millis(6));
    }
    assert!(windows.iter().all(|windows| *windows >= 12), "{windows:?}");
}

#[test]
fn nothing_waits_for_a_window_that_runs() {
    let _threads = in_threads();
    // A layer of this model takes a second, a window a minute.
    let slow = || {
        Fake::new(1, 1, |_, _| {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        })
    };
    for whole in [false, true] {
        let scheduler = Scheduler::new().unwrap();
        let (mut client, stream) = Stream::open(&plan(44_100, 256), 1, 1, &scheduler);
        stream.swap(Some(slow().shared())).unwrap();
        for _ in 0..40 {
            client.process(&mut [&mut [0.5; 256][..]], &mut NoStems);
        }
        std::thread::sleep(Duration::from_millis(200));
        let begun = std::time::Instant::now();
        drop(stream);
        if whole {
            drop(scheduler);
        }
        assert!(begun.elapsed() < Duration::from_millis(150), "{:?}", begun.elapsed());
        // The client plays on.
        client.process(&mut [&mut [0.5; 256][..]], &mut NoStems);
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn streams_come_and_play_while_another_runs_a_long_window() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let (mut slow_client, slow_stream) = Stream::open(&plan(44_100, 256), 1, 1, &scheduler);
    slow_stream.swap(Some(Cancellable { layers: 100, layer: Duration::from_millis(20) }.shared())).unwrap();
    let (mut client, stream) = Stream::open(&plan(44_100, 256), 1, 1, &scheduler);
    stream.swap(Some(fixed_split(&[1.0], 1).shared())).unwrap();
    let begun = std::time::Instant::now();
    while client.status().windows() < 20 && begun.elapsed() < PATIENCE {
        for client in [&mut slow_client, &mut client] {
            client.process(&mut [&mut [0.5; 256][..]], &mut NoStems);
        }
        std::thread::sleep(Duration::from_millis(6));
    }
    // Twenty hops of 20 ms, while a window of the other takes two seconds.
    assert!(begun.elapsed() < Duration::from_millis(1_800), "{:?}", begun.elapsed());
    assert!(slow_client.status().windows() <= 1);
}

#[test]
fn a_window_that_runs_ends_within_a_layer_when_its_stream_goes() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let (mut client, stream) = Stream::open(&plan(44_100, 256), 1, 1, &scheduler);
    let model = Cancellable { layers: 10_000, layer: Duration::from_millis(2) }.shared();
    stream.swap(Some(model.clone())).unwrap();
    for _ in 0..40 {
        client.process(&mut [&mut [0.5; 256][..]], &mut NoStems);
    }
    std::thread::sleep(Duration::from_millis(100));
    drop(stream);
    let begun = std::time::Instant::now();
    // The model is free again: this would wait for twenty seconds.
    let error = model.separate_window(&[0.5; 64], MaskRule::Plain, &mut [0.0; 64]);
    assert!(error.is_ok() && begun.elapsed() < PATIENCE);
}

#[test]
fn a_render_waits_as_long_as_the_worker_makes_progress_for_others() {
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let patience = Duration::from_millis(300);
    let render = |layers: usize| {
        let (client, stream) = Stream::open(&plan(44_100, 256), 1, 1, &scheduler);
        stream.swap(Some(Cancellable { layers, layer: Duration::from_millis(50) }.shared())).unwrap();
        (client, stream)
    };
    let (mut first, _first_stream) = render(30);
    let (mut second, _second_stream) = render(1);
    std::thread::scope(|scope| {
        // A window of the first takes longer than the second is patient.
        scope.spawn(|| first.process_blocking(&mut [&mut [0.5; 1_400][..]], &mut NoStems, patience).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        second.process_blocking(&mut [&mut [0.5; 1_400][..]], &mut NoStems, patience).unwrap();
    });
}

#[test]
fn a_flag_of_the_audio_thread_wakes_another_thread() {
    use std::sync::atomic::AtomicBool;
    let _threads = in_threads();
    let scheduler = Scheduler::new().unwrap();
    let (flag, woken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let counter = woken.clone();
    let forward = scheduler.forward(flag.clone(), move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let wait_for = |count| {
        (0..2_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            woken.load(Ordering::SeqCst) == count
        })
    };
    flag.store(true, Ordering::SeqCst);
    assert!(wait_for(1));
    flag.store(true, Ordering::SeqCst);
    assert!(wait_for(2));
    drop(forward);
    std::thread::sleep(Duration::from_millis(100));
    flag.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(woken.load(Ordering::SeqCst), 2);
}
