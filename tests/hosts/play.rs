//! Runs a signal through a host, block by block.

use std::time::{Duration, Instant};

use crate::host::{Buses, Host};
use crate::signal::Random;

/// Sizes of successive blocks.
pub enum Blocks {
    /// All equal.
    Fixed(usize),
    /// From 1 to the maximum, often one of the two.
    Random(Random, usize),
}

impl Blocks {
    /// Random sizes up to `maximum`.
    pub fn random(seed: u64, maximum: usize) -> Self {
        Blocks::Random(Random::new(seed), maximum)
    }

    /// The next size.
    pub fn next(&mut self) -> usize {
        match self {
            Blocks::Fixed(size) => *size,
            Blocks::Random(random, maximum) => match random.below(8) {
                0 => 1,
                1 => *maximum,
                _ => 1 + random.below(*maximum),
            },
        }
    }
}

/// Plays the whole input. `before(host, position)` runs before each block.
pub fn play_with<H: Host>(
    host: &mut H,
    input: &[Vec<f32>],
    mut blocks: Blocks,
    mut before: impl FnMut(&mut H, usize),
) -> Buses {
    let total = input[0].len();
    let mut played: Buses = Vec::new();
    let mut position = 0;
    while position < total {
        let size = blocks.next().min(total - position);
        before(host, position);
        let block: Vec<&[f32]> = input.iter().map(|channel| &channel[position..position + size]).collect();
        let output = host
            .process(&block)
            .unwrap_or_else(|error| panic!("{}: block of {size} at {position}: {error}", H::FORMAT));
        if played.is_empty() {
            played = output;
        } else {
            for (bus, new) in played.iter_mut().zip(output) {
                for (channel, new) in bus.iter_mut().zip(new) {
                    channel.extend(new);
                }
            }
        }
        host.service();
        position += size;
    }
    for (bus, channels) in played.iter().enumerate() {
        for channel in channels {
            assert_eq!(channel.len(), total, "{}: bus {bus} lacks samples", H::FORMAT);
        }
    }
    played
}

/// Plays until the plugin requests a restart, and drops the last block. Returns whether it did. `before(position)` runs before each block.
pub fn play_until_restart<H: Host>(
    host: &mut H,
    input: &[Vec<f32>],
    mut blocks: Blocks,
    mut before: impl FnMut(usize),
) -> (Vec<Vec<f32>>, bool) {
    let total = input[0].len();
    let mut played = vec![Vec::with_capacity(total); input.len()];
    let mut position = 0;
    while position < total {
        before(position);
        let size = blocks.next().min(total - position);
        let block: Vec<&[f32]> = input.iter().map(|channel| &channel[position..position + size]).collect();
        let output = host.process(&block).unwrap_or_else(|error| panic!("{}: {error}", H::FORMAT));
        if host.service() {
            return (played, true);
        }
        for (channel, new) in played.iter_mut().zip(&output[0]) {
            channel.extend_from_slice(new);
        }
        position += size;
    }
    (played, false)
}

/// Plays the whole input.
pub fn play<H: Host>(host: &mut H, input: &[Vec<f32>], blocks: Blocks) -> Buses {
    play_with(host, input, blocks, |_, _| ())
}

/// Fails unless `output` is `input` delayed by `latency`, bit for bit, with zeros before.
pub fn assert_delayed(what: &str, input: &[Vec<f32>], output: &[Vec<f32>], latency: usize) {
    assert_eq!(input.len(), output.len(), "{what}: channels");
    assert!(output.iter().all(|channel| channel.len() <= input[0].len()), "{what}: too many samples");
    for (channel, (input, output)) in input.iter().zip(output).enumerate() {
        for (n, &sample) in output.iter().enumerate() {
            let expected = if n < latency { 0.0 } else { input[n - latency] };
            assert!(
                sample.to_bits() == expected.to_bits() || (sample == 0.0 && expected == 0.0),
                "{what}: channel {channel}, sample {n} (latency {latency}): {sample:e} instead of {expected:e}"
            );
        }
    }
}

