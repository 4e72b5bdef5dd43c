//! What the end of a piece of work says about the stream: its cost, its state, its errors.

use super::super::status::State;
use super::super::work::{Outcome, Work};
use super::{Engine, FlightKind};

impl Engine {
    /// Records cost and state. False if there are no stems.
    pub(super) fn note_outcome(&mut self, work: &Work, outcome: Outcome, kind: FlightKind) -> bool {
        let status = self.shared.status.clone();
        let primes = matches!(kind, FlightKind::Prime);
        let message = match outcome {
            Outcome::Cancelled { seconds } => {
                if self.shared.reset() == self.reset && !primes {
                    self.note_cost(work, Some(seconds));
                }
                return false;
            }
            Outcome::Failed(message) => {
                status.set_state(State::Failing);
                message
            }
            Outcome::Panicked(message) => {
                self.incoming = self.incoming.take().filter(|incoming| !incoming.model.is(&work.model));
                if self.model.as_ref().is_some_and(|model| model.is(&work.model)) {
                    self.replace_model(None, State::Panicked);
                }
                message
            }
            Outcome::Done { seconds } => {
                status.count_cleaned(work.cleaned);
                if !primes {
                    self.note_cost(work, seconds);
                }
                return true;
            }
        };
        status.set_message(Some(message));
        false
    }

    fn note_cost(&mut self, work: &Work, seconds: Option<f64>) {
        let is_current = self.model.as_ref().is_some_and(|model| model.is(&work.model));
        if let Some(seconds) = seconds.filter(|_| is_current) {
            // The cost of a usual hop.
            self.cost.record(seconds / work.frames.map_or(1.0, |frames| frames.size));
        }
        let status = &self.shared.status;
        let average = self.cost.average().unwrap_or(0.0);
        status.count_window(average, self.plan.load(average), self.cost.percentile(0.95));
        // After a failure, too.
        let state = if self.suspended { State::TooSlow } else { State::Running };
        if status.state() != state {
            status.set_state(state);
            status.set_message(None);
        }
    }
}
