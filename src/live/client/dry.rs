//! The delayed input alone, for an owner that has given up on everything else.

use super::{CHUNK, Client, length};

impl Client {
    /// Samples of input taken so far, from an arbitrary start.
    ///
    /// Realtime-safe.
    pub fn position(&self) -> u64 {
        self.written
    }

    /// Replaces a block of the input by the delayed input, without stems, gains or meters.
    ///
    /// Realtime-safe.
    pub fn process_dry(&mut self, main: &mut [&mut [f32]]) {
        self.shared.set_blocking(false);
        let total = length(main);
        let mut at = 0;
        while at < total {
            let count = (total - at).min(self.max_block).min(CHUNK);
            self.write_input(main, at, count);
            let position = self.written - count as u64 - self.latency;
            for (channel, plane) in main.iter_mut().enumerate() {
                let Some(plane) = plane.get_mut(at..at + count) else { continue };
                if channel < self.shared.channels {
                    self.read_dry(channel, position, count);
                    plane.iter_mut().zip(&self.scratch.dry).for_each(|(y, x)| *y = *x);
                } else {
                    plane.fill(0.0);
                }
            }
            at += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::live::{HostSamples, ModelSamples, ModelTiming, NoStems, Plan, Stream, Tier};

    #[test]
    fn the_dry_signal_stays_aligned_with_what_was_processed_before() {
        let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(ModelSamples);
        let model = ModelTiming { rate: 44_100, chunk, frame_hop, frame, context: None };
        let plan = Plan::new(Tier::Low.request(&model, 48_000, HostSamples(512))).unwrap();
        let latency = plan.latency().len();
        let (mut client, _engine) = Stream::manual(&plan, 2, 2);
        let tone = |at: usize| (at as f32 * 0.01).sin();
        for block in 0..300 {
            let samples: Vec<f32> = (block * 500..(block + 1) * 500).map(tone).collect();
            let mut planes = [samples.clone(), samples];
            let mut main = planes.each_mut().map(Vec::as_mut_slice);
            if block % 3 == 0 {
                client.process(&mut main, &mut NoStems)
            } else {
                client.process_dry(&mut main)
            }
            for (i, y) in planes[1].iter().enumerate() {
                let expected = (block * 500 + i).checked_sub(latency).map_or(0.0, tone);
                assert_eq!(*y, expected, "block {block}, sample {i}");
            }
        }
        assert_eq!(client.position() as usize - latency, 300 * 500);
    }
}
