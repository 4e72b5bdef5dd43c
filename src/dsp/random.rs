//! Seeded random numbers, the same on every platform.

/// SplitMix64 generator; not for cryptography.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator with its own sequence for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform in [−1, 1).
    pub fn bipolar(&mut self) -> f32 {
        2.0 * self.unit() - 1.0
    }

    /// `samples` samples of white noise, uniform in [−peak, peak).
    pub fn noise(&mut self, samples: usize, peak: f32) -> Vec<f32> {
        (0..samples).map(|_| peak * self.bipolar()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut random = Random::new(1_234_567);
        let first = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(first.map(|_| random.bits()), first);
    }

    #[test]
    fn noise_fills_its_range_evenly_and_stays_in_it() {
        let noise = Random::new(1).noise(10_000, 0.5);
        assert!(noise.iter().all(|x| (-0.5..0.5).contains(x)));
        let mean = noise.iter().sum::<f32>() / noise.len() as f32;
        let power = noise.iter().map(|x| x * x).sum::<f32>() / noise.len() as f32;
        assert!(mean.abs() < 0.02 && (power - 0.25 / 3.0).abs() < 0.005, "mean {mean}, power {power}");
    }
}