/// Plays a signal that is longer than the latency by `samples`, and fails unless the output is the delayed input, bit for bit.
pub fn assert_unity<H: Host>(
    what: &str,
    host: &mut H,
    signal: fn(usize, usize) -> Vec<Vec<f32>>,
    (channels, samples): (usize, usize),
    blocks: Blocks,
) {
    let latency = host.latency();
    let input = signal(channels, latency + samples);
    let output = play(host, &input, blocks);
    assert_finite(what, &output);
    assert_delayed(what, &input, &output[0], latency);
}

/// Fails if a sample of any bus is NaN or infinite.
pub fn assert_finite(what: &str, buses: &Buses) {
    for (bus, channels) in buses.iter().enumerate() {
        for channel in channels {
            if let Some(n) = channel.iter().position(|sample| !sample.is_finite()) {
                panic!("{what}: {} at sample {n} of bus {bus}", channel[n]);
            }
        }
    }
}

/// The largest difference of two signals.
pub fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// An endless song, played block by block and checked on the way.
pub struct Song {
    /// `[channel]`: the period twice, so that any block and its delayed copy are slices.
    samples: Vec<Vec<f32>>,
    period: usize,
    position: usize,
    /// Position of the last start of the plugin. Silence comes before.
    origin: usize,
    /// In real time, when which position was due.
    started: Option<(Instant, usize)>,
}

/// What was heard of a part of a song.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Blocks equal to the delayed input, bit for bit.
    pub exact: usize,
    /// Other blocks.
    pub changed: usize,
}

impl Song {
    /// Repeats `period`, a stereo signal.
    pub fn new(mut period: Vec<Vec<f32>>) -> Self {
        let length = period[0].len();
        period.iter_mut().for_each(|channel| channel.extend_from_within(..));
        Self { samples: period, period: length, position: 0, origin: 0, started: None }
    }

    /// The plugin restarts here.
    pub fn restart(&mut self) {
        self.origin = self.position;
    }

    /// Plays at full speed again.
    pub fn hurry(&mut self) {
        self.started = None;
    }

    /// Samples played.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Plays in real time from now on, as a sound card would.
    pub fn keep_time(&mut self) {
        self.started = Some((Instant::now(), self.position));
    }

    /// Plays a block. Returns whether it was the delayed input. Fails on a sample that is not a number or louder than any mix.
    pub fn block<H: Host>(&mut self, host: &mut H, size: usize) -> bool {
        if let Some((started, from)) = self.started {
            let due = started + Duration::from_micros((self.position - from) as u64 * 1_000_000 / 44100);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let latency = host.latency();
        let from = self.position % self.period;
        let input: Vec<&[f32]> = self.samples.iter().map(|channel| &channel[from..from + size]).collect();
        let output = host
            .process(&input)
            .unwrap_or_else(|error| panic!("{}: block of {size} at {}: {error}", H::FORMAT, self.position));
        assert_finite(H::FORMAT, &output);
        let sounded = |n: usize| (self.position + n).checked_sub(latency).filter(|at| *at >= self.origin);
        let delayed = |n: usize| sounded(n).map(|at| at % self.period);
        let exact =
            output[0].iter().zip(&self.samples).all(|(output, samples)| match (delayed(0), delayed(size)) {
                (Some(begin), Some(_)) => output[..] == samples[begin..begin + size],
                _ => output.iter().enumerate().all(|(n, y)| *y == delayed(n).map_or(0.0, |at| samples[at])),
            });
        self.position += size;
        exact
    }

    /// Plays `seconds` at 44.1 kHz in blocks of `size`.
    pub fn play<H: Host>(&mut self, host: &mut H, size: usize, seconds: f64) -> Heard {
        let mut heard = Heard::default();
        for _ in 0..(seconds * 44100.0) as usize / size {
            if self.block(host, size) {
                heard.exact += 1;
            } else {
                heard.changed += 1;
            }
            host.service();
        }
        heard
    }
}
