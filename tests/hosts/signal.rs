//! Test signals, equal in every run.

/// A generator of uniform 32-bit numbers (xorshift).
pub struct Random(u64);

impl Random {
    /// Equal seeds give equal numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Uniform over `u32`.
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    /// Uniform in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }
}

/// Floats of many magnitudes, up to ±2, so that any rounding shows.
pub fn floats(channels: usize, samples: usize) -> Vec<Vec<f32>> {
    (0..channels)
        .map(|channel| {
            let mut random = Random::new(7 + channel as u64);
            (0..samples)
                .map(|_| {
                    let fraction = random.next() as f32 / u32::MAX as f32 - 0.5;
                    fraction * 2f32.powi(2 - random.below(24) as i32)
                })
                .collect()
        })
        .collect()
}

/// Multiples of 2⁻²³ within ±0.5, as 24-bit files hold them: tones with a little noise.
pub fn grid(channels: usize, samples: usize) -> Vec<Vec<f32>> {
    (0..channels)
        .map(|channel| {
            let mut random = Random::new(77 + channel as u64);
            (0..samples)
                .map(|n| {
                    let t = n as f64 / 44100.0;
                    let beat = (-12.0 * (t * 2.0).fract()).exp();
                    let tones = 0.12 * (691.0 * t).sin() + 0.08 * (2764.6 * t + channel as f64).sin();
                    let noise = 0.2 * beat * (f64::from(random.next()) / f64::from(u32::MAX) - 0.5);
                    ((tones + noise) * 8_388_608.0).round() as f32 / 8_388_608.0
                })
                .collect()
        })
        .collect()
}

/// Silence with one sample of `height` at `position`.
pub fn impulse(channels: usize, samples: usize, position: usize, height: f32) -> Vec<Vec<f32>> {
    let mut channel = vec![0.0; samples];
    channel[position] = height;
    vec![channel; channels]
}
