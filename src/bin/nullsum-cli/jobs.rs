//! Runs jobs on several workers, one job at a time each.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs each job on the next free worker, in order. `work` gets the worker, the job's index and the job; after a `Break`
/// no further job starts. A single worker runs on the calling thread.
pub fn run_jobs<W: Send, J: Sync>(
    workers: &mut [W],
    jobs: &[J],
    work: impl Fn(&mut W, usize, &J) -> ControlFlow<()> + Sync,
) {
    let next = AtomicUsize::new(0);
    let run = |worker: &mut W| {
        while let Some((index, job)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(index).map(|job| (index, job))
        } {
            if work(worker, index, job).is_break() {
                // Each worker adds at most one more, so this cannot overflow.
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
    fn every_job_runs_once_and_in_order_with_a_single_worker() {
        for count in [1, 2, 3, 7] {
            let mut workers = vec![0usize; count];
            let jobs: Vec<usize> = (0..20).collect();
            let done = Mutex::new(Vec::new());
            run_jobs(&mut workers, &jobs, |worker, index, job| {
                *worker += 1;
                assert_eq!(index, *job);
                done.lock().unwrap().push(index);
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
    fn workers_run_concurrently() {
        let meet = Barrier::new(3);
        // Each job waits for the other two: one worker alone would wait for ever.
        run_jobs(&mut [(), (), ()], &[(); 6], |(), _, ()| {
            meet.wait();
            ControlFlow::Continue(())
        });
    }

    #[test]
    fn after_a_break_no_job_starts() {
        let begun = AtomicUsize::new(0);
        run_jobs(&mut [()], &[(); 10], |(), index, ()| {
            begun.fetch_add(1, Ordering::Relaxed);
            if index == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(begun.into_inner(), 3);
    }
}
