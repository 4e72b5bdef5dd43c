//! Hops of a stream allocate nothing once they have their memory. A test program of its own, since it counts what all threads allocate.
// With this feature nice-plug sets its own allocator.
#![cfg(not(feature = "assert_process_allocs"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use nullsum::dsp::Random;
use nullsum::model::architecture::Architecture;
use nullsum::separator::{ContextPlan, Hop, MaskRule, ModelSpec, Runtime, Separator, StreamState};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn hops_allocate_nothing_after_the_first() {
    let mut arch = Architecture::reference_default();
    (arch.dim, arch.depth, arch.heads, arch.dim_head, arch.ff_inner) = (24, 2, 3, 6, 40);
    (arch.mask_hidden, arch.num_stems) = (20, 2);
    (arch.stft.n_fft, arch.stft.hop_length, arch.stft.win_length) = (64, 16, 64);
    arch.bands = vec![(0..3).collect(), (3..14).collect(), (14..33).collect()];
    for threads in [1, 2] {
        let info = ModelSpec::random("test", arch.clone(), 4096);
        let runtime = Runtime { threads, ..Runtime::default() };
        let mut separator = Separator::random(info, 7, runtime).unwrap();
        let plan =
            ContextPlan { hop_frames: 1, lookahead_frames: 2, context_frames: 9, ..ContextPlan::default() };
        let mut streams: Vec<StreamState> = (0..3).map(|_| separator.new_stream(&plan).unwrap()).collect();
        let noise = Random::new(1).noise(2 * 16, 0.5);
        let mut hop = |frames: usize| {
            for state in &mut streams {
                for _ in 0..frames {
                    state.push(&noise).unwrap();
                }
            }
            let ready = streams[0].ready_frames().min(frames as u64) as usize;
            let [one, two, three] = &mut streams[..] else { unreachable!() };
            if ready > 0 {
                let hops = &mut [one, two, three].map(|state| Hop {
                    state,
                    frames: ready,
                    rule: MaskRule::Complete,
                });
                separator.separate_hops(hops, &()).unwrap();
            }
        };
        // The largest hop comes first, and then enough small ones for everything to have been used.
        hop(12);
        (0..40).for_each(|_| hop(1));
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..200).for_each(|k| hop(1 + k % 3 * 4));
        let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
        // A hop that allocated even once would show 200. The pool's queue takes a block for each sixty or so jobs from outside.
        assert!(made <= 200 / 10, "{threads} threads: {made} allocations in 200 hops");
    }
}
