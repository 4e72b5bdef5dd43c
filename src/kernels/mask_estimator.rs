//! Mask estimators: a small MLP and a GLU for each stem and band, as GEMMs over many frames.

use super::error::KernelError;
use super::gemm::{Gemm, Packed, pad_bias};
use super::isa::{Kernels, Target};
use super::pool::Pool;
use super::rows::{SequenceRows, Sequences};
use super::scratch::{AlignedVec, with_scratch};
use super::transformer::{Linear, PREFETCH_ROWS, fold_gain, require_nonzero};

/// Frames per step through the layers.
const TILE: usize = 96;
/// Frames per task: enough to amortise loading a band's weights.
const FRAMES: usize = 4 * TILE;
/// Mask values per step of the GLU.
const COLUMNS: usize = 128;

/// The MLP of one band of one stem, packed; `mask_estimators.{n}.to_freqs.{k}.0`.
pub struct BandMlp {
    kernels: &'static Kernels,
    /// All but the last, each followed by tanh.
    hidden: Vec<(Packed, AlignedVec)>,
    /// The two halves of the last: values and gates.
    value: (Packed, AlignedVec),
    gate: (Packed, AlignedVec),
    dim: usize,
}

impl BandMlp {
    /// Packs the Linears `.0`, `.2`, `.4`, … `norm` is the gamma of a norm the features have yet to go through (BS-RoFormer's
    /// `final_norm`): the estimator then normalises its input.
    pub fn new(
        target: impl Into<Target>,
        layers: &[Linear<'_>],
        norm: Option<&[f32]>,
    ) -> Result<Self, KernelError> {
        let kernels = target.into().kernels()?;
        let folded = norm.map(fold_gain);
        require_nonzero("the number of Linears of a mask estimator", layers.len())?;
        let mut packed = Vec::with_capacity(layers.len());
        let mut width = 0;
        let mut dim = 0;
        for (i, layer) in layers.iter().enumerate() {
            let n = require_nonzero("a mask estimator's bias", layer.bias.len())?;
            let k = require_nonzero("a mask estimator's weight", layer.weight.len() / n)?;
            let columns = if i == 0 { folded.as_deref() } else { None };
            if i == 0 {
                (dim, width) = (columns.map_or(k, <[f64]>::len), columns.map_or(k, <[f64]>::len));
            }
            KernelError::check(&format!("mask estimator Linear {i}: weight"), n * width, layer.weight.len())?;
            let last = i + 1 == layers.len();
            if last && n % 2 == 1 {
                return Err(KernelError::Value {
                    what: "the width of a mask estimator's last Linear".to_owned(),
                    expected: "even (values and gates of the GLU)".to_owned(),
                    found: n,
                });
            }
            // The last Linear is packed as two, values and gates, so that the GLU can run on a few columns at a time.
            let parts = if last { 2 } else { 1 };
            for rows in (0..parts).map(|part| part * n / parts..(part + 1) * n / parts) {
                let weight = &layer.weight[rows.start * width..rows.end * width];
                let weight = Packed::new(kernels, weight, rows.len(), width, columns, 1.0)?;
                packed.push((weight, pad_bias(kernels, &layer.bias[rows])));
            }
            width = n;
        }
        let (Some(gate), Some(value)) = (packed.pop(), packed.pop()) else {
            return Err(KernelError::Size { what: "mask estimator".to_owned(), expected: 2, found: 0 });
        };
        Ok(Self { kernels, hidden: packed, value, gate, dim })
    }

    /// Mask values of a frame: frequencies · channels · 2.
    pub fn dim_out(&self) -> usize {
        self.value.0.n
    }

    /// Bytes of packed weights.
    pub fn bytes(&self) -> usize {
        let hidden = self.hidden.iter().map(|(weight, _)| weight.bytes()).sum::<usize>();
        hidden + self.value.0.bytes() + self.gate.0.bytes()
    }

    fn flops(&self) -> f64 {
        let hidden = self.hidden.iter().map(|(weight, _)| weight.n * weight.k).sum::<usize>();
        2.0 * (hidden + 2 * self.value.0.n * self.value.0.k) as f64
    }
}

/// The mask estimators of all stems.
pub struct MaskEstimator {
    kernels: &'static Kernels,
    dim: usize,
    normalize: bool,
    /// `[stem][band]`.
    stems: Vec<Vec<BandMlp>>,
    /// First mask value of each band in a frame.
    from: Vec<usize>,
    dim_out: usize,
    widest: usize,
}

impl MaskEstimator {
    /// Combines the bands of all stems, `stems[stem][band]`. `normalize`: the MLPs were packed with a norm.
    pub fn new(stems: Vec<Vec<BandMlp>>, normalize: bool) -> Result<Self, KernelError> {
        let none = || KernelError::Size { what: "mask estimators".to_owned(), expected: 1, found: 0 };
        let model = stems.first().ok_or_else(none)?;
        let first = model.first().ok_or_else(none)?;
        let (kernels, dim) = (first.kernels, first.dim);
        let mut from = vec![0];
        for band in model {
            from.push(from[from.len() - 1] + band.dim_out());
        }
        for (n, stem) in stems.iter().enumerate() {
            KernelError::check(&format!("stem {n}: bands"), model.len(), stem.len())?;
            for (k, band) in stem.iter().enumerate() {
                let name = format!("stem {n}, band {k}");
                KernelError::check(&format!("{name}: input of the mask estimator"), dim, band.dim)?;
                KernelError::check(&format!("{name}: mask"), model[k].dim_out(), band.dim_out())?;
                if band.kernels.target != kernels.target {
                    let (isa, available) = (band.kernels.target.to_string(), kernels.target.to_string());
                    return Err(KernelError::Unavailable { isa, available });
                }
            }
        }
        let widths = stems.iter().flatten().flat_map(|band| &band.hidden).map(|(weight, _)| weight.padded());
        let widest = widths.max().unwrap_or(0);
        let dim_out = from.pop().unwrap_or(0);
        Ok(Self { kernels, dim, normalize, stems, from, dim_out, widest })
    }

