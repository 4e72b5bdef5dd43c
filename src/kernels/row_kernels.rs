//! Row kernels outside the network, for the best instruction set.

use std::sync::OnceLock;

use super::compiled::{self, RowKernels};
use super::isa::Format;
use super::target::Target;

/// Kernels of the best instruction set, or of the one that the environment names.
pub(super) fn row_kernels() -> &'static RowKernels {
    static KERNELS: OnceLock<&'static RowKernels> = OnceLock::new();
    KERNELS.get_or_init(|| {
        let target = Target::select(Format::F32).unwrap_or(Target::best(Format::F32));
        target.kernels().unwrap_or(compiled::PORTABLE).ops
    })
}

/// Σ x·y over the shorter of the two, in a fixed order: the bits are the same on every processor.
///
/// ```
/// assert_eq!(nullsum::kernels::sum_of_products(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), 32.0);
/// ```
pub fn sum_of_products(x: &[f32], y: &[f32]) -> f32 {
    let n = x.len().min(y.len());
    // SAFETY: both have n values.
    unsafe { (row_kernels().sum_of_products)(x.as_ptr(), y.as_ptr(), n) }
}
