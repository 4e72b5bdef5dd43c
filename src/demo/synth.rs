//! Oscillator, filter and reverb shared by all instruments.

use std::f32::consts::PI;

use super::{SAMPLE_RATE, Stereo};

/// Samples per second, as a number to divide by.
pub const RATE: f32 = SAMPLE_RATE as f32;

/// A sawtooth without audible aliasing.
#[derive(Default)]
pub struct Saw {
    phase: f32,
}

impl Saw {
    /// Begins somewhere in its period, from 0 to 1.
    pub fn new(phase: f32) -> Self {
        Self { phase }
    }

    /// The next sample at `hertz`.
    pub fn next(&mut self, hertz: f32) -> f32 {
        let step = hertz / RATE;
        self.phase = (self.phase + step).fract();
        let t = self.phase;
        // Rounds the jump off over one sample at either side.
        let blep = if t < step {
            let x = t / step;
            2.0 * x - x * x - 1.0
        } else if t > 1.0 - step {
            let x = (t - 1.0) / step;
            x * x + 2.0 * x + 1.0
        } else {
            0.0
        };
        2.0 * t - 1.0 - blep
    }
}

/// A filter of second order with low, band and high outputs, stable while its frequency moves.
#[derive(Default)]
pub struct Filter {
    band: f32,
    low: f32,
}

/// Outputs of [`Filter`].
pub struct Outputs {
    /// Below the frequency.
    pub low: f32,
    /// Around it, 0 dB at the peak.
    pub band: f32,
    /// Above it.
    pub high: f32,
}

impl Filter {
    /// The next sample. `q` is 0.7 for no peak.
    pub fn next(&mut self, x: f32, hertz: f32, q: f32) -> Outputs {
        let g = (PI * (hertz / RATE).min(0.45)).tan();
        let k = 1.0 / q;
        let high = (x - self.low - (g + k) * self.band) / (1.0 + g * (g + k));
        let band = g * high + self.band;
        let low = g * band + self.low;
        self.band = g * high + band;
        self.low = g * band + low;
        Outputs { low, band: k * band, high }
    }
}

pub fn silence(samples: usize) -> Stereo {
    [vec![0.0; samples], vec![0.0; samples]]
}

/// Adds a mono sound at sample `at`; `pan` runs from −1 (left) to 1. What reaches past the end is dropped.
pub fn add(track: &mut Stereo, at: usize, pan: f32, sound: impl Iterator<Item = f32>) {
    let angle = (pan + 1.0) * PI / 4.0;
    let [left, right] = track;
    for ((l, r), x) in left.iter_mut().zip(right).skip(at).zip(sound) {
        *l += x * angle.cos();
        *r += x * angle.sin();
    }
}

/// Exponential decay from 1, to 1/1000 after `seconds`.
pub fn decay(i: usize, seconds: f32) -> f32 {
    (-6.9 * i as f32 / (seconds * RATE)).exp()
}

/// Adds reverb: four comb filters and an all-pass per channel, with different lengths left and right.
pub fn room(track: &mut Stereo, wet: f32) {
    const LENGTHS: [[usize; 4]; 2] = [[1557, 1617, 1491, 1422], [1580, 1640, 1514, 1445]];
    for (channel, lengths) in track.iter_mut().zip(LENGTHS) {
        let mut combs = lengths.map(|length| (vec![0.0f32; length], 0.0f32));
        let mut pass = vec![0.0f32; 556];
        for (i, x) in channel.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (line, damped) in &mut combs {
                let place = i % line.len();
                let out = line[place];
                *damped = 0.7 * out + 0.3 * *damped;
                line[place] = *x + 0.78 * *damped;
                sum += out;
            }
            let place = i % pass.len();
            let delayed = pass[place];
            pass[place] = 0.25 * sum + 0.5 * delayed;
            *x += wet * (delayed - 0.5 * pass[place]);
        }
    }
}

/// Adds ping-pong echoes.
pub fn echo(track: &mut Stereo, delay_seconds: f32, gain: f32) {
    let delay = (delay_seconds * RATE) as usize;
    let [left, right] = track;
    for i in delay..left.len() {
        let (l, r) = (left[i - delay], right[i - delay]);
        left[i] += gain * r;
        right[i] += gain * l;
    }
}