    /// Mask values of a frame, over all bands.
    pub fn dim_out(&self) -> usize {
        self.dim_out
    }

    /// Stems.
    pub fn stems(&self) -> usize {
        self.stems.len()
    }

    /// Bytes of packed weights.
    pub fn bytes(&self) -> usize {
        self.stems.iter().flatten().map(BandMlp::bytes).sum()
    }

    /// Multiply-adds · 2 of one [`Self::forward`].
    pub fn flops(&self, frames: usize) -> f64 {
        self.stems.iter().flatten().map(BandMlp::flops).sum::<f64>() * frames as f64
    }

    /// masks [stems, frames, dim_out] ← x [frames, bands, dim].
    pub fn forward(
        &self,
        pool: &Pool,
        x: &[f32],
        masks: &mut [f32],
        frames: usize,
    ) -> Result<(), KernelError> {
        let (stems, bands) = (self.stems.len(), self.from.len());
        KernelError::check("x", frames.saturating_mul(bands * self.dim), x.len())?;
        KernelError::check("masks", frames.saturating_mul(stems * self.dim_out), masks.len())?;
        let rows = SequenceRows::new(masks, self.dim_out, Sequences::band(stems, frames));
        // Equal blocks of frames.
        let blocks = frames.div_ceil(FRAMES);
        let block = frames.div_ceil(blocks.max(1)).next_multiple_of(TILE.min(frames.max(1)));
        pool.run(blocks * bands * stems, |task| {
            // The widest bands come last in a frame; they start first so that the tasks end together.
            let k = bands - 1 - task / (blocks * stems);
            let (n, first) = ((task / blocks) % stems, (task % blocks) * block);
            let last = (first + block).min(frames);
            let mut from = first;
            while from < last {
                let m = TILE.min(last - from);
                // SAFETY: masks of this stem, band and frames are this task's alone.
                self.kernels.with_tile_registers(|| unsafe { self.tile(x, &rows, n, k, from, m, frames) });
                from += m;
            }
        });
        Ok(())
    }

    /// Frames first..first + m of one stem and band.
    ///
    /// # Safety
    /// No one else may touch these mask values; x and masks have the sizes checked in `forward`.
    #[allow(clippy::too_many_arguments, reason = "coordinates of a tile")]
    unsafe fn tile(
        &self,
        x: &[f32],
        masks: &SequenceRows<'_>,
        n: usize,
        k: usize,
        first: usize,
        m: usize,
        frames: usize,
    ) {
        let (kn, nr, dim, bands) = (self.kernels, self.kernels.nr, self.dim, self.from.len());
        let mlp = &self.stems[n][k];
        let columns = COLUMNS.next_multiple_of(nr);
        let lda = kn.packed_stride(dim);
        let sizes = [
            kn.operand_len(m, dim),
            dim,
            m * self.widest,
            m * self.widest,
            kn.converted_len(m, self.widest),
            m * columns,
            m * columns,
        ];
        with_scratch(sizes, |[xn, spare, ping, pong, converted, value, gate]| {
            let [xn, spare, mut ping, mut pong] = [xn, spare, ping, pong].map(<[f32]>::as_mut_ptr);
            let [converted, value, gate] = [converted, value, gate].map(<[f32]>::as_mut_ptr);
            // SAFETY: pointers are scratch slices of the sizes above, rows of x or of this task's masks.
            unsafe {
                for row in 0..m {
                    let source = |row: usize| &x[((first + row) * bands + k) * dim..][..dim];
                    (kn.prefetch)(source((row + PREFETCH_ROWS).min(m - 1)).as_ptr(), dim);
                    let source = source(row).as_ptr();
                    kn.write_operand_row(xn, row, dim, spare, |to| {
                        if self.normalize {
                            (kn.normalize)(source, to, dim, std::ptr::null());
                        } else {
                            std::ptr::copy_nonoverlapping(source, to, dim);
                        }
                    });
                }
                let (mut a, mut lda) = (xn.cast_const(), lda);
                let layer = |(weight, bias): &(Packed, AlignedVec),
                             a: *const f32,
                             lda,
                             from: usize,
                             n: usize,
                             c,
                             ldc| {
                    (kn.gemm_packed)(&Gemm {
                        m,
                        n: n.next_multiple_of(nr),
                        k: weight.k,
                        a,
                        lda,
                        b: weight.column(from),
                        b_panel: weight.panel_stride(),
                        c,
                        ldc,
                        c_panel: nr,
                        bias: bias.as_ptr().add(from),
                        accumulate: false,
                    });
                };
                for hidden in &mlp.hidden {
                    let width = hidden.0.padded();
                    layer(hidden, a, lda, 0, width, ping, width);
                    (kn.tanh)(ping, m * width);
                    (a, lda) = kn.to_operand(ping, m, hidden.0.n, width, converted);
                    std::mem::swap(&mut ping, &mut pong);
                }
                let out = mlp.dim_out();
                let mut from = 0;
                while from < out {
                    let width = columns.min(out - from);
                    layer(&mlp.value, a, lda, from, width, value, columns);
                    layer(&mlp.gate, a, lda, from, width, gate, columns);
                    for row in 0..m {
                        let mask = masks.ptr(n * frames + first + row).add(self.from[k] + from);
                        (kn.glu)(value.add(row * columns), gate.add(row * columns), mask, width);
                    }
                    from += width;
                }
            }
        });
    }
}
