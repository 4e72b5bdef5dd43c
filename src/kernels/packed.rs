//! Weights packed once into the panels of a product.

use half::bf16;

use super::compiled::Kernels;
use super::error::KernelError;
use super::layout::{Element, Gemm, Panels};
use super::product::LinearProduct;
use super::scratch::AlignedVec;
use super::target::widening_product;

/// A weight matrix [n, k] as panels of `nr` columns (see [`layout`](super::layout)).
pub(super) struct Packed {
    pub n: usize,
    pub k: usize,
    /// The product that reads it.
    pub gemm: unsafe fn(&Gemm),
    nr: usize,
    element: Element,
    data: AlignedVec,
    /// i8: the scale of each column. Empty for other formats, as `initial` is where activations are signed.
    scales: AlignedVec,
    initial: AlignedVec,
}

/// Factors that are multiplied into the weights: one for all, and one for each input.
#[derive(Clone, Copy)]
pub(super) struct Folded<'a> {
    pub scale: f64,
    pub columns: Option<&'a [f64]>,
}

impl Folded<'_> {
    /// No factors.
    pub const NONE: Self = Folded { scale: 1.0, columns: None };

    fn apply(&self, row: &[f32], out: &mut [f32]) {
        if self.scale == 1.0 && self.columns.is_none() {
            out.copy_from_slice(row);
            return;
        }
        for (p, (out, &w)) in out.iter_mut().zip(row).enumerate() {
            *out = (f64::from(w) * self.scale * self.columns.map_or(1.0, |columns| columns[p])) as f32;
        }
    }
}

impl Packed {
    /// Packs rows `weight[n, k]` (PyTorch's layout) times `folded` for a product with panels of `nr` columns.
    pub fn new(
        product: &LinearProduct,
        nr: usize,
        weight: &[f32],
        [n, k]: [usize; 2],
        folded: Folded<'_>,
    ) -> Result<Self, KernelError> {
        KernelError::check("packed weight", n * k, weight.len())?;
        let element = product.right;
        let padded = n.next_multiple_of(nr);
        let panel_words = element.words(k) * nr;
        let int8 = element == Element::Int8;
        let mut packed = Self {
            n,
            k,
            gemm: product.gemm,
            nr,
            element,
            data: AlignedVec::zeroed(n.div_ceil(nr) * panel_words),
            scales: AlignedVec::zeroed(if int8 { padded } else { 0 }),
            initial: AlignedVec::zeroed(if int8 && product.unsigned_left { padded } else { 0 }),
        };
        let mut values = vec![0.0; k];
        for (j, row) in weight.chunks_exact(k.max(1)).enumerate() {
            folded.apply(row, &mut values);
            packed.put_column(j, panel_words, &values);
        }
        Ok(packed)
    }

    /// Packs weights [n, k] after a norm with `gain`, if there is one, and returns the gain where it must be applied at run time. In f32,
    /// weights that are exact in bf16, as those of small checkpoints often are, are kept in bf16: their products are the same, and few
    /// rows mostly wait for weights. A gain is then not folded into them, since the products would not be exact.
    pub fn exact(
        kernels: &Kernels,
        weight: &[f32],
        shape: [usize; 2],
        gain: Option<&[f64]>,
    ) -> Result<(Self, Option<Vec<f32>>), KernelError> {
        let (mut parts, gain) = Self::exact_parts(kernels, weight, shape, 1, gain)?;
        let missing = || KernelError::Size { what: "packed weight".to_owned(), expected: 1, found: 0 };
        Ok((parts.pop().ok_or_else(missing)?, gain))
    }

    /// As [`Self::exact`], of `parts` equal parts of the outputs.
    pub fn exact_parts(
        kernels: &Kernels,
        weight: &[f32],
        [n, k]: [usize; 2],
        parts: usize,
        gain: Option<&[f64]>,
    ) -> Result<(Vec<Self>, Option<Vec<f32>>), KernelError> {
        KernelError::check("packed weight", n * k, weight.len())?;
        let f32_weights = kernels.linear.right == Element::F32;
        let half = widening_product(kernels)
            .filter(|_| f32_weights && weight.iter().all(|&w| bf16::from_f32(w).to_f32() == w));
        let folded = Folded { columns: gain.filter(|_| half.is_none()), ..Folded::NONE };
        let product = half.unwrap_or(&kernels.linear);
        let packed = weight
            .chunks_exact((n / parts * k).max(1))
            .map(|part| Self::new(product, kernels.nr, part, [n / parts, k], folded))
            .collect::<Result<_, _>>()?;
        let gain = gain.filter(|_| half.is_some()).map(|gain| gain.iter().map(|&g| g as f32).collect());
        Ok((packed, gain))
    }

