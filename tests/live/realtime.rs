//! The audio thread allocates nothing.

use nullsum::live::{StemPlanes, Stream};

use crate::support::*;

#[cfg(not(feature = "assert_process_allocs"))]
use counting::allocations;

/// A program has one global allocator. With this feature it is the plugin wrapper's, which aborts at the first allocation.
#[cfg(feature = "assert_process_allocs")]
fn allocations(work: impl FnOnce()) -> usize {
    nice_assert_no_alloc::assert_no_alloc(work);
    0
}

#[cfg(not(feature = "assert_process_allocs"))]
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    /// The system's allocator, which counts allocations and frees of the watched threads.
    struct Counting;

    thread_local! {
        static WATCHED: Cell<bool> = const { Cell::new(false) };
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }

    fn count() {
        // Thread-local values are gone while a thread ends; it is then not watched.
        let _ = WATCHED.try_with(|watched| {
            if watched.get() {
                COUNT.with(|count| count.set(count.get() + 1));
            }
        });
    }

    // SAFETY: every call is forwarded unchanged to the system's allocator; counting only touches cells that need no allocation.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count();
            // SAFETY: the caller's contract is forwarded.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            count();
            // SAFETY: the caller's contract is forwarded.
            unsafe { System.dealloc(pointer, layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            count();
            // SAFETY: the caller's contract is forwarded.
            unsafe { System.realloc(pointer, layout, size) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// Allocations and frees of `work` on this thread.
    pub fn allocations(work: impl FnOnce()) -> usize {
        COUNT.with(|count| count.set(0));
        WATCHED.with(|watched| watched.set(true));
        work();
        WATCHED.with(|watched| watched.set(false));
        COUNT.with(Cell::get)
    }
}

#[cfg(not(feature = "assert_process_allocs"))]
#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), 2);
}

#[test]
fn process_never_allocates() {
    for rate in [44_100, 48_000] {
        let plan = plan(rate, 1_024);
        let (mut client, mut engine) = Stream::manual(&plan, 4, 2);
        engine.swap(Some(level_dependent(4, 2).shared())).unwrap();
        let mut call = 0u32;
        let mut made = 0;
        feed(
            &[noise(1, 60_000, 1.0), noise(2, 60_000, 1.0)],
            4,
            &mut random_blocks(2, 8_192),
            &mut |main, buses| {
                call += 1;
                made += allocations(|| {
                    match call % 13 {
                        3 => client.set_gain(
                            (call % 4) as usize,
                            (call % 2) as usize,
                            0.1 * (call % 17) as f32,
                        ),
                        4 => client.set_wet((call % 2) as f32),
                        5 => client.set_carrier(call.is_multiple_of(2).then_some(1)),
                        8 if call.is_multiple_of(3) => client.reset(),
                        10 => client.jump(),
                        _ => {}
                    }
                    client.process(main, &mut StemPlanes { planes: buses.planes, channels: 2 });
                });
                // At times the worker does not run.
                if call % 29 < 20 {
                    engine.run_until_idle();
                }
            },
        );
        assert!(call > 20);
        assert_eq!(made, 0);
    }
}

/// Prints what the audio thread costs. Run it by name, in release: `cargo test --release --test live cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn cost_of_the_audio_thread() {
    let plan = plan(48_000, 128);
    let (mut client, mut engine) = Stream::manual(&plan, 4, 2);
    engine.swap(Some(fixed_split(&[0.1, 0.2, 0.3, 0.4], 2).shared())).unwrap();
    client.set_gain(0, 0, 0.5);
    client.set_gain(1, 1, 0.0);
    let mut spent = std::time::Duration::ZERO;
    feed(&[noise(1, 480_000, 0.5), noise(2, 480_000, 0.5)], 4, &mut || 128, &mut |main, buses| {
        let started = std::time::Instant::now();
        client.process(main, buses);
        spent += started.elapsed();
        engine.run_until_idle();
    });
    println!("48 kHz, blocks of 128, 4 stereo stems on buses: {:.3} % of a core", 10.0 * spent.as_secs_f64());
}
