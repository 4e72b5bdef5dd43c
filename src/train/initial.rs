//! Initial values of a new network's tensors, distributed as PyTorch and the reference packages draw them.

use crate::dsp::Random;
use crate::model::architecture::Architecture;

/// Values of the tensor `name` of `arch`, determined by name, shape and seed.
pub(super) fn values(arch: &Architecture, name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let count = shape.iter().product();
    let mut random = Random::new(name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }));
    let leaf = name.rsplit('.').next().unwrap_or(name);
    match leaf {
        "freqs" => frequencies(count, arch.dim_head, 2.0),
        "inv_freqs" => frequencies(count, arch.dim_head, 1.0),
        // Hyper-connections keep their norm at gain 1 + gamma.
        "gamma" if arch.hyper_connections.is_some() && is_hyper_norm(name) => vec![0.0; count],
        "gamma" | "temperature" | "static_beta" => vec![1.0; count],
        "static_alpha" => static_alpha(shape, arch.hyper_connections.map_or(1, |h| h.streams), &mut random),
        "dynamic_alpha_fn" | "dynamic_beta_fn" => vec![0.0; count],
        "pre_branch_scale" | "residual_scale" | "h_post_scale" => vec![1e-2; count],
        "bias" if name.ends_with("pope_embed.bias") => vec![0.0; count],
        // torch.nn.Linear: uniform within ±1/sqrt(inputs). A bias does not say how many inputs its layer has, and its own length
        // is near enough.
        _ => {
            let inputs = shape.last().copied().unwrap_or(1).max(1);
            let bound = 1.0 / (inputs as f32).sqrt();
            (0..count).map(|_| bound * random.bipolar()).collect()
        }
    }
}

/// Whether a norm at `…{part}.norm.gamma` is a hyper-connection's. Attention has its norm at `….branch.norm.gamma` wherever the
/// network has hyper-connections.
fn is_hyper_norm(name: &str) -> bool {
    // layers.{i}.{axis}.layers.{block}.{part}.norm.gamma
    let parts: Vec<&str> = name.split('.').collect();
    parts.len() == 8 && parts[3] == "layers"
}

/// theta^(-step·i/dim) with theta 10000.
fn frequencies(count: usize, dim: usize, step: f64) -> Vec<f32> {
    (0..count).map(|i| 10_000f64.powf(-step * i as f64 / dim as f64) as f32).collect()
}

/// One stream feeds the branch, and every stream goes on as it is: [streams·fracs, fracs + streams·fracs].
fn static_alpha(shape: &[usize], streams: usize, random: &mut Random) -> Vec<f32> {
    let &[rows, columns] = shape else { return vec![0.0; shape.iter().product()] };
    let inputs = columns.saturating_sub(rows);
    let chosen = (random.bits() % streams as u64) as usize;
    let mut alpha = vec![0.0; rows * columns];
    for (row, values) in alpha.chunks_exact_mut(columns.max(1)).enumerate() {
        if row == chosen {
            values[..inputs].fill(1.0);
        }
        values[inputs + row] = 1.0;
    }
    alpha
}
