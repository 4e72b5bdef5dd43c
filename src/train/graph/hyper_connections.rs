//! Manifold-constrained hyper-connections, as `model::hyper_connections` computes them; the grouping of rows is explained there.

use candle_core::{D, Result, Tensor};
use candle_nn::ops::sigmoid;

use super::{Scope, rms_norm};
use crate::model::architecture::HyperConnections as Sizes;

/// The connection around one attention or feed-forward. Axis letters: l leading, n token, f fraction, s stream, d feature.
pub struct HyperConnections {
    sizes: Sizes,
    /// 1 + gamma: [d]
    gain: Tensor,
    /// [d, f·s + f]
    dynamic_alpha: Tensor,
    /// [f, s, f·s + f]
    static_alpha: Tensor,
    /// [f·s + f]
    alpha_scale: Tensor,
    /// [d, f]
    dynamic_beta: Tensor,
    /// [s, f]
    static_beta: Tensor,
    /// [1]
    post_scale: Tensor,
}

/// What [`HyperConnections::width`] leaves for [`HyperConnections::depth`].
pub struct Streams {
    /// Mixed streams: [l, n, dim]
    residuals: Tensor,
    /// [l / s · n, s · f2, f1]
    beta: Tensor,
}

impl HyperConnections {
    pub fn new(scope: &Scope, sizes: Sizes) -> Result<Self> {
        let Sizes { streams, fracs, .. } = sizes;
        let dim = scope.arch.dim / fracs;
        let (rows, columns) = (streams * fracs, streams * fracs + fracs);
        let scale = |name: &str, n: usize| scope.get(name)?.broadcast_as(n)?.contiguous();
        Ok(Self {
            gain: (scope.get("norm.gamma")? + 1.0)?,
            dynamic_alpha: scope.get("dynamic_alpha_fn")?.reshape((dim, columns))?,
            static_alpha: scope.get("static_alpha")?.reshape((fracs, streams, columns))?,
            alpha_scale: Tensor::cat(
                &[scale("pre_branch_scale", fracs)?, scale("residual_scale", rows)?],
                0,
            )?,
            dynamic_beta: scope.get("dynamic_beta_fn")?.reshape((dim, fracs))?,
            static_beta: scope.get("static_beta")?.reshape((streams, fracs))?,
            post_scale: scope.get("h_post_scale")?.reshape(1)?,
            sizes,
        })
    }

    /// Mixes the streams. residuals: [l, n, dim] → branch input [l / s, n, dim] and what `depth` needs.
    pub fn width(&self, residuals: &Tensor) -> Result<(Tensor, Streams)> {
        let Sizes { streams, fracs, sinkhorn_iters } = self.sizes;
        let (leading, tokens, dim) = residuals.dims3()?;
        let groups = leading / streams;
        let (d, columns) = (dim / fracs, streams * fracs + fracs);
        // [l/s, n, f, s, d]
        let split =
            residuals.reshape((groups, streams, tokens, fracs, d))?.permute((0, 2, 3, 1, 4))?.contiguous()?;
        let rows = rms_norm(&split)?.broadcast_mul(&self.gain)?.reshape(((), d))?;
        let alpha = rows
            .matmul(&self.dynamic_alpha)?
            .broadcast_mul(&self.alpha_scale)?
            .reshape((groups * tokens, fracs, streams, columns))?
            .broadcast_add(&self.static_alpha)?;
        let branch = sigmoid(&alpha.narrow(D::Minus1, 0, 1)?.contiguous()?)?;
        let mixing = sinkhorn(&alpha.narrow(D::Minus1, 1, columns - 1)?.contiguous()?, sinkhorn_iters)?;
        // [l/s · n, f2 · (1 + s), f1 · s]
        let alpha = Tensor::cat(&[branch, mixing], D::Minus1)?
            .reshape((groups * tokens, fracs * streams, columns))?
            .transpose(1, 2)?
            .contiguous()?;
        let mixed = alpha.matmul(&split.reshape((groups * tokens, fracs * streams, d))?)?.reshape((
            groups,
            tokens,
            fracs,
            1 + streams,
            d,
        ))?;
        let input = mixed.narrow(3, 0, 1)?.contiguous()?.reshape((groups, tokens, dim))?;
        let residuals = mixed
            .narrow(3, 1, streams)?
            .permute((0, 3, 1, 2, 4))?
            .contiguous()?
            .reshape((leading, tokens, dim))?;
        let beta = rows
            .matmul(&self.dynamic_beta)?
            .broadcast_mul(&self.post_scale)?
            .reshape((groups * tokens, fracs, streams, fracs))?
            .broadcast_add(&self.static_beta)?;
        let beta = (sigmoid(&beta)? * 2.0)?
            .reshape((groups * tokens, fracs, streams * fracs))?
            .transpose(1, 2)?
            .contiguous()?;
        Ok((input, Streams { residuals, beta }))
    }

    /// Adds the branch's output [l / s, n, dim] to the streams → [l, n, dim].
    pub fn depth(&self, output: &Tensor, streams: Streams) -> Result<Tensor> {
        let Sizes { streams: s, fracs, .. } = self.sizes;
        let (groups, tokens, dim) = output.dims3()?;
        let spread = streams
            .beta
            .matmul(&output.contiguous()?.reshape((groups * tokens, fracs, dim / fracs))?)?
            .reshape((groups, tokens, s, dim))?
            .permute((0, 2, 1, 3))?
            .contiguous()?
            .reshape((groups * s, tokens, dim))?;
        spread + streams.residuals
    }
}

/// Sinkhorn-Knopp: exponentials made doubly stochastic over the last two axes.
fn sinkhorn(log_alpha: &Tensor, iters: usize) -> Result<Tensor> {
    let mut alpha = log_alpha.broadcast_sub(&log_alpha.detach().max_keepdim(D::Minus2)?)?.exp()?;
    for _ in 0..iters {
        for axis in [D::Minus2, D::Minus1] {
            // Exponentials are positive, so their sum is the L1 norm.
            alpha = alpha.broadcast_div(&alpha.sum_keepdim(axis)?.maximum(1e-12)?)?;
        }
    }
    Ok(alpha)
}
