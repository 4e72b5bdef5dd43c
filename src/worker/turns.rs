//! The order of jobs on a device: one at a time, the one that is due first before the others, background work last.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How often a job that waits looks whether it was cancelled.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Jobs of all connections take turns.
#[derive(Debug, Default)]
pub struct Turns {
    state: Mutex<TurnState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct TurnState {
    is_taken: bool,
    next_serial: u64,
    waiting: BTreeSet<Ticket>,
}

/// Sorted by urgency. Jobs that are due at the same time take turns in the order of their arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket {
    is_background: bool,
    due: Instant,
    serial: u64,
}

/// The device is taken as long as this lives.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for the device. None if `is_cancelled` returns true before it is free.
    pub fn wait(
        &self,
        due: Instant,
        is_background: bool,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        let ticket = Ticket { is_background, due, serial: state.next_serial };
        state.next_serial += 1;
        state.waiting.insert(ticket);
        loop {
            if !state.is_taken && state.waiting.first() == Some(&ticket) {
                state.waiting.remove(&ticket);
                state.is_taken = true;
                return Some(Turn(self));
            }
            if is_cancelled() {
                state.waiting.remove(&ticket);
                // It may have been the first.
                self.changed.notify_all();
                return None;
            }
            self.changed.wait_for(&mut state, LOOK_INTERVAL);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_taken = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;

    #[test]
    fn the_job_that_is_due_first_goes_first_and_background_work_last() {
        let turns = Arc::new(Turns::default());
        let order = Arc::<Mutex<Vec<u32>>>::default();
        let now = Instant::now();
        let first = turns.wait(now, false, &|| false).unwrap();
        let jobs = [(0, true, 3), (500, false, 2), (100, false, 1)].map(|(due_ms, background, name)| {
            let (turns, order) = (turns.clone(), order.clone());
            std::thread::spawn(move || {
                let turn = turns.wait(now + Duration::from_millis(due_ms), background, &|| false);
                order.lock().push(name);
                drop(turn);
            })
        });
        while turns.state.lock().waiting.len() < 3 {
            std::thread::yield_now();
        }
        drop(first);
        jobs.into_iter().for_each(|job| job.join().unwrap());
        assert_eq!(*order.lock(), [1, 2, 3]);
    }

    #[test]
    fn a_cancelled_job_stops_waiting() {
        let turns = Turns::default();
        let taken = turns.wait(Instant::now(), false, &|| false).unwrap();
        let cancelled = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| turns.wait(Instant::now(), false, &|| cancelled.load(Relaxed)).is_none());
            cancelled.store(true, Relaxed);
            assert!(waiting.join().unwrap());
        });
        drop(taken);
        assert!(turns.state.lock().waiting.is_empty());
        assert!(turns.wait(Instant::now(), true, &|| false).is_some());
    }
}
