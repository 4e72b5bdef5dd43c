//! Mask estimators: a small MLP and a GLU for each stem and band, as GEMMs over many frames.

use std::ops::Range;

use super::compiled::Kernels;
use super::error::KernelError;
use super::layout::{Activations, Addend, Gemm, Output};
use super::packed::{Packed, pad_bias};
use super::pool::Pool;
use super::rows::{SequenceRows, Sequences};
use super::scratch::{AlignedVec, with_scratch};
use super::target::Target;
use super::transformer::{Linear, PREFETCH_ROWS, fold_gain, require_nonzero};

/// Frames per step through the layers.
const TILE: usize = 96;
/// Frames per task: enough to amortise loading a band's weights.
const FRAMES: usize = 4 * TILE;
/// Mask values per step of the GLU.
const COLUMNS: usize = 128;

/// The MLP of one band of one stem, packed; `mask_estimators.{n}.to_freqs.{k}.0`.
pub struct BandMlp {
    target: Target,
    kernels: &'static Kernels,
    /// All but the last, each followed by tanh.
    hidden: Vec<(Packed, AlignedVec)>,
    /// The two halves of the last: values and gates.
    value: (Packed, AlignedVec),
    gate: (Packed, AlignedVec),
    /// The norm's gain where the first Linear does not contain it.
    gain: Option<Vec<f32>>,
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
        let target = target.into();
        let kernels = target.kernels()?;
        let folded = norm.map(fold_gain);
        require_nonzero("the number of Linears of a mask estimator", layers.len())?;
        let mut packed = Vec::with_capacity(layers.len());
        let (mut width, mut dim, mut gain) = (0, 0, None);
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
            let halves = Packed::exact_parts(kernels, layer.weight, [n, width], parts, columns)?;
            let bias = layer.bias.chunks_exact(n / parts).map(|bias| pad_bias(kernels.nr, bias));
            packed.extend(halves.0.into_iter().zip(bias));
            gain = if i == 0 { halves.1 } else { gain };
            width = n;
        }
        let (Some(gate), Some(value)) = (packed.pop(), packed.pop()) else {
            return Err(KernelError::Size { what: "mask estimator".to_owned(), expected: 2, found: 0 });
        };
        Ok(Self { target, kernels, hidden: packed, value, gate, gain, dim })
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

    /// The GLU of the last Linear of `m` frames, whose inputs are `a`, to the row of masks that `mask` gives for each frame.
    ///
    /// # Safety
    /// `a` must have m rows, `value` and `gate` room for m rows of [`glu_columns`], and masks for [`Self::dim_out`] values.
    unsafe fn write_masks(
        &self,
        a: Activations,
        m: usize,
        [value, gate]: [*mut f32; 2],
        mask: impl Fn(usize) -> *mut f32,
    ) {
        let (kn, columns) = (self.kernels, glu_columns(self.kernels));
        let mut from = 0;
        while from < self.dim_out() {
            let width = columns.min(self.dim_out() - from);
            // SAFETY: columns of these weights, and rows of the sizes that the caller vouches for.
            unsafe {
                project(kn, &self.value, a, m, from..from + width, value, columns);
                project(kn, &self.gate, a, m, from..from + width, gate, columns);
                for row in 0..m {
                    (kn.ops.glu)(
                        value.add(row * columns),
                        gate.add(row * columns),
                        mask(row).add(from),
                        width,
                    );
                }
            }
            from += width;
        }
    }

    fn flops(&self) -> f64 {
        let hidden = self.hidden.iter().map(|(weight, _)| weight.n * weight.k).sum::<usize>();
        2.0 * (hidden + 2 * self.value.0.n * self.value.0.k) as f64
    }
}

/// Columns of a step of the GLU, whole panels.
fn glu_columns(kernels: &Kernels) -> usize {
    COLUMNS.next_multiple_of(kernels.nr)
}

/// out [m, `stride`] ← a · weightᵀ + bias of some outputs, the first of them the first of a panel.
///
/// # Safety
/// `a` must have m rows, `out` room for whole panels of columns.
unsafe fn project(
    kernels: &Kernels,
    (weight, bias): &(Packed, AlignedVec),
    a: Activations,
    m: usize,
    columns: Range<usize>,
    out: *mut f32,
    stride: usize,
) {
    let product = Gemm {
        m,
        n: columns.len().next_multiple_of(kernels.nr),
        k: weight.k,
        a,
        b: weight.panels_from(columns.start),
        c: Output { data: out, stride, panel: kernels.nr },
        addend: Addend::Bias(bias[columns.start..].as_ptr()),
    };
    // SAFETY: the bias is padded as the weight is; the rest is the caller's.
    unsafe { (weight.gemm)(&product) }
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
                if band.target != first.target {
                    let (isa, available) = (band.target.to_string(), first.target.to_string());
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
        let (kn, dim, bands) = (self.kernels, self.dim, self.from.len());
        let mlp = &self.stems[n][k];
        let gain = mlp.gain.as_ref().map_or(std::ptr::null(), |gain| gain.as_ptr());
        let sizes = [
            kn.linear.operand_words(m, dim),
            dim,
            m * self.widest,
            m * self.widest,
            kn.linear.converted_words(m, self.widest),
            m * glu_columns(kn),
            m * glu_columns(kn),
        ];
        with_scratch(sizes, |[xn, spare, ping, pong, converted, value, gate]| {
            let xn = kn.linear.buffer(xn.as_mut_ptr(), m, dim);
            let [spare, mut ping, mut pong] = [spare, ping, pong].map(<[f32]>::as_mut_ptr);
            let [converted, value, gate] = [converted, value, gate].map(<[f32]>::as_mut_ptr);
            // SAFETY: pointers are scratch slices of the sizes above, rows of x or of this task's masks.
            unsafe {
                for row in 0..m {
                    let source = |row: usize| &x[((first + row) * bands + k) * dim..][..dim];
                    (kn.ops.prefetch)(source((row + PREFETCH_ROWS).min(m - 1)).as_ptr(), dim);
                    let source = source(row).as_ptr();
                    xn.write_row(row, spare, |to| {
                        if self.normalize {
                            (kn.ops.normalize)(source, to, dim, gain);
                        } else {
                            std::ptr::copy_nonoverlapping(source, to, dim);
                        }
                    });
                }
                let mut a = xn.activations();
                for hidden in &mlp.hidden {
                    let (weight, width) = (&hidden.0, hidden.0.padded());
                    project(kn, hidden, a, m, 0..width, ping, width);
                    (kn.ops.tanh)(ping, m * width);
                    a = kn.linear.convert(ping, [m, weight.n], width, converted);
                    std::mem::swap(&mut ping, &mut pong);
                }
                mlp.write_masks(a, m, [value, gate], |row| {
                    masks.ptr(n * frames + first + row).add(self.from[k])
                });
            }
        });
    }
}
