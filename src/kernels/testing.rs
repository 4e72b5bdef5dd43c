//! Single operations outside a fused block, for tests and benchmarks.

use super::compiled::Kernels;
use super::error::KernelError;
use super::layout::{Addend, Gemm, Output};
use super::ops::SoftmaxTile;
use super::packed::{Folded, Packed, pad_bias};
use super::scratch::AlignedVec;
use super::target::Target;
use super::transformer::Linear;

/// The element- and row-wise operations of one instruction set.
#[derive(Clone, Copy)]
pub struct RowOps {
    kernels: &'static Kernels,
}

impl RowOps {
    /// The operations of `target`, if this processor can run them.
    pub fn new(target: impl Into<Target>) -> Result<Self, KernelError> {
        Ok(Self { kernels: target.into().kernels()? })
    }

    /// x ← gelu(x), exact (erf).
    pub fn gelu(&self, x: &mut [f32]) {
        // SAFETY: pointer and length come from one slice.
        unsafe { (self.kernels.ops.gelu)(x.as_mut_ptr(), x.len()) }
    }

    /// x ← tanh(x).
    pub fn tanh(&self, x: &mut [f32]) {
        // SAFETY: pointer and length come from one slice.
        unsafe { (self.kernels.ops.tanh)(x.as_mut_ptr(), x.len()) }
    }

    /// x ← sigmoid(x).
    pub fn sigmoid(&self, x: &mut [f32]) {
        // SAFETY: pointer and length come from one slice.
        unsafe { (self.kernels.ops.sigmoid)(x.as_mut_ptr(), x.len()) }
    }

    /// x ← eˣ; finite up to e⁸⁸, 0 where the result would be denormal.
    pub fn exp(&self, x: &mut [f32]) {
        // SAFETY: pointer and length come from one slice.
        unsafe { (self.kernels.ops.exp)(x.as_mut_ptr(), x.len()) }
    }

    /// x ← 2ˣ; finite up to 2¹²⁷, 0 where the result would be denormal.
    pub fn exp2(&self, x: &mut [f32]) {
        // SAFETY: pointer and length come from one slice.
        unsafe { (self.kernels.ops.exp2)(x.as_mut_ptr(), x.len()) }
    }

    /// See [`sum_of_products`](super::sum_of_products).
    pub fn sum_of_products(&self, x: &[f32], y: &[f32]) -> f32 {
        let n = x.len().min(y.len());
        // SAFETY: both have n values.
        unsafe { (self.kernels.ops.sum_of_products)(x.as_ptr(), y.as_ptr(), n) }
    }

    /// Rows of n values ← softmax, in base 2 (scores times log₂e give the usual one).
    pub fn softmax2(&self, x: &mut [f32], n: usize) {
        if n == 0 {
            return;
        }
        for row in x.chunks_exact_mut(n) {
            let (mut max, mut sum) = (0.0, 0.0);
            let tile = SoftmaxTile {
                scores: row.as_mut_ptr(),
                operand: std::ptr::null_mut(),
                rows: 1,
                n,
                ld: n,
                max: &raw mut max,
                sum: &raw mut sum,
                out: std::ptr::null_mut(),
                out_n: 0,
                out_ld: 0,
                first: true,
            };
            // SAFETY: one row of n values; `out` is not touched on the first tile.
            unsafe {
                (self.kernels.ops.softmax)(&tile);
                (self.kernels.ops.scale)(row.as_mut_ptr(), n, 1.0 / sum);
            }
        }
    }

    /// Rows of gamma.len() values ← x / max(‖x‖₂, 1e-12) · √n · gamma.
    pub fn rms_norm(&self, x: &mut [f32], gamma: &[f32]) {
        if gamma.is_empty() {
            return;
        }
        let root = (gamma.len() as f64).sqrt();
        let gamma: Vec<f32> = gamma.iter().map(|&g| (f64::from(g) * root) as f32).collect();
        for row in x.chunks_exact_mut(gamma.len()) {
            // SAFETY: a row has as many values as gamma; in place is allowed.
            unsafe { (self.kernels.ops.normalize)(row.as_ptr(), row.as_mut_ptr(), row.len(), gamma.as_ptr()) }
        }
    }

    /// Runs `rounds` rounds of multiply-adds on registers and returns their FLOPs: the peak that a benchmark divides by.
    #[doc(hidden)]
    pub fn peak_flops(&self, rounds: usize) -> f64 {
        // SAFETY: no pointers.
        let (flops, value) =
            self.kernels.with_tile_registers(|| unsafe { (self.kernels.peak_flops)(rounds) });
        std::hint::black_box(value);
        flops
    }
}

/// One packed linear layer.
#[doc(hidden)]
pub struct PackedLinear {
    kernels: &'static Kernels,
    weight: Packed,
    bias: AlignedVec,
}

impl PackedLinear {
    /// Packs `linear`.
    pub fn new(target: impl Into<Target>, linear: Linear<'_>) -> Result<Self, KernelError> {
        let kernels = target.into().kernels()?;
        let n = super::transformer::require_nonzero("bias", linear.bias.len())?;
        let shape = [n, linear.weight.len() / n];
        let weight = Packed::new(&kernels.linear, kernels.nr, linear.weight, shape, Folded::NONE)?;
        Ok(Self { kernels, weight, bias: pad_bias(kernels.nr, linear.bias) })
    }

    /// out [rows, n] ← x [rows, k] · weightᵀ + bias, on the calling thread.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
        let (n, k) = (self.weight.n, self.weight.k);
        let m = x.len() / k.max(1);
        KernelError::check("x", m * k, x.len())?;
        KernelError::check("out", m * n, out.len())?;
        let kn = self.kernels;
        let mut memory = AlignedVec::zeroed(kn.linear.operand_words(m, k));
        let mut spare = vec![0.0; k];
        let operand = kn.linear.buffer(memory.as_mut_ptr(), m, k);
        // SAFETY: sizes are checked above.
        kn.with_tile_registers(|| unsafe {
            for (i, row) in x.chunks_exact(k.max(1)).enumerate() {
                operand.write_row(i, spare.as_mut_ptr(), |to| to.copy_from(row.as_ptr(), k));
            }
            (kn.linear.gemm)(&Gemm {
                m,
                n,
                k,
                a: operand.activations(),
                b: self.weight.panels(),
                c: Output { data: out.as_mut_ptr(), stride: n, panel: kn.nr },
                addend: Addend::Bias(self.bias.as_ptr()),
            });
        });
        Ok(())
    }
}
