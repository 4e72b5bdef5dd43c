//! From the stems at the model's rate to the rings of the client.

use super::{Engine, Step};

impl Engine {
    /// Drops what no hop after `last` needs.
    pub(super) fn pass_hops(&mut self, last: u64, step: Step) -> Step {
        self.overlap.extend(self.plan.model_needed_for(last) as i64);
        let (host, model) = self.plan.ratio();
        let first_host = self.plan.final_host(last) as i64;
        self.overlap.forget(first_host * model as i64 / host as i64 - self.up_reach as i64 - 1);
        step
    }

    /// Writes final stems from stream position `from` to `until`, without publishing them.
    pub(super) fn write_final(&mut self, from: u64, until: u64) {
        for stem_channel in 0..self.shared.stems * self.shared.channels {
            if self.shared.is_allocated(stem_channel) {
                self.at_host_rate(stem_channel, from, until);
                self.shared.write_final(stem_channel, from, &self.output);
            }
        }
        if from != self.available.until {
            self.available.from = from;
        }
        self.available.until = until;
    }

    /// Writes the lookahead, provisional stems from stream position `from` on, and publishes what is available.
    pub(super) fn write_provisional(&mut self, from: u64) {
        let until = self.start + self.plan.host_available(self.overlap.known());
        let slot = self.shared.provisional.claim(self.available.slot).filter(|_| from < until);
        if let Some(slot) = slot {
            for stem_channel in 0..self.shared.stems * self.shared.channels {
                if self.shared.is_allocated(stem_channel) {
                    self.at_host_rate(stem_channel, from, until);
                    self.shared.provisional.write(slot, stem_channel, from, &self.output);
                }
            }
            self.shared.provisional.release(slot, from, until);
        }
        self.available.slot = slot;
        self.shared.publish(self.available);
    }

    /// Fills `output` with samples of a stem channel at the host's rate.
    fn at_host_rate(&mut self, stem_channel: usize, from: u64, until: u64) {
        let at = from as i64 - self.start as i64;
        let samples = self.overlap.samples(stem_channel);
        self.output.clear();
        self.output.resize(until.saturating_sub(from) as usize, 0.0);
        match &self.up {
            Some(up) => up.resample(samples, self.overlap.first(), at, &mut self.output),
            None => {
                let begin = usize::try_from(at - self.overlap.first()).unwrap_or(0);
                let source = samples.get(begin..).unwrap_or(&[]);
                for (x, y) in self.output.iter_mut().zip(source) {
                    *x = *y;
                }
            }
        }
    }
}
