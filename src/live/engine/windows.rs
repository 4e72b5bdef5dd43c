//! Repeated windows: every hop runs the model over the whole last window.

use super::super::model::SharedModel;
use super::super::work::{Group, Work};
use super::{Engine, Flight};

impl Engine {
    /// The window as it is now, to be run.
    pub(super) fn cut_window(&mut self, model: SharedModel) -> Work {
        let (group, channels) = (model.channels(), self.shared.channels);
        let mut groups = std::mem::take(&mut self.spare);
        groups.resize_with(channels.div_ceil(group), Group::default);
        for (g, Group { input, .. }) in groups.iter_mut().enumerate() {
            input.clear();
            for m in 0..group {
                // An odd last channel is used for both.
                input.extend_from_slice(self.input.channel((g * group + m).min(channels - 1)));
            }
        }
        Work { model, rule: self.shared.rule(), groups, cleaned: 0, frames: None }
    }

    /// Replaces the stems from the first hop's region on by those of the work.
    pub(super) fn accept_window(&mut self, work: &Work, flight: Flight) {
        let (channels, group, samples) =
            (self.shared.channels, work.model.channels(), self.plan.input_window());
        let from = self.plan.final_model(flight.first - 1).max(0).max(flight.end - samples as i64);
        self.overlap.replace(from, flight.end, true, &mut self.estimate, |stem_channel, out| {
            let (position, channel) = (stem_channel / channels, stem_channel % channels);
            let Some(stem) = work.model.stem_at(position) else { return false };
            let Some(Group { stems, .. }) = work.groups.get(channel / group) else { return false };
            let begin = samples.saturating_sub(out.len());
            let plane = |m: usize| {
                let first = (stem * group + m) * samples;
                stems.get(first + begin..first + samples).unwrap_or(&[])
            };
            let m = channel % group;
            out.iter_mut().zip(plane(m)).for_each(|(y, x)| *y = *x);
            if group == 2 && m == 0 && channel + 1 == channels {
                out.iter_mut().zip(plane(1)).for_each(|(y, x)| *y = 0.5 * (*y + *x));
            }
            true
        });
    }
}
