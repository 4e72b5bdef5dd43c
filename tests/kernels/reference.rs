//! The mathematics in f64, written for readability.

/// A small generator (splitmix64), so that the tests need no crate and repeat exactly.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// An integer below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// `n` values of that deviation, nearly normal.
    pub fn normal(&mut self, n: usize, deviation: f64) -> Vec<f32> {
        (0..n)
            .map(|_| ((0..4).map(|_| self.uniform()).sum::<f64>() - 2.0) * 3f64.sqrt() * deviation)
            .map(|v| v as f32)
            .collect()
    }

    /// `n` values around `mean`.
    pub fn around(&mut self, mean: f32, deviation: f64, n: usize) -> Vec<f32> {
        self.normal(n, deviation).iter().map(|v| mean + v).collect()
    }
}

/// Rows of gamma.len() values: x / max(‖x‖, 1e-12) · √n · gamma.
pub fn rms_norm(x: &[f64], gamma: &[f32]) -> Vec<f64> {
    let n = gamma.len();
    let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
    x.chunks_exact(n)
        .flat_map(|row| {
            let factor = (n as f64).sqrt() / norm(row);
            row.iter().zip(gamma).map(move |(v, &g)| v * factor * f64::from(g))
        })
        .collect()
}

/// Rows of k values times weight [n, k] transposed, plus bias.
pub fn linear(x: &[f64], weight: &[f32], bias: Option<&[f32]>, k: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for row in x.chunks_exact(k) {
        for (j, w) in weight.chunks_exact(k).enumerate() {
            let dot: f64 = row.iter().zip(w).map(|(a, &b)| a * f64::from(b)).sum();
            out.push(dot + bias.map_or(0.0, |bias| f64::from(bias[j])));
        }
    }
    out
}

/// Interleaved pairs turned by position · freq; the angle in f32, as the reference implementation has it.
pub fn rotate(row: &mut [f64], position: usize, freqs: &[f32]) {
    for (pair, &freq) in row.chunks_exact_mut(2).zip(freqs) {
        let (s, c) = f64::from(position as f32 * freq).sin_cos();
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * c - b * s;
        pair[1] = b * c + a * s;
    }
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// x · Φ(x) through a series near zero and a continued fraction in the tail.
pub fn gelu(x: f64) -> f64 {
    let z = x.abs() / 2f64.sqrt();
    let tail = if z < 2.5 {
        let (mut term, mut sum, mut n) = (z, z, 0.0);
        while term.abs() > 1e-18 * sum {
            n += 1.0;
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
            if n > 200.0 || term == 0.0 {
                break;
            }
        }
        1.0 - 2.0 / std::f64::consts::PI.sqrt() * sum
    } else {
        let mut f = 0.0;
        for k in (1..=80).rev() {
            f = f64::from(k) / 2.0 / (z + f);
        }
        (-z * z).exp() / std::f64::consts::PI.sqrt() / (z + f)
    };
    let phi = 0.5 * tail;
    if x < 0.0 { x * phi } else { x - x * phi }
}
