//! Operations over rows, and their gradients.

use crate::kernels::RowOps;

/// Values summed side by side, so that the compiler can use vectors.
const LANES: usize = 16;

/// Σ a·b, in lanes.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// sqrt(n) / max(‖x‖₂, 1e-12).
fn scale_of(x: &[f32]) -> f32 {
    (x.len() as f32).sqrt() / dot(x, x).sqrt().max(1e-12)
}

/// Rows of x → x / max(‖x‖₂, 1e-12) · √n · gamma.
pub fn rms_norm(x: &[f32], gamma: &[f32], out: &mut [f32]) {
    for (x, out) in x.chunks_exact(gamma.len()).zip(out.chunks_exact_mut(gamma.len())) {
        let scale = scale_of(x);
        for ((out, x), gamma) in out.iter_mut().zip(x).zip(gamma) {
            *out = x * scale * gamma;
        }
    }
}

/// The gradient of [`rms_norm`], given that of its result: adds that of gamma, and that of x to `x_gradient`.
pub fn rms_norm_backward(
    x: &[f32],
    gamma: &[f32],
    gradient: &[f32],
    gamma_gradient: &mut [f32],
    x_gradient: &mut [f32],
) {
    let n = gamma.len();
    let rows = x.chunks_exact(n).zip(gradient.chunks_exact(n)).zip(x_gradient.chunks_exact_mut(n));
    for ((x, g), out) in rows {
        let scale = scale_of(x);
        // y = s·x·gamma with s = √n/‖x‖: dx = s·(g·gamma − x·⟨g·gamma, x⟩/‖x‖²)
        let mut lanes = [0.0f32; LANES];
        for (i, ((x, g), (gamma, sum))) in
            x.iter().zip(g).zip(gamma.iter().zip(gamma_gradient.iter_mut())).enumerate()
        {
            *sum += g * x * scale;
            lanes[i % LANES] += g * gamma * x;
        }
        let along = lanes.iter().sum::<f32>() * scale * scale / n as f32;
        for ((out, x), (g, gamma)) in out.iter_mut().zip(x).zip(g.iter().zip(gamma)) {
            *out += scale * (g * gamma - x * along);
        }
    }
}

/// Adds a bias to every row.
pub fn add_bias(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }
}

/// Adds the sum of all rows to `sum`.
pub fn add_rows(x: &[f32], sum: &mut [f32]) {
    for row in x.chunks_exact(sum.len()) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
}

/// gradient ← gradient · gelu'(x), where `gelu` is the function's value at x.
pub fn gelu_backward(x: &[f32], gelu: &[f32], gradient: &mut [f32], ops: &RowOps, scratch: &mut Vec<f32>) {
    // gelu'(x) = Φ(x) + x·φ(x), and Φ(x) = gelu(x) / x.
    const INV_SQRT_TAU: f32 = 0.398_942_3;
    scratch.clear();
    scratch.extend(x.iter().map(|x| -0.5 * x * x));
    ops.exp(scratch);
    for (((g, x), y), density) in gradient.iter_mut().zip(x).zip(gelu).zip(&*scratch) {
        let cumulative = if *x == 0.0 { 0.5 } else { y / x };
        *g *= cumulative + x * density * INV_SQRT_TAU;
    }
}

/// Rows of n: gradient of the softmax's weights → that of its scores, given the weights.
pub fn softmax_backward(weights: &[f32], gradient: &mut [f32], n: usize) {
    for (weights, gradient) in weights.chunks_exact(n).zip(gradient.chunks_exact_mut(n)) {
        let mean = dot(weights, gradient);
        for (g, w) in gradient.iter_mut().zip(weights) {
            *g = w * (*g - mean);
        }
    }
}