    /// Writes the k values of output `j` into its panel.
    fn put_column(&mut self, j: usize, panel_words: usize, values: &[f32]) {
        let nr = self.nr;
        let column = &mut self.data[j / nr * panel_words..][..panel_words][j % nr..];
        match self.element {
            Element::F32 => {
                column.iter_mut().step_by(nr).zip(values).for_each(|(word, &value)| *word = value)
            }
            Element::Bf16 => {
                for (word, pair) in column.iter_mut().step_by(nr).zip(values.chunks(2)) {
                    let half = |i: usize| pair.get(i).map_or(0, |&v| u32::from(bf16::from_f32(v).to_bits()));
                    *word = f32::from_bits(half(1) << 16 | half(0));
                }
            }
            Element::Int8 => {
                let scale = int8_scale(values);
                let mut sum = 0i32;
                for (word, four) in column.iter_mut().step_by(nr).zip(values.chunks(4)) {
                    let mut bytes = [0i8; 4];
                    for (byte, &value) in bytes.iter_mut().zip(four) {
                        *byte = quantize(value, scale);
                        sum += i32::from(*byte);
                    }
                    *word = f32::from_bits(u32::from_le_bytes(bytes.map(|byte| byte as u8)));
                }
                self.scales[j] = scale;
                if let Some(initial) = self.initial.get_mut(j) {
                    // Unsigned activations are 128 too large.
                    *initial = f32::from_bits((-128 * sum) as u32);
                }
            }
        }
    }

    /// Matrices of the same k side by side, each from its own panel on.
    pub fn stack(parts: &[Self]) -> Option<Self> {
        let first = parts.first()?;
        let concat = |part: fn(&Self) -> &AlignedVec| {
            let mut all = AlignedVec::zeroed(parts.iter().map(|p| part(p).len()).sum());
            let mut from = 0;
            for part in parts.iter().map(part) {
                all[from..from + part.len()].copy_from_slice(part);
                from += part.len();
            }
            all
        };
        Some(Self {
            n: parts.iter().map(Self::padded).sum(),
            k: first.k,
            gemm: first.gemm,
            nr: first.nr,
            element: first.element,
            data: concat(|part| &part.data),
            scales: concat(|part| &part.scales),
            initial: concat(|part| &part.initial),
        })
    }

    /// Outputs with the padding to whole panels.
    pub fn padded(&self) -> usize {
        self.n.next_multiple_of(self.nr)
    }

    /// All panels.
    pub fn panels(&self) -> Panels {
        self.panels_from(0)
    }

    /// The panels from output `column` on, the first of a panel.
    pub fn panels_from(&self, column: usize) -> Panels {
        debug_assert!(column.is_multiple_of(self.nr) && column <= self.padded());
        let stride = self.element.words(self.k) * self.nr;
        let from = |values: &AlignedVec| match values.len() {
            0 => core::ptr::null(),
            _ => values.as_ptr().wrapping_add(column),
        };
        Panels {
            data: self.data.as_ptr().wrapping_add(column / self.nr * stride),
            stride,
            scales: from(&self.scales),
            initial: from(&self.initial),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.data.len() + self.scales.len() + self.initial.len()) * size_of::<f32>()
    }
}

/// The scale that maps the largest magnitude of `values` to 127; 0 if all are 0 or too small for a reciprocal.
fn int8_scale(values: &[f32]) -> f32 {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    if largest < super::ops::SMALLEST_PEAK { 0.0 } else { largest / 127.0 }
}

fn quantize(value: f32, scale: f32) -> i8 {
    // `as` saturates, so that −128 cannot arise from a scale rounded down.
    if scale == 0.0 { 0 } else { (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8 }
}

/// A bias padded as the weight's panels are.
pub(super) fn pad_bias(nr: usize, bias: &[f32]) -> AlignedVec {
    let mut padded = AlignedVec::zeroed(bias.len().next_multiple_of(nr));
    padded[..bias.len()].copy_from_slice(bias);
    padded
}
