//! Band split: normalises each band of the spectrogram and projects it to `dim` features.

use super::compiled::Kernels;
use super::error::KernelError;
use super::layout::{Addend, Gemm, Output};
use super::packed::{Packed, pad_bias};
use super::pool::Pool;
use super::rows::{SequenceRows, Sequences};
use super::scratch::{AlignedVec, with_scratch};
use super::target::Target;
use super::transformer::{Linear, fold_gain, require_nonzero};

/// Frames of a task.
const TILE: usize = 96;

/// The parameters of one band, `band_split.to_features.{k}`.
#[derive(Debug, Clone, Copy)]
pub struct BandWeights<'a> {
    /// `0.gamma` `[dim_in]`.
    pub norm: &'a [f32],
    /// `1` [dim, dim_in].
    pub linear: Linear<'a>,
}

/// All bands' norms and projections, packed.
pub struct BandSplit {
    kernels: &'static Kernels,
    dim: usize,
    dim_in: usize,
    bands: Vec<Band>,
}

struct Band {
    /// First feature of the band in a frame.
    from: usize,
    weight: Packed,
    /// The norm's gain where the weights do not contain it.
    gain: Option<Vec<f32>>,
    bias: AlignedVec,
}

impl BandSplit {
    /// Packs the bands, in the order of their features.
    pub fn new(target: impl Into<Target>, bands: &[BandWeights<'_>]) -> Result<Self, KernelError> {
        let kernels = target.into().kernels()?;
        let dim =
            require_nonzero("the bands' biases", bands.first().map_or(0, |band| band.linear.bias.len()))?;
        let mut from = 0;
        let mut packed = Vec::with_capacity(bands.len());
        for (k, band) in bands.iter().enumerate() {
            let dim_in = require_nonzero("a band's norm", band.norm.len())?;
            KernelError::check(&format!("band {k}: weight"), dim * dim_in, band.linear.weight.len())?;
            KernelError::check(&format!("band {k}: bias"), dim, band.linear.bias.len())?;
            let gain = fold_gain(band.norm);
            let (weight, gain) = Packed::exact(kernels, band.linear.weight, [dim, dim_in], Some(&gain))?;
            packed.push(Band { from, weight, gain, bias: pad_bias(kernels.nr, band.linear.bias) });
            from += dim_in;
        }
        Ok(Self { kernels, dim, dim_in: from, bands: packed })
    }

    /// Features of a frame, over all bands.
    pub fn dim_in(&self) -> usize {
        self.dim_in
    }

    /// Multiply-adds · 2 of one [`Self::forward`].
    pub fn flops(&self, frames: usize) -> f64 {
        2.0 * (self.dim * self.dim_in) as f64 * frames as f64
    }

    /// x [frames, bands, dim] ← the bands of features [frames, dim_in].
    pub fn forward(
        &self,
        pool: &Pool,
        features: &[f32],
        x: &mut [f32],
        frames: usize,
    ) -> Result<(), KernelError> {
        let bands = self.bands.len();
        KernelError::check("features", frames.saturating_mul(self.dim_in), features.len())?;
        KernelError::check("x", frames.saturating_mul(bands * self.dim), x.len())?;
        let rows = SequenceRows::new(x, self.dim, Sequences::band(frames, bands));
        let blocks = frames.div_ceil(TILE);
        // The widest bands come last in a frame; they start first so that the tasks end together.
        pool.run(blocks * bands, |task| {
            let k = bands - 1 - task / blocks;
            let first = (task % blocks) * TILE;
            let m = TILE.min(frames - first);
            let Band { from, weight, gain, bias } = &self.bands[k];
            let gain = gain.as_ref().map_or(std::ptr::null(), |gain| gain.as_ptr());
            let kn = self.kernels;
            with_scratch([kn.linear.operand_words(m, weight.k), weight.k], |[xn, spare]| {
                let xn = kn.linear.buffer(xn.as_mut_ptr(), m, weight.k);
                // SAFETY: the features of frame first + row lie within the slice checked above; the rows of x of this band
                // and these frames are this task's alone, `bands` rows apart.
                kn.with_tile_registers(|| unsafe {
                    for row in 0..m {
                        let band = &features[(first + row) * self.dim_in + from..][..weight.k];
                        xn.write_row(row, spare.as_mut_ptr(), |to| {
                            (kn.ops.normalize)(band.as_ptr(), to, weight.k, gain);
                        });
                    }
                    (weight.gemm)(&Gemm {
                        m,
                        n: self.dim,
                        k: weight.k,
                        a: xn.activations(),
                        b: weight.panels(),
                        c: Output {
                            data: rows.ptr(first * bands + k),
                            stride: bands * self.dim,
                            panel: kn.nr,
                        },
                        addend: Addend::Bias(bias.as_ptr()),
                    });
                });
            });
        });
        Ok(())
    }
}
