//! Jobs dealt to workers, one job at a time to each.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Gives each of `jobs` to whichever worker is free, in order. `work` gets the worker, the job's place and the job; after a `Break` no
/// job is begun any more. A single worker works on the calling thread.
pub fn deal<W: Send, J: Sync>(
    workers: &mut [W],
    jobs: &[J],
    work: impl Fn(&mut W, usize, &J) -> ControlFlow<()> + Sync,
) {
    let next = AtomicUsize::new(0);
    let run = |worker: &mut W| {
        while let Some((place, job)) = {
            let place = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(place).map(|job| (place, job))
        } {
            if work(worker, place, job).is_break() {
                // Far from overflowing, however many workers ask once more.
                next.store(jobs.len(), Ordering::Relaxed);
            }
        }
    };
    match workers {
        [only] => run(only),
        many => std::thread::scope(|scope| {
            for worker in many {
                let run = &run;
                scope.spawn(move || run(worker));
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};

    use super::*;

    #[test]
    fn every_job_is_done_once_and_in_order_by_a_single_worker() {
        for count in [1, 2, 3, 7] {
            let mut workers = vec![0usize; count];
            let jobs: Vec<usize> = (0..20).collect();
            let done = Mutex::new(Vec::new());
            deal(&mut workers, &jobs, |worker, place, job| {
                *worker += 1;
                assert_eq!(place, *job);
                done.lock().unwrap().push(place);
                ControlFlow::Continue(())
            });
            let mut done = done.into_inner().unwrap();
            if count > 1 {
                done.sort_unstable();
            }
            assert_eq!((done, workers.iter().sum::<usize>()), (jobs, 20), "{count} workers");
        }
    }

    #[test]
    fn workers_work_at_the_same_time() {
        let meet = Barrier::new(3);
        // Each job waits for the other two: one worker alone would wait for ever.
        deal(&mut [(), (), ()], &[(); 6], |(), _, ()| {
            meet.wait();
            ControlFlow::Continue(())
        });
    }

    #[test]
    fn after_a_break_nothing_is_begun() {
        let begun = AtomicUsize::new(0);
        deal(&mut [()], &[(); 10], |(), place, ()| {
            begun.fetch_add(1, Ordering::Relaxed);
            if place == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(begun.into_inner(), 3);
    }
}
