//! Manifold-constrained hyper-connections: several residual streams instead of one (arXiv 2409.19606, appendix J; with
//! fractions, arXiv 2503.14125), as `hyper-connections` 0.4 computes them.
//!
//! The streams are innermost on the leading axis, `(b s)`. The references pack bands into that axis *before* a transformer
//! separates the streams, so a group of `streams` neighbouring rows does not always hold the streams of one token.
//! Checkpoints were trained this way, so the grouping is kept.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::sigmoid;

use super::architecture::{Architecture, HyperConnections as Sizes};
use super::linear::get_f32;
use super::norm::RmsNorm;

/// The connection around one attention or feed-forward. Axis letters: l leading, n token, f fraction, s stream, d feature.
pub(super) struct HyperConnections {
    sizes: Sizes,
    norm: RmsNorm,
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
    /// []
    post_scale: f64,
}

/// Values that [`HyperConnections::width`] passes to [`HyperConnections::depth`].
pub(super) struct Streams {
    /// Mixed streams: [l, n, dim]
    residuals: Tensor,
    /// [l / s, n, f1, s, f2]
    beta: Tensor,
}

impl HyperConnections {
    pub fn new(arch: &Architecture, sizes: Sizes, vb: VarBuilder) -> Result<Self> {
        let Sizes { streams, fracs, .. } = sizes;
        let dim = arch.dim / fracs;
        let (rows, columns) = (streams * fracs, streams * fracs + fracs);
        let scale = |name: &str, n: usize| get_f32(&vb, 1, name)?.broadcast_as(n)?.contiguous();
        let dynamic_beta = if fracs == 1 {
            get_f32(&vb, dim, "dynamic_beta_fn")?.unsqueeze(1)?
        } else {
            get_f32(&vb, (dim, fracs), "dynamic_beta_fn")?
        };
        Ok(Self {
            norm: RmsNorm::one_plus(dim, vb.pp("norm"))?,
            dynamic_alpha: get_f32(&vb, (1, dim, columns), "dynamic_alpha_fn")?.squeeze(0)?,
            static_alpha: get_f32(&vb, (rows, columns), "static_alpha")?
                .reshape((fracs, streams, columns))?,
            alpha_scale: Tensor::cat(
                &[scale("pre_branch_scale", fracs)?, scale("residual_scale", rows)?],
                0,
            )?,
            dynamic_beta,
            static_beta: get_f32(&vb, rows, "static_beta")?.reshape((streams, fracs))?,
            post_scale: f64::from(get_f32(&vb, (), "h_post_scale")?.to_scalar::<f32>()?),
            sizes,
        })
    }

    /// Mixes the streams. residuals: [l, n, dim] → branch input [l / s, n, dim] and the values for `depth`.
    pub fn width(&self, residuals: &Tensor) -> Result<(Tensor, Streams)> {
        let Sizes { streams, fracs, sinkhorn_iters } = self.sizes;
        let (leading, tokens, dim) = residuals.dims3()?;
        let groups = leading / streams;
        let (d, columns) = (dim / fracs, streams * fracs + fracs);
        // [l/s, n, f, s, d]
        let split =
            residuals.reshape((groups, streams, tokens, fracs, d))?.permute((0, 2, 3, 1, 4))?.contiguous()?;
        let normed = self.norm.forward(&split, DType::F32)?;
        let rows = normed.reshape(((), d))?;
        let alpha = rows
            .matmul(&self.dynamic_alpha)?
            .broadcast_mul(&self.alpha_scale)?
            .reshape((groups * tokens, fracs, streams, columns))?
            .broadcast_add(&self.static_alpha)?;
        let branch = sigmoid(&alpha.narrow(D::Minus1, 0, 1)?.contiguous()?)?;
        let mixing = sinkhorn(&alpha.narrow(D::Minus1, 1, columns - 1)?, sinkhorn_iters)?;
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
        let input = mixed.narrow(3, 0, 1)?.reshape((groups, tokens, dim))?;
        let residuals = mixed
            .narrow(3, 1, streams)?
            .permute((0, 3, 1, 2, 4))?
            .contiguous()?
            .reshape((leading, tokens, dim))?;
        let beta = (rows.matmul(&self.dynamic_beta)? * self.post_scale)?
            .reshape((groups * tokens, fracs, streams, fracs))?
            .broadcast_add(&self.static_beta)?;
        let beta = (sigmoid(&beta)? * 2.0)?.reshape((groups, tokens, fracs, streams, fracs))?;
        Ok((input, Streams { residuals, beta }))
    }

    /// Adds the branch's output [l / s, n, dim] to the streams → [l, n, dim].
    pub fn depth(&self, output: &Tensor, streams: Streams) -> Result<Tensor> {
        let Sizes { streams: s, fracs, .. } = self.sizes;
        let (groups, tokens, dim) = output.dims3()?;
        let d = dim / fracs;
        // [l/s · n, s · f2, f1] × [l/s · n, f1, d]
        let beta =
            streams.beta.reshape((groups * tokens, fracs, s * fracs))?.transpose(1, 2)?.contiguous()?;
        let spread = beta
            .matmul(&output.reshape((groups * tokens, fracs, d))?)?
            .reshape((groups, tokens, s, dim))?
            .permute((0, 2, 1, 3))?
            .contiguous()?
            .reshape((groups * s, tokens, dim))?;
        spread + streams.residuals
    }
}

/// Sinkhorn-Knopp: exponentials made doubly stochastic over the last two axes.
fn sinkhorn(log_alpha: &Tensor, iters: usize) -> Result<Tensor> {
    let mut alpha = log_alpha.broadcast_sub(&log_alpha.max_keepdim(D::Minus2)?)?.exp()?;
    for _ in 0..iters {
        for axis in [D::Minus2, D::Minus1] {
            // Exponentials are positive, so their sum is the L1 norm.
            alpha = alpha.broadcast_div(&alpha.sum_keepdim(axis)?.maximum(1e-12)?)?;
        }
    }
    Ok(alpha)
}
